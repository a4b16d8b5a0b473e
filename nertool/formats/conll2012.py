"""CoNLL-2011 and 2012, as OntoNotes is given out in them: entities in brackets, a token a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nertool.errors import CorpusError
from nertool.formats.blocks import USUAL_LABELS, Block, origin_of, read_blocks
from nertool.formats.columns import decode_lines, shorten
from nertool.formats.opening import open_bytes
from nertool.formats.registry import Format, Holds, ReadOptions, Report
from nertool.formats.spellings import HAS_BRACKETS, read_brackets
from nertool.formats.streams import stripped
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme

_BEGIN = re.compile(r"#begin document \(?(.*?)\)?(?:; part (\S+))?\s*$")
_NAMES = ("document", "part", "number", "token", "pos", "parse", "lemma", "frameset", "sense", "speaker", "entity")
_COLUMNS = ("pos", "lemma", "speaker")  # that are kept
_HOLDS: frozenset[Holds] = frozenset({"entities", "tags", "columns", "sentences", "documents", "unlabelled"})


class Conll2012(Format):
    """At least eleven columns, separated by spaces; the eleventh has entities, such as `(PERSON*` and `*)`.

    `#begin document` begins a document, whose parts belong together. `ReadOptions.label` may be `pos`, which is
    then read as plain tags.
    """

    name = "conll2012"
    description = "CoNLL-2012 (OntoNotes, *_gold_conll): entities in brackets; pos as plain tags"
    suffixes = (".gold_conll", ".v4_gold_conll", ".v9_gold_conll", ".v4_auto_conll", ".v9_auto_conll")
    holds = _HOLDS
    writable = False
    streams = True

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize the line that begins a document."""
        return (head or "").lstrip().startswith("#begin document")

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each sentence; those of one document have its id."""
        with open_bytes(path, "a file of CoNLL-2012") as stream:
            yield from self.read_lines(decode_lines(stream, path), str(path), options, report)

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read documents from lines."""
        documents = _documents(decode_lines(lines, name), name, options, report)
        yield from stripped(documents, options.strip, Path(name))


def _documents(lines: Iterable[str], name: str, options: ReadOptions, report: Report) -> Iterator[Document]:
    label = "entity" if options.label.lower() in USUAL_LABELS else options.label.lower()
    if options.labelled and label not in ("entity", *_COLUMNS):
        choice = ", ".join(_COLUMNS)
        raise CorpusError(
            f"there is no column {options.label!r}; leave corpus.label out to read the entities, or choose one "
            f"of: {choice}",
            name,
        )
    document: str | None = None
    for block in read_blocks(lines, str.split, ("#begin document", "#end document")):
        for comment in block.comments:
            if match := _BEGIN.match(comment):
                document = match[1]
        if block.rows:
            yield _sentence(block, document, name, label if options.labelled else None, report)


def _sentence(block: Block, identity: str | None, name: str, label: str | None, report: Report) -> Document:
    for line, row in zip(block.numbers, block.rows, strict=True):
        if len(row) < len(_NAMES):
            message = (
                f"found {len(row)} columns in {shorten(' '.join(row))}; expected at least {len(_NAMES)}: "
                f"{', '.join(_NAMES)}"
            )
            raise CorpusError(message, name, line)
    values = {column: tuple(row[index] for row in block.rows) for index, column in enumerate(_NAMES)}
    tokens = values["token"]
    if set(tokens) == {"[WORD]"}:
        message = (
            "the words are masked ([WORD]): put those of OntoNotes in with its scripts (skeleton2conll) first"
        )
        raise CorpusError(message, name, block.numbers[0])
    rest: dict[str, Any] = {
        "columns": {column: values[column] for column in _COLUMNS if column != label},
        "id": identity,
        "origin": origin_of(name, [block.numbers]),
    }
    if label is None:
        return Document(tokens, **rest)
    if label != "entity":
        tags = tuple(UNKNOWN if tag == "-" else tag for tag in values[label])
        return Document(tokens, labels=tags, scheme=Scheme.PLAIN, **rest)
    marks = values["entity"]
    wrong = next((n for n, mark in enumerate(marks) if mark != "-" and not HAS_BRACKETS.fullmatch(mark)), None)
    if wrong is not None:
        message = (
            f"{shorten(marks[wrong])} in column 11; expected brackets around entities, such as (PERSON* or *)"
        )
        raise CorpusError(message, name, block.numbers[wrong])
    entities, left_out = read_brackets(marks)
    unknown = {n for span, _ in left_out for n in range(span.start, span.end)}
    unknown |= {n for n, mark in enumerate(marks) if mark == "-"}
    for span, reason in left_out:
        words = " ".join(tokens[span.start : span.end])
        report.misfits.append(f"{name}, line {block.numbers[span.start]}: {span.type} {shorten(words)} {reason}")
    return Document.from_spans(tokens, entities, unknown=unknown, **rest)
