"""Processes forked from one that uses models: they load, tag and train, and they answer. See also tests/attack."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import forks
import pytest
from conftest import write_tiny

from nertool.forking import forks_wait, no_fork

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork"
)


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_wide(tmp_path_factory.mktemp("forks"))


def train_wide(folder: Path) -> Path:
    from nertool.config.loading import load_config, locate_files
    from nertool.training.run import run

    path = write_tiny(folder / "corpus")
    for _ in run(locate_files(load_config(path, [*forks.SETTINGS, "training.epochs=5"]), path), folder / "run"):
        pass
    return folder / "run"


def forked(history: str, folder: Path, children: int) -> dict[str, object]:
    """Run forks.py; return what it counted."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    process = subprocess.run(
        [sys.executable, forks.__file__, history, str(folder), str(children)],
        capture_output=True,
        text=True,
        timeout=60 + children * forks.SECONDS,
        env=environment,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    counted: dict[str, object] = json.loads(process.stdout.splitlines()[-1])
    return counted


@pytest.mark.slow
def test_forked_processes_load_tag_and_train(wide_run: Path):
    counted = forked("tagging", wide_run, 3)
    assert (counted["forked"], counted["hung"], counted["wrong"]) == (3, 0, [])
    assert counted["parent is as before"]


def test_a_fork_waits_for_the_end_of_what_another_thread_does():
    inside, leave = threading.Event(), threading.Event()
    events: list[str] = []

    def work() -> None:
        with no_fork(), no_fork():
            inside.set()
            leave.wait()
            events.append("left")

    worker = threading.Thread(target=work)
    worker.start()
    inside.wait()
    threading.Timer(0.1, leave.set).start()
    child = os.fork()
    if child == 0:
        with no_fork():
            os._exit(0 if events == ["left"] and forks_wait() else 1)
    worker.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not forks_wait()
    with no_fork():
        assert forks_wait()


def test_a_thread_may_fork_in_the_middle_of_something_itself():
    with no_fork():
        child = os.fork()
        if child == 0:
            with no_fork():
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_is_not_starved_by_threads_that_are_always_busy():
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with no_fork():
                stop.wait(0.001)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    stop.set()
    for worker in workers:
        worker.join()
