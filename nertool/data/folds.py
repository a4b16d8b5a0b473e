"""Parts of a corpus: folds for cross-validation, nested shares for learning curves, sentences taken out.

A part is a set of sentences, numbered as in `Split.sentences`. What belongs together is never divided: a document
where the corpus has several, else a sentence.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nertool.config.schema import MOST_FOLDS
from nertool.errors import CorpusError
from nertool.formats.registry import Report
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme

if TYPE_CHECKING:
    from nertool.data.corpus import Split


class Unit(NamedTuple):
    """What is not divided: a document, or a sentence where there are no documents.

    Attributes:
        sentences: Their numbers in the split.
        documents: All of it; a document may come in several parts.
    """

    sentences: range
    documents: tuple[Document, ...]

    @property
    def size(self) -> int:
        """How many sentences it has."""
        return len(self.sentences)

    @property
    def is_known(self) -> bool:
        """Whether each token has a label."""
        return not any(UNKNOWN in (document.labels or ()) for document in self.documents)

    def types(self) -> Counter[str]:
        """Count the types of its entities, or its plain tags."""
        counts: Counter[str] = Counter()
        for document in self.documents:
            if document.scheme is Scheme.PLAIN:
                counts.update(document.labels or ())
            else:
                counts.update(span.type for span in document.spans)
        return counts


def boundaries(documents: Sequence[Document]) -> Iterator[bool]:
    """Say of each document but the first whether another document begins there.

    It does not where two parts have one id, nor between sentences that are of no document.
    """
    for before, document in pairwise(map(mark_of, documents)):
        yield begins(before, document)


Mark = tuple[str | None, bool]


def mark_of(document: Document) -> Mark:
    """Return the id of a document, and whether it is a sentence that is of no document."""
    return document.id, document.source_text is None and len(document.sentence_starts) == 1


def begins(before: Mark, mark: Mark) -> bool:
    """Say whether another document begins between two neighbours."""
    return before[0] != mark[0] or (mark[0] is None and not (before[1] and mark[1]))


def units_of(documents: Sequence[Document], fewest: int = 2) -> list[Unit]:
    """Return what is not divided, in order.

    Args:
        documents: Of a split.
        fewest: With fewer documents than this the sentences are the units.
    """
    starts = [True, *boundaries(documents)]
    if sum(starts) < max(fewest, 2):
        documents = [sentence for document in documents for sentence in document.sentences()]
        starts = [True] * len(documents)
    groups: list[list[Document]] = []
    for document, new in zip(documents, starts, strict=False):
        if new:
            groups.append([])
        groups[-1].append(document)
    sizes = [sum(len(document.sentence_starts) for document in group) for group in groups]
    ends = accumulate(sizes)
    return [
        Unit(range(end - size, end), tuple(group)) for group, size, end in zip(groups, sizes, ends, strict=True)
    ]


def make_folds(split: Split, count: int, seed: int = 0) -> list[list[int]]:
    """Divide a split into folds of about the same size, with about the same number of entities of each type.

    The rarest type is dealt out first, each unit to the fold that lacks most of it (Sechidis et al. 2011, On the
    stratification of multi-label data, ECML PKDD); of several such folds to the smallest, then by chance.

    Args:
        split: Labelled.
        count: How many folds, at least 2.
        seed: Of the draw.

    Returns:
        The numbers of the sentences of each fold, ascending. Each sentence is in one fold; no fold is empty.

    Raises:
        CorpusError: There are fewer documents, or sentences, than folds.
    """
    if not 2 <= count <= MOST_FOLDS:
        raise ValueError(f"{count} folds; expected 2 to {MOST_FOLDS}")
    units = [unit for unit in units_of(split.documents) if unit.size]
    if len(units) < count:
        documents = len(units) < len(split)
        what = "documents, which are not divided, are too few" if documents else "sentences are too few"
        if len(units) == 1:
            what = "document, which is not divided, is too few" if documents else "sentence is too few"
        raise CorpusError(f"{len(units)} {what} for {count} folds; ask for fewer folds", split.path)
    types = [unit.types() for unit in units]
    totals: Counter[str] = Counter()
    holders: dict[str, list[int]] = {}  # units with a type
    order = list(range(len(units)))
    draw = random.Random(seed)
    draw.shuffle(order)
    for index in order:
        totals.update(types[index])
        for held in types[index]:
            holders.setdefault(held, []).append(index)
    lacking = [{name: total / count for name, total in totals.items()} for _ in range(count)]
    room = [len(split) / count] * count
    folds: list[list[int]] = [[] for _ in range(count)]
    free = set(order)
    names: list[str | None] = [*sorted(totals, key=lambda name: (totals[name], name)), None]
    for name in names:
        # Large units first: what comes late only fills up. The sort keeps the order of the draw among equals.
        waiting = order if name is None else holders[name]
        amounts = {index: units[index].size if name is None else types[index][name] for index in waiting}
        for index in sorted(waiting, key=lambda index: -amounts[index]):
            if index not in free:
                continue
            free.discard(index)
            fold = max(
                range(count),
                key=lambda each: (0.0 if name is None else lacking[each][name], room[each], draw.random()),
            )
            folds[fold].append(index)
            room[fold] -= units[index].size
            for each, amount in types[index].items():
                lacking[fold][each] -= amount
    return [[sentence for index in sorted(fold) for sentence in units[index].sentences] for fold in folds]


def draw_share(split: Split, share: float, seed: int = 0) -> list[int]:
    """Draw a share of the sentences at random; with the same seed a smaller share is part of a larger one.

    Args:
        split: Labelled or not.
        share: Of its sentences, in (0, 1]; as near to it as whole documents allow, and at least one of them.
        seed: Of the draw.

    Returns:
        Numbers of sentences, ascending.
    """
    units = [unit for unit in units_of(split.documents) if unit.size]
    random.Random(seed).shuffle(units)
    sizes = list(accumulate(unit.size for unit in units))  # of the first units
    wanted = share * len(split)
    # Ties go to fewer units; a larger share never ends before a smaller one.
    taken = min(range(len(units)), key=lambda index: (abs(sizes[index] - wanted), index), default=-1) + 1
    return sorted(sentence for unit in units[:taken] for sentence in unit.sentences)


def divide(split: Split, chosen: Collection[int]) -> tuple[Split, Split]:
    """Divide a split in two; what reading it changed or left out is told with the first part.

    Args:
        split: The split.
        chosen: Numbers of sentences, as in `Split.sentences`.

    Returns:
        The other sentences, and the chosen ones. A document stays one where all of it is in the same part.
    """
    chosen = set(chosen)
    parts: tuple[list[Document], list[Document]] = ([], [])
    places: list[tuple[bool, int]] = []  # of each sentence: whether it is chosen, and its new number
    lengths = [0, 0]
    for document in split.documents:
        first = len(places)
        sides = [number in chosen for number in range(first, first + len(document.sentence_starts))]
        whole = len(set(sides)) < 2
        for piece, side in zip([document] if whole else document.sentences(), sides, strict=False):
            parts[side].append(piece)
        for side in sides:
            places.append((side, lengths[side]))
            lengths[side] += 1
    strays: tuple[list[tuple[int, int, str]], ...] = ([], [])
    for sentence, token, name in split.stray_places:
        side, number = places[sentence]
        strays[side].append((number, token, name))
    weights: list[np.ndarray | None] = [None, None]
    if split.weights is not None:
        is_chosen = np.array([side for side, _ in places], bool)
        weights = [split.weights[~is_chosen], split.weights[is_chosen]]
    return (
        replace(split, documents=parts[0], strays=len(strays[0]), stray_places=strays[0], weights=weights[0]),
        replace(
            split,
            documents=parts[1],
            strays=len(strays[1]),
            stray_places=strays[1],
            unlabelled=0,
            report=Report(),
            weights=weights[1],
        ),
    )
