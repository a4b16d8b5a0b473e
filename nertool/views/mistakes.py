"""What a model gets wrong, on a terminal and as an HTML page that needs no other file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nertool.evaluation.mistakes import Bin, Findings
from nertool.views import pages, wording
from nertool.views.console import counted
from nertool.views.visible import visible

_CONFUSIONS = 20  # that are listed where the console is too narrow for a table
_SIDE = 300  # of the diagram, in its own units
_SPREAD = 1.96  # standard deviations to either side that hold 95 % of a normal distribution


def show_findings(console: Console, findings: Findings, title: str) -> None:
    """Print the tables, and the sentences with the most confident mistakes."""

    def line(text: str) -> None:
        # A terminal gets whole words, a file whole lines.
        console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)

    console.print(_outcomes(findings, title))
    line(wording.outcome_note(findings))
    line("; ".join([wording.sizes(findings), *(" ".join(share) for share in wording.shares(findings).items())]))
    console.print(_confusions(findings, console.width))
    if findings.calibration_error is not None:
        bins = Table(title="Confidence", title_justify="left")
        for head in ("confidence", "tokens" if findings.plain_tags else "entities", "mean", "right"):
            bins.add_column(head, justify="right")
        for each in findings.bins:
            if each.size:
                bins.add_row(*wording.bin_row(each))
        console.print(bins)
    line(wording.calibration_note(findings))
    if findings.surest:
        shown = f"{len(findings.surest):,} of {counted(findings.wrong_sentences, 'sentence')} with a mistake"
        line(f"\nMost confident mistakes ({shown})")
    for number, sentence in enumerate(findings.surest, 1):
        line(f"\n{number}. {sentence.score:.3f}, {wording.place(findings, sentence)}")
        for name in ("gold", "model"):
            text = Text(f"   {name:<6}", style="dim")
            for piece in wording.pieces(sentence, gold=name == "gold"):
                text.append(" ")
                style = ("bold red" if piece.wrong else "green") if piece.type else "not dim"
                text.append(f"[{piece.text}|{piece.type}]" if piece.type else piece.text, f"not dim {style}")
            console.print(text, soft_wrap=not console.is_terminal)
        for text_line in wording.mistake_lines(findings, sentence):
            line(f"   {text_line}")


def _outcomes(findings: Findings, title: str) -> Table:
    table = Table(title=escape(visible(title)), title_justify="left", show_edge=False)  # 80 columns hold it
    heads, rows = wording.outcome_table(findings)
    table.add_column("tag" if findings.plain_tags else "type", overflow="fold")
    for head in heads:
        table.add_column(head.replace(" ", "\n", 1), justify="right")
    for number, (name, values) in enumerate(rows, 1):
        if number == len(rows):
            table.add_section()
        table.add_row(escape(name), *values, style="bold" if number == len(rows) else None)
    return table


def _confusions(findings: Findings, width: int) -> Table:
    heads, rows = wording.confusion_table(findings)
    if sum(max(len(name), 5) + 3 for name in ["gold", *heads]) < width:
        table = Table(title="Gold (rows) and predicted (columns)", title_justify="left")
        table.add_column("gold")
        for head in heads:
            table.add_column(escape(head), justify="right")
        for name, values in rows:
            table.add_row(escape(name), *values)
        return table
    table = Table(title="Most frequent confusions", title_justify="left")
    for head in ("gold", "predicted"):
        table.add_column(head, overflow="fold")
    table.add_column("count", justify="right")
    for gold, predicted, count in wording.confusions(findings, _CONFUSIONS):
        table.add_row(escape(gold), escape(predicted), f"{count:,}")
    return table


def write_page(findings: Findings, data: str, model: str, path: Path) -> None:
    """Write the page.

    Args:
        findings: What it shows.
        data: Name of the data.
        model: Name of the model.
        path: Where to write.

    Raises:
        NertoolError: It cannot be written there.
    """
    pages.write_page(path, "mistakes.html", _view(findings, data, model))


def _view(findings: Findings, data: str, model: str) -> dict[str, Any]:
    heads, rows = wording.outcome_table(findings)
    names, confusion = wording.confusion_table(findings)
    return {
        "title": f"Mistakes on {visible(data)}",
        "facts": {"Model": visible(model), "Data": wording.sizes(findings), **wording.shares(findings)},
        "what": "tag" if findings.plain_tags else "type",
        "whole": "tokens" if findings.plain_tags else "entities",
        "heads": heads,
        "rows": rows,
        "outcome_note": wording.outcome_note(findings),
        "names": names,
        "confusion": confusion,
        "bins": [wording.bin_row(each) for each in findings.bins if each.size],
        "points": [_point(each) for each in findings.bins if each.size],
        "side": _SIDE,
        "calibration_note": wording.calibration_note(findings),
        "wrong_sentences": findings.wrong_sentences,
        "surest": [
            {
                "score": f"{sentence.score:.3f}",
                "place": wording.place(findings, sentence),
                "sides": {name: list(wording.pieces(sentence, gold=name == "gold")) for name in ("gold", "model")},
                "mistakes": wording.mistake_lines(findings, sentence),
            }
            for sentence in findings.surest
        ],
    }


def _point(each: Bin) -> dict[str, str]:
    """Compute where a bin is in the diagram, with Wilson's interval (1927) of the share that is right."""
    n, share = each.size, each.right
    centre = share + _SPREAD**2 / (2 * n)
    reach = _SPREAD * math.sqrt(share * (1 - share) / n + (_SPREAD / (2 * n)) ** 2)
    low, high = ((centre + sign * reach) / (1 + _SPREAD**2 / n) for sign in (-1, 1))
    positions = {"x": each.confidence, "y": 1 - share, "top": 1 - high, "bottom": 1 - low}
    label = "{} of them: confidence {}, right {}".format(*wording.bin_row(each)[1:])
    return {**{name: f"{_SIDE * value:.1f}" for name, value in positions.items()}, "label": label}
