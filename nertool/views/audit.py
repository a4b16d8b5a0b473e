"""Likely annotation errors: progress of the trainings, a list on a terminal, and an HTML page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nertool.comparison.processes import Running
from nertool.experiments.audit import Audit, FoldEnded, line_of
from nertool.experiments.fold import FoldJob, HeldOut
from nertool.experiments.suspects import Kind, Suspect
from nertool.text.schemes import Span
from nertool.views import pages
from nertool.views.console import counted, duration, percent, trainings_bar
from nertool.views.visible import visible
from nertool.views.wording import Piece

_BEFORE, _AFTER = 30, 60  # tokens shown before and after the first one of a region
_CHARACTERS = 80  # of a token that are shown


class Watcher:
    """Draw the progress of the trainings of an audit, and keep their results.

    Args:
        console: Where to draw.
        jobs: All trainings.
        epochs: Of each, at most.

    Attributes:
        results: Of the trainings that have ended.
    """

    def __init__(self, console: Console, jobs: Sequence[FoldJob], epochs: int) -> None:
        self.results: dict[FoldJob, HeldOut] = {}
        self._console = console
        self._jobs = jobs
        self._epochs = epochs
        self._began = time.perf_counter()
        self._progress = trainings_bar(
            console, "trainings", "{task.fields[running]} running, {task.fields[left]} left"
        )

    def watch(self, records: Iterable[FoldEnded | Running]) -> None:
        """Consume and draw the records of the trainings."""
        task = self._progress.add_task("", ended=0, all=len(self._jobs), running=0, left="–", total=1.0)
        kept = 0
        past: dict[int, int] = {}  # epochs that a training had before this call
        trained = 0.0  # trainings that ended in this call, each counted as one
        with self._progress:
            for record in records:
                if isinstance(record, FoldEnded):
                    self.results[record.job] = record.result
                    kept += record.before
                    trained += not record.before
                    if not record.before:
                        self._ended(record)
                    continue
                if kept:
                    self._console.print(f"{counted(kept, 'training')} ended earlier.", highlight=False)
                    kept = 0
                for number, epochs in record.epochs.items():
                    past.setdefault(number, epochs)
                share = sum((epochs - past[number]) / self._epochs for number, epochs in record.epochs.items())
                done, seconds = trained + share, time.perf_counter() - self._began
                running = sum(epochs / self._epochs for epochs in record.epochs.values())
                missing = len(self._jobs) - len(self.results) - running
                self._progress.update(
                    task,
                    ended=len(self.results),
                    running=len(record.epochs),
                    completed=len(self.results) + running,
                    total=float(len(self._jobs)),
                    left=f"at most {duration(seconds / done * missing)}" if done > 0 else "–",
                )
        if kept:
            self._console.print(f"{counted(kept, 'training')} ended earlier.", highlight=False)

    def _ended(self, record: FoldEnded) -> None:
        job = record.job
        repeat = f"repeat {job.repeat + 1}, " if self._jobs[-1].repeat else ""
        self._console.print(
            f"{repeat}fold {job.fold + 1} of {job.folds}: {counted(len(record.result.sentences), 'sentence')} "
            f"tagged by a model with validation F1 {percent(record.result.f1)}",
            highlight=False,
            soft_wrap=True,
        )


def show_audit(console: Console, audit: Audit, top: int) -> None:
    """Print how many annotations are suspect, and the most suspect ones."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)

    console.print(_table(audit))
    line(note(audit))
    shown = audit.judgement.suspects[:top]
    if shown:
        line(f"\nMost suspect ({len(shown):,} of {len(audit.judgement.suspects):,})")
    for number, suspect in enumerate(shown, 1):
        line(f"\n{number}. {suspect.score:.3f}  {describe(audit, suspect)}")
        for name, own in _sides(suspect).items():
            text = Text(f"   {name:<9}", style="dim")
            for piece in pieces(audit, suspect, own):
                text.append(" ")
                style = "bold red" if piece.wrong else ("green" if piece.type else "not dim")
                text.append(f"[{piece.text}|{piece.type}]" if piece.type else piece.text, f"not dim {style}")
            console.print(text, soft_wrap=not console.is_terminal)


def _table(audit: Audit) -> Table:
    heads, rows = kind_table(audit)
    table = Table(title=escape(visible(f"Likely annotation errors in {audit.data}")), title_justify="left")
    table.add_column("kind")
    for head in heads:
        table.add_column(head, justify="right")
    for name, values in rows:
        table.add_row(name, *values)
    return table


def kind_table(audit: Audit) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return how many suspects of each kind there are, by how likely the suggestion is right."""
    levels = [0.9, 0.75, 0.5]
    counts = [Counter(s.region.kind for s in audit.judgement.suspects if s.score >= level) for level in levels]
    heads = [f"score ≥ {level:g}" for level in levels]
    rows = [(_KINDS[kind], [f"{count[kind]:,}" for count in counts]) for kind in Kind]
    return heads, [*rows, ("all", [f"{count.total():,}" for count in counts])]


_KINDS = {
    Kind.TYPE: "wrong type",
    Kind.BOUNDARY: "wrong boundary",
    Kind.BOTH: "wrong type and boundary",
    Kind.MISSING: "missing",
    Kind.SPURIOUS: "spurious",
}


def note(audit: Audit) -> str:
    """Say what the score means, and what it comes from."""
    sizes = f"{counted(len(audit.split), 'sentence')}, {counted(audit.split.token_count, 'token')}"
    times = "" if audit.repeats == 1 else f", {audit.repeats} times over"
    return (
        f"{sizes}; {audit.folds} folds{times}; mean validation F1 of the models {percent(audit.f1)}. The score is "
        "the probability of the suggestion beside that of the annotation, by models that did not learn from the "
        "sentence."
    )


def describe(audit: Audit, suspect: Suspect) -> str:
    """Describe a suspect in one line."""
    unit = audit.split.unit
    where = f"{unit} {line_of(audit.split, suspect.sentence, suspect.region.start):,}"
    models = f", {suspect.models} of {audit.repeats} models" if audit.repeats > 1 else ""
    return (
        f"{_KINDS[suspect.region.kind]}, {where}: probability {_share(suspect.suggested)}, "
        f"as annotated {_share(suspect.annotated)}{models}"
    )


def _share(probability: float) -> str:
    """Format a probability: what is near 0 as a power of ten."""
    return f"{probability:.3f}" if probability >= 0.001 else f"{probability:.0e}"


def _sides(suspect: Suspect) -> dict[str, Sequence[Span]]:
    return {"annotated": suspect.region.annotated, "suggested": suspect.region.suggested}


def pieces(audit: Audit, suspect: Suspect, own: Sequence[Span]) -> Iterator[Piece]:
    """Yield a sentence around a suspect, with its entities as one side has them.

    Args:
        audit: The audit.
        suspect: The suspect.
        own: The entities of this side in the region.
    """
    sentence = audit.split.sentences[suspect.sentence]
    region = suspect.region
    first = max(0, region.start - _BEFORE)
    last = min(len(sentence), max(region.end, region.start + _AFTER))
    others = [span for span in sentence.spans if span.end <= region.start or span.start >= region.end]
    position = first
    if first:
        yield Piece("…")
    for span in sorted([*own, *others]):
        start, end = max(span.start, first), min(span.end, last)
        if start < end:
            if position < start:
                yield Piece(_words(sentence.tokens[position:start]))
            yield Piece(_words(sentence.tokens[start:end]), visible(span.type), span in own)
            position = end
    if position < last:
        yield Piece(_words(sentence.tokens[position:last]))
    if last < len(sentence):
        yield Piece("…")


def _words(tokens: Sequence[str]) -> str:
    return visible(" ".join(f"{token[:_CHARACTERS]}…" if len(token) > _CHARACTERS else token for token in tokens))


def write_page(audit: Audit, path: Path, top: int) -> None:
    """Write the page, which needs no other file.

    Args:
        audit: What it shows.
        path: Where to write.
        top: How many suspects it lists at most.

    Raises:
        NertoolError: It cannot be written there.
    """
    pages.write_page(path, "audit.html", _view(audit, top))


def _view(audit: Audit, top: int) -> dict[str, Any]:
    heads, rows = kind_table(audit)
    suspects = audit.judgement.suspects
    return {
        "title": f"Likely annotation errors in {visible(audit.data)}",
        "note": note(audit),
        "heads": heads,
        "rows": rows,
        "all": len(suspects),
        "suspects": [
            {
                "score": f"{each.score:.3f}",
                "about": describe(audit, each),
                "sides": {name: list(pieces(audit, each, own)) for name, own in _sides(each).items()},
            }
            for each in suspects[:top]
        ],
    }
