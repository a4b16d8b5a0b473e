"""Trackers see every epoch and change nothing; the picture of a training has all of its epochs."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from nertool.cli.main import main
from nertool.cli.train import TRACKERS as OFFERED
from nertool.errors import NertoolError
from nertool.evaluation.scores import Evaluation, Scores
from nertool.integrations.tracking import TRACKERS, MLflow, Tracking, Trackio, new_tracker
from nertool.training.run import CURVES, Finished, run
from nertool.training.trainer import Epoch, Step
from nertool.views import pictures


class Calls(ModuleType):
    """A stand-in for a package: it keeps what its functions are called with."""

    def __init__(self, name: str, fails: str = "") -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self._fails = fails

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> None:
            self.calls.append((name, arguments, named))
            if name == self._fails:
                raise OSError("no route to host")

        return call

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [each[1:] for each in self.calls if each[0] == name]


class Recorder:
    """A tracker that keeps what it was given."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.settings: dict[str, Any] = {}
        self.figures: dict[int, dict[str, float]] = {}
        self.ended: list[bool] = []

    def start(self, name: str, folder: Path, settings: Any) -> None:
        self.started.append(name)
        self.settings = dict(settings)

    def log(self, figures: Any, epoch: int) -> None:
        self.figures[epoch] = {**self.figures.get(epoch, {}), **figures}

    def end(self, finished: bool) -> None:
        self.ended.append(finished)


def track(config: Any, folder: Path, *, resume: bool = False, until: int | None = None) -> Recorder:
    """Train with a recorder; stop at the first step of an epoch."""
    recorder = Recorder()
    follow = Tracking({"recorder": recorder}, folder, pytest.fail)
    with closing(run(config, folder, resume=resume)) as records, closing(follow.passing(records)) as passing:
        for record in passing:
            if isinstance(record, Step) and record.epoch == until:
                break
    return recorder


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_command_offers_what_there_is():
    assert tuple(TRACKERS) == OFFERED


def test_a_tracker_sees_what_the_metrics_hold_and_changes_no_bit(tiny_config, tmp_path):
    config = tiny_config("training.epochs=3")
    recorder = track(config, tmp_path / "tracked")
    *_, finished = run(config, tmp_path / "plain")
    assert isinstance(finished, Finished) and finished.test is not None
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("tracked", "plain")]
    assert weights[0] == weights[1]
    assert (recorder.started, recorder.ended) == (["tracked"], [True])
    assert recorder.settings["training.epochs"] == 3
    metrics = metrics_of(tmp_path / "tracked")
    assert list(recorder.figures) == [1, 2, 3]
    for line in metrics:
        figures = recorder.figures[line["epoch"]]
        assert figures["train/loss"] == line["loss"]
        assert figures["validation/f1"] == line["f1"]
        assert figures.get("validation/loss") == line["validation_loss"]
        assert line["per_type"].keys() == {"PER", "LOC", "ORG"}
        assert sum(scores["support"] for scores in line["per_type"].values()) == 19
        for name, scores in line["per_type"].items():
            for figure in ("f1", "precision", "recall"):
                assert figures[f"validation_{figure}/{name}"] == scores[figure]
    assert recorder.figures[finished.best.number]["test/f1"] == finished.test.micro.f1


def test_metrics_of_types_are_those_of_the_evaluation(trained_run):
    results = json.loads((trained_run / "results.json").read_text(encoding="utf-8"))
    best = metrics_of(trained_run)[results["best_epoch"] - 1]
    assert best["per_type"] == results["validation"]["per_type"]


def test_a_training_that_goes_on_shows_all_of_its_epochs(tiny_config, tmp_path):
    config, folder = tiny_config("training.epochs=4"), tmp_path / "run"
    before = track(config, folder, until=3)
    assert (list(before.figures), before.ended) == ([1, 2], [False])
    after = track(config, folder, resume=True)
    assert (list(after.figures), after.ended) == ([1, 2, 3, 4], [True])
    assert {epoch: after.figures[epoch] for epoch in before.figures} == before.figures
    # Nothing is trained: nothing is shown.
    again = track(config, folder, resume=True)
    assert not again.started and not again.figures and not again.ended


@pytest.mark.parametrize("call", ["start_run", "log_params", "log_metrics", "end_run"])
def test_a_tracker_that_fails_is_reported_once_and_stops_nothing(call, tiny_config, tmp_path):
    said: list[str] = []
    module, other = Calls("mlflow", fails=call), Recorder()
    trackers = {"mlflow": MLflow(module), "other": other}
    passing = Tracking(trackers, tmp_path / "run", said.append).passing(
        run(tiny_config("training.epochs=3"), tmp_path / "run")
    )
    *_, finished = passing
    assert isinstance(finished, Finished) and finished.epochs == 3
    assert said == ["mlflow failed, and training goes on without it: OSError: no route to host"]
    assert len(module.named(call)) == 1
    assert list(other.figures) == [1, 2, 3] and other.ended == [True]


def test_what_mlflow_and_trackio_are_called_with(tmp_path):
    module = Calls("mlflow")
    tracker = MLflow(module)
    tracker.start("demo-2", tmp_path, {"training.epochs": 3, "corpus.columns": ["x" * 600]})
    tracker.log({"validation/f1": 0.5, "validation_f1/a.b/ü_": 0.25}, 2)
    tracker.end(False)
    assert module.named("start_run") == [((), {"run_name": "demo-2"})]
    ((parameters,), _) = module.named("log_params")[0]
    assert parameters["training.epochs"] == "3" and len(parameters["corpus.columns"]) == 500
    assert module.named("log_metrics") == [
        (({"validation/f1": 0.5, "validation_f1/a_2e_b_2f__fc__": 0.25},), {"step": 2})
    ]
    assert module.named("end_run") == [(("KILLED",), {})]

    module = Calls("trackio")
    other = Trackio(module)
    other.start("demo-2", tmp_path, {"training.epochs": 3})
    other.log({"validation/f1": 0.5}, 2)
    other.end(True)
    assert module.calls == [
        ("init", (), {"project": "nertool", "name": "demo-2", "config": {"training.epochs": 3}}),
        ("log", ({"validation/f1": 0.5},), {"step": 2}),
        ("finish", (), {}),
    ]


def test_event_files_of_tensorboard(tiny_config, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    config = tiny_config("training.epochs=3")
    for _ in range(2):  # the second training replaces the first
        follow = Tracking({"tensorboard": new_tracker("tensorboard")}, folder, pytest.fail)
        assert isinstance(list(follow.passing(run(config, folder)))[-1], Finished)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert len(list((folder / "tensorboard").iterdir())) == 1
    metrics = metrics_of(folder)
    for tag, key in (("train/loss", "loss"), ("validation/f1", "f1")):
        points = [(each.step, each.value) for each in events.Scalars(tag)]
        assert points == [(line["epoch"], pytest.approx(line[key], rel=1e-6)) for line in metrics]
    assert {"validation_f1/PER", "validation_recall/ORG", "test/f1"} <= set(events.Tags()["scalars"])


def test_events_go_through_no_link(tmp_path):
    pytest.importorskip("tensorboard")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "events.out.tfevents.1").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(mine)
    tracker = new_tracker("tensorboard")
    tracker.start("run", tmp_path / "run", {})
    with pytest.raises(NertoolError, match="is a link"):
        tracker.log({"validation/f1": 0.5}, 1)
    assert [path.name for path in mine.iterdir()] == ["events.out.tfevents.1"]


@pytest.mark.parametrize("name", OFFERED)
def test_a_package_that_is_missing_is_named_before_anything_is_read(name, tiny_yaml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, TRACKERS[name].package, None)
    result = CliRunner().invoke(main, ["train", str(tiny_yaml), "--track", name])
    assert result.exit_code == 1 and not Path("runs").exists()
    assert f"--track {name} needs a package: pip install {TRACKERS[name].install}" in result.stderr


def test_the_command_tracks(tiny_yaml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "trackio", Calls("trackio", fails="log"))
    arguments = ["train", str(tiny_yaml), "--set", "training.epochs=2", "--track", "trackio"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("trackio failed, and training goes on without it: OSError: no route") == 1
    assert Path("runs/tiny/results.json").exists()


def texts(path: Path) -> str:
    return path.read_text(encoding="utf-8")


class TestPicture:
    def test_it_has_all_epochs_of_a_training_that_was_resumed(self, tiny_yaml, tmp_path, monkeypatch):
        pytest.importorskip("matplotlib")
        monkeypatch.chdir(tmp_path)
        drawn: list[list[int]] = []
        draw = pictures.draw_training

        def watched(epochs):
            drawn.append([epoch.number for epoch in epochs])
            return draw(epochs)

        monkeypatch.setattr(pictures, "draw_training", watched)
        arguments = ["train", str(tiny_yaml), "--output", "run", "--set"]
        for options in (["training.epochs=2"], ["training.epochs=4", "--resume"]):
            assert CliRunner().invoke(main, [*arguments, *options]).exit_code == 0
        assert drawn == [[1, 2], [1, 2, 3, 4]]
        picture = texts(Path("run", CURVES))
        assert all(
            f">{text}<" in picture for text in ("validation F1 (%)", "LOC (8)", "PER (7)", "ORG (4)", "all (19)")
        )

    def test_another_training_removes_that_of_the_one_before(self, tiny_config, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / CURVES).write_text("old", encoding="utf-8")
        for record in run(tiny_config("training.epochs=1"), folder):
            assert (folder / CURVES).exists() == (not isinstance(record, Epoch | Finished))

    def test_without_matplotlib_one_line_says_so(self, tiny_yaml, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        result = CliRunner().invoke(main, ["train", str(tiny_yaml), "--set", "training.epochs=2"])
        assert result.exit_code == 0 and not Path("runs/tiny", CURVES).exists()
        assert result.output.count("There is no curves.svg") == 1

    def test_a_picture_that_fails_fails_nothing(self, tiny_yaml, tmp_path, monkeypatch):
        pytest.importorskip("matplotlib")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(pictures, "save", lambda *_: 1 / 0)
        result = CliRunner().invoke(main, ["train", str(tiny_yaml), "--set", "training.epochs=1"])
        assert result.exit_code == 0 and "curves.svg was not drawn: division by zero" in result.output

    def test_many_types_one_epoch_and_types_without_entities(self, tmp_path):
        pytest.importorskip("matplotlib")
        one = Scores(0.5, 0.5, 0.5, 100)
        types = {f"T{number}": Scores(0.1, 0.1, 0.1, 50 - number) for number in range(12)}
        types["never"] = Scores(0.0, 0.0, 0.0, 0)
        validation = Evaluation(one, one, types, 0.5, 1, 1, "by hand")
        epoch = Epoch(1, 2.0, 0.1, 1.0, validation, 1.0, 1.0, True, 1)
        for name in ("a.svg", "b.svg"):
            pictures.save(pictures.draw_training([epoch]), tmp_path / name)
        picture = texts(tmp_path / "a.svg")
        assert picture == texts(tmp_path / "b.svg")
        assert ">T9 (41)<" in picture and ">T10 (40)<" not in picture and "never" not in picture
        assert "2 rarer types not drawn" in picture
