"""The command `nertool score`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nertool.cli.common import READ_OTHERWISE, TOKENIZER_LANGUAGE, FormatName, examples
from nertool.cli.door import explains_errors, say


@click.command(
    epilog=examples(
        "nertool score test.txt mine.txt",
        "nertool score test.jsonl mine.jsonl theirs.conll --units documents",
        "nertool score both.txt --columns token,_,gold,mine,theirs",
    )
)
@click.argument("gold")
@click.argument("predictions", metavar="[PRED]...", nargs=-1)
@click.option(
    "--mode",
    type=click.Choice(["strict", "lenient", "boundaries", "overlap"]),
    default="strict",
    show_default=True,
    help="What counts as right. strict: labels must follow their scheme, as in seqeval's strict mode; lenient: "
    "they are repaired, as conlleval does; boundaries: of any type; overlap: a token in common.",
)
@click.option(
    "--columns",
    metavar="A,B,...",
    help="GOLD alone, with predictions in it: all its columns, which are token, gold, _ (not read) or a system's "
    "name.  [default: the last column is predicted, the one before it gold]",
)
@click.option(
    "--units",
    type=click.Choice(["sentences", "documents"]),
    default="sentences",
    show_default=True,
    help="What is swapped between two systems to test whether they differ.",
)
@click.option("--from", "form", type=FormatName(), help="Format of all files.  [default: each one's detected]")
@click.option(
    "--scheme",
    type=click.Choice(["IOB1", "IOB2", "IOBES", "BILOU", "BMES", "IO", "plain"]),
    help="Label scheme of all files.  [default: each one's detected]",
)
@TOKENIZER_LANGUAGE
@READ_OTHERWISE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "latex"]),
    default="table",
    show_default=True,
    help="latex: a table for booktabs.",
)
@explains_errors
def score(
    gold: str,
    predictions: tuple[str, ...],
    mode: str,
    columns: str | None,
    units: str,
    form: str | None,
    scheme: str | None,
    language: str,
    overrides: tuple[str, ...],
    as_json: bool,
    output: str,
) -> None:
    """Score the output of any system against gold labels.

    The labels in PRED are compared with those in GOLD. Files may be in any format and their labels in any scheme;
    tokens and sentences have to be the same, or else the texts. Several PRED are compared with one another, with a
    test of each pair. GOLD alone has predictions in a column of its own.
    """
    if as_json and output == "latex":
        raise click.UsageError("--json and --format latex: choose one of them.")
    if columns is not None and predictions:
        raise click.UsageError(
            "--columns describes a single file that has all labels: leave PRED or --columns out."
        )
    if columns is not None and form not in (None, "conll"):
        raise click.UsageError(f"--columns describes a file in the format conll, not {form}.")
    from nertool.comparison.systems import score_systems
    from nertool.config.files import find_all
    from nertool.config.loading import override_tree
    from nertool.evaluation.modes import Mode
    from nertool.evaluation.outputs import align, read_columns, read_outputs
    from nertool.text.tokenization import SpacyTokenizer

    files = (gold, *predictions)
    paths = find_all(files, folders_too=files)
    more = [*([f"corpus.format={form}"] if form else []), *([f"corpus.scheme={scheme}"] if scheme else [])]
    config = override_tree({"corpus": {"train": gold}}, [*overrides, *more]).corpus
    tokenizer = SpacyTokenizer(language)
    if predictions:
        right, outputs = read_outputs(paths[gold], [paths[name] for name in predictions], config, tokenizer)
        systems = dict(zip(_names(predictions), outputs, strict=True))
    else:
        names = None if columns is None else [name.strip() for name in columns.split(",")]
        right, systems = read_columns(paths[gold], names, config)
    aligned = align(right, systems)
    result = score_systems(
        aligned, list(systems), Mode(mode), "documents" if units == "documents" else "sentences"
    )
    if as_json:
        tree = {"gold": str(paths[gold]), "scheme": right.scheme.value, **result.to_json()}
        click.echo(json.dumps(tree))
        return
    from nertool.views.systems import latex_table, show_scoring

    if output == "latex":
        click.echo(latex_table(result, str(paths[gold])), nl=False)
    else:
        from nertool.views.console import new_console

        schemes = {name: split.scheme.value for name, split in systems.items()}
        show_scoring(new_console(), result, str(paths[gold]), right.scheme.value, schemes)
    for note in result.notes:
        say(note, head=f"{click.style('note:', fg='yellow')} ")


def _names(files: tuple[str, ...]) -> list[str]:
    """Name systems after their files: without folder and suffix where that tells them apart."""
    for names in ([Path(name).stem for name in files], [Path(name).name for name in files], list(files)):
        if len(set(names)) == len(files) and all(names):
            return names
    return [f"{number}: {name}" for number, name in enumerate(files, 1)]
