"""Score predicted labels with seqeval: entities in strict mode, or tokens where the labels are plain tags."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import eq
from typing import Any

import numpy as np

from nertool.forking import no_fork
from nertool.text.html import table
from nertool.text.schemes import Scheme, Span

# Schemes with the four prefixes of IOBES under other letters.
_TO_IOBES = {Scheme.BILOU: {"L": "E", "U": "S"}, Scheme.BMES: {"M": "I"}}


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1, from 0 to 1, and the number of gold entities (or tokens) behind them."""

    precision: float
    recall: float
    f1: float
    support: int


_NOTHING = dict.fromkeys(("micro avg", "macro avg"), Scores(0.0, 0.0, 0.0, 0))


@dataclass(frozen=True)
class Evaluation:
    """How well labels were predicted.

    Attributes:
        micro: Over all entities.
        macro: Mean over the types.
        per_type: For each entity type (for plain tags: for each tag).
        accuracy: Share of tokens with the right label, from 0 to 1.
        sentences: Number of scored sentences.
        tokens: Number of scored tokens.
        mode: How the figures were computed.
    """

    micro: Scores
    macro: Scores
    per_type: dict[str, Scores]
    accuracy: float
    sentences: int
    tokens: int
    mode: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `precision`, `recall` and `f1` are the micro average."""
        return {
            "precision": self.micro.precision,
            "recall": self.micro.recall,
            "f1": self.micro.f1,
            "support": self.micro.support,
            "accuracy": self.accuracy,
            "macro": asdict(self.macro),
            "per_type": {name: asdict(scores) for name, scores in self.per_type.items()},
            "sentences": self.sentences,
            "tokens": self.tokens,
            "mode": self.mode,
        }

    def _repr_html_(self) -> str:
        """Return the scores as a table for notebooks."""
        return self.to_html("Scores")

    def to_html(self, caption: str) -> str:
        """Return the scores, in percent, as a table of HTML."""
        rows = [*self.per_type.items(), ("macro", self.macro), ("micro", self.micro)]
        return table(
            caption,
            ("type", "precision", "recall", "F1", "support"),
            [
                (
                    name,
                    *(f"{100 * share:.2f}" for share in (row.precision, row.recall, row.f1)),
                    f"{row.support:,}",
                )
                for name, row in rows
            ],
            f"{self.sentences:,} sentences, {self.tokens:,} tokens, token accuracy {100 * self.accuracy:.2f}; "
            f"{self.mode}",
        )

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Evaluation:
        """Make an evaluation from what `to_json` returned."""
        return cls(
            Scores(tree["precision"], tree["recall"], tree["f1"], tree["support"]),
            Scores(**tree["macro"]),
            {name: Scores(**scores) for name, scores in tree["per_type"].items()},
            tree["accuracy"],
            tree["sentences"],
            tree["tokens"],
            tree["mode"],
        )


def evaluate(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme, *, strict: bool = True
) -> Evaluation:
    """Score predictions.

    Args:
        gold: Gold labels of each sentence.
        predicted: Predicted labels of each sentence.
        scheme: Scheme of both.
        strict: Whether an entity counts only if its labels follow the scheme exactly (seqeval's strict mode); else
            invalid sequences are read as conlleval reads them (seqeval's default mode).

    Raises:
        ValueError: Gold and predicted labels differ in length.

    >>> evaluate([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "O"]], Scheme.IOB2).micro
    Scores(precision=1.0, recall=0.5, f1=0.6666666666666666, support=2)
    """
    _check_lengths(gold, predicted)
    sentences, tokens = len(gold), sum(map(len, gold))
    if scheme is Scheme.PLAIN:
        report = _report_on_tags(gold, predicted)
        mode = "tokens"
    else:
        report, name = _report_on_entities(gold, predicted, scheme, strict)
        mode = f"strict {name}" if strict else "default, as conlleval"
    right = sum(
        found == wanted
        for row, other in zip(gold, predicted, strict=True)
        for wanted, found in zip(row, other, strict=True)
    )
    micro, macro = report.pop("micro avg"), report.pop("macro avg")
    return Evaluation(micro, macro, report, right / tokens if tokens else 0.0, sentences, tokens, mode)


def sentence_counts(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme
) -> list[tuple[int, int, int]]:
    """Count what each sentence adds to the micro average of `evaluate` in strict mode.

    With the sums over all sentences, precision is right / predicted, recall is right / gold, and F1 is
    2 right / (predicted + gold).

    Args:
        gold: Gold labels of each sentence.
        predicted: Predicted labels of each sentence.
        scheme: Scheme of both.

    Returns:
        For each sentence the numbers of right, of predicted and of gold entities; for plain tags those of tokens.

    Raises:
        ValueError: Gold and predicted labels differ in length.
    """
    _check_lengths(gold, predicted)
    if scheme is Scheme.PLAIN:
        return [
            (sum(map(eq, wanted, found)), len(found), len(wanted))
            for wanted, found in zip(gold, predicted, strict=True)
        ]
    return [
        (len(set(wanted) & set(found)), len(found), len(wanted))
        for wanted, found in zip(strict_entities(gold, scheme), strict_entities(predicted, scheme), strict=True)
    ]


def strict_entities(labels: Sequence[Sequence[str]], scheme: Scheme) -> list[list[Span]]:
    """Find the entities that `evaluate` counts in strict mode: those whose labels follow the scheme exactly.

    Args:
        labels: Labels of each sentence.
        scheme: Their scheme, not `PLAIN`.

    Returns:
        The entities of each sentence, in order.
    """
    with no_fork():
        from seqeval.scheme import Entities

    kind, names = _scheme_of_seqeval(scheme)
    rows = Entities([_renamed(row, names) for row in labels], kind).entities
    return [sorted({Span(each.start, each.end, each.tag) for each in row}) for row in rows]


def _check_lengths(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
    if [len(row) for row in gold] != [len(row) for row in predicted]:
        raise ValueError("gold and predicted labels differ in length")


def _scheme_of_seqeval(scheme: Scheme) -> tuple[Any, dict[str, str]]:
    """Return the class that stands for a scheme in seqeval, and the prefixes to rename for it."""
    with no_fork():
        from seqeval.scheme import IOB1, IOB2, IOBES

    return {Scheme.IOB1: IOB1, Scheme.IOB2: IOB2}.get(scheme, IOBES), _TO_IOBES.get(scheme, {})


def _report_on_entities(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme, strict: bool
) -> tuple[dict[str, Scores], str]:
    with no_fork():
        from seqeval.metrics import classification_report

    kind, names = _scheme_of_seqeval(scheme)
    gold_rows = [_renamed(row, names) for row in gold]
    predicted_rows = [_renamed(row, names) for row in predicted]
    # Without any entity seqeval fails, or warns that there is no B-.
    if all(label == "O" for rows in (gold_rows, predicted_rows) for row in rows for label in row):
        return dict(_NOTHING), kind.__name__
    options: dict[str, Any] = {"mode": "strict", "scheme": kind} if strict else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(gold_rows, predicted_rows, output_dict=True, zero_division=0, **options)
    report.pop("weighted avg", None)
    # Where strict mode finds no entity in any label, seqeval takes the mean over no types.
    if report.keys() == _NOTHING.keys():
        return dict(_NOTHING), kind.__name__
    return {name: _scores(row) for name, row in report.items()}, kind.__name__


def _report_on_tags(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Scores]:
    with no_fork():
        from sklearn.metrics import precision_recall_fscore_support

    wanted = [label for row in gold for label in row]
    found = [label for row in predicted for label in row]
    if not wanted:
        return dict(_NOTHING)
    names = sorted({*wanted, *found})
    columns = precision_recall_fscore_support(wanted, found, labels=names, zero_division=0)
    rows = {
        name: Scores(float(row[0]), float(row[1]), float(row[2]), int(row[3]))
        for name, *row in zip(names, *columns, strict=True)
    }
    for average in ("micro", "macro"):
        mean = precision_recall_fscore_support(wanted, found, average=average, zero_division=0)
        rows[f"{average} avg"] = Scores(float(mean[0]), float(mean[1]), float(mean[2]), len(wanted))
    return rows


def _scores(row: dict[str, Any]) -> Scores:
    return Scores(float(row["precision"]), float(row["recall"]), float(row["f1-score"]), int(row["support"]))


def _renamed(labels: Sequence[str], names: dict[str, str]) -> list[str]:
    return [names.get(label[0], label[0]) + label[1:] for label in labels] if names else list(labels)


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> float | None:
    """Compute the expected calibration error (Guo et al. 2017, eq. 3): mean gap of confidence and accuracy.

    Args:
        confidences: Probability of each prediction, from 0 to 1.
        right: Whether each prediction was right.
        bins: Number of bins of equal width in which confidence and accuracy are averaged and compared.

    Returns:
        From 0 to 1; None without predictions.
    """
    if not len(confidences):
        return None
    given, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    indices = np.minimum((given * bins).astype(int), bins - 1)
    gaps = np.bincount(indices, correct - given, bins)
    return float(np.abs(gaps).sum() / len(given))
