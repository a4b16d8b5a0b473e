"""JSON Lines: an object for each text, with entities in characters, as `nertool tag --format jsonl` writes it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.alignment import Mark, fit, tokenizer_of
from nertool.formats.annotation_tools import LABEL_KEYS, Record, first_values, is_span, records
from nertool.formats.columns import half_a_character
from nertool.formats.opening import open_lines
from nertool.formats.registry import Format, Holds, ReadOptions, Report, WriteOptions
from nertool.formats.streams import stripped, watched
from nertool.text.document import UNKNOWN, Document, Origin
from nertool.text.schemes import OUTSIDE, Scheme, Span, detect, spans
from nertool.text.tokenization import Tokens, refuse_long

_KNOWN = frozenset({"text", "tokens", "entities", "labels", "sentences", "document", "columns"})
_TAGS = ("ner_tags", "tags", "ner")  # where datasets have the labels of tokens
_PREDICTED = frozenset({"alternatives", "marginals", "cut_sentences"})  # written by `nertool tag`, never read
_EXPECTED = 'entities are expected under "entities", each an object with start, end (in characters) and label'
_HOLDS: frozenset[Holds] = frozenset(
    {"text", "entities", "tags", "columns", "sentences", "documents", "scores", "unlabelled", "meta"}
)


class JsonLines(Format):
    """An object for each text: its characters, tokens, entities and whatever else is known; an array is read too.

    Its keys are `text` and `entities`, each with start, end and label, and perhaps its own text and a score. Where
    they are known also `tokens`; `sentences`, where each ends among the tokens; `labels`, one for each token, null
    where it is not known, for plain tags and for texts that are labelled in part (`ner_tags`, `tags` or `ner` in
    what the package datasets writes); `columns`, lists of further values for each token by name; `document`, its
    name or number; and `meta`, an object with anything else. An object with neither `entities` nor `labels` is
    unlabelled.
    """

    name = "jsonl"
    description = "JSON Lines (or an array): an object for each text, entities with start and end in characters"
    suffixes = (".jsonl", ".ndjson")
    holds = _HOLDS
    streams = True
    general = True  # annotation tools write objects, too

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize an object that is a line, and an array of objects with the keys of this format."""
        first, newline, _ = (head or "").lstrip().partition("\n")
        if first.startswith("{") and '"' in first and (not newline or first.rstrip().endswith("}")):
            return True
        return any(
            isinstance(value, dict)
            and (isinstance(value.get("text"), str) or isinstance(value.get("tokens"), list))
            and ("entities" in value or value.keys() <= _KNOWN | _PREDICTED)
            for value in first_values(head, path)
        )

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each line."""
        with open_lines(path, "JSON Lines") as lines:
            yield from self.read_lines(lines, str(path), options, report)

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read a document from each line."""
        yield from stripped(_documents(lines, name, options, report), options.strip, Path(name))

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write what `read` reads; nothing is lost."""
        with replaced_when_done(target) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream:
            self.write_stream(stream, watched(documents, self, target, report), options)

    def write_stream(self, target: IO[str], documents: Iterable[Document], options: WriteOptions) -> None:
        """Write an object for each document."""
        for document in documents:
            try:
                target.write(json.dumps(_tree(document), ensure_ascii=False, allow_nan=False) + "\n")
            except UnicodeEncodeError as problem:
                raise half_a_character(problem, document) from None
            except ValueError:
                raise CorpusError("a score that is not a finite number cannot be written") from None


def _documents(lines: Iterable[str], name: str, options: ReadOptions, report: Report) -> Iterator[Document]:
    others: dict[str, None] = {}
    for record in records(lines, name):
        yield _Line(record, options).document(report, others)
    if others:
        report.notes.append(f"{name}: keys that are not kept: {', '.join(others)}")


class _Line:
    """One line, or one item of an array, and what is wrong with it."""

    def __init__(self, record: Record, options: ReadOptions) -> None:
        self.name, self.number, self.options = record.name, record.number, options
        self.place, self.refuse = record.place, record.refuse
        tree = record.value
        if not isinstance(tree, dict):
            self.refuse(f"expected an object with the key text, a string{_looks_like(tree)}")
        self.tree: dict[str, Any] = tree

    def document(self, report: Report, others: dict[str, None]) -> Document:
        """Make the document; keys that are not read are added to `others`."""
        tree, labelled = self.tree, self.options.labelled
        own = _KNOWN | _PREDICTED
        meta = tree.get("meta")
        if isinstance(meta, dict):
            own |= {"meta"}
        if isinstance(tree.get("tokens"), list):
            own |= {self.label_key()}
        if labelled and any(self.holds_labels(key) for key in tree.keys() - own):
            self.refuse_keys()
        others.update(dict.fromkeys(key for key in tree if key not in own and (labelled or key not in _TAGS)))
        words, text, mark = self.values("tokens", str, "strings"), tree.get("text"), tree.get("document")
        if not isinstance(text, str) and not (text is None and words):
            self.refuse(f"expected an object with the key text, a string; the keys are {self.listed()}")
        if type(mark) not in (int, str, type(None)):
            self.refuse("document: expected a number or a string")
        whole = " ".join(words or ()) if text is None else text
        refuse_long(whole, self.name, self.number)
        tokens = tokenizer_of(self.options)(whole) if words is None else self.find(whole, words)
        rest: dict[str, Any] = {
            "id": None if mark is None else str(mark),
            "columns": self.columns(len(tokens.offsets)),
            "meta": meta if isinstance(meta, dict) and meta else None,
            "origin": Origin(self.name, "row", (self.number,) * max(1, len(tokens.sentence_starts))),
        }
        labels = self.labels(words) if labelled else None
        entities = self.values("entities", dict, "objects") if labelled else None
        if entities is not None and not (labels and not entities and detect([labels]) is Scheme.PLAIN):
            document = self.aligned(whole, tokens, labels, entities, report, rest)
        else:  # labels alone, or plain tags as `nertool tag` writes them, or nothing
            scheme = self.options.scheme if entities is None else Scheme.PLAIN
            scheme = None if labels is None else scheme
            forms = tuple(whole[start:end] for start, end in tokens.offsets)
            offsets, starts = tuple(tokens.offsets), tuple(tokens.sentence_starts)
            row = None if labels is None else tuple(labels)
            document = Document(forms, whole, offsets, starts, row, scheme, **rest)
        return replace(document, source_text=None, source_offsets=()) if text is None else document

    def aligned(
        self,
        text: str,
        tokens: Tokens,
        labels: list[str] | None,
        entities: list[dict[str, Any]],
        report: Report,
        rest: dict[str, Any],
    ) -> Document:
        """Make a document with entities; labels may say which of the other tokens nobody has labelled."""
        document = fit(text, tokens, [self.mark(entity) for entity in entities], self.options, report, **rest)
        if labels is None or document.labels is None:
            return document
        if len(document.spans) == len(entities):
            self.compare(labels, document.spans)
        pairs = zip(labels, document.labels, strict=True)
        merged = tuple(UNKNOWN if not given and own == OUTSIDE else own for given, own in pairs)
        return replace(document, labels=merged)

    def compare(self, labels: list[str], entities: tuple[Span, ...]) -> None:
        """Refuse labels that say something else than the entities."""
        given = [label or OUTSIDE for label in labels]
        scheme = self.options.scheme or detect([given])
        try:
            same = scheme is not Scheme.PLAIN and spans(given, scheme) == list(entities)
        except ValueError:
            same = False
        if not same:
            self.refuse("labels and entities mark other entities; remove one of the two keys")

    def values(self, key: str, kind: type, names: str) -> list[Any] | None:
        """Return the list under a key, None where there is none."""
        values = self.tree.get(key)
        if values is None:
            return None
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            self.refuse(f"{key}: expected a list of {names}{_looks_like(self.tree)}")
        return values

    def label_key(self) -> str:
        """Return the key of the labels: "labels", else the one under which datasets have them."""
        if self.tree.get("labels") is None and self.tree.get("entities") is None:
            return next((key for key in (self.options.tag_column, *_TAGS) if key in self.tree), "labels")
        return "labels"

    def labels(self, words: list[str] | None) -> list[str] | None:
        """Return the label of each token, `UNKNOWN` for null."""
        key = self.label_key()
        labels = self.tree.get(key)
        if labels is None:
            return None
        if isinstance(labels, list) and labels and all(type(label) is int for label in labels):
            self.refuse(
                f"{key}: the labels are numbers, and their names are not in the file: write the names instead (in "
                'datasets: features["ner_tags"].feature.int2str), or save the dataset as parquet, which has them'
            )
        if not isinstance(labels, list) or not all(type(label) in (str, type(None)) for label in labels):
            self.refuse_keys()
        if words is None or len(labels) != len(words):
            count = "no tokens" if words is None else f"{len(words)} tokens"
            self.refuse(f"{key}: {len(labels)} labels and {count}; expected as many labels as tokens")
        return [label or UNKNOWN for label in labels]

    def columns(self, count: int) -> dict[str, tuple[str, ...]]:
        """Return the further columns."""
        columns = self.tree.get("columns") or {}
        if not isinstance(columns, dict):
            self.refuse("columns: expected an object of lists, each with a string for each token")
        for name, values in columns.items():
            if not isinstance(values, list) or not all(type(value) is str for value in values):
                self.refuse(f"columns: {name}: expected a list of strings")
            if len(values) != count:
                self.refuse(f"columns: {name}: {len(values)} values and {count} tokens; expected as many")
        return {name: tuple(values) for name, values in columns.items()}

    def mark(self, entity: dict[str, Any]) -> Mark:
        """Read one entity."""
        label, text, score = entity.get("label"), entity.get("text"), entity.get("score")
        if type(entity.get("start")) is not int or type(entity.get("end")) is not int:
            self.refuse(f"entities: expected start and end in each, in characters{_looks_like(self.tree)}")
        if not isinstance(label, str) or not label:
            self.refuse(f"entities: expected a label in each, a string{_looks_like(self.tree)}")
        if not isinstance(text, str | None) or not (score is None or _is_number(score)):
            self.refuse("entities: expected a text that is a string, and a score that is a finite number")
        pieces = ((entity["start"], entity["end"]),)
        return Mark(self.place, pieces, label, text, None if score is None else float(score))

    def find(self, text: str, words: list[str]) -> Tokens:
        """Find the tokens in the text, one after another."""
        offsets: list[tuple[int, int]] = []
        position = 0
        for word in words:
            start = text.find(word, position) if word else -1
            if start < 0:
                self.refuse(f"tokens: {word!r} does not follow in the text")
            position = start + len(word)
            offsets.append((start, position))
        ends = self.values("sentences", int, "numbers")
        if ends is None:
            ends = [len(words)] if words else []
        if ends != sorted(set(ends)) or (ends[-1] if ends else 0) != len(words) or (ends and ends[0] < 1):
            self.refuse("sentences: expected where each ends among the tokens, the last at their end")
        return Tokens(offsets, [0, *ends[:-1]] if ends else [])

    def holds_labels(self, key: str) -> bool:
        """Say whether a key that is not read seems to hold labels."""
        value, known = self.tree[key], isinstance(self.tree.get("entities"), list)
        if not isinstance(value, list | dict) or (known and not value):
            return False
        return key.lower() in LABEL_KEYS or (not known and isinstance(value, list) and any(map(is_span, value)))

    def refuse_keys(self) -> NoReturn:
        self.refuse(f"the keys are {self.listed()}{_looks_like(self.tree)}; {_EXPECTED}")

    def listed(self) -> str:
        names = [key if len(key) <= 40 else f"{key[:37]}..." for key in self.tree]
        return ", ".join([*names[:20], *(["..."] if len(names) > 20 else [])]) or "none"


def _is_number(value: object) -> bool:
    """Say whether a value is a number that JSON can spell: Python reads NaN and Infinity too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300


def _looks_like(tree: object) -> str:
    """Name the tool that an object seems to come from; empty where none is recognized."""
    tool = ""
    if isinstance(tree, list):
        tool = "a JSON array, such as Label Studio's JSON export"
    elif isinstance(tree, dict):
        entries = [
            entry
            for key in ("label", "labels", "annotations", "entities", "spans", "tokens")
            if isinstance(tree.get(key), list)
            for entry in tree[key]
        ]
        objects = [entry for entry in entries if isinstance(entry, dict)]
        if (
            any("start_offset" in entry for entry in objects)
            or "Comments" in tree
            or "annotation_approver" in tree
        ):
            tool = "an export of doccano"
        elif any("labels" in entry or "result" in entry for entry in objects) or "annotation_id" in tree:
            tool = "an export of Label Studio"
        elif "spans" in tree or "_input_hash" in tree or "answer" in tree:
            tool = "an export of Prodigy"
        elif any(isinstance(entry, list) for entry in entries):
            tool = "an export of doccano, or spaCy's lists of [start, end, label]"
        elif "tokens" in tree:
            tool = "a dataset of tokens and tags, which parquet holds"
    return f"; this looks like {tool}" if tool else ""


def _tree(document: Document) -> dict[str, Any]:
    tree = document.to_json()
    labels = document.labels
    # Of labels that somebody gave, the entities say it all, unless some are missing.
    if labels is None or (UNKNOWN not in labels and not document.has_tags and document.scores is None):
        del tree["labels"]
    elif UNKNOWN in labels:
        tree["labels"] = [label or None for label in labels]
    if labels is None:
        del tree["entities"]
    elif document.scores is None:
        for entity in (entities := [dict(entity) for entity in tree["entities"]]):
            del entity["score"]
        tree["entities"] = entities
    if len(document.sentence_starts) > 1:
        tree["sentences"] = [end for _, end in document.bounds]
    if (name := document.id) is not None:
        tree["document"] = int(name) if re.fullmatch(r"0|[1-9]\d{0,15}", name, re.ASCII) else name
    if document.columns:
        tree["columns"] = {name: list(values) for name, values in document.columns.items()}
    return tree
