"""How far back a gradient reaches: vanishing and exploding gradients (Bengio et al. 1994; Pascanu et al. 2013)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate, chain, islice

import numpy as np
import torch
from torch import Tensor

from nertool.data.encoding import EncodedCorpus
from nertool.model.batch import Layout, features_to
from nertool.model.encoders.recurrent import Direction, RecurrentEncoder
from nertool.model.model import Model
from nertool.text.document import Document

STEPS = 50
_TEXTS = 64


def state_gradients(model: Model, sentences: Sequence[Document]) -> list[float] | None:
    """Measure the norm of what is left of a gradient of norm 1 after k steps back, for k = 0 to `STEPS`.

    Texts of `STEPS` + 1 tokens are cut from the sentences, one joined to the next, since few sentences are that
    long. A gradient in a random direction arrives at the last output of the last layer's forward direction;
    entry k is the norm of the gradient of the state k tokens before (for the LSTM of hidden and cell state
    together), as the geometric mean over the texts. The network is as for tagging, without dropout.

    Args:
        model: Its weights stay as they are.
        sentences: Documents of one sentence each.

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
    gradients = torch.autograd.grad(hidden, flat, arriving, allow_unused=True)
    parts = iter(torch.zeros_like(s) if g is None else g for s, g in zip(flat, gradients, strict=True))
    norms = [torch.cat(list(islice(parts, len(state))), -1).norm(dim=-1).squeeze(0) for state in states]
    with np.errstate(divide="ignore"):  # a gradient of exactly 0 has the logarithm -inf, and the mean is 0
        means = np.exp(np.log(torch.stack(norms).detach().numpy()).mean(1))
    return [float(mean) for mean in means[::-1]]


@torch.no_grad()
def _last_inputs(model: Model, encoder: RecurrentEncoder, sentences: Sequence[Document]) -> Tensor:
    """Compute what goes into the last layer, (tokens of a text, texts, inputs)."""
    network = model.network
    filled = [sentence for sentence in sentences if len(sentence)]
    before = accumulate(map(len, filled), initial=0)
    needed = [sentence for sentence, tokens in zip(filled, before, strict=False) if tokens < _TEXTS * (STEPS + 1)]
    corpus = EncodedCorpus(model.inputs, needed)
    total = min(corpus.token_count, _TEXTS * (STEPS + 1))
    size = min(STEPS + 1, total)
    indices = np.arange(total // size * size).reshape(-1, size).T  # (tokens of a text, texts)
    parts = []
    vectors = network.form_vectors(
        {
            name: tuple(map(torch.from_numpy, table.select(np.arange(len(table)))))
            for name, table in corpus.form_tables.items()
        }
    )
    if vectors is not None:
        parts.append(
            torch.nn.functional.embedding(torch.from_numpy(corpus.tokens[indices].astype(np.int64)), vectors)
        )
    parts += network.token_vectors(
        features_to(
            {
                name: each.batch(indices, np.ones(indices.shape, bool))
                for name, each in corpus.token_tables.items()
            },
            "cpu",
        )
    )
    layout = Layout.of(np.full(indices.shape[1], size))
    return encoder.run(torch.cat(parts, -1), layout, len(encoder.layers) - 1)
