"""What `nertool look` shows is what the network computes: gates give its states, scores its paths."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from nertool.errors import NertoolError
from nertool.model.encoders.gates import trace
from nertool.model.encoders.recurrent import RecurrentEncoder
from nertool.tagging.inside import Inside, look_inside, path_score
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from tests.networks import CLOSE, layout_of, sentences, small_config, small_model

RECURRENT = {
    "LSTM": {"kind": "lstm"},
    "LSTM of two layers": {"kind": "lstm", "layers": 2},
    "GRU": {"kind": "gru"},
    "GRU in one direction": {"kind": "gru", "bidirectional": False, "layers": 2},
    "RNN": {"kind": "rnn"},
}


def states_of(own) -> np.ndarray:
    """Run through the tokens by the equations of Ma & Hovy's section 2.2, with the gates of a trace."""
    steps = range(len(own.states))
    states = np.zeros_like(own.states)
    state = memory = np.zeros(own.states.shape[1:])
    for step in reversed(steps) if own.backward else steps:
        gates = {name: gate[step] for name, gate in own.gates.items()}
        if own.kind == "lstm":
            memory = gates["forget"] * memory + gates["input"] * own.candidates[step]
            np.testing.assert_allclose(own.memory[step], memory, **CLOSE)
            state = gates["output"] * np.tanh(memory)
        else:
            state = (1 - gates["update"]) * own.candidates[step] + gates["update"] * state
        states[step] = state
    return states


@pytest.mark.parametrize("encoder", RECURRENT.values(), ids=RECURRENT)
def test_gates_give_the_states_of_the_encoder(encoder):
    network = small_model(small_config(encoder=encoder)).network.eval()
    assert isinstance(network.encoder, RecurrentEncoder)
    layout = layout_of(6, 1, 4)
    values = torch.randn(
        6, 3, network.encoder.layers[0][0].cell.input_size, generator=torch.Generator().manual_seed(3)
    )
    with torch.no_grad():
        expected = network.encoder(values, layout)
        traces = trace(network.encoder, values, layout)
        single = [
            trace(network.encoder, values[:length, [place]], layout_of(length))
            for place, length in enumerate((6, 1, 4))
        ]
    layers = encoder.get("layers", 1)
    directions = 2 if encoder.get("bidirectional", True) else 1
    assert [(own.layer, own.backward) for own in traces] == [
        (layer, bool(way)) for layer in range(1, layers + 1) for way in range(directions)
    ]
    last = torch.cat([own.states for own in traces if own.layer == layers], -1)
    inside = layout.mask.unsqueeze(-1)
    np.testing.assert_allclose(last * inside, expected * inside, **CLOSE)
    for place, length in enumerate((6, 1, 4)):  # whatever stands beside a sentence
        for own, alone in zip(traces, single[place], strict=True):
            assert own.kind == encoder["kind"]
            column = own.map(lambda values, column=place, end=length: values[:end, column].numpy())
            np.testing.assert_allclose(column.states, alone.states[:, 0], **CLOSE)
            for name, gate in column.gates.items():
                assert ((gate > 0) & (gate < 1)).all()
                np.testing.assert_allclose(gate, alone.gates[name][:, 0], **CLOSE)
            if own.kind == "rnn":
                assert not own.gates and own.memory is None and own.candidates is None
            else:
                np.testing.assert_allclose(states_of(column), column.states, **CLOSE)


def every_sequence(inside: Inside) -> dict[tuple[int, ...], float]:
    """The probability of each label sequence, from emissions and transitions alone."""
    numbers = range(len(inside.labels))
    sequences = list(itertools.product(numbers, repeat=len(inside.tokens)))
    scores = np.array([path_score(inside.emissions, inside.transitions, np.array(each)) for each in sequences])
    shares = np.exp(scores / inside.temperature - (scores / inside.temperature).max())
    return dict(zip(sequences, shares / shares.sum(), strict=True))


@pytest.mark.parametrize("decoder", ["crf", "softmax"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_emissions_and_transitions_give_paths_and_marginals(decoder, temperature):
    model = small_model(small_config(decoder=decoder))
    model.network.eval().decoder.temperature.fill_(temperature)
    (sentence,) = sentences([4])
    inside = look_inside(Predictor(model), sentence)
    assert (inside.tokens, inside.decoder, inside.temperature) == (sentence.tokens, decoder, temperature)
    chances = every_sequence(inside)
    best, second = sorted(chances, key=lambda sequence: -chances[sequence])[:2]
    assert [tuple(path.labels) for path in inside.paths] == [best, second]
    for path in inside.paths:
        assert path.probability == pytest.approx(chances[tuple(path.labels)], abs=1e-6)
        assert path.score == pytest.approx(path_score(inside.emissions, inside.transitions, path.labels))
    assert inside.parting == [token for token in range(4) if best[token] != second[token]]
    marginals = np.zeros((4, len(inside.labels)))
    for sequence, share in chances.items():
        marginals[np.arange(4), sequence] += share
    np.testing.assert_allclose(inside.marginals, marginals, **CLOSE)
    np.testing.assert_allclose(inside.marginals.sum(-1), 1, **CLOSE)
    predictions = Predictor(model).predict([sentence])
    assert inside.names(inside.paths[0]) == predictions.labels[0]


def test_forbidden_transitions_are_minus_infinity_and_on_no_path(trained_run):
    from nertool.tagging.tagger import Tagger

    tagger = Tagger.load(trained_run)
    (inside,) = tagger.inside("Ada Byron wrote to Babbage .")
    names = list(inside.labels)
    assert np.isneginf(inside.transitions.transitions[names.index("O"), names.index("I-ORG")])
    assert np.isfinite(inside.transitions.transitions[names.index("B-PER"), names.index("E-PER")])
    assert np.isneginf(inside.transitions.start[names.index("I-ORG")])
    assert np.isneginf(inside.transitions.end[names.index("B-LOC")])
    assert all(np.isfinite(path.score) for path in inside.paths)
    alternatives = tagger.with_options(n_best=2).tag("Ada Byron wrote to Babbage .").alternatives[0]
    assert [path.probability for path in inside.paths] == pytest.approx(
        [each.probability for each in alternatives], abs=1e-6
    )
    assert inside.names(inside.paths[0])[:2] == ["B-PER", "E-PER"]


def test_attention_and_states_are_those_of_the_network():
    model = small_model(small_config(attention={"kind": "multi_head", "heads": 2}))
    model.network.eval()
    (sentence,) = sentences([5])
    predictor = Predictor(model)
    inside = look_inside(predictor, sentence)
    assert inside.attention is not None and inside.attention.shape == (2, 5, 5)
    np.testing.assert_allclose(inside.attention.sum(-1), 1, **CLOSE)
    np.testing.assert_array_equal(inside.attention, predictor.attention(sentence))
    assert look_inside(Predictor(small_model()), sentence).attention is None


@pytest.mark.parametrize("kind", ["cnn", "none"])
def test_other_encoders_have_no_gates(kind):
    inside = look_inside(Predictor(small_model(small_config(encoder={"kind": kind}))), sentences([3])[0])
    assert (inside.encoder, inside.traces, inside.complete) == (kind, (), True)


def test_columns_and_one_token():
    model = small_model(small_config({"pos": {"kind": "column", "column": "pos", "dimensions": 2}}))
    (sentence,) = sentences([1])
    inside = look_inside(Predictor(model), sentence)
    assert inside.emissions.shape == (1, len(inside.labels)) and inside.parting == [0]
    with pytest.raises(NertoolError, match="pos"):
        look_inside(Predictor(model), replace(sentence, columns={}))


def test_what_cannot_be_looked_into():
    predictor = Predictor(small_model())
    with pytest.raises(NertoolError, match="no token"):
        look_inside(predictor, Document(()))
    with pytest.raises(NertoolError, match="513 tokens is too long to look inside"):
        look_inside(predictor, Document(("x",) * 513))


def test_texts_and_documents(trained_run):
    from nertool.tagging.tagger import Tagger

    tagger = Tagger.load(trained_run)
    found = tagger.inside("Nobody came. Rain fell.")
    assert [inside.tokens for inside in found] == [("Nobody", "came", "."), ("Rain", "fell", ".")]
    (same,) = tagger.inside(Document(("Nobody", "came", ".")))
    np.testing.assert_allclose(same.emissions, found[0].emissions, **CLOSE)
    assert tagger.inside(" \n") == []
    with pytest.raises(TypeError, match="expected a text"):
        tagger.inside(None)  # type: ignore[arg-type]
