"""The splits of a corpus, read as a config says, in the scheme that the network learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from nertool.config import CorpusConfig
from nertool.data.conll import LabelledSentences, read_conll
from nertool.data.schemes import Scheme, convert


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


def read_split(path: str | Path, config: CorpusConfig, target: Scheme | None = None) -> LabelledSentences:
    """Reads one labelled file.

    Args:
        path: The file.
        config: Columns, scheme of the file, and policies.
        target: The scheme of the labels that are wanted; None: the file's.

    Raises:
        CorpusError: As for `read_conll`.
    """
    return read_conll(
        path,
        columns=config.columns,
        label=config.label,
        scheme=None if config.scheme == "detect" else Scheme(config.scheme),
        target=target,
        stray=config.stray,
        strip=config.strip,
    )


def read_corpus(config: CorpusConfig) -> Corpus:
    """Reads all splits, with the labels in the scheme to be learnt; plain tags stay plain.

    Raises:
        CorpusError: A file is wrong, or one split has plain tags and another has entities.
    """
    train = read_split(config.train, config)
    if train.scheme is not Scheme.PLAIN:
        target = Scheme(config.learn_scheme)
        labels = [convert(row, train.label_scheme, target) for row in train.labels]
        train = replace(train, labels=labels, label_scheme=target)
    validation = read_split(config.validation, config, train.label_scheme)
    test = None if config.test is None else read_split(config.test, config, train.label_scheme)
    return Corpus(train, validation, test)


def unseen_labels(split: LabelledSentences, labels: list[str]) -> Counter[str]:
    """Labels of a split that training never saw, which no model can predict, and how often they occur."""
    known = set(labels)
    return Counter(label for row in split.labels for label in row if label not in known)
