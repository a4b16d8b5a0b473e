"""A vector for each word, updated only where a batch uses it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from nertool.config.schema import WordsConfig
from nertool.data.encoding import Table
from nertool.data.vectors import look_up
from nertool.data.vocabulary import collect_words, rows_with_vectors
from nertool.errors import ConfigError
from nertool.model.inputs.base import Input, Resources, grown, names_of
from nertool.text.document import Document

if TYPE_CHECKING:
    from nertool.model.dropout import Noise
    from nertool.model.input_modules.base import InputModule
    from nertool.model.input_modules.words import WordVectors

UNKNOWN_ROW = 0
DIMENSIONS = 100  # where neither the config nor a file of vectors says more


class Words(Input):
    """Words of the training documents, and words that have pretrained vectors.

    Args:
        name: Of the entry.
        config: The entry.
        words: Those with a row of their own; words[0] has row 1.
        dimensions: Size of a vector.
    """

    Config = WordsConfig
    context_free = True

    def __init__(self, name: str, config: WordsConfig, words: Sequence[str], dimensions: int) -> None:
        super().__init__(name, config)
        self.words = words
        self.dimensions = dimensions
        self.rows = dict(zip(words, range(1, len(words) + 1), strict=True))

    @classmethod
    def fit(cls, name: str, config: WordsConfig, documents: Sequence[Document], resources: Resources) -> Words:
        """Collect the words of the training documents and of the files of vectors."""
        vectors = [resources.vectors[file] for file in config.vectors]
        words = collect_words(documents, vectors, config.minimum_count, config.extra_rows)
        dimensions = sum(each.dimensions for each in vectors) or config.dimensions or DIMENSIONS
        return cls(name, config, words, dimensions)

    def grow(self, config: WordsConfig, documents: Sequence[Document], resources: Resources) -> Words:
        """Add the words of more training documents, and of the files of vectors."""
        fitted = self.fit(self.name, config, documents, resources)
        if fitted.dimensions != self.dimensions and (config.vectors or config.dimensions):
            what = "vectors" if config.vectors else "dimensions"
            raise ConfigError(
                f"inputs.{self.name}.{what}: {fitted.dimensions} dimensions, and the word vectors of the model to "
                f"start from have {self.dimensions}"
            )
        return Words(self.name, config, grown(self.words, fitted.words), self.dimensions)

    @classmethod
    def restore(cls, name: str, config: WordsConfig, state: Any) -> Words:
        """Make the input from its words and the size of their vectors."""
        dimensions = state["dimensions"]
        if type(dimensions) is not int or dimensions < 1:
            raise ValueError("'dimensions' is not a positive number")
        return cls(name, config, names_of(state["words"]), dimensions)

    def state(self) -> dict[str, Any]:
        """Return the words and the size of their vectors."""
        return {"dimensions": self.dimensions, "words": list(self.words)}

    def module(self, noise: Noise) -> WordVectors:
        """Build the table."""
        from nertool.model.input_modules.words import WordVectors

        return WordVectors(
            len(self.words) + 1,
            self.dimensions,
            noise,
            trainable=self.config.trainable,
            dropout=self.config.dropout,
        )

    def initial_weights(self, resources: Resources, module: InputModule) -> None:
        """Fill pretrained vectors into the table; several files fill columns side by side."""
        from nertool.model.input_modules.words import WordVectors

        assert isinstance(module, WordVectors)
        column = 0
        for file in self.config.vectors:
            vectors = resources.vectors[file]
            rows, sources = rows_with_vectors(self.rows, vectors)
            module.fill(rows, column, vectors.matrix[sources])
            column += vectors.dimensions

    def adopted_weights(self, old: Input, resources: Resources, module: InputModule) -> None:
        """Give new words without a pretrained vector the one that they had: of lower case, or of unknown words."""
        from nertool.model.input_modules.words import WordVectors

        assert isinstance(module, WordVectors) and isinstance(old, Words)
        new = dict(islice(self.rows.items(), len(old.words), None))
        for file in self.config.vectors:
            known = set(rows_with_vectors(new, resources.vectors[file])[0].tolist())
            new = {word: row for word, row in new.items() if row not in known}
        sources = old.encode_forms(list(new)).values
        rows = np.fromiter(new.values(), np.int64, len(new))
        module.copy_rows(rows, sources)

    def encode_forms(self, forms: Sequence[str]) -> Table:
        """Find the row of each form: as written, in lower case, with digits as 0; else that of unknown words."""
        rows = self.rows
        return Table(np.fromiter((look_up(form, rows) or UNKNOWN_ROW for form in forms), np.int64, len(forms)))

    def describe(self) -> str:
        """Describe the table."""
        fixed = "" if self.config.trainable else ", not trained"
        return f"{len(self.words):,} words, {self.dimensions} dimensions{fixed}"
