"""Scores, tagged text and attention as a person wants to see them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from nertool.evaluation.scores import Evaluation, Scores
from nertool.text.document import Document
from nertool.views.visible import visible

_COLOURS = {"PER": "magenta", "LOC": "green", "ORG": "cyan", "MISC": "yellow"}
_HEAD = """        <meta charset="utf-8">
        <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
_OTHERS = ("blue", "red", "bright_magenta", "bright_green", "bright_cyan", "bright_yellow")


def percent(share: float) -> str:
    """Format a share as a percentage with two digits, the usual form of F1."""
    return f"{100 * share:.2f}"


def duration(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(count: int, noun: str) -> str:
    """Format a number with its noun, singular or plural.

    >>> counted(1, "entity"), counted(1200, "entity")
    ('1 entity', '1,200 entities')
    """
    if count != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("ity") else f"{noun}s"
    return f"{count:,} {noun}"


class SafeConsole(Console):
    """A console on which no text controls the terminal, whoever wrote it."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Make text of a string, perhaps with markup; line ends stay."""
        return super().render_str(visible(text, keep="\n"), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render anything; what reaches this as text that is no string is made visible too."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text, keep="\n"))


def trainings_bar(console: Console, what: str, state: str) -> Progress:
    """Return a bar of several trainings side by side, which a terminal alone shows.

    Args:
        console: Where it is drawn.
        what: What is counted: its fields `ended` and `all` stand before it.
        state: The text after the bar, with fields of the task.
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[ended]}/{task.fields[all]} " + what),
        BarColumn(bar_width=None),
        TextColumn(state),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def bar_with_text(console: Console) -> Progress:
    """Return a bar for a terminal, with the field `text` of its task behind it; elsewhere it shows nothing."""
    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[text]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def new_console(file: IO[str] | None = None, *, stderr: bool = False) -> Console:
    """Return what prints in colours, and as wide as the terminal where it is one.

    Args:
        file: Where to print; None: standard output.
        stderr: Print to standard error instead.
    """
    return SafeConsole(file=file, stderr=stderr, emoji=False)  # :x: may be a token


def waiting(console: Console, text: str) -> AbstractContextManager[Any]:
    """Show a spinner with a text while something takes time; nothing where there is no terminal."""
    return console.status(text) if console.is_terminal else nullcontext()


def evaluation_table(evaluation: Evaluation, title: str) -> Table:
    """Make a table of precision, recall and F1, for each type and over all."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("type")
    for name in ("precision", "recall", "F1", "support"):
        table.add_column(name, justify="right")

    def add(name: str, scores: Scores, **options: Any) -> None:
        figures = (percent(share) for share in (scores.precision, scores.recall, scores.f1))
        table.add_row(escape(name), *figures, f"{scores.support:,}", **options)

    for name, scores in evaluation.per_type.items():
        add(name, scores)
    table.add_section()
    add("macro", evaluation.macro)
    add("micro", evaluation.micro, style="bold")
    return table


def show_evaluation(console: Console, evaluation: Evaluation, title: str) -> None:
    """Print precision, recall and F1, for each type and over all, and how they were computed."""
    console.print(evaluation_table(evaluation, title))
    counts = f"{counted(evaluation.sentences, 'sentence')}, {counted(evaluation.tokens, 'token')}"
    how = (
        "plain tags, scored token by token"
        if evaluation.mode == "tokens"
        else f"token accuracy {percent(evaluation.accuracy)}; entities scored by seqeval, {evaluation.mode}"
    )
    console.print(f"{counts}, {how}", highlight=False, soft_wrap=True)


def marked(document: Document) -> str:
    """Return the text with its entities as `[Lisbon|LOC]`; with plain tags, each token as `token|TAG`."""
    if document.has_tags:
        return " ".join(
            f"{token}|{tag}" for token, tag in zip(document.tokens, document.labels or (), strict=True)
        )
    parts = []
    position = 0
    for entity in document.entities:
        parts += [document.text[position : entity.start], f"[{entity.text}|{entity.label}]"]
        position = entity.end
    return "".join([*parts, document.text[position:]])


def coloured(document: Document) -> Text:
    """Return the same as `marked`, with colours instead of brackets."""
    text = Text()
    if document.has_tags:
        for token, tag in zip(document.tokens, document.labels or (), strict=True):
            text.append(visible(token)).append(f" {visible(tag)}  ", style="dim")
        return text
    position = 0
    for entity in document.entities:
        colour = _COLOURS.get(entity.label) or _OTHERS[sum(entity.label.encode()) % len(_OTHERS)]
        text.append(visible(document.text[position : entity.start], keep="\n\t"))
        text.append(visible(entity.text, keep="\n\t"), style=f"bold {colour}")
        text.append(f" {visible(entity.label)}", style=f"dim {colour}")
        position = entity.end
    return text.append(visible(document.text[position:], keep="\n\t"))


def show_attention(console: Console, tokens: Sequence[str], weights: Sequence[Sequence[Sequence[float]]]) -> None:
    """Print for each token the tokens that each head of attention looks at most.

    Args:
        console: Where to print.
        tokens: Of one sentence.
        weights: (heads, tokens, tokens): from, to.
    """
    table = Table()
    table.add_column("token")
    shown = 3 if len(weights) == 1 else 2
    for number in range(1, len(weights) + 1):
        table.add_column("looks at" if len(weights) == 1 else f"head {number} looks at")
    for index, token in enumerate(tokens):
        row = []
        for head in weights:
            most = sorted(zip(head[index], tokens, strict=True), key=lambda pair: -pair[0])[:shown]
            row.append(escape(", ".join(f"{other} {share:.2f}" for share, other in most)))
        table.add_row(escape(token), *row)
    console.print(table)


def html_page(documents: Iterable[Document], language: str) -> Iterator[str]:
    """Make displaCy's page, in pieces, so that a long text need not fit into memory.

    Args:
        documents: With entities.
        language: Code of the text's language.
    """
    from spacy import displacy
    from spacy.displacy.render import DEFAULT_LABEL_COLORS
    from spacy.displacy.templates import TPL_FIGURE, TPL_PAGE
    from spacy.util import get_lang_class

    try:
        direction = get_lang_class(language).Defaults.writing_system["direction"]
    except (ImportError, AttributeError):  # tokens can be in a language that spaCy does not know
        direction = "ltr"
    settings = {"lang": language, "direction": direction}
    mark = "\0"
    before, after = TPL_PAGE.format(content=mark, lang=language, dir=direction).split(mark)
    # displaCy separates its figures as whole documents; here they are the lines of one text.
    figure = TPL_FIGURE.replace("6rem", "1rem")
    # displaCy knows the colours of OntoNotes' types, and not those of CoNLL.
    options = {"colors": {"PER": DEFAULT_LABEL_COLORS["PERSON"], "MISC": DEFAULT_LABEL_COLORS["LANGUAGE"]}}
    yield before.replace("<head>", f"<head>\n{_HEAD}", 1)
    for document in documents:
        # displaCy escapes the text but not the labels, which come from a model that may be a stranger's.
        ents = [{"start": e.start, "end": e.end, "label": html.escape(e.label)} for e in document.entities]
        shown = {"text": document.text, "ents": ents, "settings": settings}
        content = displacy.render(shown, style="ent", manual=True, jupyter=False, options=options)
        yield figure.format(content=visible(content, keep="\n\t"))
    yield after
