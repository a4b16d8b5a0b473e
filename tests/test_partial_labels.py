"""The likelihood where some labels are not known, against the sum over all sequences that fit."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nertool.model.chain import Scores, negative_log_likelihood
from nertool.model.crf import ConditionalRandomField, Softmax


def by_enumeration(emissions: torch.Tensor, crf: ConditionalRandomField, labels: np.ndarray, mask: np.ndarray):
    """The loss by the book, differentiable."""
    loss = torch.zeros((), dtype=torch.float64)
    for sentence, length in enumerate(mask.sum(0)):
        every, fitting = [], []
        for path in product(range(crf.num_tags), repeat=int(length)):
            score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
            score = score + sum(emissions[t, sentence, label] for t, label in enumerate(path))
            score = score + sum(crf.transitions[a, b] for a, b in pairwise(path))
            every.append(score)
            if all(wanted in (-1, label) for wanted, label in zip(labels[:length, sentence], path, strict=True)):
                fitting.append(score)
        loss = loss + torch.stack(every).logsumexp(0) - torch.stack(fitting).logsumexp(0)
    return loss


@given(st.data())
def test_loss_and_gradient_are_those_of_the_enumeration(data):
    torch.manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    size = data.draw(st.integers(1, 3))
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    mask = np.arange(max(lengths))[:, None] < np.array(lengths)
    labels = np.array(
        data.draw(st.lists(st.integers(-1, size - 1), min_size=mask.size, max_size=mask.size))
    ).reshape(mask.shape)
    crf = ConditionalRandomField(size).double()
    torch.nn.init.normal_(crf.transitions)
    emissions = (2 * torch.randn(*mask.shape, size, dtype=torch.float64)).requires_grad_()
    sources = [emissions, *crf.parameters()]
    wanted = by_enumeration(emissions, crf, labels, mask)
    found = crf.loss(emissions, torch.from_numpy(labels), torch.from_numpy(mask))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(found, sources, allow_unused=True),
        tuple(
            torch.zeros_like(source) if part is None else part
            for source, part in zip(sources, torch.autograd.grad(wanted, sources, allow_unused=True), strict=True)
        ),
        rtol=1e-7,
        atol=1e-9,
    )


def test_a_sentence_without_any_label_costs_nothing():
    random = np.random.default_rng(1)
    scores = Scores(random.normal(size=5), random.normal(size=(5, 5)), random.normal(size=5))
    mask = np.ones((6, 2), dtype=bool)
    found = negative_log_likelihood(random.normal(size=(6, 2, 5)), scores, np.full((6, 2), -1), mask)
    assert found.value == pytest.approx(0.0, abs=1e-9)
    for gradient in (found.emissions, found.scores.start, found.scores.transitions, found.scores.end):
        np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


def test_softmax_leaves_tokens_without_a_label_out():
    torch.manual_seed(1)
    emissions, mask = torch.randn(3, 1, 4), torch.ones(3, 1, dtype=torch.bool)
    labels = torch.tensor([[2], [-1], [0]])
    wanted = -(emissions[0, 0].log_softmax(0)[2] + emissions[2, 0].log_softmax(0)[0])
    torch.testing.assert_close(Softmax(4).loss(emissions, labels, mask), wanted)
