from __future__ import annotations

import gzip
import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.errors import CorpusError
from nertool.formats.conll import iterate_documents, iterate_sentences, read_conll, write_conll
from nertool.text.schemes import Scheme


@pytest.fixture
def write(tmp_path):
    def write(content, name="corpus.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


SMALL = "Ada B-PER\nsings O\n\nOslo B-LOC\n\n"


def test_a_small_file(write):
    path = write(SMALL)
    corpus = read_conll(path)
    assert corpus.tokens == [["Ada", "sings"], ["Oslo"]]
    assert corpus.labels == [["B-PER", "O"], ["B-LOC"]]
    assert corpus.documents == [0, 0]
    assert corpus.scheme is corpus.label_scheme is Scheme.IOB2 and corpus.strays == 0
    assert (len(corpus), corpus.token_count, corpus.document_count) == (2, 3, 1)
    assert corpus.entity_counts() == {"PER": 1, "LOC": 1} and corpus.path == path


@pytest.mark.parametrize(
    "content",
    [
        SMALL.rstrip("\n"),
        SMALL.replace("\n", "\r\n"),
        "\ufeff" + SMALL,
        SMALL.replace(" ", "\t"),
        SMALL.replace(" ", "   "),
        SMALL.replace(" ", " \t "),
        SMALL.replace("\n\n", "\n\t\n"),
        SMALL.replace("\n\n", "\n \t \r\n\n\n"),
        "\n \n" + SMALL,
        SMALL.replace("B-PER\n", "B-PER  \n"),
        gzip.compress(SMALL.encode()),
        gzip.compress(b"\xef\xbb\xbf" + SMALL.encode()),
    ],
)
def test_the_same_file_written_otherwise(write, content):
    corpus = read_conll(write(content))
    assert corpus.tokens == [["Ada", "sings"], ["Oslo"]]
    assert corpus.labels == [["B-PER", "O"], ["B-LOC"]]


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2028", "\u2029", "\u0085", "\x1c", "\x0b", "\x0c"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_blanks_that_are_no_separators_stay_in_tokens(write, blank, separator):
    lines = [blank, f"10{blank}000", f"{blank}x{blank}"]
    path = write("".join(f"{token}{separator}O\n" for token in lines))
    assert read_conll(path).tokens == list(iterate_sentences(path)) == [lines]


def test_long_tokens_and_tokens_with_spaces(write):
    token = "x" * 10_000
    assert read_conll(write(f"{token} O\n")).tokens == [[token]]
    corpus = read_conll(write("New York\tB-LOC\nis  big\tO\n"))
    assert corpus.tokens == [["New York", "is  big"]]


def test_columns_are_found_by_name(write):
    path = write("1 Ada NNP B-PER x\n2 sings VBZ O x\n")
    columns = ["id", "token", "pos", "ner"]  # lines may have more
    assert read_conll(path, columns=columns, label="ner").labels == [["B-PER", "O"]]
    tags = read_conll(path, columns=columns, label="pos")
    assert tags.labels == [["NNP", "VBZ"]] and tags.scheme is Scheme.PLAIN
    assert not tags.entity_counts() and tags.tokens == [["Ada", "sings"]]


def test_documents(write):
    text = "-DOCSTART- -X- O\n\na X O\n\nb X O\n-DOCSTART- -X- O\n\n-DOCSTART- -X- O\nc X O\n\nd X O\n"
    corpus = read_conll(write(text))
    assert corpus.tokens == [["a"], ["b"], ["c"], ["d"]]
    assert corpus.documents == [0, 0, 1, 1] and corpus.document_count == 2
    before = read_conll(write("a O\n\n-DOCSTART-\n\nb O\n"))
    assert before.documents == [0, 1]
    third = read_conll(write("1 a O\n\n-DOCSTART- O\n1 b O\n"), columns=["id", "token", "label"])
    assert third.documents == [0, 1]


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_comments_are_no_sentences(write, separator):
    text = (
        "# global.columns = ID FORM\n# newdoc id = one\n# newpar\n# sent_id = 1\n# text = # 1 is it\n"
        "#|SYM|O\n1|NUM|O\n\n# sent_id = 2\n# text = Yes\nYes|UH|O\n#|SYM|O\n\n# newdoc\n# text =\nNo|UH|O\n"
    )
    path = write(text.replace("|", separator))
    for columns in (None, ["token", "pos", "ner"]):
        corpus = read_conll(path, columns=columns, label="ner")
        assert corpus.tokens == [["#", "1"], ["Yes", "#"], ["No"]]
        assert corpus.documents == [0, 0, 1]
    assert list(iterate_sentences(path)) == corpus.tokens


def test_a_hash_is_a_token_where_it_has_its_columns(write):
    assert read_conll(write("# O\n1 O\n")).tokens == [["#", "1"]]
    assert read_conll(write("#\tSYM\tO\n")).tokens == [["#"]]
    assert read_conll(write("#newdoc O\n#1 O\n")).tokens == [["#newdoc", "#1"]]
    # Free comments are told from tokens by their lack of tabs, or of columns.
    assert read_conll(write("# Made by hand\n#\na\tO\n")).tokens == [["a"]]
    assert read_conll(write("# license\na X O\n"), columns=["token", "pos", "label"]).tokens == [["a"]]


def test_strip(write):
    corpus = read_conll(write("中0 B-LOC\n国1 I-LOC\n70 O\n7 O\n\n中1 O\n"), strip="[0-9]$")
    assert corpus.tokens == [["中", "国", "7", "7"], ["中"]]
    assert corpus.tokens[0][0] is corpus.tokens[1][0]
    assert list(iterate_sentences(io.StringIO("a0\n0\n"), strip="[0-9]$")) == [["a", "0"]]


def test_each_distinct_string_is_held_once(write):
    corpus = read_conll(write("word B-PER\nword I-PER\n\nword B-PER\n"), target=Scheme.IOBES)
    assert corpus.tokens[0][0] is corpus.tokens[0][1] is corpus.tokens[1][0]
    kept = read_conll(corpus.path).labels
    assert kept[0][0] is kept[1][0]


def test_conversion_and_repair(write):
    path = write("a I-PER\nb O\nc B-LOC\nd I-ORG\n\ne B-PER\nf B-PER\n\ng B-LOC\n")
    kept = read_conll(path)
    assert kept.scheme is kept.label_scheme is Scheme.IOB2 and kept.strays == 2
    assert kept.labels == [["B-PER", "O", "B-LOC", "B-ORG"], ["B-PER", "B-PER"], ["B-LOC"]]
    for target in (Scheme.IOBES, Scheme.IOB1, Scheme.BILOU, Scheme.BMES):
        converted = read_conll(path, target=target)
        assert converted.label_scheme is target and converted.scheme is Scheme.IOB2
        assert converted.strays == 2 and converted.entity_counts() == kept.entity_counts()
    assert converted.labels[0] == ["S-PER", "O", "S-LOC", "S-ORG"]
    with pytest.raises(CorpusError, match=r"line 1: 'I-PER' may not stand here in IOB2; there are 2 such"):
        read_conll(path, stray="refuse")
    read_conll(write(SMALL), stray="refuse")


def test_iob1_is_found_and_can_be_named(write):
    path = write("a I-PER\nb B-PER\nc O\nd I-LOC\n")
    assert read_conll(path).scheme is Scheme.IOB1
    named = read_conll(path, scheme=Scheme.IOB2, target=Scheme.IOB2)
    assert named.strays == 2 and named.labels == [["B-PER", "B-PER", "O", "B-LOC"]]
    assert read_conll(path, target=Scheme.PLAIN).labels == [["I-PER", "B-PER", "O", "I-LOC"]]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (
            "a O\nb\n",
            {},
            r"line 2: found 1 column in 'b'; expected 2 \(token ... label\), separated by spaces",
        ),
        ("a X O\nb O\n", {}, "line 2: found 2 columns in 'b O' where the lines before have 3"),
        (
            "a X O\n\n" + "y" * 99 + " O\n",
            {"columns": ["token", "pos", "label"]},
            r"line 3: found 2 columns in 'y{57}\.\.\.'; expected 3 \(token, pos, label\)",
        ),
        (
            "a O\nb B-PER\n\nc B_PER\nd I-PER\n",
            {},
            "line 4: 'B_PER' is no label of IOB2; expected O or B-TYPE or",
        ),
        ("a O\nb NN\n", {"scheme": Scheme.IOB2}, "line 2: 'NN' is no label of IOB2"),
        (
            "a O\nb E-X\n",
            {"scheme": Scheme.BILOU},
            "line 2: 'E-X' is no label of BILOU; expected O or B-TYPE or I",
        ),
        ("a NN\nb VB\n", {"target": Scheme.IOBES}, "line 1: labels such as 'NN' are read as plain"),
        ("a\tNN\nb\t\n", {}, "line 2: the label is empty; expected one, or .* where it is not known"),
        ("a\tO\n\tO\n", {}, "line 2: the token is empty"),
        (b"a O\n\nb\xe9 O\n", {}, r"line 3: byte 0xe9 \(number 2 of the line\) is not UTF-8"),
        (gzip.compress(b"a O\n\xff O\n"), {}, "line 2: byte 0xff"),
        ("", {}, "there is no sentence in it"),
        ("\n\n-DOCSTART- O\n\n# newdoc\n", {}, "there is no sentence in it"),
        (gzip.compress(SMALL.encode() * 99)[:-12], {}, "gzip data is damaged or cut short"),
        (gzip.compress(SMALL.encode() * 99)[:40] + b"~~~~" * 9, {}, "gzip data is damaged or cut short"),
        (SMALL, {"columns": ["token", "ner"]}, "no label column 'label'; the columns are: token, ner"),
        (SMALL, {"columns": ["token", "ner"], "label": "token"}, "no label column 'token'"),
        (
            SMALL,
            {"columns": ["word", "label"]},
            "one of the columns must be called 'token'; they are: word, label",
        ),
        (SMALL, {"strip": "["}, r"strip: '\[' is not a regular expression"),
    ],
)
def test_errors_say_where_and_what(write, content, arguments, message):
    path = write(content)
    with pytest.raises(CorpusError, match=message) as caught:
        read_conll(path, **arguments)
    assert caught.value.path == path


def test_a_label_error_gives_the_first_line_it_stands_in(write):
    with pytest.raises(CorpusError) as caught:
        read_conll(write("# newdoc\na O\n\n# text = b\nb B-PER\n\nc B-X\nd I-X\ne PER\n\nf PER\n"))
    assert caught.value.line == 9


def test_files_that_cannot_be_opened(tmp_path):
    for read in (read_conll, lambda path: list(iterate_sentences(path))):
        with pytest.raises(CorpusError, match="there is no such file"):
            read(tmp_path / "absent.txt")
        with pytest.raises(CorpusError, match="this is a directory"):
            read(tmp_path)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(CorpusError, match="cannot be read: Not a directory"):
            read(tmp_path / "file" / "inside")


def test_iterating_needs_no_labels(write):
    assert list(iterate_sentences(write("a\nb O\n\nc\n"))) == [["a", "b"], ["c"]]
    assert list(iterate_sentences(str(write("1\ta\n\n2\tb\tO\n")), columns=["id", "token"])) == [["a"], ["b"]]
    assert list(iterate_sentences(io.BytesIO(b"a\r\n\r\nb"))) == [["a"], ["b"]]
    assert list(iterate_sentences(io.StringIO("a\n\n-DOCSTART-\n\nb"))) == [["a"], ["b"]]
    marked = io.StringIO("a\n\n-DOCSTART-\n\nb\n\nc\n\n# newdoc\nd\n")
    assert list(iterate_documents(marked)) == [(0, ["a"]), (1, ["b"]), (1, ["c"]), (2, ["d"])]
    assert list(iterate_sentences(io.StringIO(""))) == []
    with pytest.raises(CorpusError, match=r"line 2: found 1 column in '2'; expected 2 \(id, token, x\)"):
        list(iterate_sentences(write("1 a\n2\n"), columns=["id", "token", "x"]))
    with pytest.raises(CorpusError, match="not UTF-8"):
        list(iterate_sentences(io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"), encoding="utf-8")))


def test_iterating_a_stream_takes_only_what_it_needs():
    given_out = 0

    def endless():
        nonlocal given_out
        while True:
            given_out += 1
            yield f"{given_out}\n"
            yield "\n"

    sentences = iterate_documents(endless())
    assert [next(sentences) for _ in range(3)] == [(0, ["1"]), (0, ["2"]), (0, ["3"])]
    assert given_out < 6
    [next(sentences) for _ in range(150_000)]
    assert sum(map(sys.getsizeof, sentences.gi_frame.f_locals["forms"])) < 20_000_000


TOKEN = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]), min_size=1, max_size=6)
TOKENS = TOKEN.filter(lambda token: token.strip(" ") == token and not token.startswith(("# ", "\ufeff")))
SENTENCE = st.lists(st.tuples(TOKENS, st.sampled_from(["O", "B-A", "B-B c"])), min_size=1, max_size=4)


@given(st.lists(st.tuples(SENTENCE, st.integers(0, 1)), min_size=1, max_size=5), st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, drawn, with_documents):
    path = tmp_path_factory.mktemp("written") / "corpus.txt"
    pairs = [tuple(map(list, zip(*sentence, strict=True))) for sentence, _ in drawn]
    documents = [0] * len(drawn)
    for index, (_, step) in enumerate(drawn[1:], 1):
        documents[index] = documents[index - 1] + step
    write_conll(path, pairs, documents if with_documents else None)
    corpus = read_conll(path, scheme=Scheme.IOB2)
    assert list(zip(corpus.tokens, corpus.labels, strict=True)) == pairs
    assert corpus.documents == (documents if with_documents else [0] * len(drawn))
    assert list(iterate_sentences(path)) == corpus.tokens


def test_the_written_form():
    stream = io.StringIO()
    write_conll(stream, [(["New York", "#"], ["B-LOC", "O"]), (["a"], ["O"])], [0, 1])
    assert stream.getvalue() == "-DOCSTART- O\n\nNew York\tB-LOC\n#\tO\n\n-DOCSTART- O\n\na\tO\n\n"
    stream = io.StringIO()
    write_conll(stream, [(["#", "b c"], ["O", "O"]), (["#"], ["O"])])
    assert stream.getvalue() == "#\tO\nb c\tO\n\n#\tO\n\n"
    stream = io.StringIO()
    write_conll(stream, [(["a", "b c", "d"], ["O"] * 3)])
    assert stream.getvalue() == "a O\nb c\tO\nd O\n\n"


@pytest.mark.parametrize("text", ["", " ", " a", "a ", "a\tb", "a\nb", "a\r", "-DOCSTART-"])
def test_what_would_not_be_read_back_is_refused(text):
    for tokens, labels in (([text], ["O"]), (["a"], [text])):
        with pytest.raises(CorpusError, match="cannot be written"):
            write_conll(io.StringIO(), [(tokens, labels)])


def test_writing_needs_equal_lengths_and_a_file(tmp_path):
    with pytest.raises(CorpusError, match="file: cannot be written: No such file or directory"):
        write_conll(tmp_path / "absent" / "file", [])
    with pytest.raises(CorpusError, match="2 tokens and 1 labels"):
        write_conll(io.StringIO(), [(["a", "b"], ["O"])])
    with pytest.raises(ValueError, match="shorter"):
        write_conll(io.StringIO(), [(["a"], ["O"]), (["b"], ["O"])], [0])
