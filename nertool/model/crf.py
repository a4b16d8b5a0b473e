"""The decoding layer: a linear-chain CRF (Lafferty et al. 2001), and softmax as the CRF without transitions.

`torchcrf.CRF` holds the parameters. The likelihood is computed here by forward-backward, which yields its
exact gradient (the difference between observed and expected counts) without an autograd tape over the
sentence; decoding is Viterbi over a whole batch. Both messages run in one loop: the backward message is the
forward message of the reversed sentence under transposed transitions.

Everything here is time-major. Masks are boolean and prefixes: True for the tokens of a sentence, then False.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchcrf
from torch import Tensor

from nertool.model.masks import reversal

# Score of what the scheme forbids: exp() of it is exactly 0, and sums of a few thousand stay finite.
FORBIDDEN = -1e9


@dataclass(frozen=True)
class Constraints:
    """What the label scheme allows.

    Args:
        start: Labels that may begin a sentence, boolean (labels,).
        transitions: Labels that may follow one another, boolean (from, to).
        end: Labels that may end a sentence, boolean (labels,).
    """

    start: np.ndarray
    transitions: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Posterior:
    """The distribution over label sequences, as scaled forward and backward messages in float64.

    Attributes:
        log_partition: Log of the sum over all sequences of exp(score), (batch,).
        forward: Scaled forward messages, (time, batch, labels).
        backward: Scaled backward messages, without the emission of their own token, (time, batch, labels).
        log_transitions: Transition scores, (from, to).
        log_step: What a token adds to a path besides the transition: its emission score less the log of the
            forward message's scale, (time, batch, labels).
        mask: Boolean (time, batch).
    """

    log_partition: Tensor
    forward: Tensor
    backward: Tensor
    log_transitions: Tensor
    log_step: Tensor
    mask: Tensor

    def marginals(self) -> Tensor:
        """Probability of each label at each token, (time, batch, labels); 0 outside the mask."""
        joint = self.forward * self.backward
        return joint / joint.sum(-1, keepdim=True) * self.mask.unsqueeze(-1)

    def path_logs(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tables that give the exact probability of any stretch of a label sequence.

        The log-probability that tokens s to e (inclusive) jointly carry the labels of the given sequence is
        `first[s] + path[e] - path[s] + last[e]`.

        Args:
            labels: A label sequence for each sentence, (time, batch).

        Returns:
            first, path and last, each (time, batch).
        """
        at = labels.unsqueeze(-1)
        gains = self.log_step.gather(-1, at).squeeze(-1)
        gains[1:] += self.log_transitions[labels[:-1], labels[1:]]
        total = (self.forward * self.backward).sum(-1)
        first = self.forward.gather(-1, at).squeeze(-1).log()
        last = self.backward.gather(-1, at).squeeze(-1).log() - total.log()
        return first, gains.cumsum(0), last


class ConditionalRandomField(torchcrf.CRF):  # type: ignore[misc]
    """A linear-chain CRF.

    Its parameters are `start_transitions` (labels,), `transitions` (from, to) and `end_transitions`
    (labels,), as in pytorch-crf.

    Args:
        labels: Number of labels.
        constraints: What the scheme allows; None: everything.
        always: Whether the constraints hold in the likelihood too, not in decoding and posterior alone.
    """

    def __init__(self, labels: int, constraints: Constraints | None = None, *, always: bool = False) -> None:
        super().__init__(labels, batch_first=False)
        self.always = always
        allowed = constraints or Constraints(
            np.ones(labels, bool), np.ones((labels, labels), bool), np.ones(labels, bool)
        )
        for name in ("start", "transitions", "end"):
            penalty = torch.zeros(getattr(allowed, name).shape)
            penalty[~torch.from_numpy(getattr(allowed, name))] = FORBIDDEN
            self.register_buffer(f"{name}_penalty", penalty, persistent=False)

    def loss(self, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Negative log-likelihood of the labels, summed over the batch (Ma & Hovy 2016, section 2.3).

        Args:
            emissions: Scores of the labels, (time, batch, labels).
            labels: The right labels, (time, batch); anything in range outside the mask.
            mask: Boolean (time, batch), a prefix of True in each column, at least one long.
        """
        scores = self._scores(self.always)
        loss: Tensor = _NegativeLogLikelihood.apply(emissions, *scores, labels, mask)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def posterior(self, emissions: Tensor, mask: Tensor) -> Posterior:
        """The distribution over the label sequences that the constraints allow."""
        return _posterior(emissions, *self._scores(True), mask)

    @torch.no_grad()
    def best_labels(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """The most probable label sequence that the constraints allow, by Viterbi's algorithm.

        Args:
            emissions: Scores, (time, batch, labels).
            mask: Boolean (time, batch).

        Returns:
            Labels, (time, batch); 0 outside the mask.
        """
        start, transitions, end = self._scores(True)
        return _viterbi(emissions, start, transitions, end, mask)

    def _scores(self, constrained: bool) -> tuple[Tensor, Tensor, Tensor]:
        if not constrained:
            return self.start_transitions, self.transitions, self.end_transitions
        return (
            self.start_transitions + self.start_penalty,
            self.transitions + self.transitions_penalty,
            self.end_transitions + self.end_penalty,
        )


class Softmax(ConditionalRandomField):
    """Each label scored by itself: the CRF whose transitions are fixed at 0 (constraints may still hold)."""

    def __init__(self, labels: int, constraints: Constraints | None = None, *, always: bool = False) -> None:
        super().__init__(labels, constraints, always=always)
        for parameter in self.parameters():
            parameter.requires_grad_(False).zero_()

    def reset_parameters(self) -> None:
        """Nothing to draw: transitions stay 0."""

    def loss(self, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the labels, summed over the batch; arguments as for the CRF."""
        if self.always:
            return super().loss(emissions, labels, mask)
        return torch.nn.functional.cross_entropy(emissions[mask], labels[mask], reduction="sum")


def _messages(
    emissions: Tensor, start: Tensor, transitions: Tensor, end: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Forward and backward messages, both scaled to sum to 1 at each token, and the forward scales' logs.

    Returns:
        Potentials of the tokens (2, time, batch, labels), messages (2, time, batch, labels) before their own
        token's potential is multiplied in, messages (2, time, batch, labels) with it, and the log of each
        token's scale in the forward direction (time, batch). Index 0 is the forward direction, 1 the
        backward direction with its time reversed within each sentence.
    """
    time, batch, labels = emissions.shape
    scores = emissions.detach().double()
    scores = scores.masked_fill(~mask.unsqueeze(-1), 0.0)
    order = reversal(mask)
    both = torch.stack((scores, scores.gather(0, order.unsqueeze(-1).expand_as(scores))))
    # Scores are shifted before exp() so that the greatest potential of every factor is 1.
    top = both.amax(-1, keepdim=True)
    potentials = (both - top).exp_()
    top_transition = transitions.detach().double().amax()
    steps = (transitions.detach().double() - top_transition).exp()
    steps = torch.stack((steps, steps.T.contiguous()))
    first = torch.stack((start.detach().double(), end.detach().double()))
    top_first = first.amax(-1, keepdim=True)

    before = scores.new_empty(2, time, batch, labels)
    after = scores.new_empty(2, time, batch, labels)
    scales = scores.new_empty(2, time, batch, 1)
    before[:, 0] = (first - top_first).exp().unsqueeze(1)
    for t in range(time):
        if t:
            torch.bmm(after[:, t - 1], steps, out=before[:, t])
        torch.mul(before[:, t], potentials[:, t], out=after[:, t])
        torch.sum(after[:, t], -1, keepdim=True, out=scales[:, t])
        after[:, t] /= scales[:, t]
    log_scales = scales[0].log() + top[0]
    log_scales[0] += top_first[0]
    log_scales[1:] += top_transition
    return potentials, before, after, log_scales.squeeze(-1)


def _posterior(emissions: Tensor, start: Tensor, transitions: Tensor, end: Tensor, mask: Tensor) -> Posterior:
    _, before, after, log_scales = _messages(emissions, start, transitions, end, mask)
    order = reversal(mask)
    backward = before[1].gather(0, order.unsqueeze(-1).expand_as(before[1]))
    last = mask.sum(0) - 1
    rows = torch.arange(mask.shape[1])
    final = (after[0, last, rows].log() + end.detach().double()).logsumexp(-1)
    log_partition = (log_scales * mask).sum(0) + final
    return Posterior(
        log_partition,
        after[0],
        backward,
        transitions.detach().double(),
        emissions.detach().double() - log_scales.unsqueeze(-1),
        mask,
    )


class _NegativeLogLikelihood(torch.autograd.Function):
    """log Z - score(labels), summed over the batch, with its exact gradient computed on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        start: Tensor,
        transitions: Tensor,
        end: Tensor,
        labels: Tensor,
        mask: Tensor,
    ) -> Tensor:
        posterior = _posterior(emissions, start, transitions, end, mask)
        size = emissions.shape[-1]
        observed = torch.nn.functional.one_hot(labels, size).double() * mask.unsqueeze(-1)
        expected = posterior.marginals()
        last = mask.sum(0) - 1
        rows = torch.arange(mask.shape[1])

        # Expected transitions: sum over tokens of forward[t-1] x potentials[t] * backward[t], each such table
        # normalised to 1; the factor of the transition itself is common to all and multiplied in at the end.
        steps = (posterior.log_transitions - posterior.log_transitions.amax()).exp()
        arriving = expected[1:] / (posterior.forward[:-1] @ steps).clamp_min(1e-300)
        leaving = posterior.forward[:-1]
        pairs = (leaving.reshape(-1, size).T @ arriving.reshape(-1, size)) * steps
        counts = torch.zeros(size * size, dtype=torch.float64)
        seen = (labels[:-1] * size + labels[1:])[mask[1:]]
        counts.index_add_(0, seen, torch.ones(len(seen), dtype=torch.float64))
        counts = counts.view(size, size)

        ctx.save_for_backward(
            (expected - observed).to(emissions.dtype),
            (expected[0] - observed[0]).sum(0).to(start.dtype),
            (pairs - counts).to(transitions.dtype),
            (expected[last, rows] - observed[last, rows]).sum(0).to(end.dtype),
        )
        score = (
            (emissions.double() * observed).sum()
            + (start.double() * observed[0].sum(0)).sum()
            + (posterior.log_transitions * counts).sum()
            + (end.double() * observed[last, rows].sum(0)).sum()
        )
        return (posterior.log_partition.sum() - score).to(emissions.dtype)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        emissions, start, transitions, end = ctx.saved_tensors
        return emissions * scale, start * scale, transitions * scale, end * scale, None, None


def _viterbi(emissions: Tensor, start: Tensor, transitions: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    time, batch, size = emissions.shape
    into = transitions.T.contiguous()  # (to, from): the reduction below runs over the last dimension
    best = emissions[0] + start
    came_from = torch.empty(time, batch, size, dtype=torch.long)
    whole = bool(mask.all())
    for t in range(1, time):
        score, came_from[t] = (best.unsqueeze(1) + into).max(-1)  # (batch, to)
        score = score + emissions[t]
        best = score if whole else torch.where(mask[t].unsqueeze(-1), score, best)
    label = (best + end).argmax(-1)  # (batch,)
    labels = torch.zeros(time, batch, dtype=torch.long)
    last = mask.sum(0) - 1
    labels[last, torch.arange(batch)] = label
    for t in range(time - 1, 0, -1):
        previous = came_from[t].gather(-1, label.unsqueeze(-1)).squeeze(-1)
        label = previous if whole else torch.where(t <= last, previous, label)
        labels[t - 1] = torch.where(t - 1 <= last, label, 0)
    return labels
