"""Recurrent layers over the sentence, in one direction or two (Ma & Hovy 2016, section 2.2).

The cells are torch's: a plain RNN (Elman 1990), the GRU (Cho et al. 2014) and the LSTM (Hochreiter & Schmidhuber
1997; forget gate: Gers et al. 2000). docs/encoders.md has their equations.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nertool.config.schema import RecurrentConfig
from nertool.model.batch import Layout
from nertool.model.building import exporting, uninitialized
from nertool.model.concurrency import run_branches
from nertool.model.dropout import Dropout
from nertool.model.encoders.base import Encoder

CELLS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Direction(nn.Module):
    """One recurrent layer read in one direction, (time, batch, inputs) to (time, batch, hidden).

    Args:
        kind: Name of the cell: `rnn` (tanh), `gru` or `lstm`.
        inputs: Size of the input vectors.
        hidden: Units.
    """

    def __init__(self, kind: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.kind = kind
        self.cell: nn.RNNBase = uninitialized(CELLS[kind], inputs, hidden)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights as Ma & Hovy (2016, section 3.1) do; the forget gate starts open."""
        hidden = self.cell.hidden_size
        for name, parameter in self.cell.named_parameters():
            if name.startswith("weight"):
                bound = math.sqrt(6 / (hidden + parameter.shape[1]))
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            else:
                nn.init.zeros_(parameter)
                if name == "bias_ih_l0" and self.kind == "lstm":
                    # torch's gates: input, forget, cell, output
                    nn.init.ones_(parameter[hidden : 2 * hidden])

    def forward(self, values: Tensor) -> Tensor:
        """Run the layer from the first token to the last."""
        result: Tensor = self._scan(values) if exporting() else self.cell(values)[0]
        return result

    def _scan(self, values: Tensor) -> Tensor:
        """Run the layer step by step, for `torch.export`, which fixes the number of steps of torch's own cells."""
        from torch._higher_order_ops.scan import scan

        cell: Any = self.cell
        hidden, weight, bias = cell.hidden_size, cell.weight_hh_l0.T, cell.bias_hh_l0
        inputs = nn.functional.linear(values, cell.weight_ih_l0, cell.bias_ih_l0)  # (time, batch, gates x hidden)

        def lstm(state: tuple[Tensor, Tensor], own: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
            gates = own + state[0] @ weight + bias
            memory = torch.sigmoid(gates[:, hidden : 2 * hidden]) * state[1]
            memory = memory + torch.sigmoid(gates[:, :hidden]) * torch.tanh(gates[:, 2 * hidden : 3 * hidden])
            result = torch.sigmoid(gates[:, 3 * hidden :]) * torch.tanh(memory)
            return (result, memory), result.clone()

        def gru(state: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
            past = state @ weight + bias
            reset, update = torch.sigmoid(own[:, : 2 * hidden] + past[:, : 2 * hidden]).chunk(2, -1)
            new = torch.tanh(own[:, 2 * hidden :] + reset * past[:, 2 * hidden :])
            result = new + update * (state - new)
            return result, result.clone()

        def rnn(state: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
            result = torch.tanh(own + state @ weight + bias)
            return result, result.clone()

        start = values.new_zeros(values.shape[1], hidden)
        step: Any = {"lstm": lstm, "gru": gru, "rnn": rnn}[self.kind]
        results: Tensor = scan(step, (start, start.clone()) if self.kind == "lstm" else start, inputs)[1]
        return results


class RecurrentEncoder(Encoder):
    """Recurrent layers in one direction or two.

    The backward direction is a layer of its own over the reversed sentences. Sentences are reversed within their
    own length, so padding comes last in both directions and can reach no token.

    Args:
        config: Cell and sizes.
        inputs: Size of the input vectors.
        dropout: Between the layers.
    """

    Config = RecurrentConfig

    def __init__(self, config: RecurrentConfig, inputs: int, dropout: Dropout) -> None:
        super().__init__(config, inputs, dropout)
        self.branches = 2 if config.bidirectional else 1
        self.output_size = self.branches * config.hidden
        self.layers = nn.ModuleList(
            nn.ModuleList(
                Direction(config.kind, inputs if layer == 0 else self.output_size, config.hidden)
                for _ in range(self.branches)
            )
            for layer in range(config.layers)
        )
        self.dropout = dropout

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        for module in self.layers.modules():
            if isinstance(module, Direction):
                module.initialize(generator)

    def forward(self, values: Tensor, layout: Layout) -> Tensor:
        """Run the layers: (time, batch, inputs) to (time, batch, directions x hidden)."""
        return self.run(values, layout, len(self.layers))

    def run(self, values: Tensor, layout: Layout, layers: int) -> Tensor:
        """Run the first layers only; otherwise as `forward`."""
        order = None if layout.order is None else layout.order.unsqueeze(-1)
        for depth in range(layers):
            layer = list(self.layers[depth].children())
            if depth:
                values = self.dropout(values)
            if len(layer) == 1:
                values = layer[0](values)
            else:
                both = (values, reverse(values, order))
                if self.concurrent and torch.is_grad_enabled():
                    ahead, back = run_branches(layer, both)
                else:
                    ahead, back = (direction(each) for direction, each in zip(layer, both, strict=True))
                values = torch.cat((ahead, reverse(back, order)), -1)
        return values


def reverse(values: Tensor, order: Tensor | None) -> Tensor:
    """Reverse sentences within their lengths, (time, batch, size), by `Layout.order` with one more dimension."""
    if order is None:
        return values.flip(0)
    return values.gather(0, order.expand_as(values))
