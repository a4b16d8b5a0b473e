"""The contract of an encoder: what lets a token see its sentence.

A new kind is one file in this folder, a config class in `nertool.config.schema` and a line in `BUILT_IN` of
`nertool.model.encoders`; or a class in another package under the entry point `nertool.encoders`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nertool.model.batch import Layout
from nertool.model.dropout import Dropout


class Encoder(nn.Module):
    """From the vectors of tokens to their states in context.

    Args:
        config: The config's `model.encoder`.
        inputs: Size of the input vectors.
        dropout: For use between layers.

    Attributes:
        Config: The config class of this kind; its field `kind` names the kinds.
        output_size: Size of a state.
        branches: How many parts may be trained on a thread each.
        concurrent: Whether they are.
    """

    Config: ClassVar[type]
    output_size: int
    branches = 1
    concurrent = False

    def __init__(self, config: Any, inputs: int, dropout: Dropout) -> None:
        super().__init__()

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the first weights from a generator of the CPU, and from no global state; on the CPU."""

    def forward(self, values: Tensor, layout: Layout) -> Tensor:
        """Compute states.

        Args:
            values: Input vectors, (time, batch, inputs).
            layout: Which positions are tokens.

        Returns:
            (time, batch, output_size); anything in padding. What stands in padding must not reach a token.
        """
        raise NotImplementedError
