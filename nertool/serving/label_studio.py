"""The interface of Label Studio's ML backends: a model whose proposals its annotators see.

Label Studio sends a labelling interface (XML) with its requests. Its first `Labels` tag that belongs to a `Text`
tag says where the entities go, and which types are wanted.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from xml.parsers import expat

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nertool.serving.requests import (
    MOST_TEXTS,
    BadRequestError,
    Options,
    check_length,
    problems,
    to_json,
    wrong_field,
)
from nertool.serving.service import Service

MOST_PROJECTS = 100
"""Projects whose labelling interface is remembered."""

_LONGEST = 200_000  # characters of a labelling interface
_OPTIONS = Options(0.0, 1, False)  # the probability of the best label sequence is the confidence
_LEAST = 1e-6  # a probability that was rounded to 0
_SHOWN = 10


@dataclass(frozen=True)
class Interface:
    """Where entities go.

    Attributes:
        control: Name of the tag `Labels`.
        target: Name of the tag `Text`.
        key: Of the text in the data of a task.
        labels: Values of the tags `Label`.
    """

    control: str
    target: str
    key: str
    labels: tuple[str, ...]

    def names(self, types: list[str]) -> dict[str, str]:
        """Return the label for each type of a model that has one, of the same name or one in other case."""
        folded = {label.casefold(): label for label in reversed(self.labels)}
        return {
            each: each if each in self.labels else folded[each.casefold()]
            for each in types
            if each in self.labels or each.casefold() in folded
        }


def read_interface(config: str, field: str) -> Interface:
    """Read a labelling interface.

    It is a stranger's XML. No document type is taken, and with it no entity; nothing is loaded.

    Args:
        config: The XML.
        field: Of the request, for errors.

    Raises:
        BadRequestError: It is not XML, or does not label text.
    """

    def refuse(message: str) -> NoReturn:
        raise wrong_field(field, message)

    def no_doctype(*_: Any) -> None:
        refuse("a document type (<!DOCTYPE ...>) is not taken")

    if len(config) > _LONGEST:
        refuse(f"{len(config):,} characters are too many for a labelling interface (at most {_LONGEST:,})")
    tags: list[tuple[str, dict[str, str], str]] = []  # name, attributes, and the name of the Labels that it is in
    within: list[str] = []

    def begin(tag: str, attributes: dict[str, str]) -> None:
        tags.append((tag, attributes, within[-1] if within else ""))
        if tag == "Labels":
            within.append(attributes.get("name", ""))

    def end(tag: str) -> None:
        if tag == "Labels":
            within.pop()

    parser = expat.ParserCreate("utf-8")  # whatever encoding it declares
    parser.StartDoctypeDeclHandler = no_doctype
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    try:
        parser.Parse(config.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as problem:
        refuse(f"not XML: {problem}")
    texts = {each.get("name"): each for tag, each, _ in tags if tag == "Text"}
    for tag, attributes, _ in tags:
        name, target = attributes.get("name"), attributes.get("toName")
        if tag != "Labels" or not name or not target or target not in texts:
            continue
        value = texts[target].get("value", "")
        if not value.startswith("$") or texts[target].get("valueType", "text") != "text":
            refuse(
                f'<Text name="{_short(target)}">: expected value="$key" with the text itself in the task\'s data'
            )
        labels = [
            each["value"] for tag, each, parent in tags if tag == "Label" and parent == name and "value" in each
        ]
        return Interface(name, target, value[1:], tuple(labels))
    refuse('there is no <Labels name="..." toName="..."> for a <Text name="..." value="$...">')


class Setup(BaseModel):
    """What Label Studio sends when a project is connected."""

    model_config = ConfigDict(extra="ignore", strict=True, title="Setup")

    config: str = Field(alias="schema", description="The labelling interface of the project, XML.")
    project: Any = Field(None, description="The project.")


class Task(BaseModel):
    """A task; what it has beside its data is not looked at."""

    model_config = ConfigDict(extra="ignore", strict=True)

    data: dict[str, Any]


class Predict(BaseModel):
    """What Label Studio sends to get predictions."""

    model_config = ConfigDict(extra="ignore", strict=True, title="Predict")

    tasks: list[Task] = Field(max_length=MOST_TEXTS, description="With the text in their data.")
    label_config: str | None = Field(None, description="The labelling interface; by default that of the setup.")
    project: Any = Field(None, description="The project.")


_Request = TypeVar("_Request", Setup, Predict)


class LabelStudio:
    """Answers Label Studio with the default model of a service.

    Args:
        service: The models.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._model = service.models[0]
        self._interfaces: OrderedDict[str, Interface] = OrderedDict()

    @property
    def version(self) -> str:
        """What predictions are marked with."""
        return self._model.name

    async def setup(self, body: bytes | bytearray, details: dict[str, Any]) -> bytes:
        """Check the labelling interface of a project.

        Raises:
            BadRequestError: The model cannot propose anything for it.
        """
        request = _parse(Setup, body)
        interface = read_interface(request.config, "schema")
        self._names(interface, "schema")
        key = _project(request.project)
        self._interfaces[key] = interface
        self._interfaces.move_to_end(key)
        while len(self._interfaces) > MOST_PROJECTS:
            self._interfaces.popitem(last=False)
        details |= {"model": self.version}
        return to_json({"model_version": self.version})

    async def predict(self, body: bytes | bytearray, details: dict[str, Any]) -> bytes:
        """Propose entities for tasks.

        Raises:
            BadRequestError: The model cannot propose anything for them.
            NertoolError: The texts cannot be tagged.
        """
        request = _parse(Predict, body)
        if request.label_config is not None:
            interface = read_interface(request.label_config, "label_config")
        elif (known := self._interfaces.get(_project(request.project))) is not None:
            interface = known
        else:
            raise wrong_field(
                "label_config",
                "is missing, and this project has sent no setup: connecting the model in Label Studio sends it",
            )
        names = self._names(interface, "label_config")
        texts = [_text(task, interface.key, number) for number, task in enumerate(request.tasks)]
        check_length(texts, self._service.max_chars)
        answer = await self._service.tag(self.version, texts, _OPTIONS, details)
        results = [self._prediction(json.loads(each), interface, names) for each in answer.documents]
        left_out = answer.entities - sum(len(each["result"]) for each in results)
        if left_out:  # of types for which the project has no label
            details["left_out"] = left_out
        return to_json({"results": results, "model_version": self.version})

    async def ignore(self, body: bytes | bytearray, details: dict[str, Any]) -> bytes:
        """Answer what Label Studio reports, such as new annotations: nothing is learnt from it."""
        return b"{}"

    def _names(self, interface: Interface, field: str) -> dict[str, str]:
        model = self._model
        if model.scheme == "PLAIN":
            raise wrong_field(field, f"the model {model.name} tags tokens, and finds no entities")
        names = interface.names(model.labels)
        if not names:
            wanted, known = _listed(interface.labels), _listed(model.labels)
            labels = f'<Labels name="{_short(interface.control)}">'
            raise wrong_field(
                field, f"no label of {labels} is a type of the model: {wanted}; the model has {known}"
            )
        return names

    def _prediction(
        self, document: Mapping[str, Any], interface: Interface, names: Mapping[str, str]
    ) -> dict[str, Any]:
        regions = []
        for number, entity in enumerate(document["entities"], 1):
            if (label := names.get(entity["label"])) is None:
                continue
            value = {"start": entity["start"], "end": entity["end"], "text": entity["text"], "labels": [label]}
            regions.append(
                {
                    "id": f"e{number}",
                    "from_name": interface.control,
                    "to_name": interface.target,
                    "type": "labels",
                    "value": value,
                    "score": entity["score"],
                }
            )
        best = [sentence[0]["probability"] for sentence in document.get("alternatives", ()) if sentence]
        logs = sum(math.log(max(each, _LEAST)) for each in best)
        score = math.exp(logs / max(1, len(document["tokens"])))
        return {"result": regions, "score": round(score, 6), "model_version": self.version}


def _parse(kind: type[_Request], body: bytes | bytearray) -> _Request:
    try:
        return kind.model_validate_json(body)
    except ValidationError as problem:
        raise BadRequestError(422, problems(problem)) from None


def _text(task: Task, key: str, number: int) -> str:
    text = task.data.get(key)
    if not isinstance(text, str):
        raise BadRequestError(
            422,
            [
                {
                    "loc": ["body", "tasks", number, "data", _short(key)],
                    "msg": "expected the text, a string",
                    "type": "value_error",
                }
            ],
        )
    return text


def _project(value: Any) -> str:
    return _short(value) if isinstance(value, str) else ""


def _listed(names: Any) -> str:
    shown = [_short(each) for each in names][:_SHOWN]
    return ", ".join([*shown, *(["..."] if len(names) > _SHOWN else [])]) or "there are none"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."
