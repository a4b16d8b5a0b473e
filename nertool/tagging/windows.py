"""Sentences that are too long to tag whole: tagged in windows that overlap, and joined again.

Time and memory for a sentence grow with its length, those of attention with its square, and text without full
stops has sentences without end. A window is as long as the longest sentence that is tagged whole. Where two
windows overlap, the labels come from the left one up to a seam near the middle, and from the right one after it,
so that each token is labelled by a window that sees some context on both sides of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nertool.tagging.labels import LabelTables
from nertool.tagging.prediction import Tables

LONGEST = 512  # tokens of a sentence that is tagged whole, and of a window
OVERLAP = 128  # tokens that neighbouring windows share, at least
PER_BATCH = 8000  # tokens: with fewer windows side by side, tagging took twice as long
_SEAM = OVERLAP // 4  # how far from the middle of the overlap the seam may be


@dataclass(frozen=True)
class Pieces:
    """What is tagged at once: sentences, or windows of them.

    Attributes:
        sentences: The sentence that each is of, ascending, (pieces,).
        starts, ends: Where each begins and ends among the tokens of its sentence, (pieces,).
    """

    sentences: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each piece, (pieces,)."""
        sizes: np.ndarray = self.ends - self.starts
        return sizes


@dataclass(frozen=True)
class Joints:
    """Where a sentence may be joined.

    Attributes:
        outside: Number of the label for tokens outside of entities; -1 where there is none.
        allowed: Whether a sentence could end with a label and another begin with the next, boolean (from, to).
    """

    outside: int
    allowed: np.ndarray


def joints(labels: LabelTables) -> Joints:
    """Derive where seams may be from the labels of a model."""
    return Joints(labels.outside, labels.transitions & labels.end[:, None] & labels.start)


def note(count: int) -> str:
    """Say how many sentences were cut."""
    return f"sentences of more than {LONGEST} tokens, tagged in windows that overlap: {count:,}"


def cut(lengths: np.ndarray) -> Pieces:
    """Cut what is too long; an empty sentence has no piece.

    Args:
        lengths: Tokens of each sentence, (sentences,).
    """
    counts = np.where(lengths > LONGEST, -(-(lengths - OVERLAP) // (LONGEST - OVERLAP)), (lengths > 0).astype(int))
    sentences = np.repeat(np.arange(len(lengths)), counts)
    numbers = np.arange(len(sentences)) - np.repeat(np.cumsum(counts) - counts, counts)
    own = lengths[sentences]
    # Spread evenly, so that the last window is no shorter than the others.
    starts = numbers * np.maximum(own - LONGEST, 0) // np.maximum(counts[sentences] - 1, 1)
    return Pieces(sentences, starts, np.minimum(starts + LONGEST, own))


def join(tables: Tables, pieces: Pieces, lengths: np.ndarray, rules: Joints) -> Tables:
    """Put sentences together from what was predicted for their pieces.

    Entities that lie in one window have the probability that they have there. One that crosses a seam, as only
    entities do that are longer than the stretch that is searched for a seam, has the left window's up to the seam
    and the right one's, given the label there, after it. A sentence that was cut has one sequence, its labels.

    Args:
        tables: Of the pieces, with the tables for probabilities where these or sequences are wanted.
        pieces: As `cut` made them.
        lengths: Tokens of each sentence, (sentences,).
        rules: Where a seam may be.
    """
    sizes = pieces.sizes
    offsets = np.cumsum(sizes) - sizes
    begins, ends = np.zeros_like(sizes), sizes.copy()  # of what is taken from each piece
    shifts = np.zeros(len(sizes))
    for right in np.flatnonzero(pieces.starts > 0).tolist():
        left = right - 1
        middle = int(pieces.starts[right] + pieces.ends[left]) // 2  # of the overlap, in the sentence
        at_left = int(offsets[left] + middle - pieces.starts[left])
        at_right = int(offsets[right] + middle - pieces.starts[right])
        around = np.arange(-_SEAM - 1, _SEAM)
        seam, same = _seam(tables.labels[at_left + around], tables.labels[at_right + around], rules)
        ends[left] = middle + seam - pieces.starts[left]
        begins[right] = middle + seam - pieces.starts[right]
        if tables.path is not None:
            step = seam if same else seam - 1
            shifts[right] = shifts[left] + tables.path[at_left + step] - tables.path[at_right + step]
    kept = ends - begins
    take = np.repeat(offsets + begins - (np.cumsum(kept) - kept), kept) + np.arange(int(kept.sum()))
    labels = tables.labels[take]
    first, path, last = (None if each is None else each[take] for each in (tables.first, tables.path, tables.last))
    path = None if path is None else path + np.repeat(shifts, kept)
    sequences, shares = tables.sequences[take], tables.shares[pieces.starts == 0]
    if shares.shape[1] and first is not None and path is not None and last is not None:
        after = np.cumsum(lengths)
        for row, sentence in enumerate(np.flatnonzero(lengths > 0).tolist()):
            if lengths[sentence] > LONGEST:
                a, b = int(after[sentence] - lengths[sentence]), int(after[sentence])
                sequences[a:b] = 0
                sequences[a:b, 0] = labels[a:b]
                shares[row] = 0.0
                shares[row, 0] = np.exp(min(first[a] + path[b - 1] - path[a] + last[b - 1], 0.0))
    marginals = None if tables.marginals is None else tables.marginals[take]
    wrong = None if tables.wrong is None else tables.wrong[take]
    return Tables(labels, first, path, last, sequences, shares, marginals, wrong)


def _seam(left: np.ndarray, right: np.ndarray, rules: Joints) -> tuple[int, bool]:
    """Find the best place to go over from one window to another.

    Args:
        left: Labels that the left window gives to the tokens around the middle of the overlap, and to the token
            before these.
        right: Labels that the right window gives to the same.
        rules: Where a seam may be.

    Returns:
        Position of the first token whose label comes from the right, from the middle; whether both agree on it.
    """
    same = left[1:] == right[1:]
    # Up to a label on which both agree the left is what the scheme allows, and from it on the right is.
    for candidates in (same & (left[1:] == rules.outside), same, rules.allowed[left[:-1], right[1:]]):
        positions = np.flatnonzero(candidates) - _SEAM
        if len(positions):
            position = int(positions[np.abs(positions).argmin()])
            return position, bool(same[position + _SEAM])
    return 0, False
