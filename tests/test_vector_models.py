"""Vectors of spaCy pipelines, model2vec and fastText; words that a table lacks are computed as their makers do."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from spacy.vectors import Vectors as Table
from spacy.vocab import Vocab

from nertool.cli.main import main
from nertool.comparison.results import files_of, fingerprint
from nertool.config.loading import load_config, locate_files
from nertool.data.vector_models import ngram_hashes
from nertool.data.vectors import read_vectors
from nertool.errors import ConfigError, CorpusError
from nertool.tagging.bundle import load_bundle

DIMENSIONS = 4


def numbers(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, DIMENSIONS)).astype(np.float32)


def by_word(source: str | Path, wanted: list[str], extra_rows: int = 10) -> dict[str, np.ndarray]:
    found = read_vectors(source, wanted, extra_rows)
    assert found.matrix.dtype == np.float32
    return dict(zip(found.words, found.matrix, strict=True))


# spaCy


def pipeline(folder: Path, table: Table) -> Path:
    """Write what a pipeline has of vectors."""
    vocab = Vocab(strings=table.strings)
    vocab.vectors = table
    folder.mkdir()
    vocab.to_disk(folder / "vocab")
    return folder


@pytest.fixture
def shared(tmp_path) -> tuple[Path, np.ndarray]:
    """Return a pipeline of four words on three rows, and the rows."""
    rows = numbers(3)
    vocab = Vocab()
    table = Table(strings=vocab.strings, data=rows)
    for word, row in (("Oslo", 0), ("the", 1), ("London", 0), ("rain", 2)):
        table.add(vocab.strings.add(word), row=row)
    return pipeline(tmp_path / "md", table), rows


def test_words_of_a_pipeline_may_share_a_vector(shared):
    path, rows = shared
    found = by_word(path, ["Oslo", "nowhere"])
    assert {word: row.tolist() for word, row in found.items()} == {
        word: rows[row].tolist() for word, row in (("Oslo", 0), ("London", 0), ("the", 1), ("rain", 2))
    }
    # Rows that nobody needs are not read.
    assert set(by_word(path, ["rain", "The"], 0)) == {"rain", "the"}


def test_floret_vectors_are_those_of_spacy(tmp_path):
    settings = {"minn": 2, "maxn": 3, "hash_count": 2, "hash_seed": 7, "bow": "<", "eow": ">"}
    table = Table(strings=Vocab().strings, data=numbers(50), mode="floret", **settings)
    words = ["Oslo", "a", "Malmö", "unheard-of"]
    found = by_word(pipeline(tmp_path / "floret", table), words)
    assert found.keys() == set(words)
    for word, row in found.items():
        assert np.allclose(row, table[word], atol=1e-6)


def test_an_installed_pipeline_by_name(shared, tmp_path, monkeypatch):
    package = tmp_path / "site" / "xx_tiny_md"
    (package / "xx_tiny_md-1.0").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('nothing is imported')", encoding="utf-8")
    (shared[0] / "vocab").rename(package / "xx_tiny_md-1.0" / "vocab")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert np.array_equal(by_word("spacy:xx_tiny_md", [])["Oslo"], shared[1][0])
    assert "xx_tiny_md" not in sys.modules


@pytest.mark.parametrize("name", ["spacy:xx_missing_md", "spacy:no-name", "spacy:"])
def test_a_pipeline_that_is_not_installed(name, tiny_yaml):
    config = load_config(tiny_yaml, [f"inputs.words.vectors=['{name}']", "inputs.words.dimensions=null"])
    with pytest.raises(
        ConfigError, match="no spaCy pipeline of this name is installed; `python -m spacy download"
    ):
        locate_files(config, tiny_yaml)


def test_pipelines_without_vectors_and_corrupt_ones(shared, tmp_path):
    (tmp_path / "sm").mkdir()
    Vocab(strings=["a"]).to_disk(tmp_path / "sm" / "vocab")
    with pytest.raises(CorpusError, match="has no vectors"):
        read_vectors(tmp_path / "sm")
    (shared[0] / "vocab" / "vectors").write_bytes(b"\x93NUMPY")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_vectors(shared[0])
    (tmp_path / "else").mkdir()
    with pytest.raises(CorpusError, match="neither the vectors of a spaCy pipeline"):
        read_vectors(tmp_path / "else")


# model2vec


@pytest.fixture
def static(tmp_path):
    """Return what writes a folder of model2vec whose tokens are [UNK], os, ##lo, rain and oslo-like pieces."""
    tokenizers = pytest.importorskip("tokenizers")
    from safetensors.numpy import save_file

    def write(tensors: dict[str, np.ndarray], **config: object) -> Path:
        names = ["[UNK]", "os", "##lo", "rain", "##s"]
        model = tokenizers.models.WordPiece({name: row for row, name in enumerate(names)}, unk_token="[UNK]")
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.normalizer = tokenizers.normalizers.Lowercase()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        tokenizer.enable_truncation(1)
        folder = tmp_path / "static"
        folder.mkdir(exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(tensors, folder / "model.safetensors")
        return folder

    return write


def test_model2vec_takes_the_mean_over_sub_tokens(static):
    rows = numbers(5)
    found = by_word(static({"embeddings": rows}), ["Oslo", "rains", "rain", "xyz", "os-lo"])
    # Of the table: whole words. What has no known sub-token has no vector.
    assert found.keys() == {"os", "rain", "Oslo", "rains", "os-lo"}
    assert np.array_equal(found["rain"], rows[3])
    assert np.allclose(found["Oslo"], (rows[1] + rows[2]) / 2)
    assert np.allclose(found["rains"], (rows[3] + rows[4]) / 2)
    assert np.allclose(found["os-lo"], rows[1])  # "-" and "lo" are unknown


def test_model2vec_with_mapping_weights_small_numbers_and_normalization(static):
    rows = numbers(3).astype(np.float16)
    mapping, weights = np.array([0, 1, 1, 2, 0]), np.array([1, 0.5, 2, 3, 4], np.float32)
    path = static({"embeddings": rows, "mapping": mapping, "weights": weights}, normalize=True)
    row = (0.5 * rows[1].astype(np.float32) + 2 * rows[1]) / 2
    assert np.allclose(by_word(path, ["Oslo"])["Oslo"], row / np.linalg.norm(row), atol=1e-5)


def test_model2vec_that_does_not_fit_and_without_its_package(static, monkeypatch):
    path = static({"embeddings": numbers(4)})
    with pytest.raises(CorpusError, match="tokens that its table of vectors lacks"):
        read_vectors(path)
    (path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CorpusError, match="no vectors of model2vec can be read"):
        read_vectors(path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'nertool\[model2vec\]'"):
        read_vectors(path)


# fastText


def fasttext(
    words: list[bytes], matrix: np.ndarray, buckets: int, shortest: int = 3, longest: int = 4, quantized: int = 0
) -> bytes:
    """Return a model as fastText writes it."""
    arguments = [DIMENSIONS, 5, 5, 1, 5, 1, 2, 2, buckets, shortest, longest, 100]
    head = struct.pack("<2i12id", 793712314, 12, *arguments, 1e-4)
    head += struct.pack("<iiiqq", len(words), len(words), 0, 99, -1)
    entries = b"".join(word + b"\0" + struct.pack("<qb", 3, 0) for word in words)
    return head + entries + struct.pack("<bqq", quantized, *matrix.shape) + matrix.astype("<f4").tobytes()


def hashed(ngram: str) -> int:
    """FNV-1a of 32 bits, whose bytes are signed."""
    value = 2166136261
    for byte in ngram.encode():
        value = (value ^ (byte if byte < 128 else byte - 256)) * 16777619 % 2**32
    return value


@pytest.mark.parametrize("word", ["a", "Oslo", "Malmö", "人名", "é"])
@pytest.mark.parametrize(("shortest", "longest"), [(1, 2), (3, 6), (2, 2)])
def test_ngrams_are_those_of_fasttext(word, shortest, longest):
    text = f"<{word}>"
    expected = [
        hashed(text[begin : begin + size])
        for begin in range(len(text))
        for size in range(shortest, longest + 1)
        if begin + size <= len(text) and not (size == 1 and text[begin : begin + size] in "<>")
    ]
    assert list(ngram_hashes(word, shortest, longest)) == expected


def test_known_hashes():
    """Offset and prime are those that FNV's authors published; so is the hash of "a"."""
    assert (hashed(""), hashed("a"), hashed("foobar")) == (0x811C9DC5, 0xE40C292C, 0xBF9CF968)


@pytest.fixture
def model(tmp_path) -> tuple[Path, np.ndarray]:
    rows = numbers(4 + 7)
    path = tmp_path / "model.bin"
    path.write_bytes(fasttext([b"</s>", b"rain", b"oslo", b"\xff"], rows, 7))
    return path, rows


def test_fasttext_takes_the_mean_over_a_word_and_its_ngrams(model):
    path, rows = model
    words = read_vectors(path, ["Oslo", "snow", "a", ""], 2)
    assert words.words == ["</s>", "rain", "oslo", "a", "snow"]
    found = dict(zip(words.words, words.matrix, strict=True))
    for word, own in (("rain", [1]), ("oslo", [2]), ("snow", []), ("a", [])):
        text = f"<{word}>"
        ngrams = [text[i : i + n] for i in range(len(text)) for n in (3, 4) if i + n <= len(text)]
        parts = own + [4 + hashed(ngram) % 7 for ngram in ngrams]
        assert np.allclose(found[word], rows[parts].mean(axis=0), atol=1e-6), word
    assert np.array_equal(found["</s>"], rows[0])
    assert "2 words of the training split were given vectors from their parts" in words.note


def test_fasttext_without_ngrams_has_its_words_alone(tmp_path):
    rows = numbers(2)
    (tmp_path / "m.bin").write_bytes(fasttext([b"rain", b"oslo"], rows, 0, 0, 0))
    found = by_word(tmp_path / "m.bin", ["Oslo", "snow"])
    assert {word: row.tolist() for word, row in found.items()} == {
        "rain": rows[0].tolist(),
        "oslo": rows[1].tolist(),
    }


def test_models_of_fasttext_that_are_corrupt_or_quantized(model):
    path, rows = model
    whole = path.read_bytes()
    for length in (4, 30, 70, 100, 120, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorpusError, match="corrupt or truncated"):
            read_vectors(path)
    path.write_bytes(fasttext([b"rain"], rows[:8], 7, quantized=1))
    with pytest.raises(CorpusError, match="quantized"):
        read_vectors(path)
    path.write_bytes(fasttext([b"rain"], np.full((8, DIMENSIONS), np.nan), 7))
    with pytest.raises(CorpusError, match="not finite"):
        read_vectors(path)


# In training


def test_training_with_them_knows_the_words_of_the_training_split_alone(
    model, shared, tiny_yaml, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path, _ = model
    options = ["inputs.words.dimensions=null", "inputs.words.extra_rows=1", "inputs.words.trainable=false"]
    options += [f"inputs.words.vectors=[model.bin, {shared[0].name}]", "training.epochs=2"]
    result = CliRunner().invoke(
        main, ["train", str(tiny_yaml), *(part for each in options for part in ("--set", each))]
    )
    assert result.exit_code == 0, result.output
    assert "words of the training split were given vectors from their parts" in result.output
    trained = load_bundle(Path("runs/tiny"))
    words = trained.inputs["words"]
    assert words.dimensions == 2 * DIMENSIONS
    assert "Babbage" in words.rows and "Theatre" in words.rows and "1993" not in words.rows
    weight = trained.network.state_dict()
    (table,) = (
        each for name, each in weight.items() if tuple(each.shape) == (len(words.words) + 1, 2 * DIMENSIONS)
    )
    oslo = read_vectors(path, ["Oslo"])
    expected = oslo.matrix[oslo.words.index("oslo")].tolist() + shared[1][0].tolist()
    assert np.allclose(table[words.rows["Oslo"]], expected, atol=1e-6)
    # A comparison notices when the folder holds something else.
    config = trained.config
    assert len(files_of(config)["inputs.words.vectors"]) == 2
    before = fingerprint(config)
    (shared[0] / "vocab" / "more").touch()
    assert fingerprint(config)["inputs.words.vectors"] != before["inputs.words.vectors"]
