"""The CRF against an enumeration of all paths, and against pytorch-crf where there are too many of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torchcrf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nertool.model.crf import ConditionalRandomField, Constraints, Softmax
from nertool.text.schemes import Scheme, allowed_transitions

IOBES = ["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"]


@dataclass
class Case:
    """A decoder with a batch small enough to enumerate the paths of."""

    decoder: ConditionalRandomField
    constraints: Constraints | None
    emissions: Tensor  # (time, batch, labels)
    lengths: list[int]
    random: np.random.Generator

    @property
    def mask(self) -> Tensor:
        return torch.arange(len(self.emissions)).unsqueeze(1) < torch.tensor(self.lengths)

    def paths(self, sentence: int, constrained: bool) -> Tensor:
        """All label sequences of a sentence, or those that the constraints allow, (paths, length)."""
        found = all_paths(self.emissions.shape[-1], self.lengths[sentence])
        rules = self.constraints
        if constrained and rules is not None:
            steps = rules.transitions[found[:, :-1], found[:, 1:]].all(1)
            found = found[steps & rules.start[found[:, 0]] & rules.end[found[:, -1]]]
        return torch.from_numpy(found)

    def scores(self, sentence: int, paths: Tensor) -> Tensor:
        """The score of each path, differentiable, term by term as in Lafferty et al. (2001)."""
        crf = self.decoder
        total = crf.start_transitions[paths[:, 0]] + crf.end_transitions[paths[:, -1]]
        for t in range(paths.shape[1]):
            total = total + self.emissions[t, sentence, paths[:, t]]
            if t:
                total = total + crf.transitions[paths[:, t - 1], paths[:, t]]
        return total

    def gold(self, constrained: bool) -> Tensor:
        """Random label sequences, anything in the padding, (time, batch)."""
        time, batch, labels = self.emissions.shape
        gold = torch.from_numpy(self.random.integers(labels, size=(time, batch)))
        for sentence, length in enumerate(self.lengths):
            paths = self.paths(sentence, constrained)
            gold[:length, sentence] = paths[self.random.integers(len(paths))]
        return gold


@cache
def all_paths(labels: int, length: int) -> np.ndarray:
    """Every sequence of labels, (paths, length)."""
    return np.array(list(product(range(labels), repeat=length)))


def random_constraints(labels: int, random: np.random.Generator) -> Constraints:
    """Any constraints under which label 0, like O, may stand anywhere."""
    start, end = random.random(labels) < 0.6, random.random(labels) < 0.6
    transitions = random.random((labels, labels)) < 0.6
    start[0] = end[0] = transitions[0, 0] = True
    return Constraints(start, transitions, end)


def build(
    kind: type[ConditionalRandomField], labels: int, rules: Constraints | None, always: bool
) -> ConditionalRandomField:
    """A decoder; `always` is for the CRF alone."""
    return kind(labels, rules) if kind is Softmax else kind(labels, rules, always=always)


@st.composite
def cases(draw: st.DrawFn, kind: type[ConditionalRandomField] = ConditionalRandomField) -> Case:
    labels, time = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(1, time), min_size=1, max_size=3))
    constrained, always = draw(st.booleans()), draw(st.booleans())
    # Scale 0 makes all paths equally good; whole numbers make some of them so.
    scale, whole = draw(st.sampled_from([0.0, 1.0, 6.0])), draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def numbers(*shape: int) -> Tensor:
        values = scale * random.normal(size=shape)
        return torch.from_numpy(values.round() if whole else values)

    constraints = random_constraints(labels, random) if constrained else None
    decoder = build(kind, labels, constraints, always).double()
    if kind is ConditionalRandomField:
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.copy_(numbers(*parameter.shape))
    return Case(decoder, constraints, numbers(time, len(lengths), labels).requires_grad_(), lengths, random)


def check_loss(case: Case) -> None:
    always = case.decoder.always
    gold = case.gold(constrained=always)
    wanted = torch.zeros((), dtype=torch.float64)
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=always)
        right = case.scores(sentence, gold[:length, sentence].unsqueeze(0))
        wanted = wanted + case.scores(sentence, paths).logsumexp(0) - right.squeeze(0)
    found = case.decoder.loss(case.emissions, gold, case.mask)
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-8)
    inputs = [case.emissions, *(each for each in case.decoder.parameters() if each.requires_grad)]
    # A factor, because what the loss is part of need not hand back a gradient of 1.
    expected = torch.autograd.grad(3 * wanted, inputs, allow_unused=True, materialize_grads=True)
    actual = torch.autograd.grad(3 * found, inputs)
    torch.testing.assert_close(actual, expected, atol=1e-8, rtol=1e-8)


def check_posterior(case: Case) -> None:
    posterior = case.decoder.posterior(case.emissions, case.mask)
    partition, marginals = np.asarray(posterior.log_partition), np.asarray(posterior.marginals())
    labels = case.emissions.shape[-1]
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=True)
        scores = case.scores(sentence, paths).detach()
        assert partition[sentence] == pytest.approx(float(scores.logsumexp(0)), abs=1e-8)
        weights = scores.softmax(0)
        for t in range(length):
            wanted = torch.zeros(labels, dtype=torch.float64).index_add_(0, paths[:, t], weights)
            np.testing.assert_allclose(marginals[t, sentence], wanted.numpy(), atol=1e-9)
        assert (marginals[length:, sentence] == 0).all()


def check_spans(case: Case) -> None:
    """Every stretch of a label sequence, also of one that the constraints forbid, which has probability 0."""
    legal = bool(case.random.integers(2))
    labels = case.gold(constrained=legal)
    # Where a forbidden step (-1e9) stands before a stretch, the difference of the sums loses digits.
    tolerance = 1e-9 if legal else 1e-6
    posterior = case.decoder.posterior(case.emissions, case.mask)
    first, path, last = (np.asarray(table) for table in posterior.path_logs(labels.numpy()))
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=True)
        weights = case.scores(sentence, paths).detach().softmax(0)
        for start in range(length):
            for end in range(start, length):
                same = (paths[:, start : end + 1] == labels[start : end + 1, sentence]).all(1)
                log = first[start, sentence] + path[end, sentence] - path[start, sentence] + last[end, sentence]
                assert np.exp(log) == pytest.approx(float(weights[same].sum()), abs=tolerance)


def check_best(case: Case) -> None:
    best = case.decoder.best_labels(case.emissions, case.mask)
    assert best.shape == case.mask.shape
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=True)
        chosen = best[:length, sentence].unsqueeze(0)
        assert (paths == chosen).all(1).any(), "the constraints forbid this sequence"
        # Several sequences may be equally good, so scores are compared, not labels.
        top = float(case.scores(sentence, paths).detach().max())
        assert float(case.scores(sentence, chosen).detach()) == pytest.approx(top, abs=1e-9)
        assert (best[length:, sentence] == 0).all()


@given(cases())
def test_loss_and_gradients_equal_those_of_an_enumeration(case: Case):
    check_loss(case)


@given(cases())
def test_partition_and_marginals_equal_those_of_an_enumeration(case: Case):
    check_posterior(case)


@given(cases())
def test_span_probabilities_equal_those_of_an_enumeration(case: Case):
    check_spans(case)


@given(cases())
def test_the_best_path_has_the_highest_score_of_all(case: Case):
    check_best(case)


@settings(max_examples=50)
@given(cases(Softmax))
def test_softmax_is_the_crf_whose_transitions_are_zero(case: Case):
    check_loss(case)
    check_posterior(case)
    check_spans(case)
    check_best(case)


def ragged(seed: int, time: int = 40, batch: int = 16, labels: int = 17) -> tuple[Tensor, Tensor, Tensor]:
    """Emissions, labels and a mask of sentences of many lengths."""
    random = torch.Generator().manual_seed(seed)
    emissions = 3 * torch.randn(time, batch, labels, generator=random)
    gold = torch.randint(labels, (time, batch), generator=random)
    lengths = torch.randint(1, time + 1, (batch,), generator=random)
    lengths[0] = 1
    return emissions, gold, torch.arange(time).unsqueeze(1) < lengths


def with_random_transitions(decoder: ConditionalRandomField, seed: int, scale: float = 1.0):
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
    return decoder


@pytest.mark.parametrize("seed", range(3))
def test_loss_gradients_and_decoding_equal_those_of_pytorch_crf(seed):
    emissions, gold, mask = ragged(seed)
    crf = with_random_transitions(ConditionalRandomField(17), seed).double()
    oracle = torchcrf.CRF(17).double()
    oracle.load_state_dict(dict(crf.named_parameters()))
    one, other = (emissions.double().requires_grad_() for _ in range(2))
    loss, wanted = crf.loss(one, gold, mask), -oracle(other, gold, mask, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(one.grad, other.grad)
    for name, parameter in crf.named_parameters():
        torch.testing.assert_close(parameter.grad, oracle.get_parameter(name).grad)
    best = crf.best_labels(one, mask)
    found = [best[: int(column.sum()), i].tolist() for i, column in enumerate(mask.T)]
    assert found == oracle.decode(other, mask)


def test_single_precision_stays_close_to_double():
    emissions, gold, mask = ragged(7, time=120)
    crf = with_random_transitions(ConditionalRandomField(17), 7)
    single, double = emissions.clone().requires_grad_(), emissions.double().requires_grad_()
    loss = crf.loss(single, gold, mask)
    loss.backward()
    wanted = crf.double().loss(double, gold, mask)
    wanted.backward()
    assert (loss.dtype, single.grad.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_sentence_gets_the_same_from_the_decoder_alone_and_in_a_batch(constrained):
    rules = Constraints(*allowed_transitions(IOBES, Scheme.IOBES)) if constrained else None
    emissions, gold, mask = ragged(3, time=12, batch=8, labels=len(IOBES))
    crf = with_random_transitions(ConditionalRandomField(len(IOBES), rules), 3)
    marginals = np.asarray(crf.posterior(emissions, mask).marginals())
    best = crf.best_labels(emissions, mask)
    for sentence, length in enumerate(mask.sum(0).tolist()):
        own = slice(0, length), slice(sentence, sentence + 1)
        torch.testing.assert_close(crf.best_labels(emissions[own], mask[own]), best[own])
        alone = np.asarray(crf.posterior(emissions[own], mask[own]).marginals())
        np.testing.assert_allclose(alone, marginals[own], atol=1e-12)
    parts = [
        crf.loss(emissions[:length, i : i + 1], gold[:length, i : i + 1], mask[:length, i : i + 1])
        for i, length in enumerate(mask.sum(0).tolist())
    ]
    torch.testing.assert_close(crf.loss(emissions, gold, mask), torch.stack(parts).sum())


def test_what_stands_in_the_padding_changes_nothing():
    emissions, gold, mask = ragged(5)
    crf = with_random_transitions(ConditionalRandomField(17), 5)
    other = torch.where(mask.unsqueeze(-1), emissions, 1e4 * torch.randn_like(emissions)).requires_grad_()
    other_gold = torch.where(mask, gold, 16 - gold)
    loss = crf.loss(other, other_gold, mask)
    assert torch.equal(loss, crf.loss(emissions, gold, mask))
    loss.backward()
    assert (other.grad[~mask] == 0).all()
    assert torch.equal(crf.best_labels(other, mask), crf.best_labels(emissions, mask))
    one, two = (np.asarray(crf.posterior(each, mask).marginals()) for each in (other.detach(), emissions))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", [ConditionalRandomField, Softmax])
@pytest.mark.parametrize("constrained", [False, True])
def test_scores_of_300_stay_finite(kind, constrained):
    rules = Constraints(*allowed_transitions(IOBES, Scheme.IOBES)) if constrained else None
    for seed in range(10):
        emissions, gold, mask = ragged(seed, time=12, labels=len(IOBES))
        decoder = build(kind, len(IOBES), rules, constrained)
        if constrained:
            gold = decoder.best_labels(gold.unsqueeze(-1) == torch.arange(len(IOBES)), mask)
        elif kind is ConditionalRandomField:
            with_random_transitions(decoder, seed, scale=100.0)
        emissions = (300 * emissions.sign()).requires_grad_()
        loss = decoder.loss(emissions, gold, mask)
        loss.backward()
        assert loss.isfinite()
        assert -1e-3 <= float(loss.detach()) < 1e6
        for parameter in (emissions, *decoder.parameters()):
            assert parameter.grad is None or parameter.grad.isfinite().all()
        posterior = decoder.posterior(emissions, mask)
        marginals = np.asarray(posterior.marginals())
        assert np.isfinite(np.asarray(posterior.log_partition)).all()
        np.testing.assert_allclose(marginals.sum(-1), mask.numpy(), atol=1e-9)


def test_a_sentence_of_two_thousand_tokens_neither_overflows_nor_fades():
    emissions, gold, mask = ragged(11, time=2000, batch=2, labels=9)
    crf = with_random_transitions(ConditionalRandomField(9), 11)
    oracle = torchcrf.CRF(9).double()
    oracle.load_state_dict(dict(crf.named_parameters()))
    wanted = -oracle(emissions.double(), gold, mask, reduction="sum")
    torch.testing.assert_close(crf.loss(emissions, gold, mask).double(), wanted, rtol=1e-6, atol=1e-6)
    marginals = np.asarray(crf.posterior(emissions, mask).marginals())
    np.testing.assert_allclose(marginals.sum(-1), mask.numpy(), atol=1e-9)


def test_the_parameters_are_those_of_pytorch_crf():
    crf = ConditionalRandomField(4, Constraints(np.ones(4, bool), np.eye(4, dtype=bool), np.ones(4, bool)))
    shapes = {name: tuple(tensor.shape) for name, tensor in crf.named_parameters()}
    assert shapes == {"start_transitions": (4,), "end_transitions": (4,), "transitions": (4, 4)}


def test_softmax_without_constraints_labels_each_token_by_itself():
    emissions, gold, mask = ragged(2)
    softmax = Softmax(17)
    one, other = (emissions.clone().requires_grad_() for _ in range(2))
    loss = softmax.loss(one, gold, mask)
    wanted = torch.nn.functional.cross_entropy(other[mask], gold[mask], reduction="sum")
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(one.grad, other.grad)
    best = softmax.best_labels(emissions, mask)
    assert torch.equal(best[mask], emissions.argmax(-1)[mask])
    marginals = np.asarray(softmax.posterior(emissions, mask).marginals())
    probabilities = emissions.double().softmax(-1) * mask.unsqueeze(-1)
    np.testing.assert_allclose(marginals, probabilities.numpy(), atol=1e-9)
    assert not any(parameter.requires_grad or parameter.any() for parameter in softmax.parameters())


@pytest.mark.parametrize(
    ("kind", "always"), [(ConditionalRandomField, False), (ConditionalRandomField, True), (Softmax, False)]
)
def test_what_the_scheme_forbids_is_never_predicted(kind, always):
    rules = Constraints(*allowed_transitions(IOBES, Scheme.IOBES))
    decoder = build(kind, len(IOBES), rules, always)
    if kind is ConditionalRandomField:
        with_random_transitions(decoder, 1, scale=5.0)
    emissions, _, mask = ragged(1, time=30, batch=64, labels=len(IOBES))
    assert not legal(emissions.argmax(-1), mask, rules), "the constraints must have something to do"
    assert legal(decoder.best_labels(emissions, mask), mask, rules)
    marginals = np.asarray(decoder.posterior(emissions, mask).marginals())
    assert (marginals[0][:, ~rules.start] == 0).all()


def test_softmax_without_constraints_may_predict_what_the_scheme_forbids():
    rules = Constraints(*allowed_transitions(IOBES, Scheme.IOBES))
    emissions, _, mask = ragged(1, time=30, batch=64, labels=len(IOBES))
    assert not legal(Softmax(len(IOBES)).best_labels(emissions, mask), mask, rules)
    # I-X is the best label everywhere but no sequence may begin with it; B-X and E-X cost more than it brings.
    emissions = torch.zeros(3, 1, len(IOBES))
    emissions[..., IOBES.index("I-X")] = 2.0
    emissions[..., IOBES.index("O")] = 1.9
    mask = torch.ones(3, 1, dtype=torch.bool)
    free, bound = Softmax(len(IOBES)), Softmax(len(IOBES), rules)
    assert [IOBES[label] for label in free.best_labels(emissions, mask)[:, 0]] == ["I-X"] * 3
    assert [IOBES[label] for label in bound.best_labels(emissions, mask)[:, 0]] == ["O"] * 3


def legal(labels: Tensor, mask: Tensor, rules: Constraints) -> bool:
    """Whether all the label sequences are allowed."""
    return all(
        rules.start[row[0]] and rules.end[row[-1]] and all(rules.transitions[a, b] for a, b in pairwise(row))
        for row in (labels[:length, i].tolist() for i, length in enumerate(mask.sum(0).tolist()))
    )
