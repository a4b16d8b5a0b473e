"""What a token brings into the network: one file for each kind of input."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from nertool.model.inputs.base import Input
from nertool.model.inputs.case import Case
from nertool.model.inputs.characters import ConvolvedCharacters, RecurrentCharacters
from nertool.model.inputs.column import Column
from nertool.model.inputs.gazetteer import Gazetteer
from nertool.model.inputs.words import Words

BUILT_IN: tuple[type[Input], ...] = (Words, ConvolvedCharacters, RecurrentCharacters, Case, Column, Gazetteer)


def input_class(entry: Any) -> type[Input]:
    """Return the class of an entry of the config's `inputs`.

    Args:
        entry: An instance of a config class, of this package or of one with the entry point `nertool.inputs`.
    """
    others = (point.load() for point in entry_points(group="nertool.inputs"))
    classes: list[type[Input]] = [*BUILT_IN, *others]
    return next(each for each in classes if type(entry) is each.Config)
