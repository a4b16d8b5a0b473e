"""What a network computes on: the names of devices, and whether they are there."""

from __future__ import annotations

import torch

from nertool.config.schema import DEVICES, is_device
from nertool.errors import ConfigError


def find_device(name: str, origin: str = "device") -> torch.device:
    """Find a device by its name.

    Args:
        name: `cpu`; `cuda` or `cuda:1`, an NVIDIA or AMD GPU; `mps`, that of a Mac; `auto`: `cuda` where it is
            there, else the CPU.
        origin: What errors call the place that the name comes from.

    Raises:
        ConfigError: There is no such device here.
    """
    if not is_device(name):
        raise ConfigError(f"{origin}: there is no device {name!r}; expected {DEVICES}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if reason := _missing(device):
        raise ConfigError(f"{origin}: {name} is not there: {reason}; use cpu")
    return device


def _missing(device: torch.device) -> str:
    """Say why there is no such device; "" where there is one."""
    if device.type == "cuda":
        if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
            return f"torch {torch.__version__} was built without CUDA"
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return "torch finds no GPU"
        if (device.index or 0) >= count:
            return f"there {'is one GPU' if count == 1 else f'are {count} GPUs'}, and the first is cuda:0"
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "torch finds no GPU of a Mac"
    return ""
