"""Attention of each token to all tokens of its sentence, over the encoder's states.

    y_i = h_i + LayerNorm(W_o sum_j a_ij W_v u_j),   a_i = softmax_j(score(W_q u_i, W_k u_j)),   u = LayerNorm(h)

The first norm gives the scores a scale: the states of an LSTM are so small that attention without it stayed
nearly uniform. The second bounds what is added (both: Ding et al. 2021, "sandwich" norm), and its gain starts
small, so that training starts near the network without attention. A norm over the sum, as in Vaswani et al.
(2017), learned more slowly under SGD on the demonstration corpus.

The scores: `dot` (Luong et al. 2015), `scaled_dot` and `multi_head` (Vaswani et al. 2017, section 3.2), `additive`
(Bahdanau et al. 2015). Only the score differs from kind to kind.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nertool.config.schema import AttentionConfig, MultiHeadConfig
from nertool.model.batch import Layout
from nertool.model.building import exporting, uninitialized

# Elements of the largest table of additive scores that is built at once: a quarter of a gigabyte.
_ELEMENTS_AT_ONCE = 2**26


class Attention(nn.Module):
    """Self-attention beside a residual connection, with layer norm.

    Args:
        config: Kind, sizes and heads.
        size: Of the states.
    """

    def __init__(self, config: AttentionConfig | MultiHeadConfig, size: int) -> None:
        super().__init__()
        self.kind = config.kind
        self.heads = config.heads if isinstance(config, MultiHeadConfig) else 1
        self.queries = uninitialized(nn.Linear, size, config.dimensions, bias=False)
        self.keys = uninitialized(nn.Linear, size, config.dimensions, bias=False)
        self.values = uninitialized(nn.Linear, size, config.dimensions, bias=False)
        self.result = uninitialized(nn.Linear, config.dimensions, size)
        self.direction: nn.Parameter | None = None  # v of Bahdanau et al., equation 6 of their appendix
        if config.kind == "additive":
            self.direction = nn.Parameter(torch.empty(config.dimensions))
        self.scale = 1.0 if config.kind == "dot" else math.sqrt(self.heads / config.dimensions)
        self.norm_before = uninitialized(nn.LayerNorm, size)
        self.norm_after = uninitialized(nn.LayerNorm, size)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights from a generator of the CPU."""
        for layer in (self.queries, self.keys, self.values, self.result):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(self.result.bias)
        if self.direction is not None:
            bound = math.sqrt(3 / len(self.direction))
            nn.init.uniform_(self.direction, -bound, bound, generator=generator)
        for norm in (self.norm_before, self.norm_after):
            norm.reset_parameters()  # draws nothing
        nn.init.constant_(self.norm_after.weight, 0.1)

    def forward(self, states: Tensor, layout: Layout) -> Tensor:
        """Let the tokens of each sentence attend to one another.

        Args:
            states: Of the encoder, (time, batch, size).
            layout: Which positions are tokens.

        Returns:
            (time, batch, size); anything in padding.
        """
        queries, keys, values = self._heads(states)  # each (batch, heads, time, dimensions of a head)
        seen = layout.mask.T[:, None, None, :] if layout.ragged else None  # (batch, 1, 1, time)
        if self.direction is None:
            mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, seen, scale=self.scale)
        elif exporting():
            mixed = self._weights(queries, keys, seen) @ values
        else:
            batch, _, steps, dimensions = keys.shape
            size = max(1, _ELEMENTS_AT_ONCE // (batch * steps * dimensions))
            parts = [self._weights(part, keys, seen) @ values for part in torch.split(queries, size, 2)]
            mixed = torch.cat(parts, 2)
        joined = mixed.permute(2, 0, 1, 3).flatten(2)  # (time, batch, dimensions)
        added: Tensor = self.norm_after(self.result(joined))
        return states + added

    def weights(self, states: Tensor, layout: Layout) -> Tensor:
        """Compute how much each token attends to each; arguments as for `forward`.

        Returns:
            (batch, heads, time, time): from, to; the rows of tokens sum to 1, over tokens of the sentence.
        """
        queries, keys, _ = self._heads(states)
        return self._weights(queries, keys, layout.mask.T[:, None, None, :])

    def _heads(self, states: Tensor) -> tuple[Tensor, ...]:
        steps, batch, _ = states.shape
        normed = self.norm_before(states)
        projected = (
            layer(normed).view(steps, batch, self.heads, -1) for layer in (self.queries, self.keys, self.values)
        )
        return tuple(each.permute(1, 2, 0, 3) for each in projected)

    def _weights(self, queries: Tensor, keys: Tensor, seen: Tensor | None) -> Tensor:
        if self.direction is None:
            scores = self.scale * queries @ keys.transpose(-1, -2)
        else:
            scores = torch.tanh(queries.unsqueeze(3) + keys.unsqueeze(2)) @ self.direction
        if seen is not None:
            scores = scores.masked_fill(~seen, -math.inf)
        return scores.softmax(-1)
