"""How much of the attacks is done: all of them, or with `NERTOOL_ATTACK_EVERY=K` in the environment every Kth."""

from __future__ import annotations

import os

EVERY = int(os.environ.get("NERTOOL_ATTACK_EVERY", "1"))


def share(count: int, least: int = 1) -> int:
    """Return how many of so many attacks are done."""
    return max(least, count // EVERY)
