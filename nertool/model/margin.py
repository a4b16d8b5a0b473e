"""Softmax-margin (Gimpel & Smith 2010): a loss in which some errors cost more than others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Margin:
    """The cost of missing entities.

    With the cost c(y) of a label sequence y beside the right one y*, the loss of a sentence is
    log sum_y exp(score(y) + c(y)) - score(y*). The cost is a sum over tokens, so that it is added to emissions,
    and the loss and its gradient stay exact.

    Attributes:
        outside: Index of the label O.
        missed: Cost of O at a token of an entity.
    """

    outside: int
    missed: float

    def add(self, emissions: Tensor, labels: Tensor, sets: Tensor | None = None) -> Tensor:
        """Add the cost to the emissions of a labelled batch, for its loss alone.

        Args:
            emissions: Scores of the labels, (time, batch, labels).
            labels: The right labels, (time, batch), as for `nertool.model.crf.Decoder.loss`. A token whose label
                is unknown, or may be O, has no cost.
            sets: Sets of labels, boolean (sets, labels).

        Returns:
            (time, batch, labels); what it holds in padding does not matter, as before.
        """
        entity = (labels >= 0) & (labels != self.outside)
        if sets is not None:
            entity |= (labels <= -2) & ~sets[:, self.outside][(-2 - labels).clamp(min=0)]
        costs = torch.zeros(emissions.shape[-1], dtype=emissions.dtype, device=emissions.device)
        costs[self.outside] = self.missed
        return emissions + entity.unsqueeze(-1) * costs
