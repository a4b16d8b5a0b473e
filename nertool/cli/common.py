"""What the commands share: where runs live, which model is meant, and how a mistake is explained."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from nertool.errors import NertoolError

RUNS = Path("runs")
LATEST = "latest"
MODEL = click.option(
    "--model",
    metavar="DIR",
    help="Run directory of a trained model.  [default: $NERTOOL_MODEL, else runs/latest]",
)
READ_OTHERWISE = click.option(
    "--set",
    "overrides",
    metavar="A.B=C",
    multiple=True,
    help="Read DATA otherwise than the model's corpus, such as corpus.columns='[token, ner]'.",
)


def explains_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns a user's mistake into one clear message and exit code 1."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # whoever read has seen enough; click ends quietly
        except (NertoolError, OSError) as problem:
            if isinstance(problem, OSError):  # such as a full disk: do not try again when Python ends
                with contextlib.suppress(OSError):
                    sys.stdout.close()
            click.echo(f"{click.style('error:', fg='red', bold=True)} {problem}", err=True)
            sys.exit(1)

    return wrapped


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_folder(given: str | None) -> Path:
    """The folder of the model that is meant.

    Args:
        given: Its name on the command line, if any; else NERTOOL_MODEL tells, else it is the last one trained.

    Raises:
        NertoolError: There is none.
    """
    named = given or os.environ.get("NERTOOL_MODEL")
    folder = Path(named) if named else RUNS / "latest"
    with contextlib.suppress(OSError):  # a name too long for a folder
        if folder.is_dir():
            return folder
    if named:
        origin = "" if given else " (from NERTOOL_MODEL)"
        raise NertoolError(f"there is no model folder {folder}{origin}; train one with: nertool train CONFIG")
    raise NertoolError(
        "no model: neither --model nor NERTOOL_MODEL is given and there is no runs/latest here; "
        "train one with: nertool train demo.yaml"
    )


def point_latest(folder: Path) -> None:
    """Lets runs/latest point to a run directory; a system without links does without."""
    latest, beside = RUNS / "latest", RUNS / f".latest-{os.getpid()}"
    try:
        if latest.resolve() == folder.resolve():
            return
        RUNS.mkdir(exist_ok=True)
        beside.symlink_to(os.path.relpath(folder.resolve(), RUNS.resolve()), target_is_directory=True)
        beside.replace(latest)
    except (OSError, NotImplementedError):
        click.echo(f"{latest} cannot be made to point to it; name it: --model {folder}", err=True)
        with contextlib.suppress(OSError):
            beside.unlink()
