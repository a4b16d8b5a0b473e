"""BiLSTM-CNN-CRF (Ma & Hovy 2016): characters and words, encoder, decoder, put together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nertool.config import ModelConfig
from nertool.data.batching import Batch
from nertool.data.lexicon import UNKNOWN_ROW
from nertool.model.chain import Posterior
from nertool.model.characters import CharacterCNN
from nertool.model.crf import ConditionalRandomField, Constraints, Softmax
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoder import Encoder
from nertool.model.words import WordEmbedding


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
            self.characters: CharacterCNN | None = None
            if config.characters.kind == "cnn":
                self.characters = CharacterCNN(
                    sizes.characters,
                    config.characters.dimensions,
                    config.characters.filters,
                    config.characters.width,
                    config.characters.dropout,
                    self.noise,
                )
                inputs += self.characters.output_size
            self.input_dropout = Dropout(config.dropout, self.noise)
            encoder = config.encoder
            self.encoder = Encoder(
                inputs, encoder.hidden, encoder.layers, encoder.bidirectional, config.dropout, self.noise
            )
            self.output_dropout = Dropout(config.dropout, self.noise)
            self.scores = nn.Linear(self.encoder.output_size, sizes.labels)
            bound = math.sqrt(6 / (self.encoder.output_size + sizes.labels))
            nn.init.uniform_(self.scores.weight, -bound, bound)
            nn.init.zeros_(self.scores.bias)
            decoder = ConditionalRandomField if config.decoder == "crf" else Softmax
            self.decoder = decoder(
                sizes.labels,
                None if config.constraints == "none" else constraints,
                always=config.constraints == "always",
            )

    def form_vectors(self, rows: Tensor, windows: Tensor, counts: Tensor) -> Tensor:
        """What goes into the encoder for each form, without dropout.

        Args:
            rows: Word rows, (forms,).
            windows: Character windows, (windows, width).
            counts: Number of windows of each form, (forms,).

        Returns:
            (forms, inputs).
        """
        words = self.words(rows)
        return words if self.characters is None else torch.cat((words, self.characters(windows, counts)), -1)

    def encode(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Label scores (time, batch, labels) of input vectors (time, batch, inputs)."""
        scores: Tensor = self.scores(self.output_dropout(self.encoder(self.input_dropout(inputs), mask)))
        return scores

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
        if self.characters is not None:
            spellings = self.characters(torch.from_numpy(batch.windows), torch.from_numpy(batch.window_counts))
            inputs = torch.cat((inputs, nn.functional.embedding(spelled, spellings)), -1)
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
