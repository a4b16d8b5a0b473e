"""The search for good settings: progress, tables, and an HTML page."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nertool.comparison.processes import Running
from nertool.config.loading import flow
from nertool.experiments.tune import Trial, Tuning, counted_states
from nertool.views import pages
from nertool.views.console import counted, duration, percent, trainings_bar
from nertool.views.visible import visible

_ROWS = 10  # trials of the table on a terminal
_WIDTH, _HEIGHT = 640, 240  # of the diagram, in its own units


class Watcher:
    """Draw the progress of a search.

    Args:
        console: Where to draw.
        trials: How many there are to be in the end.
        epochs: Of a trial, over all its seeds, at most.

    Attributes:
        ended: The trials that have ended.
    """

    def __init__(self, console: Console, trials: int, epochs: int) -> None:
        self.ended: list[Trial] = []
        self._console = console
        self._trials = trials
        self._epochs = epochs
        self._began = time.perf_counter()
        self._progress = trainings_bar(
            console,
            "trials",
            "best F1 {task.fields[best]}  {task.fields[running]} running, {task.fields[left]} left",
        )

    def watch(self, records: Iterable[Trial | Running]) -> None:
        """Consume and draw the records of a search."""
        task = self._progress.add_task("", ended=0, all=self._trials, best="–", running=0, left="–", total=1.0)
        past: dict[int, int] = {}  # epochs that a trial had before this call
        before = -1  # trials that had ended before this call; -1: not known yet
        with self._progress:
            for record in records:
                if isinstance(record, Trial):
                    self.ended.append(record)
                    if before >= 0:
                        self._ended(record)
                    continue
                if before < 0:
                    before = len(self.ended)
                    if before:
                        self._console.print(f"{counted(before, 'trial')} ended earlier.", highlight=False)
                for number, epochs in record.epochs.items():
                    past.setdefault(number, epochs)
                share = sum((epochs - past[number]) / self._epochs for number, epochs in record.epochs.items())
                done, seconds = len(self.ended) - before + share, time.perf_counter() - self._began
                running = sum(epochs / self._epochs for epochs in record.epochs.values())
                missing = max(0.0, self._trials - len(self.ended) - running)
                self._progress.update(
                    task,
                    ended=len(self.ended),
                    running=len(record.epochs),
                    completed=len(self.ended) + running,
                    total=float(self._trials),
                    best=self._best(),
                    left=f"about {duration(seconds / done * missing)}" if done > 0 else "–",
                )

    def _best(self) -> str:
        values = [trial.f1 for trial in self.ended if trial.state == "complete" and trial.f1 is not None]
        return percent(max(values)) if values else "–"

    def _ended(self, trial: Trial) -> None:
        values = [each.f1 for each in self.ended if each.state == "complete" and each.f1 is not None]
        is_best = trial.state == "complete" and trial.f1 == max(values) and values.count(trial.f1) == 1
        f1 = "–" if trial.f1 is None else percent(trial.f1)
        settings = ", ".join(f"{_short(name)}={flow(value)}" for name, value in trial.settings.items())
        how = {"complete": "", "stopped": f"stopped after epoch {len(trial.curve)}; ", "failed": "failed; "}
        line = f"trial {trial.number + 1:>3}  F1 {f1:>5}  {how.get(trial.state, '')}{settings}"
        if trial.reason:
            line += f"  ({trial.reason})"
        style = "bold" if is_best else ("red" if trial.state == "failed" else "")
        self._console.print(Text(visible(f"{line}{'  best' if is_best else ''}"), style), soft_wrap=True)


def show_tuning(console: Console, tuning: Tuning) -> None:
    """Print the best trials, what mattered, and the best settings."""
    heads, rows = trial_table(tuning)
    table = Table(title=escape(visible(f"Best trials of {tuning.name}")), title_justify="left")
    for head in heads[:3]:
        table.add_column(head, justify="right")
    table.add_column("settings", overflow="fold")
    for row in rows[:_ROWS]:
        settings = ", ".join(f"{name}={value}" for name, value in zip(heads[3:], row[3:], strict=True) if value)
        table.add_row(*row[:3], escape(settings))
    console.print(table)
    if tuning.importance:
        shares = Table(title="Importance of each setting", title_justify="left")
        shares.add_column("setting")
        shares.add_column("share", justify="right")
        for name, share in tuning.importance.items():
            shares.add_row(escape(name), f"{share:.2f}")
        console.print(shares)
    console.print(note(tuning), highlight=False, soft_wrap=True, markup=False)


def note(tuning: Tuning) -> str:
    """Say how many trials there were, and what the figures are."""
    states = counted_states(tuning.trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    seeds = "" if tuning.seeds == 1 else f", mean over {tuning.seeds} seeds"
    best = percent(tuning.best.f1 or 0.0)
    return (
        f"{counted(len(tuning.trials), 'trial')}: {counts}. F1 is that of the best epoch on the validation "
        f"split{seeds}; the test split was not read. The best trial is {tuning.best.number + 1} with {best}: the "
        "best of so many is better on this split than it will be elsewhere."
    )


def trial_table(tuning: Tuning) -> tuple[list[str], list[list[str]]]:
    """Return the heads of the table of trials, and its rows, the best complete trial first."""
    names = list(dict.fromkeys(name for trial in tuning.trials for name in trial.settings))
    short = [_short(name) for name in names]
    heads = [s if short.count(s) == 1 else n for n, s in zip(names, short, strict=True)]
    ranks = {"complete": 0, "stopped": 1}
    ordered = sorted(tuning.trials, key=lambda t: (ranks.get(t.state, 2), -(t.f1 or 0.0), t.number))
    rows = []
    for trial in ordered:
        f1 = "–" if trial.f1 is None else percent(trial.f1)
        how = trial.state if trial.state != "stopped" else f"stopped at {len(trial.curve)}"
        values = [flow(trial.settings[name]) if name in trial.settings else "" for name in names]
        rows.append([str(trial.number + 1), f1, how, *map(visible, values)])
    return ["trial", "F1", "", *heads], rows


def _short(name: str) -> str:
    """Shorten the name of a setting where it stays clear: `training.learning_rate` is `learning_rate`."""
    return name.removeprefix("training.").removeprefix("model.")


def write_page(tuning: Tuning, path: Path) -> None:
    """Write the page, which needs no other file.

    Raises:
        NertoolError: It cannot be written there.
    """
    heads, rows = trial_table(tuning)
    view: dict[str, Any] = {
        "title": f"Settings for {visible(tuning.name)}",
        "note": note(tuning),
        "best": {name: visible(flow(value)) for name, value in tuning.best.settings.items()},
        "importance": [(name, f"{share:.2f}", round(100 * share, 1)) for name, share in tuning.importance.items()],
        "heads": heads,
        "rows": rows,
        "width": _WIDTH,
        "height": _HEIGHT,
        "dots": _dots(tuning.trials),
        "ticks": _ticks(tuning.trials),
    }
    pages.write_page(path, "tuning.html", view)


def _scale(trials: Sequence[Trial]) -> tuple[float, float]:
    """Return the range of F1 that the diagram shows: most of it would be empty below the worst complete trial."""
    values = [trial.f1 for trial in trials if trial.f1 is not None and trial.state == "complete" and trial.f1 > 0]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    margin = max(0.005, (high - low) * 0.1)
    return max(0.0, low - margin), min(1.0, high + margin)


def _dots(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    low, high = _scale(trials)
    best = 0.0
    dots = []
    for trial in trials:
        if trial.f1 is None:
            continue
        is_best = trial.state == "complete" and trial.f1 > best
        best = max(best, trial.f1) if trial.state == "complete" else best
        dots.append(
            {
                "x": round((trial.number + 0.5) / max(len(trials), 1) * _WIDTH, 1),
                "y": round(_HEIGHT * (1 - (max(trial.f1, low) - low) / (high - low)), 1),
                "state": "best" if is_best else trial.state,
                "label": f"trial {trial.number + 1}: {percent(trial.f1)} ({trial.state})",
            }
        )
    return dots


def _ticks(trials: Sequence[Trial]) -> list[tuple[str, float]]:
    low, high = _scale(trials)
    return [(percent(low + (high - low) * step / 4), round(_HEIGHT * (1 - step / 4), 1)) for step in range(5)]
