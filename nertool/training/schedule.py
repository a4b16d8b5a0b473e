"""Learning rates: a function of the config and of the position in training, without state of its own.

The schedulers of torch own one optimizer each and remember their position. Here two update rules, for dense
weights and for rows of tables, share one rate, and a run that goes on from the beginning of an epoch needs no more
than the number of the epoch and the validation scores before it. The tests compare with torch's schedulers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nertool.config.schema import TrainingConfig

# Of `torch.optim.lr_scheduler.OneCycleLR`: position of the peak, first rate : peak, last rate : first rate.
_PEAK, _FIRST, _LAST = 0.3, 1 / 25, 1e-4


def learning_rate(config: TrainingConfig, epoch: int, step: int, steps: int, f1s: Sequence[float]) -> float:
    """Compute the rate that a step learns with.

    The number of batches may differ by one from epoch to epoch, so the position of a step in the run is computed
    as if all epochs had as many as this one.

    Args:
        config: Rate, schedule, warm-up and number of epochs. If patience ends a run early, cosine and one_cycle
            are truncated: they are laid out over all epochs.
        epoch: Counted from 0.
        step: Of the epoch, counted from 0.
        steps: Number of steps of the epoch.
        f1s: Validation F1 of each epoch before this one; only plateau uses them.
    """
    rate, done, total = config.learning_rate, epoch * steps + step, config.epochs * steps
    schedule: Any = config.schedule
    if schedule.kind == "inverse":
        rate /= 1 + schedule.decay * epoch
    elif schedule.kind == "step":
        rate *= schedule.reduce_by ** (epoch // schedule.reduce_every)
    elif schedule.kind == "plateau":
        rate *= schedule.reduce_by ** _reductions(f1s, schedule.reduce_every)
    elif schedule.kind == "cosine":
        rate *= _cosine(1.0, 0.0, done / total)
    else:
        rate *= _one_cycle(done, total)
    warmup = getattr(schedule, "warmup", 0.0)  # one_cycle has its own
    if warmup:
        # The step that is about to be taken counts, or the first one would change nothing.
        rate *= min(1.0, (done + 1) / steps / warmup)
    return rate


def _reductions(f1s: Sequence[float], every: int) -> int:
    """Count how often so many epochs in a row were not better than the best before them."""
    best, waited, count = -math.inf, 0, 0
    for f1 in f1s:
        best, waited = (f1, 0) if f1 > best else (best, waited + 1)
        if waited == every:
            waited, count = 0, count + 1
    return count


def _one_cycle(done: int, total: int) -> float:
    """Compute the share of the peak rate: up to 1 along half a cosine, then down to nearly 0 along another.

    Smith and Topin (2019), "Super-Convergence", as in torch with its defaults, except for momentum: torch moves
    it against the rate, here it stays as configured.
    """
    peak = _PEAK * total - 1
    if done <= peak:
        return _cosine(_FIRST, 1.0, done / peak)
    return _cosine(1.0, _FIRST * _LAST, (done - peak) / (total - 1 - peak))


def _cosine(start: float, end: float, part: float) -> float:
    """Follow half a cosine from `start`, where `part` is 0, to `end`, where it is 1."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
