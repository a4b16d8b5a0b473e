"""Ends commands by signals at random moments: `python endings.py MODEL FOLDER COUNT`.

Each command is a child of a process that has imported everything and used nothing, which takes a tenth of the time
of a new one. One line of JSON counts how the commands ended.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import filelock  # noqa: F401  (here, so that no child imports it again; so the next ones)
import scipy.optimize  # noqa: F401
import seqeval.metrics  # noqa: F401
import spacy
from conftest import TRAIN, parse, write_tiny

import nertool.formats.convert
import nertool.tagging.tagger
import nertool.training.run
import nertool.views.tagged
import nertool.views.training  # noqa: F401
from nertool.cli.main import main
from nertool.tagging.bundle import load_bundle

SENTENCES = 10_000
OLD = "what was there before"


def commands(model: Path, folder: Path) -> dict[str, list[str]]:
    """Write what the commands read, and return them."""
    sentences = parse(TRAIN)
    rows = [sentences[number % len(sentences)] for number in range(SENTENCES)]
    text, columns = folder / "text.txt", folder / "columns.conll"
    text.write_text("".join(f"{' '.join(tokens)}\n" for tokens, _ in rows), encoding="utf-8")
    lines = ("".join(f"{token} {label}\n" for token, label in zip(*row, strict=True)) for row in rows)
    columns.write_text("\n".join(lines), encoding="utf-8")
    config = str(write_tiny(folder / "corpus"))
    tag = ["tag", str(text), "--model", str(model), "--output"]
    return {
        "train": ["train", config, "--output", str(folder / "run")],
        "tag": [*tag, str(folder / "tagged.jsonl"), "--to", "jsonl"],
        "convert": ["convert", str(columns), str(folder / "converted.jsonl")],
        "tag to a page": [*tag, str(folder / "tagged.html"), "--to", "html"],
        "tag to spaCy": [*tag, str(folder / "tagged.spacy"), "--to", "spacy"],
        "convert to parquet": ["convert", str(columns), str(folder / "converted.parquet")],
    }


def run(command: list[str], ready: int, errors: Path) -> None:
    """Become the command, and say when it begins."""
    with errors.open("wb") as stream:
        os.dup2(stream.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv[0] = "nertool"
    os.close(ready)
    code: object = 0
    try:
        main(command)
    except SystemExit as problem:
        code = problem.code
    os._exit(code if isinstance(code, int) else 1)


def attack(command: list[str], number: int, seconds: float, folder: Path) -> tuple[str, float]:
    """Run a command and send a signal after a time; says how it ended, and after which time."""
    errors = folder / "errors.txt"
    outputs = [Path(command[-1])] if command[0] == "convert" else [Path(command[command.index("--output") + 1])]
    if command[0] != "train":
        outputs[0].write_text(OLD)
    source, target = os.pipe()
    process = os.fork()
    if process == 0:
        run(command, target, errors)
    os.close(target)
    os.read(source, 1)  # until the child closes its end
    os.close(source)
    began = time.monotonic()
    time.sleep(seconds)
    os.kill(process, number)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    took = time.monotonic() - began
    parts = [path.name for path in folder.rglob("*.part")]
    said = errors.read_text(encoding="utf-8")
    if parts:
        return f"left {parts}", took
    if code == 0:
        return "had ended before", took
    if code == -number:
        return "ended before it had begun", took
    if code != 128 + number or said:
        return f"code {code}: {said[-500:]}", took
    if command[0] == "train":
        if (outputs[0] / "weights.safetensors").exists():
            load_bundle(outputs[0])
    elif outputs[0].read_text() != OLD:
        return "output was replaced", took
    return "ended", took


def count(model: Path, folder: Path, total: int) -> dict[str, object]:
    spacy.blank("en").add_pipe("sentencizer")
    chance = random.Random(1)
    ways: Counter[str] = Counter()
    longest = 0.0
    named = list(commands(model, folder).items())
    until = dict.fromkeys(dict(named), 1.0)  # about how long each command takes
    for turn in range(total):
        name, command = named[turn % len(named)]
        number = chance.choice([signal.SIGTERM, signal.SIGHUP])
        wait = chance.uniform(0, until[name])
        way, took = attack(command, number, wait, folder)
        until[name] *= 0.6 if way == "had ended before" else 1.1
        if way == "ended":
            longest = max(longest, took - wait)
        ways[way if way.startswith("ended") or way.startswith("had") else f"{name}: {way}"] += 1
    return {"ways": ways, "longest": round(longest, 2)}


if __name__ == "__main__":
    print(json.dumps(count(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
