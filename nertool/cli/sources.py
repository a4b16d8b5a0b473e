"""How commands find and open texts that may be in any format, or raw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nertool.cli.door import say
from nertool.errors import CorpusError

if TYPE_CHECKING:
    from nertool.formats.registry import Format, Report
    from nertool.tagging.tagger import Tagger
    from nertool.text.document import Document

STANDARD_INPUT = "-"


def find_source(path: Path | None, name: str | None) -> Format:
    """Find the format to read: as named, else by content and suffix of the file; else raw text.

    Args:
        path: The file or folder; None: standard input.
        name: Of the format; None: detect it.
    """
    from nertool.formats.registry import RAW, detect_texts, find_format

    if name is not None or path is None:
        return find_format(name or "text")
    found = detect_texts(path)
    suffix = (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()
    if suffix in RAW and found.name != "text" and not path.is_dir():
        say(f"{path}: read as {found.name}, as its content shows; --from text takes it for raw text")
    return found


def open_source(
    stack: contextlib.ExitStack,
    source: Format,
    path: Path | None,
    watch: Callable[[Iterator[str]], Iterator[str]] | None = None,
) -> Callable[[Tagger, Report], Iterator[Document]]:
    """Open the input; returns what reads it, once the tagger is there.

    Args:
        stack: Closes it.
        source: Its format.
        path: The file or folder; None: standard input.
        watch: Passes on the lines of a format that is read line by line.
    """
    from nertool.data.corpus import read_options
    from nertool.formats.opening import open_lines
    from nertool.formats.registry import ReadOptions
    from nertool.text.tokenization import SpacyTokenizer

    def options(tagger: Tagger) -> ReadOptions:
        config = tagger.model.config
        return read_options(config.corpus, labelled=False, tokenizer=SpacyTokenizer(config.language))

    if not source.streams:
        if path is None:
            raise CorpusError(f"{source.name} cannot be read from standard input; name a file")
        if not path.exists():
            raise CorpusError(f"there is no such file; expected {source.description}: check the path", path)
        return lambda tagger, report: source.read(path, options(tagger), report)
    lines = stack.enter_context(open_lines(path, "a text" if source.name == "text" else source.description))
    name = "standard input" if path is None else str(path)
    return lambda tagger, report: source.read_lines(
        lines if watch is None else watch(lines), name, options(tagger), report
    )
