"""A corpus small enough to know by heart, configs over it, and one trained run that all tests may read."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from nertool.config.loading import load_config, locate_files
from nertool.config.schema import Config

# Threads of tiny matrix products mostly wait for each other. Read by torch
# when it is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test needs a network; datasets reads this when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# How long an example takes says more about the machine than about the code.
settings.register_profile("nertool", deadline=None)
settings.load_profile("nertool")

Sentence = tuple[list[str], list[str]]

# One sentence a line: entities stand in brackets with their type, as in [PER Ada Byron].
TRAIN = """
[PER Ada Byron] wrote to [PER Babbage] about the engine .
[PER Babbage] lived in [LOC London] .
The train to [LOC New Haven] left at 9.45 .
[ORG Granite Bank] hired [PER Otto Lind] in 1987 .
[PER Lind] moved from [LOC Oslo] to [LOC Malmö] .
Nobody came .
Prices at [ORG Granite Bank] rose 3 % in May .
[LOC Oslo] beat [LOC London] 3 - 1 .
She met [PER Mina Okoye] at [ORG Blue Door Theatre] .
[ORG Blue Door Theatre] is in [LOC New Haven] .
Rain fell on [LOC Malmö] all week .
" We sold it , " said [PER Okoye] .
"""
TEST = """
[PER Mina Lind] left [LOC London] in 1993 .
Rain fell .
[ORG Granite Theatre] hired [PER Ada] .
Nobody met [PER Otto Byron] in [LOC Oslo] .
"""
SETTINGS = """\
corpus: {train: train.txt, validation: validation.txt, test: test.txt}
inputs:
  words: {dimensions: 12}
  characters: {dimensions: 6, filters: 8}
model:
  encoder: {kind: lstm, hidden: 12}
  dropout: 0.1
training: {epochs: 30, patience: 30, batch_size: 4, optimizer: adam, learning_rate: 0.02, threads: 1}
"""


def parse(text: str) -> list[Sentence]:
    """Read sentences from bracketed text, labelled in IOB2."""
    sentences = []
    for line in text.strip().splitlines():
        tokens: list[str] = []
        labels: list[str] = []
        prefix, kind = "O", ""
        for piece in line.split():
            if piece.startswith("["):
                prefix, kind = "B", f"-{piece[1:]}"
                continue
            tokens.append(piece.removesuffix("]"))
            labels.append(prefix + kind)
            prefix = "I" if prefix != "O" else "O"
            if piece.endswith("]"):
                prefix, kind = "O", ""
        sentences.append((tokens, labels))
    return sentences


def write_tiny(folder: Path) -> Path:
    """Write the three splits and a config over them to a folder; return the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"train": TRAIN, "validation": TRAIN, "test": TEST}.items():
        rows = ["".join(f"{t} {label}\n" for t, label in zip(*pair, strict=True)) for pair in parse(text)]
        (folder / f"{name}.txt").write_text("\n".join(rows), encoding="utf-8")
    path = folder / "tiny.yaml"
    path.write_text(SETTINGS, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_train() -> list[Sentence]:
    """Return the training (and validation) sentences: tokens, and labels in IOB2."""
    return parse(TRAIN)


@pytest.fixture(scope="session")
def tiny_test() -> list[Sentence]:
    """Return the test sentences, with words that training never saw."""
    return parse(TEST)


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    """Return a config file, in a folder of its own with train.txt, validation.txt and test.txt beside it."""
    return write_tiny(tmp_path / "tiny")


@pytest.fixture
def tiny_config(tiny_yaml: Path) -> Callable[..., Config]:
    """Make checked configs over the tiny corpus from overrides such as "training.epochs=2"."""
    return lambda *overrides: locate_files(load_config(tiny_yaml, overrides), tiny_yaml)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of a model that predicts its training sentences; to be read, not written to.

    The corpus and config that it came from are in the folder `corpus` beside it.
    """
    from nertool.training.run import Finished, run

    folder = tmp_path_factory.mktemp("trained")
    path = write_tiny(folder / "corpus")
    *_, finished = run(locate_files(load_config(path), path), folder / "run")
    assert isinstance(finished, Finished)
    assert finished.best.validation.micro.f1 == 1.0, "the tiny corpus was not learnt"
    return folder / "run"


def thread_count() -> int:
    """Threads of the process, whoever made them."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def end_of_threads(count: int) -> bool:
    """Wait until there are no more threads than these, for as long as one needs to end."""
    for _ in range(100):
        if thread_count() <= count:
            return True
        time.sleep(0.02)
    return False


CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PAGE_WAIT = 120.0  # seconds until a test takes it for a hang


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Start Chromium, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if path is None:
        pytest.skip("there is no Chromium")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox"] if root else [], timeout=1000 * PAGE_WAIT
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., object]]:
    """Open a page of a server; at the end nothing may have gone wrong in it, nor been asked of anyone else."""
    problems: list[str] = []
    contexts = []

    def new(server, path="/", expected=(), width=1000, **options):
        context = browser.new_context(viewport={"width": width, "height": 700}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PAGE_WAIT)
        origin = f"http://127.0.0.1:{server.port}/"

        def note(message):
            if message.type == "error" and not any(part in message.text for part in expected):
                problems.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: asked.url.startswith((origin, *expected)) or problems.append(asked.url))
        page.goto(origin.rstrip("/") + path)
        return page

    yield new
    for context in contexts:
        context.close()
    assert problems == []
