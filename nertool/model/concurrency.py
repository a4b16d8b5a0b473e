"""Independent branches of a network on a thread each, forward and backward.

The two directions of a BiLSTM know nothing of each other, yet autograd walks them one after the other, and
threads inside a matrix product this small spend their time waiting for each other. With a thread for each
direction a training step was 1.2 (batches of 10) to 1.3 times (of 32) as fast as with one, on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")
_pool: ThreadPoolExecutor | None = None


@contextmanager
def threads(operation: int) -> Iterator[None]:
    """Sets the number of threads inside each of torch's operations, for the time of a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(operation)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Takes numbers too small for full precision for 0 in this thread, for the time of a block.

    Arithmetic with them is many times slower, and attention that has made up its mind is full of them: a
    training step through `dot` attention took three times as long.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def run_branches(modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Applies each module to its input, each on a thread of its own.

    Args:
        modules: One for each branch; called with one tensor, returning one tensor. They share no parameters
            and draw no random numbers.
        inputs: One for each module.

    Returns:
        The results in order, differentiable.
    """
    parameters = [parameter for module in modules for parameter in module.parameters()]
    results: tuple[Tensor, ...] = _Branches.apply(tuple(modules), *inputs, *parameters)  # type: ignore[no-untyped-call]
    return results


class _Branches(torch.autograd.Function):
    """One node of the autograd graph that holds a graph of its own for each branch."""

    @staticmethod
    def forward(ctx: Any, modules: tuple[nn.Module, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.sources = [values.detach().requires_grad_() for values in tensors[: len(modules)]]
        ctx.modules = modules
        ctx.results = _together([_call(*branch) for branch in zip(modules, ctx.sources, strict=True)])
        return tuple(result.detach() for result in ctx.results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        def branch(module: nn.Module, source: Tensor, result: Tensor, gradient: Tensor) -> Callable[[], Any]:
            return lambda: torch.autograd.grad(result, [source, *module.parameters()], gradient)

        found = _together(
            [branch(*part) for part in zip(ctx.modules, ctx.sources, ctx.results, gradients, strict=True)]
        )
        of_inputs = [parts[0] for parts in found]
        of_parameters = [part for parts in found for part in parts[1:]]
        return None, *of_inputs, *of_parameters


def _call(module: nn.Module, values: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.enable_grad():  # grad mode belongs to a thread, so a worker must be told
            result: Tensor = module(values)
            return result

    return run


def _together(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="nertool-branch")
    operation = torch.get_num_threads()
    others = [_pool.submit(_with_threads, operation, task) for task in tasks[1:]]
    return [tasks[0](), *(other.result() for other in others)]


def _with_threads(operation: int, task: Callable[[], Result]) -> Result:
    # The number of threads inside an operation belongs to a thread too: a new one would take all cores.
    torch.set_num_threads(operation)
    return task()
