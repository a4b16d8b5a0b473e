"""Small networks over random sentences, for the tests of layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nertool.config.schema import Config
from nertool.data.encoding import EncodedCorpus
from nertool.model.batch import Batch, Layout
from nertool.model.inputs import Input, input_class
from nertool.model.inputs.base import Resources
from nertool.model.model import Model, new_model
from nertool.model.network import Network
from nertool.text.document import Document
from nertool.text.schemes import Scheme

CLOSE = {"rtol": 0.0, "atol": 1e-5}
LABELS = [f"L{number}" for number in range(5)]
TAGS = ["N", "V", "D", "."]
PHRASES = "Fab 7a\tA\n7a\tA\neF\tB\ncab\tB\n"

_SMALL = {
    "words": {"dimensions": 5, "dropout": 0.0},
    "characters": {"dimensions": 4, "filters": 6, "maximum": 10},
    "recurrent": {"dimensions": 4, "hidden": 3, "maximum": 10},
}


def small_config(inputs: dict[str, Any] | None = None, **model: Any) -> Config:
    """Return a config of small sizes, without dropout; `inputs` and settings of the model go before these."""
    entries = dict(inputs or {})
    for name, own in {"words": entries.get("words", {}), "characters": entries.get("characters", {})}.items():
        if own is not None:
            recurrent = name == "characters" and own.get("network", "cnn") != "cnn"
            entries[name] = {**_SMALL["recurrent" if recurrent else name], **own}
    encoder = {"kind": "lstm", **model.pop("encoder", {})}
    if encoder["kind"] != "none":
        encoder.setdefault("hidden", 7)
    attention = {"kind": "none", **model.pop("attention", {})}
    if attention["kind"] != "none":
        attention = {"dimensions": 6, **attention}
    tree = {"dropout": 0.0, "encoder": encoder, "attention": attention, **model}
    return Config.model_validate({"corpus": {"train": "none"}, "inputs": entries, "model": tree})


def training_documents() -> list[Document]:
    """Return documents with all labels and tags, and half of the words that `sentences` has."""
    words = _pool()[:-4:2]
    labels, tags = (tuple((own * len(words))[: len(words)]) for own in (LABELS, TAGS))
    return [Document(tuple(words), labels=labels, scheme=Scheme.PLAIN, columns={"pos": tags})]


def _pool() -> list[str]:
    random = np.random.default_rng(1)
    words = sorted({"".join(random.choice(list("abcdeF7"), random.integers(1, 10))) for _ in range(60)})
    return [*words, "eF", "cab", "Fab", "7a", "zz", "dabZ", "a" * 12, "éé"]


def sentences(lengths: list[int], seed: int = 1) -> list[Document]:
    """Return sentences of known and unknown words, with labels, tags and words of phrases."""
    random = np.random.default_rng(seed)
    return [
        Document(
            tuple(random.choice(_pool(), length).tolist()),
            labels=tuple(random.choice(LABELS, length).tolist()),
            scheme=Scheme.PLAIN,
            columns={"pos": tuple(random.choice([*TAGS, "new"], length).tolist())},
        )
        for length in lengths
    ]


def small_model(config: Config | None = None) -> Model:
    """Build a model over `training_documents`; nothing in it is 0 that would hide a mistake."""
    config = config or small_config()
    model = new_model(config, training_documents(), Scheme.PLAIN, Resources())
    # Transitions start near 0, where mistakes with them would hardly show.
    generator = torch.Generator().manual_seed(2)
    for parameter in model.network.decoder.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def small_network(inputs: dict[str, Any] | None = None, **model: Any) -> Network:
    """Build the network of a `small_model`."""
    return small_model(small_config(inputs, **model)).network


def encoded(model: Model, lengths: list[int], seed: int = 1) -> EncodedCorpus:
    """Encode random sentences for a model."""
    return EncodedCorpus(model.inputs, sentences(lengths, seed), model.label_numbers)


def whole(corpus: EncodedCorpus) -> Batch:
    """Return all sentences of a corpus as one batch."""
    return Batch.of(corpus.batch(np.arange(len(corpus))))


def alone(corpus: EncodedCorpus, sentence: int) -> Batch:
    """Return a sentence of a corpus as a batch."""
    return Batch.of(corpus.batch(np.array([sentence])))


def over_padded(batch: Batch, steps: int) -> Batch:
    """Return the same batch with more padding, filled with anything."""
    random = torch.Generator().manual_seed(0)
    columns = batch.forms.shape[1]
    forms = int(batch.forms.max()) + 1

    def longer(values: Tensor, below: int) -> Tensor:
        more = torch.randint(below, (steps, *values.shape[1:]), generator=random).to(values.dtype)
        return torch.cat((values, more))

    assert batch.labels is not None
    return replace(
        batch,
        forms=longer(batch.forms, forms),
        token_features={
            name: tuple(longer(values, 3) for values in features)
            for name, features in batch.token_features.items()
        },
        layout=Layout.of_mask(torch.cat((batch.layout.mask, torch.zeros(steps, columns, dtype=torch.bool)))),
        labels=longer(batch.labels, len(LABELS)),
    )


def gradients(network: Network, batch: Batch) -> dict[str, Tensor]:
    """Compute gradients of the summed loss of a batch, all dense."""
    network.zero_grad()
    (network.loss(batch) * batch.forms.shape[1]).backward()
    return {
        name: parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def initialized(module: Any, seed: int = 1) -> Any:
    """Draw the weights of a module and return it."""
    module.initialize(torch.Generator().manual_seed(seed))
    return module


def layout_of(*lengths: int) -> Layout:
    """Lay out sentences of these lengths."""
    return Layout.of(np.array(lengths))


def restored(one: Input) -> Input:
    """Return an input as a saved model gives it back."""
    import json

    return input_class(one.config).restore(one.name, one.config, json.loads(json.dumps(one.state())))
