"""Sentences with their labels, whatever they were read from, and what every reader does with the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from nertool.errors import CorpusError
from nertool.formats.columns import shorten
from nertool.text.schemes import (
    OUTSIDE,
    PREFIXES,
    Scheme,
    allowed_pair,
    check_label,
    convert,
    detect,
    spans,
    stray_positions,
)

# What stands for the label of a token that nobody has labelled; no reader lets it through as a label.
UNKNOWN = ""
_MARKS = frozenset({"?", "-"})  # what files of spans write for it


@dataclass
class LabelledSentences:
    """Sentences with a label for each token, as read from one file.

    Attributes:
        tokens: The tokens of each sentence.
        labels: The labels of each sentence, in `label_scheme`; `UNKNOWN` where there is none.
        documents: For each sentence the index of its document, from 0 and never falling; all 0 in a file
            that marks no documents.
        scheme: The scheme found in the file, or named for it.
        label_scheme: The scheme that `labels` are in now.
        strays: How many labels stood where `scheme` does not allow them, and were repaired.
        path: The file.
        unlabelled: How many sentences were left out because a token of them has no label (where partial
            labels are wanted: because no token has one).
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
        return Counter(
            span.type
            for labels in self.labels
            for span in spans([label or OUTSIDE for label in labels], self.label_scheme)
        )

    @property
    def unknown_count(self) -> int:
        """How many tokens have no label."""
        return sum(row.count(UNKNOWN) for row in self.labels)

    def notes(self) -> list[str]:
        """Say what reading changed or left out, for a person."""
        found = []
        if self.strays:
            found.append(f"{self.strays} labels that {self.scheme.value} does not allow there were repaired")
        if self.unlabelled:
            were = "sentence was" if self.unlabelled == 1 else "sentences were"
            found.append(f"{self.unlabelled} {were} left out for want of labels")
        if unknown := self.unknown_count:
            found.append(f"{unknown} tokens have no label, and all that they may have are learnt from")
        return found


class Reader(Protocol):
    """What reads a split by its name."""

    def __call__(self, name: str, target: Scheme | None = None, *, partial: bool = False) -> LabelledSentences:
        """Read it, with the labels in the target scheme (None: its own), those of some tokens unknown or not."""


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
    partial: bool = False,
    unit: Literal["line", "row"] = "line",
) -> LabelledSentences:
    """Find the scheme of labels as they were read, check them, repair and convert them in place.

    Args:
        tokens: The tokens of each sentence; there is at least one sentence.
        labels: The labels of each sentence, `UNKNOWN` where there is none; in schemes of spans ? and - say the
            same.
        documents: The document of each sentence.
        starts: The line of each sentence's first token, or its row, from 1.
        path: The file, for errors.
        scheme: The scheme of the labels; found from them when None.
        target: The scheme to convert them to; None keeps theirs.
        stray: What to do with labels that the scheme does not allow where they stand.
        partial: Whether sentences stay of which some tokens have a label and others have none. Such labels
            are not converted, for that would take the labels beside them, and a stray is repaired by taking it
            for unknown.
        unit: Whether `starts` are lines, a token each, or rows, a sentence each.

    Raises:
        CorpusError: A label is none of the scheme or cannot be converted or, under `stray="refuse"`, a stray;
            or no sentence has the labels that it needs.
    """
    if scheme is None:
        scheme = Scheme.PLAIN if target is Scheme.PLAIN else detect(_known_stretches(labels))
    if scheme is not Scheme.PLAIN:
        labels = [
            [UNKNOWN if name in _MARKS else name for name in row] if _MARKS & set(row) else row for row in labels
        ]
    kept = [place for place, row in enumerate(labels) if UNKNOWN not in row or (partial and any(row))]
    unlabelled = len(labels) - len(kept)
    if not kept:
        needed = "any of its tokens" if partial else "all of its tokens"
        raise CorpusError(f"there is no sentence in it with labels for {needed} ({unlabelled} have not)", path)
    if unlabelled:
        tokens, labels = [tokens[place] for place in kept], [labels[place] for place in kept]
        numbers = {document: number for number, document in enumerate(dict.fromkeys(documents[n] for n in kept))}
        documents, starts = [numbers[documents[n]] for n in kept], [starts[n] for n in kept]
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
    first.pop(UNKNOWN, None)
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
        in_part = UNKNOWN in row
        positions = _strays_in_part(row, scheme) if in_part else stray_positions(row, scheme)
        places += [(sentence, position, row[position]) for position in positions]
        if in_part:
            labels[sentence] = [UNKNOWN if n in positions else name for n, name in enumerate(row)]
        elif positions or scheme is not target:
            labels[sentence] = convert(row, scheme, target)
    if places and stray == "refuse":
        name = places[0][2]
        message = f"{name!r} may not stand here in {scheme}; there are {len(places)} such labels in the file"
        raise problem(f"{message}. Correct them, or read with stray='repair'", *places[0][:2])
    return LabelledSentences(
        tokens, labels, documents, scheme, target, len(places), path, unlabelled, starts, places, unit
    )


def _unmarked(name: str) -> str:
    return UNKNOWN if name in _MARKS else name


def _known_stretches(labels: list[list[str]]) -> Iterator[list[str]]:
    """Labels to tell a scheme by; after one that is not known, only from the next O on."""
    for row in labels:
        stretch: list[str] = []
        waiting = False
        for name in row:
            if name == UNKNOWN or name in _MARKS:
                if stretch:
                    yield stretch
                stretch, waiting = [], True
            elif not waiting or name == OUTSIDE:
                stretch.append(name)
                waiting = False
        if stretch:
            yield stretch


def _strays_in_part(labels: Sequence[str], scheme: Scheme) -> list[int]:
    """Labels that the scheme does not allow beside those that are known; one that is not known may be any."""
    strays: set[int] = set()
    if scheme is Scheme.PLAIN:
        return []
    for position, (before, label) in enumerate(zip([OUTSIDE, *labels], [*labels, OUTSIDE], strict=True)):
        if UNKNOWN not in (before, label) and not allowed_pair(before, label, scheme):
            # Either may be the wrong one, so that neither is trusted.
            strays |= {position - 1, position} - {-1, len(labels)}
            strays -= {n for n in (position - 1, position) if 0 <= n < len(labels) and labels[n] == OUTSIDE}
    return sorted(strays)


def _expected(scheme: Scheme) -> str:
    if scheme is Scheme.PLAIN:
        return "a label that is not empty"
    return f"O or {' or '.join(f'{prefix}-TYPE' for prefix in sorted({p for p in PREFIXES[scheme] if p}))}"
