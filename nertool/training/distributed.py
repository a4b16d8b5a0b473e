"""Several processes that train one network together, each on its share of every batch.

`torchrun --nproc-per-node N -m nertool train ...` starts them and tells each its number. All read the corpus and
build the same network. In each step every process computes the gradient of its share of the batch, weighted so
that the sum over all processes is the gradient of the whole batch, and all take the same step. Dense gradients are
summed in one operation; of the tables whose gradients are sparse, rows are exchanged. torch's
DistributedDataParallel is not used: it copies each gradient into buffers of its own, and NCCL sums no sparse ones.

Process 0 alone writes the run directory. What processes tell one another besides gradients is bytes of JSON or
safetensors, never pickles.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from nertool.errors import ConfigError, NertoolError

Result = TypeVar("Result")
_LAUNCHED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Group:
    """The processes of a training; this class is that of one alone.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        local_rank: Number of this process on its machine.
    """

    rank = 0
    size = 1
    local_rank = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, indices: np.ndarray) -> np.ndarray:
        """Return this process's share of some indices; sizes of shares differ by one at most, and may be 0."""
        return indices[self.rank :: self.size]

    def all_or_none(self, action: Callable[[], Result]) -> Result:
        """Do something that may fail for a reason that a user can change; all fail if one does.

        Raises:
            NertoolError: What this process raised, or what another one did.
        """
        return action()

    def add_up(self, gradients: Sequence[Tensor], tables: Sequence[Tensor]) -> None:
        """Sum gradients over all processes.

        Args:
            gradients: Dense; changed in place.
            tables: Parameters with coalesced sparse gradients, or none; the gradients are replaced.
        """

    def total(self, number: float) -> float:
        """Sum a number over all processes."""
        return number

    def collect(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the arrays of all processes by their numbers; each may have a length of its own, (values,)."""
        return [values]

    def told(self, text: str) -> str:
        """Return the text of process 0."""
        return text

    def shared(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of process 0, on the CPU; those of the others are not looked at."""
        return dict(tensors)


ALONE = Group()


class ProcessGroup(Group):
    """Several processes, by torch.distributed.

    Args:
        rank: Number of this process.
        size: How many there are.
        local_rank: Number of this process on its machine.
    """

    def __init__(self, rank: int, size: int, local_rank: int) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    def all_or_none(self, action: Callable[[], Result]) -> Result:
        """See `Group`."""
        problem: NertoolError | None = None
        try:
            result = action()
        except NertoolError as raised:
            problem = raised
        texts = [bytes(each).decode() for each in self.collect(_bytes("" if problem is None else f"{problem}\n"))]
        if problem is not None:
            raise problem
        for number, text in enumerate(texts):
            if text:
                raise NertoolError(f"process {number} of {self.size}: {text.strip()}")
        return result

    def add_up(self, gradients: Sequence[Tensor], tables: Sequence[Tensor]) -> None:
        """See `Group`."""
        with _explained():
            flat = gradients[0] if len(gradients) == 1 else torch.cat([each.reshape(-1) for each in gradients])
            sum_of_dense = dist.all_reduce(flat, async_op=True)
            self._add_up_rows(tables)
            sum_of_dense.wait()
        if len(gradients) > 1:
            parts = torch.split(flat, [each.numel() for each in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view(gradient.shape))

    def _add_up_rows(self, tables: Sequence[Tensor]) -> None:
        """Exchange the rows of sparse gradients: first how many, then as many as the longest list has."""
        if not tables:
            return
        device = tables[0].device
        own = [0 if table.grad is None else table.grad._indices().shape[1] for table in tables]
        counts = torch.empty(self.size, len(tables), dtype=torch.int64, device=device)
        dist.all_gather(list(counts), torch.tensor(own, device=device))
        for table, numbers in zip(tables, counts.T.tolist(), strict=True):
            most = max(numbers)
            if not most:
                continue
            rows = torch.zeros(most, dtype=torch.int64, device=device)
            values = torch.zeros(most, table.shape[1], dtype=table.dtype, device=device)
            if table.grad is not None:
                count = table.grad._indices().shape[1]
                rows[:count], values[:count] = table.grad._indices()[0], table.grad._values()
            all_rows = [torch.empty_like(rows) for _ in numbers]
            all_values = [torch.empty_like(values) for _ in numbers]
            waiting = dist.all_gather(all_rows, rows, async_op=True)
            dist.all_gather(all_values, values)
            waiting.wait()
            rows, values = (
                torch.cat([part[:count] for part, count in zip(parts, numbers, strict=True)])
                for parts in (all_rows, all_values)
            )
            table.grad = torch.sparse_coo_tensor(
                rows.unsqueeze(0), values, table.shape, check_invariants=False
            ).coalesce()

    def total(self, number: float) -> float:
        """See `Group`."""
        return float(sum(each[0] for each in self.collect(np.array([number]))))

    def collect(self, values: np.ndarray) -> list[np.ndarray]:
        """See `Group`."""
        content = np.ascontiguousarray(values).view(np.uint8)
        with _explained():
            sizes = [torch.empty(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([len(content)]))
            padded = np.zeros(max(1, *map(int, sizes)), np.uint8)
            padded[: len(content)] = content
            parts = [torch.empty(len(padded), dtype=torch.uint8) for _ in sizes]
            dist.all_gather(parts, torch.from_numpy(padded))
        return [part.numpy()[: int(size)].view(values.dtype) for part, size in zip(parts, sizes, strict=True)]

    def told(self, text: str) -> str:
        """See `Group`."""
        return bytes(self._from_first(_bytes(text))).decode()

    def shared(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Group`."""
        own = {name: value.detach().cpu().clone() for name, value in tensors.items()} if self.leads else {}
        content = self._from_first(np.frombuffer(save(own), np.uint8) if self.leads else np.zeros(0, np.uint8))
        return load(content.tobytes())

    def _from_first(self, content: np.ndarray) -> np.ndarray:
        with _explained():
            size = torch.tensor([len(content)])
            dist.broadcast(size, 0)
            values = torch.empty(int(size), dtype=torch.uint8)
            if self.leads:
                values.copy_(torch.from_numpy(content.copy()))
            if len(values):
                dist.broadcast(values, 0)
        return values.numpy()


def launched() -> tuple[int, int] | None:
    """Return the number of this process and how many there are, where `torchrun` started several; else None.

    Raises:
        ConfigError: What it says cannot be understood.
    """
    given = [os.environ.get(name, "") for name in _LAUNCHED_BY]
    if not all(given):
        return None
    try:
        rank, size = int(given[0]), int(given[1])
    except ValueError:
        raise ConfigError(
            f"RANK={given[0]}, WORLD_SIZE={given[1]}: expected numbers, as torchrun sets them"
        ) from None
    return (rank, size) if size > 1 else None


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that `torchrun` started, for the time of a block; alone where it did not.

    After an error the connections end with the process: by then it has said what is wrong.

    Raises:
        NertoolError: They do not find each other.
    """
    place = launched()
    if place is None:
        yield ALONE
        return
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    with _explained():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    yield ProcessGroup(*place, int(os.environ.get("LOCAL_RANK", "0")))
    dist.destroy_process_group()


def own_device(name: str, group: Group) -> str:
    """Return the name of the device of this process: of several GPUs of a machine each process has its own.

    Raises:
        ConfigError: The name is that of one device.
    """
    if group.size == 1 or name == "cpu":
        return name
    if name not in ("cuda", "auto"):
        raise ConfigError(f"training.device: {name} is one device, and there are {group.size} processes; use cuda")
    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{group.local_rank}"


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as problem:  # torch has many types, all of these
        lines = [line for line in str(problem).splitlines() if line.strip()]
        raise NertoolError(
            "another process of this training has ended, or cannot be reached "
            f"({lines[0][:200] if lines else type(problem).__name__})"
        ) from problem


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
