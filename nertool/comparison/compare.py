"""A whole comparison: from the results of all trainings to one record with its tests."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from statistics import geometric_mean, mean

from nertool.comparison.grid import Key, Plan, Request
from nertool.comparison.records import Cell, Comparison, Failure, FoldScore, Gradients, Run
from nertool.comparison.statistics import compare_cells
from nertool.errors import NertoolError

SHUFFLES = 10_000
_VERSIONS = ("nertool", "torch", "numpy", "scipy", "seqeval")


def command_line(request: Request, side_by_side: int) -> str:
    """Return the command that repeats a comparison."""
    words = ["nertool", "compare", *request.names]
    options = {"--vary": request.varied, "--ablate": request.ablated, "--set": request.overrides}
    words += [word for option, values in options.items() for each in values for word in (option, each)]
    if request.folds:
        words += ["--folds", str(request.folds)]
    return shlex.join([*words, "--seeds", str(request.seed_count), "--jobs", str(side_by_side)])


def judge(
    request: Request, plan: Plan, results: Mapping[Key, Run | Failure], side_by_side: int, seconds: float
) -> Comparison:
    """Collect the results of the trainings of a comparison, and test pairs of cells.

    Args:
        request: What was to be compared.
        plan: All trainings.
        results: The result of each.
        side_by_side: How many trainings ran at once.
        seconds: How long all took.

    Raises:
        NertoolError: Not all were scored on the same sentences.
    """
    cells = []
    for name, settings in {job.cell: job.settings for job in plan.jobs}.items():
        ended = [results[job.key] for job in plan.jobs if job.cell == name]
        runs = [result for result in ended if isinstance(result, Run)]
        if request.folds:
            runs = pool_folds(runs, request.folds)
        cells.append(Cell(name, settings, runs, [result for result in ended if isinstance(result, Failure)]))
    try:
        pairs = compare_cells(cells, SHUFFLES, base=plan.base)
    except ValueError as problem:
        raise NertoolError(str(problem)) from None
    config = plan.jobs[0].config
    # The config need not name the splits of a dataset.
    tested = request.folds or any(run.test is not None for cell in cells for run in cell.runs)
    return Comparison(
        config=request.title,
        command=command_line(request, side_by_side),
        corpus="/".join(Path(config.corpus.origin).parts[-2:]),
        varied=plan.varied,
        seeds=sorted({job.seed for job in plan.jobs}),
        split="validation" if config.corpus.test is None and not tested else "test",
        cells=cells,
        pairs=pairs,
        shuffles=SHUFFLES,
        jobs=side_by_side,
        seconds=seconds,
        versions={name: version(name) for name in _VERSIONS},
        base=plan.base,
        folds=request.folds,
    )


def pool_folds(runs: Sequence[Run], folds: int) -> list[Run]:
    """Pool the trainings of all folds of each seed; a seed that lacks a fold is left out.

    F1 on the test split is that of the counts of all folds together (Forman and Scholz 2010, Apples-to-apples in
    cross-validation studies, SIGKDD Explorations 12): the mean of F1 over folds depends on how entities fall into
    them.

    Args:
        runs: Each of one fold.
        folds: How many there are.
    """
    seeds = dict.fromkeys(run.seed for run in runs)
    grouped = [sorted((run for run in runs if run.seed == seed), key=lambda run: run.fold or 0) for seed in seeds]
    return [_pool(group) for group in grouped if len(group) == folds]


def _pool(runs: Sequence[Run]) -> Run:
    counts = [sentence for run in runs for sentence in run.counts]
    right, predicted, gold = (sum(column) for column in zip(*counts, strict=True))

    def average(name: str) -> float:
        return float(mean(getattr(run, name) for run in runs))

    def by_epoch(name: str) -> list[float]:
        rows = zip_longest(*(getattr(run, name) for run in runs))
        return [mean(value for value in row if value is not None) for row in rows]

    return Run(
        seed=runs[0].seed,
        validation=average("validation"),
        test=2 * right / (predicted + gold) if predicted + gold else 0.0,
        parameters=round(average("parameters")),
        word_parameters=round(average("word_parameters")),
        training_speed=average("training_speed"),
        tagging_speed=average("tagging_speed"),
        best_epoch=round(average("best_epoch")),
        seconds_to_best=average("seconds_to_best"),
        seconds=average("seconds"),
        curve=by_epoch("curve"),
        losses=by_epoch("losses"),
        gradients=_mean_gradients(runs),
        counts=counts,
        folds=[
            FoldScore(
                number=run.fold or 0,
                validation=run.validation,
                test=run.score,
                sentences=len(run.counts),
                entities=sum(there for _, _, there in run.counts),
            )
            for run in runs
        ],
        training_sentences=round(average("training_sentences")),
        training_entities=round(average("training_entities")),
    )


def _mean_gradients(runs: Sequence[Run]) -> Gradients | None:
    """Compute the geometric mean over folds, of the steps that all of them have."""
    measured = [run.gradients for run in runs if run.gradients is not None]
    if len(measured) < len(runs):
        return None

    def together(rows: Sequence[Sequence[float]]) -> list[float]:
        columns = zip(*(row[: min(map(len, rows))] for row in rows), strict=True)
        return [geometric_mean(column) if min(column) > 0 else 0.0 for column in columns]

    return Gradients(together([each.start for each in measured]), together([each.end for each in measured]))
