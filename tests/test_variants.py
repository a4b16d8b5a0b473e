"""The variants of the network: each learns, is saved and loaded; each layer against torch's own or by hand."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from networks import CLOSE, initialized, layout_of, whole
from rich.console import Console
from torch import Tensor, nn

from nertool.config.schema import (
    AttentionConfig,
    Config,
    ConvolutionalConfig,
    ModelConfig,
    MultiHeadConfig,
    RecurrentConfig,
)
from nertool.data.encoding import EncodedCorpus
from nertool.evaluation.scores import evaluate
from nertool.model import attention as attention_module
from nertool.model.attention import Attention
from nertool.model.batch import Layout
from nertool.model.concurrency import in_inference
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders import build_encoder
from nertool.model.encoders.convolutional import Convolution, ConvolutionalEncoder
from nertool.model.encoders.recurrent import RecurrentEncoder
from nertool.model.input_modules.characters import CharacterRNN
from nertool.model.inputs.base import Resources
from nertool.model.model import Model, new_model
from nertool.tagging.bundle import load_bundle, save_bundle
from nertool.tagging.predictor import Predictor
from nertool.tagging.tagger import Tagger
from nertool.tagging.torch_backend import form_vectors
from nertool.text.document import Document
from nertool.text.schemes import Scheme, convert, stray_positions
from nertool.training.trainer import train
from nertool.views.model import show_model

Make = Callable[..., Config]

# Name: settings.
VARIANTS = {
    "rnn": ["model.encoder.kind=rnn"],
    "rnn in one direction": ["model.encoder.kind=rnn", "model.encoder.bidirectional=false"],
    "gru": ["model.encoder.kind=gru"],
    "gru in one direction, two layers": ["model.encoder={kind: gru, hidden: 12, layers: 2, bidirectional: false}"],
    "lstm in one direction": ["model.encoder.bidirectional=false"],
    "lstm of two layers": ["model.encoder.layers=2", "model.encoder.dropout=0.05"],
    "cnn": ["model.encoder={kind: cnn, hidden: 12}"],
    "cnn backwards": ["model.encoder={kind: cnn, hidden: 12, bidirectional: false}"],
    "cnn, iterated": ["model.encoder={kind: cnn, hidden: 12, layers: 3, width: 5, dilations: [1, 2]}"],
    "no encoder": ["model.encoder=none"],
    "no encoder, attention": ["model.encoder=none", "model.attention={kind: scaled_dot, dimensions: 8}"],
    "dot": ["model.attention={kind: dot, dimensions: 8}"],
    "scaled dot": ["model.attention={kind: scaled_dot, dimensions: 8}"],
    "additive": ["model.attention={kind: additive, dimensions: 8}"],
    "multi-head": ["model.attention={kind: multi_head, dimensions: 8, heads: 2}"],
    "characters by lstm": ["inputs.characters={network: lstm, dimensions: 6, hidden: 4}"],
    "characters by gru": ["inputs.characters={network: gru, dimensions: 6, hidden: 4, dropout: 0.1}"],
    "no characters": ["inputs.characters=null"],
    "capitals": ["inputs.case.dimensions=3"],
    "capitals, no characters": ["inputs.case.dimensions=3", "inputs.characters=null"],
    "no words": ["inputs.words=null"],
    "a column": ["inputs.pos={kind: column, column: pos}"],
    "a column alone, attention": [
        "inputs.pos={kind: column, column: pos}",
        "inputs.words=null",
        "inputs.characters=null",
        "model.attention={kind: dot, dimensions: 8}",
    ],
    "a gazetteer": ["inputs.names={kind: gazetteer, files: names.txt}"],
    "softmax": ["model.decoder=softmax"],
    "constrained": ["model.decoder=constrained"],
    "crf, always constrained": ["model.decoder.constraints=always"],
    "crf without constraints": ["model.decoder.constraints=none"],
    "locked dropout": ["model.locked_dropout=true", "model.dropout=0.2", "model.encoder.layers=2"],
    "all at once": [
        "model.encoder={kind: cnn, hidden: 12, layers: 2}",
        "inputs.characters={network: gru, dimensions: 6, hidden: 4}",
        "inputs.case.dimensions=2",
        "inputs.pos={kind: column, column: pos, dropout: 0.1}",
        "inputs.names={kind: gazetteer, files: names.txt, dropout: 0.1}",
        "model.attention={kind: additive, dimensions: 8}",
        "model.decoder=constrained",
        "model.locked_dropout=true",
    ],
}


def document(tokens: Sequence[str], labels: Sequence[str] | None = None) -> Document:
    """Return a sentence in IOBES, with a column that says something of each token."""
    tags = tuple(f"{token[:1].isupper()}{len(token)}{token[-1:]}" for token in tokens)
    own = None if labels is None else tuple(convert(list(labels), Scheme.IOB2, Scheme.IOBES))
    return Document(tuple(tokens), labels=own, scheme=Scheme.IOBES, columns={"pos": tags})


def untrained(config: Config, sentences) -> Model:
    documents = [document(*sentence) for sentence in sentences]
    model = new_model(config, documents, Scheme.IOBES, Resources())
    model.network.eval()
    return model


def probabilities(model: Model, sentences: Sequence[Document]) -> tuple[list[list[str]], list[np.ndarray]]:
    """Return labels, and the probability of the label of each token."""
    result = Predictor(model).predict(sentences, probabilities=True)
    scores = [np.array([result.probability(i, t, t + 1) for t in range(len(s))]) for i, s in enumerate(sentences)]
    return result.labels, scores


@pytest.mark.parametrize("name", VARIANTS)
def test_three_sentences_are_learned_and_the_saved_model_gives_the_same_answer(
    name, tiny_config: Make, tiny_yaml, tiny_train, tiny_test, tmp_path
):
    (tiny_yaml.parent / "names.txt").write_text(
        "Ada Byron\tPER\nBabbage\tPER\nOslo\nNew Haven\n", encoding="utf-8"
    )
    steps = ["epochs=50", "patience=50", "schedule.decay=0"]
    config = tiny_config(*(f"training.{each}" for each in steps), "model.dropout=0", *VARIANTS[name])
    model = untrained(config, tiny_train[:3])
    documents = [document(*sentence) for sentence in tiny_train[:3]]
    labels = [list(each.labels) for each in documents]
    corpus = EncodedCorpus(model.inputs, documents, model.label_numbers)
    perfect = evaluate(labels, labels, Scheme.IOBES)  # which epoch is best does not matter here
    for _ in train(model.network, corpus, lambda: perfect, config.training):
        pass
    model.network.eval()
    for parameter in model.network.parameters():
        assert parameter.isfinite().all()
    result, scores = probabilities(model, documents)
    assert result == labels
    assert min(each.min() for each in scores) > 0.8

    save_bundle(model, tmp_path / "model")
    (tiny_yaml.parent / "names.txt").unlink()
    loaded = load_bundle(tmp_path / "model")
    more = [tokens for tokens, _ in tiny_test] + [["Ünseen", "WÖRDS", "\ud800", "…"], ["Oslo"]]
    sentences = [*documents, *map(document, more)]
    together, own = probabilities(loaded, sentences), probabilities(model, sentences)
    assert together[0] == own[0]
    for one, other in zip(together[1], own[1], strict=True):
        np.testing.assert_allclose(one, other, **CLOSE)
    for place, sentence in enumerate(sentences):
        alone = probabilities(loaded, [sentence])
        assert alone[0] == [together[0][place]]
        np.testing.assert_allclose(alone[1][0], together[1][place], **CLOSE)

    # As in training: forms of the batch alone, sentences of all lengths side by side.
    batch = whole(EncodedCorpus(loaded.inputs, sentences))
    with torch.no_grad():
        emissions = loaded.network(batch)
    best = loaded.network.decoder.best_labels(emissions, batch.layout).numpy()
    marginals = loaded.network.decoder.posterior(emissions, batch.layout).marginals().numpy()
    for place, sentence in enumerate(sentences):
        column = best[: len(sentence), place]
        names = [loaded.labels[label] for label in column]
        # A decoder without constraints may break the scheme, which predictions repair.
        assert convert(names, Scheme.IOBES, Scheme.IOBES) == together[0][place]
        np.testing.assert_allclose(marginals[np.arange(len(column)), place, column], together[1][place], **CLOSE)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "cnn"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_in_one_direction_a_token_sees_nothing_of_what_follows(kind, bidirectional):
    settings = {"kind": kind, "hidden": 9, "layers": 2, "bidirectional": bidirectional}
    settings |= {"width": 5} if kind == "cnn" else {}
    config = ModelConfig.model_validate({"encoder": settings}).encoder
    torch.manual_seed(1)
    encoder = initialized(build_encoder(config, 4, Dropout(0.0, Noise(1))))
    values, layout = torch.randn(12, 3, 4), layout_of(12, 12, 9)
    for place in range(1, 8):
        other = values.clone()
        other[place:] = torch.randn(12 - place, 3, 4)
        before, after = (encoder(each, layout)[place - 1].detach() for each in (values, other))
        assert bool((before - after).abs().max() < 1e-6) != bidirectional
    # What came before is seen, down to the first token.
    other = values.clone()
    other[0] += 1.0
    assert (encoder(values, layout)[8] != encoder(other, layout)[8]).any(-1).all()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_the_recurrent_encoder_is_torchs_over_packed_sentences(kind, layers):
    torch.manual_seed(1)
    encoder = initialized(
        RecurrentEncoder(RecurrentConfig(kind=kind, hidden=4, layers=layers), 5, Dropout(0.0, Noise(1)))
    )
    oracle = getattr(nn, kind.upper())(5, 4, layers, bidirectional=True)
    with torch.no_grad():
        for layer in range(layers):
            for direction, suffix in enumerate(("", "_reverse")):
                for part, ours in encoder.layers[layer][direction].cell.named_parameters():
                    nn.init.uniform_(ours, -1.0, 1.0)
                    getattr(oracle, f"{part.removesuffix('0')}{layer}{suffix}").copy_(ours)
    lengths = torch.tensor([3, 7, 1, 7, 5])
    layout = layout_of(*lengths.tolist())
    mask = layout.mask
    one, other = (values := torch.randn(7, 5, 5)).requires_grad_(), values.detach().clone().requires_grad_()
    packed = nn.utils.rnn.pack_padded_sequence(other, lengths, enforce_sorted=False)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(oracle(packed)[0])
    result = encoder(one, layout)
    torch.testing.assert_close(result[mask], wanted[mask], **CLOSE)
    weights = torch.randn(int(mask.sum()), 8)
    (result[mask] * weights).sum().backward()
    (wanted[mask] * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, **CLOSE)


@pytest.mark.parametrize("kind", ["gru", "cnn"])
def test_dropout_comes_between_layers_and_at_neither_end(kind):
    values, layout = torch.randn(6, 3, 4), layout_of(6, 6, 6)
    for layers in (1, 2):
        config = ModelConfig.model_validate({"encoder": {"kind": kind, "hidden": 40, "layers": layers}}).encoder
        encoder = initialized(build_encoder(config, 4, Dropout(0.5, Noise(1))))
        difference = (encoder(values, layout) - encoder.eval()(values, layout)).abs().max()
        assert bool(difference < 1e-6) == (layers == 1)


class TestConvolution:
    def oracle(self, layer: Convolution, values: Tensor, causal: bool) -> Tensor:
        """Run the layer over one sentence, (time, inputs), by torch's convolution."""
        filters, width = len(layer.taps.weight), layer.width
        kernel = layer.taps.weight.view(filters, width, -1).transpose(1, 2)
        span = (width - 1) * layer.dilation
        padded = nn.functional.pad(values.T, (span, 0) if causal else (span // 2, span // 2))
        return torch.relu(nn.functional.conv1d(padded, kernel, layer.taps.bias, dilation=layer.dilation).T)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize(("width", "dilation"), [(1, 1), (3, 1), (3, 4), (5, 2), (9, 64)])
    def test_it_is_torchs(self, width, dilation, causal):
        torch.manual_seed(1)
        layer = initialized(Convolution(4, 6, width, dilation, causal))
        nn.init.normal_(layer.taps.bias)
        values = torch.randn(11, 3, 4)
        result = layer(values)
        assert (result == 0).any() and (result > 0).any()
        for sentence in range(3):
            wanted = self.oracle(layer, values[:, sentence], causal)
            torch.testing.assert_close(result[:, sentence], wanted, **CLOSE)

    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_the_encoder_applies_its_block_again_and_again_to_each_sentence(self, bidirectional):
        torch.manual_seed(2)
        config = ConvolutionalConfig(
            kind="cnn", hidden=6, layers=3, dilations=(1, 2, 5), bidirectional=bidirectional
        )
        encoder = initialized(ConvolutionalEncoder(config, 4, Dropout(0.0, Noise(1))))
        for layer in (encoder.first, *encoder.block):
            nn.init.normal_(layer.taps.bias)  # or padding would stay 0 by itself
        lengths = [9, 2, 13, 1]
        values = torch.randn(13, 4, 4)
        result = encoder(values, layout_of(*lengths))
        for sentence, length in enumerate(lengths):
            wanted = values[:length, sentence]
            for layer in (encoder.first, *3 * list(encoder.block)):
                wanted = self.oracle(layer, wanted, not bidirectional)
            torch.testing.assert_close(result[:length, sentence], wanted, **CLOSE)


KINDS = ["dot", "scaled_dot", "additive", "multi_head"]


def attention(kind: str, dimensions: int, heads: int) -> AttentionConfig | MultiHeadConfig:
    if kind == "multi_head":
        return MultiHeadConfig(kind=kind, dimensions=dimensions, heads=heads)
    return AttentionConfig(kind=kind, dimensions=dimensions)


class TestAttention:
    LENGTHS = (5, 1, 8, 3)

    def build(self, kind: str, dimensions: int = 6, heads: int = 3) -> Attention:
        torch.manual_seed(3)
        layer = initialized(Attention(attention(kind, dimensions, heads), 6))
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        return layer

    def batch(self) -> tuple[Tensor, Layout]:
        torch.manual_seed(4)
        return torch.randn(max(self.LENGTHS), len(self.LENGTHS), 6), layout_of(*self.LENGTHS)

    def by_hand(self, layer: Attention, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute weights (heads, time, time) and results (time, size) of one sentence, term by term."""
        parts = {name: value.detach().double().numpy() for name, value in layer.state_dict().items()}

        def norm(rows: np.ndarray, name: str) -> np.ndarray:
            rows = rows - rows.mean(1, keepdims=True)
            rows /= np.sqrt((rows**2).mean(1, keepdims=True) + 1e-5)
            return rows * parts[f"{name}.weight"] + parts[f"{name}.bias"]

        normed = norm(states, "norm_before")
        queries, keys, values = (normed @ parts[f"{name}.weight"].T for name in ("queries", "keys", "values"))
        dimensions = queries.shape[1]
        heads = 3 if layer.kind == "multi_head" else 1
        all_weights, mixed = [], []
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
            mixed.append(weights @ values[:, own])
        added = np.concatenate(mixed, 1) @ parts["result.weight"].T + parts["result.bias"]
        return np.array(all_weights), states + norm(added, "norm_after")

    @pytest.mark.parametrize("kind", KINDS)
    def test_weights_and_results_are_those_worked_out_by_hand(self, kind):
        layer, (states, layout) = self.build(kind), self.batch()
        result, weights = layer(states, layout).detach(), layer.weights(states, layout).detach()
        assert weights.shape == (len(self.LENGTHS), 3 if kind == "multi_head" else 1, 8, 8)
        for sentence, length in enumerate(self.LENGTHS):
            wanted_weights, wanted = self.by_hand(layer, states[:length, sentence].double().numpy())
            own = weights[sentence, :, :length]
            np.testing.assert_allclose(own[..., :length], wanted_weights, atol=1e-5)
            np.testing.assert_allclose(result[:length, sentence], wanted, atol=2e-4)
            np.testing.assert_allclose(own.sum(-1), 1.0, atol=1e-6)
            assert (own[..., length:] == 0).all()

    @pytest.mark.parametrize("elements", [1, 8 * 4 * 6, 3 * 8 * 4 * 6])
    def test_additive_scores_in_pieces_are_those_of_the_whole(self, elements, monkeypatch):
        layer, (states, layout) = self.build("additive"), self.batch()
        results = []
        for most in (attention_module._ELEMENTS_AT_ONCE, elements):
            monkeypatch.setattr(attention_module, "_ELEMENTS_AT_ONCE", most)
            layer.zero_grad()
            result = layer(states, layout)[layout.mask]
            result.square().sum().backward()
            results.append([result.detach(), *(parameter.grad.clone() for parameter in layer.parameters())])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)

    def test_several_heads_are_torchs(self):
        layer, (states, layout) = self.build("multi_head"), self.batch()
        mask = layout.mask
        oracle = nn.MultiheadAttention(6, 3)
        with torch.no_grad():
            parts = [each.weight for each in (layer.queries, layer.keys, layer.values)]
            oracle.in_proj_weight.copy_(torch.cat(parts))
            oracle.in_proj_bias.zero_()
            oracle.out_proj.load_state_dict(layer.result.state_dict())
        normed = layer.norm_before(states)
        added, weights = oracle(normed, normed, normed, ~mask.T, average_attn_weights=False)
        torch.testing.assert_close(layer(states, layout)[mask], (states + layer.norm_after(added))[mask], **CLOSE)
        rows = mask.T.unsqueeze(1).expand(-1, 3, -1)
        torch.testing.assert_close(layer.weights(states, layout)[rows], weights[rows], **CLOSE)

    @pytest.mark.parametrize("kind", KINDS)
    def test_training_starts_near_the_network_without_it(self, kind):
        states, layout = self.batch()
        layer = initialized(Attention(attention(kind, 8, 2), 6))
        assert (layer(states, layout) - states).abs().max() < 0.3


class TestCharacterRNN:
    # On both sides of the boundaries between words that go together.
    LENGTHS = (1, 2, 4, 5, 8, 9, 16, 17, 32, 33, 40, 5, 1)

    def words(self) -> list[Tensor]:
        torch.manual_seed(5)
        return [torch.randint(1, 12, (length,)) for length in self.LENGTHS]

    def build(self, kind: str) -> CharacterRNN:
        torch.manual_seed(6)
        layer = initialized(CharacterRNN(12, 4, kind, 3, 40, 0.0, Noise(1)))
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
        result = self.run(layer, words)
        torch.testing.assert_close(result, wanted, **CLOSE)
        weights = torch.randn(result.shape)
        (result * weights).sum().backward()
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

    def test_the_boundary_which_stands_for_the_empty_form_gets_no_gradient(self):
        layer = self.build("gru")
        self.run(layer, [torch.tensor([0]), torch.tensor([3, 4])]).sum().backward()
        assert (layer.embedding.grad[0] == 0).all()
        assert (layer.embedding.grad[3:5] != 0).all()


def test_labels_that_the_scheme_forbids_are_repaired_so_that_what_is_scored_is_what_is_shown(
    tiny_config: Make, tiny_train
):
    model = untrained(tiny_config("model.decoder=softmax"), tiny_train)
    tokens = tiny_train[0][0]
    model.network.scores.bias.data[model.labels.index("I-ORG")] = 100.0
    predictions = Predictor(model).predict([document(tokens)])
    assert [model.labels[label] for label in predictions.tables.labels] == ["I-ORG"] * len(tokens)
    assert stray_positions(predictions.labels[0], Scheme.IOBES) == []
    tagged = next(Tagger(model).tag_tokens([tokens]))
    assert list(tagged.labels) == ["B-ORG"] + ["I-ORG"] * (len(tokens) - 1)
    assert [(each.start, each.end, each.label) for each in tagged.entities] == [(0, len(tagged.text), "ORG")]
    assert tagged.entities[0].score == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("setting", ["=constrained", ".constraints=decoding", ".constraints=always"])
def test_constrained_labels_follow_the_scheme_whatever_the_scores(tiny_config: Make, tiny_train, setting):
    model = untrained(tiny_config(f"model.decoder{setting}"), tiny_train)
    model.network.scores.bias.data[model.labels.index("I-ORG")] = 100.0
    predictions = Predictor(model).predict([document(tiny_train[0][0])])
    labels = [model.labels[label] for label in predictions.tables.labels]
    assert "I-ORG" in labels
    assert stray_positions(labels, Scheme.IOBES) == []


@pytest.mark.parametrize("network", ["lstm", "gru"])
def test_recurrent_characters_are_read_in_order_and_every_time(tiny_config: Make, tiny_train, network):
    own = f"inputs.characters={{network: {network}, dimensions: 6, hidden: 4}}"
    model = untrained(tiny_config(own), tiny_train)
    forms = model.new_forms()
    numbers = [forms[word] for word in ("xe", "ex", "xee", "xxe", "xeee")]  # all unknown: spelling alone differs
    vectors = in_inference(form_vectors, model.network, forms.drain())[numbers]
    assert len(vectors[:, -8:].unique(dim=0)) == 5
    assert (vectors[:, :-8] == vectors[0, :-8]).all()


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (
            ["model.encoder={kind: cnn, hidden: 9, layers: 2, dilations: [1, 4]}", "model.decoder=constrained"],
            [("encoder", "cnn, hidden 9, layers 2"), ("encoder", "dilations 1 4"), ("decoder", "constrained")],
        ),
        (
            ["model.encoder={kind: gru, hidden: 7, bidirectional: false}", "model.decoder=softmax"],
            [("encoder", "gru, hidden 7, layers 1, bidirectional no"), ("decoder", "softmax")],
        ),
        (
            ["model.encoder=none", "model.attention={kind: multi_head, dimensions: 8, heads: 2}"],
            [("encoder", "none"), ("attention", "multi_head, dimensions 8, heads 2")],
        ),
        (
            ["inputs.characters={network: lstm, hidden: 6}", "model.decoder.constraints=always"],
            [("input characters", " characters, lstm, 2 x 6 units"), ("decoder", "crf, constraints always")],
        ),
        (
            ["inputs.characters={network: cnn, filters: 7}", "inputs.case.dimensions=3"],
            [
                ("input words", " words, 12 dimensions"),
                ("input characters", " characters, 7 filters of width 3"),
                ("input case", "3 dimensions for capitals"),
            ],
        ),
        (
            ["inputs.characters=null", "inputs.pos={kind: column, column: pos, dimensions: 4}"],
            [("input pos", "column 'pos', "), ("input pos", " values, 4 dimensions")],
        ),
    ],
)
def test_info_says_what_the_network_is(tiny_config: Make, tiny_train, tmp_path, settings, lines):
    config = tiny_config(*settings)
    save_bundle(untrained(config, tiny_train), tmp_path)
    console = Console(file=io.StringIO(), width=200)
    show_model(tmp_path, console)
    shown = console.file.getvalue().splitlines()
    for name, text in lines:
        assert any(line.startswith(f"{name} ") and text in line for line in shown), (name, text, shown)
    assert any(line.startswith("attention") for line in shown) == (config.model.attention.kind != "none")
    assert any(line.startswith("input characters") for line in shown) == ("characters" in config.active_inputs)
