"""Regular expressions of configs, which may be a stranger's: bounded in size, and in the time that they take.

The package `regex` understands what Python's `re` does, and stops after a time; `re` does not.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache
from typing import Any

LONGEST_PATTERN = 500  # characters: what may be nested without end is bounded
MOST_REPEATS = 10_000  # product of all numbers in braces: the package writes out what is repeated
SECONDS = 10.0  # of processor time for all tokens of a file, beyond what each of them may take
_SECONDS_EACH = 0.0001


@lru_cache(maxsize=16)
def compile_pattern(text: str) -> Any:
    """Compile a regular expression.

    Raises:
        ValueError: It is none, or is larger than a pattern for the tokens of a corpus can be.
    """
    import regex  # 25 ms, for few configs

    if len(text) > LONGEST_PATTERN:
        raise ValueError(f"a regular expression of {len(text):,} characters; at most {LONGEST_PATTERN} are read")
    numbers = [number[:9] for braces in regex.findall(r"\{([\d,]*)", text) for number in braces.split(",")]
    if math.prod(max(int(number), 1) for number in numbers if number) > MOST_REPEATS:
        what = f"its numbers in braces, multiplied, exceed {MOST_REPEATS:,}"
        raise ValueError(f"a regular expression that repeats too much: {what}")
    try:
        return regex.compile(text)
    except (regex.error, ValueError, OverflowError, RecursionError, MemoryError) as problem:
        raise ValueError(f"not a regular expression: {str(problem) or type(problem).__name__}") from None


class Remover:
    """Removes what a regular expression matches.

    Args:
        text: The regular expression.

    Raises:
        ValueError: As for `compile_pattern`.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._pattern = compile_pattern(text)
        self._left = SECONDS

    def __call__(self, token: str) -> str:
        """Return what is left of a token.

        Raises:
            ValueError: The expression takes too long.
        """
        began = time.process_time()
        try:
            result: str = self._pattern.sub("", token, timeout=self._left)
        except (TimeoutError, MemoryError):
            shown = token if len(token) <= 60 else f"{token[:57]}..."
            raise ValueError(
                f"the regular expression {self._text!r} takes too long (more than {SECONDS:.0f} s, at {shown!r}): "
                "write it without repetitions in repetitions"
            ) from None
        self._left = max(self._left - max(time.process_time() - began - _SECONDS_EACH, 0.0), 0.01)
        return result
