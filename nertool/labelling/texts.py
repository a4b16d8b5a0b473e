"""Texts for a project, from files in any format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nertool.errors import CorpusError
from nertool.formats.labels import resolve
from nertool.formats.registry import ReadOptions, Report, detect_texts, find_format
from nertool.labelling.records import New, Taken
from nertool.labelling.store import Store
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE
from nertool.text.tokenization import Tokenizer

_HALF = re.compile("[\ud800-\udfff]")  # half a character, which SQLite cannot hold
_LONGEST = 2_000  # tokens of a sentence that a person can look at


@dataclass(frozen=True)
class Source:
    """A file of texts.

    Attributes:
        path: The file, or folder.
        use: What its labels are: answers (gold), proposals, or nothing (none).
    """

    path: Path
    use: str = "none"


@dataclass(frozen=True)
class Read:
    """What was read of a file.

    Attributes:
        taken: What was taken into the project.
        notes: What a person should know, a line each.
    """

    taken: Taken
    notes: list[str]


def read_texts(
    store: Store, source: Source, tokenizer: Tokenizer, *, form: str | None, test_share: float, seed: int
) -> Read:
    """Take the texts of a file into a project.

    Args:
        store: The project's.
        source: The file.
        tokenizer: Makes tokens and sentences of raw text.
        form: Name of the format; None: detect it.
        test_share: Share of the sentences that is kept apart to test with.
        seed: Of the choice.

    Raises:
        CorpusError: It cannot be read, has no sentence, or none of the labels that are wanted.
    """
    path = source.path
    if not path.exists():
        raise CorpusError("there is no such file", path)
    used = find_format(form) if form else detect_texts(path)
    labelled = source.use != "none"
    if labelled and used.name in ("text", "tokens"):
        raise CorpusError(
            f"this is read as {used.name}, which has no labels; name another format with --from", path
        )
    report = Report()
    documents = used.read(path, ReadOptions(labelled=labelled, tokenizer=tokenizer), report)
    if labelled:
        documents = iter(resolve(documents, path, partial=True, keep_unlabelled=True, report=report)[0])
    counts = {"half": 0, "long": 0, "entities": 0}
    taken = store.take(
        _taken(documents, path.name or str(path), used.name == "text", counts, path),
        test_share=test_share,
        seed=seed,
        gold=source.use == "gold",
        source=path.name or str(path),
    )
    if not taken.sentences:
        raise CorpusError(f"there is no sentence in it{report.causes(path)}", path)
    notes = [*report.notes, *report.misfits]
    if counts["half"]:
        notes.append(f"{path}: {counts['half']:,} sentences had half a character, which became �")
    if counts["long"]:
        notes.append(f"{path}: {counts['long']:,} sentences of more than {_LONGEST:,} tokens were cut in parts")
    return Read(taken, notes)


def _taken(
    documents: Iterator[Document], name: str, is_text: bool, counts: dict[str, int], path: Path
) -> Iterator[tuple[str, str | None, int, list[New]]]:
    """Yield documents as a store takes them; lines of raw text are the context of each other."""
    context = 0
    last: str | None = None
    for number, document in enumerate(documents, 1):
        if document.has_tags:
            raise CorpusError("it has plain tags, and a project is of entities", path)
        if not len(document):
            continue
        own = list(_sentences(document, counts))
        same = document.id is not None and document.id == last
        context += not (same or (is_text and context))
        last = document.id
        identity = document.id
        if identity is None and len(own) > 1:  # its sentences belong together
            identity = f"{name}:{number}"
        yield name, identity, context, own


def _sentences(document: Document, counts: dict[str, int]) -> Iterator[New]:
    position = 0
    for sentence, (first, _) in zip(document.sentences(), document.bounds, strict=True):
        gap = "\n" if not position else " "
        if document.source_text is not None:
            start = document.offsets[first][0]
            gap = document.source_text[position:start] if position else "\n"
            position = start + len(sentence.text)
        else:
            position = 1
        for start in range(0, len(sentence), _LONGEST):
            end = min(start + _LONGEST, len(sentence))
            counts["long"] += start > 0
            yield _new(sentence, start, end, gap if not start else " ", counts)


def _new(sentence: Document, first: int, stop: int, gap: str, counts: dict[str, int]) -> New:
    offsets = sentence.offsets[first:stop]
    shift, end = offsets[0][0], offsets[-1][1]
    text = sentence.text[shift:end]
    clean = _HALF.sub("\N{REPLACEMENT CHARACTER}", text)
    counts["half"] += clean != text
    spans = outside = None
    partial = False
    labels = sentence.labels
    if labels is not None and any(label != UNKNOWN for label in labels):
        own = labels[first:stop]
        spans = tuple(
            (each.start - first, each.end - first, each.type)
            for each in sentence.spans
            if first <= each.start and each.end <= stop
        )
        counts["entities"] += len(spans)
        partial = UNKNOWN in own
        outside = tuple((at, at + 1) for at, label in enumerate(own) if label == OUTSIDE) if partial else ()
    return New(
        clean,
        tuple((start - shift, end - shift) for start, end in offsets),
        sentence.source_text is not None,
        _HALF.sub("\N{REPLACEMENT CHARACTER}", gap),
        {name: values[first:stop] for name, values in sentence.columns.items()},
        spans,
        partial,
        outside or (),
    )
