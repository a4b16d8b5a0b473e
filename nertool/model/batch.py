"""Batches of tensors: the one place where arrays of numpy become tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nertool.data.encoding import Arrays


def to_tensor(array: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Move an array to a device; on the CPU the tensor shares its memory."""
    return torch.from_numpy(array).to(device)


def features_to(
    features: Mapping[str, tuple[np.ndarray, ...]], device: torch.device | str
) -> dict[str, tuple[Tensor, ...]]:
    """Move the features of inputs to a device."""
    return {name: tuple(to_tensor(each, device) for each in values) for name, values in features.items()}


@dataclass(frozen=True)
class Layout:
    """Which positions of a batch are tokens. Masks are prefixes: True for the tokens of a sentence, then False.

    Whether there is padding at all is known here, so that no module asks a tensor for it: that would wait for the
    device, and stop `torch.export`.

    Attributes:
        mask: Boolean (time, batch).
        order: Time indices that reverse each sentence within its own length, (time, batch); None without padding.
        lengths: Tokens of each sentence, (batch,).
    """

    mask: Tensor
    order: Tensor | None
    lengths: Tensor

    @property
    def ragged(self) -> bool:
        """Whether there is padding."""
        return self.order is not None

    @classmethod
    def of(cls, lengths: np.ndarray, device: torch.device | str = "cpu") -> Layout:
        """Lay out sentences of these lengths, (batch,)."""
        longest = int(lengths.max())
        steps = np.arange(longest)[:, None]
        mask = steps < lengths
        order = None if int(lengths.min()) == longest else np.where(mask, lengths - 1 - steps, steps)
        return cls(
            to_tensor(mask, device),
            None if order is None else to_tensor(order, device),
            to_tensor(np.asarray(lengths, dtype=np.int64), device),
        )

    @classmethod
    def of_mask(cls, mask: Tensor) -> Layout:
        """Lay out sentences by their mask, (time, batch), on its device; as if there were padding."""
        lengths = mask.sum(0)
        steps = torch.arange(mask.shape[0], device=mask.device).unsqueeze(1)
        return cls(mask, torch.where(mask, lengths - 1 - steps, steps), lengths)


@dataclass(frozen=True)
class Batch:
    """Sentences side by side, time-major, as tensors of one device.

    Attributes:
        form_features: For each context-free input its features of the distinct forms of the batch.
        forms: The form of each token, as an index into these, (time, batch).
        token_features: For each other input its features of the tokens, as `Table.batch` gives them.
        layout: Which positions are tokens.
        labels: Label of each token, -1 where unknown, -2 - n where it is one of `label_sets[n]`, 0 in padding,
            (time, batch); None without labels.
        label_sets: Sets of labels, boolean (sets, labels), if labels name some.
        weights: What each sentence counts in the loss, (batch,); None: 1.
    """

    form_features: dict[str, tuple[Tensor, ...]]
    forms: Tensor
    token_features: dict[str, tuple[Tensor, ...]]
    layout: Layout
    labels: Tensor | None
    weights: Tensor | None = None
    label_sets: Tensor | None = None

    @classmethod
    def of(cls, arrays: Arrays, device: torch.device | str = "cpu") -> Batch:
        """Move a batch of arrays to a device."""
        return cls(
            features_to(arrays.form_features, device),
            to_tensor(arrays.forms, device),
            features_to(arrays.token_features, device),
            Layout.of(arrays.lengths, device),
            None if arrays.labels is None else to_tensor(arrays.labels, device),
            None if arrays.weights is None else to_tensor(arrays.weights, device),
            None if arrays.label_sets is None else to_tensor(arrays.label_sets, device),
        )
