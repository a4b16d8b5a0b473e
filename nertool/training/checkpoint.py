"""A training between two epochs, in one file: enough to go on to the same bits.

An epoch depends on the weights, the state of the update rules and of the averages, the random stream of dropout,
and the number of the epoch (its batches are drawn from seed and number alone). All of that is in the file, which
is replaced as a whole: whenever a training is stopped, its last epoch boundary is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from nertool.config.schema import Config
from nertool.data.encoding import EncodedCorpus
from nertool.errors import BundleError
from nertool.tagging.tensorfile import check_digest, read_tensors, write_tensors
from nertool.training.step import Learner
from nertool.training.trainer import Epoch

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "3"
_LARGEST_HEADER = 2**26  # bytes: the records of all epochs are in it, about a thousand each


def fingerprint(config: Config, corpus: EncodedCorpus) -> str:
    """Identify a training: a digest of all settings and of the encoded training split."""
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode())
    for name, array in _arrays(corpus):
        if array is not None:
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _arrays(corpus: EncodedCorpus) -> Iterator[tuple[str, np.ndarray | None]]:
    yield "lengths", corpus.lengths
    yield "tokens", corpus.tokens
    yield "labels", corpus.labels
    for name, table in sorted({**corpus.form_tables, **corpus.token_tables}.items()):
        yield f"{name}.values", table.values
        yield f"{name}.offsets", table.offsets


def save_checkpoint(folder: Path, learner: Learner, epochs: Sequence[Epoch], identity: str) -> None:
    """Write the state of a training after an epoch.

    Args:
        folder: The run directory.
        learner: Its network holds the weights that training goes on from (not their averages).
        epochs: All so far.
        identity: The training's fingerprint.

    Raises:
        NertoolError: It cannot be written; the checkpoint before it is still there.
    """
    network = learner.network
    tensors = {f"network.{name}": value.detach().cpu() for name, value in network.state_dict().items()}
    tensors |= {
        f"optimization.{name}": value.detach().cpu() for name, value in learner.optimization.state().items()
    }
    tensors["noise"] = torch.from_numpy(network.noise.state.view(np.int64).copy())
    metadata = {
        "nertool-checkpoint": _FORMAT,
        "identity": identity,
        "epochs": json.dumps([epoch.to_json() for epoch in epochs]),
    }
    write_tensors(folder / CHECKPOINT, tensors, metadata)


def load_checkpoint(folder: Path, learner: Learner, identity: str) -> list[Epoch]:
    """Restore the state of a training.

    Args:
        folder: The run directory.
        learner: New, of the network as built at the beginning of the training.
        identity: The training's fingerprint.

    Returns:
        The epochs so far.

    Raises:
        BundleError: The checkpoint is corrupt, or of another training.
    """
    path = folder / CHECKPOINT
    tensors, metadata = read_tensors(path, ("nertool-checkpoint", _FORMAT), _LARGEST_HEADER)
    if metadata.get("identity") != identity:
        raise BundleError(
            f"{path}: belongs to a training with other settings or another corpus; resume with the config in that "
            "folder, or train from the beginning without --resume"
        )
    check_digest(path, tensors, metadata)
    try:
        epochs = [Epoch.from_json(tree) for tree in json.loads(metadata["epochs"])]
        learner.network.load_state_dict(_part(tensors, "network."))
        learner.optimization.restore(_part(tensors, "optimization."))
        learner.network.noise.state = tensors["noise"].numpy().view(np.uint64)
    except Exception as problem:  # torch raises errors of many types
        raise BundleError(f"{path}: corrupt ({problem})") from None
    return epochs


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
