"""After a power failure there is the old file or the new one, and never an empty one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nertool.config.files import write_whole
from nertool.config.schema import Config
from nertool.errors import NertoolError
from nertool.tagging.bundle import FILES, load_bundle
from nertool.training.checkpoint import CHECKPOINT, KEPT
from nertool.training.run import METRICS, RESULTS, run

CUTS, RESUMED = 40, 6


def test_files_are_on_the_disk_before_they_get_their_names(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: set[int] = set()
    waiting: list[int] = []  # folders with names that the disk may not have yet
    replaced: set[str] = set()
    fsync, replace = os.fsync, os.replace

    def watched_fsync(number: int) -> None:
        fsync(number)
        inode = os.fstat(number).st_ino
        synced.add(inode)
        waiting[:] = [each for each in waiting if each != inode]

    def watched_replace(source: Path, target: Path) -> None:
        inode = Path(source).stat().st_ino
        assert inode in synced, f"{target} was renamed before it was written"
        synced.discard(inode)  # the system may use the number again
        assert not waiting, f"{target} was renamed before the name of another file was written"
        replace(source, target)
        waiting.append(Path(target).parent.stat().st_ino)
        replaced.add(Path(target).name)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    list(run(tiny_config("training.epochs=3"), tmp_path / "run"))
    assert replaced == {*FILES, METRICS, RESULTS, CHECKPOINT} and not waiting
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("a file of which there are many was synced"))
    write_whole(tmp_path / "bulk", b"x", durable=False)


@contextmanager
def mounted(image: Path, folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", ",".join(("loop", *options)), image, folder], check=True, capture_output=True)
    try:
        yield
    finally:
        for _ in range(50):
            if subprocess.run(["umount", folder], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.1)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An image of an empty ext4 disk; skips where images cannot be mounted."""
    image = tmp_path / "disk"
    with image.open("wb") as stream:
        stream.truncate(48 << 20)
    if not (shutil.which("mkfs.ext4") and shutil.which("mount")) or os.geteuid() != 0:
        pytest.skip("needs root, mkfs.ext4 and mount")
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    try:
        with mounted(image, tmp_path / "probe"):
            pass
    except subprocess.CalledProcessError as problem:
        pytest.skip(f"no loop device can be mounted here: {problem.stderr}")
    return image


def cut_power(image: Path, process: subprocess.Popen[bytes], copy: Path) -> None:
    """Copy what the disk has at this moment; what the system has not written yet is lost."""
    process.send_signal(signal.SIGSTOP)
    try:
        while True:
            before = image.stat().st_mtime_ns
            subprocess.run(["cp", "--sparse=always", image, copy], check=True)
            if image.stat().st_mtime_ns == before:
                return
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_power_cuts(disk: Path, tiny_config: Callable[..., Config], tiny_yaml: Path, tmp_path: Path):
    """A training over a finished one of other settings; the power fails at random moments."""
    config = tiny_config("training.epochs=60", "training.patience=60")
    list(run(config, tmp_path / "whole"))
    list(run(tiny_config("training.epochs=2", "training.seed=2"), tmp_path / "old"))
    names = (*FILES, METRICS, RESULTS, CHECKPOINT)
    mount, copy = tmp_path / "mount", tmp_path / "copy"
    places = random.Random(1)
    cuts: list[Path] = []
    # The option is what makes ext4 as careless as other systems are.
    with mounted(disk, mount, "noauto_da_alloc"):
        shutil.copytree(tmp_path / "old", mount / "run")
        os.sync()
        while len(cuts) < CUTS:
            command = ["train", str(tiny_yaml), "--output", str(mount / "run")]
            command += ["--set", "training.epochs=60", "--set", "training.patience=60"]
            process = subprocess.Popen(
                [sys.executable, "-m", "nertool", *command],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            assert process.stdout is not None
            for line in process.stdout:
                if b"valid F1" in line:
                    break
            while process.poll() is None and len(cuts) < CUTS:
                time.sleep(places.uniform(0.0, 0.15))
                cut_power(disk, process, copy)
                with mounted(copy, tmp_path / "after"):
                    cuts.append(tmp_path / f"cut-{len(cuts)}")
                    shutil.copytree(tmp_path / "after" / "run", cuts[-1])
            process.kill()
            process.communicate()
    states = set()
    for cut in cuts:
        found = {path.name for path in cut.iterdir()}
        assert all((cut / name).stat().st_size for name in found & {*names, KEPT}), f"{cut}: an empty file"
        states.add(load_bundle(cut).config.training.seed)
    assert states == {1, 2}, "all cuts came too early or too late"
    resumed = 0
    for cut in places.sample(cuts, RESUMED):
        try:
            list(run(config, cut, resume=True))
        except NertoolError as problem:
            assert "training.seed: 1, was 2" in str(problem)
            continue
        resumed += 1
        for name in FILES:
            assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    print(f"{len(cuts)} cuts, {resumed} resumed")
