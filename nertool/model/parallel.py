"""Whether this process was forked, and items worked on by several threads; without torch.

`nertool.model.concurrency` has what concerns the threads of torch.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from nertool.forking import forks_wait

Item = TypeVar("Item")

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def forked() -> bool:
    """Return whether this process was forked from one that had imported this module, and so perhaps torch."""
    return _forked


def for_each(function: Callable[[Item], object], items: Iterable[Item], workers: int) -> None:
    """Call a function with each item, on several threads: this one, and others that end with this call.

    After an exception, also an interrupt, no further item is begun, and those that were begun are waited for.

    Args:
        function: Called with an item.
        items: In the order in which they are begun.
        workers: How many threads.
    """
    shared: Iterator[Item] = iter(list(items))
    problems: list[BaseException] = []
    stopped = False

    def work_on() -> None:
        nonlocal stopped
        try:
            for item in shared:
                if stopped:
                    return
                function(item)
        except BaseException as problem:
            problems.append(problem)
            stopped = True

    def work(busy: AbstractContextManager[object]) -> None:
        with busy:
            work_on()

    # Threads of `threading` would be waited for until they have begun, and an interrupt can leave one that never
    # does. Of these only those are waited for that are busy; another will find nothing to do.
    # Within `no_fork()` nothing may wait for threads that enter it.
    others = [allocate_lock() for _ in range(0 if forks_wait() else workers - 1)]
    try:
        for busy in others:
            start_new_thread(work, (busy,))
        work(nullcontext())
    except BaseException as problem:
        problems.append(problem)
        stopped = True
    while others:
        try:
            with others[-1]:
                others.pop()
        except BaseException as problem:  # an interrupt
            problems.append(problem)
            stopped = True
    # A thread that begins only now holds nothing whose end would need the interpreter, which may be ending too.
    shared, function = iter(()), _nothing
    try:
        if problems:
            raise problems[0]
    finally:
        problems.clear()  # or they would keep this frame, and it them


def _nothing(item: object) -> None:
    pass


def processors() -> int:
    """Return the number of threads that work side by side: as many as OMP_NUM_THREADS says, else one a core."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
