"""The states of transformers that training leaves alone, computed once for all epochs and kept on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from nertool.data import states
from nertool.data.encoding import EncodedCorpus, Table, reading_order, token_indices
from nertool.errors import NertoolError
from nertool.forking import no_fork
from nertool.model.batch import to_tensor
from nertool.model.input_modules.transformer import TransformerVectors
from nertool.model.inputs.base import Input
from nertool.model.inputs.transformer import Transformer
from nertool.model.model import Model
from nertool.text.document import Document

_SUBTOKENS_AT_ONCE = 8192
_FORMAT = "1"


@dataclass(frozen=True)
class Computing:
    """States of a transformer are being computed.

    Attributes:
        input: Name of the input.
        done: Tokens whose states are computed.
        total: Tokens of the split.
        seconds: Since it began.
    """

    input: str
    done: int
    total: int
    seconds: float


def keep_states(
    model: Model, encoded: EncodedCorpus, validation: Sequence[Sequence[Document]]
) -> Iterator[Computing]:
    """Compute the states of transformers that training does not change, or find those that were computed before.

    Args:
        model: Whose inputs then know the states.
        encoded: The training split, whose tables then hold them.
        validation: What is encoded again and again besides; a list that has only sentences of those before it
            costs nothing.

    Yields:
        A record for each batch that is computed.

    Raises:
        NertoolError: The cache cannot be written to, or states are not finite.
    """
    for name, each in model.inputs.items():
        if not isinstance(each, Transformer) or each.config.trainable:
            continue
        module = model.network.input(name)
        assert isinstance(module, TransformerVectors)
        weights = module.digest()
        table = encoded.token_tables[name]
        block = yield from _states(name, each, module, weights, table, encoded.lengths)
        each.states.add(states.sentence_keys(table, encoded.lengths), encoded.lengths, block)
        encoded.token_tables[name] = Table(block)
        for documents in validation:
            sentences = [document for document in documents if len(document)]
            lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
            keys = states.sentence_keys(each.subtokens(sentences), lengths)
            new = [sentence for sentence, key in zip(sentences, keys, strict=True) if not each.states.knows(key)]
            if not new:
                continue
            table, lengths = each.subtokens(new), np.fromiter(map(len, new), np.int64, len(new))
            block = yield from _states(name, each, module, weights, table, lengths)
            each.states.add(states.sentence_keys(table, lengths), lengths, block)


def share_states(old: Mapping[str, Input], new: Mapping[str, Input]) -> None:
    """Let inputs know the states that others of the same transformers know."""
    for name, each in new.items():
        known = old.get(name)
        if isinstance(each, Transformer) and isinstance(known, Transformer) and known.state() == each.state():
            each.states = known.states


def _states(
    name: str, own: Transformer, module: TransformerVectors, weights: str, table: Table, lengths: np.ndarray
) -> Generator[Computing, None, np.ndarray]:
    """Find or compute the states of sentences, (tokens, kept x size).

    Args:
        name: Of the input.
        own: The input.
        module: Its module.
        weights: The digest of its weights.
        table: The sub-tokens of the tokens.
        lengths: Tokens of each sentence.
    """
    assert table.offsets is not None
    shape = int(lengths.sum()), module.kept * module.output_size
    how = json.dumps([_FORMAT, weights, own.state()["config"], module.layers, module.kept, own.config.pooling])
    versions = f"{torch.__version__} {version('transformers')}"
    key = states.content_key(
        how, versions, *(np.ascontiguousarray(each).tobytes() for each in (table.values, table.offsets, lengths))
    )
    block = states.read(key, shape)
    if block is not None:
        return block
    with states.held(key):
        block = states.read(key, shape)  # another process may have computed it meanwhile
        if block is not None:
            return block
        with states.written(key, shape) as target:
            yield from _compute(name, module, table, lengths, target)
    block = states.read(key, shape)
    return target if block is None else block


def _compute(
    name: str, module: TransformerVectors, table: Table, lengths: np.ndarray, target: np.ndarray
) -> Iterator[Computing]:
    assert table.offsets is not None
    began, done = time.perf_counter(), 0
    starts = np.cumsum(lengths) - lengths
    sizes = table.offsets[starts + lengths] - table.offsets[starts]
    training = module.training
    module.eval()
    try:
        for chosen in reading_order(sizes, _SUBTOKENS_AT_ONCE):
            mask, indices = token_indices(lengths[chosen], starts[chosen])
            with no_fork(), torch.no_grad():
                features = (to_tensor(each, module.device) for each in table.batch(indices, mask))
                found = module.states(*features).flatten(-2).cpu().numpy()[mask]
            if not np.isfinite(found).all():
                raise NertoolError(f"inputs.{name}: the transformer computes states that are not finite numbers")
            target[indices[mask]] = found
            done += int(mask.sum())
            yield Computing(name, done, len(target), time.perf_counter() - began)
    finally:
        module.train(training)
