"""What a token brings into the network: one file for each kind of input."""

from __future__ import annotations

from typing import Any

from nertool.config.schema import plugins
from nertool.model.inputs.base import Input
from nertool.model.inputs.case import Case
from nertool.model.inputs.characters import ConvolvedCharacters, RecurrentCharacters
from nertool.model.inputs.column import Column
from nertool.model.inputs.gazetteer import Gazetteer
from nertool.model.inputs.transformer import Transformer
from nertool.model.inputs.words import Words

BUILT_IN: tuple[type[Input], ...] = (
    Words,
    ConvolvedCharacters,
    RecurrentCharacters,
    Case,
    Column,
    Gazetteer,
    Transformer,
)


def input_class(entry: Any) -> type[Input]:
    """Return the class of an entry of the config's `inputs`.

    Args:
        entry: An instance of a config class, of this package or of one with the entry point `nertool.inputs`.
    """
    classes = BUILT_IN
    if type(entry) not in {each.Config for each in BUILT_IN}:
        classes = plugins("nertool.inputs")
    return next(each for each in classes if each.Config is type(entry))
