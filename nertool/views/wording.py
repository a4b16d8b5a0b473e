"""What a model gets wrong as rows of figures and lines of text, for terminal and page alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nertool.evaluation.mistakes import Bin, Findings, WrongSentence
from nertool.evaluation.pairing import Outcome
from nertool.text.schemes import Span
from nertool.views.console import counted, percent
from nertool.views.visible import visible

NONE = "none"
_LONG = 120  # tokens of a sentence that are shown at most
_BEFORE = 40  # tokens shown before the most confident mistake of a longer sentence; tokens quoted of an entity
_MISTAKES = 10  # of one sentence that are listed
_CHARACTERS = 80  # of a token that are shown


class Piece(NamedTuple):
    """Some tokens of a sentence.

    Attributes:
        text: The tokens, joined by spaces.
        type: Of the entity that they form; empty outside of entities.
        wrong: Whether this entity is one of the mistakes.
    """

    text: str
    type: str = ""
    wrong: bool = False


def outcome_table(findings: Findings) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the heads of the main table, and its rows with their names; the last row is the sum."""
    kinds = [Outcome.RIGHT, Outcome.WRONG_TYPE] if findings.plain_tags else list(Outcome)
    heads = ["right", "wrong"] if findings.plain_tags else [kind.value for kind in kinds]

    def row(name: str | None) -> list[str]:
        counts = findings.total if name is None else findings.outcomes[name]
        figures = [findings.gold_count(name), *(counts[kind] for kind in kinds), findings.predicted_count(name)]
        return [f"{figure:,}" for figure in figures]

    rows = [(visible(name), row(name)) for name in findings.outcomes]
    return ["gold", *heads, "predicted"], [*rows, ("all", row(None))]


def outcome_note(findings: Findings) -> str:
    """Explain how the columns of the main table add up."""
    if findings.plain_tags:
        return "Rows are gold tags: gold = right + wrong; predicted counts the tokens that were given the tag."
    return (
        "Rows are gold types: gold = right + wrong type + wrong boundary + wrong both + missed. Invented entities "
        "are counted in the row of the type that they were given. Over all types, predicted = right + the three "
        "kinds of wrong + invented."
    )


def confusion_table(findings: Findings) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the heads of the confusion table, and for each gold type how many are predicted as which type."""
    types: list[str | None] = [*findings.outcomes, *([] if findings.plain_tags else [None])]
    rows = [
        (_named(gold), [f"{findings.confusion[gold, other]:,}" if gold or other else "" for other in types])
        for gold in types
    ]
    return [_named(name) for name in types], rows


def confusions(findings: Findings, most: int) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions: gold type, predicted type, count."""
    wrong = [pair for pair in findings.confusion.most_common() if pair[0][0] != pair[0][1]]
    return [(_named(gold), _named(other), count) for (gold, other), count in wrong[:most]]


def bin_row(each: Bin) -> list[str]:
    """Return a row of the table of confidences: range, count, mean confidence, share that is right."""
    return [f"{each.low:.2f} – {each.high:.2f}", f"{each.size:,}", f"{each.confidence:.3f}", f"{each.right:.3f}"]


def calibration_note(findings: Findings) -> str:
    """Describe the calibration error."""
    if findings.calibration_error is None:
        return "Nothing is predicted, so there is no confidence to judge."
    bins = f"over {len(findings.bins)} bins"
    return (
        f"Expected calibration error {findings.calibration_error:.4f} {bins}: the mean gap between mean and right."
    )


def shares(findings: Findings) -> dict[str, str]:
    """Return precision, recall and F1, or accuracy, in percent."""
    right, gold, predicted = findings.total[Outcome.RIGHT], findings.gold_count(), findings.predicted_count()
    if findings.plain_tags:
        return {"Accuracy": percent(right / max(gold, 1))}
    figures = {"Precision": (right, predicted), "Recall": (right, gold), "F1": (2 * right, gold + predicted)}
    return {name: percent(part / max(whole, 1)) for name, (part, whole) in figures.items()}


def sizes(findings: Findings) -> str:
    """Describe how much was read, and how much of it has mistakes."""
    wrong = f"{findings.wrong_sentences:,} of {counted(findings.sentences, 'sentence')} with a mistake"
    return f"{wrong}, {counted(findings.tokens, 'token')}"


def place(findings: Findings, sentence: WrongSentence) -> str:
    """Describe where in the data the most confident mistake of a sentence is."""
    return f"{findings.unit} {sentence.mistakes[0].line}"


def pieces(sentence: WrongSentence, *, gold: bool) -> Iterator[Piece]:
    """Yield a sentence with its gold or predicted entities; of a long one, the part around its surest mistake."""
    first, last = 0, len(sentence.tokens)
    if last > _LONG:
        judged = sentence.mistakes[0].judged
        start = min(span.start for span in (judged.gold, judged.predicted) if span is not None)
        first = max(0, start - _BEFORE)
        last = min(last, first + _LONG)
    wrong = {mistake.judged.gold if gold else mistake.judged.predicted for mistake in sentence.mistakes}
    position = first
    if first:
        yield Piece("…")
    for span in sentence.gold if gold else sentence.predicted:
        start, end = max(span.start, first), min(span.end, last)
        if start < end:
            if position < start:
                yield Piece(_words(sentence, position, start))
            yield Piece(_words(sentence, start, end), visible(span.type), span in wrong)
            position = end
    if position < last:
        yield Piece(_words(sentence, position, last))
    if last < len(sentence.tokens):
        yield Piece("…")


def mistake_lines(findings: Findings, sentence: WrongSentence) -> list[str]:
    """Describe the mistakes of a sentence, a line each."""
    lines = []
    for (outcome, gold, predicted), score, line in sentence.mistakes[:_MISTAKES]:
        sides = {"gold": gold, "model": predicted}
        quoted = [f"{side} {_quoted(sentence, span)}" for side, span in sides.items() if span is not None]
        name = "wrong tag" if findings.plain_tags else outcome.value
        lines.append(f"{score:.3f} {name}: {', '.join(quoted)} ({findings.unit} {line})")
    more = len(sentence.mistakes) - len(lines)
    return [*lines, *([f"and {more:,} more"] if more else [])]


def _quoted(sentence: WrongSentence, span: Span) -> str:
    end = min(span.end, span.start + _BEFORE)
    return f"[{_words(sentence, span.start, end)}{' …' if end < span.end else ''}|{visible(span.type)}]"


def _words(sentence: WrongSentence, start: int, end: int) -> str:
    tokens = sentence.tokens[start:end]
    return visible(" ".join(f"{token[:_CHARACTERS]}…" if len(token) > _CHARACTERS else token for token in tokens))


def _named(name: str | None) -> str:
    return NONE if name is None else visible(name)
