"""What lets each token see its sentence: one file for each kind of encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nertool.config.schema import NoEncoderConfig, plugins
from nertool.model.batch import Layout
from nertool.model.dropout import Dropout
from nertool.model.encoders.base import Encoder
from nertool.model.encoders.convolutional import ConvolutionalEncoder
from nertool.model.encoders.recurrent import RecurrentEncoder


class NoEncoder(Encoder):
    """Each token sees itself alone: what a network is compared with to see what context is worth."""

    Config = NoEncoderConfig

    def __init__(self, config: NoEncoderConfig, inputs: int, dropout: Dropout) -> None:
        super().__init__(config, inputs, dropout)
        self.output_size = inputs

    def forward(self, values: Tensor, layout: Layout) -> Tensor:
        """Return the values, (time, batch, inputs)."""
        return values


BUILT_IN: tuple[type[Encoder], ...] = (RecurrentEncoder, ConvolutionalEncoder, NoEncoder)


def build_encoder(config: Any, inputs: int, dropout: Dropout) -> Encoder:
    """Build the encoder that a config describes; its weights are not drawn.

    Args:
        config: An instance of a config class, of this package or of one with the entry point `nertool.encoders`.
        inputs: Size of the input vectors.
        dropout: Between layers or iterations.
    """
    classes = BUILT_IN
    if type(config) not in {each.Config for each in BUILT_IN}:
        classes = plugins("nertool.encoders")
    return next(each for each in classes if each.Config is type(config))(config, inputs, dropout)
