"""Trainings in the background: when one is due, its process, and what becomes of its model."""

from __future__ import annotations

import json
import shutil
import threading
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nertool.comparison.processes import Processes, epochs_in, failure
from nertool.config.files import write_whole
from nertool.config.loading import load_config
from nertool.errors import NertoolError
from nertool.labelling.store import Store
from nertool.labelling.worker import DONE, ROUND, Round, read_done
from nertool.tagging.bundle import CONFIG
from nertool.tagging.tagger import Tagger

MODELS = "models"
FEWEST = 5
"""Sentences that a first model learns from, at least."""

_KEPT = 2  # models; the one before the newest is what that started from
_PAUSE = 0.5  # seconds between looks at what there is to do
_THREADS = 1


@dataclass(frozen=True)
class Proposer:
    """A model at work.

    Attributes:
        number: Of the model in the project; 0: the one that it began with.
        tagger: The model.
        types: The number of each of its types in the project, by name.
    """

    number: int
    tagger: Tagger
    types: dict[str, int]


class Rounds:
    """Trains whenever there are enough new answers, in a thread that waits for the process that does it.

    Args:
        store: Of the project.
        beginning: A model that proposes, and is started from, until there is one of the project; None: none.

    Attributes:
        proposer: The newest model; None: there is none yet.

    Raises:
        NertoolError: A model cannot be loaded.
    """

    def __init__(self, store: Store, beginning: Path | None) -> None:
        self._store = store
        self._beginning = beginning
        self._settings = store.settings
        self._wanted = threading.Event()  # somebody asked for a training
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="nertool-rounds", daemon=True)
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {"training": None, "problem": ""}
        self._tried = 0  # the last answer that a training that failed knew
        self.proposer = self._load()
        # A ranking by the model that the project began with.
        self._unranked = self.proposer is not None and self.proposer.number == 0

    @property
    def every(self) -> int:
        """After how many answers a training begins; 0: never by itself."""
        return int(self._settings.get("every", 0))

    def start(self) -> None:
        """Begin to look for work."""
        self._thread.start()

    def stop(self) -> None:
        """End, with a training that goes on."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def ask(self) -> None:
        """Train as soon as possible."""
        self._wanted.set()

    def state(self) -> dict[str, Any]:
        """Return what goes on: the training, its epochs, when the next one begins, and what went wrong."""
        with self._lock:
            state = dict(self._state)
        folder = state.pop("folder", None)
        if state["training"] is not None and folder is not None:
            state["epoch"] = epochs_in(folder)
            state["epochs"] = state.get("epochs") or _epochs_of(folder)
        last = self._last_answer()
        state["new"] = self._store.answers_since(last)
        state["every"] = self.every
        _, learn, judge = self._store.learnable()
        state["missing"] = max(0, FEWEST - learn)
        state["learn"] = learn + judge
        return state

    def _last_answer(self) -> int:
        models = self._store.models()
        return max([self._tried, *(int(model["answers"]) for model in models)])

    def _load(self) -> Proposer | None:
        """Load the newest model that can be loaded."""
        for model in reversed(self._store.models()):
            folder = self._store.folder / model["folder"]
            if (folder / DONE).is_file():
                try:
                    return Proposer(model["number"], Tagger.load(folder), dict(model["types"]))
                except NertoolError as problem:
                    self._note(problem=str(problem))
        if self._beginning is None:
            return None
        return Proposer(0, Tagger.load(self._beginning), self._store.type_names())

    def _work(self) -> None:
        with Processes("nertool.labelling.worker") as processes:
            while not self._stopped.is_set():
                try:
                    if self._unranked:
                        self._unranked = False
                        self._round(processes, 0)
                    elif self._due():
                        self._wanted.clear()
                        self._round(processes, self._next_number())
                except Exception as problem:  # the page goes on, and says what is wrong
                    if not isinstance(problem, NertoolError):
                        traceback.print_exc()
                    self._wanted.clear()
                    with suppress(NertoolError):
                        self._tried, _, _ = self._store.learnable()
                    self._note(problem=str(problem) or type(problem).__name__)
                self._stopped.wait(_PAUSE)

    def _due(self) -> bool:
        last, learn, _ = self._store.learnable()
        if learn < FEWEST or last <= self._tried or not any(each["count"] for each in self._store.types()):
            return False
        new = self._store.answers_since(self._last_answer())
        return (self._wanted.is_set() and new > 0) or 0 < self.every <= new

    def _next_number(self) -> int:
        return max((int(model["number"]) for model in self._store.models()), default=0) + 1

    def _round(self, processes: Processes, number: int) -> None:
        store, settings = self._store, self._settings
        folder = store.folder / MODELS / f"{number:04d}"
        last, _, _ = store.learnable()
        types = store.type_names()
        start = None
        if self.proposer is not None:
            at = self.proposer.number
            start = str(store.folder / MODELS / f"{at:04d}" if at else self._beginning)
        task = Round(
            project=str(store.folder.resolve()),
            number=number,
            start=None if start is None else str(Path(start).resolve()),
            vectors=[] if start else settings["vectors"],
            language=settings["language"],
            overrides=settings["overrides"],
            by=settings["by"],
            seed=settings["seed"],
        )
        self._prepare(folder, task)
        self._note(training=number, folder=folder, epochs=0)
        try:
            processes.start(0, folder, _THREADS)
            code = self._wait(processes)
            if code is None:
                return
            done = read_done(folder) if code == 0 else None
            if done is None:
                self._tried = last
                self._note(problem=failure(folder, code))
                return
            model = {
                "number": number,
                "folder": f"{MODELS}/{number:04d}",
                "answers": last,
                "sentences": done.sentences,
                "seconds": done.seconds,
                "types": types,
                "test": done.test,
            }
            proposer = Proposer(number, Tagger.load(folder), types) if number else self.proposer
            store.add_model(model, done.ranking)
            self.proposer = proposer
            self._note(problem="")
            self._tidy(number)
        finally:
            self._note(training=None, folder=None)

    def _prepare(self, folder: Path, task: Round) -> None:
        """Make the folder of a model; what a training left there that was killed goes."""
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise NertoolError(f"{folder}: cannot write there: {problem.strerror}") from None
        write_whole(folder / ROUND, json.dumps(asdict(task)).encode())

    def _wait(self, processes: Processes) -> int | None:
        """Wait for the process; its exit code, or None where the server ends first."""
        while not self._stopped.is_set():
            for _, code in processes.ended():
                return code
        processes.stop(0)
        return None

    def _tidy(self, number: int) -> None:
        """Remove models that no longer propose, and the data of those that do."""
        for folder in (self._store.folder / MODELS).glob("[0-9]*"):
            if folder.name.isdigit() and int(folder.name) <= number - _KEPT:
                shutil.rmtree(folder, ignore_errors=True)

    def _note(self, **changes: Any) -> None:
        with self._lock:
            self._state.update(changes)


def _epochs_of(folder: Path) -> int:
    """Return how many epochs a training has at most; 0 where that is not known yet."""
    with suppress(NertoolError, OSError):
        return load_config(folder / CONFIG).training.epochs
    return 0
