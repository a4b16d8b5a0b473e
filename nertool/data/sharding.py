"""Write a training split that need not fit into memory into shards on disk, once.

`write_shards` reads documents of any format, a part at a time, and encodes them (see `nertool.data.shards`). It
can be stopped at any moment, and goes on after the last shard that is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

import numpy as np

from nertool.config.files import is_stream
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_options
from nertool.data.encoding import Forms
from nertool.data.folds import begins, mark_of
from nertool.data.pieces import LONGEST, in_pieces
from nertool.data.shards import (
    FORMAT,
    Facts,
    Shard,
    Shards,
    held,
    make_room,
    neighbour_codes,
    shards_folder,
    split_codes,
)
from nertool.errors import CorpusError
from nertool.formats.labels import resolve
from nertool.formats.opening import counting
from nertool.formats.registry import Report, detect_format, find_format
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE, Scheme, convert, detect_pairs
from nertool.text.tokenization import Tokenizer

SHARD_TOKENS = 2**19
"""A shard has about as many tokens."""

_MOST_LABELS = 2**15 - 1  # numbers of 16 bits
_MOST_NOTES = 20
_HASHED = 2**20  # bytes at a time
_SKIPPED = 10_000  # documents at a time
# What decides what a file is read as.
_READING = "columns", "label", "tokens", "tags", "scheme", "learn_scheme", "stray", "strip", "annotator"


@dataclass(frozen=True)
class Sharding:
    """The training split is being written into shards.

    Attributes:
        sentences, tokens: So far.
        before: Of the tokens, those of shards that were there before.
        seconds: Since this began.
        share: How much of the file has been read, from 0 to 1; None where that is not known.
        done: Whether this is the last record.
    """

    sentences: int
    tokens: int
    before: int
    seconds: float
    share: float | None
    done: bool = False


def write_shards(
    config: CorpusConfig, tokenizer: Tokenizer | None = None, columns: Iterable[str] = ()
) -> Generator[Sharding, None, Shards]:
    """Find the shards of the training split, or write what is missing of them.

    Args:
        config: With a file that exists.
        tokenizer: Makes tokens and sentences of raw text; None: English.
        columns: Names of further columns to keep.

    Yields:
        A record for each shard that is written.

    Returns:
        The shards.

    Raises:
        CorpusError: As for `nertool.data.corpus.read_split`; a column is missing; or the file can be read
            only once, or changes.
        NertoolError: The cache cannot be written to.
    """
    path = Path(config.train or "")
    if is_stream(path):
        raise CorpusError(
            "can be read only once, and corpus.stream reads it again after a stop: name a file", path
        )
    used = find_format(config.format) if config.format else detect_format(path)
    state = _state(path)
    names = sorted(set(columns))
    settings = {name: getattr(config, name) for name in _READING}
    language = "en" if tokenizer is None else getattr(tokenizer, "language", repr(type(tokenizer)))
    how = [
        FORMAT,
        SHARD_TOKENS,
        LONGEST,
        version("nertool"),
        version("spacy"),
        language,
        used.name,
        settings,
        names,
    ]
    folder = shards_folder() / hashlib.sha256(f"{json.dumps(how)} {_content(path)}".encode()).hexdigest()[:32]
    shards = Shards(folder, names)
    if not shards.complete:
        with held(folder):
            shards = Shards(folder, names)  # another process may have written more meanwhile
            if not shards.complete:
                shards.remove_rest()
                report = Report()
                documents = used.read(path, read_options(config, tokenizer=tokenizer), report)
                try:
                    facts = yield from _encode(documents, shards, config, path, report)
                    if _state(path) != state:
                        raise CorpusError(
                            "it was changed while it was read; start again when it is complete", path
                        )
                except CorpusError:  # the same content would be refused again
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                shards.finish(facts, report)
        make_room(folder)
    shards.touch()
    return shards


def _encode(
    documents: Iterator[Document], shards: Shards, config: CorpusConfig, path: Path, report: Report
) -> Generator[Sharding, None, Facts]:
    """Write the shards that are not there yet; return what is known at the end."""
    began, before = time.perf_counter(), shards.facts.tokens
    size = path.stat().st_size if path.is_file() else 0
    encoder = _Encoder(shards, config, path, report)
    with counting() as counted:
        first = next(documents, None)  # opens the file
    documents = chain([] if first is None else [first], documents)

    def progress(done: bool = False) -> Sharding:
        share = min(counted.bytes / size, 1.0) if size and counted.bytes else None
        seconds = time.perf_counter() - began
        return Sharding(encoder.facts.sentences, encoder.facts.tokens, before, seconds, share, done)

    left = encoder.facts.read
    while left:
        skipped = sum(1 for _ in islice(documents, min(left, _SKIPPED)))
        left = left - skipped if skipped else 0
        yield progress()
    for part in _parts(documents):
        shard = encoder.encode(part)
        if len(shard.lengths):
            shards.add(shard)
        yield progress()
    facts = encoder.facts
    if not facts.sentences:
        lacking = f" with labels for any of its tokens ({facts.unlabelled} lack them)" if facts.unlabelled else ""
        raise CorpusError(f"there is no sentence in it{lacking}{report.causes(path)}", path)
    if not facts.named:
        _check_scheme(shards, Scheme(facts.scheme or Scheme.IOB2), path)
    yield progress(done=True)
    return facts


def _parts(documents: Iterator[Document]) -> Iterator[list[Document]]:
    part: list[Document] = []
    size = 0
    for document in documents:
        part.append(document)
        size += len(document)
        if size >= SHARD_TOKENS:
            yield part
            part, size = [], 0
    if part:
        yield part


class _Encoder:
    """Makes shards of documents, part by part, after those that are there.

    Args:
        shards: That are there; what this makes has to be added to them.
        config: How labels are read.
        path: The file.
        report: What the reader left out so far.

    Attributes:
        facts: Of all that was read.
    """

    def __init__(self, shards: Shards, config: CorpusConfig, path: Path, report: Report) -> None:
        self._shards, self._config, self._path, self._report = shards, config, path, report
        self._forms = Forms({})
        for form in shards.forms:
            self._forms[form]
        self._labels = _Numbers(shards.labels)
        self._values = {name: _Numbers(own) for name, own in shards.values.items()}
        self.facts = shards.facts

    def encode(self, part: list[Document]) -> Shard:
        """Check the labels of some documents and make a shard of them, which may be empty."""
        config, shards, labels = self._config, self._shards, self._labels
        named = None if config.scheme == "detect" else Scheme(config.scheme)
        kept, found = resolve(
            part,
            self._path,
            scheme=named if self.facts.scheme is None else Scheme(self.facts.scheme),
            # Strays are repaired when labels are looked up.
            stray="refuse" if config.stray == "refuse" else "keep",
            partial=True,
            in_part=True,
            report=self._report,
        )
        total = sum(map(len, kept))
        words = chain.from_iterable(document.tokens for document in kept)
        tokens = np.fromiter(map(self._forms.__getitem__, words), np.int32, total)
        rows = chain.from_iterable(document.labels or () for document in kept)
        coded = np.fromiter(map(labels.__getitem__, rows), np.int64, total)
        if len(labels) > _MOST_LABELS:
            message = f"there are more than {_MOST_LABELS:,} labels: check the label column"
            raise CorpusError(message, self._path)
        columns = {name: self._column(kept, name, total) for name in self._values}
        lengths = np.array([end - start for document in kept for start, end in document.bounds], np.int32)
        long = np.flatnonzero(lengths > LONGEST)
        pieces = _cut_long(kept, lengths, long, found.scheme, config) if len(long) else lengths
        facts = replace(self.facts, notes=self.facts.notes[:])
        if facts.scheme is None and kept:
            names = list(labels)
            shown = {names[number] for number in np.unique(coded).tolist()} - {OUTSIDE, UNKNOWN}
            facts.named = named is not None or any(document.scheme is not None for document in part)
            if facts.named or shown:
                facts.scheme = found.scheme.value
            origin = next((document.origin for document in kept if document.origin is not None), None)
            facts.unit = "row" if origin is None else origin.unit
        for document in kept:
            mark = mark_of(document)
            facts.documents += facts.last is None or begins(facts.last, mark)
            facts.last = mark
        facts.read += len(part)
        facts.sentences += len(lengths)
        facts.tokens += total
        facts.long += len(long)
        facts.unlabelled += found.unlabelled
        facts.strays += found.strays
        facts.notes += [note for note in found.notes if note not in facts.notes][: _MOST_NOTES - len(facts.notes)]
        self.facts = facts
        codes, counts = np.unique(neighbour_codes(coded, pieces), return_counts=True)
        return Shard(
            tokens=tokens,
            labels=coded.astype(np.int16),
            lengths=pieces.astype(np.int32),
            columns=columns,
            triples=np.stack([*split_codes(codes), counts], axis=1),
            new_forms=list(islice(self._forms, len(shards.forms), None)),
            new_labels=list(islice(labels, len(shards.labels), None)),
            new_values={
                name: list(islice(own, len(shards.values[name]), None)) for name, own in self._values.items()
            },
            facts=facts,
        )

    def _column(self, documents: Sequence[Document], name: str, total: int) -> np.ndarray:
        for document in documents:
            if name not in document.columns:
                origin = document.origin if document.origin and document.origin.starts else None
                line = None if origin is None else origin.line(0)
                place = "" if origin is None or line is not None else f"{origin.place(0)}: "
                there = ", ".join(map(repr, sorted(document.columns))) or "none"
                message = (
                    f"{place}there is no column {name!r}, which an input reads (further columns here: {there})"
                )
                raise CorpusError(f"{message}: name the columns with corpus.columns", self._path, line)
        rows = chain.from_iterable(document.columns[name] for document in documents)
        return np.fromiter(map(self._values[name].__getitem__, rows), np.int32, total)


class _Numbers(dict[str, int]):
    """Numbers of the names met so far. Looking up one that is not there adds it."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__((name, number) for number, name in enumerate(names))

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number


def _cut_long(
    documents: Sequence[Document], lengths: np.ndarray, long: np.ndarray, scheme: Scheme, config: CorpusConfig
) -> np.ndarray:
    """Return the lengths of sentences, those of long ones in pieces between their entities."""
    wanted, target = set(long.tolist()), Scheme(config.learn_scheme)
    pieces: dict[int, list[int]] = {}
    sentences = (sentence for document in documents for sentence in document.sentences())
    for number, sentence in enumerate(sentences):
        if number in wanted:
            labels, learnt = sentence.labels or (), scheme
            if scheme is not Scheme.PLAIN and UNKNOWN not in labels:
                learnt = target
                sentence = sentence.with_labels(convert(labels, scheme, target), target)
            pieces[number] = list(map(len, in_pieces([sentence], learnt)))
    parts = [pieces.get(number, [length]) for number, length in enumerate(lengths.tolist())]
    return np.fromiter(chain.from_iterable(parts), np.int64)


def _check_scheme(shards: Shards, scheme: Scheme, path: Path) -> None:
    """Refuse a corpus of which all labels look like another scheme than the first ones."""
    names = [OUTSIDE, *shards.labels]
    pairs: Counter[tuple[str, str]] = Counter()
    for before, label, _, count in shards.triples.tolist():
        if UNKNOWN not in (names[before], names[label]):
            pairs[names[before], names[label]] += count
    found = detect_pairs(pairs)
    if found is not scheme:
        raise CorpusError(
            f"its first sentences are labelled in {scheme}, and all of it looks like {found}: name the scheme of "
            f"the labels, such as --set corpus.scheme={found}",
            path,
        )


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Return what shows that a file, or a file in a folder, has changed."""
    states = []
    for each in _files(path):
        found = each.stat()
        states.append((str(each), found.st_size, found.st_mtime_ns))
    return states


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _content(path: Path) -> str:
    """Return a hash of a file's content, of a folder's with the names of its files."""
    content = hashlib.sha256()
    for each in _files(path):
        try:
            name = b"" if each == path else os.fsencode(each.relative_to(path))
            content.update(f"{len(name)} {each.stat().st_size} ".encode() + name)
            with each.open("rb") as stream:
                while block := stream.read(_HASHED):
                    content.update(block)
        except OSError as problem:
            raise CorpusError(f"cannot be read: {problem.strerror or problem}", each) from None
    return content.hexdigest()
