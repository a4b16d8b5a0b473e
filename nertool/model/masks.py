"""Masks over time-major batches: boolean (time, batch), True for the tokens of a sentence, then False."""

from __future__ import annotations

import torch
from torch import Tensor


def reversal(mask: Tensor) -> Tensor:
    """Time indices that reverse each sentence in place and leave its padding where it is, (time, batch)."""
    lengths = mask.sum(0)
    steps = torch.arange(mask.shape[0]).unsqueeze(1)
    return torch.where(mask, lengths - 1 - steps, steps)
