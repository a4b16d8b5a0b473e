"""Kills trainings before every single file operation in their folder, and looks at what is left.

`python tests/attack/kills.py SCENARIO FOLDER` runs a scenario and prints its counts and problems as JSON; without
a scenario it lists them. It is a process of its own because it forks: each training is a child of a process that
has imported everything and used nothing, which takes a tenth of the time of a new one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import filelock  # noqa: F401  (here, so that no child imports it again; so the next ones)
import scipy.optimize  # noqa: F401
import seqeval.metrics  # noqa: F401
import torch._dynamo
import torch._refs  # noqa: F401
from conftest import write_tiny
from shares import EVERY, share

from nertool.cli.main import main
from nertool.config.loading import load_config, locate_files
from nertool.errors import NertoolError
from nertool.tagging.bundle import FILES, load_bundle
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.preparation import prepare
from nertool.training.run import CURVES, METRICS, RESULTS, run
from nertool.training.trainer import Step
from nertool.training.validation import Validation
from nertool.views import training as _views  # noqa: F401

# Some epochs are the best so far and some are not: 1, 2 and 4 of four.
SETTINGS = [
    "training.epochs=4",
    "training.learning_rate=0.5",
    "model.dropout=0.5",
    "corpus.validation=test.txt",
]
THIS, OTHER = "training.seed=2", "training.seed=3"
TIMES = {"seconds", "tokens_per_second"}
EVENTS = {
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
    "os.truncate": (0,),
    "os.utime": (0,),
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass
class Report:
    """What a scenario found.

    Attributes:
        kills: How many trainings were killed.
        resumed: How many of these were resumed to the right end.
        refused: How many were refused clearly, and what the refusal offers was right.
        problems: Whatever else there was.
    """

    kills: int = 0
    resumed: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scenario:
    """A training over what is in its folder already.

    Attributes:
        seed: Of what is in the folder; None: nothing is.
        epochs: That were trained of it; all four are a finished one, others are stopped in the next one.
        resume: Whether the training that is killed has --resume.
        finished: Whether it ended after these epochs because no more were asked for.
    """

    seed: str | None = None
    epochs: int = 0
    resume: bool = False
    finished: bool = False


SCENARIOS = {
    "fresh": Scenario(),
    "over stopped, with --resume": Scenario(THIS, 2, resume=True),
    "over stopped, without --resume": Scenario(THIS, 2),
    "over stopped of other settings": Scenario(OTHER, 2),
    "over finished": Scenario(THIS, 4, finished=True),
    "over finished of other settings": Scenario(OTHER, 4, finished=True),
    "finished, and more epochs with --resume": Scenario(THIS, 2, resume=True, finished=True),
}
AGAIN = "killed again and again"


def child(action: Callable[[], int], said: Path) -> int:
    """Run something in a forked process; return its exit code, negative for a signal."""
    number = os.fork()
    if number == 0:
        code = 99
        try:
            with said.open("w") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def command(*arguments: str) -> int:
    """Run a command of nertool in this process."""
    try:
        main(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def killed_before(folder: Path, count: int, log: Path) -> None:
    """Let this process be killed before a file operation in a folder, counted from 1."""
    done = 0
    real, prefix = os.fsync, os.fspath(folder)

    def operation(what: str) -> None:
        nonlocal done
        done += 1
        if done == count:
            log.write_text(what)
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            names = [path] if isinstance(flags, int) and flags & WRITES else []
        elif event in EVENTS:
            names = [arguments[index] for index in EVENTS[event]]
        else:
            return
        if event == "os.remove" and not os.path.lexists(names[0]):
            return  # changes nothing
        if any(isinstance(name, str | os.PathLike) and os.fspath(name).startswith(prefix) for name in names):
            operation(f"{event} {[str(name).removeprefix(prefix) for name in names]}")

    def fsync(number: int) -> None:
        operation("fsync")
        real(number)

    os.fsync = fsync  # type: ignore[assignment]
    sys.addaudithook(hook)


def timeless(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in TIMES}


def outcome(folder: Path) -> dict[str, Any]:
    """Return all that a finished run has, without what a clock says, and without its checkpoint."""
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in FILES}
    found[METRICS] = [timeless(json.loads(line)) for line in (folder / METRICS).read_text().splitlines()]
    found[RESULTS] = timeless(json.loads((folder / RESULTS).read_text()))
    return found


class Attack:
    """Runs one scenario in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.config = write_tiny(self.folder / "corpus")
        self.run = self.folder / "run"
        self.said = self.folder / "said.txt"
        self.log = self.folder / "operation.txt"
        self.report = Report()
        os.chdir(self.folder)

    def arguments(self, seed: str, *more: str) -> list[str]:
        pairs = [each for setting in [*SETTINGS, seed] for each in ("--set", setting)]
        return ["train", str(self.config), *pairs, "--output", str(self.run), *more]

    def whole(self, seed: str) -> dict[str, Any]:
        """Return the outcome of a training that nothing happens to."""
        shutil.rmtree(self.run, ignore_errors=True)
        assert child(lambda: command(*self.arguments(seed)), self.said) == 0, self.said.read_text()
        return outcome(self.run)

    def start(self, scenario: Scenario) -> Path | None:
        """Make what the folder holds before the training that is killed."""
        if scenario.seed is None:
            return None
        shutil.rmtree(self.run, ignore_errors=True)
        if scenario.finished:
            epochs = f"training.epochs={scenario.epochs}"
            arguments = self.arguments(scenario.seed, "--set", epochs)
            assert child(lambda: command(*arguments), self.said) == 0, self.said.read_text()
        else:
            config = load_config(self.config, [*SETTINGS, scenario.seed])

            def stop() -> int:
                with closing(run(locate_files(config, self.config), self.run)) as records:
                    while True:
                        record = next(records)
                        if isinstance(record, Step) and record.epoch == scenario.epochs + 1:
                            return 0

            assert child(stop, self.said) == 0, self.said.read_text()
        return Path(shutil.move(self.run, self.folder / "start"))

    def kill(self, arguments: list[str], count: int) -> bool:
        """Start a training, and kill it before an operation; say whether it got that far."""

        def action() -> int:
            killed_before(self.run, count, self.log)
            return command(*arguments)

        code = child(action, self.said)
        if code == -signal.SIGKILL:
            self.report.kills += 1
            return True
        if code != 0:
            self.problem(f"operation {count}: exit {code} without a kill: {self.said.read_text()[-800:]}")
        return False

    def problem(self, text: str) -> None:
        self.report.problems.append(text)

    def look(self, where: str) -> None:
        """Check what is there: a model that loads and fits its results, or a clear refusal."""

        def action() -> int:
            try:
                model = load_bundle(self.run)
            except NertoolError as problem:
                print(problem)
                return 0 if not (self.run / RESULTS).exists() else 2
            if not (self.run / RESULTS).exists():
                return 0
            results = json.loads((self.run / RESULTS).read_text())
            config = load_config(self.run / FILES[0])
            score = Validation(model, prepare(config).corpus.validation).score()
            same = [
                score.to_json() == results["validation"],
                float(model.network.decoder.temperature) == results["calibration"]["temperature"],
                config.model_dump(mode="json") == results["config"],
                len((self.run / METRICS).read_text().splitlines()) == results["epochs"],
            ]
            print(same)
            return 0 if all(same) else 3

        code = child(action, self.said)
        if code:
            self.problem(f"{where}: the model does not fit its results ({code}): {self.said.read_text()[-800:]}")

    def finish(self, where: str, wanted: dict[str, Any], before: dict[str, Any] | None) -> None:
        """Resume, and compare the end with that of an undisturbed training.

        Args:
            where: The kill, for problems.
            wanted: The outcome.
            before: The outcome of the training of other settings that was in the folder before, if one was: as
                long as its state is there, resuming this one is refused, and what the refusal offers must be true.
        """
        code = child(lambda: command(*self.arguments(THIS, "--resume")), self.said)
        text = self.said.read_text()
        if code == 0:
            self.compare(where, wanted)
            self.report.resumed += 1
            return
        clear = "has learnt from something else so far" in text and "training.seed: 2, was 3" in text
        if before is None or code != 1 or not clear or "Traceback" in text:
            self.problem(f"{where}: --resume ends with {code}: {text[-800:]}")
            return
        self.report.refused += 1
        copy = self.folder / "copy"
        shutil.copytree(self.run, copy)
        offers = {
            "the folder's config": (
                ["train", str(self.run / FILES[0]), "--output", str(self.run), "--resume"],
                before,
            ),
            "without --resume": (self.arguments(THIS), wanted),
        }
        for offer, (arguments, end) in offers.items():
            if child(lambda arguments=arguments: command(*arguments), self.said):  # type: ignore[misc]
                self.problem(f"{where}, {offer}: {self.said.read_text()[-800:]}")
            else:
                self.compare(f"{where}, {offer}", end)
            shutil.rmtree(self.run)
            shutil.copytree(copy, self.run)
        shutil.rmtree(copy)

    def compare(self, where: str, wanted: dict[str, Any]) -> None:
        found = outcome(self.run)
        different = [name for name in wanted if found[name] != wanted[name]]
        if different:
            self.problem(f"{where}: another end than without the kill: {', '.join(different)}")
        left = {path.name for path in self.run.iterdir()} - {*FILES, METRICS, RESULTS, CHECKPOINT, CURVES}
        if left:
            self.problem(f"{where}: left {', '.join(sorted(left))}")

    def attack(self, scenario: Scenario) -> Report:
        """Kill a training before each of its operations in turn, or before every Kth."""
        wanted = self.whole(THIS)
        before = self.whole(OTHER) if scenario.seed == OTHER else None
        start = self.start(scenario)
        arguments = self.arguments(THIS, *(["--resume"] if scenario.resume else []))
        count = 1 + list(SCENARIOS.values()).index(scenario) % EVERY  # not the same operations in each scenario
        while True:
            shutil.rmtree(self.run, ignore_errors=True)
            if start is not None:
                shutil.copytree(start, self.run)
            if not self.kill(arguments, count):
                self.compare("without a kill", wanted)
                return self.report
            where = f"killed before operation {count}, {self.log.read_text()}"
            self.look(where)
            self.finish(where, wanted, before)
            count += EVERY

    def attack_again(self, attempts: int) -> Report:
        """Kill a training, and that which resumes it, and so on, at random."""
        wanted = self.whole(THIS)
        places = random.Random(1)
        for attempt in range(attempts):
            shutil.rmtree(self.run, ignore_errors=True)
            where = f"attempt {attempt}:"
            while self.kill(self.arguments(THIS, "--resume"), count := places.randint(1, 60)):
                where += f" {count}"
                self.look(where)
            self.finish(where, wanted, None)
        return self.report


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: kills.py SCENARIO FOLDER; scenarios: {'; '.join([*SCENARIOS, AGAIN])}")
    running = Attack(Path(sys.argv[2]))
    report = running.attack_again(share(12)) if sys.argv[1] == AGAIN else running.attack(SCENARIOS[sys.argv[1]])
    print(json.dumps(vars(report)))
