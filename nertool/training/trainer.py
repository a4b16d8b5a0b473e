"""The training loop: a generator of records that listeners draw, log and save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nertool.config.schema import TrainingConfig
from nertool.data.encoding import Learnable
from nertool.errors import DivergenceError
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
        loss: Mean loss of a sentence in this epoch so far; of several processes that of this one's sentences.
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
        improved: Whether this is the best epoch so far: of those with the best F1 the one with the lowest
            validation loss.
        best: Number of the best epoch so far.
        validation_loss: Mean loss of a sentence of the validation split; None where it decides nothing, because F1
            is not 0 and lower than that of the best epoch, or where it cannot be computed.
        note: What a person should know about this epoch, such as that no entity was predicted.
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
    validation_loss: float | None = None
    note: str = ""

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


def has_ended(epochs: Sequence[Epoch], config: TrainingConfig) -> bool:
    """Say whether no epoch is left to train, or no patience.

    Patience counts from the last epoch whose F1 was higher than all before. A lower validation loss makes the
    better model of two with the same F1, but it may go on falling for ever. While F1 is 0 a loss lower than all
    before counts, though the best epoch may be an earlier one whose guesses were lucky.
    """
    better, highest, lowest = 0, -1.0, math.inf
    for epoch in epochs:
        f1 = epoch.validation.micro.f1
        loss = math.inf if epoch.validation_loss is None else epoch.validation_loss
        if f1 > highest or (f1 == 0 and loss < lowest):
            better = epoch.number
        highest, lowest = max(highest, f1), min(lowest, loss)
    return len(epochs) >= config.epochs or len(epochs) - better >= config.patience


def train(
    network: Network,
    corpus: Learnable,
    validate: Callable[[], Evaluation],
    config: TrainingConfig,
    *,
    validation_loss: Callable[[], float | None] = lambda: None,
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
        validation_loss: Computes the loss of the network on the validation split, which decides between epochs
            with the same F1; where it returns None, the earlier one is better.
        learner: Of the network, in the state to go on from; None: a new one.
        past: Epochs that have been trained already; training goes on after them.
        save: Called between two epochs, while the network holds the weights that training goes on from.

    Yields:
        A `Step` after each batch, an `Epoch` after each epoch.

    Raises:
        DivergenceError: Training diverged; names the batch.
    """
    learner = learner or Learner(network, config)
    group = learner.group
    epochs = list(past)
    try:
        while not has_ended(epochs, config):
            number = len(epochs)
            f1s = [epoch.validation.micro.f1 for epoch in epochs]
            steps, sentences, total, batches = corpus.epoch(config.batch_size, config.seed, number)
            network.train()
            began = time.perf_counter()
            loss_sum = norm_sum = 0.0
            own_sentences = tokens = 0
            for step, (part, indices, numbers) in enumerate(batches):
                rate = learning_rate(config, number, step, steps, f1s)
                own = group.share(indices)
                batch = part.batch(own) if len(own) else None
                loss_sum += learner.accumulate(batch, len(indices)) * len(indices)
                try:
                    norm_sum += learner.step(rate)
                except DivergenceError as problem:
                    listed = ", ".join(str(index + 1) for index in sorted(numbers.tolist()))
                    raise DivergenceError(
                        f"epoch {number + 1}, batch {step + 1} of {steps} (sentences {listed} of the "
                        f"training split): {problem}"
                    ) from None
                own_sentences += len(own)
                tokens += int(part.lengths[indices].sum())
                seconds = time.perf_counter() - began
                yield Step(number + 1, tokens, total, loss_sum / max(own_sentences, 1), seconds)
            loss_sum = group.total(loss_sum)
            seconds = time.perf_counter() - began
            with learner.averaged():
                with threads(learner.threads):
                    validation = validate()
                    best = epochs[epochs[-1].best - 1] if epochs else None
                    gain = 1.0 if best is None else validation.micro.f1 - best.validation.micro.f1
                    loss = validation_loss() if gain >= 0 or validation.micro.f1 == 0 else None
                improved = gain > 0 or (gain == 0 and _is_lower(loss, best))
                epochs.append(
                    Epoch(
                        number + 1,
                        loss_sum / sentences,
                        rate,
                        norm_sum / steps,
                        validation,
                        seconds,
                        tokens / seconds,
                        improved,
                        number + 1 if best is None or improved else best.number,
                        loss,
                    )
                )
                yield epochs[-1]
            save()
    finally:
        network.eval()


def _is_lower(loss: float | None, best: Epoch | None) -> bool:
    """Say whether a validation loss is lower than that of the best epoch, which may have none."""
    known = None if best is None else best.validation_loss
    return loss is not None and (known is None or loss < known)
