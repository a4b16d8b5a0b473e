"""Building modules without drawing random numbers, a limit to their size, and a flag for `torch.export`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def uninitialized(make: Callable[..., Module], *arguments: Any, **options: Any) -> Module:
    """Build a module of torch with its shapes, on the current default device, with arbitrary values.

    The constructors of torch draw weights from the random state of the whole process, which this leaves alone.
    `initialize` draws the weights afterwards, from a generator of its own.

    >>> uninitialized(nn.Linear, 3, 2).weight.shape
    torch.Size([2, 3])
    """
    with torch.device("meta"):
        module = make(*arguments, **options)
    return module.to_empty(device=torch.get_default_device())


def refuse_huge(weights: Iterable[Tensor], *, times: int = 1) -> None:
    """Refuse weights that would not fit into the memory of this machine, before it is touched.

    Args:
        weights: What there will be.
        times: How often: training has gradients, and what the update rule remembers, beside the weights.

    Raises:
        MemoryError: They are too large.
    """
    needed = times * sum(weight.numel() * weight.element_size() for weight in weights)
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # systems that do not say
        return
    if needed > there:
        raise MemoryError(f"it needs {needed / 2**30:,.1f} GB, and this machine has {there / 2**30:,.1f} GB")


def exporting() -> bool:
    """Whether `torch.export` or `torch.compile` is tracing: shapes may be symbols, and values are not known."""
    return torch.compiler.is_compiling()
