"""Label sequences of many sentences at once: which are valid, which entities they mark, how they are shown.

These are the rules of `nertool.text.schemes` as tables over label numbers. The labels of all sentences are one
flat array, the tokens of the first sentence, then those of the second; `offsets` (sentences + 1,) says where each
begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nertool.model.chain import Marks
from nertool.text.schemes import OUTSIDE, PREFIXES, Scheme, allowed_transitions, spans, split_label


@dataclass(frozen=True)
class Entities:
    """The entities of many sentences.

    Attributes:
        begin: Whether each token begins one, boolean (tokens,).
        starts, ends: First token of each entity, and the token after its last, in the flat array, (entities,).
    """

    begin: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class LabelTables:
    """What the labels of a model mean.

    Args:
        labels: In the order of the network's outputs.
        scheme: Of these.

    Attributes:
        names: The labels, (labels,).
        start, transitions, end: What the scheme allows, as from `allowed_transitions`.
        outside: Number of the label O; -1 where there is none.
        shown_scheme: Scheme of the labels that users see: IOB2, or plain.
        shown_names: These labels.
    """

    def __init__(self, labels: Sequence[str], scheme: Scheme) -> None:
        self.scheme = scheme
        self.names = np.array(labels, dtype=object)
        self.start, self.transitions, self.end = allowed_transitions(labels, scheme)
        self.outside = list(labels).index(OUTSIDE) if OUTSIDE in labels else -1
        plain = scheme is Scheme.PLAIN
        self.shown_scheme = Scheme.PLAIN if plain else Scheme.IOB2
        pairs = [("", "") if plain else split_label(label) for label in labels]
        prefixes, types = (sorted({pair[place] for pair in pairs}) for place in (0, 1))
        prefix = np.array([prefixes.index(each) for each, _ in pairs])
        self._types = np.array([types.index(each) for _, each in pairs])
        self._inside = np.array([bool(each) for _, each in pairs])
        # Whether a label begins an entity after another; the last row: at the start of a sentence.
        same_type = np.array([[_begins(a, b, scheme) for b in prefixes] for a in prefixes])
        begins = (self._types[:, None] != self._types) | same_type[prefix[:, None], prefix]
        self._begins = np.vstack((begins, np.ones(len(labels), bool))) & self._inside
        self._allowed = np.vstack((self.transitions, self.start))
        shown = labels if plain else [OUTSIDE, *(f"{mark}-{kind}" for kind in types for mark in "BI")]
        self.shown_names = np.array(shown, dtype=object)

    def entities(self, labels: np.ndarray, offsets: np.ndarray) -> Entities:
        """Find entities as `schemes.spans` does, in valid sequences and in others.

        Args:
            labels: Label of each token, (tokens,).
            offsets: Where each sentence begins, and the number of tokens, (sentences + 1,).
        """
        first, before = self._before(labels, offsets)
        begin = self._begins[before, labels]
        starts = np.flatnonzero(begin)
        stops = np.flatnonzero(begin | first | ~self._inside[labels])  # whatever came before has ended here
        ends = np.append(stops, len(labels))[np.searchsorted(stops, starts, side="right")]
        return Entities(begin, starts, ends)

    @property
    def marks(self) -> Marks:
        """Which entities a label sequence has; with plain tags each token is an entity."""
        count = len(self.names)
        if self.scheme is Scheme.PLAIN:
            return Marks(np.ones(count, bool), np.ones((count, count), bool), np.eye(count, dtype=bool))
        same = (self._types[:, None] == self._types) & self._inside[:, None] & self._inside
        return Marks(self._begins[-1], self._begins[:-1], same)

    def invalid(self, labels: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Return the sentences whose labels the scheme does not allow, ascending; arguments as for `entities`."""
        _, before = self._before(labels, offsets)
        wrong = ~self._allowed[before, labels]
        last = offsets[1:][np.diff(offsets) > 0] - 1
        wrong[last] |= ~self.end[labels[last]]
        result: np.ndarray = np.unique(np.searchsorted(offsets, np.flatnonzero(wrong), side="right") - 1)
        return result

    def shown(self, labels: np.ndarray, entities: Entities) -> np.ndarray:
        """Convert labels to those that users see, (tokens,), as indices into `shown_names`; repair them too."""
        if self.scheme is Scheme.PLAIN:
            return labels
        return np.where(self._inside[labels], 1 + 2 * self._types[labels] + ~entities.begin, 0)

    def shown_shares(self) -> tuple[list[str], np.ndarray]:
        """Return the labels that the model's stand for where nothing is known of their neighbours.

        These are labels of IOB2; of a model of IOB1 its own, because there an I- may begin or continue an entity.

        Returns:
            Names, and which of the model's labels each stands for, 0 or 1, (labels, names).
        """
        row = PREFIXES.get(self.scheme)
        names = self.names.tolist()
        if row is not None and row.split is None:
            marks = {row.begin: "B", row.single: "B", row.inside: "I", row.end: "I"}
            names = [f"{marks[prefix]}-{kind}" if kind else prefix for prefix, kind in map(split_label, names)]
        distinct = list(dict.fromkeys(names))
        return distinct, np.array([[float(name == other) for other in distinct] for name in names])

    def _before(self, labels: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which tokens begin a sentence, and the label before each token (the number of labels: none)."""
        first = np.zeros(len(labels), bool)
        first[offsets[:-1][np.diff(offsets) > 0]] = True
        before = np.zeros(len(labels), np.int64)
        before[1:] = labels[:-1]
        before[first] = len(self.names)
        return first, before


def _begins(before: str, prefix: str, scheme: Scheme) -> bool:
    """Say whether a label begins an entity after a label of the same type."""
    pair = [f"{each}-X" if each != OUTSIDE else OUTSIDE for each in (before, prefix)]
    return scheme is not Scheme.PLAIN and any(span.start == 1 for span in spans(pair, scheme))
