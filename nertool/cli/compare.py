"""The command `nertool compare`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from nertool.cli.common import JOBS, RUNS, cores, examples
from nertool.cli.door import explains_errors, say
from nertool.cli.init import data_options
from nertool.errors import NertoolError


@click.command(
    epilog=examples(
        "nertool compare demo.yaml --vary model.encoder.kind=rnn,gru,lstm --seeds 5",
        "nertool compare mine.jsonl --vary corpus.fraction=0.1,0.25,0.5,1",
        "nertool compare demo.yaml --ablate model.decoder=softmax --ablate inputs.characters=null",
        "nertool compare old.yaml new.yaml --folds 5",
    )
)
@click.argument("names", metavar="DATA|CONFIG...", nargs=-1, required=True)
@click.option(
    "--vary",
    "varied",
    metavar="A.B=C,D",
    multiple=True,
    help="Train with each of these values; several --vary make a grid.",
)
@click.option(
    "--ablate",
    "ablated",
    metavar="A.B=C",
    multiple=True,
    help="Train without this change and with it; several --ablate are tried one at a time.",
)
@data_options()
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Trainings of each cell.  [default: 3; with --folds: 1 for each fold]",
)
@click.option(
    "--folds",
    type=click.IntRange(2, 1000),
    metavar="N",
    help="Cross-validation: make N folds of the training split, and test on each once.",
)
@JOBS
@click.option("--output", metavar="DIR", help="Where to write.  [default: runs/compare-<name>]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "latex"]),
    default="table",
    show_default=True,
    help="What to print at the end; latex: a table for booktabs, as in DIR/report.tex.",
)
@explains_errors
def compare(
    names: tuple[str, ...],
    varied: tuple[str, ...],
    ablated: tuple[str, ...],
    validation: str | None,
    test: str | None,
    vectors: tuple[str, ...],
    language: str | None,
    overrides: tuple[str, ...],
    seeds: int | None,
    folds: int | None,
    jobs: int | None,
    output: str | None,
    form: str,
) -> None:
    """Train variants, and report whether they differ.

    The values of all --vary make a grid, and each cell of it is trained with several seeds, one thread each.
    Several files are cells too. DATA is a file or folder of labelled text: settings are chosen by its size.
    Trainings that have ended are not repeated: the same command goes on where it was stopped. The report is
    DIR/report.html (also .md, .json and .tex).
    """
    import time

    from nertool.comparison.compare import judge
    from nertool.comparison.grid import Request, plan
    from nertool.comparison.runner import run_jobs
    from nertool.config.files import locked
    from nertool.data.recipe import overrides_of
    from nertool.views.comparison import latex_table, show_comparison, write_report
    from nertool.views.comparison_progress import Watcher
    from nertool.views.console import new_console, waiting

    named = (*overrides_of(validation, test, vectors, language), *overrides)
    request = Request(names, named, varied, ablated, seeds, folds)
    folder = Path(output) if output else RUNS / f"compare-{request.folder_name}"
    planned = plan(request, folder)
    for note in planned.notes:
        say(note, head=f"{click.style('note:', fg='yellow')} ")
    side_by_side = min(jobs or cores(), len(planned.jobs))
    latex = form == "latex"
    console = new_console(stderr=latex)
    watcher = Watcher(console, planned.jobs)
    began = time.perf_counter()
    with locked(folder):
        with contextlib.closing(run_jobs(planned.jobs, side_by_side)) as records:
            try:
                watcher.watch(records)
            except KeyboardInterrupt:
                say(
                    f"\nStopped. {len(watcher.results)} of {len(planned.jobs)} trainings have ended; "
                    "the same command goes on with the others."
                )
                sys.exit(130)
        seconds = time.perf_counter() - began
        with waiting(console, "testing and drawing"):
            comparison = judge(request, planned, watcher.results, side_by_side, seconds)
            written = write_report(comparison, folder)
    if latex:
        click.echo(latex_table(comparison), nl=False)
    else:
        show_comparison(console, comparison)
    for path in written:
        if path.parent == folder:
            say(f"written: {path}", err=latex)
    failures = sum(len(cell.failures) for cell in comparison.cells)
    if failures:
        raise NertoolError(
            f"{failures} of {len(planned.jobs)} trainings failed; the same command tries them again"
        )
