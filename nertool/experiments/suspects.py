"""Annotations that models do not believe: how probable they are, and what is more probable, exactly.

For a sentence x with annotated labels y, models that did not learn from it give another label sequence z. Where
the entities of both differ lies a region of tokens a to b, and the CRFs give the probabilities

    p = mean over the models of P(y_a .. y_b | x)        of what is annotated there
    q = mean over the models of P(z_a .. z_b | x)        of what the models would annotate

by forward-backward, summed over all label sequences of the rest of the sentence. An annotation is the more suspect
the smaller p is beside q. The score is q / (p + q + 0.01): the share of the suggestion, beside the annotation and
a hundredth for what the models know nothing of, without which p = 0.00001 would count more than p = 0.001.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import torch

from nertool.data.corpus import Split
from nertool.data.encoding import padded, reading_order, token_indices
from nertool.experiments.fold import HeldOut, pieces_of
from nertool.model import chain
from nertool.model.batch import Layout
from nertool.model.concurrency import denormals_as_zero
from nertool.model.crf import viterbi
from nertool.text.document import UNKNOWN
from nertool.text.schemes import Scheme, Span, spans

_TOKENS_PER_BATCH = 4000
_DIGITS = 6
_REST = 0.01  # chosen on injected errors, see docs/audit.md


class Kind(StrEnum):
    """What may be wrong with an annotation."""

    TYPE = "type"
    BOUNDARY = "boundary"
    BOTH = "type and boundary"
    MISSING = "missing"
    SPURIOUS = "spurious"


class Region(NamedTuple):
    """Where two annotations of a sentence differ.

    Attributes:
        start, end: First token, and the token after the last.
        annotated, suggested: The entities of each that touch it.
    """

    start: int
    end: int
    annotated: tuple[Span, ...]
    suggested: tuple[Span, ...]

    @property
    def kind(self) -> Kind:
        """What would be wrong if the suggestion were right."""
        if not self.annotated:
            return Kind.MISSING
        if not self.suggested:
            return Kind.SPURIOUS
        if [span[:2] for span in self.annotated] == [span[:2] for span in self.suggested]:
            return Kind.TYPE
        same = {span.type for span in self.annotated} == {span.type for span in self.suggested}
        return Kind.BOUNDARY if same else Kind.BOTH


@dataclass(frozen=True)
class Suspect:
    """An annotation that is likely to be wrong.

    Attributes:
        sentence: Its number in the split, from 0.
        region: Where it is, in tokens of the sentence.
        annotated: Probability of the annotated labels of the region, mean over the models.
        suggested: The same of the suggested labels.
        models: How many models suggest another annotation there.
    """

    sentence: int
    region: Region
    annotated: float
    suggested: float
    models: int

    @property
    def score(self) -> float:
        """How likely it is that the suggestion is right, and the annotation is not: from 0 to 1."""
        return self.suggested / (self.annotated + self.suggested + _REST)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; positions count tokens of the sentence from 0."""

        def plain(given: Sequence[Span]) -> list[dict[str, Any]]:
            return [{"start": span.start, "end": span.end, "label": span.type} for span in given]

        return {
            "score": round(self.score, _DIGITS),
            "kind": self.region.kind.value,
            "start": self.region.start,
            "end": self.region.end,
            "annotated": plain(self.region.annotated),
            "suggested": plain(self.region.suggested),
            "p_annotated": round(self.annotated, _DIGITS),
            "p_suggested": round(self.suggested, _DIGITS),
            "models": self.models,
        }


@dataclass(frozen=True)
class Judgement:
    """What the models of an audit say of a split.

    Attributes:
        suspects: The most suspect first.
        disagreements: How many models label each sentence otherwise than it is annotated, (sentences,).
        repeats: How many models saw each sentence.
    """

    suspects: list[Suspect]
    disagreements: np.ndarray
    repeats: int


def judge(split: Split, repeats: Sequence[Sequence[HeldOut]]) -> Judgement:
    """Compare the annotations of a split with what models say that did not learn from them.

    Args:
        split: Labelled, in the models' scheme. Tokens without a label are never suspect.
        repeats: For each repeat the folds, which together hold each sentence once.
    """
    pieces, owners, starts = pieces_of(split)
    labels = repeats[0][0].labels
    numbers = {label: number for number, label in enumerate(labels)}
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    gold = np.array([numbers.get(each, -1) for piece in pieces for each in piece.labels or ()], np.int64)
    known = gold >= 0
    views = [_View(folds, owners, lengths, offsets) for folds in repeats]
    sequences = [view.best() for view in views]
    # Where the annotation is not known, the models' own label stands: nothing differs there.
    rows = [np.where(known, gold, sequences[0]), *sequences]
    tables = [view.path_logs(rows) for view in views]  # (sequences, 3, tokens) each

    differs = np.array([(row != rows[0]) & known for row in sequences])
    wrong = np.add.reduceat(differs, offsets[:-1], axis=1) > 0  # (models, pieces)
    disagreements = np.zeros((len(views), len(split)), bool)
    for row, own in zip(disagreements, wrong, strict=True):
        row[owners[own]] = True

    suspects: list[Suspect] = []
    names = np.array(labels, dtype=object)
    for index in np.flatnonzero(wrong.any(0)).tolist():
        a, b = int(offsets[index]), int(offsets[index + 1])
        entities = [_entities(names[row[a:b]].tolist(), split.label_scheme) for row in rows]
        candidates: dict[Region, tuple[float, float]] = {}
        for number in np.flatnonzero(wrong[:, index]).tolist():
            for region in regions(entities[0], entities[number + 1]):
                if region in candidates or not known[a + region.start : a + region.end].all():
                    continue
                first, last = a + region.start, a + region.end - 1
                p, q = (
                    float(np.mean([_probability(table[row], first, last) for table in tables]))
                    for row in (0, number + 1)
                )
                candidates[region] = p, q
        taken: list[Region] = []
        for region, (p, q) in sorted(candidates.items(), key=lambda each: (-each[1][1], each[1][0])):
            if any(region.start < each.end and each.start < region.end for each in taken):
                continue
            taken.append(region)
            others = sum(bool(differs[m, a + region.start : a + region.end].any()) for m in range(len(views)))
            shift = int(starts[index])
            suspects.append(Suspect(int(owners[index]), _moved(region, shift), p, q, others))
    suspects.sort(key=lambda each: (-each.score, each.annotated, each.sentence, each.region.start))
    return Judgement(suspects, disagreements.sum(0), len(views))


def marginals(split: Split, repeats: Sequence[Sequence[HeldOut]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each sentence, and the probability of each label at its tokens, mean over the models.

    A long sentence comes in pieces. Arguments as for `judge`.
    """
    pieces, owners, _ = pieces_of(split)
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    own = [_View(folds, owners, lengths, offsets).marginals() for folds in repeats]
    total = np.mean(own, axis=0)
    for number, owner in enumerate(owners.tolist()):
        yield owner, total[offsets[number] : offsets[number + 1]]


def regions(annotated: Sequence[Span], suggested: Sequence[Span]) -> Iterator[Region]:
    """Find where the entities of two annotations differ: overlapping ones are of one region.

    Args:
        annotated: Entities of a sentence.
        suggested: Other entities of it.

    >>> [(r.start, r.end, r.kind.value) for r in regions([Span(0, 2, "A"), Span(4, 5, "A")], [Span(1, 3, "A")])]
    [(0, 3, 'boundary'), (4, 5, 'spurious')]
    """
    mine, others = set(annotated), set(suggested)
    differing = sorted(mine ^ others, key=lambda span: (span.start, span.end))
    group: list[Span] = []
    end = -1
    for span in [*differing, None]:
        if group and (span is None or span.start >= end):
            own, other = (tuple(each for each in group if each in side) for side in (mine, others))
            yield Region(group[0].start, end, own, other)
            group, end = [], -1
        if span is not None:
            group.append(span)
            end = max(end, span.end)


class _View:
    """The models of one repeat over all pieces, with the folds that each knows nothing of."""

    def __init__(
        self, folds: Sequence[HeldOut], owners: np.ndarray, lengths: np.ndarray, offsets: np.ndarray
    ) -> None:
        self._folds = folds
        self._offsets = offsets
        self._pieces = []
        self.emissions = np.zeros((int(offsets[-1]), len(folds[0].labels)), np.float64)
        for fold in folds:
            own = np.flatnonzero(np.isin(owners, fold.sentences))
            self._pieces.append(own)
            self.emissions[_tokens(lengths[own], offsets[own])] = fold.emissions
        self._lengths = lengths

    def best(self) -> np.ndarray:
        """Return the best label of each token, (tokens,)."""
        result = np.zeros(len(self.emissions), np.int64)
        for scores, layout, mask, indices, emissions in self._batches():
            tensors = chain.Scores(*map(torch.from_numpy, scores))
            result[indices[mask]] = viterbi(torch.from_numpy(emissions), tensors, layout).numpy()[mask]
        return result

    def marginals(self) -> np.ndarray:
        """Return the probability of each label at each token, (tokens, labels)."""
        result = np.zeros_like(self.emissions)
        for scores, layout, mask, indices, emissions in self._batches():
            with denormals_as_zero():
                posterior = chain.infer(emissions, scores, chain.Places.arrays(layout))
                result[indices[mask]] = posterior.marginals()[mask]
        return result

    def path_logs(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Compute `chain.Posterior.path_logs` of label sequences, (sequences, 3, tokens)."""
        result = np.zeros((len(rows), 3, len(self.emissions)))
        for scores, layout, mask, indices, emissions in self._batches():
            with denormals_as_zero():
                posterior = chain.infer(emissions, scores, chain.Places.arrays(layout))
                for number, row in enumerate(rows):
                    tables = posterior.path_logs(padded(row, indices, mask))
                    result[number][:, indices[mask]] = np.stack(tables)[:, mask]
        return result

    def _batches(self) -> Iterator[tuple[chain.Scores, Layout, np.ndarray, np.ndarray, np.ndarray]]:
        for fold, own in zip(self._folds, self._pieces, strict=True):
            for batch in reading_order(self._lengths[own], _TOKENS_PER_BATCH):
                chosen = own[batch]
                mask, indices = token_indices(self._lengths[chosen], self._offsets[chosen])
                emissions = padded(self.emissions, indices, mask)
                yield fold.scores, Layout.of(self._lengths[chosen]), mask, indices, emissions


def _tokens(lengths: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the indices of the tokens of pieces, flat."""
    before = np.cumsum(lengths) - lengths
    result: np.ndarray = np.repeat(offsets - before, lengths) + np.arange(int(lengths.sum()))
    return result


def _probability(table: np.ndarray, first: int, last: int) -> float:
    begin, path, end = table
    with np.errstate(over="ignore"):
        return float(np.exp(min(begin[first] + path[last] - path[first] + end[last], 0.0)))


def _entities(labels: Sequence[str], scheme: Scheme) -> list[Span]:
    if scheme is Scheme.PLAIN:
        return [Span(index, index + 1, label) for index, label in enumerate(labels) if label != UNKNOWN]
    return spans(labels, scheme)


def _moved(region: Region, by: int) -> Region:
    if not by:
        return region

    def move(given: Sequence[Span]) -> tuple[Span, ...]:
        return tuple(Span(span.start + by, span.end + by, span.type) for span in given)

    return Region(region.start + by, region.end + by, move(region.annotated), move(region.suggested))
