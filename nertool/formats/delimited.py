"""Delimited text (`csv`): a header, then a token a row, or a sentence a row; comma, semicolon or tab."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.blocks import USUAL_LABELS, origin_of
from nertool.formats.columns import decode_lines, half_a_character, shorten
from nertool.formats.labels import relabel
from nertool.formats.opening import open_bytes
from nertool.formats.registry import Format, Holds, ReadOptions, Report, WriteOptions
from nertool.formats.streams import stripped, watched
from nertool.text.document import UNKNOWN, Document, Origin

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SAMPLE = 200  # rows that are looked at to see whether a row is a token or a sentence
_HOLDS: frozenset[Holds] = frozenset({"entities", "tags", "columns", "sentences", "documents", "unlabelled"})
# Usual names of columns in lower case, with spaces for _ and -, "no" for #; the first that there is counts.
_SINGLE = ("token", "word", "form", "surface")  # these never hold a sentence
_WORDS = (*_SINGLE, "tokens", "words", "text", "sentence", "sentences", "sent")
_LABELS: tuple[str, ...] = (
    "label",
    "labels",
    "ner",
    "ner tag",
    "ner tags",
    "ne",
    "tag",
    "tags",
    "iob",
    "bio",
    "entity",
    "entities",
)
_LABELS += ("ner label", "word labels", "word label", "iob tag", "bio tag", "named entity", "target", "entity tag")
_SENTENCES: tuple[str, ...] = (
    "sentence id",
    "sentence",
    "sent id",
    "sentence no",
    "sentence number",
    "sentence idx",
    "sent",
)
_SENTENCES += ("sentence index", "sent no", "sent idx", "sentid", "sentenceid", "s id")
_DOCUMENTS = ("document id", "document", "doc id", "doc", "docid", "file", "filename", "file name")
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[\s*(?:{_STRING}(?:\s*,\s*|\s+|(?=\])))*\]", re.DOTALL)  # numpy writes no commas
_NUMBERS = re.compile(r"\[\s*-?\d+(?:\s*,\s*-?\d+|\s+-?\d+)*\s*\]")
_ODD_ESCAPE = re.compile(r"\\[^\\'\"abfnrtvxuUN0-7]")
_RAW_QUOTE = re.compile(r'(?:^|\t)"(?!(?:[^"]|"")*"\s*(?:\t|$))')
_SEPARATOR_LINE = re.compile(r"sep=.\s*$")  # which spreadsheets write before the header
_HELD = 1_000  # documents that are looked at to see whether any has an id


class Delimited(Format):
    """A table with a header, whose columns are found by their usual names.

    A row is a token; the column of sentences has the number of each, perhaps on its first row only, or an empty
    row ends a sentence. Or a row is a sentence: its tokens and its labels are separated by spaces, or are lists.
    With `ReadOptions.columns` the columns have these names instead, from left to right: token, sentence, document,
    and the labels' own.
    """

    name = "csv"
    description = "delimited text with a header (comma, semicolon, tab): a token a row, or a sentence a row"
    suffixes = (".csv",)
    holds = _HOLDS

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize a header with a column of tokens and one of labels."""
        lines = (head or "").split("\n")
        if _SEPARATOR_LINE.match(lines[0]):
            del lines[0]
        if len(lines) < 2 or is_export_table(lines[0]):
            return False
        try:
            header = next(csv.reader([lines[0]], delimiter=delimiter_of(lines[0])), [])
        except csv.Error:
            return False
        names = [_plain(name) for name in header]
        return len(names) > 1 and any(name in _WORDS for name in names) and any(name in _LABELS for name in names)

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each sentence; those of one document have its id.

        Raises:
            CorpusError: A column is not found, or a row is not as the others.
        """
        with open_bytes(path, "delimited text") as stream:
            lines = list(decode_lines(stream, path))
        yield from stripped(_Table(lines, path, options, report).documents(), options.strip, path)

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write what `read` reads."""
        with replaced_when_done(target) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="") as stream:
            self.write_stream(stream, watched(documents, self, target, report), options)

    def write_stream(self, target: IO[str], documents: Iterable[Document], options: WriteOptions) -> None:
        """Write a token a row, with the number of its sentence and, where there are any, ids of documents.

        Raises:
            CorpusError: A token or label is empty or has a line end in it, or documents have different columns.
        """
        waiting = iter(documents)
        held = list(islice(waiting, _HELD))
        writer = csv.writer(target, lineterminator="\n")
        names = tuple(held[0].columns) if held else ()
        with_documents = any(each.id is not None or len(each.sentence_starts) > 1 for each in held)
        # Beside a column that would be read as labels, they have another name.
        label = "predicted" if any(_plain(name) in _LABELS for name in names) else "label"
        given = ["document"] * with_documents + ["sentence_id", "token"]
        if repeated := {_plain(name) for name in names} & {_plain(name) for name in [*given, label]}:
            raise CorpusError(f"a column called {', '.join(sorted(repeated))} would be there twice")
        _write(writer, [*given, *names, label], held[0] if held else None)
        number = 0
        named = False
        for serial, document in enumerate(chain(held, waiting), 1):
            if tuple(document.columns) != names or (document.id is not None and not with_documents):
                raise CorpusError("documents differ in their columns or ids, so that no header would fit")
            identity = document.id
            if identity is None:  # a document of its own, or sentences before the first one
                identity = str(serial) if named or len(document.sentence_starts) > 1 else ""
            named = named or bool(identity)
            labels = relabel(document, options.scheme)
            for start, end in document.bounds:
                number += 1
                for index in range(start, end):
                    values = [document.tokens[index], *(row[index] for row in document.columns.values())]
                    _check(values[0], labels[index])
                    _write(writer, [*[identity] * with_documents, number, *values, labels[index]], document)


def _write(writer: Any, row: list[Any], document: Document | None) -> None:
    try:
        writer.writerow(row)
    except UnicodeEncodeError as problem:
        raise half_a_character(problem, document) from None


class _Row(NamedTuple):
    line: int  # its last one, counted from 1
    fields: list[str]


class _Table:
    """One table, read whole."""

    def __init__(self, lines: list[str], path: Path, options: ReadOptions, report: Report) -> None:
        self.path, self.options, self.report = path, options, report
        if lines and _SEPARATOR_LINE.match(lines[0]):
            lines[0] = ""
        self.delimiter = delimiter_of(next((line for line in lines if line.strip()), ""))
        rows = self._rows(lines)
        self.header, self.rows = self._header(rows)
        self.token, self.label, self.sentence, self.document = self._columns()

    def _rows(self, lines: list[str]) -> list[_Row]:
        whole = [line.rstrip("\r\n") for line in lines]
        if number := next((n for n, line in enumerate(whole, 1) if "\r" in line), 0):
            message = (
                "a carriage return stands within a line, as in files of old Macs: convert it with tr '\\r' '\\n'"
            )
            raise CorpusError(message, self.path, number)
        # Tables with tabs are often written without quotes, and then a quote is a token.
        if self.delimiter == "\t" and any(map(_RAW_QUOTE.search, whole)):
            return [_Row(number, line.split("\t") if line else []) for number, line in enumerate(whole, 1)]
        reader = csv.reader(
            (f"{line}\n" for line in whole), delimiter=self.delimiter, skipinitialspace=True, strict=True
        )
        try:
            return [_Row(reader.line_num, fields) for fields in reader]
        except csv.Error as problem:
            message = f"{problem}: is a quote inside a value doubled, and each value with one in quotes?"
            raise CorpusError(message, self.path, reader.line_num) from None

    def _header(self, rows: list[_Row]) -> tuple[list[str], list[_Row]]:
        filled = next((n for n, row in enumerate(rows) if any(field.strip() for field in row.fields)), None)
        if filled is None:
            raise CorpusError("it is empty; expected a header and a token in each row", self.path)
        first = [field.strip() for field in rows[filled].fields]
        named = list(self.options.columns or ())
        if not named:
            return first, rows[filled + 1 :]
        known = {*_WORDS, *_LABELS, *_SENTENCES, *_DOCUMENTS, *map(_plain, named)}
        is_header = any(_plain(field) in known for field in first)
        if len(named) == len(first):
            return named, rows[filled + is_header :]
        if is_header:
            return first, rows[filled + 1 :]
        message = (
            f"{len(named)} columns are named and there are {len(first)} in {shorten(self.delimiter.join(first))}"
        )
        raise CorpusError(message, self.path, rows[filled].line)

    def _columns(self) -> tuple[int, int | None, int | None, int | None]:
        """Find the columns of tokens, labels, sentences and documents."""
        names = [_plain(name) for name in self.header]

        def find(usual: Sequence[str], taken: Sequence[int | None] = ()) -> int | None:
            return next((names.index(x) for x in usual if x in names and names.index(x) not in taken), None)

        token = find(_WORDS)
        label = None
        if self.options.labelled:
            wanted = self.options.label
            exact = [n for n, name in enumerate(self.header) if name == wanted]
            exact = exact or [n for n, name in enumerate(names) if name == _plain(wanted)]
            usual = find(_LABELS, [token]) if wanted.lower() in USUAL_LABELS else None
            label = exact[0] if exact else usual
        if token is None or (self.options.labelled and label is None):
            missing = "of tokens" if token is None else "of labels"
            if label is None and self.options.label.lower() not in USUAL_LABELS:
                missing = repr(self.options.label)
            separated = _DELIMITERS[self.delimiter]
            raise CorpusError(
                f"there is no column {missing}; the columns, separated by {separated}, are: "
                f"{', '.join(map(shorten, self.header))}. Name the column of labels with --set corpus.label=..., "
                "or all columns from left to right, such as --set corpus.columns='[sentence, token, pos, label]'",
                self.path,
            )
        sentence = find(_SENTENCES, [token, label])
        return token, label, sentence, find(_DOCUMENTS, [token, label, sentence])

    def documents(self) -> Iterator[Document]:
        rows = []
        for row in self.rows:
            if len(row.fields) != len(self.header) and any(field.strip() for field in row.fields):
                message = (
                    f"found {len(row.fields)} values in {shorten(self.delimiter.join(row.fields))} where the "
                    f"header has {len(self.header)}, separated by {_DELIMITERS[self.delimiter]}; a value with one "
                    "in it must be in quotes"
                )
                raise CorpusError(message, self.path, row.line)
            fields = [field.strip(" ") for field in row.fields]
            # A row of another length has nothing but whitespace, such as a tab, in it.
            rows.append(_Row(row.line, fields if any(fields) and len(fields) == len(self.header) else []))
        if self._are_sentences(rows):
            return self._sentences(rows)
        return self._tokens(rows)

    def _are_sentences(self, rows: list[_Row]) -> bool:
        """Say whether rows have several tokens."""
        if _plain(self.header[self.token]) in _SINGLE:
            return False
        for row in [row for row in rows if row.fields][:_SAMPLE]:
            tokens = row.fields[self.token]
            labels = tokens if self.label is None else row.fields[self.label]
            if _is_list(labels) or len(tokens.split()) > 1:  # a class of a whole text is refused with the row
                return True
        return False

    def _others(self) -> list[tuple[str, int]]:
        own = (self.token, self.label, self.sentence, self.document)
        others = [(name, n) for n, name in enumerate(self.header) if n not in own]
        return [(name, n) for name, n in others if name and not name.startswith("Unnamed:")]

    def _sentences(self, rows: list[_Row]) -> Iterator[Document]:
        others = {}
        for row in rows:
            if not row.fields:
                continue
            tokens = self._list(row, self.token)
            labels = None if self.label is None else self._list(row, self.label)
            if labels is not None and len(labels) != len(tokens):
                plural = "s" if len(labels) > 1 else ""
                message = (
                    f"{len(tokens)} tokens and {len(labels)} label{plural}; expected as many labels as tokens"
                )
                raise CorpusError(message, self.path, row.line)
            columns = {}
            for name, n in self._others():
                values = _items(row.fields[n])
                if len(values) == len(tokens):
                    columns[name] = tuple(values)
                else:
                    others[name] = n
            identity = row.fields[self.document] if self.document is not None else None
            yield Document(
                tuple(tokens),
                labels=None if labels is None else tuple(labels),
                columns={name: values for name, values in columns.items() if name not in others},
                id=identity or None,
                origin=Origin(str(self.path), "row", (row.line,)),
            )
        if others:
            self.report.notes.append(f"{self.path}: columns that are not kept: {', '.join(others)}")

    def _list(self, row: _Row, column: int) -> list[str]:
        value = row.fields[column]
        if column == self.label and _NUMBERS.fullmatch(value):
            message = f"labels are numbers, {shorten(value)}; their names are needed"
            raise CorpusError(message, self.path, row.line)
        items = [] if _is_list(value) and "\0" in value else _items(value)
        if not items or "" in items or (column == self.label and _is_list(value) and not _LIST.fullmatch(value)):
            message = f"{shorten(value)} is no list of words; expected words and spaces, or a list of strings"
            raise CorpusError(message, self.path, row.line)
        return items

    def _tokens(self, rows: list[_Row]) -> Iterator[Document]:
        sentence: list[_Row] = []
        before: tuple[str | None, str | None] = (None, None)
        separated = False
        missing = 0
        for row in rows:
            if not row.fields or not row.fields[self.token]:
                self._check_empty(row)
                if sentence:
                    yield self._sentence(sentence, before[1])
                    sentence = []
                separated = True
                continue
            if "\n" in row.fields[self.token]:
                token = shorten(row.fields[self.token])
                message = f"the token {token} goes over several lines: are quotes inside values doubled?"
                raise CorpusError(message, self.path, row.line)
            missing += self.label is not None and not row.fields[self.label]
            # An empty cell goes on with what stands above it.
            keys = tuple(
                before[n] if column is None or not row.fields[column] else row.fields[column]
                for n, column in enumerate((self.sentence, self.document))
            )
            if sentence and keys != before:
                yield self._sentence(sentence, before[1])
                sentence = []
            before = keys[0], keys[1]
            sentence.append(row)
        if sentence:
            yield self._sentence(sentence, before[1])
        if self.sentence is None and not separated and len(rows) > 1:
            self.report.notes.append(
                f"{self.path}: no column has the number of a sentence and no row is empty, so that all rows are "
                "one sentence. Name the column, such as --set corpus.columns='[sentence, token, label]'"
            )
        if missing:
            rows_have = "row has" if missing == 1 else "rows have"
            self.report.notes.append(f"{self.path}: {missing:,} {rows_have} no label, which is read as unknown")

    def _check_empty(self, row: _Row) -> None:
        label = "" if not row.fields or self.label is None else row.fields[self.label]
        if label:
            message = f"the token is empty and its label is {shorten(label)}; expected a token in each row"
            raise CorpusError(message, self.path, row.line)

    def _sentence(self, rows: list[_Row], document: str | None) -> Document:
        fields = [row.fields for row in rows]
        return Document(
            tuple(row[self.token] for row in fields),
            labels=None if self.label is None else tuple(row[self.label] or UNKNOWN for row in fields),
            columns={name: tuple(row[n] for row in fields) for name, n in self._others()},
            id=document or None,
            origin=origin_of(str(self.path), [[row.line for row in rows]]),
        )


def is_export_table(header: str) -> bool:
    """Say whether a header is that of a table that Label Studio exports."""
    names = re.split(r"[,\t]", header.rstrip("\r\n").replace('"', ""))
    return {"annotation_id", "annotator"} <= set(names)


def delimiter_of(header: str) -> str:
    """Find what separates the columns: what makes the most of them of the header."""

    def columns(delimiter: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=delimiter), []))
        except csv.Error:
            return header.count(delimiter) + 1

    return max(_DELIMITERS, key=columns)


def _plain(name: str) -> str:
    """Return the name of a column as the usual names are written."""
    return " ".join(re.sub(r"[\s_.:-]+", " ", name.lower().replace("#", " no ")).split())


def _is_list(value: str) -> bool:
    return len(value) > 2 and value.startswith("[") and value.endswith("]")


def _items(value: str) -> list[str]:
    """Read words: separated by spaces, or a list of strings as JSON, Python or numpy write it."""
    if not _LIST.fullmatch(value) or _ODD_ESCAPE.search(value):
        return value.split()
    return [ast.literal_eval(string) for string in re.findall(_STRING, value, re.DOTALL)]


def _check(token: str, label: str) -> None:
    for value in (token, label):
        if value != value.strip(" ") or "\n" in value or "\r" in value or not token:
            raise CorpusError(f"{shorten(value)} cannot be written: it would not be read back as it is")
