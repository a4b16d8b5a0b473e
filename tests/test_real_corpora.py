"""The readers against published corpora, where NERTOOL_DATA names the folders that hold them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split, read_split
from nertool.data.vectors import look_up, read_vectors
from nertool.formats.registry import ReadOptions, Report, detect_format
from nertool.text.schemes import Scheme


def find(name: str) -> Path:
    """Find a data file in the folders of NERTOOL_DATA, or skip the test."""
    folders = [folder for folder in os.environ.get("NERTOOL_DATA", "").split(os.pathsep) if folder]
    for folder in folders:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    where = ", ".join(folders) if folders else "NERTOOL_DATA is not set"
    pytest.skip(f"{name} is missing ({where}): name the folder that holds it in NERTOOL_DATA")


COLUMNS = {
    "conll03": ["token", "pos", "chunk", "ner"],
    "conll2000": ["token", "pos", "chunk"],
    "conll2002": ["token", "pos", "ner"],
    "wikigold": ["token", "ner"],
    "weibo_zh": ["token", "ner"],
    "ud_ewt": ["token", "xpos", "upos"],
}
STRIP = {"weibo_zh": "(?<=.)[0-9]+$"}

# file, scheme, sentences, tokens, documents, entities, strays
FILES = [
    ("conll03/train.txt", "IOB1", 14041, 203621, 946, 23499, 0),
    ("conll03/valid.txt", "IOB1", 3250, 51362, 216, 5942, 0),
    ("conll03/test.txt", "IOB1", 3453, 46435, 231, 5648, 0),
    ("conll2000/train.txt", "IOB2", 8936, 211727, 1, 106978, 0),
    ("conll2000/test.txt", "IOB2", 2012, 47377, 1, 23852, 0),
    ("conll2002/esp.train.txt", "IOB2", 8323, 264715, 1, 18798, 1),
    ("conll2002/esp.valid.txt", "IOB2", 1915, 52923, 1, 4352, 1),
    ("conll2002/esp.test.txt", "IOB2", 1517, 51533, 1, 3559, 1),
    ("wikigold/wikigold.txt", "IOB1", 1696, 39007, 145, 3558, 0),
    ("weibo_zh/train.txt", "IOB2", 1350, 73778, 1, 1895, 10),
    ("weibo_zh/dev.txt", "IOB2", 270, 14509, 1, 389, 0),
    ("weibo_zh/test.txt", "IOB2", 270, 14842, 1, 418, 4),
    ("ud_ewt/train.txt", "plain", 12544, 204577, 1, 0, 0),
    ("ud_ewt/dev.txt", "plain", 2001, 25147, 1, 0, 0),
    ("ud_ewt/test.txt", "plain", 2077, 25094, 1, 0, 0),
]


def read(path: Path, target: Scheme | None = None, **settings: Any) -> Split:
    return read_split(path, CorpusConfig(train="unused", **settings), target)


@pytest.mark.parametrize("row", FILES, ids=lambda row: row[0])
def test_counts(row):
    name, scheme, sentences, tokens, documents, entities, strays = row
    folder = name.split("/")[0]
    path, columns, strip = find(name), COLUMNS[folder], STRIP.get(folder)
    target = None if scheme == "plain" else Scheme.IOBES
    corpus = read(path, target, columns=columns, label=columns[-1], strip=strip)
    assert detect_format(path).name == "conll"
    assert corpus.scheme == scheme
    assert (len(corpus), corpus.token_count, corpus.document_count) == (sentences, tokens, documents)
    assert corpus.entity_counts().total() == entities
    assert corpus.strays == strays


def test_conll2003_types_and_streaming_reads_the_same():
    train = read(find("conll03/train.txt"))
    assert train.entity_counts() == {"LOC": 7140, "MISC": 3438, "ORG": 6321, "PER": 6600}
    test = read(find("conll03/test.txt"))
    assert test.entity_counts() == {"LOC": 1668, "MISC": 702, "ORG": 1661, "PER": 1617}
    documents = detect_format(test.path).read(test.path, ReadOptions(labelled=False), Report())
    streamed = [sentence.tokens for document in documents for sentence in document.sentences()]
    assert streamed == [sentence.tokens for sentence in test.sentences]


def test_weibo_digits_are_stripped():
    corpus = read(find("weibo_zh/dev.txt"), strip=STRIP["weibo_zh"])
    # Emoji that were broken before us are two replacement characters.
    odd = {token for sentence in corpus.sentences for token in sentence.tokens if len(token) != 1}
    assert odd == {"\ufffd\ufffd"}


def test_glove_and_its_coverage():
    vectors = read_vectors(find("vectors/glove.6B.50d.txt"))
    assert len(vectors.words) == len(vectors.index) == 104647
    assert vectors.matrix.shape == (104647, 50) and vectors.matrix.dtype == np.float32
    for line in (0, 50_000, -1):
        row = vectors.path.read_bytes().rstrip(b"\n").split(b"\n")[line].decode().split(" ")
        assert vectors.words[line] == row[0]
        assert vectors.matrix[line].tolist() == [np.float32(value) for value in row[1:]]
    for split, percent in (("train", 97.8), ("valid", 98.0), ("test", 97.2)):
        words = [word for document in read(find(f"conll03/{split}.txt")).documents for word in document.tokens]
        known = sum(look_up(word, vectors.index) is not None for word in words)
        assert round(100 * known / len(words), 1) == percent, split
