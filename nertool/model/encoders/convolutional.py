"""Iterated dilated convolutions over the sentence (Strubell et al. 2017): context without recurrence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nertool.model.dropout import Dropout


class Convolution(nn.Module):
    """A convolution over time with ReLU, (time, batch, inputs) to (time, batch, filters).

    Args:
        inputs: Size of the input vectors.
        filters: Size of the result.
        width: Tokens that a filter sees, odd.
        dilation: Steps from one of these tokens to the next.
        causal: Whether a filter sees its own token and those before it, instead of as many on both sides.
    """

    def __init__(self, inputs: int, filters: int, width: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.width, self.dilation = width, dilation
        span = (width - 1) * dilation
        self.before, self.after = (span, 0) if causal else (span // 2, span // 2)
        self.taps = nn.Linear(width * inputs, filters)
        nn.init.uniform_(self.taps.weight, -(bound := math.sqrt(6 / (width * inputs))), bound)  # He et al. 2015
        nn.init.zeros_(self.taps.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Applies the filters; beyond either end of the time there are zeros."""
        steps = len(values)
        padded = nn.functional.pad(values, (0, 0, 0, 0, self.before, self.after))
        seen = [padded[tap * self.dilation : tap * self.dilation + steps] for tap in range(self.width)]
        result: Tensor = torch.relu(self.taps(torch.cat(seen, -1)))
        return result


class ConvolutionalEncoder(nn.Module):
    """A convolution into the filters' space, then one block of dilated convolutions applied again and again.

    Args:
        inputs: Size of the input vectors.
        filters: Size of the results.
        iterations: How often the block is applied, with the same weights each time.
        dilations: Of the block's convolutions, one after another.
        width: Tokens that a filter sees, odd.
        bidirectional: Whether a token sees what follows it; else only what stands before it.
        dropout: Between the iterations.
    """

    branches = 1

    def __init__(
        self,
        inputs: int,
        filters: int,
        iterations: int,
        dilations: Sequence[int],
        width: int,
        bidirectional: bool,
        dropout: Dropout,
    ) -> None:
        super().__init__()
        self.output_size = filters
        self.iterations = iterations
        self.first = Convolution(inputs, filters, width, 1, not bidirectional)
        self.block = nn.ModuleList(
            Convolution(filters, filters, width, dilation, not bidirectional) for dilation in dilations
        )
        self.dropout = dropout
        self.concurrent = False  # there are no independent branches to run side by side

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Runs the convolutions.

        Args:
            values: (time, batch, inputs).
            mask: Boolean (time, batch), a prefix of True in each column.

        Returns:
            (time, batch, filters); anything outside the mask.
        """
        # What stands in padding would be seen by the tokens before it, so it is 0 before every convolution.
        inside = None if bool(mask.all()) else mask.unsqueeze(-1).to(values.dtype)
        values = self.first(_within(values, inside))
        for iteration in range(self.iterations):
            if iteration:
                values = self.dropout(values)
            for convolution in self.block:
                values = convolution(_within(values, inside))
        return values


def _within(values: Tensor, inside: Tensor | None) -> Tensor:
    return values if inside is None else values * inside
