"""What a word's spelling says of it: a convolution (Ma & Hovy 2016, section 2.1) or a recurrent network."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders.recurrent import Direction


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
        _draw_vectors(self.embedding)
        bound = math.sqrt(6 / (width * dimensions + filters))
        nn.init.uniform_(self.kernel, -bound, bound)

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
        vectors = _vectors(self.embedding, self.dropout)
        taps = torch.matmul(vectors, self.kernel)  # (width, characters, filters)
        kinds = len(vectors)
        offsets = torch.arange(0, self.width * kinds, kinds)
        positions = nn.functional.embedding_bag(windows + offsets, taps.view(self.width * kinds, -1), mode="sum")
        highest: Tensor = torch.segment_reduce(positions, "max", lengths=counts, unsafe=True)
        return torch.tanh(highest + self.bias)


class CharacterRNN(nn.Module):
    """Character vectors and a recurrent layer in each direction, of which the last states count.

    This is the character model of Lample et al. (2016, section 4.1), with an LSTM or a GRU.

    Args:
        characters: Number of character kinds; kind 0 is the border around a word, whose vector is 0.
        dimensions: Size of a character vector.
        kind: Name of the cell: `lstm` or `gru`.
        hidden: Units in each direction; the result has twice their number.
        dropout: On the character vectors, one mask for each kind of character in a batch.
        noise: Random bits for dropout.
    """

    def __init__(
        self, characters: int, dimensions: int, kind: str, hidden: int, dropout: float, noise: Noise
    ) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(characters, dimensions))
        self.ahead = Direction(kind, dimensions, hidden)
        self.back = Direction(kind, dimensions, hidden)
        self.dropout = Dropout(dropout, noise)
        self.output_size = 2 * hidden
        _draw_vectors(self.embedding)

    def forward(self, windows: Tensor, counts: Tensor) -> Tensor:
        """Vectors of words.

        Args:
            windows: Kinds of the characters, those of one word after those of another, (characters, 1).
            counts: Number of characters of each word, at least 1, (words,).

        Returns:
            (words, 2 x hidden).
        """
        vectors = _vectors(self.embedding, self.dropout)
        kinds = windows.squeeze(1)
        begins = counts.cumsum(0) - counts
        # Words of like length go together, so that a single long one does not make all others as long.
        sizes = torch.bucketize(counts, torch.tensor([4, 8, 16, 32]))
        places, results = [], []
        for size in np.unique(sizes.numpy()):
            words = (sizes == size).nonzero().squeeze(1)
            begin, count = begins[words], counts[words]
            steps = torch.arange(int(count.max())).unsqueeze(1)
            last, columns = count - 1, torch.arange(len(words))
            ahead = begin + torch.minimum(steps, last)  # (steps, words); what follows a word is not looked at
            back = begin + (last - steps).clamp(min=0)
            found = [
                direction(nn.functional.embedding(kinds[order], vectors))[last, columns]
                for direction, order in ((self.ahead, ahead), (self.back, back))
            ]
            places.append(words)
            results.append(torch.cat(found, -1))
        return torch.cat(results)[torch.cat(places).argsort()]


CASES = 5


class CaseEmbedding(nn.Module):
    """A vector for how a word uses capitals (Collobert et al. 2011, section 3.2): one of `CASES` ways.

    Args:
        dimensions: Size of a vector.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(CASES, dimensions))
        nn.init.uniform_(self.weight, -math.sqrt(3 / dimensions), math.sqrt(3 / dimensions))
        self.output_size = dimensions

    def forward(self, cases: Tensor) -> Tensor:
        """Vectors (words, dimensions) of ways (words,)."""
        return nn.functional.embedding(cases, self.weight)


def _draw_vectors(embedding: nn.Parameter) -> None:
    bound = math.sqrt(3 / embedding.shape[1])
    nn.init.uniform_(embedding, -bound, bound)
    with torch.no_grad():
        embedding[0] = 0.0


def _vectors(embedding: Tensor, dropout: Dropout) -> Tensor:
    # The border's vector stays 0: row 0 is cut off from the parameter, which thus gets no gradient there.
    return torch.cat((embedding.new_zeros(1, embedding.shape[1]), dropout(embedding[1:])))
