"""Where a training stands between two epochs, in one file: enough to go on to the same bits.

An epoch depends on the weights, the state of the update rules and the averages, the random stream of dropout,
and the number of the epoch (its batches are drawn from seed and number alone). All of that is in the file,
which is replaced as a whole: whenever a training is stopped, the last epoch boundary is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nertool.config.schema import Config
from nertool.data.batching import EncodedCorpus
from nertool.errors import BundleError
from nertool.model.network import Network
from nertool.tagging.tensorfile import check_digest, read_tensors, write_tensors
from nertool.training.optimization import Optimization
from nertool.training.trainer import Epoch

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "2"
_LARGEST_HEADER = 2**26  # bytes: the records of all epochs are in it, about a thousand each


def fingerprint(config: Config, corpus: EncodedCorpus) -> str:
    """Tells trainings apart: a digest of all settings and of the encoded training split."""
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode())
    for array in (corpus.lengths, corpus.tokens, corpus.labels, corpus.tables.rows, corpus.tables.windows):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_checkpoint(
    folder: Path, network: Network, optimization: Optimization, epochs: Sequence[Epoch], identity: str
) -> None:
    """Writes where a training stands after an epoch.

    Args:
        folder: The run directory.
        network: With the weights that training goes on from (not their averages).
        optimization: Of the network.
        epochs: Those so far.
        identity: The training's fingerprint.

    Raises:
        NertoolError: It cannot be written; the checkpoint before it is still there.
    """
    tensors = {f"network.{name}": value.detach() for name, value in network.state_dict().items()}
    tensors |= {f"optimization.{name}": value.detach() for name, value in optimization.state().items()}
    tensors["noise"] = torch.from_numpy(network.noise.state.view(np.int64).copy())
    metadata = {
        "nertool-checkpoint": _FORMAT,
        "identity": identity,
        "epochs": json.dumps([epoch.to_json() for epoch in epochs]),
    }
    write_tensors(folder / CHECKPOINT, tensors, metadata)


def load_checkpoint(folder: Path, network: Network, optimization: Optimization, identity: str) -> list[Epoch]:
    """Puts a training where it stood; returns the epochs so far.

    Args:
        folder: The run directory.
        network: As built at the beginning of the training.
        optimization: Of the network, new.
        identity: The training's fingerprint.

    Raises:
        BundleError: The checkpoint is damaged, or of another training.
    """
    path = folder / CHECKPOINT
    tensors, metadata = read_tensors(path, ("nertool-checkpoint", _FORMAT), _LARGEST_HEADER)
    if metadata.get("identity") != identity:
        raise BundleError(
            f"{path}: is of a training with other settings or another corpus; "
            "resume with the config in that folder, or train anew without --resume"
        )
    check_digest(path, tensors, metadata)
    try:
        epochs = [Epoch.from_json(tree) for tree in json.loads(metadata["epochs"])]
        network.load_state_dict(_part(tensors, "network."))
        optimization.restore(_part(tensors, "optimization."))
        network.noise.state = tensors["noise"].numpy().view(np.uint64)
    except Exception as problem:  # torch raises errors of many kinds
        raise BundleError(f"{path}: damaged ({problem})") from None
    return epochs


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
