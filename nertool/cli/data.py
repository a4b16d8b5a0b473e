"""The commands that look at data and need no model: `nertool convert` and `nertool check`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nertool.cli.common import explains_errors

if TYPE_CHECKING:
    from nertool.config.schema import CorpusConfig

_FORMATS = click.Choice(["conll", "jsonl", "brat", "spacy", "parquet"])
_SCHEMES = click.Choice(["IOB1", "IOB2", "IOBES", "BILOU", "BMES"])
_SET = click.option(
    "--set",
    "overrides",
    metavar="A.B=C",
    multiple=True,
    help="How to read, such as corpus.columns='[token, pos, ner]' with corpus.label=ner.",
)


@click.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--from", "reader", type=_FORMATS, help="Format of IN.  [default: by its name]")
@click.option("--to", "writer", type=_FORMATS, help="Format of OUT.  [default: by its name]")
@click.option("--scheme", type=_SCHEMES, help="Label scheme of IN.  [default: found from its labels]")
@click.option("--to-scheme", type=_SCHEMES, default="IOB2", show_default=True, help="Label scheme of OUT.")
@click.option("--language", default="en", show_default=True, help="Whose rules make tokens of raw text.")
@click.option(
    "--blanks", is_flag=True, help="Raw text is tokenised: tokens end at blanks, sentences at line ends."
)
@click.option(
    "--snap", is_flag=True, help="Move the borders of entities that begin or end inside a token to whole tokens."
)
@_SET
@explains_errors
def convert(
    source: str,
    target: str,
    reader: str | None,
    writer: str | None,
    scheme: str | None,
    to_scheme: str,
    language: str,
    blanks: bool,
    snap: bool,
    overrides: tuple[str, ...],
) -> None:
    r"""Convert labelled text between CoNLL, JSON Lines, brat, spaCy's DocBin and parquet.

    \b
    nertool convert train.txt train.spacy
    nertool convert annotations/ train.jsonl --snap

    A folder is brat's, .jsonl, .spacy and .parquet say what they are, other files are in columns. Entities that
    do not fit are listed, each with its place; the rest is written, and the exit code is then 1.
    """
    from nertool.config.files import find
    from nertool.formats.convert import convert_file
    from nertool.formats.texts import Settings
    from nertool.text.schemes import Scheme
    from nertool.text.tokenization import Rules, at_blanks
    from nertool.views.console import counted

    corpus = _corpus(source, (*overrides, *([f"corpus.scheme={scheme}"] if scheme else [])))
    settings = Settings(corpus, at_blanks if blanks else Rules(language), snap)
    path = Path(source) if Path(source).is_dir() else find(source)
    done = convert_file(path, Path(target), settings, Scheme(to_scheme), reader, writer)
    for line in [*done.report.notes, *(f"widened: {line}" for line in done.report.widened)]:
        click.echo(line, err=True)
    for line in done.report.misfits:
        click.echo(f"{click.style('left out:', fg='red')} {line}", err=True)
    counts = [counted(number, noun) for number, noun in ((done.sentences, "sentence"), (done.tokens, "token"))]
    entities = f"{done.entities:,} {'entity' if done.entities == 1 else 'entities'}"
    click.echo(f"written: {target} ({', '.join([*counts, entities])})")
    if done.report.misfits:
        count = len(done.report.misfits)
        does, were = ("entity does", "was") if count == 1 else ("entities do", "were")
        click.echo(f"{count} {does} not fit and {were} left out", err=True)
        sys.exit(1)


@click.command()
@click.argument("data", nargs=-1, required=True)
@_SET
@explains_errors
def check(data: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    r"""Look a corpus over: counts, label errors, duplicates, entities that training never saw.

    \b
    nertool check conll03.yaml
    nertool check train.txt valid.txt test.txt

    DATA is a config, or files, of which the first is the training split. The exit code is 1 where a label is
    wrong or a file cannot be read.
    """
    from rich.console import Console

    from nertool.config.files import find_all
    from nertool.config.loading import find_config, load_config, locate_corpus
    from nertool.evaluation import corpus_checks as checking

    findings = checking.Findings()
    if len(data) == 1 and Path(data[0]).suffix in (".yaml", ".yml"):
        path = find_config(data[0])
        # Vectors are not looked at, and may be elsewhere.
        config = locate_corpus(load_config(path, (*overrides, "words.vectors=[]")), path)
        splits = checking.read_config(config.corpus, findings)
    else:
        names = {name: str(path) for name, path in find_all(data).items()}
        found = checking.read_files(list(names.values()), _corpus(data[0], overrides), findings)
        splits = {name: found[path] for name, path in names.items() if path in found}
    if splits:
        checking.check(splits, findings)
    checking.show(Console(), splits, findings)
    if findings.errors:
        sys.exit(1)


def _corpus(name: str, overrides: tuple[str, ...]) -> CorpusConfig:
    """How files are read, by the defaults of a config and what replaces them."""
    from nertool.config.loading import override_tree

    return override_tree({"corpus": {"train": name}}, overrides).corpus
