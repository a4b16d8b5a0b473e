"""From tokens to labels with a trained model: the one way in, for validation, evaluation and tagging."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from nertool.errors import NertoolError
from nertool.tagging.bundle import Model
from nertool.tagging.prediction import Prediction, predict, together, vectors_of
from nertool.tagging.windows import LONGEST, PER_BATCH, cut, join, joints

FORMS_KEPT = 20_000
TOKENS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Labelled:
    """Labels of some sentences and, where asked for, what it takes to tell how probable a span is.

    Attributes:
        labels: Of each sentence.
        offsets: Where each sentence begins in the flat tables.
        prediction: The flat tables.
        alternatives: For each sentence its best label sequences, where asked for, each with its probability;
            the most probable first. Of a sentence that was cut there is one, its labels.
        cut: Whether each sentence was so long that it was labelled in windows, boolean (sentences,).
    """

    labels: list[list[str]]
    offsets: np.ndarray
    prediction: Prediction
    alternatives: list[list[tuple[list[str], float]]]
    cut: np.ndarray

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

        Sentences of more than `windows.LONGEST` tokens are labelled in windows.

        Args:
            sentences: Tokens of each.
            probabilities: Whether `Labelled.probability` will be asked.
            n_best: How many `alternatives` are wanted of each sentence.
            marginals: Whether `Labelled.marginals` will be asked.
        """
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        long = lengths > LONGEST
        pieces = cut(lengths)
        sizes = pieces.ends - pieces.starts
        found: list[Prediction] = []
        # Parts, for what is remembered of new words is thrown away only between them.
        for part in np.split(np.arange(len(sizes)), _borders(sizes)):
            rows = [
                sentences[sentence][start:end] if long[sentence] else sentences[sentence]
                for sentence, start, end in zip(
                    *(each[part].tolist() for each in (pieces.sentences, pieces.starts, pieces.ends)), strict=True
                )
            ]
            tokens, vectors = self._encode(rows, int(sizes[part].sum()))
            found.append(
                predict(
                    self._model.network,
                    vectors,
                    tokens,
                    sizes[part],
                    probabilities=probabilities or (n_best > 0 and bool(long.any())),
                    n_best=n_best,
                    marginals=marginals,
                    per_batch=PER_BATCH if long.any() else None,
                    workers=self._workers,
                )
            )
        prediction = together(found)
        if long.any():
            rules = joints(self._model.lexicon.labels, self._model.network.decoder)
            prediction = join(prediction, pieces, lengths, rules)
        names = self._names[prediction.labels].tolist()
        labels = [names[a:b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
        alternatives = self._alternatives(prediction, lengths) if n_best else []
        return Labelled(labels, offsets, prediction, alternatives, long)

    def _encode(self, sentences: Sequence[Sequence[str]], count: int) -> tuple[np.ndarray, torch.Tensor]:
        """Forms of the tokens, (count,), and input vectors of all forms."""
        with self._lock:
            if len(self._forms) > FORMS_KEPT:
                self._forget()
            try:
                number = self._forms.__getitem__
                tokens = np.fromiter(map(number, chain.from_iterable(sentences)), np.int32, count)
                return tokens, self._known_vectors()
            except BaseException:
                # Numbers and vectors no longer agree; whoever goes on after an interrupt starts afresh.
                self._forget()
                raise

    def _alternatives(self, prediction: Prediction, lengths: np.ndarray) -> list[list[tuple[list[str], float]]]:
        found: list[list[tuple[list[str], float]]] = []
        names = self._names[prediction.sequences]  # (tokens, n)
        at, shares = 0, iter(prediction.shares.tolist())
        for length in lengths.tolist():
            if not length:
                found.append([([], 1.0)])
                continue
            rows = names[at : at + length].T.tolist()
            pairs = enumerate(zip(rows, next(shares), strict=True))
            # The best is one, however small its share of all.
            found.append([(row, share) for place, (row, share) in pairs if share > 0 or not place])
            at += length
        return found

    def attention(self, tokens: Sequence[str]) -> np.ndarray:
        """How much each token of a sentence attends to each: (heads, tokens, tokens), rows sum to 1.

        Raises:
            NertoolError: The model has no attention, or the sentence is too long.
        """
        network = self._model.network
        if network.attention is None:
            raise NertoolError("this model has no attention; train one with --set model.attention.kind=multi_head")
        if len(tokens) > LONGEST:
            raise NertoolError(f"a sentence of {len(tokens):,} tokens is too long to be looked at ({LONGEST})")
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


def _borders(sizes: np.ndarray) -> np.ndarray:
    """Where to part a row of pieces so that each part has `TOKENS_AT_ONCE` tokens, or a piece more."""
    return np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // TOKENS_AT_ONCE)) + 1
