"""Learning rates: a function of the config and of where training stands, without state of its own.

The schedulers of torch own an optimizer each and remember where they are. Here two update rules, for dense
weights and for rows of the word table, share one rate; and a run that goes on from the beginning of an epoch
needs no more than the epoch's number and the validation scores before it. The tests compare with torch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nertool.config.schema import TrainingConfig

# Of `torch.optim.lr_scheduler.OneCycleLR`: where the peak stands, first rate : peak, last rate : first rate.
_PEAK, _FIRST, _LAST = 0.3, 1 / 25, 1e-4


def learning_rate(config: TrainingConfig, epoch: int, step: int, steps: int, f1s: Sequence[float]) -> float:
    """The rate that a step learns with.

    The number of batches may differ by one from epoch to epoch, so a step's place in the run is reckoned as if
    all epochs had as many as this one.

    Args:
        config: Rate, schedule, warm-up and number of epochs. Where patience may end a run early, cosine and
            one_cycle are cut off: they are laid out over all epochs.
        epoch: Counted from 0.
        step: Of the epoch, counted from 0.
        steps: Number of steps of the epoch.
        f1s: Validation F1 of each epoch before this one; only plateau looks at them.
    """
    rate, done, total = config.learning_rate, epoch * steps + step, config.epochs * steps
    if config.schedule == "inverse":
        rate /= 1 + config.decay * epoch
    elif config.schedule == "step":
        rate *= config.reduce_by ** (epoch // config.reduce_every)
    elif config.schedule == "plateau":
        rate *= config.reduce_by ** _reductions(f1s, config.reduce_every)
    elif config.schedule == "cosine":
        rate *= _cosine(1.0, 0.0, done / total)
    else:
        rate *= _one_cycle(done, total)
    if config.warmup:
        # The step that is about to be taken counts, or the first one would go nowhere.
        rate *= min(1.0, (done + 1) / steps / config.warmup)
    return rate


def _reductions(f1s: Sequence[float], every: int) -> int:
    """How often so many epochs in a row were not better than the best before them."""
    best, waited, count = -math.inf, 0, 0
    for f1 in f1s:
        best, waited = (f1, 0) if f1 > best else (best, waited + 1)
        if waited == every:
            waited, count = 0, count + 1
    return count


def _one_cycle(done: int, total: int) -> float:
    """Share of the peak rate: up to it along half a cosine, then down to next to nothing along another.

    Smith and Topin (2019), "Super-Convergence", as in torch with its defaults, but for momentum: torch moves
    it against the rate, here it stays as configured.
    """
    peak = _PEAK * total - 1
    if done <= peak:
        return _cosine(_FIRST, 1.0, done / peak)
    return _cosine(1.0, _FIRST * _LAST, (done - peak) / (total - 1 - peak))


def _cosine(start: float, end: float, part: float) -> float:
    """Half a cosine from start, where part is 0, to end, where it is 1."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
