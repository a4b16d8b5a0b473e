"""A model on disk: a folder with `config.yaml`, `vocabulary.json` and `weights.safetensors`; nothing executable.

Loading refuses whatever does not fit together, before the network is built. The weights carry the settings of the
network and digests of the vocabulary and of themselves, so that a changed or corrupt file is detected even where
all shapes fit.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

from nertool.config.files import MODEL_FILES, refuse_links, write_whole
from nertool.config.loading import LARGEST, dump_config, load_config
from nertool.config.schema import CHOICES, Config, kinds_of
from nertool.errors import BundleError, ConfigError, NertoolError
from nertool.model.building import refuse_huge
from nertool.model.concurrency import fork_safe, threads
from nertool.model.model import Model, build_network
from nertool.tagging.probing import try_out
from nertool.tagging.tensorfile import DIGEST, check_digest, digest, read_tensors, read_texts, write_tensors
from nertool.tagging.vocabulary import LARGEST_VOCABULARY, parse_vocabulary, restore_inputs, vocabulary_bytes

CONFIG, VOCABULARY, WEIGHTS = FILES = MODEL_FILES
_VERSION = "4"
_LARGEST_HEADER, _LARGEST_CONFIG = 2**20, 8 * LARGEST  # bytes; both have some thousands
_TEMPERATURES = 0.01, 100.0  # calibration finds 0.13 to 7.4
_FILE_SETTINGS = {"vectors", "files"}  # their folders do not matter: an input's vocabulary holds what came of them


@fork_safe
def save_bundle(model: Model, folder: Path) -> None:
    """Write a model; each file appears under its name when it is whole, unless it is there already.

    Raises:
        BundleError: The folder cannot be written to.
    """
    vocabulary = vocabulary_bytes(model)
    metadata = {
        "nertool": _VERSION,
        "vocabulary": hashlib.sha256(vocabulary).hexdigest(),
        "settings": json.dumps(_settings(model.config)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BundleError(f"{folder}: the model cannot be saved: {problem.strerror}") from None
    _refuse_links(folder)
    for name, content in ((CONFIG, dump_config(model.config).encode()), (VOCABULARY, vocabulary)):
        if not _holds(folder / name, content):  # in a training they stay the same from epoch to epoch
            write_whole(folder / name, content)
    write_tensors(folder / WEIGHTS, model.network.state_dict(), metadata)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


@fork_safe
def load_bundle(folder: Path, device: torch.device | None = None) -> Model:
    """Read a model, in evaluation mode.

    Args:
        folder: The run directory.
        device: What it is to compute on; None: the CPU.

    Raises:
        BundleError: A file is missing or corrupt, or the files do not belong together.
    """
    # One thread, because the threads of torch do not survive a fork, and a fork may lie behind this process.
    with threads(1):
        model = _load(folder)
        if device is not None:
            model.network.to(device)
        return model


def _load(folder: Path) -> Model:
    try:
        _check_files(folder)
        # The weights come first, because they name the version that wrote the other files.
        tensors, metadata = read_tensors(folder / WEIGHTS, ("nertool", _VERSION), _LARGEST_HEADER)
        trained = _trained_settings(folder, metadata.get("settings", ""))
        config = load_config(folder / CONFIG)
        content = (folder / VOCABULARY).read_bytes()
        vocabulary = parse_vocabulary(content, folder / VOCABULARY)
    except ConfigError as problem:
        raise BundleError(str(problem)) from None
    except OSError as problem:
        raise BundleError(f"{folder}: cannot be read: {problem.strerror or problem}") from None
    if metadata.get("vocabulary") != hashlib.sha256(content).hexdigest():
        raise BundleError(f"{folder / WEIGHTS}: belongs to another {VOCABULARY}")
    _compare_settings(folder, config, trained)
    inputs = restore_inputs(folder / VOCABULARY, config, vocabulary.inputs)
    labels, scheme = vocabulary.labels, vocabulary.scheme
    # Checked before anything grows with the square of their number.
    scores = tensors.get("scores.weight")
    if scores is None:
        raise BundleError(f"{folder / WEIGHTS}: 'scores.weight' is missing")
    if scores.shape[:1] != (len(labels),):
        raise BundleError(f"{folder}: {len(labels)} labels, but scores.weight has shape {tuple(scores.shape)}")
    # The skeleton has shapes but no memory: absurd sizes are refused before they are built.
    try:
        with torch.device("meta"):
            expected = build_network(config, labels, scheme, inputs).state_dict()
        refuse_huge(expected.values())
    # Sizes beyond torch's range, or labels of another scheme.
    except (RuntimeError, ValueError, TypeError, LookupError, MemoryError) as problem:
        raise BundleError(f"{folder}: {CONFIG} and {VOCABULARY} describe no possible network: {problem}") from None
    # Values are looked at where shapes are right: until then the file may claim any size.
    problems = _misfits(tensors, expected) or _impossible(tensors)
    if problems:
        raise BundleError(
            f"{folder / WEIGHTS} does not fit {CONFIG} and {VOCABULARY}: " + "; ".join(sorted(problems))
        )
    check_digest(folder / WEIGHTS, tensors, metadata)
    network = build_network(config, labels, scheme, inputs)
    network.load_state_dict(tensors)
    for name, each in inputs.items():
        try:
            each.outside_weights(network.input(name))
        except NertoolError as problem:
            raise BundleError(f"{folder}: inputs.{name}: {problem}") from None
    network.eval()
    model = Model(config, labels, scheme, inputs, network)
    try_out(model, folder / WEIGHTS)
    return model


def fingerprint(folder: Path) -> str:
    """Return a digest that changes when a file of a model does; quick, because weights carry their own digest.

    Raises:
        BundleError: The folder holds no model.
    """
    try:
        _check_files(folder)
        result = hashlib.sha256(read_texts(folder / WEIGHTS, _LARGEST_HEADER).get(DIGEST, "").encode())
        for name in (CONFIG, VOCABULARY):
            result.update(hashlib.sha256((folder / name).read_bytes()).digest())
    except OSError as problem:
        raise BundleError(f"{folder}: cannot be read: {problem.strerror or problem}") from None
    return result.hexdigest()


def training_digest(path: Path) -> str:
    """Return the digest that weights had in training, before the temperature was set.

    Args:
        path: The file of the weights, of any name.

    Raises:
        BundleError: It is corrupt, or there is none.
    """
    tensors, metadata = read_tensors(path, ("nertool", _VERSION), _LARGEST_HEADER)
    untempered = {name: torch.ones_like(value) for name, value in tensors.items() if name == "decoder.temperature"}
    return digest({**tensors, **untempered}, metadata)


def pack(model: Model) -> dict[str, bytes]:
    """Return a model as bytes: the content of each file that `save_bundle` writes."""
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(model, Path(folder))
        return {name: (Path(folder) / name).read_bytes() for name in FILES}


def unpack(files: Mapping[str, bytes], where: str) -> Model:
    """Make the model that `pack` packed.

    Args:
        files: The content of each file.
        where: What errors call the place that the files came from.

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


def _check_files(folder: Path) -> None:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        old = " (a model of an older version: retrain it)" if (folder / "lexicon.json").is_file() else ""
        raise BundleError(f"{folder} is not a model: {', '.join(missing)} is missing{old}")
    _refuse_links(folder)
    for name, what, most in (
        (CONFIG, "a config", _LARGEST_CONFIG),
        (VOCABULARY, "a vocabulary", LARGEST_VOCABULARY),
    ):
        if (folder / name).stat().st_size > most:
            raise BundleError(f"{folder / name}: too large for {what} ({most:,} bytes at most)")


def _refuse_links(folder: Path) -> None:
    """Keep a model from strangers from reading files elsewhere, or being written over them."""
    try:
        refuse_links(folder, FILES)
    except NertoolError as problem:
        raise BundleError(str(problem)) from None


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that decide what the network computes."""
    tree: dict[str, Any] = config.model_dump(mode="json", include={"inputs", "model"})
    for key, entry in tree["inputs"].items():
        for name in _FILE_SETTINGS & entry.keys():
            entry[name] = [PurePath(file).name for file in entry[name]]
        entry.update(dict.fromkeys(config.inputs[key].places, "-"))
    return tree


def _trained_settings(folder: Path, text: str) -> dict[str, Any]:
    corrupt = BundleError(f"{folder / WEIGHTS}: corrupt (the settings of its network cannot be read)")
    try:
        tree = json.loads(text)
        kinds = [("inputs", "inputs.*", f"inputs.{name}", entry["kind"]) for name, entry in tree["inputs"].items()]
        kinds.append(("encoders", "model.encoder", "model.encoder", tree["model"]["encoder"]["kind"]))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise corrupt from None
    for group, choice, place, kind in kinds:
        if kind not in kinds_of(CHOICES[choice].built_in) and kind not in kinds_of(CHOICES[choice].classes):
            raise BundleError(
                f"{folder}: {place} is of kind {kind!r}, which is not installed; install the package that "
                f"provides it (entry point group nertool.{group})"
            )
    # Read as a config, so that settings that a later version added have their defaults.
    try:
        return _settings(Config.model_validate({"corpus": {"train": "-"}, **tree}))
    except (ValueError, RecursionError, ConfigError):
        raise corrupt from None


def _compare_settings(folder: Path, config: Config, trained: dict[str, Any]) -> None:
    """Compare the settings with those that the network was trained with: shapes do not show all of them."""
    found, wanted = dict(_flat(_settings(config))), dict(_flat(trained))
    changed = [
        f"{name}: {found.get(name)}, trained with {wanted.get(name)}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if changed:
        raise BundleError(f"{folder / WEIGHTS} does not fit {CONFIG}: " + "; ".join(changed))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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
    temperature, (low, high) = float(tensors["decoder.temperature"]), _TEMPERATURES
    if not low <= temperature <= high:
        problems.append(f"decoder.temperature: {temperature}, expected {low} to {high:g}")
    return problems
