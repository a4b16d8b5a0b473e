"""The decoding layer: a linear-chain CRF (Lafferty et al. 2001), and softmax as the CRF without transitions.

`torchcrf.CRF` holds the parameters. The likelihood and its exact gradient come from forward-backward in
`chain`, without an autograd tape over the sentence; decoding is Viterbi over a whole batch.

Everything here is time-major. Masks are boolean and prefixes: True for the tokens of a sentence, then False.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchcrf
from torch import Tensor

from nertool.model import chain, nbest

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
        # Probabilities are those of all scores divided by it; labels found are the same under any.
        self.register_buffer("temperature", torch.ones(()))
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
            labels: The right labels, (time, batch), -1 where they are not known; anything outside the mask.
            mask: Boolean (time, batch), a prefix of True in each column, at least one long.
        """
        scores = self._scores(self.always)
        loss: Tensor = _NegativeLogLikelihood.apply(emissions, *scores, labels, mask)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def posterior(self, emissions: Tensor, mask: Tensor) -> chain.Posterior:
        """The distribution over the label sequences that the constraints allow, at the model's temperature."""
        scale = 1.0 / float(self.temperature)
        scores = _arrays(*(scale * each for each in self._scores(True)))
        return chain.infer(scale * _array(emissions), scores, mask.numpy())

    @torch.no_grad()
    def loss_at(self, temperature: float, emissions: Tensor, labels: Tensor, mask: Tensor) -> float:
        """Negative log-likelihood under the constraints at a temperature, summed; arguments as for `loss`."""
        scores = _arrays(*(each / temperature for each in self._scores(True)))
        found = chain.negative_log_likelihood(
            _array(emissions) / temperature, scores, labels.numpy(), mask.numpy()
        )
        return found.value

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

    @torch.no_grad()
    def best_sequences(self, emissions: Tensor, mask: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable label sequences that the constraints allow; arguments as for `best_labels`.

        Returns:
            Labels (time, batch, k), the most probable sequence first, and the probability of each, (batch, k);
            0 where a sentence has fewer than k.
        """
        scale = 1.0 / float(self.temperature)
        scores, scaled = _arrays(*(scale * each for each in self._scores(True))), scale * _array(emissions)
        found = nbest.best_sequences(scaled, scores, mask.numpy(), k)
        log_partition = chain.infer(scaled, scores, mask.numpy()).log_partition
        return found.labels, np.exp(np.minimum(found.scores - log_partition[:, None], 0.0))

    def _scores(self, constrained: bool) -> tuple[Tensor, Tensor, Tensor]:
        if not constrained:
            return self.start_transitions, self.transitions, self.end_transitions
        return (
            self.start_transitions + self.start_penalty,
            self.transitions + self.transitions_penalty,
            self.end_transitions + self.end_penalty,
        )


class Softmax(ConditionalRandomField):
    """Each label scored by itself: the CRF whose transitions are fixed at 0.

    With constraints, the best sequence is the best of those that the scheme allows, at the speed of softmax
    in training (Lester et al. 2020).

    Args:
        labels: Number of labels.
        constraints: What the scheme allows; None: everything.
    """

    def __init__(self, labels: int, constraints: Constraints | None = None) -> None:
        super().__init__(labels, constraints)
        self.constrained = constraints is not None
        for parameter in self.parameters():
            parameter.requires_grad_(False).zero_()

    def reset_parameters(self) -> None:
        """Nothing to draw: transitions stay 0."""

    def loss(self, emissions: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the labels, summed over the batch; arguments as for the CRF."""
        return torch.nn.functional.cross_entropy(emissions[mask], labels[mask], reduction="sum", ignore_index=-1)

    @torch.no_grad()
    def best_labels(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """The most probable labels; arguments and result as for the CRF."""
        return super().best_labels(emissions, mask) if self.constrained else emissions.argmax(-1) * mask


class _NegativeLogLikelihood(torch.autograd.Function):
    """The likelihood of `chain`, with its gradient, as a node of torch's graph."""

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, start: Tensor, transitions: Tensor, end: Tensor, labels: Tensor, mask: Tensor
    ) -> Tensor:
        found = chain.negative_log_likelihood(
            _array(emissions), _arrays(start, transitions, end), labels.numpy(), mask.numpy()
        )
        gradients = (found.emissions, found.scores.start, found.scores.transitions, found.scores.end)
        ctx.gradients = [torch.from_numpy(each).to(emissions.dtype) for each in gradients]
        return emissions.new_tensor(found.value)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * scale for gradient in ctx.gradients), None, None


def _array(values: Tensor) -> chain.Floats:
    array: chain.Floats = values.detach().numpy().astype(np.float64)
    return array


def _arrays(start: Tensor, transitions: Tensor, end: Tensor) -> chain.Scores:
    return chain.Scores(_array(start), _array(transitions), _array(end))


def _viterbi(emissions: Tensor, start: Tensor, transitions: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    time, batch, size = emissions.shape
    into = transitions.T.contiguous()  # (to, from): the reduction below runs over the last dimension
    best = emissions[0] + start
    came_from = torch.empty(time, batch, size, dtype=torch.long)
    whole = bool(mask.all())
    for t in range(1, time):
        score, came_from[t] = (best.unsqueeze(1) + into).max(-1)  # (batch, to)
        score = score + emissions[t]
        # The best stays at 0, or a long sentence would leave no digits for the differences.
        score -= score.amax(-1, keepdim=True)
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
