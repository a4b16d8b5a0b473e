"""Run the trainings of a grid, several processes side by side; what has ended is not repeated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nertool.comparison.grid import Job
from nertool.comparison.records import Failure, Run
from nertool.comparison.results import METRICS, RUN, read_run
from nertool.config.files import LOCK, is_file, locked, read_limited, refuse_links, remove_files, write_whole
from nertool.config.loading import dump_config
from nertool.errors import NertoolError

LOG = "log.txt"
_CONFIG = "config.yaml"
_CHECKPOINT, _WEIGHTS, _RESULTS = "checkpoint.safetensors", "weights.safetensors", "results.json"
_FILES = (_CONFIG, "vocabulary.json", _WEIGHTS, _RESULTS, _CHECKPOINT, METRICS, RUN, LOG, LOCK)
_PATIENCE = 60.0  # seconds to wait for a folder
_PAUSE = 0.2  # seconds between looks at the processes


@dataclass(frozen=True)
class Ended:
    """A training has ended, well or not.

    Attributes:
        job: The training.
        result: Its result.
        before: Whether it had ended before this call.
    """

    job: Job
    result: Run | Failure
    before: bool


@dataclass(frozen=True)
class Running:
    """How far the running trainings have come.

    Attributes:
        epochs: Number of ended epochs of each, by the index of its job.
    """

    epochs: dict[int, int]


def run_jobs(jobs: Sequence[Job], side_by_side: int) -> Generator[Ended | Running, None, None]:
    """Run the trainings that have not ended yet.

    Each training is a process; one that fails or is killed is a `Failure`, and the others go on. When the
    iterator is closed, or an exception is thrown into it, the processes are stopped.

    Args:
        jobs: All of the grid.
        side_by_side: How many processes there may be at once.

    Raises:
        NertoolError: A folder cannot be written to.
    """
    waiting: list[int] = []
    for number, job in enumerate(jobs):
        # Two folders up, so that the folders of cells are no links either.
        own = job.folder.relative_to(job.folder.parent.parent)
        refuse_links(job.folder.parent.parent, [str(own / name) for name in _FILES])
        result = read_run(job.folder, job.config)
        if result is None:
            waiting.append(number)
        else:
            yield Ended(job, result, True)
    processes: dict[int, subprocess.Popen[bytes]] = {}
    try:
        while waiting or processes:
            while waiting and len(processes) < side_by_side:
                number = waiting.pop(0)
                processes[number] = _start(jobs[number])
            for number, process in list(processes.items()):
                if process.poll() is not None:
                    del processes[number]
                    yield Ended(jobs[number], _result(jobs[number], process.returncode), False)
            yield Running({number: _epochs(jobs[number].folder) for number in processes})
            time.sleep(_PAUSE)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


def _start(job: Job) -> subprocess.Popen[bytes]:
    folder = job.folder
    try:
        # A training whose comparison was killed ends after its next step.
        with locked(folder, wait=_PATIENCE):
            config = dump_config(job.config).encode()
            # Files that were being written when a training was stopped.
            old = [RUN, *(path.name for path in folder.glob(".*.part"))]
            files = (folder / _CONFIG, folder / _CHECKPOINT)
            if not all(map(is_file, files)) or files[0].read_bytes() != config:
                # There is nothing to go on from, and weights of another config must not be taken for this one's.
                old += [_RESULTS, _CHECKPOINT, METRICS, _WEIGHTS]
            remove_files(folder, old)
            write_whole(folder / _CONFIG, config)
            log = (folder / LOG).open("wb")
    except OSError as problem:
        raise NertoolError(f"{folder}: cannot write there: {problem.strerror}") from None
    threads = str(job.config.training.threads)
    # Import from the current folder only where this process does: there may be a torch.py in it.
    safe = "" if {"", str(Path.cwd())} & set(sys.path) else "1"
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "nertool.comparison.worker", str(folder), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONSAFEPATH": safe},
            # Outside of the terminal's group: Ctrl-C goes to this process, which then stops the others.
            start_new_session=True,
        )


def _result(job: Job, code: int) -> Run | Failure:
    log = job.folder / LOG
    result = read_run(job.folder, job.config) if code == 0 else None
    if result is not None:
        return result
    if code == 0:
        reason = "the config or the corpus was changed while it was trained"
    elif code < 0:
        reason = f"killed by {_signal(-code)}"
        if -code == signal.SIGKILL:
            reason += "; there may not have been enough memory"
    else:
        reason = _last_message(log) or f"ended with code {code} and no message"
    return Failure(job.seed, reason, str(log), job.fold)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def _last_message(log: Path) -> str:
    """Return the error that a log ends with, or its last line, in one line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    message = " ".join(line.strip() for line in lines[errors[-1] if errors else -1 :]).removeprefix("error: ")
    return "".join(character if character.isprintable() else " " for character in message)


def _epochs(folder: Path) -> int:
    try:
        return read_limited(folder / METRICS).count(b"\n")
    except (OSError, ValueError):
        return 0
