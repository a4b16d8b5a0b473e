"""A whole run: from a config to a folder with a model, its metrics and its scores."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nertool
from nertool.config.files import (
    LOCK,
    RUN_FILES,
    locked,
    read_limited,
    refuse_links,
    remove_files,
    remove_leftovers,
    write_whole,
)
from nertool.config.schema import Config
from nertool.data.corpus import Split
from nertool.data.encoding import EncodedCorpus
from nertool.data.sharding import Sharding, write_shards
from nertool.data.shards import Shards
from nertool.errors import ConfigError, DivergenceError, NertoolError
from nertool.evaluation.scores import Evaluation, evaluate
from nertool.model.concurrency import fork_safe, threads
from nertool.model.devices import find_device
from nertool.model.model import Model
from nertool.tagging.bundle import FILES, load_bundle, save_bundle
from nertool.tagging.predictor import Predictor, windows_of
from nertool.text.tokenization import SpacyTokenizer
from nertool.training.calibration import Calibration, calibrate
from nertool.training.checkpoint import CHECKPOINT, KEPT, Checkpoint, identify, what_helps
from nertool.training.distributed import ALONE, Group, own_device
from nertool.training.preparation import Prepared, check_streaming, prepare, streamed_columns
from nertool.training.states import Computing, keep_states, share_states
from nertool.training.step import Learner, training_threads
from nertool.training.trainer import Epoch, Step, has_ended, train
from nertool.training.validation import Validation, scorable_sentences

METRICS, RESULTS = RUN_FILES
CURVES = "curves.svg"
_OWN = (*FILES, METRICS, RESULTS, CURVES, CHECKPOINT, KEPT, LOCK)


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
        before: Whether it had ended before this call, which then changed nothing.
    """

    best: Epoch
    epochs: int
    seconds: float
    calibration: Calibration
    test: Evaluation | None
    before: bool = False


@fork_safe
def run(
    config: Config, folder: Path, *, resume: bool = False, group: Group = ALONE
) -> Generator[Sharding | Prepared | Resumed | Computing | Step | Epoch | Finished, None, None]:
    """Train a model and write it to a folder.

    The folder always holds the model of the best epoch so far, with `metrics.jsonl`, and a checkpoint to go on
    from; `results.json` comes last. `curves.svg`, which a listener may draw, is removed with the results. An
    earlier model in the folder, and its checkpoint, stay until the first epoch has ended. No other process can
    train into the folder meanwhile.

    Args:
        config: With paths that exist (see `nertool.config.loading.locate_files`).
        folder: The run directory.
        resume: Whether to go on with the training in this folder, if there is one. After an interruption it ends
            with the same bits as if it had not been stopped. A training that has ended is left alone, unless
            `training.epochs` or `training.patience` ask for more. What does not change the epochs so far may
            differ from before: these two, `training.threads`, `training.device`, the test split, the places of
            files; and what helps against divergence, after one.
        group: The processes that train together, each of which calls this; the first one alone touches the folder.

    Yields:
        A `Sharding` for each shard of a streamed training split that is written; `Prepared`; `Resumed` if a
        training goes on; a `Computing` for each batch of states of a transformer; a `Step` for each batch and an
        `Epoch` for each epoch; `Finished`. In processes other than the first there is no `Resumed` and no
        `Finished`.

    Raises:
        ConfigError, CorpusError: As for `prepare`.
        BundleError: The checkpoint is corrupt, of another training, or its model is not there.
        DivergenceError: Training diverged; says what helps.
        NertoolError: The folder cannot be written to, or another process is writing to it.
    """
    if config.start.model is not None and Path(config.start.model).resolve() == folder.resolve():
        raise ConfigError(f"start.model: {folder} is the run directory too; name another one with --output")

    shards: Shards | None = None

    def check_here() -> None:
        training_device(config, group)  # before the time that reading takes
        if group.leads:
            refuse_links(folder, _OWN)
        check_streaming(config)

    def prepare_here() -> Prepared:
        check_here()
        return prepare(config, shards=shards)

    if config.corpus.stream and group.size == 1:
        check_here()
        shards = yield from write_shards(config.corpus, SpacyTokenizer(config.language), streamed_columns(config))
    prepared = group.all_or_none(prepare_here)
    if group.size > 1:
        digests = group.told(json.dumps(prepared.digests))
        group.all_or_none(lambda: _compare(prepared, json.loads(digests)))
    yield prepared
    if not group.leads:
        yield from _follow(prepared, group)
        return
    with locked(folder):
        yield from _run(prepared, folder, resume, group)


@fork_safe
def run_prepared(
    prepared: Prepared, folder: Path, *, resume: bool = False
) -> Generator[Resumed | Computing | Step | Epoch | Finished, None, None]:
    """Train what is prepared already; the rest is as for `run`."""
    refuse_links(folder, _OWN)
    with locked(folder):
        yield from _run(prepared, folder, resume)


def _run(
    prepared: Prepared, folder: Path, resume: bool, group: Group = ALONE
) -> Generator[Resumed | Computing | Step | Epoch | Finished, None, None]:
    config, corpus, model = prepared.config, prepared.corpus, prepared.model
    remove_leftovers(folder, (*FILES, METRICS, RESULTS, CURVES, CHECKPOINT))
    device = training_device(config, group)
    model.network.to(device)
    learner = Learner(model.network, config.training, group)
    checkpoint = Checkpoint(folder, learner, identify(prepared))
    goes_on = resume and checkpoint.exists()
    epochs = group.all_or_none(lambda: checkpoint.load() if goes_on else [])
    _synchronize(learner, epochs)
    if goes_on:
        ended = has_ended(epochs, config.training)
        yield Resumed(epochs[:])
        if ended and (finished := _read_results(folder, epochs)) is not None:
            yield finished
            return
    elif resume and (folder / RESULTS).exists():
        raise NertoolError(
            f"{folder}: this training has ended, and there is no {CHECKPOINT} to go on from; train without "
            "--resume to replace the model"
        )
    yield from _keep_states(prepared)
    started = time.perf_counter() - sum(epoch.seconds for epoch in epochs)
    validation = Validation(model, corpus.validation, group)
    records = train(
        model.network,
        prepared.encoded,
        validation.score,
        config.training,
        validation_loss=validation.loss,
        learner=learner,
        past=epochs[:],
        save=lambda: checkpoint.save(epochs),
    )
    try:
        for record in records:
            if isinstance(record, Epoch):
                record = replace(record, note=validation.note())
                # From here on the folder is this training's. Results go first: they would be taken for those of
                # other weights. So would the checkpoint and the metrics of an earlier training.
                remove_files(folder, [RESULTS, CURVES] if epochs else [RESULTS, CURVES, CHECKPOINT, METRICS, KEPT])
                epochs.append(record)
                if record.improved:
                    checkpoint.save_best(model)
                lines = [json.dumps(_metrics(epoch)) + "\n" for epoch in epochs]
                write_whole(folder / METRICS, "".join(lines).encode())
            yield record
    except DivergenceError as problem:
        again = ""
        if epochs:
            checkpoint.mark_diverged(len(epochs) + 1)
            again = f" and --resume, which goes on after epoch {len(epochs)}"
        raise DivergenceError(f"{problem}; {what_helps(config.training)}{again}") from None
    seconds = time.perf_counter() - started
    best = epochs[epochs[-1].best - 1]
    with threads(training_threads(config.training)):
        saved = replace(load_bundle(folder, device), config=config)
        share_states(model.inputs, saved.inputs)
        calibration = calibrate(saved, corpus.validation, corpus.test)
        save_bundle(saved, folder)
        # With the model as it was saved, so that the scores are those of the files.
        test = None if corpus.test is None else score(load_bundle(folder, device), corpus.test)
    finished = Finished(best, len(epochs), seconds, calibration, test)
    results = {**_results(config, finished), "device": str(device), "processes": group.size}
    write_whole(folder / RESULTS, (json.dumps(results, indent=2) + "\n").encode())
    yield finished


def _follow(prepared: Prepared, group: Group) -> Iterator[Computing | Step | Epoch]:
    """Train with the process that writes, and write nothing."""
    config, model = prepared.config, prepared.model
    model.network.to(training_device(config, group))
    learner = Learner(model.network, config.training, group)
    group.all_or_none(lambda: None)
    past = _synchronize(learner, [])
    yield from _keep_states(prepared)
    validation = Validation(model, prepared.corpus.validation, group)

    def save() -> None:
        learner.state()  # a part of it is this process's

    yield from train(
        model.network,
        prepared.encoded,
        validation.score,
        config.training,
        validation_loss=validation.loss,
        learner=learner,
        past=past,
        save=save,
    )


def _keep_states(prepared: Prepared) -> Iterator[Computing]:
    model, validation = prepared.model, prepared.corpus.validation
    if not isinstance(prepared.encoded, EncodedCorpus):  # no input of what is streamed has states
        return
    with threads(training_threads(prepared.config.training)):
        scored = windows_of(validation.sentences), scorable_sentences(model, validation)
        yield from keep_states(model, prepared.encoded, scored)


def _synchronize(learner: Learner, epochs: list[Epoch]) -> list[Epoch]:
    """Bring all processes to the state of the one that writes; return its epochs."""
    group = learner.group
    if group.size == 1:
        return epochs
    told = group.told(json.dumps([epoch.to_json() for epoch in epochs]))
    state = learner.state()
    if learner.restored_noise is not None:  # only process 0 has read what the streams of the others were at
        state["noise"] = learner.restored_noise
    learner.restore(group.shared(state))
    return [Epoch.from_json(tree) for tree in json.loads(told)]


def _compare(prepared: Prepared, digests: dict[str, str]) -> None:
    """Refuse to train where this process has read something else than the first one."""
    differing = sorted(name for name in digests if digests[name] != prepared.digests.get(name))
    if differing:
        raise ConfigError(f"it has read other data than process 0: {', '.join(differing)}")


def training_device(config: Config, group: Group = ALONE) -> torch.device:
    """Return the device that a config trains on.

    Raises:
        ConfigError: It is not there.
    """
    return find_device(own_device(config.training.device, group), "training.device")


def score(model: Model, split: Split) -> Evaluation:
    """Score a model on a labelled split whose labels are in the model's scheme."""
    predicted = Predictor(model).predict(split.sentences).labels
    return evaluate(split.labels, split.comparable(predicted), split.label_scheme)


def _read_results(folder: Path, epochs: list[Epoch]) -> Finished | None:
    """Read the results of a training that had ended after these epochs; None if there are none."""
    try:
        tree = json.loads(read_limited(folder / RESULTS))
        if (tree["epochs"], tree["best_epoch"]) != (len(epochs), epochs[-1].best):
            return None
        test = None if tree["test"] is None else Evaluation.from_json(tree["test"])
        best, calibration = epochs[epochs[-1].best - 1], Calibration(**tree["calibration"])
        return Finished(best, len(epochs), tree["seconds"], calibration, test, before=True)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _metrics(epoch: Epoch) -> dict[str, Any]:
    return {
        "epoch": epoch.number,
        "loss": epoch.loss,
        "f1": epoch.validation.micro.f1,
        "precision": epoch.validation.micro.precision,
        "recall": epoch.validation.micro.recall,
        "accuracy": epoch.validation.accuracy,
        "per_type": {name: asdict(scores) for name, scores in epoch.validation.per_type.items()},
        "learning_rate": epoch.learning_rate,
        "gradient_norm": epoch.gradient_norm,
        "seconds": epoch.seconds,
        "tokens_per_second": epoch.tokens_per_second,
        "best": epoch.improved,
        "validation_loss": epoch.validation_loss,
        **({"note": epoch.note} if epoch.note else {}),
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
