"""One training of a comparison, in a process of its own: `python -m nertool.comparison.worker FOLDER [PARENT]`.

The folder holds the config; the run's files are written to it, and last of all `run.json`, which says that
the training has ended and what came of it. When the parent, a process by its number, is gone, it stops.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from nertool.comparison.gradients import state_gradients
from nertool.comparison.records import Gradients, Run
from nertool.comparison.results import fingerprint, write_run
from nertool.config.loading import load_config
from nertool.config.schema import Config
from nertool.errors import BundleError, NertoolError
from nertool.evaluation.scores import sentence_counts
from nertool.formats.labels import LabelledSentences
from nertool.model.concurrency import threads
from nertool.tagging.bundle import CONFIG, Model, load_bundle
from nertool.tagging.labeller import Labeller
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.run import Finished, Prepared, Resumed, run
from nertool.training.trainer import Epoch, training_threads

_TAGGING_SECONDS = 1.0


def train_one(config: Config, folder: Path, parent: int) -> Run:
    """Trains, scores and measures one cell of the grid with one seed; goes on where it was stopped before.

    Args:
        config: With paths that exist.
        folder: The run directory.
        parent: The process that waits for this one.

    Raises:
        NertoolError: As `nertool.training.run.run` does, and when the parent is gone.
    """
    began = time.perf_counter()
    prepared: Prepared | None = None
    start: list[float] | None = None
    epochs: list[Epoch] = []
    finished: Finished | None = None
    for record in run(config, folder, resume=True):
        # Nobody waits for this any more, and it may be started again elsewhere. On Windows a process keeps the
        # number of its parent, which may be a launcher.
        if os.name == "posix" and os.getppid() != parent:
            raise NertoolError("the comparison that started this training has ended")
        if isinstance(record, Prepared):
            prepared = record
            start = state_gradients(record.model, record.corpus.validation.tokens)
        elif isinstance(record, Resumed):
            epochs = record.epochs
            began -= sum(epoch.seconds for epoch in epochs)
        elif isinstance(record, Epoch):
            epochs.append(record)
        elif isinstance(record, Finished):
            finished = record
    assert prepared is not None and finished is not None
    model = load_bundle(folder)
    split = prepared.corpus.test or prepared.corpus.validation
    with threads(training_threads(config.training)):
        found, speed = _tag(model, split)
    end = state_gradients(model, prepared.corpus.validation.tokens)
    best = finished.best
    return Run(
        seed=config.training.seed,
        validation=best.validation.micro.f1,
        test=None if finished.test is None else finished.test.micro.f1,
        parameters=prepared.parameters[0],
        word_parameters=prepared.parameters[1],
        training_speed=statistics.median(epoch.tokens_per_second for epoch in epochs),
        tagging_speed=speed,
        best_epoch=best.number,
        seconds_to_best=sum(epoch.seconds for epoch in epochs[: best.number]),
        seconds=time.perf_counter() - began,
        curve=[epoch.validation.micro.f1 for epoch in epochs],
        losses=[epoch.loss for epoch in epochs],
        gradients=None if start is None or end is None else Gradients(start, end),
        counts=sentence_counts(split.labels, found, split.label_scheme),
    )


def _tag(model: Model, split: LabelledSentences) -> tuple[list[list[str]], float]:
    """Labels of a split, and tokens a second: the median of as many rounds as fit in a second."""
    rounds: list[float] = []
    while not rounds or sum(rounds) < _TAGGING_SECONDS:
        labeller = Labeller(model)  # a new one, to which every word is new
        began = time.perf_counter()
        found = labeller.label(split.tokens).labels
        rounds.append(time.perf_counter() - began)
    return found, split.token_count / statistics.median(rounds)


def main(folder: Path, parent: int) -> None:
    """Trains what the folder's config says and writes `run.json`."""
    config = load_config(folder / CONFIG)
    try:
        files = fingerprint(config)  # now, for they may be changed while this trains
    except OSError as problem:
        raise NertoolError(f"{problem.filename}: cannot be read: {problem.strerror}") from None
    try:
        found = train_one(config, folder, parent)
    except BundleError:
        checkpoint = folder / CHECKPOINT
        if not checkpoint.exists():
            raise
        checkpoint.unlink()  # it is damaged, or of another corpus that had the same name
        found = train_one(config, folder, parent)
    write_run(found, config, files, folder)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())
    except NertoolError as problem:
        sys.exit(f"error: {problem}")
