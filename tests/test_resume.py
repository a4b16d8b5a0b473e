"""A training that is stopped and goes on ends with the same bits as one that was never stopped."""

from __future__ import annotations

import json
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nertool.config.loading import dump_config
from nertool.config.schema import Config
from nertool.errors import BundleError, NertoolError
from nertool.training.checkpoint import CHECKPOINT
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
TIMES = {"seconds", "tokens_per_second"}


def outcome(folder: Path) -> tuple[bytes, list[Any], Any]:
    """Weights, metrics and results of a run, without what a clock says."""

    def timeless(tree: Any) -> Any:
        return {key: value for key, value in tree.items() if key not in TIMES}

    metrics = [timeless(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    results = timeless(json.loads((folder / "results.json").read_text()))
    return (folder / "weights.safetensors").read_bytes(), metrics, results


def stop_after(records: Iterator[Any], count: int) -> list[Any]:
    """Take so many records and leave the rest."""
    with closing(records):
        return [record for record, _ in zip(records, range(count), strict=False)]


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_anywhere_it_ends_the_same(kind: str, tiny_config: Callable[..., Config], tmp_path: Path):
    config = tiny_config("training.epochs=6", *KINDS[kind])
    whole = list(run(config, tmp_path / "whole"))
    wanted = outcome(tmp_path / "whole")
    assert not (tmp_path / "whole" / CHECKPOINT).exists()
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
        patched.setattr("nertool.training.run._score_test", stopped)
        list(run(config, tmp_path))
    again = list(run(config, tmp_path, resume=True))
    assert not any(isinstance(record, Step) for record in again)
    assert isinstance(again[-1], Finished) and again[-1].epochs == 3


@pytest.mark.parametrize("change", ["training.learning_rate=0.5", "training.epochs=5", "corpus"])
def test_a_training_of_something_else_is_refused(change: str, tiny_config: Callable[..., Config], tmp_path: Path):
    config = tiny_config("training.epochs=4")
    stop_after(run(config, tmp_path), 9)
    assert (tmp_path / CHECKPOINT).exists()
    if change == "corpus":
        train = Path(config.corpus.train)
        train.write_text(train.read_text(encoding="utf-8").replace("Babbage", "Cabbage"), encoding="utf-8")
    else:
        config = tiny_config("training.epochs=4", change)
    with pytest.raises(BundleError, match="other settings or another corpus"):
        list(run(config, tmp_path, resume=True))


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
    from nertool.tagging.bundle import load_bundle

    config = tiny_config("training.optimizer=sgd", "training.epochs=4", "training.clip=0")
    with closing(run(config, tmp_path)) as records, pytest.raises(NertoolError) as caught:
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
