"""The scoring part of a network as a program of `torch.export`: any number of forms, sentences and tokens."""

from __future__ import annotations

import io

import pytest
import torch
from networks import PHRASES, encoded, small_config, small_model, whole

from nertool.model.scoring import export_scorer, scorer_inputs

# Name: inputs, and settings of the model.
NETWORKS: dict[str, tuple[dict, dict]] = {
    "default": ({}, {}),
    "characters by lstm, gru of two layers": (
        {"characters": {"network": "lstm"}, "case": {}},
        {"encoder": {"kind": "gru", "layers": 2}},
    ),
    "characters by gru, rnn in one direction": (
        {"characters": {"network": "gru"}},
        {"encoder": {"kind": "rnn", "bidirectional": False}, "attention": {"kind": "additive"}},
    ),
    "convolutions with attention": (
        {"characters": {"width": 5}},
        {"encoder": {"kind": "cnn", "layers": 2}, "attention": {"kind": "multi_head", "heads": 2}},
    ),
    "features of tokens": (
        {
            "tags": {"kind": "column", "column": "pos", "dropout": 0.5},
            "places": {"kind": "gazetteer", "files": "phrases.txt"},
        },
        {"attention": {"kind": "scaled_dot"}, "decoder": "softmax"},
    ),
    "a column alone, no encoder": (
        {"words": None, "characters": None, "tags": {"kind": "column", "column": "pos"}},
        {"encoder": {"kind": "none"}, "attention": {"kind": "dot"}},
    ),
}


QUICK = ("default", "a column alone, no encoder")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NETWORKS]
)
def test_the_program_gives_the_network_s_scores_for_other_shapes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phrases.txt").write_text(PHRASES)
    inputs, settings = NETWORKS[name]
    model = small_model(small_config(inputs, **settings))
    program = export_scorer(model.network, whole(encoded(model, [4, 2, 3])))
    if name == "default":
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        program = torch.export.load(file)
    run = program.module()
    for lengths in ([9, 9, 3, 1, 5, 7], [2, 1], [6], [1], [30, 30]):
        batch = whole(encoded(model, lengths, seed=sum(lengths)))
        with torch.no_grad():
            wanted = model.network.eval()(batch)
            scores = run(*scorer_inputs(batch))
        inside = batch.layout.mask
        torch.testing.assert_close(scores[inside], wanted[inside], rtol=0, atol=1e-5)
