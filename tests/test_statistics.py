"""Tests of significance against exact enumeration, cases worked by hand and scipy."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from nertool.comparison import statistics
from nertool.comparison.records import Cell, Failure, Run
from nertool.comparison.statistics import compare_cells, holm, mean_and_spread, randomization_test, welch_test

Rows = list[tuple[int, int, int]]
unit = st.floats(0, 1)


def tagged(seed: int, sentences: int, skill: float, there: Rows | None = None) -> Rows:
    """Counts of a made-up run; with those of another run, over the same entities."""
    generator = np.random.default_rng(seed)
    gold = generator.poisson(1.5, sentences) if there is None else [row[2] for row in there]
    right = generator.binomial(gold, skill)
    wrong = generator.binomial(2, 1 - skill, sentences)
    return [tuple(map(int, row)) for row in zip(right, right + wrong, gold, strict=True)]


def f1(rows: Rows) -> Fraction:
    right, found, there = map(sum, zip(*rows, strict=True))
    return Fraction(2 * right, found + there) if found + there else Fraction(0)


def exact(first: Rows, second: Rows) -> float:
    """The share of all 2^n ways to swap sentences that reach the observed difference, in whole numbers."""
    observed, reached = abs(f1(first) - f1(second)), 0
    for swaps in product((False, True), repeat=len(first)):
        rows = [
            pair[::-1] if swap else pair for swap, pair in zip(swaps, zip(first, second, strict=True), strict=True)
        ]
        one, other = ([pair[side] for pair in rows] for side in (0, 1))
        reached += abs(f1(one) - f1(other)) >= observed
    return reached / 2 ** len(first)


def run(seed: int, score: float, counts: Rows, test: float | None = None) -> Run:
    return Run(seed, score, test, 1, 0, 1.0, 1.0, 1, 1.0, 1.0, [score], [1.0], None, counts)


def cell(name: str, *runs: Run) -> Cell:
    return Cell(name, {"name": name}, list(runs), [Failure(9, "out of memory", "9.log")])


@pytest.mark.parametrize("at_a_time", [1, 1000, 2_000_000])
def test_shuffles_approach_all_the_ways_to_swap(at_a_time, monkeypatch):
    monkeypatch.setattr(statistics, "_SWAPS", at_a_time)
    shuffles = 2000 if at_a_time == 1 else 20_000
    pairs = []
    for case in range(6):
        first = tagged(case, 9, 0.9)
        pairs.append((first, tagged(100 + case, 9, 0.9 - 0.1 * case, first)))
    wanted = [exact(*pair) for pair in pairs]
    assert min(wanted) < 0.05 and max(wanted) > 0.5
    for value, share in zip(randomization_test(pairs, shuffles, 1), wanted, strict=True):
        # Four standard deviations of a share that was sampled.
        assert value == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / shuffles) + 1 / shuffles)


def test_two_sentences_by_hand():
    # F1 is 2 * 2 / (2 + 2) = 1 and 0. Swapped: both, 1 again; one, the runs are alike. So half of the ways.
    first, second = [(1, 1, 1), (1, 1, 1)], [(0, 1, 1), (0, 1, 1)]
    assert exact(first, second) == 0.5
    assert randomization_test([(first, second)], 10_000) == [pytest.approx(0.5, abs=0.02)]


def test_without_a_difference_p_values_are_spread_evenly():
    gold = tagged(0, 300, 0.8)
    values = [
        randomization_test(
            [(tagged(2 * case + 1, 300, 0.8, gold), tagged(2 * case + 2, 300, 0.8, gold))], 300, case
        )[0]
        for case in range(300)
    ]
    for level in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert np.mean(np.array(values) <= level) == pytest.approx(level, abs=0.08)


def test_the_order_of_runs_and_of_pairs_makes_no_difference():
    first = tagged(0, 50, 0.9)
    second, third = tagged(1, 50, 0.85, first), tagged(2, 50, 0.8, first)
    pairs = [(first, second), (first, third), (second, third)]
    values = randomization_test(pairs, 500, 3)
    assert len(set(values)) == 3
    assert randomization_test([pair[::-1] for pair in pairs[::-1]], 500, 3) == values[::-1]
    assert [randomization_test([pair], 500, 3)[0] for pair in pairs] == values
    assert randomization_test(pairs, 500, 4) != values


def test_identical_runs_do_not_differ():
    rows = tagged(0, 30, 0.7)
    assert randomization_test([(rows, rows)], 99) == [1.0]
    # In other sentences, but as much in all.
    assert randomization_test([([(1, 1, 1), (0, 0, 1)], [(0, 0, 1), (1, 1, 1)])], 99) == [1.0]


def test_a_huge_difference_has_the_smallest_p_value():
    pair = ([(2, 2, 2)] * 60, [(0, 1, 2)] * 60)
    assert randomization_test([pair], 999) == [1 / 1000]


def test_nothing_to_find_or_to_shuffle():
    assert randomization_test([], 10) == []
    assert randomization_test([([], [])], 10) == [1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert randomization_test([([(0, 0, 0)] * 3, [(0, 0, 0)] * 3)], 10) == [1.0]


@pytest.mark.parametrize(
    ("pairs", "shuffles", "message"),
    [
        ([([(1, 1, 1)], [(1, 1, 1)])], 0, "0 shuffles"),
        ([([(1, 1, 1)], [(1, 1, 1)] * 2)], 9, "number of sentences"),
        ([([(1, 1, 1)], [(1, 1, 2)])], 9, "gold entities"),
    ],
)
def test_runs_that_cannot_be_paired_are_refused(pairs, shuffles, message):
    with pytest.raises(ValueError, match=message):
        randomization_test(pairs, shuffles)


def test_welch_by_hand():
    # Variances 2 and 2, so t = 4 / sqrt(1 + 1) with (1 + 1)^2 / (1 + 1) = 2 degrees of freedom, where
    # p = 1 - t / sqrt(2 + t^2).
    assert welch_test([1, 3], [5, 7]) == pytest.approx(1 - math.sqrt(8 / 10))
    # Variances 0 and 2, so t = 3 / sqrt(1) with 1 degree of freedom, where p = 1 - 2 atan(t) / pi.
    assert welch_test([1, 1], [3, 5]) == pytest.approx(1 - 2 * math.atan(3) / math.pi)


@given(*[st.lists(st.integers(0, 1000).map(lambda value: value / 1000), min_size=2, max_size=6)] * 2)
@example([0.1] * 3, [0.1, 0.2])
def test_welch_as_scipy_has_it(first, second):
    if len({*first}) == len({*second}) == 1:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = welch_test(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = ttest_ind(first, second, equal_var=False).pvalue
    assert found == pytest.approx(float(wanted), rel=1e-6, abs=1e-12)
    assert found == pytest.approx(welch_test(second, first))


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([0.9], [0.1, 0.2], None),
        ([0.9, 0.8], [0.1], None),
        ([], [], None),
        # The mean of three 0.1 is not 0.1 in all roundings.
        ([0.1] * 3, [0.1] * 2, 1.0),
        ([0.1] * 3, [0.2] * 3, None),
    ],
)
def test_what_welch_cannot_judge(first, second, wanted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert welch_test(first, second) == wanted


def test_holm_by_hand():
    # In order 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, the last raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


@given(st.lists(unit, max_size=8))
def test_what_holm_keeps(values):
    adjusted = holm(values)
    assert all(
        value <= other <= min(1.0, len(values) * value) for value, other in zip(values, adjusted, strict=True)
    )
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[place] for place in order] == sorted(adjusted)
    # Equal p-values stay equal, whichever comes first.
    assert holm(values[::-1]) == adjusted[::-1]


@given(st.lists(unit, min_size=1, max_size=8))
def test_mean_and_spread_as_numpy_has_them(values):
    mean, spread = mean_and_spread(values)
    assert mean == pytest.approx(np.mean(values))
    assert spread == (pytest.approx(np.std(values, ddof=1), abs=1e-9) if len(values) > 1 else None)


def test_mean_and_spread_by_hand():
    assert mean_and_spread([1, 2, 3, 6]) == (3, pytest.approx(math.sqrt(14 / 3)))
    assert mean_and_spread([0.1] * 3) == (0.1, 0.0)
    with pytest.raises(ValueError):
        mean_and_spread([])


def test_every_two_cells_that_ran():
    gold = tagged(0, 40, 0.9)
    rows = [tagged(case, 40, 0.8, gold) for case in range(6)]
    cells = [
        cell("a", run(1, 0.5, rows[0], test=0.9), run(2, 0.5, rows[1], test=0.8)),
        cell("all failed"),
        cell("b", run(2, 0.5, rows[2], test=0.7), run(3, 0.5, rows[3], test=0.72)),
        cell("c", run(1, 0.5, rows[4], test=0.6)),
    ]
    pairs = compare_cells(cells, 200, seed=5)
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair.difference for pair in pairs] == pytest.approx([0.14, 0.25, 0.11])

    over_seeds = welch_test([0.9, 0.8], [0.7, 0.72])
    assert [pair.over_seeds for pair in pairs] == [over_seeds, None, None]
    assert [pair.over_seeds_adjusted for pair in pairs] == [over_seeds, None, None]

    # Seeds that both have: 2, then 1, then none.
    values = randomization_test([(rows[1], rows[2]), (rows[0], rows[4])], 200, 5)
    assert [pair.over_sentences for pair in pairs] == [{2: values[0]}, {1: values[1]}, {}]
    first, second = holm(values)
    assert [pair.over_sentences_adjusted for pair in pairs] == [{2: first}, {1: second}, {}]


def test_without_a_test_split_cells_are_compared_on_validation():
    rows = tagged(0, 10, 0.9)
    (pair,) = compare_cells([cell("a", run(1, 0.75, rows)), cell("b", run(1, 0.5, rows))], 9)
    assert (pair.difference, pair.over_sentences) == (0.25, {1: 1.0})


def test_with_fewer_than_two_cells_there_is_nothing_to_compare():
    assert compare_cells([], 9) == []
    assert compare_cells([cell("failed"), cell("a", run(1, 0.5, tagged(0, 5, 0.9))), cell("too")], 9) == []


@pytest.mark.parametrize("other", [[(1, 1, 1)], [(1, 1, 1), (1, 1, 2)]], ids=["sentences", "entities"])
def test_runs_over_other_sentences_are_refused(other):
    rows = [(1, 1, 1), (0, 1, 1)]
    with pytest.raises(
        ValueError, match=r"b, seed 2 was scored on other sentences than a, seed 1 \(\d entities in"
    ):
        compare_cells([cell("a", run(1, 0.5, rows)), cell("b", run(1, 0.5, rows), run(2, 0.5, other))], 9)


def test_with_a_base_there_are_only_its_pairs():
    rows = tagged(0, 5, 0.9)
    cells = [cell(name, run(1, 0.5, rows), run(2, 0.6, rows)) for name in ("a", "base", "b", "c")]
    pairs = compare_cells(cells, 9, base="base")
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "base"), ("base", "b"), ("base", "c")]
