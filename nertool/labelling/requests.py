"""What the page may ask of the server."""

from __future__ import annotations

from typing import Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nertool.serving.requests import BadRequestError, problems

_MOST_SPANS = 4_000
_Index = Field(ge=0, le=2**31)
_Request = TypeVar("_Request", bound=BaseModel)


class Asked(BaseModel):
    """Who asks: an annotator by name, and a session, which is a tab of a browser."""

    model_config = ConfigDict(extra="forbid", strict=True)

    session: str = Field(min_length=8, max_length=64, pattern=r"^[\w-]+$")
    annotator: str = Field(min_length=1, max_length=200)


class Answered(Asked):
    """An answer to a sentence."""

    key: str = Field(min_length=8, max_length=64, pattern=r"^[\w-]+$")
    sentence: int = _Index
    action: Literal["accept", "reject", "skip"]
    spans: list[tuple[int, int, int]] = Field(default=[], max_length=_MOST_SPANS)
    outside: list[tuple[int, int]] = Field(default=[], max_length=_MOST_SPANS)
    partial: bool = False
    before: int | None = None
    seconds: float | None = Field(default=None, ge=0, le=10**9, allow_inf_nan=False)


class Reopened(Asked):
    """A sentence whose answer is to be corrected."""

    sentence: int = _Index


class TypeChanged(Asked):
    """A type that is added, renamed (with its number) or removed (with its number, without a name)."""

    id: int | None = Field(default=None, ge=0, le=2**31)
    name: str | None = Field(default=None, max_length=200)


class Looked(Asked):
    """A look at the history."""

    before: int | None = Field(default=None, ge=0, le=2**53)


class Wanted(Asked):
    """A wish for all answers in a format."""

    format: str = Field(min_length=1, max_length=100)


def parse(body: bytes | bytearray, kind: type[_Request]) -> _Request:
    """Read the body of a request.

    Raises:
        BadRequestError: It is not JSON of the expected form.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as problem:
        raise BadRequestError(422, problems(problem)) from None


def refuse(status: int, detail: str) -> NoReturn:
    """Raise the error of a request that cannot be done."""
    raise BadRequestError(status, detail)
