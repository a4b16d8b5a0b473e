"""What takes memory out of proportion, or without end: each command's largest memory is measured."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is measured as Linux counts it"),
]
TEXT = "the ship left port of Oslo at dawn , and Ada Byron saw New Haven for once in 1987 while Babbage slept"
WORDS = TEXT.split()


# A process begins with the largest memory of whoever started it: this one is small.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[3:], stdout=open(sys.argv[1], "wb"), stderr=open(sys.argv[2], "wb"))
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def measure(folder: Path, *command: object) -> tuple[int, str, int]:
    """Run a command; return its exit code, its messages, and its largest memory in MB."""
    files = [str(folder / "out"), str(folder / "err")]
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *files, sys.executable, "-m", "nertool", *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    code, memory = map(int, done.stdout.split())
    print(f"{memory} MB: {command[0]}")
    messages = (folder / "err").read_text(encoding="utf-8")
    assert "Traceback" not in messages, messages
    return code, messages, memory


def prose(size: int) -> str:
    choose = random.Random(1).choice
    words = [choose([*WORDS, ".", "!"]) for _ in range(size // 4)]
    return " ".join(words)[:size]


def test_a_line_of_four_megabytes(trained_run, tmp_path):
    (tmp_path / "a.txt").write_text(prose(4_000_000) + "\n", encoding="utf-8")
    command = ("tag", tmp_path / "a.txt", "--model", trained_run, "--to", "jsonl")
    code, _, memory = measure(tmp_path, *command)
    assert code == 0 and memory < 1200


def test_a_line_of_more_than_ten_million_characters(trained_run, tmp_path):
    (tmp_path / "a.txt").write_text(prose(10_100_000) + "\n", encoding="utf-8")
    code, messages, memory = measure(tmp_path, "tag", tmp_path / "a.txt", "--model", trained_run)
    assert code == 1 and "at most 10,000,000 are taken as one text" in messages and memory < 700


@pytest.mark.parametrize("line", [b"a" * 2**20, b"a O\n\n" * 2**18], ids=["one line", "many lines"])
def test_a_gzip_bomb(line, trained_run, tmp_path):
    bomb = tmp_path / "bomb.txt.gz"
    with gzip.open(bomb, "wb") as file:
        for _ in range(128):
            file.write(line)
    one = b"\n" not in line
    # A corpus is read as a whole: 16 MB of the shortest lines there are take more than a hundred times as much.
    for command in (("check", bomb), ("evaluate", bomb, "--model", trained_run), ("tag", bomb))[: 3 if one else 1]:
        more = ("--model", trained_run) if command[0] == "tag" else ()
        code, messages, memory = measure(tmp_path, *command, *more)
        said = messages + (tmp_path / "out").read_text(encoding="utf-8")
        assert code == 1 and "compressed bytes became more than" in said
        assert memory < (600 if one else 2500)


@pytest.mark.parametrize(
    "command",
    [
        "tag /dev/zero --model {model}",
        "evaluate /dev/zero --model {model}",
        "convert /dev/zero {out} --from jsonl",
        "convert /dev/zero {out} --from conllu",
        "convert /dev/zero {out} --from labelstudio",
        "convert /dev/zero {out} --from spacy",
        "train {config} --set corpus.train=/dev/zero --output {out}",
        "train {config} --set inputs.words.vectors=/dev/zero --output {out}",
    ],
)
def test_a_file_without_end(command, trained_run, tmp_path):
    config = trained_run.parent / "corpus" / "tiny.yaml"
    parts = command.format(model=trained_run, out=tmp_path / "out.txt", config=config).split()
    code, messages, memory = measure(tmp_path, *parts)
    assert code == 1 and ("longer than" in messages or "larger than" in messages) and memory < 2000


def test_a_thousand_label_sequences(trained_run, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(prose(200) for _ in range(110)) + "\n", encoding="utf-8")
    command = ("tag", tmp_path / "a.txt", "--model", trained_run, "--to", "jsonl", "--n-best", 1000)
    code, _, memory = measure(tmp_path, *command)
    assert code == 0 and memory < 1500
    rows = [json.loads(line) for line in (tmp_path / "out").read_text(encoding="utf-8").splitlines()]
    assert max(len(sentence) for row in rows for sentence in row["alternatives"]) == 1000


def test_two_thousand_entities_that_overlap(tmp_path):
    text = prose(1_100_000)
    entities = [{"start": 10 * n, "end": len(text) - 10 * n, "label": "PER"} for n in range(2000)]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text, "entities": entities}), encoding="utf-8")
    code, messages, memory = measure(tmp_path, "convert", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert code == 1 and messages.count("left out: ") >= 1999 and len(messages) < 1_500_000 and memory < 800


def test_a_training_sentence_of_200_000_tokens(trained_run, tmp_path):
    choose = random.Random(1).choice
    rows = [f"{choose(WORDS)} {choose(['O', 'O', 'B-PER', 'B-LOC'])}\n" for _ in range(200_000)]
    (tmp_path / "long.txt").write_text("".join(rows), encoding="utf-8")
    config = trained_run.parent / "corpus" / "tiny.yaml"
    settings = (f"corpus.train={tmp_path / 'long.txt'}", f"corpus.validation={tmp_path / 'long.txt'}")
    options = [
        part for each in (*settings, "training.epochs=1", "model.encoder.hidden=50") for part in ("--set", each)
    ]
    code, _, memory = measure(tmp_path, "train", config, *options, "--output", tmp_path / "run")
    said = (tmp_path / "out").read_text(encoding="utf-8")
    assert code == 0 and "1 sentence of more than 512 tokens, learnt in pieces" in said and memory < 1200
