"""From spaCy's Docs to the documents that a network sees, with the columns that its inputs read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from nertool.errors import ConfigError, NertoolError
from nertool.formats.spacy_docs import doc_sentences
from nertool.text.document import Context, Document

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.training import Example

    from nertool.config.schema import Config

ATTRIBUTES = {"pos": "POS", "tag": "TAG", "lemma": "LEMMA", "dep": "DEP", "shape": "SHAPE"}
"""The attribute of a Doc's tokens that holds a column's values."""


def columns_read(config: Config) -> tuple[str, ...]:
    """Return the columns that the inputs of a config read.

    Raises:
        ConfigError: A column is no attribute of spaCy's tokens.
    """
    columns = []
    for name, entry in config.active_inputs.items():
        column = getattr(entry, "column", None)
        if column is not None and column not in ATTRIBUTES:
            raise ConfigError(
                f"inputs.{name}: the column {column!r} is no attribute of spaCy's tokens; "
                f"the component can read {', '.join(ATTRIBUTES)}"
            )
        if column is not None:
            columns.append(column)
    return tuple(dict.fromkeys(columns))


def doc_documents(doc: Doc, columns: Iterable[str]) -> tuple[list[Document], list[np.ndarray]]:
    """Cut a Doc into the sentences that a network sees, with columns.

    Args:
        doc: See `doc_sentences` for its sentences.
        columns: Names of the columns, of `ATTRIBUTES`.

    Returns:
        The sentences, and for each the indices of its tokens in the Doc, (tokens,).

    Raises:
        NertoolError: The Doc lacks the values of a column.
    """
    values = {}
    for column in columns:
        if not _has(doc, column):
            raise NertoolError(
                f"the model reads the column {column!r}, but the Doc has no token.{column}_: put a component that "
                "sets it before this one (for training also in training.annotating_components)"
            )
        values[column] = _values(doc, column)
    return _cut(doc, values)


def example_documents(example: Example, columns: Iterable[str]) -> tuple[list[Document], list[np.ndarray]]:
    """Cut the predicted Doc of an example as `doc_documents` does.

    Columns are those of the predicted Doc; where that lacks them, those of the reference: before training nothing
    has been predicted.
    """
    doc, values = example.predicted, {}
    for column in columns:
        if not _has(doc, column) and _has(example.reference, column):
            aligned = example.get_aligned(ATTRIBUTES[column], as_string=True)
            values[column] = [value or "" for value in aligned]
        elif _has(doc, column):
            values[column] = _values(doc, column)
        else:
            raise NertoolError(
                f"the model reads the column {column!r}, but the training examples have no token.{column}_: "
                "annotate them, or name a component that sets it in training.annotating_components"
            )
    return _cut(doc, values)


def _has(doc: Doc, column: str) -> bool:
    return column == "shape" or bool(doc.has_annotation(ATTRIBUTES[column]))


def _values(doc: Doc, column: str) -> list[str]:
    strings = doc.vocab.strings
    # POS is numbered by an enumeration, the others by hashes; the store of strings knows both.
    numbers: Any = doc.to_array([ATTRIBUTES[column]]).reshape(len(doc)).tolist()
    return [strings[number] for number in numbers]


def _cut(doc: Doc, values: Mapping[str, Sequence[str]]) -> tuple[list[Document], list[np.ndarray]]:
    sentences, indices = doc_sentences(doc)
    whole = tuple(chain.from_iterable(sentences))
    documents, start = [], 0
    for tokens, own in zip(sentences, indices, strict=True):
        places = own.tolist() if values else []
        columns = {name: tuple(row[place] for place in places) for name, row in values.items()}
        documents.append(Document(tuple(tokens), columns=columns, context=Context(whole, start)))
        start += len(tokens)
    return documents, indices
