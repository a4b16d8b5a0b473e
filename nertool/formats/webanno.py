"""WebAnno TSV 3, which WebAnno and INCEpTION export: layers of annotations beside each token."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from nertool.errors import CorpusError
from nertool.formats.alignment import Mark, fit
from nertool.formats.blocks import USUAL_LABELS, Block, find_tokens_in, origin_of, put_together, read_blocks
from nertool.formats.columns import decode_lines, shorten
from nertool.formats.opening import open_bytes
from nertool.formats.registry import Format, Holds, ReadOptions, Report
from nertool.formats.streams import stripped
from nertool.text.document import UNKNOWN, Document, Offsets
from nertool.text.schemes import OUTSIDE, Scheme
from nertool.text.tokenization import Tokens

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPED = re.compile(r"\\(->|.)", re.DOTALL)
_NOTHING, _NO_VALUE = "_", "*"
_TOKEN_LAYERS = frozenset(
    {"pos", "lemma", "stem", "morphologicalfeatures", "surfaceform"}
)  # a value for each token
_WITHOUT_TYPES = frozenset({"identifier"})  # features that are no types
_HOLDS: frozenset[Holds] = frozenset({"text", "entities", "tags", "sentences", "documents", "unlabelled"})


class WebAnno(Format):
    """A token a line: its number, its place, itself, and a column for each feature of each layer.

    Entities are the values of the layer NamedEntity, or of the only layer of spans; `ReadOptions.label` names
    another, as `Layer.feature`, `Layer` or `feature`. Where annotations overlap, the one that begins first stays,
    of those that begin together the longest. What covers only a part of a token is left out, or widened with
    `snap`.
    """

    name = "webanno"
    description = "WebAnno TSV 3 (WebAnno, INCEpTION): the layer NamedEntity, or another one"
    holds = _HOLDS
    writable = False

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize the first line."""
        return (head or "").startswith("#FORMAT=WebAnno")

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each sentence; all have the id of the file's name without its suffix."""
        with open_bytes(path, "a file of WebAnno TSV 3") as stream:
            blocks = list(read_blocks(decode_lines(stream, path), lambda line: line.split("\t")))
        documents = _File(blocks, path, options, report).documents()
        yield from stripped(documents, options.strip, path)


class _Feature(NamedTuple):
    """A column of annotations."""

    kind: str  # of its layer: SP, CH or RL
    layer: str  # without the package
    name: str
    column: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}" if self.name else self.layer


class _Value(NamedTuple):
    """One annotation in one column of a line."""

    value: str  # unescaped, `*` where it has none
    number: str  # the same for all tokens of an annotation; empty where it is of this token alone


class _File:
    def __init__(self, blocks: list[Block], path: Path, options: ReadOptions, report: Report) -> None:
        self.path, self.name, self.options, self.report = path, str(path), options, report
        comments = [comment for block in blocks for comment in block.comments]
        version = next((comment for comment in comments if comment.startswith("#FORMAT=")), "")
        if not re.match(r"#FORMAT=WebAnno TSV 3(?!\d)", version):
            message = (
                f"the first line is {shorten(version)}; expected #FORMAT=WebAnno TSV 3: export the corpus again"
            )
            raise CorpusError(message, path, 1)
        self.features = _features(comments)
        self.blocks = [block for block in blocks if block.rows]
        self.feature = self._choose() if options.labelled else None
        self.without_text = 0

    def _choose(self) -> _Feature:
        """Choose the feature whose values are the labels."""
        wanted = self.options.label.lower()
        found = [
            each
            for each in self.features
            if wanted in (str(each).lower(), each.layer.lower(), each.name.lower()) and each.kind == "SP"
        ]
        if not found and wanted in USUAL_LABELS:
            spans = [each for each in self.features if each.kind == "SP"]
            spans = [each for each in spans if each.layer.lower() not in _TOKEN_LAYERS]
            named = [each for each in spans if each.layer.lower().endswith("namedentity")]
            found = named or spans
        if len(found) > 1:  # such as identifier and value
            typed = [each for each in found if each.name.lower() not in _WITHOUT_TYPES]
            exact = [each for each in typed if each.name.lower() in ("value", "label", wanted)]
            found = exact if len(exact) == 1 else typed
        if len(found) == 1:
            return found[0]
        listed = ", ".join(str(each) for each in self.features if each.kind == "SP") or "none"
        problem = (
            f"several are called {self.options.label!r}" if found else f"none is called {self.options.label!r}"
        )
        if wanted in USUAL_LABELS:
            problem = "several layers of spans may hold the entities" if found else "there is no layer of entities"
        raise CorpusError(
            f"{problem}; the layers and features are: {listed}. Choose one with corpus.label, such as --set "
            f"corpus.label={next((str(each) for each in found or self.features), 'NamedEntity.value')}",
            self.path,
        )

    def documents(self) -> Iterator[Document]:
        crossing = self._crossing()
        for block in self.blocks:
            yield self._sentence(block, crossing)
        if self.without_text:
            have = "sentence has" if self.without_text == 1 else "sentences have"
            self.report.notes.append(
                f"{self.path}: {self.without_text:,} {have} other tokens than #Text=, which was left out"
            )
        others = dict.fromkeys(
            each.layer for each in self.features if self.feature and each.layer != self.feature.layer
        )
        if others:
            self.report.notes.append(f"{self.path}: layers that are not read: {', '.join(others)}")

    def _crossing(self) -> frozenset[str]:
        """Find the annotations that go over several sentences, by their numbers."""
        crossing: set[str] = set()
        for before, block in pairwise(self.blocks):
            # Some programs begin to count annotations again in each sentence.
            ending, beginning = (set(self._values(row)) for row in (before.rows[-1], block.rows[0]))
            crossing |= {each.number for each in ending & beginning if each.number}
        return frozenset(crossing)

    def _values(self, row: Sequence[str]) -> list[_Value]:
        if self.feature is None or len(row) <= self.feature.column:
            return []
        return _values(row[self.feature.column])

    def _sentence(self, block: Block, crossing: frozenset[str]) -> Document:
        words: list[int] = []  # rows that are tokens, not parts of one
        for index, (line, row) in enumerate(zip(block.numbers, block.rows, strict=True)):
            if len(row) < 3 or not re.fullmatch(r"\d+-\d+(\.\d+)?", row[0]):
                message = (
                    f"found {shorten(chr(9).join(row))}; expected a token's number such as 1-2, its start and end "
                    "such as 0-4, and itself, separated by tabs"
                )
                raise CorpusError(message, self.path, line)
            if self.feature is not None and len(row) <= self.feature.column:
                expected = self.feature.column + 1
                message = f"found {len(row)} columns; expected at least {expected}, because of {self.feature}"
                raise CorpusError(message, self.path, line)
            if "." not in row[0]:
                words.append(index)
            elif not words:
                raise CorpusError(f"{row[0]} is a part of no token before it", self.path, line)
        tokens = [_unescape(block.rows[index][2]) for index in words]
        if "" in tokens:
            raise CorpusError("the token is empty", self.path, block.numbers[words[tokens.index("")]])
        text, offsets, known = self._text(block, tokens)
        origin = origin_of(self.name, [[block.numbers[index] for index in words]])
        rest: dict[str, Any] = {"id": self.path.name.partition(".")[0], "origin": origin}
        if self.feature is None:
            document = Document(tuple(tokens), text, offsets, **rest)
        elif self.feature.layer.lower() in _TOKEN_LAYERS:
            values = [self._values(block.rows[index]) for index in words]
            tags = tuple(each[0].value if each and each[0].value != _NO_VALUE else UNKNOWN for each in values)
            document = Document(tuple(tokens), text, offsets, labels=tags, scheme=Scheme.PLAIN, **rest)
        else:
            marks, unknown = self._marks(block, words, offsets, crossing)
            document = fit(text, Tokens(list(offsets), [0]), marks, self.options, self.report, **rest)
            labels = document.labels or ()
            document = replace(
                document,
                labels=tuple(UNKNOWN if n in unknown and x == OUTSIDE else x for n, x in enumerate(labels)),
            )
        return document if known else replace(document, source_text=None, source_offsets=())

    def _text(self, block: Block, tokens: list[str]) -> tuple[str, Offsets, bool]:
        """Return the text, the places of tokens in it, and whether it is the one that was annotated."""
        given = [comment.removeprefix("#Text=") for comment in block.comments if comment.startswith("#Text=")]
        text = _unescape("\n".join(given))
        offsets = find_tokens_in(text, tokens)
        if offsets is not None:
            return text, offsets, True
        self.without_text += bool(given)
        return *put_together(tokens, [" "] * len(tokens)), False

    def _marks(
        self, block: Block, words: list[int], offsets: Offsets, crossing: frozenset[str]
    ) -> tuple[list[Mark], set[int]]:
        """Return the annotations with their places in the text, and the tokens of those that cannot be read."""
        pieces: dict[str, list[tuple[int, int]]] = defaultdict(list)
        values: dict[str, str] = {}
        lines: dict[str, int] = {}
        token = -1
        tokens: dict[str, set[int]] = defaultdict(set)
        for index, (line, row) in enumerate(zip(block.numbers, block.rows, strict=True)):
            if "." not in row[0]:
                token += 1
                place = offsets[token]
            else:
                place = self._part(row, block.rows[words[token]], offsets[token], line)
            for position, each in enumerate(self._values(row)):
                key = each.number or f"{index}/{position}"
                pieces[key].append(place)
                tokens[key].add(token)
                lines.setdefault(key, line)
                if values.setdefault(key, each.value) != each.value:
                    values[key] = _NO_VALUE  # nobody knows which
        marks, unknown = [], set()
        for key, places in pieces.items():
            where = f"{self.path}, line {lines[key]}"
            if key in crossing:
                problem = f"{values[key]} goes over the end of a sentence"
            elif values[key] == _NO_VALUE:
                problem = f"an annotation of {self.feature} has no value"
            else:
                marks.append(Mark(where, tuple(sorted(places)), values[key]))
                continue
            self.report.misfits.append(f"{where}: {problem}")
            unknown |= tokens[key]
        return marks, unknown

    def _part(
        self, row: Sequence[str], whole: Sequence[str], place: tuple[int, int], line: int
    ) -> tuple[int, int]:
        """Return where a part of a token is in the text; its offsets count UTF-16 units."""
        begins = [re.match(r"(\d{1,15})-", each[1]) for each in (row, whole)]
        token, part = _unescape(whole[2]), _unescape(row[2])
        if begins[0] and begins[1]:
            units = int(begins[0][1]) - int(begins[1][1])
            start = len(token.encode("utf-16-le")[: 2 * max(0, units)].decode("utf-16-le", "ignore"))
            if part and token.startswith(part, start):
                return place[0] + start, place[0] + start + len(part)
        raise CorpusError(f"{row[0]} {part!r} at {row[1]} is not a part of the token {token!r}", self.path, line)


def _features(comments: list[str]) -> list[_Feature]:
    """Read the header: which column is which feature of which layer."""
    features = []
    column = 3  # the first three are the token
    for comment in comments:
        match = re.match(r"#T_(SP|CH|RL)=([^|]*)\|?(.*)", comment)
        if match:
            names = [name for name in match[3].split("|") if name] or [""]  # a layer without features has a column
            layer = match[2].strip().rpartition(".")[2]
            features += [_Feature(match[1], layer, name, column + n) for n, name in enumerate(names)]
            column += len(names)
    return features


def _values(field: str) -> list[_Value]:
    """Read the annotations in a column of a line: `PER[1]|LOC[2]`; `_` is none, `*` is one without a value."""
    if field in (_NOTHING, ""):
        return []
    result = []
    for item in _split(field):
        match = re.fullmatch(r"(.*?)(?:\[(\d+)\])?", item, re.DOTALL)
        value, number = (match[1], match[2] or "") if match else (item, "")
        if value != _NOTHING:
            result.append(_Value(value if value == _NO_VALUE else _unescape(value) or _NO_VALUE, number))
    return result


def _split(field: str) -> list[str]:
    """Split at those bars that are not escaped."""
    return [piece for piece in re.findall(r"((?:\\.|[^\\|])*)(?:\||$)", field, re.DOTALL) if piece]


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]), text) if "\\" in text else text
