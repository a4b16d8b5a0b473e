"""The ONNX graph of a model: which operators it has, and which weights, by its config and vocabularies alone.

Export writes this graph, and loading accepts no other, so that nothing but what nertool computes is ever run.

Everything is time-major. Inputs of the graph, where N is the name of an input of the config:

| name | type | shape | what it is |
| --- | --- | --- | --- |
| `N` of words, case | int64 | (forms,) | row of each distinct form |
| `N` of characters, cnn | int64 | (forms, windows, width) | its windows; shorter ones repeat one of theirs |
| `N` of characters, recurrent | int64 | (characters, forms) | its characters |
| `N.lengths` | int32 | (forms,) | how many these are |
| `known_forms` | float32 | (known, size) | form vectors that are known already |
| `forms` | int64 | (time, batch) | the form of each token: known ones first, then those above |
| `N` of a column | int64 | (time, batch) | value of each token |
| `N` of a gazetteer | int64 | (time, batch, types) | position of each token in a phrase |
| `lengths` | int32 | (batch,) | tokens of each sentence |

Outputs: `form_vectors` (forms, size) and `emissions` (time, batch, labels).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nertool.config.schema import ConvolutionalConfig, NoEncoderConfig, RecurrentConfig
from nertool.errors import NertoolError
from nertool.model.inputs.base import Input
from nertool.model.inputs.case import CASES, Case
from nertool.model.inputs.characters import ConvolvedCharacters, RecurrentCharacters
from nertool.model.inputs.column import Column
from nertool.model.inputs.gazetteer import POSITIONS, Gazetteer
from nertool.model.inputs.words import Words
from nertool.model.outline import Outline

OPSET, IR_VERSION = 17, 8
PRECISIONS = "fp32", "fp16", "int8"
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
_OPERATORS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
_MOST_NODES = 10_000
_EPSILON = float(np.float32(1e-5))  # of torch's layer norm


Attribute = int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """An operator of the standard domain.

    Attributes:
        op: Its name.
        inputs, outputs: Names of values; "" for an optional input that is left out.
        attributes: By name.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass
class Graph:
    """A graph without the values of its weights.

    Attributes:
        precision: How weights are kept: fp32, fp16 or int8.
        inputs, outputs: Type and shape by name; a string is a size that varies.
        nodes: In the order of computation.
        weights: Type and shape of each tensor by name.
        constants: Values of further small tensors.
    """

    precision: str
    inputs: dict[str, tuple[str, tuple[int | str, ...]]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, tuple[int | str, ...]]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Attribute) -> str:
        """Add an operator with one output; returns the name of the output."""
        if len(self.nodes) >= _MOST_NODES:
            raise NertoolError(f"a graph of more than {_MOST_NODES:,} operators: the network has too many layers")
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(Node(op, inputs, (name,), attributes))
        return name

    def constant(self, *values: int | float) -> str:
        """Return the name of a tensor with these values, whole numbers or others."""
        array = np.array(values, np.float32 if isinstance(values[0], float) else np.int64)
        name = "c" + "_".join(map(str, values))
        self.constants[name] = array
        return name

    def plain(self, name: str, *shape: int) -> str:
        """Add a tensor that is always kept in full precision."""
        self.weights[name] = "float32", shape
        return name

    def matrix(self, name: str, *shape: int) -> str:
        """Add a matrix that is kept as the precision asks; returns the name of its values as float32."""
        return self._restored(name, *self._kept(name, shape))

    def rows(self, name: str, shape: tuple[int, int], indices: str) -> str:
        """Add a table that is kept as the precision asks; returns the name of some of its rows, as float32."""
        kept = [self.add("Gather", each, indices, axis=0) for each in self._kept(name, shape)]
        return self._restored(f"{name}.rows", *kept)

    def _kept(self, name: str, shape: tuple[int, ...]) -> list[str]:
        types = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
        self.weights[name] = types[self.precision], shape
        if self.precision != "int8":
            return [name]
        self.weights[f"{name}.scale"] = "float32", (*shape[:-1], 1)
        return [name, f"{name}.scale"]

    def _restored(self, name: str, kept: str, scale: str | None = None) -> str:
        if self.precision == "fp32":
            return kept
        value = self.add("Cast", kept, output=f"{name}.float", to=1)
        return value if scale is None else self.add("Mul", value, scale)


def build_graph(outline: Outline, precision: str) -> Graph:
    """Build the graph of a model.

    Args:
        outline: Of the model.
        precision: How weights are kept.

    Raises:
        NertoolError: A part of the model cannot be exported; says which.
    """
    graph = Graph(precision)
    parts, size = [], 0
    for name in outline.context_free:
        vectors, own = _form_vectors(graph, name, outline.inputs[name])
        parts.append(vectors)
        size += own
    tokens = []
    if parts:
        vectors = graph.add("Concat", *parts, output="form_vectors", axis=-1)
        graph.outputs["form_vectors"] = "float32", ("forms", size)
        graph.inputs["known_forms"] = "float32", ("known", size)
        graph.inputs["forms"] = "int64", ("time", "batch")
        both = graph.add("Concat", "known_forms", vectors, axis=0)
        tokens.append(graph.add("Gather", both, "forms", axis=0))
    for name in outline.contextual:
        vectors, own = _token_vectors(graph, name, outline.inputs[name])
        tokens.append(vectors)
        size += own
    graph.inputs["lengths"] = "int32", ("batch",)
    states, size = _encode(graph, outline.config.model.encoder, graph.add("Concat", *tokens, axis=-1), size)
    if outline.config.model.attention.kind != "none":
        states = _attend(graph, outline.config.model.attention, states, size)
    scores = graph.add("MatMul", states, graph.matrix("scores.weight", size, len(outline.labels)))
    graph.add("Add", scores, graph.plain("scores.bias", len(outline.labels)), output="emissions")
    graph.outputs["emissions"] = "float32", ("time", "batch", len(outline.labels))
    return graph


def _form_vectors(graph: Graph, name: str, source: Input) -> tuple[str, int]:
    """Add an input that depends on the form alone; returns its vectors, (forms, size), and their size."""
    config: Any = source.config
    weight = f"inputs.{name}.weight"
    if isinstance(source, Words | Case):
        graph.inputs[name] = "int64", ("forms",)
        rows, size = (
            (len(source.words) + 1, source.dimensions) if isinstance(source, Words) else (CASES, config.dimensions)
        )
        return graph.rows(weight, (rows, size), name), size
    if isinstance(source, ConvolvedCharacters):
        characters = len(source.characters) + 2
        graph.inputs[name] = "int64", ("forms", f"{name}.windows", config.width)
        offsets = graph.constant(*range(0, config.width * characters, characters))
        taps = graph.plain(weight, config.width * characters, config.filters)
        positions = graph.add("Gather", taps, graph.add("Add", name, offsets), axis=0)
        summed = graph.add("ReduceSum", positions, graph.constant(2), keepdims=0)
        return graph.add("Tanh", graph.add("ReduceMax", summed, axes=(1,), keepdims=0)), config.filters
    if isinstance(source, RecurrentCharacters):
        graph.inputs[name] = "int64", (f"{name}.characters", "forms")
        graph.inputs[f"{name}.lengths"] = "int32", ("forms",)
        table = graph.plain(weight, len(source.characters) + 2, config.dimensions)
        values = graph.add("Gather", table, name, axis=0)
        last = _recurrent(
            graph, f"inputs.{name}", config.network, values, config.dimensions, config.hidden, 2,
            f"{name}.lengths", last=True,
        )  # fmt: skip
        joined = graph.add("Transpose", last, perm=(1, 0, 2))
        return graph.add("Reshape", joined, graph.constant(0, -1)), 2 * config.hidden
    raise _refusal(f"inputs.{name}: the kind {config.kind!r}")


def _token_vectors(graph: Graph, name: str, source: Input) -> tuple[str, int]:
    """Add another input; returns its vectors, (time, batch, size), and their size."""
    weight, size = f"inputs.{name}.weight", getattr(source.config, "dimensions", 0)
    if isinstance(source, Column):
        graph.inputs[name] = "int64", ("time", "batch")
        return graph.rows(weight, (len(source.values) + 1, size), name), size
    if isinstance(source, Gazetteer):
        types = len(source.phrases)
        graph.inputs[name] = "int64", ("time", "batch", types)
        places = graph.add("Add", name, graph.constant(*range(0, types * len(POSITIONS), len(POSITIONS))))
        vectors = graph.rows(weight, (types * len(POSITIONS), size), places)
        return graph.add("Reshape", vectors, graph.constant(0, 0, -1)), types * size
    raise _refusal(f"inputs.{name}: the kind {source.config.kind!r}")


def _encode(graph: Graph, config: Any, values: str, size: int) -> tuple[str, int]:
    if isinstance(config, NoEncoderConfig):
        return values, size
    if isinstance(config, RecurrentConfig):
        directions = 2 if config.bidirectional else 1
        for layer in range(config.layers):
            name = f"encoder.{layer}"
            states = _recurrent(graph, name, config.kind, values, size, config.hidden, directions, "lengths")
            values = graph.add(
                "Reshape", graph.add("Transpose", states, perm=(0, 2, 1, 3)), graph.constant(0, 0, -1)
            )
            size = directions * config.hidden
        return values, size
    if isinstance(config, ConvolutionalConfig):
        return _convolve(graph, config, values, size), config.hidden
    raise _refusal(f"model.encoder: the kind {config.kind!r}")


def _recurrent(
    graph: Graph,
    name: str,
    kind: str,
    values: str,
    inputs: int,
    hidden: int,
    directions: int,
    lengths: str,
    last: bool = False,
) -> str:
    """Add a recurrent layer; returns all states (time, directions, batch, hidden), or the last ones."""
    gates = GATES[kind] * hidden
    weights = (
        graph.matrix(f"{name}.input", directions, gates, inputs),
        graph.matrix(f"{name}.recurrent", directions, gates, hidden),
        graph.plain(f"{name}.bias", directions, 2 * gates),
    )
    outputs = ("", f"{name}.last") if last else (f"{name}.states",)
    attributes: dict[str, Attribute] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    if kind == "gru":
        attributes["linear_before_reset"] = 1
    graph.nodes.append(Node(_OPERATORS[kind], (values, *weights, lengths), outputs, attributes))
    return outputs[-1]


def _convolve(graph: Graph, config: ConvolutionalConfig, values: str, size: int) -> str:
    inside = graph.add("Cast", graph.add("Unsqueeze", _mask(graph, values), graph.constant(1)), to=1)
    values = graph.add("Transpose", values, perm=(1, 2, 0))  # (batch, size, time)

    def convolve(name: str, values: str, size: int, dilation: int) -> str:
        span = (config.width - 1) * dilation
        pads = (span // 2, span // 2) if config.bidirectional else (span, 0)
        weight = restored.get(name) or graph.matrix(f"{name}.weight", config.hidden, size, config.width)
        restored[name] = weight
        bias = graph.plain(f"{name}.bias", config.hidden)
        masked = graph.add("Mul", values, inside)
        return graph.add("Relu", graph.add("Conv", masked, weight, bias, dilations=(dilation,), pads=pads))

    restored: dict[str, str] = {}
    values = convolve("encoder.first", values, size, 1)
    for _ in range(config.layers):
        for number, dilation in enumerate(config.dilations):
            values = convolve(f"encoder.block.{number}", values, config.hidden, dilation)
    return graph.add("Transpose", values, perm=(2, 0, 1))


def _mask(graph: Graph, values: str) -> str:
    """Say which positions are tokens, boolean (batch, time)."""
    time = graph.add("Gather", graph.add("Shape", values), "c_0", axis=0)
    graph.constants["c_0"], graph.constants["c_1"] = np.array(0, np.int64), np.array(1, np.int64)
    steps = graph.add("Range", "c_0", time, "c_1")
    lengths = graph.add("Cast", graph.add("Unsqueeze", "lengths", graph.constant(1)), to=7)
    return graph.add("Less", steps, lengths)


def _attend(graph: Graph, config: Any, states: str, size: int) -> str:
    if config.kind == "additive":
        raise _refusal("model.attention: the kind 'additive'")
    heads, dimensions = getattr(config, "heads", 1), config.dimensions
    scale = 1.0 if config.kind == "dot" else float((heads / dimensions) ** 0.5)

    def norm(name: str, values: str) -> str:
        gain, bias = graph.plain(f"{name}.weight", size), graph.plain(f"{name}.bias", size)
        return graph.add("LayerNormalization", values, gain, bias, axis=-1, epsilon=_EPSILON)

    normed = norm("attention.norm_before", states)
    split = graph.constant(0, 0, heads, -1)
    parts = {}
    for part, order in (("queries", (1, 2, 0, 3)), ("keys", (1, 2, 3, 0)), ("values", (1, 2, 0, 3))):
        projected = graph.add("MatMul", normed, graph.matrix(f"attention.{part}", size, dimensions))
        parts[part] = graph.add("Transpose", graph.add("Reshape", projected, split), perm=order)
    scores = graph.add("Mul", graph.add("MatMul", parts["queries"], parts["keys"]), graph.constant(scale))
    seen = graph.add("Unsqueeze", _mask(graph, states), graph.constant(1, 2))
    shares = graph.add(
        "Softmax", graph.add("Where", seen, scores, graph.constant(-np.inf)), axis=-1
    )  # (batch, heads, time, time)
    mixed = graph.add("Transpose", graph.add("MatMul", shares, parts["values"]), perm=(2, 0, 1, 3))
    joined = graph.add("Reshape", mixed, graph.constant(0, 0, -1))
    result = graph.add("MatMul", joined, graph.matrix("attention.result", dimensions, size))
    result = graph.add("Add", result, graph.plain("attention.result.bias", size))
    return graph.add("Add", states, norm("attention.norm_after", result))


def _refusal(what: str) -> NertoolError:
    return NertoolError(f"{what} cannot be exported to ONNX")
