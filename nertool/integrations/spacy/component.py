"""The spaCy component "nertool": entities by a model that was trained before, or that spaCy trains.

Every `spacy.blank()` imports this module, because it is an entry point. So heavy modules are imported where they
are used.
"""
# No `annotations` from __future__: spaCy reads the types of a factory's arguments when it runs.

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from spacy.language import Language
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.util import logger, registry
from spacy.vocab import Vocab

from nertool.errors import ConfigError
from nertool.integrations.spacy.pipe import EntityPipe
from nertool.text.schemes import split_label

if TYPE_CHECKING:
    from nertool.integrations.spacy.training import Sentences, Training, Unannotated
    from nertool.model.model import Model
    from nertool.text.document import Document


@Language.factory(
    "nertool",
    assigns=["doc.ents", "doc.spans", "token.ent_iob", "token.ent_type"],
    default_config={
        "model": None,
        "device": "cpu",
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
    device: str,
    overwrite_ents: bool,
    settings: dict[str, Any] | None,
    scorer: Callable[..., Any] | None,
) -> "NertoolPipe":
    """Make the component.

    Args:
        nlp: The pipeline.
        name: Of the component in the pipeline.
        model: Run directory of a trained model, or `hub:owner/name@revision`; None: spaCy trains it, or it
            is loaded with the pipeline.
        device: What the model computes on, in training too: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`.
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
        nlp.vocab,
        name,
        source=model,
        device=device,
        settings=settings,
        overwrite_ents=overwrite_ents,
        scorer=scorer,
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
            "device": self.device,
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
        """Add a type of entities; return 0 if it is there already, else 1.

        A model that there is already grows, and keeps its weights.
        """
        if label in self.labels:
            return 0
        if self.model is not None:
            self._grow([label])
        else:
            self._types.append(label)
        return 1

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        labels: list[str] | None = None,
        model: str | None = None,
        keep_labels: bool = False,
        self_label: bool = False,
    ) -> None:
        """Build a model from the training examples and the settings, or let a trained one grow.

        A trained model, named here or in the component's config, keeps its weights; the words, characters and
        labels of the examples are added.

        Args:
            get_examples: The training examples. What is new in vocabulary and labels comes from them alone.
            nlp: The pipeline.
            labels: Types of entities to know besides those of the examples.
            model: Run directory of a model to start from, or one of the hub. Its settings are in force where
                the component has none.
            keep_labels: Whether types of that model which no example has are unknown, where examples have O.
            self_label: Whether that model labels these types there.

        Raises:
            NertoolError: No example has labels, a file that the settings name is missing, or the model to start
                from does not fit.
        """
        validate_get_examples(get_examples, "NertoolPipe.initialize")
        from nertool.integrations.spacy.documents import columns_read
        from nertool.integrations.spacy.training import (
            SCHEME,
            Training,
            Unannotated,
            labelled_sentences,
            new_model,
            parse_settings,
        )

        self._warned = False
        unannotated = Unannotated()
        types = [*self._types, *(labels or ())]
        if model is not None and self.source is not None:
            raise ConfigError(
                f"component {self.name!r}: its config has a model, and [initialize] another; name one"
            )
        if model is not None:
            from nertool.tagging.bundle import load_bundle
            from nertool.tagging.loading import locate

            self._adopt(load_bundle(locate(model).expanduser()), model)
        old = None if model is None and self.source is None else self._ready_model()
        if old is None and (keep_labels or self_label):
            raise ConfigError(f"component {self.name!r}: keep_labels and self_label are for a model to start from")
        if old is not None:
            sentences = labelled_sentences(get_examples(), old.scheme, self._columns)
            if sentences.documents:
                unannotated = self._find_unannotated(old, sentences, keep_labels, self_label)
                self._grow(types, sentences.documents, model or self.source, nlp)
        else:
            config = parse_settings(self.settings or {}, None if nlp is None else nlp.lang)
            sentences = labelled_sentences(get_examples(), SCHEME, columns_read(config))
            self._adopt(new_model(config, sentences, types), "the examples")
        if sentences.documents:
            self._warn(sentences)
            self._training = Training(self._ready_model(), len(sentences.documents), unannotated)

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
        found = {label for sentence in sentences.documents for label in sentence.labels or ()}
        if new := found - set(model.labels):
            self._grow(sorted({split_label(label)[1] for label in new}))
            model = super()._ready_model()
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

    def score(self, examples: Iterable[Example], **options: Any) -> dict[str, Any]:
        """Score examples; types that only the model to start from knows do not count where none has them."""
        examples = list(examples)
        kept = frozenset() if self._training is None else self._training.unannotated.types
        unscored = kept.difference(span.label_ for each in examples for span in each.reference.ents)
        if unscored:
            examples = [_without_types(each, unscored) for each in examples]
        scores: dict[str, Any] = super().score(examples, **options)
        return scores

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

    def _grow(
        self,
        types: Iterable[str],
        sentences: "Sequence[Document]" = (),
        source: str | None = None,
        nlp: Language | None = None,
    ) -> None:
        """Put a larger model of the same weights in the place of the model."""
        from nertool.config.schema import StartConfig
        from nertool.integrations.spacy.training import grown_model, parse_settings

        training = self._training
        if training is not None:
            training.step()  # with the gradients so far, and from the weights that training goes on from
            training.learner.resume()
        old = super()._ready_model()
        config = old.config
        if source is not None:
            if self.settings is not None:
                tree = config.model_dump(mode="json", include={"inputs", "model"})
                config = parse_settings({**tree, **self.settings}, None if nlp is None else nlp.lang)
            config = config.model_copy(update={"start": StartConfig(model=source)})
        model, missing = grown_model(old, config, sentences, types)
        if missing:
            warnings.warn(
                f"component {self.name!r}: the model grows without files that it once read ({'; '.join(missing)})",
                stacklevel=2,
            )
        self._adopt(model, "the examples")
        self._training = None if training is None else training.continued(model)

    def _find_unannotated(
        self, old: "Model", sentences: "Sentences", keep_labels: bool, self_label: bool
    ) -> "Unannotated":
        """Find the types of a model that no example has, and say what becomes of them."""
        from nertool.integrations.spacy.training import Unannotated
        from nertool.tagging.predictor import Predictor
        from nertool.training.starting import fill_in, missing_types

        labels = {label for sentence in sentences.documents for label in sentence.labels or ()}
        missing = missing_types(old, {split_label(label)[1] for label in labels})
        if not missing:
            if keep_labels or self_label:
                raise ConfigError(
                    f"component {self.name!r}: keep_labels and self_label have no effect, because the examples "
                    "annotate all types of the model"
                )
            return Unannotated()
        if not keep_labels and not self_label:
            warnings.warn(
                f"component {self.name!r}: no example has the types {', '.join(missing)} of the model, so that it "
                f"unlearns them; [initialize.components.{self.name}] keep_labels = true keeps them",
                stacklevel=3,
            )
            return Unannotated()
        predictor = None
        if self_label:
            predictor = Predictor(old)
            _, counts = fill_in(sentences.documents, predictor, missing)
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
            logger.info(
                "component %r: the model labels %s entities where the examples have O: %s",
                *(self.name, f"{counts.total():,}", listed or "none"),
            )
        return Unannotated(frozenset(missing), keep_labels, predictor)

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


def _without_types(example: Example, types: frozenset[str]) -> Example:
    """Return an example whose prediction has no entities of some types."""
    doc = example.predicted.copy()
    doc.set_ents([span for span in doc.ents if span.label_ not in types], default="outside")
    return Example(doc, example.reference)


def _restored(vocab: Vocab, name: str, options: dict[str, Any], data: bytes) -> NertoolPipe:
    pipe = NertoolPipe(vocab, name, **options)
    pipe.from_bytes(data, exclude=["vocab"])
    return pipe
