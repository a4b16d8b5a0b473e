"""Fetch word vectors by name: download the archive, check it, and write its vectors to the cache.

Only `nertool vectors fetch` does this. A download that was cut off goes on where it stopped. The archive has to
have the published hash. Where none is published, later downloads have to have the hash of the first one.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nertool.config.files import locked, write_whole
from nertool.config.vector_sets import MIRROR, Named, megabytes, mirror, vectors_folder
from nertool.data.vector_cache import Record, hash_file, intact, write_set
from nertool.errors import NertoolError

_CHUNK = 2**18  # bytes
_ATTEMPTS = 4  # in a row without a further byte
_PAUSE = 1.0  # seconds before the second attempt; doubled with each
_TIMEOUT = 10.0, 60.0  # seconds to connect, and without a byte
_LARGEST = 20 * 10**9  # bytes of an archive whose size is not published
_SEEN = "hashes.json"
_BUSY = "another `nertool vectors fetch` is writing to this folder; wait until it has ended"


@dataclass(frozen=True)
class Progress:
    """How far a download is.

    Attributes:
        archive: What is being fetched.
        url: Where it comes from.
        done: Bytes that are here.
        total: Bytes in all; None: the server does not say.
    """

    archive: str
    url: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Writing:
    """How much of some vectors is in the cache.

    Attributes:
        named: Which ones.
        rows: How many are there.
        total: How many there will be; None: nobody knows.
    """

    named: Named
    rows: int
    total: int | None


@dataclass(frozen=True)
class Fetched:
    """Vectors that are in the cache.

    Attributes:
        named: Which ones.
        path: The file.
        record: What is known of it.
        before: Whether they were there before.
        published: Whether the archive had a published hash, or one that the caller gave.
        first: Whether it was the first download of an archive without a published hash.
    """

    named: Named
    path: Path
    record: Record
    before: bool = False
    published: bool = True
    first: bool = False


def fetch(
    wanted: Sequence[Named],
    watch: Callable[[Progress | Writing], None] = lambda event: None,
    *,
    sha256: str | None = None,
    keep: bool = False,
) -> Iterator[Fetched]:
    """Fetch vectors that are not in the cache, or are corrupt there.

    Args:
        wanted: Which ones; those of one archive are fetched together.
        watch: Called as an archive is being downloaded, and as vectors are written.
        sha256: Hash that the archive has to have, instead of the one that is known.
        keep: Whether to keep the archives.

    Yields:
        What is in the cache now, of each archive after it has been read.

    Raises:
        CorpusError: An archive is corrupt.
        NertoolError: It cannot be fetched or is not what it has to be, or the cache cannot be written to.
    """
    folder = vectors_folder()
    with locked(folder, holder=_BUSY):
        missing: list[Named] = []
        for named in dict.fromkeys(wanted):
            record = intact(named.path)
            if record is None:
                missing.append(named)
            else:
                yield Fetched(named, named.path, record, before=True)
        for _, group in groupby(sorted(missing, key=lambda each: each.set.archive), lambda each: each.set.archive):
            yield from _fetch(list(group), folder, watch, sha256, keep=keep)


def _fetch(
    group: list[Named],
    folder: Path,
    watch: Callable[[Progress | Writing], None],
    sha256: str | None,
    *,
    keep: bool,
) -> Iterator[Fetched]:
    """Fetch vectors of one archive."""
    vectors = group[0].set
    seen = _read_seen(folder)
    earlier = seen.get(vectors.archive)
    known = sha256 or vectors.sha256 or (earlier["sha256"] if earlier else None)
    place = mirror()
    if place is not None and not re.match(r"https?://", place):
        path = _in_folder(place, vectors.archive)
        url = path.resolve().as_uri()
        keep = True
    else:
        url = vectors.url if place is None else f"{place.rstrip('/')}/{vectors.archive}"
        # The size is published with the hash: another one tells before the download that it is not the same file.
        size = vectors.size if known is not None and known == vectors.sha256 else None
        path = _retrieve(url, folder, vectors.archive, known, Downloader(size, watch), vectors.sha256 is None)
    found = hash_file(path)
    if known is not None and found != known.lower():
        raise NertoolError(_wrong_hash(str(path), found, known, vectors.sha256 is None and sha256 is None))
    first, published = known is None, (sha256 or vectors.sha256) is not None
    try:
        for named in group:
            watch(Writing(named, 0, None))
            record = write_set(named, path, found, url, _rows_of(named, watch))
            yield Fetched(named, named.path, record, published=published, first=first)
        if vectors.sha256 is None:  # now that the archive is known to be whole
            seen[vectors.archive] = {"sha256": found, "size": path.stat().st_size, "url": url}
            write_whole(folder / _SEEN, (json.dumps(seen, indent=2) + "\n").encode())
    finally:
        if not keep:
            with suppress(OSError):
                path.unlink()


def _rows_of(named: Named, watch: Callable[[Progress | Writing], None]) -> Callable[[int, int | None], None]:
    return lambda rows, total: watch(Writing(named, rows, total))


def _retrieve(
    url: str, folder: Path, archive: str, known: str | None, downloader: Downloader, unpublished: bool
) -> Path:
    """Download an archive to a folder, unless it is there."""
    import pooch
    import requests

    with _silent(pooch.get_logger()):
        try:
            return Path(pooch.retrieve(url, known, fname=archive, path=folder, downloader=downloader))
        except requests.RequestException as problem:
            raise NertoolError(f"{url}: cannot be fetched: {_reason(problem)}{_elsewhere(url)}") from None
        except OSError as problem:
            raise NertoolError(f"{folder}: cannot be written to: {problem.strerror or problem}") from None
        except ValueError as problem:
            found = re.search(r"got ([0-9a-f]{64})", str(problem))  # what pooch says where the hash is another
            if found is None:
                raise NertoolError(f"{url}: cannot be fetched: {problem}") from None
            raise NertoolError(_wrong_hash(url, found[1], str(known), unpublished)) from None


def _wrong_hash(place: str, found: str, known: str, unpublished: bool) -> str:
    message = (
        f"{place}: its SHA-256 is {found}, and {known} is expected: it is not the same file. Nothing of it is used"
    )
    if unpublished:
        message += (
            ". No hash is published for it; the expected one is that of an earlier download. If the file has been "
            f"published anew, --sha256 {found} says so"
        )
    return message


def _in_folder(place: str, archive: str) -> Path:
    """Find an archive in a folder that stands in for its server."""
    folder = Path(unquote(urlsplit(place).path)) if place.startswith("file://") else Path(place).expanduser()
    path = folder / archive
    if not path.is_file():
        raise NertoolError(
            f"{path}: there is no such file; {MIRROR} names a folder or an address that has {archive}"
        )
    return path


def _elsewhere(url: str) -> str:
    place = f"unset {MIRROR}" if mirror() else f"{MIRROR} names another address, or a folder, that has the file"
    return f". The same command goes on where it stopped; {place}"


def _reason(problem: Exception) -> str:
    """Say in a few words why a request failed."""
    import requests

    response = getattr(problem, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    if isinstance(problem, requests.Timeout):
        return "the server does not answer"
    if isinstance(problem, requests.exceptions.SSLError):
        return "the connection is not secure (its certificate is not valid)"
    if isinstance(problem, requests.exceptions.ChunkedEncodingError):
        return "the connection is cut off again and again"
    if isinstance(problem, requests.ConnectionError):
        return "there is no connection to the server"
    return str(problem)


def _read_seen(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the hashes of earlier downloads.

    Raises:
        NertoolError: The file cannot be read; to ignore it would be to trust anything.
    """
    path = folder / _SEEN
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {**entry, "sha256": str(entry["sha256"])} for name, entry in tree.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise NertoolError(f"{path}: cannot be read: it has the hashes of earlier downloads; remove it") from None


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class _State:
    """What is known of a download that was cut off.

    Attributes:
        url: Where it comes from.
        validator: The server's name for this version of the file (ETag, else the date of its last change).
    """

    url: str
    validator: str


class Downloader:
    """Downloads for `pooch.retrieve`, and goes on with a download that was cut off.

    Args:
        size: Bytes that the file has to have; None: any number.
        watch: Called as bytes arrive.
    """

    def __init__(self, size: int | None, watch: Callable[[Progress], None]) -> None:
        self._size = size
        self._watch = watch

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Download a file.

        Args:
            url: Where it is.
            output_file: Where it goes, in the folder in which downloads that were cut off wait.

        Raises:
            requests.RequestException: The server cannot be reached, or refuses.
            NertoolError: The file has another size.
        """
        import requests

        name = unquote(urlsplit(url).path.rpartition("/")[2])
        part = Path(output_file).with_name(f".{name}.part")
        failures = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                self._attempt(url, name, part)
                break
            except requests.RequestException as problem:
                response = problem.response
                final = response is not None and response.status_code < 500 and response.status_code != 429
                failures = 0 if part.exists() and part.stat().st_size > before else failures + 1
                if final or failures >= _ATTEMPTS:
                    raise
                time.sleep(_PAUSE * 2 ** max(failures - 1, 0))
        part.replace(output_file)
        _state_of(part).unlink(missing_ok=True)

    def _attempt(self, url: str, name: str, part: Path) -> None:
        """Fetch what is still missing of a file."""
        import requests

        state = _read_state(part)
        have = part.stat().st_size if part.exists() and state is not None and state.url == url else 0
        headers = {"Accept-Encoding": "identity"}
        if have and state is not None:
            headers |= {"Range": f"bytes={have}-", "If-Range": state.validator}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == 416:  # nothing follows: it is whole, or another file now
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return
                part.unlink(missing_ok=True)
                raise requests.exceptions.ChunkedEncodingError("the file has another size now")
            response.raise_for_status()
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise NertoolError(f"{url}: leads to {response.url}, which is not secure")
            if response.status_code == 206 and _begin_of(response.headers.get("Content-Range")) != have:
                raise NertoolError(f"{url}: the server sends another part than it was asked for")
            if response.status_code != 206:
                have = 0  # the server ignores ranges, or has another file now
            length = response.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else None
            self._check_size(url, total)
            validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            if validator.startswith("W/"):  # does not vouch for each byte
                validator = response.headers.get("Last-Modified") or ""
            if validator:
                write_whole(_state_of(part), json.dumps(asdict(_State(url, validator))).encode())
            else:
                _state_of(part).unlink(missing_ok=True)
            with part.open("ab" if have else "wb") as target:
                for chunk in response.iter_content(_CHUNK):
                    target.write(chunk)
                    have += len(chunk)
                    self._watch(Progress(name, url, have, total))
                    self._check_size(url, have if have > (self._size or _LARGEST) else None)
        if total is not None and have != total:
            raise requests.exceptions.ChunkedEncodingError(f"{have} of {total} bytes")
        if self._size is not None and have != self._size:
            part.unlink(missing_ok=True)
            self._check_size(url, have)

    def _check_size(self, url: str, size: int | None) -> None:
        if size is None:
            return
        if self._size is not None and size != self._size:
            message = f"the file has {size:,} bytes, and {self._size:,} are expected: it is not the same file"
            raise NertoolError(f"{url}: {message}. Nothing of it is used")
        if size > _LARGEST:
            raise NertoolError(f"{url}: the file is larger than {megabytes(_LARGEST)}, which no vectors are")


def _begin_of(content_range: str | None) -> int | None:
    match = re.match(r"bytes (\d+)-", content_range or "")
    return int(match[1]) if match else None


def _state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> _State | None:
    with suppress(OSError, ValueError, TypeError, RecursionError):
        return _State(**json.loads(_state_of(part).read_text(encoding="utf-8")))
    return None
