"""What counts as a right entity: modes of scoring that other tools have, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from operator import eq

from nertool.evaluation.pairing import Outcome, pair
from nertool.evaluation.scores import Evaluation, Scores, evaluate
from nertool.text.schemes import Scheme, Span, encode

_ANY_TYPE = "entity"


class Mode(StrEnum):
    """What counts as a right entity."""

    STRICT = "strict"
    LENIENT = "lenient"
    BOUNDARIES = "boundaries"
    OVERLAP = "overlap"

    def __str__(self) -> str:
        return self.value


MEANINGS = {
    Mode.STRICT: "same boundaries and type; labels that break their scheme are no entity (seqeval, strict)",
    Mode.LENIENT: "same boundaries and type; labels that break their scheme are repaired as conlleval does",
    Mode.BOUNDARIES: "same boundaries, any type; repaired likewise",
    Mode.OVERLAP: "same type and a token in common, one predicted entity for each gold one; repaired likewise",
}

Spans = Sequence[Sequence[Span]]


def evaluate_spans(gold: Spans, predicted: Spans, lengths: Sequence[int], mode: Mode) -> Evaluation:
    """Score entities.

    Args:
        gold: The entities of each sentence.
        predicted: Those that a system found; in strict mode without those that break their scheme.
        lengths: Tokens of each sentence.
        mode: What counts as right.

    Returns:
        Its accuracy is that of the labels in IOB2.
    """
    if mode is Mode.OVERLAP:
        exact = evaluate_spans(gold, predicted, lengths, Mode.LENIENT)
        return _overlap(gold, predicted, exact)
    if mode is Mode.BOUNDARIES:
        gold, predicted = _without_types(gold), _without_types(predicted)
    rows = [
        [encode(spans, length, Scheme.IOB2) for spans, length in zip(side, lengths, strict=True)]
        for side in (gold, predicted)
    ]
    return replace(evaluate(rows[0], rows[1], Scheme.IOB2), mode=mode.value)


def span_counts(gold: Spans, predicted: Spans, mode: Mode) -> list[tuple[int, int, int]]:
    """Count the right, the predicted and the gold entities of each sentence, as `evaluate_spans` does."""
    if mode is Mode.BOUNDARIES:
        gold, predicted = _without_types(gold), _without_types(predicted)
    counts = []
    for wanted, found in zip(gold, predicted, strict=True):
        right = len(_overlapping(wanted, found)) if mode is Mode.OVERLAP else len(set(wanted) & set(found))
        counts.append((right, len(found), len(wanted)))
    return counts


def label_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Return the share of tokens whose labels are the same, from 0 to 1; 0 without tokens."""
    tokens = sum(map(len, gold))
    return sum(sum(map(eq, *rows)) for rows in zip(gold, predicted, strict=True)) / tokens if tokens else 0.0


def _without_types(spans: Spans) -> list[list[Span]]:
    return [[Span(span.start, span.end, _ANY_TYPE) for span in row] for row in spans]


def _overlapping(gold: Sequence[Span], predicted: Sequence[Span]) -> list[Span]:
    """Return the gold entities that a predicted one of the same type overlaps, one to one."""
    result: list[Span] = []
    # By type, so that an entity of another type does not take the partner away.
    for name in dict.fromkeys(span.type for span in gold):
        own = [[span for span in side if span.type == name] for side in (gold, predicted)]
        paired = pair(*own)
        result += [each.gold for each in paired if each.gold and each.outcome is not Outcome.MISSED]
    return result


def _overlap(gold: Spans, predicted: Spans, exact: Evaluation) -> Evaluation:
    right: Counter[str] = Counter()
    there: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for wanted, given in zip(gold, predicted, strict=True):
        right.update(span.type for span in _overlapping(wanted, given))
        there.update(span.type for span in wanted)
        found.update(span.type for span in given)
    per_type = {name: _scores(right[name], found[name], there[name]) for name in sorted({*there, *found})}
    count = len(per_type) or 1
    macro = Scores(
        sum(each.precision for each in per_type.values()) / count,
        sum(each.recall for each in per_type.values()) / count,
        sum(each.f1 for each in per_type.values()) / count,
        there.total(),
    )
    micro = _scores(right.total(), found.total(), there.total())
    return replace(exact, micro=micro, macro=macro, per_type=per_type, mode=Mode.OVERLAP.value)


def _scores(right: int, found: int, there: int) -> Scores:
    precision = right / found if found else 0.0
    recall = right / there if there else 0.0
    return Scores(precision, recall, 2 * right / (found + there) if found + there else 0.0, there)
