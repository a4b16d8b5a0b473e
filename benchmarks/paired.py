"""Measure on a machine that others use too: short slices in turn, and ratios of neighbours in time.

What disturbs one slice usually disturbs its neighbour as well, so their ratio is steadier than either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from nertool.model.concurrency import threads

MATRIX = 1024
PRODUCTS = f"matrix products, {MATRIX} x {MATRIX}"


@dataclass(frozen=True)
class Spread:
    """What several slices gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """A measured figure.

    Attributes:
        name: What was measured.
        unit: Of the value.
        value: Of all slices.
        nertool_is: How many times as fast nertool was in the slices beside these; None for nertool itself.
        share: Of what the machine's matrix products in the slices beside these would allow.
    """

    name: str
    unit: str
    value: Spread
    nertool_is: Spread | None = None
    share: Spread | None = None


def alternate(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run a slice of each in turn, round after round; the first round is a warm-up and is not counted."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, measure in contenders.items():
            figure = measure()
            if number:
                found[name].append(figure)
    return found


def rate_rows(found: Mapping[str, Sequence[float]], nertool: str, work: float) -> list[Row]:
    """Make rows of tokens per second, and the row of matrix products, which must be among the results.

    Args:
        found: What `alternate` gave.
        nertool: The contender that the others are compared with.
        work: GFLOP of matrix products that a token takes.
    """
    rows = []
    for name, rates in found.items():
        if name == PRODUCTS:
            rows.append(Row(name, "GFLOP/s", Spread.of(rates)))
            continue
        ratios = None if name == nertool else _quotients(found[nertool], rates)
        shares = _quotients([work * rate for rate in rates], found[PRODUCTS])
        rows.append(Row(name, "tokens/s", Spread.of(rates), ratios, shares))
    return rows


def time_rows(found: Mapping[str, Sequence[float]], nertool: str, unit: str) -> list[Row]:
    """Make rows of times; lower is faster."""
    return [
        Row(name, unit, Spread.of(times), None if name == nertool else _quotients(times, found[nertool]))
        for name, times in found.items()
    ]


def growth_row(name: str, before: Sequence[float], after: Sequence[float]) -> Row:
    """Compute how many times longer one thing takes than another."""
    return Row(name, "x", _quotients(after, before))


class Stepper:
    """Make slices of something that goes on, such as training.

    Args:
        steps: Yields the tokens of each step when it has been done; None after what is not to be counted.
    """

    def __init__(self, steps: Iterator[int | None]) -> None:
        self._steps = steps
        self._threads = torch.get_num_threads()

    def slice(self, seconds: float) -> float:
        """Tokens per second of the next steps, until so many seconds are over."""
        with threads(self._threads):
            tokens, spent = 0, 0.0
            while spent < seconds:
                began = time.perf_counter()
                step = next(self._steps)
                if step is not None:
                    spent += time.perf_counter() - began
                    tokens += step
            self._threads = torch.get_num_threads()  # a contender may have chosen another number
        return tokens / spent


def repeat(work: Callable[[], int], seconds: float) -> float:
    """Units per second of a piece of work that returns its units, repeated until the seconds are over."""
    units = 0
    began = time.perf_counter()
    while True:
        units += work()
        spent = time.perf_counter() - began
        if spent >= seconds:
            return units / spent


class MatrixProducts:
    """The machine's rate of fp32 matrix products with all the threads that torch takes, in GFLOP/s."""

    def __init__(self) -> None:
        self._factors = torch.randn(2, MATRIX, MATRIX)
        self._result = torch.empty(MATRIX, MATRIX)

    def slice(self, seconds: float) -> float:
        return repeat(self._product, seconds) * 2 * MATRIX**3 / 1e9

    def _product(self) -> int:
        torch.mm(self._factors[0], self._factors[1], out=self._result)
        return 1


def _quotients(above: Sequence[float], below: Sequence[float]) -> Spread:
    return Spread.of([one / other for one, other in zip(above, below, strict=True)])
