"""The progress of a training run: a moving bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

from nertool.config.schema import TrainingConfig
from nertool.data.corpus import unseen_labels
from nertool.data.pieces import LONGEST
from nertool.data.sharding import Sharding
from nertool.model.devices import find_device
from nertool.tagging.bundle import WEIGHTS
from nertool.text.schemes import Scheme
from nertool.training.preparation import Prepared
from nertool.training.run import CURVES, Finished, Resumed
from nertool.training.states import Computing
from nertool.training.trainer import Epoch, Step
from nertool.views import pictures
from nertool.views.console import counted, duration, percent, show_evaluation


class Watcher:
    """Draw the records of a run as they pass, and at its end a picture of the learning curve.

    Args:
        console: Where to draw.
        folder: The run directory, named at the end; the picture, `curves.svg`, goes there.

    Attributes:
        best: The best epoch so far; None before one has ended.
        writing: Whether the training split is being written into shards.
    """

    def __init__(self, console: Console, folder: Path) -> None:
        self.best: Epoch | None = None
        self._console = console
        self._folder = folder
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}"),
            TextColumn("left: {task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.writing = False
        self._shards: TaskID | None = None
        self._training: TrainingConfig | None = None
        self._replaces = False  # whether there is a model that the first epoch will replace
        self._note = ""
        self._f1 = "  –  "
        self._headed = False
        self._past: list[Epoch] = []
        self._epochs = 0
        self._began = 0.0
        self._resumes = False
        self._before = 0  # epochs that were trained before this call
        self._epoch_seconds: float | None = None  # of a whole epoch with its validation, once one has ended

    def watch(
        self, records: Iterator[Sharding | Prepared | Resumed | Computing | Step | Epoch | Finished]
    ) -> None:
        """Consume and draw the records of a run."""
        with self._progress:
            for record in records:
                if isinstance(record, Step):
                    self._begin()
                    self._step(record)
                elif isinstance(record, Epoch):
                    self._epoch(record)
                elif isinstance(record, Computing):
                    self._computing(record)
                elif isinstance(record, Sharding):
                    self._sharding(record)
                elif isinstance(record, Prepared):
                    self._prepared(record)
                elif isinstance(record, Resumed):
                    self._resumed(record)
                else:
                    self._finished(record)

    def _sharding(self, record: Sharding) -> None:
        self.writing = True
        if self._shards is None:
            self._shards = self._progress.add_task("writing shards", total=None, state="", left="–")
        speed = (record.tokens - record.before) / record.seconds
        if record.done:
            again = f", {record.before:,} of them before it was stopped" if record.before else ""
            self._console.print(
                f"train: {record.tokens:,} tokens were written into shards{again}, in {duration(record.seconds)} "
                f"({speed:,.0f} tokens/s)",
                style="dim",
                highlight=False,
                soft_wrap=True,
            )
        known = record.share is not None and record.share > 0
        self._progress.update(
            self._shards,
            total=1.0 if known else None,
            completed=record.share or 0.0,
            description="reading vocabulary and vectors" if record.done else "writing shards",
            state=f"{record.tokens:,} tokens" + (f"  {speed:,.0f} tokens/s" if speed else ""),
            left=duration(record.seconds / record.share - record.seconds) if record.share else "–",
        )

    def _prepared(self, record: Prepared) -> None:
        self.writing = False
        if self._shards is not None:
            self._progress.remove_task(self._shards)
            self._shards = None
        self._epochs = record.config.training.epochs
        self._training = record.config.training
        show_preparation(self._console, record)
        self._replaces = (self._folder / WEIGHTS).exists()
        self._began = time.perf_counter()
        self._task = self._progress.add_task("", state="", left="–")

    def _resumed(self, record: Resumed) -> None:
        for epoch in record.epochs:
            self._epoch(epoch)
        self._before = len(record.epochs)
        self._replaces = False
        self._resumes = True
        self._epoch_seconds = None
        self._began = time.perf_counter()

    def _computing(self, record: Computing) -> None:
        left = record.seconds / record.done * (record.total - record.done)
        self._progress.update(
            self._task,
            total=record.total,
            completed=record.done,
            description=f"{record.input}: states of the transformer",
            state=f"{record.done:,} of {record.total:,} tokens",
            left=duration(left),
        )
        if record.done == record.total:
            self._console.print(
                f"{record.input}: the transformer's states of {record.total:,} tokens were computed in "
                f"{duration(record.seconds)}",
                style="dim",
                highlight=False,
            )
            self._began = time.perf_counter()

    def _head(self) -> None:
        """Print the head of the table of epochs, once."""
        if not self._headed:
            self._console.print("epoch      loss   valid F1   tokens/s   seconds", style="dim")
        self._headed = True

    def _begin(self) -> None:
        """Say, at the first step, what the training goes on from or will replace."""
        self._head()
        if self._resumes:
            self._console.print(f"resumed after epoch {self._before}", style="dim")
        if self._replaces:
            self._console.print(
                f"[yellow]The first epoch will replace the model in {escape(str(self._folder))}[/]", soft_wrap=True
            )
        self._replaces = self._resumes = False

    def _step(self, record: Step) -> None:
        if self._progress.disable:
            return
        speed = record.tokens / record.seconds
        left = (record.total - record.tokens) / speed
        whole = self._epoch_seconds or record.total / speed
        self._progress.update(
            self._task,
            total=record.total,
            completed=record.tokens,
            description=f"epoch {record.epoch:>3}/{self._epochs}",
            state=f"loss {record.loss:.3f}  F1 {self._f1}  {speed:,.0f} tokens/s",
            left=f"epoch {duration(left)}, run at most " + duration(left + (self._epochs - record.epoch) * whole),
        )

    def _epoch(self, record: Epoch) -> None:
        self._head()
        self._past.append(record)
        if record.improved:
            self.best = record
        self._epoch_seconds = (time.perf_counter() - self._began) / max(record.number - self._before, 1)
        f1 = percent(record.validation.micro.f1)
        best = percent(self.best.validation.micro.f1) if self.best else "–"
        mark = "  best" if record.improved else ""
        line = (
            f"{record.number:>5} {record.loss:>9.3f} {f1:>10} "
            f"{record.tokens_per_second:>10,.0f} {record.seconds:>9.1f}"
        )
        self._console.print(f"[bold]{line}{mark}[/]" if record.improved else line, highlight=False)
        if record.note and record.note != self._note:  # said once, not at every epoch
            self._console.print(f"[yellow]{escape(record.note)}[/]", highlight=False, soft_wrap=True)
        self._note = record.note
        self._f1 = f"{f1} (best {best})"

    def _finished(self, record: Finished) -> None:
        self._progress.update(self._task, visible=False)
        best = record.best
        if record.before:
            self._ended(record)
            return
        self._console.print(
            f"\nBest of {record.epochs} epochs: {best.number}, validation F1 {percent(best.validation.micro.f1)}, "
            f"after {duration(record.seconds)}.",
            highlight=False,
        )
        name = "validation" if record.test is None else "test"
        before, after = record.calibration.before[name], record.calibration.after[name]
        if before is not None and after is not None:
            self._console.print(
                f"Calibrated with temperature {record.calibration.temperature:.2f}: expected calibration error on "
                f"the {name} split {percent(before)} before, {percent(after)} after.",
                highlight=False,
            )
        if record.test is not None:
            show_evaluation(self._console, record.test, "Test split, scored once")
        self._draw()
        self._console.print(f"The model is in {escape(str(self._folder))}", highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        """Write the picture, or say why there is none: the model is complete without it."""
        if not pictures.available():
            note = f"There is no {CURVES}, a picture of loss and F1 by epoch: it needs matplotlib (extra plots)."
            self._console.print(note, style="dim", highlight=False, soft_wrap=True, markup=False)
            return
        try:
            pictures.save(pictures.draw_training(self._past), self._folder / CURVES)
        except Exception as problem:  # of matplotlib, or of the disk
            note = f"{CURVES} was not drawn: {problem}"
            self._console.print(note, style="yellow", highlight=False, soft_wrap=True, markup=False)

    def _ended(self, record: Finished) -> None:
        """Say that nothing was done, and how more can be had."""
        assert self._training is not None
        epochs, patience = self._training.epochs, self._training.patience
        key, now = ("epochs", epochs) if record.epochs >= epochs else ("patience", patience)
        self._console.print(
            f"\nThis run has ended after {record.epochs} epochs (best: {record.best.number}, validation F1 "
            f"{percent(record.best.validation.micro.f1)}), and nothing was changed. Ask for more with "
            f"--set training.{key}=N (now {now}).",
            highlight=False,
            soft_wrap=True,
        )
        self._console.print(f"The model is in {escape(str(self._folder))}", highlight=False, soft_wrap=True)


def show_preparation(console: Console, record: Prepared) -> None:
    """Print what was read and what will be trained."""
    model = record.model
    table = Table(title="Corpus", title_justify="left")
    table.add_column("split")
    has_spans = model.scheme is not Scheme.PLAIN
    for name in ("documents", "sentences", "tokens", *(["entities"] if has_spans else [])):
        table.add_column(name, justify="right")
    table.add_column("scheme")
    if record.coverage is not None:
        table.add_column("with vector", justify="right")
    for name, split in record.corpus.splits.items():
        row = [name, *(f"{n:,}" for n in (split.document_count, len(split), split.token_count))]
        if has_spans:
            row.append(f"{sum(split.entity_counts().values()):,}")
        row.append(split.scheme.value)
        if record.coverage is not None:
            row.append(f"{100 * record.coverage[name]:.1f} %")
        table.add_row(*row)
    console.print(table)
    if long := record.corpus.train.long_count:
        console.print(
            f"train: {counted(long, 'sentence')} of more than {LONGEST} tokens, learnt in pieces between entities",
            highlight=False,
            soft_wrap=True,
        )
    if record.encoded.weights is not None:
        less = int((record.encoded.weights < 1).sum())
        console.print(
            f"train: {counted(less, 'sentence')} of {len(record.encoded):,} weigh less than 1", highlight=False
        )
    said = set()
    for name, split in record.corpus.splits.items():
        for note in split.notes():
            if (split.path, note) not in said:  # one file may be two splits
                console.print(f"{name}: {note}", highlight=False, soft_wrap=True, markup=False)
            said.add((split.path, note))
        unseen = unseen_labels(split, model.labels)
        if unseen:
            console.print(
                f"[yellow]{name}: {unseen.total():,} tokens have labels that training never saw and no model can "
                f"predict: {escape(', '.join(sorted(unseen)))}[/]",
                soft_wrap=True,
            )
    if record.start is not None:
        for note in record.start.notes():
            console.print(note, highlight=False, soft_wrap=True, markup=False)
        if warning := record.start.warning():
            console.print(f"[yellow]{escape(warning)}[/]", highlight=False, soft_wrap=True)
    for note in record.notes:
        console.print(note, style="yellow", highlight=False, soft_wrap=True, markup=False)
    dense, sparse = record.parameters
    inputs = "; ".join(f"{name}: {each.describe()}" for name, each in model.inputs.items())
    console.print(
        f"{len(model.labels)} labels ({model.scheme.value}); {inputs}\n"
        f"{dense:,} weights and {sparse:,} in word vectors; seed {record.config.training.seed}"
        f"{_computing(record.config.training)}; ready after {record.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _computing(config: TrainingConfig) -> str:
    """Say what is computed on, and how, where it is not the usual."""
    on = "" if config.device == "cpu" else f"; on {find_device(config.device, 'training.device')}"
    return on + ("; bfloat16 before the decoder" if config.precision == "bf16" else "")
