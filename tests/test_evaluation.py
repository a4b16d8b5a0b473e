"""Scores worked out by hand, on awkward sequences above all."""

from __future__ import annotations

import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.evaluation.scores import Evaluation, Scores, evaluate, sentence_counts
from nertool.text.schemes import PREFIXES, Scheme

# Name: scheme, gold labels, predicted labels, and the numbers of right, predicted and gold entities under
# conlleval's rule and in strict mode. Entities are worked out by hand.
AWKWARD = {
    # Gold: PER 0-1, LOC 3.
    "all right": (Scheme.IOB2, "B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", (2, 2, 2), (2, 2, 2)),
    # conlleval begins an entity at a stray I-; the letter of IOB2 knows none there.
    "stray I-": (Scheme.IOB2, "B-PER I-PER O B-LOC", "I-PER I-PER O I-LOC", (2, 2, 2), (0, 0, 2)),
    # PER 0 and a stray LOC 1: strictly PER 0 alone.
    "I- of another type": (Scheme.IOB2, "B-PER I-PER O B-LOC", "B-PER I-LOC O B-LOC", (1, 3, 2), (1, 2, 2)),
    # B- always begins a new entity.
    "one cut in two": (Scheme.IOB2, "B-PER I-PER O B-LOC", "B-PER B-PER O B-LOC", (1, 3, 2), (1, 3, 2)),
    "two made one": (Scheme.IOB2, "B-PER B-PER O O", "B-PER I-PER O O", (0, 1, 2), (0, 1, 2)),
    "the wrong type": (Scheme.IOB2, "B-PER I-PER O O", "B-LOC I-LOC O O", (0, 1, 1), (0, 1, 1)),
    "the wrong boundary": (Scheme.IOB2, "B-PER I-PER O O", "B-PER I-PER I-PER O", (0, 1, 1), (0, 1, 1)),
    # In IOB1 I- begins; B- only parts neighbours of one type. PER 0, PER 1, LOC 2.
    "IOB1": (Scheme.IOB1, "I-PER B-PER I-LOC O", "I-PER B-PER I-LOC O", (3, 3, 3), (3, 3, 3)),
    "IOB1 without the B-": (Scheme.IOB1, "I-PER B-PER I-LOC O", "I-PER I-PER I-LOC O", (1, 2, 3), (1, 2, 3)),
    # An entity left open counts for conlleval, and not strictly.
    "no E-": (Scheme.IOBES, "B-X E-X O S-Y", "B-X I-X O S-Y", (2, 2, 2), (1, 1, 2)),
    # I- goes on after B-, and S- begins anew: X 0-1, X 2; strictly S- alone.
    "S- inside": (Scheme.IOBES, "B-X I-X E-X O", "B-X I-X S-X O", (0, 2, 1), (0, 1, 1)),
    # After an end the next I- or E- begins anew: X 0-1, X 2.
    "E- after E-": (Scheme.IOBES, "B-X E-X O S-Y", "B-X E-X E-X S-Y", (2, 3, 2), (2, 2, 2)),
    "a lone E-": (Scheme.IOBES, "O O S-X O", "O O E-X O", (1, 1, 1), (0, 0, 1)),
    "a lone B-": (Scheme.IOBES, "S-X O O O", "B-X O O O", (1, 1, 1), (0, 0, 1)),
    "BILOU": (Scheme.BILOU, "B-X L-X O U-Y", "B-X L-X O U-Y", (2, 2, 2), (2, 2, 2)),
    "BILOU without its L-": (Scheme.BILOU, "B-X I-X L-X U-Y", "B-X I-X I-X U-Y", (2, 2, 2), (1, 1, 2)),
    "BMES": (Scheme.BMES, "B-X M-X E-X S-Y", "B-X M-X E-X S-Y", (2, 2, 2), (2, 2, 2)),
    "BMES with a stray M-": (Scheme.BMES, "O B-X E-X S-Y", "M-X M-X E-X S-Y", (1, 2, 2), (1, 1, 2)),
    "a type with hyphens": (
        Scheme.IOB2,
        "B-art-film I-art-film O O",
        "B-art-film I-art O O",
        (0, 2, 1),
        (0, 1, 1),
    ),
    "nothing predicted": (Scheme.IOBES, "B-X E-X O S-Y", "O O O O", (0, 0, 2), (0, 0, 2)),
    "nothing to find": (Scheme.IOB2, "O O O O", "O B-X O O", (0, 1, 0), (0, 1, 0)),
}


def scores(right: int, predicted: int, gold: int) -> Scores:
    precision, recall = right / predicted if predicted else 0.0, right / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return Scores(pytest.approx(precision), pytest.approx(recall), pytest.approx(f1), gold)


@pytest.mark.parametrize("strict", [False, True], ids=["conlleval", "strict"])
@pytest.mark.parametrize("name", AWKWARD)
def test_entities_are_counted_as_by_hand(name, strict):
    scheme, gold, predicted, lenient, letter = AWKWARD[name]
    found = evaluate([gold.split()], [predicted.split()], scheme, strict=strict)
    assert found.micro == scores(*(letter if strict else lenient))


def test_strict_is_the_default():
    scheme, gold, predicted, _, letter = AWKWARD["stray I-"]
    assert evaluate([gold.split()], [predicted.split()], scheme).micro == scores(*letter)


def test_an_entity_does_not_go_on_in_the_next_sentence():
    gold = [["O", "B-X"], ["I-X", "O"]]
    for strict, wanted in ((False, (2, 2, 2)), (True, (1, 1, 1))):
        assert evaluate(gold, gold, Scheme.IOB2, strict=strict).micro == scores(*wanted)
    joined = evaluate(gold, [["O", "B-X"], ["O", "O"]], Scheme.IOB2, strict=False)
    assert joined.micro == scores(1, 1, 2)


def test_types_averages_and_accuracy():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-LOC"]]
    found = evaluate(gold, predicted, Scheme.IOB2)
    assert found.per_type == {"PER": scores(1, 1, 2), "LOC": scores(0, 1, 1), "ORG": scores(0, 1, 0)}
    assert found.micro == scores(1, 3, 3)
    third = pytest.approx(1 / 3)
    assert found.macro == Scores(third, pytest.approx(1 / 6), pytest.approx(2 / 9), 3)
    assert found.accuracy == 0.5
    assert (found.sentences, found.tokens) == (2, 6)


def test_other_letters_make_no_difference():
    gold, predicted = ["B-X", "I-X", "E-X", "S-Y", "O", "S-Y"], ["B-X", "E-X", "S-X", "S-Y", "O", "O"]
    letters = {Scheme.BILOU: {"E": "L", "S": "U"}, Scheme.BMES: {"I": "M"}, Scheme.IOBES: {}}
    found = [
        evaluate(
            *[[[names.get(label[0], label[0]) + label[1:] for label in row]] for row in (gold, predicted)], scheme
        )
        for scheme, names in letters.items()
    ]
    assert found[0] == found[1] == found[2]
    assert found[0].micro == scores(1, 3, 3)


@pytest.mark.parametrize("scheme", [scheme for scheme in Scheme if scheme is not Scheme.PLAIN])
@pytest.mark.parametrize("strict", [False, True])
def test_no_entities_at_all(scheme, strict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate([["O", "O"], ["O"]], [["O", "O"], ["O"]], scheme, strict=strict)
    nothing = Scores(0.0, 0.0, 0.0, 0)
    assert (found.micro, found.macro, found.per_type) == (nothing, nothing, {})
    assert (found.accuracy, found.sentences, found.tokens) == (1.0, 2, 3)


@pytest.mark.parametrize(
    ("scheme", "gold", "predicted"),
    [
        (Scheme.IOB2, "O O", "O I-X"),
        (Scheme.IOB2, "I-X O", "I-X O"),
        (Scheme.IOB2, "I-X I-X", "O I-Y"),
        (Scheme.IOBES, "O O", "B-X I-X"),
        (Scheme.BILOU, "O O", "I-X L-X"),
    ],
)
def test_labels_without_one_entity_to_the_letter_score_nothing(scheme, gold, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate([gold.split()], [predicted.split()], scheme)
    nothing = Scores(0.0, 0.0, 0.0, 0)
    assert (found.micro, found.macro, found.per_type) == (nothing, nothing, {})


def test_plain_tags_are_scored_token_by_token():
    gold, predicted = [["DET", "NOUN"], ["VERB", "NOUN"]], [["DET", "VERB"], ["VERB", "ADJ"]]
    found = evaluate(gold, predicted, Scheme.PLAIN)
    assert found.per_type == {
        "DET": scores(1, 1, 1),
        "NOUN": scores(0, 0, 2),
        "VERB": scores(1, 2, 1),
        "ADJ": scores(0, 1, 0),
    }
    assert found.micro == scores(2, 4, 4)
    assert found.macro == Scores(pytest.approx(1.5 / 4), 0.5, pytest.approx((1 + 2 / 3) / 4), 4)
    assert (found.accuracy, found.mode) == (0.5, "tokens")


def test_plain_tags_that_look_like_entities_are_tags():
    found = evaluate([["B-X", "I-X"]], [["B-X", "O"]], Scheme.PLAIN)
    assert found.per_type["B-X"] == scores(1, 1, 1)


def test_the_mode_is_named():
    rows = [["B-X", "O"]]
    assert evaluate(rows, rows, Scheme.IOB2).mode == "strict IOB2"
    assert evaluate(rows, rows, Scheme.IOB1).mode == "strict IOB1"
    assert evaluate([["S-X"]], [["S-X"]], Scheme.BMES).mode == "strict IOBES"
    assert evaluate(rows, rows, Scheme.IOB2, strict=False).mode == "default, as conlleval"


@pytest.mark.parametrize("scheme", [Scheme.IOB2, Scheme.PLAIN])
def test_it_survives_json(scheme):
    found = evaluate([["B-X", "O", "B-Y"]], [["B-X", "B-X", "O"]], scheme)
    tree = json.loads(json.dumps(found.to_json()))
    assert Evaluation.from_json(tree) == found
    assert (tree["precision"], tree["recall"], tree["f1"]) == (
        found.micro.precision,
        found.micro.recall,
        found.micro.f1,
    )


@pytest.mark.parametrize("predicted", [[["O"]], [["O", "O"], ["O"]], [["O", "O", "O"]]])
def test_rows_of_other_lengths_are_refused(predicted):
    with pytest.raises(ValueError, match="differ in length"):
        evaluate([["O", "O"]], predicted, Scheme.IOB2)


@pytest.mark.parametrize("scheme", [Scheme.IOB2, Scheme.PLAIN])
def test_of_nothing_the_score_is_nothing(scheme):
    found = evaluate([], [], scheme)
    assert (found.micro.f1, found.accuracy, found.tokens, found.per_type) == (0.0, 0.0, 0, {})


@pytest.mark.parametrize("name", AWKWARD)
def test_the_counts_of_a_sentence_are_those_of_strict_mode(name):
    scheme, gold, predicted, _, letter = AWKWARD[name]
    assert sentence_counts([gold.split()], [predicted.split()], scheme) == [letter]


def test_each_sentence_has_counts_of_its_own():
    gold = [["O", "B-X"], ["I-X", "O"], [], ["B-Y", "B-Y"]]
    predicted = [["O", "B-X"], ["B-X", "O"], [], ["B-Y", "I-Y"]]
    assert sentence_counts(gold, predicted, Scheme.IOB2) == [(1, 1, 1), (0, 1, 0), (0, 0, 0), (0, 1, 2)]
    assert sentence_counts(gold, predicted, Scheme.PLAIN) == [(2, 2, 2), (1, 2, 2), (0, 0, 0), (1, 2, 2)]
    assert sentence_counts([], [], Scheme.IOB2) == []
    with pytest.raises(ValueError, match="differ in length"):
        sentence_counts(gold, predicted[:-1], Scheme.IOB2)


@pytest.mark.parametrize("scheme", list(Scheme))
@given(data=st.data())
def test_the_counts_sum_to_the_micro_average(scheme, data):
    # In any order, so that most sequences break the rules of the scheme.
    prefixes = sorted({prefix for prefix in PREFIXES.get(scheme, PREFIXES[Scheme.IOB2]) if prefix})
    label = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("X", "Y", "art-film"))])
    # A prediction is often right, else hardly any entity would be.
    token = label.flatmap(lambda wanted: st.tuples(st.just(wanted), st.one_of(st.just(wanted), label)))
    rows = data.draw(st.lists(st.lists(token, max_size=6), max_size=4))
    gold, predicted = ([[pair[side] for pair in row] for row in rows] for side in (0, 1))
    counts = sentence_counts(gold, predicted, scheme)
    assert len(counts) == len(rows)
    assert evaluate(gold, predicted, scheme).micro == scores(
        *(sum(row[place] for row in counts) for place in range(3))
    )
