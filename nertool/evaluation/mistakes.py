"""What a model gets wrong: how often, how confidently, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from nertool.data.corpus import Split
from nertool.evaluation.pairing import Judged, Outcome, pair
from nertool.evaluation.scores import calibration_error, strict_entities
from nertool.text.document import Document
from nertool.text.schemes import Scheme, Span

BINS = 15  # the default of `calibration_error`, so that it follows from the table


class Predicted(Protocol):
    """The part of `nertool.tagging.predictor.Predictions` that is read here."""

    @property
    def labels(self) -> list[list[str]]:
        """Labels of each sentence."""
        ...

    def probability(self, sentence: int, start: int, end: int) -> float:
        """Return the probability that the tokens from start to end (exclusive) have exactly their labels."""
        ...


class Mistake(NamedTuple):
    """An entity, or a pair of them, that is not right.

    Attributes:
        judged: What is wrong.
        score: Probability of the predicted entity; for a missed one, of the model's own labels for its tokens.
        line: Line of its first token in the data, from 1; where the data has rows, the row of its sentence.
    """

    judged: Judged
    score: float
    line: int


@dataclass(frozen=True)
class WrongSentence:
    """A sentence with at least one mistake.

    Attributes:
        line: Line of its first token in the data, or its row, from 1.
        tokens: All its tokens.
        gold: Its entities (for plain tags: the tokens that are wrong).
        predicted: The same as the model predicted it.
        mistakes: The most confident first.
    """

    line: int
    tokens: Sequence[str]
    gold: list[Span]
    predicted: list[Span]
    mistakes: list[Mistake]

    @property
    def score(self) -> float:
        """Score of its most confident mistake."""
        return self.mistakes[0].score


class Bin(NamedTuple):
    """Predictions with a confidence between `low` and `high`.

    Attributes:
        size: Number of predictions.
        confidence: Their mean confidence; 0 without predictions.
        right: Share of them that is right.
    """

    low: float
    high: float
    size: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Findings:
    """What a model got wrong.

    Attributes:
        plain_tags: Whether the labels are plain tags; what is said of entities then holds for tokens.
        unit: What line numbers count: lines, or rows.
        sentences: Number of sentences.
        tokens: Number of tokens.
        wrong_sentences: Number of sentences with a mistake.
        outcomes: For each type, how many of its gold entities have which outcome; an invented entity is counted
            under the type that it was given.
        confusion: Number of entities by gold type and predicted type; None stands for no entity.
        bins: All predicted entities by confidence.
        calibration_error: Expected calibration error over these bins; None without predictions.
        surest: The sentences with the most confident mistakes, the most confident first.
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
        """Number of entities with each outcome, over all types."""
        return sum(self.outcomes.values(), Counter())

    def gold_count(self, name: str | None = None) -> int:
        """Count the gold entities of a type; without a type, all of them."""
        return sum(n for (gold, _), n in self.confusion.items() if gold is not None and name in (None, gold))

    def predicted_count(self, name: str | None = None) -> int:
        """Count the predicted entities of a type; without a type, all of them."""
        return sum(n for (_, other), n in self.confusion.items() if other is not None and name in (None, other))

    def to_json(self) -> dict[str, Any]:
        """Return what `nertool errors --json` prints; positions in sentences count tokens from 0."""
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
                {"gold": gold, "predicted": predicted, "count": count}
                for (gold, predicted), count in self.confusion.most_common()
            ],
            "calibration_error": self.calibration_error,
            "reliability": [each._asdict() for each in self.bins],
            "surest": [self._sentence(sentence) for sentence in self.surest],
        }

    def _sentence(self, sentence: WrongSentence) -> dict[str, Any]:
        return {
            self.unit: sentence.line,
            "score": round(sentence.score, 6),
            "tokens": list(sentence.tokens),
            "gold": [_span(span) for span in sentence.gold],
            "predicted": [_span(span) for span in sentence.predicted],
            "mistakes": [
                {
                    "outcome": judged.outcome.value,
                    "gold": _span(judged.gold),
                    "predicted": _span(judged.predicted),
                    "score": round(score, 6),
                    self.unit: line,
                }
                for judged, score, line in sentence.mistakes
            ],
        }


def find_mistakes(split: Split, predictions: Predicted, top: int) -> Findings:
    """Compare predictions with gold labels.

    Args:
        split: Sentences with their gold labels, in the scheme that the model predicts.
        predictions: For the same sentences, with probabilities.
        top: Largest number of sentences in `Findings.surest`.
    """
    plain_tags = split.label_scheme is Scheme.PLAIN
    if plain_tags:
        gold_rows, predicted_rows = ([_tags(row) for row in rows] for rows in (split.labels, predictions.labels))
    else:
        gold_rows = strict_entities(split.labels, split.label_scheme)
        predicted_rows = strict_entities(predictions.labels, split.label_scheme)
    outcomes: dict[str, Counter[Outcome]] = {}
    confusion: Counter[tuple[str | None, str | None]] = Counter()
    confidences: list[float] = []
    right: list[bool] = []
    wrong: list[WrongSentence] = []
    for number, (gold, predicted) in enumerate(zip(gold_rows, predicted_rows, strict=True)):
        sentence = split.sentences[number]
        mistakes = []
        for judged in pair(gold, predicted):
            span = judged.predicted or judged.gold
            assert span is not None
            score = predictions.probability(number, span.start, span.end)
            is_right = judged.outcome is Outcome.RIGHT
            outcomes.setdefault((judged.gold or span).type, Counter())[judged.outcome] += 1
            confusion[judged.gold and judged.gold.type, judged.predicted and judged.predicted.type] += 1
            if judged.predicted is not None:
                # A type that is predicted and never right gets a row too.
                outcomes.setdefault(span.type, Counter())
                confidences.append(score)
                right.append(is_right)
            if not is_right:
                first = min(each.start for each in (judged.gold, judged.predicted) if each is not None)
                mistakes.append(Mistake(judged, score, _line(sentence, first) or number + 1))
        if mistakes:
            mistakes.sort(key=lambda mistake: -mistake.score)
            if plain_tags:
                gold, predicted = (
                    sorted(set(row) - set(other)) for row, other in ((gold, predicted), (predicted, gold))
                )
            line = _line(sentence, 0) or number + 1
            wrong.append(WrongSentence(line, sentence.tokens, gold, predicted, mistakes))
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
    """Compute which share of the predictions of each confidence is right.

    Args:
        confidences: Probability of each prediction, from 0 to 1.
        right: Whether each prediction was right.
    """
    given, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    indices = np.minimum((given * BINS).astype(int), BINS - 1)
    counts, *sums = (np.bincount(indices, weights, BINS).tolist() for weights in (None, given, correct))
    return [
        Bin(index / BINS, (index + 1) / BINS, count, *(total / max(count, 1) for total in totals))
        for index, (count, *totals) in enumerate(zip(counts, *sums, strict=True))
    ]


def _line(sentence: Document, token: int) -> int | None:
    """Return the line of a token, or the row of its sentence, from 1; None for a sentence that was in no file."""
    origin = sentence.origin
    return None if origin is None else origin.line(0, token) or origin.starts[0]


def _tags(labels: Sequence[str]) -> list[Span]:
    return [Span(index, index + 1, label) for index, label in enumerate(labels)]


def _span(span: Span | None) -> dict[str, Any] | None:
    return None if span is None else {"start": span.start, "end": span.end, "label": span.type}
