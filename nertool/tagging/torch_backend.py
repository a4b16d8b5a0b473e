"""A network of torch as the backend of a predictor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nertool.data.encoding import Table
from nertool.errors import NertoolError
from nertool.model.batch import Layout, features_to, to_tensor
from nertool.model.concurrency import in_inference, without_denormals
from nertool.model.encoders.gates import trace
from nertool.model.encoders.recurrent import RecurrentEncoder
from nertool.model.network import Network
from nertool.tagging.prediction import NOT_FINITE, Activations, Decoded, Features, Wanted

_TIMES_ON_DEVICE = 10  # as many tokens in a batch on a graphics card
_FORMS_AT_ONCE = 4096


def device_of(network: Network) -> torch.device:
    """Return the device of a network."""
    return next(network.parameters()).device


def form_vectors(network: Network, tables: Mapping[str, Table]) -> Tensor:
    """Compute what context-free inputs know of forms, (forms, size), on its device; in inference mode.

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
    tables = {name: table.batch(indices, mask) for name, table in features.tables.items()}
    return network.inputs_of(features.vectors, forms, features_to(tables, device))


class TorchBackend:
    """Computes with a network, on its device.

    Inference mode and the like belong to a thread, so each batch sets its own.

    Args:
        network: In evaluation mode, and not to be trained while this exists.

    Attributes:
        labels: Number of labels.
        workers: Batches that are worked on at the same time.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.labels = network.scores.out_features
        self._threads = torch.get_num_threads()

    @property
    def workers(self) -> int:
        """A batch for each core; on a graphics card one."""
        return self._threads if device_of(self.network).type == "cpu" else 1

    @property
    def times_per_batch(self) -> int:
        """A graphics card wants larger batches."""
        return 1 if device_of(self.network).type == "cpu" else _TIMES_ON_DEVICE

    def form_vectors(self, tables: Mapping[str, Table]) -> Tensor:
        """Compute what context-free inputs know of forms, (forms, size), on the device of the network."""
        return in_inference(form_vectors, self.network, tables)

    def append(self, table: Tensor | None, count: int, new: Tensor) -> Tensor:
        """Put rows behind the first `count` of a table; return it, or one of twice the size."""

        def append() -> Tensor:
            total = count + len(new)
            result = table
            if result is None or total > len(result):
                result = new.new_zeros(2 * total, new.shape[1])
                if table is not None:
                    result[:count] = table[:count]
            result[count:total] = new
            return result

        return in_inference(append)

    def decode(self, features: Features, mask: np.ndarray, indices: np.ndarray, wanted: Wanted) -> Decoded:
        """Label a batch of sentences."""
        return in_inference(self._decode, features, mask, indices, wanted)

    def _decode(self, features: Features, mask: np.ndarray, indices: np.ndarray, wanted: Wanted) -> Decoded:
        network = self.network
        layout = Layout.of(mask.sum(0), device_of(network))
        vectors = input_vectors(network, features, mask, indices)
        scores = without_denormals(network.encode, vectors, layout)
        if not bool((torch.isfinite(scores).all(-1) | ~layout.mask).all()):
            raise NertoolError(NOT_FINITE)
        best = network.decoder.best_labels(scores, layout)
        logs: tuple[Tensor, ...] = ()
        marginals = sequences = shares = wrong = None
        if wanted.probabilities or wanted.marginals or wanted.marks is not None:
            posterior = network.decoder.posterior(scores, layout)
            logs = posterior.path_logs(best) if wanted.probabilities else ()
            marginals = posterior.marginals() if wanted.marginals else None
            wrong = None if wanted.marks is None else posterior.wrong_entities(best, wanted.marks)
        if wanted.n_best:
            sequences, shares = network.decoder.best_sequences(scores, layout, wanted.n_best)
        return Decoded(
            best.cpu().numpy(),
            tuple(each.cpu().numpy() for each in logs),
            *(None if each is None else each.cpu().numpy() for each in (sequences, shares, marginals, wrong)),
        )

    def activations(self, features: Features, mask: np.ndarray, indices: np.ndarray) -> Activations:
        """Compute what the parts of the network say of one sentence."""
        return in_inference(self._activations, features, mask, indices)

    def _activations(self, features: Features, mask: np.ndarray, indices: np.ndarray) -> Activations:
        network, encoder = self.network, self.network.encoder
        layout = Layout.of(mask.sum(0), device_of(network))
        vectors = input_vectors(network, features, mask, indices)
        emissions = _sentence(without_denormals(network.encode, vectors, layout))
        if not np.isfinite(emissions).all():
            raise NertoolError(NOT_FINITE)
        traces = trace(encoder, vectors, layout) if isinstance(encoder, RecurrentEncoder) else []
        attention = None
        if network.attention is not None:
            attention = network.attention.weights(encoder(vectors, layout), layout)[0].cpu().numpy()
        return Activations(emissions, tuple(each.map(_sentence) for each in traces), attention)


def _sentence(values: Tensor) -> np.ndarray:
    """Return the values of the only sentence of a batch, (tokens, ...)."""
    result: np.ndarray = values[:, 0].cpu().numpy()
    return result
