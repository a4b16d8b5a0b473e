"""A vector for each word, updated only where a batch uses it."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nertool.model.batch import to_tensor
from nertool.model.dropout import Noise
from nertool.model.input_modules.base import InputModule
from nertool.model.inputs.words import UNKNOWN_ROW


class WordVectors(InputModule):
    """A table of word vectors whose gradient is sparse: it holds the rows of the batch and no others.

    Args:
        rows: Number of rows; row 0 stands for unknown words.
        dimensions: Size of a vector.
        noise: Random bits for dropout.
        trainable: Whether training changes the rows.
        dropout: Share of tokens whose word is hidden during training.
    """

    def __init__(
        self, rows: int, dimensions: int, noise: Noise, *, trainable: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, dimensions), requires_grad=trainable)
        self.output_size = dimensions
        self.noise = noise
        self.dropout = dropout

    def initialize(self, generator: torch.Generator) -> None:
        """Draw every row as Ma & Hovy (2016, section 3.1) do for words without a pretrained vector."""
        bound = math.sqrt(3 / self.output_size)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Return the table."""
        return [self.weight]

    @torch.no_grad()
    def fill(self, rows: np.ndarray, column: int, values: np.ndarray) -> None:
        """Set some columns of some rows.

        Args:
            rows: (rows,).
            column: The first of the columns.
            values: (rows, columns).
        """
        part = self.weight[:, column : column + values.shape[1]]
        part[to_tensor(rows, part.device)] = to_tensor(values, part.device)

    @torch.no_grad()
    def copy_rows(self, rows: np.ndarray, sources: np.ndarray) -> None:
        """Set rows, (rows,), to the values of others, (rows,)."""
        device = self.weight.device
        self.weight[to_tensor(rows, device)] = self.weight[to_tensor(sources, device)]

    def forward(self, *features: Tensor) -> Tensor:
        """Look up vectors (forms, dimensions) of rows (forms,)."""
        return nn.functional.embedding(features[0], self.weight, sparse=True)

    def spread(self, vectors: Tensor, forms: Tensor) -> Tensor:
        """Give each token the vector of its form, or during training perhaps that of unknown words."""
        if self.training and self.dropout > 0:
            unknown = self(forms.new_full((1,), UNKNOWN_ROW))
            hidden = ~self.noise.keep(forms.shape, 1.0 - self.dropout, forms.device)
            forms = forms.masked_fill(hidden, len(vectors))
            vectors = torch.cat((vectors, unknown))
        return nn.functional.embedding(forms, vectors)
