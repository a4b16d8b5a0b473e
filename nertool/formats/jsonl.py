"""JSON Lines: an object to a text, with the entities by character, as `nertool tag --format jsonl` writes it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.opening import open_lines
from nertool.formats.texts import Mark, Report, Settings, Text, fit, refuse_tags
from nertool.text.schemes import Scheme
from nertool.text.tokenization import Cut


def read(path: Path, settings: Settings, report: Report) -> Iterator[Text]:
    """Reads the keys text and entities; tokens, sentences (ends among the tokens) and document may be there."""
    with open_lines(path, "JSON Lines") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            tree = _parse(line, path, number)
            text, words = tree["text"], tree.get("tokens")
            marks = [
                Mark(f"{path}, line {number}", each["start"], each["end"], each["label"])
                for each in tree.get("entities") or []
            ]
            cut = settings.cut(text) if words is None else _find(text, words, tree, path, number)
            document = tree.get("document")
            found = fit(text, cut, marks, settings, report)
            yield replace(found, document=document, sentence=document is not None)


def write(path: Path, texts: Iterable[Text], scheme: Scheme) -> None:
    """Writes what `read` reads, nothing lost; entities have their text as well."""
    with replaced_when_done(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as target:
        for text in texts:
            refuse_tags(text, path, "JSON Lines")
            tree: dict[str, Any] = {"text": text.text, "tokens": text.tokens, "entities": []}
            for span in text.spans:
                start, end = text.offsets[span.start][0], text.offsets[span.end - 1][1]
                entity = {"start": start, "end": end, "label": span.type, "text": text.text[start:end]}
                tree["entities"].append(entity)
            if len(text.ends) > 1:
                tree["sentences"] = text.ends
            if text.document is not None:
                tree["document"] = text.document
            target.write(json.dumps(tree, ensure_ascii=False) + "\n")


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise CorpusError(f"not JSON ({problem}); expected an object to a line", path, number) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("text"), str):
        raise CorpusError("expected an object with the key text, a string", path, number)
    expected = {"entities": dict, "tokens": str, "sentences": int}
    for key, kind in expected.items():
        values = tree.get(key)
        if values is not None and not (isinstance(values, list) and all(type(each) is kind for each in values)):
            names = {dict: "objects", str: "strings", int: "numbers"}
            raise CorpusError(f"{key}: expected a list of {names[kind]}", path, number)
    for entity in tree.get("entities") or []:
        label = entity.get("label")
        if type(entity.get("start")) is not int or type(entity.get("end")) is not int:
            raise CorpusError("entities: expected start and end in each, in characters", path, number)
        if not isinstance(label, str) or not label:
            raise CorpusError("entities: expected a label in each, a string", path, number)
    if type(tree.get("document", 0)) is not int:
        raise CorpusError("document: expected a number", path, number)
    return tree


def _find(text: str, words: Sequence[str], tree: dict[str, Any], path: Path, number: int) -> Cut:
    """Where tokens stand in the text, one after another."""
    offsets: list[tuple[int, int]] = []
    at = 0
    for word in words:
        start = text.find(word, at) if word else -1
        if start < 0:
            raise CorpusError(f"tokens: {word!r} does not follow in the text", path, number)
        at = start + len(word)
        offsets.append((start, at))
    ends = tree.get("sentences")
    if ends is None:
        ends = [len(words)] if words else []
    if ends != sorted(set(ends)) or (ends[-1] if ends else 0) != len(words) or (ends and ends[0] < 1):
        raise CorpusError(
            "sentences: expected where each ends among the tokens, the last at their end", path, number
        )
    return offsets, ends
