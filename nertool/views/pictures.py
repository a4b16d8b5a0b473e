"""Pictures of a training, a comparison and attention, drawn by matplotlib, which is imported when it is needed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from statistics import mean
from textwrap import wrap
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nertool.comparison.records import Comparison, Gradients
from nertool.comparison.statistics import mean_and_spread
from nertool.config.files import write_whole
from nertool.errors import NertoolError
from nertool.training.trainer import Epoch
from nertool.views import tables
from nertool.views.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = 1e-12
"""Norms of gradients below this are drawn as this: a logarithmic scale has no zero."""

_MOST_TYPES = 10  # whose lines can be told apart in one picture
_INK = "#24292f"
# Distinct to the usual eye and with each of the three kinds of colour blindness, and legible on white and
# on black. The lengths have no common divisor, so that 210 cells differ in colour, dashes or marker.
_COLOURS = ("#7744ff", "#bb9911", "#ee1166", "#33aaaa", "#666600", "#ee66ee")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2, 1, 2, 1, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Fonts for Chinese, Japanese and Korean that are likely to be installed.
_CJK = re.compile(r"(?i)\b(cjk|source han|wenquanyi|sans fallback|pingfang|hiragino sans|yahei|simhei|unifont)\b")
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "nertool",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#888888",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.handlelength": 4,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}


def available() -> bool:
    """Say whether pictures can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def draw_training(epochs: Sequence[Epoch]) -> Figure:
    """Draw the loss, and validation F1 over all entities and of each type, by epoch.

    Types without an entity in the validation split are left out; of more than ten, the most frequent ones are
    drawn.

    Args:
        epochs: All epochs of a training; at least one.

    Raises:
        NertoolError: matplotlib is not installed.
    """
    numbers = [epoch.number for epoch in epochs]
    best = epochs[epochs[-1].best - 1]
    supports = {name: scores.support for name, scores in best.validation.per_type.items() if scores.support}
    names = sorted(supports, key=lambda name: (-supports[name], name))
    with _style() as new:
        figure = new(11, max(4.2, 1.2 + 0.33 * min(len(names), _MOST_TYPES)))
        losses, scores = figure.subplots(1, 2)
        for axes in (losses, scores):
            axes.set(xlabel="epoch")
            axes.locator_params(axis="x", integer=True)
            axes.axvline(best.number, color=_INK, alpha=0.35, linewidth=1)
        losses.set(ylabel="mean loss of a sentence")
        losses.plot(numbers, [epoch.loss for epoch in epochs], label="training", **{**_look(0), "marker": "."})
        known = [(epoch.number, epoch.validation_loss) for epoch in epochs if epoch.validation_loss is not None]
        if known:
            # It is computed only where it may decide which epoch is the best.
            points = {**_look(2), "linestyle": "none"}
            losses.plot(*zip(*known, strict=True), label="validation, where F1 was the best so far", **points)
        losses.set_ylim(bottom=0)
        losses.legend()
        scores.set(ylabel="validation F1 (%)")
        every = max(1, len(epochs) // 8)
        for number, name in enumerate(names[:_MOST_TYPES]):
            f1 = [100 * epoch.validation.per_type[name].f1 for epoch in epochs]
            label = f"{shortened(name, 24)} ({supports[name]:,})"
            scores.plot(numbers, f1, label=label, markevery=(number % every, every), alpha=0.8, **_look(number))
        micro = [100 * epoch.validation.micro.f1 for epoch in epochs]
        scores.plot(
            numbers, micro, color=_INK, marker=".", linewidth=2.4, label=f"all ({best.validation.micro.support:,})"
        )
        rest = f"; {len(names) - _MOST_TYPES} rarer types not drawn" if len(names) > _MOST_TYPES else ""
        title = f"best epoch {best.number}: F1 {100 * best.validation.micro.f1:.2f}{rest}"
        scores.set_title(title)
        figure.legend(*scores.get_legend_handles_labels(), loc="outside right upper")
    return figure


def draw_curves(comparison: Comparison) -> Figure | None:
    """Draw validation F1 by epoch: the mean over the seeds that reached it, in a band from lowest to highest.

    The scale begins at the lowest value after the first sixth of the epochs: with the steep rise before that, the
    rest would be too close together.

    Returns:
        None without any curve.
    """
    cells = [each for each in enumerate(comparison.cells) if any(run.curve for run in each[1].runs)]
    if not cells:
        return None
    with _style() as new:
        figure = new(10, max(4.2, 0.6 + 0.5 * len(cells)))
        axes = figure.add_subplot(xlabel="epoch", ylabel="validation F1 (%)")
        axes.locator_params(axis="x", integer=True)
        later: list[float] = []
        for place, (number, cell) in enumerate(cells):
            reached = [
                [100 * score for score in scores if score is not None]
                for scores in zip_longest(*(run.curve for run in cell.runs))
            ]
            epochs = range(1, len(reached) + 1)
            look = _look(number)
            if len(cell.runs) > 1:
                band = [min(scores) for scores in reached], [max(scores) for scores in reached]
                axes.fill_between(epochs, *band, color=look["color"], alpha=0.13, linewidth=0)
            every = max(1, len(reached) // 8)
            # Each cell starts elsewhere, so that markers rarely cover one another.
            look["markevery"] = (place % every, every)
            means = [mean(scores) for scores in reached]
            later += means[len(means) // 6 :]
            axes.plot(epochs, means, label=_label(number, cell.name), **look)
        bottom, top = min(later), axes.get_ylim()[1]
        axes.set_ylim(bottom - 0.05 * (top - bottom), top)
        figure.legend(loc="outside right upper")
    return figure


def draw_gradients(comparison: Comparison) -> Figure | None:
    """Draw the norm of a gradient k steps back, before and after training; None without a recurrent state."""
    cells = [
        (number, cell.name, found)
        for number, cell in enumerate(comparison.cells)
        if (found := [run.gradients for run in cell.runs if run.gradients])
    ]
    if not cells:
        return None
    with _style() as new:
        figure = new(10, max(4.2, 0.6 + 0.5 * len(cells)))
        panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
        norms: dict[str, list[NDArray[np.float64]]] = {
            when: [_geometric_mean(gradients, when) for _, _, gradients in cells] for when in ("start", "end")
        }
        for axes, when, title in zip(panels, norms, ("before training", "after training"), strict=True):
            axes.set(title=title, xlabel="steps back", yscale="log")
            for (number, name, _), line in zip(cells, norms[when], strict=True):
                # The legend names each cell once.
                label = _label(number, name) if axes is panels[0] else None
                axes.plot(line, label=label, markevery=(number % 10, 10), **_look(number))
        powers = np.log10(np.concatenate([[1.0], *norms["start"], *norms["end"]]))
        panels[0].set(ylabel="norm of the gradient")
        # Whole decades, so that there are numbers at the axis however alike the norms.
        panels[0].set_ylim(10 ** np.floor(np.nanmin(powers) - 0.1), 10 ** np.ceil(np.nanmax(powers) + 0.1))
        panels[0].yaxis.set_major_formatter(_power_of_ten)
        panels[0].yaxis.set_minor_formatter("")
        figure.legend(loc="outside right upper")
    return figure


def draw_learning(comparison: Comparison) -> Figure | None:
    """Draw F1 against the number of training sentences; None where it does not vary."""
    lines = [cells for cells in tables.series(comparison) if len(cells) > 1]
    if not lines or any(tables.amount(cell) == 0 for cells in lines for cell in cells):
        return None
    with _style() as new:
        figure = new(10, max(4.2, 0.6 + 0.5 * len(lines)))
        axes = figure.add_subplot(xlabel="training sentences", ylabel=f"{comparison.split} F1 (%)", xscale="log")
        ticks: dict[float, str] = {}
        for number, cells in enumerate(lines):
            look = _look(number)
            sizes = [tables.amount(cell) for cell in cells]
            ticks |= {size: f"{size:,.0f}" for size in sizes}
            scores = [[100 * run.score for run in cell.runs] for cell in cells]
            for size, values in zip(sizes, scores, strict=True):
                rings = {"color": look["color"], "linestyle": "none", "marker": "o", "fillstyle": "none"}
                axes.plot([size] * len(values), values, alpha=0.6, **rings)
            spreads = [mean_and_spread(values)[1] or 0.0 for values in scores]
            name = tables.name_without_fraction(comparison, cells[0])
            label = "\n".join(wrap(shortened(name, 90), 34)) if name else None
            axes.errorbar(sizes, [mean(values) for values in scores], spreads, label=label, capsize=3, **look)
        places = sorted(ticks)
        # Numbers that would cover one another are left out, the largest stays.
        kept = [
            place
            for place, next_place in zip(places, [*places[1:], None], strict=True)
            if next_place is None or next_place > 1.06 * place
        ]
        axes.set_xticks(kept, [ticks[place] for place in kept])
        axes.minorticks_off()
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside right upper")
    return figure


def draw_scores(comparison: Comparison) -> Figure | None:
    """Draw F1 of each seed, or fold, and mean and standard deviation of each cell; None without any run."""
    if not any(cell.runs for cell in comparison.cells):
        return None
    with _style() as new:
        names = [_label(number, cell.name, 44) for number, cell in enumerate(comparison.cells)]
        lines = sum(name.count("\n") + 1.6 for name in names)
        figure = new(10, 1 + 0.2 * lines)
        axes = figure.add_subplot(xlabel=f"{comparison.split} F1 (%)")
        axes.grid(axis="y", visible=False)
        for number, cell in enumerate(comparison.cells):
            if not cell.runs:
                axes.annotate("no run", (0.5, number), xycoords=("axes fraction", "data"), va="center", alpha=0.7)
                continue
            scores = [100 * run.score for run in cell.runs]
            middle, spread = mean_and_spread(scores)
            look = {"color": _look(number)["color"], "linestyle": "none"}
            folds = [100 * fold.test for run in cell.runs for fold in run.folds]
            rings = folds or scores
            axes.plot(rings, [number - 0.14] * len(rings), marker="o", fillstyle="none", alpha=0.9, **look)
            axes.errorbar(middle, number + 0.14, xerr=spread, marker="D", capsize=3, elinewidth=1.4, **look)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
    return figure


def draw_attention(tokens: Sequence[str], weights: ArrayLike, title: str) -> Figure:
    """Draw a heat map for each head: how much each token (row) attends to each token (column).

    Args:
        tokens: Of one sentence.
        weights: (heads, tokens, tokens); rows sum to 1.
        title: Of the picture.

    Raises:
        ValueError: The weights have another shape.
        NertoolError: matplotlib is not installed.
    """
    heat: NDArray[np.float64] = np.asarray(weights, dtype=float)
    if heat.ndim != 3 or not heat.size or heat.shape[1:] != (len(tokens), len(tokens)):
        raise ValueError(f"weights of shape {heat.shape} for {len(tokens)} tokens, not (heads, tokens, tokens)")
    heads = len(heat)
    columns = min(heads, 2 if len(tokens) > 24 else 4)
    rows = -(-heads // columns)
    side = min(max(0.2 * len(tokens), 1.4), 8.0)
    # A label needs as much room as its font is high; if there are more tokens than fit, every nth is named.
    step = max(1, -(-len(tokens) // int(side / 0.11)))
    places = range(0, len(tokens), step)
    labels = [shortened(tokens[place], 14) for place in places]
    with _style() as new:
        figure = new(columns * (side + 0.3) + 1.9, rows * (side + 0.4) + 1.6, "compressed")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for head, axes in enumerate(panels):
            if head >= heads:
                axes.remove()
                continue
            image = axes.imshow(heat[head], vmin=0, vmax=heat.max(), cmap="Blues", interpolation="none")
            axes.set_title(f"head {head + 1}", fontsize=9)
            axes.grid(visible=False)
            axes.tick_params(length=0, labelsize=min(8, 72 * side / len(tokens) * step * 0.8))
            axes.set_xticks(places, labels, rotation=90)
            axes.set_yticks(places, labels)
        figure.suptitle(shortened(title, 30 * columns), fontsize=10)
        figure.supylabel("token", fontsize=9)
        figure.supxlabel("attends to", fontsize=9)
        figure.colorbar(image, ax=list(panels[:heads]), label="attention", shrink=0.8, aspect=30)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure on white, as .svg or .png, with the same bytes for the same figure.

    Raises:
        NertoolError: It cannot be written there.
    """
    write_whole(path, _rendered(figure, path.suffix.lstrip(".").lower(), facecolor="white", dpi=150))


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an element of an HTML page, without background and in the colour of the text.

    Args:
        figure: What to show.
        name: Unique in the page; prefix of each id in the element.
        label: What a screen reader says.
    """
    root = ElementTree.fromstring(_rendered(figure, "svg", transparent=True))
    for parent in list(root.iter()):
        for child in list(parent):
            # A style element would apply to the whole page.
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            if key == "id":
                value = f"{name}-{value}"
            elif key.endswith("href"):
                value = value.replace("#", f"#{name}-", 1) if value.startswith("#") else value
            else:
                value = value.replace("url(#", f"url(#{name}-").replace(_INK, "currentColor")
            element.attrib[key.rpartition("}")[2]] = value
    for key in ("width", "height", "version"):
        del root.attrib[key]
    width = root.attrib["viewBox"].split()[2]
    style = f"stroke-linejoin: round; stroke-linecap: butt; width: 100%; max-width: {float(width):g}pt"
    root.attrib.update({"role": "img", "aria-label": label, "style": style})
    return ElementTree.tostring(root, encoding="unicode")


def shortened(text: str, length: int) -> str:
    """Return the text in one line, truncated to a number of characters."""
    text = visible(text)
    return text if len(text) <= length else text[: length - 1] + "…"


@contextmanager
def _style() -> Iterator[Callable[..., Figure]]:
    """Use the style of nertool, whatever the user's settings; gives a function that makes a figure, in inches."""
    try:
        from matplotlib import font_manager, style
        from matplotlib.figure import Figure
    except ImportError:
        raise NertoolError("pictures need matplotlib: pip install 'nertool[plots]'") from None
    found = sorted({font.name for font in font_manager.fontManager.ttflist if _CJK.search(font.name)})
    with style.context(["default", {**_STYLE, "font.family": ["DejaVu Sans", *found]}]), warnings.catch_warnings():
        # A character that no font has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        yield lambda width, height, layout="constrained": Figure(figsize=(width, height), layout=layout)


def _rendered(figure: Figure, kind: str, **options: Any) -> bytes:
    target = BytesIO()
    # No date and no version in the file: same figure, same bytes.
    nothing: dict[str, Any] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
    with _style():
        figure.savefig(target, format=kind, metadata=nothing[kind], **options)
    return target.getvalue()


def _look(number: int) -> dict[str, Any]:
    """Return colour, dashes and marker of a cell, the same in all pictures."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }


def _label(number: int, name: str, width: int = 34) -> str:
    """Return the number of a cell as in the tables, and its name, in up to three lines."""
    return "\n".join(wrap(shortened(f"{number + 1}  {name}", 3 * width - 10), width))


def _geometric_mean(gradients: Sequence[Gradients], when: str) -> NDArray[np.float64]:
    """Compute the geometric mean over seeds, of the steps that all of them have."""
    rows = [getattr(each, when) for each in gradients]
    norms = np.array([row[: min(map(len, rows))] for row in rows], dtype=float)
    return np.asarray(np.exp(np.log(np.clip(norms, FLOOR, 1 / FLOOR)).mean(axis=0)))


def _power_of_ten(value: float, _place: float) -> str:
    power = round(np.log10(value))
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
