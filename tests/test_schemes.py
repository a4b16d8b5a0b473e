from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.text.schemes import (
    PREFIXES,
    Scheme,
    Span,
    allowed_transitions,
    check_label,
    convert,
    detect,
    encode,
    spans,
    split_label,
    stray_positions,
)

SPAN_SCHEMES = list(PREFIXES)


def label_set(scheme: Scheme, types: str = "XY") -> list[str]:
    prefixes = sorted({prefix for prefix in PREFIXES[scheme] if prefix})
    return ["O"] + [f"{prefix}-{kind}" for prefix in prefixes for kind in types]


def conlleval(labels: list[str]) -> list[Span]:
    """The rules of conlleval's startOfChunk and endOfChunk, written down pair by pair, as an oracle.

    They are kept in their two-table form, so that they share nothing with the code under test.
    """
    same = {"M": "I", "L": "E", "U": "S"}
    starts = {"BB", "IB", "EB", "SB", "OB", "OI", "OE", "EE", "EI", "SI", "SE", "OS", "BS", "IS", "ES", "SS"}
    ends = {"BB", "BO", "BS", "IB", "IO", "IS", "EE", "EI", "EO", "EB", "ES", "SB", "SI", "SE", "SO", "SS"}
    found, start = [], 0
    before, before_type, inside = "O", "", False
    for position, label in enumerate([*labels, "O"]):
        prefix, _, kind = label.partition("-")
        prefix = same.get(prefix, prefix)
        if inside and (before + prefix in ends or kind != before_type):
            found.append(Span(start, position, before_type))
            inside = False
        if before + prefix in starts or (prefix != "O" and kind != before_type):
            start, inside = position, True
        before, before_type = prefix, kind
    return found


@st.composite
def entities(draw: st.DrawFn) -> tuple[list[Span], int]:
    found, place = [], 0
    for gap, size, kind in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(["PER", "LOC", "art-film"])))
    ):
        place += gap
        found.append(Span(place, place + size, kind))
        place += size
    return found, place + draw(st.integers(0, 2))


@given(entities(), st.sampled_from(SPAN_SCHEMES), st.sampled_from(SPAN_SCHEMES))
def test_conversion_to_and_fro_keeps_spans_and_labels(drawn, source, target):
    wanted, length = drawn
    labels = encode(wanted, length, source)
    assert spans(labels, source) == wanted
    converted = convert(labels, source, target)
    assert spans(converted, target) == wanted
    assert convert(converted, target, source) == labels


@given(entities(), st.sampled_from(SPAN_SCHEMES))
def test_encoded_labels_are_valid(drawn, scheme):
    labels = encode(*drawn, scheme)
    assert stray_positions(labels, scheme) == []
    assert all(check_label(label, scheme) for label in labels)


@pytest.mark.parametrize("scheme", SPAN_SCHEMES)
def test_every_short_sequence_against_transitions_strays_and_conlleval(scheme):
    labels = label_set(scheme)
    start, transitions, end = allowed_transitions(labels, scheme)
    for length in range(1, 5):
        for path in product(range(len(labels)), repeat=length):
            sequence = [labels[index] for index in path]
            allowed = start[path[0]] and end[path[-1]] and all(transitions[a, b] for a, b in pairwise(path))
            strays = stray_positions(sequence, scheme)
            assert bool(allowed) == (not strays), sequence
            assert strays == sorted(set(strays)) and all(0 <= stray < length for stray in strays)
            if length < 4 or path[0] < 3:
                read = spans(sequence, scheme)
                assert read == conlleval(sequence), sequence
                repaired = convert(sequence, scheme, scheme)
                assert spans(repaired, scheme) == read
                # A valid sequence is the one way to write its spans.
                assert (repaired == sequence) == (not strays), sequence


@given(st.lists(st.sampled_from([f"{p}-{t}" for p in "BIMELSU" for t in "XY"] + ["O"]), max_size=12))
def test_mixed_prefixes_read_as_conlleval_reads_them(labels):
    assert spans(labels, Scheme.IOBES) == conlleval(labels)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("I-A I-A", [(0, 2, "A")]),
        ("I-A B-A", [(0, 1, "A"), (1, 2, "A")]),
        ("B-A I-B", [(0, 1, "A"), (1, 2, "B")]),
        ("O E-A O", [(1, 2, "A")]),
        ("B-A E-A E-A", [(0, 2, "A"), (2, 3, "A")]),
        ("S-A I-A", [(0, 1, "A"), (1, 2, "A")]),
        ("B-A O E-A", [(0, 1, "A"), (2, 3, "A")]),
        ("B-A S-A", [(0, 1, "A"), (1, 2, "A")]),
        ("B-A I-A I-A", [(0, 3, "A")]),
        ("", []),
    ],
)
def test_awkward_sequences(labels, expected):
    assert spans(labels.split(), Scheme.IOBES) == [Span(*each) for each in expected]


@pytest.mark.parametrize(
    ("scheme", "labels"),
    [
        (Scheme.IOB1, "I-P I-P B-P O I-L I-P"),
        (Scheme.IOB2, "B-P I-P B-P O B-L B-P"),
        (Scheme.IOBES, "B-P E-P S-P O S-L S-P"),
        (Scheme.BILOU, "B-P L-P U-P O U-L U-P"),
        (Scheme.BMES, "B-P E-P S-P O S-L S-P"),
    ],
)
def test_encode_writes_each_scheme(scheme, labels):
    found = [Span(0, 2, "P"), Span(2, 3, "P"), Span(4, 5, "L"), Span(5, 6, "P")]
    assert encode(reversed(found), 6, scheme) == labels.split()


@pytest.mark.parametrize(
    ("scheme", "labels", "strays"),
    [
        (Scheme.IOB2, "I-A O B-A I-B", [0, 3]),
        (Scheme.IOB1, "B-A I-A B-A I-B B-A", [0, 4]),
        (Scheme.IOBES, "B-A O", [0]),
        (Scheme.IOBES, "B-A I-B E-B", [0, 1]),
        (Scheme.IOBES, "O E-A I-A", [1, 2]),
        (Scheme.BILOU, "B-A I-A", [1]),
        (Scheme.BMES, "B-A M-A E-A S-A", []),
        (Scheme.PLAIN, "I-A NOUN", []),
    ],
)
def test_stray_positions(scheme, labels, strays):
    assert stray_positions(labels.split(), scheme) == strays


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        (Scheme.IOB1, "I-A I-A O I-B | I-A B-A"),
        (Scheme.IOB1, "I-A O I-B I-B"),
        (Scheme.IOB2, "B-A I-A O B-B"),
        (Scheme.IOB2, "B-A B-A B-B | B-A O B-B I-B | I-A O"),
        (Scheme.IOB2, "O O | O"),
        (Scheme.IOB2, ""),
        (Scheme.IOBES, "B-A I-A E-A S-B"),
        (Scheme.IOBES, "S-A O | B-B E-B"),
        (Scheme.BILOU, "B-A I-A L-A U-B"),
        (Scheme.BILOU, "U-A O"),
        (Scheme.BMES, "B-A M-A E-A S-B"),
        (Scheme.PLAIN, "NOUN VERB ADJ"),
        (Scheme.PLAIN, "NN -LRB- NN -RRB- O"),
        (Scheme.PLAIN, "B I O"),
        (Scheme.IOB2, "B-A I-A O B_A B-B"),
    ],
)
def test_detect(scheme, text):
    assert detect([sentence.split() for sentence in text.split("|")]) is scheme


@given(st.lists(entities(), min_size=1, max_size=8), st.sampled_from(SPAN_SCHEMES))
def test_detection_never_calls_entities_plain_and_reads_the_same_spans(drawn, scheme):
    sequences = [encode(*each, scheme) for each in drawn]
    found = detect(sequences)
    assert found is not Scheme.PLAIN
    for (wanted, _), labels in zip(drawn, sequences, strict=True):
        assert spans(labels, found) == wanted


def test_labels():
    assert split_label("B-art-film") == ("B", "art-film")
    assert split_label("O") == ("O", "")
    assert check_label("B-art-film", Scheme.IOB1)
    assert not check_label("E-PER", Scheme.IOB2)
    assert not check_label("B-", Scheme.IOB2)
    assert not check_label("B", Scheme.IOB2)
    assert not check_label("M-PER", Scheme.IOBES)
    assert check_label("-LRB-", Scheme.PLAIN)
    assert not check_label("", Scheme.PLAIN)
    assert Scheme("plain") is Scheme.PLAIN and str(Scheme.IOB2) == f"{Scheme.IOB2}" == "IOB2"


def test_plain_labels_have_no_spans_and_no_constraints():
    assert spans(["NOUN", "B-X"], Scheme.PLAIN) == []
    assert convert(["NOUN"], Scheme.PLAIN, Scheme.PLAIN) == ["NOUN"]
    start, transitions, end = allowed_transitions(["NOUN", "VERB"], Scheme.PLAIN)
    assert start.all() and transitions.all() and end.all()
    assert transitions.shape == (2, 2) and transitions.dtype == np.bool_
    for source, target in [(Scheme.PLAIN, Scheme.IOB2), (Scheme.IOB2, Scheme.PLAIN)]:
        with pytest.raises(ValueError, match="plain"):
            convert(["O"], source, target)
    with pytest.raises(ValueError, match="plain"):
        encode([], 1, Scheme.PLAIN)


def test_transitions_of_no_labels():
    start, transitions, end = allowed_transitions([], Scheme.IOBES)
    assert start.shape == end.shape == (0,) and transitions.shape == (0, 0)


def test_wrong_labels_and_spans_are_refused():
    with pytest.raises(ValueError, match="'NOUN' is not a label of IOB2"):
        spans(["NOUN"], Scheme.IOB2)
    with pytest.raises(ValueError, match="'E-A' is not a label of IOB2"):
        allowed_transitions(["O", "E-A"], Scheme.IOB2)
    for wrong in ([Span(0, 0, "A")], [Span(0, 3, "A")], [Span(0, 2, "A"), Span(1, 2, "B")], [Span(0, 1, "")]):
        with pytest.raises(ValueError, match="empty, overlaps"):
            encode(wrong, 2, Scheme.IOB2)
