"""The command line: parse, call, print, exit code. Anything heavy is imported where it is used."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from itertools import chain
from pathlib import Path

import click

import nertool
from nertool.cli.common import (
    LATEST,
    MODEL,
    READ_OTHERWISE,
    RUNS,
    cores,
    explains_errors,
    model_folder,
    point_latest,
)
from nertool.cli.data import check, convert
from nertool.cli.model import attention, errors, info
from nertool.errors import NertoolError


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
@click.option("--resume", is_flag=True, help="Go on where this training was stopped, to the same model.")
@explains_errors
def train(config: str, overrides: tuple[str, ...], output: str | None, seed: int | None, resume: bool) -> None:
    """Train a model as CONFIG says: a YAML file, or the name of a config that ships with nertool.

    The run directory is the model; runs/latest points to the last one trained.
    """
    from rich.console import Console

    from nertool.config.loading import find_config, load_config, locate_corpus

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
            from nertool.training.run import run
            from nertool.views.training import Watcher

            records = run(settings, folder, resume=resume)
            prepared = next(records)
        watcher = Watcher(console, folder)
        watcher.watch(chain([prepared], records))
    except (KeyboardInterrupt, NertoolError) as problem:
        stopped = isinstance(problem, KeyboardInterrupt)
        best = watcher.best if watcher else None
        if best is not None:
            point_latest(folder)
            click.echo(
                f"\nStopped. The best model so far, epoch {best.number} with validation F1 "
                f"{100 * best.validation.micro.f1:.2f}, is in {folder}; the test split was not scored. "
                "The same command with --resume goes on.",
                err=True,
            )
        elif stopped:
            click.echo("\nStopped before the first epoch ended: nothing was saved.", err=True)
        if not stopped:
            raise
        sys.exit(130)
    point_latest(folder)


@main.command()
@click.argument("config")
@click.option(
    "--vary",
    "varied",
    metavar="A.B=C,D",
    multiple=True,
    help="Train with each of these values; several --vary make a grid.",
)
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Replace a setting in every training.")
@click.option(
    "--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Trainings of each cell."
)
@click.option("--jobs", type=click.IntRange(1, 256), help="Trainings side by side.  [default: one for each core]")
@click.option("--output", metavar="DIR", help="Where to.  [default: runs/compare-<config name>]")
@explains_errors
def compare(
    config: str,
    varied: tuple[str, ...],
    overrides: tuple[str, ...],
    seeds: int,
    jobs: int | None,
    output: str | None,
) -> None:
    r"""Train a grid of variants of CONFIG, each with several seeds, and report whether they differ.

    \b
    nertool compare demo.yaml --vary model.encoder.kind=rnn,gru,lstm --seeds 5

    Each training has one thread. What has ended is not trained again: the same command goes on where it was
    stopped. The report is DIR/report.html (also .md and .json).
    """
    import time

    from rich.console import Console

    from nertool.comparison.compare import command_line, judge
    from nertool.comparison.grid import plan
    from nertool.comparison.runner import run_jobs
    from nertool.config.loading import find_config
    from nertool.views.comparison import show_comparison, write_report
    from nertool.views.comparison_progress import Watcher

    source = find_config(config)
    folder = Path(output) if output else RUNS / f"compare-{source.stem}"
    planned = plan(source, overrides, varied, seeds, folder)
    side_by_side = min(jobs or cores(), len(planned))
    console = Console()
    watcher = Watcher(console, planned)
    began = time.perf_counter()
    with contextlib.closing(run_jobs(planned, side_by_side)) as records:
        try:
            watcher.watch(records)
        except KeyboardInterrupt:
            click.echo(
                f"\nStopped. {len(watcher.results)} of {len(planned)} trainings have ended; "
                "the same command goes on with the others.",
                err=True,
            )
            sys.exit(130)
    command = command_line(config, varied, overrides, seeds, side_by_side)
    seconds = time.perf_counter() - began
    with console.status("testing and drawing") if console.is_terminal else contextlib.nullcontext():
        comparison = judge(planned, watcher.results, source, command, side_by_side, seconds)
        written = write_report(comparison, folder)
    show_comparison(console, comparison)
    for path in written:
        if path.parent == folder:
            console.print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)
    failures = sum(len(cell.failures) for cell in comparison.cells)
    if failures:
        raise NertoolError(f"{failures} of {len(planned)} trainings failed; the same command tries them again")


@main.command()
@click.argument("data")
@MODEL
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@READ_OTHERWISE
@explains_errors
def evaluate(data: str, model: str | None, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Score a model on DATA: labelled sentences in the columns that it was trained on."""
    folder = model_folder(model)
    import time

    from nertool.config.files import find
    from nertool.config.loading import override
    from nertool.data.corpus import read_split, unseen_labels
    from nertool.evaluation.scores import evaluate as score
    from nertool.tagging import windows
    from nertool.tagging.bundle import load_bundle
    from nertool.tagging.labeller import Labeller

    path = find(data)
    loaded = load_bundle(folder)
    split = read_split(path, override(loaded.config, overrides).corpus, loaded.lexicon.scheme)
    unseen = unseen_labels(split, loaded.lexicon.labels)
    began = time.perf_counter()
    found = Labeller(loaded).label(split.tokens)
    seconds = time.perf_counter() - began
    result, cut = score(split.labels, found.labels, loaded.lexicon.scheme), int(found.cut.sum())
    speed = split.token_count / seconds
    if as_json:
        notes = {"strays": split.strays, "unlabelled": split.unlabelled, "unseen_labels": dict(unseen)}
        notes |= {"cut_sentences": cut}
        tree = {**result.to_json(), "scheme": split.scheme.value, **notes, "tokens_per_second": speed}
        click.echo(json.dumps(tree))
        return
    from rich.console import Console

    from nertool.views.console import show_evaluation

    console = Console()
    show_evaluation(console, result, f"{path} by {folder}")
    console.print(f"labels read as {split.scheme.value}; {speed:,.0f} tokens/s", highlight=False)
    for note in [*split.notes(), *([windows.note(cut)] if cut else [])]:
        click.echo(note)
    if unseen:
        click.echo(
            f"{unseen.total()} tokens have labels that the model does not know: {', '.join(sorted(unseen))}"
        )


@main.command()
@click.argument("input")
@MODEL
@click.option("--output", metavar="FILE", help="Where to write.  [default: standard output]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "conll", "jsonl", "html", "spacy"]),
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
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.0, help="Leave out entities less probable.")
@click.option(
    "--n-best", type=click.IntRange(0, 1000), default=0, help="Add the N best readings of each sentence (jsonl)."
)
@click.option("--marginals", is_flag=True, help="Add the probabilities of each token's labels (jsonl).")
@explains_errors
def tag(
    input: str,
    model: str | None,
    output: str | None,
    form: str,
    kind: str,
    min_score: float,
    n_best: int,
    marginals: bool,
) -> None:
    """Find the entities in INPUT, a file or - for standard input."""
    folder = model_folder(model)
    if (n_best or marginals) and form != "jsonl":
        option = "--n-best" if n_best else "--marginals"
        raise NertoolError(f"{option} has its place in JSON alone: add --format jsonl")
    if form == "spacy" and output is None:
        raise NertoolError("a DocBin is no text: name a file for it with --output")
    from nertool.formats.opening import open_lines
    from nertool.tagging.tagger import Tagger
    from nertool.views.tagged import noting_cuts, tag_lines, write_file, write_results

    with contextlib.ExitStack() as stack:
        # The input is opened first: a missing file should not cost the time that a model takes to load.
        lines = stack.enter_context(open_lines(None if input == "-" else input, "a text"))
        tagger = Tagger.load(folder, min_score=min_score, n_best=n_best, marginals=marginals)
        results = tag_lines(tagger, lines, kind, "standard input" if input == "-" else input)
        results = noting_cuts(results, lambda note: click.echo(note, err=True))
        if output is None:
            if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
                # UTF-8 as the input is, and as --output writes, whatever the locale.
                sys.stdout.reconfigure(encoding="utf-8", newline="\n")
            write_results(results, form, tagger, sys.stdout)
        else:
            write_file(results, form, tagger, Path(output))


for command in (attention, check, convert, errors, info):
    main.add_command(command)

if __name__ == "__main__":
    main()
