"""The trainings of a grid, several processes side by side; what has ended is not done again."""

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
from nertool.configfile import dump_config
from nertool.errors import NertoolError
from nertool.files import write_whole

LOG = "log.txt"
_CONFIG = "config.yaml"
_PAUSE = 0.2  # seconds between looks at the processes


@dataclass(frozen=True)
class Ended:
    """A training has ended, well or not.

    Attributes:
        job: Which.
        result: What came of it.
        before: Whether it had ended before this call.
    """

    job: Job
    result: Run | Failure
    before: bool


@dataclass(frozen=True)
class Running:
    """How far the trainings under way have come.

    Attributes:
        epochs: Ended epochs of each, by its job's place in the list.
    """

    epochs: dict[int, int]


def run_jobs(jobs: Sequence[Job], side_by_side: int) -> Generator[Ended | Running, None, None]:
    """Trains what has not been trained yet.

    Each training is a process; one that fails, or is killed, is a `Failure`, and the others go on. When the
    iterator is closed, or an exception is thrown into it, the processes are stopped.

    Args:
        jobs: All of the grid.
        side_by_side: How many processes there may be at once.

    Raises:
        NertoolError: A folder cannot be written to.
    """
    waiting: list[int] = []
    for number, job in enumerate(jobs):
        found = read_run(job.folder, job.config)
        if found is None:
            waiting.append(number)
        else:
            yield Ended(job, found, True)
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
        folder.mkdir(parents=True, exist_ok=True)
        for old in (RUN, METRICS):
            (folder / old).unlink(missing_ok=True)
        write_whole(folder / _CONFIG, dump_config(job.config).encode())
        log = (folder / LOG).open("wb")
    except OSError as problem:
        raise NertoolError(f"{folder}: cannot write there: {problem.strerror}") from None
    threads = str(job.config.training.threads)
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "nertool.comparison.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            # Not in the terminal's group: Ctrl-C is for the one that started them, which then stops them.
            start_new_session=True,
        )


def _result(job: Job, code: int) -> Run | Failure:
    log = job.folder / LOG
    found = read_run(job.folder, job.config) if code == 0 else None
    if found is not None:
        return found
    if code < 0:
        reason = f"killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            reason += "; there may not have been enough memory"
    else:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = lines[-1].removeprefix("error: ") if lines else f"ended with code {code} and said nothing"
    return Failure(job.seed, reason, str(log))


def _epochs(folder: Path) -> int:
    try:
        return (folder / METRICS).read_bytes().count(b"\n")
    except OSError:
        return 0
