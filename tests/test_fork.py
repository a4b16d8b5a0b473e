"""Processes forked from one that has used a model: they load, tag and train, and they answer."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork"
)
TEXTS = [f"Ada Byron{n} left London{n} for New Haven{n}, said Otto Lind{n}." for n in range(20)]
# A child that waits for threads that do not exist waits forever.
SECONDS = 120
# Large enough for torch to split its operations.
SETTINGS = ["inputs.words.dimensions=200", "model.encoder.hidden=150", "training.averaging=0.5"]
EPOCHS = ["training.epochs=1", "training.threads=4"]


def load(folder: Path) -> object:
    from nertool.tagging.tagger import Tagger

    return Tagger.load(folder)


def tag(tagger: Callable[[str], object]) -> str:
    return str([tagger(text) for text in TEXTS])


def train(folder: Path, target: Path) -> int:
    from nertool.config.loading import load_config, locate_files
    from nertool.training.run import Epoch, run

    path = folder.parent / "corpus" / "tiny.yaml"
    config = locate_files(load_config(path, [*SETTINGS, *EPOCHS]), path)
    return sum(isinstance(record, Epoch) for record in run(config, target))


def main(history: str, folder: Path) -> None:
    """Do something in this process, fork it, and compare what the children say."""
    import torch

    from nertool.model.concurrency import forked

    torch.set_num_threads(3)
    tagger = load(folder)
    torch.ones(1 << 20).exp_()  # this thread has a team of three now
    wanted = tag(tagger)
    if history != "loaded":
        train(folder, folder.parent / "parent")
    stop = threading.Event()

    def keep_tagging() -> None:
        while not stop.wait(0.01):
            tag(tagger)

    others = [threading.Thread(target=keep_tagging) for _ in range(2 if history == "tagging" else 0)]
    for other in others:
        other.start()

    def work(job: int) -> object:
        assert forked()
        if job % 3 == 0:
            return train(folder, folder.parent / f"child-{history}-{job}")
        return tag(tagger if job % 3 == 1 else load(folder))

    global _work
    _work = work
    try:
        with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
            results = pool.map_async(_run, range(9), chunksize=1).get(timeout=SECONDS)
    finally:
        stop.set()
    assert not forked()
    for job, result in enumerate(results):
        assert result == (1 if job % 3 == 0 else wanted), job
    assert tag(tagger) == wanted
    print("all answered")


def _run(job: int) -> object:
    return _work(job)


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import write_tiny

    from nertool.config.loading import load_config, locate_files
    from nertool.training.run import run

    folder = tmp_path_factory.mktemp("forks")
    path = write_tiny(folder / "corpus")
    for _ in run(locate_files(load_config(path, [*SETTINGS, "training.epochs=5"]), path), folder / "run"):
        pass
    return folder / "run"


@pytest.mark.parametrize("history", ["loaded", "trained", "tagging"])
def test_forked_processes_load_tag_and_train(wide_run: Path, history: str):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.run(
        [sys.executable, __file__, history, str(wide_run)],
        capture_output=True,
        text=True,
        timeout=3 * SECONDS,
        env=environment,
        check=False,
    )
    assert process.stdout.strip() == "all answered", process.stderr


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
