"""Pretrained word vectors: read by path or name, and looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nertool.config.files import split_member
from nertool.config.vector_sets import parse_name, pipeline_folder
from nertool.data.vector_cache import open_set
from nertool.data.vector_files import Faults, read_blocks
from nertool.data.vector_models import VectorModel, open_model
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


def read_vectors(source: str | Path, wanted: Iterable[str] = (), extra_rows: int = 100_000) -> Vectors:
    """Read word vectors.

    Of a model of vectors (see `nertool.data.vector_models`) those rows are read that are of use: of the wanted
    words, computed where its table lacks them, and of more words of its table.

    Args:
        source: `spacy:` and the name of an installed pipeline; the folder of a pipeline or of model2vec; a model
            of fastText; a file (see `nertool.data.vector_files.read_blocks`); a file in a zip archive, as
            `archive.zip:member`; or, as a string, the name of vectors that were fetched, such as `glove-100`, or
            `cc.de.300:200000` for the first rows alone. A file of such a name is given as a `Path`.
        wanted: Words of the training split.
        extra_rows: How many words besides are of use.

    Raises:
        ConfigError: Vectors of this name have not been fetched, or a package is missing.
        CorpusError: The file cannot be read, is something else, or has many broken rows; or what was fetched is
            not what it was then.
    """
    named = parse_name(source) if isinstance(source, str) else None
    if named is None:
        path = pipeline_folder(str(source)) or Path(source)
        model = open_model(path)
        if model is not None:
            return _of_model(model, path, wanted, extra_rows)
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


def _of_model(model: VectorModel, path: Path, wanted: Iterable[str], extra_rows: int) -> Vectors:
    """Read the rows of a model that are of use."""
    index = {word: row for row, word in reversed(list(enumerate(model.words)))}
    rows = {word: look_up(word, index) for word in sorted(set(wanted))}
    used = {row for row in rows.values() if row is not None}
    lacking = [word for word, row in rows.items() if row is None]
    more = islice((row for row in sorted(index.values()) if row not in used), extra_rows)
    words = [model.words[row] for row in sorted(used.union(more))] + lacking
    known, matrix = model.compose(words)
    if not known.any():
        raise CorpusError("no word of the training split has a vector here", path)
    if not np.isfinite(matrix).all():
        raise CorpusError("some of its vectors are not finite numbers: the file is corrupt", path)
    computed = int(known[len(words) - len(lacking) :].sum())
    note = (
        f"{path}: {computed:,} words of the training split were given vectors from their parts" if computed else ""
    )
    return Vectors([word for word, has in zip(words, known, strict=True) if has], matrix[known], path, note)
