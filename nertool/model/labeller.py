"""From tokens to labels with a trained model: the one way in, for validation, evaluation and tagging."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from nertool.errors import NertoolError
from nertool.model.bundle import Model
from nertool.model.prediction import Prediction, predict, vectors_of

FORMS_KEPT = 20_000


@dataclass(frozen=True)
class Labelled:
    """Labels of some sentences and, where asked for, what it takes to tell how probable a span is.

    Attributes:
        labels: Of each sentence.
        offsets: Where each sentence begins in the flat tables.
        prediction: The flat tables.
        alternatives: For each sentence its best label sequences, where asked for, each with its probability;
            the most probable first.
    """

    labels: list[list[str]]
    offsets: np.ndarray
    prediction: Prediction
    alternatives: list[list[tuple[list[str], float]]]

    def probability(self, sentence: int, start: int, end: int) -> float:
        """Probability that the tokens from start to end (exclusive) carry exactly their labels, jointly."""
        first, path, last = self.prediction.first, self.prediction.path, self.prediction.last
        if first is None or path is None or last is None:
            raise ValueError("probabilities were not asked for")
        at = int(self.offsets[sentence])
        s, e = at + start, at + end - 1
        return float(np.exp(min(first[s] + path[e] - path[s] + last[e], 0.0)))

    def marginals(self, sentence: int) -> np.ndarray:
        """Probability of each label of the lexicon at each token of a sentence, (tokens, labels)."""
        if self.prediction.marginals is None:
            raise ValueError("marginals were not asked for")
        found: np.ndarray = self.prediction.marginals[self.offsets[sentence] : self.offsets[sentence + 1]]
        return found


class Labeller:
    """Labels tokens; remembers the vectors of the forms that it met, up to a number.

    Several threads may share one.

    Args:
        model: In evaluation mode, and not to be trained while this exists.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._names = np.array(model.lexicon.labels, dtype=object)
        self._lock = threading.Lock()
        # Read here, for while another thread tags it is not to be trusted.
        self._workers = torch.get_num_threads()
        self._forget()

    def label(
        self,
        sentences: Sequence[Sequence[str]],
        *,
        probabilities: bool = False,
        n_best: int = 0,
        marginals: bool = False,
    ) -> Labelled:
        """Labels sentences given as tokens; an empty sentence has no labels.

        Args:
            sentences: Tokens of each.
            probabilities: Whether `Labelled.probability` will be asked.
            n_best: How many `alternatives` are wanted of each sentence.
            marginals: Whether `Labelled.marginals` will be asked.
        """
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        with self._lock:
            if len(self._forms) > FORMS_KEPT:
                self._forget()
            try:
                number = self._forms.__getitem__
                tokens = np.fromiter(map(number, chain.from_iterable(sentences)), np.int32, offsets[-1])
                vectors = self._known_vectors()
            except BaseException:
                # Numbers and vectors no longer agree; whoever goes on after an interrupt starts afresh.
                self._forget()
                raise
        prediction = predict(
            self._model.network,
            vectors,
            tokens,
            lengths[lengths > 0],
            probabilities=probabilities,
            n_best=n_best,
            marginals=marginals,
            workers=self._workers,
        )
        names = self._names[prediction.labels].tolist()
        labels = [names[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
        return Labelled(labels, offsets, prediction, self._alternatives(prediction, lengths) if n_best else [])

    def _alternatives(self, prediction: Prediction, lengths: np.ndarray) -> list[list[tuple[list[str], float]]]:
        found: list[list[tuple[list[str], float]]] = []
        names = self._names[prediction.sequences]  # (tokens, n)
        at, shares = 0, iter(prediction.shares.tolist())
        for length in lengths.tolist():
            if not length:
                found.append([([], 1.0)])
                continue
            rows = names[at : at + length].T.tolist()
            found.append([(row, share) for row, share in zip(rows, next(shares), strict=True) if share > 0])
            at += length
        return found

    def attention(self, tokens: Sequence[str]) -> np.ndarray:
        """How much each token of a sentence attends to each: (heads, tokens, tokens), rows sum to 1.

        Raises:
            NertoolError: The model has no attention.
        """
        network = self._model.network
        if network.attention is None:
            raise NertoolError("this model has no attention; train one with --set model.attention.kind=multi_head")
        forms = self._model.new_forms()
        numbers = torch.tensor([forms[token] for token in tokens]).unsqueeze(1)
        mask = torch.ones(numbers.shape, dtype=torch.bool)
        vectors = vectors_of(network, forms.drain())
        with torch.inference_mode():
            states = network.encoder(torch.nn.functional.embedding(numbers, vectors), mask)
            weights: np.ndarray = network.attention.weights(states, mask)[0].numpy()
        return weights

    def _forget(self) -> None:
        self._forms = self._model.new_forms()
        self._vectors = vectors_of(self._model.network, self._forms.drain())
        self._count = len(self._vectors)

    def _known_vectors(self) -> torch.Tensor:
        if len(self._forms) > self._count:
            new = vectors_of(self._model.network, self._forms.drain())
            if len(self._forms) > len(self._vectors):
                with torch.inference_mode():
                    grown = new.new_zeros(2 * len(self._forms), new.shape[1])
                    grown[: self._count] = self._vectors[: self._count]
                    self._vectors = grown
            with torch.inference_mode():
                self._vectors[self._count : len(self._forms)] = new
            self._count = len(self._forms)
        return self._vectors
