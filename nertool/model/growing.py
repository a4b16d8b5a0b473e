"""From a trained network to a larger one with the same weights: what was known keeps its numbers and weights.

Vocabularies, labels and gazetteers grow at their ends, so old weights are the first of each axis of the new ones.
The one exception is what follows the inputs: where an input's vectors become longer, the columns behind it move.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nertool.config.loading import flow, in_force
from nertool.config.schema import Config, Section
from nertool.errors import ConfigError
from nertool.model.network import Network


def check_settings(config: Config, old: Config, place: str) -> None:
    """Refuse a config whose network is another than that of a trained model.

    Args:
        config: To train with.
        old: Of the model.
        place: Where the model is.

    Raises:
        ConfigError: Settings differ that decide on sizes or meaning of the weights; lists them all.
    """
    new_settings, old_settings = dict(_settings(config)), dict(_settings(old))
    problems = [
        f"{name}: {_shown(new_settings, name)}; the model has {_shown(old_settings, name)}"
        for name in dict.fromkeys((*new_settings, *old_settings))
        if new_settings.get(name) != old_settings.get(name)
    ]
    if problems:
        raise ConfigError(
            problems, f"start.model: {place} has another network (take inputs and model from {place}/config.yaml)"
        )


def _settings(config: Config) -> Iterator[tuple[str, object]]:
    """Yield the settings of the network, without those that may differ."""
    tree = in_force(config)
    yield "inputs", list(config.active_inputs)
    for name, entry in config.active_inputs.items():
        yield from _flat(entry, tree["inputs"][name], f"inputs.{name}.")
    yield from _flat(config.model, tree["model"], "model.")


def _flat(section: Section, tree: dict[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        own = getattr(section, key)
        if key in section.adjustable:
            continue
        if isinstance(own, Section) and isinstance(value, dict):
            yield from _flat(own, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(settings: dict[str, object], name: str) -> str:
    return flow(settings[name]) if name in settings else "none"


@torch.no_grad()
def copy_weights(old: Network, new: Network) -> None:
    """Copy the weights of a network into a larger one of the same settings.

    New rows keep what they have. New columns, by which a layer reads vectors that have become longer, are set to
    0, so that at first it computes what it did.

    Raises:
        ConfigError: The networks do not fit.
    """
    columns, before, after = _columns(old, new)
    targets = new.state_dict()
    for name, value in old.state_dict().items():
        target = targets.get(name)
        if target is None or target.dim() != value.dim():
            raise ConfigError(f"start.model: its network has weights {name}, which do not fit those of the config")
        reads_inputs = not name.startswith(("inputs.", "decoder."))
        indices = []
        for axis, (size, wanted) in enumerate(zip(value.shape, target.shape, strict=True)):
            labels = name.startswith("scores.") and axis == 0
            if reads_inputs and not labels and size != wanted and before and size % before == 0:
                blocks = range(size // before)  # a convolution reads several tokens
                indices.append(torch.cat([columns + block * after for block in blocks]))
                if value.dim() > 1:
                    target.zero_()
            else:
                indices.append(torch.arange(size))
            if size and int(indices[-1].max()) >= wanted:
                raise ConfigError(
                    f"start.model: its weights {name} have shape {tuple(value.shape)}, and those of the config "
                    f"{tuple(target.shape)}"
                )
        value = value.to(target.device)
        if value.shape == target.shape:
            target.copy_(value)
        elif all(index[-1] == len(index) - 1 for index in indices):
            target[tuple(slice(len(index)) for index in indices)] = value  # no copy of a large table's indices
        else:
            target[torch.meshgrid(*indices, indexing="ij")] = value
    new.decoder.temperature.fill_(1.0)


def _columns(old: Network, new: Network) -> tuple[Tensor, int, int]:
    """Return where the inputs' vectors are in those of the new network, and the sizes of both together."""
    columns, before, after = [], 0, 0
    for name in (*old.context_free, *old.contextual):
        size = old.input(name).output_size
        columns.append(torch.arange(after, after + size))
        before += size
        after += new.input(name).output_size
    return torch.cat(columns), before, after
