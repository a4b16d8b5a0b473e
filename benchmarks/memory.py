"""Measure whether memory grows with the text: `nertool tag` on few lines and on many.

The lines are made of words of the demonstration corpus and of names and numbers that never occur again, so
whatever remembers words is tested. Each run is a process of its own; its peak is the kernel's figure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

# torch stays out of this process: on Linux a child's peak is at least its parent's memory at the fork.

DEMO = Path(__file__).resolve().parents[1] / "corpora" / "demo"
KNOWN_WORDS = 5  # of a line; with an invented name, a number and a full stop there are 8 tokens


@dataclass(frozen=True)
class Run:
    """What tagging a file took."""

    lines: int
    peak_mb: float
    seconds: float

    @property
    def lines_per_second(self) -> float:
        return self.lines / self.seconds


def made_up_lines(count: int, words: list[str], seed: int = 1) -> Iterator[str]:
    """Lines of 8 tokens, two of which were in no line before."""
    choose = random.Random(seed)
    for number in range(count):
        known = choose.choices(words, k=KNOWN_WORDS)
        name, figure = invented_name(number), f"{number * 7 + 1_000_003}"
        yield f"{known[0]} {known[1]} {name} {known[2]} {known[3]} {figure} {known[4]} .\n"


def invented_name(number: int) -> str:
    """A capitalised word out of two-letter syllables, another one for each number."""
    syllables = []
    for _ in range(4):
        number, consonant = divmod(number, 20)
        number, vowel = divmod(number, 5)
        syllables.append("bcdfghjklmnpqrstvwxz"[consonant] + "aeiou"[vowel])
    return "".join(syllables).capitalize() + (str(number) if number else "")


def demo_words() -> list[str]:
    """The tokens of the demonstration corpus that are words, as often as they occur."""
    lines = (DEMO / "train.txt").read_text(encoding="utf-8").splitlines()
    tokens = [line.split()[0] for line in lines if line and not line.startswith("-DOCSTART-")]
    return [token for token in tokens if token.isalpha()]


def tag(model: Path, source: Path, lines: int) -> Run:
    """Run `nertool tag` on a file and discard its output.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "nertool.cli.main", "tag", str(source), "--model", str(model)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"nertool tag ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return Run(lines, usage.ru_maxrss * unit / 1e6, seconds)


def train_small_model(folder: Path) -> None:
    """Train for one epoch on the demonstration corpus."""
    command = [sys.executable, "-m", "nertool.cli.main", "train", "demo.yaml", "--set", "training.epochs=1"]
    # In a folder of its own, where `runs/latest` may be moved without harm.
    subprocess.run([*command, "--output", str(folder)], check=True, cwd=folder.parent, stdout=subprocess.DEVNULL)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, metavar="DIR", help="run directory of a trained model")
    parser.add_argument(
        "--lines", type=int, nargs="+", default=[10_000, 1_000_000], help="sizes  [default: 10000 1000000]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    words = demo_words()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        model = options.model.resolve() if options.model else folder / "model"
        if options.model is None:
            print("training a small model", flush=True)
            train_small_model(model)
        for count in sorted(options.lines):
            source = folder / "lines.txt"
            with source.open("w", encoding="utf-8") as file:
                file.writelines(made_up_lines(count, words))
            run = tag(model, source, count)
            runs.append(run)
            print(
                f"{count:>11,} lines: peak {run.peak_mb:,.0f} MB, {run.seconds:,.1f} s, "
                f"{run.lines_per_second:,.0f} lines/s (start included)",
                flush=True,
            )
    first, last = runs[0], runs[-1]
    growth = last.peak_mb - first.peak_mb
    if last.lines > first.lines:
        rate = (last.lines - first.lines) / (last.seconds - first.seconds)
        print(f"growth of the peak: {growth:+,.0f} MB; {rate:,.0f} lines/s beyond the first {first.lines:,}")
    if options.json is not None:
        figures = {"runs": [asdict(run) for run in runs], "growth_mb": growth}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
