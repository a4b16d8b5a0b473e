"""The contract of an input: what a token brings into the network.

An input has two halves. `Input` knows the vocabulary: it is fitted on the training documents, encodes documents as
arrays, and goes into the files of a model. It imports no torch, because an exported model does without.
`InputModule`, in `nertool.model.input_modules`, turns these arrays into vectors; its weights are trained.

A new kind is one file in each of the two folders, a config class in `nertool.config.schema` and a line in
`BUILT_IN` of `nertool.model.inputs`; or a class in another package under the entry point `nertool.inputs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

from nertool.data.encoding import Table
from nertool.data.vectors import Vectors
from nertool.errors import ConfigError
from nertool.text.document import Document

if TYPE_CHECKING:
    from nertool.model.dropout import Noise
    from nertool.model.input_modules.base import InputModule


@dataclass(frozen=True)
class Resources:
    """Files that inputs are fitted with, read beforehand.

    Attributes:
        vectors: Pretrained word vectors by the name in the config.
    """

    vectors: dict[str, Vectors] = field(default_factory=dict)

    def notes(self) -> tuple[str, ...]:
        """Return what was skipped of the files, a line each."""
        return tuple(each.note for each in self.vectors.values() if each.note)


class Input(ABC):
    """The data side of an input: vocabulary and encoding. Uses no torch but in `module`.

    Attributes:
        Config: The config class of this kind; its field `kind` names the kinds.
        context_free: Whether the features of a token depend on its form alone. If so, they are encoded, and in
            tagging its vector is computed, once for each distinct form.
        name: Of the entry in the config's `inputs`.
        config: The entry.
    """

    Config: ClassVar[type]
    context_free: ClassVar[bool]

    def __init__(self, name: str, config: Any) -> None:
        self.name = name
        self.config = config

    @classmethod
    @abstractmethod
    def fit(cls, name: str, config: Any, documents: Sequence[Document], resources: Resources) -> Input:
        """Make an input with the vocabulary of the training documents, and of no others.

        Raises:
            ConfigError, CorpusError: A file is missing or wrong, or the documents lack a column.
        """

    @classmethod
    @abstractmethod
    def restore(cls, name: str, config: Any, state: Any) -> Input:
        """Make an input from its `state`.

        Raises:
            ValueError, TypeError, LookupError: It is no such state.
        """

    def grow(self, config: Any, documents: Sequence[Document], resources: Resources) -> Input:
        """Make an input with the vocabulary of this one, and after it what more training documents add.

        What is known keeps its number, so that the weights of this one are the first of the new one's tables.

        Args:
            config: The new entry; it differs in settings that are `adjustable` alone.
            documents: The new training documents.
            resources: Files that the input is fitted with.

        Raises:
            ConfigError, CorpusError: As for `fit`; or the vocabulary cannot grow.
        """
        fitted = type(self).fit(self.name, config, documents, resources)
        if fitted.state() != self.state():
            raise ConfigError(
                f"inputs.{self.name}: the vocabulary of kind {config.kind!r} cannot grow, and the new data has "
                "another one; train without start.model"
            )
        return fitted

    @abstractmethod
    def state(self) -> Any:
        """Return the vocabulary as plain JSON values, for the files of a model."""

    @abstractmethod
    def module(self, noise: Noise) -> InputModule:
        """Build the module, with its shapes; the weights are drawn by `InputModule.initialize`."""

    def initial_weights(self, resources: Resources, module: InputModule) -> None:  # noqa: B027
        """Fill pretrained values into a module whose weights have been drawn; by default there are none."""

    def adopted_weights(self, old: Input, resources: Resources, module: InputModule) -> None:  # noqa: B027
        """Set what is new in a module into which the weights of `old`, the input that grew, have been copied."""

    def outside_weights(self, module: InputModule) -> None:  # noqa: B027
        """Fill in weights that are not in the files of a model; by default there are none.

        Raises:
            NertoolError: They are not there, or are others than those of the training.
        """

    def check(self, document: Document) -> None:  # noqa: B027
        """Refuse a document that lacks what this input reads.

        Raises:
            CorpusError: A column is missing; says which, and where it would come from.
        """

    def encode_forms(self, forms: Sequence[str]) -> Table:
        """Encode forms, a row each; for context-free inputs. The form "" stands for padding."""
        raise NotImplementedError

    def encode_documents(self, documents: Sequence[Document]) -> Table:
        """Encode documents, a row for each token of all of them in order; for inputs that are not context-free."""
        raise NotImplementedError

    def describe(self) -> str:
        """Describe the input in a few words, for `nertool info`."""
        return str(self.config.kind)


def names_of(state: Any) -> list[str]:
    """Check that a state is a list of distinct strings, and return it.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(state, list) or not all(map(isinstance, state, repeat(str))):
        raise ValueError("expected a list of strings")
    if len(set(state)) != len(state):
        raise ValueError("a name occurs twice")
    return state


def grown(known: Sequence[str], more: Iterable[str]) -> list[str]:
    """Put names that are new after those that are known."""
    return list(dict.fromkeys((*known, *more)))
