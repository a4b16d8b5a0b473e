"""Iterated dilated convolutions over the sentence (Strubell et al. 2017): context without recurrence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nertool.config.schema import ConvolutionalConfig
from nertool.model.batch import Layout
from nertool.model.building import uninitialized
from nertool.model.dropout import Dropout
from nertool.model.encoders.base import Encoder


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
        self.taps = uninitialized(nn.Linear, width * inputs, filters)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights (He et al. 2015)."""
        bound = math.sqrt(6 / self.taps.in_features)
        nn.init.uniform_(self.taps.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.taps.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Apply the filters; beyond either end of the time there are zeros."""
        steps = values.shape[0]
        padded = nn.functional.pad(values, (0, 0, 0, 0, self.before, self.after))
        windows = [padded[tap * self.dilation : tap * self.dilation + steps] for tap in range(self.width)]
        return torch.relu(self.taps(torch.cat(windows, -1)))


class ConvolutionalEncoder(Encoder):
    """A convolution into the space of the filters, then one block of dilated convolutions, applied repeatedly.

    Args:
        config: Sizes; `layers` is how often the block is applied, with the same weights each time.
        inputs: Size of the input vectors.
        dropout: Between the iterations.
    """

    Config = ConvolutionalConfig

    def __init__(self, config: ConvolutionalConfig, inputs: int, dropout: Dropout) -> None:
        super().__init__(config, inputs, dropout)
        self.output_size = config.hidden
        self.iterations = config.layers
        causal = not config.bidirectional
        self.first = Convolution(inputs, config.hidden, config.width, 1, causal)
        self.block = nn.ModuleList(
            Convolution(config.hidden, config.hidden, config.width, dilation, causal)
            for dilation in config.dilations
        )
        self.dropout = dropout

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        for convolution in (self.first, *self.block):
            assert isinstance(convolution, Convolution)
            convolution.initialize(generator)

    def forward(self, values: Tensor, layout: Layout) -> Tensor:
        """Run the convolutions: (time, batch, inputs) to (time, batch, filters)."""
        # Tokens near the end of a sentence would see its padding, so it is set to 0 before every convolution.
        inside = layout.mask.unsqueeze(-1).to(values.dtype) if layout.ragged else None
        values = self.first(_within(values, inside))
        for iteration in range(self.iterations):
            if iteration:
                values = self.dropout(values)
            for convolution in self.block:
                values = convolution(_within(values, inside))
        return values


def _within(values: Tensor, inside: Tensor | None) -> Tensor:
    return values if inside is None else values * inside
