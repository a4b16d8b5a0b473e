"""Reading an ONNX file without running it, and without the package `onnx`.

The file is a message of Protocol Buffers. Only what `nertool export` writes is known here: a field, type or
attribute beyond that is an error, among them tensors in other files, functions and graphs within nodes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nertool.errors import BundleError
from nertool.tagging.onnx_graph import Attribute, Node

LARGEST = 2**31 - 1  # bytes: no message can have more
TYPES = {1: "float32", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}  # numbers of ONNX
_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7  # types of attributes

Value = int | memoryview
Described = tuple[str, tuple[int | str, ...]]


@dataclass(frozen=True)
class OnnxFile:
    """What a file has.

    Attributes:
        texts: Its metadata.
        opset: Version of the standard operators.
        nodes: The operators.
        tensors: The weights by name, read-only.
        inputs, outputs: Type and shape of those of the graph by name, as in `Graph`.
    """

    texts: dict[str, str]
    opset: int
    nodes: list[Node]
    tensors: dict[str, np.ndarray]
    inputs: dict[str, Described]
    outputs: dict[str, Described]


def parse(content: bytes, path: Path) -> OnnxFile:
    """Read a file.

    Args:
        content: Of the file.
        path: What errors name.

    Raises:
        BundleError: It is corrupt, or has something that nertool does not write.
    """
    try:
        return _model(memoryview(content))
    except (ValueError, IndexError, LookupError, TypeError, struct.error) as problem:
        raise BundleError(
            f"{path}: not an ONNX file that `nertool export` wrote ({problem or 'cut off'})"
        ) from None


def _model(content: memoryview) -> OnnxFile:
    texts: dict[str, str] = {}
    opsets: dict[str, int] = {}
    nodes: list[Node] = []
    tensors: dict[str, np.ndarray] = {}
    inputs: dict[str, Described] = {}
    outputs: dict[str, Described] = {}
    graphs = 0
    for number, value in _fields(content, {1, 2, 3, 7, 8, 14}, "the model"):
        if number == 14:
            entry = dict(_fields(_part(value), {1, 2}, "an entry of the metadata"))
            texts[_text(entry[1])] = _text(entry[2])
        elif number == 8:
            entry = dict(_fields(_part(value), {1, 2}, "a set of operators"))
            opsets[_text(entry.get(1, memoryview(b"")))] = int(entry[2])
        elif number == 7:
            graphs += 1
            for field, part in _fields(_part(value), {1, 2, 5, 11, 12}, "the graph"):
                if field == 1:
                    nodes.append(_node(_part(part)))
                elif field == 5:
                    name, tensor = _tensor(_part(part))
                    if name in tensors:
                        raise ValueError(f"the tensor {name!r} is there twice")
                    tensors[name] = tensor
                elif field != 2:
                    own = dict(_fields(_part(part), {1, 2}, "an input or output"))
                    (inputs if field == 11 else outputs)[_text(own[1])] = _type(_part(own[2]))
    if graphs != 1 or opsets.keys() != {""}:
        raise ValueError("expected one graph, of standard operators alone")
    return OnnxFile(texts, opsets[""], nodes, tensors, inputs, outputs)


def _type(content: memoryview) -> Described:
    """Read the type and shape of an input or output."""
    tensor = dict(_fields(_part(dict(_fields(content, {1}, "a type"))[1]), {1, 2}, "the type of a tensor"))
    shape: list[int | str] = []
    for _, part in _fields(_part(tensor[2]), {1}, "a shape"):
        ((number, size),) = _fields(_part(part), {1, 2}, "a size")
        shape.append(int(size) if number == 1 else _text(size))
    return TYPES[int(tensor[1])], tuple(shape)


def _node(content: memoryview) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    op, attributes = "", {}
    for number, value in _fields(content, {1, 2, 3, 4, 5, 7}, "an operator"):
        part = _part(value)
        if number == 1:
            inputs.append(_text(part))
        elif number == 2:
            outputs.append(_text(part))
        elif number == 4:
            op = _text(part)
        elif number == 5:
            name, attribute = _attribute(part)
            attributes[name] = attribute
        elif number == 7 and len(part):
            raise ValueError(f"an operator of the domain {_text(part)[:60]!r}")
    return Node(op, tuple(inputs), tuple(outputs), attributes)


def _attribute(content: memoryview) -> tuple[str, Attribute]:
    name, kind, whole = "", 0, 0
    number: float = 0.0
    text, several = "", []
    for field, value in _fields(content, {1, 2, 3, 4, 8, 20}, "an attribute"):
        if field == 1:
            name = _text(value)
        elif field == 2:
            number = float(struct.unpack("<f", _part(value))[0])
        elif field == 3:
            whole = _signed(value)
        elif field == 4:
            text = _text(value)
        elif field == 8:
            several += [_signed(value)] if isinstance(value, int) else list(map(_signed, _varints(value)))
        else:
            kind = int(value)
    result: dict[int, Attribute] = {_FLOAT: number, _INT: whole, _STRING: text, _INTS: tuple(several)}
    return name, result[kind]


def _tensor(content: memoryview) -> tuple[str, np.ndarray]:
    name, kind, raw = "", 0, memoryview(b"")
    shape: list[int] = []
    for field, value in _fields(content, {1, 2, 8, 9}, "a tensor"):
        if field == 1:
            shape += [value] if isinstance(value, int) else list(_varints(value))
        elif field == 2:
            kind = int(value)
        elif field == 8:
            name = _text(value)
        else:
            raw = _part(value)
    if kind not in TYPES or len(shape) > 8 or any(size > LARGEST for size in shape):
        raise ValueError(f"the tensor {name[:60]!r} has a type or shape that is not known")
    dtype = np.dtype(TYPES[kind]).newbyteorder("<")
    return name, np.frombuffer(raw, dtype).reshape(shape)


def _fields(content: memoryview, known: set[int], what: str) -> Iterator[tuple[int, Value]]:
    """Read the fields of a message: their numbers, and a whole number or bytes each."""
    position, end = 0, len(content)
    while position < end:
        key, position = _varint(content, position)
        number, kind = key >> 3, key & 7
        if number not in known:
            raise ValueError(f"{what} has a field of number {number}, which is not known")
        if kind == 0:
            value, position = _varint(content, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(content, position)
        elif kind == 5:
            size = 4
        else:
            raise ValueError(f"{what} has a field of a type that is not known")
        if size > end - position:
            raise ValueError("cut off")
        yield number, content[position : position + size]
        position += size


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise ValueError("cut off")
        byte = content[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a number is too long")


def _varints(content: memoryview) -> Iterator[int]:
    position = 0
    while position < len(content):
        value, position = _varint(content, position)
        yield value


def _signed(value: Value) -> int:
    number = int(value)
    return number - 2**64 if number >= 2**63 else number


def _part(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a text or message belongs")
    return value


def _text(value: Value) -> str:
    return bytes(_part(value)).decode()
