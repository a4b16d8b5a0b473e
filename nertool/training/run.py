"""A whole run: from a config to a folder with a model, its metrics and its scores."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nertool
from nertool.config.files import remove_leftovers, write_whole
from nertool.config.schema import Config
from nertool.data.corpus import Split
from nertool.errors import NertoolError
from nertool.evaluation.scores import Evaluation, evaluate
from nertool.model.concurrency import fork_safe, threads
from nertool.model.model import Model
from nertool.tagging.bundle import FILES, load_bundle, save_bundle
from nertool.tagging.predictor import Predictor
from nertool.training.calibration import Calibration, calibrate
from nertool.training.checkpoint import CHECKPOINT, fingerprint, load_checkpoint, save_checkpoint
from nertool.training.preparation import Prepared, prepare
from nertool.training.step import Learner, training_threads
from nertool.training.trainer import Epoch, Step, train

METRICS, RESULTS = "metrics.jsonl", "results.json"


@dataclass(frozen=True)
class Resumed:
    """A training that was stopped goes on.

    Attributes:
        epochs: Those that were trained before.
    """

    epochs: list[Epoch]


@dataclass(frozen=True)
class Finished:
    """Training has ended, the best epoch is on disk, and the test split has been scored.

    Attributes:
        best: The record of the best epoch.
        epochs: How many were trained.
        seconds: Of training and validation together.
        calibration: Of the model's probabilities, on the validation split.
        test: Scores of the test split; None without one.
    """

    best: Epoch
    epochs: int
    seconds: float
    calibration: Calibration
    test: Evaluation | None


@fork_safe
def run(
    config: Config, folder: Path, *, resume: bool = False
) -> Generator[Prepared | Resumed | Step | Epoch | Finished, None, None]:
    """Train a model and write it to a folder.

    The folder always holds the model of the best epoch so far, with `metrics.jsonl`, and a checkpoint to go on
    from after an interruption; `results.json` comes last, and the checkpoint is removed. An earlier model in the
    folder stays until the first epoch has ended.

    Args:
        config: With paths that exist (see `nertool.config.loading.locate_files`).
        folder: The run directory.
        resume: Whether to go on where a training of this config in this folder was stopped, if one was; it ends
            with the same bits as if it had not been stopped.

    Yields:
        `Prepared`; `Resumed` if a training goes on; a `Step` for each batch and an `Epoch` for each epoch;
        `Finished`.

    Raises:
        ConfigError, CorpusError: As for `prepare`.
        BundleError: The checkpoint is corrupt, or of another training.
        NertoolError: The folder cannot be written to, or training diverged.
    """
    prepared = prepare(config)
    yield prepared

    corpus, model = prepared.corpus, prepared.model
    _check_folder(folder)
    remove_leftovers(folder, (*FILES, METRICS, RESULTS, CHECKPOINT))
    learner = Learner(model.network, config.training)
    identity = fingerprint(config, prepared.encoded)
    epochs: list[Epoch] = []
    if resume and (folder / CHECKPOINT).exists():
        epochs = load_checkpoint(folder, learner, identity)
        yield Resumed(epochs[:])
    started = time.perf_counter() - sum(epoch.seconds for epoch in epochs)
    records = train(
        model.network,
        prepared.encoded,
        lambda: score(model, corpus.validation),
        config.training,
        learner=learner,
        past=epochs[:],
        save=lambda: save_checkpoint(folder, learner, epochs, identity),
    )
    for record in records:
        if isinstance(record, Epoch):
            epochs.append(record)
            if len(epochs) == 1:
                # The scores of an earlier run in this folder would be taken for those of this one.
                (folder / RESULTS).unlink(missing_ok=True)
            if record.improved:
                save_bundle(model, folder)
            lines = [json.dumps(_metrics(epoch)) + "\n" for epoch in epochs]
            write_whole(folder / METRICS, "".join(lines).encode())
        yield record
    seconds = time.perf_counter() - started
    best = epochs[epochs[-1].best - 1]
    with threads(training_threads(config.training)):
        saved = load_bundle(folder)
        calibration = calibrate(saved, corpus.validation, corpus.test)
        save_bundle(saved, folder)
        test = _score_test(corpus.test, folder)
    finished = Finished(best, len(epochs), seconds, calibration, test)
    write_whole(folder / RESULTS, (json.dumps(_results(config, finished), indent=2) + "\n").encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)
    yield finished


def score(model: Model, split: Split) -> Evaluation:
    """Score a model on a labelled split whose labels are in the model's scheme."""
    return evaluate(split.labels, Predictor(model).predict(split.sentences).labels, split.label_scheme)


def _score_test(test: Split | None, folder: Path) -> Evaluation | None:
    """Score the test split with the model as it was saved, so that the scores are those of the files."""
    return None if test is None else score(load_bundle(folder), test)


def _check_folder(folder: Path) -> None:
    """Check now, not after the first epoch, that the folder can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise NertoolError(f"{folder}: cannot write there: {problem.strerror}") from None


def _metrics(epoch: Epoch) -> dict[str, Any]:
    return {
        "epoch": epoch.number,
        "loss": epoch.loss,
        "f1": epoch.validation.micro.f1,
        "precision": epoch.validation.micro.precision,
        "recall": epoch.validation.micro.recall,
        "accuracy": epoch.validation.accuracy,
        "learning_rate": epoch.learning_rate,
        "gradient_norm": epoch.gradient_norm,
        "seconds": epoch.seconds,
        "tokens_per_second": epoch.tokens_per_second,
        "best": epoch.improved,
    }


def _results(config: Config, finished: Finished) -> dict[str, Any]:
    return {
        "seed": config.training.seed,
        "epochs": finished.epochs,
        "best_epoch": finished.best.number,
        "seconds": finished.seconds,
        "tokens_per_second": finished.best.tokens_per_second,
        "validation": finished.best.validation.to_json(),
        "calibration": finished.calibration.to_json(),
        "test": finished.test.to_json() if finished.test is not None else None,
        "versions": {
            "nertool": nertool.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "spacy": version("spacy"),
        },
        "threads": training_threads(config.training),
        "config": config.model_dump(mode="json"),
    }
