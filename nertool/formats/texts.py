"""What every format is read into and written from: texts with tokens and entities, and a list of misfits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from nertool.config.schema import CorpusConfig
from nertool.errors import CorpusError
from nertool.formats.labels import LabelledSentences
from nertool.text.schemes import Scheme, Span, encode
from nertool.text.tokenization import Cut


@dataclass(frozen=True)
class Text:
    """A text, its tokens, and its entities.

    Attributes:
        text: The characters.
        offsets: Where each token begins and ends.
        ends: Where each sentence ends among the tokens.
        spans: The entities, in tokens of the whole text, in order.
        tags: Plain tags instead of entities, one for each token.
        document: The number of the document, where several texts may be of one.
        sentence: Whether this is a sentence of something longer, cut out by its format.
        name: That the text has in a folder.
    """

    text: str
    offsets: list[tuple[int, int]]
    ends: list[int]
    spans: list[Span]
    tags: list[str] | None = None
    document: int | None = None
    sentence: bool = False
    name: str | None = None

    @property
    def tokens(self) -> list[str]:
        """The tokens as written."""
        return [self.text[start:end] for start, end in self.offsets]


@dataclass(frozen=True)
class Mark:
    """An entity as a format with character offsets has it: where it stands, its characters, its type."""

    place: str
    start: int
    end: int
    label: str


@dataclass
class Report:
    """What a conversion met on its way.

    Attributes:
        misfits: Entities that were left out, each with its place and the reason.
        widened: Entities that were widened to whole tokens.
        notes: What else was left out or repaired.
    """

    misfits: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """How to read.

    Attributes:
        corpus: Columns, schemes and policies of files of sentences.
        cut: What makes tokens and sentences of raw text.
        snap: Whether entities that begin or end inside a token are widened to whole tokens.
    """

    corpus: CorpusConfig
    cut: Callable[[str], Cut]
    snap: bool = False


def join(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """A text of tokens, parted by blanks, and where each begins and ends in it."""
    offsets = []
    at = 0
    for token in tokens:
        offsets.append((at, at + len(token)))
        at += len(token) + 1
    return " ".join(tokens), offsets


def fit(text: str, cut: Cut, marks: Iterable[Mark], settings: Settings, report: Report) -> Text:
    """Lays entities over tokens; what does not fit goes to the report.

    Of entities that overlap, the one that begins first stays, of those that begin together the longest. A
    sentence does not end inside an entity.
    """
    offsets, ends = cut
    starts, stops = [start for start, _ in offsets], [end for _, end in offsets]
    spans: list[Span] = []
    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.end)):
        shown = f"{mark.place}: {mark.label} [{mark.start}, {mark.end}) {text[mark.start : mark.end]!r}"
        first, last = bisect_right(stops, mark.start), bisect_left(starts, mark.end)
        if not 0 <= mark.start < mark.end <= len(text):
            report.misfits.append(f"{mark.place}: {mark.label} [{mark.start}, {mark.end}) lies outside the text")
            continue
        if first >= last:
            report.misfits.append(f"{shown} holds no token")
            continue
        if (starts[first], stops[last - 1]) != (mark.start, mark.end):
            whole = text[starts[first] : stops[last - 1]]
            if not settings.snap:
                report.misfits.append(f"{shown} does not fall on token borders; the tokens there are {whole!r}")
                continue
            report.widened.append(f"{shown} became {whole!r}")
        if spans and first < spans[-1].end:
            before = text[starts[spans[-1].start] : stops[spans[-1].end - 1]]
            report.misfits.append(f"{shown} overlaps {spans[-1].type} {before!r}, which is kept")
            continue
        spans.append(Span(first, last, mark.label))
    inside = {place for span in spans for place in range(span.start + 1, span.end)}
    return Text(text, offsets, [end for end in ends if end not in inside], spans)


def in_documents(texts: Iterable[Text]) -> list[list[Text]]:
    """Texts of one document together; sentences of no document are all of one."""
    found: list[list[Text]] = []
    for (document, sentence), group in groupby(texts, key=lambda text: (text.document, text.sentence)):
        several = list(group)
        found += [several] if document is not None or sentence else [[text] for text in several]
    return found


def together(texts: Sequence[Text], between: str = "\n") -> Text:
    """Several texts as one."""
    if len(texts) == 1:
        return texts[0]
    offsets: list[tuple[int, int]] = []
    ends: list[int] = []
    spans: list[Span] = []
    tags: list[str] = []
    at = 0
    for text in texts:
        count = len(offsets)
        offsets += [(at + start, at + end) for start, end in text.offsets]
        ends += [count + end for end in text.ends]
        spans += [Span(count + span.start, count + span.end, span.type) for span in text.spans]
        tags += text.tags or []
        at += len(text.text) + len(between)
    whole = between.join(text.text for text in texts)
    plain = texts[0].tags is not None
    return replace(texts[0], text=whole, offsets=offsets, ends=ends, spans=spans, tags=tags if plain else None)


def to_sentences(texts: Iterable[Text], path: Path) -> LabelledSentences:
    """Texts as sentences with labels in IOB2, or with their plain tags.

    Documents are marked where the texts know theirs, or where a text has several sentences.

    Raises:
        CorpusError: There is no sentence.
    """
    groups = in_documents(texts)
    tokens: list[list[str]] = []
    labels: list[list[str]] = []
    documents: list[int] = []
    scheme = Scheme.IOB2
    marked = any(text.document is not None or len(text.ends) > 1 for group in groups for text in group)
    for group in groups:
        document = documents[-1] + 1 if documents and marked else 0
        for text in group:
            words = text.tokens
            scheme = Scheme.PLAIN if text.tags is not None else Scheme.IOB2
            row = encode(text.spans, len(words), Scheme.IOB2) if text.tags is None else text.tags
            for start, end in zip([0, *text.ends], text.ends, strict=False):
                tokens.append(words[start:end])
                labels.append(row[start:end])
                documents.append(document)
    if not tokens:
        raise CorpusError("there is no sentence to write", path)
    return LabelledSentences(tokens, labels, documents, scheme, scheme, 0, path)


def refuse_tags(text: Text, path: Path, what: str) -> None:
    """Refuses plain tags where only entities can be written."""
    if text.tags is not None:
        raise CorpusError(f"plain tags mark no entities, which {what} holds; write CoNLL or parquet", path)
