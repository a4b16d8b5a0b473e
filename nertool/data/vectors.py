"""Reading pretrained word vectors: GloVe text, word2vec text and word2vec binary, plain or gzip."""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nertool.errors import CorpusError
from nertool.forking import cached_property
from nertool.formats.opening import LONGEST_LINE, byte_lines, decode, open_bytes, refuse_long

_WHAT = "a file with a word and its numbers on each line"
_WHITESPACE = b" \t\r\n"
_BUFFER = 2**17  # bytes
_LONGEST_WORD = 10_000  # bytes of a word in a binary file
_BLOCK = 2048  # rows parsed at once: few enough to stay in the cache
_SAMPLE = 64  # rows that show the number of dimensions where no header names it
_HEADER = re.compile(rb"\s*(\d+)[ \t]+(\d+)\s*")
_DIGITS_OF_ROWS, _DIGITS_OF_DIMENSIONS = 12, 6  # at most, in a header: it says how much is read at once
_NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_LARGEST = float(np.finfo(np.float32).max)
_DIGITS = str.maketrans("123456789", "000000000")


@dataclass
class Vectors:
    """Words and their vectors.

    Attributes:
        words: The words, as in the file; one may occur twice.
        matrix: Their vectors, float32 of shape (words, dimensions).
        path: The file.
    """

    words: list[str]
    matrix: NDArray[np.float32]
    path: Path

    @property
    def dimensions(self) -> int:
        """Size of a vector."""
        return int(self.matrix.shape[1])

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each word; of a word that occurs twice, the first."""
        last = len(self.words) - 1
        return {word: last - row for row, word in enumerate(reversed(self.words))}


def look_up(word: str, index: Mapping[str, int]) -> int | None:
    """Find a word's row: as written, lower-cased, with its digits as 0, and lower-cased with its digits as 0.

    Args:
        word: A token of the text.
        index: The row of each known word.

    Returns:
        The row of the first of these forms that is known, or None.
    """
    row = index.get(word)
    if row is None:
        lowered = word.lower()
        row = index.get(lowered)
        if row is None and not word.isalpha():  # else there is no digit in it
            row = index.get(word.translate(_DIGITS))
            if row is None:
                row = index.get(lowered.translate(_DIGITS))
    return row


def read_vectors(path: str | Path) -> Vectors:
    """Read a file of word vectors; its format is detected from its content.

    Rows are read from the right, so that a word may contain spaces.

    Args:
        path: GloVe text (a word and its numbers on each line), word2vec text (the same below a line with the
            numbers of rows and dimensions) or word2vec binary, each plain or gzip.

    Raises:
        CorpusError: The file cannot be read, is empty or truncated, or has a row with the wrong number of
            values, with something else than finite numbers, or with a word that is not UTF-8.
    """
    path = Path(path)
    with open_bytes(path, _WHAT) as stream:
        first = stream.readline(LONGEST_LINE + 1)
        refuse_long(len(first), path, 1)
        lines = byte_lines(stream, path, 2)
        if not first.strip(_WHITESPACE):
            raise CorpusError(f"the file is empty or begins with an empty line; expected {_WHAT}", path)
        header = _HEADER.fullmatch(first)
        if header is None:
            head = [first, *islice(lines, _SAMPLE - 1)]
            widths = Counter(len(line.split()) for line in head if line.strip(_WHITESPACE))
            dimensions = widths.most_common(1)[0][0] - 1
            if dimensions < 1:
                raise CorpusError(f"found no numbers in the first lines; expected {_WHAT}", path, 1)
            return _read_text(chain(head, lines), 1, None, dimensions, path)
        if len(header[1]) > _DIGITS_OF_ROWS or len(header[2]) > _DIGITS_OF_DIMENSIONS:
            named = f"{header[1][:20].decode()} rows of {header[2][:20].decode()} dimensions"
            raise CorpusError(f"the header names {named}: the file is corrupt", path, 1)
        rows, dimensions = int(header[1]), int(header[2])
        if rows < 1 or dimensions < 1:
            message = f"the header names {rows} rows of {dimensions} dimensions: there is nothing to read"
            raise CorpusError(message, path, 1)
        head_of_rows = stream.read(32 * dimensions + 512)
        whole = io.BufferedReader(_Again(head_of_rows, stream), _BUFFER)  # a pipe cannot be rewound
        if _is_binary(head_of_rows, dimensions):
            return _read_binary(whole, rows, dimensions, path)
        return _read_text(byte_lines(whole, path, 2), 2, rows, dimensions, path)


def _read_text(lines: Iterator[bytes], first_line: int, rows: int | None, dimensions: int, path: Path) -> Vectors:
    words: list[str] = []
    blocks: list[NDArray[np.float32]] = []
    number = first_line
    while block := list(islice(lines, _BLOCK)):
        block_words, matrix = _parse(block, number, dimensions, path)
        words += block_words
        blocks.append(matrix)
        number += len(block)
    _check_rows(len(words), rows, path)
    return Vectors(words, np.concatenate(blocks), path)


def _check_rows(count: int, named: int | None, path: Path) -> None:
    if named is not None and count != named:
        problem = "the file is truncated" if count < named else "there are more"
        message = f"the header names {named} rows, and {problem}: found {count}. Fetch the file again"
        raise CorpusError(message, path)


def _parse(
    block: list[bytes], first_line: int, dimensions: int, path: Path
) -> tuple[list[str], NDArray[np.float32]]:
    """Parse rows, nearly all of which have single spaces and a word without any."""
    heads: list[bytes] = []
    tails: list[bytes] = []
    for number, line in enumerate(block, first_line):
        row = line.rstrip(_WHITESPACE)
        if row.count(b" ") == dimensions:
            head, _, tail = row.partition(b" ")
        elif row:
            head, numbers = _cut(row, dimensions, path, number)
            tail = b" ".join(numbers)
        else:
            continue
        heads.append(head)
        tails.append(tail)
    try:
        words = b"\n".join(heads).decode().split("\n") if heads else []
        matrix = np.loadtxt(tails, np.float32, comments=None, delimiter=" ", ndmin=2) if tails else None
    except ValueError:  # of which UnicodeDecodeError is one
        matrix = None
    if matrix is None or matrix.shape != (len(words), dimensions) or not np.isfinite(matrix).all():
        return _parse_slowly(block, first_line, dimensions, path)
    return words, matrix


def _parse_slowly(
    block: list[bytes], first_line: int, dimensions: int, path: Path
) -> tuple[list[str], NDArray[np.float32]]:
    """Parse rows one by one, to find the wrong one or to read what the fast way cannot."""
    words: list[str] = []
    values: list[list[float]] = []
    for number, line in enumerate(block, first_line):
        row = line.rstrip(_WHITESPACE)
        if row:
            head, numbers = _cut(row, dimensions, path, number)
            words.append(decode(head, path, number))
            values.append([_number(text, path, number) for text in numbers])
    return words, np.array(values, dtype=np.float32).reshape(len(words), dimensions)


def _cut(row: bytes, dimensions: int, path: Path, number: int) -> tuple[bytes, list[bytes]]:
    """Separate a row's word from its numbers, from the right: the word may contain spaces."""
    word, *numbers = row.rsplit(None, dimensions) or [b""]  # whitespace of other kinds
    pieces = word.split()
    if len(numbers) < dimensions or (len(pieces) > 1 and _NUMBER.fullmatch(pieces[-1])):
        count = max(len(row.split()) - 1, 0)
        message = f"found {count} values after the word, where {dimensions} are expected"
        raise CorpusError(f"{message}: the file is corrupt or truncated", path, number)
    return word, numbers


def _number(text: bytes, path: Path, number: int) -> float:
    if _NUMBER.fullmatch(text) and abs(value := float(text)) <= _LARGEST:
        return value
    shown = text[:40].decode(errors="replace")
    raise CorpusError(f"{shown!r} is not a finite number that fits in 32 bits", path, number)


class _Again(io.RawIOBase):
    """A stream from which some bytes were read already.

    Args:
        head: These bytes.
        stream: What follows.
    """

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(content) :]
        buffer[: len(content)] = content
        return len(content)


def _is_binary(block: bytes, dimensions: int) -> bool:
    """Tell from what follows the header: a row of text, or bytes that text does not have."""
    row = block.partition(b"\n")[0].split()
    if len(row) > dimensions and all(map(_NUMBER.fullmatch, row[-dimensions:])):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(block)
    except UnicodeDecodeError:
        return True
    return _CONTROL.search(block) is not None


def _read_binary(stream: BinaryIO, rows: int, dimensions: int, path: Path) -> Vectors:
    """Read rows of a word, a space and little-endian floats, with or without a line feed between them."""
    words: list[str] = []
    values = bytearray()
    for row in range(1, rows + 1):
        word = bytearray()
        while (byte := stream.read(1)) not in (b" ", b"") and len(word) < _LONGEST_WORD:
            word += byte
        if len(word) == _LONGEST_WORD:
            message = f"the word of row {row} is longer than {_LONGEST_WORD:,} bytes: the file is corrupt"
            raise CorpusError(message, path)
        vector = stream.read(4 * dimensions)
        if len(vector) < 4 * dimensions:
            _check_rows(row - 1, rows, path)
        try:
            words.append(word.lstrip(b"\n").decode())
        except UnicodeDecodeError:
            message = f"the word of row {row}, {bytes(word[:40])!r}, is not UTF-8: the file is corrupt"
            raise CorpusError(message, path) from None
        values += vector
    if stream.read(2).strip(_WHITESPACE):
        raise CorpusError(f"the header names {rows} rows, and there are more. Fetch the file again", path)
    matrix = np.frombuffer(values, dtype="<f4").astype(np.float32, copy=False).reshape(rows, dimensions)
    wrong = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if wrong.size:
        message = f"row {wrong[0] + 1}, of the word {words[wrong[0]]!r}, has a value that is not finite"
        raise CorpusError(message, path)
    return Vectors(words, matrix, path)
