"""Dropout (Srivastava et al. 2014) whose masks cost less than the layers that they mask."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nertool.model.batch import to_tensor


class Noise:
    """The random bits of training: one seeded stream that all dropout layers of a network draw from.

    Torch draws dropout masks one Bernoulli variable at a time, which costs a third of a training step on a CPU.
    Comparing 16 random bits with a threshold is several times faster and as good. The bits are drawn on the host
    and moved to the device, so that a seed gives the same masks on every device.

    Args:
        seed: Of the stream.
    """

    def __init__(self, seed: int) -> None:
        self.generator = np.random.Generator(np.random.SFC64(seed))

    @property
    def state(self) -> NDArray[np.uint64]:
        """The position in the stream, (4,); set it to continue from there."""
        state: NDArray[np.uint64] = self.generator.bit_generator.state["state"]["state"]
        return state

    @state.setter
    def state(self, value: NDArray[np.uint64]) -> None:
        # Only whole words are drawn, so the generator never keeps half of one.
        whole = self.generator.bit_generator.state
        self.generator.bit_generator.state = {**whole, "state": {"state": value}}

    def branch(self, number: int) -> None:
        """Go on in a stream of its own, one for each number."""
        self.state = np.random.SFC64([*self.state.tolist(), number]).state["state"]["state"]

    def keep(self, shape: Sequence[int], probability: float, device: torch.device | str = "cpu") -> Tensor:
        """Return a boolean tensor whose elements are True with this probability (to 1/65536)."""
        size = math.prod(shape)
        # Whole words are drawn, which is fastest, and cut into four.
        bits = self.generator.integers(0, 2**64, -(-size // 4), dtype=np.uint64).view(np.uint16)[:size]
        return to_tensor((bits < round(probability * 65536)).reshape(shape), device)


class Dropout(nn.Module):
    """Sets elements to 0 with a probability during training, and scales the others to keep the mean.

    Args:
        probability: Of an element to be set to 0.
        noise: Where the random bits come from.
        locked: Whether all elements along the first dimension, which is time, share one mask: variational
            dropout (Gal & Ghahramani 2016).
    """

    def __init__(self, probability: float, noise: Noise, *, locked: bool = False) -> None:
        super().__init__()
        self.probability = probability
        self.noise = noise
        self.locked = locked

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements of values of any shape."""
        if not self.training or self.probability == 0.0:
            return values
        shape = (1, *values.shape[1:]) if self.locked else values.shape
        kept = self.noise.keep(shape, 1.0 - self.probability, values.device)
        return values * (kept * (1.0 / (1.0 - self.probability)))
