"""Processes that work on parts side by side, and are replaced when one is killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

from nertool.errors import NertoolError
from nertool.integrations.shard_files import Counts, Part

Work = Callable[[Part], Iterator[Counts]]
"""What is done with a part; it yields the counts of some rows after another."""

_THREADS = "OMP_NUM_THREADS"
_MOST_DEATHS = 2  # of processes that work on the same part


class Progress(NamedTuple):
    """What became of some rows of a part that is not yet complete.

    Attributes:
        part: The part.
        counts: Of these rows; None: the process was killed, and what was counted of the part is void.
    """

    part: Part
    counts: Counts | None


class Ended(NamedTuple):
    """A part is complete."""

    part: Part
    counts: Counts


def work_on(parts: Iterable[Part], work: Work, workers: int) -> Iterator[Progress | Ended]:
    """Work on parts: here, or in processes of their own.

    A part whose process is killed is begun again in a new one, once. When the caller stops, or is killed, so are
    the processes.

    Args:
        parts: The parts.
        work: It can be pickled.
        workers: The number of processes; 1: this one.

    Raises:
        NertoolError: Of the work; or two processes in turn were killed at the same part.
    """
    if workers == 1:
        for part in parts:
            total = Counts()
            for counts in work(part):
                total.add(counts)
                yield Progress(part, counts)
            yield Ended(part, total)
        return
    with _Pool(work, workers) as pool:
        yield from pool.run(parts)


class _Worker(NamedTuple):
    process: SpawnProcess
    connection: Connection


class _Pool:
    """Some processes, each of which has a part or waits for one."""

    def __init__(self, work: Work, size: int) -> None:
        self._context = multiprocessing.get_context("spawn")  # a fork would have one thread of torch's
        self._work = work
        self._size = size
        self._busy: dict[Connection, tuple[_Worker, Part, Counts]] = {}
        self._idle: list[_Worker] = []

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *problem: object) -> None:
        workers = [*self._idle, *(worker for worker, _, _ in self._busy.values())]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
            worker.connection.close()

    def run(self, parts: Iterable[Part]) -> Iterator[Progress | Ended]:
        coming, again = iter(parts), deque[Part]()
        deaths: Counter[Part] = Counter()
        while True:
            while len(self._busy) < self._size:
                part = again.popleft() if again else next(coming, None)
                if part is None:
                    break
                self._start(part)
            if not self._busy:
                return
            for ready in wait(list(self._busy)):
                assert isinstance(ready, Connection)
                worker, part, total = self._busy[ready]
                try:
                    message = ready.recv()
                except (EOFError, OSError):  # it was killed
                    del self._busy[ready]
                    ready.close()
                    worker.process.join()
                    deaths[part] += 1
                    self._refuse_death(part, worker.process.exitcode or 0, deaths[part])
                    yield Progress(part, None)
                    again.append(part)
                    continue
                if isinstance(message, str):
                    raise NertoolError(message)
                if message is None:
                    del self._busy[ready]
                    self._idle.append(worker)
                    yield Ended(part, total)
                else:
                    total.add(message)
                    yield Progress(part, message)

    def _start(self, part: Part) -> None:
        while True:
            worker = self._idle.pop() if self._idle else self._new()
            try:
                worker.connection.send(part)
            except OSError:  # it was killed while it waited
                worker.connection.close()
                worker.process.join()
                continue
            self._busy[worker.connection] = worker, part, Counts()
            return

    def _new(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._work), daemon=True)
        threads = os.environ.get(_THREADS)
        os.environ[_THREADS] = threads or "1"  # there are as many processes as cores
        try:
            process.start()
        finally:
            if threads is None:
                del os.environ[_THREADS]
        theirs.close()  # so that the end of the process is the end of the connection
        return _Worker(process, ours)

    def _refuse_death(self, part: Part, code: int, deaths: int) -> None:
        if code >= 0:
            raise NertoolError(
                f"{part.path}: a process that tagged it ended with code {code}; see what it printed"
            )
        if deaths >= _MOST_DEATHS:
            rows = f"rows {part.start + 1:,} to {part.start + part.rows:,}"
            raise NertoolError(
                f"{part.path}: {deaths} processes that tagged {rows} were killed by signal {-code}; there may not "
                "be enough memory: use fewer --workers. Complete shards stay; the same command goes on after them"
            )


def _serve(connection: Connection, work: Work) -> None:
    """Work on the parts that come, until none can come any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first ends them
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            part = connection.recv()
            try:
                for counts in work(part):
                    connection.send(counts)
                connection.send(None)
            except NertoolError as problem:
                connection.send(str(problem))
            except MemoryError:
                connection.send(f"{part.path}: there is not enough memory; use fewer --workers")
