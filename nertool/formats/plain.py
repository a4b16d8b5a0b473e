"""The formats `text`, raw text, and `tokens`, tokenized text: both without labels, and read only when named."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.columns import half_a_character, shorten
from nertool.formats.opening import open_lines
from nertool.formats.registry import Format, ReadOptions, Report, WriteOptions
from nertool.text.document import Document, Origin
from nertool.text.tokenization import SpacyTokenizer, refuse_long, tokenize

_SEPARATORS = re.compile("[ \t\r]+")


class _Lines(Format):
    """A file of lines without labels."""

    streams = True

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document a line; an empty line is a document without tokens.

        Raises:
            CorpusError: The file cannot be read, or labels are wanted.
        """
        with open_lines(path, self.description) as lines:
            yield from self.read_lines(lines, str(path), options, report)


class PlainText(_Lines):
    """Raw text, which is tokenized when it is read."""

    name = "text"
    description = "raw text, a text a line"
    holds = frozenset({"text", "sentences"})
    writable = False

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read a document a line."""
        _refuse_labels(self, name, options)
        tokenizer = options.tokenizer or SpacyTokenizer("en")
        for number, line in enumerate(lines, 1):
            refuse_long(line, name, number)
            document = tokenize(line, tokenizer)
            yield replace(document, origin=Origin(name, "row", (number,) * len(document.sentence_starts)))


class Tokens(_Lines):
    """Tokenized text: tokens are separated by spaces or tabs."""

    name = "tokens"
    description = "tokenized text, a sentence a line, spaces between its tokens"
    holds = frozenset({"sentences"})

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read a sentence a line."""
        _refuse_labels(self, name, options)
        for number, line in enumerate(lines, 1):
            tokens = tuple(token for token in _SEPARATORS.split(line) if token)
            yield Document(tokens, origin=Origin(name, "row", (number,) if tokens else ()))

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write a sentence a line, without labels, to a file that appears when it is whole."""
        labelled = 0

        def counted() -> Iterator[Document]:
            nonlocal labelled
            for document in documents:
                labelled += document.labels is not None
                yield document

        with replaced_when_done(target) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream:
            self.write_stream(stream, counted(), options)
        if labelled:
            report.notes.append(f"{target}: the format tokens cannot hold labels; they were left out")

    def write_stream(self, target: IO[str], documents: Iterable[Document], options: WriteOptions) -> None:
        """Write a sentence a line.

        Raises:
            CorpusError: A token has whitespace in it, so that it would be read as several.
        """
        for document in documents:
            for token in document.tokens:
                if not token or _SEPARATORS.search(token) or "\n" in token:
                    raise CorpusError(f"{shorten(token)} cannot be written: spaces separate tokens in this format")
            for start, end in document.bounds or [(0, 0)]:
                try:
                    target.write(" ".join(document.tokens[start:end]) + "\n")
                except UnicodeEncodeError as problem:
                    raise half_a_character(problem, document) from None


def _refuse_labels(used: Format, name: str, options: ReadOptions) -> None:
    if options.labelled:
        raise CorpusError(f"the format {used.name} has no labels, and labels are needed here: name another", name)
