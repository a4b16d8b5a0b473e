"""One training of a project, in a process of its own: `python -m nertool.labelling.worker FOLDER PARENT`.

The folder is that of the new model in the project, and holds `round.json`, which says what to do. The process
trains on the answers that there are, ranks sentences that have none, and last writes `done.json`. It runs at low
priority, and stops when its parent, a process number, is gone.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nertool.config.files import read_limited, remove_files, write_whole
from nertool.data.recipe import open_config, overrides_of
from nertool.errors import NertoolError
from nertool.formats.jsonl import JsonLines
from nertool.formats.project import answered, open_database, sentences
from nertool.formats.registry import Report, WriteOptions
from nertool.tagging.ranking import By, rank
from nertool.tagging.tagger import Tagger
from nertool.text.document import UNKNOWN
from nertool.training.checkpoint import CHECKPOINT, KEPT
from nertool.training.run import run

ROUND, DONE = "round.json", "done.json"
RANKED = 5_000
"""Sentences, drawn at random, that are ranked."""

_WANTED = 500  # of them, each different from those before it
_NICE = 10  # of 19; with the last, a busy machine would never end a training


@dataclass(frozen=True)
class Round:
    """What a process is to do.

    Attributes:
        project: The folder of the project.
        number: Of the model; 0: no training, only the ranking.
        start: The model to start from; None: new weights. With number 0 it is the one that ranks.
        vectors, language: As for `nertool train`.
        overrides: Settings that replace those that are chosen by the size of the data.
        by: What to label next, as for `rank`.
        seed: Of what is drawn.
    """

    project: str
    number: int
    start: str | None
    vectors: list[str]
    language: str
    overrides: list[str]
    by: By
    seed: int


@dataclass(frozen=True)
class Done:
    """What a process has done.

    Attributes:
        sentences: Number of those that the model learnt from.
        seconds: That it took.
        test: Correct, proposed and marked entities of the test set, and its sentences.
        ranking: Numbers of sentences in the order to label them in, each with the reason.
    """

    sentences: int
    seconds: float
    test: list[int]
    ranking: list[tuple[int, str]]


def work(folder: Path, task: Round, parent: int) -> Done:
    """Train a model, score it on the test set, and rank what has no answer.

    Raises:
        NertoolError: As for `nertool.training.run.run`, and when the parent is gone.
    """
    began = time.perf_counter()
    with closing(open_database(Path(task.project))) as database:
        count = _train(database, folder, task, parent) if task.number else 0
        _stop_without(parent)
        tagger = Tagger.load(folder if task.number else task.start or "")
        test = _score(database, tagger)
        ranking = _rank(database, tagger, task)
    return Done(count, time.perf_counter() - began, test, ranking)


def _train(database: sqlite3.Connection, folder: Path, task: Round, parent: int) -> int:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    counts = {}
    for name, judges in (("train", False), ("validation", True)):
        documents = list(answered(database, "pool", task.project, judges))
        counts[name] = len(documents)
        JsonLines().write(data / f"{name}.jsonl", documents, WriteOptions(), Report())
    train, validation = (str(data / f"{name}.jsonl") for name in ("train", "validation"))
    judge = validation if counts["validation"] else train
    overrides = overrides_of(judge, None, task.vectors, task.language, task.start)
    recipe = open_config(train, [*overrides, *task.overrides])
    for _ in run(recipe.config, folder):
        _stop_without(parent)
    return counts["train"]


def _stop_without(parent: int) -> None:
    if os.name == "posix" and os.getppid() != parent:
        raise NertoolError("the server that started this training has ended")


def _score(database: sqlite3.Connection, tagger: Tagger) -> list[int]:
    """Count correct, proposed and marked entities of the test set, and its sentences."""
    gold = [each for each in answered(database, "test", "") if UNKNOWN not in (each.labels or ())]
    counts = [0, 0, 0, len(gold)]
    for wanted, found in zip(gold, tagger.tag_documents(gold), strict=True):
        counts[0] += len(set(wanted.spans) & set(found.spans))
        counts[1] += len(found.spans)
        counts[2] += len(wanted.spans)
    return counts


def _rank(database: sqlite3.Connection, tagger: Tagger, task: Round) -> list[tuple[int, str]]:
    rows = database.execute(
        "SELECT id FROM sentences WHERE role = 'pool' AND answer IS NULL ORDER BY id"
    ).fetchall()
    numbers = [number for (number,) in rows]
    if len(numbers) > RANKED:
        numbers = sorted(random.Random(task.seed + task.number).sample(numbers, RANKED))
    if not numbers:
        return []
    documents = [document for _, document in sentences(database, numbers)]
    ranked = rank(tagger, documents, by=task.by, top=_WANTED, random_share=0.0, seed=task.seed)
    return [(numbers[each.index], each.reason) for each in ranked]


def read_round(folder: Path) -> Round:
    """Read what a process is to do."""
    return Round(**json.loads(read_limited(folder / ROUND)))


def read_done(folder: Path) -> Done | None:
    """Read what a process has done; None where it has not."""
    try:
        tree: dict[str, Any] = json.loads(read_limited(folder / DONE))
        return Done(**{**tree, "ranking": [(int(number), str(reason)) for number, reason in tree["ranking"]]})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def main(folder: Path, parent: int) -> None:
    """Do what `round.json` says, and write `done.json`."""
    with suppress(OSError, AttributeError):
        os.nice(_NICE)
    with suppress(OSError):  # Linux may weigh groups of processes against each other, and this is one
        Path("/proc/self/autogroup").write_text(str(_NICE))
    done = work(folder, read_round(folder), parent)
    remove_files(folder, (CHECKPOINT, KEPT))  # nothing goes on from it
    write_whole(folder / DONE, json.dumps(asdict(done)).encode())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except NertoolError as problem:
        sys.exit(f"error: {problem}")
