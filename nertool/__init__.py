"""nertool: named-entity tagging with BiLSTM-CNN-CRF (Ma & Hovy 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nertool.integrations.mapper import Mapper
    from nertool.tagging.tagger import Entity, Tagged, Tagger

__version__ = "0.1.0"
__all__ = ["Entity", "Mapper", "Tagged", "Tagger"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `nertool --help` should not wait for torch.
    if name in __all__:
        from nertool.integrations import mapper as mapping
        from nertool.tagging import tagger

        return getattr(mapping if name == "Mapper" else tagger, name)
    raise AttributeError(f"module 'nertool' has no attribute {name!r}")
