"""doccano's JSON Lines and JSON: entities as [start, end, type], or as objects with start_offset, end_offset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nertool.formats.alignment import Mark
from nertool.formats.annotation_tools import JsonExport, Reading, Record
from nertool.text.document import Document

_TEXTS = ("text", "data")
_LABELS = ("label", "labels", "entities", "annotations")
_EXPECTED = "label, labels, entities or annotations"
_KNOWN = frozenset(
    {*_TEXTS, *_LABELS, "relations", "cats", "Comments", "comments", "id", "meta", "annotation_approver"}
)


class Doccano(JsonExport):
    """An object for each text, as doccano's sequence labelling exports and imports it, in JSON Lines or an array.

    Entities are under `label`, `labels`, `entities` or `annotations`. An empty list means that the text has none;
    a text without any of these keys is unlabelled.
    """

    name = "doccano"
    holds = frozenset({"text", "entities", "meta"})
    description = "doccano's JSON Lines or JSON: entities as start, end, type, or as objects with start_offset"

    def recognizes(self, value: Any) -> bool:
        """Recognize entities as doccano has them, or its labels of whole texts, which are then refused by name."""
        if not isinstance(value, dict) or not any(isinstance(value.get(key), str) for key in _TEXTS):
            return False
        if "label" in value and isinstance(value["label"], list):
            return True
        for key in _LABELS:
            items = value.get(key)
            if not isinstance(items, list):
                continue
            if key == "annotations" or ("text" not in value and items):
                return True
            if any(
                isinstance(item, list) or (isinstance(item, dict) and "start_offset" in item) for item in items
            ):
                return True
            if key == "labels" and "tokens" not in value and any(isinstance(item, str | dict) for item in items):
                return True
        return "Comments" in value or "annotation_approver" in value

    def documents(self, records: Iterator[Record], reading: Reading) -> Iterator[Document]:
        """Read a document from each object."""
        for record in records:
            text = record.text(*_TEXTS)
            if not reading.options.labelled:
                yield reading.document(record, text, None)
                continue
            record.refuse_unknown(_KNOWN, _EXPECTED)
            reading.not_kept(record, _KNOWN)
            marks = self._marks(record, reading)
            if marks is None:
                reading.notes["text* without labels"] += 1
            elif not marks:
                reading.notes[
                    "text* without an entity, as doccano exports also those that nobody has looked at"
                ] += 1
            yield reading.document(record, text, marks)

    def _marks(self, record: Record, reading: Reading) -> list[Mark] | None:
        tree = record.tree()
        for key, noun in (("relations", "relation*"), ("Comments", "comment*"), ("comments", "comment*")):
            if count := len(record.items(key)):
                reading.left_out[noun] += count
        given = [key for key in _LABELS if tree.get(key) is not None]
        filled = [key for key in given if tree[key]]
        for key in filled:
            if isinstance(tree[key], str) or (isinstance(tree[key], list) and isinstance(tree[key][0], str)):
                record.refuse_classes(key)
        if len(filled) > 1:
            record.refuse(f"there are entities under {' and under '.join(filled)}: remove all but one")
        if tree.get("cats"):
            if not given:
                record.refuse_classes("cats")
            reading.left_out["class* of a whole text"] += len(record.items("cats"))
        if not given:
            return None
        marks = []
        for item in record.items(filled[0]) if filled else []:
            users = [str(item["user"])] if isinstance(item, dict) and item.get("user") is not None else []
            if not reading.annotators.admits(record.number, users):
                continue
            if isinstance(item, dict) and type(item.get("label")) is int:
                reading.notes["type* of entities given as a number, as doccano numbers them"] += 1
            marks.append(record.mark(item))
        return marks

    def record(self, document: Document) -> Any:
        """Return what doccano imports and exports."""
        tree: dict[str, Any] = {"text": document.text}
        if document.labels is not None:
            tree["label"] = [[entity.start, entity.end, entity.label] for entity in document.entities]
        return {**tree, "meta": dict(document.meta)} if document.meta else tree
