"""The spelling of a word, read by a convolution (Ma & Hovy 2016, section 2.1) or by a recurrent network."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nertool.config.schema import CharacterCNNConfig, CharacterRNNConfig
from nertool.data.encoding import Table
from nertool.data.vocabulary import collect_characters
from nertool.model.inputs.base import Input, Resources, grown, names_of
from nertool.text.document import Document

if TYPE_CHECKING:
    from nertool.model.dropout import Noise
    from nertool.model.input_modules.characters import CharacterCNN, CharacterModule, CharacterRNN

BOUNDARY, UNKNOWN_CHARACTER = 0, 1  # the first two character numbers


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
        from nertool.model.input_modules.characters import CharacterCNN

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
        from nertool.model.input_modules.characters import CharacterRNN

        own: CharacterRNNConfig = self.config
        return CharacterRNN(
            len(self.characters) + 2, own.dimensions, own.network, own.hidden, own.maximum, own.dropout, noise
        )

    def _windows(self, numbers: list[int]) -> Iterable[tuple[int, ...]]:
        return ((number,) for number in numbers)

    def describe(self) -> str:
        """Describe the recurrent network."""
        return f"{len(self.characters):,} characters, {self.config.network}, 2 x {self.config.hidden} units"
