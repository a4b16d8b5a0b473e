"""Fetched word vectors as files: written once, as word2vec binary, and checked whenever they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from nertool.config.files import replaced_when_done, write_whole
from nertool.config.vector_sets import Named, not_fetched, stored
from nertool.data.vector_files import Faults, read_blocks
from nertool.errors import ConfigError, CorpusError

_HEADER = 32  # bytes; the number of rows is known at the end


@dataclass(frozen=True)
class Record:
    """What is known of a file of fetched vectors.

    Attributes:
        rows: Their number.
        dimensions: Size of a vector.
        size: Of the file, in bytes.
        sha256: Of the file.
        archive_size: Of the archive that it came from.
        archive_sha256: Of that.
        url: Where the archive came from.
        note: What was skipped.
    """

    rows: int
    dimensions: int
    size: int
    sha256: str
    archive_size: int
    archive_sha256: str
    url: str
    note: str = ""


def write_set(
    named: Named,
    archive: Path,
    archive_sha256: str,
    url: str,
    watch: Callable[[int, int | None], None] = lambda rows, total: None,
) -> Record:
    """Write vectors out of an archive to the cache, and a record of them.

    Args:
        named: Which ones.
        archive: That holds them; it has been checked.
        archive_sha256: Of that file.
        url: Where that file comes from.
        watch: Called as rows are written, with their number and that of all, as far as it is known.

    Raises:
        CorpusError: The archive is corrupt, or has fewer rows than are wanted.
        NertoolError: The file cannot be written.
    """
    rows = dimensions = 0
    faults = Faults(archive)
    with replaced_when_done(named.path) as target:
        target.write(b" " * _HEADER)
        for words, matrix in read_blocks(archive, faults, named.set.member):
            dimensions = matrix.shape[1]
            count = len(words) if named.top is None else min(len(words), named.top - rows)
            # In binary a word ends at its first space; those of text become spaces that do not break.
            pairs = zip(words[:count], matrix.astype("<f4", copy=False), strict=False)
            target.write(
                b"".join(word.replace(" ", "\u00a0").encode() + b" " + row.tobytes() for word, row in pairs)
            )
            rows += count
            watch(rows, named.top or faults.named or named.set.words)
            if rows == named.top:
                faults.check(at_end=True)
                break
        if dimensions != named.set.dimensions or (named.top is not None and rows < named.top):
            message = f"there are {rows:,} rows of {dimensions} dimensions, and {named} is wanted"
            raise CorpusError(message, archive)
        target.seek(0)
        target.write(f"{rows} {dimensions}".encode().ljust(_HEADER - 1) + b"\n")
        target.flush()
        written = Path(target.name)
        size, sha256 = written.stat().st_size, hash_file(written)
    record = Record(rows, dimensions, size, sha256, archive.stat().st_size, archive_sha256, url, faults.note())
    write_whole(_record_of(named.path), (json.dumps(asdict(record), indent=2) + "\n").encode())
    return record


def hash_file(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_record(path: Path) -> Record | None:
    """Read the record of a file of fetched vectors; None if there is none that can be read."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        record = Record(**json.loads(_record_of(path).read_text(encoding="utf-8")))
        if isinstance(record.size, int) and isinstance(record.rows, int) and isinstance(record.sha256, str):
            return record
    return None


def intact(path: Path) -> Record | None:
    """Return the record of a file of fetched vectors; None if it is not what was written then."""
    record = read_record(path)
    with suppress(OSError):
        if record is not None and path.stat().st_size == record.size and hash_file(path) == record.sha256:
            return record
    return None


def open_set(named: Named) -> tuple[Path, Record]:
    """Return the file of fetched vectors, checked, and its record.

    Raises:
        ConfigError: They have not been fetched.
        CorpusError: The file is not what was written then.
    """
    path = stored(named)
    if path is None:
        raise ConfigError(not_fetched(named))
    record = intact(path)
    if record is None:
        raise CorpusError(f"it is not what was fetched: `nertool vectors fetch {named}` gets it again", path)
    return path, record


def _record_of(path: Path) -> Path:
    return path.with_suffix(".json")
