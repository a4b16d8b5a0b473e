"""BiLSTM-CNN-CRF (Ma & Hovy 2016) and its variants: inputs, encoder, attention and decoder together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nertool.config.schema import ModelConfig
from nertool.errors import ConfigError
from nertool.model.attention import Attention
from nertool.model.batch import Batch, Layout
from nertool.model.building import uninitialized
from nertool.model.crf import Constraints, build_decoder
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders import build_encoder
from nertool.model.input_modules.base import InputModule, OwnRate
from nertool.model.inputs.base import Input


class Network(nn.Module):
    """From batches of tensors to label scores and losses.

    Building draws no random numbers: call `initialize` on the CPU, or load weights (see `nertool.tagging.bundle`).

    Args:
        inputs: What a token brings in, by name.
        labels: Number of labels.
        config: Of the layers.
        constraints: What the label scheme allows; None: everything.
        seed: Of dropout.
    """

    def __init__(
        self,
        inputs: Mapping[str, Input],
        labels: int,
        config: ModelConfig,
        constraints: Constraints | None = None,
        *,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.noise = Noise(seed)
        self.context_free = [name for name, each in inputs.items() if each.context_free]
        self.contextual = [name for name, each in inputs.items() if not each.context_free]
        self.inputs = nn.ModuleDict()
        for name, each in inputs.items():
            try:
                self.inputs[name] = each.module(self.noise)
            except KeyError:  # nn.ModuleDict has attributes such as `keys`
                raise ConfigError(
                    f"inputs.{name}: the name is reserved; choose another, such as my_{name}"
                ) from None
        size = sum(self.input(name).output_size for name in inputs)

        def dropout(probability: float = config.dropout) -> Dropout:
            return Dropout(probability, self.noise, locked=config.locked_dropout)

        self.input_dropout = dropout()
        between = getattr(config.encoder, "dropout", None)
        self.encoder = build_encoder(config.encoder, size, dropout() if between is None else dropout(between))
        self.attention: Attention | None = None
        if config.attention.kind != "none":
            self.attention = Attention(config.attention, self.encoder.output_size)
        self.output_dropout = dropout()
        self.scores = uninitialized(nn.Linear, self.encoder.output_size, labels)
        self.decoder = build_decoder(config.decoder, labels, constraints)

    def input(self, name: str) -> InputModule:
        """Return the module of an input."""
        module = self.inputs[name]
        assert isinstance(module, InputModule)
        return module

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draw all weights; equal seeds give equal weights."""
        generator = torch.Generator().manual_seed(seed)
        for name in self.inputs:
            self.input(name).initialize(generator)
        self.encoder.initialize(generator)
        if self.attention is not None:
            self.attention.initialize(generator)
        bound = math.sqrt(6 / (self.scores.in_features + self.scores.out_features))
        nn.init.uniform_(self.scores.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.scores.bias)
        self.decoder.initialize(generator)

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Return the tables whose gradients are sparse: the rows that a batch does not touch are left alone."""
        return [parameter for name in self.inputs for parameter in self.input(name).sparse_parameters()]

    def own_rates(self) -> list[OwnRate]:
        """Return the weights that inputs train with rates of their own."""
        rates = (self.input(name).own_rate() for name in self.inputs)
        return [rate for rate in rates if rate is not None]

    def form_vectors(self, features: Mapping[str, tuple[Tensor, ...]]) -> Tensor | None:
        """Compute what context-free inputs know of each form, without dropout.

        Args:
            features: For each context-free input its features of the forms.

        Returns:
            (forms, sizes of these inputs together); None where no input is context-free.
        """
        if not self.context_free:
            return None
        return torch.cat([self.input(name)(*features[name]) for name in self.context_free], -1)

    def token_vectors(self, features: Mapping[str, tuple[Tensor, ...]]) -> list[Tensor]:
        """Compute what the other inputs know of each token: for each input (time, batch, size)."""
        return [self.input(name)(*features[name]) for name in self.contextual]

    def inputs_of(
        self, vectors: Tensor | None, forms: Tensor, features: Mapping[str, tuple[Tensor, ...]]
    ) -> Tensor:
        """Put together what goes into `encode`, when the vectors of forms are known.

        Args:
            vectors: What `form_vectors` returned.
            forms: The form of each token, an index into these, (time, batch).
            features: For each input that is not context-free its features of the tokens.

        Returns:
            (time, batch, inputs).
        """
        known = [] if vectors is None else [nn.functional.embedding(forms, vectors)]
        return torch.cat([*known, *self.token_vectors(features)], -1)

    def encode(self, vectors: Tensor, layout: Layout) -> Tensor:
        """Compute label scores (time, batch, labels) of input vectors (time, batch, inputs)."""
        states = self.encoder(self.input_dropout(vectors), layout)
        if self.attention is not None:
            states = self.attention(states, layout)
        scores: Tensor = self.scores(self.output_dropout(states))
        return scores

    def forward(self, batch: Batch) -> Tensor:
        """Compute the label scores of a batch, the CRF's emissions, (time, batch, labels)."""
        parts = []
        for name in self.context_free:
            module = self.input(name)
            parts.append(module.spread(module(*batch.form_features[name]), batch.forms))
        return self.encode(torch.cat([*parts, *self.token_vectors(batch.token_features)], -1), batch.layout)

    def loss(self, batch: Batch, *, low_precision: bool = False) -> Tensor:
        """Compute the loss of a labelled batch, weighted where it has weights, averaged over its sentences.

        Args:
            batch: Labelled.
            low_precision: Whether all but the decoder may compute in bfloat16 (`torch.autocast`).
        """
        if batch.labels is None:
            raise ValueError("the batch has no labels")
        if low_precision:
            with torch.autocast(batch.forms.device.type, torch.bfloat16):
                emissions = self(batch)
            emissions = emissions.float()
        else:
            emissions = self(batch)
        loss = self.decoder.loss(emissions, batch.labels, batch.layout, batch.weights, batch.label_sets)
        return loss / batch.labels.shape[1]
