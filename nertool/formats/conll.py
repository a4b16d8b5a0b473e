"""The format `conll`: a token a line, with its label and further columns; an empty line ends a sentence."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.columns import (
    COMMENT,
    DOCUMENT_MARK,
    Interned,
    Layout,
    decode_lines,
    find_columns,
    find_tokens,
    group_sentences,
    half_a_character,
    shorten,
)
from nertool.formats.labels import relabel
from nertool.formats.opening import open_bytes
from nertool.formats.registry import Format, ReadOptions, Report, WriteOptions
from nertool.text.document import UNKNOWN, Document, Origin

PART_SIZE = 10_000  # tokens of a document that are held at a time
UNKNOWN_MARK = "?"  # stands for a label that nobody knows
_MAXIMUM_FORMS = 100_000  # distinct strings that are remembered, because a stream need not end
_MISSING = "_"
_WHAT = "a file with a token and its label in each line"
_NOT_A_TOKEN = re.compile(r"[0-9]+[-.][0-9]+")  # ID of a multiword token or an empty node in CoNLL-U
_COUNTED_SENTENCES = 3  # are enough to see that a column counts
_LONG, _LONG_ALONE = 400, 60  # tokens of a sentence; more are a sign that no empty lines end sentences
_EMPTY_FIELD = re.compile(r"(?:^| )(?: |$)", re.MULTILINE)


class Columns(Format):
    """A token a line, as CoNLL files have it.

    Columns are separated by tabs where a line has one, else by runs of spaces. A line that is empty, or
    whitespace, ends a sentence. A `-DOCSTART-` line and the comment `# newdoc` begin a document; CoNLL-U comments
    before a sentence are skipped.
    """

    name = "conll"
    description = "columns: a token a line, its label in the last or a named column"
    suffixes = (".txt", ".conll", ".tsv", ".bio", ".iob", ".iob2", ".bioes", ".bmes", ".col")
    holds = frozenset({"entities", "tags", "columns", "sentences", "documents", "unlabelled"})
    streams = True

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read documents, in parts of about `PART_SIZE` tokens; sentences where the file marks no documents.

        Raises:
            CorpusError: The file cannot be read, or a line has too few columns.
        """
        with open_bytes(path, _WHAT) as stream:
            yield from self._read(decode_lines(stream, path), path, options, report)

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read documents from lines, in memory that does not grow."""
        return self._read(decode_lines(lines, name), name, options, report)

    def _read(
        self, lines: Iterator[str], path: str | Path, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        find = find_columns if options.labelled else find_tokens
        layout = find(options.columns, options.label, path)
        collected = _Part(layout, Interned(options.strip, path), Interned(None, path))
        counting = _Counting(layout)
        number = sentences = longest = 0
        for new_document, start, rows in group_sentences(lines, layout):
            counting.look_at(rows, start)
            sentences += 1
            longest = max(longest, len(rows))
            if new_document:
                if collected.rows:
                    yield collected.document(number)
                number += 1
            collected.add(start, rows)
            if not number or len(collected.rows) >= PART_SIZE:
                yield collected.document(number)
        if collected.rows:
            yield collected.document(number)
        counting.refuse_if_undecided()
        if options.labelled and longest > (_LONG if sentences > 1 else _LONG_ALONE):
            report.notes.append(
                f"{path}: {'a' if sentences > 1 else 'its only'} sentence has {longest:,} tokens; an empty line "
                "ends a sentence: are there lines missing?"
            )

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write documents to a file, which appears under its name when it is whole."""
        with replaced_when_done(target) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream:
            self.write_stream(stream, _with_marks(iter(documents)), options)

    def write_stream(self, target: IO[str], documents: Iterable[Document], options: WriteOptions) -> None:
        """Write documents as `read` reads them: token, further columns, label.

        A `-DOCSTART-` line begins each document that has an id. Columns are separated by a space, or by a tab
        where one of them has a space in it or is empty. When the first line has a tab, every line has one; lines
        before it that begin with # have one in any case, because # without a tab can then not be a comment.

        Raises:
            CorpusError: Something would not be read back as it is: a token or label is empty, begins or ends with
                a space, has a tab or a line end in it, or is the document mark (earlier sentences are written by
                then); or documents have different columns.
        """
        writer = _Writer(target)
        before: str | None = None
        for document in documents:
            if document.id != before:
                writer.mark()
                before = document.id
            writer.write(document, relabel(document, options.scheme))


class _Part:
    """Sentences that become a document, or a part of one."""

    def __init__(self, layout: Layout, forms: Interned, values: Interned) -> None:
        self.layout, self.forms, self.values = layout, forms, values
        self.rows: list[list[str]] = []
        self._begin()

    def _begin(self) -> None:
        self.rows, self.sentence_starts, self.lines, self.skipped = [], [], [], []  # type: ignore[var-annotated]

    def add(self, start: int, rows: list[list[str]]) -> None:
        """Add a sentence, without those lines of CoNLL-U that hold no token."""
        if self.layout.token and rows[0][0][:1].isdigit():
            skipped = [n for n, row in enumerate(rows) if _NOT_A_TOKEN.fullmatch(row[0])]
            if skipped and rows[0][0][:2] in ("1", "1-", "0.", "1."):
                self.skipped += [start + n for n in skipped]
                rows = [row for row in rows if not _NOT_A_TOKEN.fullmatch(row[0])]
                if not rows:
                    return
        self.sentence_starts.append(len(self.rows))
        self.lines.append(start)
        self.rows += rows

    def document(self, number: int) -> Document:
        """Return the sentences as a document, and forget them."""
        layout = self.layout
        # A line may lack columns only where no label is wanted.
        columns = list(zip(*self.rows, strict=False) if layout.label is not None else self._padded())
        starts = tuple(self.sentence_starts)
        origin = Origin(str(layout.path), "line", tuple(self.lines), tuple(self.skipped))
        tokens = tuple(map(self.forms.__getitem__, columns[layout.token]))
        labels = None
        if "" in tokens:
            message = "the token is empty; expected a token in each line of a sentence"
            raise _error_at(origin, starts, tokens.index(""), message)
        if layout.label is not None:
            labels = tuple(map(self.values.__getitem__, columns[layout.label]))
            if "" in labels:
                message = f"the label is empty; expected one, or {UNKNOWN_MARK} where it is not known"
                raise _error_at(origin, starts, labels.index(""), message)
        others = layout.others
        if others is None:
            end = len(columns) - (layout.label is not None)
            others = tuple((str(index + 1), index) for index in range(1, end))
        further = {
            name: tuple(map(self.values.__getitem__, columns[index]))
            for name, index in others
            if index < len(columns)
        }
        for kept in (self.forms, self.values):
            if layout.label is None and len(kept) > _MAXIMUM_FORMS:
                kept.forget()
        self._begin()
        identity = str(number) if number else None
        return Document(tokens, None, (), starts, labels, None, None, further, identity, origin)

    def _padded(self) -> Iterator[tuple[str, ...]]:
        width = len(self.rows[0])
        if all(len(row) == width for row in self.rows):
            return zip(*self.rows, strict=False)
        return zip_longest(*self.rows, fillvalue=_MISSING)


def _error_at(origin: Origin, starts: Sequence[int], token: int, message: str) -> CorpusError:
    sentence = bisect_right(starts, token) - 1
    return CorpusError(message, origin.path, origin.line(sentence, token - starts[sentence]))


class _Counting:
    """Refuses files whose first column, taken for the tokens, counts the tokens of each sentence.

    These are CoNLL-U and its relatives. A file of two columns has no room for such a count.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._open = layout.others is None  # columns are not named
        self._sentences = self._first_line = 0

    def look_at(self, rows: list[list[str]], start: int) -> None:
        if not self._open or len(rows) < 2:
            return
        numbers = [row[0] for row in rows if not _NOT_A_TOKEN.fullmatch(row[0])]
        first = 0 if numbers[:1] == ["0"] else 1
        if len(rows[0]) < 3 or numbers != [str(number) for number in range(first, first + len(numbers))]:
            self._open = False
            return
        self._first_line = self._first_line or start
        self._sentences += 1
        if self._sentences == _COUNTED_SENTENCES:
            self.refuse_if_undecided()

    def refuse_if_undecided(self) -> None:
        if self._open and self._sentences:
            raise CorpusError(
                "the first column counts the tokens of each sentence (1, 2, 3 ...), as in CoNLL-U; the tokens are "
                "in another column: name the columns from left to right, such as "
                "--set corpus.columns='[id, token, lemma, upos, xpos, feats, head, deprel, deps, misc]' with "
                "--set corpus.label=upos",
                self._layout.path,
                self._first_line,
            )


def _with_marks(documents: Iterator[Document]) -> Iterator[Document]:
    """Give texts without an id a number, unless each of them is a single sentence."""
    held: list[Document] = []
    marked = False
    for document in documents:
        held.append(document)
        marked = document.id is not None or len(document.sentence_starts) > 1
        if marked or document.source_text is None:
            break
    serial = 0
    for document in chain(held, documents):
        loose = document.id is None and (len(document.sentence_starts) > 1 or (marked and document.source_text))
        if loose:
            serial += 1
            # No id of a file looks like this one, which is never written.
            yield replace(document, id=f"\0{serial}")
        else:
            yield document


class _Writer:
    """Writes lines of columns so that they are read back as they are."""

    def __init__(self, target: IO[str]) -> None:
        self._target = target
        self._tabs: bool | None = None  # whether the first line that cannot be a comment has a tab
        self._names: tuple[str, ...] | None = None

    def mark(self) -> None:
        """Begin a document."""
        # Written before the number of columns is known; readers look at the mark alone.
        self._target.write(f"{DOCUMENT_MARK} O\n\n")

    def write(self, document: Document, labels: Sequence[str]) -> None:
        names = tuple(document.columns)
        if self._names is None:
            self._names = names
        if names != self._names:
            had, has = (", ".join(each) or "none" for each in (self._names, names))
            raise CorpusError(
                f"further columns differ between documents, so that no line would fit ({had}; {has})"
            )
        shown = [label or UNKNOWN_MARK for label in labels] if UNKNOWN in labels else labels
        columns = [document.tokens, *document.columns.values(), shown]
        for start, end in document.bounds:
            text = self._sentence([column[start:end] for column in columns])
            try:
                self._target.write(text)
            except UnicodeEncodeError as problem:
                raise half_a_character(problem, document) from None

    def _sentence(self, columns: list[Sequence[str]]) -> str:
        lines = list(map(" ".join, zip(*columns, strict=True)))
        text = "\n".join(lines)
        fields = len(columns) * len(lines)
        simple = not text.startswith("#") and DOCUMENT_MARK not in text and "\t" not in text and "\r" not in text
        # Counting separators finds empty fields, spaces and line ends without a look at each token.
        if simple and text.count("\n") + 1 == len(lines) and len(text.split(" ")) == fields - len(lines) + 1:
            if self._tabs is None:
                self._tabs = False
            if not self._tabs and not _EMPTY_FIELD.search(text):
                return text + "\n\n"
        return "".join(self._line(fields) for fields in zip(*columns, strict=True)) + "\n"

    def _line(self, fields: Sequence[str]) -> str:
        for index, text in enumerate(fields):
            self._check(text, may_be_empty=0 < index < len(fields) - 1)
        tab = any(" " in text or not text for text in fields)
        if self._tabs is None and not fields[0].startswith("#"):
            self._tabs = tab
        line = " ".join(fields)
        if self._tabs is not False or tab or COMMENT.match(line):
            line = "\t".join(fields)
        return line + "\n"

    def _check(self, text: str, *, may_be_empty: bool) -> None:
        if may_be_empty and not text:
            return
        if text.strip(" ") in ("", DOCUMENT_MARK) or text[0] == " " or text[-1] == " " or "\t" in text:
            raise CorpusError(f"{shorten(text)} cannot be written: it would not be read back as it is")
        if "\n" in text or "\r" in text:
            raise CorpusError(f"{shorten(text)} cannot be written: a token must stand in one line")
