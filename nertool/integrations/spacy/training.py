"""What `spacy train` needs of a model: labelled sentences from examples, and steps when spaCy asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from spacy.training import Example

from nertool.config.loading import locate_files, parse_config
from nertool.config.schema import READ_BY_SPACY, Config, StartConfig
from nertool.data.encoding import EncodedCorpus
from nertool.data.pieces import in_pieces
from nertool.errors import ConfigError, NertoolError
from nertool.integrations.spacy.documents import columns_read, example_documents
from nertool.model.growing import check_settings
from nertool.model.model import Model
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.text.schemes import PREFIXES, Scheme, convert
from nertool.training.preparation import build_model, read_resources
from nertool.training.schedule import learning_rate
from nertool.training.starting import fill_in
from nertool.training.step import Learner

SCHEME = Scheme.IOBES


class Sentences(NamedTuple):
    """Labelled sentences.

    Attributes:
        documents: A sentence each.
        unlabelled: How many were left out because a token has no label, or one that does not fit its boundaries.
    """

    documents: list[Document]
    unlabelled: int


def parse_settings(settings: Mapping[str, Any], language: str | None) -> Config:
    """Check the settings of a component: those of a config of nertool, all but `corpus`.

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
    if "start" in settings:
        raise ConfigError("start: name the model in the config's [initialize.components.nertool]", source)
    if "device" in (settings.get("training") or {}):
        raise ConfigError("training.device: name it beside the settings, as the component's device", source)
    config = parse_config({"language": language or "xx", **settings, "corpus": corpus}, source)
    if config.training.schedule.kind == "plateau":
        raise ConfigError("training.schedule: spaCy tells no component its scores, which plateau needs", source)
    try:
        columns_read(config)
    except ConfigError as problem:
        raise ConfigError(problem.problems, source) from None
    return config


def labelled_sentences(examples: Iterable[Example], scheme: Scheme, columns: Sequence[str]) -> Sentences:
    """Cut examples into sentences, as for tagging, with gold labels.

    Args:
        examples: Tokens and sentences are those of the predicted Docs, labels those of the references.
        scheme: Of the labels that are wanted.
        columns: That the sentences need.
    """
    documents: list[Document] = []
    unlabelled = 0
    for example in examples:
        tags = example.get_aligned_ner()
        for sentence, indices in zip(*example_documents(example, columns), strict=True):
            row = [tags[index] for index in indices.tolist()]
            # None means that nobody knows, which is not the same as no entity.
            if None in row or "-" in row:
                unlabelled += 1
                continue
            documents.append(sentence.with_labels(convert(row, Scheme.BILOU, scheme), scheme))
    return Sentences(documents, unlabelled)


def new_model(config: Config, sentences: Sentences, types: Iterable[str] = ()) -> Model:
    """Build a model before training.

    Args:
        config: From `parse_settings`.
        sentences: To learn from; the vocabulary is theirs, and that of the vectors that the config names.
        types: Types of entities to know besides those of the sentences.

    Raises:
        NertoolError: There are no sentences, a file that an input reads is missing or wrong, or the sizes are
            impossible.
    """
    if not sentences.documents:
        raise NertoolError(
            "there is nothing to learn from: no sentence of the training examples has labels for all of its "
            f"tokens ({sentences.unlabelled} lack them)"
        )
    prefixes = sorted({prefix for prefix in PREFIXES[SCHEME] if prefix})
    more = [f"{prefix}-{name}" for name in types for prefix in prefixes]
    config = locate_files(config, None)
    resources = read_resources(config, sentences.documents)
    for note in resources.notes():
        warnings.warn(note, stacklevel=2)
    return build_model(config, sentences.documents, SCHEME, resources, more)


def grown_model(
    old: Model, config: Config, sentences: Sequence[Document] = (), types: Iterable[str] = ()
) -> tuple[Model, list[str]]:
    """Make a larger model of the same weights.

    Args:
        old: The model.
        config: Of the new one, with the old one's inputs and network.
        sentences: Whose words, characters, values and labels it knows too; labels are in the old model's scheme.
        types: Types of entities to know besides those of the sentences.

    Returns:
        The model, and the files that were not found: new words have no vectors, and there are no new phrases.

    Raises:
        ConfigError, CorpusError: The network of the config is another, or a file is wrong.
    """
    place = config.start.model or "the model"
    check_settings(config, old.config, place)
    found, missing = config, []
    try:
        if not sentences:
            found = _without_files(config)
        found = locate_files(found, None)
    except ConfigError as problem:
        missing = problem.problems
        found = _without_files(config)
    prefixes = sorted({prefix for prefix in PREFIXES[old.scheme] if prefix})
    more = [f"{prefix}-{name}" for name in types for prefix in prefixes]
    model = build_model(found, sentences, old.scheme, more_labels=more, start=old)
    return replace(model, config=config), missing


def _without_files(config: Config) -> Config:
    inputs = {
        name: entry.model_copy(update=dict.fromkeys(entry.file_settings, ()))
        for name, entry in config.inputs.items()
    }
    return config.model_copy(update={"inputs": inputs, "start": StartConfig()})


class Unannotated(NamedTuple):
    """Types of entities that the examples do not annotate.

    Attributes:
        types: The types.
        unknown: Whether a token may be one of them where the examples have O.
        predictor: Of the model that labels them there; None: nothing does.
    """

    types: frozenset[str] = frozenset()
    unknown: bool = False
    predictor: Predictor | None = None


class Training:
    """Trains a model step by step, as the config that it was built with says.

    Args:
        model: Trained in place.
        sentences: How many make an epoch, for the learning rate's schedule; None: unknown, and the rate stays what
            it is at first.
        unannotated: Types of entities that the examples do not annotate.
        seen: How many sentences have been learnt from before.
    """

    def __init__(
        self, model: Model, sentences: int | None, unannotated: Unannotated | None = None, seen: int = 0
    ) -> None:
        self._model = model
        self.unannotated = unannotated or Unannotated()
        self.learner = Learner(model.network, model.config.training)
        self.epoch_size = sentences
        self._seen = seen

    def learn(self, sentences: Sequence[Document]) -> float:
        """Add the gradients of some sentences to those of the step; return the sum of their losses.

        The model knows their labels.
        """
        types, unknown, predictor = self.unannotated
        if predictor is not None:
            sentences, _ = fill_in(sentences, predictor, types)
        pieces = in_pieces(sentences, self._model.scheme)
        codes = self._model.label_codes(types if unknown else ())
        batch = EncodedCorpus(self._model.inputs, pieces, *codes).batch(np.arange(len(pieces)))
        return self.learner.accumulate(batch) * len(pieces)

    def step(self) -> None:
        """Update the weights by the mean of the gradients since the last step, if there are any.

        Raises:
            NertoolError: Training diverged.
        """
        pending = self.learner.pending
        if pending:
            self.learner.step(self._rate(pending))
            self._seen += pending

    def continued(self, model: Model) -> Training:
        """Return the training of a model that grew from this one's; its update rule starts anew."""
        return Training(model, self.epoch_size, self.unannotated, self._seen)

    def show(self) -> None:
        """Make the network what is to be scored and saved, until `learn` or `step` is called."""
        self.learner.show()

    def _rate(self, pending: int) -> float:
        """Compute the rate of the schedule as if all steps had as many sentences as this one."""
        config = self._model.config.training
        if self.epoch_size is None:
            return config.learning_rate
        steps = max(1, self.epoch_size // pending)
        epoch, done = divmod(self._seen, self.epoch_size)
        step = min(done // pending, steps - 1)
        if epoch >= config.epochs:  # spaCy goes on after the end of the schedule, with its last rate
            epoch, step = config.epochs - 1, steps - 1
        return learning_rate(config, epoch, step, steps, ())
