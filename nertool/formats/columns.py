"""Lines of columns grouped into sentences: what `conll` reads, before any label is looked at."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from nertool.config.patterns import Remover
from nertool.errors import CorpusError
from nertool.formats.opening import byte_lines, decode
from nertool.text.document import Document

DOCUMENT_MARK = "-DOCSTART-"
_LABEL_STUDIO = ["-X-", "_"]  # middle columns of its CoNLL export, whose types may have spaces in them
COMMENT = re.compile(
    r"# (new(doc|par)(?!\S)|[\w.:\[\]-]+ =(?!\S)|(text|sent_id|global\.columns)="
    r"|id \S+\s+domain=|id [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\s*$)"
)
"""Comments of CoNLL-U and MultiCoNER before a sentence. Other lines that begin with # may be tokens."""


LONGEST_SENTENCE = 1_000_000
"""Lines without an empty one between them."""


def refuse_endless(path: str | Path | None, line: int) -> NoReturn:
    """Refuse lines that would otherwise be collected until the memory is full.

    Raises:
        CorpusError: Always.
    """
    raise CorpusError(
        f"{LONGEST_SENTENCE:,} lines without an empty one, and more are not read as one sentence: does an empty "
        "line end each sentence?",
        path,
        line,
    )


class Layout(NamedTuple):
    """Where a line has its token, its label and its further columns.

    Attributes:
        token: Index of the token's column.
        label: Index of the label's column; None where labels are not wanted.
        others: Name and index of each further column; None: all but the token, and the label where it is wanted.
        needed: How many columns a line has at least.
        names: The columns, for errors.
        path: The file, for errors.
        uniform: Whether each line must have as many columns as the first.
    """

    token: int
    label: int | None
    others: tuple[tuple[str, int], ...] | None
    needed: int
    names: str
    path: str | Path | None
    uniform: bool


def find_columns(columns: Sequence[str] | None, label: str | None, path: str | Path | None) -> Layout:
    """Find the columns.

    Args:
        columns: Their names from left to right; None: the token is the first, the label the last.
        label: Name of the label's column.
        path: The file, for errors.

    Raises:
        CorpusError: There is not exactly one column called "token", or no column of the label's name.
    """
    if columns is None and label not in (None, "label"):
        message = (
            f"its columns have no names, so that none is called {label!r}: name them from left to right, such as "
            f"--set corpus.columns='[token, ..., {label}]', or leave corpus.label out to read the last one"
        )
        raise CorpusError(message, path)
    if columns is None:
        return Layout(0, -1, None, 2, f"token ... {label}", path, uniform=True)
    names = ", ".join(columns)
    if list(columns).count("token") != 1:
        raise CorpusError(f"one of the columns must be called 'token'; they are: {names or 'none'}", path)
    if label not in columns or label == "token":
        raise CorpusError(f"there is no label column {label!r}; the columns are: {names}", path)
    others = tuple((name, index) for index, name in enumerate(columns) if name not in ("token", label))
    token = columns.index("token")
    return Layout(token, columns.index(label), others, len(columns), names, path, uniform=False)


def find_tokens(columns: Sequence[str] | None, label: str | None, path: str | Path | None) -> Layout:
    """Find the columns of a file that need not have labels.

    Args:
        columns: As for `find_columns`; those to the right of the token may be missing.
        label: Name of the label's column, which is read as a further column.
        path: The file, for errors.

    Raises:
        CorpusError: There is not exactly one column called "token".
    """
    if columns is None:
        return Layout(0, None, None, 1, "token", path, uniform=False)
    named = columns if label in columns and label != "token" else [*columns, "label"]
    layout = find_columns(named, label if named is columns else "label", path)
    others = tuple((name, index) for index, name in enumerate(columns) if name != "token")
    return layout._replace(label=None, others=others, needed=layout.token + 1, names=", ".join(columns))


def split_line(line: str) -> list[str]:
    """Split a line at its tabs if it has any, else at runs of ASCII spaces and at no other whitespace."""
    if "\t" in line:
        return [field.strip(" ") for field in line.split("\t")]
    fields = line.split(" ")
    return [field for field in fields if field] if "" in fields else fields


def shorten(line: str) -> str:
    """Quote a line, or its beginning, for an error."""
    return repr(line if len(line) <= 60 else line[:57] + "...")


def _has_tabs(lines: Iterator[str]) -> tuple[bool, Iterator[str]]:
    """Say whether the first line that certainly holds a token has a tab; return all lines as well."""
    head: list[str] = []
    for line in lines:
        head.append(line)
        if line.strip(" \t\r\n") and not line.startswith(("#", DOCUMENT_MARK)):
            return "\t" in line, chain(head, lines)
    return False, iter(head)


def _is_comment(line: str, fields: list[str], tabbed: bool, needed: int) -> bool:
    """Distinguish a comment from a sentence that begins with #: by its words, or by its number of columns."""
    if COMMENT.match(line) or (tabbed and "\t" not in line):
        return True
    return line.startswith("# ") and len(fields) < needed


def _check_width(line: str, number: int, count: int, width: int, layout: Layout) -> None:
    """Refuse a line with too few columns, or with another number than its neighbours where that matters."""
    separated = "separated by spaces or by tabs; an empty line ends a sentence"
    if count < layout.needed:
        expected = f"{layout.needed} ({layout.names})" if layout.needed > 1 else "a token"
        columns = f"{count} column{'s' * (count > 1)}"
        message = f"found {columns} in {shorten(line)}; expected {expected}, {separated}"
        raise CorpusError(message, layout.path, number)
    if layout.uniform and width not in (0, count):
        message = f"found {count} columns in {shorten(line)} where the lines before have {width}, {separated}"
        raise CorpusError(f"{message}. Name the columns if only some are wanted", layout.path, number)


def group_sentences(lines: Iterator[str], layout: Layout) -> Iterator[tuple[bool, int, list[list[str]]]]:
    """Group lines into sentences.

    Yields:
        Whether a document begins here, the number of the sentence's first line, and the columns of each of
        its lines, which follow one another without a gap.

    Raises:
        CorpusError: A line has too few columns.
    """
    tabbed, lines = _has_tabs(lines)
    width = 0
    new_document = False
    rows: list[list[str]] = []
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if not line or (line[0] in " \t" and not line.strip(" \t")):
            if rows:
                yield new_document, number - len(rows), rows
                rows, new_document = [], False
            continue
        fields = split_line(line)
        if line[0] == "#" and not rows and _is_comment(line, fields, tabbed, layout.needed):
            new_document = new_document or line.startswith("# newdoc")
            continue
        # The first test spares nearly every line the second.
        if DOCUMENT_MARK in line and DOCUMENT_MARK in (fields[0], *fields[layout.token : layout.token + 1]):
            if rows:
                yield new_document, number - len(rows), rows
                rows = []
            new_document = True
            continue
        if len(fields) != width:
            if len(fields) > 4 and fields[1:3] == _LABEL_STUDIO and "\t" not in line:
                fields[3:] = [" ".join(fields[3:])]
            _check_width(line, number, len(fields), width, layout)
            width = len(fields)
        rows.append(fields)
        if len(rows) == LONGEST_SENTENCE:
            refuse_endless(layout.path, number)
    if rows:
        yield new_document, number + 1 - len(rows), rows


class Interned(dict[str, str]):
    """Maps a token to what is kept of it, the same object each time: a corpus holds each string once.

    Args:
        strip: A regular expression; what it matches is removed from each token that has more than that.
        path: The file, for the error.

    Raises:
        CorpusError: `strip` is not a regular expression, or takes too long.
    """

    def __init__(self, strip: str | None, path: str | Path | None) -> None:
        self._path = path
        self._kept: dict[str, str] = {}
        try:
            self._remove = Remover(strip) if strip else None
        except ValueError as error:
            raise CorpusError(f"strip: {error}", path) from None

    def __missing__(self, token: str) -> str:
        if self._remove is None:
            self[token] = token
            return token
        try:
            kept = self._remove(token) or token
        except ValueError as error:
            raise CorpusError(f"strip: {error}", self._path) from None
        self[token] = kept = self._kept.setdefault(kept, kept)
        return kept

    def forget(self) -> None:
        """Begin again, so that the memory for a stream without end is bounded."""
        self.clear()
        self._kept.clear()


def decode_lines(stream: Iterable[Any], path: str | Path | None) -> Iterator[str]:
    """Yield a stream's lines as text, whether it gives bytes or text itself.

    Raises:
        CorpusError: A line is not UTF-8.
    """
    number = 0
    line: bytes | str = b""
    try:
        for line in byte_lines(stream, path) if isinstance(stream, io.BufferedIOBase) else stream:
            number += 1
            yield line if isinstance(line, str) else line.decode()
    except UnicodeDecodeError as error:
        if isinstance(line, bytes):
            decode(line, path, number)
        message = f"the text after this line is not UTF-8 ({error}): convert it first"
        raise CorpusError(message, path, number) from None


def half_a_character(problem: UnicodeEncodeError, document: Document | None) -> CorpusError:
    """Make the error of a document that UTF-8 cannot hold: JSON can spell halves of surrogate pairs."""
    half = problem.object[problem.start : problem.end]
    origin = None if document is None else document.origin
    message = f"{half!r}, half a character, cannot be written: correct it, or leave the text out"
    if origin is None or not origin.starts:
        return CorpusError(message)
    return CorpusError(message, f"{origin.path}, {origin.place(0)}")
