"""Conversion from one format to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from nertool.errors import CorpusError
from nertool.formats.labels import resolve
from nertool.formats.registry import (
    ReadOptions,
    Report,
    WriteOptions,
    detect_format,
    find_format,
    format_for_writing,
)
from nertool.text.document import UNKNOWN, Document


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        sentences, tokens, entities: How many of each.
        unlabelled: How many of the tokens have no label.
        report: What was left out, widened or repaired.
    """

    sentences: int
    tokens: int
    entities: int
    unlabelled: int
    report: Report


def convert_file(
    source: Path,
    target: Path,
    read: ReadOptions = ReadOptions(),  # noqa: B008 - immutable
    write: WriteOptions = WriteOptions(),  # noqa: B008 - immutable
    *,
    reader: str | None = None,
    writer: str | None = None,
    stray: Literal["repair", "refuse"] = "repair",
    allow_empty: bool = False,
) -> Converted:
    """Read one format and write another.

    No sentence is lost: a token that nobody has labelled, or that is in an entity which does not fit, is written
    as unlabelled where the format can hold that.

    Args:
        source: A file, or a folder of brat's.
        target: The same.
        read: How to read.
        write: How to write.
        reader: Name of the source's format; None: detect it.
        writer: Name of the target's format; None: as its name says.
        stray: What to do with a label that the scheme does not allow at its place.
        allow_empty: Whether labelled text without any entity is written.

    Raises:
        CorpusError: The source cannot be read or has no entity, or the target's format cannot hold its labels.
    """
    if source.resolve() == target.resolve():
        raise CorpusError("it would be written over itself; name another file", source)
    found = find_format(reader) if reader else detect_format(source)
    written = find_format(writer) if writer else format_for_writing(target)
    report = Report()
    suffix = target.suffix.lower()
    if writer is None and suffix and suffix not in written.suffixes and not target.is_dir():
        report.notes.append(
            f"{target}: no format has the suffix {suffix}: written as {written.name}; --to names another"
        )
    counts = dict.fromkeys(("sentences", "tokens", "entities", "unlabelled"), 0)
    tags = False

    def counted() -> Iterator[Document]:
        nonlocal tags
        documents = _resolved(found.read(source, read, report), source, read, stray, report)
        for document in documents:
            counts["sentences"] += len(document.sentence_starts)
            counts["tokens"] += len(document)
            counts["entities"] += len(document.spans)
            counts["unlabelled"] += (
                document.labels.count(UNKNOWN) if document.labels is not None else len(document)
            )
            tags = tags or document.has_tags
            yield document
        if not counts["tokens"]:
            raise CorpusError(f"there is no sentence in it{report.causes(source)}", source)
        # Where entities were left out, they are listed, and that is an error too.
        if read.labelled and not (counts["entities"] or tags or report.misfits or allow_empty):
            labels = "no label" if counts["unlabelled"] == counts["tokens"] else "no entity"
            raise CorpusError(
                f"{labels} was found in it, read as {found.name}; is that its format, and are the labels where "
                f"they are looked for? To convert it all the same, add --allow-empty{report.causes(source)}",
                source,
            )

    written.write(target, counted(), write, report)
    return Converted(**counts, report=report)


def _resolved(
    documents: Iterator[Document],
    source: Path,
    options: ReadOptions,
    stray: Literal["repair", "refuse"],
    report: Report,
) -> Iterator[Document]:
    """Detect the scheme of labels where the format leaves that open, which takes all documents at once."""
    first = next(documents, None)
    if first is None:
        return
    rest = chain((first,), documents)
    settings = partial(resolve, path=source, stray=stray, partial=True, keep_unlabelled=True)
    if first.scheme is not None:
        for document in rest:
            if document.labels is not None and document.scheme is None:  # one among others that know theirs
                yield from settings([document], scheme=first.scheme)[0]
            else:
                yield document
        return
    kept, facts = settings(rest, scheme=options.scheme)
    report.notes += facts.notes
    if facts.strays:
        repaired = f"{facts.strays:,} labels that {facts.scheme} does not allow there were repaired"
        report.notes.append(f"{source}: {repaired}")
    yield from kept
