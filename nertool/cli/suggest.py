"""`nertool suggest`: which texts of a pool to label next, for any annotation tool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nertool.cli.common import DEVICE, MEASURES, MODEL, FormatName, examples, model_folder
from nertool.cli.door import explains_errors, say
from nertool.cli.sources import STANDARD_INPUT, find_source, open_source
from nertool.errors import CorpusError

if TYPE_CHECKING:
    from nertool.formats.registry import Format, Report
    from nertool.tagging.ranking import By
    from nertool.tagging.tagger import Tagger
    from nertool.text.document import Document

_RANDOM_SHARE = 0.1


@click.command(
    epilog=examples(
        "nertool suggest reports.txt --model runs/demo --to labelstudio --output tasks.json",
        "nertool suggest pool.jsonl --by errors --top 50 --to prodigy --labelled done.jsonl --output tasks.jsonl",
    )
)
@click.argument("pool")
@MODEL
@DEVICE
@click.option("--output", metavar="FILE", required=True, help="Where to write the tasks.")
@click.option(
    "--to",
    "writer",
    metavar="FORMAT",
    type=FormatName(writes=True),
    help="Format of the tasks: labelstudio, prodigy, doccano, jsonl, ...  [default: by the name of FILE]",
)
@click.option(
    "--from",
    "reader",
    metavar="FORMAT",
    type=FormatName(),
    help="Format of POOL, such as text (raw), tokens, conll or jsonl.  [default: detected, else text]",
)
@click.option(
    "--top",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    default=100,
    show_default=True,
    help="Texts to choose, at most.",
)
@click.option(
    "--by",
    type=click.Choice(MEASURES),
    default="mnlp",
    show_default=True,
    help="mnlp: least probable labels for each token; errors: most wrong entities expected; random.",
)
@click.option(
    "--random-share",
    type=click.FloatRange(0, 1),
    metavar="P",
    default=_RANDOM_SHARE,
    show_default=True,
    help="Share of the chosen texts that is drawn at random from all of POOL, as a fair test set.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="N",
    default=1,
    show_default=True,
    help="Seed of the random choice.",
)
@click.option(
    "--units",
    type=click.Choice(["sentences", "documents"]),
    default="sentences",
    show_default=True,
    help="What a task is: a sentence, or a whole text of POOL.",
)
@click.option(
    "--labelled",
    metavar="FILE",
    multiple=True,
    help="Leave out what is labelled in FILE, in any format; may be repeated.",
)
@explains_errors
def suggest(
    pool: str,
    model: str | None,
    device: str,
    output: str,
    writer: str | None,
    reader: str | None,
    top: int,
    by: By,
    random_share: float,
    seed: int,
    units: str,
    labelled: tuple[str, ...],
) -> None:
    """Choose the texts of POOL that are worth labelling most.

    POOL is a file, or - for standard input. The command chooses the texts that the model is least certain of,
    each different from those before it, and some drawn at random. They are written in this order with the entities
    that the model proposes, for an annotation tool.
    """
    folder = model_folder(model)
    from nertool.formats.registry import Report, WriteOptions, find_format, format_for_writing
    from nertool.tagging import suggestions
    from nertool.tagging.tagger import Tagger
    from nertool.views.console import new_console, waiting
    from nertool.views.suggestions import RankingProgress, show_suggestions

    target = format_for_writing(Path(output)) if writer is None else find_format(writer)
    if not target.holds & {"entities", "tags"}:
        raise CorpusError(f"{target.name} cannot hold what the model proposes; name another format with --to")
    path = None if pool == STANDARD_INPUT else Path(pool)
    source = find_source(path, reader)
    reports = [Report()]
    stderr = new_console(stderr=True)
    with contextlib.ExitStack() as stack, waiting(stderr, "reading the texts"):
        read = open_source(stack, source, path)
        tagger = Tagger.load(folder, device=device)
        documents = list(_units(read(tagger, reports[0]), units))
        count = sum(map(bool, documents))
        left_out: dict[str, int] = {}
        for name in labelled:
            before = len(documents)
            own = _labelled(Path(name), tagger, reports)
            documents = suggestions.unlabelled(documents, own, name)
            left_out[name] = before - len(documents)
    if not count:
        raise CorpusError("there is no text in it", pool)
    for name, number in left_out.items():
        say(f"{name}: {number:,} of {count:,} {units} are labelled there, and were left out")
    with RankingProgress(stderr, len(documents)) as progress:
        chosen = suggestions.suggest(
            tagger, documents, by=by, top=top, random_share=random_share, seed=seed, note=progress.note
        )
    if not chosen:
        raise CorpusError(f"all of its {count:,} {units} are labelled already", pool)
    tasks = (_fitting(each.document, target) for each in chosen)
    target.write(Path(output), tasks, WriteOptions(language=tagger.model.config.language), reports[0])
    show_suggestions(new_console(), chosen, sum(map(bool, documents)), units)
    for line in dict.fromkeys(line for report in reports for line in [*report.notes, *report.misfits]):
        say(line)
    say(f"written: {output} ({target.name})", err=False)


def _units(documents: Iterator[Document], units: str) -> Iterator[Document]:
    from nertool.tagging.suggestions import sentences

    if units == "sentences":
        return sentences(documents)
    # A document may come in parts; each of the texts is to stay one, and no two are to become one.
    from nertool.formats.streams import grouped, joined

    return (replace(joined(group), id=None) for group in grouped(documents, loose_together=False))


def _labelled(path: Path, tagger: Tagger, reports: list[Report]) -> Iterator[Document]:
    """Read a labelled file."""
    from nertool.data.corpus import read_options
    from nertool.formats.registry import Report, detect_format
    from nertool.text.tokenization import SpacyTokenizer

    if not path.exists():
        raise CorpusError("there is no such file", path)
    config = tagger.model.config
    reports.append(Report())
    return detect_format(path).read(
        path, read_options(config.corpus, tokenizer=SpacyTokenizer(config.language)), reports[-1]
    )


def _fitting(document: Document, target: Format) -> Document:
    """Leave out what a task does not need and the format cannot hold."""
    unneeded: dict[str, Any] = {"scores": None, "meta": None, "columns": {}}
    return replace(document, **{name: value for name, value in unneeded.items() if name not in target.holds})
