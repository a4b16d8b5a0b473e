"""Documents and tables as HTML for notebooks, without other packages.

Notebooks ask an object for `_repr_html_`. Objects of any room answer with what is here, which needs no library;
what takes a template is drawn in `nertool.views`, for what `nertool.api` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nertool.text.document import Document

_BOX = "white-space: pre-wrap; line-height: 2.2"
_MARK = "color: inherit; border-radius: 0.3em; padding: 0.15em 0.35em"
_LABEL = "font-size: 0.75em; font-weight: bold; margin-left: 0.4em; opacity: 0.85"
# Translucent, so that text on them can be read on white and on black.
_COLOURS = ("59 130 246", "34 160 90", "217 119 6", "168 85 247", "220 60 100", "20 160 175", "130 130 130")


def render(document: Document) -> str:
    """Return the text with its entities and their scores, or each token with its tag; all text is escaped."""
    text, offsets = document.text, document.offsets
    if document.has_tags and document.labels is not None:
        marks: list[tuple[int, int, str, float | None]] = [
            (*place, label, None) for place, label in zip(offsets, document.labels, strict=True) if label
        ]
    else:
        marks = [(entity.start, entity.end, entity.label, entity.score) for entity in document.entities]
    types = sorted({label for _, _, label, _ in marks})
    colours = {label: _COLOURS[number % len(_COLOURS)] for number, label in enumerate(types)}
    parts = []
    position = 0
    for start, end, label, score in marks:
        title = "" if score is None else f' title="score {score:.3f}"'
        shown = "" if score is None else f" {score:.2f}"
        parts.append(escape(text[position:start]))
        style = f"background: rgb({colours[label]} / 0.28); {_MARK}"
        parts.append(f'<mark style="{style}"{title}>{escape(text[start:end])}')
        parts.append(f'<span style="{_LABEL}">{escape(label)}{shown}</span></mark>')
        position = end
    parts.append(escape(text[position:]))
    return f'<div dir="auto" style="{_BOX}">{"".join(parts)}</div>'


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """Return a table; the first column is of text, the others are of numbers; all text is escaped.

    Args:
        caption: Above it.
        heads: Of the columns.
        rows: Of cells.
        note: Below it.
    """
    left, right = ' style="text-align: left"', ' style="text-align: right"'
    head = "".join(
        f'<th scope="col"{right if place else left}>{escape(text)}</th>' for place, text in enumerate(heads)
    )
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td{right}>{escape(text)}</td>" for text in others)
        lines.append(f'<tr><th scope="row"{left}>{escape(first)}</th>{cells}</tr>')
    below = f"<p>{escape(note)}</p>" if note else ""
    return (
        f"<table><caption{left}>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>{below}"
    )
