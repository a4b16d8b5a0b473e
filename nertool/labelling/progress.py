"""How good the proposals are, and an estimate of how good they would be with more labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_MODELS = 3
FEWEST_ENTITIES = 10
"""That people have marked, for a model's F1 to be a point of the curve."""

_LEAST, _MOST = 0.005, 0.995  # of F1, so that its logarithm and its variance are finite


@dataclass(frozen=True)
class Point:
    """How a model did.

    Attributes:
        sentences: That it learnt from.
        correct, proposed, marked: Entities, as proposed and as people marked them.
    """

    sentences: int
    correct: int
    proposed: int
    marked: int

    @property
    def f1(self) -> float:
        """F1, from 0 to 1."""
        return f1(self.correct, self.proposed, self.marked)


@dataclass(frozen=True)
class Estimate:
    """F1 with more labels, if it goes on as before.

    Attributes:
        sentences: Number of sentences to learn from.
        f1: Expected then, from 0 to 1.
        low, high: Two standard errors around it.
    """

    sentences: int
    f1: float
    low: float
    high: float


def f1(correct: int, proposed: int, marked: int) -> float:
    """Return F1; 0 where there are no entities."""
    return 2 * correct / (proposed + marked) if proposed + marked else 0.0


def extrapolate(points: Sequence[Point], sentences: int) -> Estimate | None:
    r"""Extrapolate a learning curve.

    Errors of models fall as a power of the number of sentences that they learn from (Hestness et al. 2017):

    .. math:: 1 - F_1(n) = a n^{-b}, \\quad b \\ge 0

    It is fitted to the logarithms by least squares, each point weighted by what its entities say of it, as of a
    share.

    Args:
        points: Of models that learnt from different numbers of sentences; at least `FEWEST_MODELS` with
            `FEWEST_ENTITIES` marked entities each.
        sentences: Where the curve is asked for.

    Returns:
        None where there are too few points.
    """
    used = [point for point in points if point.marked >= FEWEST_ENTITIES and point.sentences > 0]
    if len({point.sentences for point in used}) < FEWEST_MODELS:
        return None
    shares = np.clip([point.f1 for point in used], _LEAST, _MOST)
    errors = 1 - shares
    x, y = np.log([point.sentences for point in used]), np.log(errors)
    weights = np.array([point.marked for point in used]) * errors / shares  # 1 / variance of y
    middle = np.average(x, weights=weights)
    spread = float(np.sum(weights * (x - middle) ** 2))
    level = float(np.average(y, weights=weights))
    slope = min(0.0, float(np.sum(weights * (x - middle) * y)) / spread)
    residuals = y - level - slope * (x - middle)
    excess = max(1.0, float(np.sum(weights * residuals**2)) / (len(used) - 2))
    distance = float(np.log(sentences) - middle)
    deviation = float(np.sqrt(excess * (1 / np.sum(weights) + distance**2 / spread)))
    expected, low, high = (
        1 - float(np.exp(level + slope * distance + shift * deviation)) for shift in (0.0, 2.0, -2.0)
    )
    return Estimate(sentences, max(0.0, expected), max(0.0, low), min(1.0, high))
