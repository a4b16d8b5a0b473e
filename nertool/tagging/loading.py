"""Loading a model of any kind: a run directory, or an exported file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from nertool.errors import BundleError
from nertool.forking import no_fork
from nertool.model.outline import Outline
from nertool.tagging.exported import is_exported, load_exported
from nertool.tagging.probing import try_out


def load_model(path: Path) -> Outline:
    """Read a model: a `Model` from a run directory, an `ExportedModel` from a file of `nertool export`.

    Raises:
        BundleError: It is none, or a corrupt one.
    """
    if is_exported(path):
        model = load_exported(path)
        try_out(model, path)
        return model
    result: Outline = _bundles(path).load_bundle(path)
    return result


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
