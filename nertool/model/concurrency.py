"""Threads: how many torch uses inside an operation, and independent branches of a network side by side.

Nothing here changes the state of the process. `torch.set_num_threads` would: it stores a number for all
threads. The OpenMP and MKL libraries that torch is linked with also keep a number for each thread, and that is
the one set here.

A process that was forked (`multiprocessing` with its `fork` method) must not use more threads than one: OpenMP
waits for the threads of its parent, which do not exist in the child. So in a forked process all limits are 1, and
what computes outside of `threads` is marked `fork_safe`. What computes is also within `no_fork()`, so that no
process is forked meanwhile (see `nertool.forking`).
"""

from __future__ import annotations

import ctypes
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn

from nertool.forking import no_fork
from nertool.model.parallel import forked

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_TEAM_ELEMENTS = 1 << 15  # elements of a tensor, per thread, from which torch splits an operation
_helpers: ref[ThreadPoolExecutor] | None = None


def _find_function(name: str) -> Any:
    """Find a function in the libraries that torch is linked with, or return one that does nothing.

    A handle of torch's extension module covers all libraries that it depends on (not on Windows, where the
    OpenMP library is asked for by its name).
    """
    for library in (torch._C.__file__, *(("libiomp5md",) if sys.platform == "win32" else ())):
        try:
            return getattr(ctypes.CDLL(library), name)
        except (OSError, AttributeError):
            continue
    return int


# Both numbers belong to the calling thread. Where a library is missing there is nothing to limit.
_set_openmp = _find_function("omp_set_num_threads")
_set_mkl = _find_function("MKL_Set_Num_Threads_Local")  # returns the number before; 0: as many as OpenMP


@contextmanager
def threads(operation: int) -> Iterator[None]:
    """Set how many threads torch uses inside each operation that this thread calls, for the time of a block.

    Args:
        operation: Threads, at least 1; a forked process uses 1 whatever is asked for.
    """
    before = torch.get_num_threads()  # also makes torch set this thread's number now, and not within the block
    mkl_before: list[int] = []
    try:
        _limit(operation, mkl_before)
        yield
    finally:  # as in `in_inference`
        try:
            _set_openmp(before)
        finally:
            for number in mkl_before:
                _set_mkl(number)


def _limit(operation: int, mkl_before: list[int]) -> None:
    """Set both numbers of this thread; append the one of MKL before to a list."""
    wanted = 1 if forked() else operation
    _set_openmp(wanted)
    mkl_before.extend(map(_set_mkl, (wanted,)))  # in one operation of the interpreter: no interrupt divides it


def in_inference(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call a function in torch's inference mode, with one thread, while no other thread forks the process.

    However the call ends, this thread's settings are as before, also after an interrupt, such as Ctrl-C. Context
    managers written in Python cannot promise that: an interrupt may come as they begin to clean up. Here each
    block cleans up by C functions, and interrupts come after these.
    """
    before = torch.get_num_threads()
    mkl_before: list[int] = []
    with no_fork(), torch._C._InferenceMode(True):
        try:
            _limit(1, mkl_before)
            return function(*arguments, **options)
        finally:
            try:
                _set_openmp(before)
            finally:
                for number in mkl_before:
                    _set_mkl(number)


def fork_safe(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make a function use one thread in a forked process, and let no other thread fork while it runs.

    A generator function is limited while it runs, and not while its caller looks at what it yielded; forks are
    the concern of what it calls.
    """

    @wraps(function)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with no_fork(), threads(1) if forked() else nullcontext():
            return function(*arguments, **options)

    @wraps(function)
    def generate(*arguments: Arguments.args, **options: Arguments.kwargs) -> Iterator[Any]:
        generator: Any = function(*arguments, **options)
        end = object()
        try:
            while True:
                with threads(1) if forked() else nullcontext():
                    item = next(generator, end)
                if item is end:
                    return
                yield item
        finally:
            generator.close()

    return generate if inspect.isgeneratorfunction(function) else call  # type: ignore[return-value]


def _flushes_denormals() -> bool:
    """Return whether this thread takes denormal numbers for 0: the processor answers."""
    half = 0.5  # a name, or Python would multiply when it compiles
    return sys.float_info.min * half == 0.0


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Take numbers too small for full precision for 0 in this thread, for the time of a block.

    Arithmetic with them is many times slower, and attention that has made up its mind is full of them: a
    training step through `dot` attention took three times as long.
    """
    before = _flushes_denormals()
    try:
        _flush_denormals(before)
        yield
    finally:
        torch.set_flush_denormal(before)


def without_denormals(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result:
    """Call a function within `denormals_as_zero`; interrupts leave nothing behind, as for `in_inference`."""
    before = _flushes_denormals()
    try:
        _flush_denormals(before)
        return function(*arguments, **options)
    finally:
        torch.set_flush_denormal(before)


def _flush_denormals(already: bool) -> None:
    if not already and torch.get_num_threads() > 1:
        # A new thread inherits the mode, and OpenMP keeps its threads: they start now, in the mode
        # that they shall keep.
        torch.empty(torch.get_num_threads() * _TEAM_ELEMENTS).fill_(0.0)
    torch.set_flush_denormal(True)


def run_branches(modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Apply each module to its input, each on a thread of its own, forward and backward.

    The two directions of a BiLSTM do not depend on each other, yet autograd runs them one after the other, and
    threads inside a matrix product this small spend their time waiting for each other.

    Args:
        modules: One for each branch; called with one tensor, returning one tensor. They share no parameters and
            draw no random numbers.
        inputs: One for each module.

    Returns:
        The results in order, differentiable.
    """
    if forked():
        return tuple(module(values) for module, values in zip(modules, inputs, strict=True))
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

        parts = _together(
            [branch(*part) for part in zip(ctx.modules, ctx.sources, ctx.results, gradients, strict=True)]
        )
        of_inputs = [part[0] for part in parts]
        of_parameters = [gradient for part in parts for gradient in part[1:]]
        return None, *of_inputs, *of_parameters


def _call(module: nn.Module, values: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.enable_grad():  # the mode belongs to a thread, so a worker must be told
            result: Tensor = module(values)
            return result

    return run


def helper_threads() -> ThreadPoolExecutor:
    """Return the threads that `run_branches` uses besides the calling one.

    They end when nobody refers to them any more.
    """
    global _helpers
    pool = _helpers() if _helpers is not None else None
    if pool is None:
        pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="nertool-branch")
        _helpers = ref(pool)
    return pool


def _together(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run each task on a thread of its own, the first on the calling one, in the modes of the calling thread."""
    operation, flush = torch.get_num_threads(), _flushes_denormals()
    low_precision = torch.is_autocast_enabled("cpu")

    def run(task: Callable[[], Result]) -> Result:
        with threads(operation), torch.autocast("cpu", torch.bfloat16) if low_precision else nullcontext():
            torch.set_flush_denormal(flush)
            return task()

    pool = helper_threads()
    others: list[Future[Result]] = []
    try:
        others.extend(pool.submit(run, task) for task in tasks[1:])
        return [tasks[0](), *(other.result() for other in others)]
    finally:
        for other in others:  # nothing of this call may run on behind the caller's back
            other.exception()
