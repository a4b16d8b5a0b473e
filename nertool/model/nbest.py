"""The k most probable label sequences of each sentence, exactly: Viterbi's algorithm with k paths a label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nertool.model.chain import Booleans, Floats, Integers, Scores

# Below this a sequence holds a transition that the scheme forbids.
_POSSIBLE = -1e8


@dataclass(frozen=True)
class Sequences:
    """The best label sequences, best first.

    Attributes:
        labels: (time, batch, k); 0 outside the mask and where a sentence has fewer sequences than k.
        scores: Unnormalised log-probabilities, (batch, k); -inf where a sentence has fewer sequences than k.
    """

    labels: Integers
    scores: Floats


def best_sequences(emissions: Floats, scores: Scores, mask: Booleans, k: int) -> Sequences:
    """Finds the k best sequences (Seshadri & Sundberg 1994, the parallel list Viterbi algorithm).

    At each token the k best ways to arrive at each label are kept: a way that is not among them is not part of
    any of the k best sequences either.

    Args:
        emissions: (time, batch, labels).
        scores: Of start, transitions and end, with what is forbidden far below all else.
        mask: Boolean (time, batch), at least one True in each column.
        k: How many, at least 1.
    """
    time, batch, size = emissions.shape
    best = np.full((batch, size, k), -np.inf)
    best[:, :, 0] = emissions[0] + scores.start
    came_from = np.zeros((time, batch, size, k), dtype=np.int32)  # from label x k + place among its ways
    for t in range(1, time):
        ways = (best[..., None] + scores.transitions[:, None]).reshape(batch, size * k, size)
        found, places = _largest(ways, k)  # (batch, k, to)
        arrived = found.transpose(0, 2, 1) + emissions[t][..., None]
        came_from[t] = places.transpose(0, 2, 1)
        best = np.where(mask[t, :, None, None], arrived, best)
    final = (best + scores.end[:, None]).reshape(batch, size * k, 1)
    found, places = _largest(final, k)
    totals, state = found[..., 0], places[..., 0]  # (batch, k)
    totals[totals < _POSSIBLE] = -np.inf
    labels = np.zeros((time, batch, k), dtype=np.int64)
    rows = np.arange(batch)[:, None]
    for t in range(time - 1, -1, -1):
        inside = mask[t, :, None]
        labels[t] = np.where(inside & np.isfinite(totals), state // k, 0)
        if t:
            state = np.where(inside, came_from[t, rows, state // k, state % k], state)
    return Sequences(labels, totals)


def _largest(values: Floats, k: int) -> tuple[Floats, Integers]:
    """The k largest along the middle dimension, largest first, and their places; -inf where there are fewer."""
    if values.shape[1] < k:
        missing = k - values.shape[1]
        values = np.concatenate(
            (values, np.full_like(values, -np.inf, shape=(len(values), missing, values.shape[2]))), 1
        )
    places = np.argpartition(-values, k - 1, 1)[:, :k]
    found = np.take_along_axis(values, places, 1)
    order = np.argsort(-found, 1, kind="stable")
    return np.take_along_axis(found, order, 1), np.take_along_axis(places, order, 1)
