"""CoNLL-U, as Universal Dependencies has it: ten columns, with entities in the last one (MISC)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.blocks import (
    USUAL_LABELS,
    Block,
    find_tokens_in,
    origin_of,
    put_together,
    read_blocks,
    value_of,
)
from nertool.formats.columns import decode_lines, half_a_character, shorten
from nertool.formats.conll import Columns
from nertool.formats.labels import relabel
from nertool.formats.opening import open_bytes
from nertool.formats.registry import Format, Holds, ReadOptions, Report, WriteOptions
from nertool.formats.streams import stripped, watched
from nertool.text.document import UNKNOWN, Document, Offsets
from nertool.text.schemes import OUTSIDE, Scheme

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_TAGS = frozenset(COLUMNS[2:-1])  # columns that can be learnt as plain tags
_EMPTY = "_"
_ID = re.compile(r"(\d{1,9})(?:-(\d{1,9})|(\.\d+))?", re.ASCII)
_LABEL = re.compile(r"[BILUESM][-_:].+|O|\?")
_ENTITY_KEYS = ("ner", "name", "ne")  # keys of MISC, in lower case, the first that there is
_HAS_LABEL = re.compile(rf"(?:^|\|)(?:(?:{'|'.join(_ENTITY_KEYS)})=|[BILUESM]-|O(?:\||$))", re.IGNORECASE)
_BAR = "\\p"  # stands for a bar in MISC
_BARE = ""  # stands for the key of a label that has none
_HOLDS: frozenset[Holds] = frozenset(
    {"text", "entities", "tags", "columns", "sentences", "documents", "unlabelled"}
)


class ConllU(Format):
    """Ten columns, separated by tabs, a sentence for each block, comments before it.

    Ranges (`2-3`) and empty nodes (`3.1`) are no tokens. Labels are those of a key of MISC (`NER=B-PER`,
    `name=B-PER`) or stand there bare; `ReadOptions.label` names another key, or a column such as `upos`, whose
    values are plain tags. CoNLL-U Plus says in its first line which columns it has.
    """

    name = "conllu"
    description = "CoNLL-U: entities in MISC (NER=, name=, or bare), or a column such as upos as plain tags"
    suffixes = (".conllu", ".conllup")
    holds = _HOLDS
    streams = True

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize ten columns, of which the first counts, or the line that names columns."""
        lines = (head or "").split("\n")
        if lines and re.match(r"#\s*global\.columns\s*=\s*ID\s.*\bFORM\b", lines[0]):
            return "\t" in next((line for line in lines if line[:1] != "#"), "")
        rows = [line.split("\t") for line in lines if line.strip() and line[0] != "#"][:2]
        if not rows or len(rows[0]) != len(COLUMNS) or not re.fullmatch(r"1(-\d)?|0\.1", rows[0][0]):
            return False
        second = rows[-1][0]  # a token may be 1, but hardly one after the other
        return lines[0].startswith("# ") or bool(re.fullmatch(r"1(\.1)?|2(-\d)?", second)) or len(rows) == 1

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each sentence; those of one `# newdoc` have the same id."""
        with open_bytes(path, "a CoNLL-U file") as stream:
            yield from self._read(decode_lines(stream, path), str(path), options, report)

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read documents from lines; where no labels are wanted, in memory that does not grow."""
        return self._read(decode_lines(lines, name), name, options, report)

    def _read(self, lines: Iterator[str], name: str, options: ReadOptions, report: Report) -> Iterator[Document]:
        columns = options.columns or ()
        if columns[1:2] == ("token",):  # somebody has named columns like these
            yield from Columns().read_lines(lines, name, options, report)
            return
        if columns:
            report.notes.append(f"{name}: corpus.columns is not used, because the columns of CoNLL-U have names")
        reader = _Reader(name, report)
        sentences = reader.sentences(lines)
        if options.labelled:
            sentences = reader.labelled(list(sentences), options)
        documents = (reader.document(sentence) for sentence in sentences)
        yield from stripped(documents, options.strip, Path(name))
        reader.note()

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write what `read` reads."""
        with replaced_when_done(target) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream:
            self.write_stream(stream, watched(documents, self, target, report), options)

    def write_stream(self, target: IO[str], documents: Iterable[Document], options: WriteOptions) -> None:
        """Write CoNLL-U: labels as `NER=` in MISC, plain tags as UPOS, or XPOS where there is one.

        Further columns that CoNLL-U does not have are written to MISC under their names.

        Raises:
            CorpusError: A value cannot stand in its column.
        """
        writer = _Writer(target)
        for document in documents:
            try:
                writer.write(document, relabel(document, options.scheme))
            except UnicodeEncodeError as problem:
                raise half_a_character(problem, document) from None


class _Sentence(NamedTuple):
    """A sentence as it was read.

    Attributes:
        document: Id of its document.
        numbers: The line of each word.
        words: The fields of each word, by the column's name.
        surfaces: What is written in the text, and for how many words it stands.
        gaps: What stands behind each surface; None where the file does not say.
        text: The comment with the text; None without one.
        ranges: For each word in a range, MISC of the range, and the word's number in it and their count.
        labels: One for each word, None where no labels are wanted.
        scheme: Of the labels.
    """

    document: str | None
    numbers: list[int]
    words: list[dict[str, str]]
    surfaces: list[tuple[str, int]]
    gaps: list[str] | None
    text: str | None
    ranges: dict[int, tuple[str, int, int]]
    labels: tuple[str, ...] | None = None
    scheme: Scheme | None = None


class _Reader:
    """Reads one file."""

    def __init__(self, name: str, report: Report) -> None:
        self.name, self.report = name, report
        self.columns: tuple[str, ...] = COLUMNS
        self.document_id: str | None = None
        self.documents = self.contracted = self.differing = 0
        self.dropped: frozenset[str] = frozenset()  # columns that are not kept
        self.key: str | None = None  # of MISC, whose values are the labels

    def sentences(self, lines: Iterable[str]) -> Iterator[_Sentence]:
        for block in read_blocks(lines, lambda line: line.split("\t")):
            text = None
            for comment in block.comments:
                if (columns := value_of(comment, "global.columns")) is not None:
                    self._name_columns(columns)
                elif re.match(r"#\s*newdoc(?!\S)", comment):
                    self.documents += 1
                    self.document_id = value_of(comment, "newdoc id") or str(self.documents)
                elif (given := value_of(comment, "text")) is not None:
                    text = given
            if block.rows and (sentence := self._sentence(block, text)).words:
                yield sentence

    def _name_columns(self, columns: str) -> None:
        names = tuple(name.lower() for name in columns.split())
        if names[:1] != ("id",) or "form" not in names or len(set(names)) < len(names):
            raise CorpusError(f"global.columns is {columns!r}; expected ID, FORM and further names", self.name, 1)
        self.columns = names

    def _sentence(self, block: Block, text: str | None) -> _Sentence:
        gaps: list[str] = []
        sentence = _Sentence(self.document_id, [], [], [], gaps, text, {})
        end = 0  # number of the last word of a range
        waiting: tuple[str, str, int] | None = None  # a range: its form, MISC and number of words
        for line, row in zip(block.numbers, block.rows, strict=True):
            if len(row) != len(self.columns):
                raise CorpusError(self._width(row), self.name, line)
            if not (match := _ID.fullmatch(row[0])):
                raise CorpusError(f"found {shorten(row[0])} as ID; expected 1, 2-3 or 3.1", self.name, line)
            if match[3]:
                continue
            fields = dict(zip(self.columns, row, strict=True))
            misc = fields.get("misc", _EMPTY)
            if match[2]:
                end = int(match[2])
                waiting = fields["form"], misc, end - int(match[1]) + 1
                sentence.surfaces.append((fields["form"], end - int(match[1]) + 1))
                gaps.append(_gap(misc))
                continue
            if not fields["form"]:
                raise CorpusError("the form is empty; expected a token in each line", self.name, line)
            if waiting and int(match[1]) <= end:
                _, given, count = waiting
                sentence.ranges[len(sentence.words)] = given, int(match[1]) - (end - count + 1), count
            else:
                waiting = None
                sentence.surfaces.append((fields["form"], 1))
                gaps.append(_gap(misc))
            sentence.numbers.append(line)
            sentence.words.append(fields)
        if sum(count for _, count in sentence.surfaces) != len(sentence.words):
            raise CorpusError("a range such as 2-3 has not all of its words", self.name, block.numbers[0])
        return sentence if "" in gaps else sentence._replace(gaps=None)

    def _width(self, row: list[str]) -> str:
        count, expected = len(row), len(self.columns)
        names = " ".join(name.upper() for name in self.columns)
        return (
            f"found {count} column{'s' * (count > 1)} in {shorten(chr(9).join(row))}; CoNLL-U has {expected}, "
            f"separated by tabs ({names}). If these are others, name them from left to right: --set "
            "corpus.format=conll --set corpus.columns='[id, token, ..., ner]' --set corpus.label=ner"
        )

    def labelled(self, sentences: list[_Sentence], options: ReadOptions) -> Iterator[_Sentence]:
        """Add the labels, once all sentences have shown where these are."""
        columns = [name for name in self.columns if name not in ("id", "form")]
        filled = {name for s in sentences for word in s.words for name in columns if word[name] != _EMPTY}
        self.dropped = frozenset(columns) - filled
        wanted = options.label.lower()
        extra = [name for name in columns if name not in COLUMNS and name in filled]
        named = [name for name in extra if name.rpartition(":")[2] in _ENTITY_KEYS]
        if wanted in columns and wanted != "misc":
            column = wanted
        elif wanted in USUAL_LABELS and len(named) == 1:
            column = named[0]
        else:
            return self._labelled_in_misc(sentences, options.label)
        if sentences and column not in filled:
            raise CorpusError(f"the column {column} has no values; those that have: {self._listed()}", self.name)
        self.dropped |= {column}
        return self._labelled_by_column(sentences, column, Scheme.PLAIN if column in _TAGS else options.scheme)

    def _labelled_by_column(
        self, sentences: list[_Sentence], column: str, scheme: Scheme | None
    ) -> Iterator[_Sentence]:
        legal = column in ("feats", "deps", "lemma")  # _ is a value there: no features
        self._drop_misc(sentences)
        for sentence in sentences:
            values = [word[column] for word in sentence.words]
            labels = tuple(UNKNOWN if value == _EMPTY and not legal else value for value in values)
            yield sentence._replace(labels=labels, scheme=scheme)

    def _labelled_in_misc(self, sentences: list[_Sentence], label: str) -> Iterator[_Sentence]:
        if not sentences:
            return
        values: dict[str, set[str]] = {}
        for sentence in sentences:
            miscs = [word.get("misc", _EMPTY) for word in sentence.words]
            for each in [*miscs, *(given for given, *_ in sentence.ranges.values())]:
                for key, value in _parsed(each).items():
                    values.setdefault(key, set()).add(value)
        key = self.key = self._choose(values, label)
        # Where nothing is labelled as outside, labels of entities alone were written.
        complete = OUTSIDE in values[key] or not all(map(_LABEL.fullmatch, values[key]))
        self._drop_misc(sentences)
        missing = 0
        for sentence in sentences:
            given = [_parsed(word.get("misc", _EMPTY)).get(key) for word in sentence.words]
            for index, (misc, position, count) in sentence.ranges.items():
                if given[index] is None and (whole := _parsed(misc).get(key)) is not None:
                    given[index] = _part(whole, position, count)
            missing += given.count(None)
            labels = tuple((UNKNOWN if complete else OUTSIDE) if each is None else each for each in given)
            yield sentence._replace(labels=labels)
        shown = f"{key}=" if key else "label"
        if missing and complete:
            have = "token has" if missing == 1 else "tokens have"
            self.report.notes.append(f"{self.name}: {missing:,} {have} no {shown} in MISC: the label is unknown")
        elif missing:
            self.report.notes.append(
                f"{self.name}: {missing:,} tokens that have no {shown} in MISC were read as outside of all "
                f"entities, because no token has {key and key + '='}O"
            )

    def _drop_misc(self, sentences: list[_Sentence]) -> None:
        """Drop the column misc where nothing but the labels is in it."""
        rests = (_rest(word.get("misc", _EMPTY), self.key) for s in sentences for word in s.words)
        if all(rest == _EMPTY for rest in rests):
            self.dropped |= {"misc"}

    def _choose(self, values: dict[str, set[str]], label: str) -> str:
        """Choose the key of MISC whose values are the labels."""
        for key in values:
            if key == label or (label.lower() not in USUAL_LABELS and key.lower() == label.lower()):
                return key
        like = [key for key, found in values.items() if all(_LABEL.fullmatch(value) for value in found)]
        like = [key for key in like if key.lower() in _ENTITY_KEYS or values[key] - {OUTSIDE, "?"} or not key]
        usual = [key for name in _ENTITY_KEYS for key in values if key.lower() == name]
        usual = [key for key in usual if key in like or key.lower() != "name"]
        if label.lower() in {*USUAL_LABELS, "misc"}:
            if usual or len(like) == 1:
                return (usual or like)[0]
            if _BARE in like:
                return _BARE
        if "Entity" in values and not like:
            what = "entities are in Entity=, in brackets that overlap (GUM, CorefUD), which is not read"
        elif label.lower() in USUAL_LABELS:
            what = "there are no entities in MISC, such as NER=B-PER or name=B-PER"
        else:
            what = f"there is no column and no key of MISC called {label!r}"
        keys = [f"{key}=" for key in values if key]
        found = ", ".join(keys[:12]) + (", ..." if len(keys) > 12 else "") or "no keys"
        raise CorpusError(
            f"{what}. MISC has {found}; columns with values are: {self._listed()}. Choose what to learn with "
            f"corpus.label, for example --set corpus.label={self._example()}",
            self.name,
        )

    def _listed(self) -> str:
        names = [name for name in self.columns if name not in {*COLUMNS[:2], "misc", *self.dropped}]
        return ", ".join(names) or "none"

    def _example(self) -> str:
        return next((name for name in ("upos", "xpos", "deprel") if name not in self.dropped), "upos")

    def document(self, sentence: _Sentence) -> Document:
        tokens = tuple(word["form"] for word in sentence.words)
        text, offsets = self._text(sentence, tokens)
        columns: dict[str, tuple[str, ...]] = {}
        for name in self.columns[1:]:
            if name == "form" or name in self.dropped:
                continue
            values = (word[name] for word in sentence.words)
            columns[name] = tuple(_rest(value, self.key) if name == "misc" else value for value in values)
        return Document(
            tokens,
            text,
            offsets,
            labels=sentence.labels,
            scheme=sentence.scheme,
            columns=columns,
            id=sentence.document,
            origin=origin_of(self.name, [sentence.numbers]),
        )

    def _text(self, sentence: _Sentence, tokens: Sequence[str]) -> tuple[str | None, Offsets]:
        """Return the text, in which the words of a contraction stand separately, and the offsets of the words."""
        surfaces, gaps = [surface for surface, _ in sentence.surfaces], sentence.gaps
        if sentence.text:
            offsets = find_tokens_in(sentence.text, surfaces)
            if offsets is not None:
                ends = [start for start, _ in offsets[1:]] + [offsets[-1][1]]
                gaps = [sentence.text[end:start] for (_, end), start in zip(offsets, ends, strict=True)]
            else:
                self.differing += 1
        if gaps is None:
            self.contracted += self._is_contracted(sentence, tokens)
            return None, ()
        behind: list[str] = []
        contracted = False
        for (surface, count), gap in zip(sentence.surfaces, gaps, strict=True):
            words = tokens[len(behind) : len(behind) + count]
            within = "" if "".join(words) == surface else " "
            contracted = contracted or within == " "
            behind += [within] * (count - 1) + [gap]
        self.contracted += contracted
        return put_together(tokens, behind)

    def _is_contracted(self, sentence: _Sentence, tokens: Sequence[str]) -> bool:
        return "".join(surface for surface, _ in sentence.surfaces) != "".join(tokens)

    def note(self) -> None:
        """Say what of the text is not kept."""
        if self.contracted:
            have = "sentence has" if self.contracted == 1 else "sentences have"
            self.report.notes.append(
                f"{self.name}: {self.contracted:,} {have} contractions (2-3); the text has their words instead"
            )
        if self.differing:
            have = "sentence has" if self.differing == 1 else "sentences have"
            self.report.notes.append(
                f"{self.name}: {self.differing:,} {have} other words than the comment # text, which was left out"
            )


def _gap(misc: str) -> str:
    return "" if "SpaceAfter=No" in misc.split("|") else " "


@lru_cache(maxsize=65536)
def _parsed(misc: str) -> Mapping[str, str]:
    """Return what MISC says, by key; a label without a key under the key `_BARE`."""
    if misc == _EMPTY:
        return {}
    result: dict[str, str] = {}
    for item in misc.split("|"):
        key, equals, value = item.partition("=")
        if equals and key:
            result.setdefault(key, value)
        elif _LABEL.fullmatch(item):
            result.setdefault(_BARE, item)
    return result


@lru_cache(maxsize=65536)
def _rest(misc: str, key: str | None) -> str:
    """Return MISC without the label and without what the text says."""
    kept = [
        item
        for item in misc.split("|")
        if item != "SpaceAfter=No"
        and not (key and item.startswith(f"{key}="))
        and not (key == _BARE and _LABEL.fullmatch(item))
    ]
    return "|".join(kept) or _EMPTY


def _part(label: str, position: int, count: int) -> str:
    """Return the label of one of the words that share the label of a range."""
    prefix, hyphen, kind = label.partition("-")
    if not hyphen or count == 1:
        return label
    first, last = position == 0, position == count - 1
    if prefix == "B":
        prefix = "B" if first else "I"
    elif prefix in "EL":
        prefix = prefix if last else "I"
    elif prefix in "SU":
        prefix = "B" if first else ("EL"["SU".index(prefix)] if last else "I")
    return f"{prefix}-{kind}"


class _Writer:
    """Writes sentences with comments before them."""

    def __init__(self, target: IO[str]) -> None:
        self._target = target
        self._before: str | None = None  # id of the document before
        self._marked = False  # whether a document was marked
        self._count = 0

    def write(self, document: Document, labels: Sequence[str]) -> None:
        self._mark(document)
        tags = document.has_tags
        free = [name for name in ("upos", "xpos") if name not in document.columns]
        tag_column = free[0] if tags and free else None
        values = {name: document.columns[name] for name in COLUMNS[2:] if name in document.columns}
        if tag_column:
            values[tag_column] = tuple(label or _EMPTY for label in labels)
        others = {name: row for name, row in document.columns.items() if name not in COLUMNS[2:]}
        key = None if document.labels is None or tag_column else ("Tag" if tags else "NER")
        if key and any(_HAS_LABEL.search(value) for value in values.get("misc", ())):
            key = "predicted"  # beside those that the file had
        follow = [start for start, _ in document.offsets[1:]] + [-1]
        glued = [end == start for (_, end), start in zip(document.offsets, follow, strict=False)]
        for start, end in document.bounds:
            self._count += 1
            text, _ = put_together(document.tokens[start:end], ["" if each else " " for each in glued[start:end]])
            lines = [f"# sent_id = {self._count}", f"# text = {text}"]
            for index in range(start, end):
                self._check(document.tokens[index], "FORM")
                fields = [str(index - start + 1), document.tokens[index]]
                fields += [self._field(values, name, index) for name in COLUMNS[2:-1]]
                misc = [item for item in [self._field(values, "misc", index)] if item != _EMPTY]
                if key:
                    misc.append(f"{key}={self._item(labels[index] or '?', key)}")
                # As elsewhere in MISC, \\p stands for a bar.
                misc += [
                    f"{name}={self._item(row[index].replace('|', _BAR), name)}" for name, row in others.items()
                ]
                misc += ["SpaceAfter=No"] * glued[index]
                lines.append("\t".join([*fields, "|".join(misc) or _EMPTY]))
            self._target.write("\n".join(lines) + "\n\n")

    def _mark(self, document: Document) -> None:
        several = len(document.sentence_starts) > 1
        if document.id is not None:
            if document.id != self._before:
                self._check(document.id, "newdoc id")
                self._target.write(f"# newdoc id = {document.id}\n")
                self._marked = True
        elif several or (self._marked and (document.source_text is not None or self._before is not None)):
            self._target.write("# newdoc\n")
            self._marked = True
        self._before = document.id

    def _field(self, values: dict[str, tuple[str, ...]], name: str, index: int) -> str:
        value = values[name][index] if name in values else _EMPTY
        if value:
            self._check(value, name.upper())
        return value or _EMPTY

    def _item(self, value: str, name: str) -> str:
        self._check(value, name, also="|")
        return value

    def _check(self, value: str, where: str, also: str = "") -> None:
        if not value and where == "FORM":
            raise CorpusError("an empty token cannot be written")
        if value != value.strip(" ") or any(character in value for character in f"\t\n\r{also}"):
            raise CorpusError(f"{shorten(value)} cannot be written: {where} would not be read back as it is")
