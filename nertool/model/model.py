"""`Model`: a network with the vocabularies that it takes to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nertool.config.schema import Config
from nertool.data.vocabulary import count_labels
from nertool.errors import ConfigError
from nertool.model.building import refuse_huge
from nertool.model.concurrency import fork_safe
from nertool.model.crf import Constraints
from nertool.model.growing import copy_weights
from nertool.model.inputs import input_class
from nertool.model.inputs.base import Input, Resources, grown
from nertool.model.network import Network
from nertool.model.outline import MOST_LABELS, Outline
from nertool.text.document import Document
from nertool.text.schemes import OUTSIDE, Scheme, allowed_transitions, is_text


@dataclass
class Model(Outline):
    """A network with all that it takes to use it.

    Attributes:
        network: The weights.
    """

    network: Network


def build_network(config: Config, labels: Sequence[str], scheme: Scheme, inputs: Mapping[str, Input]) -> Network:
    """Build a network for these vocabularies, on the current default device; its weights are not drawn."""
    constraints = Constraints(*allowed_transitions(labels, scheme))
    return Network(inputs, len(labels), config.model, constraints, seed=config.training.seed)


def fit_labels(documents: Iterable[Document], scheme: Scheme, more: Iterable[str] = ()) -> list[str]:
    """Collect the labels of the training documents, O first.

    Args:
        documents: With labels in the scheme.
        scheme: Of the labels.
        more: Labels to know besides.

    Raises:
        ConfigError: There are too many labels, or one is not text.
    """
    labels = {label for label in count_labels(documents) if label} | set(more)
    if wrong := [label for label in labels if not is_text(label)]:
        raise ConfigError(f"the label {wrong[0][:60]!r} has a control character or half a character in it")
    if len(labels) > MOST_LABELS:
        raise ConfigError(
            f"there are {len(labels):,} labels, and at most {MOST_LABELS:,} can be learnt: check the label column"
        )
    if scheme is not Scheme.PLAIN:
        labels.add(OUTSIDE)  # belongs to every scheme of spans, seen or not
    return sorted(labels, key=lambda label: (label != OUTSIDE, label))


@fork_safe
def new_model(
    config: Config,
    documents: Sequence[Document],
    scheme: Scheme,
    resources: Resources,
    more_labels: Iterable[str] = (),
    start: Model | None = None,
) -> Model:
    """Make a model before training: vocabularies of the training documents, weights drawn by the config's seed.

    Args:
        config: Of the run.
        documents: The training split, and no other.
        scheme: Of their labels.
        resources: Files that inputs are fitted with.
        more_labels: Labels to know besides those of the documents.
        start: A trained model of the same scheme, whose labels, vocabularies and weights are taken over; what is
            new comes after them. See `growing.check_settings` for the config. None: a new model.

    Raises:
        ConfigError: The sizes are impossible, or an input cannot be fitted.
    """
    labels = fit_labels(documents, scheme, (*more_labels, *(() if start is None else start.labels)))
    if start is not None:
        labels = grown(start.labels, labels)
    inputs = {
        name: input_class(entry).fit(name, entry, documents, resources)
        if start is None
        else start.inputs[name].grow(entry, documents, resources)
        for name, entry in config.active_inputs.items()
    }
    try:
        network = build_network(config, labels, scheme, inputs)
        sparse = set(map(id, network.sparse_parameters()))
        refuse_huge((each for each in network.parameters() if id(each) not in sparse), times=3)
        refuse_huge(network.parameters())
        network.initialize(config.training.seed)
    except (RuntimeError, MemoryError) as problem:
        raise ConfigError(f"model: a network of these sizes cannot be built: {problem}") from None
    for name, each in inputs.items():
        each.initial_weights(resources, network.input(name))
    if start is not None:
        copy_weights(start.network, network)
        for name, each in inputs.items():
            each.adopted_weights(start.inputs[name], resources, network.input(name))
    return Model(config, labels, scheme, inputs, network)
