"""Words, characters and labels as numbers. The vocabulary comes from the training split and vectors alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nertool.data.vectors import Vectors, look_up
from nertool.text.schemes import Scheme

UNKNOWN_ROW = 0  # of the word table
BORDER, UNKNOWN_CHARACTER = 0, 1  # of the character table


@dataclass
class Lexicon:
    """What a model knows by name.

    Attributes:
        words: The words that have a row of their own; row 0 stands for all others, so words[0] has row 1.
        characters: The known characters; kinds 0 and 1 are the border of a word and any unknown character.
        labels: The labels, in the order of the network's outputs.
        scheme: The scheme of the labels.
    """

    words: list[str]
    characters: list[str]
    labels: list[str]
    scheme: Scheme
    rows: dict[str, int] = field(init=False, repr=False)
    kinds: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.rows = {word: row for row, word in enumerate(self.words, start=1)}
        self.kinds = {character: kind for kind, character in enumerate(self.characters, start=2)}

    @property
    def row_count(self) -> int:
        """Rows of the word table, that of unknown words included."""
        return len(self.words) + 1

    @property
    def kind_count(self) -> int:
        """Kinds of characters, border and unknown included."""
        return len(self.characters) + 2

    def row(self, word: str) -> int:
        """The row of a word: as written, in lower case, with digits as 0; else that of unknown words."""
        found = look_up(word, self.rows)
        return UNKNOWN_ROW if found is None else found


def build_lexicon(
    sentences: Iterable[Sequence[str]],
    labels: Iterable[Sequence[str]],
    scheme: Scheme,
    vectors: Sequence[Vectors] = (),
    minimum_count: int = 1,
    extra_rows: int = 100_000,
) -> Lexicon:
    """Collects the vocabulary.

    Args:
        sentences: Tokens of the training split, and of no other.
        labels: Their labels; an empty one is unknown.
        scheme: The scheme of the labels.
        vectors: Pretrained vectors; a training word that has one is kept however rare it is.
        minimum_count: Training words rarer than this, and without a vector, are unknown words.
        extra_rows: How many words that have vectors but are not in the training split get rows as well,
            those that come first in their file first.
    """
    counts: Counter[str] = Counter()
    for tokens in sentences:
        counts.update(tokens)
    seen = sorted(counts, key=lambda word: (-counts[word], word))
    words = [
        word
        for word in seen
        if counts[word] >= minimum_count or any(look_up(word, each.index) is not None for each in vectors)
    ]
    known = set(words)
    extra: list[str] = []
    for each in vectors:
        for word in each.words:
            if len(extra) >= extra_rows:
                break
            if word not in known:
                known.add(word)
                extra.append(word)
    characters = sorted({character for word in counts for character in word})
    # O belongs to every scheme of spans, seen or not: without it some sentences would have no legal labels.
    seen_labels = {label for row in labels for label in row if label} | (
        set() if scheme is Scheme.PLAIN else {"O"}
    )
    names = sorted(seen_labels, key=lambda label: (label != "O", label))
    return Lexicon(words + extra, characters, names, scheme)


def initial_rows(lexicon: Lexicon, vectors: Sequence[Vectors], random: np.ndarray) -> np.ndarray:
    """The word table before training: pretrained vectors where there are any, random ones elsewhere.

    Args:
        lexicon: Whose words the rows are.
        vectors: Pretrained vectors, concatenated to one row.
        random: Rows for words without a vector, float32 (rows, sum of dimensions).

    Returns:
        The table, float32 (rows, sum of dimensions).
    """
    table: np.ndarray = random.copy()
    column = 0
    for each in vectors:
        found = [(row, look_up(word, each.index)) for row, word in enumerate(lexicon.words, start=1)]
        pairs = np.array([(row, place) for row, place in found if place is not None], dtype=np.int64).reshape(
            -1, 2
        )
        table[pairs[:, 0], column : column + each.dimensions] = each.matrix[pairs[:, 1]]
        column += each.dimensions
    return table
