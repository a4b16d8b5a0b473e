"""Sentences with their labels, whatever they were read from, and what every reader does with the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nertool.data.columns import shorten
from nertool.data.schemes import PREFIXES, Scheme, check_label, convert, detect, spans, stray_positions
from nertool.errors import CorpusError


@dataclass
class LabelledSentences:
    """Sentences with a label for each token, as read from one file.

    Attributes:
        tokens: The tokens of each sentence.
        labels: The labels of each sentence, in `label_scheme`.
        documents: For each sentence the index of its document, from 0 and never falling; all 0 in a file
            that marks no documents.
        scheme: The scheme found in the file, or named for it.
        label_scheme: The scheme that `labels` are in now.
        strays: How many labels stood where `scheme` does not allow them, and were repaired.
        path: The file.
        unlabelled: How many sentences were left out because a token of them has no label.
        starts: For each sentence the line that it begins in, or its row, from 1.
        stray_places: The sentence and the token of each stray label, both counted from 0, and the label.
        unit: What `starts` counts.
    """

    tokens: list[list[str]]
    labels: list[list[str]]
    documents: list[int]
    scheme: Scheme
    label_scheme: Scheme
    strays: int
    path: Path
    unlabelled: int = 0
    starts: Sequence[int] = ()
    stray_places: list[tuple[int, int, str]] = field(default_factory=list)
    unit: Literal["line", "row"] = "line"

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def token_count(self) -> int:
        """How many tokens all sentences hold."""
        return sum(map(len, self.tokens))

    @property
    def document_count(self) -> int:
        """How many documents hold a sentence."""
        return self.documents[-1] + 1 if self.documents else 0

    def entity_counts(self) -> Counter[str]:
        """Count the entities of each type; empty for plain labels."""
        return Counter(span.type for labels in self.labels for span in spans(labels, self.label_scheme))

    def notes(self) -> list[str]:
        """Say what reading changed or left out, for a person."""
        found = []
        if self.strays:
            found.append(f"{self.strays} labels that {self.scheme.value} does not allow there were repaired")
        if self.unlabelled:
            were = "sentence was" if self.unlabelled == 1 else "sentences were"
            found.append(f"{self.unlabelled} {were} left out: not all of the tokens have a label")
        return found


def settle(
    tokens: list[list[str]],
    labels: list[list[str]],
    documents: list[int],
    starts: Sequence[int],
    path: Path,
    *,
    scheme: Scheme | None = None,
    target: Scheme | None = None,
    stray: Literal["repair", "refuse"] = "repair",
    unlabelled: int = 0,
    unit: Literal["line", "row"] = "line",
) -> LabelledSentences:
    """Find the scheme of labels as they were read, check them, repair and convert them in place.

    Args:
        tokens: The tokens of each sentence; there is at least one sentence.
        labels: The labels of each sentence.
        documents: The document of each sentence.
        starts: The line of each sentence's first token, or its row, from 1.
        path: The file, for errors.
        scheme: The scheme of the labels; found from them when None.
        target: The scheme to convert them to; None keeps theirs.
        stray: What to do with labels that the scheme does not allow where they stand.
        unlabelled: How many sentences were left out for want of labels.
        unit: Whether `starts` are lines, a token each, or rows, a sentence each.

    Raises:
        CorpusError: A label is none of the scheme or cannot be converted or, under `stray="refuse"`, a stray.
    """
    if scheme is None:
        scheme = Scheme.PLAIN if target is Scheme.PLAIN else detect(labels)
    target = scheme if target is None else target

    def problem(message: str, sentence: int, token: int) -> CorpusError:
        if unit == "row":
            return CorpusError(f"row {starts[sentence]}: {message}", path)
        return CorpusError(message, path, starts[sentence] + token)

    first: dict[str, tuple[int, int]] = {}  # where each label stands first
    for sentence, row in enumerate(labels):
        if not first.keys() >= set(row):
            for token, name in enumerate(row):
                first.setdefault(name, (sentence, token))
    for name, place in first.items():
        if not check_label(name, scheme):
            message = f"{shorten(name)} is no label of {scheme}; expected {_expected(scheme)}"
            raise problem(f"{message}. Check the {unit}, the label column and the scheme", *place)
    if Scheme.PLAIN in (scheme, target) and scheme is not target:
        name, place = next(iter(first.items()))
        message = (
            f"labels such as {shorten(name)} are read as {scheme} and cannot be converted to {target}, for "
            "plain labels mark no spans: check the label column and the scheme"
        )
        raise problem(message, *place)
    places: list[tuple[int, int, str]] = []
    for sentence, row in enumerate(labels):
        positions = stray_positions(row, scheme)
        places += [(sentence, position, row[position]) for position in positions]
        if positions or scheme is not target:
            labels[sentence] = convert(row, scheme, target)
    if places and stray == "refuse":
        name = places[0][2]
        message = f"{name!r} may not stand here in {scheme}; there are {len(places)} such labels in the file"
        raise problem(f"{message}. Correct them, or read with stray='repair'", *places[0][:2])
    return LabelledSentences(
        tokens, labels, documents, scheme, target, len(places), path, unlabelled, starts, places, unit
    )


def _expected(scheme: Scheme) -> str:
    if scheme is Scheme.PLAIN:
        return "a label that is not empty"
    return f"O or {' or '.join(f'{prefix}-TYPE' for prefix in sorted({p for p in PREFIXES[scheme] if p}))}"
