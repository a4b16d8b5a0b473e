from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.data import vectors
from nertool.data.vectors import Vectors, look_up, read_vectors
from nertool.errors import CorpusError


@pytest.fixture
def write(tmp_path):
    def write(content, name="vectors.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def binary(rows: dict[str, list[float]], separator: bytes = b"\n", named: int | None = None) -> bytes:
    width = len(next(iter(rows.values())))
    body = b"".join(
        word.encode() + b" " + struct.pack(f"<{width}f", *row) + separator for word, row in rows.items()
    )
    return f"{len(rows) if named is None else named} {width}\n".encode() + body


ROWS = {"sea": [0.1, -2.5, 3e-5], "é": [1.0, 2.0, -0.0]}
TEXT = "sea 0.1 -2.5 3e-5\né 1 2. -.0\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.rstrip("\n"),
        TEXT.replace("\n", " \r\n") + "\n",
        "\ufeff" + TEXT,
        TEXT.replace(" ", "\t"),
        TEXT.replace(" ", "  "),
        "2 3\n" + TEXT,
        "2 3 \n" + TEXT.replace("\n", " \n"),
        binary(ROWS),
        binary(ROWS, separator=b""),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_format_gives_the_same(write, content, compressed):
    raw = content if isinstance(content, bytes) else content.encode()
    path = write(gzip.compress(raw) if compressed else raw)
    result = read_vectors(path)
    assert result.words == ["sea", "é"]
    assert result.matrix.dtype == np.float32 and result.matrix.flags.c_contiguous
    assert np.array_equal(result.matrix, np.array(list(ROWS.values()), dtype=np.float32))
    assert result.dimensions == 3 and result.path == path


def test_words_with_spaces_and_other_whitespace(write):
    words = [
        ". . .",
        "at name@host.org",
        "x\u00a0y",
        "\u2028",
        "\u0085",
        "New York",
        "#",
        '"',
        "nan",
        "1.5",
        "\x1c",
    ]
    text = "".join(f"{word} {index} 0.5\n" for index, word in enumerate(words))
    for content in (f"the 9 9\nof 9 9\n{text}" + "a 1 1\n" * 20, f"{len(words)} 2\n{text}"):
        result = read_vectors(write(content))
        rows = [result.index[word] for word in words]
        assert result.matrix[rows].tolist() == [[index, 0.5] for index in range(len(words))]
    tabbed = read_vectors(write("the\t1\t2\nNew York\t3\t4\n"))
    assert tabbed.words == ["the", "New York"] and tabbed.matrix[1].tolist() == [3, 4]


def test_a_word_that_occurs_twice_has_its_first_row(write):
    result = read_vectors(write("a 1\nb 2\na 3\n"))
    assert result.index == {"a": 0, "b": 1} and result.words == ["a", "b", "a"]


def test_a_header_is_distinguished_from_a_word_and_one_number(write):
    assert read_vectors(write("2 1\na 5\nb 6\n")).words == ["a", "b"]
    assert read_vectors(write("two 1\na 5\n")).words == ["two", "a"]


def test_files_of_several_blocks(write, monkeypatch):
    monkeypatch.setattr(vectors, "_BLOCK", 3)
    text = "".join(f"w{n} {n} {n / 7}\n" for n in range(10))
    for content in (text, "10 2\n" + text):
        result = read_vectors(write(content))
        assert result.words == [f"w{n}" for n in range(10)]
        assert np.array_equal(result.matrix[:, 1], np.array([n / 7 for n in range(10)], dtype=np.float32))
    with pytest.raises(CorpusError, match="line 8: found 1 values"):
        read_vectors(write(text.replace("w7 7 1.0", "w7 7")))
    with pytest.raises(CorpusError, match="line 9: 'x' is not"):
        read_vectors(write("10 2\n" + text.replace("w7 7", "w7 x")))


NUMBERS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4)


@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_both_ways_of_parsing_are_exact(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_text("".join(f"w{i} {' '.join(map(repr, row))}\n" for i, row in enumerate(rows)))
    wanted = np.array(rows, dtype=np.float32)
    assert np.array_equal(read_vectors(path).matrix, wanted)
    lines = path.read_bytes().splitlines()
    assert np.array_equal(vectors._parse_slowly(lines, 1, 4, path)[1], wanted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty or begins with an empty line"),
        ("word\nword\n", "line 1: found no numbers"),
        ("a 1 2\nb 1\n", "line 2: found 1 values after the word, where 2 are expected"),
        ("a 1 2\nb 1 2 3\nc 1 2\n", "line 2: found 3 values after the word, where 2 are expected"),
        ("a 1 2\nb 1  2 \nc 1 two\n", "line 3: 'two' is not a finite number"),
        ("a 1 2\nb nan 1\n", "line 2: 'nan' is not a finite number"),
        ("a 1 2\nb 1 -inf\n", "line 2: '-inf' is not a finite number"),
        ("a 1 2\nb 1 1e39\n", "line 2: '1e39' is not a finite number that fits in 32 bits"),
        ("a 1 2\nb 1 1_0\n", "line 2: '1_0' is not"),
        ("a 1 2\nb 1 ٣\n", "line 2: '٣' is not"),
        (b"a 1 2\nb\xff 1 2\n", "line 2: byte 0xff"),
        (b"2 2\na 1 2\nb\xff 1 2\n", "line 3: byte 0xff"),
        ("3 2\na 1 2\nb 1 2\n", "the header names 3 rows, and the file is truncated: found 2"),
        ("1 2\na 1 2\nb 1 2\n", "the header names 1 rows, and there are more: found 2"),
        ("0 2\n", "line 1: the header names 0 rows"),
        ("1 1234567\na 1\n", "line 1: the header names 1 rows of 1234567 dimensions: the file is corrupt"),
        ("9" * 5000 + " 2\na 1 2\n", "line 1: the header names 99999999999999999999 rows of 2 dimensions"),
        ("a 1 2\n\x0b\nb 1 2\n", "line 2: found 0 values after the word"),
        ("2 2\n", "the header names 2 rows, and the file is truncated: found 0"),
        ("2 2\na one two\n", "line 2: 'one' is not"),
        (gzip.compress(TEXT.encode() * 99, mtime=0)[:-9], "gzip data is corrupt or truncated"),
        (binary(ROWS)[:-4], "the header names 2 rows, and the file is truncated: found 1"),
        (binary(ROWS, named=1), "the header names 1 rows, and there are more"),
        (binary({"a": [1.0, float("nan")]}), "row 1, of the word 'a', has a value that is not finite"),
        (binary(ROWS).replace("é".encode(), b"\xff\xfe"), "the word of row 2, b'.*', is not UTF-8"),
    ],
)
def test_errors_say_where_and_what(write, content, message):
    path = write(content)
    with pytest.raises(CorpusError, match=message) as caught:
        read_vectors(path)
    assert caught.value.path == path


def test_a_missing_file(tmp_path):
    with pytest.raises(CorpusError, match="there is no such file; expected a file with a word and its numbers"):
        read_vectors(tmp_path / "absent.txt")


def test_look_up():
    index = {word: row for row, word in enumerate(["Apple", "apple", "may", "0000", "Mig-00", "b00", "B-00"])}
    for word, row in [
        ("Apple", 0),
        ("APPLE", 1),
        ("May", 2),
        ("1987", 3),
        ("Mig-29", 4),
        ("B52", 5),
        ("B-52", 6),
        ("mig-29", None),
        ("pear", None),
        ("", None),
    ]:
        assert look_up(word, index) == row, word


def test_vectors_can_be_made_by_hand(tmp_path):
    made = Vectors(["a", "b"], np.zeros((2, 5), dtype=np.float32), tmp_path)
    assert made.dimensions == 5 and made.index == {"a": 0, "b": 1}
