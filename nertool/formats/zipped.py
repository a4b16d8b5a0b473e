"""Open one file of a zip archive as a stream of bytes, with errors that say what is wrong."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from nertool.errors import CorpusError
from nertool.formats.opening import BYTE_ORDER_MARK, refuse_bomb

MAGIC = b"PK\x03\x04", b"PK\x05\x06"
"""What zip archives begin with; the second one if there is nothing in them."""

_BUFFER = 2**17
_LISTED = 20
_NO_DATA = ("readme", "license", "licence", "copying", "list", "meta")  # beside the data, with any suffix


@contextmanager
def open_member(path: Path, member: str | None, what: str, suffixes: Sequence[str]) -> Iterator[BinaryIO]:
    """Open a file of a zip archive for reading.

    A byte order mark at its start is dropped.

    Args:
        path: The archive.
        member: The file in it; None: the only one, or the only one that has one of the suffixes.
        what: What it should hold, for the errors.
        suffixes: Of files that may hold it, such as ".txt".

    Raises:
        CorpusError: The archive is corrupt, encrypted or expands without end, or has no such file, or has several.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise CorpusError(f"cannot be read: {error.strerror or error}", path) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CorpusError(
            f"the zip archive is corrupt or truncated ({error}): fetch the file again", path
        ) from None
    with archive:
        info = _choose(archive, member, what, suffixes, path)
        inside = f"{path}:{info.filename}"
        try:
            with archive.open(info) as content:
                stream = io.BufferedReader(_Limited(content, info.compress_size, inside), _BUFFER)
                if stream.peek(3)[:3] == BYTE_ORDER_MARK:
                    stream.read(3)
                yield cast(BinaryIO, stream)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            message = f"the zip archive is corrupt or truncated ({error}): fetch the file again"
            raise CorpusError(message, inside) from None
        except (NotImplementedError, RuntimeError) as error:  # an unusual compression, or a password
            if not isinstance(error, NotImplementedError) and "password" not in str(error):
                raise
            raise CorpusError(f"cannot be unpacked here ({error}): unpack it, and name the file", inside) from None


def _choose(
    archive: zipfile.ZipFile, member: str | None, what: str, suffixes: Sequence[str], path: Path
) -> zipfile.ZipInfo:
    """Find the file that is meant."""
    files = [info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
    names = [info.filename for info in files]
    listed = ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
    if member is not None:
        chosen = [info for info in files if info.filename == member]
        if not chosen:
            raise CorpusError(f"the archive has no file {member!r}; it has {listed or 'none'}", path)
        return chosen[0]
    if not files:
        raise CorpusError(f"there is no file in the archive; expected {what}", path)
    likely = [info for info in files if _may_hold_data(info.filename, suffixes)]
    for chosen in (likely, files):
        if len(chosen) == 1:
            return chosen[0]
    example = (likely or files)[0].filename
    raise CorpusError(f"the archive has several files ({listed}); name one of them, as in {path}:{example}", path)


def _is_hidden(name: str) -> bool:
    """Say whether a file is one that systems put beside those of people."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _may_hold_data(name: str, suffixes: Sequence[str]) -> bool:
    path = PurePosixPath(name.lower())
    return path.suffix in suffixes and not path.name.startswith(_NO_DATA)


class _Limited(io.RawIOBase):
    """Reads a file of an archive, unless it would expand without end.

    Args:
        content: The file.
        compressed: Its size in the archive.
        name: Of both, for the error.
    """

    def __init__(self, content: IO[bytes], compressed: int, name: str) -> None:
        self._content, self._compressed, self._name = content, compressed, name
        self._bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._content.read(len(buffer))
        self._bytes += len(content)
        refuse_bomb(self._compressed, self._bytes, self._name)
        buffer[: len(content)] = content
        return len(content)
