"""A checked corpus, and the formats, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nertool.data.corpus import Split
from nertool.evaluation.corpus_checks import Findings
from nertool.formats.registry import Format


def show_check(console: Console, splits: Mapping[str, Split], findings: Findings) -> None:
    """Print counts as tables, and findings as lines."""
    if splits:
        console.print(_counts(splits))
        types = {name: split.entity_counts() for name, split in splits.items()}
        names = sorted({kind for counts in types.values() for kind in counts})
        if names:
            table = Table(title="Entities", title_justify="left")
            table.add_column("type")
            for split in splits:
                table.add_column(escape(split), justify="right")
            for kind in names:
                table.add_row(escape(kind), *(f"{counts[kind]:,}" for counts in types.values()))
            console.print(table)
    for title, style, lines in (("errors", "red", findings.errors), ("to look at", "yellow", findings.warnings)):
        if lines:
            console.print(f"[bold {style}]{title}[/]")
        for line in lines:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if not findings.errors and not findings.warnings:
        console.print("nothing to report")


def _counts(splits: Mapping[str, Split]) -> Table:
    table = Table(title="Corpus", title_justify="left")
    table.add_column("split")
    for column in ("documents", "sentences", "tokens", "longest", "entities"):
        table.add_column(column, justify="right")
    table.add_column("scheme")
    for name, split in splits.items():
        figures = (
            split.document_count,
            len(split),
            split.token_count,
            max(map(len, split.sentences)),
            split.entity_counts().total(),
        )
        table.add_row(escape(name), *(f"{figure:,}" for figure in figures), split.scheme.value)
    return table


def show_formats(console: Console, formats: Mapping[str, Format]) -> None:
    """Print what each format is, and what it can hold."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, each in formats.items():
        can = " and ".join(word for word, able in (("read", each.readable), ("write", each.writable)) if able)
        suffixes = f"suffixes {' '.join(each.suffixes)}; " if each.suffixes else ""
        what = f"{escape(each.description)}\n[dim]{escape(suffixes)}holds {', '.join(sorted(each.holds))}[/]"
        table.add_row(f"[bold]{escape(name)}[/]", can, what)
    console.print(table, highlight=False)
    console.print(
        "\nA format is detected from the name and the content of a file. These names are for --from and --to, and "
        "for corpus.format in a config.",
        highlight=False,
    )
