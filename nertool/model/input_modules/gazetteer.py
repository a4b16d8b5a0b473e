"""A vector for each position in a phrase, for each type of phrase."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nertool.model.dropout import Noise
from nertool.model.input_modules.base import InputModule
from nertool.model.inputs.gazetteer import POSITIONS


class GazetteerVectors(InputModule):
    """A vector for each position in a phrase, for each type; those of the types are concatenated.

    Args:
        types: Number of types.
        dimensions: Size of a vector for one type.
        noise: Random bits for dropout.
        dropout: Share of tokens whose matches are hidden during training.
    """

    def __init__(self, types: int, dimensions: int, noise: Noise, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(types * len(POSITIONS), dimensions))
        self.output_size = types * dimensions
        self.noise = noise
        self.dropout = dropout

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the vectors from a range set by their size."""
        bound = (3 / self.weight.shape[1]) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def forward(self, *features: Tensor) -> Tensor:
        """Look up vectors (time, batch, types x dimensions) of positions (time, batch, types)."""
        positions = features[0].long()
        if self.training and self.dropout > 0:
            kept = self.noise.keep(positions.shape[:-1], 1.0 - self.dropout, positions.device)
            positions = positions * kept.unsqueeze(-1)
        first_rows = torch.arange(0, len(self.weight), len(POSITIONS), device=positions.device)
        return nn.functional.embedding(positions + first_rows, self.weight).flatten(-2)
