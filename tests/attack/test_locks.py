"""Two processes and one folder: one of them writes, the other says so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nertool.config.files import LOCK
from nertool.tagging.bundle import load_bundle

pytestmark = pytest.mark.slow
REFUSAL = "another training or comparison is writing to this folder"
LONG = ("training.epochs=100000", "training.patience=100000")


def start(command: str, config: Path, *settings: str, more: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    pairs = [each for setting in settings for each in ("--set", setting)]
    arguments = [command, str(config), "--output", "run", *pairs, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "nertool", *arguments],
        cwd=config.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come about"
        time.sleep(0.02)


def test_trainings_that_start_together(tiny_yaml: Path):
    """One wins; the folder is that of one training, whichever it is."""
    folder = tiny_yaml.parent / "run"
    refused = 0
    for seed in (1, 3, 5):
        running = {
            number: start("train", tiny_yaml, f"training.seed={number}", "training.epochs=40")
            for number in (seed, seed + 1)
        }
        errors = {number: process.communicate()[1] for number, process in running.items()}
        losers = [number for number, process in running.items() if process.returncode]
        assert all(running[number].returncode == 1 and REFUSAL in errors[number] for number in losers), errors
        assert len(losers) < 2
        refused += len(losers)
        results = json.loads((folder / "results.json").read_text())
        assert load_bundle(folder).config.training.seed == results["seed"] == results["config"]["training"]["seed"]
        assert results["seed"] in running.keys() - set(losers)
        assert not (folder / LOCK).exists()
    assert refused, "they never met"


@pytest.mark.parametrize("command", ["train", "compare"])
def test_the_lock_of_a_killed_process_is_taken_over(tiny_yaml: Path, command: str):
    more = ("--seeds", "1") if command == "compare" else ()
    folder = tiny_yaml.parent / "run"
    first = start(command, tiny_yaml, *LONG, more=more)
    wait_for(folder / ("tiny/seed-1/metrics.jsonl" if command == "compare" else "metrics.jsonl"))
    second = start(command, tiny_yaml, *LONG, more=more)
    assert REFUSAL in second.communicate()[1] and second.returncode == 1
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (folder / LOCK).exists()
    third = start(command, tiny_yaml, "training.epochs=2", more=more)
    assert third.communicate()[1] == "" and third.returncode == 0
    assert not (folder / LOCK).exists()
    report = json.loads((folder / ("report.json" if command == "compare" else "results.json")).read_text())
    assert report
