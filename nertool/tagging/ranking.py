"""What to label next: the texts of which a model is least certain, each different from those before it.

Two measures of uncertainty come from the exact distribution over label sequences:

- `mnlp`: the log-probability of the best label sequence, divided by the number of tokens, which keeps long
  sentences from being chosen for their length alone (Shen et al. 2018, equation 10).
- `errors`: the expected number of wrong entities, those that the model finds and that are not there, and those
  that it misses. With the entities E of the best label sequence and Y those of a sequence drawn from the
  distribution it is |E| + E|Y| - 2 sum of P(e in Y) over e in E.

Uncertain sentences are often alike: rows of one table, one phrase with another name. Among the candidates the next
one is always that with the greatest uncertainty x (1 - overlap), where overlap is the Jaccard index of its tokens
and those of the most similar sentence that was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from nertool.errors import NertoolError
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document

By = Literal["mnlp", "errors", "random"]

MEASURES: tuple[By, ...] = ("mnlp", "errors", "random")
RANDOM_SHARE = 0.1
_TOKENS_AT_ONCE = 50_000
_CANDIDATES = 5  # for each document that is wanted
_LEAST_CANDIDATES = 500


@dataclass(frozen=True)
class Ranked:
    """A document that should be labelled.

    Attributes:
        index: Its place among the documents, from 0.
        score: How uncertain the model is, the higher the less certain: with `mnlp` the negative log-probability of
            the best label sequence for each token, with `errors` the expected number of wrong entities; 0 where
            the measure is `random`.
        reason: The measure; `random` where it was drawn at random.
    """

    index: int
    score: float
    reason: By


def rank(
    tagger: Tagger,
    documents: Sequence[Document],
    *,
    by: By = "mnlp",
    top: int = 100,
    random_share: float = RANDOM_SHARE,
    seed: int = 1,
    note: Callable[[int], object] | None = None,
) -> list[Ranked]:
    """Choose the documents that are worth labelling most.

    The documents that are drawn at random are a sample of all of them, and so a fair test set once they are
    labelled. They stand evenly among the others.

    Args:
        tagger: The model. With `random` it is not used.
        documents: To choose from, a sentence or a text each; what labels they have is not looked at.
        by: Measure of uncertainty, or `random`.
        top: How many to choose; fewer where there are fewer with tokens.
        random_share: Share of them that is drawn at random, rounded up.
        seed: Of the random choice.
        note: Called with the number of documents whose uncertainty was computed since the last call.

    Returns:
        The chosen ones, the one to label first before the others.

    Raises:
        NertoolError: An argument is out of range.
        CorpusError: A document lacks a column that the model reads.
    """
    if by not in MEASURES:
        raise NertoolError(f"by is {by!r}; expected {', '.join(MEASURES)}")
    if top < 1:
        raise NertoolError(f"top is {top}; expected at least 1")
    if not 0 <= random_share <= 1:  # nor NaN
        raise NertoolError(f"random_share is {random_share}; expected a share from 0 to 1")
    lengths = np.fromiter(map(len, documents), np.int64, len(documents))
    filled = np.flatnonzero(lengths)
    top = min(top, len(filled))
    count = top if by == "random" else int(np.ceil(random_share * top - 1e-9))
    drawn = np.random.default_rng(seed).permutation(filled)[:count]
    if by == "random":
        return [Ranked(index, 0.0, by) for index in drawn.tolist()]
    scores = uncertainty(tagger, documents, by, note=note)
    rest = np.setdiff1d(filled, drawn)
    wanted = top - count
    best = rest[np.argsort(-scores[rest], kind="stable")[: max(_CANDIDATES * wanted, _LEAST_CANDIDATES)]]
    chosen = best[_choose([documents[index] for index in best.tolist()], scores[best], wanted)]
    ranked = [Ranked(index, float(scores[index]), by) for index in chosen.tolist()]
    for place, index in zip(_spread(count, top), drawn.tolist(), strict=True):
        ranked.insert(place, Ranked(index, float(scores[index]), "random"))
    return ranked


def uncertainty(
    tagger: Tagger,
    documents: Sequence[Document],
    by: Literal["mnlp", "errors"],
    *,
    note: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Compute how uncertain a model is of documents, (documents,); 0 for those without tokens.

    Args:
        tagger: The model.
        documents: Of one sentence or several.
        by: Measure; see `Ranked.score`.
        note: Called with the number of documents that are done since the last call.

    Raises:
        CorpusError: A document lacks a column that the model reads.
    """
    result = np.zeros(len(documents))
    done = 0
    for part in _parts(documents):
        errors = by == "errors"
        predictions = tagger.predictor.predict(part, probabilities=not errors, errors=errors)
        values = predictions.wrong_entities() if errors else -predictions.log_probabilities()
        # A document without tokens is one empty sentence here.
        sentences = np.cumsum([0, *(max(1, len(document.sentence_starts)) for document in part)])
        total = np.concatenate(([0.0], np.cumsum(values)))
        own = np.diff(total[sentences])
        if not errors:
            own /= np.maximum(np.fromiter(map(len, part), np.int64, len(part)), 1)
        result[done : done + len(part)] = own
        done += len(part)
        if note is not None:
            note(len(part))
    return np.maximum(result, 0.0)


def _parts(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    """Cut documents into parts of `_TOKENS_AT_ONCE` tokens, or a document more."""
    start = count = 0
    for end, document in enumerate(documents, 1):
        count += len(document) + 1
        if count >= _TOKENS_AT_ONCE or end == len(documents):
            yield documents[start:end]
            start, count = end, 0


def _choose(documents: Sequence[Document], scores: np.ndarray, count: int) -> np.ndarray:
    """Choose documents one after another by score x (1 - greatest overlap with one that was chosen).

    Args:
        documents: The candidates, with tokens.
        scores: Of each, at least 0, descending.
        count: How many to choose, at most all of them.

    Returns:
        Their places, in the order of the choice, (count,).
    """
    numbers: dict[str, int] = {}
    forms = [{token.lower() for token in document.tokens} for document in documents]
    sizes = np.fromiter(map(len, forms), np.int64, len(forms))
    flat = np.fromiter(
        (numbers.setdefault(form, len(numbers)) for form in chain.from_iterable(forms)), np.int64, int(sizes.sum())
    )
    ends = np.cumsum(sizes)
    owner = np.repeat(np.arange(len(forms)), sizes)
    # Which documents have a form, so that a choice costs what its forms occur, and not a look at all documents.
    order = np.argsort(flat, kind="stable")
    having = owner[order]
    bounds = np.searchsorted(flat[order], np.arange(len(numbers) + 1))
    overlap = np.zeros(len(forms))
    free = np.ones(len(forms), bool)
    result = np.zeros(count, np.int64)
    for place in range(count):
        # A copy of a chosen document has the value 0, and still goes before what was chosen.
        best = int(np.where(free, scores * (1.0 - overlap), -1.0).argmax())
        result[place], free[best] = best, False
        own = flat[ends[best] - sizes[best] : ends[best]]
        common = np.bincount(
            np.concatenate([having[bounds[form] : bounds[form + 1]] for form in own.tolist()]),
            minlength=len(forms),
        )
        np.maximum(overlap, common / (sizes + sizes[best] - common), out=overlap)
    return result


def _spread(count: int, total: int) -> list[int]:
    """Return places for a few among all, evenly, ascending."""
    return [int((number + 0.5) * total / count) for number in range(count)]
