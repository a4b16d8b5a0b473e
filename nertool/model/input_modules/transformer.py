"""The states of a pretrained transformer: of its own weights, or computed before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nertool.config.schema import TransformerConfig
from nertool.data.pretrained import Architecture
from nertool.data.subtokens import Subtokens
from nertool.errors import ConfigError
from nertool.model import transformer
from nertool.model.batch import to_tensor
from nertool.model.input_modules.base import InputModule, OwnRate

_SUBTOKENS_AT_ONCE = 8192  # with padding; more side by side are no faster


class TransformerVectors(InputModule):
    """Vectors of tokens: states of a transformer, mixed over its layers and pooled over sub-tokens.

    With `mix: learned` the vector of a token is g sum_l softmax(w)_l h_l, where h_l is its state in layer l and w
    and g are learnt (Peters et al. 2018, equation 1).

    A transformer that training leaves alone, and that saved models do not include, is no part of the weights of
    this module.

    Args:
        architecture: Of the transformer.
        config: Of the input.
        subtokens: Its tokenizer.
    """

    def __init__(self, architecture: Architecture, config: TransformerConfig, subtokens: Subtokens) -> None:
        super().__init__()
        self.config = config
        self.output_size = architecture.size
        # Layer 0 is the embeddings.
        self.layers = [layer % (architecture.layers + 1) for layer in config.layers]
        self._sizes = architecture.layers, architecture.size
        self.begin, self.end = subtokens.begin, subtokens.end
        self.padding = architecture.config.get("pad_token_id") or 0
        self._outside: list[nn.Module] = []  # a list hides it from torch
        self.inner: nn.Module | None = None
        if config.trainable or config.include:
            self.inner = transformer.build(architecture.config)
            self._compare(self.inner)
        self.weights: nn.Parameter | None = None
        self.scale: nn.Parameter | None = None
        if config.mix == "learned":
            self.weights = nn.Parameter(torch.empty(len(self.layers)))
            self.scale = nn.Parameter(torch.empty(1))
        if config.trainable and config.checkpointing and self.inner is not None:
            transformer.compute_twice(self.inner)

    @property
    def kept(self) -> int:
        """How many vectors `states` gives for each token: one for each layer if the mix is learnt, else one."""
        return 1 if self.weights is None else len(self.layers)

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return next(self._model().parameters()).device

    def initialize(self, generator: torch.Generator) -> None:
        """Let all layers have the same weight at first."""
        if self.weights is not None and self.scale is not None:
            nn.init.zeros_(self.weights)
            nn.init.ones_(self.scale)

    def adopt(self, model: nn.Module) -> None:
        """Use a transformer that was read: copy its weights, or refer to it where it is no part of this module."""
        self._compare(model)
        if self.inner is not None:
            self.inner.load_state_dict(model.state_dict())
        else:
            self._outside = [model]

    def own_rate(self) -> OwnRate | None:
        """Return the weights of the transformer, if training changes them."""
        if not self.config.trainable or self.inner is None:
            return None
        return OwnRate(list(self.inner.parameters()), self.config.learning_rate, self.config.warmup)

    def train(self, mode: bool = True) -> TransformerVectors:
        """Set the mode; that of the transformer matters for checkpointing alone, as its dropout is off."""
        super().train(mode)
        if self.inner is not None:
            self.inner.train(mode and self.config.trainable and self.config.checkpointing)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TransformerVectors:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for each in self._outside:
            each._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def digest(self) -> str:
        """Compute the SHA-256 of the weights of the transformer."""
        result = hashlib.sha256()
        for name, value in sorted(self._model().state_dict().items()):
            result.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            result.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return result.hexdigest()

    def forward(self, *features: Tensor) -> Tensor:
        """Compute vectors (time, batch, size).

        Args:
            features: Sub-tokens and their counts, as `states` takes them; or what that returned, flattened:
                (time, batch, kept x size).
        """
        if len(features) == 1:
            states = features[0].view(*features[0].shape[:-1], self.kept, self.output_size)
        else:
            states = self.states(*features)
        if self.weights is None or self.scale is None:
            return states.squeeze(-2)
        mixed: Tensor = (states * (self.scale * torch.softmax(self.weights, 0)).unsqueeze(-1)).sum(-2)
        return mixed

    def states(self, values: Tensor, counts: Tensor) -> Tensor:
        """Run the transformer.

        Args:
            values: Sub-tokens, sentence after sentence, (sub-tokens,); -1 - n is sub-token n of a sentence's
                context, which belongs to its first or last token.
            counts: Sub-tokens of each token, (time, batch); 0 in padding.

        Returns:
            (time, batch, kept, size); 0 in padding.
        """
        numbers, table = values.cpu().numpy(), counts.cpu().numpy()
        own = numbers >= 0
        ids = np.where(own, numbers, -1 - numbers).astype(np.int64)
        positions = np.flatnonzero(table.T > 0)  # of tokens, sentence after sentence
        token_of = np.repeat(np.arange(len(positions)), table.T.reshape(-1)[positions])[own]
        room = transformer.longest_text(self._model()) - len(self.begin) - len(self.end)
        windows = transformer.cut_windows(table.sum(0), own, room)
        with nullcontext() if self.config.trainable else torch.no_grad():
            states, places = self._run(ids, windows, counts.device)
            # Back into the order of the row, then from sub-tokens to tokens.
            order = to_tensor(np.argsort(places, kind="stable"), states.device)
            states = states[order]
            amounts = np.bincount(token_of, minlength=len(positions))
            if self.config.pooling == "first":
                pooled = states[to_tensor(np.cumsum(amounts) - amounts, states.device)]
            else:
                sums = states.new_zeros(len(positions), *states.shape[1:])
                sums = sums.index_add(0, to_tensor(token_of, states.device), states)
                pooled = sums / to_tensor(amounts, states.device)[:, None, None]
            time, batch = counts.shape
            empty = pooled.new_zeros(batch * time, *pooled.shape[1:])
            filled: Tensor = empty.index_copy(0, to_tensor(positions, states.device), pooled)
        return filled.view(batch, time, *filled.shape[1:]).transpose(0, 1)

    def _compare(self, model: nn.Module) -> None:
        config: Any = model.config
        if (config.num_hidden_layers, config.hidden_size) != self._sizes:
            raise ConfigError("the transformer has other sizes than its settings say")

    def _model(self) -> nn.Module:
        return self.inner if self.inner is not None else self._outside[0]

    def _run(
        self, ids: np.ndarray, windows: transformer.Windows, device: torch.device
    ) -> tuple[Tensor, np.ndarray]:
        """Return the states of sub-tokens that count, (sub-tokens, kept, size), and their places in the row."""
        sizes = windows.ends - windows.begins + len(self.begin) + len(self.end)
        order = np.argsort(sizes, kind="stable")
        parts: list[Tensor] = []
        places: list[np.ndarray] = []
        start = 0
        while start < len(order):
            longest = sizes[order[start:]]
            within = longest * np.arange(1, len(longest) + 1) <= _SUBTOKENS_AT_ONCE
            chosen = order[start : start + max(1, int(within.sum()))]
            start += len(chosen)
            width = int(sizes[chosen].max())
            text = np.full((len(chosen), width), self.padding, np.int64)
            mask = np.zeros((len(chosen), width), np.int64)
            rows, columns = [], []
            for row, window in enumerate(chosen.tolist()):
                a, b, first, last = (int(each[window]) for each in windows)
                text[row, : sizes[window]] = [*self.begin, *ids[a:b], *self.end]
                mask[row, : sizes[window]] = 1
                rows.append(np.full(last - first, row))
                columns.append(np.arange(first - a, last - a) + len(self.begin))
                places.append(np.arange(first, last))
            model: Any = self._model()
            result = model(
                input_ids=to_tensor(text, device),
                attention_mask=to_tensor(mask, device),
                output_hidden_states=True,
            ).hidden_states
            taken = to_tensor(np.concatenate(rows), device), to_tensor(np.concatenate(columns), device)
            states = torch.stack([result[layer][taken] for layer in self.layers], 1)
            parts.append(states.mean(1, keepdim=True) if self.weights is None else states)
        return torch.cat(parts), np.concatenate(places)
