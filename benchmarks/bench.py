"""Measures how fast nertool is, beside a plain version of the same network. Run it as `make bench`.

README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from contenders import Setting, fresh_model, nertool_steps, read_setting, reference_steps, trained_model
from paired import MatrixProducts, Row, Stepper, alternate, rate_rows
from pieces import measure_help, measure_latency, measure_tagging, measure_update, measure_vectors
from rich.console import Console
from rich.table import Table

import nertool

PRODUCTS = "matrix products, 1024 x 1024 fp32"
TRAINING_WORK = 3.2e-3  # GFLOP of matrix products a token
SECTIONS = ("training-10", "training-32", "tagging", "latency", "vectors", "help", "update")


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of a slice of each contender, and seconds in a slice."""

    rounds: int
    seconds: float


def measure_training(setting: Setting, batch_size: int, effort: Effort) -> list[Row]:
    """Tokens per second of training."""
    model = fresh_model(setting)
    products = MatrixProducts()

    def reference(*, sort: bool, train_words_only: bool) -> Stepper:
        steps = reference_steps(setting, model, batch_size, sort=sort, train_words_only=train_words_only)
        return Stepper(steps)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        steps = nertool_steps(setting, batch_size, folder)
        stack.callback(steps.close)  # type: ignore[attr-defined]
        steppers = {"reference, random batches": reference(sort=False, train_words_only=False)}
        if batch_size > 10:
            steppers["reference, sorted by length"] = reference(sort=True, train_words_only=False)
        # Two thirds of the words of GloVe are in no training split: what does the reference gain without them?
        if setting.vectors is not None:
            name = "reference, sorted, words of the training split only"
            steppers[name] = reference(sort=True, train_words_only=True)
        steppers["nertool"] = Stepper(steps)
        slices: dict[str, Callable[[], float]] = {}
        for name, stepper in steppers.items():
            slices[name] = lambda stepper=stepper: stepper.slice(effort.seconds)  # type: ignore[misc]
        slices[PRODUCTS] = lambda: products.slice(effort.seconds / 4)
        found = alternate(slices, effort.rounds)
    return rate_rows(found, "nertool", "tokens/s", PRODUCTS, TRAINING_WORK)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run on the demonstration corpus")
    parser.add_argument("--demo", action="store_true", help="measure on the demonstration corpus")
    parser.add_argument("--model", type=Path, metavar="DIR", help="tag with this model, not with a new one")
    parser.add_argument("--rounds", type=int, help="slices of each contender  [default: 5; quick: 2]")
    parser.add_argument("--seconds", type=float, help="length of a slice  [default: 2; quick: 0.2]")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="measure no more than this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    effort = Effort(
        options.rounds or (2 if options.quick else 5), options.seconds or (0.2 if options.quick else 2.0)
    )
    console = Console()
    began, load = time.perf_counter(), _load()
    setting = read_setting(options.demo or options.quick)
    for warning in setting.warnings:
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)

    sections: dict[str, list[Row]] = {}

    def section(name: str, title: str, measure: Callable[[], list[Row]]) -> None:
        if name in options.only:
            sections[name] = measure()
            _show(console, title, sections[name])

    for size in (10, 32):
        section(
            f"training-{size}",
            f"training, batches of {size} sentences (share: at 3.2 MFLOP a token)",
            lambda size=size: measure_training(setting, size, effort),  # type: ignore[misc]
        )
    if {"tagging", "latency"} & set(options.only):
        model = trained_model(setting, 2 * effort.seconds, options.model)
        section(
            "tagging",
            "tagging the test split (share: at 1.06 MFLOP a token)",
            lambda: measure_tagging(setting, model, effort.rounds, effort.seconds / 2),
        )
        section("latency", "one sentence at a time", lambda: measure_latency(setting, model, effort.rounds))
    section("vectors", "reading word vectors", lambda: measure_vectors(setting.vectors, min(effort.rounds, 3)))
    section("help", "starting up", lambda: measure_help(effort.rounds))
    section(
        "update",
        "one step of training, by the size of the word table",
        lambda: measure_update(setting, effort.rounds, effort.seconds / 4),
    )
    conditions = {
        "corpus": setting.name,
        "word_vectors": None if setting.vectors is None else setting.vectors.name,
        "training_tokens": setting.corpus.train.token_count,
        "quick": options.quick,
        "rounds": effort.rounds,
        "seconds_per_slice": effort.seconds,
        "seconds": time.perf_counter() - began,
        "processors": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_before": load,
        "load_after": _load(),
        "nertool": nertool.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    console.print(
        f"{setting.name}, {effort.rounds} slices of {effort.seconds:g} s of each; torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads; took {conditions['seconds']:.0f} s",
        highlight=False,
    )
    if options.json is not None:
        figures = {name: [asdict(row) for row in rows] for name, rows in sections.items()}
        options.json.write_text(json.dumps({"conditions": conditions, **figures}, indent=2) + "\n")


def _show(console: Console, title: str, rows: list[Row]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("what")
    for name in ("median", "lowest to highest", "nertool is faster", "share"):
        table.add_column(name, justify="right")
    for row in rows:
        value, ratio, share = row.value, row.nertool_is, row.share
        times = "" if ratio is None else f"{ratio.median:.2f} x ({ratio.low:.2f} to {ratio.high:.2f})"
        of_all = "" if share is None else f"{100 * share.median:.1f} %"
        spread = f"{_figure(value.low)} to {_figure(value.high)}"
        table.add_row(row.name, f"{_figure(value.median)} {row.unit}", spread, times, of_all)
    console.print(table)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    main()
