"""The process that trains or tags keeps its settings: before, during and after, in every thread."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics  # noqa: F401 - importing it sets environment variables
import spacy  # noqa: F401 - importing it draws from Python's random generator
import torch
import torch._dynamo
from torch import nn

from nertool.forking import no_fork
from nertool.model.concurrency import denormals_as_zero, fork_safe, run_branches, threads
from nertool.model.parallel import for_each, forked

SENTENCE = "Ada Byron met Otto Lind in New Haven ."


def flushes() -> bool:
    half = 0.5
    return sys.float_info.min * half == 0.0


def settings() -> dict[str, object]:
    """All that belongs to the process or to this thread, and not to nertool."""
    return {
        "threads": torch.get_num_threads(),
        "threads between operations": torch.get_num_interop_threads(),
        "flush denormal": flushes(),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": repr(np.random.get_state()),
        "python random": hash(random.getstate()),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
    }


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@contextmanager
def watched() -> Iterator[None]:
    """Compare the settings of this thread before and after, and those of two others all the time."""
    before, signals = settings(), handlers()
    stop = threading.Event()
    differences: list[tuple[str, object]] = []
    looks = 0

    def watch() -> None:
        nonlocal looks
        # What belongs to a thread starts anew in each, whatever an earlier test did to its own.
        expected = {**before, "threads": torch.get_num_threads(), "numpy errors": np.geterr()}
        while True:
            differences.extend((name, value) for name, value in settings().items() if value != expected[name])
            looks += 1
            if stop.wait(0.002):
                return

    def start_and_look() -> None:
        while not stop.wait(0.02):
            late = threading.Thread(target=lambda: differences.extend(new_thread_differences(before)))
            late.start()
            late.join()

    watchers = [threading.Thread(target=watch), threading.Thread(target=start_and_look)]
    for watcher in watchers:
        watcher.start()
    try:
        yield
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()
    assert looks > 1
    assert not differences
    assert settings() == before
    assert handlers() == signals


def new_thread_differences(before: dict[str, object]) -> list[tuple[str, object]]:
    """Look at a setting that a thread takes over when it starts."""
    count = torch.get_num_threads()
    return [] if count == before["threads"] else [("threads of a new thread", count)]


def train(config: Callable[..., object], folder: Path) -> None:
    from nertool.training.run import run

    before = settings()
    for _ in run(config("training.epochs=2", "training.threads=2", "training.averaging=0.5"), folder):
        assert settings() == before, "the caller looks at what was yielded in its own settings"


def test_training_changes_nothing_of_the_process(tiny_config, tmp_path):
    with watched():
        train(tiny_config, tmp_path / "run")


@pytest.mark.parametrize("kind", ["float64", "flush"])
def test_settings_of_the_host_are_kept_whatever_they_are(tiny_config, tmp_path, kind):
    dtype = torch.get_default_dtype()
    try:
        if kind == "float64":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_flush_denormal(True)
        before = settings()
        train(tiny_config, tmp_path / "run")
        assert settings() == before
    finally:
        torch.set_default_dtype(dtype)
        torch.set_flush_denormal(False)


def test_tagging_changes_nothing_of_the_process(trained_run):
    from nertool.tagging.tagger import Tagger

    with watched():
        tagger = Tagger.load(trained_run)
        for _ in range(20):
            tagger(SENTENCE)
        list(tagger.pipe([SENTENCE] * 300))


def test_a_block_limits_its_own_thread_alone():
    before = torch.get_num_threads()
    seen: list[int] = []

    def look() -> None:
        seen.append(torch.get_num_threads())

    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
        other = threading.Thread(target=look)
        other.start()
        other.join()
        with threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    assert seen == [before]


@pytest.mark.parametrize("found", [False, True])
def test_denormals_are_as_they_were_after_a_block(found):
    try:
        torch.set_flush_denormal(found)
        with pytest.raises(KeyError), denormals_as_zero():
            assert flushes()
            raise KeyError
        assert flushes() == found
    finally:
        torch.set_flush_denormal(False)


def test_branches_compute_what_their_modules_do_in_the_modes_of_the_caller():
    class Probe(nn.Linear):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            modes.append((flushes(), torch.get_num_threads()))
            return super().forward(values)

    modes: list[tuple[bool, int]] = []
    modules = [Probe(3, 2), Probe(3, 2), Probe(3, 2)]
    values = torch.randn(5, 3, requires_grad=True)
    wanted = [nn.functional.linear(values, each.weight, each.bias) for each in modules]
    expected = torch.autograd.grad(sum((each**2).sum() for each in wanted), [values, modules[1].weight])
    with threads(2), denormals_as_zero():
        results = run_branches(modules, [values] * 3)
    torch.testing.assert_close(list(results), wanted)
    gradients = torch.autograd.grad(sum((each**2).sum() for each in results), [values, modules[1].weight])
    torch.testing.assert_close(gradients, expected)
    assert modes == [(True, 2)] * 3


def test_a_branch_that_fails_says_so():
    class Broken(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            raise KeyError("broken")

    for modules in ([Broken(), nn.Linear(3, 2)], [nn.Linear(3, 2), Broken()]):
        with pytest.raises(KeyError, match="broken"):
            run_branches(modules, [torch.ones(1, 3)] * 2)


@pytest.mark.parametrize("workers", [1, 3])
def test_each_item_is_worked_on_once(workers):
    seen: list[int] = []
    names: set[int] = set()
    together = threading.Barrier(workers)

    def work(item: int) -> None:
        if item < workers:
            together.wait(timeout=30)
        names.add(threading.get_ident())
        seen.append(item)

    for_each(work, range(100), workers)
    assert sorted(seen) == list(range(100))
    assert len(names) == workers


@pytest.mark.parametrize("here", [True, False])
def test_after_an_error_nothing_is_begun_and_nothing_runs_on(here):
    begun: list[int] = []
    ended: list[int] = []
    caller, together = threading.get_ident(), threading.Barrier(2)

    def work(item: int) -> None:
        begun.append(item)
        if item < 2:
            together.wait(timeout=30)
            if (threading.get_ident() == caller) is here:
                raise KeyError("broken")
        time.sleep(0.05)  # for the other thread to fail
        ended.append(item)

    with pytest.raises(KeyError, match="broken"):
        for_each(work, range(100), 2)
    assert len(begun) < 50
    assert len(begun) == len(ended) + 1


def test_where_forks_wait_one_thread_does_it_all():
    names: set[int] = set()
    with no_fork():
        for_each(lambda _: names.add(threading.get_ident()), range(10), 4)
    assert names == {threading.get_ident()}


def test_training_leaves_no_threads(tiny_config, tmp_path):
    def helpers() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("nertool")]

    from nertool.training.run import run

    seen: set[str] = set()
    for _ in run(tiny_config("training.epochs=1", "training.threads=2"), tmp_path / "run"):
        seen |= set(helpers())
    assert seen
    gc.collect()
    for _ in range(100):
        if not helpers():
            return
        time.sleep(0.02)
    raise AssertionError(helpers())


def test_outside_of_a_fork_fork_safe_changes_nothing():
    @fork_safe
    def count(until: int) -> Iterator[int]:
        yield from range(until)

    @fork_safe
    def double(value: int) -> int:
        return 2 * value

    assert not forked()
    assert list(count(3)) == [0, 1, 2]
    assert double(4) == 8


# In a process of its own, because the threads that it counts must not have been used before.
_ONE_THREAD = """
import os, sys, torch
from nertool.model.concurrency import threads

def clock():
    # of all threads but this one, in ticks
    others = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    lines = [open(f"/proc/self/task/{task}/stat").read().rsplit(")", 1)[1].split() for task in others]
    return sum(int(line[11]) + int(line[12]) for line in lines)

if "host" in sys.argv:
    torch.set_num_threads(2)
large, lstm, values = torch.randn(900, 900), torch.nn.LSTM(200, 200), torch.randn(50, 64, 200)
with threads(1):
    before = clock()
    for _ in range(12):
        large @ large
        torch.exp(large)
        lstm(values)[0].sum().backward()
    with torch.inference_mode():
        for _ in range(8):
            lstm(values)
    print(clock() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the clock ticks of threads in /proc")
@pytest.mark.parametrize("host", [[], ["host"]])
@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_operations_in_a_block_of_one_thread_use_no_other(host, variable):
    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    result = subprocess.run(
        [sys.executable, "-c", _ONE_THREAD, *host],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, variable: "2"},
    )
    assert int(result.stdout) <= 2
