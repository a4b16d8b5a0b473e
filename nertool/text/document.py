"""`Document`: text with tokens, sentences and labels. Every reader yields it, every writer takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any, Literal, NamedTuple

from nertool.forking import cached_property
from nertool.text.schemes import OUTSIDE, Scheme, Span, encode, spans

UNKNOWN = ""
"""Stands in `Document.labels` for the label of a token that nobody has labelled."""

Offsets = tuple[tuple[int, int], ...]
_SHOWN = 60  # characters of a text


class Origin(NamedTuple):
    """Where a document was read, for error messages.

    Attributes:
        path: Name of the file or dataset.
        unit: What `starts` counts: a `line` holds a token, a `row` holds a sentence or a document.
        starts: For each sentence the line of its first token, or its row, counted from 1.
        skipped: Lines within sentences that hold no token, in ascending order.
    """

    path: str
    unit: Literal["line", "row"]
    starts: tuple[int, ...]
    skipped: tuple[int, ...] = ()

    def line(self, sentence: int, token: int = 0) -> int | None:
        """Return the line of a token (counted from 0); None where rows are counted."""
        if self.unit == "row":
            return None
        line = self.starts[sentence] + token
        for skipped in self.skipped:
            line += self.starts[sentence] <= skipped <= line
        return line

    def place(self, sentence: int, token: int | None = None) -> str:
        """Describe where a sentence begins, or where a token of it is (both counted from 0)."""
        if (line := self.line(sentence, token or 0)) is not None:
            return f"line {line}"
        start = self.starts[sentence]
        return f"row {start}" if token is None else f"row {start}, token {token + 1}"


class Context(NamedTuple):
    """Where a document is in a larger one, for inputs that look beyond a sentence.

    Attributes:
        tokens: All tokens of the larger document.
        start: Index of the first token among these.
    """

    tokens: tuple[str, ...]
    start: int


@dataclass(frozen=True)
class Entity:
    """An entity in a text: `document.text[start:end]` is `text`.

    Attributes:
        start, end: In characters; the end is exclusive.
        label: Its type.
        text: Its characters.
        score: Probability that its tokens jointly have exactly these labels; None where nothing predicted it.
    """

    start: int
    end: int
    label: str
    text: str
    score: float | None = None


@dataclass(frozen=True)
class Alternative:
    """One of the most probable label sequences of a sentence.

    Attributes:
        probability: Of all its labels jointly, under the model.
        labels: Of each token of the sentence, in IOB2, or plain tags.
        entities: Start, end (in characters of the document's text) and type of each entity.
    """

    probability: float
    labels: list[str]
    entities: list[tuple[int, int, str]]


@dataclass(frozen=True, repr=False)
class Document:
    """Text with tokens, and what is known about them. Immutable.

    A document has one sentence or several. Its labels stand in a scheme of spans, or are plain tags; entities
    follow from the labels. A document of a file that marks no documents is a sentence, with `id` None.
    Neighbouring documents with the same `id` (other than None) are parts of one document.

    >>> labels = ("B-PER", "O", "O", "B-LOC")
    >>> document = Document(("Ada", "lives", "in", "London"), labels=labels, scheme=Scheme.IOB2)
    >>> document.text
    'Ada lives in London'
    >>> [(entity.text, entity.label, entity.start) for entity in document.entities]
    [('Ada', 'PER', 0), ('London', 'LOC', 13)]
    >>> document
    <Document 'Ada lives in London' tokens=4 sentences=1 entities=2>

    Attributes:
        tokens: As written.
        source_text: The text that the tokens were found in; None where only tokens are known.
        source_offsets: Start and end of each token in that text, in characters; empty where there is no text.
        sentence_starts: Index of the first token of each sentence; the first is 0. Empty without tokens.
        labels: A label for each token, `UNKNOWN` where nobody has labelled; None for text without labels.
        scheme: The scheme of the labels; None while it has not been detected.
        scores: Probability of each entity (`spans`), in order; None where nothing predicted them.
        columns: Further values for each token by name, such as `pos`.
        id: Name or number of the document that this is, or is a part of; None where there is none.
        origin: Where it was read.
        alternatives: For each sentence its most probable label sequences, the best first, where asked for.
        marginals: For each token the probability of its labels, the most probable first, where asked for.
        cut_sentences: How many sentences were so long that they were tagged in windows.
        meta: What else there is to say about it, in plain JSON values, such as why it should be labelled; None:
            nothing.
        context: The document that this is a part of, and where; None where that is not known.
    """

    tokens: tuple[str, ...]
    source_text: str | None = None
    source_offsets: Offsets = ()
    sentence_starts: tuple[int, ...] = None  # type: ignore[assignment]
    labels: tuple[str, ...] | None = None
    scheme: Scheme | None = None
    scores: tuple[float, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    id: str | None = None
    origin: Origin | None = None
    alternatives: tuple[list[Alternative], ...] = ()
    marginals: tuple[dict[str, float], ...] = ()
    cut_sentences: int = 0
    meta: Mapping[str, Any] | None = None
    context: Context | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        if type(self.tokens) is not tuple:
            put(self, "tokens", tuple(self.tokens))
        if self.sentence_starts is None:
            put(self, "sentence_starts", (0,) if self.tokens else ())
        if self.labels is not None and len(self.labels) != len(self.tokens):
            raise ValueError(f"{len(self.labels)} labels for {len(self.tokens)} tokens")

    @classmethod
    def from_spans(
        cls,
        tokens: Sequence[str],
        entities: Iterable[Span],
        *,
        unknown: Iterable[int] = (),
        scores: Sequence[float] | None = None,
        **rest: Any,
    ) -> Document:
        """Make a document from entities that do not overlap.

        Args:
            tokens: As written.
            entities: In tokens.
            unknown: Tokens, outside of the entities, that nobody has labelled.
            scores: Of each entity, in order.
            rest: Other attributes of the document.

        Raises:
            ValueError: An entity is empty, overlaps another, or leaves the tokens.
        """
        labels = encode(entities, len(tokens), Scheme.IOB2)
        for index in unknown:
            if labels[index] == OUTSIDE:
                labels[index] = UNKNOWN
        kept = None if scores is None else tuple(scores)
        return cls(tuple(tokens), labels=tuple(labels), scheme=Scheme.IOB2, scores=kept, **rest)

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        """Show how the text begins, and counts; all of a document would fill pages."""
        text = self.text if len(self.text) <= _SHOWN else self.text[:_SHOWN] + "…"
        parts = [repr(text), f"tokens={len(self.tokens)}", f"sentences={len(self.sentence_starts)}"]
        parts.append("labels=None" if self.labels is None else f"entities={len(self.spans)}")
        if self.columns:
            parts.append(f"columns={list(self.columns)}")
        if self.id is not None:
            parts.append(f"id={self.id!r}")
        return f"<Document {' '.join(parts)}>"

    @cached_property
    def text(self) -> str:
        """The text; of a document that has only tokens, these joined by spaces, with a line for each sentence."""
        if self.source_text is not None:
            return self.source_text
        return "\n".join(" ".join(self.tokens[start:end]) for start, end in self.bounds)

    @cached_property
    def offsets(self) -> Offsets:
        """Start and end of each token in `text`, in characters."""
        if self.source_text is not None:
            return self.source_offsets
        offsets = []
        position = 0
        for token in self.tokens:
            offsets.append((position, position + len(token)))
            position += len(token) + 1  # a space, or the end of a line
        return tuple(offsets)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First token of each sentence, and the token after its last."""
        return list(pairwise((*self.sentence_starts, len(self.tokens))))

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The entities in tokens, in order; empty for plain tags and for text without labels."""
        if self.labels is None or self.scheme is None:
            return ()
        result: list[Span] = []
        for start, end in self.bounds:  # no entity crosses the end of a sentence
            own = spans([label or OUTSIDE for label in self.labels[start:end]], self.scheme)
            result += [Span(start + span.start, start + span.end, span.type) for span in own] if start else own
        return tuple(result)

    @cached_property
    def entities(self) -> tuple[Entity, ...]:
        """The entities in characters of `text`, in order; empty for plain tags and for text without labels."""
        scores: Sequence[float | None] = self.scores if self.scores is not None else [None] * len(self.spans)
        result = []
        for span, score in zip(self.spans, scores, strict=True):
            start, end = self.offsets[span.start][0], self.offsets[span.end - 1][1]
            result.append(Entity(start, end, span.type, self.text[start:end], score))
        return tuple(result)

    @property
    def has_tags(self) -> bool:
        """Whether the labels are plain tags, which mark no entities."""
        return self.scheme is Scheme.PLAIN

    def sentences(self) -> Iterator[Document]:
        """Yield each sentence as a document of its own; offsets then count from the sentence's first character."""
        if len(self.sentence_starts) == 1:
            yield self
            return
        first_span = 0
        whole, shift_tokens = self.context or Context(self.tokens, 0)
        for number, (start, end) in enumerate(self.bounds):
            text: str | None = None
            offsets: Offsets = ()
            if self.source_text is not None:
                shift, stop = self.source_offsets[start][0], self.source_offsets[end - 1][1]
                text = self.source_text[shift:stop]
                offsets = tuple((a - shift, b - shift) for a, b in self.source_offsets[start:end])
            scores = self.scores
            if scores is not None:
                count = sum(start <= span.start < end for span in self.spans)
                scores = scores[first_span : first_span + count]
                first_span += count
            origin = self.origin
            if origin is not None:
                origin = Origin(origin.path, origin.unit, origin.starts[number : number + 1], origin.skipped)
            yield Document(  # faster than `replace`, which matters for corpora of documents
                self.tokens[start:end],
                text,
                offsets,
                (0,),
                None if self.labels is None else self.labels[start:end],
                self.scheme,
                scores,
                {name: values[start:end] for name, values in self.columns.items()} if self.columns else {},
                self.id,
                origin,
                self.alternatives[number : number + 1],
                self.marginals[start:end],
                self.cut_sentences,
                context=Context(whole, shift_tokens + start),
            )

    def part(self, start: int, end: int) -> Document:
        """Return some tokens of a sentence with their labels and columns, as a sentence that knows its context."""
        whole, first = self.context or Context(self.tokens, 0)
        return Document(
            self.tokens[start:end],
            labels=None if self.labels is None else self.labels[start:end],
            scheme=self.scheme,
            columns={name: values[start:end] for name, values in self.columns.items()},
            context=Context(whole, first + start),
        )

    def around(self, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return at most so many tokens before and after this one in the document that it is a part of."""
        if self.context is None or not count:
            return (), ()
        tokens, start = self.context
        end = start + len(self.tokens)
        return tokens[max(0, start - count) : start], tokens[end : end + count]

    def with_labels(self, labels: Iterable[str] | None, scheme: Scheme | None) -> Document:
        """Return the same document with other labels."""
        return replace(self, labels=None if labels is None else tuple(labels), scheme=scheme, scores=None)

    def column(self, name: str) -> tuple[str, ...]:
        """Return the values of a column.

        Raises:
            KeyError: The document has no such column.
        """
        return self.columns[name]

    def _repr_html_(self) -> str:
        """Return the text with its entities for notebooks."""
        from nertool.text.html import render

        return render(self)

    def to_json(self) -> dict[str, Any]:
        """Return the plain values that `nertool tag --format jsonl` writes."""
        tree: dict[str, Any] = {
            "text": self.text,
            "tokens": list(self.tokens),
            "labels": None if self.labels is None else list(self.labels),
            "entities": [vars(entity) for entity in self.entities],
        }
        if self.alternatives:
            tree["alternatives"] = [[vars(each) for each in sentence] for sentence in self.alternatives]
        if self.marginals:
            tree["marginals"] = list(self.marginals)
        if self.cut_sentences:
            tree["cut_sentences"] = self.cut_sentences
        if self.meta:
            tree["meta"] = dict(self.meta)
        return tree


def in_context(documents: Sequence[Document]) -> list[Document]:
    """Let documents that are parts of one document, neighbours with one id, know it as their context.

    Those that know their context already keep it.
    """
    result: list[Document] = []
    for identity, group in groupby(documents, key=lambda document: document.id):
        parts = list(group)
        if identity is None or len(parts) == 1 or any(part.context is not None for part in parts):
            result += parts
            continue
        tokens = tuple(token for part in parts for token in part.tokens)
        start = 0
        for part in parts:
            result.append(replace(part, context=Context(tokens, start)))
            start += len(part)
    return result


def join(documents: Sequence[Document], between: str = "\n") -> Document:
    """Join documents, such as the sentences of one document, to a single one.

    Args:
        documents: At least one; all with labels in the same scheme, or all without.
        between: What stands between their texts.
    """
    if len(documents) == 1:
        return documents[0]
    first = documents[0]
    offsets: list[tuple[int, int]] = []
    starts: list[int] = []
    position = count = 0
    for document in documents:
        offsets += [(position + start, position + end) for start, end in document.offsets]
        starts += [count + start for start in document.sentence_starts]
        position += len(document.text) + len(between)
        count += len(document)
    labelled = first.labels is not None
    origin = first.origin
    if origin is not None:
        origins = [each.origin for each in documents if each.origin]
        origin = origin._replace(
            starts=tuple(number for each in origins for number in each.starts),
            skipped=tuple(number for each in origins for number in each.skipped),
        )
    return replace(
        first,
        tokens=tuple(token for each in documents for token in each.tokens),
        source_text=between.join(each.text for each in documents),
        source_offsets=tuple(offsets),
        sentence_starts=tuple(starts),
        labels=tuple(label for each in documents for label in each.labels or ()) if labelled else None,
        scores=None if first.scores is None else tuple(score for each in documents for score in each.scores or ()),
        columns={
            name: tuple(value for each in documents for value in each.columns[name])
            for name in first.columns
            if all(name in each.columns for each in documents)
        },
        origin=origin,
        alternatives=tuple(row for each in documents for row in each.alternatives),
        marginals=tuple(row for each in documents for row in each.marginals),
        cut_sentences=sum(each.cut_sentences for each in documents),
        context=None,
    )
