"""The training step: from a batch of arrays to new weights. `nertool train` and `spacy train` both take it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from nertool.config.schema import TrainingConfig
from nertool.data.encoding import Arrays
from nertool.forking import no_fork
from nertool.model.batch import Batch
from nertool.model.concurrency import denormals_as_zero, fork_safe, helper_threads, threads
from nertool.model.network import Network
from nertool.training.distributed import ALONE, Group
from nertool.training.optimization import Optimization

_LARGE_BATCH = 128  # sentences


def training_threads(config: TrainingConfig) -> int:
    """Return how many threads a run uses: as configured, else what pays for its batches (docs/scale.md).

    Two are one for each direction of the encoder. More divide operations, which are large enough in large batches.
    """
    return config.threads or min(torch.get_num_threads(), 8 if config.batch_size >= _LARGE_BATCH else 2)


class Learner:
    """Trains a network step by step.

    The gradients of any number of batches add up to one step. The network holds the weights that training goes
    on from, except between `show` and `resume`, when it holds their moving averages (if the config has any).

    Args:
        network: Trained in place, on the device that its weights are on.
        config: Update rule, rates, clipping, averaging and threads.
        group: The processes that train it together. Each draws a stream of random bits of its own for dropout.

    Attributes:
        threads: Threads that training uses.
        optimization: State of the update rules and of the averages.
        restored_noise: Positions in the streams of random bits of all processes, in the state that was restored
            last; None: there was none.
    """

    @fork_safe
    def __init__(self, network: Network, config: TrainingConfig, group: Group = ALONE) -> None:
        self.network = network
        self.config = config
        self.group = group
        if group.rank:
            network.noise.branch(group.rank)
        self.optimization = Optimization(network, config, group)
        self.threads = training_threads(config)
        self._device = next(network.parameters()).device
        # Two directions run on a thread each; cores beyond these work inside the operations.
        self._operation_threads = max(1, self.threads // getattr(network.encoder, "branches", 1))
        concurrent = self.threads > 1 and self._device.type == "cpu"
        network.encoder.concurrent = concurrent
        self._helpers = helper_threads() if concurrent else None  # they end with this
        self._low_precision = config.precision == "bf16"
        self.restored_noise: Tensor | None = None
        self._pending = 0
        self._shows_averages = False

    @property
    def pending(self) -> int:
        """How many sentences have added gradients since the last step."""
        return self._pending

    def accumulate(self, arrays: Arrays | None, of: int | None = None) -> float:
        """Add the gradients of a batch to those of the step.

        Args:
            arrays: A labelled batch; None: an empty share of one.
            of: Sentences of the batch that this is a share of; None: it is a whole one.

        Returns:
            The mean loss of its sentences; of a share, the sum of their losses over the sentences of the batch.
        """
        self.resume()
        if not self.network.training:
            self.network.train()
        if arrays is None:
            self._make_room(self._pending + (of or 0))
            return 0.0
        sentences = len(arrays.lengths)
        batch_size = of or sentences
        total = self._pending + batch_size
        try:
            with no_fork(), threads(self._operation_threads), denormals_as_zero():
                batch = Batch.of(arrays, self._device)
                loss = self.network.loss(batch, low_precision=self._low_precision)
                if total == sentences:
                    loss.backward()  # type: ignore[no-untyped-call]
                else:  # keep the gradient the mean over all sentences of the step
                    self._make_room(total)
                    (loss * (sentences / total)).backward()  # type: ignore[no-untyped-call]
        except BaseException:
            self._drop()
            raise
        self._pending = total
        return float(loss.detach()) * (sentences / batch_size)

    def step(self, rate: float) -> float:
        """Update the weights by the mean gradient of the sentences since the last step.

        Args:
            rate: Learning rate.

        Returns:
            The norm of the gradient before clipping.

        Raises:
            NertoolError: Training diverged. The weights are as they were, and the gradients are dropped.
        """
        self.resume()
        self.optimization.set_rate(rate)
        try:
            with no_fork(), threads(self._operation_threads), denormals_as_zero():
                return self.optimization.step()
        except BaseException:
            self._drop()
            raise
        finally:
            self._pending = 0

    def show(self) -> None:
        """Make the network what is to be scored and saved: in evaluation mode, with averages if there are any."""
        self.network.eval()
        average = self.optimization.average
        if average is not None and not self._shows_averages:
            average.swap()
            self._shows_averages = True

    def resume(self) -> None:
        """Undo `show`: make the network hold the weights that training goes on from."""
        average = self.optimization.average
        if average is not None and self._shows_averages:
            average.swap()
            self._shows_averages = False

    def state(self) -> dict[str, Tensor]:
        """Return all that future steps depend on besides settings, by name, on the CPU; of all processes together.

        The network holds the weights that training goes on from. Each process of the group has to call this.
        """
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"optimization.{name}": value for name, value in self.optimization.state().items()}
        tensors = {name: value.detach().cpu() for name, value in tensors.items()}
        noises = self.group.collect(self.network.noise.state.view(np.int64))
        tensors["noise"] = torch.from_numpy(np.stack(noises) if len(noises) > 1 else noises[0].copy())
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state: to the same bits, if there are as many processes as there were.

        Raises:
            Exception: Of many types; the state is that of another network or of other settings.
        """
        self.network.load_state_dict(_part(state, "network."))
        self.optimization.restore(_part(state, "optimization."))
        self.restored_noise = state["noise"]
        noises = state["noise"].numpy().view(np.uint64).reshape(-1, 4)
        same = len(noises) == self.group.size
        self.network.noise.state = noises[self.group.rank if same else 0]
        if self.group.rank and not same:
            self.network.noise.branch(self.group.rank)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Call `show` for the time of a block, and `resume` however the block ends."""
        self.show()
        try:
            yield
        finally:
            self.resume()

    def _make_room(self, total: int) -> None:
        """Scale the gradients so far for a mean over more sentences, and count these as pending."""
        for parameter in self.network.parameters() if self._pending else ():
            if parameter.grad is not None:
                parameter.grad.mul_(self._pending / total)
        self._pending = total

    def _drop(self) -> None:
        self._pending = 0
        self.network.zero_grad(set_to_none=True)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
