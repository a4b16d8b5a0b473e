"""Exact inference in a linear chain (Lafferty et al. 2001), for arrays of numpy and tensors of torch alike.

A sentence is some fifteen steps over tables of a few hundred numbers, each step waiting for the one before: the
cost is that of calling, and numpy calls are several times cheaper than torch's. So the CPU gets numpy, and any
other device torch: the functions used here have the same names and arguments in both, and nothing asks a tensor
for its values. Both messages are computed in one loop, because the backward message is the forward message of
the reversed sentence under transposed transitions.

Everything is time-major, in double precision where the device has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from nertool.model.batch import Layout

Array = Any  # a numpy array, or a tensor of torch

_RULED_OUT = -1e30  # emission score of a label that a token is known not to have


class Scores(NamedTuple):
    """What a label sequence scores besides its emissions.

    Attributes:
        start: Of the first label, (labels,).
        transitions: Of a label after another, (from, to).
        end: Of the last label, (labels,).
    """

    start: Array
    transitions: Array
    end: Array


class Marks(NamedTuple):
    """How labels mark entities.

    Attributes:
        start: Whether a label begins an entity at the start of a sentence, boolean (labels,).
        begins: Whether a label begins an entity after another, boolean (from, to).
        same: Whether two labels mark tokens of entities of one type, boolean (labels, labels); False for O.
    """

    start: Array
    begins: Array
    same: Array


class Places(NamedTuple):
    """A `Layout` in arrays of the kind that the scores have.

    Attributes:
        mask: Boolean (time, batch), a prefix of True in each column, at least one long.
        order: Time indices that reverse each sentence within its own length, (time, batch); None without padding.
        last: Time index of each sentence's last token, (batch,).
        column: Index of each sentence, (batch,).
    """

    mask: Array
    order: Array | None
    last: Array
    column: Array

    @classmethod
    def of(cls, lengths: np.ndarray) -> Places:
        """Return the places of sentences of these lengths, (batch,), as arrays of numpy."""
        longest = int(lengths.max())
        steps = np.arange(longest)[:, None]
        mask = steps < lengths
        order = None if int(lengths.min()) == longest else np.where(mask, lengths - 1 - steps, steps)
        return cls(mask, order, lengths - 1, np.arange(len(lengths)))

    @classmethod
    def tensors(cls, layout: Layout) -> Places:
        """Return the places of a layout as tensors, on its device."""
        import torch

        column = torch.arange(layout.mask.shape[1], device=layout.mask.device)
        return cls(layout.mask, layout.order, layout.lengths - 1, column)

    @classmethod
    def arrays(cls, layout: Layout) -> Places:
        """Return the places of a layout as arrays of numpy; it is on the CPU."""
        order = None if layout.order is None else layout.order.numpy()
        return cls(layout.mask.numpy(), order, layout.lengths.numpy() - 1, np.arange(layout.mask.shape[1]))

    def twice(self) -> Places:
        """Return the places of a batch that holds each sentence a second time, after all others."""
        xp = _namespace(self.column)
        order = None if self.order is None else xp.concatenate((self.order, self.order), axis=1)
        return Places(
            xp.concatenate((self.mask, self.mask), axis=1),
            order,
            xp.concatenate((self.last, self.last)),
            xp.concatenate((self.column, self.column + len(self.column))),
        )


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

    log_partition: Array
    forward: Array
    backward: Array
    log_transitions: Array
    log_step: Array
    mask: Array

    def marginals(self) -> Array:
        """Compute the probability of each label at each token, (time, batch, labels); 0 in padding."""
        with _unwarned():
            joint = self.forward * self.backward
            joint *= self.mask[..., None] / joint.sum(-1, keepdims=True)
        return joint

    def path_logs(self, labels: Array) -> tuple[Array, Array, Array]:
        """Compute tables that give the exact probability of any part of a label sequence.

        The log-probability that tokens s to e (inclusive) jointly carry the labels of the given sequence is
        `first[s] + path[e] - path[s] + last[e]`.

        Args:
            labels: A label sequence for each sentence, (time, batch).

        Returns:
            first, path and last, each (time, batch).
        """
        xp = _namespace(labels)
        time, size = len(labels), self.forward.shape[-1]
        token = _range(labels, labels.shape[0] * labels.shape[1])

        def pick(values: Array) -> Array:
            return values.reshape(-1, size)[token, labels.reshape(-1)].reshape(time, -1)

        gains = pick(self.log_step)
        gains[1:] += self.log_transitions[labels[:-1], labels[1:]]
        with _unwarned():  # a label that cannot be has probability 0
            first = xp.log(pick(self.forward))
            last = xp.log(pick(self.backward)) - xp.log((self.forward * self.backward).sum(-1))
        return first, gains.cumsum(0), last

    def wrong_entities(self, labels: Array, marks: Marks) -> Array:
        """Compute how many entities of a label sequence are expected to be wrong, and how many to be missed.

        With the entities E of the sequence, and Y those of a sequence drawn from the distribution, this is the
        expected size of their symmetric difference, |E| + E|Y| - 2 sum of P(e in Y) over e in E, exactly.

        Args:
            labels: A label sequence for each sentence, (time, batch).
            marks: Which entities a label sequence has.

        Returns:
            What the entities that begin at each token contribute to the expected number, (time, batch); 0 in
            padding.
        """
        with _unwarned():
            return self._wrong_entities(labels, marks)

    def _wrong_entities(self, labels: Array, marks: Marks) -> Array:
        xp = _namespace(self.forward)
        mask, time = self.mask, len(labels)
        start, begins, same = (xp.where(each, 1.0, 0.0) for each in marks)
        begins, same, start = (_like(each, self.forward) for each in (begins, same, start))
        inside = xp.diagonal(same)  # (labels,)
        top = self.log_transitions.max()
        steps = xp.exp(self.log_transitions - top)
        potentials = xp.exp(self.log_step + top)
        # Scaled so that its product with the forward message is the marginal.
        backward = self.backward / (self.forward * self.backward).sum(-1, keepdims=True)
        after = potentials * backward  # (time, batch, labels)
        # Forward messages of the label sequences in which an entity begins at the token.
        beginning = xp.concatenate(
            ((self.forward[0] * start)[None], (self.forward[:-1] @ (steps * begins)) * potentials[1:])
        )
        # The same of the given sequence: which entities it has.
        into = marks.begins[labels[:-1], labels[1:]]
        here = xp.concatenate((marks.start[labels[0]][None], into)) & mask
        goes_on = (inside[labels[1:]] > 0) & ~here[1:] & mask[1:]  # whether the entity has the next token too
        kin = same[labels]  # (time, batch, labels): the labels that its entity may have at the token
        continues = steps * inside * (1.0 - begins)  # (from, to)
        # The sequences in which the entity of the token ends with it.
        ended = backward + 0.0
        ended[:-1] -= xp.where(mask[1:, :, None], after[1:] @ continues.T, 0.0)
        # From the last token backwards: the sequences that go on from a label as the entity of the token does.
        rest = ended[-1] * kin[-1]
        chances = xp.zeros_like(self.forward[..., 0])
        chances[-1] = (beginning[-1] * rest).sum(-1)
        for t in range(time - 2, -1, -1):
            within = (potentials[t + 1] * rest) @ continues.T
            rest = xp.where(goes_on[t, :, None], within, ended[t]) * kin[t]
            chances[t] = (beginning[t] * rest).sum(-1)
        expected = (beginning * backward).sum(-1)
        result = expected + xp.where(here, 1.0 - 2.0 * chances.clip(0.0, 1.0), 0.0)
        return xp.where(mask, result.clip(0.0), 0.0)


def infer(emissions: Array, scores: Scores, places: Places) -> Posterior:
    """Run forward-backward.

    Args:
        emissions: (time, batch, labels), floating.
        scores: Of start, transitions and end.
        places: Which positions are tokens.
    """
    with _unwarned():
        return _infer(emissions, scores, places)


def _unwarned() -> np.errstate:
    """Keep numpy from printing warnings about scores beyond all bounds; whoever needs numbers looks at them."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")


def _infer(emissions: Array, scores: Scores, places: Places) -> Posterior:
    xp = _namespace(emissions)
    time = len(emissions)
    mask, order = places.mask, places.order
    if order is not None:
        emissions = xp.where(mask[..., None], emissions, 0.0)
    # Every factor is shifted before exp() so that its greatest potential is 1. What is far below the best, near
    # the smallest number there is, stands for all that is less: 0 would leave sentences without a path where
    # the others are forbidden.
    top = xp.amax(emissions, axis=-1, keepdims=True)
    emissions = xp.maximum(emissions, top + _floor(emissions))
    potentials = xp.exp(emissions - top)
    potentials = xp.stack((potentials, _reverse(potentials, places)), axis=1)  # (time, direction, batch, labels)
    top_transition = scores.transitions.max()
    steps = xp.exp(scores.transitions - top_transition)
    steps = xp.stack((steps, steps.T))
    boundaries = xp.stack((scores.start, scores.end))
    top_boundary = xp.amax(boundaries, axis=-1, keepdims=True)

    before = xp.empty_like(potentials)  # messages without their own token's potential
    after = xp.empty_like(potentials)
    scales = xp.empty_like(potentials[..., :1])
    sum_up = xp.ones_like(steps[0, :, :1])  # a product with it is a cheaper sum than a reduction
    before[0] = xp.exp(boundaries - top_boundary)[:, None]
    for t in range(time):
        if t:
            xp.matmul(after[t - 1], steps, out=before[t])
        xp.multiply(before[t], potentials[t], out=after[t])
        xp.matmul(after[t], sum_up, out=scales[t])
        xp.divide(after[t], scales[t], out=after[t])

    log_scales = xp.log(scales[:, 0]) + top  # (time, batch, 1)
    log_scales[0] += top_boundary[0]
    log_scales[1:] += top_transition
    forward, backward = after[:, 0], _reverse(before[:, 1], places)
    if order is not None:
        # In padding no transition may be allowed, and messages of nothing are not numbers.
        token = mask[..., None]
        forward, backward = xp.where(token, forward, 1.0), xp.where(token, backward, 1.0)
        log_scales = xp.where(token, log_scales, 0.0)
    ends = forward[places.last, places.column] @ xp.exp(scores.end - top_boundary[1])
    log_partition = log_scales[..., 0].sum(0) + xp.log(ends) + top_boundary[1]
    return Posterior(log_partition, forward, backward, scores.transitions, emissions - log_scales, mask)


class Likelihood(NamedTuple):
    """Negative log-likelihood of label sequences, summed over a batch, and its exact gradient.

    Attributes:
        value: A number, or a tensor ().
        emissions: Gradient, (time, batch, labels).
        scores: Gradient of start, transitions and end.
    """

    value: Array
    emissions: Array
    scores: Scores


def negative_log_likelihood(
    emissions: Array,
    scores: Scores,
    labels: Array,
    places: Places,
    weights: Array | None = None,
    sets: Array | None = None,
) -> Likelihood:
    """Compute log Z - score(labels) and its gradient, expected less observed counts (Lafferty et al. 2001, eq. 3).

    Tokens whose label is not known, or known to be one of several, are marginalized over: instead of one
    sequence's score there is log Z over all sequences that the labels allow, and expected counts under these
    instead of observed ones (Tsuboi et al. 2008, eq. 2).

    Args:
        emissions: (time, batch, labels), floating.
        scores: Of start, transitions and end.
        labels: The right labels, (time, batch), -1 where unknown, -2 - n where it is one of `sets[n]`; anything in
            padding.
        places: Which positions are tokens.
        weights: What each sentence's likelihood counts in the sum, (batch,); None: 1.
        sets: Sets of labels, boolean (sets, labels).
    """
    xp = _namespace(emissions)
    labels = xp.where(places.mask, labels, 0)
    # Whether all labels are known is cheap to ask an array; a tensor's device would have to be waited for.
    if xp is np and labels.min() >= 0:
        posterior = infer(emissions, scores, places)
        gradient = posterior.marginals()
        log_partition, observed = posterior.log_partition, places.mask
        if weights is not None:
            # Every count, expected or observed, is one of a sentence, and linear in its weight.
            gradient *= weights[:, None]
            log_partition, observed = weights * log_partition, weights * observed
        known, transitions = _observe(emissions, scores, labels, places, weights)
        value = log_partition.sum() - known
        transitions = _expect_transitions(posterior.forward, gradient, scores) - transitions
        gradient[_range(labels, len(labels))[:, None], places.column, labels] -= observed
    else:
        value, gradient, transitions = _marginalize(emissions, scores, labels, places, weights, sets)
    # The gradient at the boundaries is that of the emission there.
    start, end = gradient[0].sum(0), gradient[places.last, places.column].sum(0)
    return Likelihood(value, gradient, Scores(start, transitions, end))


def ruled_out(labels: Array, sets: Array | None, size: int) -> Array:
    """Say which labels a token cannot have, boolean (time, batch, size); see `negative_log_likelihood`."""
    labels = labels[..., None]
    result = (labels >= 0) & (labels != _range(labels, size))
    if sets is not None:
        result |= (labels < -1) & ~sets[(-2 - labels[..., 0]).clip(0)]
    return result


def _marginalize(
    emissions: Array,
    scores: Scores,
    labels: Array,
    places: Places,
    weights: Array | None,
    sets: Array | None,
) -> tuple[Array, Array, Array]:
    """Compute value and gradients (emissions, transitions) where labels may be unknown."""
    xp = _namespace(emissions)
    batch = len(places.column)
    # One run over both: all sequences, and after them those that the labels allow, which count negatively.
    allowed = xp.where(ruled_out(labels, sets, emissions.shape[-1]), _RULED_OUT, emissions)
    both = xp.concatenate((emissions, allowed), axis=1)
    posterior = infer(both, scores, places.twice())
    marginals = posterior.marginals()
    differences = posterior.log_partition[:batch] - posterior.log_partition[batch:]
    marginals[:, batch:] *= -1.0
    if weights is not None:
        marginals *= xp.concatenate((weights, weights))[:, None]
        differences = weights * differences
    value = differences.sum()
    transitions = _expect_transitions(posterior.forward, marginals, scores)
    return value, marginals[:, :batch] + marginals[:, batch:], transitions


def _expect_transitions(forward: Array, marginals: Array, scores: Scores) -> Array:
    """Compute the expected number of each transition, (from, to), from forward messages and marginals."""
    size = forward.shape[-1]
    # The sum over tokens of forward[t - 1] x (potential * backward)[t], each such table scaled to sum to 1. The
    # second factor is the marginal less what arrives from t - 1.
    steps = _namespace(forward).exp(scores.transitions - scores.transitions.max())
    leaving = forward[:-1].reshape(-1, size)
    arriving = marginals[1:].reshape(-1, size) / (leaving @ steps).clip(_tiny(forward))
    return (leaving.T @ arriving) * steps


def _observe(
    emissions: np.ndarray, scores: Scores, labels: np.ndarray, places: Places, weights: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """Compute the score of the labels summed over the batch, and the number of each transition in them."""
    size = emissions.shape[-1]
    inner = places.mask[1:]
    pairs = (labels[:-1] * size + labels[1:])[inner]
    each = None if weights is None else np.broadcast_to(weights, inner.shape)[inner]
    transitions = np.bincount(pairs, each, size * size).reshape(size, size).astype(emissions.dtype)
    last = labels[places.last, places.column]
    mask = places.mask if weights is None else places.mask * weights
    score = (np.take_along_axis(emissions, labels[..., None], -1)[..., 0] * mask).sum()
    boundaries = scores.start[labels[0]] + scores.end[last]
    if weights is not None:
        boundaries = weights * boundaries
    score += (transitions * scores.transitions).sum() + boundaries.sum()
    return float(score), transitions


def _reverse(values: Array, places: Places) -> Array:
    if places.order is not None:
        return values[places.order, places.column]
    return values[::-1] if isinstance(values, np.ndarray) else values.flip(0)


def _namespace(values: Array) -> Any:
    if isinstance(values, np.ndarray):
        return np
    import torch

    return torch


def _like(values: Array, other: Array) -> Array:
    """Return values with the precision of others."""
    return values.astype(other.dtype) if isinstance(values, np.ndarray) else values.to(other.dtype)


def _range(like: Array, count: int) -> Array:
    return np.arange(count) if isinstance(like, np.ndarray) else _namespace(like).arange(count, device=like.device)


def _tiny(like: Array) -> float:
    """Return a divisor that stands for 0."""
    return 1e-300 if like.dtype == _namespace(like).float64 else 1e-37


def _floor(like: Array) -> float:
    """Return how far below the best a score counts."""
    return -600.0 if like.dtype == _namespace(like).float64 else -75.0
