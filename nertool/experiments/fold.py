"""One training of an audit, in a process of its own: `python -m nertool.experiments.fold FOLDER PARENT`.

The folder holds the config and `job.json`. A model learns from all folds but one; what it computes for the fold
that it has not seen is written to `held_out.safetensors`, last: it means that the training has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nertool.comparison.results import fingerprint, without
from nertool.config.files import remove_files, write_whole
from nertool.config.loading import in_force, load_config
from nertool.config.schema import Config
from nertool.data.corpus import Corpus, Split, hold_out, open_splits, read_training
from nertool.data.encoding import EncodedCorpus, reading_order
from nertool.data.folds import divide, make_folds
from nertool.data.pieces import in_pieces
from nertool.errors import BundleError, ConfigError, CorpusError, NertoolError
from nertool.forking import no_fork
from nertool.model.batch import Batch
from nertool.model.chain import Scores
from nertool.model.concurrency import threads
from nertool.model.model import Model, fit_labels
from nertool.tagging.bundle import CONFIG, FILES, load_bundle
from nertool.tagging.tensorfile import check_digest, read_tensors, write_tensors
from nertool.text.document import Document
from nertool.text.tokenization import SpacyTokenizer
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.preparation import prepare
from nertool.training.run import METRICS, RESULTS, Finished, run_prepared, training_device
from nertool.training.step import training_threads

JOB, HELD_OUT = "job.json", "held_out.safetensors"
_VERSION = ("nertool-held-out", "1")
_LARGEST_HEADER = 2**24
_TOKENS_PER_BATCH = 2000


@dataclass(frozen=True)
class FoldJob:
    """A training of an audit.

    Attributes:
        repeat: Which division into folds, counted from 0; it is the seed of the draw.
        fold: That is held out, counted from 0.
        folds: How many there are.
    """

    repeat: int
    fold: int
    folds: int


@dataclass(frozen=True)
class HeldOut:
    """What a model says of the fold that it was not trained on. Its temperature is applied.

    Attributes:
        sentences: Their numbers in the split, ascending, (sentences,).
        labels: The model's labels, in order.
        emissions: Scores of the labels of each token, (tokens, labels).
        scores: Of start, transitions and end, with the constraints of the label scheme.
        f1: Of the best epoch on the sentences that chose it.
    """

    sentences: np.ndarray
    labels: list[str]
    emissions: np.ndarray
    scores: Scores
    f1: float


def read_whole(config: Config) -> Split:
    """Read the training split of a config, with nothing held out, in the scheme that is learnt.

    Raises:
        CorpusError: It cannot be read, or has no entity.
    """
    split = read_training(open_splits(config.corpus, tokenizer=SpacyTokenizer(config.language)), config.corpus)
    if not split.has_entities:
        raise CorpusError("no token is labelled as an entity, so that there is nothing to check", split.path)
    return split


def pieces_of(split: Split) -> tuple[list[Document], np.ndarray, np.ndarray]:
    """Return the sentences as models see them, long ones in pieces.

    Returns:
        The pieces; for each the number of its sentence, and where it begins in it, (pieces,).
    """
    pieces: list[Document] = []
    owners: list[int] = []
    starts: list[int] = []
    for number, sentence in enumerate(split.sentences):
        start = 0
        for piece in in_pieces([sentence], split.label_scheme):
            pieces.append(piece)
            owners.append(number)
            starts.append(start)
            start += len(piece)
    return pieces, np.array(owners, np.int64), np.array(starts, np.int64)


def key_of(config: Config, job: FoldJob) -> str:
    """Return a digest of what decides the result of a job: settings, files, and folds.

    Raises:
        NertoolError: A file cannot be read.
    """
    try:
        files = fingerprint(config)
    except OSError as problem:
        raise NertoolError(f"{problem.filename}: cannot be read: {problem.strerror}") from None
    settings = {name: tree for name, tree in in_force(config).items() if name not in ("corpus", "inputs")}
    # Where files are does not matter, and what is in them does.
    rest = without(config, files)
    content = json.dumps([settings, rest["corpus"], rest["inputs"], files, asdict(job)], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def read_held_out(folder: Path, config: Config, job: FoldJob) -> HeldOut | None:
    """Read the result of a job; None if it has not ended, or was another one."""
    path = folder / HELD_OUT
    if not path.exists():
        return None
    try:
        tensors, texts = read_tensors(path, _VERSION, _LARGEST_HEADER)
        check_digest(path, tensors, texts)
        if texts["key"] != key_of(config, job):
            return None
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        scores = Scores(*(arrays[name].astype(np.float64) for name in Scores._fields))
        labels = json.loads(texts["labels"])
        return HeldOut(arrays["sentences"], labels, arrays["emissions"], scores, float(texts["f1"]))
    except (BundleError, LookupError, ValueError):
        return None


def train_fold(config: Config, job: FoldJob, folder: Path, parent: int) -> HeldOut:
    """Train on all folds but one, and compute scores for that one.

    Args:
        config: With paths that exist.
        job: Which fold.
        folder: The run directory; a training that was stopped there goes on.
        parent: The process that waits for this one.

    Raises:
        NertoolError: As for `nertool.training.run.run`, and when the parent is gone.
    """
    split = read_whole(config)
    held = sorted(make_folds(split, job.folds, job.repeat)[job.fold])
    rest, own = divide(split, held)
    corpus = config.corpus
    if corpus.validation is None:
        train, validation = hold_out(rest, corpus.held_out, corpus.held_out_by)
    else:
        read = open_splits(corpus, tokenizer=SpacyTokenizer(config.language))
        train, validation = rest, read(corpus.validation, rest.label_scheme)
    labels = fit_labels(split.documents, split.label_scheme)  # of all folds, so that each model knows each label
    prepared = prepare(config, Corpus(train, validation, None, split), labels)
    finished: Finished | None = None
    for record in run_prepared(prepared, folder, resume=True):
        if os.name == "posix" and os.getppid() != parent:
            raise NertoolError("the audit that started this training has ended")
        if isinstance(record, Finished):
            finished = record
    assert finished is not None
    model = load_bundle(folder, training_device(config))
    with threads(training_threads(config.training)):
        emissions, scores = _emissions(model, own)
    return HeldOut(np.array(held, np.int64), model.labels, emissions, scores, finished.best.validation.micro.f1)


def _emissions(model: Model, split: Split) -> tuple[np.ndarray, Scores]:
    """Compute the scores of the labels of each token, (tokens, labels), and those of transitions."""
    network = model.network
    corpus = EncodedCorpus(model.inputs, pieces_of(split)[0], model.label_numbers)
    result = np.zeros((corpus.token_count, len(model.labels)), np.float32)
    scale, device = 1.0 / float(network.decoder.temperature), next(network.parameters()).device
    with no_fork(), torch.no_grad():
        for indices in reading_order(corpus.lengths, _TOKENS_PER_BATCH):
            batch = Batch.of(corpus.batch(indices), device)
            emissions = network(batch).cpu().numpy()
            for column, index in enumerate(indices.tolist()):
                start, length = int(corpus.offsets[index]), int(corpus.lengths[index])
                result[start : start + length] = emissions[:length, column] * scale
        scores = network.decoder.scores(constrained=True)
        return result, Scores(*(scale * each.cpu().double().numpy() for each in scores))


def main(folder: Path, parent: int) -> None:
    """Train the job of a folder, and write what it says of the fold that was held out."""
    config = load_config(folder / CONFIG)
    try:
        tree: Any = json.loads((folder / JOB).read_text(encoding="utf-8"))
        job = FoldJob(**tree)
    except (OSError, ValueError, TypeError) as problem:
        raise ConfigError(f"no job of an audit: {problem}", folder / JOB) from None
    key = key_of(config, job)  # now: files may be changed during the training
    try:
        result = train_fold(config, job, folder, parent)
    except BundleError:
        if not (folder / CHECKPOINT).exists():
            raise
        # It is corrupt, or of another corpus that had the same name.
        remove_files(folder, [RESULTS, CHECKPOINT])
        result = train_fold(config, job, folder, parent)
    tensors = {"sentences": result.sentences, "emissions": result.emissions, **result.scores._asdict()}
    texts = {_VERSION[0]: _VERSION[1], "key": key, "labels": json.dumps(result.labels), "f1": repr(result.f1)}
    write_tensors(
        folder / HELD_OUT, {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in tensors.items()}, texts
    )
    # The model is of no further use, and large.
    remove_files(folder, [CHECKPOINT, RESULTS, METRICS, *(name for name in FILES if name != CONFIG)])


def write_job(folder: Path, job: FoldJob) -> None:
    """Write what `main` reads."""
    write_whole(folder / JOB, (json.dumps(asdict(job)) + "\n").encode())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())
    except NertoolError as problem:
        sys.exit(f"error: {problem}")
