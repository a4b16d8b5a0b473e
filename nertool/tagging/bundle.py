"""A model on disk: a folder with `config.yaml`, `lexicon.json` and `weights.safetensors`; nothing executable.

Loading refuses whatever does not fit together, before the network is built. The weights carry the settings of
the network and digests of the lexicon and of themselves, so that a file that was changed or damaged is noticed
even where all shapes fit.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nertool.config.files import write_whole
from nertool.config.loading import dump_config, load_config
from nertool.config.schema import Config, ModelConfig
from nertool.data.batching import Forms
from nertool.data.vectors import Vectors
from nertool.data.vocabulary import Lexicon, initial_rows
from nertool.errors import BundleError, ConfigError
from nertool.model.crf import Constraints
from nertool.model.network import Network, Sizes
from nertool.tagging.tensorfile import check_digest, read_tensors, write_tensors
from nertool.text.schemes import Scheme, allowed_transitions

CONFIG, LEXICON, WEIGHTS = FILES = "config.yaml", "lexicon.json", "weights.safetensors"
_VERSION = "3"
_LARGEST_HEADER, _LARGEST_CONFIG = 2**20, 2**17  # bytes; both have some thousands
_MOST_LABELS = 2**15 - 1  # they are numbers of 16 bits


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
    metadata = {
        "nertool": _VERSION,
        "lexicon": hashlib.sha256(lexicon).hexdigest(),
        "model": json.dumps(model.config.model.model_dump(mode="json")),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BundleError(f"{folder}: the model cannot be saved: {problem.strerror}") from None
    _refuse_links(folder)
    write_whole(folder / CONFIG, dump_config(model.config).encode())
    write_whole(folder / LEXICON, lexicon)
    write_tensors(folder / WEIGHTS, model.network.state_dict(), metadata)


def load_bundle(folder: Path) -> Model:
    """Reads a model.

    Raises:
        BundleError: A file is missing or damaged, or the files do not belong together.
    """
    try:
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise BundleError(f"{folder} is not a model: {', '.join(missing)} is missing")
        _refuse_links(folder)
        if (folder / CONFIG).stat().st_size > _LARGEST_CONFIG:
            raise BundleError(f"{folder / CONFIG}: too large for a config ({_LARGEST_CONFIG:,} bytes at most)")
        # The weights come first, for they tell the version that wrote the other files.
        tensors, metadata = read_tensors(folder / WEIGHTS, ("nertool", _VERSION), _LARGEST_HEADER)
        config = load_config(folder / CONFIG)
        lexicon, fingerprint = _read_lexicon(folder / LEXICON)
    except ConfigError as problem:
        raise BundleError(str(problem)) from None
    except OSError as problem:
        raise BundleError(f"{folder}: cannot be read: {problem.strerror or problem}") from None
    if metadata.get("lexicon") != fingerprint:
        raise BundleError(f"{folder / WEIGHTS}: belongs to another {LEXICON}")
    _check_settings(folder, config.model, metadata.get("model", ""))
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
            expected = build_network(config, lexicon, words.shape[1]).state_dict()
    except (RuntimeError, ValueError) as problem:  # sizes beyond torch's range, labels of another scheme
        raise BundleError(f"{folder}: {CONFIG} and {LEXICON} describe no possible network: {problem}") from None
    # Values are looked at where shapes are right: until then the file may claim to be of any size.
    problems = _misfits(tensors, expected) or _impossible(tensors)
    if problems:
        raise BundleError(
            f"{folder / WEIGHTS} does not fit {CONFIG} and {LEXICON}: " + "; ".join(sorted(problems))
        )
    check_digest(folder / WEIGHTS, tensors, metadata)
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
            if isinstance(files.get(name), bytes):
                (Path(folder) / name).write_bytes(files[name])
        try:
            return load_bundle(Path(folder))
        except BundleError as problem:
            raise BundleError(str(problem).replace(folder, where)) from None


def _refuse_links(folder: Path) -> None:
    """A model from strangers shall not read, or be written over, files elsewhere."""
    for name in FILES:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder / name}: a link out of the folder; put a copy of the file in its place")


def _check_settings(folder: Path, found: ModelConfig, trained: str) -> None:
    """Compares the network's settings with those that it was trained with: shapes do not tell all of them."""
    try:
        wanted = ModelConfig.model_validate(json.loads(trained))
    except (ValueError, RecursionError):
        raise BundleError(f"{folder / WEIGHTS}: damaged (the settings of its network cannot be read)") from None
    pairs = zip(_flat(found.model_dump()), _flat(wanted.model_dump()), strict=True)
    changed = [f"{name}: {value}, trained with {other}" for (name, value), (_, other) in pairs if value != other]
    if changed:
        raise BundleError(f"{folder / WEIGHTS} does not fit {CONFIG}: " + "; ".join(changed))


def _flat(tree: Mapping[str, Any], prefix: str = "model") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value


def _misfits(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    problems = [f"{name}: missing" for name in expected.keys() - tensors.keys()]
    problems += [f"{name}: unexpected" for name in tensors.keys() - expected.keys()]
    for name in expected.keys() & tensors.keys():
        found, wanted = tensors[name], expected[name]
        if found.shape != wanted.shape:
            problems.append(f"{name}: shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        elif found.dtype != wanted.dtype:
            problems.append(f"{name}: type {found.dtype}, expected {wanted.dtype}")
    return problems


def _impossible(tensors: Mapping[str, Tensor]) -> list[str]:
    problems = [
        f"{name}: holds values that are not finite"
        for name, tensor in tensors.items()
        if not bool(torch.isfinite(tensor).all())
    ]
    temperature = tensors["decoder.temperature"]
    if temperature <= 0:
        problems.append(f"decoder.temperature: {float(temperature)}, expected more than 0")
    return problems


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
        if tree.keys() != {"scheme", "labels", "characters", "words"}:
            raise ValueError("it has keys that it should not have")
        if len(lists[2]) > _MOST_LABELS:
            raise ValueError(f"{len(lists[2])} labels; there may be {_MOST_LABELS}")
        if any(len(set(each)) != len(each) for each in lists) or not lists[2]:
            raise ValueError("an entry stands twice, or there are no labels")
        if not all(label.isprintable() and label for label in lists[2]):
            raise ValueError("a label is empty or not printable")
        lexicon = Lexicon(lists[0], lists[1], lists[2], Scheme(tree["scheme"]))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise BundleError(f"{path}: not a lexicon ({problem or 'wrong types'})") from None
    return lexicon, hashlib.sha256(content).hexdigest()
