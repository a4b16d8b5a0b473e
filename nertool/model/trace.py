"""`Trace`: what went on in a recurrent layer, as tensors of torch or arrays of numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Array = Any  # a tensor of torch, or an array of numpy


@dataclass(frozen=True, eq=False)
class Trace:
    """One direction of one layer; the time is that of the sentence in both directions.

    Of several sentences arrays are (time, batch, hidden), of one they are (tokens, hidden).

    Attributes:
        kind: `rnn`, `gru` or `lstm`.
        layer: Its number, from 1.
        backward: Whether it reads from the last token to the first.
        gates: By name, from 0 to 1: `input`, `forget` and `output` of an LSTM, `reset` and `update` of a GRU, none
            of a plain RNN.
        candidates: What a token offers to the memory of an LSTM or the state of a GRU; None for a plain RNN.
        memory: The LSTM's memory after each token; None for other kinds.
        states: The output at each token.
    """

    kind: str
    layer: int
    backward: bool
    gates: dict[str, Array] = field(repr=False)
    candidates: Array | None = field(repr=False)
    memory: Array | None = field(repr=False)
    states: Array = field(repr=False)

    def map(self, function: Callable[[Array], Array]) -> Trace:
        """Return the same with a function applied to each array."""
        return Trace(
            self.kind,
            self.layer,
            self.backward,
            {name: function(gate) for name, gate in self.gates.items()},
            None if self.candidates is None else function(self.candidates),
            None if self.memory is None else function(self.memory),
            function(self.states),
        )
