"""The commands for data that need no model: `nertool check`, `nertool convert` and `nertool formats`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nertool.cli.common import READ_OTHERWISE, TOKENIZER_LANGUAGE, FormatName, examples
from nertool.cli.door import explains_errors, say

if TYPE_CHECKING:
    from nertool.config.schema import CorpusConfig

_SCHEMES = ["IOB1", "IOB2", "IOBES", "BILOU", "BMES"]


@click.command(
    epilog=examples("nertool convert train.txt train.spacy", "nertool convert brat/ train.jsonl --snap")
)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--from", "reader", type=FormatName(), help="Format of IN.  [default: detected]")
@click.option("--to", "writer", type=FormatName(writes=True), help="Format of OUT.  [default: by its name]")
@click.option(
    "--scheme", type=click.Choice([*_SCHEMES, "IO", "plain"]), help="Label scheme of IN.  [default: detected]"
)
@click.option("--to-scheme", type=click.Choice(_SCHEMES), default="IOB2", show_default=True, help="That of OUT.")
@TOKENIZER_LANGUAGE
@click.option(
    "--tokenized",
    is_flag=True,
    help="Raw text is tokenized: whitespace separates tokens, and a line is a sentence.",
)
@click.option("--snap", is_flag=True, help="Widen entities that begin or end inside a token to whole tokens.")
@click.option("--allow-empty", is_flag=True, help="Write OUT although there is no entity in IN.")
@READ_OTHERWISE
@explains_errors
def convert(
    source: str,
    target: str,
    reader: str | None,
    writer: str | None,
    scheme: str | None,
    to_scheme: str,
    language: str,
    tokenized: bool,
    snap: bool,
    allow_empty: bool,
    overrides: tuple[str, ...],
) -> None:
    """Convert labelled text from one format to another.

    `nertool formats` lists the formats. Entities that do not fit are listed, each with its place; everything
    else is written, and the exit code is 1.
    """
    from nertool.config.files import find
    from nertool.data.corpus import read_options
    from nertool.formats.convert import convert_file
    from nertool.formats.registry import WriteOptions, find_format
    from nertool.text.schemes import Scheme
    from nertool.text.tokenization import SpacyTokenizer, split_whitespace
    from nertool.views.console import counted

    corpus = _corpus(source, (*overrides, *([f"corpus.scheme={scheme}"] if scheme else [])))
    reader = reader or corpus.format
    # Raw text has no labels, and is converted to have it tokenized.
    labelled = reader is None or bool(find_format(reader).holds & {"entities", "tags"})
    read = read_options(
        corpus,
        labelled=labelled,
        snap=snap,
        tokenizer=split_whitespace if tokenized else SpacyTokenizer(language),
    )
    path = Path(source) if Path(source).is_dir() else find(source)
    write = WriteOptions(Scheme(to_scheme), language)
    done = convert_file(
        path,
        Path(target),
        read,
        write,
        reader=reader,
        writer=writer,
        stray=corpus.stray,
        allow_empty=allow_empty or corpus.allow_empty,
    )
    for line in [*done.report.notes, *(f"widened: {line}" for line in done.report.widened)]:
        say(line)
    for line in done.report.misfits:
        say(line, head=f"{click.style('left out:', fg='red')} ")
    counts = ((done.sentences, "sentence"), (done.tokens, "token"), (done.entities, "entity"))
    say(f"written: {target} ({', '.join(counted(count, noun) for count, noun in counts)})", err=False)
    if done.report.misfits:
        count = len(done.report.misfits)
        do, were = ("does", "was") if count == 1 else ("do", "were")
        say(f"{counted(count, 'entity')} {do} not fit and {were} left out")
        sys.exit(1)


@click.command(epilog=examples("nertool check conll03.yaml", "nertool check train.txt valid.txt test.txt"))
@click.argument("data", nargs=-1, required=True)
@click.option("--from", "form", type=FormatName(), help="Format of the files.  [default: detected]")
@TOKENIZER_LANGUAGE
@READ_OTHERWISE
@explains_errors
def check(data: tuple[str, ...], form: str | None, language: str, overrides: tuple[str, ...]) -> None:
    """Check a corpus for label errors, duplicates and more.

    Prints counts, wrong labels, sentences that occur twice and entities that training never saw. DATA is a
    config, or files, of which the first is the training split. The exit code is 1 if a label is wrong or a file
    cannot be read.
    """
    from nertool.config.files import find_all
    from nertool.config.loading import find_config, load_config, locate_files
    from nertool.evaluation.corpus_checks import Findings, read_config, read_files
    from nertool.evaluation.corpus_checks import check as check_splits
    from nertool.text.tokenization import SpacyTokenizer
    from nertool.views.console import new_console
    from nertool.views.corpus import show_check

    findings = Findings()
    overrides = (*overrides, *([f"corpus.format={form}"] if form else []))
    if len(data) == 1 and Path(data[0]).suffix in (".yaml", ".yml"):
        path = find_config(data[0])
        config = load_config(path, overrides)
        # Files of vectors and phrases are not read here, and may be missing.
        config = locate_files(config.model_copy(update={"inputs": {}}), path)
        splits = read_config(config.corpus, findings, tokenizer=SpacyTokenizer(config.language))
    else:
        folders = {name: Path(name) for name in data if Path(name).is_dir()}
        paths = {**find_all([name for name in data if name not in folders]), **folders}
        names = {name: paths[name] for name in data}
        splits = read_files(names, _corpus(data[0], overrides), findings, tokenizer=SpacyTokenizer(language))
    if splits:
        check_splits(splits, findings)
    show_check(new_console(), splits, findings)
    if findings.errors:
        sys.exit(1)


@click.command("formats")
@explains_errors
def list_formats() -> None:
    """List the formats that files of text and labels may have."""
    from nertool.formats.registry import formats
    from nertool.views.console import new_console
    from nertool.views.corpus import show_formats

    show_formats(new_console(), formats())


def _corpus(name: str, overrides: tuple[str, ...]) -> CorpusConfig:
    """Return how files are read: by the defaults of a config, and what replaces them."""
    from nertool.config.loading import override_tree

    return override_tree({"corpus": {"train": name}}, overrides).corpus
