"""Alignment of entities that are given in characters with the tokens of a text."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nertool.formats.columns import shorten
from nertool.formats.registry import ReadOptions, Report
from nertool.text.document import Document
from nertool.text.schemes import Span
from nertool.text.tokenization import SpacyTokenizer, Tokenizer, Tokens

_ENGLISH = SpacyTokenizer("en")
_NOT_SPACE = re.compile(r"\S")
_LONGEST_LOOKED_FOR = 1000  # characters


@dataclass(frozen=True)
class Mark:
    """An entity as a file has it.

    Attributes:
        place: Where it was read, for the report.
        pieces: Start and end of each of its parts in characters, in order; nearly always one part.
        label: Its type; empty where nobody has given it one.
        text: Its characters as the file has them; None where it has them not.
        score: Its probability, where there is one.
    """

    place: str
    pieces: tuple[tuple[int, int], ...]
    label: str
    text: str | None = None
    score: float | None = None

    @property
    def start(self) -> int:
        """First character."""
        return self.pieces[0][0]

    @property
    def end(self) -> int:
        """The character after the last."""
        return self.pieces[-1][1]


def tokenizer_of(options: ReadOptions) -> Tokenizer:
    """Return what makes tokens of raw text."""
    return options.tokenizer or _ENGLISH


def fit(
    text: str, tokens: Tokens, marks: Iterable[Mark], options: ReadOptions, report: Report, **rest: Any
) -> Document:
    """Align entities with tokens; what does not fit goes to the report, and its tokens get no label.

    Whitespace at the edges of an entity does not count. Of entities that overlap, the one that begins first stays,
    of those that begin together the longest. A sentence does not end inside an entity. The tokens that an entity
    overlaps that was left out are `UNKNOWN`, because "outside of all entities" would be wrong.

    Args:
        text: The characters.
        tokens: Where tokens and sentences are in it.
        marks: The entities, in any order.
        options: Whether entities are widened to whole tokens (`snap`).
        report: Receives what was left out and what was widened.
        rest: Further attributes of the document.
    """
    starts, stops = [start for start, _ in tokens.offsets], [end for _, end in tokens.offsets]
    entities: list[Span] = []
    scores: list[float | None] = []
    unknown: list[range] = []
    looked_for: set[str | None] = set()

    def covered(start: int, end: int) -> range:
        return range(bisect_right(stops, start), bisect_left(starts, end))

    def quoted(start: int, end: int) -> str:
        return shorten(text[start : min(end, start + 100)])

    def leave_out(mark: Mark, reason: str) -> None:
        report.misfits.append(f"{mark.place}: {mark.label or 'a span'} {reason}")
        unknown.extend(covered(start, end) for start, end in mark.pieces)

    def leave_out_everywhere(mark: Mark, reason: str) -> None:
        leave_out(mark, reason)
        if mark.text not in looked_for:
            looked_for.add(mark.text)
            unknown.extend(covered(*place) for place in _occurrences(mark.text, text))

    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.end)):
        start, end = mark.start, mark.end
        where = f"[{start}, {end})"
        if not mark.label:
            leave_out(mark, f"{where} {quoted(start, end)} has no type")
            continue
        if not 0 <= start < end <= len(text):
            leave_out_everywhere(mark, f"{where} lies outside the text")
            continue
        # Annotators break a span at a line end: its parts have nothing but whitespace between them.
        if any(text[left[1] : right[0]].strip() for left, right in pairwise(mark.pieces)):
            listed = ";".join(f"{a} {b}" for a, b in mark.pieces[:10])
            shown = shorten(mark.text) if mark.text else quoted(start, end)
            leave_out(mark, f"{shown} is in several pieces: {listed}")
            continue
        if mark.text is not None and not _same(mark.text, text[start:end]):
            leave_out_everywhere(mark, f"{shorten(mark.text)} stands elsewhere; {_found_instead(mark, text)}")
            continue
        shown = f"{where} {quoted(start, end)}"
        if inside := _NOT_SPACE.search(text, start, end):
            start = inside.start()
            while text[end - 1].isspace():
                end -= 1
        tokens_inside = covered(start, end)
        if not tokens_inside:
            leave_out(mark, f"{shown} holds no token")
            continue
        first, last = tokens_inside.start, tokens_inside.stop
        if entities and first < entities[-1].end:
            before = quoted(starts[entities[-1].start], stops[entities[-1].end - 1])
            leave_out(mark, f"{shown} overlaps {entities[-1].type} {before}, which is kept")
            continue
        if (starts[first], stops[last - 1]) != (start, end):
            whole = quoted(starts[first], stops[last - 1])
            if not options.snap:
                leave_out(mark, f"{shown} does not fall on token boundaries; the tokens there are {whole}")
                continue
            report.widened.append(f"{mark.place}: {mark.label} {shown} became {whole}")
        entities.append(Span(first, last, mark.label))
        scores.append(mark.score)
    scored = [score for score in scores if score is not None]
    return Document.from_spans(
        [text[start:end] for start, end in tokens.offsets],
        entities,
        unknown=_union(unknown, len(starts)),
        scores=scored if scored and len(scored) == len(entities) else None,
        source_text=text,
        source_offsets=tuple(tokens.offsets),
        sentence_starts=outside_of(entities, tokens.sentence_starts),
        **rest,
    )


def outside_of(entities: Iterable[Span], starts: Sequence[int]) -> tuple[int, ...]:
    """Return the starts of sentences that are not inside an entity."""
    inside = {index for entity in entities for index in range(entity.start + 1, entity.end)}
    return tuple(start for start in starts if start not in inside)


def _union(ranges: Iterable[range], count: int) -> list[int]:
    """Return the numbers that are in any of some ranges, of which there may be many that are long."""
    changes = np.zeros(count + 1, np.int64)
    for each in ranges:
        if each:
            changes[each.start] += 1
            changes[each.stop] -= 1
    numbers: list[int] = np.flatnonzero(np.cumsum(changes)).tolist()
    return numbers


def _same(given: str, found: str) -> bool:
    """Say whether two texts have the same words."""
    return given == found or given.split() == found.split()


def _occurrences(entity: str | None, text: str) -> list[tuple[int, int]]:
    """Find where the characters of an entity are in a text: any of these places may be the one that was meant."""
    words = (entity or "").split()
    if not words:
        return []
    if len(entity or "") > _LONGEST_LOOKED_FOR:  # a regular expression of that length takes much memory
        start = text.find(entity or "")
        return [(start, start + len(entity or ""))] if start >= 0 else []
    pattern = r"\s+".join(map(re.escape, words))
    found = [match.span() for match in re.finditer(rf"(?<!\w){pattern}(?!\w)", text)]
    return found or [match.span() for match in re.finditer(pattern, text)]


def _found_instead(mark: Mark, text: str) -> str:
    """Describe what is at the place of an entity whose own characters are others, and perhaps why."""
    found = shorten(text[mark.start : min(mark.end, mark.start + 100)])
    message = f"the text at [{mark.start}, {mark.end}) is {found}"
    for encoding, size, units in (("utf-16-le", 2, "UTF-16 units"), ("utf-8", 1, "bytes")):
        # A character has one unit at least, so that what counts is before the end.
        before = text[: mark.end].encode(encoding, "surrogatepass")
        if mark.text and before[mark.start * size : mark.end * size] == mark.text.encode(
            encoding, "surrogatepass"
        ):
            return f"{message}. The offsets count {units}; characters are expected"
    return message
