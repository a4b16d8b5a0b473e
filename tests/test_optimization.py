"""Update rules, clipping and averaging on sparse word vectors, against the same on dense ones."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import encoded, small_model, whole
from torch import Tensor, nn

from nertool.config.schema import TrainingConfig
from nertool.errors import NertoolError
from nertool.training.optimization import Average, Optimization, RowSGD

ROWS = 6


class Small(nn.Module):
    """Two dense layers and two tables with sparse gradients, by the contract that Optimization knows."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(ROWS, 3)
        self.hidden = nn.Linear(3, 4)
        self.places = nn.Embedding(ROWS, 2)
        self.scores = nn.Linear(4, 3)

    def own_rates(self):
        return []

    def sparse_parameters(self) -> list[nn.Parameter]:
        return [self.words.weight, self.places.weight]


def small_network() -> Small:
    torch.manual_seed(1)
    return Small()


def training(kind: str = "sgd", **given: object) -> TrainingConfig:
    """Settings, those of the update rule among the others."""
    rule = {name: given.pop(name) for name in ("momentum", "weight_decay") if name in given}
    return TrainingConfig.model_validate({"optimizer": {"kind": kind, **rule}, **given})


def is_sparse(network: Small, parameter: Tensor) -> bool:
    return any(parameter is table for table in network.sparse_parameters())


def sparse(rows: list[int], values: Tensor, size: int = ROWS) -> Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, (size, values.shape[1]), check_invariants=True)


def give_gradients(network: Small, rows: list[int], scale: float = 1.0) -> None:
    """Random gradients, with these rows of the tables; a row may be there twice, as autograd leaves it."""
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        if is_sparse(network, parameter):
            parameter.grad = sparse(rows, scale * torch.randn(len(rows), parameter.shape[1]))
        else:
            parameter.grad = scale * torch.randn(parameter.shape)


def dense_copy(network: Small) -> Small:
    twin = copy.deepcopy(network)
    for parameter, other in zip(network.parameters(), twin.parameters(), strict=True):
        if parameter.grad is not None:
            other.grad = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad.clone()
    return twin


def copy_gradients(network: Small, twin: Small) -> None:
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            twin.get_parameter(name).grad = (
                parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad.clone()
            )


def assert_same_weights(network: Small, twin: Small) -> None:
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), msg=lambda m, n=name: f"{n}: {m}")


class TestRowSGD:
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_it_is_sgd_where_every_step_touches_every_row(self, momentum):
        torch.manual_seed(1)
        table = nn.Parameter(torch.randn(ROWS, 3))
        dense = nn.Parameter(table.detach().clone())
        rule, oracle = RowSGD([table], 0.1, momentum), torch.optim.SGD([dense], 0.1, momentum)
        for step in range(20):
            order = torch.randperm(ROWS)
            values = torch.randn(ROWS, 3)
            table.grad = sparse(order.tolist(), values)
            dense.grad = table.grad.to_dense()
            for group in (rule.param_groups[0], oracle.param_groups[0]):
                group["lr"] = 0.1 / (1 + step)
            rule.step()
            oracle.step()
            torch.testing.assert_close(table, dense)

    @given(st.lists(st.sets(st.integers(0, ROWS - 1), min_size=1), min_size=1, max_size=8), st.integers(0, 99))
    def test_a_row_moves_with_the_steps_that_touch_it_and_with_no_other(self, touched, seed):
        torch.manual_seed(seed)
        table = nn.Parameter(torch.randn(ROWS, 2))
        alone = [nn.Parameter(row.clone()) for row in table.detach()]
        rule = RowSGD([table], 0.1, 0.8)
        oracles = [torch.optim.SGD([row], 0.1, 0.8) for row in alone]
        for rows in touched:
            before = table.detach().clone()
            values = torch.randn(len(rows), 2)
            table.grad = sparse(sorted(rows), values)
            rule.step()
            for row, value in zip(sorted(rows), values, strict=True):
                alone[row].grad = value
                oracles[row].step()
            others = [row for row in range(ROWS) if row not in rows]
            assert torch.equal(table.detach()[others], before[others])
            torch.testing.assert_close(table.detach(), torch.stack([row.detach() for row in alone]))

    def test_a_table_without_a_gradient_stays(self):
        table = nn.Parameter(torch.randn(ROWS, 2))
        before = table.detach().clone()
        RowSGD([table], 0.1, 0.9).step()
        assert torch.equal(table, before)


class TestStep:
    @pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [5, 0, 3, 1, 0, 4, 0, 2, 3]], ids=["once", "repeated"])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_sgd_is_that_of_torch_on_dense_gradients(self, rows, momentum):
        # Rare words and hidden words share the row of unknown words, so a row may be in a gradient twice.
        network = small_network()
        twin = copy.deepcopy(network)
        optimization = Optimization(network, training(learning_rate=0.1, momentum=momentum, clip=3.0))
        oracle = torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], 0.1, momentum)
        for _ in range(6):
            give_gradients(network, rows)
            copy_gradients(network, twin)
            optimization.step()
            nn.utils.clip_grad_norm_(twin.parameters(), 3.0)
            oracle.step()
            assert_same_weights(network, twin)

    @pytest.mark.parametrize("rule", ["adam", "adamw"])
    def test_adam_is_that_of_torch(self, rule):
        network = small_network()
        twin = copy.deepcopy(network)
        settings = training(rule, learning_rate=0.1, clip=0.0, weight_decay=0.01)
        optimization = Optimization(network, settings)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[rule]
        dense = [parameter for parameter in twin.parameters() if not is_sparse(twin, parameter)]
        oracles = [kind(dense, 0.1, weight_decay=0.01), torch.optim.Adam(twin.sparse_parameters(), 0.1)]
        for _ in range(5):
            give_gradients(network, [2, 1, 0, 5, 4, 3, 0])
            copy_gradients(network, twin)
            optimization.step()
            for oracle in oracles:
                oracle.step()
            assert_same_weights(network, twin)

    @pytest.mark.parametrize("rule", ["sgd", "adam", "adamw"])
    def test_untouched_rows_stay_as_they_are_to_the_bit(self, rule):
        network = small_network()
        before = [table.detach().clone() for table in network.sparse_parameters()]
        optimization = Optimization(network, training(rule, learning_rate=0.1, weight_decay=0.1, averaging=0.9))
        for _ in range(3):
            give_gradients(network, [1, 4, 1])
            optimization.step()
        for table, old in zip(network.sparse_parameters(), before, strict=True):
            assert torch.equal(table[[0, 2, 3, 5]], old[[0, 2, 3, 5]])
            assert (table[[1, 4]] != old[[1, 4]]).all()

    def test_weight_decay_spares_the_tables(self):
        network = small_network()
        before = copy.deepcopy(network)
        optimization = Optimization(network, training(learning_rate=0.1, weight_decay=0.5, momentum=0.0))
        give_gradients(network, [0, 1], scale=0.0)
        optimization.step()
        assert torch.equal(network.words.weight, before.words.weight)
        assert torch.equal(network.places.weight, before.places.weight)
        torch.testing.assert_close(network.scores.weight, 0.95 * before.scores.weight)

    def test_frozen_parameters_stay(self):
        network = small_network()
        frozen = [network.words.weight.requires_grad_(False), network.hidden.bias.requires_grad_(False)]
        before = [parameter.clone() for parameter in frozen]
        optimization = Optimization(network, training(averaging=0.5))
        give_gradients(network, [2])
        optimization.step()
        assert optimization.average is not None
        optimization.average.swap()
        assert all(map(torch.equal, frozen, before))

    @pytest.mark.parametrize("rule", ["sgd", "adam"])
    def test_a_restored_state_goes_on_to_the_same_weights(self, rule):
        settings = training(rule, learning_rate=0.1, averaging=0.9)
        network = small_network()
        optimization = Optimization(network, settings)
        for rows in ([1, 4], [4, 0, 4]):
            give_gradients(network, rows)
            optimization.step()
        twin = copy.deepcopy(network)
        other = Optimization(twin, settings)
        other.restore({name: value.clone() for name, value in optimization.state().items()})
        for rows in ([2, 4], [1]):
            give_gradients(network, rows)
            for parameter, same in zip(network.parameters(), twin.parameters(), strict=True):
                same.grad = parameter.grad.clone()
            optimization.step()
            other.step()
        for one in (optimization.average, other.average):
            one.swap()
        assert all(map(torch.equal, network.parameters(), twin.parameters()))

    @pytest.mark.parametrize(
        "move", [nn.Module.double, lambda network: network.to("meta")], ids=["double", "meta"]
    )
    def test_a_network_that_was_moved_is_refused(self, move):
        network = small_network()
        optimization = Optimization(network, training())
        move(network)
        with pytest.raises(NertoolError, match="make a new Optimization"):
            optimization.step()

    def test_replaced_parameters_are_refused(self):
        network = small_network()
        optimization = Optimization(network, training())
        network.load_state_dict(small_network().state_dict(), assign=True)
        give_gradients(network, [1])
        with pytest.raises(NertoolError, match="make a new Optimization"):
            optimization.step()

    def test_the_tables_of_a_real_network_are_those_that_it_names(self):
        model = small_model()
        batch, network = whole(encoded(model, [3, 5])), model.network
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        optimization = Optimization(network, training(learning_rate=0.1))
        network.loss(batch).backward()
        (table,) = network.sparse_parameters()
        touched = table.grad.coalesce().indices()[0]
        optimization.step()
        assert 0 < len(touched) < len(table)
        for name, parameter in network.named_parameters():
            assert (parameter != before[name]).any(), name
            if parameter is table:
                changed = (parameter != before[name]).any(1).nonzero()[:, 0]
                assert set(changed.tolist()) <= set(touched.tolist())

    def test_gradients_are_gone_after_the_step(self):
        network = small_network()
        optimization = Optimization(network, training())
        give_gradients(network, [1])
        optimization.step()
        assert all(parameter.grad is None for parameter in network.parameters())

    @pytest.mark.parametrize("rule", ["sgd", "adam"])
    def test_a_rate_that_is_set_is_that_of_all_weights(self, rule):
        settings = training(rule, learning_rate=0.2, **({"momentum": 0.0} if rule == "sgd" else {}))
        network = small_network()
        optimization = Optimization(network, settings)
        optimization.set_rate(0.1)
        before = copy.deepcopy(network)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter) / 100
        for table in network.sparse_parameters():
            table.grad = sparse([3], torch.ones(1, table.shape[1]) / 100)
        optimization.step()
        step = 0.1 / 100 if rule == "sgd" else 0.1  # the first step of Adam is as long as its rate
        torch.testing.assert_close(before.scores.weight - network.scores.weight, torch.full((3, 4), step))
        torch.testing.assert_close((before.words.weight - network.words.weight)[3], torch.full((3,), step))


class TestClipping:
    @pytest.mark.parametrize("rows", [[1, 4], [0, 3, 0, 0, 3]], ids=["once", "repeated"])
    @pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
    def test_it_is_that_of_torch_on_dense_gradients(self, scale, rows):
        network = small_network()
        before = copy.deepcopy(network)
        optimization = Optimization(network, training(learning_rate=1.0, momentum=0.0, clip=2.0))
        give_gradients(network, rows, scale)
        twin = dense_copy(network)
        wanted = nn.utils.clip_grad_norm_(twin.parameters(), 2.0)
        assert optimization.step() == pytest.approx(float(wanted), rel=1e-5)
        for name, parameter in network.named_parameters():
            taken = before.get_parameter(name) - parameter
            torch.testing.assert_close(taken, twin.get_parameter(name).grad, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("rows", [[1, 4], [0, 3, 0, 0, 3]], ids=["once", "repeated"])
    @pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
    def test_by_value_it_is_that_of_torch_too(self, scale, rows):
        network = small_network()
        before = copy.deepcopy(network)
        settings = training(learning_rate=1.0, momentum=0.0, clip=0.5, clip_by="value")
        optimization = Optimization(network, settings)
        give_gradients(network, rows, scale)
        twin = dense_copy(network)
        norm = nn.utils.clip_grad_norm_(twin.parameters(), float("inf"))
        nn.utils.clip_grad_value_(twin.parameters(), 0.5)
        assert optimization.step() == pytest.approx(float(norm), rel=1e-5), "told as it was before"
        for name, parameter in network.named_parameters():
            taken = before.get_parameter(name) - parameter
            torch.testing.assert_close(taken, twin.get_parameter(name).grad, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("way", ["norm", "value"])
    def test_zero_means_no_limit(self, way):
        network = small_network()
        before = network.scores.weight.detach().clone()
        settings = training(learning_rate=1.0, momentum=0.0, clip=0.0, clip_by=way)
        optimization = Optimization(network, settings)
        give_gradients(network, [2], 1000.0)
        gradient = network.scores.weight.grad
        assert optimization.step() > 1000.0
        torch.testing.assert_close(network.scores.weight, before - gradient)


def kept(step: int, decay: float) -> float:
    """Share of the average that a step, counted from 0, keeps: the first steps forget the start."""
    return min(decay, (1 + step) / (10 + step))


touches = st.one_of(st.just("swap"), st.sets(st.integers(0, ROWS - 1)))


class TestAverage:
    @settings(max_examples=50)
    @given(st.lists(touches, max_size=25), st.sampled_from([0.2, 0.5, 0.999]), st.integers(0, 99))
    def test_it_is_the_average_of_all_weights_at_all_steps(self, events, decay, seed):
        torch.manual_seed(seed)
        dense = nn.Parameter(torch.randn(4, dtype=torch.float64))
        table = nn.Parameter(torch.randn(ROWS, 2, dtype=torch.float64))
        average = Average([dense], [table], decay)
        means = [each.detach().clone() for each in (dense, table)]
        steps = 0
        for event in [*events, "swap"]:
            if event == "swap":
                weights = [each.detach().clone() for each in (dense, table)]
                average.swap()
                torch.testing.assert_close([dense.detach(), table.detach()], means)
                average.swap()
                assert torch.equal(dense, weights[0])
                assert torch.equal(table, weights[1])
                continue
            rows = sorted(event)
            table.grad = sparse(rows, torch.randn(len(rows), 2, dtype=torch.float64)) if rows else None
            average.before_step()
            with torch.no_grad():
                dense.sub_(torch.randn(4, dtype=torch.float64))
                if rows:
                    table.sub_(table.grad.to_dense())
            average.after_step()
            share = kept(steps, decay)
            means = [share * m + (1 - share) * w.detach() for m, w in zip(means, (dense, table), strict=True)]
            steps += 1

    def test_single_precision_keeps_up_over_a_thousand_steps(self):
        torch.manual_seed(1)
        table = nn.Parameter(torch.randn(ROWS, 2))
        average = Average([nn.Parameter(torch.zeros(1))], [table], 0.99)
        mean = table.detach().double()
        for step in range(1000):
            rows = [step % 5] if step % 3 else [0, 4]  # the last row is never touched
            table.grad = sparse(rows, 0.1 * torch.randn(len(rows), 2))
            average.before_step()
            with torch.no_grad():
                table.sub_(table.grad.to_dense())
            average.after_step()
            mean = torch.lerp(table.detach().double(), mean, kept(step, 0.99))
        average.swap()
        torch.testing.assert_close(table.detach().double(), mean, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("rule", ["sgd", "adam"])
    def test_an_optimization_averages_what_it_steps(self, rule):
        network = small_network()
        settings = training(rule, learning_rate=0.1, averaging=0.3)
        optimization = Optimization(network, settings)
        means = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        for step in range(7):
            give_gradients(network, [step % 4, 0, 5, 0])
            optimization.step()
            for name, parameter in network.named_parameters():
                means[name] = torch.lerp(parameter.detach(), means[name], kept(step, 0.3))
        assert optimization.average is not None
        optimization.average.swap()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.detach(), means[name])
