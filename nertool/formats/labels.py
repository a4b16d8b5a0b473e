"""Labels as they were read, of any format: detect their scheme, check, repair and convert them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from nertool.errors import CorpusError
from nertool.formats.columns import shorten
from nertool.formats.registry import Report
from nertool.formats.spellings import MARKS, first_alternatives, respell
from nertool.text.document import UNKNOWN, Document, Origin
from nertool.text.schemes import (
    OUTSIDE,
    PREFIXES,
    Scheme,
    allowed_pair,
    check_label,
    convert,
    detect,
    is_text,
    stray_positions,
)


@dataclass
class Facts:
    """What `resolve` did.

    Attributes:
        scheme: The scheme that was detected, or named.
        label_scheme: The scheme that the labels are in now.
        strays: How many labels were at places where `scheme` does not allow them, and were repaired.
        stray_places: The sentence and token of each, both counted from 0, and the label.
        unlabelled: How many sentences were left out because a token of them has no label (where partial labels are
            wanted: because no token has one).
        notes: How labels were read that are not spelled as in a scheme.
    """

    scheme: Scheme
    label_scheme: Scheme
    strays: int = 0
    stray_places: list[tuple[int, int, str]] = field(default_factory=list)
    unlabelled: int = 0
    notes: list[str] = field(default_factory=list)


def resolve(
    documents: Iterable[Document],
    path: str | Path,
    *,
    scheme: Scheme | None = None,
    target: Scheme | None = None,
    stray: Literal["repair", "refuse", "keep"] = "repair",
    partial: bool = False,
    keep_unlabelled: bool = False,
    in_part: bool = False,
    report: Report | None = None,
) -> tuple[list[Document], Facts]:
    """Find the scheme of labels as they were read, check them, repair them and convert them.

    Args:
        documents: With labels as read, `UNKNOWN` where there is none; in schemes of spans ? and - mean the same.
            Documents whose labels are None are unlabelled throughout.
        path: The file, for errors.
        scheme: The scheme of the labels, where the documents do not know theirs; None: detect it.
        target: The scheme to convert them to; None keeps theirs.
        stray: What to do with a label that the scheme does not allow at its place.
        partial: Whether sentences stay of which some tokens have a label and others have none. A stray beside an
            unknown label becomes unknown itself. If such a sentence stays, no label is converted, because a
            conversion depends on the neighbours of a label.
        keep_unlabelled: Whether sentences without any label stay too.
        in_part: Whether these are a part of what is in the file, which may be without any sentence that stays.
        report: What the reader of the documents left out, which may be why labels are missing.

    Returns:
        The documents that have a sentence left, and what was done.

    Raises:
        CorpusError: A label is not one of the scheme, looks as if it had been meant for one, cannot be converted
            or, under `stray="refuse"`, is a stray; or no sentence has the labels that it needs.
    """
    given = [document for document in documents if document.tokens]
    own = next((document.scheme for document in given if document.scheme is not None), None)
    rows = [row for document in given for row in _rows(document)]
    places = _Places(given, path)
    if not rows and not in_part:
        causes = "" if report is None else report.causes(path)
        raise CorpusError(f"there is no sentence in it{causes}", path)
    rows, scheme, notes = _find_scheme(rows, scheme, target, places) if own is None else (rows, own, [])
    if scheme is not Scheme.PLAIN:
        rows = [[UNKNOWN if name in MARKS else name for name in row] if MARKS & set(row) else row for row in rows]
    kept = [n for n, row in enumerate(rows) if keep_unlabelled or UNKNOWN not in row or (partial and any(row))]
    unlabelled = len(rows) - len(kept)
    if not kept and not in_part:
        needed = "any of its tokens" if partial else "all of its tokens"
        causes = "" if report is None else report.causes(path)
        message = f"there is no sentence in it with labels for {needed} ({unlabelled} lack them){causes}"
        raise CorpusError(message, path)
    if unlabelled:
        given = _without_unlabelled(given, kept)
        rows = [rows[n] for n in kept]
        places = _Places(given, path)
    target = scheme if target is None else target
    _check(rows, scheme, target, places)
    if target is not scheme and any(UNKNOWN in row for row in rows):
        target = scheme
    facts = Facts(scheme, target, unlabelled=unlabelled, notes=[f"{path}: {note}" for note in notes])
    for sentence, row in enumerate(rows):
        unknown = UNKNOWN in row
        positions = _strays_in_part(row, scheme) if unknown else stray_positions(row, scheme)
        facts.stray_places += [(sentence, position, row[position]) for position in positions]
        if unknown and positions:
            rows[sentence] = [UNKNOWN if n in positions else name for n, name in enumerate(row)]
        elif not unknown and ((positions and stray != "keep") or scheme is not target):
            rows[sentence] = convert(row, scheme, target)
    facts.strays = len(facts.stray_places)
    if facts.strays and stray == "refuse":
        sentence, token, name = facts.stray_places[0]
        message = f"{name!r} is not allowed here in {scheme}; there are {facts.strays} such labels in the file"
        raise places.error(f"{message}. Correct them, or read with stray='repair'", sentence, token)
    return _with_rows(given, rows, target), facts


def relabel(document: Document, target: Scheme) -> Sequence[str]:
    """Return the labels of a document in another scheme, for a writer.

    Plain tags and labels without a scheme stay as they are. A label that nobody knows is `UNKNOWN`, and so is one
    beside it whose form in the other scheme depends on it.
    """
    labels, scheme = document.labels, document.scheme
    if labels is None:
        return [UNKNOWN] * len(document)
    if scheme in (None, Scheme.PLAIN, target):
        return labels
    result: list[str] = []
    for start, end in document.bounds:
        row = labels[start:end]
        if UNKNOWN not in row:
            result += convert(row, scheme, target)
            continue
        converted = [*convert([label or OUTSIDE for label in row], scheme, target), OUTSIDE]
        for position, label in enumerate(row):
            if label == UNKNOWN:
                converted[position] = UNKNOWN
                for beside in (position - 1, position + 1):
                    converted[beside] = OUTSIDE if converted[beside] == OUTSIDE else UNKNOWN
        result += converted[:-1]
    return result


def _find_scheme(
    rows: list[list[str]], scheme: Scheme | None, target: Scheme | None, places: _Places
) -> tuple[list[list[str]], Scheme, list[str]]:
    """Find the scheme of labels; where these are not spelled as a scheme writes them, respell them.

    Args:
        rows: The labels of each sentence.
        scheme: As it was named; None: detect it.
        target: The scheme that is wanted; None: any.
        places: For errors.

    Returns:
        The labels, their scheme, and notes about how they were read.

    Raises:
        CorpusError: They look like entities, but nobody can say which.
    """
    if Scheme.PLAIN in (scheme, target if scheme is None else None):
        return rows, Scheme.PLAIN, []
    notes = []
    if several := first_alternatives(rows):
        rows, note = several
        notes.append(note)
    if scheme is None:
        found = detect(_known_stretches(rows))
        if found is not Scheme.PLAIN:
            return rows, found, notes
    elif any(check_label(name, scheme) and name != OUTSIDE for name in set(chain.from_iterable(rows))):
        return rows, scheme, notes
    # Types without a prefix are IOB1 in which no neighbours have the same type.
    if respelled := respell(rows, types_alone=scheme is Scheme.IOB1):
        rows, note = respelled
        notes.append(f"{note}. If they are plain tags, say so: --set corpus.scheme=plain")
        return rows, scheme or detect(_known_stretches(rows)), notes
    if scheme is not None:
        return rows, scheme, notes
    _refuse_near_misses(rows, places)
    if like := _like_entities(rows):
        notes.append(
            f"labels are read as plain tags, which mark no entities, although {like} is among them. If they are "
            "types of entities, say so: --set corpus.scheme=IO; if they are plain tags: --set corpus.scheme=plain"
        )
    return rows, Scheme.PLAIN, notes


def _like_entities(rows: list[list[str]]) -> str | None:
    """Return a label among plain tags that files of entities have."""
    names = dict.fromkeys(chain.from_iterable(rows))
    if OUTSIDE in names:
        return OUTSIDE
    return next((name for name in names if any(check_label(name, each) for each in PREFIXES)), None)


def _rows(document: Document) -> Iterator[list[str]]:
    labels = document.labels
    for start, end in document.bounds:
        yield [UNKNOWN] * (end - start) if labels is None else list(labels[start:end])


class _Places:
    """Where the sentences of some documents were read."""

    def __init__(self, documents: list[Document], path: str | Path) -> None:
        self._documents, self._path = documents, path
        self._origins: list[tuple[Origin, int] | None] = []

    def error(self, message: str, sentence: int, token: int) -> CorpusError:
        if not self._origins:  # they are needed for errors alone
            for document in self._documents:
                origin = document.origin
                self._origins += [origin and (origin, n) for n in range(len(document.sentence_starts))]
        place = self._origins[sentence]
        if place is None:
            return CorpusError(f"sentence {sentence + 1}, token {token + 1}: {message}", self._path)
        origin, own = place
        line = origin.line(own, token)
        if line is None:
            return CorpusError(f"row {origin.starts[own]}: {message}", self._path)
        return CorpusError(message, self._path, line)


def _check(rows: list[list[str]], scheme: Scheme, target: Scheme, places: _Places) -> None:
    """Refuse labels that are not of the scheme, or cannot be converted, each where it stands first."""
    first: dict[str, tuple[int, int]] = {}
    for sentence, row in enumerate(rows):
        if not first.keys() >= set(row):
            for token, name in enumerate(row):
                first.setdefault(name, (sentence, token))
    first.pop(UNKNOWN, None)
    for name, place in first.items():
        if not is_text(name):
            message = f"the label {shorten(name)} has a control character or half a character in it"
            raise places.error(f"{message}: correct it, or check the label column", *place)
        if not check_label(name, scheme):
            message = f"{shorten(name)} is not a label of {scheme}; expected {_expected(scheme)}"
            raise places.error(f"{message}. Check the label column and the scheme", *place)
    if first and Scheme.PLAIN in (scheme, target) and scheme is not target:
        name, place = next(iter(first.items()))
        message = (
            f"labels such as {shorten(name)} are read as {scheme} and cannot be converted to {target}, because "
            "plain tags mark no spans: check the label column and the scheme"
        )
        raise places.error(message, *place)


def _without_unlabelled(documents: list[Document], kept: list[int]) -> list[Document]:
    """Return what is left of documents when some of their sentences are removed."""
    wanted = set(kept)
    result: list[Document] = []
    number = 0
    for document in documents:
        count = len(document.sentence_starts)
        own = [n for n in range(count) if number + n in wanted]
        number += count
        if len(own) == count:
            result.append(document)
        elif own:
            result += [each for n, each in enumerate(document.sentences()) if n in own]
    return result


def _with_rows(documents: list[Document], rows: list[list[str]], scheme: Scheme) -> list[Document]:
    result = []
    number = 0
    for document in documents:
        count = len(document.sentence_starts)
        labels = tuple(chain.from_iterable(rows[number : number + count]))
        number += count
        if labels != document.labels or document.scheme is not scheme:
            document = replace(document, labels=labels, scheme=scheme, scores=None)
        result.append(document)
    return result


def _known_stretches(rows: list[list[str]]) -> Iterator[list[str]]:
    """Yield labels to detect a scheme from; after one that is not known, only from the next O on."""
    for row in rows:
        stretch: list[str] = []
        waiting = False
        for name in row:
            if name == UNKNOWN or name in MARKS:
                if stretch:
                    yield stretch
                stretch, waiting = [], True
            elif not waiting or name == OUTSIDE:
                stretch.append(name)
                waiting = False
        if stretch:
            yield stretch


def _strays_in_part(labels: Sequence[str], scheme: Scheme) -> list[int]:
    """Return labels that the scheme does not allow beside known ones; an unknown label may be any."""
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


# Spellings of entities that are not those of a scheme, and what each is. The whole label must match.
_SPELLINGS = [
    (re.compile(r"[BILOUESM]-?"), "prefixes without a type"),
    (re.compile(r"[BILUESM][_:.+=|/~ ].+"), "prefixes that no hyphen separates from the type"),
    (re.compile(r"[bilouesm]-.+"), "prefixes in lower case"),
    (
        re.compile(r"(begin|inside|outside|start|end|last|unit|single|[be]nd)[-_:].+", re.IGNORECASE),
        "prefixes in full",
    ),
    (re.compile(r"[^-]+[-_:/|][BILUESM]"), "prefixes behind the type"),
    (re.compile(r"\(.*|[*]?[^()]*\)|\*"), "brackets, as in files of CoNLL-2005 to 2012"),
    (re.compile(r".+\[\d+\]"), "types with a number in brackets, as WebAnno writes them"),
    (re.compile(r"(.+[|])?\w+=[BILOUESM](-.+)?([|].+)?"), "features such as name=B-PER, as in a CoNLL-U column"),
]
_OUTSIDES = frozenset({"O", "_", "*", "0", "OUT", "OTHER", "NONE"})  # usual names for outside, in upper case


_ENOUGH = 10  # labels, to say whether they are words


def _refuse_near_misses(rows: list[list[str]], places: _Places) -> None:
    """Refuse labels that would be read as plain tags although they seem to be something else.

    These are labels of which most have an unusual spelling of a prefix, or of which most tokens have the same that
    stands for outside in some files; and words.
    """
    counts = Counter(name for row in rows for name in row if name != UNKNOWN and name not in MARKS)
    if not counts:
        return
    if counts.total() >= _ENOUGH and 2 * len(counts) > counts.total():
        example = next(name for name in counts if counts[name] == 1)
        sentence, row = next((n, row) for n, row in enumerate(rows) if example in row)
        raise places.error(
            f"{shorten(example)} is read as a label, and {len(counts):,} of {counts.total():,} labels differ: "
            "this is text without labels, or another column has them. Name the columns with corpus.columns and "
            "corpus.label; if these are plain tags all the same, say so: --set corpus.scheme=plain",
            sentence,
            row.index(example),
        )
    common, frequency = counts.most_common(1)[0]
    others = [name for name in counts if name.upper() not in _OUTSIDES]
    # The first spelling that fits goes first.
    spelled = {name: what for name in others for form, what in reversed(_SPELLINGS) if form.fullmatch(name)}
    if others and 2 * len(spelled) > len(others):
        example, what = next(iter(spelled.items()))
    elif common.upper() in _OUTSIDES and 2 * frequency > counts.total():
        example = others[0] if others else common
        what = f"types without a prefix, with {shorten(common)} for tokens outside of entities"
        if not others:
            what = f"nothing but {shorten(common)}, which many files write for tokens outside of entities"
    else:
        return
    sentence, row = next((n, row) for n, row in enumerate(rows) if example in row)
    raise places.error(
        f"{shorten(example)} is not a label of any scheme (B-TYPE, I-TYPE ..., O), yet the labels look like "
        f"entities: {what}. Write them in one of the schemes; or, if they are plain tags such as parts of speech, "
        "say so with corpus.scheme=plain (--set corpus.scheme=plain); if they are types of entities, with "
        "corpus.scheme=IO",
        sentence,
        row.index(example),
    )
