"""Loading a model of any kind: a run directory, or an exported file."""

from __future__ import annotations

from pathlib import Path

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
    with no_fork():
        try:
            from nertool.tagging.bundle import load_bundle
        except ImportError as problem:
            raise BundleError(
                f"{path}: a run directory needs torch ({problem}); install it, or name a file of `nertool export`"
            ) from None
    return load_bundle(path)
