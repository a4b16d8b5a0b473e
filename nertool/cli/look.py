"""`nertool look`: what goes on in a model while it labels a text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nertool.cli.common import DEVICE, MODEL, FormatName, examples, model_folder
from nertool.cli.door import explains_errors, say
from nertool.cli.sources import STANDARD_INPUT, find_source, open_source
from nertool.errors import NertoolError

if TYPE_CHECKING:
    from nertool.formats.registry import Report
    from nertool.tagging.tagger import Tagger
    from nertool.text.document import Document

_MOST_SENTENCES = 10  # whose tables a reader can be asked to look at


@click.command(
    epilog=examples(
        'nertool look "Ada lived in London."',
        'nertool look "Ada lived in London." --output inside.html',
        "nertool look test.conll --model runs/conll03 --output inside.html",
    )
)
@click.argument("text")
@MODEL
@DEVICE
@click.option(
    "--output", metavar="FILE", help="Write an HTML page instead of text: all label scores as heat maps."
)
@click.option(
    "--from",
    "reader",
    metavar="FORMAT",
    type=FormatName(),
    help="How to read a file: text (raw), tokens, conll, jsonl, spacy, ...  [default: detected, else text]",
)
@explains_errors
def look(text: str, model: str | None, device: str, output: str | None, reader: str | None) -> None:
    """Look inside a model while it labels TEXT.

    This shows gates, attention, label scores, transitions and the two best label sequences. TEXT is a text, the
    name of a file, or - for standard input; the first 10 sentences are shown.
    """
    folder = model_folder(model)
    if output is not None and Path(output).suffix.lower() not in (".html", ".htm"):
        raise NertoolError(f"{output}: the name of a page ends in .html")
    from nertool.formats.registry import Report
    from nertool.tagging.tagger import Tagger

    report = Report()
    with contextlib.ExitStack() as stack:
        documents = _documents(stack, text, reader, report)
        tagger = Tagger.load(folder, device=device)
        sentences = (sentence for document in documents(tagger) for sentence in document.sentences())
        chosen = list(islice((each for each in sentences if each.tokens), _MOST_SENTENCES + 1))
    if not chosen:
        raise NertoolError("there is no token in this text")
    found = [inside for sentence in chosen[:_MOST_SENTENCES] for inside in tagger.inside(sentence)]
    if output is None:
        from nertool.views.console import new_console
        from nertool.views.inside import show_inside

        show_inside(new_console(), found)
    else:
        from nertool.views.inside import write_page

        write_page(found, str(folder), Path(output))
        say(f"written: {output}", err=False)
    if len(chosen) > _MOST_SENTENCES:
        say(f"only the first {_MOST_SENTENCES} sentences are shown, and no more were read")
    for line in [*report.notes, *report.misfits]:
        say(line)


def _documents(
    stack: contextlib.ExitStack, text: str, reader: str | None, report: Report
) -> Callable[[Tagger], Iterable[Document]]:
    """Open what was named; returns what reads it, once the tagger is there."""
    from nertool.config.files import is_file

    path = None if text == STANDARD_INPUT else Path(text)
    if path is None or reader is not None or is_file(path):
        read = open_source(stack, find_source(path, reader), path)
        return lambda tagger: read(tagger, report)
    if _looks_like_a_file(text):
        raise NertoolError(
            f"there is no file {text}: check the path; if it is a text, give it on standard input, with - as TEXT"
        )
    from nertool.text.tokenization import SpacyTokenizer, tokenize

    return lambda tagger: [tokenize(text, SpacyTokenizer(tagger.model.config.language))]


def _looks_like_a_file(text: str) -> bool:
    """Say whether a text is one word that ends like a file that can be read."""
    from nertool.formats.registry import formats

    suffixes = {".txt", *(suffix for each in formats().values() for suffix in each.suffixes)}
    return len(text.split()) == 1 and Path(text).suffix.lower() in suffixes
