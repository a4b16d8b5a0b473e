"""Labels for any number of sentences: batches of one length, a thread for each core, nothing computed twice.

Weights do not change while tagging, so the vector of a form (its word vector and its spelling) is computed once,
however often the form occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nertool.data.encoding import Table, padded, reading_order, token_indices
from nertool.errors import NertoolError
from nertool.model.batch import Layout, to_tensor
from nertool.model.concurrency import for_each, in_inference, without_denormals
from nertool.model.network import Network

TOKENS_PER_BATCH = 2000
_TIMES_ON_DEVICE = 10  # as many tokens in a batch on a graphics card
_FORMS_AT_ONCE = 4096
_WAYS_PER_BATCH = 8_000_000  # to arrive at the labels of all tokens, which the n best sequences need: 64 MB
_FEW = 256  # sentences, which are cut into batches with more care
_STEP_COST = 16  # what a step of the network costs beyond its sentences, in sentences; measured on a CPU
_NOT_FINITE = "this model computes scores that are not finite numbers: its weights are useless; train it again"


@dataclass(frozen=True)
class Features:
    """What is known of the tokens of some sentences, flat: the tokens of the first sentence, then of the second.

    Attributes:
        forms: The form of each token, (tokens,).
        vectors: What the context-free inputs know of each form, (forms, size), on the network's device; None where
            there are no such inputs. Form 0 is padding.
        tables: For each other input its features of the tokens.
    """

    forms: np.ndarray
    vectors: Tensor | None
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
    """

    labels: np.ndarray
    first: np.ndarray | None
    path: np.ndarray | None
    last: np.ndarray | None
    sequences: np.ndarray
    shares: np.ndarray
    marginals: np.ndarray | None = None


def device_of(network: Network) -> torch.device:
    """Return the device of a network."""
    return next(network.parameters()).device


def form_vectors(network: Network, tables: Mapping[str, Table]) -> Tensor:
    """Compute what context-free inputs know of forms, (forms, size), on the network's device; in inference mode.

    Args:
        network: In evaluation mode, with context-free inputs.
        tables: For each of these its features of the forms.
    """
    device = device_of(network)
    count = len(next(iter(tables.values())))
    parts = []
    for start in range(0, count, _FORMS_AT_ONCE):
        rows = np.arange(start, min(start + _FORMS_AT_ONCE, count))
        features = {
            name: tuple(to_tensor(values, device) for values in table.select(rows))
            for name, table in tables.items()
        }
        vectors = network.form_vectors(features)
        assert vectors is not None
        parts.append(vectors)
    return torch.cat(parts)


def input_vectors(network: Network, features: Features, mask: np.ndarray, indices: np.ndarray) -> Tensor:
    """Compute the input vectors of a batch, (time, batch, size).

    Args:
        network: In evaluation mode.
        features: Of all tokens.
        mask: Which positions of the batch are tokens, boolean (time, batch).
        indices: Where these are among all tokens, (time, batch); 0 in padding.
    """
    device = device_of(network)
    forms = to_tensor(np.where(mask, features.forms[indices], 0), device)
    tables = {
        name: to_tensor(padded(table.values, indices, mask), device) for name, table in features.tables.items()
    }
    return network.inputs_of(features.vectors, forms, tables)


def predict(
    network: Network,
    features: Features,
    lengths: np.ndarray,
    *,
    probabilities: bool = False,
    n_best: int = 0,
    marginals: bool = False,
    per_batch: int | None = None,
    workers: int,
) -> Tables:
    """Label sentences.

    Args:
        network: In evaluation mode.
        features: Of their tokens.
        lengths: Tokens of each sentence, at least 1, (sentences,).
        probabilities: Whether the tables for probabilities are wanted too.
        n_best: How many of the best sequences are wanted too.
        marginals: Whether the probabilities of all labels are wanted too.
        per_batch: Tokens of a batch; None: `TOKENS_PER_BATCH`.
        workers: Batches that are worked on at the same time.

    Raises:
        NertoolError: A score or probability is not a finite number, as weights beyond all measure make them.
    """
    device, count = device_of(network), len(features.forms)
    offsets = np.cumsum(lengths) - lengths
    labels = np.zeros(count, dtype=np.int16)
    logs = [np.zeros(count) for _ in range(3)] if probabilities else []
    sequences, shares = np.zeros((count, n_best), np.int16), np.zeros((len(lengths), n_best))
    chances = np.zeros((count, network.scores.out_features)) if marginals else None

    def work(batch: np.ndarray) -> None:
        mask, indices = token_indices(lengths[batch], offsets[batch])
        layout = Layout.of(lengths[batch], device)
        places = indices[mask]
        vectors = input_vectors(network, features, mask, indices)
        scores = without_denormals(network.encode, vectors, layout)
        if not bool((torch.isfinite(scores).all(-1) | ~layout.mask).all()):
            raise NertoolError(_NOT_FINITE)
        best = network.decoder.best_labels(scores, layout)
        labels[places] = best.cpu().numpy()[mask]
        if logs or chances is not None:
            posterior = network.decoder.posterior(scores, layout)
            if chances is not None:
                chances[places] = posterior.marginals().cpu().numpy()[mask]
            tables = posterior.path_logs(best) if logs else ()
            for log, table in zip(logs, tables, strict=True):
                log[places] = table.cpu().numpy()[mask]
        if n_best:
            several, probable = network.decoder.best_sequences(scores, layout, n_best)
            sequences[places] = several.cpu().numpy()[mask]
            shares[batch] = probable.cpu().numpy()

    on_cpu = device.type == "cpu"
    size = (per_batch or TOKENS_PER_BATCH) * (1 if on_cpu else _TIMES_ON_DEVICE)
    if n_best:
        size = min(size, max(1, _WAYS_PER_BATCH // (n_best * network.scores.out_features)))
    batches = list(cheapest_order(lengths, size) if len(lengths) <= _FEW else reading_order(lengths, size))
    # Batches side by side use the cores better than threads inside operations this small. Inference mode and the
    # like belong to a thread, so each batch sets its own.
    for_each(lambda batch: in_inference(work, batch), batches, min(workers if on_cpu else 1, len(batches)))
    if not all(np.isfinite(table).all() for table in (*logs, shares, *([] if chances is None else [chances]))):
        raise NertoolError(_NOT_FINITE)
    first, path, last = logs or (None, None, None)
    return Tables(labels, first, path, last, sequences, shares, chances)


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
