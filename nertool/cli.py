"""The command line: parse, call, print, exit code. Anything heavy is imported where it is used."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import Any

import click

import nertool
from nertool.errors import NertoolError

RUNS = Path("runs")
LATEST = "latest"
_MODEL = click.option(
    "--model",
    metavar="DIR",
    help="Run directory of a trained model.  [default: $NERTOOL_MODEL, else runs/latest]",
)


def _explains_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns a user's mistake into one clear message and exit code 1."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            raise  # whoever read has seen enough; click ends quietly
        except (NertoolError, OSError) as problem:
            if isinstance(problem, OSError):  # such as a full disk: do not try again when Python ends
                with contextlib.suppress(OSError):
                    sys.stdout.close()
            click.echo(f"{click.style('error:', fg='red', bold=True)} {problem}", err=True)
            sys.exit(1)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(nertool.__version__)
def main() -> None:
    """Named-entity tagging with BiLSTM-CNN-CRF: train, evaluate, tag."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where the locale lacks a character, a substitute is better than a traceback.
        sys.stdout.reconfigure(errors="replace")


@main.command()
@click.argument("config")
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Replace a setting of the config.")
@click.option("--output", metavar="DIR", help="Run directory.  [default: runs/<config name>]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Same as --set training.seed=N.")
@_explains_errors
def train(config: str, overrides: tuple[str, ...], output: str | None, seed: int | None) -> None:
    """Train a model as CONFIG says: a YAML file, or the name of a config that ships with nertool.

    The run directory is the model; runs/latest points to the last one trained.
    """
    from rich.console import Console

    from nertool.configfile import find_config, load_config, locate_corpus

    path = find_config(config)
    if seed is not None:
        overrides = (*overrides, f"training.seed={seed}")
    settings = locate_corpus(load_config(path, overrides), path)
    folder = Path(output) if output else RUNS / path.stem
    if output is None and folder == RUNS / LATEST:
        raise NertoolError(f"{path.name}: {folder} is where the last model is found; choose another with --output")
    console = Console()
    watcher = None
    try:
        with console.status("reading corpus and vectors") if console.is_terminal else contextlib.nullcontext():
            from nertool.training.progress import Watcher
            from nertool.training.run import run

            records = run(settings, folder)
            prepared = next(records)
        watcher = Watcher(console, folder)
        watcher.watch(chain([prepared], records))
    except (KeyboardInterrupt, NertoolError) as problem:
        stopped = isinstance(problem, KeyboardInterrupt)
        best = watcher.best if watcher else None
        if best is not None:
            _point_latest(folder)
            click.echo(
                f"\nStopped. The best model so far, epoch {best.number} with validation F1 "
                f"{100 * best.validation.micro.f1:.2f}, is in {folder}; the test split was not scored.",
                err=True,
            )
        elif stopped:
            click.echo("\nStopped before the first epoch ended: nothing was saved.", err=True)
        if not stopped:
            raise
        sys.exit(130)
    _point_latest(folder)


@main.command()
@click.argument("data")
@_MODEL
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--set",
    "overrides",
    metavar="A.B=C",
    multiple=True,
    help="Read DATA otherwise than the model's corpus, such as corpus.columns='[token, ner]'.",
)
@_explains_errors
def evaluate(data: str, model: str | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Score a model on DATA: labelled sentences in the columns that it was trained on."""
    folder = _model_folder(model)
    import time

    from nertool.configfile import override
    from nertool.data.corpus import read_split, unseen_labels
    from nertool.evaluation import evaluate as score
    from nertool.files import find
    from nertool.model.bundle import load_bundle
    from nertool.model.labeller import Labeller

    path = find(data)
    loaded = load_bundle(folder)
    split = read_split(path, override(loaded.config, overrides).corpus, loaded.lexicon.scheme)
    unseen = unseen_labels(split, loaded.lexicon.labels)
    began = time.perf_counter()
    found = Labeller(loaded).label(split.tokens).labels
    seconds = time.perf_counter() - began
    result = score(split.labels, found, loaded.lexicon.scheme)
    speed = split.token_count / seconds
    if as_json:
        notes = {"scheme": split.scheme.value, "strays": split.strays, "unseen_labels": dict(unseen)}
        click.echo(json.dumps({**result.to_json(), **notes, "tokens_per_second": speed}))
        return
    from rich.console import Console

    from nertool.display import show_evaluation

    console = Console()
    show_evaluation(console, result, f"{path} by {folder}")
    console.print(f"labels read as {split.scheme.value}; {speed:,.0f} tokens/s", highlight=False)
    if split.strays:
        click.echo(f"{split.strays} labels that {split.scheme.value} does not allow there were repaired")
    if unseen:
        click.echo(
            f"{unseen.total()} tokens have labels that the model does not know: {', '.join(sorted(unseen))}"
        )


@main.command()
@click.argument("input")
@_MODEL
@click.option("--output", metavar="FILE", help="Where to write.  [default: standard output]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "conll", "jsonl", "html"]),
    default="text",
    show_default=True,
)
@click.option(
    "--input-format",
    "kind",
    type=click.Choice(["text", "conll", "tokens"]),
    default="text",
    show_default=True,
    help="text: raw, each line by itself; conll: a token a line; tokens: a sentence a line, tokens apart.",
)
@_explains_errors
def tag(input: str, model: str | None, output: str | None, form: str, kind: str) -> None:
    """Find the entities in INPUT, a file or - for standard input."""
    folder = _model_folder(model)
    from nertool.data.opening import open_lines
    from nertool.formats import tag_lines, write_results
    from nertool.tagger import Tagger

    with contextlib.ExitStack() as stack:
        # The input is opened first: a missing file should not cost the time that a model takes to load.
        lines = stack.enter_context(open_lines(None if input == "-" else input, "a text"))
        tagger = Tagger.load(folder)
        results = tag_lines(tagger, lines, kind, "standard input" if input == "-" else input)
        if output is None:
            if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
                # UTF-8 as the input is, and as --output writes, whatever the locale.
                sys.stdout.reconfigure(encoding="utf-8", newline="\n")
            write_results(results, form, tagger, sys.stdout)
        else:
            from nertool.files import replaced_when_done

            with (
                replaced_when_done(Path(output)) as raw,
                io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as target,
            ):
                write_results(results, form, tagger, target)


@main.command()
@click.argument("model", required=False)
@_explains_errors
def info(model: str | None) -> None:
    """Show what a model is, how it was trained, and its scores."""
    folder = _model_folder(model)
    from rich.console import Console

    from nertool.inspection import show_model

    show_model(folder, Console())


def _model_folder(given: str | None) -> Path:
    named = given or os.environ.get("NERTOOL_MODEL")
    folder = Path(named) if named else RUNS / "latest"
    with contextlib.suppress(OSError):  # a name too long for a folder
        if folder.is_dir():
            return folder
    if named:
        origin = "" if given else " (from NERTOOL_MODEL)"
        raise NertoolError(f"there is no model folder {folder}{origin}; train one with: nertool train CONFIG")
    raise NertoolError(
        "no model: neither --model nor NERTOOL_MODEL is given and there is no runs/latest here; "
        "train one with: nertool train demo.yaml"
    )


def _point_latest(folder: Path) -> None:
    """Lets runs/latest point to a run directory; a system without links does without."""
    latest, beside = RUNS / "latest", RUNS / f".latest-{os.getpid()}"
    try:
        if latest.resolve() == folder.resolve():
            return
        RUNS.mkdir(exist_ok=True)
        beside.symlink_to(os.path.relpath(folder.resolve(), RUNS.resolve()), target_is_directory=True)
        beside.replace(latest)
    except (OSError, NotImplementedError):
        click.echo(f"{latest} cannot be made to point to it; name it: --model {folder}", err=True)
        with contextlib.suppress(OSError):
            beside.unlink()


if __name__ == "__main__":
    main()
