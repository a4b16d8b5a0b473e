"""The values of a further column of the corpus, such as part-of-speech tags."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from nertool.config.schema import ColumnConfig
from nertool.data.encoding import Table
from nertool.data.vocabulary import collect_values
from nertool.errors import CorpusError
from nertool.model.inputs.base import Input, Resources, grown, names_of
from nertool.text.document import Document

if TYPE_CHECKING:
    from nertool.model.dropout import Noise
    from nertool.model.input_modules.column import ColumnVectors

UNKNOWN = 0  # value of padding too


class _Numbers(dict[str, int]):
    def __missing__(self, value: str) -> int:
        return UNKNOWN


class Column(Input):
    """The values of a column, each a number.

    Args:
        name: Of the entry.
        config: The entry.
        values: The known values; values[0] has number 1.
    """

    Config = ColumnConfig
    context_free = False

    def __init__(self, name: str, config: ColumnConfig, values: Sequence[str]) -> None:
        super().__init__(name, config)
        self.values = values
        self._numbers = _Numbers((value, number) for number, value in enumerate(values, start=1))

    @classmethod
    def fit(cls, name: str, config: ColumnConfig, documents: Sequence[Document], resources: Resources) -> Column:
        """Collect the values of the training documents.

        Raises:
            CorpusError: A document lacks the column.
        """
        empty = cls(name, config, ())
        for document in documents:
            empty.check(document)
        present = (document for document in documents if len(document))
        return cls(name, config, collect_values(present, config.column, config.minimum_count))

    def grow(self, config: ColumnConfig, documents: Sequence[Document], resources: Resources) -> Column:
        """Add the values of more training documents."""
        fitted = self.fit(self.name, config, documents, resources)
        return Column(self.name, config, grown(self.values, fitted.values))

    @classmethod
    def restore(cls, name: str, config: ColumnConfig, state: Any) -> Column:
        """Make the input from its values."""
        return cls(name, config, names_of(state))

    def state(self) -> list[str]:
        """Return the values."""
        return list(self.values)

    def module(self, noise: Noise) -> ColumnVectors:
        """Build the table."""
        from nertool.model.input_modules.column import ColumnVectors

        return ColumnVectors(len(self.values) + 1, self.config.dimensions, noise, self.config.dropout)

    def check(self, document: Document) -> None:
        """Refuse a document that has tokens but not the column.

        Raises:
            CorpusError: The column is missing, or has another number of values than there are tokens.
        """
        values = document.columns.get(self.config.column, ())
        if len(values) == len(document):
            return
        origin = document.origin if document.origin and document.origin.starts else None
        path, line = (None, None) if origin is None else (origin.path, origin.line(0))
        place = "" if origin is None or line is not None else f"{origin.place(0)}: "
        column = repr(self.config.column)
        if self.config.column in document.columns:
            message = f"{place}column {column} has {len(values)} values for {len(document)} tokens"
            raise CorpusError(message, path, line)
        names = ", ".join(map(repr, sorted(document.columns))) or "none"
        raise CorpusError(
            f"{place}there is no column {column}, which the model needs for its input {self.name!r} (further "
            f"columns of this text: {names}). Give a file of a format that has columns, such as --from "
            f"conll, with their names in corpus.columns, or a Document with columns={{{column}: ...}}",
            path,
            line,
        )

    def encode_documents(self, documents: Sequence[Document]) -> Table:
        """Give the value of each token its number.

        Raises:
            CorpusError: A document lacks the column.
        """
        for document in documents:
            self.check(document)
        rows = (document.columns[self.config.column] for document in documents if len(document))
        count = sum(map(len, documents))
        return Table(np.fromiter(map(self._numbers.__getitem__, chain.from_iterable(rows)), np.int64, count))

    def describe(self) -> str:
        """Describe the table."""
        return f"column {self.config.column!r}, {len(self.values):,} values, {self.config.dimensions} dimensions"
