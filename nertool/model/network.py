"""BiLSTM-CNN-CRF (Ma & Hovy 2016) and its variants: words, characters, encoder, attention, decoder together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nertool.config.schema import CharactersConfig, ModelConfig
from nertool.data.batching import Batch
from nertool.data.vocabulary import UNKNOWN_ROW
from nertool.model.attention import Attention
from nertool.model.chain import Posterior
from nertool.model.crf import ConditionalRandomField, Constraints, Softmax
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders.build import build_encoder
from nertool.model.inputs.characters import CaseEmbedding, CharacterCNN, CharacterRNN
from nertool.model.inputs.words import WordEmbedding


@dataclass(frozen=True)
class Sizes:
    """What the network must know of words, characters and labels: how many there are.

    Attributes:
        words: Rows of the word table.
        dimensions: Size of a word vector.
        characters: Kinds of characters.
        labels: Number of labels.
    """

    words: int
    dimensions: int
    characters: int
    labels: int


class Network(nn.Module):
    """From batches of integers to label scores, losses, labels and probabilities.

    Args:
        sizes: Of the vocabularies.
        config: Of the layers.
        constraints: What the label scheme allows; None: everything.
        word_dropout: Share of tokens whose word is hidden while training; their spelling stays.
        train_words: Whether the word table is trained.
        seed: Of initial weights and dropout.
    """

    def __init__(
        self,
        sizes: Sizes,
        config: ModelConfig,
        constraints: Constraints | None = None,
        *,
        word_dropout: float = 0.0,
        train_words: bool = True,
        seed: int = 1,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.noise = Noise(seed)
            self.word_dropout = word_dropout
            self.words = WordEmbedding(sizes.words, sizes.dimensions, train_words)
            inputs = self.words.output_size
            characters = config.characters
            self.characters: CharacterCNN | CharacterRNN | None = None
            if characters.kind != "none":
                self.characters = _build_characters(characters, sizes.characters, self.noise)
                inputs += self.characters.output_size
            self.cases: CaseEmbedding | None = None
            if characters.case_dimensions:
                self.cases = CaseEmbedding(characters.case_dimensions)
                inputs += self.cases.output_size

            def dropout(probability: float = config.dropout) -> Dropout:
                return Dropout(probability, self.noise, locked=config.locked_dropout)

            self.input_dropout = dropout()
            between = config.encoder.dropout
            self.encoder = build_encoder(
                config.encoder, inputs, dropout() if between is None else dropout(between)
            )
            self.attention: Attention | None = None
            if config.attention.kind != "none":
                self.attention = Attention(config.attention, self.encoder.output_size)
            self.output_dropout = dropout()
            self.scores = nn.Linear(self.encoder.output_size, sizes.labels)
            bound = math.sqrt(6 / (self.encoder.output_size + sizes.labels))
            nn.init.uniform_(self.scores.weight, -bound, bound)
            nn.init.zeros_(self.scores.bias)
            self.decoder = _build_decoder(config, sizes.labels, constraints)

    def form_vectors(self, rows: Tensor, cases: Tensor, windows: Tensor, counts: Tensor) -> Tensor:
        """What goes into the encoder for each form, without dropout.

        Args:
            rows: Word rows, (forms,).
            cases: How the forms use capitals, (forms,).
            windows: Character windows, (windows, width).
            counts: Number of windows of each form, (forms,).

        Returns:
            (forms, inputs).
        """
        return torch.cat((self.words(rows), *self._spelled(cases, windows, counts)), -1)

    def encode(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Label scores (time, batch, labels) of input vectors (time, batch, inputs)."""
        states = self.encoder(self.input_dropout(inputs), mask)
        if self.attention is not None:
            states = self.attention(states, mask)
        scores: Tensor = self.scores(self.output_dropout(states))
        return scores

    def _spelled(self, cases: Tensor, windows: Tensor, counts: Tensor) -> list[Tensor]:
        """What the spelling of each form adds to its word vector, each (forms, …)."""
        found = [] if self.characters is None else [self.characters(windows, counts)]
        return found if self.cases is None else [*found, self.cases(cases)]

    def forward(self, batch: Batch) -> Tensor:
        """Label scores (the CRF's emissions) of a batch, (time, batch, labels)."""
        forms = torch.from_numpy(batch.forms)
        rows = torch.from_numpy(batch.rows)
        spelled = forms
        if self.training and self.word_dropout > 0:
            # One more row, that of unknown words, for the tokens whose word is hidden; spelling stays.
            rows = torch.cat((rows, rows.new_full((1,), UNKNOWN_ROW)))
            hidden = torch.from_numpy(~self.noise.keep(forms.shape, 1.0 - self.word_dropout))
            forms = torch.where(hidden, len(rows) - 1, forms)
        inputs = nn.functional.embedding(forms, self.words(rows))
        arrays = (batch.cases, batch.windows, batch.window_counts)
        parts = self._spelled(*map(torch.from_numpy, arrays))
        inputs = torch.cat((inputs, *(nn.functional.embedding(spelled, part) for part in parts)), -1)
        return self.encode(inputs, torch.from_numpy(batch.mask))

    def loss(self, batch: Batch) -> Tensor:
        """Loss of a labelled batch, averaged over its sentences."""
        if batch.labels is None:
            raise ValueError("the batch has no labels")
        mask = torch.from_numpy(batch.mask)
        return self.decoder.loss(self(batch), torch.from_numpy(batch.labels), mask) / mask.shape[1]

    @torch.no_grad()
    def best_labels(self, batch: Batch) -> Tensor:
        """The best label sequences, (time, batch); 0 outside the mask."""
        return self.decoder.best_labels(self(batch), torch.from_numpy(batch.mask))

    @torch.no_grad()
    def posterior(self, batch: Batch) -> Posterior:
        """The distribution over label sequences."""
        return self.decoder.posterior(self(batch), torch.from_numpy(batch.mask))


def _build_characters(config: CharactersConfig, kinds: int, noise: Noise) -> CharacterCNN | CharacterRNN:
    if config.kind == "cnn":
        return CharacterCNN(kinds, config.dimensions, config.filters, config.width, config.dropout, noise)
    return CharacterRNN(kinds, config.dimensions, config.kind, config.hidden, config.dropout, noise)


def _build_decoder(config: ModelConfig, labels: int, constraints: Constraints | None) -> ConditionalRandomField:
    if config.decoder == "softmax":
        return Softmax(labels)
    if config.decoder == "constrained":
        return Softmax(labels, constraints)
    allowed = None if config.constraints == "none" else constraints
    return ConditionalRandomField(labels, allowed, always=config.constraints == "always")
