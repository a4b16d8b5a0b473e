"""`Outline`: all of a model but its weights."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from nertool.config.schema import Config
from nertool.data.encoding import Forms
from nertool.model.inputs.base import Input
from nertool.text.schemes import OUTSIDE, Scheme, split_label

MOST_LABELS = 2**15 - 1  # they are numbers of 16 bits


@dataclass
class Outline:
    """What it takes to use a network, besides the network.

    Attributes:
        config: Of the run.
        labels: In the order of the network's outputs.
        scheme: Of the labels.
        inputs: What each token brings in, by name.
    """

    config: Config
    labels: list[str]
    scheme: Scheme
    inputs: dict[str, Input]

    @property
    def context_free(self) -> list[str]:
        """Names of the inputs that depend on the form of a token alone."""
        return [name for name, each in self.inputs.items() if each.context_free]

    @property
    def contextual(self) -> list[str]:
        """Names of the other inputs."""
        return [name for name, each in self.inputs.items() if not each.context_free]

    @property
    def label_numbers(self) -> dict[str, int]:
        """The number of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    def label_codes(self, unannotated: Collection[str] = ()) -> tuple[dict[str, int], np.ndarray | None]:
        """Return the number of each label, and sets of labels, as `EncodedCorpus` takes them.

        Args:
            unannotated: Types of entities that the data does not annotate: where it has O, a token may be one.
        """
        if not unannotated:
            return self.label_numbers, None
        allowed = [label == OUTSIDE or split_label(label)[1] in unannotated for label in self.labels]
        return {**self.label_numbers, OUTSIDE: -2}, np.array([allowed])

    def new_forms(self) -> Forms:
        """Return an empty register of forms, encoded as the network wants them."""
        return Forms(self.inputs)
