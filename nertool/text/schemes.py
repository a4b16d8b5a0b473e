"""Label schemes as data: what each prefix means, and everything that follows from it.

A scheme is the prefix of an entity's first, middle and last token, and of an entity of one token. From this table
are derived how spans are read and written, how stray labels are repaired, and which transitions are valid.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"

_NO_TEXT = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


class Scheme(StrEnum):
    """How labels mark spans; `PLAIN` labels (part-of-speech tags, say) mark none."""

    IOB1 = "IOB1"
    IOB2 = "IOB2"
    IOBES = "IOBES"
    BILOU = "BILOU"
    BMES = "BMES"
    PLAIN = "plain"

    def __str__(self) -> str:
        return self.value


class Span(NamedTuple):
    """Tokens `start` up to but not including `end` form one entity of `type`."""

    start: int
    end: int
    type: str


class Prefixes(NamedTuple):
    """The prefixes that a scheme writes.

    `split` begins an entity right behind another of the same type. Only IOB1 needs it, because its I- cannot show
    that boundary.
    """

    begin: str
    inside: str
    end: str
    single: str
    split: str | None = None


PREFIXES: dict[Scheme, Prefixes] = {
    Scheme.IOB1: Prefixes("I", "I", "I", "I", split="B"),
    Scheme.IOB2: Prefixes("B", "I", "I", "B"),
    Scheme.IOBES: Prefixes("B", "I", "E", "S"),
    Scheme.BILOU: Prefixes("B", "I", "L", "U"),
    Scheme.BMES: Prefixes("B", "M", "E", "S"),
}
_KNOWN = frozenset(prefix for row in PREFIXES.values() for prefix in row if prefix is not None)

# For lenient reading, which depends on the prefix and not on the scheme, so that mixed files can be read too:
# B- and singles always begin an entity; nothing continues one after an end or a single.
_EXPLICIT = [row for row in PREFIXES.values() if row.end != row.inside]
_CLOSING = frozenset(prefix for row in _EXPLICIT for prefix in (row.end, row.single))
_STARTING = frozenset({"B"}.union(row.single for row in _EXPLICIT))


class _Rules(NamedTuple):
    """Which prefixes may be neighbours, derived from a row of `PREFIXES`."""

    openers: frozenset[str]  # the entity may continue after these
    continuers: frozenset[str]  # the entity continues with these
    enders: frozenset[str]  # something else may follow these
    starters: frozenset[str]  # these may follow something else


def _derive(row: Prefixes) -> _Rules:
    split = {row.split} if row.split else set()
    return _Rules(
        openers=frozenset({row.begin, row.inside} | split),
        continuers=frozenset({row.inside, row.end}),
        enders=frozenset({OUTSIDE, row.end, row.single} | split),
        starters=frozenset({OUTSIDE, row.begin, row.single}),
    )


_RULES = {scheme: _derive(row) for scheme, row in PREFIXES.items()}


@lru_cache(maxsize=65536)
def split_label(label: str) -> tuple[str, str]:
    """Split a label at its first hyphen: `B-art-film` gives `("B", "art-film")`, `O` gives `("O", "")`."""
    prefix, _, kind = label.partition("-")
    return prefix, kind


@lru_cache(maxsize=65536)  # so that a corpus holds one string for each distinct label
def _join(prefix: str, kind: str) -> str:
    return f"{prefix}-{kind}"


def is_text(label: str) -> bool:
    """Say whether a label has neither control characters nor half characters (lone surrogates) in it."""
    return _NO_TEXT.search(label) is None


def check_label(label: str, scheme: Scheme) -> bool:
    """Say whether a string is a label of the scheme; any string that is not empty is a plain tag."""
    if scheme is Scheme.PLAIN:
        return label != ""
    return label == OUTSIDE or _has_prefix(label, PREFIXES[scheme])


def _has_prefix(label: str, prefixes: Collection[str | None]) -> bool:
    prefix, kind = split_label(label)
    return kind != "" and prefix in prefixes


def detect(sequences: Iterable[Sequence[str]]) -> Scheme:
    """Detect the scheme of a file of label sequences.

    Prefixes decide between IOBES, BILOU and BMES. Positions decide between IOB1 and IOB2: it is IOB1 if more
    entities begin with I- than with a B- that IOB1 would not need, so that a few stray I- do not matter.
    Labels are plain unless more than half of the distinct ones, without O, are a known prefix and a type:
    one misspelt label does not turn entities into tags (the caller refuses it).

    Args:
        sequences: The labels of each sentence. Without any entity the result is IOB2.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for labels in sequences:
        pairs.update(zip(chain((OUTSIDE,), labels), labels, strict=False))  # the last label precedes none
    return detect_pairs(pairs)


def detect_pairs(pairs: Mapping[tuple[str, str], int]) -> Scheme:
    """Detect the scheme of a file, as `detect` does, from how often a label follows another, or O at the start."""
    counts: Counter[str] = Counter()
    for (_, label), count in pairs.items():
        if label != OUTSIDE:
            counts[label] += count
    if not counts:
        return Scheme.IOB2
    spanning = {label for label in counts if _has_prefix(label, _KNOWN)}
    if 2 * len(spanning) <= len(counts):
        return Scheme.PLAIN

    def misfits(scheme: Scheme) -> int:
        return sum(counts[label] for label in spanning if not check_label(label, scheme))

    scheme = min((Scheme.IOB2, Scheme.IOBES, Scheme.BILOU, Scheme.BMES), key=misfits)
    if scheme is not Scheme.IOB2:
        return scheme
    begun: Counter[str] = Counter()
    for (before, label), count in pairs.items():
        if label in spanning and split_label(before)[1] != split_label(label)[1]:
            begun[split_label(label)[0]] += count
    return Scheme.IOB1 if begun["I"] > begun["B"] else Scheme.IOB2


def spans(labels: Sequence[str], scheme: Scheme) -> list[Span]:
    """Read the entities from a label sequence, leniently, as conlleval does.

    An entity begins at a B- or a single, and at an inside or end label that follows O, another type, an
    end or a single. It lasts until the next one begins or an O comes. Valid sequences mean the same in every
    scheme; stray labels mean what they mean in published scores. Plain tags mark no entity.

    Raises:
        ValueError: A label is neither O nor a known prefix and a type.
    """
    result: list[Span] = []
    if scheme is Scheme.PLAIN:
        return result
    start, open_type, closed = 0, "", True
    for position, label in enumerate(labels):
        if label == OUTSIDE:
            if open_type:
                result.append(Span(start, position, open_type))
            open_type = ""
            continue
        prefix, kind = split_label(label)
        if not kind or prefix not in _KNOWN:
            raise ValueError(f"{label!r} is not a label of {scheme}: expected O, or a prefix, '-' and a type")
        if kind != open_type or closed or prefix in _STARTING:
            if open_type:
                result.append(Span(start, position, open_type))
            start, open_type = position, kind
        closed = prefix in _CLOSING
    if open_type:
        result.append(Span(start, len(labels), open_type))
    return result


def encode(entities: Iterable[Span], length: int, scheme: Scheme) -> list[str]:
    """Write entities as labels, the inverse of `spans`.

    Args:
        entities: Spans that do not overlap, in any order.
        length: How many tokens the sentence has.
        scheme: The scheme to write, not `PLAIN`.

    Raises:
        ValueError: The scheme is `PLAIN`, or a span is empty, overlaps another or leaves the sentence.
    """
    if scheme is Scheme.PLAIN:
        raise ValueError("plain tags cannot mark spans; choose IOB1, IOB2, IOBES, BILOU or BMES")
    row = PREFIXES[scheme]
    labels = [OUTSIDE] * length
    previous = Span(0, 0, "")
    for span in sorted(entities):
        start, end, kind = span
        if not previous.end <= start < end <= length or not kind:
            raise ValueError(f"{span} is empty, overlaps {previous} or leaves the {length} tokens")
        labels[start:end] = [_join(row.inside, kind)] * (end - start)
        labels[end - 1] = _join(row.end, kind)
        labels[start] = _join(row.single if end - start == 1 else row.begin, kind)
        if row.split and start == previous.end and kind == previous.type:
            labels[start] = _join(row.split, kind)
        previous = span
    return labels


def convert(labels: Sequence[str], source: Scheme, target: Scheme) -> list[str]:
    """Convert labels from one scheme to another; stray labels are repaired.

    Args:
        labels: The labels of one sentence.
        source: Their scheme.
        target: The scheme of the result; the same as `source` repairs only.

    Raises:
        ValueError: One scheme is plain and the other is not, or a label is none of `source`.
    """
    if source is Scheme.PLAIN and target is Scheme.PLAIN:
        return list(labels)
    if Scheme.PLAIN in (source, target):
        raise ValueError(f"labels in {source} cannot be written in {target}: plain labels mark no spans")
    return encode(spans(labels, source), len(labels), target)


@lru_cache(maxsize=65536)
def allowed_pair(before: str, label: str, scheme: Scheme) -> bool:
    """Say whether `label` may follow `before`; O represents the sentence's start and end."""
    if scheme is Scheme.PLAIN:
        return True
    rules = _RULES[scheme]
    (left, left_type), (right, right_type) = split_label(before), split_label(label)
    if left_type == right_type and left in rules.openers and right in rules.continuers:
        return True
    if right == PREFIXES[scheme].split:
        return left_type == right_type
    return left in rules.enders and right in rules.starters


def stray_positions(labels: Sequence[str], scheme: Scheme) -> list[int]:
    """Find the labels that the scheme, read strictly, does not allow at their position.

    These are labels that continue an entity which did not begin, labels that leave an entity unfinished
    (a B- that no E- ends), and a B- of IOB1 that separates nothing.

    Returns:
        Positions in ascending order; empty for `PLAIN`.
    """
    if scheme is Scheme.PLAIN:
        return []
    strays: set[int] = set()
    rules = _RULES[scheme]
    for position, (before, label) in enumerate(zip([OUTSIDE, *labels], [*labels, OUTSIDE], strict=True)):
        if not allowed_pair(before, label, scheme):
            if split_label(label)[0] not in rules.starters:
                strays.add(position)
            if split_label(before)[0] not in rules.enders:
                strays.add(position - 1)
    return sorted(strays)


def allowed_transitions(
    labels: Sequence[str], scheme: Scheme
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which labels may begin a sentence, follow one another, and end a sentence.

    Args:
        labels: The label set, each label once.
        scheme: Its scheme; with `PLAIN` everything is allowed.

    Returns:
        Booleans `start` of shape (labels,), `transitions` of shape (labels, labels), indexed [from, to],
        and `end` of shape (labels,).

    Raises:
        ValueError: A label is none of the scheme.
    """
    for label in labels:
        if not check_label(label, scheme):
            raise ValueError(f"{label!r} is not a label of {scheme}")
    start = np.array([allowed_pair(OUTSIDE, label, scheme) for label in labels], dtype=np.bool_)
    end = np.array([allowed_pair(label, OUTSIDE, scheme) for label in labels], dtype=np.bool_)
    pairs = [allowed_pair(before, label, scheme) for before in labels for label in labels]
    return start, np.array(pairs, dtype=np.bool_).reshape(len(labels), len(labels)), end
