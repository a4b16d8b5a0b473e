"""Sub-tokens of words by the tokenizer of a transformer, each distinct word once."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from nertool.data.encoding import Table, concatenate
from nertool.errors import ConfigError

_KEPT = 200_000  # words, before they are forgotten
_EMPTY = Table(np.zeros(0, np.int32), np.zeros(1, np.int64))


class _Numbers(dict[str, int]):
    def __missing__(self, form: str) -> int:
        number = self[form] = len(self)
        return number


class Subtokens:
    """A tokenizer that reads words one by one, so that a word always has the same sub-tokens, and at least one.

    Several threads may share one.

    Args:
        content: Of its file, `tokenizer.json`.

    Attributes:
        begin, end: Numbers of the sub-tokens that stand before and after every text.

    Raises:
        ValueError: It is no tokenizer.
        ConfigError: The package tokenizers is not installed.
    """

    def __init__(self, content: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            message = "a transformer needs the packages transformers and tokenizers"
            raise ConfigError(f"{message}: pip install 'nertool[transformers]'") from None
        try:
            tree = json.loads(content)
            self._tokenizer = Tokenizer.from_str(content)
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            # In these a word within a text begins with its space.
            self._space = " " if '"ByteLevel"' in json.dumps(tree.get("pre_tokenizer")) else ""
            self._unknown = self._find_unknown(tree["model"])
            self.begin, self.end = self._find_marks()
        except Exception as problem:  # tokenizers raises a bare Exception
            raise ValueError(f"its tokenizer cannot be read: {problem}") from None
        self._lock = threading.Lock()
        self._numbers, self._table = _Numbers(), _EMPTY

    def encode(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the sub-tokens of words, one word after another, and how many each has, (words,)."""
        with self._lock:
            if len(self._numbers) > _KEPT:
                self._numbers, self._table = _Numbers(), _EMPTY
            numbers = np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))
            known = len(self._table)
            if len(self._numbers) > known:
                new = [self._encode(form) for form in list(self._numbers)[known:]]
                counts = np.fromiter(map(len, new), np.int64, len(new))
                values = np.fromiter((number for row in new for number in row), np.int32, int(counts.sum()))
                self._table = concatenate([self._table, Table(values, np.concatenate(([0], np.cumsum(counts))))])
            values, counts = self._table.select(numbers)
        return values, counts

    def _encode(self, form: str) -> list[int]:
        # Halves of surrogate pairs are no text that a tokenizer takes.
        text = f"{self._space}{form}".encode(errors="replace").decode()
        numbers: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return numbers or [self._unknown]  # of control characters, for example, nothing may be left

    def _find_marks(self) -> tuple[list[int], list[int]]:
        marked = self._tokenizer.encode(f"{self._space}a", add_special_tokens=True)
        own = [place for place, special in enumerate(marked.special_tokens_mask) if not special]
        if not own:
            return [], []
        return marked.ids[: own[0]], marked.ids[own[-1] + 1 :]

    def _find_unknown(self, model: dict[str, Any]) -> int:
        names = (model.get("unk_token"), "[UNK]", "<unk>", "<|endoftext|>")
        numbers = (model.get("unk_id"), *(self._tokenizer.token_to_id(name) for name in names if name))
        return next((number for number in numbers if number is not None), 0)
