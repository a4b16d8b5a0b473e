"""Update rules, clipping and averaged weights, all of which leave untouched rows of sparse tables alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nertool.config.schema import TrainingConfig
from nertool.errors import DivergenceError, NertoolError
from nertool.model.concurrency import fork_safe
from nertool.model.network import Network
from nertool.training.distributed import ALONE, Group


class RowSGD(torch.optim.Optimizer):
    """SGD with momentum for tables with sparse gradients, lazy as `torch.optim.SparseAdam` is.

    The velocity of a row changes when a batch touches the row, and at no other time.

    Args:
        parameters: Tables with sparse gradients, whose row indices are unique.
        lr: Learning rate.
        momentum: Share of a row's velocity that its next update keeps.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the rows that have a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                rows, update = table.grad._indices()[0], table.grad._values()
                if group["momentum"]:
                    state = self.state[table]
                    if not state:
                        state["velocity"] = torch.zeros_like(table)
                    update = update.add(state["velocity"][rows], alpha=group["momentum"])
                    state["velocity"].index_copy_(0, rows, update)
                table.index_add_(0, rows, update, alpha=-group["lr"])


class Optimization:
    """Everything between a gradient and new weights, on the device that the network is on.

    On the CPU all parameters but the sparse tables are moved into one block of memory, of which they become parts:
    many small updates become one. Those with a learning rate of their own have a block each. Other devices update
    many tensors at once, and want the weights of a recurrent layer where they are. So the network must be where it
    is to be trained before this is made, and stay there.

    Args:
        network: Whose parameters are trained; parameters without `requires_grad` stay as they are.
        config: Update rule, first learning rate, clipping and averaging.
        group: The processes whose gradients are added up.
    """

    @fork_safe
    def __init__(self, network: Network, config: TrainingConfig, group: Group = ALONE) -> None:
        self._config = config
        self._group = group
        sparse = {id(table) for table in network.sparse_parameters()}
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._own_rates = network.own_rates()
        own = {id(parameter) for each in self._own_rates for parameter in each.parameters}
        self._tables = [parameter for parameter in trained if id(parameter) in sparse]
        # The parameters of each block, of which the first learns with the rate of the config.
        self._parts = [
            [parameter for parameter in trained if id(parameter) not in sparse | own],
            *(each.parameters for each in self._own_rates),
        ]
        self._dense = [parameter for part in self._parts for parameter in part]
        self._on_cpu = all(parameter.device.type == "cpu" for parameter in self._dense)
        blocks = [[_flatten(part)] if self._on_cpu else part for part in self._parts]
        self._blocks = [block for part in blocks for block in part]
        self._addresses = self._current_addresses()
        self._rules = _update_rules(blocks[0], self._tables, config)
        self._own_rules = [
            torch.optim.AdamW(part, each.learning_rate, weight_decay=0.0, fused=_may_fuse(part))
            for part, each in zip(blocks[1:], self._own_rates, strict=True)
        ]
        # The blocks that each rule updates, by its number; the rows of tables have a rule besides.
        self._updates = dict(enumerate(blocks[1:], len(self._rules))) | {0: blocks[0]}
        self._rules += self._own_rules
        self.average = Average(self._blocks, self._tables, config.averaging) if config.averaging else None

    def state(self) -> dict[str, Tensor]:
        """Return all that future steps depend on besides weights and settings, by name.

        The names and shapes are the same on every device; the tensors may be shared.
        """
        result: dict[str, Tensor] = {}
        for number, rule in enumerate(self._rules):
            states = rule.state_dict()["state"]
            if number in self._updates and states:
                states = {0: {name: _joined([states[n][name] for n in sorted(states)]) for name in states[0]}}
            for index, values in states.items():
                for name, value in values.items():
                    result[f"rule.{number}.{index}.{name}"] = torch.as_tensor(value)
        if self.average is not None:
            result |= {f"average.{name}": value for name, value in self.average.state().items()}
        return result

    @fork_safe
    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of the same network under the same settings.

        Raises:
            KeyError, RuntimeError, ValueError: The state is that of another network or of other settings.
        """
        rules: list[dict[int, dict[str, Any]]] = [{} for _ in self._rules]
        for key, value in state.items():
            kind, *path = key.split(".")
            if kind == "rule":
                number, index, name = path
                # SparseAdam counts its steps in a plain number, the others in a tensor.
                plain = isinstance(self._rules[int(number)], torch.optim.SparseAdam) and name == "step"
                parts = _parts(value, self._updates[int(number)]) if int(number) in self._updates else [value]
                for part, own in enumerate(parts, int(index)):
                    rules[int(number)].setdefault(part, {})[name] = int(own) if plain else own.clone()
        for rule, values in zip(self._rules, rules, strict=True):
            rule.load_state_dict({**rule.state_dict(), "state": values})
        if self.average is not None:
            self.average.restore({key.removeprefix("average."): value for key, value in state.items()})

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of future steps; weights with a rate of their own follow it in proportion."""
        for rule in self._rules:
            for group in rule.param_groups:
                group["lr"] = rate
        for own, rule in zip(self._own_rates, self._own_rules, strict=True):
            block = rule.param_groups[0]["params"][0]
            done = float(rule.state[block]["step"]) if block in rule.state else 0.0
            rising = min(1.0, (done + 1) / own.warmup) if own.warmup else 1.0
            for group in rule.param_groups:
                group["lr"] = own.learning_rate * rising * rate / self._config.learning_rate

    @fork_safe
    def step(self) -> float:
        """Clip the gradients, update the weights, and return the norm before clipping.

        Raises:
            DivergenceError: A gradient is not finite; the weights are as they were.
            NertoolError: The network was moved.
        """
        idle = self._group.size == 1 and all(each.grad is None for each in self._dense)
        if idle or self._addresses != self._current_addresses():
            raise NertoolError(
                "the parameters of the network are no longer those that are trained: it was moved or converted "
                "(`.to()`), its parameters were replaced, or no gradient was computed; make a new Optimization "
                "once the network is on its device"
            )
        for table in self._tables:
            if table.grad is not None:
                # Forms without a word of their own share the unknown row, which is then there several times.
                table.grad = table.grad.coalesce()
        # A parameter that had no part in the loss has no gradient; its part is filled with zeros.
        gradients = []
        for part in self._parts:
            values = [torch.zeros_like(p) if p.grad is None else p.grad for p in part]
            gradients += [_joined(values)] if self._on_cpu else values
        self._group.add_up(gradients, self._tables)
        for block, gradient in zip(self._blocks, gradients, strict=True):
            block.grad = gradient
        gradients += [table.grad._values() for table in self._tables if table.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        if not math.isfinite(norm):
            raise DivergenceError(f"training diverged: the norm of a gradient is {norm}")
        clip = self._config.clip
        if clip and self._config.clip_by == "value":
            for gradient in gradients:
                gradient.clamp_(-clip, clip)
        elif clip and norm > clip:
            torch._foreach_mul_(gradients, clip / norm)
        if self.average is not None:
            self.average.before_step()
        for rule in self._rules:
            rule.step()
        if self.average is not None:
            self.average.after_step()
        for parameter in (*self._dense, *self._tables):
            parameter.grad = None
        return norm

    def _current_addresses(self) -> list[int]:
        return [parameter.data_ptr() for parameter in (*self._dense, *self._tables)]


def _update_rules(
    blocks: Sequence[Tensor], tables: Sequence[Tensor], config: TrainingConfig
) -> list[torch.optim.Optimizer]:
    """Make the rule for the dense parameters, and one for the tables if there are any."""
    settings: Any = config.optimizer
    rate, fused = config.learning_rate, _may_fuse(blocks)
    dense: torch.optim.Optimizer
    rows: torch.optim.Optimizer | None = None
    if settings.kind == "sgd":
        momentum = settings.momentum
        dense = torch.optim.SGD(blocks, rate, momentum, weight_decay=settings.weight_decay, fused=fused)
        if tables:
            rows = RowSGD(tables, rate, momentum)
    else:
        kind = torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW
        dense = kind(blocks, rate, weight_decay=settings.weight_decay, fused=fused)
        if tables:
            rows = torch.optim.SparseAdam(tables, rate)
    return [dense] if rows is None else [dense, rows]


def _may_fuse(blocks: Sequence[Tensor]) -> bool:
    return all(block.device.type in ("cpu", "cuda") for block in blocks)


def _flatten(parameters: Sequence[Tensor]) -> Tensor:
    """Move parameters into one block of memory and return the block, itself a parameter, (elements,)."""
    block = _joined([parameter.detach() for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = block[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    return torch.nn.Parameter(block)


def _joined(values: Sequence[Tensor]) -> Tensor:
    """Put tensors one behind the other, (elements,); of counts of steps, which are all the same, return one."""
    if values[0].dim() == 0:
        return values[0]
    return torch.cat([value.reshape(-1) for value in values])


def _parts(value: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Undo `_joined`, for tensors of these shapes.

    Raises:
        RuntimeError: There are more elements, or fewer.
    """
    if value.dim() == 0:
        return [value] * len(like)
    pieces = torch.split(value, [each.numel() for each in like])
    return [piece.view(each.shape) for piece, each in zip(pieces, like, strict=True)]


class Average:
    """Exponential moving average of the weights (Polyak averaging), exact for sparse tables too.

    A row that no batch touches stays where it is while its average goes on towards it; that is made up for in
    closed form when the row is touched again, or when the average is read.

    Args:
        dense: Parameters that every step changes.
        tables: Parameters of which a step changes the rows in their sparse gradient.
        decay: Share of the average that a step keeps. Step t keeps (1 + t) / (10 + t) while that is less, so that
            the first weights, which are random, are soon forgotten.
    """

    def __init__(self, dense: Sequence[Tensor], tables: Sequence[Tensor], decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._log_kept = 0.0  # log of what is left of the weights at the start, after all steps so far
        self._dense, self._tables = list(dense), list(tables)
        self._means = [parameter.detach().clone() for parameter in dense]
        self._row_means = [table.detach().clone() for table in tables]
        self._row_logs = [
            # mps has no double precision
            torch.zeros(len(table), dtype=torch.float32 if table.is_mps else torch.float64, device=table.device)
            for table in tables
        ]

    def state(self) -> dict[str, Tensor]:
        """Return the averages and what they remember, by name; the tensors may be shared."""
        lists = {"means": [_joined(self._means)], "row_means": self._row_means, "row_logs": self._row_logs}
        result = {f"{name}-{n}": value for name, values in lists.items() for n, value in enumerate(values)}
        return {**result, "past": torch.tensor([self._steps, self._log_kept], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of the same parameters.

        Raises:
            KeyError, RuntimeError: The state is that of other parameters.
        """
        for mean, value in zip(self._means, _parts(state["means-0"], self._means), strict=True):
            mean.copy_(value)
        for name, values in {"row_means": self._row_means, "row_logs": self._row_logs}.items():
            for number, value in enumerate(values):
                value.copy_(state[f"{name}-{number}"])
        steps, self._log_kept = state["past"].tolist()
        self._steps = int(steps)

    @torch.no_grad()
    def before_step(self) -> None:
        """Bring the averages of the rows that are about to change up to date."""
        for table, means, logs in zip(self._tables, self._row_means, self._row_logs, strict=True):
            if table.grad is not None:
                self._catch_up(table, means, logs, table.grad._indices()[0])

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the new weights into the average."""
        kept = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        self._log_kept += math.log(kept)
        torch._foreach_lerp_(self._means, self._dense, 1.0 - kept)

    @fork_safe
    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights with their averages; a second call exchanges them back."""
        for table, means, logs in zip(self._tables, self._row_means, self._row_logs, strict=True):
            self._catch_up(table, means, logs, torch.arange(len(table), device=table.device))
        for parameter, mean in zip((*self._dense, *self._tables), (*self._means, *self._row_means), strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(kept)

    def _catch_up(self, table: Tensor, means: Tensor, logs: Tensor, rows: Tensor) -> None:
        weight = (1.0 - torch.exp(self._log_kept - logs[rows])).to(table.dtype).unsqueeze(1)
        means[rows] = torch.lerp(means[rows], table[rows], weight)
        logs[rows] = self._log_kept
