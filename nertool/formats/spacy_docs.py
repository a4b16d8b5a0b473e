"""spaCy's Docs as sentences of tokens: the one place that says what a sentence of a Doc is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spacy.tokens import Doc


def doc_sentences(doc: Doc) -> tuple[list[list[str]], list[np.ndarray]]:
    """Cuts a Doc into the sentences that a network sees.

    A Doc without sentence borders is one sentence. Tokens of nothing but white space are left out, for no
    corpus has them, and so are sentences of nothing else.

    Args:
        doc: Its sentences are those of `doc.sents`, where these are set.

    Returns:
        For each sentence its tokens, and their places among the tokens of the Doc, (tokens,).
    """
    table = doc.to_array(["ORTH", "IS_SPACE", "SENT_START"]).reshape(len(doc), 3)
    places = np.flatnonzero(table[:, 1] == 0)
    # Unset is 0 and "not a start" is -1, so that only 1 begins a sentence.
    starts = np.searchsorted(places, np.flatnonzero(table[:, 2] == 1))
    borders = np.unique(np.concatenate(([0], starts, [len(places)])))
    strings = doc.vocab.strings
    tokens = [strings[number] for number in table[places, 0].tolist()]
    pairs = list(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True))
    return [tokens[a:b] for a, b in pairs], [places[a:b] for a, b in pairs]
