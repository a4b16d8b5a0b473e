"""`Scorer`: the part of a network that `torch.export` can turn into a program, from features to scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from nertool.model.batch import Batch, Layout
from nertool.model.network import Network


class Scorer(nn.Module):
    """A network as a function of tensors alone, in evaluation mode.

    Args:
        network: Its weights are shared.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(
        self,
        form_features: dict[str, tuple[Tensor, ...]],
        forms: Tensor,
        token_features: dict[str, tuple[Tensor, ...]],
        mask: Tensor,
    ) -> Tensor:
        """Compute the label scores of a batch.

        Args:
            form_features: For each context-free input its features of the distinct forms of the batch.
            forms: The form of each token, as an index into these, (time, batch).
            token_features: For each other input its features of the tokens, (time, batch, ...) each.
            mask: Boolean (time, batch), a prefix of True in each column.

        Returns:
            The CRF's emissions, (time, batch, labels).
        """
        batch = Batch(form_features, forms, token_features, Layout.of_mask(mask), None)
        scores: Tensor = self.network(batch)
        return scores


def scorer_inputs(batch: Batch) -> tuple[Any, ...]:
    """Return the arguments of `Scorer.forward` for a batch."""
    return batch.form_features, batch.forms, batch.token_features, batch.layout.mask


@torch.no_grad()
def export_scorer(network: Network, batch: Batch) -> ExportedProgram:
    """Export the scoring part for any number of forms, sentences and tokens.

    The program takes the arguments of `Scorer.forward`. Recurrent layers become a `scan` over the tokens.

    Args:
        network: Any; not in training.
        batch: An example with at least 2 forms, sentences and time steps.
    """
    items, tokens = {0: Dim.DYNAMIC}, {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    shapes = (
        {name: tuple(items for _ in features) for name, features in batch.form_features.items()},
        tokens,
        {name: tuple(tokens for _ in features) for name, features in batch.token_features.items()},
        tokens,
    )
    return export(Scorer(network), scorer_inputs(batch), dynamic_shapes=shapes)
