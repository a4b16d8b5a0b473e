"""A training that starts from the weights of another model: checks, and what its data does not annotate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nertool.config.schema import Config
from nertool.data.corpus import Corpus, Split
from nertool.errors import ConfigError, CorpusError
from nertool.model.growing import check_settings
from nertool.model.model import Model
from nertool.tagging.bundle import load_bundle
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.text.schemes import OUTSIDE, Scheme, encode, spans, split_label


@dataclass(frozen=True)
class Start:
    """What a training took over from another model.

    Attributes:
        path: The model's folder.
        inputs: What its inputs were, in words.
        new_types: Types of entities (or tags) that it did not know.
        missing: Its types that the training split does not annotate.
        kept: Whether these are unknown there, where the split has O.
        filled: How many entities the model labelled in the training split, by type; None: it was not asked to.
        unscored: For each split that is scored, the types that it does not annotate.
    """

    path: str
    inputs: dict[str, str]
    new_types: list[str]
    missing: list[str]
    kept: bool
    filled: Counter[str] | None
    unscored: dict[str, list[str]]

    def notes(self) -> list[str]:
        """Say what was taken over, for a person."""
        inputs = "; ".join(f"{name}: {text}" for name, text in self.inputs.items())
        new = f"; new types: {', '.join(self.new_types)}" if self.new_types else ""
        notes = [f"starts from the weights of {self.path} ({inputs}){new}"]
        types = ", ".join(self.missing)
        if self.filled is not None:
            counts = ", ".join(f"{type_} {count:,}" for type_, count in sorted(self.filled.items()))
            notes.append(
                f"train: {self.path} labelled {self.filled.total():,} entities where the split has O"
                + (f": {counts}" if counts else "")
            )
        if self.kept:
            notes.append(f"train: {types} are not annotated; where the split has O, a token may be one of them")
        for name, unscored in self.unscored.items():
            notes.append(f"{name}: {', '.join(unscored)} are not annotated, so predictions of them are not scored")
        return notes

    def warning(self) -> str:
        """Say what the model will unlearn; "" if nothing."""
        if not self.missing or self.kept or self.filled is not None:
            return ""
        return (
            f"train: {', '.join(self.missing)} of the model are not annotated, so that it unlearns them: O says "
            "that a token is no entity. start.keep_labels (--keep-labels) or start.self_label (--self-label) "
            "keeps them"
        )


def load_start(config: Config) -> Model | None:
    """Load the model that a config starts from.

    Args:
        config: With paths that exist.

    Returns:
        The model; None where the config names none.

    Raises:
        BundleError, ConfigError: It cannot be loaded, or its network is another than the config's.
    """
    if config.start.model is None:
        return None
    model = load_bundle(Path(config.start.model))
    check_settings(config, model.config, config.start.model)
    return model


def start_from(model: Model, corpus: Corpus, config: Config) -> tuple[Corpus, Start]:
    """Fit a corpus to the model that training starts from.

    Args:
        model: The model.
        corpus: Its splits, as they were read.
        config: That names the model, and says what becomes of types that the training split does not annotate.

    Returns:
        The splits: they know which types they do not annotate, and the training split has labels of the model if
        these are wanted.

    Raises:
        ConfigError, CorpusError: The labels do not fit the model, or a setting has no effect.
    """
    check_scheme(model, corpus.train, config)
    start = config.start
    wanted = [name for name in ("keep_labels", "self_label") if getattr(start, name)]
    train, splits = corpus.train, corpus.splits
    own = set((corpus.whole or train).entity_counts())  # a part may lack a type that is annotated
    missing = missing_types(model, own)
    if wanted and not missing:
        raise ConfigError(
            f"start.{wanted[0]}: has no effect, because the training data annotates all types of the model "
            f"({', '.join(sorted(own)) or 'which has plain tags'})"
        )
    unscored: dict[str, frozenset[str]] = {}
    filled = None
    if wanted:
        unscored = {
            name: frozenset(missing).difference(split.entity_counts())
            for name, split in splits.items()
            if name != "train"
        }
        if start.self_label:
            documents, filled = fill_in(train.documents, Predictor(model), missing)
            train = replace(train, documents=documents)
        if start.keep_labels:
            train = replace(train, unannotated=frozenset(missing))
    known = set(model.labels)
    new = {label for label in train.label_counts() if label} - known
    return Corpus(
        train,
        replace(corpus.validation, unannotated=unscored.get("validation", frozenset())),
        None if corpus.test is None else replace(corpus.test, unannotated=unscored.get("test", frozenset())),
    ), Start(
        path=str(start.model),
        inputs={name: each.describe() for name, each in model.inputs.items()},
        new_types=sorted({_type(label, model.scheme) for label in new} - set(types_of(model))),
        missing=missing,
        kept=start.keep_labels,
        filled=filled,
        unscored={name: sorted(types) for name, types in unscored.items() if types},
    )


def check_scheme(model: Model, train: Split, config: Config) -> None:
    """Refuse labels of another scheme than the model's.

    Raises:
        ConfigError, CorpusError: They are; says what to set.
    """
    if train.label_scheme is model.scheme:
        return
    if Scheme.PLAIN in (train.label_scheme, model.scheme):
        kinds = ("plain tags", "entities") if train.label_scheme is Scheme.PLAIN else ("entities", "plain tags")
        raise CorpusError(
            f"has {kinds[0]}, and the model to start from, {config.start.model}, gives {kinds[1]}", train.path
        )
    if train.unknown_count:
        raise CorpusError(
            f"some tokens have no label, so that its labels stay in {train.label_scheme}, and the model to start "
            f"from, {config.start.model}, learnt {model.scheme}; label all tokens, or write the labels in "
            f"{model.scheme}",
            train.path,
        )
    raise ConfigError(
        f"corpus.learn_scheme: {config.corpus.learn_scheme}, and the model to start from, {config.start.model}, "
        f"learnt {model.scheme}; set corpus.learn_scheme={model.scheme}"
    )


def types_of(model: Model) -> list[str]:
    """Return the types of entities that a model knows (of plain tags: the tags), sorted."""
    return sorted({_type(label, model.scheme) for label in model.labels} - {""})


def missing_types(model: Model, own: Collection[str]) -> list[str]:
    """Return the types of a model that are not among those that data annotates; none of a model of plain tags."""
    return [] if model.scheme is Scheme.PLAIN else [each for each in types_of(model) if each not in own]


def fill_in(
    documents: Sequence[Document], predictor: Predictor, types: Collection[str]
) -> tuple[list[Document], Counter[str]]:
    """Let a model label its types where documents have O.

    Args:
        documents: With labels in the model's scheme.
        predictor: Of the model.
        types: That it may add; the documents have none of them.

    Returns:
        The documents, and the number of new entities of each type. A prediction that overlaps an entity, or a
        token without a label, is left out.
    """
    counts: Counter[str] = Counter()
    scheme = predictor.model.scheme
    rows = iter(predictor.predict(documents).labels)
    result = []
    for document in documents:
        labels = list(document.labels or ())
        for start, end in document.bounds or [(0, 0)]:
            new = [
                span
                for span in spans(next(rows), scheme)
                if span.type in types and set(labels[start + span.start : start + span.end]) == {OUTSIDE}
            ]
            if not new:
                continue
            counts.update(span.type for span in new)
            # Nothing that was there has these types, so that no label beside them changes.
            written = encode(new, end - start, scheme)
            for span in new:
                labels[start + span.start : start + span.end] = written[span.start : span.end]
        result.append(document if tuple(labels) == document.labels else document.with_labels(labels, scheme))
    return result, counts


def _type(label: str, scheme: Scheme) -> str:
    return label if scheme is Scheme.PLAIN else split_label(label)[1]
