"""A trained model at work: text or tokens in, entities with exact character offsets out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nertool.tagging.bundle import Model, load_bundle
from nertool.tagging.labeller import Labeller
from nertool.text.schemes import PREFIXES, Scheme, Span, convert, spans, split_label
from nertool.text.tokenization import Rules

TOKENS_AT_ONCE = 20_000
LEAST_MARGINAL = 0.001
"""Labels that are less probable are left out of `Tagged.marginals`."""


@dataclass(frozen=True)
class Entity:
    """A stretch of text with a type: `text[start:end]` of the whole text is `text`.

    Attributes:
        start, end: In characters, end exclusive.
        label: Its type.
        text: Its characters.
        score: Probability that its tokens carry exactly these labels, jointly, under the model.
    """

    start: int
    end: int
    label: str
    text: str
    score: float


@dataclass(frozen=True)
class Alternative:
    """One of the most probable readings of a sentence.

    Attributes:
        probability: Of all its labels together, under the model.
        labels: Of each token of the sentence, in IOB2 or as plain tags.
        entities: As in `Tagged`, with offsets in the whole text; without a score of their own.
    """

    probability: float
    labels: list[str]
    entities: list[tuple[int, int, str]]


@dataclass(frozen=True)
class Tagged:
    """A text with its tokens, their labels, and the entities.

    Attributes:
        text: As it was given; for tokens, these joined by blanks.
        tokens: As given; those of a text without blank ones.
        offsets: Where each token begins and ends in the text.
        labels: Of each token, in IOB2; plain tags where the model was trained on such.
        entities: In order; empty for plain tags.
        sentences: Where each sentence ends among the tokens.
        alternatives: For each sentence its n best readings, the most probable first, where these were asked for.
        marginals: For each token the probability of each label that has at least `LEAST_MARGINAL`, the most
            probable first, where these were asked for. Labels are those of `labels`, whatever scheme was learnt;
            of an IOB1 model its own, for there an I- may begin an entity or go on with one.
        cut_sentences: How many sentences were so long that they were tagged in windows (see `model.windows`).
    """

    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    labels: list[str]
    entities: list[Entity]
    sentences: list[int]
    alternatives: list[list[Alternative]] = field(default_factory=list)
    marginals: list[dict[str, float]] = field(default_factory=list)
    cut_sentences: int = 0

    def to_json(self) -> dict[str, Any]:
        """As `nertool tag --format jsonl` writes it."""
        tree: dict[str, Any] = {
            "text": self.text,
            "tokens": self.tokens,
            "labels": self.labels,
            "entities": [vars(entity) for entity in self.entities],
        }
        if self.alternatives:
            tree["alternatives"] = [[vars(each) for each in sentence] for sentence in self.alternatives]
        if self.marginals:
            tree["marginals"] = self.marginals
        if self.cut_sentences:
            tree["cut_sentences"] = self.cut_sentences
        return tree


@dataclass(frozen=True)
class _Text:
    text: str
    offsets: list[tuple[int, int]]
    tokens: list[str]
    ends: list[int]


class Tagger:
    """Finds entities with a trained model.

    Args:
        model: As read by `load_bundle`.
        min_score: Entities with a lower score are left out, and their tokens labelled O.
        n_best: How many readings of each sentence `Tagged.alternatives` holds.
        marginals: Whether `Tagged.marginals` holds the probabilities of each token's labels.
    """

    def __init__(self, model: Model, *, min_score: float = 0.0, n_best: int = 0, marginals: bool = False) -> None:
        self.model = model
        self.min_score = min_score
        self.n_best = n_best
        self.marginals = marginals
        self._labeller = Labeller(model)
        self._shown_labels = _shown_labels(model.lexicon.labels, model.lexicon.scheme)
        self._cut = Rules(model.config.language)

    @classmethod
    def load(
        cls, folder: str | Path, *, min_score: float = 0.0, n_best: int = 0, marginals: bool = False
    ) -> Tagger:
        """Loads the model in a run directory; other arguments as for the class.

        Raises:
            BundleError: It is not a model, or a damaged one.
        """
        return cls(load_bundle(Path(folder)), min_score=min_score, n_best=n_best, marginals=marginals)

    def tag(self, text: str) -> Tagged:
        """Tags one text of any number of sentences."""
        return next(self.tag_texts([text]))

    def tag_texts(self, texts: Iterable[str]) -> Iterator[Tagged]:
        """Tags texts one after another, as a stream: memory does not grow with their number.

        Tokens and sentences come from spaCy's rules for the language of the config.

        Raises:
            ConfigError: spaCy has no such language, or lacks a package for it.
        """
        yield from self._tag_in_parts(self._tokenise(text) for text in texts)

    def tag_tokens(self, sentences: Iterable[Sequence[str]]) -> Iterator[Tagged]:
        """Tags sentences given as tokens, as a stream."""
        yield from self._tag_in_parts(map(_join, sentences))

    def attention(self, text: str) -> list[tuple[list[str], np.ndarray]]:
        """How much each token attends to each.

        Returns:
            For each sentence its tokens, and weights (heads, tokens, tokens): from, to; rows sum to 1.

        Raises:
            NertoolError: The model has no attention.
        """
        found = self._tokenise(text)
        sentences = [found.tokens[start:end] for start, end in zip([0, *found.ends], found.ends, strict=False)]
        return [(tokens, self._labeller.attention(tokens)) for tokens in sentences]

    def _tag_in_parts(self, texts: Iterable[_Text]) -> Iterator[Tagged]:
        waiting: list[_Text] = []
        count = 0
        for text in texts:
            waiting.append(text)
            count += len(text.tokens) + 1
            if count >= TOKENS_AT_ONCE:
                yield from self._tag_together(waiting)
                waiting, count = [], 0
        yield from self._tag_together(waiting)

    def _tokenise(self, text: str) -> _Text:
        offsets, ends = self._cut(text)
        return _Text(text, offsets, [text[start:end] for start, end in offsets], ends)

    def _tag_together(self, texts: list[_Text]) -> Iterator[Tagged]:
        sentences = [
            text.tokens[start:end]
            for text in texts
            for start, end in zip([0, *text.ends], text.ends, strict=False)
        ]
        scheme = self.model.lexicon.scheme
        found = self._labeller.label(
            sentences,
            probabilities=scheme is not Scheme.PLAIN,
            n_best=self.n_best,
            marginals=self.marginals,
        )
        number = 0
        for text in texts:
            entities: list[Entity] = []
            labels: list[str] = []
            alternatives: list[list[Alternative]] = []
            marginals: list[dict[str, float]] = []
            for first in [0, *text.ends][: len(text.ends)]:
                own = found.labels[number]
                shown = convert(own, scheme, _shown(scheme))
                for span in spans(own, scheme):
                    score = found.probability(number, span.start, span.end)
                    if score < self.min_score:
                        shown[span.start : span.end] = ["O"] * (span.end - span.start)
                        continue
                    start, end = _place(text, first, span)
                    entities.append(Entity(start, end, span.type, text.text[start:end], round(score, 6)))
                labels += shown
                if self.marginals:
                    marginals += self._probabilities(found.marginals(number))
                if self.n_best:
                    alternatives.append(
                        [
                            Alternative(
                                round(probability, 6),
                                convert(row, scheme, _shown(scheme)),
                                [(*_place(text, first, span), span.type) for span in spans(row, scheme)],
                            )
                            for row, probability in found.alternatives[number]
                        ]
                    )
                number += 1
            cut = int(found.cut[number - len(text.ends) : number].sum())
            yield Tagged(
                text.text, text.tokens, text.offsets, labels, entities, text.ends, alternatives, marginals, cut
            )

    def _probabilities(self, marginals: np.ndarray) -> list[dict[str, float]]:
        """For each token its labels as they are shown, with their probabilities; of (tokens, learnt labels)."""
        names, table = self._shown_labels
        found: list[dict[str, float]] = [{} for _ in marginals]
        shown = marginals @ table
        rows, columns = np.nonzero(shown >= LEAST_MARGINAL)
        values = shown[rows, columns]
        order = np.lexsort((-values, rows))
        for row, column, value in zip(*(each[order].tolist() for each in (rows, columns, values)), strict=True):
            found[row][names[column]] = round(value, 6)
        return found


def _place(text: _Text, first: int, span: Span) -> tuple[int, int]:
    """Where in the text the entity is that a sentence, whose first token is `first`, has at these tokens."""
    return text.offsets[first + span.start][0], text.offsets[first + span.end - 1][1]


def _shown(scheme: Scheme) -> Scheme:
    return scheme if scheme is Scheme.PLAIN else Scheme.IOB2


def _shown_labels(labels: list[str], scheme: Scheme) -> tuple[list[str], np.ndarray]:
    """The labels in the scheme that is shown, and which learnt ones each stands for, (learnt, shown)."""
    row = PREFIXES.get(scheme)
    names = list(labels)
    if row is not None and row.split is None:
        shown = {row.begin: "B", row.single: "B", row.inside: "I", row.end: "I"}
        names = [f"{shown[prefix]}-{kind}" if kind else prefix for prefix, kind in map(split_label, labels)]
    distinct = list(dict.fromkeys(names))
    return distinct, np.array([[float(name == other) for other in distinct] for name in names])


def _join(tokens: Sequence[str]) -> _Text:
    offsets = []
    at = 0
    for token in tokens:
        offsets.append((at, at + len(token)))
        at += len(token) + 1
    return _Text(" ".join(tokens), offsets, list(tokens), [len(tokens)] if tokens else [])
