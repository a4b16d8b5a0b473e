"""The k best label sequences, against the enumeration of all."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.model.chain import Scores, infer
from nertool.model.crf import FORBIDDEN
from nertool.model.nbest import best_sequences


def score(emissions: np.ndarray, scores: Scores, labels: tuple[int, ...]) -> float:
    steps = sum(scores.transitions[a, b] for a, b in pairwise(labels))
    own = sum(emissions[t, label] for t, label in enumerate(labels))
    return float(own + steps + scores.start[labels[0]] + scores.end[labels[-1]])


@given(st.data())
def test_they_are_the_first_of_all_sequences_in_order_of_score(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    size, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    mask = np.arange(max(lengths))[:, None] < np.array(lengths)
    emissions = random.normal(0, 3, (*mask.shape, size))
    scores = Scores(random.normal(size=size), random.normal(size=(size, size)), random.normal(size=size))
    for table in (scores.start, scores.transitions, scores.end):
        table[random.random(table.shape) < data.draw(st.sampled_from([0.0, 0.4]))] = FORBIDDEN
    found = best_sequences(emissions, scores, mask, k)
    with np.errstate(all="ignore"):  # a sentence may have no possible sequence at all
        log_partition = infer(emissions, scores, mask).log_partition
    for sentence, length in enumerate(lengths):
        own = emissions[:length, sentence]
        every = sorted(
            ((score(own, scores, each), each) for each in product(range(size), repeat=length)), reverse=True
        )
        possible = [(value, each) for value, each in every if value > FORBIDDEN / 2]
        wanted = possible[:k]
        totals = found.scores[sentence]
        assert np.isneginf(totals[len(wanted) :]).all()
        np.testing.assert_allclose(totals[: len(wanted)], [value for value, _ in wanted], atol=1e-9)
        for place, (_, labels) in enumerate(wanted):
            assert tuple(found.labels[:length, sentence, place]) == labels
        if possible:
            probabilities = np.exp(totals[: len(wanted)] - log_partition[sentence])
            total = np.exp([value - possible[0][0] for value, _ in possible]).sum()
            np.testing.assert_allclose(
                probabilities, [np.exp(value - possible[0][0]) / total for value, _ in wanted], rtol=1e-6
            )
        assert not found.labels[length:, sentence].any()


@pytest.mark.parametrize("k", [1, 5])
def test_the_best_is_viterbis(k):
    import torch

    from nertool.model.crf import _viterbi

    random = np.random.default_rng(1)
    mask = np.arange(30)[:, None] < np.array([30, 12, 1])
    emissions = random.normal(size=(30, 3, 17))
    scores = Scores(random.normal(size=17), random.normal(size=(17, 17)), random.normal(size=17))
    wanted = _viterbi(
        *map(torch.from_numpy, (emissions, scores.start, scores.transitions, scores.end)), torch.from_numpy(mask)
    )
    assert (best_sequences(emissions, scores, mask, k).labels[..., 0] == wanted.numpy()).all()
