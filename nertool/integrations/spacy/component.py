"""The spaCy component "nertool": entities by a model that was trained before, or that spaCy trains.

Every `spacy.blank()` imports this module, for it is an entry point: what is heavy is imported where it is used.
"""
# No `annotations` from __future__: spaCy reads the types of a factory's arguments when it runs.

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from spacy.language import Language
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.util import registry
from spacy.vocab import Vocab

from nertool.errors import ConfigError, NertoolError
from nertool.integrations.spacy.pipe import EntityPipe
from nertool.text.schemes import split_label

if TYPE_CHECKING:
    from nertool.integrations.spacy.training import Learner, Sentences
    from nertool.tagging.bundle import Model


@Language.factory(
    "nertool",
    assigns=["doc.ents", "doc.spans", "token.ent_iob", "token.ent_type"],
    default_config={
        "model": None,
        "overwrite_ents": False,
        "settings": None,
        "scorer": {"@scorers": "spacy.ner_scorer.v1"},
    },
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make_nertool(
    nlp: Language,
    name: str,
    model: str | None,
    overwrite_ents: bool,
    settings: dict[str, Any] | None,
    scorer: Callable[..., Any] | None,
) -> "NertoolPipe":
    """Makes the component.

    Args:
        nlp: The pipeline.
        name: Of the component in the pipeline.
        model: Run directory of a trained model; None: spaCy trains it, or it is loaded with the pipeline.
        overwrite_ents: Whether entities that are on a Doc already give way where these overlap them.
        settings: For training: a config of nertool as a tree, without its `corpus`; None: its defaults.
        scorer: What `nlp.evaluate` scores the component with.

    Raises:
        NertoolError: The folder holds no model of entities, or a setting is wrong.
    """
    if model is not None and settings is not None:
        raise ConfigError("model and settings: a trained model has its settings; give one of the two")
    if settings is not None:
        from nertool.integrations.spacy.training import parse_settings

        parse_settings(settings, nlp.lang)
    pipe = NertoolPipe(
        nlp.vocab, name, source=model, settings=settings, overwrite_ents=overwrite_ents, scorer=scorer
    )
    pipe.load_source()
    return pipe


@registry.batchers("nertool.batch_by_length.v1")  # type: ignore[untyped-decorator]
def batch_by_length(size: int) -> Callable[[Iterable[Example]], Iterator[list[Example]]]:
    """Batches of sentences of one length, or nearly, in random order: as `nertool train` has them.

    They are drawn by numpy's generator, which spaCy seeds with `training.seed`.

    Args:
        size: Examples in a batch.
    """

    def batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
        from nertool.data.batching import training_order

        known = list(examples)
        lengths = np.fromiter((len(example.predicted) for example in known), np.int64, len(known))
        for chosen in training_order(lengths, size, np.random.default_rng(np.random.randint(2**31))):
            yield [known[number] for number in chosen.tolist()]

    return batches


class NertoolPipe(EntityPipe):
    """Sets the entities of Docs, and learns to.

    Args:
        vocab: Of the pipeline.
        name: Of the component.
        settings: For training, as in `make_nertool`.
        options: As for `EntityPipe`.
    """

    def __init__(
        self, vocab: Vocab, name: str = "nertool", *, settings: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(vocab, name, **options)
        self.settings = settings
        self._types: list[str] = []  # of entities, added before there is a model
        self._learner: Learner | None = None
        self._told = False

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            "source": self.source,
            "settings": self.settings,
            "overwrite_ents": self.overwrite_ents,
            "scorer": self.scorer,
        }
        return _restored, (self.vocab, self.name, options, self.to_bytes(exclude=["vocab"]))

    @property
    def is_trainable(self) -> bool:
        """Whether spaCy may train it: yes."""
        return True

    @property
    def labels(self) -> tuple[str, ...]:
        """The types of entities that it knows."""
        if self.model is None:
            return tuple(self._types)
        return tuple(sorted({kind for _, kind in map(split_label, self.model.lexicon.labels) if kind}))

    @property
    def label_data(self) -> list[str]:
        """The types of entities, as `initialize` takes them."""
        return list(self.labels)

    def add_label(self, label: str) -> int:
        """Adds a type of entities before there is a model; returns 0 where it is there already, else 1.

        Raises:
            NertoolError: There is a model, and it does not know the type: its last layer cannot grow.
        """
        if label in self.labels:
            return 0
        if self.model is not None:
            raise NertoolError(f"component {self.name!r}: its model is built and cannot take the label {label!r}")
        self._types.append(label)
        return 1

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: list[str] | None = None,
    ) -> None:
        """Builds a model from the training examples and the settings; one that the config names stays as it is.

        Args:
            get_examples: The training examples. Vocabulary and labels come from them alone.
            nlp: The pipeline.
            labels: Types of entities that the examples may lack.

        Raises:
            NertoolError: No example has labels, or vectors that the settings name are missing.
        """
        validate_get_examples(get_examples, "NertoolPipe.initialize")
        from nertool.integrations.spacy.training import (
            SCHEME,
            Learner,
            build_model,
            labelled_sentences,
            parse_settings,
        )

        self._told = False
        if self.source is not None:
            sentences = labelled_sentences(get_examples(), self._ready_model().lexicon.scheme)
        else:
            sentences = labelled_sentences(get_examples(), SCHEME)
            config = parse_settings(self.settings or {}, None if nlp is None else nlp.lang)
            self._adopt(build_model(config, sentences, [*self._types, *(labels or ())]), "the examples")
        if sentences.tokens:
            self._tell(sentences)
            self._learner = Learner(self._ready_model(), len(sentences.tokens))

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Any = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learns from a batch of examples.

        Args:
            examples: Sentences of which a token has no label are left out.
            drop: Not used: the settings have the model's dropout.
            sgd: Whether to update the weights at once. By which rule is for the settings to say.
            losses: The sum of the sentences' losses is added to it, under the component's name.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "NertoolPipe.update")
        from nertool.integrations.spacy.training import Learner, labelled_sentences

        model = super()._ready_model()  # its averaged weights are not wanted between two steps
        sentences = labelled_sentences(examples, model.lexicon.scheme)
        self._tell(sentences)
        if sentences.tokens:
            if self._learner is None:
                self._learner = Learner(model, None)
            losses[self.name] += self._learner.learn(sentences.tokens, sentences.labels)
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Any) -> None:
        """Updates the weights by nertool's rule and schedule; spaCy's optimizer is not asked."""
        if self._learner is not None:
            self._learner.step()
            self._labeller = None  # it remembers vectors that the old weights gave

    def rehearse(self, examples: Iterable[Example], **options: Any) -> dict[str, float]:
        """Is refused.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"component {self.name!r} cannot rehearse; disable it for nlp.rehearse")

    def _ready_model(self) -> "Model":
        if self._learner is not None:
            self._learner.show()
        return super()._ready_model()

    def _adopt(self, model: "Model", where: str) -> None:
        super()._adopt(model, where)
        self._learner = None

    def _tell(self, sentences: "Sentences") -> None:
        """Warns once that sentences are left out, when first it is so."""
        if sentences.unlabelled and not self._told:
            self._told = True
            total = sentences.unlabelled + len(sentences.tokens)
            warnings.warn(
                f"component {self.name!r}: {sentences.unlabelled} of {total} sentences are not learnt from, for "
                "labels are missing or do not fit the borders of tokens",
                stacklevel=2,
            )


def _restored(vocab: Vocab, name: str, options: dict[str, Any], data: bytes) -> NertoolPipe:
    pipe = NertoolPipe(vocab, name, **options)
    pipe.from_bytes(data, exclude=["vocab"])
    return pipe
