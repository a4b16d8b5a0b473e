"""The command `nertool train`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nertool.cli.common import LATEST, RUNS, DeviceName, examples, fetch_from_hub, point_latest
from nertool.cli.door import explains_errors, say
from nertool.cli.init import data_options
from nertool.errors import DivergenceError, NertoolError

if TYPE_CHECKING:
    from rich.console import Console


# As `nertool.integrations.tracking` has them, which is too heavy for a help page.
TRACKERS = ("tensorboard", "mlflow", "trackio")
_SECONDS_TO_SAY = 3


@contextlib.contextmanager
def _after_the_first() -> Iterator[None]:
    """Let process 0 of several say what is wrong before another one ends: that ends them all."""
    try:
        yield
    except NertoolError:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(_SECONDS_TO_SAY)
        raise


@click.command(
    epilog=examples(
        "nertool train mine.jsonl --vectors glove-100",
        "nertool train demo.yaml",
        "nertool train conll03.yaml --set training.epochs=20 --output runs/short",
        "nertool train more.jsonl --from runs/mine --keep-labels",
    )
)
@click.argument("config", metavar="DATA|CONFIG")
@data_options()
@click.option(
    "--from", "start", metavar="DIR", help="Start from the weights of this model; DIR or hub:owner/name@revision."
)
@click.option(
    "--keep-labels",
    is_flag=True,
    help="With --from: its types that the new data does not annotate are unknown there.",
)
@click.option("--self-label", is_flag=True, help="With --from: it labels these types in the new data itself.")
@click.option("--output", metavar="DIR", help="Run directory.  [default: a new one in runs]")
@click.option(
    "--device", metavar="NAME", type=DeviceName(), help="Same as --set training.device=NAME: cpu, cuda, mps, auto."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Same as --set training.seed=N.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the newest run of this config that was stopped, else with one that has ended.",
)
@click.option(
    "--track",
    "trackers",
    type=click.Choice(TRACKERS),
    multiple=True,
    help="Show losses and scores of each epoch to this tracker too; may be given several times.",
)
@explains_errors
@_after_the_first()
def train(
    config: str,
    validation: str | None,
    test: str | None,
    vectors: tuple[str, ...],
    language: str | None,
    overrides: tuple[str, ...],
    start: str | None,
    keep_labels: bool,
    self_label: bool,
    output: str | None,
    device: str | None,
    seed: int | None,
    resume: bool,
    trackers: tuple[str, ...],
) -> None:
    """Train a model on DATA, or as CONFIG says.

    DATA is a file or folder of labelled text in any format. Settings are chosen by its size; --set replaces one.
    CONFIG is a YAML file, or the name of a config that ships with nertool.

    The run directory is the model. Each run gets its own: runs/demo, then runs/demo-2, and so on; runs/latest
    points to the newest. With --output, a model in that directory is replaced.

    --from, --keep-labels and --self-label are short for --set start.model=DIR, start.keep_labels=true and
    start.self_label=true. DATA is then learnt with the network of that model; a CONFIG has to describe the same.
    """
    from nertool.data.recipe import open_config, overrides_of
    from nertool.training.folders import run_folder, stopped_run

    if start is not None and start.startswith("hub:"):
        start = str(fetch_from_hub(start).named)
    named = [
        *overrides_of(validation, test, vectors, language, start, keep_labels, self_label, device),
        *overrides,
    ]
    if seed is not None:
        named.append(f"training.seed={seed}")
    recipe = open_config(config, named)
    settings, name = recipe.config, recipe.name
    with contextlib.ExitStack() as stack:
        from nertool.training.distributed import joined
        from nertool.training.run import run

        group = stack.enter_context(joined())
        if not group.leads:
            records = stack.enter_context(contextlib.closing(run(settings, Path(), resume=resume, group=group)))
            deque(records, maxlen=0)
            return
        opened = {}
        if trackers:
            from nertool.integrations.tracking import Tracking, new_tracker

            opened = {each: new_tracker(each) for each in trackers}
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
        from nertool.views.console import new_console, percent, waiting
        from nertool.views.training import Watcher

        if recipe.summary:
            say(f"{config}: {recipe.summary}")
        for line in recipe.warnings:
            say(line, head=f"{click.style('note:', fg='yellow')} ")
        console = new_console()
        watcher = Watcher(console, folder)
        try:
            records = stack.enter_context(contextlib.closing(run(settings, folder, resume=resume, group=group)))
            with waiting(console, "reading corpus and vectors"):
                prepared = next(records)
            passing: Iterator[Any] = chain([prepared], records)
            if opened:
                tracking = Tracking(opened, folder, partial(_warn, console))
                passing = stack.enter_context(contextlib.closing(tracking.passing(passing)))
            watcher.watch(passing)
        except (KeyboardInterrupt, NertoolError, SystemExit) as problem:
            if isinstance(problem, SystemExit) and group.size == 1:
                raise
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
                saved = "what was written of the shards" if watcher.writing else "nothing"
                say(f"\nStopped before the first epoch ended: {saved} was saved.")
            if not isinstance(problem, KeyboardInterrupt):
                raise  # what ended another process ends this one too, by a signal or an error
            sys.exit(130)
        point_latest(folder)
        if recipe.summary:
            say(f"its settings, to change and train with: {folder / 'config.yaml'}", err=False)


def _warn(console: Console, text: str) -> None:
    console.print(text, style="yellow", highlight=False, soft_wrap=True, markup=False)
