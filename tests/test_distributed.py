"""Several processes train what one trains: the same weights, and to the same bits after a stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file
from together import CASES, learn

from nertool.errors import ConfigError
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.distributed import ALONE, ProcessGroup, launched, own_device

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo"
)
TESTS = Path(__file__).parent
NEAR: dict[str, float] = {"rtol": 1e-4, "atol": 1e-5}
WITHOUT_DROPOUT = ["model.dropout=0", "inputs.words.dropout=0", "inputs.characters.dropout=0"]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in place.items()}


def start(arguments: list[str], size: int = 2, **options: Any) -> list[subprocess.Popen[str]]:
    """Start processes as `torchrun` does, without what watches over them."""
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        port = taken.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        for rank in range(size)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for processes that end well; return what they printed."""
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


def train(config: Path, folder: Path, *options: str, resume: bool = False, size: int = 2) -> list[str]:
    settings = [part for option in options for part in ("--set", option)]
    more = ["--resume"] if resume else []
    return finish(start(["-m", "nertool", "train", str(config), "--output", str(folder), *settings, *more], size))


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in ("seconds", "tokens_per_second")}
        for line in lines
    ]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[int, Path]:
    """Run what together.py does in some processes; return their number, and the folder of their results."""
    folder = tmp_path_factory.mktemp("together")
    finish(start([str(TESTS / "together.py"), str(folder)], request.param))
    return request.param, folder


def texts_of(together: tuple[int, Path]) -> Iterator[dict[str, str]]:
    size, folder = together
    for rank in range(size):
        with safe_open(folder / f"{rank}.safetensors", "pt") as file:
            yield file.metadata()


class TestSteps:
    @pytest.mark.parametrize("case", CASES)
    def test_as_one_process(self, together, case):
        size, folder = together
        numbers, weights = learn(case)
        results = [load_file(folder / f"{rank}.safetensors") for rank in range(size)]
        assert results[0][f"{case}/numbers"].tolist() == pytest.approx(numbers, rel=1e-4)
        for name, value in weights.items():
            assert torch.allclose(results[0][f"{case}/{name}"], value, **NEAR), name
            # All processes hold the same bits, or they would drift apart.
            assert all(torch.equal(each[f"{case}/{name}"], results[0][f"{case}/{name}"]) for each in results), name

    def test_each_draws_its_own_dropout(self, together):
        size, folder = together
        masks = [load_file(folder / f"{rank}.safetensors")["dropped"] for rank in range(size)]
        assert len({tuple(mask.tolist()) for mask in masks}) == size

    def test_what_they_tell_each_other(self, together):
        size, _ = together
        for rank, texts in enumerate(texts_of(together)):
            assert texts["told"] == "é of 0"
            assert texts["collected"] == str([list(range(number)) for number in range(size)])
            assert texts["shared"] == str([[0.0] * 3] * 2)
            for failing in range(size):
                own = "there is no such file"
                expected = own if rank == failing else f"process {failing} of {size}: {own}"
                assert texts[f"fails in {failing}"] == expected


class TestRuns:
    def test_as_one_process(self, tiny_yaml, tmp_path):
        options = ["training.epochs=3", "training.batch_size=3", *WITHOUT_DROPOUT]
        first, second = train(tiny_yaml, tmp_path / "two", *options)
        assert "Best of 3 epochs" in first
        assert second == ""  # one process reports and writes
        train(tiny_yaml, tmp_path / "one", *options, size=1)
        one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("one", "two"))
        for name, value in one.items():
            if name != "noise":
                assert torch.allclose(two[name], value, **NEAR), name
        for alone, shared in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
            assert shared.pop("loss") == pytest.approx(alone.pop("loss"), rel=1e-4)
            assert shared.pop("gradient_norm") == pytest.approx(alone.pop("gradient_norm"), rel=1e-3)
            losses = [each.pop("validation_loss") for each in (shared, alone)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-4)
            assert shared == alone
        assert json.loads((tmp_path / "two" / "results.json").read_text())["processes"] == 2

    @pytest.mark.slow
    def test_goes_on_to_the_same_bits(self, tiny_yaml, tmp_path):
        options = ["training.optimizer=adam", "model.dropout=0.5", "inputs.words.dropout=0.2"]
        train(tiny_yaml, tmp_path / "whole", "training.epochs=4", *options)
        train(tiny_yaml, tmp_path / "parts", "training.epochs=2", *options)
        train(tiny_yaml, tmp_path / "parts", "training.epochs=4", *options, resume=True)
        assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
        whole, parts = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
        assert whole["noise"].shape == (2, 4)
        for name, value in whole.items():
            assert torch.equal(parts[name], value), name

    @pytest.mark.slow
    def test_goes_on_in_another_number_of_processes(self, tiny_yaml, tmp_path):
        train(tiny_yaml, tmp_path, "training.epochs=1", "model.dropout=0.5", size=1)
        train(tiny_yaml, tmp_path, "training.epochs=2", "model.dropout=0.5", resume=True)
        train(tiny_yaml, tmp_path, "training.epochs=3", "model.dropout=0.5", resume=True, size=1)
        assert [each["epoch"] for each in metrics(tmp_path)] == [1, 2, 3]


class TestEnds:
    @pytest.mark.slow
    @pytest.mark.parametrize("victim", [0, 1])
    def test_a_killed_process_ends_all(self, tiny_yaml, tmp_path, victim):
        """Under `torchrun` the others end within seconds, with a message, and the training goes on later."""
        folder = tmp_path / "run"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", "localhost:0", "-m", "nertool", "train", str(tiny_yaml), "--output", str(folder)),
            *("--set", "training.epochs=100000", "--set", "training.patience=100000"),
        ]
        process = subprocess.Popen(
            command, env=environment(0, 1, 0), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            wait_until(lambda: (folder / CHECKPOINT).exists())
            (number,) = [each for each in children(process.pid) if rank_of(each) == str(victim)]
            os.kill(number, signal.SIGKILL)
            began = time.monotonic()
            output, _ = process.communicate(timeout=60)
            assert time.monotonic() - began < 30
        finally:
            process.kill()
        assert process.returncode != 0
        assert "Signal 9 (SIGKILL) received" in output
        if victim:
            assert "The best model so far, epoch " in output
            assert "--resume" in output
        assert not any(alive(each) for each in children(process.pid))
        epochs = len(metrics(folder)) + 1
        train(tiny_yaml, folder, f"training.epochs={epochs}", f"training.patience={epochs}", resume=True)

    @pytest.mark.slow
    def test_a_lost_process_is_named(self, tiny_yaml, tmp_path):
        """Without `torchrun` too, the first process ends with a message."""
        options = ["--set", "training.epochs=100000", "--set", "training.patience=100000"]
        processes = start(["-m", "nertool", "train", str(tiny_yaml), "--output", str(tmp_path / "run"), *options])
        try:
            wait_until(lambda: (tmp_path / "run" / CHECKPOINT).exists())
            processes[1].kill()
            output, _ = processes[0].communicate(timeout=60)
        finally:
            for each in processes:
                each.kill()
                each.communicate()
        assert processes[0].returncode == 1
        assert "error: another process of this training has ended, or cannot be reached" in output
        assert "The same command with --resume goes on." in output


def wait_until(condition: Any) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 300
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    result = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in result.stdout.split()]


def rank_of(pid: int) -> str | None:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((each[5:].decode() for each in variables if each.startswith(b"RANK=")), None)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class TestAlone:
    def test_is_the_usual_case(self, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        assert launched() is None
        monkeypatch.setenv("WORLD_SIZE", "4")  # others use this name too
        assert launched() is None

    def test_what_torchrun_says(self, monkeypatch):
        for name, value in environment(1, 2, 1234).items():
            monkeypatch.setenv(name, value)
        assert launched() == (1, 2)
        monkeypatch.setenv("WORLD_SIZE", "1")
        assert launched() is None
        monkeypatch.setenv("WORLD_SIZE", "two")
        with pytest.raises(ConfigError, match="WORLD_SIZE=two: expected numbers"):
            launched()

    def test_devices(self, monkeypatch):
        group = ProcessGroup(3, 4, 1)
        assert [own_device(name, ALONE) for name in ("cpu", "cuda:1", "auto")] == ["cpu", "cuda:1", "auto"]
        assert [own_device(name, group) for name in ("cpu", "cuda")] == ["cpu", "cuda:1"]
        for name in ("cuda:0", "mps"):
            with pytest.raises(ConfigError, match=f"{name} is one device, and there are 4 processes"):
                own_device(name, group)
        for there, expected in ((False, "cpu"), (True, "cuda:1")):
            monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
            assert own_device("auto", group) == expected
