"""What is put into the database of a project, and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nertool.errors import NertoolError

_LONGEST_NAME = 60  # characters of a type's or an annotator's name


class Span(NamedTuple):
    """An entity: its first token, the token after its last, and the number of its type."""

    start: int
    end: int
    type: int


class New(NamedTuple):
    """A sentence to take into a project.

    Attributes:
        text: Its characters.
        offsets: Of its tokens.
        spaced: Whether the text is the original one.
        gap: What stood before it.
        columns: Further values of its tokens.
        spans: Its entities, if they are known or proposed.
        partial: Whether nothing is known of some of its other tokens.
        outside: Those of them of which it is known that they are no entity.
    """

    text: str
    offsets: tuple[tuple[int, int], ...]
    spaced: bool
    gap: str
    columns: Mapping[str, tuple[str, ...]]
    spans: tuple[tuple[int, int, str], ...] | None = None
    partial: bool = False
    outside: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Taken:
    """What was taken into a project.

    Attributes:
        sentences: How many are new.
        copies: How many of them were there before, with the same text.
        answers: How many came with an answer.
        kept: How many came with an answer although they had one, which stays.
        proposals: How many came with a proposal.
    """

    sentences: int
    copies: int
    answers: int
    kept: int
    proposals: int


@dataclass(frozen=True)
class Answer:
    """What somebody says of a sentence.

    Attributes:
        sentence: Its number.
        action: accept, reject or skip.
        spans: The entities.
        outside: Tokens that are known to be no entity, where the rest is not known.
        partial: Whether nothing is known of the other tokens.
        before: The answer that the sentence had when it was shown.
        key: Of the request, which may come twice.
        seconds: That it took.
    """

    sentence: int
    action: str
    spans: tuple[Span, ...]
    outside: tuple[tuple[int, int], ...]
    partial: bool
    before: int | None
    key: str
    seconds: float | None = None


class Held(NamedTuple):
    """A sentence that a session is to answer.

    Attributes:
        sentence: Its number.
        proposal: Of a model, as it was made when the sentence was given; None: it is still to be made.
        model: Number of that model.
    """

    sentence: int
    proposal: list[list[Any]] | None
    model: int | None


class LateError(NertoolError):
    """Somebody else has answered the sentence meanwhile."""


def check_answer(answer: Answer, count: int, types: set[int]) -> None:
    """Refuse an answer that does not fit its sentence.

    Args:
        answer: The answer.
        count: How many tokens the sentence has.
        types: The numbers of the types.

    Raises:
        NertoolError: An entity leaves the sentence, overlaps another, or is of no type.
    """
    end = 0
    for start, stop, *type_ in sorted([*answer.spans, *answer.outside]):
        if not end <= start < stop <= count:
            raise NertoolError(f"entities overlap, or leave the sentence: tokens {start} to {stop} of {count}")
        if type_ and type_[0] not in types:
            raise NertoolError("an entity is of a type that there is not: reload the page")
        end = stop


def checked_name(name: str, what: str) -> str:
    """Return a name without whitespace around it.

    Raises:
        NertoolError: It cannot be the name of a type or an annotator.
    """
    name = " ".join(name.split())
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise NertoolError(
            f"the name of {'a type' if what == 'type' else 'an annotator'} has 1 to {_LONGEST_NAME} "
            "characters, all of them printable"
        )
    if what == "type" and (name == "O" or " " in name):
        raise NertoolError("the name of a type is one word, and not O, which labels what is no entity")
    return name
