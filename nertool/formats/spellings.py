"""Labels as people write them: `B_PER`, `PER-B`, `b-per`, `B`, `PER`, `(PER*`, `B-PER|B-ORG`.

Where all labels of a file are spelled in the same one of these ways, only one meaning is possible: they are
rewritten as a scheme writes them, and a note says so. What is left over and looks like entities is refused by
`nertool.formats.labels`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import NamedTuple

from nertool.text.document import UNKNOWN
from nertool.text.schemes import OUTSIDE, PREFIXES, Scheme, Span, encode

UNTYPED = "ENTITY"
"""The type of entities whose labels are prefixes alone."""
MARKS = frozenset({"?", "-"})
"""What files of spans write for a label that nobody knows."""
HAS_BRACKETS = re.compile(r"(?=.*[*)])(?:\([^()*|\s]+|[*)])+")
"""A label of CoNLL-2005 to 2012: brackets around entities, such as `(PER*`, `*`, `*)` and `(PER)`."""

_PIECE = "(?:[BILUESM]-[^|]+|O)"
_ALTERNATIVES = re.compile(rf"{_PIECE}(?:\|{_PIECE})+")
_LOOKS_PREFIXED = re.compile(r"[BILUESMbiluesm][-_:.+=/~ ].+|.+[-_:/][BILUESM]|[BILUESM]-?")
_TYPE = re.compile(r"[^\W\d_][^\s()\[\]*=|]*")
_IN_FULL = {
    **dict.fromkeys(("begin", "start"), "B"),
    **dict.fromkeys(("inside", "in"), "I"),
    **{"end": "E", "last": "L", "single": "S", "unit": "U"},
}
_WRITTEN_OUT = re.compile(rf"({'|'.join(_IN_FULL)})[-_:](.+)", re.IGNORECASE)
_SCHEMES = [frozenset(prefix for prefix in row if prefix) for row in PREFIXES.values()]


class Respelled(NamedTuple):
    """Labels as a scheme writes them, and a note for people."""

    rows: list[list[str]]
    note: str


def first_alternatives(rows: list[list[str]]) -> Respelled | None:
    """Replace labels such as `B-PER|B-ORG`, which give several at once, by the first; None where there are none.

    Where the first is O and another is not, nobody can say what the token should be: it becomes `UNKNOWN`.
    """
    chosen = {name: _first(name.split("|")) for name in _distinct(rows) if _ALTERNATIVES.fullmatch(name)}
    if not chosen:
        return None
    counts = Counter(name for row in rows for name in row if name in chosen)
    give = "label gives" if counts.total() == 1 else "labels give"
    note = f"{counts.total():,} {give} several at once, such as {next(iter(counts))}: the first was read"
    unknown = sum(count for name, count in counts.items() if chosen[name] == UNKNOWN)
    if unknown:
        note += f"; {unknown:,} that begin with O were read as unknown"
    return Respelled(_replaced(rows, chosen), note)


def respell(rows: list[list[str]], *, types_alone: bool = False) -> Respelled | None:
    """Rewrite labels that are all spelled in one unusual way; None where they are not.

    Args:
        rows: The labels of each sentence.
        types_alone: Whether labels without a prefix are types of entities even where O is not the most frequent.
    """
    counts = Counter(name for row in rows for name in row if name and name not in MARKS)
    names = [name for name in counts if name not in (OUTSIDE, "o")]
    if not names:
        return None
    outside = len(names) < len(counts)
    for what, read in _SPELLINGS:
        labels = {name: read(name) for name in names}
        known = {name: label for name, label in labels.items() if label is not None}
        if len(known) == len(names) and _is_a_scheme({label[0] for label in known.values()}, outside=outside):
            note = f"labels are {what}: {_example(known)}"
            return Respelled(_replaced(rows, {**known, "o": OUTSIDE}), note)
    if all(map(HAS_BRACKETS.fullmatch, counts)) and any("(" in name for name in names):
        return _without_brackets(rows)
    if all(_TYPE.fullmatch(name) and not _LOOKS_PREFIXED.fullmatch(name) for name in names) and (
        types_alone or 2 * counts[OUTSIDE] > counts.total()
    ):
        types = {name: f"I-{name}" for name in names}
        listed = ", ".join(sorted(types)[:5]) + (", ..." if len(types) > 5 else "")
        note = f"labels are types without a prefix (IO): neighbours with the same type are one entity ({listed})"
        return Respelled(_replaced(rows, types), note)
    return None


def read_brackets(row: Sequence[str]) -> tuple[list[Span], list[tuple[Span, str]]]:
    """Read the entities of a sentence from brackets.

    Returns:
        The outermost entities, and what is not among them, each with the reason.
    """
    entities: list[Span] = []
    left_out: list[tuple[Span, str]] = []
    open_: list[tuple[int, str]] = []
    for position, label in enumerate(row):
        for kind, close in re.findall(r"\(([^()*|\s]+)|(\))", label):
            if not close:
                open_.append((position, kind))
                continue
            if not open_:
                left_out.append((Span(position, position + 1, "?"), "has no opening bracket"))
                continue
            start, kind = open_.pop()
            span = Span(start, position + 1, kind)
            if open_:
                left_out.append((span, f"lies in {open_[-1][1]}"))
            elif entities and start < entities[-1].end:
                left_out.append((span, f"shares a token with {entities[-1].type}"))
            else:
                entities.append(span)
    left_out += [(Span(start, len(row), kind), "has no closing bracket") for start, kind in open_]
    return entities, left_out


def _without_brackets(rows: list[list[str]]) -> Respelled:
    result = []
    count = 0
    for row in rows:
        entities, left_out = read_brackets(row)
        labels = encode(entities, len(row), Scheme.IOB2)
        unknown = {position for span, _ in left_out for position in range(span.start, span.end)}
        unknown |= {position for position, name in enumerate(row) if not name or name in MARKS}
        result.append([UNKNOWN if n in unknown and name == OUTSIDE else name for n, name in enumerate(labels)])
        count += len(left_out)
    note = "labels are brackets around entities, as in files of CoNLL-2005 to 2012"
    if count:
        note += f"; {count:,} that overlap another, or are not closed, were left out"
    return Respelled(result, note)


def _first(names: list[str]) -> str:
    return UNKNOWN if names[0] == OUTSIDE and set(names) != {OUTSIDE} else names[0]


def _separated(separator: str) -> Callable[[str], str | None]:
    form = re.compile(rf"([BILUESM]){re.escape(separator)}(.+)")
    return lambda name: f"{match[1]}-{match[2]}" if (match := form.fullmatch(name)) else None


def _alone(name: str) -> str | None:
    return f"{name[0]}-{UNTYPED}" if re.fullmatch("[BILUESM]-?", name) else None


def _behind(name: str) -> str | None:
    match = re.fullmatch(r"(.+)[-_:/|]([BILUESM])", name)
    return f"{match[2]}-{match[1]}" if match else None


def _in_lower_case(name: str) -> str | None:
    match = re.fullmatch(r"([biluesm])[-_:](.+)", name)
    return f"{match[1].upper()}-{match[2]}" if match else None


def _in_full(name: str) -> str | None:
    match = _WRITTEN_OUT.fullmatch(name)
    if match:
        return f"{_IN_FULL[match[1].lower()]}-{match[2]}"
    return OUTSIDE if name.lower() in ("outside", "out") else None


_SPELLINGS: list[tuple[str, Callable[[str], str | None]]] = [
    (f"prefixes without a type, which is taken to be {UNTYPED}", _alone),
    *(("prefixes that no hyphen separates from the type", _separated(each)) for each in "_:.+=|/~ "),
    ("prefixes behind the type", _behind),
    ("prefixes in lower case", _in_lower_case),
    ("prefixes in full", _in_full),
]


def _is_a_scheme(prefixes: Collection[str], *, outside: bool) -> bool:
    """Say whether prefixes are those of a scheme, and too many of it to be there by chance."""
    used = set(prefixes) - {OUTSIDE}
    enough = outside or used < set(prefixes) or ("B" in used and len(used) > 1)
    return enough and bool(used & {"B", "I"}) and any(used <= scheme for scheme in _SCHEMES)


def _example(labels: dict[str, str]) -> str:
    written, read = next(pair for pair in labels.items() if pair[1] != OUTSIDE)
    return f"{written} was read as {read}"


def _distinct(rows: list[list[str]]) -> dict[str, None]:
    return dict.fromkeys(chain.from_iterable(rows))


def _replaced(rows: list[list[str]], labels: dict[str, str]) -> list[list[str]]:
    return [[labels.get(name, name) for name in row] for row in rows]
