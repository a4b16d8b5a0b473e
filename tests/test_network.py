"""The layers and the network: nothing depends on padding or neighbours, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import (
    CLOSE,
    PHRASES,
    alone,
    encoded,
    gradients,
    initialized,
    layout_of,
    over_padded,
    small_config,
    small_model,
    small_network,
    whole,
)
from torch import Tensor, nn

from nertool.config.schema import Config, RecurrentConfig
from nertool.data.encoding import EncodedCorpus
from nertool.errors import ConfigError
from nertool.evaluation.scores import evaluate
from nertool.model.building import uninitialized
from nertool.model.concurrency import run_branches
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders.recurrent import RecurrentEncoder
from nertool.model.input_modules.characters import CharacterCNN
from nertool.model.input_modules.words import WordVectors
from nertool.model.inputs.base import Resources
from nertool.model.inputs.characters import ConvolvedCharacters
from nertool.model.inputs.words import UNKNOWN_ROW
from nertool.model.model import Model, new_model
from nertool.tagging.bundle import load_bundle
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.training.trainer import train

# Name: inputs, and settings of the model.
SHAPES: dict[str, tuple[dict, dict]] = {
    "default": ({}, {}),
    "two layers": ({}, {"encoder": {"layers": 2}}),
    "one direction": ({}, {"encoder": {"bidirectional": False, "layers": 2}}),
    "no characters": ({"characters": None}, {}),
    "no words": ({"words": None}, {}),
    "wide filters": ({"characters": {"width": 5}}, {}),
    "softmax": ({}, {"decoder": "softmax"}),
    "gru": ({}, {"encoder": {"kind": "gru", "layers": 2}}),
    "rnn in one direction": ({}, {"encoder": {"kind": "rnn", "bidirectional": False}}),
    "convolutions": ({}, {"encoder": {"kind": "cnn", "layers": 2, "dilations": [1, 3]}}),
    "convolutions backwards": ({}, {"encoder": {"kind": "cnn", "bidirectional": False, "width": 5}}),
    "no encoder": ({}, {"encoder": {"kind": "none"}}),
    "dot": ({}, {"attention": {"kind": "dot"}}),
    "scaled dot, no encoder": ({}, {"encoder": {"kind": "none"}, "attention": {"kind": "scaled_dot"}}),
    "additive": ({}, {"attention": {"kind": "additive"}}),
    "heads over convolutions": ({}, {"encoder": {"kind": "cnn"}, "attention": {"kind": "multi_head", "heads": 2}}),
    "characters by lstm": ({"characters": {"network": "lstm"}}, {}),
    "characters by gru, capitals": ({"characters": {"network": "gru"}, "case": {"dimensions": 2}}, {}),
    "capitals without characters": ({"characters": None, "case": {"dimensions": 3}}, {}),
    "a column": ({"tags": {"kind": "column", "column": "pos", "dimensions": 3}}, {}),
    "a column alone": ({"words": None, "characters": None, "tags": {"kind": "column", "column": "pos"}}, {}),
    "a gazetteer": ({"places": {"kind": "gazetteer", "files": "phrases.txt", "dimensions": 2}}, {}),
}


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> Model:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phrases.txt").write_text(PHRASES)
    inputs, settings = SHAPES[request.param]
    return small_model(small_config(inputs, **settings))


def test_alone_batched_and_over_padded_are_the_same(model):
    network, corpus = model.network.eval(), encoded(model, [4, 1, 7, 2, 7, 3])
    batch = whole(corpus)
    padded = over_padded(batch, 5)
    with torch.no_grad():
        together, beyond = network(batch), network(padded)
        for place, length in enumerate(corpus.lengths):
            own = network(alone(corpus, place))[:, 0]
            torch.testing.assert_close(together[:length, place], own, **CLOSE)
            torch.testing.assert_close(beyond[:length, place], own, **CLOSE)
    best = network.decoder.best_labels(together, batch.layout)
    assert torch.equal(network.decoder.best_labels(beyond, padded.layout)[:7], best)
    torch.testing.assert_close(network.loss(padded), network.loss(batch), **CLOSE)


@pytest.mark.parametrize("concurrent", [False, True])
def test_the_gradient_of_a_padded_batch_is_the_sum_of_those_of_its_sentences(model, concurrent):
    network, corpus = model.network.train(), encoded(model, [4, 1, 6, 2])
    network.encoder.concurrent = concurrent
    singles = [gradients(network, alone(corpus, place)) for place in range(4)]
    for batch in (whole(corpus), over_padded(whole(corpus), 3)):
        together = gradients(network, batch)
        assert together.keys() == {n for n, parameter in network.named_parameters() if parameter.requires_grad}
        for key, gradient in together.items():
            wanted = torch.stack([single[key] for single in singles]).sum(0)
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


def test_what_is_computed_once_for_each_form_is_what_the_network_computes_of_a_batch(model, monkeypatch):
    network, batch = model.network.eval(), whole(encoded(model, [5, 2]))
    inputs = []
    monkeypatch.setattr(network, "encode", lambda values, layout: inputs.append(values))
    network(batch)
    vectors = network.form_vectors(batch.form_features)
    assert (vectors is None) == (not network.context_free)
    torch.testing.assert_close(network.inputs_of(vectors, batch.forms, batch.token_features), inputs[0], **CLOSE)


def test_the_same_seed_draws_the_same_weights_and_nothing_from_the_global_generator(model):
    state = torch.random.get_rng_state()
    numbers = []
    for seed in (5, 5, 6):
        model.network.initialize(seed)
        numbers.append({name: value.detach().clone() for name, value in model.network.named_parameters()})
    assert torch.equal(torch.random.get_rng_state(), state)
    one, same, other = numbers
    assert all(value.isfinite().all() and torch.equal(same[name], value) for name, value in one.items())
    assert not torch.equal(one["scores.weight"], other["scores.weight"])


def test_building_draws_nothing_from_the_global_generators():
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    small_model()
    uninitialized(nn.LSTM, 3, 4)
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_all_weights_are_drawn():
    network = small_network({"case": {}, "characters": {"network": "gru"}}, attention={"kind": "additive"})
    for parameter in network.parameters():
        nn.init.constant_(parameter, torch.nan)
    network.initialize(1)
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_a_name_that_a_module_of_torch_has_itself_is_refused():
    with pytest.raises(ConfigError, match=r"inputs\.keys: the name is reserved; choose another"):
        small_network({"keys": {"kind": "case"}})


def test_concurrent_directions_give_the_same_outputs_and_gradients():
    model = small_model(small_config(encoder={"layers": 2}, dropout=0.3))
    network, batch = model.network.train(), whole(encoded(model, [5, 3, 8, 8]))
    results = []
    for concurrent in (False, True):
        network.encoder.concurrent = concurrent
        network.noise.generator = Noise(3).generator
        scores = network(batch)
        network.noise.generator = Noise(3).generator
        results.append((scores.detach(), gradients(network, batch)))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_frozen_word_vectors_without_characters_train_concurrently_too():
    model = small_model(small_config({"characters": None, "words": {"trainable": False}}))
    network = model.network.train()
    network.encoder.concurrent = True
    result = gradients(network, whole(encoded(model, [5, 3])))
    assert "inputs.words.weight" not in result
    assert all(gradient.abs().sum() > 0 for gradient in result.values())


class TestBranches:
    def test_they_are_differentiable_as_if_called_one_by_one(self):
        torch.manual_seed(1)
        modules = [nn.Linear(3, 2), nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Linear(3, 1)]
        inputs = [torch.randn(6, 3, requires_grad=True), torch.randn(2, 4, requires_grad=True)]
        inputs.append(inputs[0])
        parameters = [parameter for module in modules for parameter in module.parameters()]

        def derive(outputs) -> tuple[Tensor, ...]:
            total = sum((output.square() * (n + 1)).sum() for n, output in enumerate(outputs))
            return torch.autograd.grad(total, [*inputs[:2], *parameters])

        wanted = [module(values) for module, values in zip(modules, inputs, strict=True)]
        result = run_branches(modules, inputs)
        torch.testing.assert_close(result, tuple(wanted))
        torch.testing.assert_close(derive(result), derive(wanted))

    def test_an_error_on_a_thread_is_raised(self):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            run_branches([nn.Linear(3, 2), nn.Linear(4, 2)], [torch.zeros(1, 3), torch.zeros(1, 3)])


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_character_cnn_is_a_convolution_over_padded_words_with_a_masked_maximum(width, gradient):
    # "aaaaaaa" has equal windows, so that its maximum is reached at several places.
    words = ["a", "ab", "aaaaaaa", "bcdefgh", "hg", "x?x", "fedcbabcdef"]
    entry = small_config({"characters": {"width": width, "maximum": 9}}).inputs["characters"]
    spelling = ConvolvedCharacters("characters", entry, list("abcdefgh"))
    windows, counts = map(torch.from_numpy, spelling.encode_forms(words).select(np.arange(len(words))))
    torch.manual_seed(3)
    cnn = initialized(CharacterCNN(10, 4, 6, width, 0.0, Noise(1)))
    nn.init.normal_(cnn.bias)

    embedding = nn.Embedding(10, 4, padding_idx=0)
    convolution = nn.Conv1d(4, 6, width, padding=width // 2)
    with torch.no_grad():
        embedding.weight[1:] = cnn.embedding[1:]
        convolution.weight.copy_(cnn.kernel.permute(2, 1, 0))
        convolution.bias.copy_(cnn.bias)
    numbers = [[2 + "abcdefgh".index(c) if c in "abcdefgh" else 1 for c in word[:9]] for word in words]
    padded = nn.utils.rnn.pad_sequence([torch.tensor(each) for each in numbers], batch_first=True)
    inside = padded != 0
    values = convolution(embedding(padded).transpose(1, 2))  # (words, filters, characters)
    wanted = values.masked_fill(~inside.unsqueeze(1), -torch.inf).amax(-1).tanh()

    with torch.set_grad_enabled(gradient):
        result = cnn(windows, counts)
    torch.testing.assert_close(result, wanted, **CLOSE)
    if gradient:
        weights = torch.randn(result.shape)
        (result * weights).sum().backward()
        (wanted * weights).sum().backward()
        torch.testing.assert_close(cnn.embedding.grad, embedding.weight.grad, **CLOSE)
        torch.testing.assert_close(cnn.kernel.grad, convolution.weight.grad.permute(2, 1, 0), **CLOSE)
        torch.testing.assert_close(cnn.bias.grad, convolution.bias.grad, **CLOSE)


def test_the_boundary_of_a_word_is_zero_whatever_its_row_holds_and_gets_no_gradient():
    model = small_model()
    network, batch = model.network, whole(encoded(model, [6, 2]))
    before = network(batch)
    assert (gradients(network, batch)["inputs.characters.embedding"][0] == 0).all()
    with torch.no_grad():
        network.inputs.characters.embedding[0] = 100.0
    assert torch.equal(network(batch), before)


class TestDropout:
    def test_it_keeps_the_mean_and_scales_what_it_keeps(self):
        dropout = Dropout(0.3, Noise(1))
        values = dropout(torch.ones(400, 500))
        assert values.dtype == torch.float32
        assert values.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
        assert values.mean() == pytest.approx(1.0, abs=0.01)
        assert (values == 0).float().mean() == pytest.approx(0.3, abs=0.01)

    def test_the_gradient_passes_where_the_value_passed(self):
        values = torch.rand(50, 20) + 1
        values.requires_grad_()
        result = Dropout(0.5, Noise(1))(values)
        result.sum().backward()
        torch.testing.assert_close(values.grad, result.detach() / values.detach())

    def test_it_is_off_in_evaluation_and_at_zero(self):
        values = torch.rand(5, 3)
        assert Dropout(0.9, Noise(1)).eval()(values) is values
        noise = Noise(1)
        assert Dropout(0.0, noise)(values) is values
        assert (noise.keep((99,), 0.5) == Noise(1).keep((99,), 0.5)).all(), "it drew bits that it does not need"

    def test_locked_it_has_one_mask_for_all_time_and_others_for_each_sentence_and_feature(self):
        values = Dropout(0.4, Noise(1), locked=True)(torch.ones(7, 90, 80))
        assert (values == values[0]).all()
        assert values.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
        assert values[0].mean() == pytest.approx(1.0, abs=0.05)
        assert len(values[0].unique(dim=0)) == 90
        assert len(values[0].T.unique(dim=0)) == 80

    @pytest.mark.parametrize("locked", [False, True])
    def test_a_network_locks_all_of_it_or_none(self, locked):
        model = small_model(small_config(encoder={"kind": "none"}, dropout=0.5, locked_dropout=locked))
        batch = whole(encoded(model, [1, 1]))
        steps = 5  # of one word again and again: only noise can distinguish them
        repeated = replace(batch, forms=batch.forms.repeat(steps, 1), layout=layout_of(steps, steps))
        scores = model.network.train()(repeated)
        assert bool((scores - scores[0]).abs().max() < 1e-6) == locked

    def test_between_layers_it_may_be_another(self):
        for own, wanted in ((None, 0.5), (0.0, 0.0), (0.3, 0.3)):
            network = small_network(dropout=0.5, encoder={"layers": 2, "dropout": own})
            result = [each.probability for each in (network.input_dropout, network.encoder.dropout)]
            assert [*result, network.output_dropout.probability] == [0.5, wanted, 0.5]

    def test_it_comes_before_and_after_the_encoder_and_between_its_layers(self):
        config = RecurrentConfig(kind="lstm", hidden=200, layers=2)
        encoder = initialized(RecurrentEncoder(config, 3, Dropout(0.5, Noise(1))))
        values, layout = torch.rand(4, 6, 3), layout_of(*[4] * 6)
        assert not torch.equal(encoder(values, layout), encoder(values, layout))
        encoder.eval()
        torch.testing.assert_close(encoder(values, layout), encoder(values, layout), **CLOSE)


class TestNoise:
    def test_a_seed_has_one_stream(self):
        one, same, other = Noise(1), Noise(1), Noise(2)
        first = one.keep((3, 7), 0.5)
        assert torch.equal(first, same.keep((3, 7), 0.5))
        assert torch.equal(one.keep((99,), 0.2), same.keep((99,), 0.2))
        assert (one.keep((3, 7), 0.5) != first).any()
        assert (other.keep((3, 7), 0.5) != first).any()

    def test_its_state_can_be_set(self):
        noise = Noise(1)
        noise.keep((5, 5), 0.5)
        state = noise.state.copy()
        wanted = noise.keep((50,), 0.5)
        other = Noise(9)
        other.state = state
        assert torch.equal(other.keep((50,), 0.5), wanted)

    @pytest.mark.parametrize("probability", [0.0, 0.02, 0.5, 0.9, 1.0])
    def test_the_share_that_is_kept(self, probability):
        kept = Noise(5).keep((300, 400), probability)
        assert kept.dtype == torch.bool
        assert kept.shape == (300, 400)
        assert kept.float().mean() == pytest.approx(probability, abs=0.01)


def inputs_of(network, batch, monkeypatch) -> Tensor:
    """Return what goes into `encode`."""
    values = []
    with monkeypatch.context() as patch:
        patch.setattr(network, "encode", lambda each, layout: values.append(each.detach()))
        network(batch)
    return values[0]


class TestWordDropout:
    def test_a_hidden_word_is_an_unknown_word_with_its_own_spelling(self, monkeypatch):
        model = small_model()
        network, batch = model.network, whole(encoded(model, [6, 4, 5]))
        rows = torch.zeros_like(batch.form_features["words"][0])
        unknown = replace(batch, form_features={**batch.form_features, "words": (rows,)})
        wanted = network.eval()(unknown)
        network.input("words").dropout = 0.9999999  # as good as all
        torch.testing.assert_close(network.train()(batch), wanted, **CLOSE)

    def test_it_hides_its_share_of_the_tokens_and_nothing_else(self, monkeypatch):
        model = small_model(small_config({"words": {"dropout": 0.3}}))
        network, batch = model.network, whole(encoded(model, [30] * 40))
        trained = inputs_of(network.train(), batch, monkeypatch)
        plain = inputs_of(network.eval(), batch, monkeypatch)
        torch.testing.assert_close(trained[..., 5:], plain[..., 5:], **CLOSE)  # spellings are never hidden
        same = (trained[..., :5] == plain[..., :5]).all(-1)
        unknown = (trained[..., :5] == network.inputs.words.weight[0]).all(-1)
        assert (same | unknown).all()
        known = (batch.form_features["words"][0] != UNKNOWN_ROW)[batch.forms]
        assert (~same)[known].float().mean() == pytest.approx(0.3, abs=0.06)

    def test_hidden_words_get_no_gradient_and_the_unknown_word_does(self):
        model = small_model()
        model.network.input("words").dropout = 0.9999999
        gradient = gradients(model.network.train(), whole(encoded(model, [6, 4])))["inputs.words.weight"]
        assert (gradient[0] != 0).any()
        assert (gradient[1:] == 0).all()


class TestWords:
    def test_the_gradient_is_sparse_and_holds_the_rows_of_the_batch_alone(self):
        model = small_model()
        network, batch = model.network, whole(encoded(model, [6, 2, 4]))
        rows = batch.form_features["words"][0]
        network.loss(batch).backward()
        (table,) = network.sparse_parameters()
        assert table is network.inputs.words.weight
        assert table.grad.is_sparse
        assert set(table.grad.coalesce().indices()[0].tolist()) == set(rows.tolist())
        assert table.grad._indices().shape[1] <= len(rows) < len(table)

    def test_the_gradient_equals_a_dense_one(self):
        words = initialized(WordVectors(9, 4, Noise(1)))
        dense = words.weight.detach().clone().requires_grad_()
        rows, weights = torch.tensor([3, 0, 8, 3]), torch.randn(4, 4)
        (words(rows) * weights).sum().backward()
        (dense[rows] * weights).sum().backward()
        torch.testing.assert_close(words.weight.grad.to_dense(), dense.grad)

    def test_vectors_that_are_not_trained_have_no_gradient(self):
        model = small_model(small_config({"words": {"trainable": False}}))
        model.network.loss(whole(encoded(model, [3]))).backward()
        assert model.network.inputs.words.weight.grad is None


def test_the_loss_is_averaged_over_sentences_and_needs_labels():
    model = small_model()
    network, corpus = model.network.eval(), encoded(model, [5, 2])
    singles = [network.loss(alone(corpus, place)) for place in range(2)]
    torch.testing.assert_close(network.loss(whole(corpus)), torch.stack(singles).mean(), **CLOSE)
    with pytest.raises(ValueError, match="no labels"):
        network.loss(replace(whole(corpus), labels=None))


def documents_of(sentences, scheme: Scheme = Scheme.IOB2) -> list[Document]:
    return [Document(tuple(tokens), labels=tuple(labels), scheme=scheme) for tokens, labels in sentences]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(tiny_config: Callable[..., Config], tiny_train, threads):
    documents = documents_of(tiny_train)
    labels = [list(document.labels) for document in documents]

    def trained(seed: int) -> dict[str, Tensor]:
        config = tiny_config(
            f"training.seed={seed}",
            "training.epochs=3",
            f"training.threads={threads}",
            "inputs.words.dropout=0.2",
            "model.dropout=0.5",
        )
        torch.manual_seed(np.random.default_rng().integers(1000))  # nothing may depend on the global state
        model = new_model(config, documents, Scheme.IOB2, Resources())
        corpus = EncodedCorpus(model.inputs, documents, model.label_numbers)
        for _ in train(model.network, corpus, lambda: evaluate(labels, labels, Scheme.IOB2), config.training):
            pass
        return dict(model.network.state_dict())

    one, same, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["scores.weight"], other["scores.weight"])


class TestPredictor:
    def sentences(self, tiny_train, tiny_test) -> list[Document]:
        tokens = [tokens for tokens, _ in [*tiny_train, *tiny_test]]
        rows = [[], *tokens, ["Oslo"], [], [f"word{number}" for number in range(40)]]
        return [Document(tuple(row)) for row in rows]

    def alone(self, model: Model, sentence: Document) -> tuple[list[str], np.ndarray]:
        """Return labels of a sentence and the probability of each label, from a batch of one."""
        if not len(sentence):
            return [], np.zeros(0)
        batch = whole(EncodedCorpus(model.inputs, [sentence]))
        with torch.no_grad():
            scores = model.network(batch)
        best = model.network.decoder.best_labels(scores, batch.layout)[:, 0].numpy()
        marginals = model.network.decoder.posterior(scores, batch.layout).marginals()[:, 0].numpy()
        return [model.labels[n] for n in best], marginals[np.arange(len(best)), best]

    @pytest.mark.parametrize("workers", [1, 3])
    def test_it_gives_what_the_network_gives_each_sentence(self, trained_run, tiny_train, tiny_test, workers):
        model = load_bundle(trained_run)
        sentences = self.sentences(tiny_train, tiny_test)
        before = torch.get_num_threads()
        torch.set_num_threads(workers)
        try:
            result = Predictor(model).predict(sentences, probabilities=True)
            assert torch.get_num_threads() == workers
        finally:
            torch.set_num_threads(before)
        for place, sentence in enumerate(sentences):
            labels, probabilities = self.alone(model, sentence)
            assert result.labels[place] == labels
            own = [result.probability(place, t, t + 1) for t in range(len(sentence))]
            np.testing.assert_allclose(own, probabilities, rtol=0, atol=1e-5)

    def test_what_it_remembers_changes_nothing(self, trained_run, tiny_train, tiny_test, monkeypatch):
        model = load_bundle(trained_run)
        sentences = self.sentences(tiny_train, tiny_test)
        wanted = Predictor(model).predict(sentences).labels
        monkeypatch.setattr("nertool.tagging.predictor.FORMS_KEPT", 20)  # so that it forgets, too
        predictor = Predictor(model)
        assert [predictor.predict([sentence]).labels[0] for sentence in sentences * 2] == wanted * 2

    def test_a_span_is_as_probable_as_all_its_labels_together(self, trained_run, tiny_train):
        document = documents_of(tiny_train)[0]
        result = Predictor(load_bundle(trained_run)).predict([document], probabilities=True)
        pair = result.probability(0, 0, 2)
        assert 0 < pair <= min(result.probability(0, 0, 1), result.probability(0, 1, 2)) + 1e-9
        assert result.probability(0, 0, 9) <= pair + 1e-9

    def test_probabilities_must_be_asked_for(self, trained_run):
        with pytest.raises(ValueError, match="not asked for"):
            Predictor(load_bundle(trained_run)).predict([Document(("Oslo",))]).probability(0, 0, 1)
