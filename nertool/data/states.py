"""Vectors of tokens that are costly to compute, kept on disk: in a file for each set of sentences, memory-mapped.

The files are in the folder `states` of the cache. Together they have at most as many GB as the environment
variable `NERTOOL_STATES_GB` says, 10 if it says nothing; those that were not used for longest go first.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from nertool.config.files import cache_folder, locked, remove_leftovers, replaced_when_done
from nertool.data.encoding import Table
from nertool.errors import ConfigError, NertoolError

LIMIT = "NERTOOL_STATES_GB"
_DEFAULT_LIMIT = 10.0
_SUFFIX = ".safetensors"
_NAME = "states"
_HEADER = 512  # bytes
_WAIT = 24 * 3600.0  # seconds, for another process that computes the same


class States:
    """Vectors of sentences that were computed before."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # of each sentence: its block, and its first row there

    def add(self, sentences: Sequence[bytes], lengths: np.ndarray, block: np.ndarray) -> None:
        """Add sentences.

        Args:
            sentences: What identifies each.
            lengths: Tokens of each, (sentences,).
            block: Vectors of all their tokens in order, (tokens, size).
        """
        number = len(self._blocks)
        self._blocks.append(block)
        for key, row in zip(sentences, (np.cumsum(lengths) - lengths).tolist(), strict=True):
            self._places.setdefault(key, (number, row))

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def knows(self, sentence: bytes) -> bool:
        """Say whether a sentence has been added."""
        return sentence in self._places

    def find(self, sentences: Sequence[bytes], lengths: np.ndarray) -> np.ndarray | None:
        """Return the vectors of the tokens of sentences, (tokens, size); None if one of them is not known."""
        places = [self._places.get(key) for key in sentences]
        known = [place for place in places if place is not None]
        if len(known) < len(places) or not known:
            return None
        numbers, rows = (np.array(values) for values in zip(*known, strict=True))
        first = int(rows[0])
        if (numbers == numbers[0]).all() and (rows == first + np.cumsum(lengths) - lengths).all():
            block = self._blocks[int(numbers[0])]
            result: np.ndarray = block[first : first + int(lengths.sum())]  # memory that is mapped stays so
            return result
        return np.concatenate(
            [self._blocks[n][row : row + length] for (n, row), length in zip(known, lengths.tolist(), strict=True)]
        )


def sentence_keys(table: Table, lengths: np.ndarray) -> list[bytes]:
    """Return what identifies sentences.

    Args:
        table: The values of their tokens, with offsets.
        lengths: Tokens of each sentence, (sentences,).
    """
    assert table.offsets is not None
    ends = np.cumsum(lengths)
    keys = []
    for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
        own = table.offsets[start : end + 1]
        keys.append((own - own[0]).astype(np.int32).tobytes() + table.values[own[0] : own[-1]].tobytes())
    return keys


def content_key(*parts: str | bytes) -> str:
    """Return the name of the file of what these parts determine."""
    content = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        content.update(len(data).to_bytes(8, "little"))
        content.update(data)
    return content.hexdigest()


def states_folder() -> Path:
    """Return the folder of the files."""
    return cache_folder() / _NAME


def read(key: str, shape: tuple[int, int]) -> np.ndarray | None:
    """Map a file into memory; None if there is none, or it is not what was written.

    Args:
        key: As from `content_key`.
        shape: Of the vectors.
    """
    path = states_folder() / f"{key}{_SUFFIX}"
    try:
        if path.stat().st_size != _HEADER + 4 * math.prod(shape):
            return None
        with path.open("rb") as stream:
            header = stream.read(_HEADER)
        tree = json.loads(header[8:])
        block = np.memmap(path, "<f4", "r", _HEADER, shape)
        if tree["__metadata__"]["digest"] != hashlib.sha256(block.data).hexdigest():
            return None
        os.utime(path)  # it is of use, so others go first
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return block


@contextmanager
def held(key: str) -> Iterator[None]:
    """Let one process alone compute the states of a key; others wait for it.

    Raises:
        NertoolError: The cache cannot be written to.
    """
    place = states_folder() / f"{key}.lock"
    try:
        with locked(place, wait=_WAIT, holder="another process has been computing these states for a day"):
            remove_leftovers(states_folder(), [f"{key}{_SUFFIX}"])
            yield
    finally:
        with suppress(OSError):
            place.rmdir()


@contextmanager
def written(key: str, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Give memory to be filled; it becomes a file, unless the limit of the folder is too low for it.

    Args:
        key: As from `content_key`.
        shape: Of the vectors.

    Raises:
        ConfigError: The environment variable has no number.
        NertoolError: The file cannot be written.
    """
    size = _HEADER + 4 * math.prod(shape)
    if not _make_room(size):
        yield np.zeros(shape, np.float32)
        return
    path = states_folder() / f"{key}{_SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise NertoolError(f"{path.parent}: cannot write there: {problem.strerror or problem}") from None
    with replaced_when_done(path) as target:
        target.truncate(size)
        target.flush()
        block = np.memmap(target.name, "<f4", "r+", _HEADER, shape)
        yield block
        block.flush()
        tree = {
            "__metadata__": {"digest": hashlib.sha256(block.data).hexdigest()},
            _NAME: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size - _HEADER]},
        }
        header = json.dumps(tree).encode().ljust(_HEADER - 8)
        target.write(len(header).to_bytes(8, "little") + header)


def _make_room(size: int) -> bool:
    """Remove what was not used for longest until there is room for a file; False if there cannot be."""
    limit = limit_of_cache(LIMIT, _DEFAULT_LIMIT) * 1e9
    if size > limit:
        return False
    files = []
    for path in states_folder().glob(f"*{_SUFFIX}"):
        with suppress(OSError):
            state = path.stat()
            files.append((state.st_mtime_ns, state.st_size, path))
    total = sum(own for _, own, _ in files)
    for _, own, path in sorted(files):
        if total + size <= limit:
            break
        with suppress(OSError):
            path.unlink()
            total -= own
    return True


def limit_of_cache(variable: str, default: float) -> float:
    """Return how many GB a folder of the cache may have.

    Args:
        variable: Environment variable that says so.
        default: What holds if it says nothing.

    Raises:
        ConfigError: It has no number.
    """
    text = os.environ.get(variable, "")
    try:
        limit = float(text) if text else default
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise ConfigError(f"{variable} is {text!r}; expected a number of GB, such as {default:g}")
    return limit
