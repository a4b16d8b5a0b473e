"""Figures and tagged text as a person wants to see them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nertool.evaluation.scores import Evaluation, Scores

if TYPE_CHECKING:
    from nertool.tagging.tagger import Tagged

_COLOURS = {"PER": "magenta", "LOC": "green", "ORG": "cyan", "MISC": "yellow"}
_OTHERS = ("blue", "red", "bright_magenta", "bright_green", "bright_cyan", "bright_yellow")


def percent(share: float) -> str:
    """A share as a percentage with two digits, as F1 is usually given."""
    return f"{100 * share:.2f}"


def duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(number: int, noun: str) -> str:
    """A number with its noun in the right form."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def show_evaluation(console: Console, evaluation: Evaluation, title: str) -> None:
    """Prints precision, recall and F1, for each type and over all, and how they were computed."""
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
    console.print(table)
    counts = f"{counted(evaluation.sentences, 'sentence')}, {counted(evaluation.tokens, 'token')}"
    how = (
        "plain tags, scored token by token"
        if evaluation.mode == "tokens"
        else f"token accuracy {percent(evaluation.accuracy)}; entities scored by seqeval, {evaluation.mode}"
    )
    console.print(f"{counts}, {how}", highlight=False, soft_wrap=True)


def marked(tagged: Tagged, plain_tags: bool) -> str:
    """The text with its entities as `[Lisbon|LOC]`; for plain tags each token as `token|TAG`."""
    if plain_tags:
        return " ".join(f"{token}|{label}" for token, label in zip(tagged.tokens, tagged.labels, strict=True))
    parts = []
    at = 0
    for entity in tagged.entities:
        parts += [tagged.text[at : entity.start], f"[{entity.text}|{entity.label}]"]
        at = entity.end
    return "".join([*parts, tagged.text[at:]])


def coloured(tagged: Tagged, plain_tags: bool) -> Text:
    """As `marked`, in colours instead of brackets."""
    text = Text()
    if plain_tags:
        for token, label in zip(tagged.tokens, tagged.labels, strict=True):
            text.append(token).append(f" {label}  ", style="dim")
        return text
    at = 0
    for entity in tagged.entities:
        colour = _COLOURS.get(entity.label) or _OTHERS[sum(entity.label.encode()) % len(_OTHERS)]
        text.append(tagged.text[at : entity.start])
        text.append(entity.text, style=f"bold {colour}").append(f" {entity.label}", style=f"dim {colour}")
        at = entity.end
    return text.append(tagged.text[at:])


def show_attention(console: Console, tokens: Sequence[str], weights: Sequence[Sequence[Sequence[float]]]) -> None:
    """Prints for each token the tokens that each head of attention looks at most.

    Args:
        console: Where to.
        tokens: Of one sentence.
        weights: (heads, tokens, tokens): from, to.
    """
    table = Table()
    table.add_column("token")
    shown = 3 if len(weights) == 1 else 2
    for number in range(1, len(weights) + 1):
        table.add_column("looks at" if len(weights) == 1 else f"head {number} looks at")
    for place, token in enumerate(tokens):
        row = []
        for head in weights:
            most = sorted(zip(head[place], tokens, strict=True), key=lambda pair: -pair[0])[:shown]
            row.append(escape(", ".join(f"{other} {share:.2f}" for share, other in most)))
        table.add_row(escape(token), *row)
    console.print(table)


def html_page(results: Iterable[Tagged], language: str) -> Iterator[str]:
    """DisplaCy's page, in pieces, so that a long text need not fit in memory."""
    from spacy import displacy
    from spacy.displacy.render import DEFAULT_LABEL_COLORS
    from spacy.displacy.templates import TPL_FIGURE, TPL_PAGE
    from spacy.util import get_lang_class

    try:
        direction = get_lang_class(language).Defaults.writing_system["direction"]
    except (ImportError, AttributeError):  # tokens given may be in a language that spaCy does not know
        direction = "ltr"
    settings = {"lang": language, "direction": direction}
    mark = "\0"
    before, after = TPL_PAGE.format(content=mark, lang=language, dir=direction).split(mark)
    # displaCy parts its figures as whole documents; here they are the lines of one text.
    figure = TPL_FIGURE.replace("6rem", "1rem")
    # It knows the colours of OntoNotes' types, and not those of CoNLL.
    options = {"colors": {"PER": DEFAULT_LABEL_COLORS["PERSON"], "MISC": DEFAULT_LABEL_COLORS["LANGUAGE"]}}
    yield before.replace("<head>", '<head>\n        <meta charset="utf-8">', 1)
    for tagged in results:
        # displaCy escapes the text but not the labels, which are a model's and may be a stranger's.
        ents = [{"start": e.start, "end": e.end, "label": html.escape(e.label)} for e in tagged.entities]
        shown = {"text": tagged.text, "ents": ents, "settings": settings}
        content = displacy.render(shown, style="ent", manual=True, jupyter=False, options=options)
        yield figure.format(content=content)
    yield after
