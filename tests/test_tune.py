"""The search for settings: its space, and whole searches over trainings that are played, or are real and short."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import write_tiny

from nertool.cli.main import main
from nertool.comparison.processes import Running, prepare_folder
from nertool.config.files import locked
from nertool.config.loading import dump_config, load_config, locate_files
from nertool.config.schema import Config, Search, StartConfig
from nertool.errors import ConfigError, NertoolError
from nertool.experiments.space import Space, describe, parse_space, varied, write
from nertool.experiments.trial import DIVERGED

pytest.importorskip("optuna")

from nertool.experiments import tune as search
from nertool.experiments.tune import BEST, STUDY, Trial, Tuner

RATE = "training.learning_rate"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.01..0.1", Search(0.01, 0.1)),
        ("1e-3..1e-1:log", Search(0.001, 0.1, log=True)),
        ("1..8", Search(1, 8)),
        ("0..1", Search(0, 1)),
        ("0.0..1", Search(0.0, 1)),
        ("-1..1", Search(-1, 1)),
        ("a,b", Search(choices=("a", "b"))),
        ("[0.5, 1]", Search(choices=(0.5, 1))),
        ("true,false", Search(choices=(True, False))),
    ],
    ids=str,
)
def test_a_search_is_read_and_written(text: str, wanted: Search):
    from nertool.experiments.space import _of_text

    found = _of_text(text)
    assert found == wanted
    assert [type(v) for v in (found.low, found.high)] == [type(v) for v in (wanted.low, wanted.high)]
    assert _of_text(write(found)) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{RATE}=0.1..0.01", "0.1 is not below 0.01"),
        (f"{RATE}=0..1:log", "begins above 0"),
        (f"{RATE}=a..b", "'a' is not a number"),
        (f"{RATE}=1..{'9' * 400}", "99 is not a number"),
        (f"{RATE}=nan..1", "not a number"),
        (f"{RATE}=1..inf", "not a number"),
        (f"{RATE}=1", "two different values"),
        (f"{RATE}=1,1", "two different values"),
        (f"{RATE}=[1, [2]]", "expected something like"),
        (f"{RATE}=0,0.1", "greater than 0"),
        (RATE, "expected something like"),
        ("=1,2", "expected something like"),
        ("model.nix=1,2", "no such setting"),
        ("model.encoder.kind=lstm,nix", "found 'nix'"),
        ("corpus.test=a,b", "what scores a trial cannot vary"),
        ("training.seed=1,2", "--seeds"),
        ("training.epochs=1,2", "stopped early"),
        ("training.threads=1,2", "changes no result"),
    ],
    ids=range(18),
)
def test_an_impossible_search_is_refused(text: str, problem: str, tiny_config: Callable[..., Config]):
    with pytest.raises(ConfigError) as refusal:
        parse_space(None, [text], tiny_config())
    assert problem in str(refusal.value)


def test_a_file_of_a_space_is_what_is_shown(tiny_config: Callable[..., Config]):
    config = tiny_config()
    shown = describe(Space(), config)
    assert shown[RATE] == "0.0003..0.01:log", "the rate of adam"
    assert shown["training.optimizer"] == "[sgd, adam]"
    assert describe(parse_space(shown, [], config), config) == shown
    tree = {RATE: {"low": 0.1, "high": 0.2, "log": True}, "model.dropout": [0.1, 0.2]}
    found = parse_space(tree, ["model.dropout=0.3..0.4"], config).given
    assert found == {RATE: Search(0.1, 0.2, log=True), "model.dropout": Search(0.3, 0.4)}
    with pytest.raises(ConfigError, match="keys low, high and log"):
        parse_space({RATE: {"from": 1}}, [], config)


def test_each_declared_search_fits_its_setting(tiny_config: Callable[..., Config]):
    """Both ends of each range and all choices are valid, and the defaults are among them."""
    config = tiny_config()
    for optimizer in ("sgd", "adam"):
        for encoder in ("lstm", "cnn", "none"):
            own = varied(config, {"training.optimizer": optimizer, "model.encoder": encoder})
            given = Space()._searches(own)
            for name, _, found in given:
                for value in found.choices or (found.low, found.high):
                    varied(own, {name: value})
            assert ("model.encoder.hidden" in describe(Space(), own)) == (encoder != "none")


def test_kinds_are_chosen_first_and_decide_what_else_is(tiny_config: Callable[..., Config]):
    asked = []

    def suggest(name: str, found: Search) -> Any:
        asked.append(name)
        return found.choices[0] if found.choices else found.low

    chosen = Space().choose(tiny_config(), suggest)
    assert asked[:2] == ["training.optimizer", "training.schedule"]
    assert f"{RATE} (sgd)" in asked and f"{RATE} (adam)" not in asked
    assert chosen[RATE] == 0.005
    assert varied(tiny_config(), chosen).training.optimizer.kind == "sgd"


def test_the_network_of_a_model_to_start_from_is_not_varied(tiny_config: Callable[..., Config]):
    config = tiny_config()
    going_on = config.model_copy(update={"start": StartConfig(model="runs/old")})
    assert set(describe(Space(), config)) - set(describe(Space(), going_on)) == {"model.encoder.hidden"}


# Trainings that are played: the script says what F1 each epoch of a config has.

Script = Callable[[Config, Path], tuple[list[float], int]]


class Player:
    """Stands in for `Processes`: each look at the processes is an epoch of each."""

    script: Script
    started: list[Path]
    stopped: list[int]

    def __init__(self, *_: object) -> None:
        self._running: dict[int, tuple[Path, list[float], int]] = {}

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __len__(self) -> int:
        return len(self._running)

    def start(self, number: int, folder: Path, _threads: int) -> None:
        type(self).started.append(folder)
        config = load_config(folder / "config.yaml")
        curve, code = type(self).script(config, folder)
        metrics = folder / "metrics.jsonl"
        done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        self._running[number] = folder, curve[done:], code

    def stop(self, number: int) -> None:
        type(self).stopped.append(number)
        del self._running[number]

    def ended(self) -> Iterator[tuple[int, int]]:
        for number, (folder, left, code) in list(self._running.items()):
            if left:
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps({"f1": left.pop(0)}) + "\n")
            else:
                del self._running[number]
                yield number, code


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], type[Player]]:
    def make(script: Script) -> type[Player]:
        own = type("Own", (Player,), {"script": staticmethod(script), "started": [], "stopped": []})
        monkeypatch.setattr(search, "Processes", own)
        return own

    return make


@pytest.fixture
def tuner(tiny_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Tuner]:
    def make(*overrides: str, seeds: int = 1, options: tuple[str, ...] = ("model.dropout=0.0..0.8",)) -> Tuner:
        config = tiny_config("training.epochs=10", *overrides)
        folder = tmp_path / "search ?%20#"  # a database may be anywhere
        folder.mkdir(exist_ok=True)
        return Tuner(config, parse_space(None, options, config), folder, seeds)

    return make


def ended(records: Iterator[Trial | Running]) -> list[Trial]:
    return [record for record in records if isinstance(record, Trial)]


def curve(config: Config) -> list[float]:
    """Play a training that is best at dropout 0.3."""
    best = 1 - abs(config.model.dropout - 0.3)
    return [best * step / 10 for step in range(1, 11)]


def test_the_best_is_found_written_and_the_worse_are_stopped(play, tuner, tiny_config):
    played = play(lambda config, _: (curve(config), 0))
    own = tuner()
    trials = ended(own.run(25, 1))
    assert [trial.number for trial in trials] == list(range(25))
    stopped = [trial for trial in trials if trial.state == "stopped"]
    complete = [trial for trial in trials if trial.state == "complete"]
    assert stopped and {trial.number for trial in stopped} == set(played.stopped)
    assert all(2 <= len(trial.curve) < 10 for trial in stopped)
    assert all(trial.number >= 5 for trial in stopped), "the first ones are the measure"
    for trial in complete:
        assert trial.f1 == pytest.approx(1 - abs(float(trial.settings["model.dropout"]) - 0.3))
    original = tiny_config("training.epochs=10")
    result = own.result("tiny", original, {})
    assert result.best.f1 == max(trial.f1 for trial in complete) > 0.9
    assert set(result.importance) == {"model.dropout"}
    best = locate_files(load_config(own._folder / BEST), None)
    assert best.model.dropout == result.best.settings["model.dropout"]
    assert best.corpus.test == original.corpus.test, "the best config has its test split again"
    assert json.loads(json.dumps(result.to_json()))["best"]["number"] == result.best.number


def test_no_trial_reads_the_test_split(play, tuner):
    seen = []
    play(lambda config, _: (seen.append(config.corpus.test) or curve(config), 0))
    ended(tuner().run(2, 1))
    assert seen == [None, None]


def test_it_goes_on_with_more_trials_and_with_those_that_were_killed(play, tuner):
    played = play(lambda config, _: (curve(config), 0))
    first = tuner()
    records = first.run(4, 2)
    for record in records:
        if isinstance(record, Running) and record.epochs.get(3, 0) >= 4:
            break
    records.close()  # as after an interrupt; two trials are in the middle
    before = {trial.number: trial for trial in first.trials()}
    assert [t.state for t in before.values()].count("running") == 2
    started = len(played.started)
    second = tuner()
    trials = ended(second.run(6, 2))
    assert sorted(trial.number for trial in trials) == list(range(6))
    assert len(played.started) - started == 4, "two go on and two are new"
    after = {trial.number: trial for trial in second.trials()}
    assert not [trial for trial in after.values() if trial.state == "running"]
    for number, trial in before.items():
        assert after[number].settings == trial.settings
        assert after[number].curve[: len(trial.curve)] == trial.curve
    assert ended(tuner().run(6, 2)) == second.trials(), "nothing is left to do"


@pytest.mark.slow
def test_an_interrupted_search_ends_as_one_that_was_not(play, tuner, tmp_path: Path):
    play(lambda config, _: (curve(config), 0))
    whole = [(t.settings, t.f1, t.state) for t in ended(tuner().run(8, 1))]
    (tmp_path / "search ?%20#").rename(tmp_path / "whole")
    for trials in (3, 8):
        records = tuner().run(trials, 1)
        for record in records:
            if isinstance(record, Running) and list(record.epochs.values()) == [5]:
                break
        records.close()
    assert [(t.settings, t.f1, t.state) for t in sorted(ended(tuner().run(8, 1)), key=lambda t: t.number)] == whole


def test_the_mean_over_seeds_counts(play, tuner):
    seeds = []

    def script(config: Config, _: Path) -> tuple[list[float], int]:
        seeds.append(config.training.seed)
        return [0.1 * config.training.seed] * 3, 0

    play(script)
    trials = ended(tuner("training.seed=2", seeds=3).run(2, 1))
    assert seeds == [2, 3, 4, 2, 3, 4]
    assert [trial.f1 for trial in trials] == pytest.approx([0.3, 0.3])


def test_a_training_that_diverges_is_a_bad_result(play, tuner):
    play(lambda config, _: ([0.5], DIVERGED if config.model.dropout > 0.4 else 0))
    trials = ended(tuner().run(6, 1))
    assert {trial.state for trial in trials} == {"complete"}
    for trial in trials:
        bad = float(trial.settings["model.dropout"]) > 0.4
        assert (trial.f1, trial.reason) == ((0.0, "diverged") if bad else (0.5, ""))


def test_failures_are_told_and_end_a_search_that_cannot_work(play, tuner):
    def script(_: Config, folder: Path) -> tuple[list[float], int]:
        (folder / "log.txt").write_text("Traceback\nerror: no\n  memory\n")
        return [], 1

    play(script)
    own = tuner()
    found: list[Trial] = []
    with pytest.raises(NertoolError, match="3 trials failed one after the other; the last one: no memory"):
        found += ended(own.run(9, 1))
    assert [trial.state for trial in own.trials()] == ["failed"] * 3
    with pytest.raises(NertoolError, match="no trial is complete: no memory"):
        own.result("x", own.config, {})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"overrides": ("model.locked_dropout=true",)}, "other settings"),
        ({"overrides": ("corpus.train=test.txt",)}, "other files"),
        ({"options": ("model.dropout=0.0..0.7",)}, "another space"),
        ({"seeds": 2}, "another number of seeds"),
    ],
    ids=["settings", "files", "space", "seeds"],
)
def test_another_search_is_not_mixed_with_it(change: dict[str, Any], named: str, play, tuner):
    play(lambda config, _: (curve(config), 0))
    ended(tuner().run(1, 1))
    with pytest.raises(ConfigError, match=named):
        tuner(*change.pop("overrides", ()), **change)


def test_another_start_from_the_same_model_is_another_search(play, tuner, trained_run: Path):
    play(lambda config, _: (curve(config), 0))
    start = f"start.model={trained_run}"
    ended(tuner(start, "start.keep_labels=true").run(1, 1))
    assert tuner(start, "start.keep_labels=true").trials()
    with pytest.raises(ConfigError, match="other settings"):
        tuner(start)


def test_results_without_a_checkpoint_are_removed_before_a_training_goes_on(
    tiny_config: Callable[..., Config], tmp_path: Path
):
    """A training that has ended cannot go on from its results alone."""
    folder, names = tmp_path / "run", ["results.json", "config.yaml", "checkpoint.safetensors"]
    prepare_folder(folder, tiny_config(), names)
    (folder / "results.json").touch()
    prepare_folder(folder, tiny_config(), names)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    for name in names:
        (folder / name).touch()
    (folder / "config.yaml").write_bytes(dump_config(tiny_config()).encode())
    prepare_folder(folder, tiny_config(), names)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    prepare_folder(folder, tiny_config("model.dropout=0.4"), names)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_a_database_that_is_none_is_refused(tuner, tmp_path: Path):
    (tmp_path / "search ?%20#").mkdir()
    (tmp_path / "search ?%20#" / STUDY).write_bytes(b"no database" * 100)
    with pytest.raises(NertoolError, match="cannot be read or written"):
        tuner()


def test_what_optuna_says_of_its_own_stays_as_it_was(play, tuner):
    import optuna

    before = optuna.logging.get_verbosity()
    play(lambda config, _: (curve(config), 0))
    ended(tuner().run(1, 1))
    assert optuna.logging.get_verbosity() == before


@pytest.mark.slow
def test_a_search_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two real trainings; the test split is not read, so it may be no text at all."""
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("test.txt").write_bytes(b"\xff\x00")
    command = [
        "tune",
        "tiny.yaml",
        "--tune",
        f"{RATE}=0.01..0.05:log",
        "--set",
        "training.epochs=2",
        "--jobs",
        "2",
    ]
    result = CliRunner().invoke(main, [*command, "--trials", "2", "--output", "out"])
    assert result.exit_code == 0, result.output
    assert "2 trials: 2 complete" in result.output
    assert load_config(Path("out/best.yaml")).corpus.test == str(Path("test.txt"))
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert page.count("<circle") == 2 and "learning_rate" in page
    assert len(json.loads(Path("out/report.json").read_text(encoding="utf-8"))["trials"]) == 2
    kept = {path.name for path in Path("out/trial-1/seed-1").iterdir()}
    assert kept == {"config.yaml", "metrics.jsonl", "results.json", "log.txt"}
    with locked(Path("out")):
        busy = CliRunner().invoke(main, [*command, "--output", "out"])
    assert busy.exit_code == 1 and "another training or comparison" in busy.output


def test_a_space_is_shown_and_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(main, ["tune", "tiny.yaml", "--show-space"])
    Path("space.yaml").write_text(shown.stdout, encoding="utf-8")
    again = CliRunner().invoke(main, ["tune", "tiny.yaml", "--show-space", "--space", "space.yaml"])
    assert again.stdout == shown.stdout and "model.dropout: 0.2..0.6" in again.stdout
    Path("space.yaml").write_text("- 1\n", encoding="utf-8")
    wrong = CliRunner().invoke(main, ["tune", "tiny.yaml", "--space", "space.yaml"])
    assert wrong.exit_code == 1 and "expected settings such as" in wrong.output


def test_without_optuna_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = CliRunner().invoke(main, ["tune", "tiny.yaml", "--output", "out"])
    assert result.exit_code == 1 and "pip install 'nertool[tune]'" in result.stderr
    assert not (tmp_path / "out").exists()
