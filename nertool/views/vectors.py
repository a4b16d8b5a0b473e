"""Word vectors that have names: as a table, and the progress of fetching them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nertool.config.vector_sets import VectorSet, fetched, megabytes
from nertool.data.fetching import Fetched, Writing
from nertool.data.fetching import Progress as Download
from nertool.data.vector_cache import read_record

_SECONDS = 30  # between lines, where there is no terminal


def vectors_tree(sets: Iterable[VectorSet]) -> list[dict[str, Any]]:
    """Describe word vectors as plain values, for JSON."""
    return [
        {
            "name": each.name,
            "language": each.language,
            "dimensions": each.dimensions,
            "bytes": each.size,
            "sha256": each.sha256,
            "licence": each.licence,
            "source": each.source,
            "url": each.url,
            "cached": [
                {"name": str(named), "path": str(named.path), "rows": record.rows, "bytes": record.size}
                for named in fetched(each)
                if (record := read_record(named.path)) is not None
            ],
        }
        for each in sets
    ]


def show_vectors(console: Console, sets: Sequence[VectorSet], folder: object) -> None:
    """Print word vectors as a table."""
    table = Table()
    for name, justify in (
        ("name", "left"),
        ("language", "left"),
        ("dimensions", "right"),
        ("download", "right"),
        ("licence", "left"),
        ("cached", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for each, tree in zip(sets, vectors_tree(sets), strict=True):
        parts = [
            (f"first {part['rows']:,}" if ":" in part["name"] else "all", megabytes(part["bytes"]))
            for part in tree["cached"]
        ]
        cached = "\n".join(f"{rows} ({size})" for rows, size in parts)
        size = "–" if each.size is None else megabytes(each.size)
        table.add_row(each.name, each.language, str(each.dimensions), size, each.licence, cached or "no")
    console.print(table)
    console.print(
        f"`nertool vectors fetch NAME` puts vectors into {folder}; NAME is then a word of --vectors and "
        "inputs.words.vectors. –: the size is not published; for languages with many texts it is about 1.3 GB.",
        highlight=False,
        markup=False,
    )


class FetchWatcher:
    """Draw the progress of fetching vectors: a moving bar on a terminal, some lines elsewhere.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[done]}"),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._told = 0.0

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, problem, trace)

    def watch(self, event: Download | Writing) -> None:
        """Draw what goes on."""
        if isinstance(event, Writing):
            done = f"{event.rows:,} words"
            self._update(
                f"writing {event.named}", event.rows, event.total, done, f"writing {event.named} to the cache"
            )
            return
        size = "" if event.total is None else megabytes(event.total)
        done = f"{megabytes(event.done)}{size and f' of {size}'}"
        begin = f"fetching {event.url}{size and f', {size}'}"
        self._update(event.archive, event.done, event.total, done, begin)

    def _update(self, name: str, done: int, total: int | None, text: str, begin: str) -> None:
        new = name not in self._tasks
        if new:
            for task in self._tasks.values():
                self._progress.update(task, visible=False)
            self._say(begin)
            # What was there before tells nothing of the speed.
            self._tasks[name] = self._progress.add_task(escape(name), total=total, completed=done, done=text)
        self._progress.update(self._tasks[name], completed=done, total=total, done=text)
        now = time.monotonic()
        if self._progress.disable and now - self._told > _SECONDS:
            if not new:
                self._say(text)
            self._told = now

    def _say(self, text: str) -> None:
        self._console.print(escape(text), style="dim", highlight=False, soft_wrap=True)


def describe_fetched(result: Fetched) -> list[str]:
    """Say what was fetched, a line each."""
    record = result.record
    head = f"{result.named} is here already" if result.before else f"{result.named} is in the cache"
    lines = [
        f"{head}: {record.rows:,} words, {record.dimensions} dimensions, {megabytes(record.size)} "
        f"({result.path}); use it with --vectors {result.named}"
    ]
    if record.note:
        lines.append(record.note)
    if result.first:
        lines.append(
            f"no hash is published for {result.named.set.archive}: nobody can vouch for it. Later downloads have "
            f"to have the SHA-256 of this one, {record.archive_sha256}"
        )
    elif not result.published and not result.before:
        lines.append(f"{result.named.set.archive} is the same file as at its first download; no hash is published")
    return lines
