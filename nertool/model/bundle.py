"""A model on disk: a folder with `config.yaml`, `lexicon.json` and `weights.safetensors`; nothing executable.

Loading refuses whatever does not fit together, before the network is built.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from nertool.config import Config
from nertool.configfile import dump_config, load_config
from nertool.data.batching import Forms
from nertool.data.lexicon import Lexicon, initial_rows
from nertool.data.schemes import Scheme, allowed_transitions
from nertool.data.vectors import Vectors
from nertool.errors import BundleError, ConfigError, NertoolError
from nertool.files import replaced_when_done, write_whole
from nertool.model.crf import Constraints
from nertool.model.network import Network, Sizes

CONFIG, LEXICON, WEIGHTS = FILES = "config.yaml", "lexicon.json", "weights.safetensors"
_VERSION = "2"


@dataclass
class Model:
    """A network with all that it takes to use it."""

    config: Config
    lexicon: Lexicon
    network: Network

    def new_forms(self) -> Forms:
        """An empty register of forms, spelled as the network wants them."""
        characters = self.config.model.characters
        if characters.kind == "cnn":
            return Forms(self.lexicon, characters.width, characters.maximum)
        return Forms(self.lexicon, 1, characters.maximum, distinct=False)


def build_network(config: Config, lexicon: Lexicon, dimensions: int) -> Network:
    """A network for these vocabularies with fresh weights; its word table is not filled.

    Args:
        config: Of the run.
        lexicon: The vocabularies.
        dimensions: Size of a word vector.
    """
    network = Network(
        Sizes(lexicon.row_count, dimensions, lexicon.kind_count, len(lexicon.labels)),
        config.model,
        Constraints(*allowed_transitions(lexicon.labels, lexicon.scheme)),
        word_dropout=config.words.dropout,
        train_words=config.words.trainable,
        seed=config.training.seed,
    )
    return network


def fresh_model(config: Config, lexicon: Lexicon, vectors: Sequence[Vectors] = ()) -> Model:
    """A model before training: weights drawn by the config's seed, pretrained vectors in the word table."""
    dimensions = sum(each.dimensions for each in vectors) or config.words.dimensions
    network = build_network(config, lexicon, dimensions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        network.words.reset_parameters()
    if vectors:
        table = initial_rows(lexicon, vectors, network.words.weight.detach().numpy())
        network.words.weight.data.copy_(torch.from_numpy(table))
    return Model(config, lexicon, network)


def save_bundle(model: Model, folder: Path) -> None:
    """Writes a model; each file is written beside its place and then moved there.

    Raises:
        BundleError: The folder cannot be written to.
    """
    lexicon = _lexicon_bytes(model.lexicon)
    metadata = {"nertool": _VERSION, "lexicon": hashlib.sha256(lexicon).hexdigest()}
    tensors = {name: tensor.detach().clone() for name, tensor in model.network.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BundleError(f"{folder}: the model cannot be saved: {problem.strerror}") from None
    write_whole(folder / CONFIG, dump_config(model.config).encode())
    write_whole(folder / LEXICON, lexicon)
    _write_weights(folder / WEIGHTS, tensors, metadata)


def load_bundle(folder: Path) -> Model:
    """Reads a model.

    Raises:
        BundleError: A file is missing or damaged, or the files do not belong together.
    """
    try:
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise BundleError(f"{folder} is not a model: {', '.join(missing)} is missing")
        # The weights come first, for they tell the version that wrote the other files.
        tensors, fingerprint = _read_weights(folder / WEIGHTS)
        config = load_config(folder / CONFIG)
        lexicon, found_fingerprint = _read_lexicon(folder / LEXICON)
    except ConfigError as problem:
        raise BundleError(str(problem)) from None
    except OSError as problem:
        raise BundleError(f"{folder}: cannot be read: {problem.strerror or problem}") from None
    if found_fingerprint != fingerprint:
        raise BundleError(f"{folder / WEIGHTS}: belongs to another {LEXICON}")
    words, transitions = tensors.get("words.weight"), tensors.get("decoder.transitions")
    if words is None or words.dim() != 2 or transitions is None:
        raise BundleError(f"{folder / WEIGHTS}: 'words.weight' or 'decoder.transitions' is missing")
    # Checked before anything grows with the square of their number.
    if transitions.shape != (len(lexicon.labels), len(lexicon.labels)):
        raise BundleError(
            f"{folder}: {len(lexicon.labels)} labels, but decoder.transitions has shape {tuple(transitions.shape)}"
        )
    # The skeleton has shapes but no memory: absurd sizes are refused before they are built.
    try:
        with torch.device("meta"):
            expected = _shapes(config, lexicon, words.shape[1])
    except (RuntimeError, ValueError) as problem:  # sizes beyond torch's range, labels of another scheme
        raise BundleError(f"{folder}: {CONFIG} and {LEXICON} describe no possible network: {problem}") from None
    problems = [f"{name}: missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{name}: unexpected" for name in tensors.keys() - expected.keys()]
    for name in sorted(expected.keys() & tensors.keys()):
        found, wanted = tensors[name], expected[name]
        if found.shape != wanted.shape:
            problems.append(f"{name}: shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        elif found.dtype != wanted.dtype:
            problems.append(f"{name}: type {found.dtype}, expected {wanted.dtype}")
        elif not bool(torch.isfinite(found).all()):
            problems.append(f"{name}: holds values that are not finite")
        elif name == "decoder.temperature" and not found > 0:
            problems.append(f"{name}: {float(found)}, expected more than 0")
    if problems:
        raise BundleError(
            f"{folder / WEIGHTS} does not fit {CONFIG} and {LEXICON}: " + "; ".join(sorted(problems))
        )
    network = build_network(config, lexicon, words.shape[1])
    network.load_state_dict(tensors)
    network.eval()
    return Model(config, lexicon, network)


def pack(model: Model) -> dict[str, bytes]:
    """A model as bytes: the content of each file that `save_bundle` writes."""
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(model, Path(folder))
        return {name: (Path(folder) / name).read_bytes() for name in FILES}


def unpack(files: Mapping[str, bytes], where: str) -> Model:
    """The model in what `pack` gave.

    Args:
        files: The content of each file.
        where: What errors call the place that they are from.

    Raises:
        BundleError: As for `load_bundle`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            if name in files:
                (Path(folder) / name).write_bytes(files[name])
        try:
            return load_bundle(Path(folder))
        except BundleError as problem:
            raise BundleError(str(problem).replace(folder, where)) from None


def _shapes(config: Config, lexicon: Lexicon, dimensions: int) -> dict[str, torch.Tensor]:
    return dict(build_network(config, lexicon, dimensions).state_dict())


def _lexicon_bytes(lexicon: Lexicon) -> bytes:
    tree = {
        "scheme": lexicon.scheme.value,
        "labels": lexicon.labels,
        "characters": lexicon.characters,
        "words": lexicon.words,
    }
    # Escaped, so that lone surrogates and odd separators in tokens survive.
    return (json.dumps(tree, indent=0) + "\n").encode("ascii")


def _read_lexicon(path: Path) -> tuple[Lexicon, str]:
    content = path.read_bytes()
    try:
        tree: Any = json.loads(content)
        lists = [tree[key] for key in ("words", "characters", "labels")]
        if not all(isinstance(each, list) and all(isinstance(entry, str) for entry in each) for each in lists):
            raise TypeError
        if any(len(set(each)) != len(each) for each in lists) or not lists[2]:
            raise ValueError("an entry stands twice, or there are no labels")
        if not all(label.isprintable() and label for label in lists[2]):
            raise ValueError("a label is empty or not printable")
        lexicon = Lexicon(lists[0], lists[1], lists[2], Scheme(tree["scheme"]))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise BundleError(f"{path}: not a lexicon ({problem or 'wrong types'})") from None
    return lexicon, hashlib.sha256(content).hexdigest()


def _write_weights(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    content = safetensors.torch.save(tensors, metadata)
    # safetensors puts the metadata in another order each time; equal models shall make equal files.
    size = int.from_bytes(content[:8], "little")
    header = {**json.loads(content[8 : 8 + size]), "__metadata__": metadata}
    with replaced_when_done(path) as target:
        target.write(content[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(size))
        target.write(memoryview(content)[8 + size :])


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("nertool") != _VERSION:
                raise BundleError(
                    f"{path}: written by another version of nertool (format {metadata.get('nertool')}, "
                    f"this one reads {_VERSION})"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, str(metadata.get("lexicon"))
    except NertoolError:
        raise
    except Exception as problem:  # safetensors raises its own error type and those of the system
        raise BundleError(f"{path}: damaged ({problem})") from None
