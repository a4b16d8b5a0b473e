"""What to label next, for people: a bar while texts are ranked, and a table of what was chosen and why."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from nertool.tagging.suggestions import Suggestion
from nertool.views.console import coloured, duration, marked

_SHOWN = 20
_OTHERS = 42  # width of the other columns
_REASONS = {"mnlp": "least probable labels", "errors": "most wrong entities expected", "random": "at random"}


class RankingProgress:
    """A bar on a terminal while texts are ranked.

    Args:
        console: Where to draw.
        total: How many texts there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("ranking"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,}/{task.total:,} texts, {task.fields[left]} left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total, left="–")
        self._began = time.perf_counter()
        self._done, self._total = 0, total

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def note(self, count: int) -> None:
        """Note that so many more texts are done."""
        self._done += count
        seconds = (time.perf_counter() - self._began) / self._done * (self._total - self._done)
        self._progress.update(self._task, advance=count, left=duration(seconds))


def show_suggestions(console: Console, chosen: Sequence[Suggestion], total: int, units: str) -> None:
    """Print what was chosen, and why.

    Args:
        console: Where to print.
        chosen: At least one.
        total: How many texts there were to choose from.
        units: What these are, in the plural.
    """
    reasons = Counter(each.ranked.reason for each in chosen)
    scored, errors = set(reasons) != {"random"}, "errors" in reasons
    table = Table(title=f"{len(chosen):,} of {total:,} {units}", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("why")
    if scored:
        table.add_column("wrong\nexpected" if errors else "probability\nper token", justify="right")
    table.add_column("text, with what the model proposes")
    width = max(20, console.width - _OTHERS)
    for number, each in enumerate(chosen[:_SHOWN], 1):
        score = f"{each.ranked.score:.2f}" if errors else f"{math.exp(-each.ranked.score):.3f}"
        text = coloured(each.document) if console.is_terminal else Text(marked(each.document))
        line = Text(" ").join(text.split("\n"))
        line.truncate(width, overflow="ellipsis")
        table.add_row(f"{number}", each.ranked.reason, *([score] if scored else []), line)
    if len(chosen) > _SHOWN:
        table.add_row("", f"and {len(chosen) - _SHOWN:,} more", *([""] if scored else []), "")
    console.print(table)
    said = ", ".join(f"{count:,} {_REASONS[reason]}" for reason, count in reasons.items())
    console.print(said, highlight=False)
