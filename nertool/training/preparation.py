"""From a config to a corpus, its vocabulary and a model: the one place that goes there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from nertool.config.schema import Config
from nertool.data.corpus import Corpus, Split, read_corpus
from nertool.data.encoding import EncodedCorpus
from nertool.data.vectors import Vectors, look_up, read_vectors
from nertool.errors import ConfigError
from nertool.model.inputs.base import Resources
from nertool.model.model import Model, new_model
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.text.tokenization import SpacyTokenizer


@dataclass(frozen=True)
class Prepared:
    """Everything is read and built; training is about to begin.

    Attributes:
        config: With the paths of the files that were found.
        corpus: The splits.
        model: With its first weights; training changes it.
        encoded: The training split as integers.
        coverage: For each split, the share of tokens that have a pretrained vector; None without vectors.
        parameters: Number of dense weights, and of weights in tables whose gradients are sparse (word vectors).
        seconds: That it took.
    """

    config: Config
    corpus: Corpus
    model: Model
    encoded: EncodedCorpus
    coverage: dict[str, float] | None
    parameters: tuple[int, int]
    seconds: float


def prepare(config: Config) -> Prepared:
    """Read the corpus and the vectors, collect the vocabularies and build the network.

    Args:
        config: With paths that exist (see `nertool.config.loading.locate_files`).

    Raises:
        ConfigError, CorpusError: A file is missing or wrong, a split lacks a column that an input reads, or the
            sizes are impossible.
    """
    began = time.perf_counter()
    check_language(config.language)
    corpus = read_corpus(config.corpus, tokenizer=SpacyTokenizer(config.language))
    resources = read_resources(config)
    model = build_model(config, corpus.train.sentences, corpus.train.label_scheme, resources)
    contextual = [each for each in model.inputs.values() if not each.context_free]
    for split in corpus.splits.values():
        for each in contextual:
            for sentence in split.sentences:
                each.check(sentence)
    encoded = encode(corpus.train, model)
    vectors = list(resources.vectors.values())
    coverage = {name: _coverage(split, vectors) for name, split in corpus.splits.items()} if vectors else None
    return Prepared(config, corpus, model, encoded, coverage, _parameters(model), time.perf_counter() - began)


def read_resources(config: Config) -> Resources:
    """Read the files that inputs are fitted with, each once.

    Raises:
        CorpusError: A file is missing or wrong.
    """
    names = [name for entry in config.active_inputs.values() for name in getattr(entry, "vectors", ())]
    return Resources({name: read_vectors(name) for name in dict.fromkeys(names)})


def build_model(
    config: Config,
    documents: Sequence[Document],
    scheme: Scheme,
    resources: Resources | None = None,
    more_labels: Iterable[str] = (),
) -> Model:
    """Build a model before training: vocabularies of the training documents, weights drawn by the config's seed.

    Args:
        config: With paths that exist.
        documents: The training split, and no other.
        scheme: Of their labels.
        resources: Files that the config names, read beforehand; None: read them.
        more_labels: Labels to know besides those of the documents.

    Raises:
        ConfigError, CorpusError: As for `prepare`.
    """
    return new_model(config, documents, scheme, resources or read_resources(config), more_labels)


def encode(split: Split, model: Model) -> EncodedCorpus:
    """Encode a labelled split as the network wants it."""
    return EncodedCorpus(model.inputs, split.sentences, model.label_numbers)


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
    counts = Counter(chain.from_iterable(sentence.tokens for sentence in split.sentences))
    covered = sum(
        n for token, n in counts.items() if any(look_up(token, each.index) is not None for each in vectors)
    )
    return covered / max(counts.total(), 1)
