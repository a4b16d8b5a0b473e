"""A vector for each value of a column."""

from __future__ import annotations

from torch import Tensor, nn

from nertool.model.dropout import Noise
from nertool.model.input_modules.base import VectorTable


class ColumnVectors(VectorTable):
    """A vector for each value; value 0 is unknown.

    Args:
        values: Number of values.
        dimensions: Size of a vector.
        noise: Random bits for dropout.
        dropout: Share of tokens whose value is hidden during training.
    """

    def __init__(self, values: int, dimensions: int, noise: Noise, dropout: float) -> None:
        super().__init__(values, dimensions)
        self.noise = noise
        self.dropout = dropout

    def forward(self, *features: Tensor) -> Tensor:
        """Look up vectors (time, batch, dimensions) of values (time, batch)."""
        (values,) = features
        if self.training and self.dropout > 0:
            values = values * self.noise.keep(values.shape, 1.0 - self.dropout, values.device)
        return nn.functional.embedding(values, self.weight)
