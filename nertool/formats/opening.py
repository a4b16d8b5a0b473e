"""Open a file of words to read its lines as bytes: plain or gzip, with errors that say what is wrong."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, cast

from nertool.errors import CorpusError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


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
        plain = path.open("rb")
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
            stream = plain
            if plain.peek(2)[:2] == _GZIP_MAGIC:
                stream = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=plain)), 1 << 17)
            if stream.peek(3)[:3] == BYTE_ORDER_MARK:
                stream.read(3)
            yield stream
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            message = f"the gzip data is corrupt or truncated ({error}): fetch or compress the file again"
            raise CorpusError(message, path) from None


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
        message = (
            f"byte 0x{raw[error.start]:02x} (number {error.start + 1} of the line) is not UTF-8: convert "
            "the file first, for example with `iconv -f latin1 -t utf-8`"
        )
        raise CorpusError(message, path, line) from None


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
        yield (decode(raw, name, number).rstrip("\r\n") for number, raw in enumerate(stream, 1))


def _standard_input() -> Iterator[bytes]:
    if sys.stdin is None:
        raise CorpusError("it is closed; name a file, or pipe a text into it", "standard input")
    for number, raw in enumerate(sys.stdin.buffer):
        yield raw if number else raw.removeprefix(BYTE_ORDER_MARK)
