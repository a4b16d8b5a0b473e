"""The search for good settings: trials that Optuna proposes, trained in processes, remembered in SQLite.

The process that searches asks for trials, starts their trainings, reports the F1 of each epoch on the validation
split, and stops those that are worse than the median of the others after as many epochs. It alone writes to the
database, and holds the folder while it does: a trial that runs when it is stopped or killed goes on the next time.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nertool.comparison.processes import LOG, Processes, Running, failure, prepare_folder
from nertool.comparison.results import fingerprint, without
from nertool.config.files import refuse_links, remove_files, write_whole
from nertool.config.loading import dump_config, in_force
from nertool.config.schema import Config, Search
from nertool.errors import ConfigError, NertoolError
from nertool.experiments.space import Space, Value, varied, write
from nertool.experiments.trial import DIVERGED
from nertool.tagging.bundle import CONFIG, FILES
from nertool.training.checkpoint import CHECKPOINT, KEPT
from nertool.training.run import METRICS, RESULTS

STUDY, BEST = "study.db", "best.yaml"
_NAME = "nertool"
_SETTINGS, _IDENTITY, _REASON = "settings", "identity", "reason"
_STARTUP = 5  # trials that are not stopped, and drawn at random
_MOST_FAILURES = 3  # in a row, after which something else is wrong


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        number: Counted from 0.
        state: "complete", "stopped" (as worse than others), "failed" or "running".
        f1: Best validation F1, mean over the seeds; of a stopped trial up to there; None if there is none.
        settings: Values of the varied settings.
        curve: Validation F1 of each epoch of the first seed.
        seconds: How long it took.
        reason: Why it failed.
    """

    number: int
    state: str
    f1: float | None
    settings: dict[str, Value]
    curve: list[float]
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Tuning:
    """The result of a search.

    Attributes:
        name: Of the config or the data.
        config: That was varied.
        space: What was varied, and how, where kinds are those of the config.
        trials: All.
        importance: Share of each setting in the differences of F1; empty where there are too few trials.
        best: The best complete trial.
        best_config: Its config, with the test split of the config that was varied.
        seeds: Trainings of each trial.
    """

    name: str
    config: Config
    space: dict[str, str]
    trials: list[Trial]
    importance: dict[str, float]
    best: Trial
    best_config: Config
    seeds: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "space": self.space,
            "seeds": self.seeds,
            "best": vars(self.best),
            "importance": self.importance,
            "trials": [vars(trial) for trial in self.trials],
        }


@dataclass
class _Running:
    """A trial that is being trained."""

    trial: Any  # optuna.Trial
    settings: dict[str, Value]
    seed: int = 0  # that is being trained, counted from 0
    values: list[float] = field(default_factory=list)  # best F1 of the seeds that have ended
    reported: int = 0  # epochs of the first seed


class Tuner:
    """Search for good settings.

    Args:
        config: That is varied; with paths that exist. Its test split is never read.
        space: What is varied.
        folder: For database and trainings; held by the caller.
        seeds: Trainings of each trial, with seeds from that of the config on.

    Raises:
        ConfigError: Optuna is not installed, or the search in the folder is another one.
    """

    def __init__(self, config: Config, space: Space, folder: Path, seeds: int) -> None:
        if config.corpus.fold is not None:
            raise ConfigError("corpus.fold: its fold is a test split, and a search must not see one; leave it out")
        self._optuna = import_optuna()
        training = config.training.model_copy(update={"threads": config.training.threads or 1})
        corpus = config.corpus.model_copy(update={"test": None})
        self.config = config.model_copy(update={"training": training, "corpus": corpus})
        self._space = space
        self._folder = folder
        self._seeds = seeds
        refuse_links(folder, [STUDY, BEST])
        optuna = self._optuna
        try:
            with self._quiet():
                path = (folder / STUDY).resolve()
                # Not as part of the address: a name may have any character.
                self._storage = optuna.storages.RDBStorage(
                    "sqlite://",
                    engine_kwargs={"creator": lambda: sqlite3.connect(path), "poolclass": _pool()},
                )
                self._study = optuna.create_study(
                    storage=self._storage,
                    study_name=_NAME,
                    direction="maximize",
                    load_if_exists=True,
                    # An epoch is judged when others have come as far; the first ones say little.
                    pruner=optuna.pruners.MedianPruner(
                        n_startup_trials=_STARTUP, n_warmup_steps=max(2, config.training.epochs // 5)
                    ),
                )
            self._check_identity()
        except ConfigError:
            raise
        except Exception as problem:  # of SQLAlchemy and Optuna
            raise NertoolError(
                f"{folder / STUDY}: cannot be read or written ({type(problem).__name__}); "
                "name another folder with --output, or remove the file to begin anew"
            ) from None

    def run(self, trials: int, side_by_side: int) -> Generator[Trial | Running, None, None]:
        """Run trials until there are so many; those of before count. Closing the iterator stops the trainings.

        Args:
            trials: How many there are to be in the end.
            side_by_side: How many trainings there may be at once.

        Raises:
            NertoolError: Several trials failed one after the other.
        """
        optuna = self._optuna
        states = optuna.trial.TrialState
        frozen = self._study.get_trials(deepcopy=False)
        waiting = []
        for each in frozen:
            if each.state == states.RUNNING and _SETTINGS in each.user_attrs:
                trial, settings = optuna.trial.Trial(self._study, each._trial_id), each.user_attrs[_SETTINGS]
                waiting.append(_Running(trial, settings, reported=len(each.intermediate_values)))
            elif not each.state.is_finished():  # killed before it had all its settings
                self._study.tell(each.number, state=states.FAIL)
        for each in self.trials():
            if each.state != "running":
                yield each
        begun = len(frozen)
        failures = 0
        running: dict[int, _Running] = {}
        with Processes("nertool.experiments.trial") as processes:
            while waiting or running or begun < trials:
                while len(running) < side_by_side and (waiting or begun < trials):
                    if waiting:
                        each = waiting.pop(0)
                    else:
                        each = self._ask(begun)
                        begun += 1
                    number = each.trial.number
                    running[number] = each
                    self._start(processes, each)
                for number, code in processes.ended():
                    each = running[number]
                    ended = self._training_ended(each, code)
                    if ended is None:
                        each.seed += 1
                        self._start(processes, each)
                        continue
                    del running[number]
                    failures = failures + 1 if ended.state == "failed" else 0
                    yield ended
                    if failures == _MOST_FAILURES:
                        raise NertoolError(
                            f"{failures} trials failed one after the other; the last one: {ended.reason} "
                            f"(log: {self._own(number, each.seed) / LOG})"
                        )
                for number, each in list(running.items()):
                    if self._is_hopeless(each):
                        processes.stop(number)
                        del running[number]
                        self._clean(each)
                        self._study.tell(each.trial, state=states.PRUNED)
                        yield self._trial(number)
                yield Running({n: self._epochs(n, each) for n, each in running.items()})

    def trials(self) -> list[Trial]:
        """Return all trials so far."""
        return [self._record(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def result(self, name: str, original: Config, space: dict[str, str]) -> Tuning:
        """Sum up the search, and write the best config to `best.yaml`.

        Args:
            name: Of what was varied.
            original: The config with its test split.
            space: What was varied, in words.

        Raises:
            NertoolError: No trial is complete.
        """
        trials = self.trials()
        complete = [trial for trial in trials if trial.state == "complete" and trial.f1 is not None]
        if not complete:
            reasons = next((f": {trial.reason}" for trial in trials if trial.reason), "")
            raise NertoolError(f"no trial is complete{reasons}")
        best = max(complete, key=lambda trial: (trial.f1 or 0.0, -trial.number))
        config = varied(original, best.settings)
        write_whole(self._folder / BEST, dump_config(config).encode())
        return Tuning(name, original, space, trials, self._importance(), best, config, self._seeds)

    @contextmanager
    def _quiet(self) -> Generator[None, None, None]:
        """Leave out what Optuna says of its own: that a study is new, or an argument experimental."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.set_verbosity(before)

    def _importance(self) -> dict[str, float]:
        try:
            with self._quiet():
                found = self._optuna.importance.get_param_importances(self._study)
            return {name: float(share) for name, share in found.items()}
        except Exception:  # too few trials, or all have the same result
            return {}

    def _check_identity(self) -> None:
        try:
            files = fingerprint(self.config)
        except OSError as problem:
            raise NertoolError(f"{problem.filename}: cannot be read: {problem.strerror}") from None
        rest, settings = without(self.config, files), in_force(self.config)
        given = self._space.given
        space = None if given is None else {name: write(search) for name, search in sorted(given.items())}
        parts = {
            "settings": [
                rest["corpus"],
                rest["inputs"],
                rest["language"],
                rest["start"],
                settings["model"],
                settings["training"],
            ],
            "files": files,
            "space": space,
            "seeds": self._seeds,
        }
        digests = {
            name: hashlib.sha256(json.dumps(part, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()
            for name, part in parts.items()
        }
        before = self._study.user_attrs.get(_IDENTITY)
        if before is None:
            self._study.set_user_attr(_IDENTITY, digests)
        elif differing := [name for name, value in digests.items() if before.get(name) != value]:
            what = {"settings": "other settings", "files": "other files", "space": "another space"}
            named = ", ".join(what.get(name, "another number of seeds") for name in differing)
            raise ConfigError(
                f"{self._folder}: the search in this folder has {named}, and trials of both cannot be compared; "
                "name another folder with --output"
            )

    def _ask(self, number: int) -> _Running:
        """Ask for the next trial. The draw depends on seed and number alone, and on the trials before."""
        optuna = self._optuna
        with self._quiet():
            self._study.sampler = optuna.samplers.TPESampler(
                seed=(self.config.training.seed + number) % 2**32,
                n_startup_trials=_STARTUP,
                constant_liar=True,  # trials that run side by side are not the same
            )
            trial = self._study.ask()

            def suggest(name: str, search: Search) -> Value:
                if search.choices:
                    # Optuna stores choices in the order that they were first seen in.
                    value: Value = trial.suggest_categorical(name, list(search.choices))
                elif isinstance(search.low, int) and isinstance(search.high, int):
                    value = trial.suggest_int(name, search.low, search.high, log=search.log)
                else:
                    value = float(f"{trial.suggest_float(name, search.low, search.high, log=search.log):.4g}")
                return value

            settings = self._space.choose(self.config, suggest)
        trial.set_user_attr(_SETTINGS, settings)
        return _Running(trial, settings)

    def _own(self, number: int, seed: int) -> Path:
        return self._folder / f"trial-{number + 1}" / f"seed-{self.config.training.seed + seed}"

    def _start(self, processes: Processes, each: _Running) -> None:
        number = each.trial.number
        folder = self._own(number, each.seed)
        names = (*FILES, METRICS, RESULTS, CHECKPOINT, KEPT, LOG)
        refuse_links(self._folder, [str(folder.relative_to(self._folder) / name) for name in names])
        config = varied(self.config, each.settings)
        seed = (config.training.seed + each.seed) % 2**32
        config = config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})
        prepare_folder(folder, config, names)
        processes.start(number, folder, config.training.threads)

    def _training_ended(self, each: _Running, code: int) -> Trial | None:
        """Note the result of a training; None if the trial goes on with another seed."""
        number = each.trial.number
        states = self._optuna.trial.TrialState
        if code == DIVERGED:
            # A training that diverges is a result: the search should keep away from there.
            self._clean(each)
            each.trial.set_user_attr(_REASON, "diverged")
            self._study.tell(each.trial, 0.0)
            return self._trial(number)
        curve = self._curve(number, each.seed)
        if code or not curve:
            each.trial.set_user_attr(_REASON, failure(self._own(number, each.seed), code))
            self._study.tell(each.trial, state=states.FAIL)
            return self._trial(number)
        each.values.append(max(curve))
        self._report(each)
        if len(each.values) < self._seeds:
            return None
        self._clean(each)
        self._study.tell(each.trial, sum(each.values) / len(each.values))
        return self._trial(number)

    def _report(self, each: _Running) -> bool:
        """Report the epochs of the first seed that were not reported yet; returns whether there were any."""
        if each.seed:
            return False
        curve = self._curve(each.trial.number, 0)
        new = len(curve) > each.reported
        for step in range(each.reported, len(curve)):
            each.trial.report(curve[step], step + 1)
        each.reported = max(each.reported, len(curve))
        return new

    def _is_hopeless(self, each: _Running) -> bool:
        return self._report(each) and bool(each.trial.should_prune())

    def _epochs(self, number: int, each: _Running) -> int:
        return each.seed * self.config.training.epochs + len(self._curve(number, each.seed))

    def _curve(self, number: int, seed: int) -> list[float]:
        """Read the validation F1 of the epochs of a training."""
        try:
            text = (self._own(number, seed) / METRICS).read_text(encoding="utf-8")
            return [float(json.loads(line)["f1"]) for line in text.splitlines()]
        except (OSError, ValueError, LookupError, TypeError):
            return []

    def _clean(self, each: _Running) -> None:
        """Remove what is large: the best config can be trained again."""
        for seed in range(each.seed + 1):
            folder = self._own(each.trial.number, seed)
            remove_files(folder, [CHECKPOINT, KEPT, *(name for name in FILES if name != CONFIG)])

    def _trial(self, number: int) -> Trial:
        return self._record(self._study.get_trials(deepcopy=False)[number])

    def _record(self, frozen: Any) -> Trial:
        states = self._optuna.trial.TrialState
        names = {states.COMPLETE: "complete", states.PRUNED: "stopped", states.FAIL: "failed"}
        curve = [value for _, value in sorted(frozen.intermediate_values.items())]
        complete = frozen.state == states.COMPLETE
        f1 = frozen.value if complete else (max(curve) if curve else None)
        seconds = frozen.duration.total_seconds() if frozen.duration else 0.0
        return Trial(
            frozen.number,
            names.get(frozen.state, "running"),
            f1,
            dict(frozen.user_attrs.get(_SETTINGS, {})),
            curve,
            seconds,
            str(frozen.user_attrs.get(_REASON, "")),
        )


def counted_states(trials: Sequence[Trial]) -> dict[str, int]:
    """Count the trials of each state."""
    return {state: sum(trial.state == state for trial in trials) for state in ("complete", "stopped", "failed")}


def import_optuna() -> Any:
    """Import the package that proposes settings.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("the search needs Optuna: pip install 'nertool[tune]'") from None
    return optuna


def _pool() -> Any:
    """Return the class of a pool that keeps no connection: each is closed when it is not used."""
    from sqlalchemy.pool import NullPool

    return NullPool
