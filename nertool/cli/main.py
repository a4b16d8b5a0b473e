"""The command line: parse, call, print, exit code. Anything heavy is imported where it is used."""

from __future__ import annotations

import contextlib
import io
import sys
from itertools import chain
from pathlib import Path

import click

import nertool
from nertool.cli.common import (
    LATEST,
    RUNS,
    cores,
    examples,
    point_latest,
)
from nertool.cli.data import check, convert, list_formats
from nertool.cli.door import Door, explains_errors, say
from nertool.cli.init import data_options, init
from nertool.cli.model import attention, errors, evaluate, info
from nertool.cli.tag import tag
from nertool.errors import DivergenceError, NertoolError


@click.group(
    cls=Door,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("nertool train demo.yaml", 'echo "Ada lives in London." | nertool tag -'),
)
@click.version_option(nertool.__version__)
def main() -> None:
    """Label sequences with BiLSTM-CNN-CRF: train, evaluate, tag."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the locale lacks a character, a substitute is better than a traceback.
        sys.stdout.reconfigure(errors="replace")


@main.command(
    epilog=examples(
        "nertool train mine.jsonl --vectors glove.6B.100d.txt",
        "nertool train demo.yaml",
        "nertool train conll03.yaml --set training.epochs=20 --output runs/short",
    )
)
@click.argument("config", metavar="DATA|CONFIG")
@data_options
@click.option("--output", metavar="DIR", help="Run directory.  [default: a new one in runs]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Same as --set training.seed=N.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the newest run of this config that was stopped, else with one that has ended.",
)
@explains_errors
def train(
    config: str,
    validation: str | None,
    test: str | None,
    vectors: tuple[str, ...],
    language: str | None,
    overrides: tuple[str, ...],
    output: str | None,
    seed: int | None,
    resume: bool,
) -> None:
    """Train a model on DATA, or as CONFIG says.

    DATA is a file or folder of labelled text in any format. Settings are chosen by its size; --set replaces one.
    CONFIG is a YAML file, or the name of a config that ships with nertool.

    The run directory is the model. Each run gets its own: runs/demo, then runs/demo-2, and so on; runs/latest
    points to the newest. With --output, a model in that directory is replaced.
    """
    from nertool.data.recipe import open_config, overrides_of
    from nertool.training.folders import run_folder, stopped_run

    named = [*overrides_of(validation, test, vectors, language), *overrides]
    if seed is not None:
        named.append(f"training.seed={seed}")
    recipe = open_config(config, named)
    settings, name = recipe.config, recipe.name
    with contextlib.ExitStack() as stack:
        if output is not None:
            folder = Path(output)
        elif RUNS / name == LATEST:
            raise NertoolError(
                f"{Path(config).name}: {LATEST} is the link to the newest run; name another folder with --output"
            )
        else:
            stopped = stopped_run(name) if resume else None
            if resume and stopped is None:
                say(f"there is no run of {Path(config).name} to go on with: a new one begins")
            folder = stopped or stack.enter_context(run_folder(name))
        from nertool.training.run import run
        from nertool.views.console import new_console, percent, waiting
        from nertool.views.training import Watcher

        if recipe.summary:
            say(f"{config}: {recipe.summary}")
        for line in recipe.warnings:
            say(line, head=f"{click.style('note:', fg='yellow')} ")
        console = new_console()
        watcher = Watcher(console, folder)
        try:
            records = stack.enter_context(contextlib.closing(run(settings, folder, resume=resume)))
            with waiting(console, "reading corpus and vectors"):
                prepared = next(records)
            watcher.watch(chain([prepared], records))
        except (KeyboardInterrupt, NertoolError) as problem:
            best = watcher.best
            if best is not None:
                point_latest(folder)
                # The same would diverge again; the error says what helps.
                same = "" if isinstance(problem, DivergenceError) else " The same command with --resume goes on."
                say(
                    f"\nStopped. The best model so far, epoch {best.number} with validation F1 "
                    f"{percent(best.validation.micro.f1)}, is in {folder}; the test split was not scored.{same}"
                )
            elif isinstance(problem, KeyboardInterrupt):
                say("\nStopped before the first epoch ended: nothing was saved.")
            if not isinstance(problem, KeyboardInterrupt):
                raise
            sys.exit(130)
        point_latest(folder)
        if recipe.summary:
            say(f"its settings, to change and train with: {folder / 'config.yaml'}", err=False)


@main.command(epilog=examples("nertool compare demo.yaml --vary model.encoder.kind=rnn,gru,lstm --seeds 5"))
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


for command in (attention, check, convert, errors, evaluate, info, init, list_formats, tag):
    main.add_command(command)

if __name__ == "__main__":
    main()
