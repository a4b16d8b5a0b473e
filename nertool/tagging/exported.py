"""A model as one ONNX file, run by ONNX Runtime: tagging without torch.

A file of a stranger is read like a bundle of a stranger. Its graph has to be the one that its config and
vocabularies describe (see `onnx_graph`), with finite weights of the right types and shapes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nertool.config.schema import Config
from nertool.data.encoding import Table, padded
from nertool.errors import BundleError, ConfigError, NertoolError
from nertool.forking import cached_property, no_fork
from nertool.model.chain import Places, Scores
from nertool.model.decoding import ChainDecoder
from nertool.model.outline import Outline
from nertool.model.parallel import processors
from nertool.tagging.onnx_file import LARGEST, OnnxFile, parse
from nertool.tagging.onnx_graph import OPSET, PRECISIONS, Graph, build_graph
from nertool.tagging.prediction import NOT_FINITE, Activations, Decoded, Features, Wanted
from nertool.tagging.vocabulary import LARGEST_VOCABULARY, parse_vocabulary, restore_inputs
from nertool.text.schemes import allowed_transitions

SUFFIX = ".onnx"
VERSION = "1"
FORBIDDEN = -1e9  # as in `nertool.model.crf`
TEXTS = "nertool", "precision", "config", "vocabulary", "decoder"
DIGEST = "digest"
TEMPERATURES = 0.01, 100.0  # calibration finds 0.13 to 7.4
_LARGEST_CONFIG = 2**20  # characters
_LARGEST_SCORE = 1e6
_FORMS_AT_ONCE = 1024


@dataclass
class ExportedModel(Outline):
    """A model that ONNX Runtime runs.

    Attributes:
        path: Of the file.
        digest: Of its content.
        precision: How its weights are kept: fp32, fp16 or int8.
        decoder: From scores to labels.
        weights: How many there are.
        backend: What computes.
    """

    path: Path
    digest: str
    precision: str
    decoder: ChainDecoder
    weights: int
    backend: OnnxBackend


def is_exported(path: Path) -> bool:
    """Return whether a path is that of an exported model, and not of a folder."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def digest(texts: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of texts, and of names, types, shapes and values of tensors, whatever their order."""
    result = hashlib.sha256(json.dumps({name: texts[name] for name in TEXTS}, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        result.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        result.update(tensor.reshape(-1).view(np.uint8).data)
    return result.hexdigest()


def load_exported(path: Path) -> ExportedModel:
    """Read an exported model.

    Raises:
        BundleError: The file is corrupt, or not one that `nertool export` wrote.
        NertoolError: ONNX Runtime is not installed.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise BundleError(f"{path}: too large for a model ({size:,} bytes, at most {LARGEST:,})")
        content = path.read_bytes()
    except OSError as problem:
        raise BundleError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    file = parse(content, path)
    texts = file.texts
    if texts.get("nertool") != VERSION or texts.keys() != {*TEXTS, DIGEST} or file.opset != OPSET:
        raise BundleError(
            f"{path}: not exported by this version of nertool (format {texts.get('nertool')}, this one reads "
            f"{VERSION}): export the model again"
        )
    outline, decoder = _describe(path, texts)
    try:
        graph = build_graph(outline, texts["precision"])
    except NertoolError as problem:
        raise BundleError(f"{path}: {problem}") from None
    _compare(path, file, graph)
    if digest(texts, file.tensors) != texts[DIGEST]:
        raise BundleError(f"{path}: corrupt (its content is not what was written); copy or download it again")
    weights = sum(int(np.prod(shape)) for name, (_, shape) in graph.weights.items() if not name.endswith(".scale"))
    backend = OnnxBackend(_session(path, content), outline, decoder)
    model = ExportedModel(
        outline.config, outline.labels, outline.scheme, outline.inputs,
        path, texts[DIGEST], texts["precision"], decoder, weights, backend,
    )  # fmt: skip
    return model


def _describe(path: Path, texts: Mapping[str, str]) -> tuple[Outline, ChainDecoder]:
    if texts["precision"] not in PRECISIONS:
        raise BundleError(f"{path}: precision {texts['precision'][:20]!r}; expected {', '.join(PRECISIONS)}")
    for name, most in (("config", _LARGEST_CONFIG), ("vocabulary", LARGEST_VOCABULARY)):
        if len(texts[name]) > most:
            raise BundleError(f"{path}: its {name} is too large ({most:,} characters at most)")
    try:
        config = Config.model_validate(json.loads(texts["config"]))
    except (ValueError, RecursionError, ConfigError) as problem:
        raise BundleError(f"{path}: its config cannot be read: {problem}") from None
    vocabulary = parse_vocabulary(texts["vocabulary"].encode(), path)
    inputs = restore_inputs(path, config, vocabulary.inputs)
    outline = Outline(config, vocabulary.labels, vocabulary.scheme, inputs)
    return outline, _decoder(path, texts["decoder"], outline)


def _decoder(path: Path, text: str, outline: Outline) -> ChainDecoder:
    """Read the decoder, whose scores have to forbid what the scheme does, and nothing else."""
    count = len(outline.labels)
    try:
        tree = json.loads(text)
        if tree.keys() != {"start", "transitions", "end", "temperature"}:
            raise ValueError("expected start, transitions, end and temperature")
        scores = Scores(*(np.array(tree[name], np.float64) for name in ("start", "transitions", "end")))
        if [each.shape for each in scores] != [(count,), (count, count), (count,)]:
            raise ValueError(f"expected scores of {count} labels")
        low, high = TEMPERATURES
        if not low <= float(tree["temperature"]) <= high:
            raise ValueError(f"temperature {tree['temperature']}, expected {low} to {high:g}")
        config: Any = outline.config.model.decoder
        constrained = config.kind == "constrained" or getattr(config, "constraints", "none") != "none"
        allowed = allowed_transitions(outline.labels, outline.scheme)
        for each, own in zip(scores, allowed, strict=True):
            valid = each[own] if constrained else each
            if not (np.isfinite(each).all() and (np.abs(valid) <= _LARGEST_SCORE).all()):
                raise ValueError("a score is not finite, or too large")
            if constrained and not (each[~own] < FORBIDDEN / 2).all():
                raise ValueError("its scores allow what the label scheme does not")
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as problem:
        raise BundleError(f"{path}: its decoder cannot be read: {problem}") from None
    return ChainDecoder(scores, float(tree["temperature"]))


def _compare(path: Path, file: OnnxFile, graph: Graph) -> None:
    """Compare what the file computes with what its config says."""
    problem = None
    wanted = {name: (kind, tuple(shape)) for name, (kind, shape) in graph.weights.items()}
    wanted |= {name: (str(each.dtype), each.shape) for name, each in graph.constants.items()}
    found = {name: (each.dtype.name, each.shape) for name, each in file.tensors.items()}
    if found != wanted:
        name = min(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        problem = f"the tensor {name[:60]!r} is {found.get(name)}, expected {wanted.get(name)}"
    elif (file.nodes, file.inputs, file.outputs) != (graph.nodes, graph.inputs, graph.outputs):
        problem = "its graph is another"
    elif not all(np.array_equal(file.tensors[name], each) for name, each in graph.constants.items()):
        problem = "its graph has other constants"
    if problem is not None:
        raise BundleError(f"{path}: does not fit its config and vocabularies: {problem}")
    for name in graph.weights:
        if not np.isfinite(file.tensors[name]).all():
            raise BundleError(f"{path}: {name} holds values that are not finite")


def _session(path: Path, content: bytes) -> Any:
    with no_fork():
        try:
            import onnxruntime
        except ImportError:
            raise NertoolError(
                f"{path}: running an exported model needs onnxruntime; install with: pip install 'nertool[onnx]'"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # batches are worked on side by side
        options.log_severity_level = 4
        options.enable_mem_pattern = False  # shapes differ from batch to batch
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # of types that it does not export
            raise BundleError(f"{path}: ONNX Runtime cannot load it: {str(problem)[:200]}") from None


class OnnxBackend:
    """Computes with ONNX Runtime, on the CPU.

    Args:
        session: Of the file.
        outline: Of the model.
        decoder: From scores to labels.
    """

    times_per_batch = 1

    def __init__(self, session: Any, outline: Outline, decoder: ChainDecoder) -> None:
        self._session = session
        self._decoder = decoder
        self.labels = len(outline.labels)
        self.workers = processors()

    @cached_property
    def _example(self) -> dict[str, np.ndarray]:
        """The inputs of the graph for one form and one token: what is given where it does not matter."""
        types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}
        result = {}
        for each in self._session.get_inputs():
            make = np.ones if each.name.endswith("lengths") else np.zeros
            result[each.name] = make(
                [size if isinstance(size, int) else 1 for size in each.shape], types[each.type]
            )
        return result

    def form_vectors(self, tables: Mapping[str, Table]) -> np.ndarray:
        """Compute what context-free inputs know of forms, (forms, size)."""
        counts = [np.diff(table.offsets) for table in tables.values() if table.offsets is not None]
        total = len(next(iter(tables.values())))
        # Words of one length go together, because all are padded to the longest.
        order = np.argsort(sum(counts), kind="stable") if counts else np.arange(total)
        result: np.ndarray | None = None
        for start in range(0, total, _FORMS_AT_ONCE):
            some = order[start : start + _FORMS_AT_ONCE]
            feeds = dict(self._example)
            for name, table in tables.items():
                feeds |= _features(name, table, some, counted=f"{name}.lengths" in self._example)
            (vectors,) = self._run(["form_vectors"], feeds)
            if result is None:
                result = np.empty((total, vectors.shape[1]), np.float32)
            result[some] = vectors
        assert result is not None
        return result

    def append(self, table: np.ndarray | None, count: int, new: np.ndarray) -> np.ndarray:
        """Put rows behind the first `count` of a table; return it, or one of twice the size."""
        total = count + len(new)
        result = table
        if result is None or total > len(result):
            result = np.zeros((2 * total, new.shape[1]), np.float32)
            if table is not None:
                result[:count] = table[:count]
        result[count:total] = new
        return result

    def decode(self, features: Features, mask: np.ndarray, indices: np.ndarray, wanted: Wanted) -> Decoded:
        """Label a batch of sentences."""
        scores = self._emissions(features, mask, indices)
        with no_fork():  # numpy's library uses threads
            return self._decode(scores.astype(np.float64), Places.of(mask.sum(0)), wanted)

    def _emissions(self, features: Features, mask: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Compute the label scores of a batch, (time, batch, labels); arguments as for `decode`."""
        feeds = {**self._example, "lengths": mask.sum(0).astype(np.int32)}
        if features.vectors is not None:
            feeds["known_forms"] = features.vectors[np.where(mask, features.forms[indices], 0).reshape(-1)]
            feeds["forms"] = np.arange(mask.size).reshape(mask.shape)
        for name, table in features.tables.items():
            feeds[name] = padded(table.values, indices, mask).astype(np.int64)
        (scores,) = self._run(["emissions"], feeds)
        if not (np.isfinite(scores).all(-1) | ~mask).all():
            raise NertoolError(NOT_FINITE)
        return scores

    def activations(self, features: Features, mask: np.ndarray, indices: np.ndarray) -> Activations:
        """Compute the label scores of one sentence: the graph gives nothing else."""
        return Activations(self._emissions(features, mask, indices)[:, 0], complete=False)

    def _decode(self, scores: np.ndarray, places: Places, wanted: Wanted) -> Decoded:
        labels = self._decoder.best_labels(scores, places)
        if not (wanted.probabilities or wanted.n_best or wanted.marginals or wanted.marks):
            return Decoded(labels)
        posterior = self._decoder.posterior(scores, places)
        logs = posterior.path_logs(labels) if wanted.probabilities else ()
        marginals = posterior.marginals() if wanted.marginals else None
        wrong = None if wanted.marks is None else posterior.wrong_entities(labels, wanted.marks)
        if not wanted.n_best:
            return Decoded(labels, logs, marginals=marginals, wrong=wrong)
        several = self._decoder.best_sequences(scores, places, posterior.log_partition, wanted.n_best)
        return Decoded(labels, logs, *several, marginals, wrong)

    def _run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        with no_fork():
            result: list[np.ndarray] = self._session.run(outputs, feeds)
            return result


def _features(name: str, table: Table, forms: np.ndarray, counted: bool) -> dict[str, np.ndarray]:
    """Return the inputs of the graph for some forms, padded to the longest."""
    if table.offsets is None:
        return {name: table.values[forms]}
    begins, counts = table.offsets[forms], table.offsets[forms + 1] - table.offsets[forms]
    steps = np.minimum(np.arange(int(counts.max())), counts[:, None] - 1)
    values = table.values[begins[:, None] + steps].astype(np.int64)  # (forms, longest, width)
    if not counted:
        return {name: values}
    return {name: np.ascontiguousarray(values[..., 0].T), f"{name}.lengths": counts.astype(np.int32)}
