"""Corrupt content for everything that reads, for ten minutes in all: see `fuzz.py` and `test_fuzz.py`."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest
from shares import share
from test_fuzz import NAMES

pytestmark = pytest.mark.slow
SECONDS = share(600)  # for all readers


@pytest.fixture(scope="module")
def targets(trained_run: Path) -> dict[str, fuzz.Target]:
    return fuzz.targets(trained_run)


@pytest.mark.parametrize("name", NAMES)
def test_only_errors_of_its_own(targets: dict[str, fuzz.Target], name: str):
    count = fuzz.feed(name, targets[name], SECONDS / len(NAMES), seed=1)
    print(f"{name}: {count.inputs:,} inputs, {count.understood:,} of them understood")
    assert count.failures == {}
    assert count.inputs
