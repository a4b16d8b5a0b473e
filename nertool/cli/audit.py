"""The command `nertool audit`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import click

from nertool.cli.common import JOBS, RUNS, cores, examples
from nertool.cli.door import explains_errors, say
from nertool.cli.init import data_options
from nertool.errors import NertoolError


@click.command(
    epilog=examples(
        "nertool audit mine.jsonl --output audit.html",
        "nertool audit conll03.yaml --repeats 3 --weights weights.jsonl",
    )
)
@click.argument("data", metavar="DATA|CONFIG")
@click.option(
    "--folds",
    type=click.IntRange(2, 100),
    metavar="N",
    default=5,
    show_default=True,
    help="Divide the data into N parts.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 20),
    metavar="N",
    default=1,
    show_default=True,
    help="Divide the data into folds N times; what several models find is more certain.",
)
@data_options("vectors", "language", "set")
@click.option(
    "--top", type=click.IntRange(0), metavar="N", help="Show at most N places.  [default: 20; pages 200; JSON all]"
)
@click.option("--output", metavar="FILE", help="Write an HTML page instead of text.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option("--weights", metavar="FILE", help="Write weights for corpus.weights: doubtful sentences count less.")
@JOBS
@click.option("--runs", metavar="DIR", help="Where to keep the trainings.  [default: runs/audit-<name>]")
@explains_errors
def audit(
    data: str,
    folds: int,
    repeats: int,
    vectors: tuple[str, ...],
    language: str | None,
    overrides: tuple[str, ...],
    top: int | None,
    output: str | None,
    as_json: bool,
    weights: str | None,
    jobs: int | None,
    runs: str | None,
) -> None:
    """List likely annotation errors of DATA, the most likely first.

    The data is divided into folds. A model that learnt from all others tags each fold, and where it disagrees
    with the annotation, both are compared by their exact probabilities. CONFIG names the data as corpus.train.

    Trainings that have ended are not repeated: the same command goes on where it was stopped.
    """
    if output is not None and Path(output).suffix.lower() not in (".html", ".htm"):
        raise NertoolError(f"{output}: the name of a page ends in .html")
    from nertool.config.files import locked
    from nertool.data.recipe import open_config, overrides_of
    from nertool.experiments.audit import check_config, judged, plan_folds, run_folds
    from nertool.experiments.fold import read_whole
    from nertool.views.audit import Watcher, show_audit, write_page
    from nertool.views.console import new_console, waiting

    named = [*overrides_of(vectors=vectors, language=language), *overrides]
    recipe = open_config(data, named)
    if recipe.summary:  # a data file: a third of the epochs that the best model would need finds as many errors
        epochs = max(12, recipe.config.training.epochs // 3)
        quick = [f"training.{name}" for name in (f"epochs={epochs}", f"patience={epochs}", "schedule=cosine")]
        recipe = open_config(data, [*quick, *named])
    config = check_config(recipe.config)
    folder = Path(runs) if runs else RUNS / f"audit-{recipe.name}"
    console = new_console(stderr=as_json)
    if not as_json:
        if recipe.summary:
            say(f"{data}: {recipe.summary}")
        for line in recipe.warnings:
            say(line, head=f"{click.style('note:', fg='yellow')} ")
    with waiting(console, "reading the data"):
        split = read_whole(config)
        planned = plan_folds(split, folds, repeats)
    watcher = Watcher(console, planned, config.training.epochs)
    with (
        locked(folder),
        contextlib.closing(run_folds(config, planned, folder, min(jobs or cores(), len(planned)))) as records,
    ):
        try:
            watcher.watch(records)
        except KeyboardInterrupt:
            say(
                f"\nStopped. {len(watcher.results)} of {len(planned)} trainings have ended; "
                "the same command goes on with the others."
            )
            sys.exit(130)
    with waiting(console, "comparing"):
        result = judged(data, split, config, planned, watcher.results)
    if weights is not None:
        from nertool.data.weights import write_weights

        count = write_weights(Path(weights), split.sentences, result.weights())
        say(f"written: {weights} ({count:,} of {len(split):,} sentences weigh less than 1)", err=as_json)
    if output is not None:
        write_page(result, Path(output), 200 if top is None else top)
        say(f"written: {output}", err=as_json)
    if as_json:
        click.echo(json.dumps(result.to_json(top)))
    elif output is None:
        show_audit(console, result, 20 if top is None else top)
    for note in split.notes():
        say(note, err=as_json)
