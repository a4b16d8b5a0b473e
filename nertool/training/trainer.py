"""The training loop: a generator of records that listeners draw, log and save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nertool.config.schema import TrainingConfig
from nertool.data.encoding import EncodedCorpus, training_order
from nertool.errors import NertoolError
from nertool.evaluation.scores import Evaluation
from nertool.model.concurrency import threads
from nertool.model.network import Network
from nertool.training.schedule import learning_rate
from nertool.training.step import Learner


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
        """Return the record as plain JSON values."""
        return {**vars(self), "validation": self.validation.to_json()}

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Epoch:
        """Invert `to_json`.

        Raises:
            TypeError, ValueError, LookupError: The tree is no such record.
        """
        return cls(**{**tree, "validation": Evaluation.from_json(tree["validation"])})


def train(
    network: Network,
    corpus: EncodedCorpus,
    validate: Callable[[], Evaluation],
    config: TrainingConfig,
    *,
    learner: Learner | None = None,
    past: Sequence[Epoch] = (),
    save: Callable[[], None] = lambda: None,
) -> Iterator[Step | Epoch]:
    """Train until the epochs or the patience run out.

    While an `Epoch` record is being handled, the network holds the weights that were scored (averaged ones, if
    averaging is on), so that a listener can save them. The generator may be closed, or an exception thrown into
    it, anywhere: the network then holds the weights that training would go on from, in evaluation mode.

    Args:
        network: Trained in place; the last weights remain in it.
        corpus: Labelled training sentences.
        validate: Scores the network as it stands on the validation split.
        config: Update rule, rates and limits.
        learner: Of the network, in the state to go on from; None: a new one.
        past: Epochs that have been trained already; training goes on after them.
        save: Called between two epochs, while the network holds the weights that training goes on from.

    Yields:
        A `Step` after each batch, an `Epoch` after each epoch.

    Raises:
        NertoolError: Training diverged; names the batch.
    """
    learner = learner or Learner(network, config)
    best = past[-1].best if past else 0
    f1s = [epoch.validation.micro.f1 for epoch in past]
    try:
        for number in range(len(past), config.epochs):
            if number - best >= config.patience:
                return
            # The order depends on seed and epoch alone, so an epoch can be repeated by itself.
            order = training_order(corpus.lengths, config.batch_size, np.random.default_rng((config.seed, number)))
            network.train()
            began = time.perf_counter()
            loss_sum = norm_sum = 0.0
            sentences = tokens = 0
            for step, indices in enumerate(order):
                rate = learning_rate(config, number, step, len(order), f1s)
                batch = corpus.batch(indices)
                loss_sum += learner.accumulate(batch) * len(indices)
                try:
                    norm_sum += learner.step(rate)
                except NertoolError as problem:
                    listed = ", ".join(str(index + 1) for index in sorted(indices.tolist()))
                    raise NertoolError(
                        f"epoch {number + 1}, batch {step + 1} of {len(order)} (sentences {listed} of the "
                        f"training split): {problem}"
                    ) from None
                sentences += len(indices)
                tokens += batch.token_count
                seconds = time.perf_counter() - began
                yield Step(number + 1, tokens, corpus.token_count, loss_sum / sentences, seconds)
            seconds = time.perf_counter() - began
            with learner.averaged():
                with threads(learner.threads):
                    validation = validate()
                improved = validation.micro.f1 > max(f1s, default=-1.0)
                f1s.append(validation.micro.f1)
                if improved:
                    best = number + 1
                yield Epoch(
                    number + 1,
                    loss_sum / sentences,
                    rate,
                    norm_sum / len(order),
                    validation,
                    seconds,
                    tokens / seconds,
                    improved,
                    best,
                )
            save()
    finally:
        network.eval()
