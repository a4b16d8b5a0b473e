"""The splits of a corpus, read as a config says, in the scheme that the network learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nertool.config.schema import CorpusConfig
from nertool.errors import CorpusError
from nertool.formats import hub
from nertool.formats.conll import read_conll
from nertool.formats.docbin import SUFFIX, read_docbin
from nertool.formats.labels import UNKNOWN, LabelledSentences, Reader
from nertool.formats.sharing import to_dataset_dict
from nertool.text.schemes import Scheme, convert


@dataclass(frozen=True)
class Corpus:
    """Training, validation and, where there is one, test split."""

    train: LabelledSentences
    validation: LabelledSentences
    test: LabelledSentences | None

    @property
    def splits(self) -> dict[str, LabelledSentences]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation}
        return named if self.test is None else {**named, "test": self.test}

    def to_datasets(self, scheme: Scheme = Scheme.IOB2) -> Any:
        """The splits as a `datasets.DatasetDict`: the columns tokens and, as ClassLabel, ner_tags.

        Args:
            scheme: That the labels shall be in; plain tags stay plain.

        Raises:
            ConfigError: The package `datasets` is not installed.
        """
        return to_dataset_dict(self.splits, scheme)


def read_split(
    path: str | Path, config: CorpusConfig, target: Scheme | None = None, *, partial: bool = False
) -> LabelledSentences:
    """Reads one labelled file, in the format that its suffix tells.

    Args:
        path: The file.
        config: Columns, scheme of the file, and policies.
        target: The scheme of the labels that are wanted; None: the file's.
        partial: Whether sentences stay of which some tokens have no label.

    Raises:
        CorpusError: As for `read_conll`.
    """
    if Path(path).suffix.lower() in hub.SUFFIXES:
        return hub.read_file(path, config, target, partial=partial)
    if Path(path).suffix.lower() == SUFFIX:
        return read_docbin(path, config, target, partial=partial)
    return read_conll(
        path,
        columns=config.columns,
        label=config.label,
        scheme=None if config.scheme == "detect" else Scheme(config.scheme),
        target=target,
        stray=config.stray,
        strip=config.strip,
        partial=partial,
    )


def read_corpus(config: CorpusConfig) -> Corpus:
    """Reads all splits, with the labels in the scheme to be learnt; plain tags stay plain.

    Raises:
        CorpusError: A file is wrong, or one split has plain tags and another has entities.
    """
    read = split_reader(config)
    train = read(config.train or "", partial=True)
    # Converting takes the labels beside a label, so that with some of them unknown the file's scheme is learnt.
    if train.scheme is not Scheme.PLAIN and not train.unknown_count:
        target = Scheme(config.learn_scheme)
        labels = [convert(row, train.label_scheme, target) for row in train.labels]
        train = replace(train, labels=labels, label_scheme=target)
    if config.validation is None:
        train, validation = _hold_out(train, config.held_out)
    else:
        validation = read(config.validation, train.label_scheme)
    test = None if config.test is None else read(config.test, train.label_scheme)
    return Corpus(train, validation, test)


def split_reader(config: CorpusConfig) -> Reader:
    """What reads a split: from the config's dataset by name, else from a file."""
    if config.hub is not None:
        return hub.open_dataset(config)

    def read(name: str, target: Scheme | None = None, *, partial: bool = False) -> LabelledSentences:
        return read_split(name, config, target, partial=partial)

    return read


def _hold_out(split: LabelledSentences, share: float) -> tuple[LabelledSentences, LabelledSentences]:
    """Cuts the last sentences off, between two documents where there are several."""
    first = len(split) - round(share * len(split))
    borders = [n for n in range(1, len(split)) if split.documents[n] != split.documents[n - 1]]
    if borders:  # no document shall be learnt from and scored as well
        first = min(borders, key=lambda border: abs(border - first))
    if not 0 < first < len(split):
        raise CorpusError(f"{len(split)} sentences are too few to hold out {share:g} of them", split.path)
    parts = []
    for place in (slice(0, first), slice(first, None)):
        documents = split.documents[place]
        parts.append(
            replace(
                split,
                tokens=split.tokens[place],
                labels=split.labels[place],
                documents=[document - documents[0] for document in documents],
                starts=split.starts[place],
            )
        )
    if any(UNKNOWN in row for row in parts[1].labels):
        raise CorpusError(
            "some tokens have no label, so that no part of it can be held out to validate on; name a file with "
            "all labels as corpus.validation",
            split.path,
        )
    return parts[0], parts[1]


def unseen_labels(split: LabelledSentences, labels: list[str]) -> Counter[str]:
    """Labels of a split that training never saw, which no model can predict, and how often they occur."""
    known = set(labels)
    return Counter(label for row in split.labels for label in row if label and label not in known)
