"""Entities sorted into classes: right, wrong in type or boundary or both, missed, invented."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from nertool.text.schemes import Span


class Outcome(StrEnum):
    """What became of an entity; the first four describe a gold entity together with a predicted one."""

    RIGHT = "right"
    WRONG_TYPE = "wrong type"
    WRONG_BOUNDARY = "wrong boundary"
    WRONG_BOTH = "wrong both"
    MISSED = "missed"
    INVENTED = "invented"


class Judged(NamedTuple):
    """A gold entity and the predicted one that it is paired with; None where it is missed or invented."""

    outcome: Outcome
    gold: Span | None
    predicted: Span | None


_RANKS = {outcome: rank for rank, outcome in enumerate(Outcome)}


def pair(gold: Sequence[Span], predicted: Sequence[Span]) -> list[Judged]:
    """Put each entity of a sentence into one class, and pair gold entities with predicted ones, one to one.

    Entities that overlap are paired: first those with the same boundaries, then those with the same type, then the
    others; within each group those that share most tokens come first. What is left without a partner is missed or
    invented, such as the second half of a name that the model split in two.

    Args:
        gold: In order, without overlap.
        predicted: In order, without overlap.

    Returns:
        In order of their first tokens.

    >>> [judged.outcome.value for judged in pair([Span(0, 2, "PER"), Span(5, 6, "LOC")], [Span(0, 1, "PER")])]
    ['wrong boundary', 'missed']
    """
    candidates = []
    g = p = 0
    while g < len(gold) and p < len(predicted):
        wanted, found = gold[g], predicted[p]
        shared = min(wanted.end, found.end) - max(wanted.start, found.start)
        if shared > 0:
            outcome = _outcome(wanted, found)
            candidates.append((_RANKS[outcome], -shared, g, p, outcome))
        if wanted.end <= found.end:
            g += 1
        else:
            p += 1
    judged, paired, taken = [], set(), set()
    for _, _, g, p, outcome in sorted(candidates):
        if g not in paired and p not in taken:
            paired.add(g)
            taken.add(p)
            judged.append(Judged(outcome, gold[g], predicted[p]))
    judged += [Judged(Outcome.MISSED, span, None) for g, span in enumerate(gold) if g not in paired]
    judged += [Judged(Outcome.INVENTED, None, span) for p, span in enumerate(predicted) if p not in taken]
    return sorted(judged, key=lambda each: min(span.start for span in each[1:] if span is not None))


def _outcome(gold: Span, predicted: Span) -> Outcome:
    if gold[:2] == predicted[:2]:
        return Outcome.RIGHT if gold == predicted else Outcome.WRONG_TYPE
    return Outcome.WRONG_BOUNDARY if gold.type == predicted.type else Outcome.WRONG_BOTH
