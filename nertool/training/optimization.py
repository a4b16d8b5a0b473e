"""Update rules, gradient clipping and averaged weights, all of which leave untouched word vectors alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from nertool.config.schema import TrainingConfig
from nertool.errors import NertoolError
from nertool.model.network import Network


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
        """Updates the rows that have a gradient."""
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
    """Everything that happens between a gradient and new weights.

    All parameters but the word table are moved into one row of memory, of which they become parts: a dozen
    small updates become one.

    Args:
        network: Whose parameters are trained; parameters without `requires_grad` stay as they are.
        config: Rule, first learning rate, clipping and averaging.
    """

    def __init__(self, network: Network, config: TrainingConfig) -> None:
        self._config = config
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._tables = [parameter for parameter in trained if parameter is network.words.weight]
        self._dense = [parameter for parameter in trained if parameter is not network.words.weight]
        self._flat = _flatten(self._dense)
        rate, tables = config.learning_rate, self._tables
        self._rules: list[torch.optim.Optimizer] = []
        if config.optimizer == "sgd":
            self._rules.append(
                torch.optim.SGD([self._flat], rate, config.momentum, weight_decay=config.weight_decay, fused=True)
            )
        else:
            kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
            self._rules.append(kind([self._flat], rate, weight_decay=config.weight_decay, fused=True))
        if tables:
            self._rules.append(
                RowSGD(tables, rate, config.momentum)
                if config.optimizer == "sgd"
                else torch.optim.SparseAdam(tables, rate)
            )
        self.average = Average([self._flat], tables, config.averaging) if config.averaging else None

    def state(self) -> dict[str, Tensor]:
        """All that the steps to come depend on besides weights and settings, by name; the tensors are shared."""
        found: dict[str, Tensor] = {}
        for number, rule in enumerate(self._rules):
            for place, values in rule.state_dict()["state"].items():
                for name, value in values.items():
                    found[f"rule.{number}.{place}.{name}"] = torch.as_tensor(value)
        if self.average is not None:
            found |= {f"average.{name}": value for name, value in self.average.state().items()}
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state of the same network under the same settings.

        Raises:
            KeyError, RuntimeError, ValueError: It is a state of others.
        """
        rules: list[dict[int, dict[str, Any]]] = [{} for _ in self._rules]
        for key, value in state.items():
            kind, *path = key.split(".")
            if kind == "rule":
                number, place, name = path
                # SparseAdam counts its steps in a plain number, the others in a tensor.
                plain = isinstance(self._rules[int(number)], torch.optim.SparseAdam) and name == "step"
                rules[int(number)].setdefault(int(place), {})[name] = int(value) if plain else value.clone()
        for rule, values in zip(self._rules, rules, strict=True):
            rule.load_state_dict({**rule.state_dict(), "state": values})
        if self.average is not None:
            self.average.restore({key.removeprefix("average."): value for key, value in state.items()})

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the steps to come."""
        for rule in self._rules:
            for group in rule.param_groups:
                group["lr"] = rate

    def step(self) -> float:
        """Clips the gradients, updates the weights, and returns the norm before clipping.

        Raises:
            NertoolError: A gradient is not finite; the weights are as they were.
        """
        for table in self._tables:
            if table.grad is not None:
                # Forms without a word of their own share the unknown row, which then stands there repeatedly.
                table.grad = table.grad.coalesce()
        # A parameter that had no part in the loss has no gradient; its place is filled with zeros.
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._dense]
        self._flat.grad = torch.cat([part.reshape(-1) for part in parts])
        gradients = [self._flat.grad, *(table.grad._values() for table in self._tables if table.grad is not None)]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients]))
        if not torch.isfinite(norm):
            raise NertoolError(
                f"training diverged: the norm of a gradient is {float(norm)}; "
                "try a smaller training.learning_rate or training.clip"
            )
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
        return float(norm)


def _flatten(parameters: Sequence[Tensor]) -> Tensor:
    """Moves parameters into one row of memory and returns that row, itself a parameter."""
    row = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = row[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    return torch.nn.Parameter(row)


class Average:
    """Exponential moving average of the weights (Polyak averaging), exact for word vectors too.

    A row that no batch touches stays where it is while its average goes on towards it; that is made up for
    in closed form when the row is touched again, or when the average is read.

    Args:
        dense: Parameters that every step changes.
        tables: Parameters of which a step changes the rows in their sparse gradient.
        decay: Share of the average that a step keeps. Step t keeps (1 + t) / (10 + t) while that is less, so
            that the first weights, which are random, are soon forgotten.
    """

    def __init__(self, dense: Sequence[Tensor], tables: Sequence[Tensor], decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._log_kept = 0.0  # log of what is left of the weights at the start, after all steps so far
        self._dense, self._tables = list(dense), list(tables)
        self._means = [parameter.detach().clone() for parameter in dense]
        self._row_means = [table.detach().clone() for table in tables]
        self._row_logs = [torch.zeros(len(table), dtype=torch.float64) for table in tables]

    def state(self) -> dict[str, Tensor]:
        """The averages and what they remember, by name; the tensors are shared."""
        lists = {"means": self._means, "row_means": self._row_means, "row_logs": self._row_logs}
        found = {f"{name}-{n}": value for name, values in lists.items() for n, value in enumerate(values)}
        return {**found, "past": torch.tensor([self._steps, self._log_kept], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state of the same parameters; raises KeyError or RuntimeError for another."""
        for name, value in self.state().items():
            value.copy_(state[name])
        steps, self._log_kept = state["past"].tolist()
        self._steps = int(steps)

    @torch.no_grad()
    def before_step(self) -> None:
        """Brings the averages of the rows that are about to change up to date."""
        for table, means, logs in zip(self._tables, self._row_means, self._row_logs, strict=True):
            if table.grad is not None:
                self._catch_up(table, means, logs, table.grad._indices()[0])

    @torch.no_grad()
    def after_step(self) -> None:
        """Takes the new weights into the average."""
        kept = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        self._log_kept += math.log(kept)
        torch._foreach_lerp_(self._means, self._dense, 1.0 - kept)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the weights with their averages; a second call exchanges them back."""
        for table, means, logs in zip(self._tables, self._row_means, self._row_logs, strict=True):
            self._catch_up(table, means, logs, torch.arange(len(table)))
        for parameter, mean in zip((*self._dense, *self._tables), (*self._means, *self._row_means), strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(kept)

    def _catch_up(self, table: Tensor, means: Tensor, logs: Tensor, rows: Tensor) -> None:
        weight = (1.0 - torch.exp(self._log_kept - logs[rows])).to(table.dtype).unsqueeze(1)
        means[rows] = torch.lerp(means[rows], table[rows], weight)
        logs[rows] = self._log_kept
