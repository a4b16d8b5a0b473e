"""A whole comparison: from the results of all trainings to one record with its tests."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from nertool.comparison.grid import Job
from nertool.comparison.records import Cell, Comparison, Failure, Run
from nertool.comparison.statistics import compare_cells
from nertool.errors import NertoolError

SHUFFLES = 10_000
_VERSIONS = ("nertool", "torch", "numpy", "scipy", "seqeval")


def command_line(
    config: str, varied: Iterable[str], overrides: Iterable[str], seeds: int, side_by_side: int
) -> str:
    """Return the command that repeats a comparison."""
    words = ["nertool", "compare", config]
    words += [word for each in varied for word in ("--vary", each)]
    words += [word for each in overrides for word in ("--set", each)]
    return shlex.join([*words, "--seeds", str(seeds), "--jobs", str(side_by_side)])


def judge(
    jobs: Sequence[Job],
    results: Mapping[tuple[str, int], Run | Failure],
    source: Path,
    command: str,
    side_by_side: int,
    seconds: float,
) -> Comparison:
    """Collect the results of the trainings of a grid, and test every pair of cells.

    Args:
        jobs: All of the grid.
        results: The result of each, by cell and seed.
        source: The config file.
        command: The command that repeats the comparison.
        side_by_side: How many trainings ran at once.
        seconds: How long all took.

    Raises:
        NertoolError: Not all were scored on the same sentences.
    """
    cells = []
    for name, settings in {job.cell: job.settings for job in jobs}.items():
        ended = [results[job.cell, job.seed] for job in jobs if job.cell == name]
        runs = [result for result in ended if isinstance(result, Run)]
        cells.append(Cell(name, settings, runs, [result for result in ended if isinstance(result, Failure)]))
    try:
        pairs = compare_cells(cells, SHUFFLES)
    except ValueError as problem:
        raise NertoolError(str(problem)) from None
    config = jobs[0].config
    # The config need not name the splits of a dataset.
    tested = any(run.test is not None for cell in cells for run in cell.runs)
    return Comparison(
        config=source.name,
        command=command,
        corpus="/".join(Path(config.corpus.origin).parts[-2:]),
        varied=list(jobs[0].settings),
        seeds=sorted({job.seed for job in jobs}),
        split="validation" if config.corpus.test is None and not tested else "test",
        cells=cells,
        pairs=pairs,
        shuffles=SHUFFLES,
        jobs=side_by_side,
        seconds=seconds,
        versions={name: version(name) for name in _VERSIONS},
    )
