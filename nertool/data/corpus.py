"""The splits of a corpus, read as a config says, in the scheme that the network learns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nertool.config.schema import CorpusConfig
from nertool.data.folds import boundaries, divide, draw_share, make_folds, units_of
from nertool.data.pieces import LONGEST
from nertool.data.stratification import choose_share
from nertool.data.vocabulary import count_labels
from nertool.data.weights import read_weights
from nertool.errors import ConfigError, CorpusError
from nertool.forking import cached_property
from nertool.formats import hub
from nertool.formats.datasets_export import to_dataset_dict
from nertool.formats.labels import relabel, resolve
from nertool.formats.registry import ReadOptions, Report, detect_format, find_format
from nertool.text.document import UNKNOWN, Document, in_context
from nertool.text.schemes import OUTSIDE, Scheme, split_label
from nertool.text.tokenization import Tokenizer

_FEWEST_DOCUMENTS = 5  # of which some are held out at random


@dataclass(frozen=True)
class Split:
    """Labelled documents of one file, or one split of a dataset.

    Attributes:
        documents: With labels in `label_scheme`, `UNKNOWN` where there is none. Neighbours with the same id are
            parts of one document.
        scheme: The scheme that was detected in the file, or named for it.
        label_scheme: The scheme that the labels are in now.
        strays: How many labels were at places where `scheme` does not allow them, and were repaired.
        stray_places: The sentence and token of each, both counted from 0, and the label.
        unlabelled: How many sentences were left out because a token of them has no label (of training data:
            because no token has one).
        path: The file, or the dataset and its split.
        unit: Whether documents know the lines of tokens, or the rows of sentences.
        report: What the reader left out or changed.
        unannotated: Types of entities that nobody looked for: where there is O, a token may be one of them.
        weights: What each sentence counts in the loss, (sentences,); None: 1.
    """

    documents: Sequence[Document] = field(repr=False)
    scheme: Scheme
    label_scheme: Scheme
    strays: int = 0
    stray_places: list[tuple[int, int, str]] = field(default_factory=list)
    unlabelled: int = 0
    path: Path = Path()
    unit: Literal["line", "row"] = "line"
    report: Report = field(default_factory=Report)
    unannotated: frozenset[str] = frozenset()
    weights: np.ndarray | None = field(default=None, repr=False, compare=False)

    @cached_property
    def sentences(self) -> Sequence[Document]:
        """Each sentence as a document of its own."""
        return [sentence for document in in_context(self.documents) for sentence in document.sentences()]

    @cached_property
    def labels(self) -> list[list[str]]:
        """The labels of each sentence."""
        return [list(sentence.labels or ()) for sentence in self.sentences]

    def __len__(self) -> int:
        return len(self.sentences)

    @cached_property
    def token_count(self) -> int:
        """How many tokens there are."""
        return sum(map(len, self.documents))

    @cached_property
    def document_count(self) -> int:
        """How many documents there are; sentences that are of no document count as one."""
        return 1 + sum(boundaries(self.documents)) if self.documents else 0

    @cached_property
    def unknown_count(self) -> int:
        """How many tokens have no label."""
        return self.label_counts()[UNKNOWN]

    @cached_property
    def long_count(self) -> int:
        """How many sentences are learnt in pieces."""
        return sum(len(sentence) > LONGEST for sentence in self.sentences)

    def label_counts(self) -> Counter[str]:
        """Count the labels, `UNKNOWN` included."""
        return count_labels(self.documents)

    def entity_counts(self) -> Counter[str]:
        """Count the entities of each type; there are none among plain tags."""
        return Counter(span.type for document in self.documents for span in document.spans)

    def place(self, sentence: int, token: int | None = None) -> str:
        """Describe where a sentence begins, or where a token of it is (both counted from 0)."""
        origin = self.sentences[sentence].origin
        if origin is not None and origin.starts:
            return origin.place(0, token)
        return f"sentence {sentence + 1}" + ("" if token is None else f", token {token + 1}")

    def notes(self) -> list[str]:
        """Say what reading changed or left out, for a person."""
        notes = list(self.report.notes)
        if misfits := self.report.misfits:
            were = (
                "entity does not fit the text or its tokens and was"
                if len(misfits) == 1
                else ("entities do not fit the text or its tokens and were")
            )
            notes.append(f"{len(misfits):,} {were} left out, such as {misfits[0]}")
        if widened := self.report.widened:
            notes.append(f"{len(widened):,} entities were widened to whole tokens, such as {widened[0]}")
        if self.strays:
            notes.append(f"{self.strays:,} labels that {self.scheme} does not allow there were repaired")
        if self.unlabelled:
            were = "sentence was" if self.unlabelled == 1 else "sentences were"
            notes.append(f"{self.unlabelled:,} {were} left out because labels are missing")
        if unknown := self.unknown_count:
            notes.append(f"{unknown:,} tokens have no label; training sums over all labels that they may have")
        if not self.has_entities:
            notes.append("no token is labelled as an entity")
        return notes

    @cached_property
    def has_entities(self) -> bool:
        """Whether any label is more than O; always true of plain tags."""
        return self.label_scheme is Scheme.PLAIN or not self.label_counts().keys() <= {OUTSIDE, UNKNOWN}

    def comparable(self, predicted: Sequence[list[str]]) -> Sequence[list[str]]:
        """Return predicted labels as they can be scored here: without the types that are not annotated."""
        if not self.unannotated:
            return predicted
        outside = {label for row in predicted for label in row if split_label(label)[1] in self.unannotated}
        return [[OUTSIDE if label in outside else label for label in row] for row in predicted]

    def converted(self, scheme: Scheme) -> Split:
        """Return the same split with its labels in another scheme; plain tags stay plain."""
        if self.label_scheme in (Scheme.PLAIN, scheme):
            return self
        documents = [document.with_labels(relabel(document, scheme), scheme) for document in self.documents]
        return replace(self, documents=documents, label_scheme=scheme)


@dataclass(frozen=True)
class Corpus:
    """Training, validation and, where there is one, test split.

    Attributes:
        train, validation, test: The splits.
        whole: The data that the training split is a part of; None: it is all of it.
    """

    train: Split
    validation: Split
    test: Split | None
    whole: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = {"train": self.train, "validation": self.validation}
        return named if self.test is None else {**named, "test": self.test}

    def to_datasets(self, scheme: Scheme = Scheme.IOB2) -> Any:
        """Return the splits as a `datasets.DatasetDict` with the columns tokens and, as ClassLabel, ner_tags.

        Args:
            scheme: The scheme of the labels; plain tags stay plain.

        Raises:
            ConfigError: The package `datasets` is not installed.
        """
        return to_dataset_dict({name: split.documents for name, split in self.splits.items()}, scheme)


def read_options(
    config: CorpusConfig, *, labelled: bool = True, snap: bool = False, tokenizer: Tokenizer | None = None
) -> ReadOptions:
    """Return how a config says that files are read.

    Args:
        config: Columns, scheme of the files, and what is removed from tokens.
        labelled: Whether labels are wanted; else files without labels are read too.
        snap: Whether entities that begin or end inside a token are widened to whole tokens.
        tokenizer: Makes tokens and sentences of raw text; None: English.
    """
    return ReadOptions(
        columns=config.columns,
        label=config.label,
        token_column=config.tokens,
        tag_column=config.tags,
        scheme=_named_scheme(config),
        strip=config.strip,
        labelled=labelled,
        snap=snap,
        tokenizer=tokenizer,
        annotator=config.annotator,
    )


def read_split(
    path: str | Path,
    config: CorpusConfig,
    target: Scheme | None = None,
    *,
    partial: bool = False,
    as_is: bool = False,
    tokenizer: Tokenizer | None = None,
) -> Split:
    """Read a labelled file, in any format.

    Args:
        path: The file, or folder.
        config: Format, columns, scheme of the file, and policies.
        target: The scheme of the labels that are wanted; None: the file's.
        partial: Whether sentences stay of which some tokens have no label.
        as_is: Whether each sentence stays, labelled or not, and labels that the scheme does not allow at their
            places are not repaired; they are counted as `strays` all the same.
        tokenizer: Makes tokens and sentences of raw text; None: English.

    Raises:
        CorpusError: The file cannot be read, has no labelled sentence, or has a label that is not of its scheme.
    """
    path = Path(path)
    used = find_format(config.format) if config.format else detect_format(path)
    report = Report()
    documents = used.read(path, read_options(config, tokenizer=tokenizer), report)
    return _resolve(documents, path, config, target, partial, report, as_is)


def open_splits(config: CorpusConfig, *, tokenizer: Tokenizer | None = None) -> Callable[..., Split]:
    """Return a function that reads a split by name: from the config's dataset, or else from a file.

    The function takes the name, the scheme of the labels that are wanted, and `partial`, as `read_split` does.

    Raises:
        CorpusError: There is no such dataset.
    """
    if config.hub is None:

        def read(name: str, target: Scheme | None = None, *, partial: bool = False) -> Split:
            return read_split(name, config, target, partial=partial, tokenizer=tokenizer)

        return read
    open_split = hub.open_dataset(config)
    source = Path(config.hub)

    def read_dataset(name: str, target: Scheme | None = None, *, partial: bool = False) -> Split:
        return _resolve(open_split(name), source / name, config, target, partial, Report())

    return read_dataset


def read_corpus(config: CorpusConfig, *, tokenizer: Tokenizer | None = None, train: Split | None = None) -> Corpus:
    """Read all splits, with the labels in the scheme to be learnt; plain tags stay plain.

    Args:
        config: The files, or the dataset, and how to read them.
        tokenizer: Makes tokens and sentences of raw text; None: English.
        train: The training split, where it has been read already.

    Raises:
        CorpusError: A file is wrong, or one split has plain tags and another has entities.
    """
    read = open_splits(config, tokenizer=tokenizer)
    if train is None and config.stream:
        from nertool.data.streaming import read_streamed  # which is built on this module

        train = read_streamed(config, tokenizer)
    train = whole = read_training(read, config) if train is None else train
    test = None
    if config.fold_numbers is not None:
        train, test = _take_fold(train, *config.fold_numbers)
    if config.validation is None:
        train, validation = hold_out(train, config.held_out, config.held_out_by)
    else:
        validation = read(config.validation, train.label_scheme)
    if test is None and config.test is not None:
        test = read(config.test, train.label_scheme)
    if config.fraction < 1:
        train, _ = divide(
            train, set(range(len(train))).difference(draw_share(train, config.fraction, config.fraction_seed))
        )
    return Corpus(train, validation, test, whole)


def read_training(read: Callable[..., Split], config: CorpusConfig) -> Split:
    """Read the training data: with nothing taken out, weights of sentences, and labels in the scheme to be learnt.

    Args:
        read: As from `open_splits`.
        config: That the function was made for.

    Raises:
        ConfigError: The config says that not all of it is to be in memory.
        CorpusError: The data or the file of weights is wrong.
    """
    if config.stream:
        raise ConfigError("corpus.stream: here all sentences are read into memory; leave it out")
    split = read(config.train or "", partial=True)
    # A conversion depends on the neighbours of a label: with some of them unknown, the file's scheme is learnt.
    if not split.unknown_count:
        split = split.converted(Scheme(config.learn_scheme))
    if config.weights is None:
        return split
    return replace(split, weights=read_weights(Path(config.weights), split.sentences))


def unseen_labels(split: Split, labels: Iterable[str]) -> Counter[str]:
    """Count the labels of a split that training never saw, which no model can predict."""
    known = {*labels, UNKNOWN}
    return Counter({label: count for label, count in split.label_counts().items() if label not in known})


def _named_scheme(config: CorpusConfig) -> Scheme | None:
    return None if config.scheme == "detect" else Scheme(config.scheme)


def _resolve(
    documents: Iterator[Document],
    path: Path,
    config: CorpusConfig,
    target: Scheme | None,
    partial: bool,
    report: Report,
    as_is: bool = False,
) -> Split:
    kept, facts = resolve(
        documents,
        path,
        scheme=_named_scheme(config),
        target=target,
        stray="keep" if as_is else config.stray,
        partial=partial,
        keep_unlabelled=as_is,
        report=report,
    )
    report.notes += facts.notes
    origin = next((document.origin for document in kept if document.origin is not None), None)
    return Split(
        documents=kept,
        scheme=facts.scheme,
        label_scheme=facts.label_scheme,
        strays=facts.strays,
        stray_places=facts.stray_places,
        unlabelled=facts.unlabelled,
        path=path,
        unit="row" if origin is None else origin.unit,
        report=report,
    )


def _take_fold(split: Split, number: int, count: int) -> tuple[Split, Split]:
    """Take one of several folds out of a split; the folds are the same whatever the seed of a training is."""
    rest, fold = divide(split, make_folds(split, count)[number - 1])
    if fold.unknown_count:
        raise CorpusError(
            "some tokens have no label, so that its folds cannot be scored; label all of it, or test on another "
            "file, without folds",
            split.path,
        )
    return rest, fold


def hold_out(split: Split, share: float, by: str) -> tuple[Split, Split]:
    """Take sentences out of a split, and whole documents where there are several.

    Args:
        split: The split.
        share: Of its sentences.
        by: "last": those at its end; "shuffled": chosen at random, so that each type is in both parts.
    """
    count = len(split)
    # A few documents are no sample: one of them would be a large share, of one kind.
    units = units_of(split.documents, _FEWEST_DOCUMENTS if by == "shuffled" else 2)
    known = [unit.is_known for unit in units]
    if by == "last":
        ends = [unit.sentences.stop for unit in units[:-1]]  # sentences before each unit but the first
        wanted = count - round(share * count)
        first = 1 + min(range(len(ends)), key=lambda index: abs(ends[index] - wanted)) if 0 < wanted < count else 0
        held = set(range(first, len(units))) if ends and first else set()
    else:
        sizes, types = [unit.size for unit in units], [unit.types() for unit in units]
        held = choose_share(sizes, types, share, known) if any(known) else {-1}
    if not held:
        raise CorpusError(f"{count} sentences are too few to hold out {share:g} of them", split.path)
    if not all(known[index] and index >= 0 for index in held):
        raise CorpusError(
            "some tokens have no label, so that no part of it can be held out for validation; name a file with "
            "all labels as corpus.validation (--validation FILE)",
            split.path,
        )
    return divide(split, [sentence for index in held for sentence in units[index].sentences])
