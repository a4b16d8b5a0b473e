"""How commands end: every error that a user can do something about becomes one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn

import click

from nertool.errors import NertoolError

_WRITING = {errno.EBADF, errno.EFBIG, errno.ENOSPC}  # errors of writing; those of nertool's files are caught there
# Torch has no error class of its own for this.
_NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")


def say(message: object, *, head: str = "", err: bool = True) -> None:
    """Print a message of several lines, on standard error; what controls a terminal is shown as escapes.

    Args:
        message: It may hold the names of files, and text of theirs.
        head: Printed before it as it is.
        err: Whether it goes to standard error, else to standard output.
    """
    try:
        click.echo(head + _visible(str(message)), err=err)
    except OSError:
        if not err:
            raise
        # Nobody can be told. Python must not try again when it ends, which would change the exit code.
        with contextlib.suppress(OSError):
            sys.stderr.close()
        sys.stderr = None


def fail(message: object) -> NoReturn:
    """End with an error message."""
    say(message, head=f"{click.style('error:', fg='red', bold=True)} ")
    sys.exit(1)


def explains_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a user's mistake, or a limit of the machine, into one clear message and exit code 1."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
            _flush()
        except (NertoolError, MemoryError, ModuleNotFoundError, OSError, RuntimeError) as problem:
            message = _explain(problem)
            if message is None:
                raise
            fail(message)

    return wrapped


class Door(click.Group):
    """Commands that also end well where standard output is closed or cannot be written to."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order in which they were added, not in that of the alphabet."""
        return list(self.commands)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command and end the process."""
        _fill_closed_streams()
        try:
            try:
                with _ending_on_signals():
                    return super().main(*args, **options)
            finally:
                _flush()  # not when Python ends, which would be too late for a message
        except BrokenPipeError:  # the reader has seen enough
            _abandon_output()
            sys.exit(1)
        except OSError as problem:
            fail(_explain(problem))

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the options of the group."""
        with _visible_usage():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Read the options of a command, and run it."""
        with _visible_usage():
            return super().invoke(ctx)


_OF_EXTRA = re.compile(r"(?P<package>[\w.-]+).*; .*extra == ['\"](?P<extra>[^'\"]+)")
_PACKAGES = {"torchcrf": "pytorch-crf", "yaml": "pyyaml", "sklearn": "scikit-learn"}


def _source_of(package: str) -> str:
    """Return what installs a package: the extra of nertool that has it, else its own name."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires("nertool") or []
    except PackageNotFoundError:  # it runs from a folder
        lines = []
    for line in lines:
        found = _OF_EXTRA.match(line)
        if found and found["package"].replace("-", "_") == package and found["extra"] != "dev":
            return f"'nertool[{found['extra']}]'"
    return package


def _explain(problem: Exception) -> str | None:
    """Describe an error that a person can do something about; None for any other."""
    if isinstance(problem, NertoolError):
        return str(problem)
    if isinstance(problem, BrokenPipeError):
        return None
    if isinstance(problem, OSError):
        return _explain_output(problem) or str(problem)
    if isinstance(problem, ModuleNotFoundError):  # an environment without all that nertool depends on
        package = (problem.name or "").partition(".")[0]
        if package in ("", "nertool"):
            return None
        package = _PACKAGES.get(package, package)
        return f"this needs the package {package}, which is not installed; try: pip install {_source_of(package)}"
    text = str(problem)
    if isinstance(problem, MemoryError) or any(part in text for part in _NO_MEMORY):
        detail = f" ({text.splitlines()[0][:200]})" if text else ""
        return f"there is not enough memory{detail}; use a smaller input, smaller sizes or a smaller batch"
    return None


def _explain_output(problem: OSError) -> str | None:
    """Say why standard output cannot be written to, if it cannot; what waits to be written is then given up."""
    try:
        _flush()
    except OSError as another:
        problem = another
    else:  # without a buffer nothing is left to be written
        if problem.filename is not None or problem.errno not in _WRITING:
            return None
    _abandon_output()
    reason = "it is closed" if problem.errno == errno.EBADF else problem.strerror or problem
    return f"standard output cannot be written to: {reason}"


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _abandon_output() -> None:
    """Close standard output, so that Python does not try again when it ends."""
    with contextlib.suppress(OSError):
        sys.stdout.close()


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end what goes on as an exception would, so that it cleans up; exit code 128 + number.

    A signal that is ignored, as SIGHUP under `nohup`, or handled otherwise already stays so.
    """
    ending = _Ending(sys.unraisablehook)
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has one of them
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, ending.end)
    sys.unraisablehook = ending.note_lost
    try:
        yield
    finally:
        sys.unraisablehook = ending.hook
        for number, handler in before.items():
            signal.signal(number, handler)


class _Ended(SystemExit):
    """A signal ended the process."""


class _Ending:
    """Raises an exception when a signal comes.

    Args:
        hook: What Python calls with exceptions that cannot be raised where they occur.
    """

    def __init__(self, hook: Callable[[Any], object]) -> None:
        self.hook = hook
        self._deaf_until = 0.0

    def end(self, number: int, frame: object) -> None:
        """Handle a signal."""
        if time.monotonic() >= self._deaf_until:  # often several come together, and one is enough to clean up
            self._deaf_until = time.monotonic() + 1
            raise _Ended(128 + number)

    def note_lost(self, unraisable: Any) -> None:
        """Send the signal again where Python dropped the exception, as it does in finalizers."""
        if not isinstance(unraisable.exc_value, _Ended):
            self.hook(unraisable)
            return
        self._deaf_until = 0.0
        threading.Timer(0.01, os.kill, (os.getpid(), int(str(unraisable.exc_value.code)) - 128)).start()


def _fill_closed_streams() -> None:
    """Open substitutes for standard streams that are closed.

    A file that is opened later would get their numbers, and what is printed would end up in it.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free, for the wrong direction
            if number == 1 and sys.stdout is None:
                sys.stdout = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8")


@contextlib.contextmanager
def _visible_usage() -> Iterator[None]:
    try:
        yield
    except click.UsageError as problem:
        # Most kinds make their message of further attributes.
        if _visible(problem.format_message()) == problem.format_message():
            raise
        raise click.UsageError(_visible(problem.format_message()), problem.ctx) from None


def _visible(text: str) -> str:
    from nertool.views.visible import visible

    return visible(text, keep="\n")
