"""The progress of a grid of trainings: a moving bar on a terminal, and a line for each training that ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from nertool.comparison.grid import Job, Key
from nertool.comparison.processes import Running
from nertool.comparison.records import Failure, Run
from nertool.comparison.runner import Ended
from nertool.views.console import counted, duration, percent, trainings_bar
from nertool.views.visible import visible


class Watcher:
    """Draw the progress of a grid of trainings, and keep their results.

    Args:
        console: Where to draw.
        jobs: All jobs of the grid.

    Attributes:
        results: By the keys of their jobs.
    """

    def __init__(self, console: Console, jobs: Sequence[Job]) -> None:
        self.results: dict[Key, Run | Failure] = {}
        self._console = console
        self._jobs = jobs
        self._width = max(len(visible(job.cell)) for job in jobs)
        self._kept = 0
        self._began = time.perf_counter()
        self._epochs = sum(job.config.training.epochs for job in jobs)  # to be trained, at most
        self._trained = 0  # epochs of the trainings that ended in this call
        self._past: dict[int, int] = {}  # epochs that a resumed training had before this call
        self._progress = trainings_bar(
            console, "trainings", "{task.fields[running]} running, {task.fields[left]} left"
        )

    def watch(self, records: Iterable[Ended | Running]) -> None:
        """Consume and draw the records of a grid."""
        task = self._progress.add_task("", total=self._epochs, ended=0, all=len(self._jobs), running=0, left="–")
        announced = False
        with self._progress:
            for record in records:
                if isinstance(record, Ended):
                    self._ended(record)
                    self._progress.update(task, ended=len(self.results), total=self._epochs)
                    continue
                if not announced:
                    announced = True
                    self._announce()
                done = self._trained + sum(record.epochs.values())
                seconds = time.perf_counter() - self._began
                for number, epochs in record.epochs.items():
                    self._past.setdefault(number, epochs)
                new = done - sum(self._past.values())
                left = f"at most {duration(seconds / new * (self._epochs - done))}" if new > 0 else "–"
                self._progress.update(task, completed=done, running=len(record.epochs), left=left)
        if not announced:
            self._announce()

    def _announce(self) -> None:
        if self._kept:
            self._console.print(
                f"{counted(self._kept, 'training')} ended earlier and will not be repeated.", highlight=False
            )

    def _ended(self, record: Ended) -> None:
        job, result = record.job, record.result
        self.results[job.key] = result
        epochs = job.config.training.epochs
        # No more epochs of this training are to come, whether it used all or not.
        if record.before:
            self._kept += 1
            self._epochs -= epochs
            return
        trained = len(result.curve) if isinstance(result, Run) else 0
        self._trained += trained
        self._epochs -= epochs - trained
        line = f"{visible(job.cell):<{self._width}}  seed {job.seed}  {job.fold_name + '  ' if job.fold else ''}"
        if isinstance(result, Failure):
            line += f"failed: {result.reason} ({result.log})"
        else:
            test = "" if result.test is None else f"  test {percent(result.test)}"
            line += (
                f"validation {percent(result.validation)}{test}  "
                f"best epoch {result.best_epoch}/{trained}  {duration(result.seconds)}"
            )
        style = "red" if isinstance(result, Failure) else ""
        self._console.print(Text(visible(line), style), soft_wrap=True)
