"""The figures of a comparison as text, and what they mean."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from nertool.comparison.grid import FRACTION, name_settings
from nertool.comparison.records import Cell, Comparison, Pair
from nertool.comparison.statistics import mean_and_spread
from nertool.views.console import counted, percent
from nertool.views.visible import visible

LEVEL = 0.05
"""Adjusted p-values below this are marked."""

NONE = "–"
"""Stands for a missing value."""

SCORES = ("validation F1", "test F1", "pooled F1", "over folds", "to base", "runs")
"""Columns of the main table about scores."""


class Row(NamedTuple):
    """A row of the main table: one cell of the grid.

    Attributes:
        number: From 1, in the order of the grid.
        name: Of the cell.
        values: In the columns of `heads`.
        best: Index of the value that is the best mean of its column; None in other rows.
    """

    number: int
    name: str
    values: list[str]
    best: int | None


def title(comparison: Comparison) -> str:
    """Return the title of a report."""
    return f"Comparison of {visible(comparison.config)}"


def varied(comparison: Comparison) -> str:
    """Describe the settings that vary, with their values."""
    parts = []
    for setting in comparison.varied:
        values = [cell.settings[setting] for cell in comparison.cells if setting in cell.settings]
        texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        parts.append(f"{setting}: {', '.join(dict.fromkeys(texts))}")
    return "; ".join(parts) or NONE


def heads(comparison: Comparison) -> list[str]:
    """Return the heads of the columns of the main table, after that of the cell."""
    tested = "test F1" if comparison.folds is None else "pooled F1"
    return [
        "validation F1",
        tested,
        *(["over folds"] if comparison.folds else []),
        *(["to base"] if comparison.base else []),
        "runs",
        *(["training sentences"] if shows_sizes(comparison) else []),
        "parameters",
        "training tokens/s",
        "tagging tokens/s",
        "seconds to best",
        "epochs to best",
    ]


def narrow(comparison: Comparison) -> list[str]:
    """Return the heads of the columns that a narrow terminal has room for."""
    if comparison.base or comparison.folds:
        return [*SCORES[1:-1]]
    return [*SCORES, "seconds to best"]


def shows_sizes(comparison: Comparison) -> bool:
    """Say whether cells learn from training splits of several sizes."""
    sizes = {run.training_sentences for cell in comparison.cells for run in cell.runs}
    return len(sizes) > 1 and 0 not in sizes


def scored(comparison: Comparison) -> str:
    """Return the head of the column whose scores are compared."""
    return "pooled F1" if comparison.folds else f"{comparison.split} F1"


def rows(comparison: Comparison) -> list[Row]:
    """Return the main table, in the order of the cells."""
    means = [mean(run.score for run in cell.runs) if cell.runs else None for cell in comparison.cells]
    best = max((score for score in means if score is not None), default=None)
    names = heads(comparison)
    column = names.index(scored(comparison))
    found = []
    for number, (cell, score) in enumerate(zip(comparison.cells, means, strict=True), 1):
        values = _row_values(comparison, cell)
        is_best = score is not None and score == best
        found.append(
            Row(number, visible(cell.name), [values[name] for name in names], column if is_best else None)
        )
    return found


def _row_values(comparison: Comparison, cell: Cell) -> dict[str, str]:
    """Return the values of a row by the heads of their columns."""
    runs = cell.runs

    def average(name: str, form: str) -> str:
        values = [getattr(run, name) for run in runs]
        return f"{mean(values):{form}}" if values else NONE

    tested = _scores([run.test for run in runs if run.test is not None])
    return {
        "validation F1": _scores([run.validation for run in runs]),
        "test F1": tested,
        "pooled F1": tested,
        "over folds": _scores([fold.test for run in runs for fold in run.folds]),
        "to base": _to_base(comparison, cell.name),
        "runs": str(len(runs)),
        "training sentences": average("training_sentences", ",.0f"),
        "parameters": average("parameters", ",.0f"),
        "training tokens/s": average("training_speed", ",.0f"),
        "tagging tokens/s": average("tagging_speed", ",.0f"),
        "seconds to best": average("seconds_to_best", ",.1f"),
        "epochs to best": average("best_epoch", ".1f"),
    }


def _to_base(comparison: Comparison, name: str) -> str:
    """Format the score of a cell less that of the base."""
    pair = next((each for each in comparison.pairs if each.second == name and each.first == comparison.base), None)
    return NONE if pair is None else points(-pair.difference) + _mark(comparison, pair)


def _scores(values: Sequence[float]) -> str:
    if not values:
        return NONE
    middle, spread = mean_and_spread(values)
    return f"{percent(middle)} ± {NONE if spread is None else percent(spread)}"


def matrix(comparison: Comparison) -> list[tuple[int, str, list[str]]]:
    """Return for each cell its number, name, and score minus that of each cell, marked where they differ."""
    differences = {}
    for pair in comparison.pairs:
        mark = _mark(comparison, pair)
        differences[pair.first, pair.second] = points(pair.difference) + mark
        differences[pair.second, pair.first] = points(-pair.difference) + mark
    names = [cell.name for cell in comparison.cells]
    return [
        (number, visible(name), [differences.get((name, other), NONE) for other in names])
        for number, name in enumerate(names, 1)
    ]


def pair_values(pair: Pair, seeds: Sequence[int]) -> list[str]:
    """Return the difference, p and adjusted p over seeds, and both over sentences for each seed."""
    both = (pair.over_sentences, pair.over_sentences_adjusted)
    over_sentences = [values.get(seed) for seed in seeds for values in both]
    return [points(pair.difference), *map(p_value, (pair.over_seeds, pair.over_seeds_adjusted, *over_sentences))]


def differs(pair: Pair) -> bool:
    """Say whether two cells differ over seeds, after correction."""
    return pair.over_seeds_adjusted is not None and pair.over_seeds_adjusted < LEVEL


def _mark(comparison: Comparison, pair: Pair) -> str:
    """Return a star for pairs that differ: over seeds, in cross-validation over all sentences with every seed."""
    return " *" if differs(pair) or (comparison.folds and differs_each_time(pair)) else ""


def mark_note(comparison: Comparison) -> str:
    """Explain the star."""
    over = "seeds, or over the pooled sentences of every seed," if comparison.folds else "seeds"
    return f"* where the adjusted p over {over} is below {LEVEL}"


def differs_each_time(pair: Pair) -> bool:
    """Say whether two cells differ over sentences with every seed, after correction."""
    return bool(pair.over_sentences) and max(pair.over_sentences_adjusted.values()) < LEVEL


def tested_seeds(comparison: Comparison) -> list[int]:
    """Return the seeds with which at least two cells were trained to the end."""
    return sorted({seed for pair in comparison.pairs for seed in pair.over_sentences})


def points(difference: float) -> str:
    """Format a difference of F1 in points, with its sign."""
    text = f"{100 * difference:+.2f}".replace("-", "−")
    return text[1:] if text[1:] == "0.00" else text


def p_value(value: float | None) -> str:
    """Format a p-value with three decimals."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def table_notes(comparison: Comparison) -> list[str]:
    """Explain the main table."""
    runs = [run for cell in comparison.cells for run in cell.runs]
    words = {run.word_parameters for run in runs}
    vectors = f" ({words.pop():,} in every cell)" if len(words) == 1 else ""
    notes = [
        f"F1 in percent: mean ± standard deviation over the runs; the rest are means. Bold: the best mean on the "
        f"{comparison.split} split. The best of several cells scores too high: it was picked for its score.",
        *_special_notes(comparison),
        f"Parameters do not count those of word vectors{vectors}. Tagging speed is measured on unseen words. "
        "Seconds to best count training without validation.",
        speed_note(comparison),
    ]
    if comparison.split == "validation":
        notes.append("There is no test split. The validation split chose the best epochs, so its scores are high.")
    return notes


def _special_notes(comparison: Comparison) -> list[str]:
    """Explain what only some comparisons have."""
    notes = []
    if comparison.folds:
        notes.append(
            f"A run is a cross-validation: {comparison.folds} trainings, each tested on another fold of the "
            "training split. Pooled F1 is that of all sentences, each labelled by the model that did not learn "
            "from it. Over folds: mean ± standard deviation of F1 on each fold; folds differ in difficulty, and "
            "the models share training data, so that it is no standard error."
        )
    if comparison.base:
        notes.append(
            f"To base: mean score less that of the base, in points of F1; {mark_note(comparison)}. Each row "
            "changes one setting of the base."
        )
    return notes + findings(comparison)


def findings(comparison: Comparison) -> list[str]:
    """Say what a person should see in the scores: what more data brought, and cells that learnt nothing."""
    silent = [
        visible(cell.name)
        for cell in comparison.cells
        if cell.runs and not any(predicted for run in cell.runs for _, predicted, _ in run.counts)
    ]
    notes = [f"No entity was predicted with any seed in: {'; '.join(silent)}."] if silent else []
    return [*filter(None, [last_gain(comparison)]), *notes]


def series(comparison: Comparison) -> list[list[Cell]]:
    """Return the cells that differ in the amount of data alone, the smallest first; none if it does not vary."""
    if FRACTION not in comparison.varied:
        return []
    groups: dict[str, list[Cell]] = {}
    for cell in comparison.cells:
        if cell.runs:
            groups.setdefault(name_without_fraction(comparison, cell), []).append(cell)
    return [sorted(cells, key=amount) for cells in groups.values()]


def name_without_fraction(comparison: Comparison, cell: Cell) -> str:
    """Name a cell after its other settings."""
    others = {key: value for key, value in cell.settings.items() if key != FRACTION}
    return name_settings(others, whole=comparison.base is not None)


def amount(cell: Cell) -> float:
    """Return how many sentences a cell learns from: the mean over its runs; 0 where that was not recorded."""
    return mean(run.training_sentences for run in cell.runs)


def last_gain(comparison: Comparison) -> str:
    """Say what the last increase of the amount of data brought; "" where that was not tried."""
    gains = []
    for cells in series(comparison):
        if len(cells) < 2 or amount(cells[0]) == 0:
            continue
        smaller, larger = cells[-2:]
        gain = mean(run.score for run in larger.runs) - mean(run.score for run in smaller.runs)
        of = name_without_fraction(comparison, larger)
        gains.append(
            f"{of + ': ' if of else ''}from {amount(smaller):,.0f} to {amount(larger):,.0f} training sentences F1 "
            f"went {points(gain)} points"
        )
    return f"More data: {'; '.join(gains)}." if gains else ""


def speed_note(comparison: Comparison) -> str:
    """Explain how speeds were measured."""
    if comparison.jobs == 1:
        return "Speeds and seconds were measured with one training at a time, on one thread."
    return (
        f"Speeds and seconds were measured while up to {comparison.jobs} trainings ran in parallel, one thread "
        "each. They depend on what else was running: compare cells with each other, not with other reports."
    )


def count_note(comparison: Comparison) -> str:
    """Describe how many tests were made."""
    seeds = sum(pair.over_seeds is not None for pair in comparison.pairs)
    sentences = sum(len(pair.over_sentences) for pair in comparison.pairs)
    return (
        f"{counted(len(comparison.pairs), 'pair')} of cells: {counted(seeds, 'test')} over seeds and "
        f"{counted(sentences, 'test')} over sentences. Adjusted p-values correct for this number of tests (Holm "
        "1979), separately over seeds and over sentences."
    )


def test_notes(comparison: Comparison) -> list[str]:
    """Explain what each test can show, and what it cannot."""
    return [
        count_note(comparison),
        *_fold_test_notes(comparison),
        "Over seeds: Welch's t-test (1947) of the scores of all seeds of two cells. It compares the settings: "
        "would trainings with other seeds differ in the same way, on the same test sentences? With few seeds it "
        "has little power: a real difference may go unmarked.",
        "Over sentences: a paired approximate randomization test (Yeh 2000) of the two models of one seed, with "
        f"{comparison.shuffles:,} shuffles. It compares two trained models on this split: how often is the "
        "difference as large when their answers are swapped at random? It cannot tell a better setting from a "
        "luckier seed, and its p-values for several seeds are not independent. The smallest possible p-value is "
        f"{1 / (comparison.shuffles + 1):.2g}.",
    ]


def _fold_test_notes(comparison: Comparison) -> list[str]:
    if not comparison.folds:
        return []
    return [
        "In cross-validation the tests over sentences pool the sentences of all folds, each labelled by the two "
        "models that did not learn from it. There is no t-test over folds: their trainings share most of their "
        "sentences, so that it would find differences that are none (Dietterich 1998)."
    ]
