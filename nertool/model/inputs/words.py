"""Word vectors: one row for each known word, updated only where a batch touched it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class WordEmbedding(nn.Module):
    """A table of word vectors whose gradient is sparse: it holds the rows of the batch and no others.

    Args:
        words: Number of rows; row 0 stands for unknown words.
        dimensions: Size of a vector.
        trainable: Whether training changes the rows.
    """

    def __init__(self, words: int, dimensions: int, trainable: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(words, dimensions), requires_grad=trainable)
        self.output_size = dimensions

    def reset_parameters(self) -> None:
        """Draws every row as the paper does for words without a pretrained vector (section 3.1)."""
        bound = math.sqrt(3 / self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, rows: Tensor) -> Tensor:
        """Vectors (words, dimensions) of rows (words,)."""
        return nn.functional.embedding(rows, self.weight, sparse=True)
