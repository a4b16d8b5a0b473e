from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split, read_split
from nertool.errors import CorpusError, NertoolError
from nertool.formats import conll
from nertool.formats.columns import find_columns
from nertool.formats.registry import ReadOptions, Report, WriteOptions, find_format
from nertool.text.document import Document
from nertool.text.schemes import Scheme

FORMAT = find_format("conll")


@pytest.fixture
def write(tmp_path):
    def write(content, name="corpus.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read(path: Path, target: Scheme | None = None, **settings) -> Split:
    return read_split(path, CorpusConfig(train="unused", format="conll", **settings), target)


def rows(split: Split) -> list[list[str]]:
    return [list(sentence.tokens) for sentence in split.sentences]


def stream(source, **options) -> list[list[str]]:
    """The tokens of each sentence, of a file or of lines, labels or not."""
    options = ReadOptions(labelled=False, **options)
    if isinstance(source, Path):
        documents = FORMAT.read(source, options, Report())
    else:
        documents = FORMAT.read_lines(source, "lines", options, Report())
    return [list(sentence.tokens) for document in documents for sentence in document.sentences()]


def text_of(documents, **options) -> str:
    target = io.StringIO()
    FORMAT.write_stream(target, documents, WriteOptions(**options))
    return target.getvalue()


def ids(split: Split) -> list[str | None]:
    return [sentence.id for sentence in split.sentences]


SMALL = "Ada B-PER\nsings O\n\nOslo B-LOC\n\n"


def test_a_small_file(write):
    path = write(SMALL)
    corpus = read(path)
    assert rows(corpus) == [["Ada", "sings"], ["Oslo"]]
    assert corpus.labels == [["B-PER", "O"], ["B-LOC"]]
    assert ids(corpus) == [None, None]
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
        gzip.compress(SMALL.encode(), mtime=0),
        gzip.compress(b"\xef\xbb\xbf" + SMALL.encode(), mtime=0),
    ],
)
def test_the_same_file_written_otherwise(write, content):
    corpus = read(write(content))
    assert rows(corpus) == [["Ada", "sings"], ["Oslo"]]
    assert corpus.labels == [["B-PER", "O"], ["B-LOC"]]


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2028", "\u2029", "\u0085", "\x1c", "\x0b", "\x0c"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_blanks_that_are_no_separators_stay_in_tokens(write, blank, separator):
    lines = [blank, f"10{blank}000", f"{blank}x{blank}"]
    path = write("".join(f"{token}{separator}O\n" for token in lines))
    assert rows(read(path)) == stream(path) == [lines]


def test_long_tokens_and_tokens_with_spaces(write):
    token = "x" * 10_000
    assert rows(read(write(f"{token} O\n"))) == [[token]]
    corpus = read(write("New York\tB-LOC\nis  big\tO\n"))
    assert rows(corpus) == [["New York", "is  big"]]


def test_columns_are_found_by_name(write):
    path = write("1 Ada NNP B-PER x\n2 sings VBZ O x\n")
    columns = ["id", "token", "pos", "ner"]  # lines may have more
    assert read(path, columns=columns, label="ner").labels == [["B-PER", "O"]]
    tags = read(path, columns=columns, label="pos")
    assert tags.labels == [["NNP", "VBZ"]] and tags.scheme is Scheme.PLAIN
    assert not tags.entity_counts() and rows(tags) == [["Ada", "sings"]]


def test_further_columns_are_kept(write):
    path = write("1 Ada NNP B-PER x\n2 sings VBZ O y\n")
    named = read(path, columns=["id", "token", "pos", "ner"], label="ner").documents[0]
    assert named.columns == {"id": ("1", "2"), "pos": ("NNP", "VBZ")}
    path = write("Ada NNP x B-PER\nsings VBZ y O\n\nOslo NNP z B-LOC\n")
    first, second = read(path).documents
    assert first.columns == {"2": ("NNP", "VBZ"), "3": ("x", "y")} and second.columns == {
        "2": ("NNP",),
        "3": ("z",),
    }
    assert text_of([first, second]) == path.read_text() + "\n"
    ragged = next(
        iter(FORMAT.read_lines(iter(["a X", "b", "c X Y Z"]), "lines", ReadOptions(labelled=False), Report()))
    )
    assert ragged.tokens == ("a", "b", "c") and ragged.columns == {
        "2": ("X", "_", "X"),
        "3": ("_", "_", "Y"),
        "4": ("_", "_", "Z"),
    }


def test_documents(write):
    text = "-DOCSTART- -X- O\n\na X O\n\nb X O\n-DOCSTART- -X- O\n\n-DOCSTART- -X- O\nc X O\n\nd X O\n"
    corpus = read(write(text))
    assert [document.tokens for document in corpus.documents] == [("a", "b"), ("c", "d")]
    assert rows(corpus) == [["a"], ["b"], ["c"], ["d"]]
    assert ids(corpus) == ["1", "1", "2", "2"] and corpus.document_count == 2
    assert [corpus.place(n) for n in range(4)] == ["line 3", "line 5", "line 9", "line 11"]
    before = read(write("a O\n\nb O\n\n-DOCSTART-\n\nb O\n"))
    assert ids(before) == [None, None, "1"] and before.document_count == 2
    third = read(write("1 a O\n\n-DOCSTART- O\n1 b O\n"), columns=["id", "token", "label"])
    assert ids(third) == [None, "1"]


def test_long_documents_come_in_parts(write, monkeypatch):
    monkeypatch.setattr(conll, "PART_SIZE", 5)
    corpus = read(write("-DOCSTART- O\n\n" + "a O\nb B-X\n\n" * 7 + "-DOCSTART- O\n\nc O\n"))
    assert [(document.id, len(document)) for document in corpus.documents] == [
        ("1", 6),
        ("1", 6),
        ("1", 2),
        ("2", 1),
    ]
    assert corpus.document_count == 2 and len(corpus) == 8 and corpus.place(6, 1) == "line 22"
    assert text_of(corpus.documents).count("-DOCSTART-") == 2


CONLLU = """\
# newdoc id = d1
# sent_id = 1
# text = Vamos al Prado.
1|Vamos|ir|VERB|O
2-3|al|_|_|_
2|a|a|ADP|O
3|el|el|DET|O
4|Prado|Prado|PROPN|B-LOC
4.1|_|_|_|_
5|.|.|PUNCT|I-X

""".replace("|", "\t")


def test_conllu(write):
    path = write(CONLLU, "corpus.conllu")
    with pytest.raises(CorpusError, match=r"line 4: the first column counts the tokens .* name the columns"):
        read(path)
    corpus = read(path, columns=["id", "token", "lemma", "upos", "ner"], label="ner")
    (document,) = corpus.documents
    assert document.tokens == ("Vamos", "a", "el", "Prado", ".") and document.id == "1"
    assert document.columns["id"] == ("1", "2", "3", "4", "5")
    # Lines without a token count as lines.
    assert (
        corpus.stray_places == [(0, 4, "I-X")]
        and corpus.place(0, 4) == "line 10"
        and corpus.place(0, 1) == "line 6"
    )


def test_numbers_may_be_tokens(write):
    assert rows(read(write("1 X O\n2 X O\n\nover X O\nand X O\n"))) == [["1", "2"], ["over", "and"]]
    assert rows(read(write("1 O\n2 O\n"))) == [["1", "2"]]
    with pytest.raises(CorpusError, match="line 1: the first column counts"):
        read(write("0 Ada O\n1 sings O\n\n0 She O\n1 sings O\n"))


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_comments_are_no_sentences(write, separator):
    text = (
        "# global.columns = ID FORM\n# newdoc id = one\n# newpar\n# sent_id = 1\n# text = # 1 is it\n"
        "#|SYM|O\n1|NUM|O\n\n# sent_id = 2\n# text = Yes\nYes|UH|O\n#|SYM|O\n\n# newdoc\n# text =\nNo|UH|O\n"
    )
    path = write(text.replace("|", separator))
    for settings in ({}, {"columns": ["token", "pos", "ner"], "label": "ner"}):
        corpus = read(path, **settings)
        assert rows(corpus) == [["#", "1"], ["Yes", "#"], ["No"]]
        assert ids(corpus) == ["1", "1", "2"]
    assert stream(path) == rows(corpus)


def test_a_hash_is_a_token_where_it_has_its_columns(write):
    assert rows(read(write("# O\n1 O\n"))) == [["#", "1"]]
    assert rows(read(write("#\tSYM\tO\n"))) == [["#"]]
    assert rows(read(write("#newdoc O\n#1 O\n"))) == [["#newdoc", "#1"]]
    # Free comments are told from tokens by their lack of tabs, or of columns.
    assert rows(read(write("# Made by hand\n#\na\tO\n"))) == [["a"]]
    assert rows(read(write("# license\na X O\n"), columns=["token", "pos", "label"])) == [["a"]]


def test_strip(write):
    corpus = read(write("中0 B-LOC\n国1 I-LOC\n70 O\n7 O\n\n中1 O\n"), strip="[0-9]$")
    assert rows(corpus) == [["中", "国", "7", "7"], ["中"]]
    assert rows(corpus)[0][0] is rows(corpus)[1][0]
    assert stream(iter(["a0", "0"]), strip="[0-9]$") == [["a", "0"]]


def test_each_distinct_string_is_held_once(write):
    corpus = read(write("word B-PER\nword I-PER\n\nword B-PER\n"), Scheme.IOBES)
    tokens = rows(corpus)
    assert tokens[0][0] is tokens[0][1] is tokens[1][0]
    kept = read(corpus.path).labels
    assert kept[0][0] is kept[1][0]


def test_conversion_and_repair(write):
    path = write("a I-PER\nb O\nc B-LOC\nd I-ORG\n\ne B-PER\nf B-PER\n\ng B-LOC\n")
    kept = read(path)
    assert kept.scheme is kept.label_scheme is Scheme.IOB2 and kept.strays == 2
    assert kept.labels == [["B-PER", "O", "B-LOC", "B-ORG"], ["B-PER", "B-PER"], ["B-LOC"]]
    for target in (Scheme.IOBES, Scheme.IOB1, Scheme.BILOU, Scheme.BMES):
        converted = read(path, target)
        assert converted.label_scheme is target and converted.scheme is Scheme.IOB2
        assert converted.strays == 2 and converted.entity_counts() == kept.entity_counts()
    assert converted.labels[0] == ["S-PER", "O", "S-LOC", "S-ORG"]
    with pytest.raises(CorpusError, match=r"line 1: 'I-PER' is not allowed here in IOB2; there are 2 such"):
        read(path, stray="refuse")
    read(write(SMALL), stray="refuse")


def test_iob1_is_detected_and_can_be_named(write):
    path = write("a I-PER\nb B-PER\nc O\nd I-LOC\n")
    assert read(path).scheme is Scheme.IOB1
    named = read(path, Scheme.IOB2, scheme="IOB2")
    assert named.strays == 2 and named.labels == [["B-PER", "B-PER", "O", "B-LOC"]]
    assert read(path, Scheme.PLAIN).labels == [["I-PER", "B-PER", "O", "I-LOC"]]


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
            "line 4: 'B_PER' is not a label of IOB2; expected O or B-TYPE or",
        ),
        ("a O\nb NN\n", {"scheme": "IOB2"}, "line 2: 'NN' is not a label of IOB2"),
        (
            "a O\nb E-X\n",
            {"scheme": "BILOU"},
            "line 2: 'E-X' is not a label of BILOU; expected O or B-TYPE or I",
        ),
        ("a NN\nb VB\n", {"target": Scheme.IOBES}, "line 1: labels such as 'NN' are read as plain"),
        ("a\tNN\nb\t\n", {}, "line 2: the label is empty; expected one, or .* where it is not known"),
        ("a\tO\n\tO\n", {}, "line 2: the token is empty"),
        (b"a O\n\nb\xe9 O\n", {}, r"line 3: byte 0xe9 \(number 2 of the line\) is not UTF-8"),
        (gzip.compress(b"a O\n\xff O\n", mtime=0), {}, "line 2: byte 0xff"),
        ("", {}, "there is no sentence in it"),
        ("\n\n-DOCSTART- O\n\n# newdoc\n", {}, "there is no sentence in it"),
        (gzip.compress(SMALL.encode() * 99, mtime=0)[:-12], {}, "gzip data is corrupt or truncated"),
        (gzip.compress(SMALL.encode() * 99, mtime=0)[:40] + b"~~~~" * 9, {}, "gzip data is corrupt or truncated"),
    ],
)
def test_errors_say_where_and_what(write, content, arguments, message):
    path = write(content)
    with pytest.raises(CorpusError, match=message) as caught:
        read(path, **arguments)
    assert str(caught.value.path) == str(path)


@pytest.mark.parametrize(
    ("content", "advice", "never"),
    [
        ("Malmö B-LOC\nÅbo B-LOC\n".encode("cp1252"), "iconv -f cp1252 -t utf-8", "ruin"),
        ("Malmö B-LOC\nÅbo B-LOC\n\nÖrebro O\n\n".encode() + b"caf\xc3 O\n", "this line is damaged", "iconv"),
    ],
    ids=["another encoding", "one damaged byte"],
)
def test_the_advice_about_bytes_does_no_harm(write, content, advice, never):
    with pytest.raises(CorpusError, match=advice) as caught:
        read(write(content))
    assert never not in str(caught.value)


@pytest.mark.parametrize(("count", "noted"), [(3, False), (200, True)])
def test_a_file_without_empty_lines_is_noted(write, count, noted):
    notes = read_split(write("Ada B-PER\nleft O\n" * count), CorpusConfig(train="unused")).notes()
    assert (
        any("its only sentence has 400 tokens; an empty line ends a sentence" in note for note in notes) is noted
    )


@pytest.mark.parametrize(
    ("columns", "label", "message"),
    [
        (["token", "ner"], "label", "no label column 'label'; the columns are: token, ner"),
        (["token", "ner"], "token", "no label column 'token'"),
        (["word", "label"], "label", "one of the columns must be called 'token'; they are: word, label"),
    ],
)
def test_columns_that_are_missing(columns, label, message):
    with pytest.raises(CorpusError, match=message):
        find_columns(columns, label, None)
    with pytest.raises(CorpusError, match="strip: not a regular expression"):
        stream(iter(["a"]), strip="[")


def test_words_are_no_labels(write):
    prose = write("".join(f"They saw ship number{n}\n" for n in range(12)))
    with pytest.raises(CorpusError, match="line 1: 'number0' is read as a label, and 12 of 12 labels differ"):
        read(prose)
    assert read(prose, scheme="plain").labels[0][:2] == ["number0", "number1"]
    tags = write("".join(f"word{n} {'NOUN' if n % 2 else 'VERB'}\n" for n in range(12)))
    assert read(tags).scheme is Scheme.PLAIN


def test_a_label_error_gives_the_first_line_it_stands_in(write):
    with pytest.raises(CorpusError) as caught:
        read(write("# newdoc\na O\n\n# text = b\nb B-PER\n\nc B-X\nd I-X\ne PER\n\nf PER\n"))
    assert caught.value.line == 9


def test_files_that_cannot_be_opened(tmp_path):
    for read_file in (read, stream):
        with pytest.raises(CorpusError, match="there is no such file"):
            read_file(tmp_path / "absent.txt")
        with pytest.raises(CorpusError, match="this is a directory"):
            read_file(tmp_path)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(CorpusError, match="cannot be read: Not a directory"):
            read_file(tmp_path / "file" / "inside")


def test_tokens_alone_need_no_labels(write):
    assert stream(write("a\nb O\n\nc\n")) == [["a", "b"], ["c"]]
    assert stream(write("1\ta\n\n2\tb\tO\n"), columns=("id", "token")) == [["a"], ["b"]]
    assert stream(iter(["a", "", "b"])) == [["a"], ["b"]]
    assert stream(iter([])) == []
    marked = iter(["a", "", "-DOCSTART-", "", "b", "", "c", "", "# newdoc", "d"])
    documents = FORMAT.read_lines(marked, "lines", ReadOptions(labelled=False), Report())
    assert [(document.id, document.tokens) for document in documents] == [
        (None, ("a",)),
        ("1", ("b", "c")),
        ("2", ("d",)),
    ]
    with pytest.raises(CorpusError, match=r"line 2: found 1 column in '2'; expected 2 \(id, token, x\)"):
        stream(write("1 a\n2\n"), columns=("id", "token", "x"))
    with pytest.raises(CorpusError, match="not UTF-8"):
        stream(io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"), encoding="utf-8"))


def test_a_stream_is_read_no_further_than_needed():
    given_out = 0

    def endless():
        nonlocal given_out
        while True:
            given_out += 1
            yield f"{given_out}"
            yield ""

    documents = FORMAT.read_lines(endless(), "lines", ReadOptions(labelled=False), Report())
    assert [next(documents).tokens for _ in range(3)] == [("1",), ("2",), ("3",)]
    assert given_out < 6
    [next(documents) for _ in range(150_000)]
    assert sum(map(sys.getsizeof, documents.gi_frame.f_locals["collected"].forms)) < 20_000_000


TOKEN = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]), min_size=1, max_size=6)
TOKENS = TOKEN.filter(
    lambda token: token.strip(" ") == token and not token.startswith(("# ", "\ufeff")) and not token.isdecimal()
)
SENTENCE = st.lists(st.tuples(TOKENS, st.sampled_from(["O", "B-A", "B-B c"])), min_size=1, max_size=4)


@given(st.lists(st.tuples(SENTENCE, st.integers(0, 1)), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, drawn, with_documents, with_column):
    path = tmp_path_factory.mktemp("written") / "corpus.txt"
    documents, number = [], 1
    for sentence, step in drawn:
        tokens, labels = zip(*sentence, strict=True)
        number += step
        identity = str(number) if with_documents else None
        columns = {"2": tuple("" if label == "O" else label[2:] for label in labels)} if with_column else {}
        documents.append(Document(tokens, labels=labels, id=identity, columns=columns))
    FORMAT.write(path, documents, WriteOptions(), Report())
    corpus = read(path, scheme="IOB2")
    assert [(sentence.tokens, sentence.labels, sentence.columns) for sentence in corpus.sentences] == [
        (document.tokens, document.labels, document.columns) for document in documents
    ]
    numbers = dict.fromkeys(document.id for document in documents)
    renamed = {old: str(new) for new, old in enumerate(numbers, 1)} if with_documents else {None: None}
    assert ids(corpus) == [renamed[document.id] for document in documents]
    assert stream(path) == rows(corpus)


def sentence(tokens, labels, **rest) -> Document:
    return Document(tuple(tokens), labels=tuple(labels), **rest)


def test_the_written_form():
    documents = [sentence(["New York", "#"], ["B-LOC", "O"], id="x"), sentence(["a"], ["O"], id="y")]
    assert text_of(documents) == "-DOCSTART- O\n\nNew York\tB-LOC\n#\tO\n\n-DOCSTART- O\n\na\tO\n\n"
    documents = [sentence(["#", "b c"], ["O", "O"]), sentence(["#"], ["O"])]
    assert text_of(documents) == "#\tO\nb c\tO\n\n#\tO\n\n"
    assert text_of([sentence(["a", "b c", "d"], ["O"] * 3)]) == "a O\nb c\tO\nd O\n\n"
    assert text_of([sentence(["a", "b"], ["O", "O"], columns={"pos": ("X", "")})]) == "a X O\nb\t\tO\n\n"
    several = Document(("a", "b", "c"), labels=("B-X", "I-X", "B-X"), sentence_starts=(0, 2), scheme=Scheme.IOB2)
    assert text_of([several], scheme=Scheme.IOBES) == "a B-X\nb E-X\n\nc S-X\n\n"


def test_unknown_labels_are_written_as_such():
    assert text_of([Document(("a", "b"))]) == "a ?\nb ?\n\n"
    part = sentence(["a", "b", "c", "d"], ["B-X", "", "O", "B-X"], scheme=Scheme.IOB2)
    assert text_of([part]) == "a B-X\nb ?\nc O\nd B-X\n\n"
    # Whether the entity ends at a depends on the label of b.
    assert text_of([part], scheme=Scheme.IOBES) == "a ?\nb ?\nc O\nd S-X\n\n"


def test_texts_are_documents_where_one_has_several_sentences(tmp_path):
    def text(*sentences: str) -> Document:
        tokens = [token for each in sentences for token in each.split()]
        starts = [sum(len(each.split()) for each in sentences[:n]) for n in range(len(sentences))]
        offsets = tuple((2 * n, 2 * n + 1) for n in range(len(tokens)))
        return Document(tuple(tokens), " ".join(tokens), offsets, tuple(starts), ("O",) * len(tokens))

    path = tmp_path / "out.txt"
    FORMAT.write(path, [text("a b"), text("c"), text("d", "e")], WriteOptions(), Report())
    assert path.read_text().count("-DOCSTART-") == 3
    FORMAT.write(path, [text("a b"), text("c"), text("d e")], WriteOptions(), Report())
    assert "-DOCSTART-" not in path.read_text()


@pytest.mark.parametrize("text", ["", " ", " a", "a ", "a\tb", "a\nb", "a\r", "-DOCSTART-"])
def test_what_would_not_be_read_back_is_refused(text):
    for tokens, labels in (([text], ["O"]), (["a"], [text])):
        if labels != [""]:  # which is an unknown label
            with pytest.raises(CorpusError, match="cannot be written"):
                text_of([sentence(tokens, labels)])


def test_columns_that_differ_and_files_that_cannot_be_written(tmp_path):
    with pytest.raises(CorpusError, match=r"columns differ between documents, .* \(none; pos\)"):
        text_of([sentence(["a"], ["O"]), sentence(["a"], ["O"], columns={"pos": ("X",)})])
    with pytest.raises(NertoolError, match=r"file: cannot be written: there is no folder .*absent"):
        FORMAT.write(tmp_path / "absent" / "file", [], WriteOptions(), Report())
