"""The same network as most people would write it: what nertool's speed is measured against.

BiLSTM-CNN-CRF out of torch's ready-made parts, as the tutorials do it: sentences are looked up in
dictionaries when their batch comes, padded, and packed for `nn.LSTM`; every token's characters are padded and
convolved; `torchcrf` has the loss and the decoding; `torch.optim.SGD` has all the parameters. It knows nothing
of nertool. Given the same weights it computes the same loss (tests/test_benchmarks.py).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchcrf
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PADDING, UNKNOWN_WORD, UNKNOWN_CHARACTER = 0, 0, 1
LONGEST_WORD = 64

Sentences = Sequence[Sequence[str]]


@dataclass
class Batch:
    """Padded sentences: words (batch, time), characters (batch, time, spelling), labels (batch, time)."""

    words: Tensor
    characters: Tensor
    lengths: Tensor
    labels: Tensor

    @property
    def mask(self) -> Tensor:
        return torch.arange(self.words.shape[1]) < self.lengths.unsqueeze(1)


class Vocabulary:
    """Numbers of words (0: unknown), characters (0: padding, 1: unknown) and labels."""

    def __init__(self, words: Iterable[str], characters: Iterable[str], labels: Sequence[str]) -> None:
        self.words = {word: number for number, word in enumerate(words, start=1)}
        self.characters = {character: number for number, character in enumerate(characters, start=2)}
        self.label_names = list(labels)
        self.labels = {label: number for number, label in enumerate(labels)}

    def word(self, token: str) -> int:
        if token in self.words:
            return self.words[token]
        lowered = token.lower()
        for form in (lowered, re.sub("[1-9]", "0", token), re.sub("[1-9]", "0", lowered)):
            if form in self.words:
                return self.words[form]
        return UNKNOWN_WORD

    def spelling(self, token: str) -> list[int]:
        return [self.characters.get(character, UNKNOWN_CHARACTER) for character in token[:LONGEST_WORD]]

    def encode(self, sentences: Sentences, labels: Sentences | None = None) -> Batch:
        lengths = [len(tokens) for tokens in sentences]
        time = max(lengths)
        words = [[self.word(token) for token in tokens] for tokens in sentences]
        spellings = [[self.spelling(token) for token in tokens] for tokens in sentences]
        widest = max(len(spelling) for row in spellings for spelling in row)
        empty = [PADDING] * widest
        padded = [
            [spelling + [PADDING] * (widest - len(spelling)) for spelling in row] + [empty] * (time - len(row))
            for row in spellings
        ]
        numbers = [[self.labels[label] for label in row] for row in labels] if labels is not None else []
        return Batch(
            torch.tensor([row + [UNKNOWN_WORD] * (time - len(row)) for row in words]),
            torch.tensor(padded),
            torch.tensor(lengths),
            torch.tensor([row + [0] * (time - len(row)) for row in numbers]),
        )


class ReferenceTagger(nn.Module):
    """Word vectors and a character CNN, a BiLSTM, a linear layer, a CRF."""

    def __init__(
        self,
        words: int,
        dimensions: int,
        characters: int,
        labels: int,
        character_dimensions: int = 30,
        filters: int = 50,
        width: int = 3,
        hidden: int = 200,
        dropout: float = 0.5,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, dimensions)
        self.characters = nn.Embedding(characters, character_dimensions, padding_idx=PADDING)
        self.convolution = nn.Conv1d(character_dimensions, filters, width, padding=width // 2)
        self.lstm = nn.LSTM(dimensions + filters, hidden, batch_first=True, bidirectional=True)
        self.scores = nn.Linear(2 * hidden, labels)
        self.crf = torchcrf.CRF(labels, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.word_dropout = word_dropout

    def forward(self, batch: Batch) -> Tensor:
        """Emissions, (batch, time, labels)."""
        words = batch.words
        if self.training and self.word_dropout > 0:
            words = words.masked_fill(torch.rand(words.shape) < self.word_dropout, UNKNOWN_WORD)
        inputs = torch.cat((self.words(words), self.spell(batch.characters)), dim=-1)
        packed = pack_padded_sequence(self.dropout(inputs), batch.lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        emissions: Tensor = self.scores(self.dropout(hidden))
        return emissions

    def spell(self, characters: Tensor) -> Tensor:
        """Vectors of spellings, (batch, time, filters)."""
        batch, time, width = characters.shape
        flat = characters.view(batch * time, width)
        convolved = self.convolution(self.characters(flat).transpose(1, 2))  # (tokens, filters, characters)
        # Without this, the maximum could come from the padding and a word's vector depend on its neighbours.
        convolved = convolved.masked_fill((flat == PADDING).unsqueeze(1), -1e4)
        return torch.tanh(convolved.max(dim=-1).values).view(batch, time, -1)

    def loss(self, batch: Batch) -> Tensor:
        loss: Tensor = -self.crf(self(batch), batch.labels, mask=batch.mask, reduction="mean")
        return loss

    @torch.no_grad()
    def decode(self, batch: Batch) -> list[list[int]]:
        found: list[list[int]] = self.crf.decode(self(batch), mask=batch.mask)
        return found


def sgd(model: ReferenceTagger, learning_rate: float, momentum: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)


def update(model: ReferenceTagger, optimizer: torch.optim.Optimizer, clip: float) -> None:
    """What comes after `backward`."""
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()


def training_steps(
    model: ReferenceTagger,
    vocabulary: Vocabulary,
    tokens: Sentences,
    labels: Sentences,
    *,
    batch_size: int,
    sort: bool,
    learning_rate: float = 0.015,
    momentum: float = 0.9,
    clip: float = 5.0,
    seed: int = 1,
) -> Iterator[int]:
    """Train without end; yields the number of tokens of each batch when it has been learnt.

    Batches are of any sentences or, sorted, of sentences of about one length.
    """
    optimizer = sgd(model, learning_rate, momentum)
    shuffler = random.Random(seed)
    model.train()
    while True:
        order = list(range(len(tokens)))
        shuffler.shuffle(order)
        if sort:
            order.sort(key=lambda number: len(tokens[number]))
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        shuffler.shuffle(batches)
        for chosen in batches:
            batch = vocabulary.encode([tokens[number] for number in chosen], [labels[number] for number in chosen])
            loss = model.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            update(model, optimizer, clip)
            yield int(batch.lengths.sum())


def label_sentences(
    model: ReferenceTagger, vocabulary: Vocabulary, tokens: Sentences, batch_size: int = 32
) -> list[list[str]]:
    """Label sentences in batches of about one length; the results are in the order of the sentences."""
    model.eval()
    labels: list[list[str]] = [[] for _ in tokens]
    order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = vocabulary.encode([tokens[number] for number in chosen])
        for number, found in zip(chosen, model.decode(batch), strict=True):
            labels[number] = [vocabulary.label_names[label] for label in found]
    return labels


def read_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Read a GloVe file line by line."""
    words: list[str] = []
    rows: list[np.ndarray] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            word, *numbers = line.rstrip().split(" ")
            words.append(word)
            rows.append(np.asarray(numbers, dtype=np.float32))
    return words, np.stack(rows)
