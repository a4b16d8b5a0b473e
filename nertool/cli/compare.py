"""The command `nertool compare`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from nertool.cli.common import RUNS, cores, examples
from nertool.cli.door import explains_errors, say
from nertool.errors import NertoolError


@click.command(epilog=examples("nertool compare demo.yaml --vary model.encoder.kind=rnn,gru,lstm --seeds 5"))
@click.argument("config")
@click.option(
    "--vary",
    "varied",
    metavar="A.B=C,D",
    multiple=True,
    help="Train with each of these values; several --vary make a grid.",
)
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Replace a setting in every training.")
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Trainings of each cell."
)
@click.option("--jobs", type=click.IntRange(1, 256), help="Trainings at a time.  [default: one for each core]")
@click.option("--output", metavar="DIR", help="Where to write.  [default: runs/compare-<config name>]")
@explains_errors
def compare(
    config: str,
    varied: tuple[str, ...],
    overrides: tuple[str, ...],
    seeds: int,
    jobs: int | None,
    output: str | None,
) -> None:
    """Train variants of CONFIG, and report whether they differ.

    The values of all --vary make a grid, and each cell of it is trained with several seeds, one thread each.
    Trainings that have ended are not repeated: the same command goes on where it was stopped. The report is
    DIR/report.html (also .md and .json).
    """
    import time

    from nertool.comparison.compare import command_line, judge
    from nertool.comparison.grid import plan
    from nertool.comparison.runner import run_jobs
    from nertool.config.files import locked
    from nertool.config.loading import find_config
    from nertool.views.comparison import show_comparison, write_report
    from nertool.views.comparison_progress import Watcher
    from nertool.views.console import new_console, waiting

    source = find_config(config)
    folder = Path(output) if output else RUNS / f"compare-{source.stem}"
    planned = plan(source, overrides, varied, seeds, folder)
    side_by_side = min(jobs or cores(), len(planned))
    console = new_console()
    watcher = Watcher(console, planned)
    began = time.perf_counter()
    with locked(folder):
        with contextlib.closing(run_jobs(planned, side_by_side)) as records:
            try:
                watcher.watch(records)
            except KeyboardInterrupt:
                say(
                    f"\nStopped. {len(watcher.results)} of {len(planned)} trainings have ended; "
                    "the same command goes on with the others."
                )
                sys.exit(130)
        command = command_line(config, varied, overrides, seeds, side_by_side)
        seconds = time.perf_counter() - began
        with waiting(console, "testing and drawing"):
            comparison = judge(planned, watcher.results, source, command, side_by_side, seconds)
            written = write_report(comparison, folder)
    show_comparison(console, comparison)
    for path in written:
        if path.parent == folder:
            say(f"written: {path}", err=False)
    failures = sum(len(cell.failures) for cell in comparison.cells)
    if failures:
        raise NertoolError(f"{failures} of {len(planned)} trainings failed; the same command tries them again")
