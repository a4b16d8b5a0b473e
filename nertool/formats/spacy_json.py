"""JSON of spaCy 2 and 3: texts with the offsets of their entities, paragraphs of tokens, or `Doc.to_json()`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from nertool.formats.annotation_tools import JsonExport, Reading, Record, is_pair, show
from nertool.text.document import UNKNOWN, Document, Origin
from nertool.text.tokenization import Tokens

_MISSING = (None, "", "-")  # labels of tokens that nobody has labelled
_TOKEN_KEYS = frozenset({"id", "orth", "ner"})
_DOC_KEYS = frozenset({"text", "ents", "tokens", "sents"})
_EXPECTED = 'expected [text, {"entities": [[start, end, type], ...]}], or an object with paragraphs or ents'


class SpacyJson(JsonExport):
    """Pairs of a text and its entities, `[text, {"entities": [[start, end, type]]}]`, or spaCy 2's JSON format.

    The pairs are in an array, in lines, or under `annotations` as some annotators of the web write them. In the
    JSON format, `paragraphs` have `sentences` of `tokens` with `orth` and `ner` in BILUO; "-" is no label. What
    `Doc.to_json()` of spaCy 3 gives is read, too: `text`, `ents`, `sents` and `tokens`.
    """

    name = "spacy-json"
    description = "spaCy's JSON: texts with the offsets of entities, paragraphs of tokens, or Doc.to_json()"
    streams = False
    array = True

    def recognizes(self, value: Any) -> bool:
        """Recognize a pair, or a document with paragraphs."""
        if is_pair(value):
            return isinstance(value[1], dict)
        if not isinstance(value, dict):
            return False
        pairs = value.get("annotations")
        if isinstance(pairs, list) and "text" not in value and any(map(is_pair, pairs)):
            return True
        return isinstance(value.get("paragraphs"), list) or _is_doc(value)

    def documents(self, records: Iterator[Record], reading: Reading) -> Iterator[Document]:
        """Read a document from each pair and each paragraph."""
        for record in _unwrapped(records):
            value = record.value
            if is_pair(value) and isinstance(value[1], dict):
                yield _from_pair(record, reading)
            elif isinstance(value, dict) and isinstance(value.get("paragraphs"), list):
                yield from _from_paragraphs(record, reading)
            elif _is_doc(value):
                yield _from_doc(record, reading)
            else:
                record.refuse(f"{_EXPECTED}; found {show(value)}")

    def record(self, document: Document) -> Any:
        """Return a pair."""
        entities = [[entity.start, entity.end, entity.label] for entity in document.entities]
        return [document.text, {} if document.labels is None else {"entities": entities}]


def _unwrapped(records: Iterable[Record]) -> Iterator[Record]:
    """Yield the pairs of objects that hold them under `annotations`."""
    for record in records:
        value = record.value
        if isinstance(value, dict) and isinstance(value.get("annotations"), list):
            for number, item in enumerate(value["annotations"], 1):
                if item is not None:  # a text that nobody has come to
                    yield Record(record.name, number, True, item)
        else:
            yield record


def _from_pair(record: Record, reading: Reading) -> Document:
    text, tree = record.value
    own = replace(record, value=tree)
    if not reading.options.labelled:
        return reading.document(record, text, None)
    own.refuse_unknown({"entities", "words", "tags"}, "entities")
    reading.not_kept(own, {"entities", "words"})
    entities, words = own.items("entities"), own.items("words")
    if any(isinstance(each, str) for each in entities):
        return _from_labels(own, reading, text, words, entities)
    marks = [own.mark(item) for item in entities]
    return reading.document(record, text, None if tree.get("entities") is None else marks)


def _is_doc(value: object) -> bool:
    """Say whether a value is what `Doc.to_json()` gives: the tokens have no text of their own."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return False
    tokens = value.get("tokens")
    cut = isinstance(tokens, list) and all(isinstance(each, dict) and "start" in each for each in tokens)
    return isinstance(value.get("ents"), list) or (cut and isinstance(value.get("sents"), list))


def _from_doc(record: Record, reading: Reading) -> Document:
    tree = record.tree()
    text = record.text("text")
    reading.not_kept(record, _DOC_KEYS)
    offsets = [_place(record, item, "tokens", len(text)) for item in record.items("tokens")]
    offsets = [(start, end) for start, end in offsets if text[start:end].strip()]
    tokens = None
    if offsets:
        begun = [start for start, _ in offsets]
        if any(end > start for (_, end), (start, _) in pairwise(offsets)):
            record.refuse("tokens: expected them one after another")
        sentences = [_place(record, item, "sents", len(text)) for item in record.items("sents")]
        starts = {bisect_left(begun, start) for start, _ in sentences}
        tokens = Tokens(offsets, sorted({0, *starts} - {len(offsets)}))
    if not reading.options.labelled or tree.get("ents") is None:
        return reading.document(record, text, None, tokens)
    return reading.document(record, text, [record.mark(item) for item in record.items("ents")], tokens)


def _place(record: Record, item: object, key: str, length: int) -> tuple[int, int]:
    """Read where a token or a sentence stands in the text."""
    start, end = (item.get(each) if isinstance(item, dict) else None for each in ("start", "end"))
    if type(start) is not int or type(end) is not int or not 0 <= start <= end <= length:
        record.refuse(f"{key}: expected objects with start and end, which are in the text; found {show(item)}")
    return start, end


def _from_paragraphs(record: Record, reading: Reading) -> Iterator[Document]:
    several = len(record.value["paragraphs"]) > 1
    for paragraph in record.value["paragraphs"]:
        own = replace(record, value=paragraph)
        words: list[str] = []
        labels: list[Any] = []
        starts: list[int] = []
        if "sentences" not in own.tree():
            own.refuse(f"expected paragraphs with sentences; the keys are {own.listed()}")
        for sentence in own.items("sentences"):
            starts.append(len(words))
            for token in replace(record, value=sentence).items("tokens"):
                orth = token.get("orth") if isinstance(token, dict) else None
                if not isinstance(orth, str):
                    record.refuse(f"expected tokens with orth and ner; found {show(token)}")
                reading.not_kept(replace(record, value=token), _TOKEN_KEYS)
                if orth.strip():
                    words.append(orth)
                    labels.append(token.get("ner"))
        raw = paragraph.get("raw")
        if not words and isinstance(raw, str):
            marks = [own.mark(item) for item in own.items("entities")] if reading.options.labelled else []
            document = reading.document(own, raw, marks if "entities" in paragraph else None)
        else:
            document = _from_labels(own, reading, raw if isinstance(raw, str) else None, words, labels, starts)
        yield replace(document, id=f"{record.number}") if several else document


def _from_labels(
    record: Record,
    reading: Reading,
    text: str | None,
    words: list[Any],
    labels: list[Any],
    starts: Iterable[int] = (0,),
) -> Document:
    """Make a document of tokens with labels, in the text where they are found in it."""
    for values, what in ((words, "words"), (labels, "labels")):
        if wrong := [
            each for each in values if not isinstance(each, str) and not (what == "labels" and each is None)
        ]:
            record.refuse(f"expected {what} that are strings; found {show(wrong[0])}")
    if len(words) != len(labels):
        record.refuse(f"{len(labels)} labels and {len(words)} words; expected as many labels as words")
    offsets: list[tuple[int, int]] = []
    if text is not None:
        position = 0
        for word in words:
            start = text.find(word, position)
            if start < 0 or not word:
                reading.notes["text* without its tokens in it, read as tokens alone"] += 1
                text, offsets = None, []
                break
            position = start + len(word)
            offsets.append((start, position))
    firsts = tuple(sorted({start for start in starts if start < len(words)}))
    row = tuple(UNKNOWN if label in _MISSING else label for label in labels)
    labelled = reading.options.labelled and any(row)
    origin = Origin(reading.name, "row", (record.number,) * max(1, len(firsts)))
    return Document(
        tuple(words), text, tuple(offsets), firsts, row if labelled else None,
        reading.options.scheme if labelled else None, origin=origin,
    )  # fmt: skip
