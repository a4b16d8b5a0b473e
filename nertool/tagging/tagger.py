"""A trained model at work: text, tokens or documents in, documents with entities at exact offsets out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from nertool.errors import BundleError, NertoolError
from nertool.forking import no_fork
from nertool.model.outline import Outline
from nertool.tagging.exported import ExportedModel
from nertool.tagging.inside import Inside, look_inside
from nertool.tagging.loading import fingerprint, load_model, locate
from nertool.tagging.predictor import Predictions, Predictor
from nertool.text.document import Alternative, Document
from nertool.text.schemes import Scheme, convert, spans
from nertool.text.tokenization import MOST_TOKENS, SpacyTokenizer, tokenize

TOKENS_AT_ONCE = 20_000
_LABELS_AT_ONCE = 2_000_000  # in the n best label sequences of all tokens
MOST_LABELS = 20_000_000
"""Of one document, in all of its n best label sequences."""
_MARGINALS = 10  # the probabilities of a token's labels take as much memory as so many labels
LEAST_MARGINAL = 0.001
"""Labels that are less probable are left out of `Document.marginals`."""


class Tagger:
    """Finds entities with a trained model.

    Labels of the documents that it returns are in IOB2, whatever scheme the model learned, or plain tags. Several
    threads may share a tagger. It can be pickled: a loaded one as the name of its folder, which must still hold
    the same model where the tagger is unpickled, any other one as the bytes of its model.

    >>> import nertool
    >>> tagger = nertool.Tagger.load("runs/small")  # the model of `nertool.train`
    >>> document = tagger("Ada lives in London. She likes it.")
    >>> document.tokens[3], document.offsets[3], len(document.sentence_starts)
    ('London', (13, 19), 2)
    >>> all(0.0 <= entity.score <= 1.0 for entity in document.entities)
    True
    >>> [document.text for document in tagger.pipe(["Ada lives in London.", "She likes it."])]
    ['Ada lives in London.', 'She likes it.']

    Args:
        model: As `load_model` reads it.
        min_score: Entities with a lower score are left out, and their tokens labelled O.
        n_best: How many label sequences of each sentence `Document.alternatives` holds.
        marginals: Whether `Document.marginals` holds the probabilities of each token's labels.

    Raises:
        NertoolError: `min_score` is no probability.
    """

    def __init__(
        self, model: Outline, *, min_score: float = 0.0, n_best: int = 0, marginals: bool = False
    ) -> None:
        if not 0 <= min_score <= 1:  # nor NaN, which every score would pass
            raise NertoolError(f"min_score is {min_score}; expected a probability from 0 to 1")
        self.model = model
        self.min_score = min_score
        self.n_best = n_best
        self.marginals = marginals
        self.predictor = Predictor(model)
        self._tokenizer = SpacyTokenizer(model.config.language)
        self._device = "cpu"  # that it is loaded on where it is unpickled
        # The folder or file that the model was read from, and its fingerprint.
        self._source: tuple[Path, str] | None = None
        if isinstance(model, ExportedModel):
            self._source = model.path.absolute(), model.digest

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "cpu",
        min_score: float = 0.0,
        n_best: int = 0,
        marginals: bool = False,
    ) -> Tagger:
        """Load the model in a run directory or a file of `nertool export`.

        Args:
            folder: The directory or file, or `hub:owner/name@revision` for a model of the Hugging Face hub, which
                is fetched unless the cache has it.
            device: What it computes on: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`, a GPU where there is one.
            min_score: As for the class, as the others.
            n_best: The same.
            marginals: The same.

        Raises:
            BundleError: It is not a model, or a corrupt one.
            ConfigError: There is no such device.
            NertoolError: It cannot be fetched.
        """
        path = locate(folder)
        mark = fingerprint(path)
        tagger = cls(load_model(path, device), min_score=min_score, n_best=n_best, marginals=marginals)
        tagger._device = device
        if mark is not None:
            tagger._source = path.absolute(), mark
        return tagger

    def with_options(self, *, min_score: float = 0.0, n_best: int = 0, marginals: bool = False) -> Tagger:
        """Return a tagger with the same model, and all that this one has prepared, for other options."""
        other = Tagger.__new__(Tagger)
        other.__dict__.update(self.__dict__)
        other.min_score, other.n_best, other.marginals = min_score, n_best, marginals
        return other

    def __call__(self, text: str) -> Document:
        """Tag one text, as `tag` does."""
        return self.tag(text)

    def tag(self, text: str) -> Document:
        """Tag one text of any number of sentences.

        Raises:
            TypeError: It is not a string.
            ConfigError: spaCy has no such language, or lacks a package for it.
            CorpusError: The model reads a column, which text does not have.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"tag takes one text, a string, and got {_kind(text)}; use tag_texts for several texts, "
                "tag_tokens for sentences of tokens"
            )
        return next(self.tag_texts([text]))

    def tag_texts(self, texts: Iterable[str]) -> Iterator[Document]:
        """Tag texts one after another, as a stream: memory does not grow with their number.

        Tokens and sentences come from spaCy's rules for the language of the config.

        Raises:
            TypeError: It is one string, or one of the texts is not a string.
            ConfigError, CorpusError: As for `tag`.
        """
        if isinstance(texts, str | bytes):
            raise TypeError(f"tag_texts takes several texts and got {_kind(texts)}; use tag(text), or pass [text]")
        return self._tag_in_parts(map(self._tokenize, _iterate(texts, "tag_texts", "texts")))

    pipe = tag_texts

    def tag_tokens(self, sentences: Iterable[Sequence[str]]) -> Iterator[Document]:
        """Tag sentences given as tokens, as a stream.

        Raises:
            TypeError: It is one string, or one of the sentences is not a sequence of strings.
            CorpusError: The model reads a column: use `tag_documents`.
        """
        if isinstance(sentences, str | bytes):
            raise TypeError(
                f"tag_tokens takes sentences of tokens, such as [['Ada', 'left', 'Lisbon']], and got "
                f"{_kind(sentences)}; use tag(text) for a text"
            )
        return self._tag_in_parts(map(_sentence, _iterate(sentences, "tag_tokens", "sentences of tokens")))

    def tag_documents(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Tag documents of any reader, as a stream. All but labels, scores and what comes with them stays.

        Raises:
            TypeError: It is one document, or one of the documents is something else.
            CorpusError: A document lacks a column that the model reads.
        """
        if isinstance(documents, Document):
            raise TypeError("tag_documents takes several documents and got one; pass [document]")
        return self._tag_in_parts(map(_document, _iterate(documents, "tag_documents", "documents")))

    def attention(self, text: str) -> list[tuple[list[str], np.ndarray]]:
        """Return how much each token attends to each.

        Returns:
            For each sentence its tokens, and weights (heads, from, to); rows sum to 1.

        Raises:
            NertoolError: The model has no attention.
        """
        return [
            (list(sentence.tokens), self.predictor.attention(sentence))
            for sentence in (self._tokenize(text).sentences() if text.strip() else ())
        ]

    def inside(self, text: str | Document) -> list[Inside]:
        """Return for each sentence what the model computes on its way to the labels.

        `nertool.look` draws it.

        >>> import nertool
        >>> tagger = nertool.Tagger.load("runs/small")
        >>> (inside,) = tagger.inside("Ada lives in London.")
        >>> inside.marginals.shape == (len(inside.tokens), len(inside.labels))
        True
        >>> [(trace.kind, trace.backward, list(trace.gates)) for trace in inside.traces]
        [('lstm', False, ['input', 'forget', 'output']), ('lstm', True, ['input', 'forget', 'output'])]

        Args:
            text: Or a document, where the model reads columns.

        Raises:
            TypeError: It is neither.
            NertoolError: A sentence is too long.
            CorpusError: It lacks a column that the model reads.
        """
        document = text if isinstance(text, Document) else self._tokenize(text)
        sentences = document.sentences() if document.tokens else ()
        return [look_inside(self.predictor, sentence) for sentence in sentences]

    def __getstate__(self) -> dict[str, Any]:
        options = {"min_score": self.min_score, "n_best": self.n_best, "marginals": self.marginals}
        files = None
        if self._source is None:
            from nertool.model.model import Model
            from nertool.tagging.bundle import pack

            assert isinstance(self.model, Model)
            files = pack(self.model)
        return {"source": self._source, "device": self._device, "files": files, "options": options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        source = state["source"]
        model: Outline
        if source is None:
            from nertool.tagging.bundle import unpack

            model = unpack(state["files"], "the model of a tagger")
        else:
            path, digest = source
            found = fingerprint(path)
            if found in (None, digest):
                model = load_model(path, state.get("device", "cpu"))
                found = model.digest if isinstance(model, ExportedModel) else found
            if found != digest:
                raise BundleError(f"{path}: the model was replaced after the tagger loaded it; load it again")
        Tagger.__init__(self, model, **state["options"])
        self._source, self._device = source, state.get("device", "cpu")

    def _tokenize(self, text: str) -> Document:
        if not isinstance(text, str):
            raise TypeError(f"expected a text, a string, and got {_kind(text)}")
        return tokenize(text, self._tokenizer)

    def _tag_in_parts(self, documents: Iterable[Document]) -> Iterator[Document]:
        waiting: list[Document] = []
        count = 0
        at_once = min(TOKENS_AT_ONCE, max(1, _LABELS_AT_ONCE // max(self.n_best, 1)))
        for document in documents:
            _refuse_large(document, self.n_best, self.marginals)
            waiting.append(document)
            count += len(document.tokens) + 1
            if count >= at_once:
                yield from self._tag_together(waiting)
                waiting, count = [], 0
        yield from self._tag_together(waiting)

    def _tag_together(self, documents: list[Document]) -> Iterator[Document]:
        tables = self.predictor.label_tables
        plain = tables.scheme is Scheme.PLAIN
        predictions = self.predictor.predict(
            documents, probabilities=not plain, n_best=self.n_best, marginals=self.marginals
        )
        entities = predictions.entities
        numbers = tables.shown(predictions.tables.labels, entities)
        starts, ends, scores = entities.starts, entities.ends, np.zeros(0)
        if not plain:
            scores = predictions.probabilities(starts, ends)
            left_out = scores < self.min_score
            for start, end in zip(starts[left_out].tolist(), ends[left_out].tolist(), strict=True):
                numbers[start:end] = 0
            starts, scores = starts[~left_out], scores[~left_out]
        labels = tables.shown_names[numbers].tolist()
        rounded = np.round(scores, 6).tolist()
        marginals = self._marginals(predictions) if self.marginals else []
        bounds = np.concatenate(([0], np.cumsum([len(document.tokens) for document in documents], dtype=np.int64)))
        first_entities = np.searchsorted(starts, bounds).tolist()
        cut = np.concatenate(([0], np.cumsum(predictions.cut))).tolist()
        bounds, sentence = bounds.tolist(), 0
        for number, document in enumerate(documents):
            start, end = bounds[number], bounds[number + 1]
            next_sentence = sentence + max(1, len(document.sentence_starts))
            yield replace(
                document,
                labels=tuple(labels[start:end]),
                scheme=tables.shown_scheme,
                scores=None if plain else tuple(rounded[first_entities[number] : first_entities[number + 1]]),
                alternatives=self._alternatives(document, predictions, sentence) if self.n_best else (),
                marginals=tuple(marginals[start:end]),
                cut_sentences=cut[next_sentence] - cut[sentence],
            )
            sentence = next_sentence

    def _alternatives(
        self, document: Document, predictions: Predictions, sentence: int
    ) -> tuple[list[Alternative], ...]:
        scheme, shown = predictions.label_tables.scheme, predictions.label_tables.shown_scheme
        result = []
        for number, first in enumerate(document.sentence_starts):
            own = []
            for labels, probability in predictions.alternatives[sentence + number]:
                entities = []
                for span in spans(labels, scheme):
                    start = document.offsets[first + span.start][0]
                    end = document.offsets[first + span.end - 1][1]
                    entities.append((start, end, span.type))
                own.append(Alternative(round(probability, 6), convert(labels, scheme, shown), entities))
            result.append(own)
        return tuple(result)

    def _marginals(self, predictions: Predictions) -> list[dict[str, float]]:
        """Return for each token the labels that users see with their probabilities, the most probable first."""
        names, table = predictions.label_tables.shown_shares()
        assert predictions.tables.marginals is not None
        with no_fork():  # numpy's library uses threads
            shares = predictions.tables.marginals @ table  # (tokens, shown labels)
        result: list[dict[str, float]] = [{} for _ in shares]
        rows, columns = np.nonzero(shares >= LEAST_MARGINAL)
        values = shares[rows, columns]
        order = np.lexsort((-values, rows))
        for row, column, value in zip(*(each[order].tolist() for each in (rows, columns, values)), strict=True):
            result[row][names[column]] = round(value, 6)
        return result


def _refuse_large(document: Document, n_best: int, marginals: bool) -> None:
    """Refuse a document that there would not be enough memory for.

    Raises:
        NertoolError: It has too many tokens.
    """
    count = len(document.tokens)
    most = min(MOST_TOKENS, MOST_LABELS // max(n_best, _MARGINALS if marginals else 1))
    if count > most:
        wanted = f" with {n_best} label sequences" if n_best else " with marginals" if marginals else ""
        raise NertoolError(
            f"a text of {count:,} tokens{wanted}: at most {most:,} are tagged at once; split it into several texts"
        )


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _iterate(values: Iterable[Any], method: str, wanted: str) -> Iterator[Any]:
    try:
        return iter(values)
    except TypeError:
        raise TypeError(
            f"{method} takes {wanted} (a list, or anything to iterate over) and got {_kind(values)}"
        ) from None


def _sentence(tokens: Sequence[str]) -> Document:
    if isinstance(tokens, str | bytes) or not hasattr(tokens, "__iter__"):
        raise TypeError(
            f"expected a sentence, a sequence of tokens such as ['Ada', 'left', 'Lisbon'], and got {_kind(tokens)}"
        )
    row = tuple(tokens)
    if not all(map(isinstance, row, repeat(str))):
        place, token = next((place, token) for place, token in enumerate(row) if not isinstance(token, str))
        raise TypeError(f"expected tokens that are strings, and token {place + 1} of a sentence is {_kind(token)}")
    return Document(row)


def _document(document: Document) -> Document:
    if not isinstance(document, Document):
        raise TypeError(f"expected a Document and got {_kind(document)}")
    return document
