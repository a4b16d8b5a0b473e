"""Pretrained transformers as modules, and windows of sub-tokens that fit into them.

The package transformers builds and fills them. Only safetensors are read. Nothing here asks the hub, runs code
that comes with a model, or draws random numbers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nertool.data.pretrained import EXTRA, Pretrained
from nertool.errors import ConfigError
from nertool.forking import no_fork

_SHORTEST = 8  # sub-tokens of a window
_USUAL = 512  # sub-tokens, where a config does not say how many it takes


def build(config: Mapping[str, Any]) -> nn.Module:
    """Build a transformer with its shapes, on the current default device; its weights are 0.

    Args:
        config: Its settings (see `nertool.data.pretrained.network_settings`).

    Raises:
        ConfigError: They describe none, or the package transformers is missing.
    """
    with no_fork():
        return _made(config, None)


def load(pretrained: Pretrained, config: Mapping[str, Any]) -> nn.Module:
    """Read a transformer with its weights, on the CPU.

    Args:
        pretrained: Its files.
        config: Its settings.

    Raises:
        ConfigError: They cannot be read, or do not fit the settings.
    """
    weights: dict[str, Tensor] = {}
    with no_fork():
        from safetensors.torch import load_file

        for path in pretrained.weights:
            try:
                weights |= load_file(path)
            except Exception as problem:  # safetensors raises its own error type and those of the system
                raise ConfigError(f"{path}: cannot be read: {_line(problem)}") from None
        try:
            with torch.device("cpu"):
                return _made(config, weights)
        except ConfigError as problem:
            raise ConfigError(f"{pretrained.name}: {problem}") from None


def sizes(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many layers a transformer has, and the size of its states.

    Raises:
        ConfigError: Its settings describe none, or the package transformers is missing.
    """
    with no_fork():
        settings, _ = _settings(config)
    count, size = getattr(settings, "num_hidden_layers", None), getattr(settings, "hidden_size", None)
    if type(count) is not int or type(size) is not int:
        raise ConfigError(f"models of the type {config['model_type']} are not read here")
    return count, size


def _settings(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the settings as the package has them, and the class that they are for."""
    try:
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_MAPPING
    except ImportError:
        raise ConfigError(f"a transformer needs the package transformers: {EXTRA}") from None
    try:
        named = {key: value for key, value in copy.deepcopy(dict(config)).items() if key != "model_type"}
        settings = AutoConfig.for_model(config["model_type"], **named)
        kind: Any = MODEL_MAPPING[type(settings)]
    except Exception as problem:  # settings may say anything
        raise ConfigError(f"its settings are not understood: {_line(problem)}") from None
    # Nertool's own dropout is in force: that of the model would draw from the random state of the process.
    for key in [key for key, value in vars(settings).items() if "drop" in key and isinstance(value, float)]:
        setattr(settings, key, 0.0)
    if getattr(settings, "use_cache", False):
        settings.use_cache = False
    kind = kind[0] if isinstance(kind, tuple | list) else kind
    settings._attn_implementation = "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"
    return settings, kind


def _made(config: Mapping[str, Any], weights: dict[str, Tensor] | None) -> nn.Module:
    settings, kind = _settings(config)
    import transformers

    device = torch.get_default_device()
    try:
        options = {"add_pooling_layer": False}
        if "add_pooling_layer" not in inspect.signature(kind.__init__).parameters:
            options = {}
        with torch.device("meta"):
            skeleton: nn.Module = kind(settings, **options)
        if weights is None and device.type == "meta":
            return skeleton.eval()
        before = torch.get_rng_state()
        try:
            with _without_bars(transformers):
                # Buffers get their values too, which modules of shapes alone do not have.
                model, report = kind.from_pretrained(
                    None,
                    config=settings,
                    state_dict={name: torch.zeros(value.shape) for name, value in skeleton.state_dict().items()}
                    if weights is None
                    else weights,
                    dtype=torch.float32,
                    attn_implementation=settings._attn_implementation,
                    output_loading_info=True,
                    **options,
                )
        finally:
            torch.set_rng_state(before)  # weights that are missing are drawn
    except Exception as problem:  # settings may say anything, and so may files
        raise ConfigError(f"the transformer cannot be built: {_line(problem)}") from None
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
    if missing:
        listed = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ConfigError(f"the files of the transformer lack {len(missing)} of its weights ({listed})")
    result: nn.Module = model.eval().to(device)
    return result


def compute_twice(model: nn.Module) -> None:
    """Let a transformer, in training mode, keep no states for its gradients, and compute them again instead."""
    enable: Any = getattr(model, "activation_checkpointing_enable", None)
    enable = enable or model.gradient_checkpointing_enable  # its name in earlier versions of transformers
    enable({"use_reentrant": False, "preserve_rng_state": False})


def longest_text(model: nn.Module) -> int:
    """Return how many sub-tokens a transformer takes at once, with those before and after every text."""
    config: Any = model.config
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # Where padding has a position of its own, texts begin after it.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    for key in ("max_position_embeddings", "n_positions"):
        if isinstance(getattr(config, key, None), int) and getattr(config, key) > 0:
            return int(getattr(config, key))
    return _USUAL


class Windows(NamedTuple):
    """What a transformer reads at once, as stretches of a row of sub-tokens.

    Attributes:
        begins, ends: Of each window, (windows,).
        first, last: The stretch of it whose states count, (windows,).
    """

    begins: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    last: np.ndarray


def cut_windows(sizes: np.ndarray, own: np.ndarray, room: int) -> Windows:
    """Cut sentences into windows: each is one, with as much of its context as fits; a long one has several.

    Where a long sentence has several windows, they overlap by a quarter, and the state of a sub-token comes from
    the window that has more on both sides of it. They have no context beyond the sentence.

    Args:
        sizes: Sub-tokens of each sentence with its context, (sentences,).
        own: Which sub-tokens are of a sentence, and not of its context, boolean (sub-tokens,); those of one
            sentence are a stretch.
        room: Sub-tokens that a window has room for.
    """
    if room < _SHORTEST:
        raise ConfigError(f"the transformer takes only {room} sub-tokens at once; at least {_SHORTEST} are needed")
    rows: list[tuple[int, int, int, int]] = []
    ends = np.cumsum(sizes)
    for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True):
        places = np.flatnonzero(own[start:end])
        if not len(places):
            continue
        first, last = start + int(places[0]), start + int(places[-1]) + 1
        spare = room - (last - first)
        if spare >= 0:
            before = min(first - start, max(spare // 2, spare - (end - last)))
            rows.append((first - before, min(end, last + spare - before), first, last))
            continue
        step = room - room // 4
        begins = [*range(first, last - room, step), last - room]
        seams = [(begin + after + room) // 2 for begin, after in pairwise(begins)]
        rows += [
            (begin, begin + room, low, high)
            for begin, low, high in zip(begins, [first, *seams], [*seams, last], strict=True)
        ]
    return Windows(*np.array(rows, np.int64).reshape(-1, 4).T)


@contextmanager
def _without_bars(transformers: Any) -> Iterator[None]:
    """Switch the progress bars and the reports of transformers off."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300] or type(problem).__name__
