"""What a model gets wrong, how often, how sure it was, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any, Literal, NamedTuple

import numpy as np

from nertool.evaluation.pairing import Judged, Outcome, pair
from nertool.evaluation.scores import calibration_error, strict_entities
from nertool.formats.labels import LabelledSentences
from nertool.tagging.labeller import Labelled
from nertool.text.schemes import Scheme, Span

BINS = 15  # as `calibration_error` has them, so that it follows from the table


class Mistake(NamedTuple):
    """An entity, or two, that are not right.

    Attributes:
        judged: What is wrong.
        score: Probability of the predicted entity; of a missed one: of the model's own labels for its tokens.
        line: Of its first token in the data; where this has rows, that of the sentence. From 1.
    """

    judged: Judged
    score: float
    line: int


@dataclass(frozen=True)
class WrongSentence:
    """A sentence that is not all right.

    Attributes:
        line: That it begins in, or its row, from 1.
        tokens: All of them.
        gold: Its entities (for plain tags: the tokens that are wrong).
        predicted: The same as the model has it.
        mistakes: The surest first.
    """

    line: int
    tokens: list[str]
    gold: list[Span]
    predicted: list[Span]
    mistakes: list[Mistake]

    @property
    def score(self) -> float:
        """That of its surest mistake."""
        return self.mistakes[0].score


class Bin(NamedTuple):
    """Predictions of about the same confidence, from `low` to `high`.

    Attributes:
        number: How many.
        confidence: Their mean; 0 where there is none.
        right: Share of them that is right.
    """

    low: float
    high: float
    number: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Findings:
    """What a model got wrong.

    Attributes:
        plain_tags: Whether each token has a tag instead of being in an entity or not; what is said of entities
            then holds of tokens.
        unit: What lines of sentences count: lines, or rows.
        sentences: How many there are.
        tokens: How many there are.
        wrong_sentences: How many hold a mistake.
        outcomes: For each type, how many of its gold entities have which outcome; what is invented is counted
            with the type that it was given.
        confusion: How many entities are of the first type in the gold labels and of the second in the
            predicted ones; None stands for no entity.
        bins: All predicted entities by confidence.
        calibration_error: Expected calibration error over these bins; None where nothing is predicted.
        surest: The sentences with the surest mistakes, the surest first.
    """

    plain_tags: bool
    unit: Literal["line", "row"]
    sentences: int
    tokens: int
    wrong_sentences: int
    outcomes: dict[str, Counter[Outcome]]
    confusion: Counter[tuple[str | None, str | None]]
    bins: list[Bin]
    calibration_error: float | None
    surest: list[WrongSentence]

    @property
    def total(self) -> Counter[Outcome]:
        """How many entities have which outcome, over all types."""
        return sum(self.outcomes.values(), Counter())

    def gold_count(self, name: str | None = None) -> int:
        """How many gold entities are of a type; without one: how many there are."""
        return sum(n for (gold, _), n in self.confusion.items() if gold is not None and name in (None, gold))

    def predicted_count(self, name: str | None = None) -> int:
        """How many predicted entities are of a type; without one: how many there are."""
        return sum(n for (_, found), n in self.confusion.items() if found is not None and name in (None, found))

    def to_json(self) -> dict[str, Any]:
        """As `nertool errors --json` prints it; places in sentences are counted in tokens from 0."""
        return {
            "plain_tags": self.plain_tags,
            "sentences": self.sentences,
            "tokens": self.tokens,
            "wrong_sentences": self.wrong_sentences,
            "gold": self.gold_count(),
            "predicted": self.predicted_count(),
            "outcomes": {outcome.value: self.total[outcome] for outcome in Outcome},
            "per_type": {
                name: {
                    "gold": self.gold_count(name),
                    "predicted": self.predicted_count(name),
                    **{outcome.value: counts[outcome] for outcome in Outcome},
                }
                for name, counts in self.outcomes.items()
            },
            "confusion": [
                {"gold": gold, "predicted": found, "count": count}
                for (gold, found), count in self.confusion.most_common()
            ],
            "calibration_error": self.calibration_error,
            "reliability": [each._asdict() for each in self.bins],
            "surest": [
                {
                    self.unit: sentence.line,
                    "score": round(sentence.score, 6),
                    "tokens": sentence.tokens,
                    "gold": [_tree(span) for span in sentence.gold],
                    "predicted": [_tree(span) for span in sentence.predicted],
                    "mistakes": [
                        {
                            "outcome": mistake.judged.outcome.value,
                            "gold": _tree(mistake.judged.gold),
                            "predicted": _tree(mistake.judged.predicted),
                            "score": round(mistake.score, 6),
                            self.unit: mistake.line,
                        }
                        for mistake in sentence.mistakes
                    ],
                }
                for sentence in self.surest
            ],
        }


def find_mistakes(split: LabelledSentences, found: Labelled, top: int) -> Findings:
    """Compares what a model found with what is there.

    Args:
        split: The sentences with their gold labels, in the scheme that the model learnt.
        found: What the model made of the same sentences, with probabilities.
        top: How many sentences `Findings.surest` shall have at most.
    """
    plain_tags = split.label_scheme is Scheme.PLAIN
    if plain_tags:
        gold_rows, predicted_rows = ([_tags(row) for row in rows] for rows in (split.labels, found.labels))
    else:
        gold_rows = strict_entities(split.labels, split.label_scheme)
        predicted_rows = strict_entities(found.labels, split.label_scheme)
    outcomes: dict[str, Counter[Outcome]] = {}
    confusion: Counter[tuple[str | None, str | None]] = Counter()
    confidences: list[float] = []
    right: list[bool] = []
    wrong: list[WrongSentence] = []
    for place, (gold, predicted) in enumerate(zip(gold_rows, predicted_rows, strict=True)):
        mistakes = []
        for judged in pair(gold, predicted):
            span = judged.predicted or judged.gold
            assert span is not None
            score = found.probability(place, span.start, span.end)
            is_right = judged.outcome is Outcome.RIGHT
            outcomes.setdefault((judged.gold or span).type, Counter())[judged.outcome] += 1
            confusion[judged.gold and judged.gold.type, judged.predicted and judged.predicted.type] += 1
            if judged.predicted is not None:
                # A type that is predicted and never right has its row too.
                outcomes.setdefault(span.type, Counter())
                confidences.append(score)
                right.append(is_right)
            if not is_right:
                first = min(each.start for each in (judged.gold, judged.predicted) if each is not None)
                line = split.starts[place] + (first if split.unit == "line" else 0)
                mistakes.append(Mistake(judged, score, line))
        if mistakes:
            mistakes.sort(key=lambda mistake: -mistake.score)
            if plain_tags:
                gold, predicted = (
                    sorted(set(row) - set(other)) for row, other in ((gold, predicted), (predicted, gold))
                )
            wrong.append(WrongSentence(split.starts[place], split.tokens[place], gold, predicted, mistakes))
    return Findings(
        plain_tags,
        split.unit,
        len(split),
        split.token_count,
        len(wrong),
        dict(sorted(outcomes.items())),
        confusion,
        reliability(confidences, right),
        calibration_error(confidences, right, BINS),
        nlargest(top, wrong, key=lambda sentence: sentence.score),
    )


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> list[Bin]:
    """What share of the predictions of each confidence is right.

    Args:
        confidences: Probability that was given to each prediction, from 0 to 1.
        right: Whether it was right.
    """
    given, true = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    places = np.minimum((given * BINS).astype(int), BINS - 1)
    counts, *sums = (np.bincount(places, weights, BINS).tolist() for weights in (None, given, true))
    return [
        Bin(place / BINS, (place + 1) / BINS, number, *(total / max(number, 1) for total in totals))
        for place, (number, *totals) in enumerate(zip(counts, *sums, strict=True))
    ]


def _tags(labels: Sequence[str]) -> list[Span]:
    return [Span(place, place + 1, label) for place, label in enumerate(labels)]


def _tree(span: Span | None) -> dict[str, Any] | None:
    return None if span is None else {"start": span.start, "end": span.end, "label": span.type}
