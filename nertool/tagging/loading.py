"""Loading a model of any kind: a run directory, or an exported file, here or on the hub."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from nertool.config.model_names import is_hub_name
from nertool.errors import BundleError, ConfigError
from nertool.forking import no_fork
from nertool.model.outline import Outline
from nertool.tagging.exported import is_exported, load_exported
from nertool.tagging.probing import try_out


def locate(name: str | Path) -> Path:
    """Return the path of a model; one of the hub, `hub:owner/name@revision`, is fetched if it is not in the cache.

    Warns:
        UserWarning: The hub cannot be reached, and what was fetched before is taken.

    Raises:
        NertoolError: It cannot be fetched; says why, and what to do.
    """
    if not is_hub_name(name):
        return Path(name)
    from nertool.data.hub import fetch_model

    copy = fetch_model(str(name))
    if copy.note:
        warnings.warn(copy.note, stacklevel=3)
    return copy.path


def load_model(path: Path, device: str = "cpu") -> Outline:
    """Read a model: a `Model` from a run directory, an `ExportedModel` from a file of `nertool export`.

    Args:
        path: Of the model.
        device: What it computes on, as for `nertool.model.devices.find_device`; an exported one has the CPU alone.

    Raises:
        BundleError: It is none, or a corrupt one.
        ConfigError: There is no such device.
    """
    if is_exported(path):
        if device not in ("cpu", "auto"):
            raise ConfigError(f"device: {path} is an exported model, which runs on the CPU; leave {device} out")
        model = load_exported(path)
        try_out(model, path)
        return model
    bundles = _bundles(path)
    where = None if device == "cpu" else _find_device(device)  # before the time that a model takes to load
    result: Outline = bundles.load_bundle(path) if where is None else bundles.load_bundle(path, where)
    return result


def _find_device(name: str) -> Any:
    from nertool.model.devices import find_device

    with no_fork():
        return find_device(name)


def fingerprint(path: Path) -> str | None:
    """Return a digest of a run directory's model without loading it; None for an exported one, which has its own.

    Raises:
        BundleError: There is no model.
    """
    if is_exported(path):
        return None
    result: str = _bundles(path).fingerprint(path)
    return result


def _bundles(path: Path) -> Any:
    """Return the module that reads run directories."""
    with no_fork():
        try:
            return import_module("nertool.tagging.bundle")
        except ImportError as problem:
            raise BundleError(
                f"{path}: a run directory needs torch ({problem}); install it, or name a file of `nertool export`"
            ) from None
