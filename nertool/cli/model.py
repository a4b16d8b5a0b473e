"""The commands that look into a model: `nertool evaluate`, `errors`, `attention` and `info`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from nertool.cli.common import DEVICE, FROM, MODEL, READ_OTHERWISE, examples, model_folder, read_data
from nertool.cli.door import explains_errors, say
from nertool.errors import NertoolError


@click.command(
    epilog=examples("nertool evaluate test.txt", "nertool evaluate test.jsonl --model runs/conll03 --json")
)
@click.argument("data")
@MODEL
@DEVICE
@FROM
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@READ_OTHERWISE
@explains_errors
def evaluate(
    data: str, model: str | None, device: str, form: str | None, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Score a model on DATA, a file of labelled sentences.

    DATA is read the way the model's training data was: same columns, same label column.
    """
    folder = model_folder(model)
    from nertool.evaluation.scores import evaluate as score
    from nertool.tagging import windows
    from nertool.tagging.predictor import Predictor

    path, loaded, split, unseen = read = read_data(data, folder, form, overrides, device)
    began = time.perf_counter()
    predictions = Predictor(loaded).predict(split.sentences)
    speed = split.token_count / (time.perf_counter() - began)
    result, cut = score(split.labels, predictions.labels, loaded.scheme), int(predictions.cut.sum())
    if as_json:
        tree = {
            **result.to_json(),
            "scheme": split.scheme.value,
            "strays": split.strays,
            "unlabelled": split.unlabelled,
            "unseen_labels": dict(unseen),
            "cut_sentences": cut,
            "tokens_per_second": speed,
        }
        click.echo(json.dumps(tree))
        return
    from nertool.views.console import new_console, show_evaluation

    console = new_console()
    show_evaluation(console, result, f"{path} by {folder}")
    console.print(f"labels read as {split.scheme.value}; {speed:,.0f} tokens/s", highlight=False)
    for note in [*read.notes(), *([windows.note(cut)] if cut else [])]:
        say(note, err=False)


@click.command(
    epilog=examples("nertool errors test.txt", "nertool errors test.txt --output errors.html --top 100")
)
@click.argument("data")
@MODEL
@DEVICE
@FROM
@click.option("--output", metavar="FILE", help="Write an HTML page instead of text.")
@click.option(
    "--top", type=click.IntRange(0), metavar="N", default=20, show_default=True, help="Show at most N sentences."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@READ_OTHERWISE
@explains_errors
def errors(
    data: str,
    model: str | None,
    device: str,
    form: str | None,
    output: str | None,
    top: int,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Show what a model gets wrong on DATA.

    Prints confusions, confidence, and the most confident mistakes, each with its line in DATA.
    Where the model is very confident and wrong, the label in DATA is often the one to correct.
    """
    folder = model_folder(model)
    if output is not None and Path(output).suffix.lower() not in (".html", ".htm"):
        raise NertoolError(f"{output}: the name of a page ends in .html")
    from nertool.evaluation.mistakes import find_mistakes
    from nertool.tagging.predictor import Predictor

    path, loaded, split, _ = read = read_data(data, folder, form, overrides, device)
    predictions = Predictor(loaded).predict(split.sentences, probabilities=True)
    findings = find_mistakes(split, predictions, top)
    if output is not None:
        from nertool.views.mistakes import write_page

        write_page(findings, str(path), str(folder), Path(output))
    if as_json:
        click.echo(json.dumps({"data": str(path), "model": str(folder), **findings.to_json()}))
        return
    if output is None:
        from nertool.views.console import new_console
        from nertool.views.mistakes import show_findings

        show_findings(new_console(), findings, f"{path} by {folder}")
    else:
        say(f"written: {output}", err=False)
    for note in read.notes():
        say(note, err=False)


@click.command(
    epilog=examples(
        'nertool attention "Ada lived in London."',
        'nertool attention "Ada lived in London." --output attention.png',
    )
)
@click.argument("text")
@MODEL
@DEVICE
@click.option("--output", metavar="FILE", help="Draw the first sentence: a .png or .svg file.")
@explains_errors
def attention(text: str, model: str | None, device: str, output: str | None) -> None:
    """Show which tokens of TEXT each token looks at (attention)."""
    folder = model_folder(model)
    if output is not None and Path(output).suffix.lower() not in (".png", ".svg"):
        raise NertoolError(f"{output}: the name of a picture ends in .png or .svg")
    from nertool.tagging.tagger import Tagger

    sentences = Tagger.load(folder, device=device).attention(text)
    if not sentences:
        raise NertoolError("there is no token in this text")
    if output is None:
        from nertool.views.console import new_console, show_attention

        for tokens, weights in sentences:
            show_attention(new_console(), tokens, weights.tolist())
        return
    from nertool.views.pictures import draw_attention, save

    save(draw_attention(*sentences[0], title=text), Path(output))
    say(f"written: {output}", err=False)


@click.command(epilog=examples("nertool info", "nertool info runs/conll03"))
@click.argument("model", required=False)
@explains_errors
def info(model: str | None) -> None:
    """Show what MODEL is, how it was trained, and its scores.

    MODEL is a run directory, a file of `nertool export`, or hub:owner/name@revision.
    [default: $NERTOOL_MODEL, else runs/latest]
    """
    folder = model_folder(model)
    from nertool.views.console import new_console
    from nertool.views.model import show_model

    show_model(folder, new_console())
