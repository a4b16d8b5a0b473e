"""Sentences of spaCy's Docs: the one place that says what a sentence of a Doc is."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacy.tokens import Doc


def doc_sentences(doc: Doc) -> tuple[list[list[str]], list[np.ndarray]]:
    """Split a Doc into the sentences that a network sees.

    A Doc without sentence boundaries is one sentence. Tokens of whitespace alone are left out, because no corpus
    has them, and so are sentences of nothing else.

    Args:
        doc: Its sentences are those of `doc.sents`, where these are set.

    Returns:
        For each sentence its tokens, and their indices among the tokens of the Doc, (tokens,).
    """
    table = doc.to_array(["ORTH", "IS_SPACE", "SENT_START"]).reshape(len(doc), 3)
    indices = np.flatnonzero(table[:, 1] == 0)
    # Unset is 0 and "not a start" is -1, so that only 1 begins a sentence.
    starts = np.searchsorted(indices, np.flatnonzero(table[:, 2] == 1))
    boundaries = np.unique(np.concatenate(([0], starts, [len(indices)]))).tolist()
    strings = doc.vocab.strings
    tokens = [strings[number] for number in table[indices, 0].tolist()]
    pairs = list(pairwise(boundaries))
    return [tokens[a:b] for a, b in pairs], [indices[a:b] for a, b in pairs]
