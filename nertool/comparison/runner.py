"""Run the trainings of a grid, several processes side by side; what has ended is not repeated."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from nertool.comparison.grid import Job
from nertool.comparison.processes import (
    CHECKPOINT,
    CONFIG,
    LOG,
    METRICS,
    RESULTS,
    VOCABULARY,
    WEIGHTS,
    Processes,
    Running,
    epochs_in,
    failure,
    prepare_folder,
)
from nertool.comparison.records import Failure, Run
from nertool.comparison.results import RUN, read_run
from nertool.config.files import LOCK, refuse_links

_FILES = (CONFIG, VOCABULARY, WEIGHTS, RESULTS, CHECKPOINT, METRICS, RUN, LOG, LOCK)


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
    with Processes("nertool.comparison.worker") as processes:
        while waiting or len(processes):
            while waiting and len(processes) < side_by_side:
                number = waiting.pop(0)
                job = jobs[number]
                prepare_folder(job.folder, job.config, (RESULTS, CHECKPOINT, METRICS, WEIGHTS), ended=RUN)
                processes.start(number, job.folder, job.config.training.threads)
            for number, code in processes.ended():
                yield Ended(jobs[number], _result(jobs[number], code), False)
            yield Running({number: epochs_in(folder) for number, folder in processes.folders.items()})


def _result(job: Job, code: int) -> Run | Failure:
    result = read_run(job.folder, job.config) if code == 0 else None
    if result is not None:
        return result
    reason = failure(job.folder, code) if code else "the config or the corpus was changed while it was trained"
    return Failure(job.seed, reason, str(job.folder / LOG), job.fold)
