"""The command `nertool tune`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import click

from nertool.cli.common import JOBS, RUNS, cores, examples
from nertool.cli.door import explains_errors, say
from nertool.cli.init import data_options
from nertool.errors import ConfigError


@click.command(
    epilog=examples(
        "nertool tune demo.yaml --trials 30",
        "nertool tune mine.jsonl --tune training.learning_rate=0.01..0.1:log --tune model.dropout=0.3,0.5",
        "nertool tune demo.yaml --show-space > space.yaml",
    )
)
@click.argument("config", metavar="DATA|CONFIG")
@click.option(
    "--trials",
    type=click.IntRange(1, 100_000),
    metavar="N",
    default=30,
    show_default=True,
    help="Number of trials, those of an earlier search included.",
)
@click.option(
    "--tune",
    "varied",
    metavar="A.B=RANGE",
    multiple=True,
    help="Vary this setting: low..high, low..high:log, or values a,b,c. Others then stay as they are.",
)
@click.option(
    "--space", "space_file", metavar="FILE", help="YAML file of settings to vary, as --show-space prints."
)
@click.option("--show-space", is_flag=True, help="Print what would be varied, and end.")
@data_options("validation", "vectors", "language", "set")
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    metavar="N",
    default=1,
    show_default=True,
    help="Trainings of each trial.",
)
@JOBS
@click.option("--output", metavar="DIR", help="Where to write.  [default: runs/tune-<name>]")
@explains_errors
def tune(
    config: str,
    trials: int,
    varied: tuple[str, ...],
    space_file: str | None,
    show_space: bool,
    validation: str | None,
    vectors: tuple[str, ...],
    language: str | None,
    overrides: tuple[str, ...],
    seeds: int,
    jobs: int | None,
    output: str | None,
) -> None:
    """Search for settings with a better validation F1.

    Optuna proposes settings; trials that are worse than the median of the others after as many epochs are
    stopped. The test split is never read. The same command goes on where it was stopped; more --trials add to
    those of before. Written are DIR/best.yaml, to use with `nertool train`, and a report.
    """
    from nertool.config.files import find, locked, write_whole
    from nertool.config.loading import read_tree
    from nertool.data.recipe import open_config, overrides_of
    from nertool.experiments.space import describe, parse_space

    recipe = open_config(config, [*overrides_of(validation, None, vectors, language), *overrides])
    tree = None
    if space_file is not None:
        path = find(space_file)
        tree = read_tree(path)
        if not tree:
            raise ConfigError("expected settings such as 'model.dropout: 0.3..0.5', found none", path)
    space = parse_space(tree, varied, recipe.config)
    described = describe(space, recipe.config)
    if show_space:
        for name, how in described.items():
            click.echo(f"{name}: {how}")
        return
    from nertool.experiments.tune import BEST, Tuner, import_optuna
    from nertool.views.console import new_console, waiting
    from nertool.views.tuning import Watcher, show_tuning, write_page

    import_optuna()  # before there is a folder
    folder = Path(output) if output else RUNS / f"tune-{recipe.name}"
    for line in recipe.warnings:
        say(line, head=f"{click.style('note:', fg='yellow')} ")
    console = new_console()
    watcher = Watcher(console, trials, recipe.config.training.epochs * seeds)
    with locked(folder):
        with waiting(console, "opening the search"):
            tuner = Tuner(recipe.config, space, folder, seeds)
        with contextlib.closing(tuner.run(trials, jobs or cores())) as records:
            try:
                watcher.watch(records)
            except KeyboardInterrupt:
                say(
                    f"\nStopped. {len(watcher.ended)} of {trials} trials have ended; "
                    "the same command goes on with the others."
                )
                sys.exit(130)
        with waiting(console, "summing up"):
            result = tuner.result(recipe.name, recipe.config, described)
            write_page(result, folder / "report.html")
            write_whole(folder / "report.json", (json.dumps(result.to_json(), indent=2) + "\n").encode())
    show_tuning(console, result)
    say(f"written: {folder / 'report.html'}", err=False)
    say(f"written: {folder / BEST}; train with: nertool train {folder / BEST}", err=False)
