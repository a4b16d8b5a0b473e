"""Vocabularies: what a model knows by name. They come from the training documents and pretrained vectors alone."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nertool.data.vectors import Vectors, look_up
from nertool.text.document import Document


class CountedDocuments(Sequence[Document]):
    """Documents that know how often each token and each label occurs in them, without a look at each."""

    @abstractmethod
    def token_counts(self) -> Counter[str]:
        """Count the tokens."""

    @abstractmethod
    def label_counts(self) -> Counter[str]:
        """Count the labels."""


def count_tokens(documents: Iterable[Document]) -> Counter[str]:
    """Count the tokens of documents."""
    if isinstance(documents, CountedDocuments):
        return documents.token_counts()
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(document.tokens)
    return counts


def count_labels(documents: Iterable[Document]) -> Counter[str]:
    """Count the labels of documents, `UNKNOWN` included."""
    if isinstance(documents, CountedDocuments):
        return documents.label_counts()
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(document.labels or ())
    return counts


def collect_words(
    documents: Iterable[Document],
    vectors: Sequence[Vectors] = (),
    minimum_count: int = 1,
    extra_rows: int = 100_000,
) -> list[str]:
    """Collect the words that get a vector of their own, the most frequent first.

    Args:
        documents: The training documents, and no others.
        vectors: Pretrained vectors; a training word that has one is kept however rare it is.
        minimum_count: Training words rarer than this, and without a pretrained vector, are left out.
        extra_rows: How many words that have pretrained vectors but are not in the training documents are added, in
            the order of their files.
    """
    counts = count_tokens(documents)
    words = [
        word
        for word in _by_frequency(counts)
        if counts[word] >= minimum_count or any(look_up(word, each.index) is not None for each in vectors)
    ]
    known = set(words)
    limit = len(words) + extra_rows
    for each in vectors:
        for word in each.words:
            if len(words) >= limit:
                break
            if word not in known:
                known.add(word)
                words.append(word)
    return words


def collect_characters(documents: Iterable[Document]) -> list[str]:
    """Collect the characters of all tokens, sorted."""
    return sorted({character for form in count_tokens(documents) for character in form})


def collect_values(documents: Iterable[Document], column: str, minimum_count: int = 1) -> list[str]:
    """Collect the values of a column that occur often enough, the most frequent first.

    Raises:
        KeyError: A document has no such column.
    """
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(document.columns[column])
    return [value for value in _by_frequency(counts) if counts[value] >= minimum_count]


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))


def rows_with_vectors(rows: Mapping[str, int], vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """Find the words that have a pretrained vector.

    Args:
        rows: The row of each word in the table of a model.
        vectors: Pretrained vectors; a word is looked up as `look_up` does.

    Returns:
        Their rows in the table and the rows of their vectors in the matrix of `vectors`, (found,) each.
    """
    pairs = ((row, look_up(word, vectors.index)) for word, row in rows.items())
    known = np.array([(row, source) for row, source in pairs if source is not None], dtype=np.int64).reshape(-1, 2)
    return known[:, 0], known[:, 1]
