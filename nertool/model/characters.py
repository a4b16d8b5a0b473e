"""What a word's spelling says of it: a convolution over its characters (Ma & Hovy 2016, section 2.1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nertool.model.dropout import Dropout, Noise


class CharacterCNN(nn.Module):
    """Character vectors, a convolution over each word, the maximum over its positions, tanh.

    Words are not padded: their characters stand in one flat row, so neither the length of other words nor
    padding can enter the maximum. As there are far fewer kinds of characters than positions, each filter tap
    is applied once to each kind; a position then sums the rows of its window.

    Args:
        characters: Number of character kinds; kind 0 is the border around a word, whose vector is 0.
        dimensions: Size of a character vector.
        filters: Size of the result.
        width: Characters that a filter sees, odd.
        dropout: On the character vectors, one mask for each kind of character in a batch.
        noise: Random bits for dropout.
    """

    def __init__(
        self, characters: int, dimensions: int, filters: int, width: int, dropout: float, noise: Noise
    ) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Parameter(torch.empty(characters, dimensions))
        self.kernel = nn.Parameter(torch.empty(width, dimensions, filters))
        self.bias = nn.Parameter(torch.zeros(filters))
        self.dropout = Dropout(dropout, noise)
        self.output_size = filters
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights as the paper does (section 3.1): uniform, in a range set by the sizes."""
        width, dimensions, filters = self.kernel.shape
        nn.init.uniform_(self.embedding, -math.sqrt(3 / dimensions), math.sqrt(3 / dimensions))
        bound = math.sqrt(6 / (width * dimensions + filters))
        nn.init.uniform_(self.kernel, -bound, bound)
        with torch.no_grad():
            self.embedding[0] = 0.0

    def forward(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Vectors of words.

        Args:
            windows: Kinds of the characters around each character, (characters of all words, width).
            lengths: Number of characters of each word, at least 1, (words,).

        Returns:
            (words, filters).
        """
        # The border's vector stays 0: row 0 is cut off from the parameter, which thus gets no gradient there.
        vectors = torch.cat(
            (self.embedding.new_zeros(1, self.embedding.shape[1]), self.dropout(self.embedding[1:]))
        )
        taps = torch.matmul(vectors, self.kernel)  # (width, characters, filters)
        kinds = len(vectors)
        offsets = torch.arange(0, self.width * kinds, kinds)
        positions = nn.functional.embedding_bag(windows + offsets, taps.view(self.width * kinds, -1), mode="sum")
        highest: Tensor = _Highest.apply(positions, lengths)  # type: ignore[no-untyped-call]
        return torch.tanh(highest + self.bias)


class _Highest(torch.autograd.Function):
    """The maximum over the rows of each word; equal maxima share its gradient.

    `segment_reduce` shares only gradients above 0 (seen in torch 2.13): a negative one counts once for each
    of the equal windows that words such as "1111" or "....." are made of.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, lengths: Tensor) -> Tensor:
        highest: Tensor = torch.segment_reduce(values, "max", lengths=lengths, unsafe=True)
        ctx.save_for_backward(values, highest, lengths)
        return highest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        values, highest, lengths = (tensor.numpy() for tensor in ctx.saved_tensors)
        word = np.repeat(np.arange(len(lengths)), lengths)
        winners = values == highest[word]
        count = np.add.reduceat(winners, np.cumsum(lengths) - lengths, dtype=values.dtype)
        shares = (gradient.numpy() / count)[word]
        shares *= winners
        return torch.from_numpy(shares), None
