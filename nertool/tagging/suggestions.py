"""The texts of a pool that should be labelled next, with what a model proposes for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nertool.errors import CorpusError
from nertool.tagging.ranking import RANDOM_SHARE, By, Ranked, rank
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document


@dataclass(frozen=True)
class Suggestion:
    """A text that should be labelled.

    Attributes:
        ranked: Why; its index is that among the texts that were ranked.
        document: The text with the entities that the model proposes. Its `meta` has `reason` and `confidence`,
            exp(-score): with the measure `mnlp` the geometric mean of what each token contributes to the
            probability of the labels.
    """

    ranked: Ranked
    document: Document


def suggest(
    tagger: Tagger,
    pool: Sequence[Document],
    *,
    by: By = "mnlp",
    top: int = 100,
    random_share: float = RANDOM_SHARE,
    seed: int = 1,
    note: Callable[[int], object] | None = None,
) -> list[Suggestion]:
    """Choose texts to label, and label them with the model; arguments as for `rank`."""
    ranked = rank(tagger, pool, by=by, top=top, random_share=random_share, seed=seed, note=note)
    tagged = tagger.tag_documents(pool[each.index] for each in ranked)
    return [
        Suggestion(each, replace(document, meta=_meta(each, by)))
        for each, document in zip(ranked, tagged, strict=True)
    ]


def _meta(ranked: Ranked, by: By) -> dict[str, float | str]:
    if by == "random":
        return {"reason": ranked.reason}
    return {"reason": ranked.reason, "confidence": round(math.exp(-ranked.score), 6)}


def sentences(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield each sentence as a document of its own, so that no writer joins two of one text again."""
    for document in documents:
        for sentence in document.sentences():
            yield replace(sentence, id=None)


def unlabelled(pool: Iterable[Document], labelled: Iterable[Document], path: str | Path) -> list[Document]:
    """Leave out the texts that are labelled already.

    Texts are the same that differ in whitespace alone, however they were tokenized. A text of the pool that is a
    sentence of a labelled one counts as labelled.

    Args:
        pool: What could be labelled.
        labelled: What was read of a labelled file; documents without labels do not count.
        path: The file, for an error.

    Raises:
        CorpusError: None of the documents is labelled.
    """
    known: set[str] = set()
    for document in labelled:
        if any(document.labels or ()):  # a label that is not known is empty
            known.add(_key(document))
            known.update(map(_key, document.sentences()))
    if not known:
        raise CorpusError("no text in it is labelled, so that none can be left out", path)
    return [document for document in pool if _key(document) not in known]


def _key(document: Document) -> str:
    return "".join(document.text.split())
