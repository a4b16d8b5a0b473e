"""The exceptions that a user of nertool can meet; nothing else leaves the package on bad input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class NertoolError(Exception):
    """Base of every error that nertool raises because of what it was given."""


class DivergenceError(NertoolError):
    """Training produced numbers that are not finite; the same settings would do so again."""


class ConfigError(NertoolError):
    """A config is wrong; all its problems are listed at once.

    Args:
        problems: One line for each problem: where it stands, what was found, what was expected.
        source: The config's path or name, where there is one.
    """

    def __init__(self, problems: str | Sequence[str], source: str | Path | None = None) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.source = source
        head = f"{source}: " if source is not None else ""
        if len(self.problems) == 1:
            super().__init__(head + self.problems[0])
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            super().__init__(f"{head}{len(self.problems)} problems{lines}")


class CorpusError(NertoolError):
    """A file of words, labels or vectors cannot be read.

    Args:
        message: What was found, what was expected, and what to do about it.
        path: The file.
        line: The line in it, counted from 1.
    """

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None) -> None:
        self.path = path
        self.line = line
        place = [*([] if path is None else [str(path)]), *([] if line is None else [f"line {line}"])]
        super().__init__(f"{', '.join(place)}: {message}" if place else message)


class BundleError(NertoolError):
    """A saved model cannot be loaded: a file is missing, damaged or not what it says it is."""
