"""A training split that need not fit into memory: read once into shards, and learnt from window by window.

`write_shards` reads documents of any format, a part at a time, and encodes them (see `nertool.data.shards`). It
can be stopped at any moment, and goes on after the last shard that is whole. `StreamedSplit` is the split as the
rest of the package knows it, counts and all; `StreamedCorpus` gives its batches.

An epoch draws an order of blocks of neighbouring sentences and cuts it into windows. The sentences of a window are
in memory together and are shuffled and sorted into batches as a whole corpus is. Where one window has room for all
the order is that of a corpus in memory, to the bit.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import overload

import numpy as np

from nertool.config.files import is_stream
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split, read_options
from nertool.data.encoding import Batches, EncodedCorpus, Encoders, Forms, Table, concatenate, training_order
from nertool.data.folds import begins, mark_of
from nertool.data.pieces import LONGEST, in_pieces
from nertool.data.shards import FORMAT, Facts, Shard, Shards, held, make_room, shards_folder
from nertool.data.vocabulary import CountedDocuments
from nertool.errors import CorpusError
from nertool.forking import cached_property
from nertool.formats.labels import resolve
from nertool.formats.opening import counting
from nertool.formats.registry import Report, detect_format, find_format
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE, Scheme, convert, detect_pairs, spans
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
        codes, counts = np.unique(_codes(coded, pieces), return_counts=True)
        return Shard(
            tokens=tokens,
            labels=coded.astype(np.int16),
            lengths=pieces.astype(np.int32),
            columns=columns,
            triples=np.stack([*_split(codes), counts], axis=1),
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


def _codes(labels: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return a number for each label with the label before and the one after it; see `Shard.triples`."""
    own = labels.astype(np.int64) + 1
    before, after = np.roll(own, 1), np.roll(own, -1)
    ends = np.cumsum(lengths)
    before[ends - lengths] = 0
    after[ends - 1] = 0
    codes: np.ndarray = (before << 32) | (own << 16) | after
    return codes


def _split(codes: np.ndarray) -> list[np.ndarray]:
    return [codes >> 32, (codes >> 16) & 0xFFFF, codes & 0xFFFF]


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


class _Labels:
    """The labels of shards in the scheme that is learnt.

    Args:
        shards: Of the whole corpus.
        scheme: Of their labels.
        target: The scheme that is wanted.

    Attributes:
        names: The labels that occur, one for each row of `Shards.triples`.
        starts: For each of these rows the type of the entity that begins there; "" where none does.
        counts: How often each occurs.
    """

    def __init__(self, shards: Shards, scheme: Scheme, target: Scheme) -> None:
        triples = shards.triples
        known = ["", *shards.labels]
        self._codes = (triples[:, 0] << 32) | (triples[:, 1] << 16) | triples[:, 2]
        self._order = np.argsort(self._codes)
        self.names: list[str] = []
        self.starts: list[str] = []
        self.counts = triples[:, 3].tolist()
        for before, label, after, _ in triples.tolist():
            own = known[label]
            left, right = (known[each] if each else OUTSIDE for each in (before, after))
            start = ""
            if scheme is not Scheme.PLAIN and own != UNKNOWN:
                # Whether an entity begins or ends with a label can be seen from its neighbours.
                found = spans([left or OUTSIDE, own], scheme)
                start = next((span.type for span in found if span.start == 1), "")
                if UNKNOWN not in (left, right):
                    own = convert([left, own, right], scheme, target)[1]
            self.names.append(own)
            self.starts.append(start)

    def rows(self, labels: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the row of `names` of each token, (tokens,)."""
        places = np.searchsorted(self._codes, _codes(labels, lengths), sorter=self._order)
        rows: np.ndarray = self._order[np.minimum(places, len(self._order) - 1)]
        return rows


class _Documents(CountedDocuments):
    """The sentences of shards, decoded when they are asked for; long ones in pieces."""

    def __init__(self, shards: Shards, labels: _Labels, scheme: Scheme) -> None:
        self._shards, self._labels, self._scheme = shards, labels, scheme
        self._ends = np.cumsum(shards.blocks[:, 2])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __iter__(self) -> Iterator[Document]:
        for block in self._shards.blocks:
            yield from self.decode(block)

    @overload
    def __getitem__(self, index: int) -> Document: ...

    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...

    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        block = int(np.searchsorted(self._ends, number, side="right"))
        first = int(self._ends[block]) - int(self._shards.blocks[block, 2])
        return next(islice(self.decode(self._shards.blocks[block]), number - first, None))

    def token_counts(self) -> Counter[str]:
        """Count the tokens of all sentences."""
        counts = zip(self._shards.forms, self._shards.counts.tolist(), strict=True)
        return Counter({form: count for form, count in counts if count})

    def label_counts(self) -> Counter[str]:
        """Count the labels of all sentences."""
        counts: Counter[str] = Counter()
        for name, count in zip(self._labels.names, self._labels.counts, strict=True):
            counts[name] += count
        return counts

    def decode(self, block: np.ndarray) -> Iterator[Document]:
        """Return the sentences of a block."""
        tokens, labels, lengths, numbers = self._shards.read(block)
        forms, names = self._shards.forms, self._labels.names
        words = [forms[number] for number in tokens.tolist()]
        columns = {
            name: [self._shards.values[name][number] for number in own.tolist()] for name, own in numbers.items()
        }
        found = [names[row] for row in self._labels.rows(labels, lengths).tolist()]
        start = 0
        for length in lengths.tolist():
            end = start + length
            yield Document(
                tuple(words[start:end]),
                labels=tuple(found[start:end]),
                scheme=self._scheme,
                columns={name: tuple(values[start:end]) for name, values in columns.items()} if columns else {},
            )
            start = end


@dataclass(frozen=True, kw_only=True)
class StreamedSplit(Split):
    """A training split on disk.

    Attributes:
        shards: That hold it.
        label_map: The labels that they become.
    """

    shards: Shards = field(repr=False, compare=False)
    label_map: _Labels = field(repr=False, compare=False)

    @classmethod
    def of(cls, shards: Shards, config: CorpusConfig) -> StreamedSplit:
        """Make the split of a config from its shards."""
        facts = shards.facts
        scheme = Scheme(facts.scheme or Scheme.IOB2)
        # As `read_training` does: with some labels unknown, the file's scheme is learnt.
        unknown = UNKNOWN in shards.labels
        target = scheme if unknown or scheme is Scheme.PLAIN else Scheme(config.learn_scheme)
        labels = _Labels(shards, scheme, target)
        report = shards.report
        return cls(
            documents=_Documents(shards, labels, target),
            scheme=scheme,
            label_scheme=target,
            strays=facts.strays,
            unlabelled=facts.unlabelled,
            path=Path(config.train or ""),
            unit="row" if facts.unit == "row" else "line",
            report=replace(report, notes=[*report.notes, *facts.notes]),
            shards=shards,
            label_map=labels,
        )

    @cached_property
    def sentences(self) -> Sequence[Document]:
        """Each sentence as a document of its own, long ones in pieces."""
        return self.documents

    @cached_property
    def labels(self) -> list[list[str]]:
        """Not to be had, because all of them would be in memory.

        Raises:
            CorpusError: Always.
        """
        raise CorpusError("a streamed split has its labels on disk: take those of each sentence", self.path)

    def __len__(self) -> int:
        return self.shards.facts.sentences

    @cached_property
    def token_count(self) -> int:
        """How many tokens there are."""
        return self.shards.facts.tokens

    @cached_property
    def document_count(self) -> int:
        """How many documents there are; sentences that are of no document count as one."""
        return self.shards.facts.documents

    @cached_property
    def long_count(self) -> int:
        """How many sentences are learnt in pieces."""
        return self.shards.facts.long

    def label_counts(self) -> Counter[str]:
        """Count the labels, `UNKNOWN` included."""
        assert isinstance(self.documents, _Documents)
        return self.documents.label_counts()

    def entity_counts(self) -> Counter[str]:
        """Count the entities of each type; there are none among plain tags."""
        counts: Counter[str] = Counter()
        for type_, count in zip(self.label_map.starts, self.label_map.counts, strict=True):
            if type_:
                counts[type_] += count
        return counts

    def digest(self) -> str:
        """Return a hash of what is learnt from."""
        parts = [self.shards.digest, self.label_scheme.value, *sorted(self.unannotated)]
        return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


class StreamedCorpus:
    """A training split on disk as the network wants it; a window of it at a time is in memory.

    Args:
        encoders: By name. Those that are not context-free encode the sentences of a window when it is read.
        split: Labelled.
        label_numbers, label_sets: As for `EncodedCorpus`.
        window: Tokens that are in memory, and shuffled, together.
        epoch_tokens: About how many tokens an epoch has; None: all.

    Attributes:
        covered: Whether one window has room for all.
        parts: In how many epochs each sentence is learnt once.
        weights: None: all sentences count the same.
    """

    def __init__(
        self,
        encoders: Encoders,
        split: StreamedSplit,
        label_numbers: Mapping[str, int],
        label_sets: np.ndarray | None,
        window: int,
        epoch_tokens: int | None = None,
    ) -> None:
        assert isinstance(split.documents, _Documents)
        self._documents = split.documents
        self._contextual = {name: each for name, each in encoders.items() if not each.context_free}
        self._shards, self._labels, self._label_sets = split.shards, split.label_map, label_sets
        get = {**label_numbers, UNKNOWN: -1}.get
        self._numbers = np.array([get(name, 0) for name in self._labels.names], np.int16)
        forms = Forms(encoders)
        for form in self._shards.forms:
            forms[form]
        self._form_tables = forms.drain()
        self._blocks = self._shards.blocks
        self._sentences = np.cumsum(self._blocks[:, 2])
        self._window = window
        self.covered = self.token_count <= window
        parts = round(self.token_count / epoch_tokens) if epoch_tokens else 1
        self.parts = min(max(1, parts), len(self._blocks))
        self.weights: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self._sentences[-1])

    @property
    def token_count(self) -> int:
        """Tokens of all sentences."""
        return int(self._blocks[:, 4].sum())

    def epoch(self, batch_size: int, seed: int, number: int) -> Batches:
        """Draw the order of an epoch; see `Learnable.epoch`.

        Raises:
            CorpusError: While batches are asked for: a shard is damaged.
        """
        random = np.random.default_rng((seed, number))
        if self.covered and self.parts == 1:
            windows = [np.arange(len(self._blocks))]
            chances = [random]
        else:
            windows = self._windows(self._order(seed, number, random))
            chances = [np.random.default_rng(own) for own in random.integers(2**63, size=len(windows)).tolist()]
        sizes = [int(self._blocks[window, 2].sum()) for window in windows]
        steps = [_steps(size, batch_size, copy.deepcopy(own)) for size, own in zip(sizes, chances, strict=True)]
        tokens = sum(int(self._blocks[window, 4].sum()) for window in windows)
        return Batches(sum(steps), sum(sizes), tokens, self._batches(windows, chances, batch_size))

    def _order(self, seed: int, number: int, random: np.random.Generator) -> np.ndarray:
        """Draw the blocks of an epoch; as many epochs as there are parts have each block once."""
        if self.parts == 1:
            return random.permutation(len(self._blocks))
        turn, part = divmod(number, self.parts)
        order = np.random.default_rng((seed, turn, 1)).permutation(len(self._blocks))
        return np.array_split(order, self.parts)[part]

    def _windows(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut an order of blocks into windows of about the same size, each in the order of the disk."""
        ends = np.cumsum(self._blocks[order, 4])
        count = -(-int(ends[-1]) // self._window)
        cuts = np.flatnonzero(np.diff((ends - 1) * count // ends[-1])) + 1
        return [np.sort(part) for part in np.split(order, cuts)]

    def _batches(
        self, windows: Iterable[np.ndarray], chances: Iterable[np.random.Generator], batch_size: int
    ) -> Iterator[tuple[EncodedCorpus, np.ndarray, np.ndarray]]:
        for window, random in zip(windows, chances, strict=True):
            self._shards.touch()
            part = self._read(window)
            counts = self._blocks[window, 2]
            within = np.cumsum(counts) - counts
            numbers = np.repeat(self._sentences[window] - counts - within, counts) + np.arange(len(part))
            for indices in training_order(part.lengths, batch_size, random):
                yield part, indices, numbers[indices]

    def _read(self, window: np.ndarray) -> EncodedCorpus:
        """Read the sentences of some blocks."""
        blocks = self._blocks[window]
        total, count = int(blocks[:, 4].sum()), int(blocks[:, 2].sum())
        tokens, labels, lengths = np.empty(total, np.int32), np.empty(total, np.int16), np.empty(count, np.int32)
        tables: dict[str, list[Table]] = {name: [] for name in self._contextual}
        token = sentence = 0
        for block in blocks:
            own_tokens, own_labels, own_lengths, _ = self._shards.read(block)
            here = slice(token, token + len(own_tokens))
            tokens[here] = own_tokens
            labels[here] = self._numbers[self._labels.rows(own_labels, own_lengths)]
            lengths[sentence : sentence + len(own_lengths)] = own_lengths
            token, sentence = here.stop, sentence + len(own_lengths)
            if tables:
                documents = list(self._documents.decode(block))
                for name, each in self._contextual.items():
                    tables[name].append(each.encode_documents(documents))
        further = {name: concatenate(own) for name, own in tables.items()}
        return EncodedCorpus.of_arrays(tokens, labels, lengths, self._form_tables, further, self._label_sets)


def _steps(sentences: int, batch_size: int, random: np.random.Generator) -> int:
    """Count the batches of `training_order`, given a generator in the same state."""
    random.random(sentences)
    first = int(random.integers(1, batch_size + 1))
    return 1 + len(range(first, sentences, batch_size))


def read_streamed(
    config: CorpusConfig, tokenizer: Tokenizer | None = None, columns: Iterable[str] = ()
) -> StreamedSplit:
    """Find or write the shards of the training split, without a word about progress.

    Raises:
        CorpusError, NertoolError: As for `write_shards`.
    """
    writing = write_shards(config, tokenizer, columns)
    while True:
        try:
            next(writing)
        except StopIteration as ended:
            shards: Shards = ended.value
            return StreamedSplit.of(shards, config)
