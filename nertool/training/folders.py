"""Run directories: `runs/NAME` for the first run of a config, `runs/NAME-2` for the second, and so on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from nertool.errors import NertoolError

RUNS = Path("runs")


@contextmanager
def run_folder(name: str) -> Iterator[Path]:
    """Make a directory for a new run: runs/NAME, or runs/NAME-2, runs/NAME-3, ... where others exist.

    It is made at once, so that no other process takes it, and removed after the block if it is still empty.

    Raises:
        NertoolError: It cannot be made.
    """
    had_runs = RUNS.exists()
    folder = RUNS / name
    try:
        RUNS.mkdir(exist_ok=True)
        for number in count(2):
            try:
                folder.mkdir()
                break
            except FileExistsError:
                folder = RUNS / f"{name}-{number}"
    except OSError as problem:
        raise NertoolError(f"{folder}: cannot write there: {problem.strerror or problem}") from None
    try:
        yield folder
    finally:
        with suppress(OSError):  # not empty
            folder.rmdir()
            if not had_runs:
                RUNS.rmdir()


def stopped_run(name: str) -> Path | None:
    """Find the newest run of a name that was stopped, or else the newest one that has ended and could go on."""
    from nertool.training.checkpoint import CHECKPOINT
    from nertool.training.run import RESULTS

    numbers = {}
    for path in RUNS.glob(f"*/{CHECKPOINT}"):
        match = re.fullmatch(rf"{re.escape(name)}(?:-(\d+))?", path.parent.name)
        if match:
            stopped = not (path.parent / RESULTS).exists()
            numbers[stopped, int(match[1] or 1)] = path.parent
    return numbers[max(numbers)] if numbers else None
