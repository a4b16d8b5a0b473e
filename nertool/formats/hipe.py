"""The TSV of HIPE-2020 and 2022: historical newspapers with several columns of labels and a header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nertool.errors import CorpusError
from nertool.formats.blocks import USUAL_LABELS, origin_of, put_together, value_of
from nertool.formats.columns import decode_lines, shorten
from nertool.formats.opening import open_bytes
from nertool.formats.registry import Format, Holds, ReadOptions, Report
from nertool.formats.streams import stripped
from nertool.text.document import Document

_TOKEN, _MISC, _USUAL = "TOKEN", "MISC", "NE-COARSE-LIT"
_EMPTY = "_"  # nobody has annotated this token
_SENTENCE_ENDS = frozenset({"EndOfSentence", "PySBDSegment"})
_LINE_END, _GLUED = "EndOfLine", "NoSpaceAfter"
_HOLDS: frozenset[Holds] = frozenset(
    {"text", "entities", "tags", "columns", "sentences", "documents", "unlabelled"}
)


class Hipe(Format):
    """A token a line, columns separated by tabs, of which the first line has the names.

    Comments such as `# document_id = ...` begin documents. Flags in the last column (MISC) say where sentences and
    lines end and where no space follows. Labels are those of NE-COARSE-LIT; `ReadOptions.label` names another
    column. `_` in a column of labels is unknown.
    """

    name = "hipe"
    description = "TSV of HIPE-2020 and 2022: the column NE-COARSE-LIT, or another one"
    holds = _HOLDS
    writable = False

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize the header."""
        names = (head or "").partition("\n")[0].rstrip("\r").split("\t")
        return names[0] == _TOKEN and any(name.startswith("NE-") for name in names)

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read the documents of a file."""
        with open_bytes(path, "a TSV of HIPE") as stream:
            documents = list(_documents(decode_lines(stream, path), str(path)))
        yield from stripped(_read(documents, path, options, report), options.strip, path)


class _Lines(NamedTuple):
    """The lines of a document."""

    identity: str
    numbers: list[int]
    rows: list[dict[str, str]]
    flags: list[set[str]]
    segments: set[int]  # tokens behind which a comment stands


def _documents(lines: Iterable[str], name: str) -> Iterator[_Lines]:
    """Group lines into documents; those that no comment names are called by their number."""
    names: list[str] = []
    count = 1
    document = _Lines("1", [], [], [], set())
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not names:
            names = line.split("\t")
            if names[0] != _TOKEN or len(set(names)) < len(names):
                message = f"found {shorten(line)}; expected names of columns, TOKEN first, separated by tabs"
                raise CorpusError(message, name, number)
            continue
        comment = line.startswith("# ") and "\t" not in line
        if line.split("\t") == names:  # files that were put one behind another
            line = ""
        given = value_of(line, "document_id") or value_of(line, "hipe2022:document_id") if comment else None
        if given or not line.strip():
            if document.rows:
                yield document
                count += 1
                document = _Lines(str(count), [], [], [], set())
            if given:
                document = document._replace(identity=given)
        elif comment:
            document.segments.add(len(document.rows) - 1)
        else:
            fields = line.split("\t")
            if len(fields) != len(names):
                message = f"found {len(fields)} columns in {shorten(line)}; the header has {len(names)}"
                raise CorpusError(f"{message}: {', '.join(names)}", name, number)
            if not fields[0]:
                raise CorpusError("the token is empty", name, number)
            row = dict(zip(names, fields, strict=True))
            document.numbers.append(number)
            document.rows.append(row)
            document.flags.append(set(row.get(_MISC, "").split("|")))
    if document.rows:
        yield document


def _read(documents: list[_Lines], path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
    if not documents:
        return
    column = _choose(documents, path, options) if options.labelled else None
    ends: set[str] | frozenset[str] = _SENTENCE_ENDS
    if not any(flags & ends for document in documents for flags in document.flags):
        ends = {_LINE_END}
        report.notes.append(f"{path}: no end of a sentence is marked: lines of print are taken for sentences")
    for document in documents:
        yield _document(document, path, column, ends)


def _choose(documents: list[_Lines], path: Path, options: ReadOptions) -> str:
    """Choose the column of the labels."""
    names = [name for name in documents[0].rows[0] if name not in (_TOKEN, _MISC)]
    wanted = options.label.lower()
    exact = [name for name in names if name.lower() == wanted]
    usual = [name for name in names if name.startswith("NE-")]
    usual = [_USUAL] if _USUAL in usual else usual[:1]
    chosen = exact or (usual if wanted in USUAL_LABELS else [])
    filled = [n for n in names if any(row[n] != _EMPTY for document in documents for row in document.rows)]
    if chosen and chosen[0] in filled:
        return chosen[0]
    problem = f"the column {chosen[0]} has no labels" if chosen else f"there is no column {options.label!r}"
    message = f"{problem}; those with labels are: {', '.join(filled) or 'none'}. Choose one with corpus.label"
    raise CorpusError(f"{message}, such as --set corpus.label={(filled or [_USUAL])[0]}", path)


def _document(document: _Lines, path: Path, column: str | None, ends: Iterable[str]) -> Document:
    rows, flags = document.rows, document.flags
    tokens = tuple(row[_TOKEN] for row in rows)
    labels = None if column is None else tuple("" if row[column] == _EMPTY else row[column] for row in rows)
    starts = [0]
    breaks = {n for n, each in enumerate(flags) if not each.isdisjoint(ends)}
    if _LINE_END in ends and not breaks:  # HIPE-2020 has a comment before each line of print
        breaks = document.segments
    for n in sorted(breaks):
        # A sentence does not end inside an entity, however a page is broken.
        inside = labels is not None and n + 1 < len(rows) and labels[n + 1][:2] in ("I-", "E-", "L-", "M-")
        if 0 <= n < len(rows) - 1 and not inside:
            starts.append(n + 1)
    gaps = ["" if _GLUED in each else ("\n" if _LINE_END in each else " ") for each in flags]
    text, offsets = put_together(tokens, gaps)
    bounds = list(zip(starts, [*starts[1:], len(rows)], strict=True))
    return Document(
        tokens,
        text,
        offsets,
        tuple(starts),
        labels,
        columns={name: tuple(row[name] for row in rows) for name in rows[0] if name not in (_TOKEN, column)},
        id=document.identity,
        origin=origin_of(str(path), [document.numbers[start:end] for start, end in bounds]),
    )
