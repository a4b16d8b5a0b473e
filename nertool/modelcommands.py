"""The commands that look into a model: `nertool info` and `nertool attention`."""

from __future__ import annotations

from pathlib import Path

import click

from nertool.commandline import MODEL, explains_errors, model_folder
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

    from nertool.display import show_attention
    from nertool.tagger import Tagger

    found = Tagger.load(folder).attention(text)
    if not found:
        raise NertoolError("there is no token in this text")
    if output is None:
        for tokens, weights in found:
            show_attention(Console(), tokens, weights.tolist())
        return
    from nertool.comparison.pictures import draw_attention, save

    save(draw_attention(*found[0], title=text), Path(output))
    click.echo(f"written: {output}")


@click.command()
@click.argument("model", required=False)
@explains_errors
def info(model: str | None) -> None:
    """Show what a model is, how it was trained, and its scores."""
    folder = model_folder(model)
    from rich.console import Console

    from nertool.inspection import show_model

    show_model(folder, Console())
