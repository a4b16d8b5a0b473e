"""Labels for any number of sentences: batches of one length, a thread for each core, nothing done twice.

Weights do not change while tagging, so the vector of a form (word vector and convolved characters) is
computed once, however often the form occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nertool.data.batching import FormTables, reading_order
from nertool.model.concurrency import denormals_as_zero, threads
from nertool.model.network import Network

TOKENS_PER_BATCH = 2000
_FORMS_AT_ONCE = 4096


@dataclass(frozen=True)
class Prediction:
    """What was found for some sentences, flat: the tokens of the first sentence, then those of the second.

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


@torch.inference_mode()
def vectors_of(network: Network, tables: FormTables) -> Tensor:
    """Input vectors of forms, (forms, inputs)."""
    parts = []
    with threads(1):  # more would wait for each other
        for start in range(0, len(tables.rows), _FORMS_AT_ONCE):
            forms = np.arange(start, min(start + _FORMS_AT_ONCE, len(tables.rows)))
            windows, counts = tables.select(forms)
            arrays = (tables.rows[forms], tables.cases[forms], windows, counts)
            parts.append(network.form_vectors(*map(torch.from_numpy, arrays)))
    return torch.cat(parts)


def predict(
    network: Network,
    vectors: Tensor,
    tokens: np.ndarray,
    lengths: np.ndarray,
    *,
    probabilities: bool = False,
    n_best: int = 0,
    marginals: bool = False,
    per_batch: int | None = None,
    workers: int,
) -> Prediction:
    """Labels sentences.

    Args:
        network: In evaluation mode.
        vectors: Input vectors of all forms, (forms, inputs); form 0 pads.
        tokens: Form of each token, sentence after sentence, (tokens,).
        lengths: Tokens of each sentence, at least 1, (sentences,).
        probabilities: Whether the tables for probabilities are wanted too.
        n_best: How many of the best sequences are wanted too.
        marginals: Whether the probabilities of all labels are wanted too.
        per_batch: Tokens of a batch; None: `TOKENS_PER_BATCH`.
        workers: Batches that are worked on at the same time.
    """
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    labels = np.zeros(len(tokens), dtype=np.int16)
    logs = [np.zeros(len(tokens)) for _ in range(3)] if probabilities else []
    sequences, shares = np.zeros((len(tokens), n_best), np.int16), np.zeros((len(lengths), n_best))
    chances = np.zeros((len(tokens), network.decoder.num_tags)) if marginals else None

    def label(sentences: np.ndarray) -> None:
        sizes = lengths[sentences]
        steps = np.arange(int(sizes.max()))[:, None]
        mask = steps < sizes
        places = offsets[sentences] + steps
        forms = torch.from_numpy(np.where(mask, tokens[np.where(mask, places, 0)], 0))
        prefix = torch.from_numpy(mask)
        # Inference mode belongs to a thread, so each worker enters it.
        with torch.inference_mode():
            with denormals_as_zero():
                scores = network.encode(torch.nn.functional.embedding(forms, vectors), prefix)
            best = network.decoder.best_labels(scores, prefix)
            labels[places[mask]] = best.numpy()[mask]
            if logs or chances is not None:
                posterior = network.decoder.posterior(scores, prefix)
                if chances is not None:
                    chances[places[mask]] = posterior.marginals()[mask]
                parts = posterior.path_logs(best.numpy()) if logs else ()
                for table, part in zip(logs, parts, strict=True):
                    table[places[mask]] = part[mask]
            if n_best:
                several, shares[sentences] = network.decoder.best_sequences(scores, prefix, n_best)
                sequences[places[mask]] = several[mask]

    batches = list(reading_order(lengths, per_batch or TOKENS_PER_BATCH))
    # Batches side by side use the cores better than threads inside operations this small.
    with threads(1):
        if min(workers, len(batches)) <= 1:
            for sentences in batches:
                label(sentences)
        else:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for _ in pool.map(label, batches):
                    pass
    first, path, last = logs or (None, None, None)
    return Prediction(labels, first, path, last, sequences, shares, chances)


def together(parts: Sequence[Prediction]) -> Prediction:
    """Predictions for sentences and for those that follow, as one for all."""
    if len(parts) == 1:
        return parts[0]
    found: dict[str, Any] = {}
    for name in (field.name for field in fields(Prediction)):
        tables = [getattr(part, name) for part in parts]
        found[name] = None if tables[0] is None else np.concatenate(tables)
    return Prediction(**found)
