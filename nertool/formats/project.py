"""The format `project`: what people have labelled with `nertool label`, in an SQLite database.

A project is a folder with the database `labels.sqlite`. Read as a folder, or by the name of the database, it gives
the sentences to learn from; its file `test` stands for those that were kept apart to test with.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from nertool.errors import CorpusError
from nertool.formats.registry import Format, ReadOptions, Report
from nertool.formats.streams import stripped
from nertool.text.document import Document, Origin
from nertool.text.schemes import Span

DATABASE = "labels.sqlite"
TEST = "test"
"""Name of the file that stands for the test set of a project."""

TEST_LINE = "test set of a nertool project"
"""What is in it."""

APPLICATION = 0x6E657274
"""SQLite's `application_id` of a project: nert."""

VERSION = 1
"""SQLite's `user_version`: which tables there are, and what they mean."""

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged database raises; the second where a message of SQLite's quotes bytes that are not UTF-8."""

_MAGIC = b"SQLite format 3\0"
_PLACE = 68  # of the application's number in the file
_HOLDERS = ("locked", "busy")
_DAMAGED = ("malformed", "not a database", "no such", "Could not decode")

Part = Literal["pool", "test"]


class Project(Format):
    """The answers of a project of `nertool label`: a sentence for each.

    Sentences that were rejected, skipped or not answered are left out, unless labels are not wanted; where an
    annotator marked only some of the entities, the other tokens are unlabelled.
    """

    name = "project"
    description = "what was labelled with nertool label: the folder of a project"
    suffixes = (".sqlite",)
    holds = frozenset({"text", "entities", "columns", "sentences", "documents", "unlabelled"})
    writable = False

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize the folder of a project, its database, and the file of its test set."""
        if path.is_dir():
            return is_project(path)
        if head is not None and head.strip() == TEST_LINE:
            return is_project(path.parent)
        return _is_database(path)

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each sentence that was answered.

        Raises:
            CorpusError: It is not a project, of another version, or the database cannot be read.
        """
        folder = path if path.is_dir() else path.parent
        part: Part = "test" if path.name == TEST and not path.is_dir() else "pool"
        with closing(open_database(folder)) as database:
            if options.labelled:
                _note(database, part, path, report)
                documents = answered(database, part, str(path))
            else:
                documents = _sentences(database, str(path))
            yield from stripped(documents, options.strip, path)


def is_project(folder: Path) -> bool:
    """Say whether a folder is a project."""
    return _is_database(folder / DATABASE)


def open_database(folder: Path) -> sqlite3.Connection:
    """Open the database of a project to read it, also while it is written to.

    Raises:
        CorpusError: There is none, it is of another version, or it cannot be read.
    """
    path = folder / DATABASE
    if not _is_database(path):
        raise CorpusError("this is not a project of `nertool label`", path)
    try:
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        try:
            check_version(database, path)
        except sqlite3.OperationalError as problem:
            database.close()
            if any(word in str(problem) for word in _HOLDERS):
                raise
            # In a folder that cannot be written to, SQLite cannot make the files that go with the database.
            database = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True, check_same_thread=False)
            check_version(database, path)
    except SQLITE_ERRORS as problem:
        raise explained(problem, path) from None
    return database


def check_version(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a database whose tables this version does not know.

    Raises:
        CorpusError: It is one.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise CorpusError(
            f"the project is of version {version}, and this version of nertool knows {VERSION}: use the "
            "version of nertool that it was made with",
            path,
        )


def explained(problem: Exception, path: Path) -> CorpusError:
    """Say what can be done about one of `SQLITE_ERRORS`."""
    text = str(problem) if isinstance(problem, sqlite3.Error) else "malformed database"
    if any(word in text for word in _HOLDERS):
        text += ": another program holds the database; close it, and try again"
    elif any(word in text for word in _DAMAGED):
        text += ": the file is damaged; take the answers from a copy"
    elif "full" in text:
        text += ": make room on the disk, and try again"
    return CorpusError(text, path)


def answered(
    database: sqlite3.Connection, part: Part, name: str, validation: bool | None = None
) -> Iterator[Document]:
    """Read the sentences that were answered, as far as they are of use.

    Args:
        database: Of the project.
        part: Those to learn from, or those kept apart to test with.
        name: Of the file, for error messages.
        validation: Those alone that judge the trainings of the project (true), or that do not (false).

    Raises:
        CorpusError: An entry is damaged.
    """
    names = dict(_rows(database, "SELECT id, name FROM types", (), name))
    query = (
        f"SELECT {_COLUMNS}, a.spans, a.outside, a.partial FROM sentences s JOIN answers a ON a.id = s.answer "
        "JOIN documents d ON d.id = s.document WHERE s.role = ? AND a.action = 'accept' "
        "AND (? IS NULL OR s.validation = ?) ORDER BY s.id"
    )
    for number, *fields, spans, outside, partial in _rows(database, query, (part, validation, validation), name):
        try:
            document = _document(number, fields, name)
            marked = [Span(start, end, names[type_]) for start, end, type_, *_ in json.loads(spans)]
            unknown: set[int] = set(range(len(document))) if partial else set()
            for start, end in json.loads(outside):
                unknown -= set(range(start, end))
            yield Document.from_spans(
                document.tokens,
                marked,
                unknown=unknown,
                source_text=document.source_text,
                source_offsets=document.source_offsets,
                columns=document.columns,
                id=document.id,
                origin=document.origin,
            )
        except (ValueError, LookupError, TypeError) as problem:
            raise CorpusError(f"sentence {number} of the project is damaged: {problem}", name) from None


def sentences(
    database: sqlite3.Connection, numbers: list[int], name: str = DATABASE
) -> Iterator[tuple[int, Document]]:
    """Read some sentences by their numbers, without labels.

    Raises:
        CorpusError: An entry is damaged.
    """
    query = f"SELECT {_COLUMNS} FROM sentences s JOIN documents d ON d.id = s.document WHERE s.id = ?"
    for wanted in numbers:
        for number, *fields in _rows(database, query, (wanted,), name):
            yield number, _document(number, fields, name)


def _sentences(database: sqlite3.Connection, name: str) -> Iterator[Document]:
    query = f"SELECT {_COLUMNS} FROM sentences s JOIN documents d ON d.id = s.document ORDER BY s.id"
    for number, *fields in _rows(database, query, (), name):
        yield _document(number, fields, name)


_COLUMNS = "s.id, s.text, s.offsets, s.spaced, s.columns, d.name"


def _document(number: int, fields: list[Any], name: str) -> Document:
    text, offsets, spaced, columns, identity = fields
    try:
        places = tuple((int(start), int(end)) for start, end in json.loads(offsets))
        return Document(
            tuple(sys.intern(text[start:end]) for start, end in places),
            text if spaced else None,
            places if spaced else (),
            columns={key: tuple(values) for key, values in json.loads(columns).items()},
            labels=None,
            scheme=None,
            id=identity,
            origin=Origin(name, "row", (number,)),
        )
    except (ValueError, TypeError, AttributeError) as problem:
        raise CorpusError(f"sentence {number} of the project is damaged: {problem}", name) from None


def _rows(
    database: sqlite3.Connection, query: str, values: tuple[Any, ...], name: str
) -> Iterator[tuple[Any, ...]]:
    try:
        yield from database.execute(query, values)
    except SQLITE_ERRORS as problem:
        raise explained(problem, Path(name)) from None


def _note(database: sqlite3.Connection, part: Part, path: Path, report: Report) -> None:
    """Say what there is in the project that is not read."""
    query = (
        "SELECT a.action, count(*) FROM sentences s JOIN answers a ON a.id = s.answer WHERE s.role = ? GROUP BY 1"
    )
    counts = dict(_rows(database, query, (part,), str(path)))
    folder = path if path.is_dir() else path.parent
    if not counts.get("accept"):
        report.notes.append(f"{path}: no sentence has been accepted yet; label some: nertool label {folder}")
    if rejected := counts.get("reject"):
        report.notes.append(f"{path}: {rejected:,} rejected sentence{'s' * (rejected > 1)} left out")
    if part == "pool":
        ((tests,),) = _rows(
            database,
            "SELECT count(*) FROM sentences s JOIN answers a ON a.id = s.answer "
            "WHERE s.role = 'test' AND a.action = 'accept'",
            (),
            str(path),
        )
        if tests:
            report.notes.append(f"{path}: {tests:,} sentence{'s' * (tests > 1)} to test with: {folder / TEST}")


def _is_database(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(_PLACE + 4)
    except (OSError, ValueError):
        return False
    return head.startswith(_MAGIC) and int.from_bytes(head[_PLACE:]) == APPLICATION
