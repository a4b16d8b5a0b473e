"""`nertool init`, and the options that name the files of a training without a config."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nertool.cli.common import examples
from nertool.cli.door import explains_errors, say
from nertool.errors import NertoolError

if TYPE_CHECKING:
    from nertool.config.schema import Config

_STANDARD_OUTPUT = "-"
_OPTIONS = {
    "validation": click.option(
        "--validation", metavar="FILE", help="Chooses the best epoch.  [default: a share is held out]"
    ),
    "test": click.option("--test", metavar="FILE", help="Scored once, at the end."),
    "vectors": click.option(
        "--vectors",
        metavar="FILE|NAME",
        multiple=True,
        help="Pretrained word vectors: a file, or a name of `nertool vectors`; may be repeated.",
    ),
    "language": click.option("--language", metavar="CODE", help="Language of the text.  [default: en]"),
    "set": click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Replace a setting."),
}


def data_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of training without a config that are named; without names all of them."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names or tuple(_OPTIONS)):
            command = _OPTIONS[name](command)
        return command

    return add


@click.command(epilog=examples("nertool init", "nertool init mine.jsonl --vectors glove-100"))
@click.argument("data", required=False)
@data_options()
@click.option("--output", metavar="FILE", help="The config to write; -: print it.  [default: DATA's name.yaml]")
@explains_errors
def init(
    data: str | None,
    validation: str | None,
    test: str | None,
    vectors: tuple[str, ...],
    language: str | None,
    overrides: tuple[str, ...],
    output: str | None,
) -> None:
    """Write a config for DATA, every setting with its meaning.

    The settings are those that `nertool train DATA` would choose. Without DATA, on a terminal, it asks.
    """
    if data is None:
        if not sys.stdin.isatty():
            raise click.UsageError("Name a data file: nertool init DATA")
        data = click.prompt("File or folder of labelled text", value_proc=_existing, err=True)
        validation = validation or _ask("File that chooses the best epoch (empty: hold out a share)", _existing)
        test = test or _ask("File that is scored once, at the end (empty: none)", _existing)
        if not vectors and (
            named := _ask("Pretrained word vectors, a file or a name such as glove-100 (empty: none)", _usable)
        ):
            vectors = (named,)
        language = language or click.prompt("Language of the text", default="en", value_proc=_known, err=True)
    from nertool.config.loading import dump_config
    from nertool.data.recipe import make_recipe, overrides_of

    assert data is not None
    recipe = make_recipe(data, [*overrides_of(validation, test, vectors, language), *overrides])
    target = Path(f"{recipe.name}.yaml" if output is None else output)
    for line in recipe.warnings:
        say(line, head=f"{click.style('note:', fg='yellow')} ")
    head = f"# {recipe.summary[0].upper()}{recipe.summary[1:]}."
    if output == _STANDARD_OUTPUT:
        click.echo(f"{head}\n\n{dump_config(recipe.config)}", nl=False)
        return
    from nertool.config.files import write_whole

    if target.exists():
        raise NertoolError(f"{target}: is there already; name another file with --output")
    content = f"{head}\n\n{dump_config(_beside(recipe.config, target))}"
    write_whole(target, content.encode("utf-8", "surrogateescape"))
    say(f"written: {target}; train with: nertool train {target}", err=False)


def _ask(question: str, check: Callable[[str], str] = str) -> str | None:
    """Ask for something that may be left out; None where it is."""
    checked = click.prompt(
        question, default="", show_default=False, value_proc=lambda given: given and check(given), err=True
    )
    return checked or None


def _existing(name: str) -> str:
    """Return the name of a file or folder that exists; click asks again where it does not."""
    from nertool.data.recipe import find_data

    try:
        find_data(name)
    except NertoolError as problem:
        raise click.BadParameter(str(problem)) from None
    return name


def _usable(vectors: str) -> str:
    """Return the name of vectors that are there; click asks again where there are none."""
    from nertool.config.files import find, split_member
    from nertool.config.vector_sets import locate

    known, problems = locate([vectors])
    try:
        if not known:
            find(split_member(vectors)[0], folder_too=True)
    except NertoolError as problem:
        problems = [str(problem)]
    if problems:
        raise click.BadParameter(problems[0])
    return vectors


def _known(language: str) -> str:
    """Return the code of a language that there is; click asks again where there is none."""
    from nertool.training.preparation import check_language

    try:
        check_language(language)
    except NertoolError as problem:
        raise click.BadParameter(str(problem)) from None
    return language


def _beside(config: Config, target: Path) -> Config:
    """Name files so that they are found from the folder of a config; those that are not in it absolutely."""
    from nertool.config.vector_sets import parse_name

    folder = target.resolve().parent

    def name(path: str | None) -> str | None:
        if path is None:
            return None
        full = Path(path).resolve()
        return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)

    def names(paths: Sequence[str]) -> tuple[str | None, ...]:
        return tuple(path if parse_name(path) else name(path) for path in paths)

    corpus = config.corpus
    files: dict[str, Any] = {key: name(getattr(corpus, key)) for key in ("train", "validation", "test", "weights")}
    start = config.start.model_copy(update={"model": name(config.start.model)})
    inputs = {
        key: entry.model_copy(update={each: names(getattr(entry, each)) for each in entry.file_settings})
        for key, entry in config.inputs.items()
    }
    return config.model_copy(update={"corpus": corpus.model_copy(update=files), "inputs": inputs, "start": start})
