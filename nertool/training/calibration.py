"""Probabilities that mean what they say: one temperature for all scores (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from nertool.data.batching import EncodedCorpus, reading_order
from nertool.evaluation.scores import calibration_error
from nertool.formats.labels import LabelledSentences
from nertool.tagging.bundle import Model
from nertool.tagging.labeller import Labeller
from nertool.tagging.prediction import TOKENS_PER_BATCH
from nertool.text.schemes import Scheme, Span, spans, stray_positions

_TOKENS = 20_000  # that a temperature is fitted on; a single number needs no more
_RANGE = (-2.0, 2.0)  # of its logarithm


@dataclass(frozen=True)
class Calibration:
    """How far the confidence of found entities (of tags, for plain labels) is from the share that is right.

    Attributes:
        temperature: That all scores are divided by.
        before: Expected calibration error of each split at temperature 1; None where nothing was found.
        after: The same at this temperature.
    """

    temperature: float
    before: dict[str, float | None]
    after: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self)


def calibrate(model: Model, validation: LabelledSentences, test: LabelledSentences | None) -> Calibration:
    """Sets the temperature of a model by its validation split, and measures what that does.

    Args:
        model: In evaluation mode; its temperature is set, and nothing else of it.
        validation: That the temperature is fitted on.
        test: Measured too, where there is one.
    """
    splits = {"validation": validation} | ({} if test is None else {"test": test})
    temperature = model.network.decoder.temperature
    temperature.fill_(1.0)
    before = {name: _error(model, split) for name, split in splits.items()}
    temperature.fill_(fit_temperature(model, validation))
    return Calibration(float(temperature), before, {name: _error(model, split) for name, split in splits.items()})


def fit_temperature(model: Model, split: LabelledSentences) -> float:
    """The temperature under which the right labels of a split are most probable.

    The log-likelihood is concave in the inverse of the temperature, so there is one that is best. Sentences
    with labels that the model does not know, or that the scheme forbids, have no say.

    Returns:
        The temperature; 1 where no sentence has a say.
    """
    numbers = {label: number for number, label in enumerate(model.lexicon.labels)}
    scheme = split.label_scheme
    fit = [
        place
        for place, row in enumerate(split.labels)
        if row and all(label in numbers for label in row) and not stray_positions(row, scheme)
    ]
    count = sum(len(split.labels[place]) for place in fit)
    fit = fit[:: max(1, -(-count // _TOKENS))]
    if not fit:
        return 1.0
    corpus = EncodedCorpus(
        model.new_forms(), [split.tokens[place] for place in fit], [split.labels[place] for place in fit], numbers
    )
    network = model.network
    held = []
    for places in reading_order(corpus.lengths, TOKENS_PER_BATCH):
        batch = corpus.batch(places)
        with torch.no_grad():
            emissions = network(batch)
        held.append((emissions, torch.from_numpy(np.asarray(batch.labels)), torch.from_numpy(batch.mask)))

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        return sum(network.decoder.loss_at(temperature, *each) for each in held)

    found = minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def confidences(model: Model, split: LabelledSentences) -> tuple[list[float], list[bool]]:
    """Probability of each entity (each tag, for plain labels) that a model finds, and whether it is right."""
    found = Labeller(model).label(split.tokens, probabilities=True)
    scores, right = [], []
    for place, (own, gold) in enumerate(zip(found.labels, split.labels, strict=True)):
        there = set(_units(gold, split.label_scheme))
        for unit in _units(own, model.lexicon.scheme):
            scores.append(found.probability(place, unit.start, unit.end))
            right.append(unit in there)
    return scores, right


def _units(labels: list[str], scheme: Scheme) -> list[Span]:
    if scheme is Scheme.PLAIN:
        return [Span(place, place + 1, label) for place, label in enumerate(labels)]
    return spans(labels, scheme)


def _error(model: Model, split: LabelledSentences) -> float | None:
    return calibration_error(*confidences(model, split))
