"""A device that is not the CPU, for machines that have none: tensors that say they are elsewhere, and have values.

They say `meta`. Each has its values in a tensor of the CPU, which nothing but `.to("cpu")` (`.cpu()`, `.tolist()`,
`float()`) gets at. As on a graphics card, an operation on tensors of two devices is an error.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
_MOVES = {"aten::_to_copy", "aten::copy_"}


class Elsewhere(Tensor):
    """A tensor of the other device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        sparse = held.layout is not torch.strided
        shape: dict[str, Any] = (
            {} if sparse else {"strides": held.stride(), "storage_offset": held.storage_offset()}
        )
        return Tensor._make_wrapper_subclass(
            cls, held.shape, dtype=held.dtype, device=DEVICE, layout=held.layout, **shape
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self, **options: Any) -> str:
        return f"Elsewhere({self.held})"

    def new(self, *parts: Any) -> Tensor:
        """Make a sparse tensor of indices, values and shape, as `torch.optim.SparseAdam` does."""
        return torch.sparse_coo_tensor(*parts)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(function, args, kwargs or {})


def _call(function: Any, args: Any, kwargs: Any) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    moves = function._schema.name in _MOVES
    there = [isinstance(each, Elsewhere) for each in tensors if each.dim() or isinstance(each, Elsewhere)]
    if any(there) and not all(there) and not moves:
        raise AssertionError(f"{function} gets tensors of two devices")
    wanted = kwargs.get("device")
    to_other = any(there) if wanted is None else torch.device(wanted).type == DEVICE.type
    if function._schema.name == "aten::copy_":
        to_other = isinstance(args[0], Elsewhere)
        if to_other and isinstance(args[1], Elsewhere) and args[0].held.data_ptr() == args[1].held.data_ptr():
            return args[0]  # torch copies a result into itself where it does not know that they are the same
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(each.held): each for each in tensors if isinstance(each, Elsewhere)}

    def unwrap(value: Any) -> Any:
        return value.held if isinstance(value, Elsewhere) else value

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor) or not to_other:
            return value
        return known[id(value)] if id(value) in known else Elsewhere(value)

    result = function(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    return tree_map(wrap, result)


class OtherDevice(TorchDispatchMode):
    """Makes the device for the time of a block.

    Attributes:
        moves: How many tensors have been moved to the device or from it, numbers included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _call(function, args, kwargs or {})
        name = function._schema.name
        if name == "aten::_local_scalar_dense":
            self.moves += isinstance(args[0], Elsewhere)
        elif name in _MOVES:
            source = args[1] if name == "aten::copy_" else args[0]
            self.moves += isinstance(result, Elsewhere) is not isinstance(source, Elsewhere)
        return result
