"""What lets each token see its sentence, by its name in the config."""

from __future__ import annotations

from torch import Tensor, nn

from nertool.config.schema import EncoderConfig
from nertool.model.dropout import Dropout
from nertool.model.encoders.convolutional import ConvolutionalEncoder
from nertool.model.encoders.recurrent import RecurrentEncoder


class NoEncoder(nn.Module):
    """Each token sees itself alone: what a network is compared with to see what context buys."""

    branches = 1

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.output_size = inputs
        self.concurrent = False

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Returns the values, (time, batch, inputs)."""
        return values


# All take values (time, batch, inputs) and a mask, and have `output_size`, the size of their results,
# `branches`, the number of parts that may train on a thread each, and `concurrent`, whether they do.
Encoder = RecurrentEncoder | ConvolutionalEncoder | NoEncoder


def build_encoder(config: EncoderConfig, inputs: int, dropout: Dropout) -> Encoder:
    """The encoder that the config names.

    Args:
        config: Its kind and sizes.
        inputs: Size of the input vectors.
        dropout: Between layers or iterations.
    """
    if config.kind == "none":
        return NoEncoder(inputs)
    if config.kind == "cnn":
        return ConvolutionalEncoder(
            inputs, config.hidden, config.layers, config.dilations, config.width, config.bidirectional, dropout
        )
    return RecurrentEncoder(inputs, config.kind, config.hidden, config.layers, config.bidirectional, dropout)
