"""Test whether cells differ: over seeds, over sentences, corrected for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

from nertool.comparison.records import Cell, Pair

# As in `Run.counts`: for each sentence the number of right, of predicted and of gold entities.
Counts = Sequence[tuple[int, int, int]]

# Swaps drawn at a time, 16 MB of them.
_SWAPS = 2_000_000
# Rounding may make equal differences in F1 differ by about 1e-16; one entity changes F1 by far more than this.
_ROUNDING = 1e-12


def compare_cells(cells: Sequence[Cell], shuffles: int, seed: int = 0, base: str | None = None) -> list[Pair]:
    """Test every pair of cells that have at least one run each.

    Args:
        cells: The cells of a grid; those without a run are skipped.
        shuffles: Number of shuffles of each randomization test.
        seed: Seed of the shuffles.
        base: Name of a cell; where given, it is compared with each other cell, and these not with one another.

    Returns:
        In the order of the cells. Holm's correction counts the tests that were made: pairs that Welch's test
        cannot judge are not among them.

    Raises:
        ValueError: Two runs were not scored on the same sentences, or there are no shuffles.
    """
    cells = [cell for cell in cells if cell.runs]
    _check_split(cells)
    pairs = list(combinations(cells, 2))
    if base is not None:
        pairs = [pair for pair in pairs if base in (pair[0].name, pair[1].name)]
    indices, samples = [], []
    for index, (first, second) in enumerate(pairs):
        others = {run.seed: run.counts for run in second.runs}
        for run in first.runs:
            if run.seed in others:
                indices.append((index, run.seed))
                samples.append((run.counts, others[run.seed]))
    sentences: list[dict[int, float]] = [{} for _ in pairs]
    sentences_adjusted: list[dict[int, float]] = [{} for _ in pairs]
    values = randomization_test(samples, shuffles, seed)
    for (index, run_seed), value, adjusted in zip(indices, values, holm(values), strict=True):
        sentences[index][run_seed] = value
        sentences_adjusted[index][run_seed] = adjusted

    scores = {cell.name: [run.score for run in cell.runs] for cell in cells}
    seeds = [welch_test(scores[first.name], scores[second.name]) for first, second in pairs]
    judged = {index: value for index, value in enumerate(seeds) if value is not None}
    seeds_adjusted = dict(zip(judged, holm(list(judged.values())), strict=True))
    return [
        Pair(
            first.name,
            second.name,
            mean(scores[first.name]) - mean(scores[second.name]),
            seeds[index],
            seeds_adjusted.get(index),
            sentences[index],
            sentences_adjusted[index],
        )
        for index, (first, second) in enumerate(pairs)
    ]


def randomization_test(pairs: Sequence[tuple[Counts, Counts]], shuffles: int, seed: int = 0) -> list[float]:
    """Test by paired approximate randomization over sentences whether two runs differ in micro F1.

    If they do not, the two results of a sentence are interchangeable. A shuffle swaps the
    counts of the two runs in about half of the sentences, at random; with d the difference in F1 that was
    observed and d* that after a shuffle, the two-sided p-value is

        p = (1 + number of shuffles with |d*| >= |d|) / (1 + shuffles)

    (Noreen 1989, Computer-Intensive Methods for Testing Hypotheses; Yeh 2000, More accurate tests for the
    statistical significance of result differences, COLING). One draw of swaps serves all pairs: each p-value
    is the same as for the pair alone, and the order of pairs or of the two runs makes no difference.

    Args:
        pairs: Counts of two runs over the same sentences; as many sentences in every pair.
        shuffles: How many.
        seed: Seed of the swaps.

    Returns:
        A p-value for each pair, from 1 / (1 + shuffles) to 1.

    Raises:
        ValueError: The runs of a pair differ in their gold entities, pairs differ in the number of
            sentences, or there are no shuffles.
    """
    if shuffles < 1:
        raise ValueError(f"{shuffles} shuffles; expected at least 1")
    if len({len(counts) for pair in pairs for counts in pair}) > 1:
        raise ValueError("the runs differ in the number of sentences")
    if not pairs or not pairs[0][0]:
        return [1.0] * len(pairs)
    first, second = (np.array([pair[side] for pair in pairs], dtype=np.float64) for side in (0, 1))
    if not np.array_equal(first[..., 2], second[..., 2]):
        raise ValueError("the two runs of a pair differ in their gold entities")
    sentences = first.shape[1]
    # (pairs, sentences, 2) to (sentences, pairs * 2): what a swap takes from the first and gives the second.
    gains = (first - second)[..., :2].swapaxes(0, 1).reshape(sentences, -1)
    sums, other_sums, gold = first[..., :2].sum(axis=1), second[..., :2].sum(axis=1), first[..., 2].sum(axis=1)
    observed = np.abs(_f1(sums, gold) - _f1(other_sums, gold))

    generator = np.random.default_rng(seed)
    reached = np.zeros(len(pairs), dtype=np.int64)
    step = max(1, _SWAPS // sentences)
    for done in range(0, shuffles, step):
        size = (min(step, shuffles - done), sentences)
        swaps = generator.integers(0, 2, size, dtype=np.int8).astype(np.float64)
        moved = (swaps @ gains).reshape(-1, len(pairs), 2)
        differences = np.abs(_f1(sums - moved, gold) - _f1(other_sums + moved, gold))
        reached += (differences >= observed - _ROUNDING).sum(axis=0)
    return [float(value) for value in (1 + reached) / (1 + shuffles)]


def welch_test(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Test by Welch's t-test whether two samples of unequal variances differ in their means.

    (Welch 1947, The generalization of Student's problem when several different population variances are
    involved, Biometrika 34.)

    Returns:
        The two-sided p-value; 1 where neither sample varies and the means are equal. None with fewer than two
        values of either, and where neither varies but the means differ, since the spread is then unknown.
    """
    from scipy.stats import ttest_ind_from_stats

    if min(len(first), len(second)) < 2:
        return None
    (left, left_spread), (right, right_spread) = mean_and_spread(first), mean_and_spread(second)
    if not left_spread and not right_spread:
        return 1.0 if left == right else None
    # `ttest_ind` would compute the same from the values, and warn where those of one sample are all equal.
    result = ttest_ind_from_stats(left, left_spread, len(first), right, right_spread, len(second), equal_var=False)
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that the chance of any false alarm stays below the level.

    The p-value of rank i, from 1 for the smallest of m, becomes the greatest of min(1, (m - j + 1) p_j) over
    the ranks j <= i (Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian
    Journal of Statistics 6).

    Returns:
        In the order of `p_values`.
    """
    adjusted, greatest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = greatest
    return adjusted


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation (over n - 1; None for a single value).

    Raises:
        ValueError: There is no value.
    """
    return mean(values), stdev(values) if len(values) > 1 else None


def _f1(sums: NDArray[np.float64], gold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute micro F1, (..., pairs); 0 without predicted and gold entities.

    Args:
        sums: Right entities, predicted entities, (..., pairs, 2).
        gold: Gold entities, (pairs,).
    """
    total = sums[..., 1] + gold
    return np.divide(2 * sums[..., 0], total, out=np.zeros_like(total), where=total > 0)


def _check_split(cells: Sequence[Cell]) -> None:
    runs = [
        (f"{cell.name}, seed {run.seed}", [gold for _, _, gold in run.counts])
        for cell in cells
        for run in cell.runs
    ]
    for name, gold in runs[1:]:
        if gold != runs[0][1]:
            raise ValueError(
                f"{name} was scored on other sentences than {runs[0][0]} ({sum(gold)} entities in {len(gold)} "
                f"sentences, not {sum(runs[0][1])} in {len(runs[0][1])}); compare runs over the same split"
            )
