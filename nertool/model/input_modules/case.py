"""A vector for each way of using capital letters."""

from __future__ import annotations

from torch import Tensor, nn

from nertool.model.input_modules.base import VectorTable


class CaseVectors(VectorTable):
    """A vector for each way of using capitals."""

    def forward(self, *features: Tensor) -> Tensor:
        """Look up vectors (forms, dimensions) of ways (forms,)."""
        return nn.functional.embedding(features[0], self.weight)
