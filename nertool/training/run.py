"""A whole run: from a config to a folder with a model, its metrics and its scores."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nertool
from nertool.config.files import remove_leftovers, write_whole
from nertool.config.schema import Config
from nertool.data.batching import EncodedCorpus
from nertool.data.corpus import Corpus, read_corpus
from nertool.data.vectors import Vectors, look_up, read_vectors
from nertool.data.vocabulary import Lexicon, build_lexicon
from nertool.errors import ConfigError, NertoolError
from nertool.evaluation.scores import Evaluation, evaluate
from nertool.formats.labels import UNKNOWN, LabelledSentences
from nertool.model.concurrency import threads
from nertool.tagging.bundle import FILES, Model, fresh_model, load_bundle, save_bundle
from nertool.tagging.labeller import Labeller
from nertool.training.calibration import Calibration, calibrate
from nertool.training.checkpoint import CHECKPOINT, fingerprint, load_checkpoint, save_checkpoint
from nertool.training.optimization import Optimization
from nertool.training.trainer import Epoch, Step, train, training_threads

METRICS, RESULTS = "metrics.jsonl", "results.json"


@dataclass(frozen=True)
class Prepared:
    """Everything is read and built; training is about to begin.

    Attributes:
        config: With the paths of the files that were found.
        corpus: The splits.
        lexicon: The vocabularies.
        model: With its first weights; training changes it.
        coverage: For each split, the share of tokens that have a pretrained vector; None without vectors.
        parameters: Number of weights, those of word vectors left out, and of word vectors.
        seconds: That it took.
    """

    config: Config
    corpus: Corpus
    lexicon: Lexicon
    model: Model
    coverage: dict[str, float] | None
    parameters: tuple[int, int]
    seconds: float


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
        epochs: That were trained.
        seconds: Of training and validation together.
        calibration: Of the model's probabilities, on the validation split.
        test: Scores of the test split; None where there is none.
    """

    best: Epoch
    epochs: int
    seconds: float
    calibration: Calibration
    test: Evaluation | None


def run(
    config: Config, folder: Path, *, resume: bool = False
) -> Iterator[Prepared | Resumed | Step | Epoch | Finished]:
    """Trains a model and writes it to a folder.

    The model of the best epoch so far is always there, with `metrics.jsonl`, and a checkpoint to go on from
    after an interruption; `results.json` comes last, and the checkpoint goes. A model that was there before
    stays until the first epoch has ended.

    Args:
        config: With paths that exist (see `locate_corpus`).
        folder: The run directory.
        resume: Whether to go on where a training of this config in this folder was stopped, if one was; it
            ends with the same bits as if it had not been.

    Raises:
        NertoolError: Of the kind that tells what is wrong: config, corpus or vectors, or the folder.
    """
    began = time.perf_counter()
    _check_language(config.language)
    corpus = read_corpus(config.corpus)
    vectors = [read_vectors(path) for path in config.words.vectors]
    lexicon = build_lexicon(
        corpus.train.tokens,
        corpus.train.labels,
        corpus.train.label_scheme,
        vectors,
        config.words.minimum_count,
        config.words.extra_rows,
    )
    try:
        model = fresh_model(config, lexicon, vectors)
    except (RuntimeError, MemoryError) as problem:
        raise ConfigError(f"model: a network of these sizes cannot be built: {problem}") from None
    encoded = encode_split(corpus.train, model)
    counts = [parameter.numel() for parameter in model.network.parameters()]
    table = model.network.words.weight.numel()
    coverage = {name: _coverage(split, vectors) for name, split in corpus.splits.items()} if vectors else None
    sizes = (sum(counts) - table, table)
    yield Prepared(config, corpus, lexicon, model, coverage, sizes, time.perf_counter() - began)

    _check_folder(folder)
    remove_leftovers(folder, (*FILES, METRICS, RESULTS, CHECKPOINT))

    def validate() -> Evaluation:
        found = Labeller(model).label(corpus.validation.tokens).labels
        return evaluate(corpus.validation.labels, found, corpus.validation.label_scheme)

    def save() -> None:
        save_checkpoint(folder, model.network, optimization, epochs, identity)

    epochs: list[Epoch] = []
    optimization = Optimization(model.network, config.training)
    identity = fingerprint(config, encoded)
    if resume and (folder / CHECKPOINT).exists():
        epochs = load_checkpoint(folder, model.network, optimization, identity)
        yield Resumed(epochs[:])
    started = time.perf_counter() - sum(epoch.seconds for epoch in epochs)
    records = train(
        model.network, encoded, validate, config.training, optimization=optimization, past=epochs[:], save=save
    )
    for record in records:
        if isinstance(record, Epoch):
            epochs.append(record)
            if len(epochs) == 1:
                # Scores of an earlier run in this folder would be taken for those of this one.
                (folder / RESULTS).unlink(missing_ok=True)
            if record.improved:
                save_bundle(model, folder)
            lines = [json.dumps(_metrics(epoch)) + "\n" for epoch in epochs]
            write_whole(folder / METRICS, "".join(lines).encode())
        yield record
    seconds = time.perf_counter() - started
    best = epochs[epochs[-1].best - 1]
    with threads(training_threads(config.training)):
        chosen = load_bundle(folder)
        calibration = calibrate(chosen, corpus.validation, corpus.test)
        save_bundle(chosen, folder)
        test = _score_test(corpus, folder)
    finished = Finished(best, len(epochs), seconds, calibration, test)
    write_whole(folder / RESULTS, (json.dumps(_results(config, finished), indent=2) + "\n").encode())
    (folder / CHECKPOINT).unlink(missing_ok=True)
    yield finished


def _score_test(corpus: Corpus, folder: Path) -> Evaluation | None:
    """Scores the test split with the model as it was saved, so that it is the saved one that is vouched for."""
    if corpus.test is None:
        return None
    found = Labeller(load_bundle(folder)).label(corpus.test.tokens).labels
    return evaluate(corpus.test.labels, found, corpus.test.label_scheme)


def encode_split(split: LabelledSentences, model: Model) -> EncodedCorpus:
    """A labelled split as integers."""
    numbers = {label: number for number, label in enumerate(model.lexicon.labels)} | {UNKNOWN: -1}
    return EncodedCorpus(model.new_forms(), split.tokens, split.labels, numbers)


def _coverage(split: LabelledSentences, vectors: Sequence[Vectors]) -> float:
    known: dict[str, bool] = {}
    found = 0
    for tokens in split.tokens:
        for token in tokens:
            if token not in known:
                known[token] = any(look_up(token, each.index) is not None for each in vectors)
            found += known[token]
    return found / split.token_count


def _check_language(code: str) -> None:
    """Finds out now, not when text is to be tagged, whether spaCy knows the language; imports nothing of it."""
    places = find_spec("spacy")
    folders = places.submodule_search_locations if places else None
    if folders and not any((Path(folder) / "lang" / code).is_dir() for folder in folders):
        raise ConfigError(f"language: spaCy has no language {code!r}; xx is the one for any other")


def _check_folder(folder: Path) -> None:
    """Finds out now, not after the first epoch, whether the folder can be written to."""
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
