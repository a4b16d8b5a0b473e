"""The CRF against an enumeration of all paths, and against pytorch-crf where there are too many of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torchcrf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from nertool.config.schema import CRFConfig, SoftmaxConfig
from nertool.model import crf as crf_module
from nertool.model.batch import Layout
from nertool.model.crf import ConditionalRandomField, Constraints, Decoder, Softmax, build_decoder
from nertool.text.schemes import Scheme, allowed_transitions

IOBES = ["O", "B-X", "I-X", "E-X", "S-X", "B-Y", "I-Y", "E-Y", "S-Y"]

# The arithmetic of the CPU, in numpy, and that of any other device, in torch.
both_paths = pytest.mark.parametrize("path", ["numpy", "torch"])


@contextmanager
def computed_in(path: str) -> Iterator[None]:
    """Compute as on the CPU, or as on another device."""
    with patch.object(crf_module, "_is_fast", lambda _: path == "numpy"):
        yield


@dataclass
class Case:
    """A decoder with a batch small enough to enumerate the paths of."""

    decoder: Decoder
    emissions: Tensor  # (time, batch, labels)
    lengths: list[int]
    random: np.random.Generator

    @property
    def layout(self) -> Layout:
        return Layout.of(np.array(self.lengths))

    def paths(self, sentence: int, constrained: bool) -> Tensor:
        """All label sequences of a sentence, or those that the constraints allow, (paths, length)."""
        paths = all_paths(self.emissions.shape[-1], self.lengths[sentence])
        rules = self.decoder.allowed
        if constrained and rules is not None:
            steps = rules.transitions[paths[:, :-1], paths[:, 1:]].all(1)
            paths = paths[steps & rules.start[paths[:, 0]] & rules.end[paths[:, -1]]]
        return torch.from_numpy(paths)

    def scores(self, sentence: int, paths: Tensor) -> Tensor:
        """The score of each path, differentiable, term by term as in Lafferty et al. (2001)."""
        start, transitions, end = self.decoder.scores(constrained=False)
        total = start[paths[:, 0]] + end[paths[:, -1]]
        for t in range(paths.shape[1]):
            total = total + self.emissions[t, sentence, paths[:, t]]
            if t:
                total = total + transitions[paths[:, t - 1], paths[:, t]]
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


def build(kind: type[Decoder], labels: int, rules: Constraints | None = None, always: bool = False) -> Decoder:
    """A decoder with its first weights; `always` is for the CRF alone."""
    decoder = Softmax(labels, rules) if kind is Softmax else ConditionalRandomField(labels, rules, always=always)
    decoder.initialize(torch.Generator().manual_seed(1))
    return decoder


@st.composite
def cases(draw: st.DrawFn, kind: type[Decoder] = ConditionalRandomField) -> Case:
    labels, lengths = draw(st.integers(1, 5)), draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    constrained, always = draw(st.booleans()), draw(st.booleans())
    # Scale 0 makes all paths equally good; whole numbers make some of them so.
    scale, whole = draw(st.sampled_from([0.0, 1.0, 6.0])), draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def numbers(*shape: int) -> Tensor:
        values = scale * random.normal(size=shape)
        return torch.from_numpy(values.round() if whole else values)

    decoder = build(kind, labels, random_constraints(labels, random) if constrained else None, always).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(numbers(*parameter.shape))
    return Case(decoder, numbers(max(lengths), len(lengths), labels).requires_grad_(), lengths, random)


def check_loss(case: Case, unknown: float = 0.0, several: float = 0.0) -> None:
    """The loss, with a share of the labels unknown, or known to be one of several: marginalized over."""
    always = getattr(case.decoder, "always", False)
    gold = case.gold(constrained=always)
    sets, allowed = None, nn.functional.one_hot(gold, case.emissions.shape[-1]).bool()
    if several:
        sets = torch.from_numpy(case.random.random((3, allowed.shape[-1])) < 0.5)
        for place in map(tuple, np.argwhere(case.random.random(gold.shape) < several)):
            fitting = torch.nonzero(sets[:, gold[place]]).flatten().tolist()  # those with the right label in them
            if fitting:
                gold[place] = -2 - case.random.choice(fitting)
                allowed[place] = sets[-2 - gold[place]]
    gold[torch.from_numpy(case.random.random(gold.shape) < unknown)] = -1
    allowed[gold == -1] = True
    wanted = torch.zeros((), dtype=torch.float64)
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=always)
        scores = case.scores(sentence, paths)
        right = allowed[torch.arange(length), sentence, paths].all(1)
        wanted = wanted + scores.logsumexp(0) - scores[right].logsumexp(0)
    loss = case.decoder.loss(case.emissions, gold, case.layout, sets=sets)
    torch.testing.assert_close(loss, wanted, atol=1e-8, rtol=1e-8)
    inputs = [case.emissions, *case.decoder.parameters()]
    # A factor, because what the loss is part of need not hand back a gradient of 1.
    expected = torch.autograd.grad(3 * wanted, inputs, allow_unused=True, materialize_grads=True)
    actual = torch.autograd.grad(3 * loss, inputs)
    torch.testing.assert_close(actual, expected, atol=1e-8, rtol=1e-8)
    if always or case.decoder.allowed is None:
        at_one = case.decoder.loss_at(1.0, case.emissions, gold, case.layout, sets)
        assert at_one == pytest.approx(float(wanted.detach()), abs=1e-8)


def check_posterior(case: Case) -> None:
    posterior = case.decoder.posterior(case.emissions, case.layout)
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
    posterior = case.decoder.posterior(case.emissions, case.layout)
    first, path, last = (np.asarray(table) for table in posterior.path_logs(labels))
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=True)
        weights = case.scores(sentence, paths).detach().softmax(0)
        for start in range(length):
            for end in range(start, length):
                same = (paths[:, start : end + 1] == labels[start : end + 1, sentence]).all(1)
                log = first[start, sentence] + path[end, sentence] - path[start, sentence] + last[end, sentence]
                assert np.exp(log) == pytest.approx(float(weights[same].sum()), abs=tolerance)


def check_best(case: Case) -> None:
    best = case.decoder.best_labels(case.emissions, case.layout)
    assert best.shape == case.layout.mask.shape
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=True)
        chosen = best[:length, sentence].unsqueeze(0)
        assert (paths == chosen).all(1).any(), "the constraints forbid this sequence"
        # Several sequences may be equally good, so scores are compared, not labels.
        top = float(case.scores(sentence, paths).detach().max())
        assert float(case.scores(sentence, chosen).detach()) == pytest.approx(top, abs=1e-9)
        assert (best[length:, sentence] == 0).all()


def check_sequences(case: Case) -> None:
    k = int(case.random.integers(1, 6))
    labels, probabilities = case.decoder.best_sequences(case.emissions, case.layout, k)
    assert labels.shape == (*case.layout.mask.shape, k)
    for sentence, length in enumerate(case.lengths):
        paths = case.paths(sentence, constrained=True)
        weights = case.scores(sentence, paths).detach().softmax(0)
        several = min(k, len(paths))
        wanted = weights.sort(descending=True).values[:several]
        torch.testing.assert_close(probabilities[sentence, :several], wanted, atol=1e-9, rtol=1e-7)
        assert not probabilities[sentence, several:].any()
        for rank in range(several):
            same = (paths == labels[:length, sentence, rank]).all(1)
            torch.testing.assert_close(weights[same], wanted[rank : rank + 1], atol=1e-9, rtol=1e-7)
        assert not labels[length:, sentence].any()


@both_paths
@given(case=cases(), unknown=st.sampled_from([0.0, 0.5, 1.0]))
def test_loss_and_gradients_equal_those_of_an_enumeration(path: str, case: Case, unknown: float):
    with computed_in(path):
        check_loss(case, unknown)


@both_paths
@given(case=cases())
def test_partition_and_marginals_equal_those_of_an_enumeration(path: str, case: Case):
    with computed_in(path):
        check_posterior(case)


@both_paths
@given(case=cases())
def test_span_probabilities_equal_those_of_an_enumeration(path: str, case: Case):
    with computed_in(path):
        check_spans(case)


@given(cases())
def test_the_best_path_has_the_highest_score_of_all(case: Case):
    check_best(case)


@both_paths
@given(case=cases())
def test_the_best_sequences_are_the_most_probable_of_an_enumeration(path: str, case: Case):
    with computed_in(path):
        check_sequences(case)


@both_paths
@settings(max_examples=50)
@given(case=cases(), unknown=st.sampled_from([0.0, 0.3]))
def test_labels_that_are_one_of_several_are_marginalized_over(path: str, case: Case, unknown: float):
    with computed_in(path):
        check_loss(case, unknown, several=0.7)


@both_paths
@settings(max_examples=50)
@given(case=cases(Softmax))
def test_softmax_is_the_crf_whose_transitions_are_zero(path: str, case: Case):
    with computed_in(path):
        check_loss(case)
        check_loss(case, unknown=0.3, several=0.7)
        check_posterior(case)
        check_spans(case)
        check_best(case)
        check_sequences(case)


def ragged(seed: int, time: int = 40, batch: int = 16, labels: int = 17) -> tuple[Tensor, Tensor, Layout]:
    """Emissions, labels and the layout of sentences of many lengths."""
    random = torch.Generator().manual_seed(seed)
    emissions = 3 * torch.randn(time, batch, labels, generator=random)
    gold = torch.randint(labels, (time, batch), generator=random)
    lengths = torch.randint(1, time + 1, (batch,), generator=random)
    lengths[0], lengths[1:2] = 1, time
    return emissions, gold, Layout.of(lengths.numpy())


def random_decoder(
    seed: int, labels: int = 17, rules: Constraints | None = None, *, always: bool = False, scale: float = 1.0
) -> ConditionalRandomField:
    decoder = ConditionalRandomField(labels, rules, always=always)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
    return decoder


def oracle_of(crf: ConditionalRandomField) -> torchcrf.CRF:
    oracle = torchcrf.CRF(crf.crf.num_tags).double()
    oracle.load_state_dict(crf.crf.state_dict())
    return oracle


def iobes() -> Constraints:
    return Constraints(*allowed_transitions(IOBES, Scheme.IOBES))


@both_paths
@pytest.mark.parametrize("seed", range(3))
def test_loss_gradients_and_decoding_equal_those_of_pytorch_crf(path, seed):
    emissions, gold, layout = ragged(seed)
    crf = random_decoder(seed).double()
    oracle = oracle_of(crf)
    one, other = (emissions.double().requires_grad_() for _ in range(2))
    with computed_in(path):
        loss = crf.loss(one, gold, layout)
    wanted = -oracle(other, gold, layout.mask, reduction="sum")
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(one.grad, other.grad)
    for name, parameter in crf.crf.named_parameters():
        torch.testing.assert_close(parameter.grad, oracle.get_parameter(name).grad)
    best = crf.best_labels(one, layout)
    rows = [best[:length, i].tolist() for i, length in enumerate(layout.lengths.tolist())]
    assert rows == oracle.decode(other, layout.mask)


@pytest.mark.parametrize("whole", [False, True], ids=["padded", "without padding"])
@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_both_paths_agree(whole, unknown):
    emissions, gold, layout = ragged(4)
    if whole:
        layout = Layout.of(np.full(16, 40))
    crf = random_decoder(4, rules=random_constraints(17, np.random.default_rng(4)))
    gold = crf.best_labels(nn.functional.one_hot(gold, 17).float(), layout)  # near it, and allowed
    gold[torch.rand(gold.shape, generator=torch.Generator().manual_seed(4)) < unknown] = -1
    results = []
    for path in ("numpy", "torch"):
        with computed_in(path):
            values = emissions.clone().requires_grad_()
            crf.zero_grad()
            loss = crf.loss(values, gold, layout)
            loss.backward()
            posterior = crf.posterior(values, layout)
            results.append(
                [
                    *(loss.detach(), values.grad, *(each.grad.clone() for each in crf.parameters())),
                    *(posterior.log_partition, posterior.marginals(), *posterior.path_logs(gold.clamp(min=0))),
                    *(
                        *crf.best_sequences(values, layout, 3),
                        torch.tensor(crf.loss_at(1.5, values, gold, layout)),
                    ),
                ]
            )
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


def test_a_device_without_double_precision_stays_close():
    emissions, gold, layout = ragged(6)
    crf = random_decoder(6, rules=random_constraints(17, np.random.default_rng(6)))

    def conversion(_: Tensor):
        return lambda values: values.detach().float()

    wanted = crf.posterior(emissions, layout)
    loss = crf.loss(emissions, gold, layout)
    with computed_in("torch"), patch.object(crf_module, "_conversion", conversion):
        posterior = crf.posterior(emissions, layout)
        torch.testing.assert_close(crf.loss(emissions, gold, layout), loss, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(posterior.log_partition.double(), wanted.log_partition, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(posterior.marginals().double(), wanted.marginals(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [ConditionalRandomField, Softmax])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])  # meta: also, nothing is left on the CPU
def test_no_step_waits_for_the_device(device, kind, constrained, padded):
    # Fake tensors know shapes and no values: asking for one is an error.
    decoder = build(kind, len(IOBES), iobes() if constrained else None)
    with FakeTensorMode():
        for module in decoder.modules():
            for name, parameter in module.named_parameters(recurse=False):
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=device))
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = torch.empty(buffer.shape, device=device)
        emissions = torch.empty(7, 3, len(IOBES), device=device, requires_grad=True)
        labels, lengths = (torch.empty(shape, dtype=torch.long, device=device) for shape in ((7, 3), (3,)))
        mask = torch.empty(7, 3, dtype=torch.bool, device=device)
        layout = Layout(mask, torch.empty_like(labels) if padded else None, lengths)
        posterior = decoder.posterior(emissions, layout)
        several, probabilities = decoder.best_sequences(emissions, layout, 4)
        sets = torch.empty(2, len(IOBES), dtype=torch.bool, device=device)
        decoder.loss(emissions, labels, layout, sets=sets).backward()
        loss = decoder.loss(emissions, labels, layout)
        loss.backward()
        results = [loss, emissions.grad, decoder.best_labels(emissions, layout)]
        results += [posterior.log_partition, posterior.marginals(), *posterior.path_logs(labels)]
        assert {each.device.type for each in (*results, several, probabilities)} == {device}
        assert several.shape == (7, 3, 4)


def test_single_precision_stays_close_to_double():
    emissions, gold, layout = ragged(7, time=120)
    crf = random_decoder(7)
    single, double = emissions.clone().requires_grad_(), emissions.double().requires_grad_()
    loss = crf.loss(single, gold, layout)
    loss.backward()
    wanted = crf.double().loss(double, gold, layout)
    wanted.backward()
    assert (loss.dtype, single.grad.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-6)


@both_paths
@pytest.mark.parametrize("constrained", [False, True])
def test_a_sentence_gets_the_same_from_the_decoder_alone_and_in_a_batch(path, constrained):
    emissions, gold, layout = ragged(3, time=12, batch=8, labels=len(IOBES))
    crf = random_decoder(3, len(IOBES), iobes() if constrained else None)
    with computed_in(path):
        marginals = crf.posterior(emissions, layout).marginals()
        best = crf.best_labels(emissions, layout)
        parts = []
        for sentence, length in enumerate(layout.lengths.tolist()):
            own = slice(0, length), slice(sentence, sentence + 1)
            alone = Layout.of(np.array([length]))
            torch.testing.assert_close(crf.best_labels(emissions[own], alone), best[own])
            torch.testing.assert_close(
                crf.posterior(emissions[own], alone).marginals(), marginals[own], atol=1e-12, rtol=1e-9
            )
            parts.append(crf.loss(emissions[own], gold[own], alone))
        torch.testing.assert_close(crf.loss(emissions, gold, layout), torch.stack(parts).sum())


@both_paths
def test_what_stands_in_the_padding_changes_nothing(path):
    emissions, gold, layout = ragged(5)
    crf = random_decoder(5)
    padding = ~layout.mask
    other = torch.where(padding.unsqueeze(-1), 1e4 * torch.randn_like(emissions), emissions).requires_grad_()
    other_gold = torch.where(padding, -1, gold)
    with computed_in(path):
        loss = crf.loss(other, other_gold, layout)
        assert torch.equal(loss, crf.loss(emissions, gold, layout))
        loss.backward()
        assert (other.grad[padding] == 0).all()
        assert torch.equal(crf.best_labels(other, layout), crf.best_labels(emissions, layout))
        one, two = (crf.posterior(each, layout).marginals() for each in (other.detach(), emissions))
        assert torch.equal(one, two)


@both_paths
@pytest.mark.parametrize("kind", [ConditionalRandomField, Softmax])
@pytest.mark.parametrize("constrained", [False, True])
def test_scores_of_300_stay_finite(path, kind, constrained):
    rules = iobes() if constrained else None
    for seed in range(10):
        emissions, gold, layout = ragged(seed, time=12, labels=len(IOBES))
        decoder = build(kind, len(IOBES), rules, constrained)
        if constrained:
            gold = decoder.best_labels((gold.unsqueeze(-1) == torch.arange(len(IOBES))).float(), layout)
        elif kind is ConditionalRandomField:
            decoder = random_decoder(seed, len(IOBES), scale=100.0)
        emissions = (300 * emissions.sign()).requires_grad_()
        with computed_in(path):
            loss = decoder.loss(emissions, gold, layout)
            posterior = decoder.posterior(emissions, layout)
        loss.backward()
        assert loss.isfinite()
        assert -1e-3 <= float(loss.detach()) < 1e6
        for parameter in (emissions, *decoder.parameters()):
            assert parameter.grad is None or parameter.grad.isfinite().all()
        assert posterior.log_partition.isfinite().all()
        torch.testing.assert_close(posterior.marginals().sum(-1), layout.mask.double(), atol=1e-9, rtol=0.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [math.inf, math.nan, 1e300])
@pytest.mark.parametrize("where", ["emissions", "transitions"])
def test_after_divergence_the_gradient_is_not_finite_and_numpy_is_silent(number, where):
    emissions, gold, layout = ragged(1, time=6, labels=5)
    emissions = emissions.double().requires_grad_()
    crf = random_decoder(1, 5).double()
    values = emissions if where == "emissions" else crf.crf.transitions
    with torch.no_grad():
        values[1] = number
    loss = crf.loss(emissions, gold, layout)
    loss.backward()
    gradients = [emissions.grad, *(parameter.grad for parameter in crf.parameters())]
    finite = all(bool(gradient.isfinite().all()) for gradient in (loss.detach(), *gradients))
    assert finite == math.isfinite(number)


def test_a_sentence_of_two_thousand_tokens_neither_overflows_nor_fades():
    emissions, gold, layout = ragged(11, time=2000, batch=2, labels=9)
    crf = random_decoder(11, 9)
    wanted = -oracle_of(crf)(emissions.double(), gold, layout.mask, reduction="sum")
    torch.testing.assert_close(crf.loss(emissions, gold, layout).double(), wanted, rtol=1e-6, atol=1e-6)
    marginals = crf.posterior(emissions, layout).marginals()
    torch.testing.assert_close(marginals.sum(-1), layout.mask.double(), atol=1e-9, rtol=0.0)


def test_the_parameters_are_those_of_pytorch_crf():
    crf = build(ConditionalRandomField, 4, Constraints(np.ones(4, bool), np.eye(4, dtype=bool), np.ones(4, bool)))
    shapes = {name: tuple(tensor.shape) for name, tensor in crf.named_parameters()}
    assert shapes == {"crf.start_transitions": (4,), "crf.end_transitions": (4,), "crf.transitions": (4, 4)}
    assert {*crf.state_dict()} == {*shapes, "temperature"}
    assert all(0 < parameter.abs().max() <= 0.1 for parameter in crf.parameters())
    assert not list(Softmax(4).parameters())
    assert {*Softmax(4).state_dict()} == {"temperature"}


def test_building_draws_no_random_numbers_and_equal_seeds_draw_equal_weights():
    before = torch.get_rng_state()
    one, other = build(ConditionalRandomField, 5), build(ConditionalRandomField, 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("kind", [ConditionalRandomField, Softmax])
def test_constraints_survive_the_meta_device_and_every_conversion(kind):
    weights = build(kind, len(IOBES), iobes())
    with torch.device("meta"):
        decoder = kind(len(IOBES), iobes())
    assert decoder.start_penalty.is_meta
    decoder.to_empty(device="cpu").load_state_dict(weights.state_dict())
    for each in (decoder, decoder.double(), decoder.float()):
        for one, other in zip(each.scores(constrained=True), weights.scores(constrained=True), strict=True):
            torch.testing.assert_close(one.float(), other, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("constraints", ["none", "decoding", "always"])
def test_a_config_says_where_the_constraints_of_the_crf_hold(constraints):
    crf = build_decoder(CRFConfig(constraints=constraints), len(IOBES), iobes())
    assert isinstance(crf, ConditionalRandomField)
    assert (crf.allowed is not None, crf.always) == (constraints != "none", constraints == "always")


@pytest.mark.parametrize("kind", ["softmax", "constrained"])
def test_a_config_says_whether_softmax_has_constraints(kind):
    softmax = build_decoder(SoftmaxConfig(kind=kind), len(IOBES), iobes())
    assert isinstance(softmax, Softmax)
    assert (softmax.allowed is not None) == (kind == "constrained")


def test_a_temperature_divides_all_scores_and_moves_no_best_sequence():
    emissions, gold, layout = ragged(8)
    hot, wanted = random_decoder(8), random_decoder(8)
    hot.temperature.fill_(2.0)
    with torch.no_grad():
        for parameter in wanted.parameters():
            parameter /= 2
    torch.testing.assert_close(
        hot.posterior(emissions, layout).marginals(), wanted.posterior(emissions / 2, layout).marginals()
    )
    assert torch.equal(hot.best_labels(emissions, layout), random_decoder(8).best_labels(emissions, layout))
    at_two = hot.loss_at(2.0, emissions, gold, layout)
    assert at_two == pytest.approx(float(wanted.loss(emissions / 2, gold, layout).detach()), rel=1e-5)


def test_softmax_without_constraints_labels_each_token_by_itself():
    emissions, gold, layout = ragged(2)
    softmax, mask = build(Softmax, 17), layout.mask
    one, other = (emissions.clone().requires_grad_() for _ in range(2))
    loss = softmax.loss(one, gold, layout)
    wanted = nn.functional.cross_entropy(other[mask], gold[mask], reduction="sum")
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(one.grad, other.grad)
    best = softmax.best_labels(emissions, layout)
    assert torch.equal(best[mask], emissions.argmax(-1)[mask])
    marginals = softmax.posterior(emissions, layout).marginals()
    probabilities = emissions.double().softmax(-1) * mask.unsqueeze(-1)
    torch.testing.assert_close(marginals, probabilities, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "always"), [(ConditionalRandomField, False), (ConditionalRandomField, True), (Softmax, False)]
)
def test_what_the_scheme_forbids_is_never_predicted(kind, always):
    rules = iobes()
    decoder = build(kind, len(IOBES), rules, always)
    if kind is ConditionalRandomField:
        decoder = random_decoder(1, len(IOBES), rules, always=always, scale=5.0)
    emissions, _, layout = ragged(1, time=30, batch=64, labels=len(IOBES))
    assert not legal(emissions.argmax(-1), layout, rules), "the constraints must have something to do"
    assert legal(decoder.best_labels(emissions, layout), layout, rules)
    marginals = decoder.posterior(emissions, layout).marginals()
    assert (marginals[0][:, torch.from_numpy(~rules.start)] == 0).all()


def test_softmax_without_constraints_may_predict_what_the_scheme_forbids():
    rules = iobes()
    emissions, _, layout = ragged(1, time=30, batch=64, labels=len(IOBES))
    free, bound = build(Softmax, len(IOBES)), build(Softmax, len(IOBES), rules)
    assert not legal(free.best_labels(emissions, layout), layout, rules)
    # I-X is the best label everywhere but no sequence may begin with it; B-X and E-X cost more than it brings.
    emissions = torch.zeros(3, 1, len(IOBES))
    emissions[..., IOBES.index("I-X")] = 2.0
    emissions[..., IOBES.index("O")] = 1.9
    layout = Layout.of(np.array([3]))
    assert [IOBES[label] for label in free.best_labels(emissions, layout)[:, 0]] == ["I-X"] * 3
    assert [IOBES[label] for label in bound.best_labels(emissions, layout)[:, 0]] == ["O"] * 3


def legal(labels: Tensor, layout: Layout, rules: Constraints) -> bool:
    """Whether all the label sequences are allowed."""
    return all(
        rules.start[row[0]] and rules.end[row[-1]] and all(rules.transitions[a, b] for a, b in pairwise(row))
        for row in (labels[:length, i].tolist() for i, length in enumerate(layout.lengths.tolist()))
    )
