"""What a word's spelling says of it: a convolution over its characters (Ma & Hovy 2016, section 2.1)."""

from __future__ import annotations

import math

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

    def forward(self, windows: Tensor, counts: Tensor) -> Tensor:
        """Vectors of words.

        Args:
            windows: Kinds of the characters around each character, (windows of all words, width). No two
                windows of a word may be alike: `segment_reduce` (torch 2.13) counts a negative gradient once
                for each of several equal maxima.
            counts: Number of windows of each word, at least 1, (words,).

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
        highest: Tensor = torch.segment_reduce(positions, "max", lengths=counts, unsafe=True)
        return torch.tanh(highest + self.bias)
