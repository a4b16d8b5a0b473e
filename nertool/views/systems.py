"""The scores of systems on one corpus: tables for the terminal and for LaTeX."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nertool.comparison.systems import Scored, Scoring
from nertool.evaluation.modes import MEANINGS, Mode
from nertool.evaluation.scores import Evaluation, Scores
from nertool.views import latex, tables
from nertool.views.console import counted, evaluation_table, percent
from nertool.views.visible import visible


def show_scoring(
    console: Console, scoring: Scoring, gold: str, gold_scheme: str, schemes: Mapping[str, str]
) -> None:
    """Print the scores of each system, by type and in each mode, and which systems differ.

    Args:
        console: Where to print.
        scoring: The scores.
        gold: Name of the gold corpus.
        gold_scheme: How its labels were read.
        schemes: How those of each system were read.
    """
    for system in scoring.systems:
        mode = "" if scoring.mode is None else f", {scoring.mode}"
        console.print(evaluation_table(system.evaluation, f"{visible(system.name)} on {visible(gold)}{mode}"))
        console.print(_counts(scoring, system.evaluation), highlight=False, soft_wrap=True)
        read = f"labels read as {schemes[system.name]}"
        console.print(read if gold_scheme == schemes[system.name] else f"{read}, gold as {gold_scheme}")
    if scoring.mode is not None:
        console.print(_modes_table(scoring))
        for mode, meaning in MEANINGS.items():
            console.print(f"{mode}: {meaning}", highlight=False, soft_wrap=not console.is_terminal)
    if scoring.pairs:
        console.print(_pairs_table(scoring))
        console.print(_test_note(scoring), highlight=False, soft_wrap=not console.is_terminal)


def latex_table(scoring: Scoring, gold: str) -> str:
    """Return a table for LaTeX: of one system by type, of several a row for each."""
    how = "tags, token by token" if scoring.mode is None else f"mode {scoring.mode}"
    if len(scoring.systems) == 1:
        evaluation = scoring.systems[0].evaluation
        rows = [[name, *_figures(scores), f"{scores.support:,}"] for name, scores in evaluation.per_type.items()]
        count = len(rows)
        for name, scores in (("macro", evaluation.macro), ("micro", evaluation.micro)):
            rows.append([name, *_figures(scores), f"{scores.support:,}"])
        return latex.booktabs(
            ["type", "precision", "recall", "F1", "support"],
            rows,
            caption=f"{scoring.systems[0].name} on {gold}, in percent; {how}",
            label="tab:scores",
            rules=[count],
        )
    rows = [[each.name, *_figures(each.evaluation.micro)] for each in scoring.systems]
    f1 = [each.evaluation.micro.f1 for each in scoring.systems]
    return latex.booktabs(
        ["system", "precision", "recall", "F1"],
        rows,
        caption=f"Systems on {gold}, in percent; {how}",
        label="tab:scores",
        bold={number: 3 for number, value in enumerate(f1) if value == max(f1)},
    )


def _figures(scores: Scores) -> list[str]:
    return [percent(share) for share in (scores.precision, scores.recall, scores.f1)]


def _counts(scoring: Scoring, evaluation: Evaluation) -> str:
    if scoring.by_characters:
        return f"{counted(scoring.unit_count, 'document')}, compared by characters"
    text = f"{counted(evaluation.sentences, 'sentence')}, {counted(evaluation.tokens, 'token')}"
    return f"{text}; token accuracy {percent(evaluation.accuracy)}"


def _modes_table(scoring: Scoring) -> Table:
    """Compare modes: all figures of one system, or F1 of several."""
    if len(scoring.systems) == 1:
        table = Table(title="Micro average by mode", title_justify="left")
        table.add_column("mode")
        for head in ("precision", "recall", "F1"):
            table.add_column(head, justify="right")
        for name, evaluation in scoring.systems[0].modes.items():
            table.add_row(name, *_figures(evaluation.micro), style="bold" if name == scoring.mode else None)
        return table
    table = Table(title="Micro F1 by mode", title_justify="left")
    table.add_column("system", overflow="fold")
    for mode in Mode:
        table.add_column(mode.value, justify="right")
    best = max(scoring.systems, key=lambda each: each.evaluation.micro.f1)
    for system in scoring.systems:
        table.add_row(*_mode_row(system), style="bold" if system is best else None)
    return table


def _mode_row(system: Scored) -> list[str]:
    return [
        escape(visible(system.name)),
        *(percent(evaluation.micro.f1) for evaluation in system.modes.values()),
    ]


def _pairs_table(scoring: Scoring) -> Table:
    table = Table(title=f"Differences in F1{f', {scoring.mode}' if scoring.mode else ''}", title_justify="left")
    for head in ("first", "second"):
        table.add_column(head, overflow="fold")
    for head in ("difference", "p", "adjusted p"):
        table.add_column(head, justify="right")
    for pair in scoring.pairs:
        table.add_row(
            escape(visible(pair.first)),
            escape(visible(pair.second)),
            tables.points(pair.difference),
            tables.p_value(pair.p),
            tables.p_value(pair.adjusted),
            style="bold" if pair.adjusted < tables.LEVEL else None,
        )
    return table


def _test_note(scoring: Scoring) -> str:
    return (
        f"Paired approximate randomization over {scoring.unit_count:,} {scoring.units} with {scoring.shuffles:,} "
        f"shuffles (Yeh 2000), adjusted for {counted(len(scoring.pairs), 'pair')} (Holm 1979). Bold: adjusted p "
        f"below {tables.LEVEL}."
    )
