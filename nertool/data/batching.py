"""Sentences as plain integers, once, and batches cut from them without touching a token in Python.

A *form* is a distinct token as written. Its word row and its characters are looked up once; the corpus is
then a flat row of form numbers, and a batch a few array operations on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from nertool.data.vocabulary import BORDER, UNKNOWN_CHARACTER, Lexicon


class Forms(dict[str, int]):
    """Numbers of the forms met so far, and for each its word row and the windows of its characters.

    Looking up a form that is not there adds it, so that `map(forms.__getitem__, tokens)` encodes tokens
    without a Python instruction for the known ones.

    Args:
        lexicon: What is known.
        width: Characters in a window, odd.
        maximum: Characters of a form that are looked at.
        distinct: Whether equal windows of a form are kept once, since nobody asks for order or number.
    """

    def __init__(self, lexicon: Lexicon, width: int, maximum: int, *, distinct: bool = True) -> None:
        super().__init__()
        self._lexicon = lexicon
        self._maximum = maximum
        self._kinds = lexicon.kinds
        self._width = width
        self._distinct = distinct
        self._rows: list[int] = []
        self._cases: list[int] = []
        self._windows: list[list[int]] = []
        self[""]  # form 0 pads: the unknown row, and a border as its only character

    def __missing__(self, form: str) -> int:
        row = self._lexicon.row(form)
        get = self._kinds.get
        kinds = [get(character, UNKNOWN_CHARACTER) for character in form[: self._maximum]] or [BORDER]
        border = [BORDER] * (self._width // 2)
        spelling = [*border, *kinds, *border]
        windows: Iterable[tuple[int, ...]] = zip(*[spelling[i:] for i in range(self._width)], strict=False)
        if self._distinct:
            # Of equal windows one is enough: the maximum over all does not ask how often.
            windows = dict.fromkeys(windows)
        # Registered last, so that whatever interrupts this leaves no number without a row.
        number = len(self)
        self._rows.append(row)
        self._cases.append(case_of(form))
        # As one flat list: a list of tuples would keep Python's garbage collector busy.
        self._windows.append(list(chain.from_iterable(windows)))
        self[form] = number
        return number

    def drain(self) -> FormTables:
        """The forms added since the last call, as arrays; their numbers follow those of the call before."""
        windows, rows, cases = self._windows, self._rows, self._cases
        self._windows, self._rows, self._cases = [], [], []
        counts = np.fromiter(map(len, windows), np.int64, len(windows)) // self._width
        offsets = np.concatenate(([0], np.cumsum(counts)))
        flat = np.fromiter(chain.from_iterable(windows), np.int32, int(offsets[-1]) * self._width)
        return FormTables(
            np.array(rows, dtype=np.int64), np.array(cases, np.int64), flat.reshape(-1, self._width), offsets
        )


def case_of(form: str) -> int:
    """How a form uses capitals: 0 has no letters with case, 1 no capital, 2 all, 3 the first alone, 4 others."""
    if form.islower():
        return 1
    if form.isupper():
        # A single capital says no more of the rest than a capital at the beginning does.
        return 2 if len(form) > 1 else 3
    if form.lower() == form.upper():
        return 0
    return 3 if form[0].isupper() and form[1:] == form[1:].lower() else 4


@dataclass(frozen=True)
class FormTables:
    """Forms as arrays.

    Attributes:
        rows: Word row of each form, (forms,).
        cases: How each form uses capitals (see `case_of`), (forms,).
        windows: Kinds of the characters around each character of each form, (windows, width).
        offsets: Where the windows of each form begin, and their total, (forms + 1,).
    """

    rows: np.ndarray
    cases: np.ndarray
    windows: np.ndarray
    offsets: np.ndarray

    def select(self, forms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows (windows, width) of some forms, and how many each has (forms,)."""
        lengths = self.offsets[forms + 1] - self.offsets[forms]
        begins = np.repeat(self.offsets[forms] - (np.cumsum(lengths) - lengths), lengths)
        return self.windows[begins + np.arange(len(begins))], lengths


@dataclass(frozen=True)
class Batch:
    """Sentences side by side, time-major, as arrays.

    Attributes:
        rows: Word rows of the distinct forms, (forms,).
        cases: How the distinct forms use capitals, (forms,).
        windows: Character windows of the distinct forms, (windows, width).
        window_counts: Number of windows of each distinct form, (forms,).
        forms: The form of each token, as an index into the four above, (time, batch).
        mask: True for tokens, False for padding, boolean (time, batch).
        labels: Label of each token, -1 where unknown, 0 in padding, (time, batch); None where they are not known.
        sentences: Which sentences of the corpus these are, (batch,).
    """

    rows: np.ndarray
    cases: np.ndarray
    windows: np.ndarray
    window_counts: np.ndarray
    forms: np.ndarray
    mask: np.ndarray
    labels: np.ndarray | None
    sentences: np.ndarray

    @property
    def token_count(self) -> int:
        """Tokens, padding left out."""
        return int(self.mask.sum())


class EncodedCorpus:
    """A corpus as integers: 4 bytes a token for its form, 2 for its label.

    Args:
        forms: Fresh, to be filled with those of this corpus.
        sentences: Tokens of each sentence; none may be empty.
        labels: Labels of each sentence, or None.
        label_numbers: Number of each label; a label that is not in it counts as the first one.
    """

    def __init__(
        self,
        forms: Forms,
        sentences: Sequence[Sequence[str]],
        labels: Sequence[Sequence[str]] | None = None,
        label_numbers: dict[str, int] | None = None,
    ) -> None:
        self.lengths = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences))
        self.offsets = np.concatenate(([0], np.cumsum(self.lengths)))
        total = int(self.offsets[-1])
        number = forms.__getitem__
        self.tokens = np.fromiter((n for each in sentences for n in map(number, each)), np.int32, total)
        self.labels: np.ndarray | None = None
        if labels is not None and label_numbers is not None:
            get = label_numbers.get
            self.labels = np.fromiter((get(label, 0) for each in labels for label in each), np.int16, total)
        self.tables = forms.drain()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def token_count(self) -> int:
        """Tokens of all sentences."""
        return int(self.offsets[-1])

    def batch(self, sentences: np.ndarray) -> Batch:
        """Cuts a batch of sentences, given by their places in the corpus."""
        lengths = self.lengths[sentences]
        steps = np.arange(int(lengths.max()))[:, None]
        mask = steps < lengths
        places = np.where(mask, self.offsets[sentences] + steps, 0)
        numbers, forms = np.unique(np.where(mask, self.tokens[places], 0), return_inverse=True)
        windows, window_counts = self.tables.select(numbers)
        return Batch(
            self.tables.rows[numbers],
            self.tables.cases[numbers],
            windows,
            window_counts,
            forms.reshape(mask.shape),
            mask,
            None if self.labels is None else np.where(mask, self.labels[places], 0).astype(np.int64),
            sentences,
        )


def training_order(lengths: np.ndarray, batch_size: int, random: np.random.Generator) -> list[np.ndarray]:
    """Batches of one epoch in random order, nearly all of sentences of one length.

    Sentences of one length are shuffled among themselves and all are cut into batches by length, so only a
    batch that straddles two lengths needs padding. The cut starts at a random place, so that other sentences
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
    """Batches for tagging: sentences of one length, or nearly, and about so many tokens in each.

    Args:
        lengths: Tokens of each sentence.
        tokens: Padded tokens of a batch, at most, unless a single sentence is longer.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        # Sentences are sorted, so the last one of a batch is its longest and sets the padding.
        sorted_lengths = lengths[order[start : start + tokens]]
        padded = sorted_lengths * np.arange(1, len(sorted_lengths) + 1)
        within = int(np.searchsorted(padded, tokens, side="right"))
        same = int(np.searchsorted(sorted_lengths, sorted_lengths[0], side="right"))
        # Prefer to stop where the length changes, unless that would leave a batch too small to be fast.
        size = min(within, same) if same * int(sorted_lengths[0]) * 4 >= tokens else within
        yield order[start : start + max(size, 1)]
        start += max(size, 1)
