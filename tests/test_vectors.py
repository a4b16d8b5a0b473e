from __future__ import annotations

import gzip
import io
import random
import re
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.data import vector_files
from nertool.data.vector_files import Faults
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
    monkeypatch.setattr(vector_files, "_BLOCK", 3)
    text = "".join(f"w{n} {n} {n / 7}\n" for n in range(10))
    for content in (text, "10 2\n" + text):
        result = read_vectors(write(content))
        assert result.words == [f"w{n}" for n in range(10)]
        assert np.array_equal(result.matrix[:, 1], np.array([n / 7 for n in range(10)], dtype=np.float32))
    assert "(line 8: found 1 values" in read_vectors(write(text.replace("w7 7 1.0", "w7 7"))).note
    assert "(line 9: 'x' is not" in read_vectors(write("10 2\n" + text.replace("w7 7", "w7 x"))).note


NUMBERS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4)


@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_both_ways_of_parsing_are_exact(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_text("".join(f"w{i} {' '.join(map(repr, row))}\n" for i, row in enumerate(rows)))
    wanted = np.array(rows, dtype=np.float32)
    assert np.array_equal(read_vectors(path).matrix, wanted)
    tails = [line.partition(b" ")[2] for line in path.read_bytes().splitlines()]
    words, numbers = [""] * len(tails), list(range(len(tails)))
    assert np.array_equal(vector_files._parse_slowly(words, tails, numbers, 4, Faults(path)), wanted)


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
        (binary({"a": [1.0, float("nan")]}), "row 1: the word 'a' has a value that is not finite"),
        (binary(ROWS).replace("é".encode(), b"\xff\xfe"), "row 2: the word b'.*' is not UTF-8"),
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


def numbered(count: int, dimensions: int = 3) -> list[bytes]:
    """Rows `w0 0 1 2`, `w1 1 2 3`, ..."""
    return [b" ".join([b"w%d" % n, *(b"%d" % (n + i) for i in range(dimensions))]) for n in range(count)]


BROKEN = {
    "cut inside a character": (b"caf\xc3 1 2 3", r"byte 0xc3 \(number 4 of the line\) is not UTF-8"),
    "too few values": (b"x 1 2", "found 2 values after the word, where 3 are expected"),
    "a value lost between spaces": (b"x  1 2", "found 2 values after the word, where 3 are expected"),
    "too many values": (b"x 1 2 3 4", "found 4 values after the word, where 3 are expected"),
    "not a number": (b"x 1 two 3", "'two' is not a finite number"),
    "not finite": (b"x 1 nan 3", "'nan' is not a finite number"),
    "a word without numbers": (b"x", "found 0 values"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(
    ("count", "broken"), [(10, [9]), (10, [0]), (3000, [4, 2999]), (5000, range(0, 5000, 101))]
)
def test_a_few_broken_rows_are_skipped_and_told(write, kind, count, broken):
    row, message = BROKEN[kind]
    lines = numbered(count)
    for index in broken:
        lines[index] = row
    good = [index for index in range(count) if index not in set(broken)]
    result = read_vectors(write(b"\n".join(lines) + b"\n"))
    assert result.words == [f"w{index}" for index in good]
    assert result.matrix.tolist() == [[index, index + 1, index + 2] for index in good]
    rows = "a broken row was skipped" if len(broken) == 1 else f"{len(broken)} broken rows were skipped"
    assert f"{rows}, {len(good):,} were read" in result.note and f"line {broken[0] + 1}: " in result.note
    assert re.search(message, result.note)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(("count", "share"), [(10, 0.2), (200, 0.06), (5000, 0.02)])
def test_many_broken_rows_are_an_error(write, kind, count, share):
    row, message = BROKEN[kind]
    lines = numbered(count)
    for index in random.Random(1).sample(range(count), round(share * count)):
        lines[index] = row
    with pytest.raises(CorpusError, match=rf"line \d+: {message}.*; \d+ of the .* rows that were read are broken"):
        read_vectors(write(b"\n".join(lines) + b"\n"))


class TestWhatIsWrong:
    """The message names the true cause, and its advice does no harm."""

    def message(self, path) -> str:
        with pytest.raises(CorpusError) as caught:
            read_vectors(path)
        return str(caught.value)

    def test_another_encoding(self, write):
        lines = [f"wört{n} 1 2 3".encode("latin1") for n in range(40)]
        assert "may have another encoding. If it is Latin-1, `iconv" in self.message(
            write(b"\n".join([*numbered(40), *lines]))
        )

    def test_no_advice_to_convert_what_is_utf_8(self, write):
        lines = [f"wört{n} 1 2 3".encode() for n in range(40)]
        for index in range(0, 40, 3):
            lines[index] = lines[index].replace("ö".encode(), b"\xc3")
        message = self.message(write(b"\n".join(lines)))
        assert "converting the file would spoil them: fetch it again" in message and "iconv" not in message

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf_16(self, write, encoding):
        assert "`iconv -f utf-16 -t utf-8`" in self.message(write("sea 1 2 3\nland 4 5 6\n".encode(encoding)))

    def test_old_line_ends(self, write):
        assert r"`tr '\r' '\n'`" in self.message(write("sea 1 2 3\rland 4 5 6\r"))

    def test_a_truncated_file(self, write):
        content = b"\n".join(numbered(500))
        assert read_vectors(write(content)).words[-1] == "w499"
        assert "line 500: the last line ends after 2 of 3 values: the file is truncated" in self.message(
            write(content[:-4])
        )
        assert not read_vectors(write(content + b"\n  ")).note
        for compressed in (gzip.compress(content[:-4], mtime=0), zipped({"a.txt": content[:-4]})):
            assert "is truncated" in self.message(write(compressed))

    def test_a_header_of_another_width(self, write):
        content = b"30 2\n" + b"\n".join(numbered(30))
        assert "the header names 2 dimensions, and most rows have more" in self.message(write(content))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                b"\xba\x16\x4f\x2f\x0c\0\0\0",
                "this model of fastText is corrupt or truncated",
            ),
            (b"\x93NUMPY\x01\0", "array of numpy"),
            (b"\x80\x04\x95\x10", "a pickle, for example of gensim, which is never read"),
            (b"<!DOCTYPE html>\n<html>", "a web page, not the file"),
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"BZh91AY&SY", "bunzip2"),
            (b"\xfd7zXZ\0", "unxz"),
        ],
    )
    def test_other_files(self, write, content, message):
        with pytest.raises(CorpusError, match=message):
            read_vectors(write(content))

    def test_words_of_web_pages_are_words(self, write):
        assert read_vectors(write("<unk> 1 2\n</s> 3 4\n<h 1 2\n")).words == ["<unk>", "</s>", "<h"]

    def test_no_row_is_right(self, write):
        assert "3 of the 3 rows that were read are broken" in self.message(write("a 1 x\nb 1 y\nc 1 z\n"))


def test_numbers_in_words_are_clear_where_a_header_names_the_dimensions(write):
    text = "the 1 2\n1 000 3 4\nRoute 66 5 6\nof 7 8\n"
    assert read_vectors(write(f"4 2\n{text}")).words == ["the", "1 000", "Route 66", "of"]


def test_broken_rows_of_a_binary_file(write):
    rows = {f"w{n}": [n, n / 2] for n in range(300)}
    rows["w7"] = [1.0, float("inf")]
    content = binary(rows).replace(b"w120 ", b"w\xc3\xff0 ")
    result = read_vectors(write(content))
    assert "2 broken rows were skipped, 298 were read (the first: row 8: the word 'w7' has a value" in result.note
    good = [n for n in range(300) if n not in (7, 120)]
    assert result.words == [f"w{n}" for n in good] and result.matrix.tolist() == [[n, n / 2] for n in good]


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_binary_files_of_several_buffers(write, monkeypatch, block):
    monkeypatch.setattr(vector_files, "_BLOCK", block)
    monkeypatch.setattr(vector_files, "_BUFFER", 64)
    monkeypatch.setattr(vector_files, "_LONGEST_WORD", 100)
    rows = {f"w{'x' * (n % 90)}{n}": [float(n), -n / 3] for n in range(200)}
    for separator in (b"", b"\n"):
        result = read_vectors(write(binary(rows, separator)))
        assert result.words == list(rows)
        assert np.array_equal(result.matrix, np.array(list(rows.values()), np.float32))


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


class TestZip:
    def test_the_only_file(self, write):
        for files in (
            {"a.txt": TEXT},
            {"folder/a.vec": "2 3\n" + TEXT, "__MACOSX/._a.vec": "x", "folder/.DS_Store": "y"},
            {"a.bin": binary(ROWS), "README.txt": "read me", "LICENSE": "free"},
            {"data": "\ufeff" + TEXT},
        ):
            result = read_vectors(write(zipped(files), "v.zip"))
            assert result.words == ["sea", "é"] and result.dimensions == 3

    def test_a_file_by_name(self, write):
        path = write(zipped({"a.txt": TEXT, "b/c.txt": "other 1 2\n"}), "v.zip")
        with pytest.raises(
            CorpusError, match=r"several files \(a\.txt, b/c\.txt\); name one of them, as in .*v\.zip:a\.txt"
        ):
            read_vectors(path)
        assert read_vectors(f"{path}:a.txt").words == ["sea", "é"]
        assert read_vectors(f"{path}:b/c.txt").words == ["other"]
        with pytest.raises(CorpusError, match=r"no file 'd\.txt'; it has a\.txt, b/c\.txt"):
            read_vectors(f"{path}:d.txt")
        with pytest.raises(CorpusError, match="no zip archive, and has no file 'a'"):
            read_vectors(f"{write(TEXT, 'plain.zip')}:a")

    def test_broken_rows_have_the_place_in_the_archive(self, write):
        path = write(zipped({"a.txt": b"\n".join([*numbered(30), b"x 1 2", b""]), "b.txt": b""}), "v.zip")
        assert f"{path}:a.txt: a broken row was skipped" in read_vectors(f"{path}:a.txt").note

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (zipped({}), "there is no file in the archive"),
            (zipped({"a.txt": TEXT.encode() * 50})[:-60], "corrupt or truncated"),
            (zipped({"a.txt": TEXT}, zipfile.ZIP_STORED).replace(b"0.1", b"0.7"), "corrupt or truncated"),
            (zipped({"a.txt": gzip.compress(b"x 1 2")}), "compressed twice"),
        ],
        ids=["empty", "truncated", "changed", "twice"],  # the bytes hold the time
    )
    def test_archives_that_are_wrong(self, write, content, message):
        with pytest.raises(CorpusError, match=message):
            read_vectors(write(content, "v.zip"))

    def test_an_archive_with_a_password(self, write):
        content = bytearray(zipped({"a.txt": TEXT}))
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of encryption
            content[content.index(signature) + offset] |= 1
        with pytest.raises(CorpusError, match=r"cannot be unpacked here \(.*password.*\): unpack it, and name"):
            read_vectors(write(bytes(content), "v.zip"))

    def test_a_bomb(self, write):
        content = zipped({"a.txt": b"w 0 0\n" * 25_000_000})
        with pytest.raises(CorpusError, match="compressed bytes became more than"):
            read_vectors(write(content, "v.zip"))
