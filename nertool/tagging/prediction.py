"""Labels for any number of sentences: batches of one length, a thread for each core, nothing computed twice.

Weights do not change while tagging, so the vector of a form (its word vector and its spelling) is computed once,
however often the form occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from nertool.data.encoding import Table, reading_order, token_indices
from nertool.errors import NertoolError
from nertool.model.chain import Marks
from nertool.model.parallel import for_each, forked
from nertool.model.trace import Trace

Array = Any  # a tensor of torch, or an array of numpy: what the backend works with

TOKENS_PER_BATCH = 2000
_WAYS_PER_BATCH = 8_000_000  # to arrive at the labels of all tokens, which the n best sequences need: 64 MB
_FEW = 256  # sentences, which are cut into batches with more care
_STEP_COST = 16  # what a step of the network costs beyond its sentences, in sentences; measured on a CPU
NOT_FINITE = "this model computes scores that are not finite numbers: its weights are useless; train it again"


@dataclass(frozen=True)
class Features:
    """What is known of the tokens of some sentences, flat: the tokens of the first sentence, then of the second.

    Attributes:
        forms: The form of each token, (tokens,).
        vectors: What the context-free inputs know of each form, (forms, size), as the backend has them; None where
            there are no such inputs. Form 0 is padding.
        tables: For each other input its features of the tokens.
    """

    forms: np.ndarray
    vectors: Array | None
    tables: Mapping[str, Table]


@dataclass(frozen=True)
class Tables:
    """What was predicted for some sentences, flat, on the CPU.

    Attributes:
        labels: Label of each token, (tokens,).
        first, path, last: Tables as in `Posterior.path_logs`, (tokens,); None where not asked for.
        sequences: Labels in each of the n best sequences, (tokens, n); n is 0 where not asked for.
        shares: Probability of each of these, (sentences, n); 0 where there are fewer.
        marginals: Probability of each label at each token, (tokens, labels); None where not asked for.
        wrong: What each token contributes to the expected number of wrong entities, (tokens,); None where not
            asked for.
    """

    labels: np.ndarray
    first: np.ndarray | None
    path: np.ndarray | None
    last: np.ndarray | None
    sequences: np.ndarray
    shares: np.ndarray
    marginals: np.ndarray | None = None
    wrong: np.ndarray | None = None


@dataclass(frozen=True)
class Wanted:
    """What is wanted of sentences besides their labels.

    Attributes:
        probabilities: Whether the tables for probabilities are wanted.
        n_best: How many of the best sequences are wanted.
        marginals: Whether the probabilities of all labels are wanted.
        marks: Which entities a label sequence has, where the expected number of wrong entities is wanted.
    """

    probabilities: bool = False
    n_best: int = 0
    marginals: bool = False
    marks: Marks | None = None


class Decoded(NamedTuple):
    """What a backend says of a batch, as arrays of numpy; the fields are those of `Tables`.

    Attributes:
        labels: (time, batch).
        logs: first, path and last, each (time, batch); none where not asked for.
        sequences: (time, batch, n); None where not asked for.
        shares: (batch, n); None where not asked for.
        marginals: (time, batch, labels); None where not asked for.
        wrong: (time, batch); None where not asked for.
    """

    labels: np.ndarray
    logs: tuple[np.ndarray, ...] = ()
    sequences: np.ndarray | None = None
    shares: np.ndarray | None = None
    marginals: np.ndarray | None = None
    wrong: np.ndarray | None = None


class Activations(NamedTuple):
    """What the parts of a network say of one sentence.

    Attributes:
        emissions: The label scores, (tokens, labels).
        traces: Of each direction of each recurrent layer; none where the encoder has no such layer.
        attention: How much each token attends to each, (heads, from, to); None without attention.
        complete: Whether the backend can say all of this; else it says emissions alone.
    """

    emissions: np.ndarray
    traces: tuple[Trace, ...] = ()
    attention: np.ndarray | None = None
    complete: bool = True


class Backend(Protocol):
    """What computes with the weights of a model: torch, or ONNX Runtime. Several threads may share one."""

    @property
    def labels(self) -> int:
        """Number of labels."""
        ...

    @property
    def workers(self) -> int:
        """Batches that are worked on at the same time."""
        ...

    @property
    def times_per_batch(self) -> int:
        """By how much larger than usual a batch should be."""
        ...

    def form_vectors(self, tables: Mapping[str, Table]) -> Array:
        """Compute what context-free inputs know of forms, (forms, size).

        Args:
            tables: For each of these inputs its features of the forms.
        """
        ...

    def append(self, table: Array | None, count: int, new: Array) -> Array:
        """Put rows behind the first `count` of a table; return it, or a larger one if it is full."""
        ...

    def decode(self, features: Features, mask: np.ndarray, indices: np.ndarray, wanted: Wanted) -> Decoded:
        """Label a batch of sentences.

        Args:
            features: Of all tokens.
            mask: Which positions of the batch are tokens, boolean (time, batch).
            indices: Where these are among all tokens, (time, batch); 0 in padding.
            wanted: What is wanted besides the labels.

        Raises:
            NertoolError: A score is not a finite number.
        """
        ...

    def activations(self, features: Features, mask: np.ndarray, indices: np.ndarray) -> Activations:
        """Compute what the parts of the network say of one sentence; see `decode`."""
        ...


def predict(
    backend: Backend, features: Features, lengths: np.ndarray, wanted: Wanted, *, per_batch: int | None = None
) -> Tables:
    """Label sentences.

    Args:
        backend: Of the model.
        features: Of their tokens.
        lengths: Tokens of each sentence, at least 1, (sentences,).
        wanted: What is wanted besides the labels.
        per_batch: Tokens of a batch; None: `TOKENS_PER_BATCH`.

    Raises:
        NertoolError: A score or probability is not a finite number, as weights beyond all measure make them.
    """
    count, n_best = len(features.forms), wanted.n_best
    offsets = np.cumsum(lengths) - lengths
    labels = np.zeros(count, dtype=np.int16)
    logs = [np.zeros(count) for _ in range(3)] if wanted.probabilities else []
    sequences, shares = np.zeros((count, n_best), np.int16), np.zeros((len(lengths), n_best))
    chances = np.zeros((count, backend.labels)) if wanted.marginals else None
    wrong = None if wanted.marks is None else np.zeros(count)

    def work(batch: np.ndarray) -> None:
        mask, indices = token_indices(lengths[batch], offsets[batch])
        places = indices[mask]
        decoded = backend.decode(features, mask, indices, wanted)
        labels[places] = decoded.labels[mask]
        for log, table in zip(logs, decoded.logs, strict=True):
            log[places] = table[mask]
        if chances is not None and decoded.marginals is not None:
            chances[places] = decoded.marginals[mask]
        if wrong is not None and decoded.wrong is not None:
            wrong[places] = decoded.wrong[mask]
        if decoded.sequences is not None and decoded.shares is not None:
            sequences[places] = decoded.sequences[mask]
            shares[batch] = decoded.shares

    size = (per_batch or TOKENS_PER_BATCH) * backend.times_per_batch
    if n_best:
        size = min(size, max(1, _WAYS_PER_BATCH // (n_best * backend.labels)))
    batches = list(cheapest_order(lengths, size) if len(lengths) <= _FEW else reading_order(lengths, size))
    # Batches side by side use the cores better than threads inside operations this small.
    for_each(work, batches, min(1 if forked() else backend.workers, len(batches)))
    if not all(np.isfinite(table).all() for table in (*logs, shares, chances, wrong) if table is not None):
        raise NertoolError(NOT_FINITE)
    first, path, last = logs or (None, None, None)
    return Tables(labels, first, path, last, sequences, shares, chances, wrong)


def cheapest_order(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Cut few sentences into the batches that take the least time, by dynamic programming.

    A batch takes as many steps as its longest sentence has tokens. One batch for all wastes time on padding, and a
    batch for each length on steps.

    Args:
        lengths: Tokens of each sentence.
        tokens: Tokens of a batch with padding, at most, unless a single sentence is longer.
    """
    order = np.argsort(lengths, kind="stable")
    ordered = lengths[order]
    least = np.zeros(len(order) + 1)  # of the sentences before each one, the time
    starts = np.zeros(len(order) + 1, int)  # and where the last of their batches starts
    for end in range(1, len(order) + 1):
        longest = max(1, int(ordered[end - 1]))
        first = max(0, end - max(1, tokens // longest))
        times = least[first:end] + longest * (_STEP_COST + end - np.arange(first, end))
        choice = int(times.argmin())
        least[end], starts[end] = times[choice], first + choice
    end = len(order)
    while end:
        start = int(starts[end])
        yield order[start:end]
        end = start


def concatenate(parts: Sequence[Tables]) -> Tables:
    """Put the tables of sentences before those of the sentences that follow."""
    if len(parts) == 1:
        return parts[0]
    result: dict[str, Any] = {}
    for name in (field.name for field in fields(Tables)):
        tables = [getattr(part, name) for part in parts]
        result[name] = None if tables[0] is None else np.concatenate(tables)
    return Tables(**result)
