"""What `spacy train` needs of a model: labelled sentences out of examples, and steps as spaCy asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from spacy.training import Example

from nertool.config.files import find_all
from nertool.config.loading import parse_config
from nertool.config.schema import READ_BY_SPACY, Config
from nertool.data.batching import EncodedCorpus
from nertool.data.vectors import read_vectors
from nertool.data.vocabulary import build_lexicon
from nertool.errors import ConfigError, NertoolError
from nertool.formats.spacy_docs import doc_sentences
from nertool.model.concurrency import threads
from nertool.tagging.bundle import Model, fresh_model
from nertool.text.schemes import PREFIXES, Scheme, convert
from nertool.training.optimization import Optimization
from nertool.training.schedule import learning_rate
from nertool.training.trainer import training_threads

SCHEME = Scheme.IOBES


class Sentences(NamedTuple):
    """Labelled sentences.

    Attributes:
        tokens: The tokens of each.
        labels: Their labels.
        unlabelled: How many were left out because a token has no label, or one that does not fit its borders.
    """

    tokens: list[list[str]]
    labels: list[list[str]]
    unlabelled: int


def parse_settings(settings: Mapping[str, Any], language: str | None) -> Config:
    """Checks the settings of a component: those of a config of nertool, all but `corpus`.

    Args:
        settings: As a tree.
        language: Of the pipeline, for settings that name none; None: any.

    Raises:
        ConfigError: Settings are wrong; all are listed.
    """
    source = "settings of the nertool component"
    if "corpus" in settings:
        raise ConfigError("corpus: spaCy reads the corpora; name them in the config's [corpora]", source)
    corpus = {"train": READ_BY_SPACY, "learn_scheme": SCHEME.value}
    tree = {"language": language or "xx", **settings, "corpus": corpus}
    config = parse_config(tree, source)
    if config.training.schedule == "plateau":
        raise ConfigError("training.schedule: spaCy tells no component its scores, which plateau needs", source)
    return config


def labelled_sentences(examples: Iterable[Example], scheme: Scheme) -> Sentences:
    """Sentences of examples, cut as they would be for tagging, with gold labels.

    Args:
        examples: Tokens and sentences are those of the predicted Docs, labels those of the references.
        scheme: Of the labels that are wanted.
    """
    found = Sentences([], [], 0)
    unlabelled = 0
    for example in examples:
        tags = example.get_aligned_ner()
        for tokens, places in zip(*doc_sentences(example.predicted), strict=True):
            row = [tags[place] for place in places.tolist()]
            # None is "nobody knows", which is not "no entity".
            if None in row or "-" in row:
                unlabelled += 1
                continue
            found.tokens.append(tokens)
            found.labels.append(convert(row, Scheme.BILOU, scheme))
    return found._replace(unlabelled=unlabelled)


def build_model(config: Config, sentences: Sentences, types: Iterable[str] = ()) -> Model:
    """A model before training: its vocabulary is that of the sentences, and of the vectors that the config names.

    Args:
        config: As `parse_settings` gives it.
        sentences: To learn from.
        types: Types of entities that it shall know beside those of the sentences.

    Raises:
        NertoolError: There are no sentences, a file of vectors is missing or wrong, or the sizes are absurd.
    """
    if not sentences.tokens:
        raise NertoolError(
            "there is nothing to learn from: no sentence of the training examples has labels for all of its "
            f"tokens ({sentences.unlabelled} have not)"
        )
    paths = find_all(config.words.vectors)
    vectors = [read_vectors(paths[name]) for name in config.words.vectors]
    prefixes = sorted({prefix for prefix in PREFIXES[SCHEME] if prefix})
    more = [[f"{prefix}-{name}" for name in types for prefix in prefixes]]
    lexicon = build_lexicon(
        sentences.tokens,
        chain(sentences.labels, more),
        SCHEME,
        vectors,
        config.words.minimum_count,
        config.words.extra_rows,
    )
    try:
        return fresh_model(config, lexicon, vectors)
    except (RuntimeError, MemoryError) as problem:
        raise ConfigError(f"model: a network of these sizes cannot be built: {problem}") from None


class Learner:
    """Trains a model step by step, as the config that it was built with says.

    Gradients of any number of batches add up to a step. The network holds averaged weights (where averaging is
    on) whenever `show` was called last, and those that are trained after `learn`.

    Args:
        model: Trained in place.
        sentences: How many make an epoch, for the learning rate's schedule; None: not known, and the rate
            stays what it is at first.
    """

    def __init__(self, model: Model, sentences: int | None) -> None:
        self._model = model
        self._config = model.config.training
        self._optimization = Optimization(model.network, self._config)
        self._numbers = {label: number for number, label in enumerate(model.lexicon.labels)}
        self._epoch_size = sentences
        self._seen = 0
        self._pending = 0
        self._averaged = False

    def learn(self, tokens: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> float:
        """Adds the gradients of some sentences to those of the step; returns the sum of their losses.

        Raises:
            NertoolError: A label is none of the model's.
        """
        unknown = {label for row in labels for label in row} - self._numbers.keys()
        if unknown:
            raise NertoolError(
                f"the model does not know the labels {', '.join(sorted(unknown))}: they were in none of the "
                "examples that it was initialized with. `spacy init labels` collects the types of entities, for "
                "the config's [initialize.components]"
            )
        self._use_averages(False)
        network, count = self._model.network, training_threads(self._config)
        network.train()
        network.encoder.concurrent = count > 1
        corpus = EncodedCorpus(self._model.new_forms(), tokens, labels, self._numbers)
        with threads(max(1, count // network.encoder.branches)):
            loss = network.loss(corpus.batch(np.arange(len(tokens)))) * len(tokens)
            loss.backward()  # type: ignore[no-untyped-call]
        self._pending += len(tokens)
        return float(loss.detach())

    def step(self) -> None:
        """Updates the weights by the mean of the gradients since the last step, if there are any.

        Raises:
            NertoolError: Training diverged.
        """
        if not self._pending:
            return
        for parameter in self._model.network.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(1 / self._pending)
        self._optimization.set_rate(self._rate())
        self._optimization.step()
        self._seen += self._pending
        self._pending = 0

    def show(self) -> None:
        """Makes the network what is to be scored and saved."""
        self._use_averages(True)
        self._model.network.eval()

    def _rate(self) -> float:
        """The schedule's rate, as if all steps had as many sentences as this one; the last one, after its end."""
        if self._epoch_size is None:
            return self._config.learning_rate
        steps = max(1, self._epoch_size // self._pending)
        epoch, done = divmod(self._seen, self._epoch_size)
        step = min(done // self._pending, steps - 1)
        if epoch >= self._config.epochs:
            epoch, step = self._config.epochs - 1, steps - 1
        return learning_rate(self._config, epoch, step, steps, ())

    def _use_averages(self, wanted: bool) -> None:
        average = self._optimization.average
        if average is not None and self._averaged is not wanted:
            average.swap()
            self._averaged = wanted
