"""The spaCy component "nertool": entities by a model that was trained before, or that spaCy trains.

Every `spacy.blank()` imports this module, because it is an entry point. So heavy modules are imported where they
are used.
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
    from nertool.integrations.spacy.training import Sentences, Training
    from nertool.model.model import Model


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
    """Make the component.

    Args:
        nlp: The pipeline.
        name: Of the component in the pipeline.
        model: Run directory of a trained model; None: spaCy trains it, or it is loaded with the pipeline.
        overwrite_ents: Whether other entities that are on a Doc already give way to overlapping ones.
        settings: For training: a config of nertool as a tree, without its `corpus`; None: its defaults.
        scorer: What `nlp.evaluate` scores the component with.

    Raises:
        BundleError, ConfigError: The folder holds no model of entities, or a setting is wrong.
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
    """Cut batches of sentences of nearly one length, in random order, as `nertool train` does.

    They are drawn by numpy's generator, which spaCy seeds with `training.seed`.

    Args:
        size: Examples in a batch.
    """

    def batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
        from nertool.data.encoding import training_order

        every = list(examples)
        lengths = np.fromiter((len(example.predicted) for example in every), np.int64, len(every))
        for indices in training_order(lengths, size, np.random.default_rng(np.random.randint(2**31))):
            yield [every[index] for index in indices.tolist()]

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
        self._training: Training | None = None
        self._warned = False

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
        """Whether spaCy can train it: yes."""
        return True

    @property
    def labels(self) -> tuple[str, ...]:
        """The types of entities that it knows, sorted."""
        if self.model is None:
            return tuple(self._types)
        return tuple(sorted({kind for _, kind in map(split_label, self.model.labels) if kind}))

    @property
    def label_data(self) -> list[str]:
        """The types of entities, as `initialize` takes them."""
        return list(self.labels)

    def add_label(self, label: str) -> int:
        """Add a type of entities before there is a model; return 0 if it is there already, else 1.

        Raises:
            NertoolError: There is a model, and it does not know the type: its last layer cannot grow.
        """
        if label in self.labels:
            return 0
        if self.model is not None:
            built = f"its model in {self.source} was trained" if self.source else "its network is built"
            raise NertoolError(
                f"component {self.name!r}: {built} for the labels {', '.join(self.labels)} and cannot take "
                f"the label {label!r}: its last layer has a row for each label and cannot grow. Add labels before "
                f"nlp.initialize, or list them as [initialize.components.{self.name}] labels, and train again"
            )
        self._types.append(label)
        return 1

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: list[str] | None = None,
    ) -> None:
        """Build a model from the training examples and the settings; one that the config names stays as it is.

        Args:
            get_examples: The training examples. Vocabulary and labels come from them alone.
            nlp: The pipeline.
            labels: Types of entities to know besides those of the examples.

        Raises:
            NertoolError: No example has labels, or a file that the settings name is missing.
        """
        validate_get_examples(get_examples, "NertoolPipe.initialize")
        from nertool.integrations.spacy.documents import columns_read
        from nertool.integrations.spacy.training import (
            SCHEME,
            Training,
            labelled_sentences,
            new_model,
            parse_settings,
        )

        self._warned = False
        if self.source is not None:
            sentences = labelled_sentences(get_examples(), self._ready_model().scheme, self._columns)
        else:
            config = parse_settings(self.settings or {}, None if nlp is None else nlp.lang)
            sentences = labelled_sentences(get_examples(), SCHEME, columns_read(config))
            self._adopt(new_model(config, sentences, [*self._types, *(labels or ())]), "the examples")
        if sentences.documents:
            self._warn(sentences)
            self._training = Training(self._ready_model(), len(sentences.documents))

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Any = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn from a batch of examples.

        Args:
            examples: Sentences in which a token has no label are left out.
            drop: Not used: the settings have the model's dropout.
            sgd: Whether to update the weights at once; the update rule is that of the settings.
            losses: The sum of the sentences' losses is added to it, under the component's name.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "NertoolPipe.update")
        from nertool.integrations.spacy.training import Training, labelled_sentences

        model = super()._ready_model()  # without its averaged weights, which are not wanted between two steps
        sentences = labelled_sentences(examples, model.scheme, self._columns)
        self._warn(sentences)
        if sentences.documents:
            if self._training is None:
                self._training = Training(model, None)
            losses[self.name] += self._training.learn(sentences.documents)
        if sgd not in (None, False):
            self.finish_update(sgd)
        return losses

    def finish_update(self, sgd: Any) -> None:
        """Update the weights by nertool's rule and schedule; spaCy's optimizer is not used."""
        if self._training is not None:
            self._training.step()
            self._predictor = None  # it remembers vectors that the old weights gave

    def rehearse(self, examples: Iterable[Example], **options: Any) -> dict[str, float]:
        """Refuse: there is no such thing here.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"component {self.name!r} cannot rehearse; disable it for nlp.rehearse")

    def _ready_model(self) -> "Model":
        if self._training is not None:
            self._training.show()
        return super()._ready_model()

    def _adopt(self, model: "Model", where: str) -> None:
        super()._adopt(model, where)
        self._training = None

    def _warn(self, sentences: "Sentences") -> None:
        """Warn that sentences are left out, the first time that it happens."""
        if sentences.unlabelled and not self._warned:
            self._warned = True
            total = sentences.unlabelled + len(sentences.documents)
            warnings.warn(
                f"component {self.name!r}: {sentences.unlabelled} of {total} sentences are not learnt from, "
                "because labels are missing or do not fit the boundaries of tokens",
                stacklevel=2,
            )


def _restored(vocab: Vocab, name: str, options: dict[str, Any], data: bytes) -> NertoolPipe:
    pipe = NertoolPipe(vocab, name, **options)
    pipe.from_bytes(data, exclude=["vocab"])
    return pipe
