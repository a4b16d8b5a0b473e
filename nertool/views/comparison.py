"""The report of a comparison: JSON, Markdown and an HTML page, with pictures; and what the terminal shows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nertool.comparison.records import Comparison
from nertool.config.files import refuse_links, write_whole
from nertool.errors import NertoolError
from nertool.views import latex, pictures, tables
from nertool.views.console import counted, duration
from nertool.views.visible import as_markdown, visible

_MATRIX_CELLS = 12  # more cells than this do not fit into a matrix that can be read
_FLOOR = "10⁻¹²"
_CAPTIONS: list[tuple[str, str, Callable[[Comparison], Any], str]] = [
    (
        "scores",
        "Score of each cell",
        pictures.draw_scores,
        "A ring for each seed, in cross-validation for each fold. The diamond is the mean over the seeds, and its "
        "line one standard deviation to either side.",
    ),
    (
        "learning",
        "Learning curve",
        pictures.draw_learning,
        "F1 against the number of training sentences, on a logarithmic scale. A ring for each seed, which draws "
        "its own sentences, the smaller amounts from the larger ones; the line joins the means, and its bars are "
        "one standard deviation to either side.",
    ),
    (
        "curves",
        "Validation F1 by epoch",
        pictures.draw_curves,
        "Validation F1 after each epoch: mean over the seeds that reached it, in a band from lowest to highest. "
        "Values below the scale come from the first sixth of the epochs.",
    ),
    (
        "gradients",
        "Gradients through time",
        pictures.draw_gradients,
        "The norm of a gradient that begins as 1, after some steps back through the recurrent state (geometric "
        "mean over seeds). On this logarithmic scale, a straight falling line is a vanishing gradient: each step "
        "keeps the same fraction of it. A rising line is an exploding gradient; a level one arrives unchanged. "
        f"Norms below {_FLOOR} are drawn as {_FLOOR}.",
    ),
]


class _Picture(NamedTuple):
    """What the templates show of a picture."""

    name: str
    title: str
    caption: str
    path: str
    svg: Markup


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `report.html`, `report.md`, `report.json`, `report.tex` and, with matplotlib, `pictures/*.svg`.

    Args:
        comparison: The results.
        folder: Where to write; made if it does not exist.

    Returns:
        The files, the page first.

    Raises:
        NertoolError: One of them cannot be written.
    """
    names = [f"report.{suffix}" for suffix in ("html", "md", "json", "tex")]
    refuse_links(folder, [*names, *(f"pictures/{name}.svg" for name, *_ in _CAPTIONS)])
    drawn, files = _draw(comparison, folder)
    view = {**_view(comparison), "pictures": drawn, "can_draw": pictures.available()}
    _make(folder)
    options: dict[str, Any] = {
        "loader": PackageLoader("nertool.views"),
        "trim_blocks": True,
        "lstrip_blocks": True,
        "keep_trailing_newline": True,
    }
    page = Environment(autoescape=True, finalize=_one_line, **options).get_template("report.html")
    text = Environment(finalize=as_markdown, **options).get_template("report.md")
    contents = {
        folder / "report.html": page.render(view),
        folder / "report.md": text.render(view),
        folder / "report.json": json.dumps(_tree(comparison), indent=2, ensure_ascii=False, allow_nan=False)
        + "\n",
        folder / "report.tex": latex_table(comparison),
    }
    for path, content in contents.items():
        write_whole(path, content.encode("utf-8", "replace"))
    return [*contents, *files]


def latex_table(comparison: Comparison) -> str:
    """Return the main table for LaTeX, with the scores and without speeds."""
    heads = tables.heads(comparison)
    shown = [number for number, head in enumerate(heads) if head in (*tables.SCORES, "training sentences")]
    rows, best = [], {}
    for row in tables.rows(comparison):
        rows.append([row.name, *(row.values[column] for column in shown)])
        if row.best is not None:
            best[len(rows) - 1] = 1 + shown.index(row.best)
    caption = (
        f"{tables.title(comparison)}: F1 in percent, mean ± standard deviation over "
        f"{counted(len(comparison.seeds), 'seed')}"
        + (f" of a cross-validation with {comparison.folds} folds" if comparison.folds else "")
        + f"; trained on {comparison.corpus}"
    )
    heads = ["cell", *(heads[column] for column in shown)]
    return latex.booktabs(heads, rows, caption=caption, label="tab:comparison", bold=best)


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the main table, what failed, and the pairs that differ."""
    # Figures are never truncated: a narrow terminal gets fewer columns, and the report has all of them.
    heads = tables.heads(comparison)
    wide = console.width >= 120 + 13 * (len(heads) - 8)
    shown = [number for number, head in enumerate(heads) if wide or head in tables.narrow(comparison)]
    table = Table(title=escape(tables.title(comparison)), title_justify="left")
    table.add_column("cell", overflow="fold")
    for column in shown:
        table.add_column(heads[column].replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in tables.rows(comparison):
        values = [row.values[column] for column in shown]
        table.add_row(escape(row.name), *values, style=None if row.best is None else "bold")
    console.print(table)
    notes = [
        f"failed: {cell.name}, seed {failure.seed}{f', fold {failure.fold}' if failure.fold else ''}: "
        f"{failure.reason} ({failure.log})"
        for cell in comparison.cells
        for failure in cell.failures
    ]
    if comparison.base and comparison.pairs:
        notes.append(f"To base: difference in points of F1; {tables.mark_note(comparison)}.")
    pairs = [pair for pair in comparison.pairs if tables.differs(pair) or tables.differs_each_time(pair)]
    if pairs:
        differing = Table(title=f"Pairs with an adjusted p below {tables.LEVEL}", title_justify="left")
        for head in ("higher", "lower"):
            differing.add_column(head, overflow="fold")
        for head in ("difference", "p over seeds", "greatest p over sentences"):
            differing.add_column(head, justify="right")
        for pair in pairs:
            names = [escape(visible(name)) for name in (pair.first, pair.second)]
            differing.add_row(
                *(names if pair.difference >= 0 else names[::-1]),
                tables.points(abs(pair.difference)),
                tables.p_value(pair.over_seeds_adjusted),
                tables.p_value(max(pair.over_sentences_adjusted.values(), default=None)),
            )
        console.print(differing)
    elif comparison.pairs:
        notes.append(
            f"No pair has an adjusted p below {tables.LEVEL}, over seeds or over the sentences of every seed."
        )
    if comparison.pairs:
        notes.append(tables.count_note(comparison))
    for note in [*tables.findings(comparison), *notes, tables.speed_note(comparison)]:
        # A terminal gets whole words, a file whole lines.
        console.print(visible(note), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _draw(comparison: Comparison, folder: Path) -> tuple[list[_Picture], list[Path]]:
    """Draw and write the pictures; without matplotlib there are none."""
    drawn: list[_Picture] = []
    if pictures.available():
        for name, title, draw, caption in _CAPTIONS:
            figure = draw(comparison)
            if figure is not None:
                path = f"pictures/{name}.svg"
                _make(folder / "pictures")
                pictures.save(figure, folder / path)
                drawn.append(
                    _Picture(name, title, caption, path, Markup(pictures.inline_svg(figure, name, title)))
                )
    return drawn, [folder / picture.path for picture in drawn]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise NertoolError(f"{folder}: the folder cannot be created: {problem.strerror or problem}") from None


def _view(comparison: Comparison) -> dict[str, Any]:
    """Return what both templates show, as text."""
    cells = [cell for cell in comparison.cells if cell.runs]
    seeds = tables.tested_seeds(comparison)
    # With a base the main table has all differences.
    shows_matrix = len(cells) > 1 and len(comparison.cells) <= _MATRIX_CELLS and comparison.base is None
    return {
        "title": tables.title(comparison),
        # In a code block, which shows it as it is; the page escapes it as well.
        "command": visible(comparison.command),
        "facts": {
            "Trained on": comparison.corpus,
            "Varied": tables.varied(comparison),
            "Seeds": ", ".join(map(str, comparison.seeds)),
            **({"Folds": str(comparison.folds)} if comparison.folds else {}),
            "Compared on": "all folds of the training split, pooled"
            if comparison.folds
            else f"{comparison.split} split",
            "Jobs": f"{counted(comparison.jobs, 'training')} at a time, with one thread each",
            "Time": duration(comparison.seconds),
            "Versions": ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        },
        "heads": tables.heads(comparison),
        "rows": tables.rows(comparison),
        "table_notes": tables.table_notes(comparison),
        "failures": [(cell.name, failure) for cell in comparison.cells for failure in cell.failures],
        "matrix": tables.matrix(comparison) if shows_matrix else [],
        "mark_note": Markup(tables.mark_note(comparison)),
        "seeds": seeds,
        "pairs": [(pair, tables.pair_values(pair, seeds)) for pair in comparison.pairs],
        "test_notes": tables.test_notes(comparison),
    }


def _tree(comparison: Comparison) -> Any:
    """Return `Comparison.to_json` as strict JSON, without the counts of sentences, which the runs keep."""
    cells = [replace(cell, runs=[replace(run, counts=[]) for run in cell.runs]) for cell in comparison.cells]
    tree = replace(comparison, cells=cells).to_json()
    for cell in tree["cells"]:
        for run in cell["runs"]:
            del run["counts"]
    return _finite(tree)


def _finite(tree: Any) -> Any:
    """Replace numbers that JSON lacks by None, such as the loss of a training that diverged."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _one_line(value: Any) -> Any:
    return visible(value) if type(value) is str else value
