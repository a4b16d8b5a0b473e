"""Trackers: listeners that show a training to TensorBoard, MLflow or Trackio.

A tracker never stops a training: its first failure is reported, and the training goes on without it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

from nertool.errors import NertoolError
from nertool.evaluation.scores import Evaluation
from nertool.training.preparation import Prepared
from nertool.training.run import Finished, Resumed
from nertool.training.states import Computing
from nertool.training.trainer import Epoch, Step

Record = TypeVar("Record", bound=Prepared | Resumed | Computing | Step | Epoch | Finished)


class Tracker(Protocol):
    """What shows the figures of one training."""

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Begin a run of the tracker.

        Args:
            name: Of the run.
            folder: The run directory.
            settings: All settings, by their path in the config, such as `training.epochs`.
        """

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """Take the figures of an epoch, counted from 1, by names such as `validation/f1`."""

    def end(self, finished: bool) -> None:
        """End the run; `finished` is false for a training that was stopped."""


class TensorBoard:
    """Event files in the folder `tensorboard` of the run directory, those of an earlier training replaced."""

    package, install = "torch.utils.tensorboard", "'nertool[tensorboard]'"

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._writer: Any = None

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Remember what is written with the first epoch, when the folder becomes that of this training."""
        self._folder = folder / "tensorboard"
        self._settings = "".join(f"    {key}: {value}\n" for key, value in settings.items())

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """Write one point of each curve."""
        if self._writer is None:
            if self._folder.is_symlink():
                raise NertoolError(f"{self._folder} is a link; remove it")
            for path in self._folder.glob("events.out.tfevents.*"):
                path.unlink()
            self._writer = self._module.SummaryWriter(str(self._folder))
            self._writer.add_text("config", self._settings)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self, finished: bool) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say."""

    package, install = "mlflow", "mlflow"

    def __init__(self, module: ModuleType) -> None:
        self._mlflow = module

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Start a run, with the settings as its parameters."""
        self._mlflow.start_run(run_name=name)
        # Longer ones would be refused by some servers.
        self._mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """Log metrics; in their names, characters that MLflow refuses are written as their code point."""
        names = {name: name.partition("/") for name in figures}
        self._mlflow.log_metrics(
            {
                f"{group}/{re.sub(r'[^A-Za-z0-9_ -]', _code_point, rest)}": figures[name]
                for name, (group, _, rest) in names.items()
            },
            step=epoch,
        )

    def end(self, finished: bool) -> None:
        """End the run."""
        self._mlflow.end_run("FINISHED" if finished else "KILLED")


def _code_point(match: re.Match[str]) -> str:
    return f"_{ord(match[0]):x}_"


class Trackio:
    """A run of Trackio in the project `nertool`."""

    package, install = "trackio", "trackio"

    def __init__(self, module: ModuleType) -> None:
        self._trackio = module

    def start(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Start a run."""
        self._trackio.init(project="nertool", name=name, config=dict(settings))

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """Log metrics."""
        self._trackio.log(dict(figures), step=epoch)

    def end(self, finished: bool) -> None:
        """End the run."""
        self._trackio.finish()


TRACKERS: dict[str, type[TensorBoard] | type[MLflow] | type[Trackio]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""The trackers by name."""


def new_tracker(name: str) -> Tracker:
    """Make a tracker.

    Raises:
        NertoolError: Its package is not installed; names the command.
    """
    kind = TRACKERS[name]
    try:
        module = importlib.import_module(kind.package)
    except ImportError as problem:
        raise NertoolError(f"--track {name} needs a package: pip install {kind.install} ({problem})") from None
    return kind(module)


class Tracking:
    """Show the records of a training to trackers as they pass.

    A training that goes on is a new run of the tracker, with the epochs before, so that its curves are whole. One
    that had ended is not tracked again.

    Args:
        trackers: By name.
        folder: The run directory; its name is that of the tracker's run.
        tell: Called with a sentence when a tracker fails, once for each.
    """

    def __init__(self, trackers: Mapping[str, Tracker], folder: Path, tell: Callable[[str], None]) -> None:
        self._trackers = dict(trackers)
        self._folder = folder
        self._tell = tell
        self._settings: dict[str, Any] = {}
        self._past: Sequence[Epoch] = ()
        self._running = False

    def passing(self, records: Iterator[Record]) -> Generator[Record, None, None]:
        """Yield all records of a training, each after the trackers have seen it."""
        finished = False
        try:
            for record in records:
                self._take(record)
                finished = isinstance(record, Finished)
                yield record
        finally:
            if self._running:
                self._all(lambda tracker: tracker.end(finished))

    def _take(self, record: Prepared | Resumed | Computing | Step | Epoch | Finished) -> None:
        if isinstance(record, Step):
            if not self._running:
                self._start()
        elif isinstance(record, Epoch):
            self._log(_figures(record), record.number)
        elif isinstance(record, Prepared):
            self._settings = dict(_flat(record.config.model_dump(mode="json")))
        elif isinstance(record, Resumed):
            self._past = record.epochs
        elif isinstance(record, Finished) and self._running and record.test is not None:
            self._log(_scores("test", record.test), record.best.number)

    def _start(self) -> None:
        self._running = True
        name = self._folder.resolve().name
        self._all(lambda tracker: tracker.start(name, self._folder, self._settings))
        for epoch in self._past:
            self._log(_figures(epoch), epoch.number)

    def _log(self, figures: dict[str, float], epoch: int) -> None:
        self._all(lambda tracker: tracker.log(figures, epoch))

    def _all(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as problem:
                del self._trackers[name]
                self._tell(f"{name} failed, and training goes on without it: {type(problem).__name__}: {problem}")


def _figures(epoch: Epoch) -> dict[str, float]:
    figures = {
        "train/loss": epoch.loss,
        "train/learning_rate": epoch.learning_rate,
        "train/gradient_norm": epoch.gradient_norm,
        "train/tokens_per_second": epoch.tokens_per_second,
        **_scores("validation", epoch.validation),
    }
    if epoch.validation_loss is not None:
        figures["validation/loss"] = epoch.validation_loss
    return figures


def _scores(split: str, scores: Evaluation) -> dict[str, float]:
    micro = scores.micro
    return {
        f"{split}/f1": micro.f1,
        f"{split}/precision": micro.precision,
        f"{split}/recall": micro.recall,
        f"{split}/accuracy": scores.accuracy,
        **{f"{split}_f1/{name}": each.f1 for name, each in scores.per_type.items()},
        **{f"{split}_precision/{name}": each.precision for name, each in scores.per_type.items()},
        **{f"{split}_recall/{name}": each.recall for name, each in scores.per_type.items()},
    }


def _flat(tree: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{head}{key}.")
        else:
            yield f"{head}{key}", value
