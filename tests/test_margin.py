"""Softmax-margin against an enumeration of all label sequences."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from networks import small_config

from nertool.errors import ConfigError
from nertool.model.batch import Layout
from nertool.model.crf import ConditionalRandomField, Decoder, Softmax
from nertool.model.margin import Margin
from nertool.tagging.bundle import load_bundle
from nertool.training.preparation import prepare
from nertool.training.run import run
from nertool.training.step import margin_of

COST, OUTSIDE, LENGTHS, LABELS = 1.7, 1, [3, 1, 2], 3
# Labels that a token may have: one of them, two of which one is O, two entities, and any.
SETS = [[True, True, False], [True, False, True]]
GOLD = [[[0], [1], [0]], [[2]], [[1], [2]]]
PARTIAL = [[[0], [0, 1, 2], [0, 2]], [[0, 1]], [[1], [2]]]


def coded(gold: list[list[list[int]]]) -> torch.Tensor:
    codes = torch.full((max(LENGTHS), len(LENGTHS)), 2)  # in padding an entity, to no effect
    for sentence, row in enumerate(gold):
        for t, may in enumerate(row):
            mask = [label in may for label in range(LABELS)]
            codes[t, sentence] = may[0] if len(may) == 1 else -1 if len(may) == LABELS else -2 - SETS.index(mask)
    return codes


def enumerated(decoder: Decoder, emissions: torch.Tensor, gold: Any) -> torch.Tensor:
    start, transitions, end = decoder.scores(constrained=False)
    total = torch.zeros((), dtype=torch.float64)
    for sentence, row in enumerate(gold):
        all_scores, right_scores = [], []
        for path in product(range(LABELS), repeat=len(row)):
            score = start[path[0]] + end[path[-1]]
            score = score + sum(emissions[t, sentence, label] for t, label in enumerate(path))
            score = score + sum(transitions[a, b] for a, b in pairwise(path))
            cost = sum(COST for label, may in zip(path, row, strict=True) if label == 1 and 1 not in may)
            all_scores.append(score + cost)
            if all(label in may for label, may in zip(path, row, strict=True)):
                right_scores.append(score)
        total = total + torch.logsumexp(torch.stack(all_scores), 0) - torch.logsumexp(torch.stack(right_scores), 0)
    return total


@pytest.mark.parametrize("kind", [ConditionalRandomField, Softmax])
@pytest.mark.parametrize("gold", [GOLD, PARTIAL], ids=["labels", "partial"])
def test_loss_and_gradients_equal_those_of_an_enumeration(kind, gold):
    decoder = kind(LABELS)
    decoder.initialize(torch.Generator().manual_seed(1))
    shape = max(LENGTHS), len(LENGTHS), LABELS
    emissions = torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    codes, sets = coded(gold), torch.tensor(SETS) if gold is PARTIAL else None
    augmented = Margin(OUTSIDE, COST).add(emissions, codes, sets)
    loss = decoder.loss(augmented, codes, Layout.of(np.array(LENGTHS)), None, sets)
    leaves = [emissions, *decoder.parameters()]
    expected = enumerated(decoder, emissions, gold)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for mine, theirs in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_without_o_nothing_can_be_missed():
    training = small_config().training.model_copy(update={"missed_cost": 2.0})
    assert margin_of(training, ["B-PER", "O"]) == Margin(1, 2.0)
    assert margin_of(small_config().training, ["N", "V"]) is None
    with pytest.raises(ConfigError, match=r"training\.missed_cost: the labels have no O"):
        margin_of(training, ["N", "V"])


def test_a_cost_changes_training_and_0_changes_no_bit(tiny_config, tmp_path):
    weights = {}
    for name, options in {"none": [], "0": ["training.missed_cost=0"], "5": ["training.missed_cost=5"]}.items():
        folder = tmp_path / name
        list(run(tiny_config("training.epochs=3", *options), folder))
        weights[name] = (folder / "weights.safetensors").read_bytes()
        assert load_bundle(folder).config.training.missed_cost == float(name.replace("none", "0"))
    assert weights["none"] == weights["0"] != weights["5"]


def test_it_is_refused_before_anything_is_written(tiny_config, tiny_yaml):
    for name in ("train", "validation", "test"):
        path = tiny_yaml.parent / f"{name}.txt"
        words = [line.split()[:1] for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(f"{word[0]} N\n" if word else "\n" for word in words), encoding="utf-8")
    with pytest.raises(ConfigError, match="the labels have no O"):
        prepare(tiny_config("training.missed_cost=1"))
