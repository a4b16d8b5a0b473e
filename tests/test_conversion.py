from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nertool.cli.main import main
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_split
from nertool.errors import CorpusError
from nertool.formats.alignment import Mark, fit
from nertool.formats.convert import convert_file
from nertool.formats.registry import ReadOptions, Report, WriteOptions, detect_format, find_format
from nertool.formats.streams import grouped, joined
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme, Span, spans
from nertool.text.tokenization import SpacyTokenizer, split_whitespace

ENGLISH = SpacyTokenizer("en")
SPACED = "Ada Byron wrote to Babbage .\nOslo\n"
NAMES = {"conll": "out.txt", "jsonl": "out.jsonl", "brat": "out", "spacy": "out.spacy"}
NAMES |= {"parquet": "out.parquet", "arrow": "out.arrow"}
WHITESPACE = ReadOptions(tokenizer=split_whitespace)


def read(path, options=WHITESPACE, kind=None):
    report = Report()
    used = find_format(kind) if kind else detect_format(path)
    return list(used.read(path, options, report)), report


def convert(source, target, options=WHITESPACE, scheme=Scheme.IOB2, **names):
    return convert_file(source, target, options, WriteOptions(scheme), allow_empty=True, **names)


def write(path, *documents, kind=None):
    report = Report()
    find_format(kind or path.suffix[1:]).write(path, documents, WriteOptions(), report)
    return report


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


def groups(path, options):
    """The labelled sentences of each document."""
    documents, _ = read(path, options)
    result = []
    for group in grouped(documents, loose_together=False):
        sentences = [each for document in group for each in document.sentences()]
        result.append([(list(each.tokens), list(each.labels)) for each in sentences])
    return result


@pytest.mark.parametrize("kind", NAMES)
@settings(max_examples=25)
@given(drawn=corpora(), scheme=st.sampled_from([scheme for scheme in Scheme if scheme is not Scheme.PLAIN]))
def test_there_and_back_nothing_is_lost(tmp_path_factory, kind, drawn, scheme):
    folder = tmp_path_factory.mktemp("there")
    pairs, numbers = drawn
    documents = [
        replace(Document(tuple(words), labels=tuple(labels), scheme=Scheme.IOB2), id=str(number))
        for (words, labels), number in zip(pairs, numbers, strict=True)
    ]
    write(folder / "in.conll", *documents)
    there = convert(folder / "in.conll", folder / NAMES[kind], replace(WHITESPACE, scheme=Scheme.IOB2), scheme)
    written = scheme if kind in ("conll", "parquet", "arrow") else None
    back = convert(folder / NAMES[kind], folder / "back.txt", replace(WHITESPACE, scheme=written), reader=kind)
    assert there.report.misfits == back.report.misfits == there.report.widened == []
    wanted = [
        [pair for pair, number in zip(pairs, numbers, strict=True) if number == wanted]
        for wanted in dict.fromkeys(numbers)
    ]
    if kind == "spacy" and len(wanted) == len(pairs):
        # Where each Doc is one sentence, nothing says that they are documents.
        assert [pair for group in groups(folder / "back.txt", WHITESPACE) for pair in group] == pairs
    else:
        assert groups(folder / "back.txt", WHITESPACE) == wanted
    token_count = sum(len(words) for words, _ in pairs)
    assert (there.sentences, there.tokens) == (back.sentences, back.tokens) == (len(pairs), token_count)
    assert there.entities == back.entities == sum(len(spans(labels, Scheme.IOB2)) for _, labels in pairs)


RAW = st.text(st.sampled_from("ab .,-'\n\tÄ語😀"), max_size=40)


def trimmed(text, start, end):
    inside = text[start:end].strip()
    start += text[start:end].index(inside) if inside else 0
    return start, start + len(inside)


@given(RAW, st.lists(st.tuples(st.integers(-2, 42), st.integers(-2, 44)), max_size=5), st.booleans())
def test_every_mark_is_kept_or_listed_and_offsets_are_exact(text, places, snap):
    marks = [Mark(f"m{number}", (place,), "X") for number, place in enumerate(places)]
    report = Report()
    found = fit(text, ENGLISH(text), marks, ReadOptions(snap=snap), report)
    assert len(found.spans) + len(report.misfits) == len(marks)
    kept = [(each.start, each.end) for each in found.entities]
    assert all(left[1] <= right[0] for left, right in pairwise(kept))
    if snap:
        assert all(any(start < b and a < end for a, b in places) for start, end in kept)
    else:
        assert not report.widened
        assert set(kept) <= {trimmed(text, a, b) for a, b in places if 0 <= a < b <= len(text)}
    assert not set(found.sentence_starts) & {p for s in found.spans for p in range(s.start + 1, s.end)}
    # What a mark overlaps that was left out is in an entity that was kept, or has no label.
    for start, end in places:
        for label, (a, b) in zip(found.labels, found.offsets, strict=True):
            assert label != "O" or not (start < b and a < end)


@settings(max_examples=30)
@given(st.lists(RAW.filter(lambda text: text.strip()), min_size=1, max_size=3))
def test_raw_texts_keep_every_character(tmp_path_factory, raw):
    folder = tmp_path_factory.mktemp("raw")
    lines = [json.dumps({"text": text, "entities": []}) for text in raw]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    documents, report = read(folder / "in.jsonl", ReadOptions())
    assert [document.text for document in documents] == raw and report == Report()
    for name in ("out.spacy", "out.jsonl"):
        convert(folder / "in.jsonl", folder / name, ReadOptions())
        again, _ = read(folder / name)
        shown = [[(d.text, d.offsets, d.labels, d.sentence_starts) for d in each] for each in (again, documents)]
        assert shown[0] == shown[1]


def test_the_scheme_of_columns(tmp_path):
    (tmp_path / "in.txt").write_text("a I-X\nb B-X\nc O\n", encoding="utf-8")
    for scheme, labels in (("BILOU", "U-X U-X O"), ("IOBES", "S-X S-X O"), ("IOB1", "I-X B-X O")):
        convert(tmp_path / "in.txt", tmp_path / "out.txt", ReadOptions(scheme=Scheme.IOB1), Scheme(scheme))
        assert [line.split()[1] for line in (tmp_path / "out.txt").read_text().split("\n")[:3]] == labels.split()


def test_plain_tags_go_where_there_are_labels(tmp_path):
    (tmp_path / "in.txt").write_text("a NN\nb VB\n\nc NN\n", encoding="utf-8")
    for name in ("out.parquet", "out.conll", "out.jsonl"):
        convert(tmp_path / "in.txt", tmp_path / name)
        convert(tmp_path / name, tmp_path / "again.txt")
        assert (tmp_path / "again.txt").read_text().split() == ["a", "NN", "b", "VB", "c", "NN"]
    with pytest.raises(CorpusError, match="plain tags mark no entities"):
        convert(tmp_path / "in.txt", tmp_path / "out")
    convert(tmp_path / "in.txt", tmp_path / "out.spacy")
    assert [d.labels for d in read(tmp_path / "out.spacy", ReadOptions(scheme=Scheme.PLAIN))[0]] == [
        ("NN", "VB"),
        ("NN",),
    ]


def test_tokens_without_labels_stay_so(tmp_path):
    (tmp_path / "in.txt").write_text(
        "Mina B-PER\nOkoye I-PER\nleft ?\n\nIt ?\nrained ?\n\nToday O\n", encoding="utf-8"
    )
    lines = (tmp_path / "in.txt").read_text().split("\n")
    for name in ("out.parquet", "out.arrow", "out.jsonl", "out.spacy"):
        there = convert(tmp_path / "in.txt", tmp_path / name)
        assert (there.sentences, there.unlabelled, there.report) == (3, 3, Report())
        convert(tmp_path / name, tmp_path / "back.txt")
        assert [line.replace("\t", " ") for line in (tmp_path / "back.txt").read_text().split("\n")] == [
            *lines,
            "",
        ]
    there = convert(tmp_path / "in.txt", tmp_path / "out")
    assert there.report.notes == [
        f"{tmp_path / 'out'}: brat cannot hold that a label is not known; 3 tokens without one are written as "
        "outside of all entities"
    ]


def test_further_columns_and_scores_are_kept_or_noted(tmp_path):
    document = Document.from_spans(
        ["Ada", "sang"], [Span(0, 1, "PER")], scores=[0.25], columns={"pos": ("NNP", "VBD")}, id="x"
    )
    assert write(tmp_path / "a.jsonl", document) == Report()
    (again,), _ = read(tmp_path / "a.jsonl")
    assert (again.columns, again.scores, again.id) == (document.columns, (0.25,), "x")
    assert write(tmp_path / "a.parquet", document).notes == [
        f"{tmp_path / 'a.parquet'}: parquet cannot hold scores of entities; they were left out"
    ]
    assert read(tmp_path / "a.parquet")[0][0].columns == document.columns
    assert write(tmp_path / "a.spacy", document).notes == [
        f"{tmp_path / 'a.spacy'}: spacy cannot hold further columns; left out: pos"
    ]
    assert read(tmp_path / "a.spacy")[0][0].scores == (0.25,)


class TestFit:
    def fit(self, *marks, snap=False, text="Mr. Byron's dog ran."):
        report = Report()
        made = [Mark(f"line {number}", ((start, end),), "X") for number, (start, end) in enumerate(marks, 1)]
        return fit(text, ENGLISH(text), made, ReadOptions(snap=snap), report), report

    def test_what_fits(self):
        found, report = self.fit((4, 9), (12, 15))
        assert found.spans == (Span(1, 2, "X"), Span(3, 4, "X")) and report == Report()

    def test_inside_a_token(self):
        found, report = self.fit((5, 9), (16, 20))
        assert found.spans == (Span(4, 6, "X"),) and found.labels[1] == UNKNOWN
        assert report.misfits == [
            "line 1: X [5, 9) 'yron' does not fall on token boundaries; the tokens there are 'Byron'"
        ]
        found, report = self.fit((5, 10), snap=True)
        assert found.spans == (Span(1, 3, "X"),) and not report.misfits
        assert report.widened == ['line 1: X [5, 10) "yron\'" became "Byron\'s"']

    def test_whitespace_at_the_edges_does_not_count(self):
        found, report = self.fit((3, 9), (11, 16))
        assert found.spans == (Span(1, 2, "X"), Span(3, 4, "X")) and report == Report()

    def test_outside_or_of_whitespace(self):
        _, report = self.fit((3, 4), (-1, 2), (18, 21), (6, 6))
        reasons = sorted(line.partition(") ")[2] for line in report.misfits)
        assert reasons == ["' ' holds no token", *["lies outside the text"] * 3]

    def test_nested_and_overlapping(self):
        found, report = self.fit((4, 11), (4, 9), (9, 15), (12, 15), (12, 15))
        assert found.spans == (Span(1, 3, "X"), Span(3, 4, "X"))
        assert [line.partition(": ")[0] for line in report.misfits] == ["line 2", "line 3", "line 5"]
        assert report.misfits[0].endswith("'Byron' overlaps X \"Byron's\", which is kept")

    def test_what_was_left_out_has_no_label(self):
        found, _ = self.fit((0, 9), (4, 15), (17, 19))
        assert found.labels == ("B-X", "I-X", UNKNOWN, UNKNOWN, UNKNOWN, "O")

    def test_a_sentence_does_not_end_inside_an_entity(self):
        found, report = self.fit((0, 8), text="Yahoo! Go is here. It is.")
        assert report.misfits and not found.spans  # inside "Go"
        found, _ = self.fit((0, 9), text="Yahoo! Go is here. It is.")
        assert found.spans == (Span(0, 3, "X"),) and found.sentence_starts == (0, 6)

    def test_an_entity_whose_text_is_elsewhere(self):
        text = "😀 Ada Bell left Oslo ."
        marks = [Mark("a", ((3, 11),), "PER", "Ada Bell"), Mark("b", ((17, 21),), "LOC", "Rome")]
        report = Report()
        found = fit(text, split_whitespace(text), marks, ReadOptions(), report)
        assert report.misfits == [
            "a: PER 'Ada Bell' stands elsewhere; the text at [3, 11) is 'da Bell '. The offsets count UTF-16 "
            "units; characters are expected",
            "b: LOC 'Rome' stands elsewhere; the text at [17, 21) is 'slo '",
        ]
        assert found.labels == ("O", UNKNOWN, UNKNOWN, "O", UNKNOWN, "O")


DOCCANO = '{"id": 1, "text": "Ada left.", "label": [[0, 3, "PER"]], "Comments": []}'
DOCCANO_OBJECTS = (
    '{"text": "Ada left.", "entities": [{"id": 7, "label": "PER", "start_offset": 0, "end_offset": 3}]}'
)
DOCCANO_LABELS = '{"text": "Ada", "annotations": [{"label": 7, "start_offset": 0, "end_offset": 3}], "meta": {}}'
LABEL_STUDIO = '{"id": 7, "text": "Ada", "label": [{"start": 0, "end": 3, "labels": ["PER"]}], "annotation_id": 3}'
PRODIGY = '{"text": "Ada", "spans": [{"start": 0, "end": 3, "label": "PER"}], "answer": "accept"}'


class TestDatasetLines:
    """JSON Lines as the package datasets writes them: tokens, and a label for each under another key."""

    @pytest.mark.parametrize("key", ["labels", "ner_tags", "tags", "ner"])
    def test_labels_under_the_usual_keys(self, tmp_path, key):
        path = tmp_path / "in.jsonl"
        path.write_text(json.dumps({"id": "0", "tokens": ["Ada", "left"], key: ["B-PER", "O"]}), encoding="utf-8")
        report = Report()
        (document,) = detect_format(path).read(path, ReadOptions(), report)
        assert document.labels == ("B-PER", "O") and "keys that are not kept: id" in report.notes[0]
        (document,) = detect_format(path).read(path, ReadOptions(labelled=False), Report())
        assert document.labels is None and document.tokens == ("Ada", "left")


class TestJsonLines:
    def test_what_tag_writes_is_read(self, tmp_path):
        path = tmp_path / "tagged.jsonl"
        entity = {"start": 0, "end": 4, "label": "LOC", "text": "Oslo", "score": 0.9}
        tree = {"text": "Oslo  wins.", "tokens": ["Oslo", "wins", "."], "labels": ["B-LOC", "O", "O"]}
        tree |= {"marginals": [{"O": 1.0}] * 3, "cut_sentences": 1, "alternatives": [[]]}
        path.write_text(json.dumps({**tree, "entities": [entity]}) + "\n\n", encoding="utf-8")
        (document,), report = read(path)
        assert document.offsets == ((0, 4), (6, 10), (10, 11)) and document.spans == (Span(0, 1, "LOC"),)
        assert document.sentence_starts == (0,) and document.scores == (0.9,) and report == Report()
        tags = {**tree, "labels": ["NOUN", "VERB", "PUNCT"], "entities": []}
        path.write_text(json.dumps(tags) + "\n", encoding="utf-8")
        (document,), _ = read(path)
        assert document.labels == ("NOUN", "VERB", "PUNCT") and document.has_tags

    def test_a_document_goes_there_and_back(self, tmp_path):
        document = Document(
            ("Ada", "sang", "Oslo"),
            "Ada  sang\nOslo ",
            ((0, 3), (5, 9), (10, 14)),
            (0, 2),
            ("B-PER", UNKNOWN, "B-LOC"),
            Scheme.IOB2,
            (0.5, 1.0),
            {"pos": ("A", "", "C")},
            "7",
        )
        unlabelled = Document(("Rain",), "Rain", ((0, 4),))
        write(tmp_path / "a.jsonl", document, unlabelled)
        (first, second), report = read(tmp_path / "a.jsonl")
        assert (replace(first, origin=None), replace(second, origin=None)) == (document, unlabelled)
        assert report == Report() and first.origin.place(1) == "row 1"
        tree = json.loads((tmp_path / "a.jsonl").read_text().split("\n")[0])
        assert tree["document"] == 7 and tree["labels"] == ["B-PER", None, "B-LOC"] and tree["sentences"] == [2, 3]

    def test_tokens_and_labels_without_a_text(self, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"tokens": ["Ada", "sang"], "labels": ["S-PER", "O"]}\n')
        (document,), _ = read(tmp_path / "a.jsonl")
        assert (document.text, document.source_text, document.labels) == ("Ada sang", None, ("S-PER", "O"))
        convert(tmp_path / "a.jsonl", tmp_path / "a.txt")
        assert (tmp_path / "a.txt").read_text() == "Ada B-PER\nsang O\n\n"

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 1: not JSON"),
            ("5", "expected an object with the key text"),
            ('{"text": 1}', "expected an object with the key text"),
            ('{"text": "a", "tokens": "a"}', "tokens: expected a list of strings"),
            ('{"text": "a", "entities": [1]}', "entities: expected a list of objects"),
            ('{"text": "a", "entities": [{"start": 0, "end": "1", "label": "X"}]}', "expected start and end"),
            ('{"text": "a", "entities": [{"start": 0, "end": 1}]}', "expected a label"),
            ('{"text": "a b", "tokens": ["b", "a"]}', "'a' does not follow in the text"),
            ('{"text": "a", "tokens": [""]}', "'' does not follow"),
            ('{"text": "a b", "tokens": ["a", "b"], "sentences": [1]}', "sentences: expected where each ends"),
            ('{"text": "a", "document": 1.5}', "document: expected a number or a string"),
            ('{"text": "a", "tokens": ["a"], "labels": ["O", "O"]}', "labels: 2 labels and 1 tokens"),
            (
                '{"text": "a", "tokens": ["a"], "labels": ["B-X"], "entities": []}',
                "labels and entities mark other",
            ),
            ('{"text": "a", "tokens": ["a"], "columns": {"pos": []}}', "columns: pos: 0 values and 1 tokens"),
            (
                DOCCANO,
                "the keys are id, text, label, Comments; this looks like an export of doccano; entities are",
            ),
            (
                DOCCANO_OBJECTS,
                "expected start and end in each, in characters; this looks like an export of doccano",
            ),
            (
                DOCCANO_LABELS,
                "the keys are text, annotations, meta; this looks like an export of doccano; entities",
            ),
            (
                LABEL_STUDIO,
                "the keys are id, text, label, annotation_id; this looks like an export of Label Studio",
            ),
            (
                PRODIGY,
                "the keys are text, spans, answer; this looks like an export of Prodigy; entities are expected",
            ),
            ('{"text": "a", "ents": [], "x": 1}', "the keys are text, ents, x; entities are expected under"),
            ('{"text": "a", "mine": [[0, 1, "X"]]}', "the keys are text, mine; entities are expected under"),
            ('{"tokens": ["a"], "ner_tags": [1]}', "ner_tags: the labels are numbers, and their names"),
        ],
    )
    def test_errors(self, tmp_path, line, message):
        path = tmp_path / "wrong.jsonl"
        path.write_text(line + "\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=message) as caught:
            read(path, kind="jsonl")
        assert (str(caught.value.path), caught.value.line) == (str(path), 1)

    def test_texts_alone_can_be_read_where_no_labels_are_wanted(self, tmp_path):
        (tmp_path / "a.jsonl").write_text(f"{DOCCANO}\n{PRODIGY}\n", encoding="utf-8")
        documents, report = read(tmp_path / "a.jsonl", ReadOptions(labelled=False), "jsonl")
        assert [document.text for document in documents] == ["Ada left.", "Ada"]
        assert all(document.labels is None for document in documents)
        assert report.notes == [
            f"{tmp_path / 'a.jsonl'}: keys that are not kept: id, label, Comments, spans, answer"
        ]

    def test_an_array_is_read_as_its_lines_would_be(self, tmp_path):
        entity = {"start": 0, "end": 3, "label": "PER"}
        trees = [{"text": "Ada left.", "entities": [entity]}, {"text": "Byron left.", "entities": [entity]}]
        for indent in (None, 2):
            (tmp_path / "a.json").write_text(json.dumps(trees, indent=indent))
            (first, second), report = read(tmp_path / "a.json")
            assert first.spans == (Span(0, 1, "PER"),) and second.labels == (UNKNOWN, "O")
            assert report.misfits[0].startswith(f"{tmp_path / 'a.json'}, item 2: PER [0, 3) 'Byr' does not fall")
        (tmp_path / "a.json").write_text(json.dumps([trees[0], {"text": 1}]))
        with pytest.raises(CorpusError, match="item 2: expected an object with the key text"):
            read(tmp_path / "a.json")

    def test_as_a_corpus(self, tmp_path):
        path = tmp_path / "a.jsonl"
        lines = [
            {"text": "Ada sang. Oslo won.", "entities": [{"start": 0, "end": 3, "label": "PER"}]},
            {"text": "Byron left.", "entities": [{"start": 0, "end": 2, "label": "PER"}]},
            {"text": "Nobody knows."},
        ]
        path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
        split = read_split(path, CorpusConfig(train="unused"))
        assert [sentence.tokens for sentence in split.sentences] == [("Ada", "sang", "."), ("Oslo", "won", ".")]
        assert split.unlabelled == 2 and split.entity_counts() == {"PER": 1}
        partial = read_split(path, CorpusConfig(train="unused"), partial=True)
        assert len(partial) == 3 and partial.sentences[2].labels == (UNKNOWN, "O", "O")


class TestBrat:
    def pair(self, folder, text, annotations, name="doc"):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.txt").write_bytes(text.encode())
        (folder / f"{name}.ann").write_text(annotations, encoding="utf-8")
        return folder / f"{name}.ann"

    def test_a_pair(self, tmp_path):
        path = self.pair(tmp_path, SPACED, "T1\tPER 0 9\tAda Byron\nT2\tLOC 29 33\tOslo\n")
        for named in (path, path.with_suffix(".txt"), tmp_path):
            (document,), report = read(named)
            assert document.spans == (Span(0, 2, "PER"), Span(6, 7, "LOC")) and report == Report()
            assert document.text == SPACED and document.id == "doc" and document.sentence_starts == (0, 6)

    def test_offsets_count_line_ends_as_they_are(self, tmp_path):
        path = self.pair(tmp_path, "Ada\r\nOslo 😀 Rome\r\n", "T1\tLOC 5 9\tOslo\r\nT2\tLOC 12 16\tRome\r\n")
        (document,), report = read(path)
        assert [entity.text for entity in document.entities] == ["Oslo", "Rome"] and report == Report()

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
        (document,), report = read(path)
        assert document.spans == (Span(0, 2, "PER"),)
        assert document.labels == ("B-PER", "I-PER", UNKNOWN, "O", UNKNOWN, "O", UNKNOWN)
        shown = "\n".join(report.misfits)
        assert f"{path}, line 1 (T1): PER 'Ada Babbage' is in several pieces: 0 3;19 26" in shown
        assert "line 3 (T3): PER [4, 9) 'Byron' overlaps PER 'Ada Byron'" in shown
        assert "line 4 (T4): LOC [29, 32) 'Osl' does not fall on token boundaries" in shown
        assert "line 5 (T5): LOC 'Rome' stands elsewhere; the text at [29, 33) is 'Oslo'" in shown
        assert "line 8 (T6): X [4, 15) 'Byron wrote' overlaps" in shown  # only whitespace is between its pieces
        assert "line 9 (T7): X [900, 910) lies outside the text" in shown and len(report.misfits) == 6
        assert report.notes == [f"{path}: 2 lines that are no entities (relations, notes, ...) left out"]

    def test_folders(self, tmp_path):
        self.pair(tmp_path / "in", "Oslo\n", "T1\tLOC 0 4\tOslo\n", "b")
        self.pair(tmp_path / "in", "Ada\n", "", "a")
        (tmp_path / "in" / "c.txt").write_text("bare\n", encoding="utf-8")
        documents, report = read(tmp_path / "in")
        assert [document.id for document in documents] == ["a", "b"]
        assert report.notes == [
            f"{tmp_path / 'in'}: 1 .txt files have no .ann file beside them and were left out: c.txt"
        ]
        convert(tmp_path / "in", tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.ann", "a.txt", "b.ann", "b.txt"]
        assert (tmp_path / "out" / "b.ann").read_text() == "T1\tLOC 0 4\tOslo\n"
        with pytest.raises(CorpusError, match="there are 2 documents, and this is one file: name a folder"):
            convert(tmp_path / "in", tmp_path / "one.ann")

    def test_names_of_documents_stay_in_the_folder_and_apart(self, tmp_path):
        names = ["../up", "/root", "sub/a", "x", "y", "x", "X", "3", "12", None]
        documents = [Document.from_spans([f"t{n}"], [], id=name) for n, name in enumerate(names)]
        write(tmp_path / "out", *documents, kind="brat")
        files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*.txt"))
        assert len(files) == len(names) and {"sub/a.txt", "x.txt", "y.txt", "00003.txt", "00012.txt"} <= set(files)

    def test_errors(self, tmp_path):
        path = self.pair(tmp_path, SPACED, "T1\tPER 0\tAda\n")
        with pytest.raises(CorpusError, match=r"doc\.ann, line 1: .* is no entity; expected T1, a tab"):
            read(path)
        path.unlink()
        with pytest.raises(CorpusError, match=r"doc\.ann: there is no such file; brat needs"):
            read(path.with_suffix(".txt"), kind="brat")
        with pytest.raises(CorpusError, match=r"no \.txt file with an \.ann file beside it"):
            read(tmp_path, kind="brat")

    def test_a_number_without_end_is_refused(self, tmp_path):
        self.pair(tmp_path, "Ada left", f"T1\tPER 0 {'9' * 5000}\tAda\n")
        with pytest.raises(CorpusError, match=r"doc\.ann, line 1: .* is no entity"):
            convert(tmp_path, tmp_path / "out.jsonl")


def test_parts_of_documents():
    first = Document.from_spans(["a", "b"], [Span(0, 1, "X")], id="0")
    second = Document.from_spans(["c"], [Span(0, 1, "Y")], id="0", scores=[0.5])
    bare = Document(("d",), id="0")
    whole = joined([first, second, bare])
    assert (
        whole.text == "a b\nc\nd" and whole.tokens == ("a", "b", "c", "d") and whole.sentence_starts == (0, 2, 3)
    )
    assert whole.spans == (Span(0, 1, "X"), Span(2, 3, "Y")) and whole.labels[3] == UNKNOWN
    loose, text = Document(("e",)), Document(("f",), "f", ((0, 1),))
    parts = [first, second, loose, loose, text, text]
    assert [len(group) for group in grouped(parts, loose_together=True)] == [2, 2, 1, 1]
    assert [len(group) for group in grouped(parts, loose_together=False)] == [2, 1, 1, 1, 1]


class TestCommand:
    def test_exit_codes_and_the_list(self, run, tmp_path):
        source = tmp_path / "in.jsonl"
        entities = [{"start": 0, "end": 3, "label": "LOC"}, {"start": 5, "end": 9, "label": "LOC"}]
        source.write_text(json.dumps({"text": "Oslo Rome", "entities": entities}) + "\n", encoding="utf-8")
        done = run("convert", source, tmp_path / "out.conll")
        assert done.exit_code == 1
        assert f"left out: {source}, line 1: LOC [0, 3) 'Osl' does not fall on token boundaries" in done.stderr
        assert "1 entity does not fit and was left out" in done.stderr
        assert re.search(
            rf"{re.escape(str(tmp_path / 'out.conll'))} \(1 sentence, 2 tokens, 1 entity", done.stdout
        )
        assert (tmp_path / "out.conll").read_text() == "Oslo ?\nRome B-LOC\n\n"
        done = run("convert", source, tmp_path / "out.conll", "--snap", "--to-scheme", "BILOU")
        assert done.exit_code == 0 and "widened: " in done.stderr
        assert (tmp_path / "out.conll").read_text() == "Oslo U-LOC\nRome U-LOC\n\n"

    def test_columns_and_schemes(self, run, tmp_path):
        (tmp_path / "in.txt").write_text("1 Ada NNP I-PER\n2 sang VBD O\n", encoding="utf-8")
        columns = ("--set", "corpus.columns=[n, token, pos, ner]", "--set", "corpus.label=ner")
        done = run("convert", tmp_path / "in.txt", tmp_path / "out.jsonl", "--scheme", "IOB1", *columns)
        assert done.exit_code == 0, done.output
        tree = json.loads((tmp_path / "out.jsonl").read_text())
        assert tree["entities"][0]["text"] == "Ada" and tree["columns"]["pos"] == ["NNP", "VBD"]

    def test_where_nothing_is_found_nothing_is_written(self, run, tmp_path):
        (tmp_path / "in.txt").write_text("Ada O\nsang O\n", encoding="utf-8")
        done = run("convert", tmp_path / "in.txt", tmp_path / "out.jsonl")
        assert done.exit_code == 1 and "no entity was found in it, read as conll" in done.stderr
        assert not (tmp_path / "out.jsonl").exists()
        (tmp_path / "raw.jsonl").write_text('{"text": "Ada sang"}\n', encoding="utf-8")
        done = run("convert", tmp_path / "raw.jsonl", tmp_path / "out.txt")
        assert done.exit_code == 1 and "no label was found in it, read as jsonl" in done.stderr
        done = run("convert", tmp_path / "raw.jsonl", tmp_path / "out.txt", "--allow-empty")
        assert done.exit_code == 0 and "0 entities" in done.stdout
        assert (tmp_path / "out.txt").read_text() == "Ada ?\nsang ?\n\n"

    def test_errors(self, run, tmp_path):
        (tmp_path / "in.txt").write_text("Ada B-PER\n", encoding="utf-8")
        for arguments, message in (
            (("in.txt", "in.txt"), "it would be written over itself"),
            (("absent.txt", "out.jsonl"), "there is no file"),
            (("in.txt", "out.jsonl", "--set", "corpus.colums=[a]"), "Did you mean corpus.columns"),
        ):
            source, target, *options = arguments
            done = run("convert", tmp_path / source, tmp_path / target, *options)
            assert done.exit_code == 1 and message in done.stderr, done.output
        (tmp_path / "raw.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
        done = run("convert", tmp_path / "raw.jsonl", tmp_path / "out.txt", "--language", "xx-none")
        assert done.exit_code == 1 and "spaCy cannot tokenize it" in done.stderr
        assert not (tmp_path / "out.txt").exists()


def test_a_suffix_that_no_format_has_is_noted(tmp_path):
    (tmp_path / "in.txt").write_text("Oslo B-LOC\n", encoding="utf-8")
    for name, noted in (("out.data", True), ("out.txt", False), ("out.jsonl", False)):
        notes = convert_file(tmp_path / "in.txt", tmp_path / name, ReadOptions(), WriteOptions()).report.notes
        assert notes == (
            [f"{tmp_path / name}: no format has the suffix .data: written as conll; --to names another"] * noted
        )
    named = convert_file(tmp_path / "in.txt", tmp_path / "out.data", ReadOptions(), WriteOptions(), writer="jsonl")
    assert not named.report.notes
