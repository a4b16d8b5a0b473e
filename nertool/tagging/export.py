"""Writing a model as one ONNX file (see `onnx_graph` for the graph, `exported` for reading it)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nertool
from nertool.config.files import replaced_when_done
from nertool.config.loading import without_folders
from nertool.errors import NertoolError
from nertool.forking import no_fork
from nertool.model.concurrency import fork_safe
from nertool.model.encoders.recurrent import Direction
from nertool.model.model import Model
from nertool.model.network import Network
from nertool.tagging.exported import DIGEST, TEXTS, VERSION, digest
from nertool.tagging.onnx_file import LARGEST
from nertool.tagging.onnx_graph import GATES, IR_VERSION, OPSET, Graph, build_graph
from nertool.tagging.vocabulary import vocabulary_bytes

# The gates of torch in the order that ONNX has them: input, output, forget, cell; update, reset, new.
_ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}


@fork_safe
def export_model(model: Model, path: Path, precision: str = "fp32") -> None:
    """Write a model as one ONNX file, which appears under its name when it is whole.

    Args:
        model: In evaluation mode.
        path: Of the file.
        precision: How weights are kept: `fp32`, `fp16`, or `int8` with a scale for each row of a matrix.

    Raises:
        NertoolError: A part of the model cannot be exported, or the file cannot be written.
    """
    graph = build_graph(model, precision)
    tensors = {**graph.constants, **_kept(graph, _weights(model.network))}
    texts = {
        "nertool": VERSION,
        "precision": precision,
        "config": json.dumps(without_folders(model.config).model_dump(mode="json")),
        "vocabulary": vocabulary_bytes(model).decode(),
        "decoder": json.dumps(_decoder(model.network)),
    }
    assert texts.keys() == set(TEXTS)
    texts[DIGEST] = digest(texts, tensors)
    content = _serialize(graph, tensors, texts)
    with replaced_when_done(path) as target:
        target.write(content)


def _decoder(network: Network) -> dict[str, Any]:
    scores = network.decoder.scores(constrained=True)
    names = zip(("start", "transitions", "end"), scores, strict=True)
    return {
        **{name: _array(each).tolist() for name, each in names},
        "temperature": float(network.decoder.temperature),
    }


def _weights(network: Network) -> dict[str, np.ndarray]:
    """Return the weights in the shapes of the graph, in single precision."""
    result: dict[str, Any] = {}
    for name in network.inputs:
        module: Any = network.input(name)
        weight = f"inputs.{name}.weight"
        if hasattr(module, "kernel"):
            taps = module.vectors() @ module.kernel  # (width, characters, filters)
            taps[0] += module.bias  # each window has one first character
            result[weight] = taps.reshape(-1, taps.shape[-1])
        elif hasattr(module, "ahead"):
            result[weight] = module.vectors()
            result |= _recurrent(f"inputs.{name}", [module.ahead, module.back])
        else:
            result[weight] = module.weight
    encoder: Any = network.encoder
    for number, layer in enumerate(getattr(encoder, "layers", ())):
        result |= _recurrent(f"encoder.{number}", list(layer))
    if hasattr(encoder, "block"):
        for name, each in [
            ("first", encoder.first),
            *((f"block.{n}", each) for n, each in enumerate(encoder.block)),
        ]:
            filters = each.taps.weight.reshape(each.taps.weight.shape[0], each.width, -1)
            result[f"encoder.{name}.weight"] = filters.transpose(1, 2)
            result[f"encoder.{name}.bias"] = each.taps.bias
    if network.attention is not None:
        own = network.attention
        for part in ("queries", "keys", "values", "result"):
            result[f"attention.{part}"] = getattr(own, part).weight.T
        result["attention.result.bias"] = own.result.bias
        for part in ("norm_before", "norm_after"):
            norm: nn.LayerNorm = getattr(own, part)
            result[f"attention.{part}.weight"], result[f"attention.{part}.bias"] = norm.weight, norm.bias
    result["scores.weight"], result["scores.bias"] = network.scores.weight.T, network.scores.bias
    return {name: _array(each) for name, each in result.items()}


def _recurrent(name: str, directions: list[Direction]) -> dict[str, Tensor]:
    """Return the weights of a recurrent layer, its directions stacked, its gates in the order of ONNX."""

    def ordered(direction: Direction, values: Tensor) -> Tensor:
        gates = values.chunk(GATES[direction.kind])
        return torch.cat([gates[number] for number in _ORDER[direction.kind]])

    def stacked(*names: str) -> Tensor:
        return torch.stack(
            [torch.cat([ordered(each, getattr(each.cell, name)) for name in names]) for each in directions]
        )

    return {
        f"{name}.input": stacked("weight_ih_l0"),
        f"{name}.recurrent": stacked("weight_hh_l0"),
        f"{name}.bias": stacked("bias_ih_l0", "bias_hh_l0"),
    }


def _kept(graph: Graph, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert weights to what the graph keeps of them."""
    result = {}
    for name, (kind, shape) in graph.weights.items():
        if name.endswith(".scale"):
            continue
        values = weights.pop(name)
        assert values.shape == shape, (name, values.shape, shape)
        if kind == "int8":
            scale = np.abs(values).max(-1, keepdims=True, initial=0.0) / 127
            scale[scale == 0] = 1.0
            result[f"{name}.scale"] = scale.astype(np.float32)
            result[name] = np.rint(values / scale).astype(np.int8)
            continue
        with np.errstate(over="ignore"):
            result[name] = values.astype(kind)
        if not np.isfinite(result[name]).all():
            raise NertoolError(f"{name} has values that 16 bits cannot hold: export without --fp16")
    assert not weights, sorted(weights)
    return result


def _serialize(graph: Graph, tensors: dict[str, np.ndarray], texts: dict[str, str]) -> bytes:
    with no_fork():
        try:
            import onnx
            from onnx import helper, numpy_helper
        except ImportError:
            raise NertoolError(
                "export needs the package onnx; install with: pip install 'nertool[onnx]'"
            ) from None
    make: Any = helper  # its annotations are not those of what it takes
    described = make.make_graph(
        [make.make_node(each.op, each.inputs, each.outputs, **each.attributes) for each in graph.nodes],
        "nertool",
        [_value(make, name, *each) for name, each in graph.inputs.items()],
        [_value(make, name, *each) for name, each in graph.outputs.items()],
        [numpy_helper.from_array(np.asarray(each, order="C"), name) for name, each in tensors.items()],
    )
    if sum(each.nbytes for each in tensors.values()) > LARGEST - 2**28:
        raise NertoolError("the model is too large for an ONNX file (2 GB); try --fp16 or --int8")
    opset = helper.make_opsetid("", OPSET)
    whole = helper.make_model(described, producer_name="nertool", producer_version=nertool.__version__)
    del whole.opset_import[:]
    whole.opset_import.append(opset)
    whole.ir_version = IR_VERSION
    helper.set_model_props(whole, texts)
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def _value(helper: Any, name: str, kind: str, shape: tuple[int | str, ...]) -> Any:
    from onnx import TensorProto

    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32}
    return helper.make_tensor_value_info(name, types[kind], shape)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().float().numpy()
