"""What a request for tagging may ask, and what is answered to one that cannot be understood."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MOST_TEXTS = 1000
MOST_SEQUENCES = 20
"""Of the label sequences of each sentence: with more of them one request would take many seconds."""
_SHOWN_PROBLEMS = 10
_SHOWN_CHARACTERS = 100


class Options(NamedTuple):
    """What to find out about texts; requests that ask for the same are tagged together."""

    min_score: float
    n_best: int
    marginals: bool


class TagRequest(BaseModel):
    """Texts to tag: `text` or `texts`."""

    model_config = ConfigDict(extra="forbid", strict=True, title="TagRequest")

    text: str | None = Field(None, description="One text, of any number of sentences.")
    texts: list[str] | None = Field(None, max_length=MOST_TEXTS, description="Several texts.")
    model: str | None = Field(None, description="Name of the model, as in /models; the first one by default.")
    min_score: float = Field(
        0.0, ge=0, le=1, allow_inf_nan=False, description="Leave out entities that are less probable."
    )
    n_best: int = Field(
        0, ge=0, le=MOST_SEQUENCES, description="How many of the most probable label sequences of each sentence."
    )
    marginals: bool = Field(False, description="The probabilities of the labels of each token.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text or texts")
        return self

    @property
    def all_texts(self) -> list[str]:
        """The texts, one or several."""
        return [self.text] if self.text is not None else self.texts or []

    @property
    def options(self) -> Options:
        """What to find out about them."""
        return Options(self.min_score, self.n_best, self.marginals)


class Found(BaseModel):
    """An entity: the characters of the text from `start` to `end` (exclusive), counted as Unicode code points."""

    start: int
    end: int
    label: str
    text: str
    score: float | None = Field(description="Probability that its tokens jointly have exactly these labels.")


class Sequence(BaseModel):
    """One of the most probable label sequences of a sentence."""

    probability: float
    labels: list[str]
    entities: list[tuple[int, int, str]] = Field(description="Start, end (in the text) and label.")


class Tagged(BaseModel):
    """A text with what was found in it, as `nertool tag --to jsonl` writes it, and where its sentences are."""

    text: str
    tokens: list[str]
    labels: list[str] = Field(description="Of each token, in IOB2, or plain tags.")
    entities: list[Found]
    sentences: list[tuple[int, int]] = Field(description="Start and end of each sentence, in characters.")
    alternatives: list[list[Sequence]] | None = Field(None, description="With n_best, for each sentence.")
    marginals: list[dict[str, float]] | None = Field(None, description="With marginals, for each token.")
    cut_sentences: int | None = Field(
        None, description="How many sentences were so long that they were tagged in windows, if any."
    )


class TagResponse(BaseModel):
    """The model that was used, and a document for each text."""

    model: str
    documents: list[Tagged]


class ModelInfo(BaseModel):
    """A model that can be asked."""

    name: str
    language: str
    scheme: str = Field(description="IOB2 for models that find entities; PLAIN for those that tag each token.")
    labels: list[str] = Field(description="Types of entities, or the tags.")


class ModelList(BaseModel):
    """All models; the first one is used where a request names none."""

    models: list[ModelInfo]
    max_chars: int = Field(description="Characters of all texts of a request, at most.")


class Problem(BaseModel):
    """What was wrong with a request."""

    detail: str


class FieldProblem(BaseModel):
    """What was wrong with a field."""

    loc: list[str | int]
    msg: str
    type: str


class FieldProblems(BaseModel):
    """What was wrong with the fields of a request."""

    detail: list[FieldProblem]


class BadRequestError(Exception):
    """A request that is not answered as it asks.

    Args:
        status: Of HTTP.
        detail: What was found and what was expected; a text, or a list of problems with fields.
    """

    def __init__(self, status: int, detail: str | list[dict[str, Any]]) -> None:
        super().__init__(status)
        self.status = status
        self.detail = detail


def wrong_field(name: str, message: str) -> BadRequestError:
    """Return the error of a field whose value cannot be used."""
    return BadRequestError(422, [{"loc": ["body", name], "msg": message, "type": "value_error"}])


def parse(body: bytes | bytearray, max_chars: int) -> TagRequest:
    """Read the body of a request for tagging.

    Raises:
        BadRequestError: It is not JSON of the expected form, or its texts are too long.
    """
    try:
        request = TagRequest.model_validate_json(body)
    except ValidationError as problem:
        raise BadRequestError(422, problems(problem)) from None
    check_length(request.all_texts, max_chars)
    return request


def check_length(texts: list[str], max_chars: int) -> None:
    """Refuse texts that are too long.

    Raises:
        BadRequestError: They are.
    """
    characters = sum(map(len, texts))
    if characters > max_chars:
        raise BadRequestError(
            413, f"{characters:,} characters; at most {max_chars:,} are taken in one request: split the text"
        )


def problems(error: ValidationError) -> list[dict[str, Any]]:
    """Describe what is wrong with which field, without the values."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        {
            "loc": ["body", *(_short(part) for part in problem["loc"])],
            "msg": _short(problem["msg"].removeprefix("Value error, ")),
            "type": problem["type"],
        }
        for problem in problems[:_SHOWN_PROBLEMS]
    ]


def _short(part: Any) -> Any:
    return part[:_SHOWN_CHARACTERS] if isinstance(part, str) else part


def to_json(value: Any) -> bytes:
    """Return JSON in UTF-8; half a character, which UTF-8 cannot spell, stays an escape of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
