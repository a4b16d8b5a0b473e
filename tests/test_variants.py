"""The variants of the network: each learns, is saved and loaded; each layer against torch's own or by hand."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from nertool.config.schema import AttentionConfig, Config, ModelConfig
from nertool.data.batching import EncodedCorpus
from nertool.data.vocabulary import build_lexicon
from nertool.evaluation.scores import evaluate
from nertool.model import attention as attention_module
from nertool.model.attention import Attention
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders.build import build_encoder
from nertool.model.encoders.convolutional import Convolution, ConvolutionalEncoder
from nertool.model.encoders.recurrent import RecurrentEncoder
from nertool.model.inputs.characters import CharacterRNN
from nertool.tagging.bundle import Model, fresh_model, load_bundle, save_bundle
from nertool.tagging.labeller import Labeller
from nertool.tagging.prediction import vectors_of
from nertool.tagging.tagger import Tagger
from nertool.text.schemes import Scheme, convert, stray_positions
from nertool.training.trainer import train
from nertool.views.model import show_model

Make = Callable[..., Config]
CLOSE = {"rtol": 0.0, "atol": 1e-5}

# Name: settings of the model.
VARIANTS = {
    "rnn": ["encoder.kind=rnn"],
    "rnn in one direction": ["encoder.kind=rnn", "encoder.bidirectional=false"],
    "gru": ["encoder.kind=gru"],
    "gru in one direction, two layers": ["encoder={kind: gru, hidden: 12, layers: 2, bidirectional: false}"],
    "lstm in one direction": ["encoder.bidirectional=false"],
    "lstm of two layers": ["encoder.layers=2", "encoder.dropout=0.05"],
    "cnn": ["encoder.kind=cnn"],
    "cnn backwards": ["encoder.kind=cnn", "encoder.bidirectional=false"],
    "cnn, iterated": ["encoder={kind: cnn, hidden: 12, layers: 3, width: 5, dilations: [1, 2]}"],
    "no encoder": ["encoder.kind=none"],
    "no encoder, attention": ["encoder.kind=none", "attention.kind=scaled_dot"],
    "dot": ["attention.kind=dot"],
    "scaled dot": ["attention.kind=scaled_dot"],
    "additive": ["attention.kind=additive"],
    "multi-head": ["attention.kind=multi_head"],
    "characters by lstm": ["characters.kind=lstm"],
    "characters by gru": ["characters.kind=gru", "characters.dropout=0.1"],
    "no characters": ["characters.kind=none"],
    "capitals": ["characters.case_dimensions=3"],
    "capitals, no characters": ["characters.case_dimensions=3", "characters.kind=none"],
    "softmax": ["decoder=softmax"],
    "constrained": ["decoder=constrained"],
    "crf, always constrained": ["constraints=always"],
    "crf without constraints": ["constraints=none"],
    "locked dropout": ["locked_dropout=true", "dropout=0.2", "encoder.layers=2"],
    "all at once": [
        "encoder={kind: cnn, hidden: 12, layers: 2}",
        "characters={kind: gru, dimensions: 6, hidden: 4, case_dimensions: 2}",
        "attention.kind=additive",
        "decoder=constrained",
        "locked_dropout=true",
    ],
}


def settings_of(name: str) -> list[str]:
    sizes = ["characters.hidden=4", "attention={dimensions: 8, heads: 2}"]
    return [f"model.{each}" for each in [*sizes, *VARIANTS[name]]]


def probabilities(model: Model, sentences: Sequence[list[str]]) -> tuple[list[list[str]], list[np.ndarray]]:
    """Labels, and the probability of the label of each token."""
    found = Labeller(model).label(sentences, probabilities=True)
    scores = [np.array([found.probability(i, t, t + 1) for t in range(len(s))]) for i, s in enumerate(sentences)]
    return found.labels, scores


@pytest.mark.parametrize("name", VARIANTS)
def test_three_sentences_are_learnt_and_the_saved_model_gives_the_same_answer(
    name, tiny_config: Make, tiny_train, tiny_test, tmp_path
):
    steps = ["epochs=50", "patience=50", "decay=0"]
    config = tiny_config(*(f"training.{each}" for each in steps), "model.dropout=0", *settings_of(name))
    tokens, labels = (list(column) for column in zip(*tiny_train[:3], strict=True))
    labels = [convert(each, Scheme.IOB2, Scheme.IOBES) for each in labels]
    model = fresh_model(config, build_lexicon(tokens, labels, Scheme.IOBES))
    numbers = {label: number for number, label in enumerate(model.lexicon.labels)}
    corpus = EncodedCorpus(model.new_forms(), tokens, labels, numbers)
    perfect = evaluate(labels, labels, Scheme.IOBES)  # which epoch is best does not matter here
    for _ in train(model.network, corpus, lambda: perfect, config.training):
        pass
    for parameter in model.network.parameters():
        assert parameter.isfinite().all()
    found, scores = probabilities(model, tokens)
    assert found == labels
    assert min(each.min() for each in scores) > 0.8

    save_bundle(model, tmp_path / "model")
    loaded = load_bundle(tmp_path / "model")
    sentences = [*tokens, *(tokens for tokens, _ in tiny_test), ["Ünseen", "WÖRDS", "\ud800", "…"], ["Oslo"]]
    together, own = probabilities(loaded, sentences), probabilities(model, sentences)
    assert together[0] == own[0]
    for one, other in zip(together[1], own[1], strict=True):
        np.testing.assert_array_equal(one, other)
    for place, sentence in enumerate(sentences):
        alone = probabilities(loaded, [sentence])
        assert alone[0] == [together[0][place]]
        np.testing.assert_allclose(alone[1][0], together[1][place], **CLOSE)

    # As in training: forms of the batch alone, sentences of all lengths side by side.
    batch = EncodedCorpus(loaded.new_forms(), sentences).batch(np.arange(len(sentences)))
    best = loaded.network.best_labels(batch).numpy()
    marginals = loaded.network.posterior(batch).marginals()
    for place, sentence in enumerate(sentences):
        column = best[: len(sentence), place]
        assert [loaded.lexicon.labels[label] for label in column] == together[0][place]
        np.testing.assert_allclose(marginals[np.arange(len(column)), place, column], together[1][place], **CLOSE)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "cnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_in_one_direction_a_token_sees_nothing_of_what_follows(kind, bidirectional):
    settings = {"kind": kind, "hidden": 9, "layers": 2, "width": 5, "bidirectional": bidirectional}
    config = ModelConfig.model_validate({"encoder": settings}).encoder
    torch.manual_seed(1)
    encoder = build_encoder(config, 4, Dropout(0.0, Noise(1)))
    values, mask = torch.randn(12, 3, 4), torch.arange(12).unsqueeze(1) < torch.tensor([12, 12, 9])
    for place in range(1, 8):
        other = values.clone()
        other[place:] = torch.randn(12 - place, 3, 4)
        before, after = (encoder(each, mask)[place - 1].detach() for each in (values, other))
        assert torch.equal(before, after) != bidirectional
    # What came before is seen, down to the first token.
    other = values.clone()
    other[0] += 1.0
    assert (encoder(values, mask)[8] != encoder(other, mask)[8]).any(-1).all()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_the_recurrent_encoder_is_torchs_over_packed_sentences(kind, layers):
    torch.manual_seed(1)
    encoder = RecurrentEncoder(5, kind, 4, layers, True, Dropout(0.0, Noise(1)))
    oracle = getattr(nn, kind.upper())(5, 4, layers, bidirectional=True)
    with torch.no_grad():
        for layer in range(layers):
            for direction, suffix in enumerate(("", "_reverse")):
                for part, ours in encoder.layers[layer][direction].cell.named_parameters():
                    nn.init.uniform_(ours, -1.0, 1.0)
                    getattr(oracle, f"{part.removesuffix('0')}{layer}{suffix}").copy_(ours)
    lengths = torch.tensor([3, 7, 1, 7, 5])
    mask = torch.arange(7).unsqueeze(1) < lengths
    one, other = (values := torch.randn(7, 5, 5)).requires_grad_(), values.detach().clone().requires_grad_()
    packed = nn.utils.rnn.pack_padded_sequence(other, lengths, enforce_sorted=False)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(oracle(packed)[0])
    found = encoder(one, mask)
    torch.testing.assert_close(found[mask], wanted[mask], **CLOSE)
    weights = torch.randn(int(mask.sum()), 8)
    (found[mask] * weights).sum().backward()
    (wanted[mask] * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, **CLOSE)


@pytest.mark.parametrize("kind", ["gru", "cnn"])
def test_dropout_comes_between_layers_and_at_neither_end(kind):
    values, mask = torch.randn(6, 3, 4), torch.ones(6, 3, dtype=torch.bool)
    for layers in (1, 2):
        config = ModelConfig.model_validate({"encoder": {"kind": kind, "hidden": 40, "layers": layers}}).encoder
        encoder = build_encoder(config, 4, Dropout(0.5, Noise(1)))
        assert torch.equal(encoder(values, mask), encoder.eval()(values, mask)) == (layers == 1)


class TestConvolution:
    def oracle(self, layer: Convolution, values: Tensor, causal: bool) -> Tensor:
        """The layer over one sentence, (time, inputs), by torch's convolution."""
        filters, width = len(layer.taps.weight), layer.width
        kernel = layer.taps.weight.view(filters, width, -1).transpose(1, 2)
        span = (width - 1) * layer.dilation
        padded = nn.functional.pad(values.T, (span, 0) if causal else (span // 2, span // 2))
        return torch.relu(nn.functional.conv1d(padded, kernel, layer.taps.bias, dilation=layer.dilation).T)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize(("width", "dilation"), [(1, 1), (3, 1), (3, 4), (5, 2), (9, 64)])
    def test_it_is_torchs(self, width, dilation, causal):
        torch.manual_seed(1)
        layer = Convolution(4, 6, width, dilation, causal)
        nn.init.normal_(layer.taps.bias)
        values = torch.randn(11, 3, 4)
        found = layer(values)
        assert (found == 0).any() and (found > 0).any()
        for sentence in range(3):
            wanted = self.oracle(layer, values[:, sentence], causal)
            torch.testing.assert_close(found[:, sentence], wanted, **CLOSE)

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_the_encoder_applies_its_block_again_and_again_to_each_sentence(self, bidirectional):
        torch.manual_seed(2)
        encoder = ConvolutionalEncoder(4, 6, 3, (1, 2, 5), 3, bidirectional, Dropout(0.0, Noise(1)))
        for layer in (encoder.first, *encoder.block):
            nn.init.normal_(layer.taps.bias)  # or padding would stay 0 by itself
        lengths = [9, 2, 13, 1]
        mask = torch.arange(13).unsqueeze(1) < torch.tensor(lengths)
        values = torch.randn(13, 4, 4)
        found = encoder(values, mask)
        for sentence, length in enumerate(lengths):
            wanted = values[:length, sentence]
            for layer in (encoder.first, *3 * list(encoder.block)):
                wanted = self.oracle(layer, wanted, not bidirectional)
            torch.testing.assert_close(found[:length, sentence], wanted, **CLOSE)


KINDS = ["dot", "scaled_dot", "additive", "multi_head"]


class TestAttention:
    LENGTHS = (5, 1, 8, 3)

    def build(self, kind: str, dimensions: int = 6, heads: int = 3) -> Attention:
        torch.manual_seed(3)
        config = AttentionConfig(kind=kind, dimensions=dimensions, heads=heads)
        layer = Attention(config, 6)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        return layer

    def batch(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(4)
        mask = torch.arange(max(self.LENGTHS)).unsqueeze(1) < torch.tensor(self.LENGTHS)
        return torch.randn(*mask.shape, 6), mask

    def by_hand(self, layer: Attention, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (heads, time, time) and results (time, size) of one sentence, term by term."""
        parts = {name: value.detach().double().numpy() for name, value in layer.state_dict().items()}

        def norm(rows: np.ndarray, name: str) -> np.ndarray:
            rows = rows - rows.mean(1, keepdims=True)
            rows /= np.sqrt((rows**2).mean(1, keepdims=True) + 1e-5)
            return rows * parts[f"{name}.weight"] + parts[f"{name}.bias"]

        normed = norm(states, "norm_before")
        queries, keys, values = (normed @ parts[f"{name}.weight"].T for name in ("queries", "keys", "values"))
        dimensions = queries.shape[1]
        heads = 3 if layer.kind == "multi_head" else 1
        all_weights, found = [], []
        for own in np.split(np.arange(dimensions), heads):
            scores = np.zeros((len(states), len(states)))
            for i, query in enumerate(queries[:, own]):
                for j, key in enumerate(keys[:, own]):
                    scores[i, j] = {
                        "dot": query @ key,
                        "scaled_dot": query @ key / np.sqrt(dimensions),
                        "multi_head": query @ key / np.sqrt(dimensions // heads),
                        "additive": np.tanh(query + key) @ parts.get("direction", key),
                    }[layer.kind]
            weights = np.exp(scores - scores.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            all_weights.append(weights)
            found.append(weights @ values[:, own])
        added = np.concatenate(found, 1) @ parts["result.weight"].T + parts["result.bias"]
        return np.array(all_weights), states + norm(added, "norm_after")

    @pytest.mark.parametrize("kind", KINDS)
    def test_weights_and_results_are_those_worked_out_by_hand(self, kind):
        layer, (states, mask) = self.build(kind), self.batch()
        found, weights = layer(states, mask).detach(), layer.weights(states, mask).detach()
        assert weights.shape == (len(self.LENGTHS), 3 if kind == "multi_head" else 1, 8, 8)
        for sentence, length in enumerate(self.LENGTHS):
            wanted_weights, wanted = self.by_hand(layer, states[:length, sentence].double().numpy())
            own = weights[sentence, :, :length]
            np.testing.assert_allclose(own[..., :length], wanted_weights, atol=1e-5)
            np.testing.assert_allclose(found[:length, sentence], wanted, atol=2e-4)
            np.testing.assert_allclose(own.sum(-1), 1.0, atol=1e-6)
            assert (own[..., length:] == 0).all()

    @pytest.mark.parametrize("elements", [1, 8 * 4 * 6, 3 * 8 * 4 * 6])
    def test_additive_scores_in_pieces_are_those_of_the_whole(self, elements, monkeypatch):
        layer, (states, mask) = self.build("additive"), self.batch()
        found = []
        for most in (attention_module._ELEMENTS_AT_ONCE, elements):
            monkeypatch.setattr(attention_module, "_ELEMENTS_AT_ONCE", most)
            layer.zero_grad()
            result = layer(states, mask)[mask]
            result.square().sum().backward()
            found.append([result.detach(), *(parameter.grad.clone() for parameter in layer.parameters())])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)

    def test_several_heads_are_torchs(self):
        layer, (states, mask) = self.build("multi_head"), self.batch()
        oracle = nn.MultiheadAttention(6, 3)
        with torch.no_grad():
            parts = [each.weight for each in (layer.queries, layer.keys, layer.values)]
            oracle.in_proj_weight.copy_(torch.cat(parts))
            oracle.in_proj_bias.zero_()
            oracle.out_proj.load_state_dict(layer.result.state_dict())
        normed = layer.norm_before(states)
        added, weights = oracle(normed, normed, normed, ~mask.T, average_attn_weights=False)
        torch.testing.assert_close(layer(states, mask)[mask], (states + layer.norm_after(added))[mask], **CLOSE)
        rows = mask.T.unsqueeze(1).expand(-1, 3, -1)
        torch.testing.assert_close(layer.weights(states, mask)[rows], weights[rows], **CLOSE)

    @pytest.mark.parametrize("kind", KINDS)
    def test_training_starts_near_the_network_without_it(self, kind):
        states, mask = self.batch()
        layer = Attention(AttentionConfig(kind=kind, dimensions=8, heads=2), 6)
        assert (layer(states, mask) - states).abs().max() < 0.3


class TestCharacterRNN:
    # On both sides of the borders between words that go together.
    LENGTHS = (1, 2, 4, 5, 8, 9, 16, 17, 32, 33, 40, 5, 1)

    def words(self) -> list[Tensor]:
        torch.manual_seed(5)
        return [torch.randint(1, 12, (length,)) for length in self.LENGTHS]

    def build(self, kind: str) -> CharacterRNN:
        torch.manual_seed(6)
        layer = CharacterRNN(12, 4, kind, 3, 0.0, Noise(1))
        for direction in (layer.ahead, layer.back):
            for parameter in direction.parameters():
                nn.init.uniform_(parameter, -1.0, 1.0)
        return layer

    def run(self, layer: CharacterRNN, words: list[Tensor]) -> Tensor:
        return layer(torch.cat(words).unsqueeze(1), torch.tensor([len(word) for word in words]))

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_it_gives_the_last_states_of_torchs_over_packed_words(self, kind):
        layer, words = self.build(kind), self.words()
        oracle = getattr(nn, kind.upper())(4, 3, bidirectional=True)
        with torch.no_grad():
            for suffix, direction in (("", layer.ahead), ("_reverse", layer.back)):
                for part, ours in direction.cell.named_parameters():
                    getattr(oracle, part + suffix).copy_(ours)
        embedding = layer.embedding.detach().clone().requires_grad_()
        packed = nn.utils.rnn.pack_sequence([embedding[word] for word in words], enforce_sorted=False)
        last = oracle(packed)[1]
        wanted = torch.cat(tuple(last[0] if kind == "lstm" else last), -1)
        found = self.run(layer, words)
        torch.testing.assert_close(found, wanted, **CLOSE)
        weights = torch.randn(found.shape)
        (found * weights).sum().backward()
        (wanted * weights).sum().backward()
        torch.testing.assert_close(layer.embedding.grad, embedding.grad, **CLOSE)

    @pytest.mark.parametrize("kind", ["lstm", "gru"])
    def test_a_word_is_alone_with_its_characters(self, kind):
        layer, words = self.build(kind), self.words()
        together = self.run(layer, words).detach()
        for place, word in enumerate(words):
            torch.testing.assert_close(self.run(layer, [word])[0], together[place], **CLOSE)
        order = torch.randperm(len(words))
        torch.testing.assert_close(self.run(layer, [words[place] for place in order]), together[order], **CLOSE)

    def test_order_and_repetition_of_characters_count(self):
        layer = self.build("lstm")
        words = [torch.tensor(each) for each in ([3, 4], [4, 3], [3, 3, 4], [3, 4, 4])]
        assert len(self.run(layer, words).detach().unique(dim=0)) == 4

    def test_the_border_which_stands_for_the_empty_form_gets_no_gradient(self):
        layer = self.build("gru")
        self.run(layer, [torch.tensor([0]), torch.tensor([3, 4])]).sum().backward()
        assert (layer.embedding.grad[0] == 0).all()
        assert (layer.embedding.grad[3:5] != 0).all()


def untrained(config: Config, tiny_train) -> Model:
    tokens, labels = zip(*tiny_train, strict=True)
    labels = [convert(each, Scheme.IOB2, Scheme.IOBES) for each in labels]
    model = fresh_model(config, build_lexicon(tokens, labels, Scheme.IOBES))
    model.network.eval()
    return model


def test_labels_that_the_scheme_forbids_are_shown_and_read_as_entities_all_the_same(tiny_config: Make, tiny_train):
    model = untrained(tiny_config("model.decoder=softmax"), tiny_train)
    tokens = tiny_train[0][0]
    bias = model.network.scores.bias.data
    bias[model.lexicon.labels.index("I-ORG")] = 100.0
    found = next(Tagger(model).tag_tokens([tokens]))
    assert Labeller(model).label([tokens]).labels == [["I-ORG"] * len(tokens)]
    assert found.labels == ["B-ORG"] + ["I-ORG"] * (len(tokens) - 1)
    assert [(each.start, each.end, each.label) for each in found.entities] == [(0, len(found.text), "ORG")]
    assert found.entities[0].score == 1.0


@pytest.mark.parametrize("setting", ["decoder=constrained", "constraints=decoding", "constraints=always"])
def test_constrained_labels_follow_the_scheme_whatever_the_scores(tiny_config: Make, tiny_train, setting):
    model = untrained(tiny_config(f"model.{setting}"), tiny_train)
    model.network.scores.bias.data[model.lexicon.labels.index("I-ORG")] = 100.0
    labels = Labeller(model).label([tiny_train[0][0]]).labels[0]
    assert "I-ORG" in labels
    assert stray_positions(labels, Scheme.IOBES) == []


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_characters_are_read_in_order_and_every_time(tiny_config: Make, tiny_train, kind):
    model = untrained(tiny_config(f"model.characters.kind={kind}", "model.characters.hidden=4"), tiny_train)
    forms = model.new_forms()
    numbers = [forms[word] for word in ("xe", "ex", "xee", "xxe", "xeee")]  # all unknown: spelling alone differs
    vectors = vectors_of(model.network, forms.drain())[numbers]
    assert len(vectors[:, -8:].unique(dim=0)) == 5
    assert len(vectors[:, :-8].unique(dim=0)) == 1


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (
            ["encoder={kind: cnn, hidden: 9, layers: 2, dilations: [1, 4]}", "decoder=constrained"],
            [
                "encoder     cnn, 9 filters of width 3 looking to both sides, dilations 1, 4, times: 2",
                "decoder     constrained",
            ],
        ),
        (
            ["encoder={kind: cnn, hidden: 9, width: 5, bidirectional: false}"],
            ["encoder     cnn, 9 filters of width 5 looking backwards, dilations 1, 2, 1, times: 1"],
        ),
        (
            ["encoder={kind: gru, hidden: 7, bidirectional: false}", "decoder=softmax"],
            ["encoder     gru, 7 units, layers: 1, one direction", "decoder     softmax"],
        ),
        (
            ["encoder.kind=none", "attention={kind: multi_head, dimensions: 8, heads: 2}"],
            ["encoder     none", "attention   multi_head, 8 dimensions, 2 heads"],
        ),
        (
            ["attention={kind: additive, dimensions: 5}", "characters={kind: lstm, hidden: 6}"],
            [
                "attention   additive, 5 dimensions",
                ", lstm, 2 x 6 units",
                "decoder     crf, constraints: decoding",
            ],
        ),
        (
            ["characters={kind: none, case_dimensions: 3}", "constraints=always"],
            [", not used, 3 dimensions for capitals", "decoder     crf, constraints: always"],
        ),
        (
            ["characters={kind: cnn, filters: 7, case_dimensions: 3}"],
            [", 7 filters of width 3, 3 dimensions for capitals"],
        ),
    ],
)
def test_info_says_what_the_network_is(tiny_config: Make, tiny_train, tmp_path, settings, lines):
    config = tiny_config(*(f"model.{each}" for each in settings))
    save_bundle(untrained(config, tiny_train), tmp_path)
    console = Console(file=io.StringIO(), width=200)
    show_model(tmp_path, console)
    shown = [line.rstrip() for line in console.file.getvalue().splitlines()]
    for line in lines:
        assert any(each.endswith(line) for each in shown), line
    assert any(each.startswith("attention") for each in shown) == (config.model.attention.kind != "none")
