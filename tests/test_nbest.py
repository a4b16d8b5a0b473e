"""The k best label sequences, against the enumeration of all."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nertool.model.batch import Layout
from nertool.model.chain import Scores
from nertool.model.crf import FORBIDDEN, viterbi
from nertool.model.nbest import best_sequences


def score(emissions: Tensor, scores: Scores, labels: tuple[int, ...]) -> float:
    steps = sum(float(scores.transitions[a, b]) for a, b in pairwise(labels))
    own = sum(float(emissions[t, label]) for t, label in enumerate(labels))
    return own + steps + float(scores.start[labels[0]] + scores.end[labels[-1]])


@given(st.data())
def test_they_are_the_first_of_all_sequences_in_order_of_score(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    size, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    emissions = torch.from_numpy(random.normal(0, 3, (max(lengths), len(lengths), size)))
    tables = [random.normal(size=size), random.normal(size=(size, size)), random.normal(size=size)]
    for table in tables:
        table[random.random(table.shape) < data.draw(st.sampled_from([0.0, 0.4]))] = FORBIDDEN
    scores = Scores(*map(torch.from_numpy, tables))
    labels, totals = best_sequences(emissions, scores, Layout.of(np.array(lengths)), k)
    for sentence, length in enumerate(lengths):
        own = emissions[:length, sentence]
        every = sorted(
            ((score(own, scores, each), each) for each in product(range(size), repeat=length)), reverse=True
        )
        wanted = [(value, each) for value, each in every if value > FORBIDDEN / 2][:k]
        assert totals[sentence, len(wanted) :].isneginf().all()
        for rank, (value, each) in enumerate(wanted):
            assert float(totals[sentence, rank]) == pytest.approx(value, abs=1e-9)
            assert tuple(labels[:length, sentence, rank].tolist()) == each
        assert not labels[:, sentence, len(wanted) :].any()
        assert not labels[length:, sentence].any()


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("lengths", [[30, 12, 1], [30, 30, 30]])
def test_the_best_is_viterbis(k, lengths):
    random = torch.Generator().manual_seed(1)
    emissions = torch.randn(30, 3, 17, generator=random)
    scores = Scores(*(torch.randn(shape, generator=random) for shape in ((17,), (17, 17), (17,))))
    layout = Layout.of(np.array(lengths))
    assert torch.equal(
        best_sequences(emissions, scores, layout, k).labels[..., 0], viterbi(emissions, scores, layout)
    )
