"""The training step: from a batch of arrays to new weights. `nertool train` and `spacy train` both take it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nertool.config.schema import TrainingConfig
from nertool.data.encoding import Arrays
from nertool.forking import no_fork
from nertool.model.batch import Batch
from nertool.model.concurrency import denormals_as_zero, fork_safe, helper_threads, threads
from nertool.model.network import Network
from nertool.training.optimization import Optimization


def training_threads(config: TrainingConfig) -> int:
    """Return how many threads a run uses: as configured, else what torch would use, but no more than help."""
    return config.threads or min(torch.get_num_threads(), 4)


class Learner:
    """Trains a network step by step.

    The gradients of any number of batches add up to one step. The network holds the weights that training goes
    on from, except between `show` and `resume`, when it holds their moving averages (if the config has any).

    Args:
        network: Trained in place, on the device that its weights are on.
        config: Update rule, rates, clipping, averaging and threads.

    Attributes:
        threads: Threads that training uses.
        optimization: State of the update rules and of the averages.
    """

    @fork_safe
    def __init__(self, network: Network, config: TrainingConfig) -> None:
        self.network = network
        self.config = config
        self.optimization = Optimization(network, config)
        self.threads = training_threads(config)
        self._device = next(network.parameters()).device
        # Two directions run on a thread each; cores beyond these work inside the operations.
        self._operation_threads = max(1, self.threads // getattr(network.encoder, "branches", 1))
        network.encoder.concurrent = self.threads > 1
        self._helpers = helper_threads() if self.threads > 1 else None  # they end with this
        self._pending = 0
        self._shows_averages = False

    @property
    def pending(self) -> int:
        """How many sentences have added gradients since the last step."""
        return self._pending

    def accumulate(self, arrays: Arrays) -> float:
        """Add the gradients of a batch to those of the step.

        Args:
            arrays: A labelled batch.

        Returns:
            The mean loss of its sentences.
        """
        self.resume()
        if not self.network.training:
            self.network.train()
        sentences = len(arrays.lengths)
        total = self._pending + sentences
        try:
            with no_fork(), threads(self._operation_threads), denormals_as_zero():
                loss = self.network.loss(Batch.of(arrays, self._device))
                if not self._pending:
                    loss.backward()  # type: ignore[no-untyped-call]
                else:  # keep the gradient the mean over all sentences of the step
                    for parameter in self.network.parameters():
                        if parameter.grad is not None:
                            parameter.grad.mul_(self._pending / total)
                    (loss * (sentences / total)).backward()  # type: ignore[no-untyped-call]
        except BaseException:
            self._drop()
            raise
        self._pending = total
        return float(loss.detach())

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

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Call `show` for the time of a block, and `resume` however the block ends."""
        self.show()
        try:
            yield
        finally:
            self.resume()

    def _drop(self) -> None:
        self._pending = 0
        self.network.zero_grad(set_to_none=True)
