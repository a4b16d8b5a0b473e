"""Trainings in processes of their own, side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nertool.config.files import MODEL_FILES, is_file, locked, remove_files, write_whole
from nertool.config.loading import dump_config
from nertool.config.schema import Config
from nertool.errors import NertoolError

CONFIG, VOCABULARY, WEIGHTS = MODEL_FILES
CHECKPOINT, METRICS, RESULTS = "checkpoint.safetensors", "metrics.jsonl", "results.json"
LOG = "log.txt"
_PAUSE = 0.2  # seconds between looks at the processes
_PATIENCE = 60.0  # seconds to wait for a folder


@dataclass(frozen=True)
class Running:
    """How far the running trainings have come.

    Attributes:
        epochs: Number of ended epochs of each, by its number.
    """

    epochs: dict[int, int]


def prepare_folder(folder: Path, config: Config, names: Sequence[str], ended: str | None = None) -> None:
    """Make the folder of a training, or make it ready to go on there.

    Args:
        folder: The run directory.
        config: Of the training.
        names: Files that are removed where there is nothing to go on from: there is no checkpoint, or the config
            was another one, whose weights must not be taken for this one's.
        ended: A file that is removed in any case: it says that a training has ended, and that was another one.

    Raises:
        NertoolError: The folder cannot be written to.
    """
    path, content = folder / CONFIG, dump_config(config).encode()
    try:
        # A training whose parent was killed ends after its next step.
        with locked(folder, wait=_PATIENCE):
            # Files that were being written when a training was stopped.
            old = [*([ended] if ended else []), *(each.name for each in folder.glob(".*.part"))]
            same = is_file(path) and path.read_bytes() == content
            if not same or not is_file(folder / CHECKPOINT):
                old += [name for name in names if name != CONFIG]
            remove_files(folder, old)
            if not same:
                write_whole(path, content)
    except OSError as problem:
        raise NertoolError(f"{folder}: cannot write there: {problem.strerror}") from None


class Processes:
    """Processes that run a module on a folder; all are stopped when the block ends.

    Args:
        module: Called as `python -m MODULE FOLDER PARENT`.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._running: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *problem: object) -> None:
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            process.wait()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def folders(self) -> dict[int, Path]:
        """The folder of each running process by its number."""
        return {number: folder for number, (_, folder) in self._running.items()}

    def start(self, number: int, folder: Path, threads: int) -> None:
        """Start a process.

        Args:
            number: That it has from now on.
            folder: It is there already; what the process prints is written to `log.txt` in it.
            threads: Of the process.

        Raises:
            NertoolError: The log cannot be written.
        """
        # Import from the current folder only where this process does: there may be a torch.py in it.
        safe = "" if {"", str(Path.cwd())} & set(sys.path) else "1"
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        try:
            log = (folder / LOG).open("wb")
        except OSError as problem:
            raise NertoolError(f"{folder}: cannot write there: {problem.strerror}") from None
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(folder), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **limits, "PYTHONSAFEPATH": safe},
                # Outside of the terminal's group: Ctrl-C goes to this process, which then stops the others.
                start_new_session=True,
            )
        self._running[number] = process, folder

    def stop(self, number: int) -> None:
        """Stop a process, and wait until it has ended."""
        process, _ = self._running.pop(number)
        process.terminate()
        process.wait()

    def ended(self) -> Iterator[tuple[int, int]]:
        """Wait a moment, and yield the number and the exit code of each process that has ended."""
        time.sleep(_PAUSE)
        for number, (process, _) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[number]
                yield number, process.returncode


def failure(folder: Path, code: int) -> str:
    """Say why a process failed, in one line.

    Args:
        folder: With its log.
        code: Its exit code.
    """
    if code < 0:
        killed = f"killed by {_signal(-code)}"
        return f"{killed}; there may not have been enough memory" if -code == signal.SIGKILL else killed
    try:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    message = " ".join(line.strip() for line in lines[errors[-1] if errors else -1 :]).removeprefix("error: ")
    text = "".join(character if character.isprintable() else " " for character in message)
    return text or f"ended with code {code} and no message"


def epochs_in(folder: Path) -> int:
    """Return how many epochs have ended of a training in a folder."""
    try:
        return (folder / METRICS).read_bytes().count(b"\n")
    except OSError:
        return 0


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"
