"""How far back a gradient reaches: vanishing and exploding gradients (Bengio et al. 1994; Pascanu et al. 2013)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from nertool.model.encoders.recurrent import Direction, RecurrentEncoder
from nertool.tagging.bundle import Model
from nertool.tagging.prediction import vectors_of

STEPS = 50
_TEXTS = 64


def state_gradients(model: Model, sentences: Sequence[Sequence[str]]) -> list[float] | None:
    """The norm of what is left of a gradient of norm 1 after k steps back, for k = 0 to `STEPS`.

    Texts of `STEPS` + 1 tokens are cut from the sentences, one joined to the next, since few sentences are that
    long. A gradient in a random direction arrives at the last output of the last layer's forward direction;
    entry k is the norm of the gradient of the state k tokens before (for the LSTM of hidden and cell state
    together), as the geometric mean over the texts. The network is as for tagging, without dropout.

    Args:
        model: Its weights stay as they are.
        sentences: Tokens of each.

    Returns:
        `STEPS` + 1 norms, or as many as there are tokens; None if the encoder has no recurrent state.
    """
    network = model.network
    encoder = network.encoder
    if not isinstance(encoder, RecurrentEncoder):
        return None
    was_training = network.training
    network.eval()
    try:
        # Copies with float64: after fifty steps little may be left.
        ahead = next(encoder.layers[-1].children())
        assert isinstance(ahead, Direction)
        cell = copy.deepcopy(ahead.cell).double()
        values = _last_inputs(model, encoder, sentences).double()
    finally:
        network.train(was_training)
    states = []
    state: tuple[Tensor, ...] | Tensor | None = None
    for value in values.unsqueeze(1):
        _, state = cell(value, state)
        states.append(state if isinstance(state, tuple) else (state,))
    hidden = states[-1][0]
    arriving = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1), dtype=hidden.dtype)
    arriving /= arriving.norm(dim=-1, keepdim=True)
    flat = list(chain.from_iterable(states))
    found = torch.autograd.grad(hidden, flat, arriving, allow_unused=True)
    parts = iter(torch.zeros_like(s) if g is None else g for s, g in zip(flat, found, strict=True))
    norms = [torch.cat(list(islice(parts, len(each))), -1).norm(dim=-1).squeeze(0) for each in states]
    with np.errstate(divide="ignore"):  # a gradient of exactly 0 has the logarithm -inf, and the mean is 0
        means = np.exp(np.log(torch.stack(norms).detach().numpy()).mean(1))
    return [float(mean) for mean in means[::-1]]


@torch.no_grad()
def _last_inputs(model: Model, encoder: RecurrentEncoder, sentences: Sequence[Sequence[str]]) -> Tensor:
    """What goes into the last layer, (tokens of a text, texts, inputs)."""
    tokens = list(islice(chain.from_iterable(sentences), _TEXTS * (STEPS + 1)))
    size = min(STEPS + 1, len(tokens))
    forms = model.new_forms()
    numbers = np.array([forms[token] for token in tokens[: len(tokens) // size * size]]).reshape(-1, size)
    values = torch.nn.functional.embedding(
        torch.from_numpy(numbers.T), vectors_of(model.network, forms.drain()).clone()
    )
    return encoder.run(values, torch.ones(values.shape[:2], dtype=torch.bool), len(encoder.layers) - 1)
