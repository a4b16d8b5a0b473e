"""Recurrent layers over the sentence, in one direction or two (Ma & Hovy 2016, section 2.2).

The cells are torch's: a plain RNN (Elman 1990), the GRU (Cho et al. 2014) and the LSTM (Hochreiter &
Schmidhuber 1997; forget gate: Gers et al. 2000). docs/encoders.md has their equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nertool.model.chain import reversal
from nertool.model.concurrency import run_branches
from nertool.model.dropout import Dropout

CELLS: dict[str, Callable[[int, int], nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Direction(nn.Module):
    """One recurrent layer read in one direction, (time, batch, inputs) to (time, batch, hidden).

    Args:
        kind: Name of the cell: `rnn` (tanh), `gru` or `lstm`.
        inputs: Size of the input vectors.
        hidden: Units.
    """

    def __init__(self, kind: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = CELLS[kind](inputs, hidden)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights as the paper does (section 3.1); the forget gate starts open."""
        hidden = self.cell.hidden_size
        for name, parameter in self.cell.named_parameters():
            if name.startswith("weight"):
                bound = math.sqrt(6 / (hidden + parameter.shape[1]))
                nn.init.uniform_(parameter, -bound, bound)
            else:
                nn.init.zeros_(parameter)
                if name == "bias_ih_l0" and isinstance(self.cell, nn.LSTM):
                    # torch's gates: input, forget, cell, output
                    nn.init.ones_(parameter[hidden : 2 * hidden])

    def forward(self, values: Tensor) -> Tensor:
        """Runs the layer from the first token to the last."""
        result: Tensor = self.cell(values)[0]
        return result


class RecurrentEncoder(nn.Module):
    """Recurrent layers in one direction or two.

    The backward direction is a layer of its own over the reversed sentences. Sentences are reversed within
    their own length, so padding comes last in both directions and can reach no token.

    Args:
        inputs: Size of the input vectors.
        kind: Name of the cell, one of `CELLS`.
        hidden: Units of each direction.
        layers: Number of layers.
        bidirectional: Whether there is a backward direction.
        dropout: Between the layers.
    """

    def __init__(
        self, inputs: int, kind: str, hidden: int, layers: int, bidirectional: bool, dropout: Dropout
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.output_size = directions * hidden
        self.layers = nn.ModuleList(
            nn.ModuleList(
                Direction(kind, inputs if layer == 0 else self.output_size, hidden) for _ in range(directions)
            )
            for layer in range(layers)
        )
        self.dropout = dropout
        self.branches = directions
        self.concurrent = False  # whether the directions are trained on a thread each

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Runs the layers.

        Args:
            values: (time, batch, inputs).
            mask: Boolean (time, batch), a prefix of True in each column.

        Returns:
            (time, batch, directions x hidden); anything outside the mask.
        """
        return self.run(values, mask, len(self.layers))

    def run(self, values: Tensor, mask: Tensor, layers: int) -> Tensor:
        """As `forward`, through the first layers alone."""
        order = None if bool(mask.all()) else torch.from_numpy(reversal(mask.numpy())).unsqueeze(-1)
        for depth in range(layers):
            layer = list(self.layers[depth].children())
            if depth:
                values = self.dropout(values)
            if len(layer) == 1:
                values = layer[0](values)
            else:
                both = (values, _reverse(values, order))
                if self.concurrent and torch.is_grad_enabled():
                    ahead, back = run_branches(layer, both)
                else:
                    ahead, back = (direction(each) for direction, each in zip(layer, both, strict=True))
                values = torch.cat((ahead, _reverse(back, order)), -1)
        return values


def _reverse(values: Tensor, order: Tensor | None) -> Tensor:
    if order is None:
        return values.flip(0)
    return values.gather(0, order.expand_as(values))
