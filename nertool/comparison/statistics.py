"""Whether cells differ: over seeds, over sentences, and what is left of it after so many tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

from nertool.comparison.records import Cell, Pair

# As in `Run.counts`: for each sentence entities found and right, entities found, entities there.
Counts = Sequence[tuple[int, int, int]]

# Swaps drawn at a time, 16 MB of them.
_SWAPS = 2_000_000
# Equal differences in F1 may be rounded apart by about 1e-16; an entity more or less makes far more than this.
_ROUNDING = 1e-12


def compare_cells(cells: Sequence[Cell], shuffles: int, seed: int = 0) -> list[Pair]:
    """Test every two cells that have at least one run each.

    Args:
        cells: Those of one grid; those without a run are passed over.
        shuffles: Of each randomisation test.
        seed: Of the shuffles.

    Returns:
        In the order of the cells. Holm's correction counts the tests that were made: pairs that Welch's test
        cannot judge are not among them.

    Raises:
        ValueError: Two runs were not scored on the same sentences, or there are no shuffles.
    """
    cells = [cell for cell in cells if cell.runs]
    _check_split(cells)
    pairs = list(combinations(cells, 2))
    places, samples = [], []
    for place, (first, second) in enumerate(pairs):
        others = {run.seed: run.counts for run in second.runs}
        for run in first.runs:
            if run.seed in others:
                places.append((place, run.seed))
                samples.append((run.counts, others[run.seed]))
    sentences: list[dict[int, float]] = [{} for _ in pairs]
    sentences_adjusted: list[dict[int, float]] = [{} for _ in pairs]
    values = randomisation_test(samples, shuffles, seed)
    for (place, run_seed), value, adjusted in zip(places, values, holm(values), strict=True):
        sentences[place][run_seed] = value
        sentences_adjusted[place][run_seed] = adjusted

    scores = {cell.name: [run.score for run in cell.runs] for cell in cells}
    seeds = [welch_test(scores[first.name], scores[second.name]) for first, second in pairs]
    judged = {place: value for place, value in enumerate(seeds) if value is not None}
    seeds_adjusted = dict(zip(judged, holm(list(judged.values())), strict=True))
    return [
        Pair(
            first.name,
            second.name,
            mean(scores[first.name]) - mean(scores[second.name]),
            seeds[place],
            seeds_adjusted.get(place),
            sentences[place],
            sentences_adjusted[place],
        )
        for place, (first, second) in enumerate(pairs)
    ]


def randomisation_test(pairs: Sequence[tuple[Counts, Counts]], shuffles: int, seed: int = 0) -> list[float]:
    """Judge by paired approximate randomisation over sentences whether two runs differ in micro F1.

    If they do not, each sentence might as well have been scored the other way round. A shuffle swaps the
    counts of the two runs in about half of the sentences, at random; with d the difference in F1 that was
    observed and d* that after a shuffle, the two-sided p-value is

        p = (1 + number of shuffles with |d*| >= |d|) / (1 + shuffles)

    (Noreen 1989, Computer-Intensive Methods for Testing Hypotheses; Yeh 2000, More accurate tests for the
    statistical significance of result differences, COLING). One draw of swaps serves all pairs: each p-value
    is what it would be alone, and the order of pairs or of the two runs makes no difference.

    Args:
        pairs: Counts of two runs over the same sentences; as many sentences in every pair.
        shuffles: How many.
        seed: Of the swaps.

    Returns:
        A p-value for each pair, from 1 / (1 + shuffles) to 1.

    Raises:
        ValueError: The runs of a pair differ in the entities that are there, pairs differ in the number of
            sentences, or there are no shuffles.
    """
    if shuffles < 1:
        raise ValueError(f"{shuffles} shuffles make no test; expected at least 1")
    if len({len(counts) for pair in pairs for counts in pair}) > 1:
        raise ValueError("the runs differ in the number of sentences")
    if not pairs or not pairs[0][0]:
        return [1.0] * len(pairs)
    first, second = (np.array([pair[side] for pair in pairs], dtype=np.float64) for side in (0, 1))
    if not np.array_equal(first[..., 2], second[..., 2]):
        raise ValueError("the two runs of a pair differ in the entities that are there")
    sentences = first.shape[1]
    # (pairs, sentences, 2) to (sentences, pairs * 2): what a swap takes from the first and gives the second.
    gains = (first - second)[..., :2].swapaxes(0, 1).reshape(sentences, -1)
    sums, other_sums, there = first[..., :2].sum(axis=1), second[..., :2].sum(axis=1), first[..., 2].sum(axis=1)
    observed = np.abs(_f1(sums, there) - _f1(other_sums, there))

    generator = np.random.default_rng(seed)
    reached = np.zeros(len(pairs), dtype=np.int64)
    step = max(1, _SWAPS // sentences)
    for done in range(0, shuffles, step):
        size = (min(step, shuffles - done), sentences)
        swaps = generator.integers(0, 2, size, dtype=np.int8).astype(np.float64)
        moved = (swaps @ gains).reshape(-1, len(pairs), 2)
        differences = np.abs(_f1(sums - moved, there) - _f1(other_sums + moved, there))
        reached += (differences >= observed - _ROUNDING).sum(axis=0)
    return [float(value) for value in (1 + reached) / (1 + shuffles)]


def welch_test(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Judge by Welch's t-test whether two samples, with variances of their own, differ in their means.

    (Welch 1947, The generalization of Student's problem when several different population variances are
    involved, Biometrika 34.)

    Returns:
        The two-sided p-value. None with fewer than two values of either, and where neither varies though
        the means differ: nothing is then known of the spread. Where neither varies and the means are equal,
        1.
    """
    from scipy.stats import ttest_ind_from_stats

    if min(len(first), len(second)) < 2:
        return None
    (left, left_spread), (right, right_spread) = mean_and_spread(first), mean_and_spread(second)
    if not left_spread and not right_spread:
        return 1.0 if left == right else None
    # `ttest_ind` would compute the same from the values, and warn where those of one sample are all alike.
    found = ttest_ind_from_stats(left, left_spread, len(first), right, right_spread, len(second), equal_var=False)
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that the chance of any false alarm stays below the level.

    The p-value of rank i, from 1 for the smallest of m, becomes the greatest of min(1, (m - j + 1) p_j) over
    the ranks j <= i (Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian
    Journal of Statistics 6).

    Returns:
        In the order of `p_values`.
    """
    adjusted, greatest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = greatest
    return adjusted


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (over n - 1; None for a single value), in the unit of the values.

    Raises:
        ValueError: There is no value.
    """
    return mean(values), stdev(values) if len(values) > 1 else None


def _f1(sums: NDArray[np.float64], there: NDArray[np.float64]) -> NDArray[np.float64]:
    """Micro F1, of shape (..., pairs); 0 where nothing is found and nothing there.

    Args:
        sums: Shape (..., pairs, 2): entities found and right, entities found.
        there: Shape (pairs,): entities there.
    """
    total = sums[..., 1] + there
    return np.divide(2 * sums[..., 0], total, out=np.zeros_like(total), where=total > 0)


def _check_split(cells: Sequence[Cell]) -> None:
    runs = [
        (f"{cell.name}, seed {run.seed}", [there for _, _, there in run.counts])
        for cell in cells
        for run in cell.runs
    ]
    for name, there in runs[1:]:
        if there != runs[0][1]:
            raise ValueError(
                f"{name} was scored on other sentences than {runs[0][0]} ({sum(there)} entities in {len(there)} "
                f"sentences, not {sum(runs[0][1])} in {len(runs[0][1])}); compare runs over the same split"
            )
