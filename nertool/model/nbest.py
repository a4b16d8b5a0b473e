"""The k most probable label sequences of each sentence, exactly: Viterbi's algorithm, with k paths a label."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nertool.model.batch import Layout
from nertool.model.chain import Scores

# Below this a sequence holds a transition that the scheme forbids.
_POSSIBLE = -1e8
_WAYS = 2**24  # that are looked at together


class Sequences(NamedTuple):
    """The best label sequences, best first.

    Attributes:
        labels: (time, batch, k); 0 in padding and where a sentence has fewer sequences than k.
        scores: Unnormalized log-probabilities, (batch, k); -inf where a sentence has fewer sequences than k.
    """

    labels: Tensor
    scores: Tensor


def best_sequences(emissions: Tensor, scores: Scores, layout: Layout, k: int) -> Sequences:
    """Find the k best sequences (Seshadri & Sundberg 1994, the parallel list Viterbi algorithm).

    At each token the k best ways to arrive at each label are kept: a way that is not among them is not part of
    any of the k best sequences either.

    Args:
        emissions: (time, batch, labels).
        scores: Of start, transitions and end, with what is forbidden far below all else.
        layout: Which positions are tokens.
        k: How many, at least 1.
    """
    time, batch, size = emissions.shape
    best = emissions.new_full((batch, size, k), -torch.inf)
    best[:, :, 0] = emissions[0] + scores.start
    # How each way arrived: its label before x k + its rank there.
    came_from = torch.zeros(time, batch, size, k, dtype=torch.long, device=emissions.device)
    into = scores.transitions.T.unsqueeze(-1)  # (to, from, 1)
    labels_to = torch.arange(size, device=emissions.device)
    for t in range(1, time):
        arrived = best.new_empty(batch, size, k)
        for some in torch.split(labels_to, max(1, _WAYS // (batch * size * k))):
            ways = (best.unsqueeze(1) + into[some]).reshape(batch, len(some), size * k)  # (batch, to, from x k)
            arrived[:, some], came_from[t, :, some] = ways.topk(k, -1)
        arrived = arrived + emissions[t].unsqueeze(-1)
        best = torch.where(layout.mask[t, :, None, None], arrived, best) if layout.ragged else arrived
    totals, state = (best + scores.end[:, None]).reshape(batch, size * k).topk(k, -1)  # (batch, k)
    totals = totals.masked_fill(totals < _POSSIBLE, -torch.inf)
    possible = totals.isfinite()
    labels = torch.zeros(time, batch, k, dtype=torch.long, device=emissions.device)
    for t in range(time - 1, -1, -1):
        inside = layout.mask[t].unsqueeze(-1)
        labels[t] = torch.where(inside & possible, state // k, 0)
        state = torch.where(inside, came_from[t].reshape(batch, size * k).gather(1, state), state)
    return Sequences(labels, totals)
