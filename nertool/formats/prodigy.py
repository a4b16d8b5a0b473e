"""Prodigy's JSON Lines, as `prodigy db-out` writes and `prodigy db-in` reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nertool.formats.alignment import Mark, tokenizer_of
from nertool.formats.annotation_tools import JsonExport, Reading, Record, show
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE
from nertool.text.tokenization import Tokens

_KNOWN = frozenset({"text", "tokens", "spans", "answer", "relations", "meta", "label", "options", "accept"})
_ANSWERS = {"reject": "rejected task*", "ignore": "ignored task*"}


class Prodigy(JsonExport):
    """A task for each text: `text`, `spans` with start, end and label, perhaps `tokens`, and the `answer`.

    Only accepted tasks are read. An accepted task without spans is a text without entities; a task with neither
    spans nor an answer is unlabelled. Of a task with a yes-or-no question (the interface `ner`), only the entity
    that was asked about is known, and the other tokens have no label.
    """

    name = "prodigy"
    description = "Prodigy's JSON Lines: spans with start, end and label; accepted answers"
    holds = frozenset({"text", "entities", "scores", "meta"})

    def recognizes(self, value: Any) -> bool:
        """Recognize a task with spans, or with an answer and Prodigy's hashes."""
        if not isinstance(value, dict):
            return False
        if value.keys() & {"_input_hash", "_task_hash"}:
            return True
        answered = value.get("answer") in ("accept", "reject", "ignore")
        return isinstance(value.get("text"), str) and (answered or isinstance(value.get("spans"), list))

    def documents(self, records: Iterator[Record], reading: Reading) -> Iterator[Document]:
        """Read a document from each accepted task."""
        texts: set[object] = set()
        for record in records:
            tree = record.tree()
            text = record.text("text")
            tokens = self._tokens(record, text, reading)
            if not reading.options.labelled:
                yield reading.document(record, text, None, tokens)
                continue
            answer = tree.get("answer")
            if answer not in (None, "accept"):
                reading.left_out[_ANSWERS.get(str(answer), f"task* with the answer {show(answer)}")] += 1
                continue
            record.refuse_unknown(_KNOWN - {"label"}, "spans")
            reading.not_kept(record, _KNOWN)
            if "spans" not in tree and tree.keys() & {"label", "options", "accept"}:
                record.refuse_classes("label" if "label" in tree else "accept")
            names = [str(tree[key]) for key in ("_annotator_id", "_session_id") if tree.get(key) is not None]
            identity = tree.get("_input_hash")
            if not reading.annotators.admits(str(identity or text), names[:1]):
                continue
            if type(identity) is int and not tree.get("_is_binary"):
                if identity in texts:
                    reading.notes["task* with the text of an earlier one, read by itself"] += 1
                texts.add(identity)
            if relations := record.items("relations"):
                reading.left_out["relation*"] += len(relations)
            marks = [self._mark(record, item) for item in record.items("spans")]
            unlabelled = tree.get("spans") is None and answer is None
            document = reading.document(record, text, None if unlabelled else marks, tokens)
            binary = tree.get("_is_binary") is True or tree.get("_view_id") == "ner"
            if binary and document.labels is not None:
                reading.notes[
                    "task* with a yes-or-no question: tokens outside of the entity in question have no label"
                ] += 1
                labels = tuple(UNKNOWN if label == OUTSIDE else label for label in document.labels)
                document = replace(document, labels=labels)
            yield document

    def _mark(self, record: Record, item: object) -> Mark:
        """Read a span; where it has only tokens, its characters are those of the tokens."""
        if isinstance(item, dict) and "start" not in item and type(item.get("token_end")) is int:
            tokens, first, last = record.items("tokens"), item.get("token_start"), item["token_end"]
            if type(first) is not int or not 0 <= first <= last < len(tokens):
                record.refuse(f"spans: {show(item)} is not among the {len(tokens)} tokens")
            item = {**item, "start": _of(tokens[first], "start"), "end": _of(tokens[last], "end")}
        return record.mark(item)

    def _tokens(self, record: Record, text: str, reading: Reading) -> Tokens | None:
        """Return the task's tokens; None where it has none, or has pieces of words, and the text is tokenized."""
        offsets: list[tuple[int, int]] = []
        for item in record.items("tokens"):
            start, end, form = (_of(item, key) for key in ("start", "end", "text"))
            if type(start) is not int or type(end) is not int or not isinstance(form, str):
                record.refuse(f"tokens: expected objects with text, start and end; found {show(item)}")
            if text[start:end] != form or start < (offsets[-1][1] if offsets else 0):
                reading.notes[
                    "task* with tokens that are not in the text, such as pieces of words: the text was tokenized"
                ] += 1
                return None
            if form.strip():
                offsets.append((start, end))
        if not offsets:
            return None
        found, starts = tokenizer_of(reading.options)(text)
        begun = [start for start, _ in offsets]
        sentences = {bisect_left(begun, found[start][0]) for start in starts}
        return Tokens(offsets, sorted({0, *sentences} - {len(offsets)}))

    def record(self, document: Document) -> Any:
        """Return a task: with its spans as the accepted answer, or as a question where a model predicted them."""
        text, offsets = document.text, document.offsets
        tokens = [
            {"text": text[start:end], "start": start, "end": end, "id": number, "ws": text[end : end + 1] == " "}
            for number, (start, end) in enumerate(offsets)
        ]
        tree: dict[str, Any] = {"text": text, "tokens": tokens}
        if document.meta:
            tree["meta"] = dict(document.meta)
        if document.labels is None:
            return tree
        tree["spans"] = [
            {"start": entity.start, "end": entity.end, "token_start": span.start, "token_end": span.end - 1}
            | {"label": entity.label}
            | ({} if entity.score is None else {"score": entity.score})
            for entity, span in zip(document.entities, document.spans, strict=True)
        ]
        if document.scores is None:
            tree["answer"] = "accept"
        return tree


def _of(item: object, key: str) -> Any:
    return item.get(key) if isinstance(item, dict) else None
