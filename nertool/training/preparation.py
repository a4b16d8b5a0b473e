"""From a config to a corpus, its vocabulary and a model: the one place that goes there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np

from nertool.config.schema import Config
from nertool.data.corpus import Corpus, Split, read_corpus
from nertool.data.encoding import EncodedCorpus, Table
from nertool.data.pieces import in_pieces
from nertool.data.shards import Shards
from nertool.data.streaming import StreamedCorpus, StreamedSplit, read_streamed
from nertool.data.vectors import Vectors, look_up, read_vectors
from nertool.data.vocabulary import count_tokens
from nertool.errors import ConfigError, CorpusError
from nertool.model.inputs import input_class
from nertool.model.inputs.base import Resources
from nertool.model.model import Model, new_model
from nertool.tagging.bundle import fingerprint
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.text.tokenization import SpacyTokenizer
from nertool.training.starting import Start, load_start, start_from

_STREAMED = "column", "gazetteer"  # kinds of inputs that need more than forms, and are encoded window by window
STARTED_FROM = "start.model"  # no name of an input has a dot in it


@dataclass(frozen=True)
class Prepared:
    """Everything is read and built; training is about to begin.

    Attributes:
        config: With the paths of the files that were found.
        corpus: The splits.
        model: With its first weights; training changes it.
        encoded: The training split as integers.
        digests: Of what training learns from and is judged by: "training" and "validation" (tokens, labels, and
            what inputs read besides), each input by its name (vocabulary and pretrained vectors), and
            `STARTED_FROM`, the model that training starts from.
        coverage: For each split, the share of tokens that have a pretrained vector; None without vectors.
        parameters: Number of dense weights, and of weights in tables whose gradients are sparse (word vectors).
        notes: What was skipped of the files of vectors, a line each.
        seconds: That it took.
        start: What was taken over from the model that training starts from; None: it starts from new weights.
    """

    config: Config
    corpus: Corpus
    model: Model
    encoded: EncodedCorpus | StreamedCorpus
    digests: dict[str, str]
    coverage: dict[str, float] | None
    parameters: tuple[int, int]
    notes: tuple[str, ...]
    seconds: float
    start: Start | None = None


def prepare(
    config: Config,
    corpus: Corpus | None = None,
    more_labels: Iterable[str] = (),
    *,
    shards: Shards | None = None,
) -> Prepared:
    """Read the corpus and the vectors, collect the vocabularies and build the network.

    Args:
        config: With paths that exist (see `nertool.config.loading.locate_files`).
        corpus: What to train on and to validate with; None: what the config says.
        more_labels: Labels to know besides those of the training split.
        shards: Of the training split, if it is streamed and they have been written; None: find or write them.

    Raises:
        ConfigError, CorpusError: A file is missing or wrong, a split lacks a column that an input reads, the sizes
            are impossible, or the model to start from does not fit.
        BundleError: The model to start from cannot be loaded.
    """
    began = time.perf_counter()
    check_language(config.language)
    check_streaming(config)
    source = load_start(config)
    if corpus is None:
        tokenizer = SpacyTokenizer(config.language)
        train = None
        if shards is not None:
            train = StreamedSplit.of(shards, config.corpus)
        elif config.corpus.stream:
            train = read_streamed(config.corpus, tokenizer, streamed_columns(config))
        corpus = read_corpus(config.corpus, tokenizer=tokenizer, train=train)
    report = corpus.train.report
    if not corpus.train.has_entities and not config.corpus.allow_empty:
        raise CorpusError(
            "no token of the training split is labelled as an entity, so that there is nothing to learn. "
            "Check its format (corpus.format) and where its labels are (corpus.columns, corpus.label), or say so "
            f"with corpus.allow_empty=true (--set corpus.allow_empty=true){report.causes(corpus.train.path)}",
            corpus.train.path,
        )
    start = None
    if source is not None:
        corpus, start = start_from(source, corpus, config)
    resources = read_resources(config, corpus.train.sentences)
    model = build_model(
        config, corpus.train.sentences, corpus.train.label_scheme, resources, more_labels, start=source
    )
    contextual = [each for each in model.inputs.values() if not each.context_free]
    for split in corpus.splits.values():
        for each in contextual if not isinstance(split, StreamedSplit) else ():  # fitting has checked it
            for sentence in split.sentences:
                each.check(sentence)
    if corpus.train.weights is not None and not corpus.train.weights.any():
        raise CorpusError(
            f"all training sentences have the weight 0 in {config.corpus.weights}, so that nothing is learnt",
            corpus.train.path,
        )
    encoded = encode(corpus.train, model)
    vectors = list(resources.vectors.values())
    coverage = {name: _coverage(split, vectors) for name, split in corpus.splits.items()} if vectors else None
    digests = _digests(corpus, model, encoded, resources)
    if config.start.model is not None:
        digests[STARTED_FROM] = fingerprint(Path(config.start.model))
    parameters = _parameters(model)
    seconds = time.perf_counter() - began
    notes = resources.notes()
    return Prepared(config, corpus, model, encoded, digests, coverage, parameters, notes, seconds, start)


def read_resources(config: Config, documents: Iterable[Document]) -> Resources:
    """Read the files that inputs are fitted with, each once.

    Args:
        config: With paths that exist.
        documents: The training split, for whose words some vectors are computed.

    Raises:
        ConfigError: Vectors that are named have not been fetched.
        CorpusError: A file is missing or wrong.
    """
    names = [name for entry in config.active_inputs.values() for name in getattr(entry, "vectors", ())]
    if not names:
        return Resources()
    words = set(count_tokens(documents))
    extra = max(getattr(entry, "extra_rows", 0) for entry in config.active_inputs.values())
    return Resources({name: read_vectors(name, words, extra) for name in dict.fromkeys(names)})


def build_model(
    config: Config,
    documents: Sequence[Document],
    scheme: Scheme,
    resources: Resources | None = None,
    more_labels: Iterable[str] = (),
    start: Model | None = None,
) -> Model:
    """Build a model before training: vocabularies of the training documents, weights drawn by the config's seed.

    Args:
        config: With paths that exist.
        documents: The training split, and no other.
        scheme: Of their labels.
        resources: Files that the config names, read beforehand; None: read them.
        more_labels: Labels to know besides those of the documents.
        start: A trained model whose labels, vocabularies and weights are taken over; None: a new model.

    Raises:
        ConfigError, CorpusError: As for `prepare`.
    """
    return new_model(config, documents, scheme, resources or read_resources(config, documents), more_labels, start)


def encode(split: Split, model: Model) -> EncodedCorpus | StreamedCorpus:
    """Encode a labelled split as the network wants it, long sentences in pieces.

    Args:
        split: Labelled.
        model: That will learn from it.
    """
    codes = model.label_codes(split.unannotated)
    if isinstance(split, StreamedSplit):
        corpus = model.config.corpus
        return StreamedCorpus(model.inputs, split, *codes, window=corpus.shuffle, epoch_tokens=corpus.epoch_tokens)
    if split.weights is None:
        return EncodedCorpus(model.inputs, in_pieces(split.sentences, split.label_scheme), *codes)
    pieces = [in_pieces([sentence], split.label_scheme) for sentence in split.sentences]
    repeated = np.repeat(split.weights, [len(each) for each in pieces])
    return EncodedCorpus(model.inputs, list(chain.from_iterable(pieces)), *codes, repeated)


def check_streaming(config: Config) -> None:
    """Refuse settings that need all training sentences in memory, where these are streamed.

    Raises:
        ConfigError: There are some; names all of them.
    """
    if not config.corpus.stream:
        return
    problems = []
    if config.start.self_label:
        problems.append("corpus.stream: start.self_label labels sentences in memory; leave one of the two out")
    problems += [
        f"corpus.stream: inputs.{name} (kind {entry.kind}) looks at more than a token and its columns, which "
        "shards do not hold; leave one of the two out"
        for name, entry in config.active_inputs.items()
        if not input_class(entry).context_free and entry.kind not in _STREAMED
    ]
    if problems:
        raise ConfigError(problems)


def streamed_columns(config: Config) -> list[str]:
    """Return the further columns that inputs read, which shards have to keep."""
    return sorted({entry.column for entry in config.active_inputs.values() if entry.kind == "column"})


def check_language(code: str) -> None:
    """Check that spaCy knows a language, now and not when text is tagged; imports nothing of it.

    Raises:
        ConfigError: It does not.
    """
    spec = find_spec("spacy")
    folders = spec.submodule_search_locations if spec else None
    if folders and not any((Path(folder) / "lang" / code).is_dir() for folder in folders):
        raise ConfigError(f"language: spaCy has no language {code!r}; use xx for any other language")


def _parameters(model: Model) -> tuple[int, int]:
    total = sum(parameter.numel() for parameter in model.network.parameters())
    sparse = sum(parameter.numel() for parameter in model.network.sparse_parameters())
    return total - sparse, sparse


def _coverage(split: Split, vectors: Sequence[Vectors]) -> float:
    counts = count_tokens(split.sentences)
    covered = sum(
        n for token, n in counts.items() if any(look_up(token, each.index) is not None for each in vectors)
    )
    return covered / max(counts.total(), 1)


def _digests(
    corpus: Corpus, model: Model, encoded: EncodedCorpus | StreamedCorpus, resources: Resources
) -> dict[str, str]:
    """Compute the digests of `Prepared`: of content, wherever its files are and however they are packed."""
    contextual = {name: each for name, each in model.inputs.items() if not each.context_free}
    validation = {name: each.encode_documents(corpus.validation.sentences) for name, each in contextual.items()}
    found = {
        "training": corpus.train.digest()
        if isinstance(corpus.train, StreamedSplit)
        else _split_digest(corpus.train, getattr(encoded, "token_tables", {}), encoded.weights),
        "validation": _split_digest(corpus.validation, validation),
    }
    for name, each in model.inputs.items():
        content = hashlib.sha256(json.dumps(each.state(), sort_keys=True).encode())
        for file in getattr(each.config, "vectors", ()):
            vectors = resources.vectors[file]
            content.update("\n".join(vectors.words).encode("utf-8", "surrogatepass"))
            content.update(f"\n{vectors.matrix.shape}".encode())
            content.update(np.ascontiguousarray(vectors.matrix).data)
        found[name] = content.hexdigest()
    return found


def _split_digest(split: Split, tables: Mapping[str, Table], weights: np.ndarray | None = None) -> str:
    content = hashlib.sha256(split.label_scheme.value.encode())
    for sentence in split.sentences:
        for row in (sentence.tokens, sentence.labels or ()):
            content.update("\x1f".join(("", *row, "\n")).encode("utf-8", "surrogatepass"))
    for name, table in sorted(tables.items()):
        content.update(f"{name} {table.values.dtype} {table.values.shape}".encode())
        for part in (table.values, table.offsets):
            content.update(b"" if part is None else np.ascontiguousarray(part).data)
    if weights is not None:
        content.update(np.ascontiguousarray(weights).data)
    content.update("\x1f".join(sorted(split.unannotated)).encode("utf-8", "surrogatepass"))
    return content.hexdigest()
