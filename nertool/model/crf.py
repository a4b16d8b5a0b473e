"""The decoders: a linear-chain CRF (Lafferty et al. 2001), and softmax, which is the CRF without transitions.

`torchcrf.CRF` holds the parameters of the CRF. The likelihood and its exact gradient come from forward-backward
in `chain`, without an autograd graph over the sentence; decoding is Viterbi's algorithm over a whole batch.

Everything is time-major, takes and returns tensors, and works on any device; none of it waits for the device,
except `loss_at`, which returns a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchcrf
from torch import Tensor, nn

from nertool.model import chain, nbest
from nertool.model.batch import Layout
from nertool.model.building import uninitialized

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
    """The distribution over the label sequences of a batch; in double precision where the device has it."""

    _chain: chain.Posterior

    @property
    def log_partition(self) -> Tensor:
        """Log of the sum over all sequences of exp(score), (batch,)."""
        return _tensor(self._chain.log_partition)

    def marginals(self) -> Tensor:
        """Compute the probability of each label at each token, (time, batch, labels); 0 in padding."""
        return _tensor(self._chain.marginals())

    def path_logs(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute tables that give the exact probability of any part of a label sequence.

        The log-probability that tokens s to e (inclusive) jointly carry the labels of the given sequence is
        `first[s] + path[e] - path[s] + last[e]`.

        Args:
            labels: A label sequence for each sentence, (time, batch).

        Returns:
            first, path and last, each (time, batch).
        """
        fast = isinstance(self._chain.forward, np.ndarray)
        first, path, last = self._chain.path_logs(labels.numpy() if fast else labels)
        return _tensor(first), _tensor(path), _tensor(last)

    def wrong_entities(self, labels: Tensor, marks: chain.Marks) -> Tensor:
        """Compute the expected number of wrong and missed entities; see `chain.Posterior.wrong_entities`.

        Args:
            labels: A label sequence for each sentence, (time, batch).
            marks: Which entities a label sequence has, as arrays of numpy.

        Returns:
            What each token contributes, (time, batch).
        """
        if isinstance(self._chain.forward, np.ndarray):
            return _tensor(self._chain.wrong_entities(labels.numpy(), marks))
        tensors = chain.Marks(*(torch.from_numpy(each).to(labels.device) for each in marks))
        return _tensor(self._chain.wrong_entities(labels, tensors))


class Decoder(nn.Module):
    """What turns label scores into label sequences and their probabilities.

    Args:
        labels: Number of labels.
        constraints: What the scheme allows; None: everything.

    Attributes:
        allowed: The constraints.
        temperature: All scores are divided by it for probabilities; it changes no best sequence. ()
    """

    temperature: Tensor
    start_penalty: Tensor
    transitions_penalty: Tensor
    end_penalty: Tensor

    def __init__(self, labels: int, constraints: Constraints | None = None) -> None:
        super().__init__()
        self.allowed = constraints
        self.register_buffer("temperature", torch.ones(()))
        for name, shape in (("start", (labels,)), ("transitions", (labels, labels)), ("end", (labels,))):
            self.register_buffer(f"{name}_penalty", torch.zeros(shape), persistent=False)
        self._fill_penalties()

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the first weights from a generator, and set the temperature to 1."""
        with torch.no_grad():
            self.temperature.fill_(1.0)

    def scores(self, constrained: bool) -> chain.Scores:
        """Return the scores of start, transitions and end; constrained: `FORBIDDEN` added to invalid ones."""
        raise NotImplementedError

    def loss(
        self,
        emissions: Tensor,
        labels: Tensor,
        layout: Layout,
        weights: Tensor | None = None,
        sets: Tensor | None = None,
    ) -> Tensor:
        """Compute the negative log-likelihood of the labels, summed over the batch.

        Args:
            emissions: Scores of the labels, (time, batch, labels).
            labels: The right labels, (time, batch), -1 where unknown, -2 - n where it is one of `sets[n]`;
                anything in padding.
            layout: Which positions are tokens.
            weights: What each sentence counts in the sum, (batch,); None: 1.
            sets: Sets of labels, boolean (sets, labels).
        """
        raise NotImplementedError

    @torch.no_grad()
    def posterior(self, emissions: Tensor, layout: Layout) -> Posterior:
        """Compute the distribution over the allowed label sequences, at the model's temperature.

        Args:
            emissions: Scores of the labels, (time, batch, labels).
            layout: Which positions are tokens.
        """
        return Posterior(chain.infer(*self._scaled(emissions, self.temperature), _places(emissions, layout)))

    @torch.no_grad()
    def loss_at(
        self, temperature: float, emissions: Tensor, labels: Tensor, layout: Layout, sets: Tensor | None = None
    ) -> float:
        """Compute the negative log-likelihood under the constraints at a temperature, summed; see `loss`."""
        inputs = self._scaled(emissions, torch.tensor(temperature, dtype=torch.float64))
        gold, several = _gold(emissions, labels, sets)
        return float(chain.negative_log_likelihood(*inputs, gold, _places(emissions, layout), sets=several).value)

    @torch.no_grad()
    def best_labels(self, emissions: Tensor, layout: Layout) -> Tensor:
        """Find the most probable label sequences that the constraints allow, by Viterbi's algorithm.

        Args:
            emissions: Scores of the labels, (time, batch, labels).
            layout: Which positions are tokens.

        Returns:
            Labels, (time, batch); 0 in padding.
        """
        return viterbi(emissions, self.scores(constrained=True), layout)

    @torch.no_grad()
    def best_sequences(self, emissions: Tensor, layout: Layout, k: int) -> tuple[Tensor, Tensor]:
        """Find the k most probable label sequences that the constraints allow; arguments as for `best_labels`.

        Returns:
            Labels (time, batch, k), the most probable sequence first, and the probability of each, (batch, k);
            0 where a sentence has fewer than k.
        """
        scaled, scores = self._scaled(emissions, self.temperature)
        log_partition = _tensor(chain.infer(scaled, scores, _places(emissions, layout)).log_partition)
        labels, totals = nbest.best_sequences(_tensor(scaled), chain.Scores(*map(_tensor, scores)), layout, k)
        return labels, (totals - log_partition.unsqueeze(1)).clamp(max=0.0).exp()

    def _scaled(self, emissions: Tensor, temperature: Tensor) -> tuple[chain.Array, chain.Scores]:
        """Return emissions and constrained scores divided by a temperature, as `chain` takes them."""
        convert = _conversion(emissions)
        scale = 1.0 / convert(temperature)
        scores = (scale * convert(values) for values in self.scores(constrained=True))
        return scale * convert(emissions), chain.Scores(*scores)

    def _fill_penalties(self) -> None:
        for name in ("start", "transitions", "end") if self.allowed is not None else ():
            forbidden = torch.from_numpy(~getattr(self.allowed, name))
            penalty = getattr(self, f"{name}_penalty")
            penalty.copy_(torch.zeros(forbidden.shape, device="cpu").masked_fill_(forbidden, FORBIDDEN))

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        """Move or convert the module; `to_empty` leaves anything in buffers, and these are in no state dict."""
        result = super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        for name in ("start", "transitions", "end") if self.allowed is None else ():
            getattr(self, f"{name}_penalty").zero_()
        self._fill_penalties()
        return result


class ConditionalRandomField(Decoder):
    """A linear-chain CRF.

    Its parameters are those of `crf`, a `torchcrf.CRF`: `start_transitions` (labels,), `transitions` (from, to)
    and `end_transitions` (labels,).

    Args:
        labels: Number of labels.
        constraints: What the scheme allows; None: everything.
        always: Whether the constraints hold in the loss too, and not in decoding and posterior alone.
    """

    def __init__(self, labels: int, constraints: Constraints | None = None, *, always: bool = False) -> None:
        super().__init__(labels, constraints)
        self.always = always
        self.crf = uninitialized(torchcrf.CRF, labels)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights uniformly from -0.1 to 0.1, as pytorch-crf does."""
        super().initialize(generator)
        for parameter in self.crf.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)

    def scores(self, constrained: bool) -> chain.Scores:
        """Return the scores of start, transitions and end; constrained: `FORBIDDEN` added to invalid ones."""
        free = chain.Scores(self.crf.start_transitions, self.crf.transitions, self.crf.end_transitions)
        if not constrained or self.allowed is None:
            return free
        penalties = self.start_penalty, self.transitions_penalty, self.end_penalty
        return chain.Scores(*(score + penalty for score, penalty in zip(free, penalties, strict=True)))

    def loss(
        self,
        emissions: Tensor,
        labels: Tensor,
        layout: Layout,
        weights: Tensor | None = None,
        sets: Tensor | None = None,
    ) -> Tensor:
        """Compute the negative log-likelihood, summed (Ma & Hovy 2016, section 2.3); see `Decoder.loss`."""
        scores = self.scores(self.always)
        loss: Tensor = _NegativeLogLikelihood.apply(emissions, *scores, labels, layout, weights, sets)  # type: ignore[no-untyped-call]
        return loss


class Softmax(Decoder):
    """Each label scored by itself: the CRF whose transitions are fixed at 0.

    With constraints, the best sequence is the best of those that the scheme allows, at the speed of softmax in
    training (Lester et al. 2020).
    """

    def scores(self, constrained: bool) -> chain.Scores:
        """Return the scores of start, transitions and end: 0, or constrained `FORBIDDEN` where invalid."""
        penalties = chain.Scores(self.start_penalty, self.transitions_penalty, self.end_penalty)
        return penalties if constrained else chain.Scores(*map(torch.zeros_like, penalties))

    def loss(
        self,
        emissions: Tensor,
        labels: Tensor,
        layout: Layout,
        weights: Tensor | None = None,
        sets: Tensor | None = None,
    ) -> Tensor:
        """Compute the cross-entropy of the labels, summed over the batch; arguments as for the CRF."""
        known = torch.where(layout.mask, labels, -1)
        if sets is None:
            how = "sum" if weights is None else "none"
            loss = nn.functional.cross_entropy(
                emissions.flatten(0, 1), known.flatten(), reduction=how, ignore_index=-1
            )
            return loss if weights is None else (loss.view(labels.shape) * weights).sum()
        allowed = emissions.masked_fill(chain.ruled_out(known, sets, emissions.shape[-1]), -torch.inf)
        losses = torch.where(layout.mask, emissions.logsumexp(-1) - allowed.logsumexp(-1), 0.0)
        return (losses if weights is None else losses * weights).sum()

    @torch.no_grad()
    def best_labels(self, emissions: Tensor, layout: Layout) -> Tensor:
        """Find the most probable labels; arguments and result as for the CRF."""
        if self.allowed is None:
            return emissions.argmax(-1) * layout.mask
        return super().best_labels(emissions, layout)


def build_decoder(config: Any, labels: int, constraints: Constraints | None) -> Decoder:
    """Build the decoder that a config's `model.decoder` asks for; `Decoder.initialize` draws its weights.

    Args:
        config: A `CRFConfig` or a `SoftmaxConfig`.
        labels: Number of labels.
        constraints: What the label scheme allows; None: everything.
    """
    if config.kind == "crf":
        allowed = None if config.constraints == "none" else constraints
        return ConditionalRandomField(labels, allowed, always=config.constraints == "always")
    return Softmax(labels, constraints if config.kind == "constrained" else None)


class _NegativeLogLikelihood(torch.autograd.Function):
    """The likelihood of `chain`, with its gradient, as a node of torch's graph."""

    @staticmethod
    def forward(
        ctx: Any,
        emissions: Tensor,
        start: Tensor,
        transitions: Tensor,
        end: Tensor,
        labels: Tensor,
        layout: Layout,
        weights: Tensor | None,
        sets: Tensor | None,
    ) -> Tensor:
        convert = _conversion(emissions)
        scores = chain.Scores(convert(start), convert(transitions), convert(end))
        gold, several = _gold(emissions, labels, sets)
        places, shares = _places(emissions, layout), None if weights is None else convert(weights)
        # Weights of a training that diverges are infinite here; the gradient, not finite then, ends it.
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            result = chain.negative_log_likelihood(convert(emissions), scores, gold, places, shares, several)
        ctx.gradients = [_tensor(values).to(emissions.dtype) for values in (result.emissions, *result.scores)]
        return torch.as_tensor(result.value).to(emissions.dtype)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * scale for gradient in ctx.gradients), None, None, None, None


def viterbi(emissions: Tensor, scores: chain.Scores, layout: Layout) -> Tensor:
    """Find the best label sequence of each sentence, (time, batch); 0 in padding."""
    time, batch, size = emissions.shape
    into = scores.transitions.T.contiguous()  # (to, from): the reduction below runs over the last dimension
    best = emissions[0] + scores.start
    came_from = torch.empty(time, batch, size, dtype=torch.long, device=emissions.device)
    for t in range(1, time):
        score, came_from[t] = (best.unsqueeze(1) + into).max(-1)  # (batch, to)
        score = score + emissions[t]
        # The best stays at 0, or a long sentence would leave no digits for the differences.
        score -= score.amax(-1, keepdim=True)
        best = torch.where(layout.mask[t].unsqueeze(-1), score, best) if layout.ragged else score
    label = (best + scores.end).argmax(-1)  # (batch,), of the last token
    labels = torch.empty(time, batch, dtype=torch.long, device=emissions.device)
    labels[time - 1] = label
    for t in range(time - 1, 0, -1):
        previous = came_from[t].gather(-1, label.unsqueeze(-1)).squeeze(-1)
        label = torch.where(layout.mask[t], previous, label) if layout.ragged else previous
        labels[t - 1] = label
    return labels * layout.mask


def _is_fast(emissions: Tensor) -> bool:
    """Return whether numpy can read these: plain numbers in memory, not on another device, and not fake."""
    return type(emissions) in (Tensor, nn.Parameter) and emissions.device.type == "cpu"


def _conversion(emissions: Tensor) -> Callable[[Tensor], chain.Array]:
    """Return what turns tensors into the arrays that inference over these emissions takes."""
    if _is_fast(emissions):
        return lambda values: values.detach().numpy().astype(np.float64)
    device = emissions.device
    precision = torch.float32 if device.type == "mps" else torch.float64  # which mps does not have
    return lambda values: values.detach().to(device, precision)


def _gold(emissions: Tensor, labels: Tensor, sets: Tensor | None) -> tuple[chain.Array, chain.Array | None]:
    """Return labels and sets of labels as inference over these emissions takes them."""
    if _is_fast(emissions):
        return labels.numpy(), None if sets is None else sets.numpy()
    return labels, sets


def _places(emissions: Tensor, layout: Layout) -> chain.Places:
    return chain.Places.arrays(layout) if _is_fast(emissions) else chain.Places.tensors(layout)


def _tensor(values: chain.Array) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
