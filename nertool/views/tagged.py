"""Tagged text for people: brackets or colours, an HTML page, and a bar that moves while a file is being tagged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from rich.console import Console

from nertool.text.document import Document
from nertool.views.console import bar_with_text, coloured, duration, html_page, marked, new_console

_GZIP = b"\x1f\x8b"
_REFRESH = 0.2  # seconds between updates of the bar


def write_text(target: IO[str], documents: Iterable[Document], language: str) -> None:
    """Write the text of each document with its entities, in colours on a terminal and in brackets elsewhere."""
    if target.isatty():
        console = new_console(target)
        for document in documents:
            console.print(coloured(document), highlight=False, soft_wrap=True)
        return
    for document in documents:
        target.write(marked(document) + "\n")


def write_html(target: IO[str], documents: Iterable[Document], language: str) -> None:
    """Write a page that shows the entities in colours."""
    target.writelines(html_page(documents, language))


VIEWS: dict[str, Callable[[IO[str], Iterable[Document], str], None]] = {"text": write_text, "html": write_html}
"""Ways to show tagged text that no command reads again: each takes a stream, documents and a language code."""


class TaggingProgress:
    """A bar on standard error for a file that is being tagged; nothing where standard error is no terminal.

    Args:
        source: The file; None for standard input. Where its size says nothing, because it is compressed or is not
            read line by line, documents are counted.
        console: Where to draw; None: standard error.
    """

    def __init__(self, source: Path | None, console: Console | None = None) -> None:
        console = console or new_console(stderr=True)
        self._size = None if source is None else _plain_size(source)
        self._done = 0  # bytes that were read
        self._documents = self._tokens = 0
        self._began = self._shown = time.perf_counter()
        self._progress = bar_with_text(console)

    def lines(self, lines: Iterator[str]) -> Iterator[str]:
        """Pass lines on, and count their bytes."""
        if self._progress.disable or self._size is None:
            return lines
        return self._counted(lines)

    def documents(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Pass documents on, and draw the bar until they end."""
        if self._progress.disable:
            yield from documents
            return
        total = self._size if self._done else None
        with self._progress:
            task = self._progress.add_task("", total=total, text="")
            for document in documents:
                self._documents += 1
                self._tokens += len(document)
                now = time.perf_counter()
                if now - self._shown >= _REFRESH:
                    self._shown = now
                    total = self._size if self._done else None
                    self._progress.update(task, total=total, completed=self._done, text=self._text(now, total))
                yield document

    def _counted(self, lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            self._done += (len(line) if line.isascii() else len(line.encode())) + 1
            yield line

    def _text(self, now: float, total: int | None) -> str:
        seconds = now - self._began
        text = f"{self._documents:,} texts, {self._tokens / seconds:,.0f} tokens/s"
        if total is None:
            return text
        return f"{text}, left: {duration(seconds * max(total - self._done, 0) / self._done)}"


def _plain_size(path: Path) -> int | None:
    """Return the size of a file in bytes; None for what is compressed or is no regular file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return None if file.read(2) == _GZIP else path.stat().st_size
    except OSError:
        return None
