"""Building modules without drawing random numbers, and a flag for `torch.export`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

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


def exporting() -> bool:
    """Whether `torch.export` or `torch.compile` is tracing: shapes may be symbols, and values are not known."""
    return torch.compiler.is_compiling()
