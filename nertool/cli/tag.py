"""`nertool tag`: any readable format in, any writable format or a view for people out."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from nertool.cli.common import DEVICE, MODEL, FormatName, examples, model_folder
from nertool.cli.door import explains_errors, say
from nertool.cli.sources import STANDARD_INPUT, find_source, open_source
from nertool.errors import CorpusError, NertoolError

if TYPE_CHECKING:
    from nertool.formats.registry import Report
    from nertool.tagging.tagger import Tagger
    from nertool.text.document import Document

_VIEWS = ("text", "html")  # the keys of `nertool.views.tagged.VIEWS`, which is not loaded for --help


@click.command(
    epilog=examples(
        "nertool tag report.txt",
        'echo "Ada lives in London." | nertool tag - --to jsonl',
        "nertool tag test.conll --to conll --output tagged.conll",
        "nertool tag news/*.parquet --column text --output tagged/ --workers 8",
    )
)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@MODEL
@DEVICE
@click.option(
    "--output", metavar="FILE", help="Where to write; with --column a folder.  [default: standard output]"
)
@click.option(
    "--column",
    metavar="NAME",
    help="Tag this column of parquet or JSON Lines files, texts or lists of tokens, and keep the others.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Processes that tag a column.  [default: one for each core]",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1, 1_000_000_000),
    metavar="N",
    help="Rows of each file that is written, with --column.  [default: 50000]",
)
@click.option(
    "--to",
    "--format",
    "writer",
    metavar="FORMAT",
    type=FormatName(writes=True, also=_VIEWS),
    default=None,
    help="How to write: text (entities in colours or brackets), html, conll, jsonl, spacy, ...  [default: text]",
)
@click.option(
    "--from",
    "--input-format",
    "reader",
    metavar="FORMAT",
    type=FormatName(),
    help="How to read: text (raw), tokens (a sentence a line, tokens separated by whitespace), conll, jsonl, "
    "spacy, ...  [default: detected, else text]",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    metavar="P",
    default=0.0,
    help="Leave out entities that are less probable.",
)
@click.option(
    "--n-best",
    type=click.IntRange(0, 1000),
    metavar="N",
    default=0,
    help="Add the N most probable label sequences of each sentence (jsonl).",
)
@click.option("--marginals", is_flag=True, help="Add the probabilities of each token's labels (jsonl).")
@explains_errors
def tag(
    inputs: tuple[str, ...],
    model: str | None,
    device: str,
    output: str | None,
    column: str | None,
    workers: int | None,
    shard_rows: int | None,
    writer: str | None,
    reader: str | None,
    min_score: float,
    n_best: int,
    marginals: bool,
) -> None:
    """Find the entities in INPUT, a file, or - for standard input.

    Formats are those of `nertool formats`. From conll to conll, all columns are kept and the predicted labels
    become the last one.

    With --column, INPUT is any number of parquet and JSON Lines files, or folders of them. Their rows are written
    in shards to the folder --output, with new columns. A shard is there as a whole or not at all, and the same
    command goes on where it was stopped. Rows that cannot be tagged are written aside, with the reason.
    """
    folder = model_folder(model)
    if column is not None:
        refused = {"--to": writer, "--from": reader, "--n-best": n_best, "--marginals": marginals}
        for option, value in refused.items():
            if value:
                raise NertoolError(f"{option} has no effect with --column: shards have the format of their files")
        if output is None:
            raise NertoolError("--column writes several files: name a folder with --output")
        from nertool.cli.shards import tag_shards

        tag_shards(
            inputs,
            folder,
            Path(output),
            column=column,
            workers=workers,
            rows=shard_rows,
            min_score=min_score,
            device=device,
        )
        return
    for option, value in {"--workers": workers, "--shard-rows": shard_rows}.items():
        if value:
            raise NertoolError(f"{option} is for columns of parquet and JSON Lines files: add --column NAME")
    if len(inputs) > 1:
        raise NertoolError(f"expected one file and got {len(inputs)}; several are tagged with --column alone")
    (input,) = inputs
    writer = writer or "text"
    if (n_best or marginals) and writer != "jsonl":
        option = "--n-best" if n_best else "--marginals"
        raise NertoolError(f"{option} needs JSON Lines: add --to jsonl")
    from nertool.formats.registry import Report
    from nertool.tagging.tagger import Tagger
    from nertool.views.tagged import TaggingProgress

    path = None if input == STANDARD_INPUT else Path(input)
    source = find_source(path, reader)
    write = _writer(writer, output)
    progress = TaggingProgress(path)
    shown = progress if output is not None else None
    report = Report()
    with contextlib.ExitStack() as stack:
        # The input is opened first: a missing file should not cost the time that a model takes to load.
        read = open_source(stack, source, path, None if shown is None else shown.lines)
        tagger = Tagger.load(folder, device=device, min_score=min_score, n_best=n_best, marginals=marginals)
        documents = _noting(tagger.tag_documents(read(tagger, report)), input)
        write(tagger, documents if shown is None else shown.documents(documents), report)
    for line in [*report.notes, *report.misfits]:
        say(line)


def _writer(name: str, output: str | None) -> Callable[[Tagger, Iterable[Document], Report], None]:
    """Return what writes documents, to the file or to standard output."""
    from nertool.formats.registry import Format, WriteOptions, find_format
    from nertool.formats.streams import watched
    from nertool.views.tagged import VIEWS

    if name in VIEWS:

        def view(tagger: Tagger, documents: Iterable[Document], report: Report) -> None:
            with _text_output(output) as stream:
                VIEWS[name](stream, documents, tagger.model.config.language)

        return view
    target = find_format(name)
    is_text = type(target).write_stream is not Format.write_stream
    if output is None and not is_text:
        raise CorpusError(f"{target.name} is not text: name a file for it with --output")

    def write(tagger: Tagger, documents: Iterable[Document], report: Report) -> None:
        options = WriteOptions(language=tagger.model.config.language)
        if "scores" not in target.holds:  # nobody who asks for such a format needs to be told
            documents = (replace(document, scores=None) for document in documents)
        if not is_text:
            target.write(Path(output or ""), documents, options, report)
            return
        with _text_output(output) as stream:
            name = Path(output or "standard output")
            target.write_stream(stream, watched(documents, target, name, report), options)

    return write


@contextlib.contextmanager
def _text_output(name: str | None) -> Iterator[IO[str]]:
    """Open a file that appears when it is whole, or standard output.

    Where standard output is no terminal, it is UTF-8 like the input, whatever the locale.
    """
    from nertool.config.files import replaced_when_done

    try:
        if name is not None:
            with (
                replaced_when_done(Path(name)) as raw,
                io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream,
            ):
                yield stream
            return
        if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
            sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        yield sys.stdout
    except UnicodeEncodeError as problem:  # half a character, which JSON can spell and UTF-8 cannot
        raise CorpusError(f"cannot be written: {problem.reason}", name or "standard output") from None


def _noting(documents: Iterable[Document], source: str) -> Iterator[Document]:
    """Pass documents on, and say in the end if there was no text, or if sentences were too long."""
    from nertool.tagging import windows

    cut, empty = 0, True
    for document in documents:
        cut += document.cut_sentences
        empty = empty and not document
        yield document
    if empty:
        say(f"there is no text in {'standard input' if source == STANDARD_INPUT else source}")
    if cut:
        say(windows.note(cut))
