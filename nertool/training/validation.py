"""What the validation split says of a model between two epochs."""

from __future__ import annotations

import json
import math

import numpy as np
import torch

from nertool.data.corpus import Split
from nertool.data.encoding import EncodedCorpus, reading_order
from nertool.data.pieces import in_pieces
from nertool.evaluation.scores import Evaluation, evaluate
from nertool.forking import cached_property, no_fork
from nertool.model.batch import Batch
from nertool.model.model import Model
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.text.schemes import OUTSIDE, Scheme, stray_positions
from nertool.training.distributed import ALONE, Group

_TOKENS_PER_BATCH = 2000


class Validation:
    """Scores a model, as it stands, on its validation split.

    Args:
        model: That is being trained.
        split: Labelled, in the model's scheme.
        group: The processes that share the work; each has to call each method.
    """

    def __init__(self, model: Model, split: Split, group: Group = ALONE) -> None:
        self._model = model
        self._group = group
        self._split = split
        self._found_none = False

    def score(self) -> Evaluation:
        """Label the split, and score the labels."""
        group, sentences = self._group, self._split.sentences
        if group.size == 1:
            return self._evaluate(Predictor(self._model).predict(sentences).labels)
        own = group.share(np.arange(len(sentences))).tolist()
        labels = Predictor(self._model).predict([sentences[index] for index in own]).labels
        parts = group.collect(np.frombuffer(json.dumps(labels).encode(), np.uint8))
        result = ""
        if group.leads:
            predicted: list[list[str]] = [[] for _ in sentences]
            for number, part in enumerate(parts):
                predicted[number :: group.size] = json.loads(part.tobytes())
            result = json.dumps(self._evaluate(predicted).to_json())
        return Evaluation.from_json(json.loads(group.told(result)))

    def _evaluate(self, predicted: list[list[str]]) -> Evaluation:
        spans = self._split.label_scheme is not Scheme.PLAIN
        self._found_none = spans and all(label == OUTSIDE for row in predicted for label in row)
        return evaluate(self._split.labels, self._split.comparable(predicted), self._split.label_scheme)

    def loss(self) -> float | None:
        """Compute the mean loss of a sentence; None if it is not finite, or no sentence can be scored."""
        network, total = self._model.network, 0.0
        device = next(network.parameters()).device
        for indices in reading_order(self._encoded.lengths, _TOKENS_PER_BATCH):
            batch = self._encoded.batch(indices)
            with no_fork(), torch.no_grad():
                total += float(network.loss(Batch.of(batch, device))) * len(indices)
        total, count = self._group.total(total), self._group.total(len(self._encoded))
        mean = total / count if count else math.inf
        return mean if math.isfinite(mean) else None

    def note(self) -> str:
        """Say what makes the last score mean little; "" if nothing does."""
        if not self._split.has_entities:
            return "the validation split has no entity, so that F1 is always 0; the loss chooses the best epoch"
        return "no entity was predicted in the validation split" if self._found_none else ""

    @cached_property
    def _encoded(self) -> EncodedCorpus:
        return EncodedCorpus(
            self._model.inputs,
            scorable_sentences(self._model, self._split)[self._group.rank :: self._group.size],
            *self._model.label_codes(self._split.unannotated),
        )


def scorable_sentences(model: Model, split: Split) -> list[Document]:
    """Return the sentences whose labels the model knows, without invalid transitions: their loss is finite.

    Long ones come in pieces, as in training.
    """
    numbers = model.label_numbers
    sentences = [
        sentence
        for sentence, row in zip(split.sentences, split.labels, strict=True)
        if len(row) and all(label in numbers for label in row) and not stray_positions(row, split.label_scheme)
    ]
    return in_pieces(sentences, split.label_scheme)
