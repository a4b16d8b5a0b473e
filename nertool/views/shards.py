"""The progress of rows that are tagged shard by shard, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nertool.views.console import bar_with_text, duration

_LINE_EVERY = 60.0  # seconds, where there is no terminal


class ShardProgress:
    """A bar, or a line a minute where there is no terminal.

    Args:
        console: Where to draw.
        shards: Number of all shards.
        rows: Number of all rows.
        shards_done: Shards that were complete before.
        rows_done: Their rows.
    """

    def __init__(self, console: Console, shards: int, rows: int, shards_done: int, rows_done: int) -> None:
        self._console = console
        self._shards, self._rows = shards, rows
        self._ended, self._before, self._now = shards_done, rows_done, 0
        self._began = self._said = time.perf_counter()
        self._progress = bar_with_text(console)
        self._task = self._progress.add_task("", total=rows, completed=rows_done, text=self._text())

    def __enter__(self) -> ShardProgress:
        self._progress.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        self._progress.__exit__(None, None, None)

    def advance(self, rows: int, shards: int = 0) -> None:
        """Count rows, fewer than none where they have to be tagged again, and shards that are complete."""
        self._now += rows
        self._ended += shards
        if self._console.is_terminal:
            self._progress.update(self._task, completed=self._before + self._now, text=self._text())
        elif time.perf_counter() - self._said >= _LINE_EVERY:
            self._said = time.perf_counter()
            self._console.print(self._text(), highlight=False, soft_wrap=True)

    def _text(self) -> str:
        seconds = time.perf_counter() - self._began
        left = self._rows - self._before - self._now
        text = f"{self._ended:,}/{self._shards:,} shards, {self._now / max(seconds, 1e-9):,.0f} rows/s"
        return f"{text}, left: {duration(seconds / self._now * left) if self._now > 0 else '–'}"


def shards_table(title: str, columns: Mapping[str, Mapping[str, int | str]]) -> Table:
    """Make a table of what became of the rows.

    Args:
        title: Of the table.
        columns: Numbers by what they count, for each heading. A table with one column has no heading.
    """
    table = Table(title=escape(title), title_justify="left", show_header=len(columns) > 1)
    table.add_column("")
    for heading in columns:
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(name for counts in columns.values() for name in counts):
        values = (counts.get(name, "") for counts in columns.values())
        table.add_row(escape(name), *(value if isinstance(value, str) else f"{value:,}" for value in values))
    return table
