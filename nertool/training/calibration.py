"""Probabilities that can be trusted: one temperature for all scores (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from nertool.data.corpus import Split
from nertool.data.encoding import EncodedCorpus, reading_order
from nertool.evaluation.scores import calibration_error
from nertool.forking import no_fork
from nertool.model.batch import Batch, Layout
from nertool.model.model import Model
from nertool.tagging.predictor import Predictor
from nertool.text.schemes import Scheme, Span, spans
from nertool.training.validation import scorable_sentences

_TOKENS = 20_000  # to fit a temperature on; a single number needs no more
_TOKENS_PER_BATCH = 2000
_RANGE = (-2.0, 2.0)  # of its logarithm


@dataclass(frozen=True)
class Calibration:
    """How far the confidence of predicted entities (of tags, for plain labels) is from the share that is right.

    Attributes:
        temperature: That all scores are divided by.
        before: Expected calibration error of each split at temperature 1; None if nothing was predicted.
        after: The same at this temperature.
    """

    temperature: float
    before: dict[str, float | None]
    after: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return vars(self)


def calibrate(model: Model, validation: Split, test: Split | None) -> Calibration:
    """Set the temperature of a model by its validation split, and measure the effect.

    Args:
        model: In evaluation mode; its temperature is set, and nothing else of it.
        validation: That the temperature is fitted on.
        test: Measured too, if there is one.
    """
    splits = {"validation": validation} | ({} if test is None else {"test": test})
    temperature = model.network.decoder.temperature
    with no_fork():
        temperature.fill_(1.0)
    before = {name: _error(model, split) for name, split in splits.items()}
    with no_fork():
        temperature.fill_(fit_temperature(model, validation))
    return Calibration(float(temperature), before, {name: _error(model, split) for name, split in splits.items()})


def fit_temperature(model: Model, split: Split) -> float:
    """Find the temperature under which the right labels of a split are most probable.

    The log-likelihood is concave in the inverse of the temperature, so there is one that is best. Sentences with
    labels that the model does not know, or with invalid transitions, do not count.

    Returns:
        The temperature; 1 if no sentence counts.
    """
    usable = scorable_sentences(model, split)
    usable = usable[:: max(1, -(-sum(map(len, usable)) // _TOKENS))]
    if not usable:
        return 1.0
    corpus = EncodedCorpus(model.inputs, usable, *model.label_codes(split.unannotated))
    network = model.network
    device = next(network.parameters()).device
    scored: list[tuple[Tensor, Tensor, Layout, Tensor | None]] = []
    for indices in reading_order(corpus.lengths, _TOKENS_PER_BATCH):
        batch = Batch.of(corpus.batch(indices), device)
        with torch.no_grad():
            emissions = network(batch)
        assert batch.labels is not None
        scored.append((emissions, batch.labels, batch.layout, batch.label_sets))

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        return sum(network.decoder.loss_at(temperature, *batch) for batch in scored)

    result = minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(result.x))


def confidences(model: Model, split: Split) -> tuple[list[float], list[bool]]:
    """Return the probability of each predicted entity (each tag, for plain labels), and whether it is right."""
    predictions = Predictor(model).predict(split.sentences, probabilities=True)
    scores, right = [], []
    for sentence, (predicted, gold) in enumerate(zip(predictions.labels, split.labels, strict=True)):
        wanted = set(_units(gold, split.label_scheme))
        for unit in _units(predicted, model.scheme):
            if unit.type in split.unannotated:
                continue  # nobody knows whether it is right
            scores.append(predictions.probability(sentence, unit.start, unit.end))
            right.append(unit in wanted)
    return scores, right


def _units(labels: Any, scheme: Scheme) -> list[Span]:
    if scheme is Scheme.PLAIN:
        return [Span(index, index + 1, label) for index, label in enumerate(labels)]
    return spans(labels, scheme)


def _error(model: Model, split: Split) -> float | None:
    return calibration_error(*confidences(model, split))
