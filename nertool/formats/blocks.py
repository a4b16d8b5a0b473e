"""What formats of numbered tokens share: blocks of lines, the places of tokens in a text, where they were read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from nertool.formats.columns import LONGEST_SENTENCE, refuse_endless
from nertool.text.document import Offsets, Origin

USUAL_LABELS = frozenset(
    {"label", "labels", "ner", "ne", "tag", "tags", "entity", "entities", "iob", "bio", "ner_tag", "ner_tags"}
)
"""Names of a column of labels, in lower case, that a format with names of its own reads as "the usual one"."""


class Block(NamedTuple):
    """Lines between two empty lines.

    Attributes:
        comments: Lines that begin with #, without the line end.
        numbers: The line of each row, counted from 1.
        rows: The fields of each other line.
    """

    comments: list[str]
    numbers: list[int]
    rows: list[list[str]]


def read_blocks(
    lines: Iterable[str], split: Callable[[str], list[str]], marks: tuple[str, ...] = ()
) -> Iterator[Block]:
    """Group lines into blocks, for formats in which no token begins a line.

    Args:
        lines: With or without their line ends.
        split: Makes fields of a line.
        marks: Beginnings of comments that end a block as an empty line does.

    Raises:
        CorpusError: A block does not end.
    """
    block = Block([], [], [])
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        if block.rows and line.startswith(marks):
            yield block
            block = Block([], [], [])
        if not line.strip():
            if block.comments or block.rows:
                yield block
                block = Block([], [], [])
        elif line.startswith("#"):
            block.comments.append(line)
            if len(block.comments) == LONGEST_SENTENCE:
                refuse_endless(None, number)
        else:
            block.numbers.append(number)
            block.rows.append(split(line))
            if len(block.rows) == LONGEST_SENTENCE:
                refuse_endless(None, number)
    if block.comments or block.rows:
        yield block


def value_of(comment: str, name: str) -> str | None:
    """Return the value of a comment such as `# text = ...`; None for another comment, empty where it has none."""
    key, equals, value = comment.lstrip("#").partition("=")
    if key.strip() != name:
        return None
    return value.strip() if equals else ""


def origin_of(name: str, sentences: Sequence[Sequence[int]]) -> Origin:
    """Return where a document was read.

    Args:
        name: Of the file.
        sentences: For each sentence the lines of its tokens.
    """
    skipped = [
        line
        for numbers in sentences
        for line in sorted({*range(numbers[0], numbers[-1] + 1)} - {*numbers})
        if len(numbers) <= numbers[-1] - numbers[0]
    ]
    return Origin(name, "line", tuple(numbers[0] for numbers in sentences), tuple(skipped))


def find_tokens_in(text: str, tokens: Sequence[str]) -> Offsets | None:
    """Find where tokens are in a text that has nothing else but whitespace; None where it has not."""
    offsets = []
    position = 0
    for token in tokens:
        while not text.startswith(token, position):
            if position >= len(text) or not text[position].isspace():
                return None
            position += 1
        offsets.append((position, position + len(token)))
        position += len(token)
    return None if text[position:].strip() else tuple(offsets)


def put_together(tokens: Sequence[str], gaps: Sequence[str]) -> tuple[str, Offsets]:
    """Make a text of tokens and of what stands behind each; what stands behind the last is left out."""
    pieces: list[str] = []
    offsets = []
    position = 0
    for number, (token, gap) in enumerate(zip(tokens, gaps, strict=True), 1):
        offsets.append((position, position + len(token)))
        pieces += [token, gap] if number < len(tokens) else [token]
        position += len(token) + len(gap)
    return "".join(pieces), tuple(offsets)
