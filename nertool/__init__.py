"""nertool: named-entity tagging with BiLSTM-CNN-CRF (Ma & Hovy 2016).

The public API; `nertool.api` describes it on one page.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nertool.forking import no_fork

if TYPE_CHECKING:
    from nertool.api import Look, Result, evaluate, look, read, read_corpus, train
    from nertool.config.schema import Config
    from nertool.errors import NertoolError
    from nertool.integrations.mapper import Mapper
    from nertool.tagging.tagger import Tagger
    from nertool.text.document import Document, Entity

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Document",
    "Entity",
    "Look",
    "Mapper",
    "NertoolError",
    "Result",
    "Tagger",
    "evaluate",
    "look",
    "read",
    "read_corpus",
    "train",
]

# Imported when they are asked for: `nertool --help` should not wait for torch.
_MODULES = {
    "Config": "nertool.config.schema",
    "Document": "nertool.text.document",
    "Entity": "nertool.text.document",
    "Mapper": "nertool.integrations.mapper",
    "NertoolError": "nertool.errors",
    "Tagger": "nertool.tagging.tagger",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        with no_fork():
            return getattr(import_module(_MODULES.get(name, "nertool.api")), name)
    raise AttributeError(f"module 'nertool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
