"""Pretrained word vectors: read by path or name, and looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nertool.config.files import split_member
from nertool.config.vector_sets import parse_name
from nertool.data.vector_cache import open_set
from nertool.data.vector_files import Faults, read_blocks
from nertool.errors import CorpusError
from nertool.forking import cached_property

_DIGITS = str.maketrans("123456789", "000000000")


@dataclass
class Vectors:
    """Words and their vectors.

    Attributes:
        words: The words, as in the file; one may occur twice.
        matrix: Their vectors, float32 of shape (words, dimensions).
        path: The file.
        note: What was skipped of it, to be told; empty if nothing was.
    """

    words: list[str]
    matrix: NDArray[np.float32]
    path: Path
    note: str = ""

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


def read_vectors(source: str | Path) -> Vectors:
    """Read word vectors.

    Args:
        source: A file (see `nertool.data.vector_files.read_blocks`); a file in a zip archive, as
            `archive.zip:member`; or, as a string, the name of vectors that were fetched, such as `glove-100`, or
            `cc.de.300:200000` for the first rows alone. A file of such a name is given as a `Path`.

    Raises:
        ConfigError: Vectors of this name have not been fetched.
        CorpusError: The file cannot be read, is something else, or has many broken rows; or what was fetched is
            not what it was then.
    """
    named = parse_name(source) if isinstance(source, str) else None
    member: str | None = None
    limit, note = None, ""
    if named is not None:
        path, record = open_set(named)
        limit, note = named.top, record.note
    else:
        file, member = split_member(str(source))
        path = Path(file)
    faults = Faults(path)
    words: list[str] = []
    values = bytearray()  # grows without another copy of all
    dimensions = 0
    for block, matrix in read_blocks(path, faults, member):
        taken = block if limit is None else list(islice(block, limit - len(words)))
        words += taken
        values += np.ascontiguousarray(matrix[: len(taken)]).data
        dimensions = matrix.shape[1]
        if len(words) == limit:
            break
    matrix = np.frombuffer(values, np.float32).reshape(len(words), dimensions)
    if limit is not None and len(words) < limit:
        raise CorpusError(f"there are {len(words):,} rows, and {limit:,} are wanted", path)
    return Vectors(words, matrix, path, faults.note() or note)
