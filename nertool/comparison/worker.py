"""One training of a comparison, in a process of its own: `python -m nertool.comparison.worker FOLDER [PARENT]`.

The folder holds the config. The files of the run are written to it, and last `run.json` with the result: it means
that the training has ended. The process stops when its parent, a process number, is gone.
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
from nertool.config.files import remove_files
from nertool.config.loading import load_config
from nertool.config.schema import Config
from nertool.data.corpus import Split
from nertool.errors import BundleError, NertoolError
from nertool.evaluation.scores import sentence_counts
from nertool.model.concurrency import threads
from nertool.model.model import Model
from nertool.tagging.bundle import CONFIG, load_bundle
from nertool.tagging.predictor import Predictor
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.preparation import Prepared
from nertool.training.run import RESULTS, Finished, Resumed, run, training_device
from nertool.training.step import training_threads
from nertool.training.trainer import Epoch

_TAGGING_SECONDS = 1.0


def train_one(config: Config, folder: Path, parent: int) -> Run:
    """Train, score and measure one cell of the grid with one seed; go on where it was stopped before.

    Args:
        config: With paths that exist.
        folder: The run directory.
        parent: The process that waits for this one.

    Raises:
        NertoolError: As for `nertool.training.run.run`, and when the parent is gone.
    """
    began = time.perf_counter()
    prepared: Prepared | None = None
    start: list[float] | None = None
    epochs: list[Epoch] = []
    finished: Finished | None = None
    for record in run(config, folder, resume=True):
        # Nobody waits for the result any more, and the training may be started again elsewhere. On Windows a
        # process keeps the number of its parent, which may be a launcher.
        if os.name == "posix" and os.getppid() != parent:
            raise NertoolError("the comparison that started this training has ended")
        if isinstance(record, Prepared):
            prepared = record
            start = state_gradients(record.model, record.corpus.validation.sentences)
        elif isinstance(record, Resumed):
            epochs = record.epochs
            began -= sum(epoch.seconds for epoch in epochs)
        elif isinstance(record, Epoch):
            epochs.append(record)
        elif isinstance(record, Finished):
            finished = record
    assert prepared is not None and finished is not None
    model = load_bundle(folder)
    end = state_gradients(model, prepared.corpus.validation.sentences)
    split = prepared.corpus.test or prepared.corpus.validation
    model.network.to(training_device(config))
    with threads(training_threads(config.training)):
        predicted, speed = _tag(model, split)
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
        counts=sentence_counts(split.labels, predicted, split.label_scheme),
        fold=None if config.corpus.fold_numbers is None else config.corpus.fold_numbers[0],
        training_sentences=len(prepared.corpus.train),
        training_entities=prepared.corpus.train.entity_counts().total(),
    )


def _tag(model: Model, split: Split) -> tuple[list[list[str]], float]:
    """Return the labels of a split, and tokens a second: the median of as many rounds as fit in a second."""
    sentences = split.sentences
    rounds: list[float] = []
    while not rounds or sum(rounds) < _TAGGING_SECONDS:
        predictor = Predictor(model)  # a new one, to which every word is new
        began = time.perf_counter()
        labels = predictor.predict(sentences).labels
        rounds.append(time.perf_counter() - began)
    return list(split.comparable(labels)), split.token_count / statistics.median(rounds)


def main(folder: Path, parent: int) -> None:
    """Train the config of a folder and write `run.json`."""
    config = load_config(folder / CONFIG)
    try:
        files = fingerprint(config)  # now: they may be changed during the training
    except OSError as problem:
        raise NertoolError(f"{problem.filename}: cannot be read: {problem.strerror}") from None
    try:
        result = train_one(config, folder, parent)
    except BundleError:
        if not (folder / CHECKPOINT).exists():
            raise
        # It is corrupt, or of another corpus that had the same name.
        remove_files(folder, [RESULTS, CHECKPOINT])
        result = train_one(config, folder, parent)
    write_run(result, config, files, folder)
    remove_files(folder, [CHECKPOINT])  # another number of epochs is another cell of the grid


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())
    except NertoolError as problem:
        sys.exit(f"error: {problem}")
