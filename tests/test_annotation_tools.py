"""JSON exports of annotation tools: what is read, what is reported, what is refused, and what is written."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nertool.cli.main import main
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_split
from nertool.errors import CorpusError
from nertool.formats import annotation_tools
from nertool.formats.registry import ReadOptions, Report, WriteOptions, detect_format, find_format
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme, Span

TEXT = "Mina Okoye left Malmö. Oslo won."
MINA, MALMO, OSLO = (0, 10, "PER"), (16, 21, "LOC"), (23, 27, "LOC")
ALL = [MINA, MALMO, OSLO]
TRIPLES = [list(span) for span in ALL]
OBJECTS = [{"start": start, "end": end, "label": label} for start, end, label in ALL]
OFFSETS = [
    {"id": 3, "label": label, "start_offset": start, "end_offset": end, "user": 1} for start, end, label in ALL
]
VALUES = [{"start": a, "end": b, "text": TEXT[a:b], "labels": [label]} for a, b, label in ALL]
TOOLS = ["doccano", "prodigy", "labelstudio", "spacy-json"]


def put(folder: Path, *values: object, name: str = "in.jsonl") -> Path:
    """Write JSON Lines."""
    path = folder / name
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return path


def put_array(folder: Path, *values: object, indent: int | None = None) -> Path:
    path = folder / "in.json"
    path.write_text(json.dumps(values, ensure_ascii=False, indent=indent), encoding="utf-8")
    return path


def read(path: Path, **options: object) -> tuple[list[Document], Report]:
    report = Report()
    return list(detect_format(path).read(path, ReadOptions(**options), report)), report


def found(document: Document) -> list[tuple[int, int, str]]:
    return [(entity.start, entity.end, entity.label) for entity in document.entities]


def region(start: int, end: int, *labels: str, text: str = TEXT, **more: object) -> dict[str, object]:
    value = {"start": start, "end": end, "text": text[start:end], "labels": list(labels)}
    return {"id": "r", "from_name": "label", "to_name": "text", "type": "labels", "value": value, **more}


def task(*regions: object, data: object = None, **more: object) -> dict[str, object]:
    annotation = {"id": 5, "completed_by": 1, "was_cancelled": False, "result": list(regions)}
    return {"id": 7, "data": data or {"text": TEXT}, "annotations": [annotation], "predictions": [], **more}


REGIONS = [region(*span) for span in ALL]


class TestEveryTool:
    @pytest.mark.parametrize(
        ("value", "tool"),
        [
            ({"id": 1, "text": TEXT, "label": TRIPLES, "Comments": []}, "doccano"),
            ({"id": 1, "text": TEXT, "labels": TRIPLES, "meta": {}}, "doccano"),
            ({"id": 1, "data": TEXT, "label": TRIPLES}, "doccano"),
            ({"text": TEXT, "entities": TRIPLES}, "doccano"),
            ({"text": TEXT, "labels": OBJECTS}, "doccano"),
            ({"id": 1, "text": TEXT, "annotations": OFFSETS, "annotation_approver": None}, "doccano"),
            ({"id": 1, "text": TEXT, "entities": OFFSETS, "relations": [], "Comments": []}, "doccano"),
            ({"text": TEXT, "spans": OBJECTS}, "prodigy"),
            ({"text": TEXT, "spans": OBJECTS, "answer": "accept", "_input_hash": 1}, "prodigy"),
            (task(*REGIONS), "labelstudio"),
            ({"data": {"text": TEXT}, "completions": [{"result": REGIONS}]}, "labelstudio"),
            ({"result": REGIONS, "task": {"id": 7, "data": {"text": TEXT}}, "completed_by": 1}, "labelstudio"),
            ({"id": 7, "text": TEXT, "label": VALUES, "annotator": 1, "annotation_id": 3}, "labelstudio"),
            ({"text": TEXT, "ner": VALUES}, "labelstudio"),
            ([TEXT, {"entities": TRIPLES}], "spacy-json"),
            ({"classes": ["PER"], "annotations": [None, [TEXT, {"entities": TRIPLES}]]}, "spacy-json"),
        ],
    )
    def test_entities_are_read(self, tmp_path, value, tool):
        paths = [put(tmp_path, value, value), put_array(tmp_path, value, value)]
        copy = tmp_path / "copy.txt.gz"
        copy.write_bytes(gzip.compress(b"\xef\xbb\xbf\r\n" + paths[0].read_bytes().replace(b"\n", b"\r\n")))
        for path in [*paths, copy]:
            assert detect_format(path).name == tool
            documents, report = read(path)
            assert found(documents[0]) == ALL and not report.misfits
            assert documents[0].text == TEXT and documents[0].sentence_starts == (0, 5)
            assert documents[0].scheme is Scheme.IOB2
        documents, _ = read(put_array(tmp_path, value, indent=2))  # an array over several lines
        assert found(documents[0]) == ALL
        (tmp_path / "one.json").write_text(json.dumps(value, indent=1))  # not even an array
        documents, _ = read(tmp_path / "one.json")
        assert found(documents[0]) == ALL
        texts, report = read(paths[0], labelled=False)
        assert {document.text for document in texts} == {TEXT} and texts[0].labels is None

    def test_long_texts_do_not_hide_the_entities(self, tmp_path):
        text = TEXT + " It rained." * 30_000
        for value in (
            {"text": text, "label": [list(OSLO)]},
            {"text": text, "tokens": [], "spans": [OBJECTS[2]]},
            {"id": 1, "data": {"text": text}, "annotations": [{"result": [region(*OSLO)]}]},
            [text, {"entities": [list(OSLO)]}],
        ):
            for path in (put(tmp_path, value), put_array(tmp_path, value)):
                assert found(read(path)[0][0]) == [OSLO]

    def test_the_first_texts_may_lack_entities(self, tmp_path):
        assert detect_format(put(tmp_path, {"text": "a"}, {"text": TEXT, "entities": TRIPLES})).name == "doccano"
        assert detect_format(put(tmp_path, {"text": "a"}, {"text": "b"})).name == "jsonl"
        own = {"text": TEXT, "tokens": ["Mina"], "labels": ["B-PER"], "entities": OBJECTS[:1]}
        assert detect_format(put(tmp_path, own)).name == "jsonl"

    @pytest.mark.parametrize("tool", TOOLS)
    def test_what_is_written_is_read(self, tmp_path, tool):
        documents = [
            Document.from_spans(
                ["Ada", "😀", "Byron"], [Span(0, 1, "Job title"), Span(2, 3, "X")],
                source_text=" Ada\r\n😀 Byron", source_offsets=((1, 4), (6, 7), (8, 13)),
            ),
            Document(("Rain",), labels=("O",), scheme=Scheme.IOB2),
            Document(("Oslo", "won"), labels=("U-LOC", "O"), scheme=Scheme.BILOU),
            Document(("Who", "knows")),
        ]  # fmt: skip
        report = Report()
        find_format(tool).write(tmp_path / "out.json", documents, WriteOptions(), report)
        assert (
            report.notes
            == [
                f"{tmp_path / 'out.json'}: {tool} cannot hold that a label is not known; 2 tokens without one are "
                "written as outside of all entities"
            ]
            or report.notes == []
        )
        assert detect_format(tmp_path / "out.json").name == tool
        again, report = read(tmp_path / "out.json")
        assert [found(document) for document in again] == [found(document) for document in documents]
        assert [document.text for document in again] == [document.text for document in documents]
        assert [document.labels is None for document in again] == [False, False, False, True]
        assert not report.misfits
        stream = io.StringIO()
        find_format(tool).write_stream(stream, iter(documents), WriteOptions())
        assert stream.getvalue() == (tmp_path / "out.json").read_bytes().decode()
        empty = io.StringIO()
        find_format(tool).write_stream(empty, [], WriteOptions())
        assert empty.getvalue() in ("", "[\n]\n")

    @pytest.mark.parametrize("tool", TOOLS)
    def test_tags_and_halves_of_characters_cannot_be_written(self, tmp_path, tool):
        tags = Document(("a",), labels=("NN",), scheme=Scheme.PLAIN)
        with pytest.raises(CorpusError, match=f"plain tags mark no entities, which {tool} holds"):
            find_format(tool).write(tmp_path / "out", [tags], WriteOptions(), Report())
        with pytest.raises(CorpusError, match="cannot be written"):
            find_format(tool).write(tmp_path / "out", [Document(("a\ud800",))], WriteOptions(), Report())
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("tool", TOOLS)
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"text": "a"\n', r"line \d: not JSON"),
            (b'{"text": "a", }\n', r"line 1: not JSON \([^(]*: column 1\d\)"),
            (b"[\n[1,\n2}\n", "line 3: not JSON"),
            (b"[" * 100_000, "nested too deeply"),
            (b"7\n", "found 7"),
            (b'["a"]\n', "found"),
            (b"left O\n", "line 1: not JSON"),
            (b'{"text": 1}\n', "expected"),
            ('{"text": "Ada"}\n'.encode("utf-16"), "UTF-16: convert it first, with `iconv -f utf-16"),
            ('{"text": "Ada"}\n'.encode("utf-16-le"), "as in UTF-16: convert it with `iconv -f utf-16le"),
            ('{"text": "é"}\n'.encode("latin-1"), r"byte 0xe9 .* is not UTF-8"),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, tmp_path, tool, content, message):
        (tmp_path / "in.jsonl").write_bytes(content)
        with pytest.raises(CorpusError, match=message):
            list(find_format(tool).read(tmp_path / "in.jsonl", ReadOptions(), Report()))

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf16_is_named(self, tmp_path, encoding):
        (tmp_path / "in.jsonl").write_bytes('{"text": "Ada", "label": []}\n'.encode(encoding))
        with pytest.raises(CorpusError, match="this looks like text in UTF-16: convert it with `iconv -f utf-16"):
            detect_format(tmp_path / "in.jsonl")

    def test_an_array_that_is_too_long_for_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr(annotation_tools, "MAXIMUM", 100)
        for path in (put_array(tmp_path, *[{"text": TEXT, "label": TRIPLES}] * 2),
                     put_array(tmp_path, {"text": TEXT, "label": TRIPLES}, indent=1)):  # fmt: skip
            with pytest.raises(CorpusError, match="more than 100 characters: export it as JSON Lines, or split"):
                read(path)
        (tmp_path / "in.jsonl").write_text('{"text": "a", "label": []}\n' * 50)
        assert len(read(tmp_path / "in.jsonl")[0]) == 50

    @pytest.mark.parametrize(
        "value",
        [
            {"text": TEXT, "label": [], "mentions": OBJECTS},
            {"text": TEXT, "label": TRIPLES, "spans": OBJECTS},
            {"text": TEXT, "spans": OBJECTS, "label": TRIPLES},
            {"text": TEXT, "spans": [], "marks": TRIPLES},
            {"id": 1, "text": TEXT, "label": VALUES, "other": OBJECTS},
            [TEXT, {"entities": TRIPLES, "spans": OBJECTS}],
        ],
    )
    def test_entities_under_unknown_keys_are_refused(self, tmp_path, value):
        for path in (put(tmp_path, value), put_array(tmp_path, value)):
            with pytest.raises(CorpusError, match=r"(the|an entity has the) keys .*; (entities are )?expected"):
                read(path)

    @pytest.mark.parametrize(
        ("span", "misfit"),
        [
            ([0, 99, "PER"], "lies outside the text"),
            ([-3, 4, "PER"], "lies outside the text"),
            ([10**40, 10**41, "PER"], "lies outside the text"),
            ([4, 4, "PER"], "lies outside the text"),
            ([1, 10, "PER"], "'ina Okoye' does not fall on token boundaries; the tokens there are 'Mina Okoye'"),
            ([0, 10, ""], "a span [0, 10) 'Mina Okoye' has no type"),
            ([0, 10, None], "a span [0, 10) 'Mina Okoye' has no type"),
            ([5, 15, "PER"], "overlaps PER 'Mina Okoye', which is kept"),
        ],
    )
    def test_what_does_not_fit_is_listed_and_unknown(self, tmp_path, span, misfit):
        start, end, label = span
        entity = {"start": start, "end": end, "label": label}
        more = [list(MINA)] if "overlaps" in misfit else []
        values = {
            "doccano": {"text": TEXT, "label": [*more, span]},
            "prodigy": {"text": TEXT, "spans": [*more, entity]},
            "spacy-json": [TEXT, {"entities": [*more, span]}],
        }
        for tool, value in values.items():
            path = put(tmp_path, value, EXPORTS[tool])
            (document, _), report = read(path)
            assert len(report.misfits) == 1 and misfit in report.misfits[0], tool
            assert report.misfits[0].startswith(f"{path}, line 1: ")
            if 0 <= start < end < 40:
                assert UNKNOWN in document.labels
            assert read_split(path, CorpusConfig(train="unused"), partial=True).notes()

    def test_whitespace_at_the_edges_is_trimmed(self, tmp_path):
        (document,), report = read(put(tmp_path, {"text": " Mina \nleft\t", "label": [[0, 7, " PER "]]}))
        assert found(document) == [(1, 5, "PER")] and report == Report()

    @pytest.mark.parametrize(
        "entity",
        [
            ["0", 3, "PER"],
            [0.5, 3, "PER"],
            [True, 3, "PER"],
            [0, 3],
            [0, 3, "PER", 1],
            [0, 3, ["PER"]],
            {"start": 0, "label": "PER"},
            {"start": 0, "end": 3},
            {"begin": 0, "end": 3, "label": "PER"},
            {"start": None, "end": 3, "label": "PER"},
            {"start": 0, "end": 3, "label": {}},
            5,
            None,
        ],
    )
    def test_malformed_entities_are_refused(self, tmp_path, entity):
        for tool, value in (
            ("doccano", {"text": "Ada left", "label": [entity]}),
            ("prodigy", {"text": "Ada left", "spans": [entity]}),
            ("spacy-json", ["Ada left", {"entities": [entity]}]),
        ):
            with pytest.raises(CorpusError, match=r"in.jsonl, line 1: .*expected"):
                list(find_format(tool).read(put(tmp_path, value), ReadOptions(), Report()))

    def test_a_span_whose_own_text_is_another(self, tmp_path):
        text = "😀 Ada left"
        span = {"start": 3, "end": 6, "label": "PER", "text": "Ada"}
        for value in (
            {"text": text, "spans": [span]},
            {"text": text, "label": [{**span, "labels": ["PER"]}], "id": 1},
            task(region(3, 6, "PER", text="---Ada"), data={"text": text}),
        ):
            (document,), report = read(put(tmp_path, value))
            assert "PER 'Ada' stands elsewhere; the text at [3, 6) is 'da '" in report.misfits[0]
            assert "offsets count UTF-16 units" in report.misfits[0]
            assert document.labels == ("O", UNKNOWN, "O")


class TestDoccano:
    def test_relations_comments_and_classes_are_counted(self, tmp_path):
        relation = {"id": 1, "from_id": 3, "to_id": 3, "type": "x"}
        value = {"text": TEXT, "entities": OFFSETS, "relations": [relation] * 2, "Comments": ["hm"], "cats": ["a"]}
        (document,), report = read(put(tmp_path, {**value, "source": "web"}))
        assert found(document) == ALL
        assert report.notes == [
            f"{tmp_path / 'in.jsonl'}: left out: 2 relations, 1 comment, 1 class of a whole text",
            f"{tmp_path / 'in.jsonl'}: keys that are not kept: source",
        ]

    @pytest.mark.parametrize(
        "value",
        [
            {"id": 1, "text": TEXT, "label": ["positive"], "Comments": []},
            {"id": 1, "text": TEXT, "label": "positive", "Comments": []},
            {"text": TEXT, "labels": ["positive", "long"]},
            {"text": TEXT, "cats": ["positive"], "Comments": []},
        ],
    )
    def test_classes_of_texts_are_refused_by_name(self, tmp_path, value):
        with pytest.raises(CorpusError, match=r"labels the whole text: .* document classification"):
            read(put(tmp_path, value))

    def test_no_entities_and_no_labels_are_different(self, tmp_path):
        path = put(tmp_path, {"text": "Snow."}, {"text": "Rain.", "label": []}, {"text": TEXT, "label": TRIPLES})
        documents, report = read(path)
        assert documents[0].labels is None and documents[1].labels == ("O", "O")
        assert len(report.notes) == 2 and "1 text without an entity" in report.notes[1] + report.notes[0]
        split = read_split(path, CorpusConfig(train="unused"))
        assert split.entity_counts() == {"PER": 1, "LOC": 2} and split.unlabelled == 1

    def test_numbers_for_types(self, tmp_path):
        (document,), report = read(put(tmp_path, {"text": TEXT, "annotations": [{**OFFSETS[0], "label": 7}]}))
        assert found(document) == [(0, 10, "7")] and "1 type of entities given as a number" in report.notes[0]

    def test_users(self, tmp_path):
        path = put(tmp_path, {"text": TEXT, "annotations": [OFFSETS[0], {**OFFSETS[1], "user": 2}]})
        (document,), report = read(path)
        assert found(document) == [MINA] and "left out, by annotator: 2 1" in report.notes[0]
        assert found(read(path, annotator="2")[0][0]) == [MALMO]
        with pytest.raises(CorpusError, match="annotator '3' has no annotation here; those here: 1, 2"):
            read(path, annotator="3")

    def test_two_lists_are_ambiguous(self, tmp_path):
        with pytest.raises(CorpusError, match="entities under label and under entities: remove all but one"):
            read(put(tmp_path, {"text": TEXT, "label": TRIPLES, "entities": OFFSETS}))

    @pytest.mark.parametrize("value", [{"PER": [[0, 3]]}, 5])
    def test_not_a_list(self, tmp_path, value):
        with pytest.raises(CorpusError, match="label: expected a list; found"):
            read(put(tmp_path, {"text": TEXT, "label": value, "Comments": []}))


def tokens(text: str = TEXT) -> list[dict[str, object]]:
    offsets = [(0, 4), (5, 10), (11, 15), (16, 21), (21, 22), (22, 23), (23, 27), (28, 31), (31, 32)]
    return [
        {"text": text[a:b], "start": a, "end": b, "id": n, "ws": text[b : b + 1] == " "}
        for n, (a, b) in enumerate(offsets)
    ]


class TestProdigy:
    def test_answers(self, tmp_path):
        path = put(
            tmp_path,
            {"text": TEXT, "spans": OBJECTS, "answer": "accept"},
            {"text": "Ada left.", "spans": [], "answer": "reject"},
            {"text": "Ada left.", "spans": [], "answer": "ignore"},
            {"text": "Ada left.", "spans": [], "answer": "ignore"},
            {"text": "It rained.", "answer": "accept"},
            {"text": "It snowed."},
        )
        documents, report = read(path)
        assert [document.text for document in documents] == [TEXT, "It rained.", "It snowed."]
        assert documents[1].labels == ("O", "O", "O") and documents[2].labels is None
        assert report.notes == [f"{path}: left out: 1 rejected task, 2 ignored tasks"]
        assert len(read(path, labelled=False)[0]) == 6

    def test_tokens_of_the_task(self, tmp_path):
        text = TEXT.replace("left Malmö", "left,Malmö")  # the comma is no token, as no tokenizer would have it
        given = [{**token, "text": text[token["start"] : token["end"]]} for token in tokens(text)]
        spans = [{"token_start": 0, "token_end": 1, "label": "PER"}, {**OBJECTS[2], "token_start": 6}]
        (document,), report = read(put(tmp_path, {"text": text, "tokens": given, "spans": spans}))
        assert found(document) == [MINA, OSLO] and report == Report()
        assert document.tokens == ("Mina", "Okoye", "left", "Malmö", ".", "Oslo", "won", ".")
        assert document.sentence_starts == (0, 5)

    def test_pieces_of_words_are_not_tokens(self, tmp_path):
        pieces = [{"text": "Min", "start": 0, "end": 3}, {"text": "##a", "start": 3, "end": 4}]
        (document,), report = read(put(tmp_path, {"text": TEXT, "tokens": pieces, "spans": OBJECTS}))
        assert document.tokens[0] == "Mina" and "pieces of words" in report.notes[0]

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"tokens": ["Mina"]}, "tokens: expected objects with text, start and end"),
            (
                {"spans": [{"token_start": 0, "token_end": 9, "label": "X"}], "tokens": tokens()},
                "among the 9 tokens",
            ),
            ({"spans": [{"token_start": 0, "token_end": 1, "label": "X"}]}, "among the 0 tokens"),
            ({"spans": 5, "answer": "accept"}, "spans: expected a list"),
            ({"text": None, "image": "a.png", "answer": "accept", "_input_hash": 1}, "expected a text"),
        ],
    )
    def test_errors(self, tmp_path, more, message):
        with pytest.raises(CorpusError, match=message):
            read(put(tmp_path, {"text": TEXT, "spans": OBJECTS, **more}))

    @pytest.mark.parametrize("more", [{"label": "GOOD"}, {"options": [{"id": 1}], "accept": [1]}])
    def test_classes_of_texts_are_refused_by_name(self, tmp_path, more):
        with pytest.raises(CorpusError, match="document classification"):
            read(put(tmp_path, {"text": TEXT, "answer": "accept", **more}))

    @pytest.mark.parametrize("mark", [{"_is_binary": True}, {"_view_id": "ner"}])
    def test_of_a_yes_or_no_question_only_the_entity_is_known(self, tmp_path, mark):
        value = {"text": TEXT, "spans": OBJECTS[:1], "answer": "accept", **mark}
        (document,), report = read(put(tmp_path, value))
        assert (
            document.labels == ("B-PER", "I-PER", *[UNKNOWN] * 6)
            and "1 task with a yes-or-no question" in report.notes[0]
        )

    def test_a_question_without_an_answer(self, tmp_path):
        (document,), _ = read(put(tmp_path, {"text": TEXT, "_view_id": "ner", "_input_hash": 1}))
        assert document.labels is None

    def test_annotators_relations_and_texts_that_come_again(self, tmp_path):
        path = put(
            tmp_path,
            {"text": TEXT, "spans": OBJECTS[:1], "_input_hash": 1, "_annotator_id": "ner-ann", "answer": "accept"},
            {"text": TEXT, "spans": OBJECTS[1:], "_input_hash": 1, "_annotator_id": "ner-bob", "answer": "accept"},
            {"text": "Ada left.", "spans": [], "_input_hash": 2, "_annotator_id": "ner-bob", "answer": "accept"},
            {"text": "Ada left.", "spans": [], "_input_hash": 2, "_annotator_id": "ner-bob", "relations": [{}]},
        )
        documents, report = read(path)
        assert [found(document) for document in documents] == [[MINA], [], []]
        assert report.notes == [
            f"{path}: several people annotated it; read: the first for each text; left out, by annotator: "
            "ner-bob 1 (corpus.annotator chooses)",
            f"{path}: left out: 1 relation",
            f"{path}: 1 task with the text of an earlier one, read by itself",
        ]
        documents, _ = read(path, annotator="bob")
        assert [found(document) for document in documents] == [[MALMO, OSLO], [], []]

    def test_scores_and_tokens_are_written(self, tmp_path):
        document = Document.from_spans(["Ada", "left"], [Span(0, 1, "PER")], scores=[0.5])
        find_format("prodigy").write(tmp_path / "out.jsonl", [document], WriteOptions(), Report())
        tree = json.loads((tmp_path / "out.jsonl").read_text())
        span = {"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "PER", "score": 0.5}
        assert tree["spans"] == [span] and "answer" not in tree  # a question for a person
        assert tree["tokens"][0] == {"text": "Ada", "start": 0, "end": 3, "id": 0, "ws": True}
        (again,), _ = read(tmp_path / "out.jsonl")
        assert again.scores == (0.5,)


class TestLabelStudio:
    def test_everything_that_is_not_read_is_counted(self, tmp_path):
        other = [
            {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
            {"type": "choices", "value": {"choices": ["good"]}, "from_name": "x", "to_name": "text"},
            {"type": "textarea", "value": {"start": 0, "end": 4, "text": ["note"]}, "id": "r"},
        ]
        value = task(*REGIONS, *other)
        value["annotations"].insert(0, {"was_cancelled": True, "result": []})
        value["annotations"].insert(0, {"skipped": True, "result": REGIONS[:1]})
        path = put_array(tmp_path, {**value, "predictions": [{"result": REGIONS}], "drafts": [{}]})
        (document,), report = read(path)
        assert found(document) == ALL
        assert report.notes == [
            f"{path}: left out: 1 prediction, 1 draft, 2 cancelled annotations, 1 relation, "
            "1 result of the type choices, 1 result of the type textarea"
        ]

    def test_tasks_without_annotation_are_unlabelled(self, tmp_path):
        cancelled = {**task(), "annotations": [{"was_cancelled": True, "result": REGIONS}]}
        bare = {"data": {"text": "It rained."}, "predictions": [{"result": []}]}
        path = put_array(tmp_path, cancelled, bare, {**task(), "annotations": []}, task())
        documents, report = read(path)
        assert [document.labels is None for document in documents] == [True, True, True, False]
        assert documents[3].labels == ("O",) * 8 and "3 tasks without an annotation, unlabelled" in report.notes[1]
        path = put_array(tmp_path, {"data": {"text": "It rained."}})  # to be tagged
        assert detect_format(path).name == "labelstudio" and len(read(path, labelled=False)[0]) == 1

    def several(self, first: object = 1, second: object = 2) -> dict[str, object]:
        own = {"completed_by": first, "result": REGIONS[:1]}
        return {
            "id": 7,
            "data": {"text": TEXT},
            "annotations": [own, {"completed_by": second, "result": REGIONS[1:]}],
        }

    @pytest.mark.parametrize("person", [2, "b@x.org", {"id": 2, "email": "b@x.org", "first_name": "B"}])
    def test_several_annotators(self, tmp_path, person):
        path = put_array(tmp_path, self.several(second=person), {**task(), "id": 8})
        documents, report = read(path)
        assert [found(document) for document in documents] == [[MINA], []]
        assert (
            "several people annotated it; read: the first for each text; left out, by annotator:"
            in report.notes[0]
        )
        name = "b@x.org" if isinstance(person, dict) else str(person)
        documents, report = read(path, annotator=name)
        assert [found(document) for document in documents] == [[MALMO, OSLO]]
        assert report.notes == [
            f"{path}: several people annotated it; read: {name}; left out, by annotator: 1 2 "
            "(corpus.annotator chooses)",
            f"{path}: left out: 1 task that the annotator has not annotated",
        ]
        with pytest.raises(CorpusError, match="annotator '3' has no annotation here; those here: 1, "):
            read(path, annotator="3")
        nameless = {"data": {"text": TEXT}, "annotations": [{"result": REGIONS}]}
        assert found(read(put_array(tmp_path, nameless), annotator="3")[0][0]) == ALL
        with pytest.raises(CorpusError, match="there is no text in it"):
            list(find_format("labelstudio").read(put_array(tmp_path), ReadOptions(), Report()))

    def test_several_annotations_in_json_min(self, tmp_path):
        rows = [
            {"id": 7, "text": TEXT, "label": VALUES[:1], "annotator": 1, "annotation_id": 1},
            {"id": 7, "text": TEXT, "label": VALUES[1:], "annotator": 2, "annotation_id": 2},
            {"id": 7, "text": TEXT, "label": VALUES, "annotator": 1, "annotation_id": 3},
            {
                "id": 8,
                "text": "It rained.",
                "annotator": 2,
                "annotation_id": 4,
                "lead_time": 3.5,
                "created_at": "x",
            },
        ]
        path = put(tmp_path, *rows)
        documents, report = read(path)
        assert [found(document) for document in documents] == [[MINA], []] and documents[1].labels is not None
        assert report.notes[1] == f"{path}: left out: 1 later annotation by the same annotator"
        assert [found(document) for document in read(path, annotator="2")[0]] == [[MALMO, OSLO], []]
        assert len(read(path, labelled=False)[0]) == 2

    def test_labels(self, tmp_path):
        regions = [region(0, 10, "Job title", "PER"), region(16, 21), region(23, 27, "LOC")]
        (document,), report = read(put_array(tmp_path, task(*regions)))
        assert found(document) == [(0, 10, "Job title"), OSLO]
        assert len(report.misfits) == 2 and "overlaps Job title 'Mina Okoye'" in report.misfits[0]
        assert "a span [16, 21) 'Malmö' has no type" in report.misfits[1]
        assert document.labels == ("B-Job title", "I-Job title", "O", UNKNOWN, "O", "B-LOC", "O", "O")

    def test_the_text_may_have_any_key(self, tmp_path):
        data = {"title": "A longer title than the text itself has, by far", "body": TEXT, "n": 5}
        path = put_array(tmp_path, task(*REGIONS, data=data), task(data={**data, "body": "It rained."}))
        documents, report = read(path)
        assert [found(document) for document in documents] == [ALL, []]
        assert report.notes == [f"{path}: the text was read from 'body'; there are strings under title too"]
        rows = [{"id": 1, "body": TEXT, "mood": "Positive, and more so than any other", "label": VALUES}]
        assert found(read(put(tmp_path, *rows))[0][0]) == ALL
        with pytest.raises(CorpusError, match="item 2: expected a text under 'body', as in the other tasks"):
            read(put_array(tmp_path, task(*REGIONS, data=data), task(data={"title": "x"})))
        data = {"text": "It rained.", "source": "a source that is longer than the text"}
        assert read(put_array(tmp_path, task(data=data)))[0][0].text == "It rained."

    def test_line_ends_and_texts_that_are_left_out(self, tmp_path):
        text = "New\nHaven won"
        spelled = {"start": 0, "end": 9, "text": "New\\nHaven", "labels": ["LOC"]}
        bare = {"start": 0, "end": 9, "labels": ["LOC"]}
        for value in (spelled, bare):
            item = {"type": "labels", "value": value}
            (document,), report = read(put_array(tmp_path, task(item, data={"text": text})))
            assert found(document) == [(0, 9, "LOC")] and report == Report()

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            (
                {"type": "hypertextlabels", "value": {"start": "/p[1]", "end": "/p[1]", "hypertextlabels": ["X"]}},
                "Hyper",
            ),
            (
                {"type": "paragraphlabels", "value": {"start": "0", "end": "0", "paragraphlabels": ["X"]}},
                "Paragraphs",
            ),
            ({"type": "rectanglelabels", "value": {"x": 1.0, "rectanglelabels": ["X"]}}, "images"),
            ({"type": "labels", "value": {"start": 0.5, "end": 3, "labels": ["X"]}}, "expected start and end"),
            ({"type": "new", "value": {"start": "0"}}, "a region of the type new has the keys start"),
            (5, "result: expected objects"),
        ],
    )
    def test_regions_of_other_things_are_refused(self, tmp_path, item, message):
        with pytest.raises(CorpusError, match=message):
            read(put_array(tmp_path, task(item)))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"data": {"image": 5}, "annotations": []}, "data: expected a text"),
            ({"data": {"text": "a"}, "annotations": [5]}, "annotations: expected objects"),
            ({"data": {"text": "a"}, "annotations": {"result": []}}, "annotations: expected a list"),
            ({"data": {"text": "a"}, "annotations": [{"result": 5}]}, "result: expected a list"),
            ({"id": 1, "annotation_id": 3}, "expected a text, a string under any key"),
        ],
    )
    def test_errors(self, tmp_path, value, message):
        with pytest.raises(CorpusError, match=f"item 1: {message}"):
            read(put_array(tmp_path, value))

    def test_predictions_are_written_as_such(self, tmp_path):
        document = Document.from_spans(["Ada", "left"], [Span(0, 1, "PER")], scores=[0.5])
        find_format("labelstudio").write(tmp_path / "out.json", [document], WriteOptions(), Report())
        (tree,) = json.loads((tmp_path / "out.json").read_text())
        assert tree["predictions"][0]["result"][0]["score"] == 0.5 and "annotations" not in tree
        (again,), report = read(tmp_path / "out.json")
        assert again.labels is None and "left out: 1 prediction" in report.notes[0]

    def test_conll(self, tmp_path):
        rows = "Mina -X- _ B-Job title\nOkoye -X- _ I-Job title\nleft -X- _ O\n\nOslo -X- _ B-LOC\n\n"
        path = tmp_path / "in.conll"
        path.write_text(f"-DOCSTART- -X- O\n{rows}", encoding="utf-8")
        split = read_split(path, CorpusConfig(train="unused"))
        assert split.entity_counts() == {"Job title": 1, "LOC": 1} and len(split) == 2
        assert split.sentences[0].tokens == ("Mina", "Okoye", "left")


def paragraph(rows: list[list[tuple[str, object]]], **more: object) -> dict[str, object]:
    sentences = [
        {"tokens": [{"id": n, "orth": orth, "ner": ner, "tag": "X"} for n, (orth, ner) in enumerate(row)]}
        for row in rows
    ]
    return {"sentences": sentences, **more}


ROWS = [[("Mina", "B-PER"), ("Okoye", "L-PER"), ("left", "O"), ("Malmö", "U-LOC"), (".", "O"), (" ", "O")]]
ROWS += [[("Oslo", "U-LOC"), ("won", "O"), (".", "O")]]


class TestSpacyJson:
    def test_paragraphs(self, tmp_path):
        value = {"id": 3, "paragraphs": [paragraph(ROWS, raw=TEXT), paragraph(ROWS)]}
        for path in (put_array(tmp_path, value), put(tmp_path, value), put_array(tmp_path, value, indent=1)):
            assert detect_format(path).name == "spacy-json"
            split = read_split(path, CorpusConfig(train="unused"))
            assert split.scheme is Scheme.BILOU and split.document_count == 1 and len(split) == 4
            assert split.report.notes == [f"{path}: keys that are not kept: tag"]
            first, second = split.documents
            assert found(first) == ALL and first.text == TEXT and first.sentence_starts == (0, 5)
            assert second.source_text is None and second.spans == first.spans

    def test_labels_that_are_missing(self, tmp_path):
        row = [("Mina", "U-PER"), ("left", "-"), ("Malmö", None), (".", "O")]
        path = put_array(tmp_path, {"paragraphs": [paragraph([row])]})
        split = read_split(path, CorpusConfig(train="unused"), partial=True)
        assert split.labels == [["U-PER", UNKNOWN, UNKNOWN, "O"]]
        path = put_array(tmp_path, {"paragraphs": [paragraph([[("a", "-"), ("b", "-")]])]})
        assert read(path)[0][0].labels is None

    def test_raw_text_that_does_not_have_the_tokens(self, tmp_path):
        (document,), report = read(put_array(tmp_path, {"paragraphs": [paragraph(ROWS, raw="Nobody came.")]}))
        assert document.source_text is None and len(document) == 8
        assert "1 text without its tokens in it" in report.notes[1]

    def test_raw_text_with_offsets(self, tmp_path):
        value = {"paragraphs": [{"raw": TEXT, "entities": TRIPLES, "sentences": []}]}
        assert found(read(put_array(tmp_path, value))[0][0]) == ALL

    def test_labels_of_words(self, tmp_path):
        labels = ["B-PER", "L-PER", "O", "U-LOC", "O", "U-LOC", "O", "-"]
        words = ["Mina", "Okoye", "left", "Malmö", ".", "Oslo", "won", "."]
        path = put_array(tmp_path, [TEXT, {"words": words, "entities": labels, "cats": {"a": 1.0}}])
        split = read_split(path, CorpusConfig(train="unused"), partial=True)
        assert found(split.documents[0]) == ALL and split.unknown_count == 1
        assert split.report.notes == [f"{path}: keys that are not kept: cats"]

    def test_without_entities_and_without_labels(self, tmp_path):
        documents, _ = read(put_array(tmp_path, [TEXT, {"entities": []}], [TEXT, {"cats": {}}]))
        assert documents[0].labels == ("O",) * 8 and documents[1].labels is None

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([TEXT, {"entities": ["B-PER"]}], "1 labels and 0 words"),
            ([TEXT, {"entities": ["B-PER"], "words": [5]}], "expected words that are strings"),
            ([TEXT, {"entities": {"PER": 1}}], "entities: expected a list"),
            ([TEXT, "PER"], r"expected \[text, "),
            ([TEXT, {}, 5], r"expected \[text, "),
            ({"paragraphs": [5]}, "expected an object"),
            ({"paragraphs": [{"sentences": [{"tokens": ["a"]}]}]}, "expected tokens with orth and ner"),
            ({"paragraphs": [{"sentences": [{"tokens": [{"orth": "a", "ner": 5}]}]}]}, "expected labels that are"),
        ],
    )
    def test_errors(self, tmp_path, value, message):
        with pytest.raises(CorpusError, match=message):
            list(find_format("spacy-json").read(put_array(tmp_path, value), ReadOptions(), Report()))

    def test_questions_and_answers_are_not_this_format(self, tmp_path):
        value = {"title": "x", "paragraphs": [{"context": "x", "qas": []}]}
        with pytest.raises(CorpusError, match="expected paragraphs with sentences; the keys are context, qas"):
            read(put_array(tmp_path, value))
        with pytest.raises(CorpusError, match="the keys are data"):
            read(put(tmp_path, {"data": [value]}))


EXPORTS = {
    "doccano": {"id": 1, "text": TEXT, "label": TRIPLES, "Comments": []},
    "prodigy": {"text": TEXT, "spans": OBJECTS, "answer": "accept"},
    "labelstudio": task(*REGIONS),
    "spacy-json": [TEXT, {"entities": TRIPLES}],
}


class TestSpacyDoc:
    """What `Doc.to_json()` of spaCy 3 gives."""

    def test_it_is_what_spacy_gives(self, tmp_path):
        spacy = pytest.importorskip("spacy")
        nlp = spacy.blank("en")
        nlp.add_pipe("sentencizer")
        doc = nlp(TEXT)
        doc.ents = [doc.char_span(*span) for span in ALL]
        for path in (put(tmp_path, doc.to_json()), put_array(tmp_path, doc.to_json(), indent=2)):
            assert detect_format(path).name == "spacy-json"
            (document,), report = read(path)
            assert found(document) == ALL
            assert document.tokens == tuple(token.text for token in doc if not token.is_space)
            assert document.sentence_starts == tuple(sentence.start for sentence in doc.sents)
            assert not report.misfits

    def test_without_ents_it_is_unlabelled(self, tmp_path):
        path = put(tmp_path, {"text": "Ada left.", "sents": [], "tokens": [{"start": 0, "end": 3}]})
        (document,), _ = read(path)
        assert document.labels is None and document.tokens == ("Ada",)

    @pytest.mark.parametrize(
        ("tokens", "message"),
        [
            ([{"start": 0, "end": 99}], "tokens: expected objects with start and end, which are in the text"),
            ([{"start": 4, "end": 8}, {"start": 0, "end": 3}], "expected them one after another"),
            ([{"start": True, "end": 8}], "tokens: expected objects with start and end"),
        ],
    )
    def test_wrong_tokens_are_refused(self, tmp_path, tokens, message):
        with pytest.raises(CorpusError, match=message):
            read(put(tmp_path, {"text": "Ada left.", "ents": [], "tokens": tokens}))


class TestLabelStudioTable:
    """The CSV and TSV exports: JSON-MIN as a table."""

    HEADER = "text,id,label,annotator,annotation_id,created_at,updated_at,lead_time\n"

    def table(self, *rows: list[object], delimiter: str = ",") -> str:
        stream = io.StringIO()
        csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
        return self.HEADER.replace(",", delimiter) + stream.getvalue()

    @pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
    def test_regions_are_read(self, tmp_path, suffix, delimiter):
        text = TEXT.replace(". ", ".\n")
        values = json.dumps([{**value, "text": text[value["start"] : value["end"]]} for value in VALUES])
        rows = [[text, 1, values, "ada@x.org", 7, "2024", "2024", 1.5], ["[1] It rained.", 2, "", 1, 8, "", "", 2]]
        path = tmp_path / f"in{suffix}"
        path.write_text(self.table(*rows, delimiter=delimiter), encoding="utf-8", newline="")
        assert detect_format(path).name == "labelstudio"
        (first, second), _ = read(path)
        assert found(first) == ALL and first.text == text
        assert found(second) == [] and second.text == "[1] It rained." and UNKNOWN not in second.labels

    def test_one_of_several_annotators(self, tmp_path):
        path = tmp_path / "in.csv"
        rows = [[TEXT, 1, json.dumps([value]), who, who, "", "", ""] for who, value in enumerate(VALUES[:2], 1)]
        path.write_text(self.table(*rows), encoding="utf-8", newline="")
        (document,), report = read(path)
        assert found(document) == [MINA] and "several people" in report.notes[0]
        assert found(read(path, annotator="2")[0][0]) == [MALMO]

    def test_a_row_of_another_width_is_refused(self, tmp_path):
        path = tmp_path / "in.csv"
        path.write_text(self.HEADER + "Ada left.,1\n", encoding="utf-8")
        with pytest.raises(CorpusError, match="line 2: found 2 values where the header has 8"):
            read(path)


class TestNothingIsThereToLearn:
    """The error names what was left out, which is why."""

    @pytest.mark.parametrize(
        ("value", "causes"),
        [
            (
                {"text": "Ada left.", "entities": [{"start": 0, "end": 3, "label": "PER", "text": "Bob"}]},
                "elsewhere",
            ),
            ({"data": {"text": TEXT}, "annotations": [], "predictions": [{"result": []}]}, "1 prediction"),
            ({"text": TEXT, "spans": [], "answer": "reject"}, "1 rejected task"),
        ],
    )
    def test_train_and_convert_say_so(self, tmp_path, monkeypatch, value, causes):
        monkeypatch.chdir(tmp_path)
        path = put(tmp_path, value)
        for arguments in (["train", str(path)], ["convert", str(path), "out.conll"]):
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 1 and causes in done.output, done.output


def test_json_lines_with_the_line_ends_of_old_macs(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "Ada", "label": []}\r' * 3, encoding="utf-8", newline="")
    with pytest.raises(CorpusError, match=r"line ends of old Macs: convert it with `tr '\\r' '\\n'`"):
        read(path)


class TestCommands:
    """No command needs to be told the format."""

    @pytest.mark.parametrize("tool", TOOLS)
    @pytest.mark.parametrize("kind", [put, put_array])
    def test_convert_check_and_tag(self, tmp_path, trained_run, tool, kind):
        path = kind(tmp_path, EXPORTS[tool], EXPORTS[tool])
        run = CliRunner().invoke
        done = run(main, ["convert", str(path), str(tmp_path / "out.conll")])
        assert done.exit_code == 0 and "(4 sentences, 16 tokens, 6 entities)" in done.output, done.output
        assert "Okoye I-PER" in (tmp_path / "out.conll").read_text(encoding="utf-8")
        done = run(main, ["convert", str(path), str(tmp_path / "back.json"), "--to", tool])
        assert done.exit_code == 0, done.output
        assert [found(document) for document in read(tmp_path / "back.json")[0]] == [ALL, ALL]
        done = run(main, ["check", str(path)])
        assert done.exit_code == 0 and "PER" in done.output, done.output
        done = run(main, ["tag", str(path), "--model", str(trained_run), "--to", "jsonl"])
        assert done.exit_code == 0, done.output
        texts = [json.loads(line)["text"] for line in done.stdout.splitlines() if line.startswith("{")]
        assert texts == [TEXT, TEXT]
        done = run(main, ["evaluate", str(path), "--model", str(trained_run)])
        assert done.exit_code == 0, done.output

    def test_an_annotator_is_chosen_by_a_setting(self, tmp_path):
        path = put_array(tmp_path, TestLabelStudio().several())
        for name, entities in (("1", [MINA]), ("2", [MALMO, OSLO])):
            out = tmp_path / f"{name}.jsonl"
            arguments = ["convert", str(path), str(out), "--set", f"corpus.annotator={name}"]
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 0, done.output
            assert found(read(out)[0][0]) == entities

    @pytest.mark.parametrize(
        ("content", "format", "text"),
        [
            (json.dumps({"text": TEXT, "label": TRIPLES}) + "\n", "doccano", TEXT),
            ("Mina B-PER\nleft O\nOslo B-LOC\n\nIt O\nrained O\n", "conll", "Mina left Oslo"),
        ],
    )
    def test_tag_sees_that_a_file_called_txt_is_no_raw_text(self, tmp_path, trained_run, content, format, text):
        path = tmp_path / "in.txt"
        path.write_text(content, encoding="utf-8")
        done = CliRunner().invoke(main, ["tag", str(path), "--model", str(trained_run), "--to", "jsonl"])
        assert done.exit_code == 0 and f"read as {format}, as its content shows" in done.output, done.output
        assert json.loads(next(line for line in done.stdout.splitlines() if line[:1] == "{"))["text"] == text
        done = CliRunner().invoke(main, ["tag", str(path), "--model", str(trained_run), "--from", "text"])
        assert content.split()[-1] in done.stdout and "read as" not in done.output

    def test_what_tag_predicts_is_something_to_correct(self, tmp_path, trained_run):
        (tmp_path / "in.txt").write_text("Ada Byron left London .\n")
        for tool, key in (("labelstudio", "predictions"), ("prodigy", "spans"), ("doccano", "label")):
            arguments = ["tag", str(tmp_path / "in.txt"), "--model", str(trained_run), "--to", tool]
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 0, done.output
            assert f'"{key}"' in done.stdout and "LOC" in done.stdout
