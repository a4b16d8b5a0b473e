"""The spelling of a word, read by a convolution (Ma & Hovy 2016, section 2.1) or by a recurrent network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nertool.model.building import exporting
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders.recurrent import Direction
from nertool.model.input_modules.base import InputModule
from nertool.model.inputs.characters import BOUNDARY


class CharacterModule(InputModule):
    """Character vectors, and what a subclass makes of them.

    Args:
        characters: How many characters there are; number 0 is the boundary of a word, whose vector is 0.
        dimensions: Size of a character vector.
        dropout: On the character vectors, one mask for each character in a batch.
        noise: Random bits for dropout.
    """

    def __init__(self, characters: int, dimensions: int, dropout: float, noise: Noise) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(characters, dimensions))
        self.dropout = Dropout(dropout, noise)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights as Ma & Hovy (2016, section 3.1) do: uniform, in a range set by the sizes."""
        bound = math.sqrt(3 / self.embedding.shape[1])
        nn.init.uniform_(self.embedding, -bound, bound, generator=generator)
        with torch.no_grad():
            self.embedding[BOUNDARY] = 0.0

    def vectors(self) -> Tensor:
        """Return the character vectors, (characters, dimensions).

        The vector of the boundary stays 0: its row is cut off from the parameter, which gets no gradient there.
        """
        boundary = self.embedding.new_zeros(1, self.embedding.shape[1])
        return torch.cat((boundary, self.dropout(self.embedding[1:])))


class CharacterCNN(CharacterModule):
    """A convolution over the character vectors of each word, the maximum over its positions, tanh.

    Words are not padded: their characters stand in one flat row, so neither the length of other words nor padding
    can enter the maximum. As there are far fewer characters than positions, each filter tap is applied once to
    each character; a position then sums the rows of its window.

    Args:
        characters, dimensions, dropout, noise: As for `CharacterModule`.
        filters: Size of the result.
        width: Characters that a filter sees, odd.
    """

    def __init__(
        self, characters: int, dimensions: int, filters: int, width: int, dropout: float, noise: Noise
    ) -> None:
        super().__init__(characters, dimensions, dropout, noise)
        self.width = width
        self.kernel = nn.Parameter(torch.empty(width, dimensions, filters))
        self.bias = nn.Parameter(torch.empty(filters))
        self.output_size = filters

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        super().initialize(generator)
        width, dimensions, filters = self.kernel.shape
        bound = math.sqrt(6 / (width * dimensions + filters))
        nn.init.uniform_(self.kernel, -bound, bound, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, *features: Tensor) -> Tensor:
        """Compute vectors of words.

        Args:
            features: The numbers of the characters around each character, (windows of all words, width), and the
                number of windows of each word, at least 1, (words,). No two windows of a word may be equal:
                `segment_reduce` (torch 2.13) counts a negative gradient once for each of several equal maxima.

        Returns:
            (words, filters).
        """
        windows, counts = features
        taps = torch.matmul(self.vectors(), self.kernel)  # (width, characters, filters)
        characters = taps.shape[1]
        offsets = torch.arange(0, self.width * characters, characters, device=windows.device)
        positions = nn.functional.embedding_bag(
            windows + offsets, taps.view(self.width * characters, -1), mode="sum"
        )  # (windows, filters)
        return torch.tanh(_highest(positions, counts) + self.bias)


def _highest(positions: Tensor, counts: Tensor) -> Tensor:
    """Return the maximum over the positions of each word, (words, filters)."""
    if positions.requires_grad and positions.device.type in ("cpu", "cuda") and not exporting():
        # Its backward pass is 2 to 3 times as fast as that of scatter_reduce, its forward pass half as fast.
        return torch.segment_reduce(positions, "max", lengths=counts, unsafe=True)
    numbers = torch.arange(counts.shape[0], device=counts.device)  # `len` would fix the size in an export
    words = torch.repeat_interleave(numbers, counts, output_size=positions.shape[0]).unsqueeze(1)
    highest = positions.new_zeros(counts.shape[0], positions.shape[1])
    return highest.scatter_reduce(0, words.expand_as(positions), positions, "amax", include_self=False)


class CharacterRNN(CharacterModule):
    """A recurrent layer over the character vectors in each direction, of which the last states count.

    This is the character model of Lample et al. (2016, section 4.1), with an LSTM or a GRU.

    Args:
        characters, dimensions, dropout, noise: As for `CharacterModule`.
        kind: Name of the cell: `lstm` or `gru`.
        hidden: Units in each direction; the result has twice their number.
        maximum: Characters of the longest word.
    """

    def __init__(
        self, characters: int, dimensions: int, kind: str, hidden: int, maximum: int, dropout: float, noise: Noise
    ) -> None:
        super().__init__(characters, dimensions, dropout, noise)
        self.ahead = Direction(kind, dimensions, hidden)
        self.back = Direction(kind, dimensions, hidden)
        self.maximum = maximum
        self.output_size = 2 * hidden

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        super().initialize(generator)
        self.ahead.initialize(generator)
        self.back.initialize(generator)

    def forward(self, *features: Tensor) -> Tensor:
        """Compute vectors of words.

        Args:
            features: The numbers of the characters, those of one word after those of another, (characters, 1), and
                the number of characters of each word, at least 1, (words,).

        Returns:
            (words, 2 x hidden).
        """
        windows, counts = features
        characters, vectors = windows.squeeze(1), self.vectors()
        begins = counts.cumsum(0) - counts
        if exporting() or counts.is_meta:  # values are not known: each word is as long as the longest possible
            return self._read(characters, begins, counts, vectors, self.maximum)
        # Words of similar length go together, so that a single long one does not make all others as long.
        sizes = torch.bucketize(counts, torch.tensor([4, 8, 16, 32], device=counts.device))
        indices, results = [], []
        for size in torch.unique(sizes).tolist():
            words = (sizes == size).nonzero().squeeze(1)
            own = counts[words]
            indices.append(words)
            results.append(self._read(characters, begins[words], own, vectors, int(own.max())))
        return torch.cat(results)[torch.cat(indices).argsort()]

    def _read(self, characters: Tensor, begins: Tensor, counts: Tensor, vectors: Tensor, longest: int) -> Tensor:
        steps = torch.arange(longest, device=counts.device).unsqueeze(1)
        last, columns = counts - 1, torch.arange(counts.shape[0], device=counts.device)
        ahead = begins + torch.minimum(steps, last)  # (steps, words); what follows a word is not looked at
        back = begins + (last - steps).clamp(min=0)
        return torch.cat(
            [
                direction(nn.functional.embedding(characters[order], vectors))[last, columns]
                for direction, order in ((self.ahead, ahead), (self.back, back))
            ],
            -1,
        )
