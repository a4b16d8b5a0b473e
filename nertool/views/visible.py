"""Text that a person reads: nothing in it may control a terminal or reorder what is shown."""

from __future__ import annotations

import re
from typing import Any

# Controls (C0, DEL, C1), separators of lines and paragraphs, embeddings, overrides and isolates of direction, lone
# surrogates, and what XML forbids.
_HARMFUL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def visible(text: str, keep: str = "") -> str:
    r"""Return the text in one line, with a space for each other whitespace, and controls as escapes.

    Everything that nertool shows to a person goes through here: labels, tokens, names of files, messages, what a
    model says of itself. Files of data do not: they are exact.

    >>> visible("Ada\x1b]0;title\x07\nLovelace")
    'Ada\\x1b]0;title\\x07 Lovelace'

    Args:
        text: From anywhere.
        keep: Characters that stay as they are, such as line ends.
    """

    def shown(match: re.Match[str]) -> str:
        character = match[0]
        if character in keep:
            return character
        return " " if character.isspace() else ascii(character)[1:-1]

    return _HARMFUL.sub(shown, text)


def as_markdown(value: Any) -> Any:
    r"""Escape a value of a template so that Markdown shows it as it is; what is marked as safe stays.

    >>> as_markdown("a|b_c")
    'a\\|b\\_c'
    """
    if hasattr(value, "__html__"):
        return value
    return re.sub(r"([\\`*_\[\]<>|&~$])", r"\\\1", visible(str(value)))
