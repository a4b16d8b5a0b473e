from __future__ import annotations

import json
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nertool.cli.main import main
from nertool.config.schema import CorpusConfig
from nertool.errors import CorpusError
from nertool.formats.conll import read_conll, write_conll
from nertool.formats.convert import READERS, WRITERS, convert_file, format_of
from nertool.formats.texts import Mark, Report, Settings, Text, fit, in_documents, join, together
from nertool.text.schemes import Scheme, Span, spans
from nertool.text.tokenization import Rules, at_blanks

ENGLISH = Rules("en")
SPACED = "Ada Byron wrote to Babbage .\nOslo\n"
NAMES = {"conll": "out.txt", "jsonl": "out.jsonl", "brat": "out", "spacy": "out.spacy", "parquet": "out.parquet"}


def reading(cut=at_blanks, snap=False, **corpus):
    return Settings(CorpusConfig(train="unused", **corpus), cut, snap)


def read(path, cut=at_blanks, snap=False, kind=None):
    report = Report()
    texts = list(READERS[kind or format_of(path)](path, reading(cut, snap), report))
    return texts, report


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(main, list(map(str, arguments)))

    return invoke


WORD = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=5)
WORDS = WORD.filter(lambda word: not word.startswith("#"))


@st.composite
def corpora(draw):
    """Sentences with labels in IOB2, and their documents."""
    pairs = []
    for words in draw(st.lists(st.lists(WORDS, min_size=1, max_size=6), min_size=1, max_size=5)):
        labels, before = [], "O"
        for _ in words:
            choices = ["O", "B-PER", "B-x-y"] + ([f"I{before[1:]}"] if before != "O" else [])
            before = draw(st.sampled_from(choices))
            labels.append(before)
        pairs.append((words, labels))
    steps = [draw(st.booleans()) for _ in pairs[1:]]
    documents = [0]
    for step in steps:
        documents.append(documents[-1] + step)
    return pairs, documents


@pytest.mark.parametrize("kind", ["conll", "jsonl", "brat", "spacy", "parquet"])
@settings(max_examples=25)
@given(drawn=corpora(), scheme=st.sampled_from([scheme for scheme in Scheme if scheme is not Scheme.PLAIN]))
def test_there_and_back_nothing_is_lost(tmp_path_factory, kind, drawn, scheme):
    folder = tmp_path_factory.mktemp("there")
    pairs, documents = drawn
    write_conll(folder / "in.txt", pairs, documents)
    there = convert_file(folder / "in.txt", folder / NAMES[kind], reading(scheme="IOB2"), scheme, None, kind)
    written = scheme.value if kind in ("conll", "parquet") else "detect"
    back = convert_file(folder / NAMES[kind], folder / "back.txt", reading(scheme=written), Scheme.IOB2, kind)
    assert there.report == back.report == Report()
    corpus = read_conll(folder / "back.txt", scheme=Scheme.IOB2)
    assert list(zip(corpus.tokens, corpus.labels, strict=True)) == pairs
    # Where each Doc or file is one sentence, nothing tells that they are documents.
    single = kind in ("spacy", "brat") and len(set(documents)) == len(pairs)
    assert corpus.documents == ([0] * len(pairs) if single else documents)
    assert (there.sentences, there.tokens) == (back.sentences, back.tokens) == (len(pairs), corpus.token_count)
    assert there.entities == back.entities == sum(len(spans(labels, Scheme.IOB2)) for _, labels in pairs)


RAW = st.text(st.sampled_from("ab .,-'\n\tÄ語😀"), max_size=40)


@given(RAW, st.lists(st.tuples(st.integers(-2, 42), st.integers(-2, 44)), max_size=5), st.booleans())
def test_every_mark_is_kept_or_listed_and_offsets_are_exact(text, places, snap):
    marks = [Mark(f"m{number}", start, end, "X") for number, (start, end) in enumerate(places)]
    report = Report()
    found = fit(text, ENGLISH(text), marks, reading(snap=snap), report)
    assert len(found.spans) + len(report.misfits) == len(marks)
    kept = [(found.offsets[s.start][0], found.offsets[s.end - 1][1]) for s in found.spans]
    assert all(left[1] <= right[0] for left, right in pairwise(kept))
    if snap:
        assert all(any(start < b and a < end for a, b in places) for start, end in kept)
    else:
        assert set(kept) <= set(places) and not report.widened
    assert not set(found.ends) & {p for s in found.spans for p in range(s.start + 1, s.end)}


@settings(max_examples=30)
@given(st.lists(RAW.filter(lambda text: text.strip()), min_size=1, max_size=3))
def test_raw_texts_keep_every_character(tmp_path_factory, raw):
    folder = tmp_path_factory.mktemp("raw")
    lines = [json.dumps({"text": text, "entities": []}) for text in raw]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts, report = read(folder / "in.jsonl", ENGLISH)
    assert [text.text for text in texts] == raw and report == Report()
    for name in ("out.spacy", "out.jsonl"):
        convert_file(folder / "in.jsonl", folder / name, reading(ENGLISH), Scheme.IOB2)
        again, _ = read(folder / name)
        assert [(t.text, t.offsets, t.spans) for t in again] == [(t.text, t.offsets, t.spans) for t in texts]


def test_the_scheme_of_columns(tmp_path):
    (tmp_path / "in.txt").write_text("a I-X\nb B-X\nc O\n", encoding="utf-8")
    for scheme, labels in (("BILOU", "U-X U-X O"), ("IOBES", "S-X S-X O"), ("IOB1", "I-X B-X O")):
        convert_file(tmp_path / "in.txt", tmp_path / "out.txt", reading(scheme="IOB1"), Scheme(scheme))
        assert [line.split()[1] for line in (tmp_path / "out.txt").read_text().split("\n")[:3]] == labels.split()


def test_plain_tags_go_where_there_are_labels(tmp_path):
    (tmp_path / "in.txt").write_text("a NN\nb VB\n\nc NN\n", encoding="utf-8")
    for name in ("out.parquet", "out.conll"):
        convert_file(tmp_path / "in.txt", tmp_path / name, reading(), Scheme.IOB2)
        assert [text.tags for text in read(tmp_path / name)[0]] == [["NN", "VB"], ["NN"]]
    for name in ("out.jsonl", "out.spacy", "out"):
        with pytest.raises(CorpusError, match="plain tags mark no entities"):
            convert_file(tmp_path / "in.txt", tmp_path / name, reading(), Scheme.IOB2)


class TestFit:
    def fit(self, *marks, snap=False, text="Mr. Byron's dog ran."):
        report = Report()
        made = [Mark(f"line {number}", start, end, "X") for number, (start, end) in enumerate(marks, 1)]
        return fit(text, ENGLISH(text), made, reading(snap=snap), report), report

    def test_what_fits(self):
        found, report = self.fit((4, 9), (12, 15))
        assert found.spans == [Span(1, 2, "X"), Span(3, 4, "X")] and report == Report()

    def test_inside_a_token(self):
        found, report = self.fit((5, 9), (16, 20))
        assert found.spans == [Span(4, 6, "X")]
        assert report.misfits == [
            "line 1: X [5, 9) 'yron' does not fall on token borders; the tokens there are 'Byron'"
        ]
        found, report = self.fit((5, 10), snap=True)
        assert found.spans == [Span(1, 3, "X")] and not report.misfits
        assert report.widened == ['line 1: X [5, 10) "yron\'" became "Byron\'s"']

    def test_outside_or_of_blanks(self):
        _, report = self.fit((3, 4), (-1, 2), (18, 21), (6, 6))
        reasons = sorted(line.partition(") ")[2] for line in report.misfits)
        assert reasons == ["' ' holds no token", *["lies outside the text"] * 3]

    def test_nested_and_overlapping(self):
        found, report = self.fit((4, 11), (4, 9), (9, 15), (12, 15), (12, 15))
        assert found.spans == [Span(1, 3, "X"), Span(3, 4, "X")]
        assert [line.partition(": ")[0] for line in report.misfits] == ["line 2", "line 3", "line 5"]
        assert report.misfits[0].endswith("'Byron' overlaps X \"Byron's\", which is kept")

    def test_a_sentence_does_not_end_inside_an_entity(self):
        found, report = self.fit((0, 8), text="Yahoo! Go is here. It is.")
        assert report.misfits and not found.spans  # inside "Go"
        found, _ = self.fit((0, 9), text="Yahoo! Go is here. It is.")
        assert found.spans == [Span(0, 3, "X")] and found.ends == [6, 9]


class TestJsonLines:
    def test_what_tag_writes_is_read(self, tmp_path):
        path = tmp_path / "tagged.jsonl"
        entity = {"start": 0, "end": 4, "label": "LOC", "text": "Oslo", "score": 0.9}
        tree = {"text": "Oslo  wins.", "tokens": ["Oslo", "wins", "."], "labels": ["B-LOC", "O", "O"]}
        path.write_text(json.dumps({**tree, "entities": [entity]}) + "\n\n", encoding="utf-8")
        (text,), report = read(path)
        assert text.offsets == [(0, 4), (6, 10), (10, 11)] and text.spans == [Span(0, 1, "LOC")]
        assert text.ends == [3] and report == Report()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 1: not JSON"),
            ("[]", "expected an object with the key text"),
            ('{"text": 1}', "expected an object with the key text"),
            ('{"text": "a", "tokens": "a"}', "tokens: expected a list of strings"),
            ('{"text": "a", "entities": [1]}', "entities: expected a list of objects"),
            ('{"text": "a", "entities": [{"start": 0, "end": "1", "label": "X"}]}', "expected start and end"),
            ('{"text": "a", "entities": [{"start": 0, "end": 1}]}', "expected a label"),
            ('{"text": "a b", "tokens": ["b", "a"]}', "'a' does not follow in the text"),
            ('{"text": "a", "tokens": [""]}', "'' does not follow"),
            ('{"text": "a b", "tokens": ["a", "b"], "sentences": [1]}', "sentences: expected where each ends"),
            ('{"text": "a", "document": "x"}', "document: expected a number"),
        ],
    )
    def test_errors(self, tmp_path, line, message):
        path = tmp_path / "wrong.jsonl"
        path.write_text(line + "\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=message) as caught:
            read(path)
        assert (caught.value.path, caught.value.line) == (path, 1)


class TestBrat:
    def pair(self, folder, text, annotations, name="doc"):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.txt").write_bytes(text.encode())
        (folder / f"{name}.ann").write_text(annotations, encoding="utf-8")
        return folder / f"{name}.ann"

    def test_a_pair(self, tmp_path):
        path = self.pair(tmp_path, SPACED, "T1\tPER 0 9\tAda Byron\nT2\tLOC 29 33\tOslo\n")
        for named in (path, path.with_suffix(".txt"), tmp_path):
            (text,), report = read(named)
            assert text.spans == [Span(0, 2, "PER"), Span(6, 7, "LOC")] and report == Report()
            assert text.text == SPACED and text.name == "doc" and text.ends == [6, 7]

    def test_offsets_count_line_ends_as_they_are(self, tmp_path):
        path = self.pair(tmp_path, "Ada\r\nOslo 😀 Rome\r\n", "T1\tLOC 5 9\tOslo\r\nT2\tLOC 12 16\tRome\r\n")
        (text,), report = read(path)
        assert [text.tokens[span.start] for span in text.spans] == ["Oslo", "Rome"] and report == Report()

    def test_what_does_not_fit_is_listed(self, tmp_path):
        lines = [
            "T1\tPER 0 3;19 26\tAda Babbage",
            "T2\tPER 0 9\tAda Byron",
            "T3\tPER 4 9\tByron",
            "T4\tLOC 29 32\tOsl",
            "T5\tLOC 29 33\tRome",
            "R1\tKnows Arg1:T1 Arg2:T2",
            "#1\tAnnotatorNotes T1\thm",
            "T6\tX 4 9;10 15\tByron wrote",
            "T7\tX 900 910\tnowhere",
        ]
        path = self.pair(tmp_path, SPACED, "\n".join(lines) + "\n")
        (text,), report = read(path)
        assert text.spans == [Span(0, 2, "PER")]
        shown = "\n".join(report.misfits)
        assert f"{path}, line 1 (T1): PER 'Ada Babbage' is in several pieces: 0 3;19 26" in shown
        assert "line 3 (T3): PER [4, 9) 'Byron' overlaps PER 'Ada Byron'" in shown
        assert "line 4 (T4): LOC [29, 32) 'Osl' does not fall on token borders" in shown
        assert "line 5 (T5): LOC 'Rome' stands elsewhere; the text at [29, 33) is 'Oslo'" in shown
        assert "line 8 (T6): X [4, 15) 'Byron wrote' overlaps" in shown  # its pieces are only parted by a blank
        assert "line 9 (T7): X [900, 910) lies outside the text" in shown and len(report.misfits) == 6
        assert report.notes == [f"{path}: 2 lines that are no entities (relations, notes, ...) left out"]

    def test_folders(self, tmp_path):
        self.pair(tmp_path / "in", "Oslo\n", "T1\tLOC 0 4\tOslo\n", "b")
        self.pair(tmp_path / "in", "Ada\n", "", "a")
        (tmp_path / "in" / "c.txt").write_text("bare\n", encoding="utf-8")
        texts, report = read(tmp_path / "in")
        assert [text.name for text in texts] == ["a", "b"]
        assert report.notes == [
            f"{tmp_path / 'in'}: 1 .txt files have no .ann file beside them and were left out: c.txt"
        ]
        convert_file(tmp_path / "in", tmp_path / "out", reading(), Scheme.IOB2)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.ann", "a.txt", "b.ann", "b.txt"]
        assert (tmp_path / "out" / "b.ann").read_text() == "T1\tLOC 0 4\tOslo\n"
        with pytest.raises(CorpusError, match="there are 2 documents, and this is one file: name a folder"):
            convert_file(tmp_path / "in", tmp_path / "one.ann", reading(), Scheme.IOB2)

    def test_errors(self, tmp_path):
        path = self.pair(tmp_path, SPACED, "T1\tPER 0\tAda\n")
        with pytest.raises(CorpusError, match=r"doc\.ann, line 1: .* is no entity; expected T1, a tab"):
            read(path)
        path.unlink()
        with pytest.raises(CorpusError, match=r"doc\.ann: there is no such file; brat needs"):
            read(path.with_suffix(".txt"), kind="brat")
        with pytest.raises(CorpusError, match=r"no \.txt file with an \.ann file beside it"):
            read(tmp_path)


def test_docs_that_are_labelled_in_part(tmp_path):
    from spacy.tokens import Doc, DocBin
    from spacy.vocab import Vocab

    words = ["Ada", "sang", ".", "Oslo", "won", "."]
    unknown = ["B-PER", "O", "O", "B-LOC", "", ""]
    starts = [True, False, False, True, False, False]
    whole = Doc(Vocab(), words=words, ents=["B-PER", "O", "O", "B-LOC", "O", "O"], sent_starts=starts)
    part = Doc(whole.vocab, words=words, ents=unknown, sent_starts=starts)
    part.set_ents(
        [part[0:1].char_span(0, 3, label="PER")], missing=[part[4:6]], outside=[part[1:3]], default="unmodified"
    )
    DocBin(docs=[whole, part]).to_disk(tmp_path / "docs.spacy")
    texts, report = read(tmp_path / "docs.spacy")
    assert [(text.tokens, text.ends) for text in texts] == [(words, [3, 6]), (words[:3], [3])]
    assert [len(text.spans) for text in texts] == [2, 1]
    assert report.notes == [f"{tmp_path / 'docs.spacy'}: 1 sentences left out: not all of the tokens have a label"]


def test_texts_together():
    first = Text(*join(["a", "b"]), [2], [Span(0, 1, "X")], document=0)
    second = Text(*join(["c"]), [1], [Span(0, 1, "Y")], document=0)
    whole = together([first, second])
    assert whole.text == "a b\nc" and whole.tokens == ["a", "b", "c"] and whole.ends == [2, 3]
    assert whole.spans == [Span(0, 1, "X"), Span(2, 3, "Y")]
    alone = Text(*join(["d"]), [1], [])
    assert [len(group) for group in in_documents([first, second, alone, alone])] == [2, 1, 1]


def test_formats_by_name(tmp_path):
    (tmp_path / "a.txt").write_text("a O\n")
    (tmp_path / "b.txt").write_text("a")
    (tmp_path / "b.ann").write_text("")
    names = {
        "a.txt": "conll",
        "b.txt": "brat",
        "b.ann": "brat",
        "x.JSONL": "jsonl",
        "x.spacy": "spacy",
        "new": "brat",
    }
    assert {name: format_of(tmp_path / name) for name in names} == names
    assert format_of(tmp_path) == "brat" and format_of(tmp_path / "x.parquet") == "parquet"
    assert READERS.keys() == WRITERS.keys()


class TestCommand:
    def test_exit_codes_and_the_list(self, run, tmp_path):
        source = tmp_path / "in.jsonl"
        entities = [{"start": 0, "end": 3, "label": "LOC"}, {"start": 5, "end": 9, "label": "LOC"}]
        source.write_text(json.dumps({"text": "Oslo Rome", "entities": entities}) + "\n", encoding="utf-8")
        done = run("convert", source, tmp_path / "out.conll")
        assert done.exit_code == 1
        assert f"left out: {source}, line 1: LOC [0, 3) 'Osl' does not fall on token borders" in done.stderr
        assert "1 entity does not fit and was left out" in done.stderr
        assert done.stdout == f"written: {tmp_path / 'out.conll'} (1 sentence, 2 tokens, 1 entity)\n"
        assert (tmp_path / "out.conll").read_text() == "Oslo O\nRome B-LOC\n\n"
        done = run("convert", source, tmp_path / "out.conll", "--snap", "--to-scheme", "BILOU")
        assert done.exit_code == 0 and "widened: " in done.stderr
        assert (tmp_path / "out.conll").read_text() == "Oslo U-LOC\nRome U-LOC\n\n"

    def test_columns_and_schemes(self, run, tmp_path):
        (tmp_path / "in.txt").write_text("1 Ada NNP I-PER\n2 sang VBD O\n", encoding="utf-8")
        columns = ("--set", "corpus.columns=[n, token, pos, ner]", "--set", "corpus.label=ner")
        done = run("convert", tmp_path / "in.txt", tmp_path / "out.jsonl", "--scheme", "IOB1", *columns)
        assert done.exit_code == 0, done.output
        assert json.loads((tmp_path / "out.jsonl").read_text())["entities"][0]["text"] == "Ada"

    def test_errors(self, run, tmp_path):
        (tmp_path / "in.txt").write_text("Ada B-PER\n", encoding="utf-8")
        for arguments, message in (
            (("in.txt", "in.txt"), "it would be written over itself"),
            (("absent.txt", "out.jsonl"), "there is no file"),
            (("in.txt", "out.jsonl", "--set", "corpus.colums=[a]"), "Did you mean 'columns'"),
        ):
            source, target, *options = arguments
            done = run("convert", tmp_path / source, tmp_path / target, *options)
            assert done.exit_code == 1 and message in done.stderr, done.output
        (tmp_path / "raw.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
        done = run("convert", tmp_path / "raw.jsonl", tmp_path / "out.txt", "--language", "xx-none")
        assert done.exit_code == 1 and "spaCy cannot tokenise it" in done.stderr
        assert not (tmp_path / "out.txt").exists()


def test_a_number_without_end_in_a_brat_file_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("Ada left", encoding="utf-8")
    (tmp_path / "a.ann").write_text(f"T1\tPER 0 {'9' * 5000}\tAda\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.ann, line 1: .* is no entity"):
        convert_file(tmp_path, tmp_path / "out.jsonl", reading(ENGLISH), Scheme.IOB2)
