"""What a model computes for a sentence: gates, attention, label scores, and the two best label sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nertool.errors import NertoolError
from nertool.model.chain import Scores
from nertool.model.outline import Outline
from nertool.model.trace import Trace
from nertool.tagging.exported import ExportedModel
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document

_POSSIBLE = -1e8  # a score below this is that of what the label scheme forbids
PATHS = 2
"""How many label sequences are compared."""


@dataclass(frozen=True, eq=False)
class Path:
    """A label sequence.

    Attributes:
        labels: The number of each token's label, (tokens,).
        score: Sum of its emissions, and of the transitions from start to end.
        probability: Its share of exp(score / temperature) summed over all label sequences.
    """

    labels: np.ndarray
    score: float
    probability: float


@dataclass(frozen=True, eq=False, repr=False)
class Inside:
    """What a model computes for one sentence.

    Attributes:
        tokens: Of the sentence.
        labels: Of the model, in its own scheme.
        encoder: Kind of the encoder.
        decoder: Kind of the decoder.
        emissions: The score of each label at each token, (tokens, labels).
        transitions: The decoder's scores of start, transitions (from, to) and end; -inf where forbidden.
        temperature: All scores are divided by it for probabilities.
        marginals: The probability of each label at each token, (tokens, labels).
        paths: The most probable label sequences, at most two, the best first.
        traces: Gates and states of each direction of each recurrent layer.
        attention: How much each token attends to each, (heads, from, to); None without attention.
        complete: Whether all is here: an exported model shows neither gates nor attention.
    """

    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    encoder: str
    decoder: str
    emissions: np.ndarray
    transitions: Scores
    temperature: float
    marginals: np.ndarray
    paths: tuple[Path, ...]
    traces: tuple[Trace, ...]
    attention: np.ndarray | None
    complete: bool

    def __repr__(self) -> str:
        """Show tokens and the best path: all arrays would fill pages."""
        best = self.paths[0]
        return f"<Inside {' '.join(self.tokens)!r} labels={self.names(best)} probability={best.probability:.4f}>"

    @property
    def parting(self) -> list[int]:
        """The tokens where the two best label sequences differ; none where there is only one."""
        if len(self.paths) < PATHS:
            return []
        return np.flatnonzero(self.paths[0].labels != self.paths[1].labels).tolist()

    def names(self, path: Path) -> list[str]:
        """Return the labels of a path."""
        return [self.labels[label] for label in path.labels.tolist()]


def look_inside(predictor: Predictor, sentence: Document) -> Inside:
    """Compute the inside of a model at work on a sentence; labels, paths and marginals are those of tagging.

    Args:
        predictor: Of the model.
        sentence: Of one token at least.

    Raises:
        NertoolError: The sentence has no token, or is too long.
        CorpusError: It lacks a column that the model reads.
    """
    if not sentence.tokens:
        raise NertoolError("there is no token in this sentence")
    model = predictor.model
    activations = predictor.activations(sentence)
    predictions = predictor.predict([sentence], n_best=PATHS, marginals=True)
    transitions, temperature = _decoder(model)
    emissions = activations.emissions.astype(np.float64)
    tables = predictions.tables
    pairs = zip(tables.sequences.T.astype(np.int64), tables.shares[0].tolist(), strict=True)
    paths = [Path(labels, path_score(emissions, transitions, labels), share) for labels, share in pairs]
    return Inside(
        sentence.tokens,
        tuple(model.labels),
        model.config.model.encoder.kind,
        model.config.model.decoder.kind,
        emissions,
        transitions,
        temperature,
        predictions.marginals(0),
        # The best is one, however small its share.
        tuple(path for rank, path in enumerate(paths) if path.probability or not rank),
        activations.traces,
        activations.attention,
        activations.complete,
    )


def path_score(emissions: np.ndarray, scores: Scores, labels: np.ndarray) -> float:
    """Add up what a label sequence scores.

    Args:
        emissions: (tokens, labels).
        scores: Of start, transitions and end.
        labels: The label of each token, (tokens,).
    """
    own = emissions[np.arange(len(labels)), labels].sum() + scores.transitions[labels[:-1], labels[1:]].sum()
    return float(own + scores.start[labels[0]] + scores.end[labels[-1]])


def _decoder(model: Outline) -> tuple[Scores, float]:
    """Return the scores of a model's decoder, -inf where forbidden, and its temperature."""
    if isinstance(model, ExportedModel):
        scores, temperature = model.decoder.scores, model.decoder.temperature
    else:
        from nertool.model.model import Model

        assert isinstance(model, Model)
        decoder = model.network.decoder
        scores = Scores(*(each.detach().cpu().numpy() for each in decoder.scores(constrained=True)))
        temperature = float(decoder.temperature)
    exact = (np.asarray(each, np.float64) for each in scores)
    return Scores(*(np.where(each > _POSSIBLE, each, -np.inf) for each in exact)), temperature
