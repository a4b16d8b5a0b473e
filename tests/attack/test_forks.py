"""A hundred forks of processes that have used models, or are using them in other threads: none hangs."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import forks
import pytest
from shares import share
from test_fork import forked, train_wide

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork"),
]
CHILDREN = share(15, least=3)  # of each history: one trains, one loads, one uses what its parent loaded


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_wide(tmp_path_factory.mktemp("forks"))


@pytest.mark.parametrize("history", forks.HISTORIES)
def test_none_hangs(wide_run: Path, history: str):
    counted = forked(history, wide_run, CHILDREN)
    print(counted)
    assert (counted["forked"], counted["hung"], counted["wrong"]) == (CHILDREN, 0, [])
    assert counted["parent is as before"]
