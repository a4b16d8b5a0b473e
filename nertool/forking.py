"""Forks: a process is not forked while one of its threads is in the middle of something.

A forked process has one thread, the one that forked. What another thread was doing at that moment is never
finished in it: a lock stays locked, a module half imported, a library's table half written, and whoever needs it
waits forever. So whatever nertool does that others may wait for is done within `no_fork()`, and `os.fork`, which
`multiprocessing` uses too, waits until no other thread is within it: for a batch, or the loading of a model.
"""

from __future__ import annotations

# The hooks of these modules have to be registered before the ones below: Python calls the latest first, so that
# their locks are taken when no thread is within `no_fork()` any more.
import concurrent.futures.thread  # noqa: F401
import functools
import logging  # noqa: F401
import os
import threading
import time
from contextlib import AbstractContextManager, suppress
from typing import Any, Self, TypeVar, overload
from weakref import ref

Result = TypeVar("Result")

_LONGEST_WAIT = 60.0  # seconds; a child that may hang is better than a parent that does
_turnstile = threading.RLock()  # held by a thread that forks: whoever enters after it waits
_locks: list[ref[Any]] = []  # of all threads
_held: list[Any] = []  # those that were taken for the fork that goes on


class _OfThread(threading.local):
    """What each thread has of its own.

    Attributes:
        lock: Held while the thread must not be left out by a fork.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        with _turnstile:
            _locks[:] = [each for each in _locks if each() is not None]
            _locks.append(ref(self.lock))


_own = _OfThread()


def no_fork() -> AbstractContextManager[object]:
    """Return a context within which no other thread forks the process.

    A thread may enter it again while it is within it. Within it nothing may wait for another thread that enters
    it. The context is a lock and not an object of this module, so that an interrupt cannot come between taking it
    and the block.
    """
    if not forks_wait():
        with _turnstile:  # let a thread go first that waits to fork
            pass
    return _own.lock


def forks_wait() -> bool:
    """Return whether this thread is within `no_fork()`."""
    lock: Any = _own.lock
    owned: bool = lock._is_owned()
    return owned


def _before() -> None:
    """Wait until no other thread is within `no_fork()`, and let none enter."""
    _turnstile.acquire(timeout=_LONGEST_WAIT)
    own, deadline = _own.lock, time.monotonic() + _LONGEST_WAIT
    _held[:] = [lock for each in _locks if (lock := each()) is not None and lock is not own]
    for lock in _held:
        lock.acquire(timeout=max(0.0, deadline - time.monotonic()))


def _after_in_parent() -> None:
    for lock in [*_held, _turnstile]:
        with suppress(RuntimeError):  # the wait was too long, or it was interrupted
            lock.release()
    _held.clear()


def _after_in_child() -> None:
    """Forget the other threads."""
    global _turnstile
    _turnstile = threading.RLock()
    _held.clear()
    _locks[:] = [ref(_own.lock)]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


class cached_property(functools.cached_property[Result]):  # noqa: N801
    """The one of `functools` without the lock that it has before Python 3.12, and that a fork would leave locked.

    Threads that ask at the same time compute the same value.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Result: ...

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Self | Result:
        """Compute the value, and keep it as an attribute of the object, which is found first from then on."""
        if instance is None:
            return self
        assert self.attrname is not None
        value = self.func(instance)
        instance.__dict__[self.attrname] = value
        return value
