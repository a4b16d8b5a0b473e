"""Sentences that are too long to learn from as a whole, cut into pieces between two entities.

Memory for a training step grows with the longest sentence of a batch, and text without full stops has sentences
without end. Tagging looks at 512 tokens at a time as well (`nertool.tagging.windows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nertool.errors import CorpusError
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE, Scheme, Span, allowed_pair, spans, split_label

LONGEST = 512
"""Tokens of a piece."""

_FARTHEST = 4 * LONGEST  # where no entity ends before


def in_pieces(sentences: Iterable[Document], scheme: Scheme) -> list[Document]:
    """Cut sentences of more than `LONGEST` tokens; others stay as they are.

    Args:
        sentences: Documents of one sentence, with labels; no label that the scheme does not allow at its place.
        scheme: Of the labels.

    Raises:
        CorpusError: An entity is so long that there is no place to cut.
    """
    result: list[Document] = []
    for sentence in sentences:
        if len(sentence) <= LONGEST:
            result.append(sentence)
        else:
            result += _pieces(sentence, scheme)
    return result


def _pieces(sentence: Document, scheme: Scheme) -> Iterator[Document]:
    labels = sentence.labels or ()
    start = 0
    while len(sentence) - start > LONGEST:
        wanted = start + LONGEST
        # As long as possible; where an entity is in the way, rather shorter than longer.
        nearest = [*range(wanted, start, -1), *range(wanted + 1, start + _FARTHEST + 1)]
        end = next((place for place in nearest if _may_cut(labels, place, scheme)), None)
        if end is None:
            origin = sentence.origin
            raise CorpusError(
                f"an entity of more than {LONGEST} tokens in a sentence of {len(sentence):,}; they are learnt "
                f"in pieces of {LONGEST} tokens, and this one cannot be cut: is its end missing?",
                None if origin is None else origin.path,
                None if origin is None or not origin.starts else origin.line(0, start),
            )
        yield _part(sentence, start, end, scheme)
        start = end
    if start < len(sentence):
        yield _part(sentence, start, len(sentence), scheme)


def _part(sentence: Document, start: int, end: int, scheme: Scheme) -> Document:
    """Return a part of a sentence, whose first label stands at the start of a sentence now."""
    part = sentence.part(start, end)
    labels = part.labels or ()
    if scheme is Scheme.IOB1 and labels and labels[0].startswith("B-"):  # which follows an entity of its type
        return replace(part, labels=(f"I-{labels[0][2:]}", *labels[1:]))
    return part


def _may_cut(labels: Sequence[str], place: int, scheme: Scheme) -> bool:
    """Say whether no entity is on both sides of a place; labels that nobody knows may be anything."""
    if place >= len(labels):
        return place == len(labels)
    before, after = labels[place - 1], labels[place]
    if Span(0, 2, split_label(after)[1]) in spans([before or OUTSIDE, after or OUTSIDE], scheme):
        return False
    begins = scheme is Scheme.IOB1 and after.startswith("B-")  # `_part` writes it as I-
    return (before == UNKNOWN or allowed_pair(before, OUTSIDE, scheme)) and (
        after == UNKNOWN or begins or allowed_pair(OUTSIDE, after, scheme)
    )
