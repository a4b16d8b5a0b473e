"""Files of word vectors, read block by block: GloVe text, word2vec text and word2vec binary, plain, gzip or zip.

A few broken rows are skipped and counted. Many of them are an error that says what is wrong with the file.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nertool.errors import CorpusError
from nertool.formats.opening import LONGEST_LINE, byte_lines, open_bytes, refuse_long
from nertool.formats.zipped import MAGIC as ZIP
from nertool.formats.zipped import open_member

SUFFIXES = (".txt", ".vec", ".bin")
_WHAT = "a file with a word and its numbers on each line"
_WHITESPACE = b" \t\r\n"
_BUFFER = 2**17  # bytes
_LONGEST_WORD = 10_000  # bytes of a word in a binary file
_BLOCK = 2048  # rows parsed at once: few enough to stay in the cache
_FEW = 8  # rows that are parsed one by one, where a block has a broken one
_SAMPLE = 64  # rows that show the number of dimensions where no header names it
_HEADER = re.compile(rb"\s*(\d+)[ \t]+(\d+)\s*")
_DIGITS_OF_ROWS, _DIGITS_OF_DIMENSIONS = 12, 6  # at most, in a header: it says how much is read at once
_NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_LARGEST = float(np.finfo(np.float32).max)
# So many broken rows are skipped: the share of a large file, or of a small one a larger share, but few.
_SHARE, _SHARE_OF_FEW, _MOST_OF_FEW = 0.01, 0.1, 10
_HOPELESS = 0.5  # share of those read so far with which a file is not read to its end
# What a file begins with that is something else, and what to do.
_OTHERS = [
    (re.compile(start, re.IGNORECASE), message)
    for start, message in (
        (
            rb"\xba\x16\x4f\x2f",
            "this is a model of fastText, which is read where it lies on disk: unpack it, and name the file",
        ),
        (rb"\x93NUMPY", "this is an array of numpy, without words: write the words and their numbers as text"),
        (
            rb"\x80[\x02-\x05]",
            "this is a pickle, for example of gensim, which is never read: write it with save_word2vec_format",
        ),
        (rb"\x89HDF", "this is an HDF5 file: write the words and their numbers as text"),
        (rb"SQLite format", "this is a database, for example of Magnitude: write words and numbers as text"),
        (rb"BZh\d", "this is compressed with bzip2: unpack it (bunzip2), or compress it with gzip"),
        (rb"\xfd7zXZ", "this is compressed with xz: unpack it (unxz), or compress it with gzip"),
        (rb"\x28\xb5\x2f\xfd", "this is compressed with zstd: unpack it (unzstd), or compress it with gzip"),
        (rb"7z\xbc\xaf", "this is a 7z archive: unpack it, and name the file"),
        (rb"\x1f\x8b", "this is compressed twice: unpack it once"),
        (rb"version https://git-lfs", "this is a pointer of Git LFS, not the file: fetch it with `git lfs pull`"),
        (
            rb"\s*<(!doctype|html|\?xml)",
            "this is a web page, not the file: fetch it again, and look at what the link leads to",
        ),
    )
]

Block = tuple[list[str], NDArray[np.float32]]
"""Words, and their vectors of shape (words, dimensions)."""


class Fault(NamedTuple):
    """What is wrong with a row.

    Attributes:
        kind: "encoding" (the word is not UTF-8), "width" (another number of values) or "number".
        message: What was found, and what was expected.
    """

    kind: str
    message: str


@dataclass
class Faults:
    """Rows of a file that were skipped.

    Attributes:
        path: The file.
        rows: How many rows were read, without those that were skipped.
        skipped: How many were skipped.
        named: How many rows the header names; None before it is read, and without one.
    """

    path: str | Path
    rows: int = 0
    skipped: int = 0
    named: int | None = None
    not_ascii: bool = False  # whether a word has other characters, in UTF-8
    wide: int = 0  # rows that have more numbers than the header names, the first of which count as words
    _first: tuple[Fault, int, bool] | None = None
    _kinds: Counter[str] = field(default_factory=Counter)

    def skip(self, fault: Fault, number: int, *, is_line: bool = True) -> None:
        """Count a row that is not read.

        Args:
            fault: What is wrong with it.
            number: Of its line, or of the row in a binary file.
            is_line: Whether it is the number of a line.
        """
        self.skipped += 1
        self._kinds[fault.kind] += 1
        if self._first is None:
            self._first = fault, number, is_line

    def check(self, *, at_end: bool = False) -> None:
        """Refuse the file if there are too many.

        Args:
            at_end: Whether all has been read that will be; before, better rows may follow, if some are right.

        Raises:
            CorpusError: There are.
        """
        if self._first is None:
            return
        total = self.rows + self.skipped
        few = self.skipped <= _MOST_OF_FEW and self.skipped <= _SHARE_OF_FEW * total
        if self.rows and (few or self.skipped <= (_SHARE if at_end else _HOPELESS) * total):
            return
        fault, number, is_line = self._first
        row = "" if is_line else f"row {number}: "
        kind, _ = self._kinds.most_common(1)[0]
        count = f"{self.skipped:,} of the {total:,} rows that were read are broken"
        message = f"{row}{fault.message}; {count if total > 1 else 'there is no other row'}. {self._advice(kind)}"
        raise CorpusError(message, self.path, number if is_line else None)

    def note(self) -> str:
        """Say what was skipped; empty if nothing was."""
        if self._first is None:
            return ""
        fault, number, is_line = self._first
        rows = f"{self.skipped:,} broken rows were skipped" if self.skipped > 1 else "a broken row was skipped"
        place = f"{'line' if is_line else 'row'} {number}"
        first = f"the first: {place}" if self.skipped > 1 else place
        return f"{self.path}: {rows}, {self.rows:,} were read ({first}: {fault.message})"

    def _advice(self, kind: str) -> str:
        if kind == "encoding" and self.not_ascii:
            return "Other words are in UTF-8, so that converting the file would spoil them: fetch it again"
        if kind == "encoding":
            return (
                "No other word has characters beyond ASCII in UTF-8: the file may have another encoding. If it is "
                "Latin-1, `iconv -f latin1 -t utf-8` converts it"
            )
        if kind == "width":
            return "The file is corrupt or truncated, or no file of vectors: fetch it again"
        return f"Expected {_WHAT}"


def read_blocks(path: str | Path, faults: Faults, member: str | None = None) -> Iterator[Block]:
    """Read a file of word vectors; its format is detected from its content.

    Rows are read from the right, so that a word may contain spaces.

    Args:
        path: GloVe text (a word and its numbers on each line), word2vec text (the same below a line with the
            numbers of rows and dimensions) or word2vec binary, each plain, gzip, or in a zip archive.
        faults: Where broken rows are counted.
        member: The file in a zip archive; None: the only one.

    Yields:
        Words and their vectors, all of the same dimensions; at least one row in all.

    Raises:
        CorpusError: The file cannot be read, is empty, truncated or something else, or many rows are broken: they
            have another number of values, values that are not finite numbers, or words that are not UTF-8.
    """
    path = Path(path)
    with _opened(path, member) as (stream, name):
        faults.path = name
        yield from _blocks(_Watched(stream), faults, name)


@contextmanager
def _opened(path: Path, member: str | None) -> Iterator[tuple[BinaryIO, str | Path]]:
    """Open a file, through gzip or out of a zip archive; with what to call it in errors."""
    with open_bytes(path, _WHAT) as stream:
        start = stream.peek(4)[:4]  # type: ignore[attr-defined]
        if not start.startswith(ZIP):
            if member is not None:
                raise CorpusError(f"this is no zip archive, and has no file {member!r}", path)
            yield stream, path
            return
        if not path.is_file():
            raise CorpusError("a zip archive cannot be read from a pipe: write it to a file", path)
    with open_member(path, member, _WHAT, SUFFIXES) as stream:
        yield stream, path if member is None else f"{path}:{member}"


class _Watched:
    """A stream that knows whether the last line that was read had an end.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.ended = True
        self.peek = getattr(stream, "peek")  # noqa: B009  # of BufferedReader

    def read1(self, size: int) -> bytes:
        """Read some bytes, and at the end none."""
        content: bytes = self._stream.read1(size)  # type: ignore[attr-defined]
        if content:
            self.ended = content.endswith(b"\n")
        return content

    def read(self, size: int) -> bytes:
        """Read bytes."""
        return self._stream.read(size)

    def readline(self, size: int) -> bytes:
        """Read a line."""
        content = self._stream.readline(size)
        self.ended = content.endswith(b"\n")
        return content


def _blocks(stream: _Watched, faults: Faults, path: str | Path) -> Iterator[Block]:
    _refuse_others(stream.peek(64)[:64], path)
    first = stream.readline(LONGEST_LINE + 1)
    _refuse_other_lines(first, path)
    refuse_long(len(first), path, 1)
    if not first.strip(_WHITESPACE):
        raise CorpusError(f"the file is empty or begins with an empty line; expected {_WHAT}", path)
    header = _HEADER.fullmatch(first)
    if header is None:
        lines = byte_lines(stream, path, 2)
        head = [first, *islice(lines, _SAMPLE - 1)]
        widths = Counter(len(line.split()) for line in head if line.strip(_WHITESPACE))
        dimensions = widths.most_common(1)[0][0] - 1
        if dimensions < 1:
            raise CorpusError(f"found no numbers in the first lines; expected {_WHAT}", path, 1)
        yield from _text_blocks(stream, chain(head, lines), 1, None, dimensions, faults)
        return
    if len(header[1]) > _DIGITS_OF_ROWS or len(header[2]) > _DIGITS_OF_DIMENSIONS:
        named = f"{header[1][:20].decode()} rows of {header[2][:20].decode()} dimensions"
        raise CorpusError(f"the header names {named}: the file is corrupt", path, 1)
    rows, dimensions = int(header[1]), int(header[2])
    if rows < 1 or dimensions < 1:
        message = f"the header names {rows} rows of {dimensions} dimensions: there is nothing to read"
        raise CorpusError(message, path, 1)
    faults.named = rows
    head_of_rows = stream.read(32 * dimensions + 512)
    stream.ended = head_of_rows.endswith(b"\n")
    again = _Again(head_of_rows, stream)  # a pipe cannot be rewound
    if _is_binary(head_of_rows, dimensions):
        yield from _binary_blocks(io.BufferedReader(again, _BUFFER), rows, dimensions, faults)
    else:
        yield from _text_blocks(stream, byte_lines(again, path, 2), 2, rows, dimensions, faults)


def _refuse_others(start: bytes, path: str | Path) -> None:
    """Refuse what is known to be something else, by its first bytes."""
    for magic, message in _OTHERS:
        if magic.match(start):
            raise CorpusError(message, path)
    even, odd = start[::2].count(0), start[1::2].count(0)
    mark = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if mark or (max(even, odd) > len(start) // 4 and min(even, odd) == 0):
        raise CorpusError("this is text in UTF-16: convert it first, with `iconv -f utf-16 -t utf-8`", path)


def _refuse_other_lines(first: bytes, path: str | Path) -> None:
    if b"\r" in first.rstrip(_WHITESPACE):
        message = "its lines end as those of old Macs (CR): convert it first, with `tr '\\r' '\\n'`"
        raise CorpusError(message, path)


def _text_blocks(
    stream: _Watched, lines: Iterator[bytes], first: int, named: int | None, dimensions: int, faults: Faults
) -> Iterator[Block]:
    number = first
    last = b""
    while block := list(islice(lines, _BLOCK)):
        words, matrix = _parse(block, number, dimensions, faults, known=named is not None)
        faults.rows += len(words)
        faults.check()
        if words:
            yield words, matrix
        number += len(block)
        last = block[-1]
    count = len(last.split()) - 1
    if named is not None:
        if faults.wide > faults.rows / 2:
            message = f"the header names {dimensions} dimensions, and most rows have more: the file is corrupt"
            raise CorpusError(message, faults.path)
        _check_rows(faults.rows + faults.skipped, named, faults.path)
    elif not stream.ended and 0 <= count < dimensions:
        message = f"the last line ends after {count} of {dimensions} values: the file is truncated. Fetch it again"
        raise CorpusError(message, faults.path, number - 1)
    faults.check(at_end=True)


def _check_rows(count: int, named: int, path: str | Path) -> None:
    if count != named:
        problem = "the file is truncated" if count < named else "there are more"
        message = f"the header names {named} rows, and {problem}: found {count}. Fetch the file again"
        raise CorpusError(message, path)


def _parse(block: list[bytes], first: int, dimensions: int, faults: Faults, *, known: bool) -> Block:
    """Parse rows, nearly all of which have single spaces and a word without any.

    Args:
        block: The lines.
        first: Number of the first one.
        dimensions: Numbers in a row.
        faults: Where broken rows are counted.
        known: Whether a header names the dimensions, so that further numbers belong to the word.
    """
    heads: list[bytes] = []
    tails: list[bytes] = []
    numbers: list[int] = []
    for number, line in enumerate(block, first):
        row = line.rstrip(_WHITESPACE)
        if row.count(b" ") == dimensions:
            head, _, tail = row.partition(b" ")
        elif row:
            cut = _cut(row, dimensions, faults, known=known)
            if isinstance(cut, Fault):
                faults.skip(cut, number)
                continue
            head, tail = cut
        else:
            continue
        heads.append(head)
        tails.append(tail)
        numbers.append(number)
    words = _decode(heads, numbers, tails, faults)
    return words, _parse_numbers(words, tails, numbers, dimensions, faults)


def _decode(heads: list[bytes], numbers: list[int], tails: list[bytes], faults: Faults) -> list[str]:
    """Decode the words of rows; those of other encodings leave all three lists."""
    if not heads:
        return []
    joined = b"\n".join(heads)
    try:
        words = joined.decode().split("\n")
        faults.not_ascii = faults.not_ascii or not joined.isascii()
        return words
    except UnicodeDecodeError:
        words = []
    kept = []
    for index, head in enumerate(heads):
        try:
            words.append(head.decode())
        except UnicodeDecodeError as error:
            message = f"byte 0x{head[error.start]:02x} (number {error.start + 1} of the line) is not UTF-8"
            faults.skip(Fault("encoding", message), numbers[index])
            continue
        faults.not_ascii = faults.not_ascii or not head.isascii()
        kept.append(index)
    numbers[:] = [numbers[index] for index in kept]
    tails[:] = [tails[index] for index in kept]
    return words


def _parse_numbers(
    words: list[str], tails: list[bytes], numbers: list[int], dimensions: int, faults: Faults
) -> NDArray[np.float32]:
    """Parse the numbers of rows; words of broken rows leave their list."""
    if not tails:
        return np.empty((0, dimensions), np.float32)
    try:
        matrix = np.loadtxt(tails, np.float32, comments=None, delimiter=" ", ndmin=2)
        if matrix.shape == (len(words), dimensions) and np.isfinite(matrix).all():
            return matrix
    except ValueError:
        pass
    if len(tails) > _FEW:
        middle = len(tails) // 2
        parts = []
        kept: list[str] = []
        for part in (slice(middle), slice(middle, None)):
            own = words[part]
            parts.append(_parse_numbers(own, tails[part], numbers[part], dimensions, faults))
            kept += own
        words[:] = kept
        return np.concatenate(parts)
    return _parse_slowly(words, tails, numbers, dimensions, faults)


def _parse_slowly(
    words: list[str], tails: list[bytes], numbers: list[int], dimensions: int, faults: Faults
) -> NDArray[np.float32]:
    """Parse the numbers of rows one by one, to find the wrong one or to read what the fast way cannot."""
    kept: list[str] = []
    values: list[list[float]] = []
    for word, tail, number in zip(words, tails, numbers, strict=True):
        row = [_number(text) for text in tail.split()]
        wrong = next((value for value in row if isinstance(value, Fault)), None)
        if len(row) != dimensions:  # two spaces in a row were counted
            wrong = _wrong_width(len(row), dimensions)
        if wrong is None:
            kept.append(word)
            values.append(row)  # type: ignore[arg-type]  # no fault is in it
        else:
            faults.skip(wrong, number)
    words[:] = kept
    return np.array(values, dtype=np.float32).reshape(len(kept), dimensions)


def _wrong_width(count: int, dimensions: int) -> Fault:
    return Fault("width", f"found {count} values after the word, where {dimensions} are expected")


def _cut(row: bytes, dimensions: int, faults: Faults, *, known: bool) -> tuple[bytes, bytes] | Fault:
    """Separate a row's word from its numbers, from the right: the word may contain spaces."""
    word, *numbers = row.rsplit(None, dimensions) or [b""]  # whitespace of other kinds
    pieces = word.split()
    more = len(pieces) > 1 and _NUMBER.fullmatch(pieces[-1]) is not None
    if len(numbers) < dimensions or (more and not known):
        count = max(len(row.split()) - 1, 0)
        return _wrong_width(count, dimensions)
    faults.wide += more
    return word, b" ".join(numbers)


def _number(text: bytes) -> float | Fault:
    if _NUMBER.fullmatch(text) and abs(value := float(text)) <= _LARGEST:
        return value
    shown = text[:40].decode(errors="replace")
    return Fault("number", f"{shown!r} is not a finite number that fits in 32 bits")


class _Again(io.RawIOBase):
    """A stream from which some bytes were read already.

    Args:
        head: These bytes.
        stream: What follows.
    """

    def __init__(self, head: bytes, stream: _Watched) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.read1(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read1(self, size: int) -> bytes:
        """Read some bytes, and at the end none."""
        content = self._head[:size] or self._stream.read1(size)
        self._head = self._head[len(content) :]
        return content


def _is_binary(block: bytes, dimensions: int) -> bool:
    """Tell from what follows the header: a row of text, or bytes that text does not have."""
    if any(
        len(row) > dimensions and all(map(_NUMBER.fullmatch, row[-dimensions:]))
        for row in map(bytes.split, block.split(b"\n")[:_FEW])
    ):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(block)
    except UnicodeDecodeError:
        return True
    return _CONTROL.search(block) is not None


def _binary_blocks(stream: BinaryIO, rows: int, dimensions: int, faults: Faults) -> Iterator[Block]:
    """Read rows of a word, a space and little-endian floats, with or without a line feed between them."""
    size = 4 * dimensions
    content = b""  # read, from `position` on not yet used
    position = done = 0
    while done < rows:
        heads: list[bytes] = []
        values = bytearray()
        while done + len(heads) < rows and len(heads) < _BLOCK:
            end = content.find(b" ", position, position + _LONGEST_WORD)
            if end < 0 or end + 1 + size > len(content):
                content = content[position:] + stream.read(max(_BUFFER, _LONGEST_WORD + 1 + size))
                position = 0
                end = content.find(b" ", 0, _LONGEST_WORD)
                row = done + len(heads) + 1
                if end < 0 and len(content) >= _LONGEST_WORD:
                    message = f"the word of row {row} is longer than {_LONGEST_WORD:,} bytes: the file is corrupt"
                    raise CorpusError(message, faults.path)
                if end < 0 or end + 1 + size > len(content):
                    _check_rows(row - 1, rows, faults.path)
            heads.append(content[position:end].lstrip(b"\n"))
            values += content[end + 1 : end + 1 + size]
            position = end + 1 + size
        matrix = np.frombuffer(values, dtype="<f4").astype(np.float32, copy=False).reshape(-1, dimensions)
        words, good = _check_binary(heads, matrix, done + 1, faults)
        done += len(heads)
        faults.rows += len(words)
        faults.check()
        if words:
            yield words, matrix[good] if len(words) < len(heads) else matrix
    if (content[position:] + stream.read(2)).strip(_WHITESPACE):
        message = f"the header names {rows} rows, and there are more. Fetch the file again"
        raise CorpusError(message, faults.path)
    faults.check(at_end=True)


def _check_binary(
    heads: list[bytes], matrix: NDArray[np.float32], first: int, faults: Faults
) -> tuple[list[str], NDArray[np.bool_]]:
    """Decode the words of rows, and say which rows are right."""
    good: NDArray[np.bool_] = np.asarray(np.isfinite(matrix).all(axis=1))
    words = []
    for index, head in enumerate(heads):
        try:
            word = head.decode()
        except UnicodeDecodeError:
            good[index] = False
            message = f"the word {head[:40]!r} is not UTF-8"
            faults.skip(Fault("encoding", message), first + index, is_line=False)
            continue
        if good[index]:
            words.append(word)
            faults.not_ascii = faults.not_ascii or not head.isascii()
        else:
            message = f"the word {word[:40]!r} has a value that is not finite"
            faults.skip(Fault("number", message), first + index, is_line=False)
    return words, good
