"""Where vectors come from that are no list of words: pipelines of spaCy, folders of model2vec, models of fastText.

Each has a table of words, and may compute the vector of any other word from its parts. Nothing is unpickled, and
no pipeline is run.
"""

from __future__ import annotations

import io
import json
import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nertool.errors import ConfigError, CorpusError

FASTTEXT = b"\xba\x16\x4f\x2f"
"""What a model of fastText begins with."""

_BLOCK = 4096  # words whose vectors are computed at once
_STATIC = "0_StaticEmbedding"  # where sentence-transformers keeps the files of model2vec
_FNV_OFFSET, _FNV_PRIME, _LOW = 2166136261, 16777619, 2**32 - 1
_FORMATS = (11, 12)  # of models of fastText


class VectorModel(Protocol):
    """A source of vectors.

    Attributes:
        words: Those of its table, the most frequent first where that is known.
        dimensions: Size of a vector.
    """

    words: list[str]
    dimensions: int

    def compose(self, words: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return which words have a vector, (words,), and the vectors, (words, dimensions)."""


def open_model(path: Path) -> VectorModel | None:
    """Open a source of vectors; its kind is detected from its content.

    Args:
        path: A folder, or a file.

    Returns:
        None for a file that is no model of fastText.

    Raises:
        ConfigError: A package is missing.
        CorpusError: It is a folder of something else, or corrupt.
    """
    if not path.is_dir():
        try:
            with path.open("rb") if path.is_file() else io.BytesIO() as stream:  # a pipe is read only once
                begin = stream.read(len(FASTTEXT))
        except OSError:
            return None  # `read_vectors` says why it cannot be read
        return FastText(path) if begin == FASTTEXT else None
    if (path / "vocab").is_dir():
        return SpacyVectors(path)
    for folder in (path, path / _STATIC):
        if (folder / "model.safetensors").is_file():
            return Model2Vec(folder)
    message = "a folder with neither the vectors of a spaCy pipeline (vocab) nor those of model2vec"
    raise CorpusError(f"{message} (model.safetensors, tokenizer.json)", path)


class SpacyVectors:
    """The vectors of a spaCy pipeline: a table, in which many words may share a vector, or floret's.

    Args:
        path: Of the pipeline; its folder `vocab` is all that is read.
    """

    def __init__(self, path: Path) -> None:
        from spacy.vocab import Vocab

        try:
            self._vocab = Vocab().from_disk(path / "vocab", exclude=["lookups"])
            table = self._vocab.vectors
            self._data = np.asarray(table.data, np.float32)
            self._rows = {int(key): int(row) for key, row in table.key2row.items()}
        except Exception as problem:  # spaCy's readers raise what their parsers raise
            raise CorpusError(f"the vectors of this pipeline cannot be read: {problem}", path) from None
        if self._data.ndim != 2 or not self._data.size:
            advice = "those whose names end in _md and _lg have some"
            raise CorpusError(f"this pipeline has no vectors; {advice}", path)
        if self._rows and not 0 <= min(self._rows.values()) <= max(self._rows.values()) < len(self._data):
            raise CorpusError("its words have rows that the table of vectors lacks: it is corrupt", path)
        self.dimensions = self._data.shape[1]
        strings: Any = self._vocab.strings
        ordered = sorted(self._rows.items(), key=lambda pair: pair[1])
        self.words = [strings[key] for key, _ in ordered if key in strings]
        self._lowers = table.mode == "floret" and strings.as_string(table.attr) in ("LOWER", "NORM")

    def compose(self, words: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Look words up, or compute their vectors by floret's hashes."""
        table = self._vocab.vectors
        if table.mode == "floret":
            keys = [word.lower() for word in words] if self._lowers else list(words)
            blocks = [
                np.asarray(table.get_batch(keys[begin : begin + _BLOCK]), np.float32)
                for begin in range(0, len(keys), _BLOCK)
            ]
            matrix = np.concatenate(blocks) if blocks else np.zeros((0, self.dimensions), np.float32)
            return np.array([bool(key) for key in keys], bool), matrix
        from spacy.strings import get_string_id

        rows = np.array([self._rows.get(int(get_string_id(word)), -1) for word in words], np.int64)
        return rows >= 0, self._data[rows]


class Model2Vec:
    """Vectors as model2vec's `encode` gives them for a word: the mean over its sub-tokens.

    Args:
        folder: With `model.safetensors` and `tokenizer.json`, and perhaps `config.json`.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        try:
            from tokenizers import Tokenizer
        except ImportError:
            message = f"vectors of model2vec ({folder}) need the package tokenizers"
            raise ConfigError(f"{message}: pip install 'nertool[model2vec]'") from None
        self._folder = folder
        try:
            tensors = load_file(folder / "model.safetensors")
            embeddings = tensors["embeddings"] if "embeddings" in tensors else tensors["embedding.weight"]
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
            config = folder / "config.json"
            settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
            self._normalizes = bool(settings.get("normalize"))
        except Exception as problem:  # of safetensors, of tokenizers, of JSON
            raise CorpusError(f"no vectors of model2vec can be read: {problem}", folder) from None
        vocabulary = self._tokenizer.get_vocab()
        mapping = tensors.get("mapping", np.arange(len(embeddings)))
        weights = tensors.get("weights", np.ones(len(mapping), np.float32))
        self._mapping, self._weights = mapping.astype(np.int64), weights.astype(np.float32)
        self._embeddings = embeddings
        largest = max(vocabulary.values(), default=-1)
        fits = embeddings.ndim == 2 and mapping.ndim == weights.ndim == 1
        if not fits or largest >= min(len(mapping), len(weights)) or (self._mapping >= len(embeddings)).any():
            raise CorpusError("its tokenizer has tokens that its table of vectors lacks: it is corrupt", folder)
        self.dimensions = embeddings.shape[1]
        unknown = model.get("unk_token")
        self._unknown = model.get("unk_id") if unknown is None else vocabulary.get(unknown)
        self.words = []
        for token, number in sorted(vocabulary.items(), key=lambda pair: pair[1]):
            word = token.lstrip("▁Ġ")
            if number != self._unknown and word and self._tokens(word) == [number]:
                self.words.append(word)

    def _tokens(self, word: str) -> list[int]:
        ids = self._tokenizer.encode(word, add_special_tokens=False).ids
        return [number for number in ids if number != self._unknown]

    def compose(self, words: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Compute the mean over sub-tokens, weighted and normalized as the model says."""

        def rows(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
            vectors = self._embeddings[self._mapping[tokens]].astype(np.float32)
            return vectors * self._weights[tokens][:, None]

        known, matrix = _means([self._tokens(word) for word in words], rows, self.dimensions)
        if self._normalizes:
            matrix /= np.linalg.norm(matrix, axis=1, keepdims=True) + np.float32(1e-32)
        return known, matrix


class FastText:
    """A model of fastText with its n-grams of characters (`.bin`), read where it lies on disk.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as stream:
            self._file = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._read()
        except (struct.error, ValueError, IndexError):
            raise CorpusError("this model of fastText is corrupt or truncated: fetch it again", path) from None

    def _read(self) -> None:
        _, version, *arguments = struct.unpack_from("<14i", self._file)
        self.dimensions = arguments[0]
        self._buckets, self._shortest, self._longest = arguments[8:11]
        if version not in _FORMATS:
            raise CorpusError(f"a model of fastText in format {version}, which is not known", self._path)
        position = 8 + 12 * 4 + 8
        entries, words, _, _, pruned = struct.unpack_from("<iiiqq", self._file, position)
        position += struct.calcsize("<iiiqq")
        names = []
        for _ in range(entries):
            end = self._file.find(b"\0", position)
            if end < 0:
                raise ValueError
            names.append(self._file[position:end])
            position = end + 1 + 9  # a count and a type
        if pruned >= 0 or self._file[position]:
            message = "a quantized model of fastText (.ftz), which is not read: take the .bin it was made of"
            raise CorpusError(message, self._path)
        rows, columns = struct.unpack_from("<qq", self._file, position + 1)
        fits = columns == self.dimensions > 0 and rows == words + self._buckets
        if not fits or not 0 < words <= entries or self._buckets < 0:
            raise ValueError
        numbers = np.frombuffer(self._file, "<f4", rows * columns, position + 17)
        self._matrix = numbers.reshape(rows, columns)
        self._index = {name: row for row, name in enumerate(names[:words])}
        self._words = words
        # No token of a text has a name that is not UTF-8.
        decoded = (name.decode("utf-8", "replace") for name in names[:words])
        self.words = [word for word in decoded if word.encode() in self._index]

    def compose(self, words: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Compute the mean over a word's own row, if it has one, and its n-grams."""

        def rows(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
            return self._matrix[numbers].astype(np.float32)

        return _means([self._parts(word) for word in words], rows, self.dimensions)

    def _parts(self, word: str) -> list[int]:
        name = word.encode("utf-8", "surrogatepass")
        own = self._index.get(name)
        if word == "</s>":  # the end of a line has no n-grams
            return [] if own is None else [own]
        parts = [] if own is None else [own]
        if self._buckets > 0 and self._longest > 0:
            hashes = ngram_hashes(word, self._shortest, self._longest)
            parts += [self._words + each % self._buckets for each in hashes]
        return parts


def ngram_hashes(word: str, shortest: int, longest: int) -> Iterator[int]:
    """Compute fastText's hashes (FNV-1a of 32 bits over signed bytes) of the n-grams of `<word>`.

    Args:
        word: The word.
        shortest: Characters of an n-gram, at least.
        longest: And at most.
    """
    characters = [each.encode("utf-8", "surrogatepass") for each in f"<{word}>"]
    count = len(characters)
    for begin in range(count):
        value = _FNV_OFFSET
        for end in range(begin, min(begin + longest, count)):
            for byte in characters[end]:
                value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _FNV_PRIME) & _LOW
            length = end - begin + 1
            if length >= shortest and not (length == 1 and (begin == 0 or end == count - 1)):
                yield value


def _means(
    parts: Sequence[Sequence[int]], rows: Any, dimensions: int
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Compute means over the rows of words' parts; a word without parts has no vector."""
    known = np.array([bool(each) for each in parts], bool)
    matrix = np.zeros((len(parts), dimensions), np.float32)
    for begin in range(0, len(parts), _BLOCK):
        block = [index for index in range(begin, min(begin + _BLOCK, len(parts))) if parts[index]]
        if block:
            lengths = np.array([len(parts[index]) for index in block])
            numbers = np.fromiter((number for index in block for number in parts[index]), np.int64, lengths.sum())
            starts = np.cumsum(lengths) - lengths
            matrix[block] = np.add.reduceat(rows(numbers), starts, axis=0) / lengths[:, None]
    return known, matrix
