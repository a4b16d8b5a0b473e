"""Learn from a training split on disk, window by window.

`StreamedSplit` is the split as the rest of the package knows it, counts and all; `StreamedCorpus` gives its
batches. `nertool.data.sharding` writes the shards that both read.

An epoch draws an order of blocks of neighbouring sentences and cuts it into windows. The sentences of a window are
in memory together and are shuffled and sorted into batches as a whole corpus is. Where one window has room for all
the order is that of a corpus in memory, to the bit.
"""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split
from nertool.data.encoding import Batches, EncodedCorpus, Encoders, Forms, Table, concatenate, training_order
from nertool.data.sharding import write_shards
from nertool.data.shards import Shards, neighbour_codes
from nertool.data.vocabulary import CountedDocuments
from nertool.errors import CorpusError
from nertool.forking import cached_property
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE, Scheme, convert, spans
from nertool.text.tokenization import Tokenizer


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
        places = np.searchsorted(self._codes, neighbour_codes(labels, lengths), sorter=self._order)
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
