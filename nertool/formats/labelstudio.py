"""Label Studio's JSON (tasks with annotations), and its JSON-MIN, CSV and TSV (an object for each annotation)."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from nertool.errors import CorpusError
from nertool.formats.alignment import Mark
from nertool.formats.annotation_tools import JsonExport, Reading, Record, is_span, records, show
from nertool.formats.delimited import delimiter_of, is_export_table
from nertool.text.document import Document, Entity

# Strings of JSON-MIN that are not texts to annotate.
_BOOKKEEPING = frozenset(
    {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "file_upload", "relations"}
)
# What may be said about a region beside its type; their values repeat the region's start and end.
_BESIDE_LABELS = frozenset({"choices", "textarea", "rating", "number", "taxonomy", "datetime", "pairwise"})


@dataclass(frozen=True)
class _Task:
    """A text that was annotated.

    Attributes:
        record: Where it is.
        texts: Strings that may be the text, by key.
        marks: The entities of the annotation that was chosen; None where there is no annotation.
        target: Name of the tag in the labelling interface that shows the text.
    """

    record: Record
    texts: dict[str, str]
    marks: list[Mark] | None
    target: str = "text"


class LabelStudio(JsonExport):
    """Tasks with `data` and `annotations` (of old versions `completions`), or JSON-MIN, or the same as a table.

    Of several annotations of a text, the first that was not cancelled is read, or that of `ReadOptions.annotator`.
    A task without annotations is unlabelled; predictions are not read.
    """

    name = "labelstudio"
    description = "Label Studio's JSON, JSON-MIN, CSV and TSV: tasks with regions that have start, end and labels"
    holds = frozenset({"text", "entities", "scores", "meta"})
    streams = False
    array = True

    def recognizes(self, value: Any) -> bool:
        """Recognize a task, or an object of JSON-MIN."""
        if not isinstance(value, dict):
            return False
        if isinstance(value.get("data"), dict):
            own = {"annotations", "completions", "predictions"}
            return bool(value.keys() & own) or value.keys() <= {"id", "data", "meta"}
        if _is_stored(value):
            return True
        return "annotation_id" in value or any(
            isinstance(item, dict) and is_span(item) and isinstance(item.get("labels"), list)
            for items in value.values()
            if isinstance(items, list)
            for item in items
        )

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize tasks, or the header of a table."""
        return is_export_table((head or "").partition("\n")[0]) or super().sniff(head, path)

    def values(self, lines: Iterator[str], name: str) -> Iterator[Record]:
        """Yield tasks, or the rows of a table as objects of JSON-MIN."""
        first = next(lines, "")
        whole = chain([first], lines)
        return _rows(whole, name) if is_export_table(first) else records(whole, name)

    def documents(self, records: Iterator[Record], reading: Reading) -> Iterator[Document]:
        """Read a document from each task."""
        tasks = []
        seen: set[str] = set()
        for record in records:
            tree = record.tree()
            if isinstance(tree.get("data"), dict) or _is_stored(tree):
                task = _task(record, reading)
            else:
                task = _minimal(record, reading, seen)
            if task is not None:
                tasks.append(task)
        if not tasks:
            reading.finish()
        key = _key(tasks, reading)
        for task in tasks:
            if key not in task.texts:
                task.record.refuse(f"expected a text under {key!r}, as in the other tasks")
            if task.marks is None and reading.options.labelled:
                reading.notes["task* without an annotation, unlabelled"] += 1
            yield reading.document(task.record, task.texts[key], task.marks)

    def record(self, document: Document) -> Any:
        """Return a task: with an annotation, or with a prediction where a model predicted the entities."""
        task: dict[str, Any] = {"data": {"text": document.text}}
        meta = document.meta or {}
        if meta:
            task["meta"] = dict(meta)
        if document.labels is None:
            return task
        result = [_region(number, entity) for number, entity in enumerate(document.entities, 1)]
        if document.scores is None:
            return {**task, "annotations": [{"result": result}]}
        prediction: dict[str, Any] = {"model_version": "nertool", "result": result}
        if isinstance(meta.get("confidence"), float):
            prediction["score"] = meta["confidence"]  # Label Studio can show the tasks with the lowest first
        return {**task, "predictions": [prediction]}


def _region(number: int, entity: Entity) -> dict[str, Any]:
    value = {"start": entity.start, "end": entity.end, "text": entity.text, "labels": [entity.label]}
    region = {"id": f"e{number}", "from_name": "label", "to_name": "text", "type": "labels", "value": value}
    return region if entity.score is None else {**region, "score": entity.score}


def _rows(lines: Iterable[str], name: str) -> Iterator[Record]:
    """Yield the rows of a table as objects; regions are JSON in their cell."""
    numbered = iter(lines)
    header = next(numbered)
    delimiter = delimiter_of(header)
    names = next(csv.reader([header], delimiter=delimiter))
    reader = csv.reader((f"{line}\n" for line in numbered), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            line = reader.line_num + 1
            if fields and len(fields) != len(names):
                message = f"found {len(fields)} values where the header has {len(names)}"
                raise CorpusError(message, name, line)
            row = {key: _cell(field) for key, field in zip(names, fields, strict=False) if field}
            if row:
                yield Record(name, line, False, row)
    except csv.Error as problem:
        message = f"{problem}: expected a table as Label Studio exports it"
        raise CorpusError(message, name, reader.line_num + 1) from None


def _cell(text: str) -> Any:
    if text[0] in "[{":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):  # a text that begins with a bracket
            return text
    return text


def _is_stored(tree: dict[str, Any]) -> bool:
    """Say whether an object is an annotation with its task in it, as cloud storage holds them."""
    return isinstance(tree.get("result"), list) and isinstance(tree.get("task"), dict)


def _task(record: Record, reading: Reading) -> _Task | None:
    """Read a task of the JSON export; None where the annotator who is wanted has not annotated it."""
    tree = record.tree()
    if _is_stored(tree):
        tree = {**tree["task"], "annotations": [tree]}
    data = tree.get("data")
    texts = {key: text for key, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
    if not texts:
        record.refuse(f"data: expected a text, a string under any key; found {show(data)}")
    if not reading.options.labelled:
        return _Task(record, texts, None)
    record = replace(record, value=tree)
    for key, noun in (("predictions", "prediction*"), ("drafts", "draft*")):
        if count := len(record.items(key)):
            reading.left_out[noun] += count
    given = []
    for annotation in [*record.items("annotations"), *record.items("completions")]:
        if not isinstance(annotation, dict):
            record.refuse(f"annotations: expected objects with result; found {show(annotation)}")
        if annotation.get("was_cancelled") or annotation.get("skipped"):
            reading.left_out["cancelled annotation*"] += 1
        else:
            given.append(annotation)
    admitted = [
        each for each in given if reading.annotators.admits(record.number, _names(each.get("completed_by")))
    ]
    if not admitted:
        if given:
            reading.left_out["task* that the annotator has not annotated"] += 1
        return None if given else _Task(record, texts, None)
    if len(admitted) > 1:
        reading.left_out["later annotation* by the same annotator"] += len(admitted) - 1
    return _regions(record, admitted[0], texts, reading)


def _regions(record: Record, annotation: dict[str, Any], texts: dict[str, str], reading: Reading) -> _Task:
    """Read the regions of an annotation."""
    marks: list[Mark] = []
    target = "text"
    for region in replace(record, value=annotation).items("result"):
        if not isinstance(region, dict):
            record.refuse(f"result: expected objects; found {show(region)}")
        value, kind = region.get("value"), str(region.get("type"))
        if kind == "relation":
            reading.left_out["relation*"] += 1
        elif isinstance(value, dict) and kind not in _BESIDE_LABELS and _has_labels(record, value, kind):
            marks += _marks(record, value)
            target = str(region.get("to_name", target))
        else:
            reading.left_out[f"result* of the type {kind}"] += 1
    return _Task(record, texts, marks, target)


def _has_labels(record: Record, value: dict[str, Any], kind: str) -> bool:
    """Say whether a value marks a region of a text; refuse regions of what is not plain text."""
    whole = type(value.get("start")) is int and type(value.get("end")) is int
    if whole and (isinstance(value.get("labels"), list) or not any(re.search("labels?$", key) for key in value)):
        return True
    if any(key.endswith("labels") for key in value) or "start" in value:
        record.refuse(
            f"a region of the type {kind} has the keys {', '.join(value)}; expected start and end, numbers, and "
            "labels, as the tag Text gives them (regions of HyperText, Paragraphs or images are not read)"
        )
    return False


def _marks(record: Record, value: dict[str, Any]) -> list[Mark]:
    """Return a mark for each label of a region; one without a type where nobody has given it a label."""
    text = value.get("text")
    if isinstance(text, str):  # line ends are spelled out
        value = {**value, "text": text.replace("\\n", "\n")}
    return [record.mark(value, label) for label in value.get("labels") or [""]]


def _minimal(record: Record, reading: Reading, seen: set[str]) -> _Task | None:
    """Read an object of JSON-MIN; None for a text that was read already, from another annotation."""
    tree = record.tree()
    texts = {key: text for key, text in tree.items() if isinstance(text, str) and key not in _BOOKKEEPING}
    if not texts:
        record.refuse(f"expected a text, a string under any key; the keys are {record.listed()}")
    identity = str(tree["id"]) if tree.get("id") is not None else repr(sorted(texts.items()))
    if not reading.options.labelled:
        again = identity in seen
        seen.add(identity)
        return None if again else _Task(record, texts, None)
    if not reading.annotators.admits(identity, _names(tree.get("annotator"))):
        return None
    if identity in seen:
        reading.left_out["later annotation* by the same annotator"] += 1
        return None
    seen.add(identity)
    marks: list[Mark] = []
    known = {"relations"}
    for key, items in tree.items():
        if not isinstance(items, list) or key == "relations":
            continue
        regions = [item for item in items if isinstance(item, dict)]
        for region in regions:
            if _BESIDE_LABELS & region.keys() and "labels" not in region:
                reading.left_out[f"value* under {key}"] += 1
                known.add(key)
            elif _has_labels(record, region, key):
                marks += _marks(record, region)
                known.add(key)
    if relations := record.items("relations"):
        reading.left_out["relation*"] += len(relations)
    record.refuse_unknown(known, "label, each with start, end and labels")
    annotated = bool(marks) or "annotation_id" in tree or "annotator" in tree or "label" in tree
    return _Task(record, texts, marks if annotated else None)


def _names(annotator: object) -> list[str]:
    """Return what an annotator is called: a number, an e-mail address, or an object with several of these."""
    if isinstance(annotator, dict):
        values = [annotator.get(key) for key in ("email", "username", "id")]
    else:
        values = [annotator]
    return [str(value) for value in values if isinstance(value, int | str)]


def _key(tasks: Sequence[_Task], reading: Reading) -> str:
    """Find the key that the tasks have their text under: where the entities fit, else `text`, else the longest."""
    keys = dict.fromkeys(key for task in tasks for key in task.texts)
    if not keys:
        raise CorpusError("there is no text in it", reading.name)
    if len(keys) == 1:
        return next(iter(keys))

    def rank(key: str) -> tuple[int, bool, int]:
        fitting = sum(_fits(task.texts.get(key), task.marks) for task in tasks if task.marks)
        named = any(key == task.target for task in tasks)
        return fitting, named, sum(len(task.texts.get(key, "")) for task in tasks)

    best = max(keys, key=rank)
    others = ", ".join(key for key in list(keys)[:10] if key != best)
    reading.report.notes.append(
        f"{reading.name}: the text was read from {best!r}; there are strings under {others} too"
    )
    return best


def _fits(text: str | None, marks: list[Mark] | None) -> bool:
    return text is not None and all(
        0 <= mark.start < mark.end <= len(text)
        and (mark.text is None or mark.text.split() == text[mark.start : mark.end].split())
        for mark in marks or ()
    )
