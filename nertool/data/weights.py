"""What each training sentence counts in the loss: a JSON Lines file of the sentences that do not count as 1.

A line is `{"weight": 0.7, "tokens": ["Ada", "lives", …]}`. A sentence is known by its tokens, so that the file
stays right when labels are corrected or sentences are moved; equal sentences have a line each, in their order.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.text.document import Document

LARGEST = 100.0
_LONGEST_LINE = 10_000_000  # characters


def write_weights(path: Path, sentences: Sequence[Document], weights: np.ndarray) -> int:
    """Write the weights of those sentences that do not count as 1, and of all that are equal to one of these.

    Args:
        path: The file.
        sentences: Of the training data, in order.
        weights: Of each, (sentences,).

    Returns:
        How many sentences weigh less than 1.

    Raises:
        NertoolError: It cannot be written.
    """
    named = {sentence.tokens for sentence, weight in zip(sentences, weights, strict=True) if weight != 1}
    with replaced_when_done(path) as target:
        for sentence, weight in zip(sentences, weights.tolist(), strict=True):
            if sentence.tokens in named:
                line = json.dumps({"weight": weight, "tokens": list(sentence.tokens)})
                target.write(line.encode() + b"\n")
    return int((weights < 1).sum())


def read_weights(path: Path, sentences: Sequence[Document]) -> np.ndarray:
    """Read the weights of sentences, (sentences,): 1 for those that the file does not name.

    Args:
        path: The file.
        sentences: Of the training data, in order, before any of them are held out. Others in the file have no
            effect.

    Raises:
        CorpusError: The file is no such file, or names none of these sentences, so that it would have no effect.
    """
    named: dict[tuple[str, ...], deque[float]] = defaultdict(deque)
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    tokens, weight = _parse(line, path, number)
                    named[tokens].append(weight)
    except UnicodeDecodeError:
        raise CorpusError("not a UTF-8 text file", path) from None
    except OSError as problem:
        raise CorpusError(f"cannot be read: {problem.strerror}", path) from None
    result = np.ones(len(sentences), np.float32)
    found = 0
    for index, sentence in enumerate(sentences):
        if waiting := named.get(sentence.tokens):
            # The last one stands for any further ones: a sentence may have been copied since.
            result[index] = waiting.popleft() if len(waiting) > 1 else waiting[0]
            found += 1
    if not found:
        raise CorpusError(
            f"none of the {len(sentences):,} training sentences is among the {len(named):,} of this file, so that "
            "it has no effect; was it written for other data (nertool audit DATA --weights FILE)?",
            path,
        )
    return result


def _parse(line: str, path: Path, number: int) -> tuple[tuple[str, ...], float]:
    expected = 'expected {"weight": 0.7, "tokens": ["A", "sentence"]}'
    if len(line) > _LONGEST_LINE:
        raise CorpusError(f"a line of more than {_LONGEST_LINE:,} characters; {expected}", path, number)
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError):
        raise CorpusError(f"not JSON; {expected}", path, number) from None
    fields: dict[str, Any] = tree if isinstance(tree, dict) else {}
    tokens, weight = fields.get("tokens"), fields.get("weight")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise CorpusError(f"no tokens; {expected}", path, number)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= LARGEST:
        # No comparison with NaN holds.
        raise CorpusError(f"the weight has to be a number from 0 to {LARGEST:g}; {expected}", path, number)
    return tuple(tokens), float(weight)
