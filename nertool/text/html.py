"""Documents as HTML for notebooks, without other packages."""

from __future__ import annotations

from html import escape

from nertool.text.document import Document

_BOX = "white-space: pre-wrap; line-height: 2"
_MARK = "background: #dbe9f6; color: #1b1b1b; border-radius: 0.3em; padding: 0.15em 0.3em"
_LABEL = "font-size: 0.75em; font-weight: bold; margin-left: 0.4em; opacity: 0.75"


def render(document: Document) -> str:
    """Return the text with its entities, or each token with its tag; all text is escaped."""
    text, offsets = document.text, document.offsets
    if document.has_tags and document.labels is not None:
        marks: list[tuple[int, int, str, float | None]] = [
            (*place, label, None) for place, label in zip(offsets, document.labels, strict=True) if label
        ]
    else:
        marks = [(entity.start, entity.end, entity.label, entity.score) for entity in document.entities]
    parts = []
    position = 0
    for start, end, label, score in marks:
        title = "" if score is None else f' title="score {score:.3f}"'
        parts.append(escape(text[position:start]))
        parts.append(f'<mark style="{_MARK}"{title}>{escape(text[start:end])}')
        parts.append(f'<span style="{_LABEL}">{escape(label)}</span></mark>')
        position = end
    parts.append(escape(text[position:]))
    return f'<div dir="auto" style="{_BOX}">{"".join(parts)}</div>'
