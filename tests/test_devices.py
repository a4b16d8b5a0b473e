"""Devices: training and tagging on a device that is not the CPU, with tensors that have shapes but no values.

There is no such device on most machines, so the device is `meta`. A dispatch mode refuses any operation on tensors
of two devices, as a graphics card would, and the device refuses any operation that waits for values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import LABELS, PHRASES, encoded, small_config, small_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nertool.data.encoding import EncodedCorpus
from nertool.model.batch import Batch
from nertool.model.model import Model

MOVES = {"aten::_to_copy", "aten::copy_"}

# Name: inputs, and settings of the model.
NETWORKS: dict[str, tuple[dict, dict]] = {
    "default": ({"words": {"dropout": 0.2}}, {"dropout": 0.5}),
    "all kinds of inputs": (
        {
            "characters": {"network": "gru", "dropout": 0.1},
            "case": {},
            "tags": {"kind": "column", "column": "pos", "dropout": 0.5},
            "places": {"kind": "gazetteer", "files": "phrases.txt", "dropout": 0.5},
        },
        {"encoder": {"layers": 2}, "locked_dropout": True, "dropout": 0.3},
    ),
    "convolutions, attention, softmax": (
        {"words": {"trainable": False}},
        {
            "encoder": {"kind": "cnn", "layers": 2},
            "attention": {"kind": "multi_head", "heads": 2},
            "decoder": "softmax",
        },
    ),
    "additive attention, constrained": (
        {"characters": None},
        {"encoder": {"kind": "gru"}, "attention": {"kind": "additive"}, "decoder": "constrained"},
    ),
    "crf, always constrained": ({}, {"decoder": {"kind": "crf", "constraints": "always"}}),
}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices; numbers, which have no dimension, may be anywhere."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.dim()]
        devices = {each.device.type for each in tensors}
        if len(devices) > 1 and function._schema.name not in MOVES:
            raise AssertionError(f"{function} gets tensors of {devices}")
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=NETWORKS)
def model(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> Model:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phrases.txt").write_text(PHRASES)
    inputs, settings = NETWORKS[request.param]
    return small_model(small_config(inputs, **settings))


def batch_of(corpus: EncodedCorpus) -> Batch:
    return Batch.of(corpus.batch(np.arange(len(corpus))), "meta")


LENGTHS = pytest.mark.parametrize("lengths", [[5, 3, 1], [4, 4]], ids=["ragged", "equal"])


@LENGTHS
def test_a_training_step(model, lengths):
    corpus = encoded(model, lengths)
    network = model.network.to("meta").train()
    with OneDevice():
        loss = network.loss(batch_of(corpus))
        loss.backward()
    assert loss.is_meta
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.device.type == "meta", name


@LENGTHS
def test_tagging(model, lengths):
    corpus = encoded(model, lengths)
    network = model.network.to("meta").eval()
    time, sentences = max(lengths), len(lengths)
    with OneDevice(), torch.inference_mode():
        batch = batch_of(corpus)
        vectors = network.form_vectors(batch.form_features)
        scores = network.encode(network.inputs_of(vectors, batch.forms, batch.token_features), batch.layout)
        best = network.decoder.best_labels(scores, batch.layout)
        posterior = network.decoder.posterior(scores, batch.layout)
        results = [best, posterior.marginals(), *posterior.path_logs(best)]
        results += network.decoder.best_sequences(scores, batch.layout, 3)
        if network.attention is not None:
            network.attention.weights(
                network.encoder(network.inputs_of(vectors, batch.forms, {}), batch.layout), batch.layout
            )
    assert all(each.is_meta for each in results)
    size = (time, sentences)
    shapes = [size, (*size, len(LABELS)), size, size, size, (*size, 3), (sentences, 3)]
    assert [tuple(each.shape) for each in results] == shapes


def test_the_check_finds_a_mix():
    with pytest.raises(AssertionError, match="tensors of"), OneDevice():
        torch.zeros(3, device="meta") + torch.zeros(3)
