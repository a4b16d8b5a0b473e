"""The contract of the network side of an input: from features to vectors.

The data side is `nertool.model.inputs`, which needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OwnRate:
    """Weights that were trained before, and go on with a learning rate of their own, by AdamW.

    Attributes:
        parameters: The weights.
        learning_rate: Where the schedule of the training starts from.
        warmup: Steps in which it rises from 0.
    """

    parameters: list[nn.Parameter]
    learning_rate: float
    warmup: int


class InputModule(nn.Module):
    """The network side of an input: from features to vectors.

    Attributes:
        output_size: Size of a vector.
    """

    output_size: int

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the first weights from a generator of the CPU, and from no global state; on the CPU."""
        raise NotImplementedError

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Return parameters whose gradients are sparse over their rows, so that a step touches few rows."""
        return []

    def own_rate(self) -> OwnRate | None:
        """Return the weights that do not learn with the rate of the others; None: there are none."""
        return None

    def forward(self, *features: Tensor) -> Tensor:
        """Compute vectors.

        Args:
            features: Of context-free inputs what `Table.select` gives for forms, (forms, ...); of others what
                `Table.batch` gives for tokens, (time, batch, ...).

        Returns:
            (forms, output_size) or (time, batch, output_size).
        """
        raise NotImplementedError

    def spread(self, vectors: Tensor, forms: Tensor) -> Tensor:
        """Give each token the vector of its form; where dropout depends on the token, it happens here.

        Args:
            vectors: What `forward` returned, (forms, output_size).
            forms: The form of each token, (time, batch).

        Returns:
            (time, batch, output_size).
        """
        return nn.functional.embedding(forms, vectors)


class VectorTable(InputModule):
    """A table of vectors, one for each of a few values; its gradient is dense.

    Args:
        rows: Number of values.
        dimensions: Size of a vector.
    """

    def __init__(self, rows: int, dimensions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, dimensions))
        self.output_size = dimensions

    def initialize(self, generator: torch.Generator) -> None:
        """Draw every row from a range set by its size (Ma & Hovy 2016, section 3.1)."""
        bound = math.sqrt(3 / self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
