"""Pretrained transformers as files: in a folder, or in the cache of the Hugging Face hub. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nertool.config.files import find_transformer, is_file, is_folder
from nertool.data.vector_cache import hash_file
from nertool.errors import ConfigError, NertoolError

CONFIG, TOKENIZER, WEIGHTS, INDEX = (
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
EXTRA = "pip install 'nertool[transformers]'"
_FILES = (CONFIG, TOKENIZER, "*.safetensors", INDEX)
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_LARGEST = 2**28  # bytes of a file of JSON
_LARGEST_NUMBER = 2**24  # in a config; a vocabulary has at most some hundred thousands
_MOST_LAYERS = 256
# What says how a model is run, names other files or code, or is for a task: none of it belongs to its network.
_LEFT_OUT = {
    *("architectures", "attn_implementation", "auto_map", "dtype", "torch_dtype", "quantization_config"),
    *("id2label", "label2id", "num_labels", "torchscript", "transformers_version", "task_specific_params"),
    *("gradient_checkpointing", "use_cache", "output_hidden_states", "output_attentions", "return_dict"),
}


@dataclass(frozen=True)
class Architecture:
    """What a transformer is, without its weights; goes into the files of a model.

    Attributes:
        config: Its settings, as the package transformers has them.
        layers: How many it has.
        size: Of a state.
        tokenizer: Its tokenizer, as the package tokenizers writes it.
        weights: SHA-256 of its files of weights.
        revision: The commit on the hub; None: it came from a folder.
    """

    config: dict[str, Any]
    layers: int
    size: int
    tokenizer: str
    weights: str
    revision: str | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, tree: Any) -> Architecture:
        """Invert `to_json`.

        Raises:
            ValueError, TypeError, LookupError: The tree is no such thing.
        """
        layers, size, tokenizer, weights, revision = (
            tree[key] for key in ("layers", "size", "tokenizer", "weights", "revision")
        )
        if not (isinstance(tokenizer, str) and isinstance(weights, str) and isinstance(revision, str | None)):
            raise ValueError("expected the tokenizer and the hash of a transformer")
        if (
            type(layers) is not int
            or type(size) is not int
            or not (0 < layers <= _MOST_LAYERS and 0 < size <= 2**16)
        ):
            raise ValueError("expected the sizes of a transformer")
        return cls(network_settings(tree["config"]), layers, size, tokenizer, weights, revision)


def network_settings(config: Any) -> dict[str, Any]:
    """Return those settings of a transformer that describe its network.

    Raises:
        ValueError: They describe none that is read here.
    """
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ValueError("its config names no model_type")
    if config.get("is_encoder_decoder"):
        raise ValueError(f"{config['model_type']} is an encoder with a decoder; encoders alone are read")
    kept = {key: value for key, value in config.items() if key not in _LEFT_OUT and not key.startswith("_")}
    for key, value in kept.items():
        if isinstance(value, int) and abs(value) > _LARGEST_NUMBER:
            raise ValueError(f"its config has {key} = {value}")
        if isinstance(value, int) and "layer" in key and abs(value) > _MOST_LAYERS:
            raise ValueError(f"its config has {key} = {value}; at most {_MOST_LAYERS} layers are read")
    return kept


@dataclass(frozen=True)
class Pretrained:
    """A transformer on disk.

    Attributes:
        name: As it is called in errors.
        folder: With its files.
        revision: The commit on the hub; None: it came from a folder.
        weights: The files of weights, in order.
    """

    name: str
    folder: Path
    revision: str | None
    weights: list[Path]

    def digest(self) -> str:
        """Compute the SHA-256 of the files of weights together."""
        digests = [hash_file(path) for path in self.weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def config(self) -> dict[str, Any]:
        """Read the settings of its network.

        Raises:
            ConfigError: They cannot be read, or describe no network that is read here.
        """
        try:
            return network_settings(json.loads(_read(self.folder / CONFIG)))
        except (OSError, ValueError, RecursionError) as problem:
            raise ConfigError(f"{self.name}: {CONFIG} cannot be read: {problem}") from None

    def tokenizer(self) -> str:
        """Read the content of the tokenizer's file.

        Raises:
            ConfigError: It cannot be read.
        """
        try:
            return _read(self.folder / TOKENIZER).decode()
        except (OSError, ValueError) as problem:
            raise ConfigError(f"{self.name}: {TOKENIZER} cannot be read: {problem}") from None


def open_pretrained(model: str, revision: str | None = None, *, download: bool = False) -> Pretrained:
    """Find a transformer: a folder, or else in the cache of the hub, or else on the hub.

    Args:
        model: A folder, or a name on the hub.
        revision: Of the hub: branch, tag or commit; None: the main branch.
        download: Whether the hub may be asked where the cache does not have it.

    Raises:
        ConfigError: It is not there, lacks a file, or has weights that only unpickling would read.
    """
    place = find_transformer(model)
    if is_folder(Path(place)):
        return Pretrained(model, Path(place), None, _weights(Path(place), model))
    folder = _cached(model, revision, download)
    return Pretrained(model, folder, folder.name, _weights(folder, model))


def _weights(folder: Path, name: str) -> list[Path]:
    """Return the files of weights, after a look for the others."""
    where = name if str(folder) == name else f"{name} ({folder})"
    pickled = next((each for each in _PICKLED if is_file(folder / each)), None)
    convert = f"from transformers import AutoModel; AutoModel.from_pretrained('{name}').save_pretrained('FOLDER')"
    if not is_file(folder / CONFIG):
        raise ConfigError(f"{where}: it has no {CONFIG}: it is not the folder of a transformer")
    if is_file(folder / WEIGHTS):
        files = [folder / WEIGHTS]
    elif is_file(folder / INDEX):
        try:
            parts = sorted(set(json.loads(_read(folder / INDEX))["weight_map"].values()))
            files = [folder / Path(part).name for part in parts]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
            raise ConfigError(f"{where}: {INDEX} cannot be read: {problem}") from None
    else:
        files = []
    missing = [file.name for file in files if not is_file(file)]
    if pickled is not None and not files:
        raise ConfigError(
            f"{where}: its weights are in {pickled}, which would have to be unpickled, and that can run any code. "
            f"If you trust it, write them as {WEIGHTS}, elsewhere and once: {convert}, and name that folder"
        )
    if missing or not files:
        raise ConfigError(f"{where}: it has no {' and no '.join(missing) or WEIGHTS}")
    if not is_file(folder / TOKENIZER):
        raise ConfigError(
            f"{where}: it has no {TOKENIZER}; this writes one: from transformers import AutoTokenizer; "
            f"AutoTokenizer.from_pretrained('{name}').save_pretrained('{folder}')"
        )
    return files


def _cached(name: str, revision: str | None, download: bool) -> Path:
    """Return the folder of a transformer in the cache of the hub."""
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError:
        raise ConfigError(f"{name}: names of the hub need the package huggingface_hub: {EXTRA}") from None
    wanted: Mapping[str, Any] = {"repo_id": name, "revision": revision, "allow_patterns": list(_FILES)}
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    try:
        folder = Path(snapshot_download(**wanted, local_files_only=True))
        if not download or is_file(folder / WEIGHTS) or is_file(folder / INDEX):
            return folder
    except Exception as problem:  # it has many types of errors
        if not download:
            raise ConfigError(
                f"there is neither a folder {name} nor a model of that name in the cache of the hub "
                f"({constants.HF_HUB_CACHE}); `{command}` gets it"
            ) from problem
    try:
        return Path(snapshot_download(**wanted))
    except Exception as problem:
        # Where the hub cannot be reached, the package looks into its cache, and what happened is the cause.
        missed = isinstance(problem, errors.LocalEntryNotFoundError)
        happened = (missed and problem.__cause__) or problem
        reason = " ".join(str(happened).split())[:300].rstrip(".")
        raise ConfigError(
            f"there is neither a folder {name} nor a model of that name in the cache of the hub "
            f"({constants.HF_HUB_CACHE}), and the hub does not give it: {reason}. Where there is a network, "
            f"`{command}` gets it; a folder may be copied, and named instead"
        ) from problem


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{path.name} is larger than {_LARGEST:,} bytes")
    return content


def check_digest(pretrained: Pretrained, wanted: str) -> None:
    """Refuse a transformer whose weights are others than those that a model was trained with.

    Raises:
        NertoolError: They are.
    """
    found = pretrained.digest()
    if found != wanted:
        raise NertoolError(
            f"the transformer {pretrained.name} ({pretrained.folder}) has other weights (SHA-256 {found[:12]}…) "
            f"than the one of the training ({wanted[:12]}…)"
        )
