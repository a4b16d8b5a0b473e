"""Tables for LaTeX, with booktabs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nertool.views.visible import visible

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "[": "{[}",  # at the start of a row it would be an option of the \\ before
    "]": "{]}",
}
_SPECIAL = re.compile("|".join(re.escape(each) for each in _ESCAPES))


def escape(text: str) -> str:
    r"""Return text that LaTeX shows as it is.

    >>> escape("P_1 & 5 % ± 0")
    'P\\_1 \\& 5 \\% $\\pm$ 0'
    """
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], visible(text))


def booktabs(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str,
    label: str,
    bold: Mapping[int, int] | None = None,
    rules: Sequence[int] = (),
) -> str:
    """Write a table that needs the package booktabs; the first column is text, the others are figures.

    Args:
        heads: Of the columns.
        rows: With as many values.
        caption: Of the table.
        label: For references.
        bold: For some rows, the column of a value in bold type.
        rules: Numbers of rows that a rule stands before.
    """
    bold = bold or {}

    def line(values: Sequence[str]) -> str:
        return "    " + " & ".join(values) + r" \\"

    body = []
    for number, row in enumerate(rows):
        values = [escape(value) for value in row]
        if number in bold:
            values[bold[number]] = rf"\textbf{{{values[bold[number]]}}}"
        body += [*([r"    \midrule"] if number in rules else []), line(values)]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape(caption)}}}",
            rf"  \label{{{label}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"    \toprule",
            line([escape(head) for head in heads]),
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )
