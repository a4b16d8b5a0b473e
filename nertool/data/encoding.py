"""Documents as integers: each distinct token once, further features for each token, and batches cut from both.

A *form* is a distinct token as written. Inputs that depend on the form alone (its word vector, its spelling) are
encoded once for each form; the corpus is then a flat row of form numbers, and a batch a few array operations on
it. Inputs that depend on more (a column, a gazetteer) are encoded for each token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from nertool.text.document import UNKNOWN, Document


@dataclass(frozen=True)
class Table:
    """Features of items (forms, or tokens), a row each.

    Attributes:
        values: Of all items, (items, ...); where items have several values, one item after another.
        offsets: Where the values of each item begin, and their total, (items + 1,); None where each item has one.
    """

    values: np.ndarray
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def select(self, items: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the values of some items, (selected, ...); with offsets also how many each item has, (items,)."""
        if self.offsets is None:
            return (self.values[items],)
        counts = self.offsets[items + 1] - self.offsets[items]
        begins = np.repeat(self.offsets[items] - (np.cumsum(counts) - counts), counts)
        return self.values[begins + np.arange(len(begins))], counts

    def batch(self, indices: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the values of the tokens of a batch.

        Args:
            indices: Where these are among all tokens, (time, batch).
            mask: Which positions of the batch are tokens, boolean (time, batch).

        Returns:
            (time, batch, ...), with 0 in padding. With offsets instead: the values of all tokens, sentence after
            sentence, (values, ...), and how many each token has, (time, batch), 0 in padding.
        """
        if self.offsets is None:
            return (padded(self.values, indices, mask),)
        values, counts = self.select(indices.T[mask.T])
        table = np.zeros(mask.T.shape, np.int64)
        table[mask.T] = counts
        return values, np.ascontiguousarray(table.T)


def concatenate(tables: Sequence[Table]) -> Table:
    """Put tables of the same features one below the other."""
    if len(tables) == 1:
        return tables[0]
    values = np.concatenate([table.values for table in tables])
    if tables[0].offsets is None:
        return Table(values)
    counts = [np.diff(table.offsets) for table in tables if table.offsets is not None]
    return Table(values, np.concatenate(([0], np.cumsum(np.concatenate(counts)))))


class Encoder(Protocol):
    """What turns tokens into features: the data side of an input (see `nertool.model.inputs.base`)."""

    @property
    def context_free(self) -> bool:
        """Whether the features of a token depend on its form alone."""
        ...

    def encode_forms(self, forms: Sequence[str]) -> Table:
        """Encode forms, a row each; for a context-free encoder. The form "" stands for padding."""
        ...

    def encode_documents(self, documents: Sequence[Document]) -> Table:
        """Encode documents, a row for each token of all of them in order; for the others."""
        ...


Encoders = Mapping[str, Encoder]


class Forms(dict[str, int]):
    """Numbers of the forms met so far. Looking up a form that is not there adds it.

    So `map(forms.__getitem__, tokens)` encodes tokens without a Python instruction for the known ones. Form 0 is
    "", which stands for padding.

    Args:
        encoders: By name; those that are not context-free are left out.
    """

    def __init__(self, encoders: Encoders) -> None:
        super().__init__()
        self._encoders = {name: encoder for name, encoder in encoders.items() if encoder.context_free}
        self._drained = 0
        self[""]

    def __missing__(self, form: str) -> int:
        number = self[form] = len(self)
        return number

    def drain(self) -> dict[str, Table]:
        """Encode the forms added since the last call, by the name of the encoder."""
        new = list(islice(self, self._drained, None))
        tables = {name: encoder.encode_forms(new) for name, encoder in self._encoders.items()}
        self._drained += len(new)
        return tables


@dataclass(frozen=True)
class Arrays:
    """A batch of sentences side by side, time-major, as arrays.

    Attributes:
        form_features: For each context-free input what `Table.select` gives for the distinct forms of the batch.
        forms: The form of each token, as an index into these, (time, batch).
        token_features: For each other input what `Table.batch` gives for the tokens.
        lengths: Tokens of each sentence, (batch,).
        labels: Label of each token, -1 where unknown, -2 - n where it is one of `label_sets[n]`, 0 in padding,
            (time, batch); None without labels.
        label_sets: Sets of labels, boolean (sets, labels), if labels name some.
        weights: What each sentence counts in the loss, (batch,); None: 1.
    """

    form_features: dict[str, tuple[np.ndarray, ...]]
    forms: np.ndarray
    token_features: dict[str, tuple[np.ndarray, ...]]
    lengths: np.ndarray
    labels: np.ndarray | None
    weights: np.ndarray | None = None
    label_sets: np.ndarray | None = None

    @property
    def token_count(self) -> int:
        """Tokens, without padding."""
        return int(self.lengths.sum())


class Batches(NamedTuple):
    """The batches of an epoch, in order.

    Attributes:
        steps: How many there are.
        sentences: Sentences of the epoch.
        tokens: Its tokens.
        batches: For each the corpus that it is cut from, which may be a part of all; the indices of its sentences
            there; and their numbers among all sentences.
    """

    steps: int
    sentences: int
    tokens: int
    batches: Iterator[tuple[EncodedCorpus, np.ndarray, np.ndarray]]


class Learnable(Protocol):
    """What can be learnt from: an `EncodedCorpus`, or one that is on disk."""

    weights: np.ndarray | None

    def __len__(self) -> int: ...

    @property
    def token_count(self) -> int:
        """Tokens of all sentences."""
        ...

    def epoch(self, batch_size: int, seed: int, number: int) -> Batches:
        """Draw the order of an epoch.

        Args:
            batch_size: Sentences of a batch.
            seed: Of the training.
            number: Of the epoch, from 0. The order depends on both alone: an epoch can be repeated by itself.
        """
        ...


class EncodedCorpus:
    """Sentences as integers: 4 bytes a token for its form, 2 for its label, and the features of further inputs.

    Args:
        encoders: By name.
        sentences: Documents of one sentence each; none may be empty.
        label_numbers: Number of each label; a label that is not in it counts as the first one. None: no labels.
        label_sets: The labels that a token may have whose label has the number -2 - n, boolean (sets, labels).
        weights: What each sentence counts in the loss, (sentences,); None: 1.
    """

    def __init__(
        self,
        encoders: Encoders,
        sentences: Sequence[Document],
        label_numbers: Mapping[str, int] | None = None,
        label_sets: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.weights = None if weights is None else np.asarray(weights, np.float32)
        self.lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
        self.offsets = np.concatenate(([0], np.cumsum(self.lengths)))
        total = int(self.offsets[-1])
        forms = Forms(encoders)
        number = forms.__getitem__
        self.tokens = np.fromiter((n for each in sentences for n in map(number, each.tokens)), np.int32, total)
        self.labels: np.ndarray | None = None
        self.label_sets = label_sets
        if label_numbers is not None:
            get = {**label_numbers, UNKNOWN: -1}.get
            rows = (each.labels or () for each in sentences)
            self.labels = np.fromiter((get(label, 0) for row in rows for label in row), np.int16, total)
        self.form_tables = forms.drain()
        self.token_tables = {
            name: encoder.encode_documents(sentences)
            for name, encoder in encoders.items()
            if not encoder.context_free
        }

    @classmethod
    def of_arrays(
        cls,
        tokens: np.ndarray,
        labels: np.ndarray,
        lengths: np.ndarray,
        form_tables: dict[str, Table],
        token_tables: dict[str, Table],
        label_sets: np.ndarray | None = None,
    ) -> EncodedCorpus:
        """Make a labelled corpus of what is encoded already.

        Args:
            tokens: The form of each token, (tokens,).
            labels: The number of the label of each, (tokens,).
            lengths: Tokens of each sentence, (sentences,).
            form_tables: The features of all forms, by the name of the encoder.
            token_tables: Those of all tokens, of encoders that are not context-free.
            label_sets: As for the class.
        """
        corpus = cls({}, [])
        corpus.tokens, corpus.labels, corpus.label_sets = tokens, labels, label_sets
        corpus.lengths = lengths.astype(np.int64)
        corpus.offsets = np.concatenate(([0], np.cumsum(corpus.lengths)))
        corpus.form_tables, corpus.token_tables = form_tables, token_tables
        return corpus

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def token_count(self) -> int:
        """Tokens of all sentences."""
        return int(self.offsets[-1])

    def epoch(self, batch_size: int, seed: int, number: int) -> Batches:
        """Draw the order of an epoch; see `training_order`."""
        order = training_order(self.lengths, batch_size, np.random.default_rng((seed, number)))
        return Batches(len(order), len(self), self.token_count, ((self, indices, indices) for indices in order))

    def batch(self, sentences: np.ndarray) -> Arrays:
        """Cut a batch of sentences, given by their indices in the corpus."""
        lengths = self.lengths[sentences]
        mask, indices = token_indices(lengths, self.offsets[sentences])
        numbers, forms = np.unique(np.where(mask, self.tokens[indices], 0), return_inverse=True)
        return Arrays(
            {name: table.select(numbers) for name, table in self.form_tables.items()},
            forms.reshape(mask.shape),
            {name: table.batch(indices, mask) for name, table in self.token_tables.items()},
            lengths,
            None if self.labels is None else np.where(mask, self.labels[indices], 0).astype(np.int64),
            None if self.weights is None else self.weights[sentences],
            self.label_sets,
        )


def token_indices(lengths: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say where the tokens of a batch are in a flat row.

    Args:
        lengths: Tokens of each sentence, (batch,).
        offsets: Where each sentence begins in the row, (batch,).

    Returns:
        A boolean mask of tokens (time, batch), and indices (time, batch), 0 in padding.
    """
    steps = np.arange(int(lengths.max()))[:, None]
    mask = steps < lengths
    return mask, np.where(mask, offsets + steps, 0)


def padded(values: np.ndarray, indices: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Take the values of the tokens of a batch, (time, batch, ...), with 0 in padding."""
    taken: np.ndarray = values[indices]
    taken[~mask] = 0
    return taken


def training_order(lengths: np.ndarray, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Batches of one epoch in random order, nearly all of sentences of one length.

    Sentences of one length are shuffled among themselves and all are cut into batches by length, so that only a
    batch in which the length changes needs padding. The first cut is at a random place, so that other sentences
    meet in every epoch.

    Args:
        lengths: Tokens of each sentence.
        batch_size: Sentences in a batch.
        random: Where the order comes from.
    """
    order = np.lexsort((random.random(len(lengths)), lengths))
    first = int(random.integers(1, batch_size + 1))
    cuts = list(range(first, len(order), batch_size))
    batches = [part for part in np.split(order, cuts) if len(part)]
    random.shuffle(batches)
    return batches


def reading_order(lengths: np.ndarray, tokens: int) -> Iterable[np.ndarray]:
    """Batches for tagging: sentences of one length, or nearly, and about as many tokens in each.

    Args:
        lengths: Tokens of each sentence.
        tokens: Tokens of a batch with padding, at most, unless a single sentence is longer.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        # Sentences are sorted, so the last one of a batch is its longest and sets the padding.
        sorted_lengths = lengths[order[start : start + tokens]]
        totals = sorted_lengths * np.arange(1, len(sorted_lengths) + 1)
        within = int(np.searchsorted(totals, tokens, side="right"))
        same = int(np.searchsorted(sorted_lengths, sorted_lengths[0], side="right"))
        # Prefer to stop where the length changes, unless that would leave a batch too small to be fast.
        size = min(within, same) if same * int(sorted_lengths[0]) * 4 >= tokens else within
        yield order[start : start + max(size, 1)]
        start += max(size, 1)
