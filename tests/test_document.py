from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.text.document import UNKNOWN, Document, Origin, join
from nertool.text.schemes import Scheme, Span

TEXT = "Ada met Otto. She  left Oslo."
OFFSETS = ((0, 3), (4, 7), (8, 12), (12, 13), (14, 17), (19, 23), (24, 28), (28, 29))


@pytest.fixture
def document() -> Document:
    return Document.from_spans(
        [TEXT[start:end] for start, end in OFFSETS],
        [Span(0, 1, "PER"), Span(2, 3, "PER"), Span(6, 7, "LOC")],
        unknown=[4, 6],
        scores=[0.9, 0.8, 0.7],
        source_text=TEXT,
        source_offsets=OFFSETS,
        sentence_starts=(0, 4),
        columns={"n": tuple("12345678")},
        id="x",
        origin=Origin("file", "line", (3, 9)),
    )


def test_entities_follow_from_the_labels(document):
    assert document.labels == ("B-PER", "O", "B-PER", "O", UNKNOWN, "O", "B-LOC", "O")
    assert [(each.text, each.label, each.start, each.score) for each in document.entities] == [
        ("Ada", "PER", 0, 0.9),
        ("Otto", "PER", 8, 0.8),
        ("Oslo", "LOC", 24, 0.7),
    ]
    assert document.spans[2] == Span(6, 7, "LOC") and not document.has_tags


def test_sentences_are_documents(document):
    first, second = document.sentences()
    assert second.text == "She  left Oslo." and second.tokens == ("She", "left", "Oslo", ".")
    assert second.offsets[1] == (5, 9) and second.id == "x" and second.columns == {"n": tuple("5678")}
    assert [(each.text, each.start, each.score) for each in second.entities] == [("Oslo", 10, 0.7)]
    assert first.scores == (0.9, 0.8) and second.origin.place(0, 1) == "line 10"
    assert next(first.sentences()) is first
    assert list(Document(()).sentences()) == [] and Document(()).text == ""


def test_sentences_joined_again_are_the_document(document):
    joined = join(list(document.sentences()), between=" ")
    for name in ("tokens", "labels", "scores", "columns", "sentence_starts", "id", "origin"):
        assert getattr(joined, name) == getattr(document, name), name
    assert joined.text == TEXT and joined.offsets == document.offsets and joined.entities == document.entities


@given(st.lists(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4), min_size=1, max_size=4))
def test_offsets_without_a_text_point_to_the_tokens(sentences):
    starts = [sum(map(len, sentences[:n])) for n in range(len(sentences))]
    tokens = tuple(token for sentence in sentences for token in sentence)
    document = Document(tokens, sentence_starts=tuple(starts))
    assert tuple(document.text[start:end] for start, end in document.offsets) == tokens
    assert document.text.split("\n") == [" ".join(sentence) for sentence in sentences]
    assert [list(sentence.tokens) for sentence in document.sentences()] == sentences


def test_no_entity_crosses_the_end_of_a_sentence():
    document = Document(("a", "b"), sentence_starts=(0, 1), labels=("B-X", "I-X"), scheme=Scheme.IOB2)
    assert document.spans == (Span(0, 1, "X"), Span(1, 2, "X"))


def test_plain_tags_and_no_labels_mark_nothing():
    assert Document(("a",), labels=("NN",), scheme=Scheme.PLAIN).entities == ()
    assert Document(("a",)).entities == () and Document(("a",)).labels is None
    with pytest.raises(ValueError, match="2 labels for 1 tokens"):
        Document(("a",), labels=("O", "O"))


def test_places():
    lines = Origin("f", "line", (3, 10), skipped=(4, 12))
    assert [lines.place(0, n) for n in (None, 0, 1, 2)] == ["line 3", "line 3", "line 5", "line 6"]
    assert lines.line(1, 2) == 13
    rows = Origin("f", "row", (3, 10))
    assert rows.place(1) == "row 10" and rows.place(1, 0) == "row 10, token 1" and rows.line(1) is None
