"""Columns of which the first counts tokens: `germeval` (GermEval 2014) and `uner` (Universal NER)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from nertool.errors import CorpusError
from nertool.formats.blocks import USUAL_LABELS, Block, find_tokens_in, origin_of, read_blocks, value_of
from nertool.formats.columns import decode_lines, shorten
from nertool.formats.opening import open_bytes
from nertool.formats.registry import Format, Holds, ReadOptions, Report
from nertool.formats.streams import stripped
from nertool.text.document import Document

_HOLDS: frozenset[Holds] = frozenset({"text", "entities", "tags", "columns", "sentences", "unlabelled"})
_ID = re.compile(r"\d+(?:[-.](\d+))?", re.ASCII)
_LABEL = r"(?:[BILUES]-\S+|O|_)"


class _Numbered(Format):
    """A token a line behind its number, columns separated by tabs; lines before a sentence that begin with #.

    Because a number begins each line, a token may be anything, # too.
    """

    holds = _HOLDS
    writable = False
    streams = True
    names: ClassVar[tuple[str, ...]]  # of the columns from the third on, the usual label first
    head: ClassVar[re.Pattern[str]]  # what the file begins with

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize the comment and the first line of a sentence."""
        return bool(self.head.match((head or "").lstrip("\n")))

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each sentence."""
        with open_bytes(path, f"a file of the format {self.name}") as stream:
            yield from self.read_lines(decode_lines(stream, path), str(path), options, report)

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read documents from lines."""
        yield from stripped(self._documents(decode_lines(lines, name), name, options), options.strip, Path(name))

    def _documents(self, lines: Iterable[str], name: str, options: ReadOptions) -> Iterator[Document]:
        wanted = options.label.lower()
        label = wanted if wanted in self.names else self.names[0]
        if wanted not in (*self.names, *USUAL_LABELS):
            message = f"there is no column {options.label!r}; corpus.label may be: {', '.join(self.names)}"
            raise CorpusError(message, name)
        for block in read_blocks(lines, lambda line: line.split("\t")):
            if tokens := self._tokens(block, name):
                yield self._document(block, tokens, name, label if options.labelled else None)

    def _tokens(self, block: Block, name: str) -> list[int]:
        """Return which rows are tokens: not ranges, not empty nodes."""
        least = 2 + len(self.names)
        result = []
        for index, (line, row) in enumerate(zip(block.numbers, block.rows, strict=True)):
            match = _ID.fullmatch(row[0])
            if match is None or len(row) < least or not row[1]:
                expected = ", ".join(["number", "token", *self.names])
                message = (
                    f"found {shorten(chr(9).join(row))}; expected at least {least} columns, separated by tabs"
                )
                raise CorpusError(f"{message}: {expected}", name, line)
            if match[1] is None:
                result.append(index)
        return result

    def _document(self, block: Block, tokens: list[int], name: str, label: str | None) -> Document:
        rows = [block.rows[index] for index in tokens]
        width = min(map(len, rows))
        names = [*self.names, *(str(number) for number in range(3 + len(self.names), width + 1))]
        columns = {name: tuple(row[index] for row in rows) for index, name in enumerate(names, 2)}
        labels = None if label is None else tuple("" if each == "_" else each for each in columns.pop(label))
        words = tuple(row[1] for row in rows)
        texts = [value for comment in block.comments if (value := value_of(comment, "text"))]
        offsets = find_tokens_in(texts[-1], words) if texts else None
        return Document(
            words,
            texts[-1] if offsets else None,
            offsets or (),
            labels=labels,
            columns=columns,
            origin=origin_of(name, [[block.numbers[index] for index in tokens]]),
        )


class GermEval(_Numbered):
    """GermEval 2014: number, token, label, label of the entity within; a line before each has its source."""

    name = "germeval"
    description = "GermEval 2014: the outer entities; corpus.label=inner reads those within them"
    names = ("outer", "inner")
    head = re.compile(rf"(?:#\t.*\n)+1\t\S[^\t\n]*\t{_LABEL}\t{_LABEL}[ \r]*(?:\n|\Z)")


class UniversalNer(_Numbered):
    """Universal NER: number, token, label and further columns; `# text` before a sentence has its text."""

    name = "uner"
    description = "Universal NER (.iob2): number, token, label and further columns"
    names = ("label",)
    head = re.compile(
        rf"(?:#.*\n)*# ?(?:sent_id|text|newdoc id) =.*\n"
        rf"1(?:-\d+)?\t\S[^\t\n]*\t{_LABEL}(?:\t[^\t\n]*){{0,2}}(?:\n|\Z)"
    )
