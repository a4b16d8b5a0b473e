"""Decoding with arrays of numpy alone: what `nertool.model.crf` and `nbest` do with tensors.

A model without torch needs it. All is time-major and in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nertool.model.chain import Places, Posterior, Scores, infer

_POSSIBLE = -1e8  # below this a sequence holds a transition that the scheme forbids
_WAYS = 2**22  # that are looked at together


@dataclass(frozen=True)
class ChainDecoder:
    """A trained decoder.

    Attributes:
        scores: Of start, transitions and end; far below all else what the scheme forbids.
        temperature: All scores are divided by it for probabilities.
    """

    scores: Scores
    temperature: float

    def best_labels(self, emissions: np.ndarray, places: Places) -> np.ndarray:
        """Find the most probable label sequences by Viterbi's algorithm, (time, batch); 0 in padding.

        Args:
            emissions: (time, batch, labels).
            places: Which positions are tokens.
        """
        return viterbi(emissions, self.scores, places)

    def posterior(self, emissions: np.ndarray, places: Places) -> Posterior:
        """Compute the distribution over label sequences at the temperature; arguments as for `best_labels`."""
        return infer(emissions / self.temperature, self._scaled(), places)

    def best_sequences(
        self, emissions: np.ndarray, places: Places, log_partition: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k most probable label sequences.

        Args:
            emissions: (time, batch, labels).
            places: Which positions are tokens.
            log_partition: Of the posterior, (batch,).
            k: How many.

        Returns:
            Labels (time, batch, k), the most probable sequence first, and the probability of each, (batch, k);
            0 where a sentence has fewer than k.
        """
        labels, totals = best_sequences(emissions / self.temperature, self._scaled(), places, k)
        return labels, np.exp(np.minimum(totals - log_partition[:, None], 0.0))

    def _scaled(self) -> Scores:
        return Scores(*(values / self.temperature for values in self.scores))


def viterbi(emissions: np.ndarray, scores: Scores, places: Places) -> np.ndarray:
    """Find the best label sequence of each sentence, (time, batch); 0 in padding."""
    time, batch, size = emissions.shape
    ragged = places.order is not None
    into = np.ascontiguousarray(scores.transitions.T)  # (to, from)
    best = emissions[0] + scores.start
    came_from = np.empty((time, batch, size), np.int64)
    for t in range(1, time):
        ways = best[:, None] + into  # (batch, to, from)
        came_from[t] = ways.argmax(-1)
        score = ways.max(-1) + emissions[t]
        best = np.where(places.mask[t, :, None], score, best) if ragged else score
    label = (best + scores.end).argmax(-1)  # (batch,), of the last token
    labels = np.empty((time, batch), np.int64)
    labels[time - 1] = label
    for t in range(time - 1, 0, -1):
        previous = came_from[t, places.column, label]
        label = np.where(places.mask[t], previous, label) if ragged else previous
        labels[t - 1] = label
    result: np.ndarray = labels * places.mask
    return result


def best_sequences(emissions: np.ndarray, scores: Scores, places: Places, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the k best sequences, as `nertool.model.nbest.best_sequences` does.

    Returns:
        Labels (time, batch, k), best first, 0 in padding and where a sentence has fewer than k; and their scores,
        (batch, k), -inf where it has fewer.
    """
    time, batch, size = emissions.shape
    best = np.full((batch, size, k), -np.inf)
    best[:, :, 0] = emissions[0] + scores.start
    came_from = np.zeros((time, batch, size, k), np.int64)  # label before x k + its rank there
    into = scores.transitions.T[..., None]  # (to, from, 1)
    step = max(1, _WAYS // (batch * size * k))
    for t in range(1, time):
        arrived = np.empty_like(best)
        for start in range(0, size, step):
            some = slice(start, start + step)
            ways = (best[:, None] + into[some]).reshape(batch, -1, size * k)  # (batch, to, from x k)
            arrived[:, some], came_from[t, :, some] = _highest(ways, k)
        arrived += emissions[t, :, :, None]
        best = np.where(places.mask[t, :, None, None], arrived, best)
    totals, state = _highest((best + scores.end[:, None]).reshape(batch, size * k), k)
    totals = np.where(totals < _POSSIBLE, -np.inf, totals)
    possible = np.isfinite(totals)
    labels = np.zeros((time, batch, k), np.int64)
    for t in range(time - 1, -1, -1):
        inside = places.mask[t, :, None]
        labels[t] = np.where(inside & possible, state // k, 0)
        state = np.where(inside, np.take_along_axis(came_from[t].reshape(batch, size * k), state, 1), state)
    return labels, totals


def _highest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k highest values of the last axis, the highest first, and their indices."""
    indices = np.argpartition(-values, k - 1, -1)[..., :k]
    some = np.take_along_axis(values, indices, -1)
    order = np.argsort(-some, -1, kind="stable")
    return np.take_along_axis(some, order, -1), np.take_along_axis(indices, order, -1)
