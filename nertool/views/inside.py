"""The inside of a model at work on a sentence: in a terminal, as a page, and in notebooks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nertool.model.trace import Trace
from nertool.tagging.inside import Inside
from nertool.views import pages
from nertool.views.console import show_attention
from nertool.views.visible import visible

MOST_LABELS = 24
"""Columns of a table of labels; those that are nowhere probable are left out first."""

_SUBSCRIPT = re.compile(r"([^_]*)(?:_(\{[^}]*\}|\w)|$)")
_FAINTEST, _DEEPEST = 0.03, 0.62  # opacity of a cell: text on the deepest can still be read
_LEAST = 0.005  # a probability below this is shown as a dot
_EXTREMES = 4  # transitions at either end that a terminal shows
_GATES = {"input": "in", "forget": "forget", "output": "out", "reset": "reset", "update": "update"}

_NAMES = {
    "paths": "Paths",
    "gates": "Gates",
    "attention": "Attention",
    "emissions": "Scores",
    "transitions": "Transitions",
    "marginals": "P",
}
TEACH = {
    "paths": "The CRF weighs whole label sequences: P(y) = exp(score(y) / T) / Σ exp(score(y′) / T), where a "
    "sequence scores the sum of its emissions and transitions. The second-best sequence shows where the model "
    "hesitates.",
    "gates_lstm": "The input gate says how much of a new token is written into the memory c, the forget gate how "
    "much of the memory is kept (1: all, 0: nothing), the output gate how much of it is shown to the rest of the "
    "network. The figures are means over the units.",
    "gates_gru": "The update gate says how much of the old state is kept (1: all), the reset gate how much of it "
    "is used to propose a new one. The figures are means over the units.",
    "gates_rnn": "A plain RNN has no gates: each token rewrites the whole state, so what came long before fades. "
    "The change says how far a token moves the state.",
    "attention": "Each row says how a token shares its attention among the tokens of the sentence; rows sum to 1.",
    "emissions": "The network scores every label at every token, here without looking at the neighbouring labels. "
    "Only differences within a row matter.",
    "transitions": "The CRF has learnt a score for each label after each other one, from the row to the column. "
    "It is the same for all sentences. Sequences that the label scheme forbids are ruled out.",
    "marginals": "The probability of each label at each token, summed over all sequences that have it there; "
    "rows sum to 1. The transitions are in it: compare it with the scores above.",
}
FORMULAS = {
    "gates_lstm": "i, f, o = σ(W x_t + U h_{t−1} + b)    c_t = f ⊙ c_{t−1} + i ⊙ tanh(W_c x_t + U_c h_{t−1} + b_c)"
    "    h_t = o ⊙ tanh(c_t)",
    "gates_gru": "r, z = σ(W x_t + U h_{t−1} + b)    n_t = tanh(W_n x_t + b_n + r ⊙ (U_n h_{t−1} + b′_n))"
    "    h_t = (1 − z) ⊙ n_t + z ⊙ h_{t−1}",
    "gates_rnn": "h_t = tanh(W x_t + U h_{t−1} + b)",
    "attention": "a_ij = softmax_j(score(q_i, k_j))",
    "emissions": "e_t = W h_t + b",
    "transitions": "score(y) = start(y_1) + Σ_t e_t(y_t) + Σ_t A(y_{t−1}, y_t) + end(y_n)",
    "marginals": "P(y_t = k) = α_t(k) β_t(k) / Z",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map.

    Attributes:
        text: What it shows.
        heat: Its opacity; negative: in the colour of negative values.
        chosen: Whether it is on the best path.
        title: What it says in full.
    """

    text: str
    heat: float
    chosen: bool = False
    title: str = ""


@dataclass(frozen=True)
class Heat:
    """A heat map.

    Attributes:
        title: Of the table.
        corner: What the rows are.
        groups: Heads above those of the columns, each with how many columns it covers; may be none.
        heads: Of the columns.
        rows: The head of each row, and its cells.
    """

    title: str
    corner: str
    groups: list[tuple[str, int]]
    heads: list[str]
    rows: list[tuple[str, list[Cell]]]


def show_inside(console: Console, sentences: Sequence[Inside]) -> None:
    """Print the inside of a model at work on sentences, and the strongest transitions of its decoder.

    Args:
        console: Where to print.
        sentences: Of one model, at least one.
    """

    def line(text: str, style: str | None = None) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal, style=style)

    for number, inside in enumerate(sentences):
        if number:
            line("")
        console.print(_label_table(inside))
        for text in path_lines(inside):
            line(text)
        for table in gate_maps(inside):
            console.print(_gate_table(table))
        if inside.attention is not None:
            show_attention(console, inside.tokens, inside.attention.tolist())
    for text in transition_lines(sentences[0]):
        line(text)
    line("")
    for part in parts(sentences[0]):
        line(f"{_NAMES[part.partition('_')[0]]}: {TEACH[part]}", "dim")
    for text in notes(sentences[0]):
        line(text)


def write_page(sentences: Sequence[Inside], model: str, path: Path) -> None:
    """Write the page.

    Args:
        sentences: Of one model, at least one.
        model: Its name.
        path: Where to write.

    Raises:
        NertoolError: It cannot be written there.
    """
    pages.write_page(path, "inside.html", _view(sentences, model))


def fragment(sentences: Sequence[Inside], model: str) -> str:
    """Return what the page shows as a piece of HTML for notebooks."""
    return pages.render("inside_fragment.html", _view(sentences, model))


def parts(inside: Inside) -> list[str]:
    """Return the keys of `TEACH` for what a model has, in the order of the network."""
    result = ["paths"]
    if inside.traces:
        result.append(f"gates_{inside.traces[0].kind}")
    if inside.attention is not None:
        result.append("attention")
    result.append("emissions")
    if inside.decoder == "crf":
        result.append("transitions")
    return [*result, "marginals"]


def notes(inside: Inside) -> list[str]:
    """Say what a model does not have, or does not show."""
    result = []
    if not inside.complete:
        result.append("An exported model shows neither gates nor attention: name the run directory to see them.")
    elif not inside.traces:
        what = "looks at each token alone" if inside.encoder == "none" else "has no gates"
        result.append(f"The encoder {inside.encoder} {what}.")
    if inside.decoder != "crf":
        result.append(
            f"The decoder {inside.decoder} has learnt no transitions: a sequence scores what its labels do."
        )
    return result


def path_lines(inside: Inside) -> list[str]:
    """Describe the two best label sequences, and where they part."""
    lines = [f"Best path: probability {_share(inside.paths[0].probability)}, score {inside.paths[0].score:.2f}."]
    if inside.parting:
        first, second = (inside.names(path) for path in inside.paths)
        where = ", ".join(
            f"{visible(inside.tokens[token])} is {visible(second[token])} instead of {visible(first[token])}"
            for token in inside.parting
        )
        other = inside.paths[1]
        lines.append(f"Second best: probability {_share(other.probability)}, score {other.score:.2f}: {where}.")
    return lines


def transition_lines(inside: Inside) -> list[str]:
    """Name the transitions with the highest and the lowest scores that are allowed; none without a CRF."""
    if inside.decoder != "crf":
        return []
    scores = inside.transitions.transitions
    places = np.argwhere(np.isfinite(scores))
    places = places[np.argsort(-scores[tuple(places.T)], kind="stable")].tolist()

    def named(some: Iterable[list[int]]) -> str:
        return ", ".join(
            f"{visible(inside.labels[a])} → {visible(inside.labels[b])} {_signed(scores[a, b])}" for a, b in some
        )

    return [
        f"Transitions with the highest scores: {named(places[:_EXTREMES])}.",
        f"The lowest that are allowed: {named(places[::-1][:_EXTREMES])}.",
    ]


def emission_map(inside: Inside, shown: Sequence[int]) -> Heat:
    """Return the label scores as a heat map."""
    return _label_map(inside, shown, inside.emissions, "Emissions", _signed)


def marginal_map(inside: Inside, shown: Sequence[int]) -> Heat:
    """Return the probabilities of labels as a heat map."""
    return _label_map(inside, shown, inside.marginals, "Marginals", _share)


def transition_map(inside: Inside, shown: Sequence[int]) -> Heat:
    """Return the decoder's scores as a heat map, with a row for the start and a column for the end."""
    scores = inside.transitions
    names = [visible(inside.labels[label]) for label in shown]
    table = np.full((len(shown) + 1, len(shown) + 1), np.nan)
    table[0, :-1] = scores.start[list(shown)]
    table[1:, :-1] = scores.transitions[np.ix_(shown, shown)]
    table[1:, -1] = scores.end[list(shown)]
    most = _most(table)
    rows = []
    for name, values in zip(["start", *names], table.tolist(), strict=True):
        cells = []
        for other, value in zip([*names, "end"], values, strict=True):
            what = f"{other} after {name}"
            if np.isnan(value):
                cells.append(Cell("", 0.0))
            elif np.isinf(value):
                cells.append(Cell("×", 0.0, title=f"{what}: forbidden"))
            else:
                cells.append(Cell(_signed(value), _heat(value, most), title=f"{what}: {_signed(value)}"))
        rows.append((name, cells))
    return Heat("Transitions", "from, to", [], [*names, "end"], rows)


def gate_maps(inside: Inside) -> list[Heat]:
    """Return a heat map of the gates for each layer, with its directions side by side."""
    result = []
    layers = sorted({own.layer for own in inside.traces})
    for layer in layers:
        own = [each for each in inside.traces if each.layer == layer]
        columns = [_columns(each) for each in own]
        groups = [
            ("← backward" if each.backward else "forward →", len(names))
            for each, names in zip(own, columns, strict=True)
        ]
        heads = [name for names in columns for name in names]
        values = [column for names in columns for column in names.items()]
        rows = []
        for token, text in enumerate(inside.tokens):
            cells = []
            for name, column in values:
                share = float(column[token])
                title = f"{name} at {visible(text)}: {share:.3f}"
                cells.append(Cell(f"{share:.2f}", _within(share, column), title=title))
            rows.append((visible(text), cells))
        title = f"{own[0].kind.upper()}, layer {layer}" if len(layers) > 1 else own[0].kind.upper()
        result.append(Heat(title, "token", groups, heads, rows))
    return result


def attention_maps(inside: Inside) -> list[Heat]:
    """Return a heat map for each head of attention."""
    tokens = [visible(token) for token in inside.tokens]
    result = []
    heads = () if inside.attention is None else inside.attention
    for number, weights in enumerate(heads, 1):
        rows = []
        for token, shares in zip(tokens, weights.tolist(), strict=True):
            pairs = zip(tokens, shares, strict=True)
            cells = [
                Cell(_share(share), _heat(share, 1.0), title=f"{token} looks at {other}: {share:.3f}")
                for other, share in pairs
            ]
            rows.append((token, cells))
        result.append(Heat(f"Head {number}" if len(heads) > 1 else "Weights", "from, to", [], tokens, rows))
    return result


def shown_labels(sentences: Sequence[Inside]) -> list[int]:
    """Return the labels that tables have room for, in the model's order: the most probable somewhere."""
    count = len(sentences[0].labels)
    if count <= MOST_LABELS:
        return list(range(count))
    highest = np.max([inside.marginals.max(0) for inside in sentences], 0)
    return sorted(np.argsort(-highest, kind="stable")[:MOST_LABELS].tolist())


def _view(sentences: Sequence[Inside], model: str) -> dict[str, Any]:
    first, shown = sentences[0], shown_labels(sentences)
    left_out = len(first.labels) - len(shown)
    return {
        "title": "Inside the model",
        "facts": {
            "Model": visible(model),
            "Encoder": first.encoder,
            "Decoder": first.decoder,
            "Temperature": f"T = {first.temperature:.2f}",
        },
        "notes": notes(first),
        "left_out": f"{left_out:,} more labels, which are less probable everywhere, are not shown."
        if left_out
        else "",
        "teach": TEACH,
        "formulas": {part: _pieces(formula) for part, formula in FORMULAS.items()},
        "gates": f"gates_{first.traces[0].kind}" if first.traces else "",
        "sentences": [
            {
                "text": visible(" ".join(inside.tokens)),
                "paths": path_lines(inside),
                "rows": _path_rows(inside),
                "gates": gate_maps(inside),
                "attention": attention_maps(inside),
                "emissions": emission_map(inside, shown),
                "marginals": marginal_map(inside, shown),
            }
            for inside in sentences
        ],
        "transitions": transition_map(first, shown) if first.decoder == "crf" else None,
    }


def _pieces(formula: str) -> list[tuple[str, str]]:
    """Split a formula into texts, each with the subscript after it.

    >>> _pieces("e_t = W h_{t−1} + b")
    [('e', 't'), (' = W h', 't−1'), (' + b', '')]
    """
    return [(text, sub.strip("{}")) for text, sub in _SUBSCRIPT.findall(formula) if text]


def _path_rows(inside: Inside) -> list[dict[str, Any]]:
    """Return a row for each label sequence: its name, its probability, and for each token its label."""
    result: list[dict[str, Any]] = []
    for name, path in zip(("best", "second"), inside.paths, strict=False):
        pairs = enumerate(inside.names(path))
        labels = [(visible(label), bool(result) and token in inside.parting) for token, label in pairs]
        result.append({"name": name, "share": _share(path.probability), "labels": labels})
    return result


def _label_map(inside: Inside, shown: Sequence[int], values: np.ndarray, title: str, form: Any) -> Heat:
    best = inside.paths[0].labels.tolist()
    most = 1.0 if title == "Marginals" else _most(values)
    heads = [visible(inside.labels[label]) for label in shown]
    rows = []
    for token, (text, row, own) in enumerate(zip(inside.tokens, values.tolist(), best, strict=True)):
        cells = []
        for label, head in zip(shown, heads, strict=True):
            what = f"{head} at {visible(text)}: {values[token, label]:.3f}"
            chosen = label == own
            title_of = f"{what}, on the best path" if chosen else what
            cells.append(Cell(form(row[label]), _heat(row[label], most), chosen, title_of))
        rows.append((visible(text), cells))
    return Heat(title, "token", [], heads, rows)


def _label_table(inside: Inside) -> Table:
    """Make the table of a terminal: for each token its label, and the next one."""
    table = Table(title=escape(visible(" ".join(inside.tokens))), title_justify="left", title_style="bold")
    table.add_column("token", overflow="fold")
    for head, justify in (("best", "left"), ("P", "right"), ("score", "right"), ("next", "left")):
        table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_column("P", justify="right")
    table.add_column("score", justify="right")
    if len(inside.paths) > 1:
        table.add_column("second best", overflow="fold")
    best = inside.paths[0].labels.tolist()
    second = inside.names(inside.paths[-1])
    for token, text in enumerate(inside.tokens):
        own, shares, scores = best[token], inside.marginals[token], inside.emissions[token]
        others = [label for label in np.argsort(-shares, kind="stable").tolist() if label != own]
        row = [visible(text), visible(inside.labels[own]), _share(shares[own]), _signed(scores[own])]
        row += (
            [visible(inside.labels[others[0]]), _share(shares[others[0]]), _signed(scores[others[0]])]
            if others
            else [""] * 3
        )
        if len(inside.paths) > 1:
            row.append(visible(second[token]) if token in inside.parting else "")
        table.add_row(*map(escape, row))
    return table


def _gate_table(heat: Heat) -> Table:
    """Make a table of gates for a terminal of 80 columns; arrows stand for the directions."""
    arrows = [text.strip("abcdefghijklmnopqrstuvwxyz ") for text, count in heat.groups for _ in range(count)]
    table = Table(
        title=escape(heat.title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        collapse_padding=True,
    )
    table.add_column(f"\n{heat.corner}", overflow="fold")
    for name, arrow in zip(heat.heads, arrows, strict=True):
        table.add_column(f"{arrow}\n{name}", justify="right", no_wrap=True)
    for name, cells in heat.rows:
        table.add_row(escape(name), *(cell.text for cell in cells))
    return table


def _columns(own: Trace) -> dict[str, np.ndarray]:
    """Return what a table shows of a direction: means of gates, norms of memory and states."""
    columns = {_GATES[name]: gate.mean(-1) for name, gate in own.gates.items()}
    if own.memory is not None:
        columns["‖c‖"] = np.linalg.norm(own.memory, axis=-1)
    columns["‖h‖"] = np.linalg.norm(own.states, axis=-1)
    if not own.gates:
        states = own.states[::-1] if own.backward else own.states
        change = np.linalg.norm(np.diff(states, axis=0, prepend=np.zeros_like(states[:1])), axis=-1)
        columns["change"] = change[::-1] if own.backward else change
    return columns


def _most(values: np.ndarray) -> float:
    """Return the largest absolute value that is finite, at least a little more than 0."""
    finite = np.abs(values[np.isfinite(values)])
    return max(float(finite.max(initial=0.0)), 1e-9)


def _heat(value: float, most: float) -> float:
    """Return the opacity of a value, with its sign."""
    share = min(abs(value) / most, 1.0)
    opacity = _DEEPEST * share
    return 0.0 if opacity < _FAINTEST else round(opacity if value > 0 else -opacity, 3)


def _within(value: float, column: np.ndarray) -> float:
    """Return the opacity of a value between the lowest and the highest of its column."""
    low, high = float(column.min()), float(column.max())
    share = (value - low) / (high - low) if high > low else 0.5
    return round(_FAINTEST + (_DEEPEST - _FAINTEST) * share, 3)


def _signed(value: float) -> str:
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def _share(value: float) -> str:
    return f"{value:.2f}" if value >= _LEAST else "·"
