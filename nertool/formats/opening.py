"""Open a file of words to read its lines as bytes: plain or gzip, with errors that say what is wrong."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, cast

from nertool.errors import CorpusError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGEST_LINE = 2**26
"""Bytes of a line, its end included. Files without line ends, such as /dev/zero, would fill the memory."""

LARGEST_WHOLE = 2**30
"""Bytes of a file that is read as a whole."""

_GZIP_MAGIC = b"\x1f\x8b"
_BUFFER = 2**17
_ENCODING_SAMPLE = 2**22  # bytes that are looked at to tell another encoding from a damaged byte
# Text is compressed to a tenth, the most repetitive of corpora to a hundredth.
_EXPANSION, _EXPANDED = 200, 2**24  # how many times, and from how many bytes on


@contextmanager
def open_bytes(path: str | Path, what: str) -> Iterator[BinaryIO]:
    """Open a file for reading, through gzip where its first bytes say so, whatever its name.

    A byte order mark at its start is dropped. The stream's own lines end at a line feed only, which keeps
    tokens whole that hold a character Python counts as the end of a line (U+2028, U+0085).

    Args:
        path: The file.
        what: What it should hold ("a CoNLL file"), for the errors.

    Raises:
        CorpusError: The file is missing, a directory, not readable, or corrupt gzip.
    """
    path = Path(path)
    try:
        plain = cast(io.BufferedReader, io.BufferedReader(_File(path), _BUFFER))
    except FileNotFoundError:
        message = f"there is no such file; expected {what}, plain or gzip: check the path"
        raise CorpusError(message, path) from None
    except IsADirectoryError:
        raise CorpusError(f"this is a directory; expected {what}: name a file in it", path) from None
    except OSError as error:
        raise CorpusError(f"cannot be read: {error.strerror or error}", path) from None
    # From here on an OSError may be the caller's own, about what it writes: only those of gzip are handled.
    with plain:
        try:
            stream: io.BufferedReader = plain
            if plain.peek(2)[:2] == _GZIP_MAGIC:
                stream = io.BufferedReader(_Gzip(plain, path), _BUFFER)
            if stream.peek(3)[:3] == BYTE_ORDER_MARK:
                stream.read(3)
            yield cast(BinaryIO, stream)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            message = f"the gzip data is corrupt or truncated ({error}): fetch or compress the file again"
            raise CorpusError(message, path) from None


class Counted:
    """How much has been read.

    Attributes:
        bytes: Of files, before they are decompressed.
    """

    bytes = 0


_counted: ContextVar[Counted | None] = ContextVar("counted", default=None)


@contextmanager
def counting() -> Iterator[Counted]:
    """Count what is read of the files that are opened within a block, also after it."""
    count = Counted()
    token = _counted.set(count)
    try:
        yield count
    finally:
        _counted.reset(token)


class _File(io.FileIO):
    """A file whose errors, such as those of a disk that fails, say that it is this file that cannot be read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        self._count = _counted.get()

    def readinto(self, buffer: Any) -> int | None:
        try:
            size = super().readinto(buffer)
        except OSError as problem:
            raise CorpusError(f"cannot be read: {problem.strerror or problem}", self._path) from None
        if self._count is not None and size:
            self._count.bytes += size
        return size


class _Gzip(io.RawIOBase):
    """Decompresses a stream, unless it would expand without end."""

    def __init__(self, compressed: io.BufferedReader, path: Path) -> None:
        self._counted = _Counted(compressed)
        self._content = gzip.GzipFile(fileobj=cast(BinaryIO, self._counted))
        self._path = path
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._content.readinto(buffer)
        self._bytes += count
        refuse_bomb(self._counted.bytes, self._bytes, self._path)
        return count


class _Counted:
    """Counts the bytes that are read from a stream, which may be a pipe."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.bytes += len(content)
        return content

    def seekable(self) -> bool:
        return False


def refuse_bomb(compressed: int, expanded: int, path: str | Path) -> None:
    """Refuse data that becomes so much more by decompression that it was made to fill the memory.

    Args:
        compressed: How many bytes were read.
        expanded: How many they have become so far.
        path: The file.

    Raises:
        CorpusError: It is too much.
    """
    if expanded > _EXPANDED and expanded > _EXPANSION * compressed:
        raise CorpusError(
            f"{compressed:,} compressed bytes became more than {expanded:,}, which no text does (at most "
            f"{_EXPANSION} times as many are read); if it is meant so, decompress the file first",
            path,
        )


def byte_lines(stream: Any, path: str | Path | None, first: int = 1) -> Iterator[bytes]:
    """Yield the lines of a binary stream, without their line feeds.

    Args:
        stream: Where it stands.
        path: The file, for the error.
        first: Number of the first line.

    Raises:
        CorpusError: A line is longer than `LONGEST_LINE`.
    """
    read = getattr(stream, "read1", stream.read)  # of what is typed, no more than there is
    parts: list[bytes] = []
    size, number = 0, first - 1
    while block := read(_BUFFER):
        lines = block.split(b"\n")
        parts.append(lines[0])
        size += len(lines[0])
        refuse_long(size, path, number + 1)
        if len(lines) > 1:
            lines[0] = b"".join(parts)
            parts = [lines.pop()]
            size = len(parts[0])
            number += len(lines)
            yield from lines
    if size:
        yield b"".join(parts)


def refuse_long(size: int, path: str | Path | None, number: int) -> None:
    """Refuse a line that is longer than `LONGEST_LINE`, or so much of it.

    Raises:
        CorpusError: It is.
    """
    if size > LONGEST_LINE:
        raise CorpusError(
            f"the line is longer than {LONGEST_LINE // 2**20} MB, the longest that is read: is this a file of "
            "lines? If it is, put line ends into it",
            path,
            number,
        )


def read_whole(path: Path, what: str, limit: int = LARGEST_WHOLE) -> bytes:
    """Return the content of a file, decompressed.

    Args:
        path: The file.
        what: What it should hold, for the errors.
        limit: Bytes that there may be.

    Raises:
        CorpusError: As for `open_bytes`, or the file is larger.
    """
    with open_bytes(path, what) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        message = f"it is larger than {limit / 2**20:,.0f} MB, the most that is read of {what}: split it"
        raise CorpusError(message, path)
    return content


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, decompressed.

    Raises:
        CorpusError: As for `open_bytes`.
    """
    with open_bytes(path, "a corpus") as stream:
        return stream.read(size)


def decode(raw: bytes, path: str | Path | None, line: int) -> str:
    """Decode one line as UTF-8.

    Raises:
        CorpusError: The bytes are not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if line == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            message = "this is text in UTF-16: convert it first, with `iconv -f utf-16 -t utf-8`"
            raise CorpusError(message, path) from None
        message = f"byte 0x{raw[error.start]:02x} (number {error.start + 1} of the line) is not UTF-8: "
        raise CorpusError(message + _encoding_advice(raw, path), path, line) from None


def _encoding_advice(raw: bytes, path: str | Path | None) -> str:
    """Say what helps a file whose bytes are not UTF-8.

    A file in UTF-8 with a damaged byte must not be converted: all its other letters would be ruined.

    Args:
        raw: The line that is not UTF-8.
        path: The file, of which more is looked at where it can be read again.
    """
    content = raw
    if path is not None and Path(path).is_file():
        content = read_head(Path(path), _ENCODING_SAMPLE) + b"\n" + raw
    text = content.decode("utf-8", "surrogateescape")
    damaged = sum("\udc80" <= character <= "\udcff" for character in text)
    if sum(not character.isascii() for character in text) > 2 * damaged:
        return (
            "the rest of the file is, so that this line is damaged, or cut inside a character. Correct it; do not "
            "convert the file, which would ruin its other letters"
        )
    return (
        "convert the file first, from the encoding that it was saved in. For text of Western Europe, as Windows "
        "saves it, that is `iconv -f cp1252 -t utf-8`"
    )


@contextmanager
def open_lines(path: str | Path | None, what: str) -> Iterator[Iterator[str]]:
    """Open a file, or standard input, to read it line by line, each without its line end.

    Args:
        path: The file, plain or gzip; None for standard input.
        what: What it should hold, for the errors.

    Raises:
        CorpusError: As for `open_bytes`, or the bytes are not UTF-8.
    """
    name = "standard input" if path is None else path
    with nullcontext(_standard_input()) if path is None else open_bytes(path, what) as stream:
        yield (decode(raw, name, number).rstrip("\r\n") for number, raw in enumerate(_lines(stream, name), 1))


def _lines(stream: Any, name: str | Path) -> Iterable[bytes]:
    return byte_lines(stream, name) if hasattr(stream, "readline") else stream


def _standard_input() -> Iterator[bytes]:
    if sys.stdin is None:
        raise CorpusError("it is closed; name a file, or pipe a text into it", "standard input")
    for number, raw in enumerate(byte_lines(sys.stdin.buffer, "standard input")):
        yield raw if number else raw.removeprefix(BYTE_ORDER_MARK)
