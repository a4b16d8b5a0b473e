"""A labelled corpus as integers on disk, in shards that are read in part: memory does not grow with it.

A shard holds the sentences of some hundred thousand tokens: the form and the label of each token (`Forms` numbers
forms in the order in which they occur, so that no number changes later), the forms and labels that occur there
first, and how far the reader had come. Labels stay in the scheme of the file: what each becomes in another scheme
depends on its two neighbours alone, and is looked up when sentences are read.

The files are safetensors, in a folder for each corpus in `shards` in the cache. The folder's name is a hash of the
content of the data and of all that decides how it is read. Together the folders have at most as many GB as the
environment variable `NERTOOL_SHARDS_GB` says, 100 if it says nothing; those that were not used for longest go
first, but none that was used within a day.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nertool.config.files import cache_folder, locked, read_limited, remove_leftovers, write_whole
from nertool.data.states import limit_of_cache
from nertool.errors import CorpusError
from nertool.formats.registry import Report

LIMIT = "NERTOOL_SHARDS_GB"
BLOCK_TOKENS = 2**16
"""About as many tokens of neighbouring sentences stay together when the order is drawn."""

FORMAT = "1"
_DEFAULT_LIMIT = 100.0
_RECENT = 24 * 3600.0  # seconds
_WAIT = 7 * 24 * 3600.0  # seconds, for another process that writes the same
_INDEX = "corpus.json"
_MOST = 10_000  # entities that were left out, as they are kept
_ARRAYS = "tokens", "labels", "lengths", "forms", "triples"
_COLUMN, _VALUES = "column.", "values."  # and the name of a column


@dataclass
class Facts:
    """What is known of a corpus, or of the part of it that has been read.

    Attributes:
        read: Documents that the reader gave, those that were left out included.
        sentences, tokens, documents: That are learnt from.
        long: Sentences that are learnt in pieces.
        unlabelled: Sentences that were left out because no token has a label.
        strays: Labels that the scheme does not allow at their places.
        scheme: Of the file; None while no label has shown it.
        named: Whether the scheme was not detected, but named, or known to the documents.
        unit: Whether documents know the lines of tokens, or the rows of sentences.
        notes: How labels were read.
        last: The id of the last document, and whether it is a sentence that is of no document.
    """

    read: int = 0
    sentences: int = 0
    tokens: int = 0
    documents: int = 0
    long: int = 0
    unlabelled: int = 0
    strays: int = 0
    scheme: str | None = None
    named: bool = False
    unit: str = "line"
    notes: list[str] = field(default_factory=list)
    last: tuple[str | None, bool] | None = None


@dataclass(frozen=True)
class Shard:
    """What a shard adds.

    Attributes:
        tokens: The form of each token, (tokens,).
        labels: The label of each token, (tokens,).
        lengths: Tokens of each sentence (of a long one: of each piece), (sentences,).
        columns: The value of each token in each further column that is kept, (tokens,).
        triples: How often each label occurs between two others, (distinct, 4): label before, label, label after,
            count. Labels count from 1 here; 0 is beyond the sentence.
        new_forms, new_labels: Those that no shard before has, in the order of their numbers.
        new_values: The same of each column.
        facts: Of all shards so far.
    """

    tokens: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    columns: dict[str, np.ndarray]
    triples: np.ndarray
    new_forms: list[str]
    new_labels: list[str]
    new_values: dict[str, list[str]]
    facts: Facts


class Shards:
    """The shards of a corpus, those that are whole; they are read when they are needed.

    Args:
        folder: Of the corpus.
        columns: Names of the further columns that are kept.

    Attributes:
        forms, labels: By their numbers.
        values: Those of each further column, by their numbers.
        counts: How often each form occurs, (forms,).
        triples: Of all shards; see `Shard`. (distinct, 4).
        blocks: Shard, first sentence, sentences, first token and tokens of each block, (blocks, 5).
        facts: Of all shards.
        digest: Of their content.
        report: What the reader left out; empty while the corpus is not complete.
    """

    def __init__(self, folder: Path, columns: Sequence[str] = ()) -> None:
        self.folder = folder
        self.values: dict[str, list[str]] = {name: [] for name in columns}
        self._arrays = (*_ARRAYS, *(f"{prefix}{name}" for name in columns for prefix in (_COLUMN, _VALUES)))
        self.forms: list[str] = [""]
        self.labels: list[str] = []
        self.facts = Facts()
        self.digest = hashlib.sha256(FORMAT.encode()).hexdigest()
        self.report = Report()
        self.count = 0
        self.complete = False
        self._counts = np.zeros(1, np.int64)
        self._triples: dict[tuple[int, int, int], int] = {}
        self._blocks: list[np.ndarray] = []
        index = _read_index(folder)
        while not self.complete and self._load():
            if index is not None and index[:2] == (self.count, self.digest):
                _, _, self.facts, self.report = index
                self.complete = True

    @property
    def counts(self) -> np.ndarray:
        """How often each form occurs, (forms,)."""
        return self._counts[: len(self.forms)]

    @property
    def triples(self) -> np.ndarray:
        """How often each label occurs between two others, (distinct, 4), sorted."""
        rows = [(*key, count) for key, count in sorted(self._triples.items())]
        return np.array(rows, np.int64).reshape(-1, 4)

    @property
    def blocks(self) -> np.ndarray:
        """Shard, first sentence, sentences, first token and tokens of each block, (blocks, 5)."""
        return np.concatenate([np.zeros((0, 5), np.int64), *self._blocks])

    def read(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Read the forms, the labels, the lengths of the sentences, and the further columns of a block.

        Args:
            block: A row of `blocks`.

        Raises:
            CorpusError: The shard is not what it was.
        """
        number, first, sentences, start, tokens = block.tolist()
        path = self._path(number)
        try:
            with safe_open(path, "numpy") as opened:
                result = (
                    opened.get_slice("tokens")[start : start + tokens],
                    opened.get_slice("labels")[start : start + tokens],
                    opened.get_slice("lengths")[first : first + sentences],
                )
                columns = {
                    name: opened.get_slice(f"{_COLUMN}{name}")[start : start + tokens] for name in self.values
                }
        except (OSError, SafetensorError) as problem:
            raise _damaged(path, problem) from None
        if [len(each) for each in result] != [tokens, tokens, sentences] or int(result[2].sum()) != tokens:
            raise _damaged(path, "another file is in its place")
        return *result, columns

    def touch(self) -> None:
        """Note that the folder is in use."""
        with suppress(OSError):
            os.utime(self.folder / _INDEX)

    def add(self, shard: Shard) -> None:
        """Write a shard; it is there whole, or not at all.

        Raises:
            NertoolError: It cannot be written.
        """
        arrays = {
            "tokens": shard.tokens,
            "labels": shard.labels,
            "lengths": shard.lengths,
            "forms": _as_array(shard.new_forms),
            "triples": shard.triples,
            **{f"{_COLUMN}{name}": own for name, own in shard.columns.items()},
            **{f"{_VALUES}{name}": _as_array(own) for name, own in shard.new_values.items()},
        }
        known = json.dumps({"labels": shard.new_labels, "facts": asdict(shard.facts)})
        digest = self._digest(arrays, known)
        metadata = {"nertool-shard": FORMAT, "known": known, "digest": digest}
        write_whole(self._path(self.count), save(arrays, metadata))
        self._take(arrays, shard.new_forms, shard.new_values, shard.new_labels, shard.facts, digest)

    def finish(self, facts: Facts, report: Report) -> None:
        """Note that all of the corpus is there.

        Args:
            facts: Of all that was read.
            report: What the reader left out; of many entities the first ones are kept.

        Raises:
            NertoolError: It cannot be written.
        """
        report = Report(report.misfits[:_MOST], report.widened[:_MOST], report.notes[:_MOST])
        tree = {"shards": self.count, "digest": self.digest, "facts": asdict(facts), "report": asdict(report)}
        write_whole(self.folder / _INDEX, (json.dumps(tree, indent=1) + "\n").encode())
        self.facts, self.report, self.complete = facts, report, True

    def remove_rest(self) -> None:
        """Remove what is not of use: damaged shards and those behind them, and what a killed process left."""
        kept = {self._path(number).name for number in range(self.count)}
        remove_leftovers(self.folder, [_INDEX, "*.safetensors"])
        for path in (*self.folder.glob("*.safetensors"), self.folder / _INDEX):
            if path.name not in kept:
                with suppress(OSError):
                    path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.safetensors"

    def _digest(self, arrays: dict[str, np.ndarray], known: str) -> str:
        content = hashlib.sha256(f"{self.digest} {known}".encode())
        for name in self._arrays:
            content.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
            content.update(np.ascontiguousarray(arrays[name]).data)
        return content.hexdigest()

    def _load(self) -> bool:
        """Take the next shard; False if there is none that is whole."""
        try:
            with safe_open(self._path(self.count), "numpy") as opened:
                metadata = opened.metadata() or {}
                if metadata.get("nertool-shard") != FORMAT or set(opened.keys()) != set(self._arrays):
                    return False
                arrays = {name: opened.get_tensor(name) for name in self._arrays}
            if self._digest(arrays, metadata["known"]) != metadata["digest"]:
                return False
            tree: dict[str, Any] = json.loads(metadata["known"])
            facts = _facts(tree["facts"])
            forms = json.loads(arrays["forms"].tobytes())
            values = {name: json.loads(arrays[f"{_VALUES}{name}"].tobytes()) for name in self.values}
            self._take(arrays, forms, values, tree["labels"], facts, metadata["digest"])
        except (OSError, SafetensorError, ValueError, LookupError, TypeError, RecursionError):
            return False
        return True

    def _take(
        self,
        arrays: dict[str, np.ndarray],
        forms: list[str],
        values: dict[str, list[str]],
        labels: list[str],
        facts: Facts,
        digest: str,
    ) -> None:
        self.forms += forms
        for name, own in self.values.items():
            own += values[name]
        self.labels += labels
        if len(self.forms) > len(self._counts):
            self._counts = np.pad(self._counts, (0, 2 * len(self.forms) - len(self._counts)))
        seen, counts = np.unique(arrays["tokens"], return_counts=True)
        self._counts[seen] += counts
        for before, label, after, count in arrays["triples"].tolist():
            key = before, label, after
            self._triples[key] = self._triples.get(key, 0) + count
        self._blocks.append(_cut(self.count, arrays["lengths"]))
        self.facts, self.digest = facts, digest
        self.count += 1


def shards_folder() -> Path:
    """Return the folder of all corpora."""
    return cache_folder() / "shards"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let one process alone write the shards of a corpus; others wait for it.

    Raises:
        NertoolError: The cache cannot be written to.
    """
    with locked(folder, wait=_WAIT, holder="another process has been writing these shards for a week"):
        yield


def make_room(own: Path) -> None:
    """Remove the corpora that were not used for longest, while all together are larger than the limit.

    Args:
        own: The folder that stays in any case.

    Raises:
        ConfigError: The environment variable has no number.
    """
    limit = limit_of_cache(LIMIT, _DEFAULT_LIMIT) * 1e9
    folders = []
    for folder in shards_folder().glob("*"):
        with suppress(OSError):
            files = [path.stat() for path in folder.iterdir()]
            used = max((state.st_mtime for state in files), default=0.0)
            folders.append((used, sum(state.st_size for state in files), folder))
    total = sum(size for _, size, _ in folders)
    for used, size, folder in sorted(folders):
        if total <= limit or time.time() - used < _RECENT:
            break
        if folder != own:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _as_array(names: list[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(names).encode(), np.uint8)


def _facts(tree: dict[str, Any]) -> Facts:
    facts = Facts(**tree)
    if facts.last is not None:
        facts.last = facts.last[0], facts.last[1]
    return facts


def _read_index(folder: Path) -> tuple[int, str, Facts, Report] | None:
    """Read how many shards there are, the digest of the last one, and what is known of the whole."""
    try:
        tree = json.loads(read_limited(folder / _INDEX))
        return tree["shards"], tree["digest"], _facts(tree["facts"]), Report(**tree["report"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _cut(number: int, lengths: np.ndarray) -> np.ndarray:
    """Cut the sentences of a shard into blocks; see `Shards.blocks`."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1])
    wanted = np.arange(1, max(1, round(total / BLOCK_TOKENS))) * BLOCK_TOKENS
    cuts = np.unique([0, *(np.searchsorted(ends, wanted) + 1).tolist(), len(lengths)])
    cuts = cuts[cuts <= len(lengths)]
    starts = np.concatenate(([0], ends))[cuts]
    rows = [np.full(len(cuts) - 1, number), cuts[:-1], np.diff(cuts), starts[:-1], np.diff(starts)]
    return np.stack(rows, axis=1)


def _damaged(path: Path, problem: object) -> CorpusError:
    return CorpusError(
        f"this shard of the training split is damaged, or was removed while it was in use ({problem}); the same "
        "command with --resume makes it anew",
        path,
    )


def neighbour_codes(labels: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return a number for each label with the label before and the one after it; see `Shard.triples`."""
    own = labels.astype(np.int64) + 1
    before, after = np.roll(own, 1), np.roll(own, -1)
    ends = np.cumsum(lengths)
    before[ends - lengths] = 0
    after[ends - 1] = 0
    codes: np.ndarray = (before << 32) | (own << 16) | after
    return codes


def split_codes(codes: np.ndarray) -> list[np.ndarray]:
    """Take the numbers of `neighbour_codes` apart: label before, label, label after."""
    return [codes >> 32, (codes >> 16) & 0xFFFF, codes & 0xFFFF]
