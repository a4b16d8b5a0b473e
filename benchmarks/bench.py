"""Measure how fast nertool is, compared with a plain version of the same network. Run it as `make bench`.

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
from functools import partial
from pathlib import Path

import torch
from contenders import (
    Setting,
    nertool_steps,
    read_setting,
    reference_steps,
    rows_of,
    trained_model,
    untrained_model,
    work_of,
)
from paired import PRODUCTS, MatrixProducts, Row, Stepper, alternate, rate_rows
from pieces import measure_help, measure_latency, measure_tagging, measure_update, measure_vectors
from rich import box
from rich.console import Console
from rich.table import Table

import nertool
from nertool.model.model import Model

TRAINING_WORK = 3.2e-3  # GFLOP of matrix products a token
SECTIONS = ("training-10", "training-32", "tagging", "latency", "vectors", "help", "update")


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds of a slice of each contender, and seconds in a slice."""

    rounds: int
    seconds: float


def measure_training(setting: Setting, model: Model, batch_size: int, effort: Effort) -> list[Row]:
    """Tokens per second of training."""
    products = MatrixProducts()
    with ExitStack() as stack:
        steps = nertool_steps(setting, batch_size, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(steps.close)
        reference = partial(reference_steps, setting, model, batch_size)
        steppers = {
            "reference, random batches": Stepper(reference(sort=False)),
            "reference, sorted by length": Stepper(reference(sort=True)),
        }
        if setting.vectors is not None:
            # What would the reference gain without the words of GloVe that are in no training sentence?
            small = reference(sort=True, train_words_only=True)
            steppers["reference, sorted, small word table"] = Stepper(small)
        steppers["nertool"] = Stepper(steps)
        slices = {name: partial(stepper.slice, effort.seconds) for name, stepper in steppers.items()}
        found = alternate({**slices, PRODUCTS: partial(products.slice, effort.seconds / 4)}, effort.rounds)
    return rate_rows(found, "nertool", TRAINING_WORK)


def main() -> None:
    """Run the command line."""
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
        options.rounds or (2 if options.quick else 5), options.seconds or (0.2 if options.quick else 1.5)
    )
    console = Console()
    if not console.is_terminal:
        console.width = 120
    began, load = time.perf_counter(), _load()
    setting = read_setting(options.demo or options.quick)
    for warning in setting.warnings:
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)

    sections: dict[str, list[Row]] = {}

    def section(name: str, title: str, measure: Callable[[], list[Row]]) -> None:
        if name in options.only:
            sections[name] = measure()
            _show(console, title, sections[name])

    fresh = untrained_model(setting)
    for size in (10, 32):
        section(
            f"training-{size}",
            f"Training, batches of {size} sentences; share of the floor at 3.2 MFLOP a token",
            partial(measure_training, setting, fresh, size, effort),
        )
    if {"tagging", "latency"} & set(options.only):
        model = trained_model(setting, 2 * effort.seconds, options.model)
        section(
            "tagging",
            "Tagging the test split; share of the floor at 1.06 MFLOP a token",
            partial(measure_tagging, setting, model, effort.rounds, effort.seconds / 2),
        )
        section("latency", "One sentence at a time", partial(measure_latency, setting, model, effort.rounds))
    section("vectors", "Reading word vectors", partial(measure_vectors, setting.vectors, min(effort.rounds, 3)))
    section("help", "Starting up", partial(measure_help, effort.rounds))
    section(
        "update",
        "One step of training, by the size of the word table",
        partial(measure_update, setting, effort.rounds, effort.seconds / 4),
    )
    conditions = {
        "corpus": setting.name,
        "word_vectors": None if setting.vectors is None else setting.vectors.name,
        "training_tokens": setting.corpus.train.token_count,
        "quick": options.quick,
        "word_table_rows": rows_of(fresh),
        "mflop_a_token": {"training": 3 * work_of(fresh) / 1e6, "tagging": work_of(fresh) / 1e6},
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
    work = work_of(fresh) / 1e6
    console.print(
        f"{setting.name}, word table of {rows_of(fresh):,} rows; this network takes {work:.2f} MFLOP a "
        f"token for tagging, {3 * work:.2f} for training. {effort.rounds} slices of {effort.seconds:g} s; torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads; load {load} at the start. Took "
        f"{conditions['seconds']:.0f} s.",
        highlight=False,
        soft_wrap=True,
    )
    if options.json is not None:
        figures = {name: [asdict(row) for row in rows] for name, rows in sections.items()}
        options.json.write_text(
            json.dumps({"conditions": conditions, **figures}, indent=2) + "\n", encoding="utf-8"
        )


def _show(console: Console, title: str, rows: list[Row]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    for name in ("median", "lowest to highest", "nertool is faster", "share"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        value, ratio, share = row.value, row.nertool_is, row.share
        times = "" if ratio is None else f"{ratio.median:.2f} x ({ratio.low:.2f} to {ratio.high:.2f})"
        of_all = "" if share is None else f"{100 * share.median:.1f} %"
        spread = f"{_figure(value.low)} to {_figure(value.high)}" if value.low < value.high else ""
        table.add_row(row.name, f"{_figure(value.median)} {row.unit}", spread, times, of_all)
    console.print(table)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    main()
