"""The commands that look into a model: `nertool info`, `nertool errors` and `nertool attention`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nertool.cli.common import MODEL, READ_OTHERWISE, explains_errors, model_folder
from nertool.errors import NertoolError


@click.command()
@click.argument("text")
@MODEL
@click.option("--output", metavar="FILE", help="Draw it: a .png or .svg file (of the first sentence).")
@explains_errors
def attention(text: str, model: str | None, output: str | None) -> None:
    """Show which tokens of TEXT, a sentence, a model with attention looks at for each token."""
    folder = model_folder(model)
    if output is not None and Path(output).suffix.lower() not in (".png", ".svg"):
        raise NertoolError(f"{output}: the name of a picture ends in .png or .svg")
    from rich.console import Console

    from nertool.tagging.tagger import Tagger
    from nertool.views.console import show_attention

    found = Tagger.load(folder).attention(text)
    if not found:
        raise NertoolError("there is no token in this text")
    if output is None:
        for tokens, weights in found:
            show_attention(Console(), tokens, weights.tolist())
        return
    from nertool.views.pictures import draw_attention, save

    save(draw_attention(*found[0], title=text), Path(output))
    click.echo(f"written: {output}")


@click.command()
@click.argument("data")
@MODEL
@click.option("--output", metavar="FILE", help="Write an HTML page instead of text.")
@click.option(
    "--top", type=click.IntRange(0), default=20, show_default=True, help="How many sentences to show at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@READ_OTHERWISE
@explains_errors
def errors(
    data: str, model: str | None, output: str | None, top: int, as_json: bool, overrides: tuple[str, ...]
) -> None:
    r"""Show what a model gets wrong on DATA: confusions, confidence, and where it is surest and wrong.

    \b
    nertool errors test.txt
    nertool errors test.txt --output errors.html --top 100

    Where the model is very sure it is often the label in DATA that is wrong.
    """
    folder = model_folder(model)
    if output is not None and Path(output).suffix.lower() not in (".html", ".htm"):
        raise NertoolError(f"{output}: the name of a page ends in .html")
    from nertool.config.files import find
    from nertool.config.loading import override
    from nertool.data.corpus import read_split, unseen_labels
    from nertool.evaluation.mistakes import find_mistakes
    from nertool.tagging.bundle import load_bundle
    from nertool.tagging.labeller import Labeller

    path = find(data)
    loaded = load_bundle(folder)
    split = read_split(path, override(loaded.config, overrides).corpus, loaded.lexicon.scheme)
    findings = find_mistakes(split, Labeller(loaded).label(split.tokens, probabilities=True), top)
    if output is not None:
        from nertool.views.mistakes import write_page

        write_page(findings, str(path), str(folder), Path(output))
    if as_json:
        click.echo(json.dumps({"data": str(path), "model": str(folder), **findings.to_json()}))
        return
    if output is None:
        from rich.console import Console

        from nertool.views.mistakes import show_findings

        show_findings(Console(), findings, f"{path} by {folder}")
    else:
        click.echo(f"written: {output}")
    for note in split.notes():
        click.echo(note)
    unseen = unseen_labels(split, loaded.lexicon.labels)
    if unseen:
        click.echo(
            f"{unseen.total()} tokens have labels that the model does not know: {', '.join(sorted(unseen))}"
        )


@click.command()
@click.argument("model", required=False)
@explains_errors
def info(model: str | None) -> None:
    """Show what a model is, how it was trained, and its scores."""
    folder = model_folder(model)
    from rich.console import Console

    from nertool.views.model import show_model

    show_model(folder, Console())
