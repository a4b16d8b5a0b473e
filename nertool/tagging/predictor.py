"""From documents to labels with a trained model: the one way in, for validation, evaluation and tagging."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from nertool.data.encoding import Table, token_indices
from nertool.errors import NertoolError
from nertool.forking import cached_property, no_fork
from nertool.model.outline import Outline
from nertool.tagging.exported import ExportedModel
from nertool.tagging.labels import Entities, LabelTables
from nertool.tagging.prediction import Activations, Array, Backend, Features, Tables, Wanted, concatenate, predict
from nertool.tagging.windows import LONGEST, PER_BATCH, Pieces, cut, join, joints
from nertool.text.document import Document, in_context
from nertool.text.schemes import convert

FORMS_KEPT = 20_000
TOKENS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Predictions:
    """Labels of some sentences and, where asked for, how probable they are.

    Attributes:
        label_tables: What the labels mean.
        offsets: Where each sentence begins in the flat tables, and their length, (sentences + 1,).
        tables: The flat tables. Their labels are what the network says, valid in the scheme or not.
        cut: Whether each sentence was so long that it was tagged in windows, boolean (sentences,).
    """

    label_tables: LabelTables
    offsets: np.ndarray
    tables: Tables
    cut: np.ndarray

    @cached_property
    def labels(self) -> list[list[str]]:
        """The labels of each sentence, valid in the scheme: the entities are those of `tables.labels`."""
        return self._rows(self.tables.labels)

    @cached_property
    def alternatives(self) -> list[list[tuple[list[str], float]]]:
        """For each sentence its best label sequences, where asked for, each with its probability, the best first.

        A sentence that was cut has one, its labels. A sequence that is not valid in the scheme, as those of a
        decoder without constraints may be, is repaired; its probability is that of the sequence before the repair.
        """
        shares = self.tables.shares.tolist()
        columns = [self._rows(column) for column in self.tables.sequences.T]
        row = iter(shares)  # an empty sentence has none
        result: list[list[tuple[list[str], float]]] = []
        for sentence, length in enumerate(np.diff(self.offsets).tolist() if columns else []):
            if not length:
                result.append([([], 1.0)])
                continue
            pairs = enumerate(zip(columns, next(row), strict=True))
            # The best is one, however small its share.
            result.append([(rows[sentence], share) for place, (rows, share) in pairs if share > 0 or not place])
        return result

    @cached_property
    def entities(self) -> Entities:
        """The entities of all sentences, in the flat tables."""
        return self.label_tables.entities(self.tables.labels, self.offsets)

    def probabilities(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the probability that tokens jointly carry the labels that the network gives them.

        Args:
            starts: First token of each stretch of tokens in the flat tables, (stretches,).
            ends: The token after its last; each stretch lies in one sentence, (stretches,).
        """
        first, path, last = self.tables.first, self.tables.path, self.tables.last
        if first is None or path is None or last is None:
            raise ValueError("probabilities were not asked for")
        result: np.ndarray = np.exp(
            np.minimum(first[starts] + path[ends - 1] - path[starts] + last[ends - 1], 0.0)
        )
        return result

    def probability(self, sentence: int, start: int, end: int) -> float:
        """Return the probability of the labels of the tokens from start to end (exclusive) of a sentence, jointly.

        Where labels were repaired, it is that of the labels before.
        """
        at = int(self.offsets[sentence])
        return float(self.probabilities(np.array([at + start]), np.array([at + end]))[0])

    def marginals(self, sentence: int) -> np.ndarray:
        """Return the probability of each label of the model at each token of a sentence, (tokens, labels)."""
        if self.tables.marginals is None:
            raise ValueError("marginals were not asked for")
        result: np.ndarray = self.tables.marginals[self.offsets[sentence] : self.offsets[sentence + 1]]
        return result

    def log_probabilities(self) -> np.ndarray:
        """Return the log-probability of the labels of each sentence, jointly, (sentences,); 0 without tokens."""
        first, path, last = self.tables.first, self.tables.path, self.tables.last
        if first is None or path is None or last is None:
            raise ValueError("probabilities were not asked for")
        result = np.zeros(len(self.offsets) - 1)
        filled = np.flatnonzero(np.diff(self.offsets))
        starts, ends = self.offsets[filled], self.offsets[filled + 1] - 1
        result[filled] = np.minimum(first[starts] + path[ends] - path[starts] + last[ends], 0.0)
        return result

    def wrong_entities(self) -> np.ndarray:
        """Return how many entities of each sentence are expected to be wrong or missed, (sentences,).

        It is the expected size of the symmetric difference of the entities that the labels mark and those of a
        label sequence that is drawn from the model's distribution.
        """
        if self.tables.wrong is None:
            raise ValueError("errors were not asked for")
        total = np.concatenate(([0.0], np.cumsum(self.tables.wrong)))
        result: np.ndarray = np.diff(total[self.offsets])
        return result

    def _rows(self, labels: np.ndarray) -> list[list[str]]:
        tables = self.label_tables
        names = tables.names[labels].tolist()
        at = self.offsets.tolist()
        rows = [names[a:b] for a, b in pairwise(at)]
        for sentence in tables.invalid(labels, self.offsets).tolist():
            rows[sentence] = convert(rows[sentence], tables.scheme, tables.scheme)
        return rows


class Predictor:
    """Labels tokens; remembers the vectors of the forms that it met, up to a number.

    Several threads may share one, and so may processes that are forked. After an interrupt it goes on as before.

    Args:
        model: A `Model` in evaluation mode, not to be trained while this exists, or an exported one.

    Attributes:
        label_tables: What the model's labels mean.
    """

    def __init__(self, model: Outline) -> None:
        self.model = model
        self._backend = _backend(model)
        self._contextual = model.contextual
        self.label_tables = LabelTables(model.labels, model.scheme)
        self._lock = threading.RLock()
        self._cache: _FormVectors | None = None

    def predict(
        self,
        documents: Sequence[Document],
        *,
        probabilities: bool = False,
        n_best: int = 0,
        marginals: bool = False,
        errors: bool = False,
    ) -> Predictions:
        """Label the sentences of documents.

        Sentences of more than `windows.LONGEST` tokens are labelled in windows.

        Args:
            documents: Each of one sentence or several; a document without tokens counts as one empty sentence.
            probabilities: Whether `Predictions.probability` will be asked.
            n_best: How many `alternatives` are wanted of each sentence.
            marginals: Whether `Predictions.marginals` will be asked.
            errors: Whether `Predictions.wrong_entities` will be asked.

        Returns:
            The predictions, by the number of the sentence among those of all documents.

        Raises:
            CorpusError: A document lacks a column that the model reads.
        """
        for each in self.model.inputs.values():
            for document in documents:
                each.check(document)
        tokens = list(chain.from_iterable(document.tokens for document in documents))
        offsets = _sentence_offsets(documents)
        lengths = np.diff(offsets)
        pieces = cut(lengths)
        sizes = pieces.sizes
        long = lengths > LONGEST
        sentences: list[Document] = []
        if self._contextual:
            sentences = [each for document in in_context(documents) for each in _sentences(document)]
        results = []
        marks = self.label_tables.marks if errors else None
        # Parts, because the vectors of new words are only forgotten between them.
        for part in np.split(np.arange(len(sizes)), _cuts(sizes)):
            own = Pieces(pieces.sentences[part], pieces.starts[part], pieces.ends[part])
            results.append(
                predict(
                    self._backend,
                    self._features(tokens, offsets, sentences, own),
                    own.sizes,
                    Wanted(probabilities or (n_best > 0 and bool(long.any())), n_best, marginals, marks),
                    per_batch=PER_BATCH if long.any() else None,
                )
            )
        tables = concatenate(results)
        if long.any():
            tables = join(tables, pieces, lengths, joints(self.label_tables))
        return Predictions(self.label_tables, offsets, tables, long)

    def activations(self, document: Document) -> Activations:
        """Return what the parts of the network say of a sentence.

        Raises:
            NertoolError: The sentence is too long: it would be tagged in windows.
            CorpusError: It lacks a column that the model reads.
        """
        if len(document) > LONGEST:
            raise NertoolError(
                f"a sentence of {len(document):,} tokens is too long to look inside ({LONGEST} at most)"
            )
        for each in self.model.inputs.values():
            each.check(document)
        lengths = np.array([len(document)])
        features = self._features(list(document.tokens), np.array([0, *lengths]), [document], cut(lengths))
        return self._backend.activations(features, *token_indices(lengths, np.array([0])))

    def attention(self, document: Document) -> np.ndarray:
        """Return how much each token of a sentence attends to each, (heads, from, to); rows sum to 1.

        Raises:
            NertoolError: The model has no attention, or the sentence is too long.
        """
        found = self.activations(document)
        if not found.complete:
            raise NertoolError("an exported model does not show its attention; name the run directory")
        if found.attention is None:
            raise NertoolError("this model has no attention; train one with --set model.attention.kind=multi_head")
        return found.attention

    def _features(
        self, tokens: list[str], offsets: np.ndarray, sentences: list[Document], pieces: Pieces
    ) -> Features:
        """Encode consecutive pieces.

        Args:
            tokens: Of all sentences.
            offsets: Where each sentence begins among these.
            sentences: All sentences, if an input looks at more than forms.
            pieces: The pieces.
        """
        begins, sizes = offsets[pieces.sentences] + pieces.starts, pieces.sizes
        start, end = (int(begins[0]), int(begins[-1] + sizes[-1])) if len(sizes) else (0, 0)
        forms, vectors = self._encode(tokens[start:end])
        if int(sizes.sum()) != end - start:  # windows overlap
            forms = forms[
                np.repeat(begins - start - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
            ]
        tables: dict[str, Table] = {}
        if self._contextual:
            own = _windows(sentences, pieces)
            inputs = self.model.inputs
            with no_fork():  # it may import something
                tables = {name: inputs[name].encode_documents(own) for name in self._contextual}
        return Features(forms, vectors, tables)

    def _encode(self, tokens: list[str]) -> tuple[np.ndarray, Array | None]:
        """Return the form of each token, (tokens,), and vectors of all forms."""
        if not self.model.context_free:
            return np.zeros(len(tokens), np.int32), None
        with no_fork(), self._lock:
            # Taken out while it is worked on: an interrupt leaves none rather than one whose parts disagree.
            cache, self._cache = self._cache, None
            if cache is None or len(cache.forms) > FORMS_KEPT:
                cache = _FormVectors(self.model, self._backend)
            numbers = np.fromiter(map(cache.forms.__getitem__, tokens), np.int32, len(tokens))
            vectors = cache.vectors()
            self._cache = cache
        return numbers, vectors


def _backend(model: Outline) -> Backend:
    if isinstance(model, ExportedModel):
        return model.backend
    with no_fork():
        from nertool.model.model import Model
        from nertool.tagging.torch_backend import TorchBackend

    if not isinstance(model, Model):
        raise TypeError(f"expected a model and got {type(model).__name__}")
    return TorchBackend(model.network)


class _FormVectors:
    """Forms with their vectors."""

    def __init__(self, model: Outline, backend: Backend) -> None:
        self.forms = model.new_forms()
        self._backend = backend
        self._count = 0
        self._vectors: Array | None = None

    def vectors(self) -> Array:
        """Return the vectors of all forms, with rows to spare at the end."""
        total = len(self.forms)
        if self._vectors is None or total > self._count:
            new = self._backend.form_vectors(self.forms.drain())
            self._vectors = self._backend.append(self._vectors, self._count, new)
            self._count = total
        return self._vectors


def _sentences(document: Document) -> list[Document]:
    return list(document.sentences()) if document.tokens else [document]


def _sentence_offsets(documents: Sequence[Document]) -> np.ndarray:
    """Return where each sentence begins among the tokens of all documents, and their number, (sentences + 1,)."""
    starts: list[int] = []
    position = 0
    for document in documents:
        if len(document.sentence_starts) > 1:
            starts += [position + start for start in document.sentence_starts]
        else:
            starts.append(position)
        position += len(document.tokens)
    return np.array([*starts, position], np.int64)


def windows_of(documents: Sequence[Document]) -> list[Document]:
    """Return what a predictor encodes of documents: their sentences, and windows of those that are too long."""
    return _windows(
        [each for document in in_context(documents) for each in _sentences(document)],
        cut(np.diff(_sentence_offsets(documents))),
    )


def _windows(sentences: Sequence[Document], pieces: Pieces) -> list[Document]:
    places = zip(*(each.tolist() for each in (pieces.sentences, pieces.starts, pieces.ends)), strict=True)
    return [_window(sentences[sentence], first, last) for sentence, first, last in places]


def _window(sentence: Document, start: int, end: int) -> Document:
    return sentence if end - start == len(sentence) else sentence.part(start, end)


def _cuts(sizes: np.ndarray) -> np.ndarray:
    """Return where to cut a row of pieces into parts of `TOKENS_AT_ONCE` tokens, or a piece more."""
    return np.flatnonzero(np.diff((np.cumsum(sizes) - sizes) // TOKENS_AT_ONCE)) + 1
