"""The training loop: a generator of records that listeners draw, log and save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nertool.config.schema import TrainingConfig
from nertool.data.batching import EncodedCorpus, training_order
from nertool.errors import NertoolError
from nertool.evaluation.scores import Evaluation
from nertool.model.concurrency import denormals_as_zero, threads
from nertool.model.network import Network
from nertool.training.optimization import Optimization
from nertool.training.schedule import learning_rate


@dataclass(frozen=True)
class Step:
    """One batch has been learnt.

    Attributes:
        epoch: Counted from 1.
        tokens: Learnt in this epoch so far.
        total: Tokens of the epoch.
        loss: Mean loss of a sentence in this epoch so far.
        seconds: Since the epoch began.
    """

    epoch: int
    tokens: int
    total: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One epoch has ended and the validation split has been scored.

    Attributes:
        number: Counted from 1.
        loss: Mean loss of a sentence.
        learning_rate: Of the last step of this epoch.
        gradient_norm: Mean norm of the gradient before clipping.
        validation: Scores of the validation split.
        seconds: Spent on training, without validation.
        tokens_per_second: Of training.
        improved: Whether this is the best epoch so far.
        best: Number of the best epoch so far.
    """

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    validation: Evaluation
    seconds: float
    tokens_per_second: float
    improved: bool
    best: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "validation": self.validation.to_json()}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Epoch:
        """The inverse of `to_json`; raises TypeError, ValueError or LookupError for anything else."""
        return cls(**{**tree, "validation": Evaluation.from_json(tree["validation"])})


def training_threads(config: TrainingConfig) -> int:
    """How many threads a run uses: as configured, else what torch would use, but no more than help."""
    return config.threads or min(torch.get_num_threads(), 4)


def train(
    network: Network,
    corpus: EncodedCorpus,
    validate: Callable[[], Evaluation],
    config: TrainingConfig,
    *,
    optimization: Optimization | None = None,
    past: Sequence[Epoch] = (),
    save: Callable[[], None] = lambda: None,
) -> Iterator[Step | Epoch]:
    """Trains until the epochs or the patience run out.

    While an `Epoch` record is being handled, the network holds the weights that were scored (averaged ones,
    where averaging is on), so that a listener can save them.

    Args:
        network: Trained in place; the last weights remain in it.
        corpus: Labelled training sentences.
        validate: Scores the network as it stands on the validation split.
        config: Rule, rates and limits.
        optimization: Of the network, where it stands; None: at the beginning.
        past: Epochs that have been trained already; training goes on after them.
        save: Called between two epochs, while the network holds the weights that training goes on from.

    Raises:
        NertoolError: Training diverged.
    """
    optimization = optimization or Optimization(network, config)
    count = training_threads(config)
    network.encoder.concurrent = count > 1
    best = past[-1].best if past else 0
    f1s = [each.validation.micro.f1 for each in past]
    for epoch in range(len(past), config.epochs):
        if epoch - best >= config.patience:
            return
        # The order depends on seed and epoch alone, so an epoch can be repeated by itself.
        order = training_order(corpus.lengths, config.batch_size, np.random.default_rng((config.seed, epoch)))
        network.train()
        began = time.perf_counter()
        loss_sum = norm_sum = 0.0
        sentences = tokens = 0
        for step, chosen in enumerate(order):
            rate = learning_rate(config, epoch, step, len(order), f1s)
            optimization.set_rate(rate)
            batch = corpus.batch(chosen)
            # Two directions run on a thread each; cores beyond these work inside the operations.
            with threads(max(1, count // network.encoder.branches)), denormals_as_zero():
                loss = network.loss(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                try:
                    norm_sum += optimization.step()
                except NertoolError as problem:
                    places = ", ".join(str(place + 1) for place in sorted(chosen.tolist()))
                    raise NertoolError(
                        f"epoch {epoch + 1}, batch {step + 1} of {len(order)} (sentences {places} of the "
                        f"training split): {problem}"
                    ) from None
            loss_sum += float(loss.detach()) * len(chosen)
            sentences += len(chosen)
            tokens += batch.token_count
            yield Step(epoch + 1, tokens, corpus.token_count, loss_sum / sentences, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        network.eval()
        if optimization.average is not None:
            optimization.average.swap()
        with threads(count):
            validation = validate()
        improved = validation.micro.f1 > max(f1s, default=-1.0)
        f1s.append(validation.micro.f1)
        if improved:
            best = epoch + 1
        yield Epoch(
            epoch + 1,
            loss_sum / sentences,
            rate,
            norm_sum / len(order),
            validation,
            seconds,
            tokens / seconds,
            improved,
            best,
        )
        if optimization.average is not None:
            optimization.average.swap()
        save()
