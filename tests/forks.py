"""A process that forks others, whatever it is doing: `python forks.py HISTORY MODEL CHILDREN`.

HISTORY is what the parent has done, or is doing in other threads while it forks:

- loaded: it has loaded a model and tagged
- trained: it has trained besides
- tagging: two threads tag, with words that are always new
- training: a thread trains
- loading: two threads load models, and tag a first text with each
- cold: a thread does all of this for the first time in the process
- pool: it has trained, and forks a `multiprocessing.Pool` whose initializer loads a model

Every child loads, tags or trains. One line of JSON counts those that were forked, hung or answered something else.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

HISTORIES = ["loaded", "trained", "tagging", "training", "loading", "cold", "pool"]
# A child that waits for threads that do not exist waits for ever.
SECONDS = 120
AT_ONCE = 2
TEXTS = [f"Ada Byron{n} left London{n} for New Haven{n}, said Otto Lind{n}." for n in range(20)]
MANY = [f"Ada Lind{n} met Otto Byron{n} in Oslo{n} on day {n} ." for n in range(300)]  # new forms in one call
# Large enough for torch to split its operations.
SETTINGS = ["inputs.words.dimensions=200", "model.encoder.hidden=150", "training.averaging=0.5"]
EPOCHS = ["training.epochs=1", "training.threads=4"]

Job = Callable[[], str]


def load(folder: Path) -> Any:
    from nertool.tagging.tagger import Tagger

    return Tagger.load(folder)


def tag(tagger: Any) -> str:
    documents = [*map(tagger, TEXTS), *tagger.tag_texts(MANY)]
    return str([(document, document.entities) for document in documents])


def train(folder: Path, target: Path) -> str:
    from nertool.config.loading import load_config, locate_files
    from nertool.training.run import Epoch, run

    path = folder.parent / "corpus" / "tiny.yaml"
    config = locate_files(load_config(path, [*SETTINGS, *EPOCHS]), path)
    epochs = sum(isinstance(record, Epoch) for record in run(config, target))
    shutil.rmtree(target)
    return f"{epochs} epochs"


@contextmanager
def going_on(*works: Callable[[int], object]) -> Iterator[None]:
    """Call each function with 0, 1, 2, ... in a thread of its own during the block."""
    stop = threading.Event()

    def repeat(work: Callable[[int], object]) -> None:
        chance = random.Random(1)
        for number in count():
            work(number)
            if stop.wait(chance.uniform(0, 0.05)):
                return

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def fork(jobs: list[Job], pause: Callable[[], float]) -> list[str | None]:
    """Run each job in a forked process; None is the answer of one that hung."""
    answers: list[str | None] = [None] * len(jobs)
    running: dict[int, tuple[int, int, float]] = {}  # end of a pipe: process, number, deadline
    waiting = list(enumerate(jobs))
    while waiting or running:
        if waiting and len(running) < AT_ONCE:
            number, job = waiting.pop(0)
            time.sleep(pause())
            source, target = os.pipe()
            process = os.fork()
            if process == 0:
                answer = "failed"
                try:
                    answer = job()
                except BaseException as problem:
                    answer = f"{type(problem).__name__}: {problem}"
                finally:
                    with os.fdopen(target, "w") as stream:
                        stream.write(answer)
                    os._exit(0)
            os.close(target)
            running[source] = process, number, time.monotonic() + SECONDS
            continue
        readable, _, _ = select.select(list(running), [], [], 0.1)
        for source, (process, number, deadline) in list(running.items()):
            if source in readable:
                with os.fdopen(source) as stream:
                    answers[number] = stream.read()
            elif time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
                os.close(source)
            else:
                continue
            os.waitpid(process, 0)
            del running[source]
    return answers


def main(history: str, folder: Path, children: int) -> dict[str, object]:
    import torch

    import nertool.tagging.tagger
    import nertool.training.run  # noqa: F401
    from nertool.model.parallel import forked

    torch.set_num_threads(3)
    places = (folder.parent / f"{history}-{os.getpid()}-{number}" for number in count())
    first: list[str] = []

    def begin(number: int = 0) -> None:
        tagger = load(folder)
        torch.ones(1 << 20).exp_()  # this thread has a team of three now
        first.append(tag(tagger))
        if history in ("trained", "cold", "pool"):
            train(folder, next(places))
        if history == "cold":
            time.sleep(0.2)

    def tag_new_words(number: int) -> None:
        for document in shared.tag_texts(f"Ada{number}-{n} met Otto{number} in London ." for n in range(50)):
            assert document.entities is not None

    def load_and_tag(number: int) -> None:
        load(folder)(TEXTS[0])

    works: list[Callable[[int], object]] = []
    if history == "cold":
        works = [begin]
    else:
        begin()
        shared = load(folder)
        works = {
            "tagging": [tag_new_words, tag_new_words],
            "training": [lambda number: train(folder, next(places))],
            "loading": [load_and_tag, load_and_tag],
        }.get(history, [])

    def job(number: int) -> Job:
        target = folder.parent / f"child-{history}-{os.getpid()}-{number}"

        def run() -> str:
            assert forked()
            if number % 3 == 0:
                return train(folder, target)
            return tag(load(folder) if number % 3 == 1 or history == "cold" else shared)

        return run

    began = time.monotonic()
    chance = random.Random(os.getpid())
    longest = 0.5 if history == "cold" else 0.05
    with going_on(*works):
        if history == "pool":
            answers = pool(folder, children)
        else:
            answers = fork(list(map(job, range(children))), lambda: chance.uniform(0, longest))
    assert not forked()
    trained = [] if history == "pool" else range(0, children, 3)
    wanted = ["1 epochs" if number in trained else first[0] for number in range(children)]
    wrong = [str(answer)[:300] for answer, each in zip(answers, wanted, strict=True) if answer not in (None, each)]
    return {
        "history": history,
        "forked": len(answers),
        "hung": answers.count(None),
        "wrong": wrong,
        "parent is as before": tag(load(folder)) == first[0],
        "seconds": round(time.monotonic() - began, 1),
    }


def pool(folder: Path, children: int) -> list[str | None]:
    """Tag in pools of two processes."""
    answers: list[str | None] = []
    while len(answers) < children:
        with multiprocessing.get_context("fork").Pool(2, _initialize, (folder,)) as workers:
            results = [workers.apply_async(_tag) for _ in range(2)]
            for result in results:
                try:
                    answers.append(result.get(timeout=SECONDS))
                except multiprocessing.TimeoutError:
                    answers.append(None)
    return answers[:children]


def _initialize(folder: Path) -> None:
    global _tagger
    _tagger = load(folder)


def _tag() -> str:
    return tag(_tagger)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
