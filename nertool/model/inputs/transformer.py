"""The states of a pretrained transformer: documents as sub-tokens, and states that were computed before."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nertool.config.schema import TransformerConfig
from nertool.data.encoding import Table
from nertool.data.pretrained import Architecture, check_digest, open_pretrained
from nertool.data.states import States, sentence_keys
from nertool.data.subtokens import Subtokens
from nertool.errors import ConfigError, NertoolError
from nertool.model.inputs.base import Input, Resources
from nertool.text.document import Document

if TYPE_CHECKING:
    from torch import nn

    from nertool.model.dropout import Noise
    from nertool.model.input_modules.base import InputModule
    from nertool.model.input_modules.transformer import TransformerVectors


class Transformer(Input):
    """A transformer: its tokenizer and the shape of its network; the weights are in the module, or by name.

    Args:
        name: Of the entry.
        config: The entry.
        architecture: Of the transformer.

    Attributes:
        states: Of sentences that need not be computed again.
    """

    Config = TransformerConfig
    context_free = False

    def __init__(self, name: str, config: TransformerConfig, architecture: Architecture) -> None:
        super().__init__(name, config)
        self.architecture = architecture
        self.states = States()
        self._subtokens = Subtokens(architecture.tokenizer)
        self._model: nn.Module | None = None
        self._grew = False  # from an input whose module has the weights
        count = architecture.layers
        wrong = [layer for layer in config.layers if not -count <= layer <= count]
        if wrong:
            raise ValueError(
                f"layers: there is no layer {wrong[0]}; it has {count}: 0 to {count}, or -{count} to -1"
            )

    @classmethod
    def fit(
        cls, name: str, config: TransformerConfig, documents: Sequence[Document], resources: Resources
    ) -> Transformer:
        """Find the transformer; where it is a name on the hub that is not in its cache, it is fetched.

        Raises:
            ConfigError: It is not there, cannot be read, or a setting does not fit it or the documents.
        """
        from nertool.model import transformer

        try:
            files = open_pretrained(config.model, config.revision, download=True)
            settings = files.config()
            architecture = Architecture(
                settings, *transformer.sizes(settings), files.tokenizer(), files.digest(), files.revision
            )
            fitted = cls(name, config, architecture)
        except ConfigError as problem:
            raise ConfigError(f"inputs.{name}.model: {problem}") from None
        except ValueError as problem:
            raise ConfigError(f"inputs.{name}: {config.model}: {problem}") from None
        if config.context and not any(
            document.context is not None or len(document.sentence_starts) > 1 for document in documents
        ):
            raise ConfigError(
                f"inputs.{name}.context: has no effect, because the training split has no documents of several "
                f"sentences; set inputs.{name}.context=0"
            )
        return fitted

    def grow(self, config: TransformerConfig, documents: Sequence[Document], resources: Resources) -> Transformer:
        """Keep the transformer.

        Raises:
            ConfigError: The new entry names another one, or would leave out weights that the model has.
        """
        if Path(config.model).name != Path(self.config.model).name:
            raise ConfigError(
                f"inputs.{self.name}.model: {config.model}, and the model to start from has {self.config.model}"
            )
        own = self.config.trainable or self.config.include
        if own and not (config.trainable or config.include):
            raise ConfigError(
                f"inputs.{self.name}.include: the model to start from has the weights of its transformer with it; "
                f"set inputs.{self.name}.include=true, or train them on with inputs.{self.name}.trainable=true"
            )
        result = Transformer(self.name, config, self.architecture)
        result._model, result._grew = self._model, own
        return result

    @classmethod
    def restore(cls, name: str, config: TransformerConfig, state: Any) -> Transformer:
        """Make the input from its architecture."""
        return cls(name, config, Architecture.from_json(state))

    def state(self) -> dict[str, Any]:
        """Return the architecture: settings, tokenizer, and the hash of the weights."""
        return self.architecture.to_json()

    def module(self, noise: Noise) -> TransformerVectors:
        """Build the module."""
        from nertool.model.input_modules.transformer import TransformerVectors

        return TransformerVectors(self.architecture, self.config, self._subtokens)

    def initial_weights(self, resources: Resources, module: InputModule) -> None:
        """Read the weights, unless those of a trained model are to come."""
        if not self._grew:
            self._adopt(module)

    def outside_weights(self, module: InputModule) -> None:
        """Find the transformer again, unless the model includes it.

        Raises:
            NertoolError: It is not there, or has other weights.
        """
        if self.config.trainable or self.config.include:
            return
        try:
            self._adopt(module)
        except NertoolError as problem:
            revision = self.architecture.revision
            advice = f" (revision {revision})" if revision else ""
            raise NertoolError(
                f"{problem}. The model was trained with {self.config.model}{advice}: put that folder there, or "
                f"name it as inputs.{self.name}.model in the model's config.yaml. A model that is trained with "
                f"inputs.{self.name}.include=true has the transformer with it"
            ) from None

    def encode_documents(self, documents: Sequence[Document]) -> Table:
        """Return the sub-tokens of each token, with those of the context; or the states, if all are known.

        The context of a sentence goes with its first and last token, as -1 - n for sub-token n.
        """
        sentences = [each for document in documents if document.tokens for each in document.sentences()]
        lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
        table = self._encode(sentences, lengths)
        states = self.states.find(sentence_keys(table, lengths), lengths) if self.states else None
        return table if states is None else Table(states)

    def subtokens(self, documents: Sequence[Document]) -> Table:
        """Return the sub-tokens of each token, whether states are known or not."""
        sentences = [each for document in documents if document.tokens for each in document.sentences()]
        return self._encode(sentences, np.fromiter(map(len, sentences), np.int64, len(sentences)))

    def describe(self) -> str:
        """Describe the transformer."""
        own = self.config
        layers = ", ".join(map(str, own.layers))
        parts = [
            f"{Path(own.model).name} ({self.architecture.layers} layers, {self.architecture.size} dimensions)",
            f"layers {layers}" + (", learnt mix" if own.mix == "learned" else ""),
            *([f"{own.context} tokens of context"] if own.context else []),
            "trained" if own.trainable else "included" if own.include else "not trained",
        ]
        return ", ".join(parts)

    def _encode(self, sentences: Sequence[Document], lengths: np.ndarray) -> Table:
        around = [each.around(self.config.context) for each in sentences]
        before = np.fromiter((len(first) for first, _ in around), np.int64, len(sentences))
        sizes = before + lengths + np.fromiter((len(last) for _, last in around), np.int64, len(sentences))
        words = list(
            chain.from_iterable(
                chain(first, each.tokens, last) for each, (first, last) in zip(sentences, around, strict=True)
            )
        )
        values, counts = self._subtokens.encode(words)
        # From places in a sentence with its context to tokens of the sentence.
        places = np.arange(len(words)) - np.repeat(np.cumsum(sizes) - sizes + before, sizes)
        inside = np.clip(places, 0, np.repeat(lengths - 1, sizes))
        owners = inside + np.repeat(np.cumsum(lengths) - lengths, sizes)
        outside = np.repeat(inside != places, counts)
        values[outside] = -1 - values[outside]
        amounts = np.bincount(np.repeat(owners, counts), minlength=int(lengths.sum()))
        return Table(values, np.concatenate(([0], np.cumsum(amounts))))

    def _adopt(self, module: InputModule) -> None:
        from nertool.model import transformer
        from nertool.model.input_modules.transformer import TransformerVectors

        assert isinstance(module, TransformerVectors)
        if self._model is None:
            files = open_pretrained(self.config.model, self.architecture.revision or self.config.revision)
            check_digest(files, self.architecture.weights)
            self._model = transformer.load(files, self.architecture.config)
        module.adopt(self._model)
        if module.inner is not None:
            self._model = None  # its weights have been copied
