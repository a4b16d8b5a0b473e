"""What goes on in a recurrent layer, token by token: its gates, its memory and its states.

With input x, state h and memory c, ⊙ for the product of elements and σ for the logistic function:

    LSTM   i, f, o = σ(W x_t + U h_{t-1} + b)        c_t = f ⊙ c_{t-1} + i ⊙ tanh(W_c x_t + U_c h_{t-1} + b_c)
           h_t = o ⊙ tanh(c_t)
    GRU    r, z = σ(W x_t + U h_{t-1} + b)           n_t = tanh(W_n x_t + b_n + r ⊙ (U_n h_{t-1} + b'_n))
           h_t = (1 - z) ⊙ n_t + z ⊙ h_{t-1}
    RNN    h_t = tanh(W x_t + U h_{t-1} + b)

The states are those that torch computes; each gate follows from the state before it and the layer's own weights.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from nertool.model.batch import Layout
from nertool.model.encoders.recurrent import Direction, RecurrentEncoder, reverse
from nertool.model.trace import Trace


def trace(encoder: RecurrentEncoder, values: Tensor, layout: Layout) -> list[Trace]:
    """Follow an encoder over sentences, without dropout.

    Args:
        encoder: In evaluation mode.
        values: Input vectors, (time, batch, inputs).
        layout: Which positions are tokens.

    Returns:
        For each layer the forward direction and, if there is one, the backward direction.
    """
    order = None if layout.order is None else layout.order.unsqueeze(-1)
    traces: list[Trace] = []
    for depth in range(len(encoder.layers)):
        for number, direction in enumerate(encoder.layers[depth].children()):
            assert isinstance(direction, Direction)
            backward = number == 1
            gates, candidates, memory, states = _follow(direction, reverse(values, order) if backward else values)
            own = Trace(direction.kind, depth + 1, backward, gates, candidates, memory, states)
            traces.append(own.map(partial(reverse, order=order)) if backward else own)
        values = torch.cat([each.states for each in traces if each.layer == depth + 1], -1)
    return traces


def _follow(
    direction: Direction, values: Tensor
) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None, Tensor]:
    """Return gates, candidates, memory and states of a layer that reads from first to last."""
    cell: Any = direction.cell
    states = direction(values)
    before = torch.cat((torch.zeros_like(states[:1]), states[:-1]))
    own = torch.nn.functional.linear(values, cell.weight_ih_l0, cell.bias_ih_l0)  # (time, batch, gates x hidden)
    past = torch.nn.functional.linear(before, cell.weight_hh_l0, cell.bias_hh_l0)
    if direction.kind == "rnn":
        return {}, None, None, states
    if direction.kind == "gru":
        (reset, update, new), (reset_past, update_past, new_past) = own.chunk(3, -1), past.chunk(3, -1)
        reset, update = torch.sigmoid(reset + reset_past), torch.sigmoid(update + update_past)
        return {"reset": reset, "update": update}, torch.tanh(new + reset * new_past), None, states
    into, forget, candidates, out = (own + past).chunk(4, -1)
    into, forget, candidates, out = into.sigmoid(), forget.sigmoid(), candidates.tanh(), out.sigmoid()
    memory = torch.empty_like(states)
    last = torch.zeros_like(states[0])
    for step in range(len(states)):
        last = forget[step] * last + into[step] * candidates[step]
        memory[step] = last
    return {"input": into, "forget": forget, "output": out}, candidates, memory, states
