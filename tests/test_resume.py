"""A training that is stopped and goes on ends with the same bits as one that was never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nertool.config.files import LOCK, locked
from nertool.config.loading import dump_config
from nertool.config.schema import Config
from nertool.errors import BundleError, DivergenceError, NertoolError
from nertool.tagging.bundle import load_bundle
from nertool.training.checkpoint import CHECKPOINT, KEPT
from nertool.training.run import Finished, Prepared, Resumed, run
from nertool.training.trainer import Epoch, Step

# Each has something else to remember between epochs.
KINDS = {
    "sgd": [
        "training.optimizer=sgd",
        "training.learning_rate=0.1",
        "training.averaging=0.9",
        "inputs.words.dropout=0.2",
    ],
    "adam": ["training.optimizer={kind: adam, weight_decay: 0.01}"],
    "adamw": ["training.optimizer=adamw", "training.schedule={kind: plateau, reduce_every: 1}"],
    "locked": ["model.locked_dropout=true", "model.dropout=0.5", "training.schedule=one_cycle"],
    "frozen": ["inputs.words.trainable=false", "training.averaging=0.5"],
}
# Under these some epochs are not the best so far.
OFTEN_WORSE = [
    "training.seed=2",
    "training.epochs=10",
    "training.learning_rate=0.5",
    "model.dropout=0.5",
    "corpus.validation=test.txt",
]
TIMES = {"seconds", "tokens_per_second"}


def outcome(folder: Path) -> tuple[bytes, list[Any], Any]:
    """Weights, metrics and results of a run, without what a clock says."""

    def timeless(tree: Any) -> Any:
        return {key: value for key, value in tree.items() if key not in TIMES}

    metrics = [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    results = timeless(json.loads((folder / "results.json").read_text()))
    return (folder / "weights.safetensors").read_bytes(), metrics, results


def stop_in(records: Iterator[Any], epoch: int) -> None:
    """Stop a training at the first step of an epoch."""
    with closing(records):
        while not (isinstance(record := next(records), Step) and record.epoch == epoch):
            pass


def stop_after(records: Iterator[Any], count: int) -> list[Any]:
    """Take so many records and leave the rest."""
    with closing(records):
        return [record for record, _ in zip(records, range(count), strict=False)]


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_anywhere_it_ends_the_same(kind: str, tiny_config: Callable[..., Config], tmp_path: Path):
    config = tiny_config("training.epochs=6", *KINDS[kind])
    whole = list(run(config, tmp_path / "whole"))
    wanted = outcome(tmp_path / "whole")
    assert not (tmp_path / "whole" / KEPT).exists()
    places = random.Random(kind)
    for attempt in range(3):
        folder = tmp_path / f"stopped-{attempt}"
        stops = 0
        while not (folder / "results.json").exists():
            stops += 1
            count = places.randrange(1, len(whole)) if stops < 5 else len(whole) + 1
            stop_after(run(config, folder, resume=True), count)
        assert outcome(folder) == wanted


def test_it_tells_the_epochs_before_and_trains_only_the_others(tiny_config: Callable[..., Config], tmp_path: Path):
    config = tiny_config("training.epochs=4")
    first: list[Any] = []
    with closing(run(config, tmp_path)) as records:
        for record in records:
            first.append(record)
            if isinstance(record, Step) and record.epoch == 3:
                break
    before = [record for record in first if isinstance(record, Epoch)]
    second = list(run(config, tmp_path, resume=True))
    resumed = next(record for record in second if isinstance(record, Resumed))
    assert resumed.epochs == before
    assert {record.epoch for record in second if isinstance(record, Step)} == {3, 4}
    assert isinstance(second[-1], Finished) and second[-1].epochs == 4


def test_without_resume_it_begins_anew(tiny_config: Callable[..., Config], tmp_path: Path):
    config = tiny_config("training.epochs=3")
    stop_after(run(config, tmp_path), 9)
    assert (tmp_path / CHECKPOINT).exists()
    records = list(run(config, tmp_path))
    assert not any(isinstance(record, Resumed) for record in records)
    assert sum(isinstance(record, Epoch) for record in records) == 3


def test_patience_that_had_run_out_trains_no_further(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # No epoch is better than the first: F1 stays 0 at this rate.
    config = tiny_config("training.epochs=9", "training.patience=2", "training.learning_rate=1e-9")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("nertool.training.run.score", stopped)
        list(run(config, tmp_path))
    again = list(run(config, tmp_path, resume=True))
    assert not any(isinstance(record, Step) for record in again)
    assert isinstance(again[-1], Finished) and again[-1].epochs == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["training.learning_rate=0.5"], ["training.learning_rate: 0.5, was 0.02"]),
        (
            ["training.seed=2", "training.batch_size=5"],
            ["training.batch_size: 5, was 4", "training.seed: 2, was 1"],
        ),
        (["model.encoder.hidden=13"], ["model.encoder.hidden: 13, was 12"]),
        (["inputs.case={}"], ["inputs: [words, characters, case], was [words, characters]"]),
        (["training.schedule=cosine"], ["training.schedule.kind: cosine, was inverse"]),
        (["corpus.validation=test.txt"], ["the content of the validation split", "corpus.validation: "]),
        (
            ["corpus.learn_scheme=IOB2"],
            ["the content of the training split", "corpus.learn_scheme: IOB2, was IOBES"],
        ),
        (["corpus"], ["the content of the training split"]),
    ],
    ids=str,
)
def test_what_changes_the_past_is_refused_and_named(
    changes: list[str], named: list[str], tiny_config: Callable[..., Config], tmp_path: Path
):
    config = tiny_config("training.epochs=4")
    stop_after(run(config, tmp_path), 9)
    assert (tmp_path / CHECKPOINT).exists()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    if changes == ["corpus"]:
        train = Path(config.corpus.train)
        train.write_text(train.read_text(encoding="utf-8").replace("Babbage", "Cabbage"), encoding="utf-8")
    else:
        config = tiny_config("training.epochs=4", *changes)
    with pytest.raises(BundleError, match="has learnt from something else so far") as refusal:
        list(run(config, tmp_path, resume=True))
    assert all(each in str(refusal.value) for each in named), refusal.value
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_epochs_that_a_schedule_is_laid_out_over_cannot_change(tiny_config: Callable[..., Config], tmp_path: Path):
    stop_after(run(tiny_config("training.epochs=4", "training.schedule=cosine"), tmp_path), 9)
    with pytest.raises(BundleError, match=r"training\.epochs: 5, was 4"):
        list(run(tiny_config("training.epochs=5", "training.schedule=cosine"), tmp_path, resume=True))


VECTORS = ["oslo 1 2 3\nnobody 4 5 6\nTallinn 7 8 9\n", "Tallinn 7 8 9\nnobody 4 5 6\noslo 1 2 3\n"]


def test_other_vectors_are_refused_and_moved_ones_are_not(tiny_config: Callable[..., Config], tmp_path: Path):
    path = tmp_path / "vectors.txt"
    path.write_text(VECTORS[0], encoding="utf-8")
    config = tiny_config("training.epochs=4", f"inputs.words.vectors={path}")
    stop_after(run(config, tmp_path / "run"), 9)
    moved = path.rename(tmp_path / "moved.txt")
    path.write_text(VECTORS[1], encoding="utf-8")
    with pytest.raises(BundleError, match=r"inputs\.words: the content of its files"):
        list(run(config, tmp_path / "run", resume=True))
    *_, finished = run(
        tiny_config("training.epochs=4", f"inputs.words.vectors={moved}"), tmp_path / "run", resume=True
    )
    assert isinstance(finished, Finished) and not finished.before


def test_what_does_not_change_the_past_may_change(
    tiny_config: Callable[..., Config], tiny_yaml: Path, tmp_path: Path
):
    """More epochs, another patience, a test split that is added, a corpus that moved: as if it had been so."""
    final = ["training.epochs=6", "training.patience=9"]
    list(run(tiny_config(*final), tmp_path / "whole"))
    weights, metrics, results = outcome(tmp_path / "whole")
    stop_after(run(tiny_config("training.epochs=5", "corpus.test=null"), tmp_path / "run"), 9)
    moved = tiny_yaml.parent / "moved"
    moved.mkdir()
    for name in ("train.txt", "validation.txt"):
        (tiny_yaml.parent / name).rename(moved / name)
    config = tiny_config(*final, "corpus.train=moved/train.txt", "corpus.validation=moved/validation.txt")
    list(run(config, tmp_path / "run", resume=True))
    found = outcome(tmp_path / "run")
    assert found[:2] == (weights, metrics)
    assert {**found[2], "config": None} == {**results, "config": None}
    assert load_bundle(tmp_path / "run").config == config == Config.model_validate(found[2]["config"])


@pytest.mark.parametrize("change", ["training.epochs=2", "training.patience=1", "training.threads=2"])
def test_less_of_it_or_other_threads_are_no_obstacle(
    change: str, tiny_config: Callable[..., Config], tmp_path: Path
):
    stop_in(run(tiny_config("training.epochs=6"), tmp_path), 4)
    *records, finished = run(tiny_config("training.epochs=6", change), tmp_path, resume=True)
    assert isinstance(finished, Finished)
    if change == "training.epochs=2":
        assert finished.epochs == 3 and not any(isinstance(record, Step) for record in records)
    if "threads" in change:
        assert finished.epochs == 6


class TestFinished:
    """A training that has ended is left alone, or goes on."""

    def test_it_is_left_alone(self, tiny_config: Callable[..., Config], tmp_path: Path):
        config = tiny_config("training.epochs=4")
        *_, first = run(config, tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        for change in ("training.epochs=4", "training.epochs=2", "training.patience=99", "corpus.test=null"):
            prepared, resumed, second = run(tiny_config("training.epochs=4", change), tmp_path, resume=True)
            assert isinstance(prepared, Prepared) and isinstance(resumed, Resumed)
            assert isinstance(second, Finished) and second == replace(first, before=True)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (["training.epochs=4"], ["training.epochs=7"]),
            (["training.epochs=4", "training.averaging=0.9"], ["training.epochs=7", "training.averaging=0.9"]),
            (
                ["training.patience=1", *OFTEN_WORSE],
                ["training.patience=3", *OFTEN_WORSE],
            ),
        ],
        ids=str,
    )
    def test_it_goes_on_as_if_it_had_not_ended(
        self, before: list[str], after: list[str], tiny_config: Callable[..., Config], tmp_path: Path
    ):
        *_, first = run(tiny_config(*before), tmp_path / "run")
        *records, second = run(tiny_config(*after), tmp_path / "run", resume=True)
        *_, whole = run(tiny_config(*after), tmp_path / "whole")
        assert first.epochs < second.epochs == whole.epochs
        assert min(record.epoch for record in records if isinstance(record, Step)) == first.epochs + 1
        assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")

    def test_something_else_is_refused(self, tiny_config: Callable[..., Config], tmp_path: Path):
        list(run(tiny_config("training.epochs=2"), tmp_path))
        with pytest.raises(BundleError, match=r"training\.seed: 2, was 1"):
            list(run(tiny_config("training.epochs=2", "training.seed=2"), tmp_path, resume=True))

    def test_results_that_are_gone_or_corrupt_are_made_again(
        self, tiny_config: Callable[..., Config], tmp_path: Path
    ):
        config = tiny_config("training.epochs=3")
        list(run(config, tmp_path))
        wanted = outcome(tmp_path)
        for content in (None, b"", b"{}", b"[" * 100_000):
            (tmp_path / "results.json").unlink()
            if content is not None:
                (tmp_path / "results.json").write_bytes(content)
            list(run(config, tmp_path, resume=True))
            assert outcome(tmp_path) == wanted

    def test_without_its_checkpoint_it_is_not_replaced(self, tiny_config: Callable[..., Config], tmp_path: Path):
        config = tiny_config("training.epochs=2")
        list(run(config, tmp_path))
        (tmp_path / CHECKPOINT).unlink()
        before = outcome(tmp_path)
        with pytest.raises(NertoolError, match="this training has ended, and there is no checkpoint"):
            list(run(config, tmp_path, resume=True))
        assert outcome(tmp_path) == before


class TestWeights:
    """A checkpoint vouches for the model of the best epoch, and for no other."""

    def test_a_new_training_removes_the_checkpoint_of_another(
        self, tiny_config: Callable[..., Config], tmp_path: Path
    ):
        config = tiny_config("training.epochs=4")
        stop_after(run(config, tmp_path), 9)
        with closing(run(config, tmp_path)) as records:
            for record in records:
                if isinstance(record, Step):
                    assert (tmp_path / CHECKPOINT).exists()
                elif isinstance(record, Epoch):
                    break
        assert not (tmp_path / CHECKPOINT).exists()
        list(run(config, tmp_path, resume=True))
        list(run(config, tmp_path / "whole"))
        assert outcome(tmp_path) == outcome(tmp_path / "whole")

    def test_other_weights_are_refused(self, tiny_config: Callable[..., Config], tmp_path: Path):
        config = tiny_config("training.epochs=4")
        stop_in(run(config, tmp_path / "run"), 3)
        list(run(tiny_config("training.epochs=1", "training.seed=2"), tmp_path / "other"))
        weights = tmp_path / "run" / "weights.safetensors"
        own = weights.read_bytes()
        for content in ((tmp_path / "other" / "weights.safetensors").read_bytes(), own[:-9], None):
            weights.unlink()
            if content is not None:
                weights.write_bytes(content)
            with pytest.raises(BundleError, match=r"not the model of epoch [12], the best one"):
                list(run(config, tmp_path / "run", resume=True))
            weights.write_bytes(own)
        list(run(config, tmp_path / "run", resume=True))

    def test_a_best_epoch_whose_checkpoint_was_not_written_is_trained_again(
        self, tiny_config: Callable[..., Config], tmp_path: Path
    ):
        config = tiny_config("training.epochs=6")
        best = []
        with closing(run(config, tmp_path / "run")) as records:
            for record in records:
                if isinstance(record, Epoch) and record.improved:
                    best.append((tmp_path / "run" / "weights.safetensors").read_bytes())
                    if len(best) == 3:
                        break
        assert (tmp_path / "run" / KEPT).read_bytes() == best[1]
        records = run(config, tmp_path / "run", resume=True)
        while not isinstance(next(records), Resumed):
            pass
        assert (tmp_path / "run" / "weights.safetensors").read_bytes() == best[1]
        list(records)
        list(run(config, tmp_path / "whole"))
        assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


class TestDivergence:
    SETTINGS = ("training.optimizer=sgd", "training.clip=0", "training.epochs=4")

    def diverged(self, config: Config, folder: Path) -> str:
        """Let a training diverge in its second epoch."""
        with closing(run(config, folder)) as records, pytest.raises(DivergenceError) as caught:
            for record in records:
                if isinstance(record, Prepared):
                    model = record.model
                elif isinstance(record, Step) and record.epoch == 2:
                    model.network.scores.bias.data.fill_(float("inf"))
        return str(caught.value)

    def test_it_says_what_helps_and_the_resumed_training_may_have_it(
        self, tiny_config: Callable[..., Config], tmp_path: Path
    ):
        config = tiny_config(*self.SETTINGS)
        message = self.diverged(config, tmp_path)
        assert "epoch 2, batch 2 of" in message and "a smaller training.learning_rate (now 0.02)" in message
        assert "--set training.learning_rate=0.004 and --resume, which goes on after epoch 1" in message
        with pytest.raises(NertoolError, match="diverged in epoch 2, and would again"):
            list(run(config, tmp_path, resume=True))
        with pytest.raises(BundleError, match=r"training\.batch_size: 5, was 4"):
            changes = ("training.learning_rate=0.004", "training.batch_size=5")
            list(run(tiny_config(*self.SETTINGS, *changes), tmp_path, resume=True))
        better = tiny_config(*self.SETTINGS, "training.learning_rate=0.004", "training.clip=1")
        *records, finished = run(better, tmp_path, resume=True)
        assert isinstance(finished, Finished) and finished.epochs == 4
        assert next(record for record in records if isinstance(record, Step)).epoch == 2
        # From now on it is a training with these settings.
        with pytest.raises(BundleError, match=r"training\.learning_rate: 0\.02, was 0\.004"):
            list(run(config, tmp_path, resume=True))

    def test_in_the_first_epoch_nothing_is_left_to_go_on_from(
        self, tiny_config: Callable[..., Config], tmp_path: Path
    ):
        config = tiny_config("training.optimizer=sgd", "training.clip=0", "training.learning_rate=1e30")
        with pytest.raises(DivergenceError, match="what helps is") as caught:
            list(run(config, tmp_path))
        assert "--resume" not in str(caught.value)
        assert not list(tmp_path.glob("*.safetensors"))


class TestLock:
    def test_a_second_training_into_a_folder_is_refused(self, tiny_config: Callable[..., Config], tmp_path: Path):
        config = tiny_config("training.epochs=2")
        first = run(config, tmp_path / "run")
        while not isinstance(next(first), Epoch):
            pass
        for resume in (False, True):
            with pytest.raises(NertoolError, match="another training or comparison is writing to this folder"):
                list(run(config, tmp_path / "run", resume=resume))
        list(first)
        assert not (tmp_path / "run" / LOCK).exists()
        list(run(config, tmp_path / "run", resume=True))

    def test_the_lock_of_a_process_that_was_killed_does_not_count(
        self, tiny_config: Callable[..., Config], tmp_path: Path
    ):
        (tmp_path / LOCK).touch()
        list(run(tiny_config("training.epochs=1"), tmp_path))

    def test_a_forked_process_does_not_unlock(self, tmp_path: Path):
        with locked(tmp_path):
            child = os.fork()
            if child == 0:
                try:
                    raise KeyboardInterrupt
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            with pytest.raises(NertoolError, match="another training"), locked(tmp_path):
                pass


def test_a_damaged_checkpoint_is_refused(tiny_config: Callable[..., Config], tmp_path: Path):
    config = tiny_config("training.epochs=4")
    stop_after(run(config, tmp_path), 9)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], b"\xff" * 50):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=r"checkpoint\.safetensors"):
            list(run(config, tmp_path, resume=True))


@pytest.mark.parametrize("change", ["bit", "text", "weight"])
def test_a_checkpoint_that_was_changed_is_refused(tiny_config: Callable[..., Config], tmp_path: Path, change: str):
    config = tiny_config("training.epochs=4")
    stop_after(run(config, tmp_path), 9)
    path = tmp_path / CHECKPOINT
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    if change == "bit":
        content[(start + len(content)) // 2] ^= 1
    elif change == "text":  # a score in the record of an epoch
        content = bytearray(bytes(content).replace(b'loss\\": ', b'loss\\":9', 1))
    else:
        content[start : start + 4] = struct.pack("<f", float("nan"))
    assert content != path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"checkpoint\.safetensors"):
        list(run(config, tmp_path, resume=True))


def test_what_a_killed_training_left_half_written_goes(tiny_config: Callable[..., Config], tmp_path: Path):
    left = [tmp_path / f".{name}.4711.part" for name in (CHECKPOINT, "weights.safetensors", "metrics.jsonl")]
    for path in (*left, tmp_path / ".mine.part"):
        path.write_bytes(b"x")
    list(run(tiny_config("training.epochs=1"), tmp_path))
    assert not any(path.exists() for path in left)
    assert (tmp_path / ".mine.part").exists()


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_best_model(
    tiny_config: Callable[..., Config], tmp_path: Path
):
    config = tiny_config("training.optimizer=sgd", "training.epochs=4", "training.clip=0", "training.averaging=0")
    with closing(run(config, tmp_path)) as records, pytest.raises(DivergenceError) as caught:
        for record in records:
            if isinstance(record, Prepared):
                model = record.model
            elif isinstance(record, Epoch):
                best = (tmp_path / "weights.safetensors").read_bytes()
                model.network.scores.bias.data.fill_(float("inf"))
    assert "epoch 2, batch 1 of" in str(caught.value) and "sentences" in str(caught.value)
    assert (tmp_path / "weights.safetensors").read_bytes() == best
    load_bundle(tmp_path)


@pytest.mark.slow
def test_twenty_kills_change_nothing(tiny_config: Callable[..., Config], tmp_path: Path):
    config = tiny_config(
        "training.epochs=40", "training.optimizer=sgd", "training.averaging=0.9", "model.encoder.hidden=64"
    )
    list(run(config, tmp_path / "whole"))
    folder = tmp_path / "killed"
    folder.mkdir()
    (tmp_path / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "nertool",
        "train",
        str(tmp_path / "config.yaml"),
        "--resume",
        "--output",
        str(folder),
    ]
    places = random.Random(1)
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path)
        assert process.stdout is not None
        if kills < 20:
            # Somewhere after the first word that it says, mostly in the middle of training.
            process.stdout.readline()
            time.sleep(places.uniform(0.0, 0.6))
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
    assert outcome(folder) == outcome(tmp_path / "whole")
    print(f"{kills} kills")
