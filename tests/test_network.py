"""The layers and the network: nothing depends on padding or neighbours, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nertool.config.schema import Config, ModelConfig
from nertool.data.batching import Batch, EncodedCorpus, Forms
from nertool.data.vocabulary import Lexicon, build_lexicon
from nertool.evaluation.scores import evaluate
from nertool.model.concurrency import run_branches
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders.recurrent import RecurrentEncoder
from nertool.model.inputs.characters import CharacterCNN
from nertool.model.inputs.words import WordEmbedding
from nertool.model.network import Network, Sizes
from nertool.tagging.bundle import Model, build_network, load_bundle
from nertool.tagging.labeller import Labeller
from nertool.text.schemes import Scheme
from nertool.training.trainer import train

CLOSE = {"rtol": 0.0, "atol": 1e-5}
LABELS = 5


def small_lexicon(random: np.random.Generator) -> Lexicon:
    words = sorted({"".join(random.choice(list("abcdeF7é"), random.integers(1, 10))) for _ in range(60)})
    labels = [f"L{number}" for number in range(LABELS)]
    return Lexicon(words[::2], list("abcdeF7"), labels, Scheme.PLAIN)


def small_corpus(
    lengths: list[int], width: int = 3, seed: int = 1, *, distinct: bool = True
) -> tuple[EncodedCorpus, Lexicon]:
    """Random sentences of known and unknown words, with random labels."""
    random = np.random.default_rng(seed)
    lexicon = small_lexicon(random)
    pool = [*lexicon.words, "zz", "dabZ", "a" * 12, "éé"]
    sentences = [random.choice(pool, length).tolist() for length in lengths]
    labels = [random.choice(lexicon.labels, length).tolist() for length in lengths]
    numbers = {label: number for number, label in enumerate(lexicon.labels)}
    return EncodedCorpus(Forms(lexicon, width, 10, distinct=distinct), sentences, labels, numbers), lexicon


def small_network(lexicon: Lexicon, settings: dict | None = None, **options) -> Network:
    tree = {"dropout": 0.0, **(settings or {})}
    tree["characters"] = {"dimensions": 4, "filters": 6, "hidden": 3, **tree.get("characters", {})}
    tree["encoder"] = {"hidden": 7, **tree.get("encoder", {})}
    tree["attention"] = {"dimensions": 6, "heads": 2, **tree.get("attention", {})}
    sizes = Sizes(lexicon.row_count, 5, lexicon.kind_count, len(lexicon.labels))
    network = Network(sizes, ModelConfig.model_validate(tree), **options)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network.words.reset_parameters()
        # torchcrf starts its transitions near 0, where mistakes with them would hardly show.
        if network.decoder.transitions.requires_grad:
            for parameter in network.decoder.parameters():
                nn.init.normal_(parameter)
    return network


def over_padded(batch: Batch, steps: int) -> Batch:
    """The same batch with more padding, of anything at all."""
    columns = len(batch.sentences)
    forms = np.random.default_rng(0).integers(len(batch.rows), size=(steps, columns))
    return replace(
        batch,
        forms=np.concatenate((batch.forms, forms)),
        mask=np.concatenate((batch.mask, np.zeros((steps, columns), bool))),
        labels=np.concatenate((batch.labels, np.full((steps, columns), LABELS - 1))),
    )


def gradients(network: Network, batch: Batch) -> dict[str, Tensor]:
    """Gradients of the summed loss of a batch, all dense."""
    network.zero_grad()
    (network.loss(batch) * len(batch.sentences)).backward()
    return {
        name: parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


SHAPES = {
    "default": {},
    "two layers": {"encoder": {"layers": 2}},
    "one direction": {"encoder": {"bidirectional": False, "layers": 2}},
    "no characters": {"characters": {"kind": "none"}},
    "wide filters": {"characters": {"width": 5}},
    "softmax": {"decoder": "softmax"},
    "gru": {"encoder": {"kind": "gru", "layers": 2}},
    "rnn in one direction": {"encoder": {"kind": "rnn", "bidirectional": False}},
    "convolutions": {"encoder": {"kind": "cnn", "layers": 2, "dilations": [1, 3]}},
    "convolutions backwards": {"encoder": {"kind": "cnn", "bidirectional": False, "width": 5}},
    "no encoder": {"encoder": {"kind": "none"}},
    "dot": {"attention": {"kind": "dot"}},
    "scaled dot, no encoder": {"encoder": {"kind": "none"}, "attention": {"kind": "scaled_dot"}},
    "additive": {"attention": {"kind": "additive"}},
    "heads over convolutions": {"encoder": {"kind": "cnn"}, "attention": {"kind": "multi_head"}},
    "characters by lstm": {"characters": {"kind": "lstm"}},
    "characters by gru, capitals": {"characters": {"kind": "gru", "case_dimensions": 2}},
    "capitals alone": {"characters": {"kind": "none", "case_dimensions": 3}},
}


def shaped_corpus(name: str, lengths: list[int]) -> tuple[EncodedCorpus, Lexicon]:
    """A corpus spelled as the network of one of the `SHAPES` wants it."""
    characters = SHAPES[name].get("characters", {})
    if characters.get("kind", "cnn") == "cnn":
        return small_corpus(lengths, characters.get("width", 3))
    return small_corpus(lengths, 1, distinct=False)


@pytest.mark.parametrize("name", SHAPES)
def test_alone_batched_and_over_padded_are_the_same(name):
    corpus, lexicon = shaped_corpus(name, [4, 1, 7, 2, 7, 3])
    network = small_network(lexicon, SHAPES[name]).eval()
    batch = corpus.batch(np.arange(6))
    padded = over_padded(batch, 5)
    with torch.no_grad():
        together, beyond = network(batch), network(padded)
        for place, length in enumerate(corpus.lengths):
            alone = network(corpus.batch(np.array([place])))[:, 0]
            torch.testing.assert_close(together[:length, place], alone, **CLOSE)
            torch.testing.assert_close(beyond[:length, place], alone, **CLOSE)
    assert torch.equal(network.best_labels(padded)[:7], network.best_labels(batch))
    torch.testing.assert_close(network.loss(padded), network.loss(batch), **CLOSE)


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_the_gradient_of_a_padded_batch_is_the_sum_of_those_of_its_sentences(name, concurrent):
    corpus, lexicon = shaped_corpus(name, [4, 1, 6, 2])
    network = small_network(lexicon, SHAPES[name]).train()
    network.encoder.concurrent = concurrent
    singles = [gradients(network, corpus.batch(np.array([place]))) for place in range(4)]
    for batch in (corpus.batch(np.arange(4)), over_padded(corpus.batch(np.arange(4)), 3)):
        together = gradients(network, batch)
        assert together.keys() == {n for n, parameter in network.named_parameters() if parameter.requires_grad}
        for key, gradient in together.items():
            wanted = torch.stack([single[key] for single in singles]).sum(0)
            torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


def test_concurrent_directions_give_the_same_outputs_and_gradients():
    corpus, lexicon = small_corpus([5, 3, 8, 8])
    network = small_network(lexicon, {"encoder": {"layers": 2}, "dropout": 0.3}).train()
    batch = corpus.batch(np.arange(4))
    found = []
    for concurrent in (False, True):
        network.encoder.concurrent = concurrent
        network.noise.generator = Noise(3).generator
        scores = network(batch)
        network.noise.generator = Noise(3).generator
        found.append((scores.detach(), gradients(network, batch)))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


def test_frozen_word_vectors_without_characters_train_concurrently_too():
    corpus, lexicon = small_corpus([5, 3])
    settings = {"characters": {"kind": "none"}}
    network = small_network(lexicon, settings, train_words=False).train()
    network.encoder.concurrent = True
    found = gradients(network, corpus.batch(np.arange(2)))
    assert "words.weight" not in found
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


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
        found = run_branches(modules, inputs)
        torch.testing.assert_close(found, tuple(wanted))
        torch.testing.assert_close(derive(found), derive(wanted))

    def test_an_error_on_a_thread_is_raised(self):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            run_branches([nn.Linear(3, 2), nn.Linear(4, 2)], [torch.zeros(1, 3), torch.zeros(1, 3)])


@pytest.mark.parametrize("width", [1, 3, 5])
def test_the_character_cnn_is_a_convolution_over_padded_words_with_a_masked_maximum(width):
    # "aaaaaaa" has equal windows, so that its maximum is reached at several places.
    words = ["a", "ab", "aaaaaaa", "bcdefgh", "hg", "x?x", "fedcbabcdef"]
    lexicon = Lexicon([], list("abcdefgh"), ["O"], Scheme.PLAIN)
    forms = Forms(lexicon, width, 9)
    numbers = np.array([forms[word] for word in words])
    windows, lengths = (torch.from_numpy(table) for table in forms.drain().select(numbers))
    torch.manual_seed(3)
    cnn = CharacterCNN(lexicon.kind_count, 4, 6, width, 0.0, Noise(1))
    nn.init.normal_(cnn.bias)

    embedding = nn.Embedding(lexicon.kind_count, 4, padding_idx=0)
    convolution = nn.Conv1d(4, 6, width, padding=width // 2)
    with torch.no_grad():
        embedding.weight[1:] = cnn.embedding[1:]
        convolution.weight.copy_(cnn.kernel.permute(2, 1, 0))
        convolution.bias.copy_(cnn.bias)
    kinds = [[2 + "abcdefgh".index(c) if c in "abcdefgh" else 1 for c in word[:9]] for word in words]
    padded = nn.utils.rnn.pad_sequence([torch.tensor(each) for each in kinds], batch_first=True)
    inside = padded != 0
    values = convolution(embedding(padded).transpose(1, 2))  # (words, filters, characters)
    wanted = values.masked_fill(~inside.unsqueeze(1), -torch.inf).amax(-1).tanh()

    found = cnn(windows, lengths)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn(found.shape)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(cnn.embedding.grad, embedding.weight.grad)
    torch.testing.assert_close(cnn.kernel.grad, convolution.weight.grad.permute(2, 1, 0))
    torch.testing.assert_close(cnn.bias.grad, convolution.bias.grad)


def test_the_border_of_a_word_is_zero_whatever_its_row_holds_and_gets_no_gradient():
    corpus, lexicon = small_corpus([6, 2])
    network = small_network(lexicon)
    batch = corpus.batch(np.arange(2))
    before = network(batch)
    assert (gradients(network, batch)["characters.embedding"][0] == 0).all()
    with torch.no_grad():
        network.characters.embedding[0] = 100.0
    assert torch.equal(network(batch), before)


class TestDropout:
    def test_it_keeps_the_mean_and_scales_what_it_keeps(self):
        dropout = Dropout(0.3, Noise(1))
        values = dropout(torch.ones(400, 500))
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
        corpus, lexicon = small_corpus([1, 1])
        settings = {"encoder": {"kind": "none"}, "dropout": 0.5, "locked_dropout": locked}
        network = small_network(lexicon, settings).train()
        batch = corpus.batch(np.arange(2))
        steps = 5  # of one word again and again: only noise can tell them apart
        repeated = replace(batch, forms=batch.forms.repeat(steps, 0), mask=batch.mask.repeat(steps, 0))
        scores = network(repeated)
        assert bool((scores - scores[0]).abs().max() < 1e-6) == locked

    def test_between_layers_it_may_be_another(self):
        _, lexicon = small_corpus([1])
        for own, wanted in ((None, 0.5), (0.0, 0.0), (0.3, 0.3)):
            network = small_network(lexicon, {"dropout": 0.5, "encoder": {"layers": 2, "dropout": own}})
            found = [each.probability for each in (network.input_dropout, network.encoder.dropout)]
            assert [*found, network.output_dropout.probability] == [0.5, wanted, 0.5]

    def test_it_comes_before_and_after_the_encoder_and_between_its_layers(self):
        encoder = RecurrentEncoder(3, "lstm", 200, 2, True, Dropout(0.5, Noise(1)))
        values, mask = torch.rand(4, 6, 3), torch.ones(4, 6, dtype=torch.bool)
        assert not torch.equal(encoder(values, mask), encoder(values, mask))
        encoder.eval()
        assert torch.equal(encoder(values, mask), encoder(values, mask))


class TestNoise:
    def test_a_seed_has_one_stream(self):
        one, same, other = Noise(1), Noise(1), Noise(2)
        first = one.keep((3, 7), 0.5)
        assert (first == same.keep((3, 7), 0.5)).all()
        assert (one.keep((99,), 0.2) == same.keep((99,), 0.2)).all()
        assert (one.keep((3, 7), 0.5) != first).any()
        assert (other.keep((3, 7), 0.5) != first).any()

    @pytest.mark.parametrize("probability", [0.0, 0.02, 0.5, 0.9, 1.0])
    def test_the_share_that_is_kept(self, probability):
        kept = np.asarray(Noise(5).keep((300, 400), probability))
        assert kept.dtype == bool
        assert kept.shape == (300, 400)
        assert kept.mean() == pytest.approx(probability, abs=0.01)


class TestWordDropout:
    def test_a_hidden_word_is_an_unknown_word_with_its_own_spelling(self):
        corpus, lexicon = small_corpus([6, 4, 5])
        network = small_network(lexicon, word_dropout=1.0).train()
        batch = corpus.batch(np.arange(3))
        unknown = replace(batch, rows=np.zeros_like(batch.rows))
        torch.testing.assert_close(network(batch), network.eval()(unknown))

    def test_it_hides_its_share_of_the_tokens_and_nothing_else(self, monkeypatch):
        corpus, lexicon = small_corpus([30] * 40)
        network = small_network(lexicon, word_dropout=0.3)
        batch = corpus.batch(np.arange(40))
        seen = []
        monkeypatch.setattr(network, "encode", lambda inputs, mask: seen.append(inputs.detach()))
        network.train()(batch)
        network.eval()(batch)
        trained, plain = seen
        assert torch.equal(trained[..., 5:], plain[..., 5:]), "spellings are never hidden"
        same = (trained[..., :5] == plain[..., :5]).all(-1)
        unknown = (trained[..., :5] == network.words.weight[0]).all(-1)
        assert (same | unknown).all()
        known = torch.from_numpy(batch.rows[batch.forms] != 0)
        assert (~same)[known].float().mean() == pytest.approx(0.3, abs=0.05)

    def test_hidden_words_get_no_gradient_and_the_unknown_word_does(self):
        corpus, lexicon = small_corpus([6, 4])
        network = small_network(lexicon, word_dropout=1.0).train()
        gradient = gradients(network, corpus.batch(np.arange(2)))["words.weight"]
        assert (gradient[0] != 0).any()
        assert (gradient[1:] == 0).all()


class TestWords:
    def test_the_gradient_is_sparse_and_holds_the_rows_of_the_batch_alone(self):
        corpus, lexicon = small_corpus([6, 2, 4])
        network = small_network(lexicon)
        batch = corpus.batch(np.arange(3))
        network.loss(batch).backward()
        gradient = network.words.weight.grad
        assert gradient.is_sparse
        assert set(gradient.coalesce().indices()[0].tolist()) == set(batch.rows.tolist())
        assert gradient._indices().shape[1] <= len(batch.rows)
        assert len(batch.rows) < lexicon.row_count

    def test_the_gradient_equals_a_dense_one(self):
        words = WordEmbedding(9, 4, trainable=True)
        words.reset_parameters()
        dense = words.weight.detach().clone().requires_grad_()
        rows, weights = torch.tensor([3, 0, 8, 3]), torch.randn(4, 4)
        (words(rows) * weights).sum().backward()
        (dense[rows] * weights).sum().backward()
        torch.testing.assert_close(words.weight.grad.to_dense(), dense.grad)

    def test_vectors_that_are_not_trained_have_no_gradient(self):
        corpus, lexicon = small_corpus([3])
        network = small_network(lexicon, train_words=False)
        network.loss(corpus.batch(np.arange(1))).backward()
        assert network.words.weight.grad is None


@pytest.mark.parametrize(
    "name",
    ["default", "no characters", "characters by lstm", "characters by gru, capitals", "capitals alone"],
)
def test_form_vectors_are_what_the_network_computes_of_a_batch(name, monkeypatch):
    corpus, lexicon = shaped_corpus(name, [5, 2])
    network = small_network(lexicon, SHAPES[name]).eval()
    batch = corpus.batch(np.arange(2))
    seen = []
    monkeypatch.setattr(network, "encode", lambda inputs, mask: seen.append(inputs))
    network(batch)
    arrays = (batch.rows, batch.cases, batch.windows, batch.window_counts)
    vectors = network.form_vectors(*map(torch.from_numpy, arrays))
    torch.testing.assert_close(vectors[torch.from_numpy(batch.forms)], seen[0])


def test_the_loss_is_averaged_over_sentences_and_needs_labels():
    corpus, lexicon = small_corpus([5, 2])
    network = small_network(lexicon).eval()
    batch = corpus.batch(np.arange(2))
    singles = [network.loss(corpus.batch(np.array([place]))) for place in range(2)]
    torch.testing.assert_close(network.loss(batch), torch.stack(singles).mean())
    with pytest.raises(ValueError, match="no labels"):
        network.loss(replace(batch, labels=None))


def test_building_a_network_leaves_the_random_numbers_of_others_alone():
    _, lexicon = small_corpus([2])
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    sizes = Sizes(lexicon.row_count, 5, lexicon.kind_count, LABELS)
    one = Network(sizes, ModelConfig(), seed=5)
    assert torch.equal(torch.rand(3), wanted)
    same, other = Network(sizes, ModelConfig(), seed=5), Network(sizes, ModelConfig(), seed=6)
    weights = [dict(each.named_parameters())["scores.weight"] for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(tiny_config: Callable[..., Config], tiny_train, threads):
    def trained(seed: int) -> dict[str, Tensor]:
        config = tiny_config(
            f"training.seed={seed}", "training.epochs=3", "words.dropout=0.2", "model.dropout=0.5"
        )
        tokens, labels = zip(*tiny_train, strict=True)
        lexicon = build_lexicon(tokens, labels, Scheme.IOB2)
        network = build_network(config, lexicon, config.words.dimensions)
        torch.manual_seed(1)
        network.words.reset_parameters()
        torch.manual_seed(np.random.default_rng().integers(1000))  # nothing may depend on the global state
        numbers = {label: number for number, label in enumerate(lexicon.labels)}
        corpus = EncodedCorpus(Forms(lexicon, 3, 64), tokens, labels, numbers)
        for _ in train(network, corpus, lambda: evaluate(labels, labels, Scheme.IOB2), config.training):
            pass
        return dict(network.state_dict())

    one, same, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["scores.weight"], other["scores.weight"])


class TestLabeller:
    def sentences(self, tiny_train, tiny_test) -> list[list[str]]:
        tokens = [tokens for tokens, _ in [*tiny_train, *tiny_test]]
        return [[], *tokens, ["Oslo"], [], [f"word{number}" for number in range(40)]]

    def alone(self, model: Model, sentence: list[str]) -> tuple[list[str], np.ndarray]:
        """Labels of a sentence and the probability of each label, from a batch of one."""
        if not sentence:
            return [], np.zeros(0)
        corpus = EncodedCorpus(Forms(model.lexicon, 3, 64), [sentence])
        batch = corpus.batch(np.array([0]))
        best = np.asarray(model.network.best_labels(batch))[:, 0]
        marginals = np.asarray(model.network.posterior(batch).marginals())[:, 0]
        return [model.lexicon.labels[n] for n in best], marginals[np.arange(len(best)), best]

    @pytest.mark.parametrize("workers", [1, 3])
    def test_it_gives_what_the_network_gives_each_sentence(self, trained_run, tiny_train, tiny_test, workers):
        model = load_bundle(trained_run)
        sentences = self.sentences(tiny_train, tiny_test)
        before = torch.get_num_threads()
        torch.set_num_threads(workers)
        try:
            found = Labeller(model).label(sentences, probabilities=True)
            assert torch.get_num_threads() == workers
        finally:
            torch.set_num_threads(before)
        for place, sentence in enumerate(sentences):
            labels, probabilities = self.alone(model, sentence)
            assert found.labels[place] == labels
            own = [found.probability(place, t, t + 1) for t in range(len(sentence))]
            np.testing.assert_allclose(own, probabilities, atol=1e-5)

    def test_what_it_remembers_changes_nothing(self, trained_run, tiny_train, tiny_test, monkeypatch):
        model = load_bundle(trained_run)
        sentences = self.sentences(tiny_train, tiny_test)
        wanted = Labeller(model).label(sentences).labels
        monkeypatch.setattr("nertool.tagging.labeller.FORMS_KEPT", 20)  # so that it forgets, too
        labeller = Labeller(model)
        assert [labeller.label([sentence]).labels[0] for sentence in sentences * 2] == wanted * 2

    def test_a_span_is_as_probable_as_all_its_labels_together(self, trained_run, tiny_train):
        found = Labeller(load_bundle(trained_run)).label([tiny_train[0][0]], probabilities=True)
        pair = found.probability(0, 0, 2)
        assert 0 < pair <= min(found.probability(0, 0, 1), found.probability(0, 1, 2)) <= 1
        assert found.probability(0, 0, 9) <= pair

    def test_probabilities_must_be_asked_for(self, trained_run):
        with pytest.raises(ValueError, match="not asked for"):
            Labeller(load_bundle(trained_run)).label([["Oslo"]]).probability(0, 0, 1)
