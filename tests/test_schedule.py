"""Learning rates against the schedulers of torch, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from nertool.config.schema import TrainingConfig
from nertool.training.schedule import learning_rate

Make = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def rates(config: TrainingConfig, steps: int, f1s: Sequence[float] = ()) -> list[float]:
    """The rate of every step of a run whose epochs are equally long."""
    return [
        learning_rate(config, epoch, step, steps, f1s[:epoch])
        for epoch in range(config.epochs)
        for step in range(steps)
    ]


def oracle(make: Make, rate: float, count: int, repeat: int = 1) -> list[float]:
    """The first rates of a scheduler of torch, each as often as asked."""
    rule = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)
    scheduler = make(rule)
    found = []
    for _ in range(count):
        found += [rule.param_groups[0]["lr"]] * repeat
        rule.step()
        scheduler.step()
    return found


class TestAgainstTorch:
    def test_inverse(self):
        config = TrainingConfig(learning_rate=0.3, schedule={"kind": "inverse", "decay": 0.05}, epochs=20)
        wanted = oracle(lambda rule: lr_scheduler.LambdaLR(rule, lambda n: 1 / (1 + 0.05 * n)), 0.3, 20, 4)
        assert rates(config, 4) == pytest.approx(wanted, rel=1e-12)

    @pytest.mark.parametrize("every", [1, 3, 50])
    def test_step(self, every):
        config = TrainingConfig(
            learning_rate=0.3, schedule={"kind": "step", "reduce_every": every, "reduce_by": 0.2}, epochs=20
        )
        wanted = oracle(lambda rule: lr_scheduler.StepLR(rule, every, 0.2), 0.3, 20, 4)
        assert rates(config, 4) == pytest.approx(wanted, rel=1e-12)

    @pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 7), (9, 1), (12, 5)])
    def test_cosine(self, epochs, steps):
        config = TrainingConfig(learning_rate=0.3, schedule="cosine", epochs=epochs)
        total = epochs * steps
        wanted = oracle(lambda rule: lr_scheduler.CosineAnnealingLR(rule, total), 0.3, total)
        assert rates(config, steps) == pytest.approx(wanted, rel=1e-9)

    @pytest.mark.parametrize(
        ("epochs", "steps"), [(1, 2), (1, 3), (2, 2), (5, 1), (1, 7), (10, 1), (2, 10), (12, 5)]
    )
    def test_one_cycle(self, epochs, steps):
        config = TrainingConfig(learning_rate=0.3, schedule="one_cycle", epochs=epochs)
        total = epochs * steps
        wanted = oracle(lambda rule: lr_scheduler.OneCycleLR(rule, 0.3, total, cycle_momentum=False), 0.3, total)
        assert rates(config, steps) == pytest.approx(wanted, rel=1e-9)

    @given(
        st.lists(st.integers(0, 5).map(lambda tenths: tenths / 10), min_size=1, max_size=30),
        st.integers(1, 4),
        st.floats(0.1, 0.9),
    )
    def test_plateau(self, f1s, every, factor):
        config = TrainingConfig(
            learning_rate=0.3,
            schedule={"kind": "plateau", "reduce_every": every, "reduce_by": factor},
            epochs=len(f1s),
        )
        rule = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
        # Patience is how many bad epochs torch lets pass; the one after them reduces.
        scheduler = lr_scheduler.ReduceLROnPlateau(rule, "max", factor, every - 1, threshold=0.0, eps=0.0)
        wanted = []
        for f1 in f1s:
            wanted += [rule.param_groups[0]["lr"]] * 2
            scheduler.step(f1)
        assert rates(config, 2, f1s) == pytest.approx(wanted, rel=1e-9)

    @pytest.mark.parametrize(("warmup", "steps"), [(0.5, 4), (0.75, 4), (2.5, 6), (3.0, 1)])
    def test_warmup(self, warmup, steps):
        config = TrainingConfig(
            learning_rate=0.3, schedule={"kind": "inverse", "decay": 0.0, "warmup": warmup}, epochs=5
        )
        length = round(warmup * steps)
        wanted = oracle(lambda rule: lr_scheduler.LinearLR(rule, 1 / length, 1.0, length - 1), 0.3, 5 * steps)
        assert rates(config, steps) == pytest.approx(wanted, rel=1e-9)


reductions = {
    "reduce_every": st.integers(1, 9),
    "reduce_by": st.floats(0, 1, exclude_min=True, exclude_max=True),
}
schedules = st.one_of(
    st.fixed_dictionaries({"kind": st.just("inverse"), "decay": st.floats(0, 1e300)}),
    st.fixed_dictionaries({"kind": st.sampled_from(["step", "plateau"]), **reductions}),
    st.fixed_dictionaries({"kind": st.sampled_from(["cosine", "one_cycle"])}),
)
configs = st.builds(
    TrainingConfig, schedule=schedules, epochs=st.integers(1, 12), learning_rate=st.floats(1e-9, 1e9)
)
shares = st.lists(st.floats(0, 1), max_size=12)


class TestRates:
    def test_inverse_is_the_formula_to_the_bit(self):
        config = TrainingConfig(learning_rate=0.015, schedule={"kind": "inverse", "decay": 0.05}, epochs=9)
        assert rates(config, 2, [0.5] * 9) == [0.015 / (1 + 0.05 * n) for n in range(9) for _ in range(2)]

    @given(configs, st.integers(1, 20), shares)
    def test_they_are_never_negative_and_never_above_the_configured_one(self, config, steps, f1s):
        assert all(0.0 <= rate <= config.learning_rate for rate in rates(config, steps, f1s))

    @given(configs, st.integers(1, 20), shares)
    def test_they_only_fall_but_for_warmup(self, config, steps, f1s):
        found = rates(config, steps, f1s)
        highest = found.index(max(found))
        assert highest == 0 or config.schedule.kind == "one_cycle"
        assert all(one <= two for one, two in pairwise(found[: highest + 1]))
        assert all(one >= two for one, two in pairwise(found[highest:]))

    @given(
        configs.filter(lambda config: config.schedule.kind != "one_cycle"), st.floats(0, 20), st.integers(1, 20)
    )
    def test_warmup_multiplies_every_schedule_by_a_share_that_rises_to_one(self, config, warmup, steps):
        plain = rates(config, steps)
        warm = rates(
            config.model_copy(update={"schedule": config.schedule.model_copy(update={"warmup": warmup})}), steps
        )
        length = warmup * steps
        for step, (rate, full) in enumerate(zip(warm, plain, strict=True)):
            share = 1.0 if step + 1 >= length else (step + 1) / length
            assert rate == pytest.approx(share * full, rel=1e-9)

    @given(st.floats(0, 20), st.lists(st.sampled_from([10, 11]), min_size=1, max_size=8))
    def test_warmup_rises_where_epochs_differ_by_a_batch(self, warmup, lengths):
        config = TrainingConfig(schedule={"kind": "inverse", "decay": 0.0, "warmup": warmup}, epochs=len(lengths))
        found = [
            learning_rate(config, epoch, step, steps, [])
            for epoch, steps in enumerate(lengths)
            for step in range(steps)
        ]
        assert found[0] > 0, "no step is lost"
        assert all(one <= two for one, two in pairwise(found))

    @pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
    def test_a_batch_more_or_less_hardly_matters(self, schedule):
        config = TrainingConfig(learning_rate=1.0, schedule=schedule, epochs=20)
        for epoch in range(20):
            one, other = (learning_rate(config, epoch, 0, steps, []) for steps in (50, 51))
            assert one == pytest.approx(other, abs=1e-3)
