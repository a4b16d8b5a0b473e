"""The spelling of a word, read by a convolution (Ma & Hovy 2016, section 2.1) or by a recurrent network."""

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nertool.config.schema import CharacterCNNConfig, CharacterRNNConfig
from nertool.data.encoding import Table
from nertool.data.vocabulary import collect_characters
from nertool.model.building import exporting
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders.recurrent import Direction
from nertool.model.inputs.base import Input, InputModule, Resources, grown, names_of
from nertool.text.document import Document

BOUNDARY, UNKNOWN_CHARACTER = 0, 1  # the first two character numbers


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


class Characters(Input):
    """The spelling of words. Characters that training never saw share a number.

    Args:
        name: Of the entry.
        config: The entry.
        characters: The known characters; characters[0] has number 2.
    """

    context_free: ClassVar[bool] = True

    def __init__(self, name: str, config: Any, characters: Sequence[str]) -> None:
        super().__init__(name, config)
        self.characters = characters
        self.numbers = {character: number for number, character in enumerate(characters, start=2)}

    @classmethod
    def fit(cls, name: str, config: Any, documents: Sequence[Document], resources: Resources) -> Characters:
        """Collect the characters of the training documents."""
        return cls(name, config, collect_characters(documents))

    def grow(self, config: Any, documents: Sequence[Document], resources: Resources) -> Characters:
        """Add the characters of more training documents."""
        return type(self)(self.name, config, grown(self.characters, collect_characters(documents)))

    @classmethod
    def restore(cls, name: str, config: Any, state: Any) -> Characters:
        """Make the input from its characters."""
        return cls(name, config, names_of(state))

    def state(self) -> list[str]:
        """Return the characters."""
        return list(self.characters)

    @abstractmethod
    def module(self, noise: Noise) -> CharacterModule:
        """Build the module."""

    @abstractmethod
    def _windows(self, numbers: list[int]) -> Iterable[tuple[int, ...]]:
        """Return the windows of a form, given the numbers of its characters."""

    def encode_forms(self, forms: Sequence[str]) -> Table:
        """Return the windows of each form, (windows, width). The form "" has a boundary as its only character."""
        get, maximum = self.numbers.get, self.config.maximum
        flat, counts = array("i"), array("q")
        width = getattr(self.config, "width", 1)
        for form in forms:
            numbers = [get(character, UNKNOWN_CHARACTER) for character in form[:maximum]] or [BOUNDARY]
            before = len(flat)
            flat.extend(chain.from_iterable(self._windows(numbers)))
            counts.append(len(flat) - before)
        offsets = np.concatenate(([0], np.cumsum(np.array(counts, dtype=np.int64) // width)))
        return Table(np.array(flat, dtype=np.int32).reshape(-1, width), offsets)


class ConvolvedCharacters(Characters):
    """The spelling of words, for a convolution: distinct windows, as a maximum needs neither order nor number."""

    Config = CharacterCNNConfig

    def module(self, noise: Noise) -> CharacterCNN:
        """Build the convolution."""
        own: CharacterCNNConfig = self.config
        return CharacterCNN(len(self.characters) + 2, own.dimensions, own.filters, own.width, own.dropout, noise)

    def _windows(self, numbers: list[int]) -> Iterable[tuple[int, ...]]:
        boundary = [BOUNDARY] * (self.config.width // 2)
        spelling = [*boundary, *numbers, *boundary]
        return dict.fromkeys(zip(*[spelling[start:] for start in range(self.config.width)], strict=False))

    def describe(self) -> str:
        """Describe the convolution."""
        return f"{len(self.characters):,} characters, {self.config.filters} filters of width {self.config.width}"


class RecurrentCharacters(Characters):
    """The spelling of words, for a recurrent network: all characters in order."""

    Config = CharacterRNNConfig

    def module(self, noise: Noise) -> CharacterRNN:
        """Build the recurrent network."""
        own: CharacterRNNConfig = self.config
        return CharacterRNN(
            len(self.characters) + 2, own.dimensions, own.network, own.hidden, own.maximum, own.dropout, noise
        )

    def _windows(self, numbers: list[int]) -> Iterable[tuple[int, ...]]:
        return ((number,) for number in numbers)

    def describe(self) -> str:
        """Describe the recurrent network."""
        return f"{len(self.characters):,} characters, {self.config.network}, 2 x {self.config.hidden} units"
