"""What the JSON exports of annotation tools have in common: finding the objects in a file, reading their spans.

A file holds one JSON value, usually an array of objects, or JSON Lines: an object in each line.
"""

from __future__ import annotations

import io
import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, ClassVar, NoReturn

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.alignment import Mark, fit, tokenizer_of
from nertool.formats.columns import half_a_character
from nertool.formats.foreign import OLD_MAC
from nertool.formats.opening import open_lines, read_head
from nertool.formats.registry import Format, ReadOptions, Report, WriteOptions
from nertool.formats.streams import grouped, joined, refuse_tags, stripped, watched
from nertool.text.document import Document, Origin
from nertool.text.tokenization import Tokens

MAXIMUM = 1 << 29  # characters of a JSON value that is not JSON Lines, because it is held in memory
LABEL_KEYS = frozenset(
    {"label", "labels", "spans", "span", "annotations", "annotation", "entity", "entities", "ner", "ner_tags"}
    | {"tags", "ents", "result", "results", "predictions", "completions"}
)
"""Keys under which tools put entities."""

_SPAN_KEYS = frozenset(
    {"start_offset", "end_offset", "start", "begin", "end", "offset", "offsets", "points", "labels"}
)
_LOOKED_AT = 20  # objects that a format is recognized by
_FIRST_LOOK, _LONGEST_LOOK = 1 << 16, 1 << 26  # bytes that are read to find the first of them
_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*[\[{"\]])')
_BETWEEN = re.compile(r"[\s,]*")
_UTF16 = "there are null characters in it, as in UTF-16: convert it with `iconv -f utf-16le -t utf-8`"


def is_span(item: object) -> bool:
    """Say whether a JSON value looks like an entity: an object with the usual keys, or [start, end, type]."""
    if isinstance(item, dict):
        return len(_SPAN_KEYS & item.keys()) >= 2
    return isinstance(item, list) and len(item) == 3 and [type(part) for part in item[:2]] == [int, int]


def seems_labels(key: str, value: object) -> bool:
    """Say whether what an object has under a key looks like entities."""
    if not isinstance(value, list | dict) or not value:
        return False
    return key.lower() in LABEL_KEYS or (isinstance(value, list) and any(map(is_span, value)))


@dataclass(frozen=True)
class Record:
    """A JSON value that stands for a text, and where it was found.

    Attributes:
        name: Of the file.
        number: Its line, or its place in an array, counted from 1.
        in_array: Which of the two.
        value: The value.
    """

    name: str
    number: int
    in_array: bool
    value: Any

    @property
    def place(self) -> str:
        """Where it was found, for the report."""
        return f"{self.name}, {'item' if self.in_array else 'line'} {self.number}"

    def refuse(self, message: str) -> NoReturn:
        """Raise an error about this value."""
        if self.in_array:
            raise CorpusError(f"item {self.number}: {message}", self.name)
        raise CorpusError(message, self.name, self.number)

    def tree(self) -> dict[str, Any]:
        """Return the value, which must be an object."""
        if not isinstance(self.value, dict):
            self.refuse(f"expected an object for each text; found {show(self.value)}")
        return self.value

    def text(self, *keys: str) -> str:
        """Return the string under the first of some keys that the object has."""
        tree = self.tree()
        for key in keys:
            if isinstance(tree.get(key), str):
                return str(tree[key])
        self.refuse(f"expected a text, a string under {' or '.join(keys)}; the keys are {self.listed()}")

    def items(self, key: str) -> list[Any]:
        """Return the list under a key; empty where there is none."""
        values = self.tree().get(key)
        if values is None:
            return []
        if not isinstance(values, list):
            self.refuse(f"{key}: expected a list; found {show(values)}")
        return values

    def refuse_unknown(self, known: Iterable[str], expected: str) -> None:
        """Refuse an object that has what looks like entities where they are not read."""
        for key, value in self.tree().items():
            if key not in known and seems_labels(key, value):
                self.refuse(
                    f"what is under {key!r} looks like entities, and is not read; the keys are {self.listed()}; "
                    f"entities are expected under {expected}"
                )

    def refuse_classes(self, key: str) -> NoReturn:
        """Refuse labels of whole texts."""
        self.refuse(
            f"{key}: {show(self.tree().get(key))} labels the whole text: this is an export of document "
            "classification (or of texts), not of entities, which have a start and an end"
        )

    def listed(self) -> str:
        """Return the keys of the object for an error."""
        names = [key if len(key) <= 40 else f"{key[:37]}..." for key in self.tree()]
        return ", ".join([*names[:20], *(["..."] if len(names) > 20 else [])]) or "none"

    def mark(self, item: object, label: object = None) -> Mark:
        """Read an entity: [start, end, type], or an object with label, start and end (or their _offset).

        Args:
            item: As read.
            label: Its type, where that is known from elsewhere.
        """
        text = score = None
        if isinstance(item, list) and len(item) == 3:
            start, end, label = item
        elif isinstance(item, dict):
            start, end = (item.get(key, item.get(f"{key}_offset")) for key in ("start", "end"))
            text, score = item.get("text"), item.get("score")
            label = item.get("label") if label is None else label
            if start is None or end is None or (label is None and "label" not in item):
                self.refuse(f"an entity has the keys {', '.join(item) or 'none'}; expected start, end and label")
        else:
            self.refuse(f"expected [start, end, type], or an object with start, end and label; found {show(item)}")
        if type(start) is not int or type(end) is not int:
            self.refuse(f"expected start and end of an entity in characters, whole numbers; found {show(item)}")
        if not isinstance(label, str | None) and type(label) is not int:
            self.refuse(f"expected a type that is a string; found {show(item)}")
        kept = float(score) if isinstance(score, int | float) and -1e9 < score < 1e9 else None
        name = "" if label is None else str(label).strip()
        return Mark(self.place, ((start, end),), name, text if isinstance(text, str) else None, kept)


class Annotators:
    """Chooses among annotations of the same text by several people: one person's, or the first one's.

    Args:
        wanted: Name or number of the annotator; None: whoever comes first for each text.
    """

    def __init__(self, wanted: str | None) -> None:
        self._wanted = wanted
        self._first: dict[object, str] = {}
        self._taken: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def admits(self, text: object, names: Sequence[str]) -> bool:
        """Say whether an annotation is to be read.

        Args:
            text: Identifies the text.
            names: What the annotator is called; none where that is unknown, and the annotation is always read.
        """
        if not names:
            return True
        shown = names[0]
        if self._wanted is not None:
            chosen = any(name == self._wanted or name.endswith(f"-{self._wanted}") for name in names)
        else:
            chosen = self._first.setdefault(text, shown) == shown
        (self._taken if chosen else self.left_out)[shown] += 1
        return chosen

    def note(self, name: str) -> str | None:
        """Say whose annotations were left out.

        Raises:
            CorpusError: The annotator who is wanted has annotated nothing.
        """
        if self.left_out and not self._taken:
            everybody = ", ".join(list(self.left_out)[:20])
            raise CorpusError(f"annotator {self._wanted!r} has no annotation here; those here: {everybody}", name)
        if not self.left_out:
            return None
        whose = self._wanted or "the first for each text"
        others = ", ".join(f"{who} {count:,}" for who, count in self.left_out.most_common(10))
        return (
            f"{name}: several people annotated it; read: {whose}; left out, by annotator: {others} "
            "(corpus.annotator chooses)"
        )


@dataclass
class Reading:
    """A file that is being read.

    Attributes:
        name: Of the file.
        options: How to read it.
        report: Receives what was left out.
        annotators: Whose annotations are read.
        left_out: How many of each kind of thing were left out; `*` is at the end of its noun, for the plural.
        keys: Keys whose values are not kept.
        notes: Anything else that is counted for the report, likewise.
    """

    name: str
    options: ReadOptions
    report: Report
    left_out: Counter[str] = field(default_factory=Counter)
    keys: dict[str, None] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.annotators = Annotators(self.options.annotator if self.options.labelled else None)

    def document(
        self, record: Record, text: str, marks: Sequence[Mark] | None, tokens: Tokens | None = None
    ) -> Document:
        """Make a document; without marks (None) it is unlabelled."""
        tokens = tokenizer_of(self.options)(text) if tokens is None else tokens
        origin = Origin(self.name, "row", (record.number,) * max(1, len(tokens.sentence_starts)))
        if marks is not None and self.options.labelled:
            return fit(text, tokens, marks, self.options, self.report, origin=origin)
        forms = tuple(text[start:end] for start, end in tokens.offsets)
        return Document(forms, text, tuple(tokens.offsets), tuple(tokens.sentence_starts), origin=origin)

    def not_kept(self, record: Record, known: Iterable[str]) -> None:
        """Remember keys with values that are not read."""
        self.keys.update(
            dict.fromkeys(
                key for key, value in record.tree().items() if value and key not in known and key[:1] != "_"
            )
        )

    def finish(self) -> None:
        """Report what was left out."""
        notes = [self.annotators.note(self.name)]
        if self.left_out:
            notes.append(f"{self.name}: left out: {', '.join(_counted(*each) for each in self.left_out.items())}")
        if self.keys:
            shown = list(self.keys)
            notes.append(
                f"{self.name}: keys that are not kept: {', '.join(shown[:20])}{', ...' * (len(shown) > 20)}"
            )
        notes += [f"{self.name}: {_counted(text, count)}" for text, count in self.notes.items()]
        self.report.notes += [note for note in notes if note]


class JsonExport(Format):
    """The base of these formats.

    Attributes:
        array: Whether the objects are written as an array, not as JSON Lines.
    """

    holds = frozenset({"text", "entities"})
    streams = True
    array: ClassVar[bool] = False

    @abstractmethod
    def recognizes(self, value: Any) -> bool:
        """Say whether a JSON value that stands for a text, or for all of them, can only be of this format."""

    @abstractmethod
    def documents(self, records: Iterator[Record], reading: Reading) -> Iterator[Document]:
        """Make documents of the values in a file."""

    @abstractmethod
    def record(self, document: Document) -> Any:
        """Return the JSON value that stands for a document."""

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize one of the first objects of a file."""
        return any(map(self.recognizes, first_values(head, path)))

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document for each annotated text."""
        with open_lines(path, "JSON or JSON Lines") as lines:
            yield from self.read_lines(lines, str(path), options, report)

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read a document for each annotated text; a JSON array must fit into memory."""
        reading = Reading(name, options, report)
        yield from stripped(self.documents(self.values(lines, name), reading), options.strip, Path(name))
        reading.finish()

    def values(self, lines: Iterator[str], name: str) -> Iterator[Record]:
        """Yield the values of a file, each of which stands for a text, or for all of them."""
        return records(lines, name)

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write what the tool can import, to a file that appears when it is whole."""
        with replaced_when_done(target) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream:
            self.write_stream(stream, watched(documents, self, target, report), options)

    def write_stream(self, target: IO[str], documents: Iterable[Document], options: WriteOptions) -> None:
        """Write a value for each document: a line, or an item of an array."""
        before, between, after = ("[\n", ",\n", "\n]\n") if self.array else ("", "\n", "\n")
        started = False
        for group in grouped(documents, loose_together=False):
            document = joined(group)
            refuse_tags(document, None, self.name)
            try:
                text = json.dumps(self.record(document), ensure_ascii=False)
                target.write(f"{between if started else before}{text}")
            except UnicodeEncodeError as problem:
                raise half_a_character(problem, document) from None
            started = True
        target.write(after if started else before + after.lstrip("\n") if self.array else "")


def show(value: object) -> str:
    """Return a JSON value, or its beginning, for an error."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def is_pair(value: object) -> bool:
    """Say whether a list is a text with its annotations, not a list of texts."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _counted(text: str, count: int) -> str:
    plural = "" if count == 1 else "es" if "s*" in text else "s"
    return f"{count:,} {text.replace('*', plural, 1)}"


def records(lines: Iterable[str], name: str) -> Iterator[Record]:
    """Yield the values of a file: those of an array, or of each line."""
    items = 0
    numbered = iter(enumerate(lines, 1))
    for number, line in numbered:
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as problem:
            first = line.strip()
            if items or number > 1 or (first[0] == "{" and first[-1] == "}") or first[0] not in "{[":
                raise CorpusError(f"not JSON ({_reason(line, problem)})", name, number) from None
            value = _whole(chain([line], (line for _, line in numbered)), name)
        if len(line) > MAXIMUM:
            raise _too_long(name)
        if isinstance(value, list) and not is_pair(value):
            for item in value:
                items += 1
                yield Record(name, items, True, item)
        else:
            yield Record(name, number, False, value)


def _whole(lines: Iterable[str], name: str) -> Any:
    """Parse a JSON value of several lines."""
    parts, size = [], 0
    for line in lines:
        size += len(line) + 1
        if size > MAXIMUM:
            raise _too_long(name)
        parts.append(line)
    text = "\n".join(parts)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        place = problem.lineno if isinstance(problem, json.JSONDecodeError) else 1
        raise CorpusError(f"not JSON ({_reason(text, problem)})", name, place) from None


def _reason(text: str, problem: Exception) -> str:
    if isinstance(problem, RecursionError):
        return "its values are nested too deeply"
    if re.search(r"[}\]]\r+[{\[]", text[:MAXIMUM]):
        return OLD_MAC
    if "\0" in text[:1000]:
        return _UTF16
    # Its line is that of the error already.
    return f"{problem.msg}: column {problem.colno}" if isinstance(problem, json.JSONDecodeError) else str(problem)


def _too_long(name: str) -> CorpusError:
    message = (
        f"the file is one JSON value of more than {MAXIMUM:,} characters: export it as JSON Lines, or split it"
    )
    return CorpusError(message, name)


def first_values(head: str | None, path: Path) -> list[Any]:
    """Return the first values of a file of JSON or JSON Lines, as far as they are in its beginning."""
    if not _JSON_START.match(head or ""):
        return []
    size = _FIRST_LOOK
    while True:
        raw = read_head(path, size)
        values = _leading(raw.decode("utf-8", "ignore").lstrip())
        if values or len(raw) < size or size >= _LONGEST_LOOK:
            return values
        size *= 8


def _leading(text: str) -> list[Any]:
    decoder = json.JSONDecoder()
    # The items of an array, but not the two of a text with its annotations.
    position = 1 if re.match(r"\[\s*[\[{]", text) else 0
    values: list[Any] = []
    while len(values) < _LOOKED_AT:
        match = _BETWEEN.match(text, position)
        try:
            value, position = decoder.raw_decode(text, match.end() if match else position)
        except (ValueError, RecursionError):
            break
        values.append(value)
    return values
