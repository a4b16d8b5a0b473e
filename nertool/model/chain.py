"""Exact inference in a linear chain (Lafferty et al. 2001), over arrays, in float64.

A sentence is some fifteen steps over tables of a few hundred numbers, each step waiting for the one before:
the cost is that of calling, and numpy calls are several times cheaper than torch's. Both messages run in one
loop, for the backward message is the forward message of the reversed sentence under transposed transitions.

Everything is time-major. Masks are boolean prefixes: True for the tokens of a sentence, then False.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]


_RULED_OUT = -1e30  # emission score of a label that a token is known not to have


@dataclass(frozen=True)
class Scores:
    """What a label sequence scores besides its emissions.

    Attributes:
        start: Of the first label, (labels,).
        transitions: Of a label after another, (from, to).
        end: Of the last label, (labels,).
    """

    start: Floats
    transitions: Floats
    end: Floats


@dataclass(frozen=True)
class Posterior:
    """The distribution over label sequences, as messages scaled to keep within range.

    Attributes:
        log_partition: Log of the sum over all sequences of exp(score), (batch,).
        forward: Forward messages, (time, batch, labels).
        backward: Backward messages, without the emission of their own token, (time, batch, labels).
        log_transitions: Transition scores, (from, to).
        log_step: What a token adds to a path besides the transition: its emission score less the log of the
            forward message's scale, (time, batch, labels).
        mask: Boolean (time, batch).
    """

    log_partition: Floats
    forward: Floats
    backward: Floats
    log_transitions: Floats
    log_step: Floats
    mask: Booleans

    def marginals(self) -> Floats:
        """Probability of each label at each token, (time, batch, labels); 0 outside the mask."""
        joint = self.forward * self.backward
        total: Floats = joint.sum(-1, keepdims=True)
        joint *= self.mask[..., None] / total
        return joint

    def path_logs(self, labels: Integers) -> tuple[Floats, Floats, Floats]:
        """Tables that give the exact probability of any stretch of a label sequence.

        The log-probability that tokens s to e (inclusive) jointly carry the labels of the given sequence is
        `first[s] + path[e] - path[s] + last[e]`.

        Args:
            labels: A label sequence for each sentence, (time, batch).

        Returns:
            first, path and last, each (time, batch).
        """
        at = labels[..., None]
        gains = np.take_along_axis(self.log_step, at, -1)[..., 0]
        gains[1:] += self.log_transitions[labels[:-1], labels[1:]]
        with np.errstate(divide="ignore"):
            first = np.log(np.take_along_axis(self.forward, at, -1)[..., 0])
            last = np.log(np.take_along_axis(self.backward, at, -1)[..., 0])
            last -= np.log((self.forward * self.backward).sum(-1))
        return first, gains.cumsum(0), last


def infer(emissions: Floats, scores: Scores, mask: Booleans) -> Posterior:
    """Forward-backward.

    Args:
        emissions: (time, batch, labels).
        scores: Of start, transitions and end.
        mask: Boolean (time, batch), at least one True in each column.
    """
    time, batch, labels = emissions.shape
    ragged = not mask.all()
    if ragged:
        emissions = np.where(mask[..., None], emissions, 0.0)
    # Every factor is shifted before exp() so that its greatest potential is 1. What is e^-600 times the best
    # stands for all that is less, for 0 would leave sentences without a path where the others are forbidden.
    top = emissions.max(-1, keepdims=True)
    emissions = np.maximum(emissions, top - 600.0)
    potentials = np.exp(emissions - top)
    order = reversal(mask)[..., None] if ragged else None
    potentials = np.stack((potentials, _reverse(potentials, order)), 1)  # (time, direction, batch, labels)
    top_transition = scores.transitions.max()
    steps = np.exp(scores.transitions - top_transition)
    steps = np.stack((steps, steps.T))
    borders = np.stack((scores.start, scores.end))
    top_borders = borders.max(-1, keepdims=True)

    before = np.empty((time, 2, batch, labels))  # messages without their own token's potential
    after = np.empty((time, 2, batch, labels))
    scales = np.empty((time, 2, batch, 1))
    sum_up = np.ones((labels, 1))  # a product with it is a cheaper sum than a reduction
    before[0] = np.exp(borders - top_borders)[:, None]
    for t in range(time):
        if t:
            np.matmul(after[t - 1], steps, out=before[t])
        np.multiply(before[t], potentials[t], out=after[t])
        np.matmul(after[t], sum_up, out=scales[t])
        np.divide(after[t], scales[t], out=after[t])

    log_scales = np.log(scales[:, 0]) + top  # (time, batch, 1)
    log_scales[0] += top_borders[0]
    log_scales[1:] += top_transition
    forward = after[:, 0]
    ends = forward[mask.sum(0) - 1, np.arange(batch)] @ np.exp(scores.end - top_borders[1])
    log_partition = (log_scales[..., 0] * mask).sum(0) + np.log(ends) + top_borders[1]
    return Posterior(
        log_partition, forward, _reverse(before[:, 1], order), scores.transitions, emissions - log_scales, mask
    )


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of label sequences, summed over a batch, and its exact gradient."""

    value: float
    emissions: Floats
    scores: Scores


def negative_log_likelihood(emissions: Floats, scores: Scores, labels: Integers, mask: Booleans) -> Likelihood:
    """Log Z - score(labels), and its gradient: expected less observed counts (Lafferty et al. 2001, eq. 3).

    Tokens without a label are summed over: instead of one sequence's score there stands log Z over all
    sequences that carry the labels that are known, and expected counts under these for observed ones
    (Tsuboi et al. 2008, eq. 2).

    Args:
        emissions: (time, batch, labels).
        scores: Of start, transitions and end.
        labels: The right labels, (time, batch), -1 where they are not known; anything outside the mask.
        mask: Boolean (time, batch), at least one True in each column.
    """
    labels = np.where(mask, labels, 0)
    value, gradient, expected = _expectations(emissions, scores, mask)
    if (labels < 0).any():
        ruled_out = (labels[..., None] >= 0) & (labels[..., None] != np.arange(emissions.shape[-1]))
        known, found, observed = _expectations(np.where(ruled_out, _RULED_OUT, emissions), scores, mask)
        gradient -= found
    else:
        known, observed = _observe(emissions, scores, labels, mask)
        gradient[np.arange(len(mask))[:, None], np.arange(mask.shape[1]), labels] -= mask
    last = mask.sum(0) - 1
    # The gradient at the borders is that of the emission there.
    borders = gradient[0].sum(0), gradient[last, np.arange(mask.shape[1])].sum(0)
    return Likelihood(value - known, gradient, Scores(borders[0], expected - observed, borders[1]))


def _expectations(emissions: Floats, scores: Scores, mask: Booleans) -> tuple[float, Floats, Floats]:
    """Log Z summed over the batch, the marginals, and the expected number of each transition."""
    size = emissions.shape[-1]
    posterior = infer(emissions, scores, mask)
    marginals = posterior.marginals()
    # Expected transitions: the sum over tokens of forward[t - 1] x (potential * backward)[t], each such table
    # scaled to sum to 1. The second factor is the marginal less what arrives from t - 1.
    steps = np.exp(scores.transitions - scores.transitions.max())
    leaving = posterior.forward[:-1].reshape(-1, size)
    arriving = marginals[1:].reshape(-1, size) / np.maximum(leaving @ steps, 1e-300)
    return float(posterior.log_partition.sum()), marginals, (leaving.T @ arriving) * steps


def _observe(emissions: Floats, scores: Scores, labels: Integers, mask: Booleans) -> tuple[float, Floats]:
    """Score of the labels summed over the batch, and the number of each transition in them."""
    size = emissions.shape[-1]
    pairs = (labels[:-1] * size + labels[1:])[mask[1:]]
    transitions = np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.float64)
    last = labels[mask.sum(0) - 1, np.arange(labels.shape[1])]
    score = (np.take_along_axis(emissions, labels[..., None], -1)[..., 0] * mask).sum()
    score += (transitions * scores.transitions).sum() + scores.start[labels[0]].sum() + scores.end[last].sum()
    return float(score), transitions


def reversal(mask: Booleans) -> Integers:
    """Time indices that reverse each sentence in place and leave its padding where it is, (time, batch)."""
    steps = np.arange(len(mask))[:, None]
    return np.where(mask, mask.sum(0) - 1 - steps, steps)


def _reverse(values: Floats, order: Integers | None) -> Floats:
    return values[::-1] if order is None else np.take_along_axis(values, order, 0)
