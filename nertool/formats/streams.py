"""What several formats do with a stream of documents: group it, count what a format cannot hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from nertool.errors import CorpusError
from nertool.formats.columns import Interned
from nertool.formats.registry import Format, Report
from nertool.text.document import UNKNOWN, Document, join


def grouped(documents: Iterable[Document], *, loose_together: bool) -> Iterator[list[Document]]:
    """Group the parts of each document.

    Args:
        documents: Neighbours with the same id are of one document. A text without an id is a document.
        loose_together: Whether sentences that are of no text and no document make up one document, for formats
            with a file for each document; else each is a document.
    """
    serial = 0

    def key(document: Document) -> tuple[str | None, int]:
        nonlocal serial
        if document.id is None and not (loose_together and document.source_text is None):
            serial += 1
            return None, serial
        return document.id, 0

    for _, group in groupby(documents, key):
        yield list(group)


def joined(group: Sequence[Document]) -> Document:
    """Join the parts of a document, of which some may have labels or scores and others not."""
    if len(group) == 1:
        return group[0]
    labelled = next((document.scheme for document in group if document.labels is not None), None)
    scored = all(document.scores is not None for document in group if document.spans)
    parts = []
    for document in group:
        if document.labels is None and labelled is not None:
            document = document.with_labels([UNKNOWN] * len(document), labelled)
        parts.append(replace(document, scores=document.scores or () if scored else None))
    return join(parts)


def refuse_tags(document: Document, path: Path | None, what: str) -> None:
    """Refuse plain tags where only entities can be written."""
    if document.has_tags:
        raise CorpusError(f"plain tags mark no entities, which {what} holds; write CoNLL or parquet", path)


def watched(documents: Iterable[Document], target: Format, path: Path, report: Report) -> Iterator[Document]:
    """Pass documents on, and note in the end what of them the format that is written cannot hold.

    Args:
        documents: What is written.
        target: The format. That some formats have tokens but not the whitespace between them is not noted.
        path: The file, for the notes.
        report: Receives a note for each kind of thing that is lost.
    """
    columns: dict[str, None] = {}
    scores = unlabelled = meta = 0
    for document in documents:
        meta += bool(document.meta)
        columns |= dict.fromkeys(document.columns)
        scores += document.scores is not None
        unlabelled += len(document) if document.labels is None else document.labels.count(UNKNOWN)
        yield document
    name = f"{path}: {target.name} cannot hold"
    if columns and "columns" not in target.holds:
        report.notes.append(f"{name} further columns; left out: {', '.join(columns)}")
    if scores and "scores" not in target.holds:
        report.notes.append(f"{name} scores of entities; they were left out")
    if meta and "meta" not in target.holds:
        report.notes.append(f"{name} what else is said about documents (meta); it was left out")
    if unlabelled and "unlabelled" not in target.holds:
        tokens = "1 token without one is" if unlabelled == 1 else f"{unlabelled:,} tokens without one are"
        report.notes.append(f"{name} that a label is not known; {tokens} written as outside of all entities")


def stripped(documents: Iterable[Document], strip: str | None, path: Path) -> Iterator[Document]:
    """Remove the matches of a regular expression from each token that has more than that.

    A document whose tokens change no longer has the text that they were found in.
    """
    forms = Interned(strip, path)
    for document in documents:
        tokens = tuple(forms[token] for token in document.tokens)
        if strip is not None and tokens != document.tokens:
            document = replace(document, tokens=tokens, source_text=None, source_offsets=())
        yield document


def with_ids(documents: Iterable[Document]) -> Iterator[Document]:
    """Number the documents of a file from 0, unless each of them is a sentence."""
    waiting: list[Document] | None = []
    for number, document in enumerate(documents):
        if waiting is not None and len(document.sentence_starts) < 2:
            waiting.append(document)
            continue
        for earlier, each in enumerate(waiting or ()):
            yield replace(each, id=str(earlier))
        waiting = None
        yield replace(document, id=str(number))
    yield from waiting or ()
