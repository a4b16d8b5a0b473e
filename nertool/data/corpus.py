"""The splits of a corpus, read as a config says, in the scheme that the network learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nertool.config import CorpusConfig
from nertool.data.conll import LabelledSentences, read_conll
from nertool.data.schemes import Scheme
from nertool.errors import CorpusError


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


def read_split(path: str | Path, config: CorpusConfig, learnt: Scheme | None = None) -> LabelledSentences:
    """Reads one labelled file.

    Args:
        path: The file.
        config: Columns, schemes and policies.
        learnt: The scheme of the labels that are wanted; None: the config's.

    Raises:
        CorpusError: As for `read_conll`.
    """
    return read_conll(
        path,
        columns=config.columns,
        label=config.label,
        scheme=None if config.scheme == "detect" else Scheme(config.scheme),
        target=Scheme(config.learn_scheme) if learnt is None else learnt,
        stray=config.stray,
        strip=config.strip,
    )


def read_corpus(config: CorpusConfig) -> Corpus:
    """Reads all splits.

    Raises:
        CorpusError: A file is wrong, or one split has plain tags and another has entities.
    """
    train = read_split(config.train, config)
    others = [read_split(path, config) for path in (config.validation, config.test) if path is not None]
    for split in others:
        if (split.label_scheme is Scheme.PLAIN) != (train.label_scheme is Scheme.PLAIN):
            raise CorpusError(
                f"labels are {split.scheme.value}, those of {train.path} are {train.scheme.value}; "
                "is the label column the right one?",
                split.path,
            )
    return Corpus(train, others[0], others[1] if len(others) > 1 else None)


def unseen_labels(split: LabelledSentences, labels: list[str]) -> Counter[str]:
    """Labels of a split that training never saw, which no model can predict, and how often they occur."""
    known = set(labels)
    return Counter(label for row in split.labels for label in row if label not in known)
