"""Score systems against one gold corpus, and test whether they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

from nertool.comparison.statistics import Counts, holm, randomization_test
from nertool.errors import NertoolError
from nertool.evaluation.modes import Mode, evaluate_spans, label_accuracy, span_counts
from nertool.evaluation.outputs import Aligned, Answers
from nertool.evaluation.scores import Evaluation, evaluate, sentence_counts
from nertool.text.schemes import Scheme

Units = Literal["sentences", "documents"]
SHUFFLES = 10_000


@dataclass(frozen=True)
class Scored:
    """A system's scores.

    Attributes:
        name: Of the system.
        evaluation: In the mode that was asked for.
        modes: In each mode; plain tags have none.
    """

    name: str
    evaluation: Evaluation
    modes: dict[str, Evaluation]


@dataclass(frozen=True)
class SystemPair:
    """Whether two systems differ.

    Attributes:
        first, second: Their names.
        difference: F1 of the first less that of the second, from -1 to 1.
        p: p-value of the paired approximate randomization test.
        adjusted: The same after Holm's correction for the number of pairs.
    """

    first: str
    second: str
    difference: float
    p: float
    adjusted: float


@dataclass(frozen=True)
class Scoring:
    """Systems on one corpus.

    Attributes:
        mode: What counted as right, for `systems` and `pairs`; None for plain tags.
        systems: In the order in which they were given.
        pairs: Every pair of them.
        units: What answers were swapped by in the tests.
        unit_count: How many there are.
        shuffles: Of each test.
        notes: What was left out or read in a special way.
        by_characters: Whether texts were aligned by characters: units are documents, and there are no tokens.
    """

    mode: Mode | None
    systems: list[Scored]
    pairs: list[SystemPair]
    units: Units
    unit_count: int
    shuffles: int
    notes: list[str]
    by_characters: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "mode": None if self.mode is None else self.mode.value,
            "systems": [
                {
                    "name": each.name,
                    **each.evaluation.to_json(),
                    "modes": {name: asdict(modes.micro) for name, modes in each.modes.items()},
                }
                for each in self.systems
            ],
            "pairs": [asdict(pair) for pair in self.pairs],
            "units": self.units,
            "unit_count": self.unit_count,
            "shuffles": self.shuffles,
            "aligned_by": "characters" if self.by_characters else "tokens",
            "notes": self.notes,
        }


def score_systems(
    aligned: Aligned, names: Sequence[str], mode: Mode = Mode.STRICT, units: Units = "sentences"
) -> Scoring:
    """Score systems, and test every pair of them.

    Args:
        aligned: A gold corpus and the systems' outputs.
        names: Of the systems.
        mode: What counts as right.
        units: What answers are swapped by in the tests: sentences, or whole documents, whose sentences are alike.

    Raises:
        NertoolError: The corpus marks no documents.
    """
    if aligned.by_characters:
        units = "documents"
    elif units == "documents" and not aligned.documents:
        raise NertoolError("the gold corpus marks no documents: leave --units out to test over sentences")
    scored, counts = [], []
    for name, answers in zip(names, aligned.systems, strict=True):
        evaluation, own, modes = _score(aligned, answers, mode)
        scored.append(Scored(name, evaluation, modes))
        counts.append(own)
    if units == "documents" and not aligned.by_characters:
        counts = [_by_document(own, aligned.documents) for own in counts]
    indices = list(combinations(range(len(scored)), 2))
    values = randomization_test([(counts[one], counts[other]) for one, other in indices], SHUFFLES)
    pairs = [
        SystemPair(
            scored[one].name,
            scored[other].name,
            scored[one].evaluation.micro.f1 - scored[other].evaluation.micro.f1,
            value,
            adjusted,
        )
        for (one, other), value, adjusted in zip(indices, values, holm(values), strict=True)
    ]
    return Scoring(
        None if aligned.tags else mode,
        scored,
        pairs,
        units,
        len(counts[0]),
        SHUFFLES,
        aligned.notes,
        aligned.by_characters,
    )


def _score(aligned: Aligned, answers: Answers, mode: Mode) -> tuple[Evaluation, Counts, dict[str, Evaluation]]:
    if aligned.tags:
        assert aligned.labels is not None and answers.labels is not None
        evaluation = evaluate(aligned.labels, answers.labels, Scheme.PLAIN)
        return evaluation, sentence_counts(aligned.labels, answers.labels, Scheme.PLAIN), {}
    modes: dict[str, Evaluation] = {}
    for each in Mode:
        found = answers.strict if each is Mode.STRICT else answers.lenient
        evaluation = evaluate_spans(aligned.gold, found, aligned.lengths, each)
        if aligned.labels is not None and answers.labels is not None:
            # The labels as they are, whatever they mean.
            evaluation = replace(evaluation, accuracy=label_accuracy(aligned.labels, answers.labels))
        modes[each.value] = evaluation
    found = answers.strict if mode is Mode.STRICT else answers.lenient
    return modes[mode.value], span_counts(aligned.gold, found, mode), modes


def _by_document(counts: Counts, documents: Sequence[int]) -> list[tuple[int, int, int]]:
    """Add up the counts of the sentences of each document."""
    sums: dict[int, tuple[int, int, int]] = {}
    for number, (right, predicted, gold) in zip(documents, counts, strict=True):
        before = sums.get(number, (0, 0, 0))
        sums[number] = before[0] + right, before[1] + predicted, before[2] + gold
    return list(sums.values())
