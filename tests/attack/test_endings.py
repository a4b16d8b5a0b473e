"""Commands that are ended by a signal, or whose reader has seen enough, clean up and say nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import endings
import pytest
from click.testing import CliRunner
from shares import share

from nertool.cli.main import main

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of Unix")
COMMAND = [sys.executable, "-m", "nertool"]


@pytest.mark.parametrize("count", [3, pytest.param(share(120, least=6), marks=pytest.mark.slow)])
def test_unfinished_files_are_removed(trained_run: Path, tmp_path: Path, count: int):
    process = subprocess.run(
        [sys.executable, endings.__file__, str(trained_run), str(tmp_path), str(count)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode == 0, process.stderr
    counted = json.loads(process.stdout.splitlines()[-1])
    print(counted)
    assert counted["ways"].keys() <= {"ended", "had ended before", "ended before it had begun"}
    assert counted["ways"]["ended"] > count / 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("seconds", [0, pytest.param(10, marks=pytest.mark.slow)])
def test_a_command_that_begins_or_waits_for_input(trained_run: Path, number: signal.Signals, seconds: int):
    process = subprocess.Popen(
        [*COMMAND, "tag", "-", "--model", str(trained_run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    deadline = time.monotonic() + 60
    while _handled(process.pid, number) is False and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(seconds)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (128 + number, b"", b"")


def _handled(process: int, number: int) -> bool | None:
    """Whether a process has a handler for a signal; None where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        time.sleep(3)
        return None
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(mask >> (number - 1) & 1)


def test_a_reader_that_has_seen_enough(trained_run: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("Ada Byron lives in London .\n" * 5000, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "tag", str(text), "--model", str(trained_run), "--to", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 1
    assert json.loads(line)["text"] == "Ada Byron lives in London ."


def test_handlers_are_those_of_the_host_before_and_after(monkeypatch: pytest.MonkeyPatch):
    seen: list[object] = []
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    before = list(map(signal.getsignal, numbers))
    hook = sys.unraisablehook

    def look(*_: object, **__: object) -> None:
        seen.extend(map(signal.getsignal, numbers))

    command = main.commands["formats"]
    monkeypatch.setattr(command, "callback", look)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert CliRunner().invoke(main, ["formats"]).exit_code == 0
        assert callable(seen[0]) and seen[0] is not before[0]
        assert seen[1] is signal.SIG_IGN
        assert seen[2] is before[2]
        assert signal.getsignal(signal.SIGTERM) is before[0]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[1])
    assert sys.unraisablehook is hook


def test_an_exception_that_python_drops_is_raised_again(monkeypatch: pytest.MonkeyPatch):
    class Dropping:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    def drop(*_: object, **__: object) -> None:
        Dropping()
        time.sleep(30)

    monkeypatch.setattr(main.commands["formats"], "callback", drop)
    began = time.monotonic()
    assert CliRunner().invoke(main, ["formats"]).exit_code == 128 + signal.SIGTERM
    assert time.monotonic() - began < 20
