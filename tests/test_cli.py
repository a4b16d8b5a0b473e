"""The command line end to end: what it writes and prints, its exit codes, and that nobody sees a traceback."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from spacy import displacy

import nertool.cli.main
from nertool.cli.door import explains_errors
from nertool.config.files import locked
from nertool.config.loading import load_config, locate_files
from nertool.config.schema import TrainingConfig
from nertool.errors import CorpusError, DivergenceError
from nertool.evaluation.scores import Evaluation, Scores
from nertool.formats.opening import open_lines
from nertool.formats.registry import ReadOptions, Report, find_format
from nertool.tagging import tagger as tagger_module
from nertool.tagging.bundle import FILES, load_bundle
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document
from nertool.text.schemes import Span
from nertool.training import preparation
from nertool.training import run as run_module
from nertool.training.optimization import Optimization
from nertool.views import pictures
from nertool.views.console import coloured, duration, marked, show_evaluation
from nertool.views.model import recipe, show_model
from nertool.views.tagged import TaggingProgress
from nertool.views.training import Watcher

MODEL = sorted(FILES)
FORMATS = ["text", "conll", "jsonl", "html"]
LINES = [
    "Ada Byron moved from Oslo to Malmö. Nobody came.",
    "",
    'Rain fell on <New Haven> & "London" all week.',
    "  \t ",
    "She met Mina Okoye at Granite Bank in 1987 .",
    "\N{BALLOON} \u2028 Babbage",
]
INPUTS = {
    "text": "".join(f"{line}\n" for line in LINES),
    "tokens": 'Ada Byron\tmoved to  Oslo .\n\n \t\n<Babbage> & "Lind" \N{BALLOON}\nNobody came .\n',
    "conll": "-DOCSTART- O\n\nAda B-PER\nByron I-PER\nmoved O\n. O\n\n\nBabbage X\n<&> X\n\n"
    "-DOCSTART- O\n\nOslo B-LOC\n",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no model and no data anywhere else."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("NERTOOL_DATA", "NERTOOL_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    return folder


@pytest.fixture
def model(here: Path, trained_run: Path) -> Path:
    """A copy of the trained model, as runs/latest of the working folder."""
    shutil.copytree(trained_run, here / "runs" / "trained")
    (here / "runs" / "latest").symlink_to("trained")
    return Path("runs/latest")


@pytest.fixture(scope="module")
def tagger(trained_run: Path) -> Tagger:
    return Tagger.load(trained_run)


@pytest.fixture(scope="module")
def plain_run(trained_run: Path, tiny_train, tmp_path_factory) -> Path:
    """The run directory of a model of word classes."""
    folder = tmp_path_factory.mktemp("plain")
    rows = []
    for tokens, _ in tiny_train:
        kinds = ["NUM" if t[0].isdigit() else "NAME" if t[0].isupper() else "WORD" for t in tokens]
        rows.append("".join(f"{t} {kind}\n" for t, kind in zip(tokens, kinds, strict=True)))
    (folder / "train.txt").write_text("\n".join(rows), encoding="utf-8")
    text = (trained_run.parent / "corpus" / "tiny.yaml").read_text(encoding="utf-8")
    (folder / "plain.yaml").write_text(
        re.sub(r"corpus: .*", "corpus: {train: train.txt, validation: train.txt}", text), encoding="utf-8"
    )
    config = locate_files(load_config(folder / "plain.yaml", ["training.epochs=8"]), folder / "plain.yaml")
    list(run_module.run(config, folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def looking_run(trained_run: Path, tmp_path_factory) -> Path:
    """The run directory of a model with two heads of attention."""
    folder = tmp_path_factory.mktemp("looking")
    path = trained_run.parent / "corpus" / "tiny.yaml"
    settings = ["training.epochs=2", "model.attention={kind: multi_head, dimensions: 8, heads: 2}"]
    list(run_module.run(locate_files(load_config(path, settings), path), folder / "run"))
    return folder / "run"


def invoke(*arguments: object, input: str | bytes | None = None, charset: str = "utf-8") -> Result:
    """Runs a command in this process. It ends in an exit code, not in an exception."""
    result = CliRunner(charset=charset).invoke(
        nertool.cli.main.main, [str(each) for each in arguments], input=input
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*arguments: object, **options) -> str:
    result = invoke(*arguments, **options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refuse(*arguments: object, **options) -> str:
    """Runs a command that must fail for what the user gave it; returns the one message."""
    result = invoke(*arguments, **options)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    assert result.stderr.endswith("\n")
    return result.stderr.removeprefix("error: ").removesuffix("\n")


def process(*arguments: object, **options) -> subprocess.Popen[str]:
    """Starts a command as a user does; SIGINT interrupts it, even where the tests run in the background."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from nertool.cli.main import main; main(prog_name='nertool')"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **options)


def records_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: str | Path = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def written(path: str, content: str | bytes) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return target


class TestStart:
    def test_help_loads_nothing_heavy(self):
        code = (
            "import sys\n"
            "from nertool.cli.main import main\n"
            "for name in ['', *sorted(main.commands)]:\n"
            "    arguments = [name] if name else []\n"
            "    try:\n"
            "        main([*arguments, '--help'])\n"
            "    except SystemExit as end:\n"
            "        assert end.code == 0\n"
            "heavy = {'torch', 'spacy', 'pydantic', 'numpy', 'yaml', 'rich', 'seqeval', 'safetensors'}\n"
            "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
        assert (done.returncode, done.stderr) == (0, "")
        for name in (
            "train",
            "compare",
            "evaluate",
            "tag",
            "attention",
            "info",
            "--set",
            "--input-format",
            "[default: a new one in runs]",
        ):
            assert name in done.stdout

    @pytest.mark.parametrize(
        "name", ["", *sorted(name for name, command in nertool.cli.main.main.commands.items() if command.params)]
    )
    def test_each_help_page_has_an_example(self, name):
        page = succeed(*([name] if name else []), "--help")
        assert re.search(r"^ +nertool " + name, page, re.M)
        assert "\b" not in page and "\\b" not in page

    def test_the_first_page_lists_each_command_with_a_whole_sentence(self):
        lines = succeed("--help").partition("Commands:")[2].partition("Example")[0].strip().splitlines()
        names = [line.split()[0] for line in lines]
        assert len(names) == len(lines) == len(nertool.cli.main.main.commands)
        assert names[0] == "train"
        assert not [line for line in lines if not line.endswith(".") or line.endswith("...")]

    def test_version(self):
        assert nertool.__version__ in succeed("--version")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["retrain"],
            ["train"],
            ["train", "a.yaml", "b.yaml"],
            ["train", "a.yaml", "--set"],
            ["train", "a.yaml", "--seed", "-1"],
            ["train", "a.yaml", "--seed", "4294967296"],
            ["train", "a.yaml", "--seed", "one"],
            ["compare"],
            ["compare", "a.yaml", "--vary"],
            ["compare", "a.yaml", "--seeds", "0"],
            ["compare", "a.yaml", "--jobs", "0"],
            ["evaluate"],
            ["evaluate", "a.txt", "--colour"],
            ["errors"],
            ["errors", "a.txt", "--top", "-1"],
            ["tag"],
            ["tag", "a.txt", "--format", "xml"],
            ["tag", "a.txt", "--input-format", "html"],
            ["attention"],
            ["attention", "two", "texts"],
            ["info", "a", "b"],
        ],
        ids=" ".join,
    )
    def test_wrong_usage_is_code_2(self, here, arguments):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert "Error: " in result.stderr

    @pytest.mark.parametrize(("module", "package"), [("spacy", "spacy"), ("torchcrf", "pytorch-crf")])
    def test_a_package_that_is_missing_is_named(self, monkeypatch, capsys, module, package):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SystemExit, match="1"):
            explains_errors(lambda: __import__(module))()
        assert f"pip install {package}" in capsys.readouterr().err

    def test_the_codes_reach_the_shell(self, here):
        running = [process("--version"), process("train", "none.yaml"), process("tag")]
        found = [(*each.communicate(timeout=60), each.returncode) for each in running]
        assert [code for *_, code in found] == [0, 1, 2]
        assert found[1][1].startswith("error: no config 'none.yaml' here")
        assert not any("Traceback" in error for _, error, _ in found)


class TestTrain:
    def test_a_run(self, here, tiny_yaml):
        output = succeed(
            *("train", tiny_yaml, "--output", "some/where", "--seed", 7, "--set", "training.seed=3"),
            *("--set", "training.epochs=3", "--set", "model.encoder.hidden=5"),
        )
        folder = here / "some" / "where"
        written = [*MODEL, "metrics.jsonl", "results.json", "checkpoint.safetensors"]
        assert names(folder) == sorted([*written, *(["curves.svg"] if pictures.available() else [])])
        config = load_bundle(folder).config
        assert (config.training.seed, config.training.epochs, config.model.encoder.hidden) == (7, 3, 5)
        metrics = records_of(folder / "metrics.jsonl")
        assert [line["epoch"] for line in metrics] == [1, 2, 3]
        for line in metrics:
            assert line.keys() >= {"epoch", "loss", "f1", "seconds", "tokens_per_second"}
            assert 0 <= line["f1"] <= 1
        assert Path("runs/latest").is_symlink()
        assert Path("runs/latest").samefile(folder)
        assert names("runs") == ["latest"]
        # What a person sees of it: what was read, a line for each epoch, the scores of the test split.
        for part in ("Corpus", "train", "validation", "IOB2", "seed 7", "Test split", "micro"):
            assert part in output
        assert re.findall(r"^ +(\d+) +\d+\.\d{3} ", output, re.M) == ["1", "2", "3"]
        assert output.endswith("The model is in some/where\n")
        assert "\x1b" not in output

        # The next run, in a folder of its own, is the latest one.
        succeed("train", tiny_yaml, "--set", "training.epochs=1")
        assert Path("runs/latest").readlink() == Path("tiny")
        assert load_bundle(Path("runs/tiny")).config.training.seed == 1
        assert "seed 1, 1 epochs" in succeed("info")
        assert "seed 7, 3 epochs" in succeed("info", "some/where")

    def test_each_run_gets_a_folder_of_its_own(self, here, tiny_yaml):
        arguments = ["train", tiny_yaml, "--set", "training.epochs=1"]
        for number, name in enumerate(["tiny", "tiny-2", "tiny-3"], 1):
            assert succeed(*arguments, "--seed", number).endswith(f"The model is in runs/{name}\n")
            assert Path("runs/latest").readlink() == Path(name)
            assert load_bundle(Path("runs") / name).config.training.seed == number
        # What exists already is never touched.
        shutil.rmtree("runs/tiny-2")
        written("runs/tiny-2", "a file")
        assert "runs/tiny-4" in succeed(*arguments)
        assert names("runs") == ["latest", "tiny", "tiny-2", "tiny-3", "tiny-4"]

    def test_resume_goes_on_in_the_newest_run_that_was_stopped(self, here, tiny_yaml, monkeypatch):
        watched = Watcher._epoch

        def stopping(self, record):
            watched(self, record)
            if record.number == 3:
                raise KeyboardInterrupt

        arguments = ["train", tiny_yaml, "--set", "training.epochs=4"]
        with monkeypatch.context() as patch:
            patch.setattr(Watcher, "_epoch", stopping)
            for seed in (1, 2):
                assert invoke(*arguments, "--seed", seed).exit_code == 130
        assert len(records_of(Path("runs/tiny-2/metrics.jsonl"))) == 3
        output = succeed(*arguments, "--seed", 2, "--resume")
        assert "resumed after epoch 2" in output and output.endswith("The model is in runs/tiny-2\n")
        # The first run was stopped too, and is the newest one that has not ended now.
        assert succeed(*arguments, "--seed", 1, "--resume").endswith("The model is in runs/tiny\n")

    def test_resume_leaves_a_finished_run_alone_unless_more_is_asked_for(self, here, tiny_yaml):
        assert (
            "there is no run of tiny.yaml to go on with: a new one begins"
            in invoke("train", tiny_yaml, "--set", "training.epochs=2", "--resume").stderr
        )
        before = {path: path.read_bytes() for path in Path("runs/tiny").iterdir()}
        output = succeed("train", tiny_yaml, "--set", "training.epochs=2", "--resume")
        assert re.search(r"This run has ended after 2 epochs \(best: [12], validation F1 \d+\.\d\d\)", output)
        assert "nothing was changed. Ask for more with --set training.epochs=N (now 2)." in output
        assert "will replace" not in output and output.endswith("The model is in runs/tiny\n")
        assert {path: path.read_bytes() for path in Path("runs/tiny").iterdir()} == before
        assert "training.seed: 2, was 1" in refuse("train", tiny_yaml, "--seed", 2, "--resume")
        output = succeed("train", tiny_yaml, "--set", "training.epochs=4", "--resume")
        assert "resumed after epoch 2" in output and "Best of 4 epochs" in output
        assert names("runs") == ["latest", "tiny"]

    def test_a_second_training_into_a_folder_is_refused(self, here, tiny_yaml):
        with locked(Path("mine")):
            message = refuse("train", tiny_yaml, "--output", "mine")
            assert "mine: another training or comparison is writing to this folder; wait until" in message
            assert "mine: another training" in refuse("compare", tiny_yaml, "--output", "mine")

    def test_after_divergence_what_helps_is_said(self, here, tiny_yaml, monkeypatch):
        step = Optimization.step

        def diverging(self):
            if self._config.learning_rate == 0.02 and Path("mine/checkpoint.safetensors").exists():
                raise DivergenceError("training diverged: the norm of a gradient is inf")
            return step(self)

        monkeypatch.setattr(Optimization, "step", diverging)
        result = invoke("train", tiny_yaml, "--output", "mine", "--set", "training.epochs=3")
        assert result.exit_code == 1
        assert "Stopped. The best model so far, epoch 1 " in result.stderr
        assert "The same command with --resume goes on" not in result.stderr
        helps = "--set training.learning_rate=0.004"
        assert helps in result.stderr and "--resume, which goes on after epoch 1" in result.stderr
        again = ["train", tiny_yaml, "--output", "mine", "--set", "training.epochs=3", "--resume"]
        assert "diverged in epoch 2, and would again" in refuse(*again)
        assert "resumed after epoch 1" in succeed(*again, *helps.split())

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["none.yaml"], ["no config 'none.yaml' here", "demo.yaml, ewt-pos.yaml"]),
            (["dmo"], ["no config 'dmo' here", "Did you mean demo.yaml?"]),
            (["conll03"], ["conll03.yaml: there is no file conll03/train.txt", "NERTOOL_DATA", "glove.6B"]),
            (
                ["tiny.yaml", "--set", "training.epoch=3"],
                ["training.epoch: no such setting", "Did you mean training.epochs?"],
            ),
            (["tiny.yaml", "--set", "corpus.train=nowhere.txt"], ["there is no file nowhere.txt; looked in "]),
            (["tiny.yaml", "--vectors", "glove-51"], ["no file glove-51;", "`nertool vectors` lists"]),
            (["tiny.yaml", "--set", "language=en-GB"], ["language: expected a code", "found 'en-GB'"]),
            (["tiny.yaml", "--set", "epochs"], ["--set epochs: expected something like training.epochs=5"]),
            (["tiny.yaml", "--set", "a=["], ["--set a=[: not valid YAML"]),
            (["tiny.yaml", "--set", "training.epochs=0"], ["training.epochs: input should be greater", "found 0"]),
            (
                ["tiny.yaml", "--set", "model.decoder=x", "--set", "training.seed=many"],
                ["tiny.yaml: 2 problems\n  - model.decoder.kind: ", "\n  - training.seed: "],
            ),
            (["tiny.yaml", "--set", "corpus.columns=[token, pos, label]"], ["train.txt, line 1: found 2 columns"]),
            (["tiny.yaml", "--set", "corpus.scheme=BMES"], ["train.txt, line 2: 'I-PER' is not a label of BMES"]),
            (["tiny.yaml", "--set", "corpus.test=latin.txt"], ["latin.txt, line 3: byte 0xf6", "iconv"]),
            (["tiny.yaml", "--set", "corpus.test=empty.txt"], ["empty.txt: there is no sentence in it"]),
            (
                ["tiny.yaml", "--set", "inputs.words={vectors: [train.txt], dimensions: null}"],
                ["train.txt", "number"],
            ),
            (["tiny.yaml", "--set", "corpus.validation=~nobody-at-all/x"], ["no file ~nobody-at-all/x"]),
            (["broken.yaml"], ["broken.yaml: not valid YAML", "line 2"]),
            (["latin.yaml"], ["latin.yaml: not a UTF-8 text file"]),
            (["empty.yaml"], ["empty.yaml: expected settings such as 'corpus:'"]),
            (["tiny.yaml", "--output", "train.txt"], ["train.txt: cannot write there"]),
            (["tiny.yaml", "--output", "train.txt/run"], ["train.txt/run: cannot write there"]),
            (["x" * 300], ["no config 'xxx"]),
        ],
        ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
    )
    def test_mistakes(self, here, tiny_yaml, monkeypatch, arguments, parts):
        monkeypatch.chdir(tiny_yaml.parent)
        written("latin.txt", "Oslo B-LOC\n\nMalmö B-LOC\n".encode("latin-1"))
        written("empty.txt", "\n\n")
        written("broken.yaml", "corpus:\n\ttrain: train.txt\n")
        written("latin.yaml", "corpus: {train: Malmö}\n".encode("latin-1"))
        written("empty.yaml", "")
        message = refuse("train", *arguments)
        for part in parts:
            assert part in message
        assert not Path("runs").exists()

    def test_brackets_in_the_name_of_the_folder(self, here, tiny_yaml):
        output = succeed("train", tiny_yaml, "--set", "training.epochs=1", "--output", "[/b] [red]")
        assert output.endswith("The model is in [/b] [red]\n")

    def test_a_folder_that_stands_in_the_place_of_latest(self, here, tiny_yaml):
        Path("runs/latest").mkdir(parents=True)
        result = invoke("train", tiny_yaml, "--set", "training.epochs=1")
        assert result.exit_code == 0
        assert "runs/latest cannot be made to point to this run; name it: --model runs/tiny" in result.stderr
        assert names("runs") == ["latest", "tiny"]

    def test_the_folder_of_latest_itself(self, here, tiny_yaml):
        succeed("train", tiny_yaml, "--set", "training.epochs=1", "--output", "runs/latest")
        succeed("train", tiny_yaml, "--set", "training.epochs=1", "--output", "runs/latest")
        assert names("runs") == ["latest"]
        succeed("info")


class TestInterrupt:
    def lines(self, running: subprocess.Popen[str], last: Callable[[str], bool]) -> list[str]:
        """What a process prints, up to a line; ends the process where that does not come."""
        late = threading.Timer(90, running.kill)
        late.start()
        assert running.stdout is not None
        found: list[str] = []
        for line in running.stdout:
            found.append(line)
            if last(line):
                late.cancel()
                return found
        late.cancel()
        raise AssertionError(f"{''.join(found)}\n{running.communicate()[1]}")

    def test_after_an_epoch_the_best_model_stays(self, here, tiny_yaml):
        running = process(
            "train", tiny_yaml, "--set", "training.epochs=100000", "--set", "training.patience=100000"
        )
        self.lines(running, lambda line: re.match(r" +10 +\d", line) is not None)
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=60)
        assert running.returncode == 130
        told = re.fullmatch(
            r"\s*Stopped\. The best model so far, epoch (\d+) with validation F1 (\d+\.\d\d), is in runs/tiny; "
            r"the test split was not scored\. The same command with --resume goes on\.\n",
            error,
        )
        assert told, error
        metrics = records_of(Path("runs/tiny/metrics.jsonl"))
        assert len(metrics) >= 10
        # The signal may arrive between an epoch's files and its line.
        best = [(line["epoch"], f"{100 * line['f1']:.2f}") for line in metrics if line["best"]]
        assert (int(told[1]), told[2]) in best[-2:]
        assert {*MODEL, "metrics.jsonl", "checkpoint.safetensors"} <= set(names("runs/tiny"))
        assert Path("runs/latest").samefile("runs/tiny")
        load_bundle(Path("runs/tiny"))
        assert "not finished; metrics.jsonl has the epochs so far" in succeed("info")
        assert "Oslo" in succeed("tag", "-", input="Oslo\n")

    def test_before_the_first_epoch_nothing_is_saved(self, here, tiny_yaml):
        path = tiny_yaml.parent / "train.txt"
        path.write_text((path.read_text(encoding="utf-8") + "\n") * 2000, encoding="utf-8")
        running = process("train", tiny_yaml, "--set", "training.batch_size=1")
        self.lines(running, lambda line: line.startswith("epoch "))
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=60)
        assert (running.returncode, error.strip()) == (
            130,
            "Stopped before the first epoch ended: nothing was saved.",
        )
        assert names() == [], "not even an empty folder"

    def test_while_files_are_read_nothing_is_saved(self, here, tiny_yaml, monkeypatch):
        def interrupted(config, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(preparation, "read_corpus", interrupted)
        result = invoke("train", tiny_yaml)
        assert result.exit_code == 130
        assert result.stderr.strip() == "Stopped before the first epoch ended: nothing was saved."
        assert names() == []


class TestEvaluate:
    def test_as_json(self, model, trained_run):
        data = trained_run.parent / "corpus" / "test.txt"
        found = json.loads(succeed("evaluate", data, "--json"))
        assert found.keys() >= {"precision", "recall", "f1", "accuracy", "per_type", "sentences", "tokens"}
        results = json.loads((trained_run / "results.json").read_text(encoding="utf-8"))
        assert found.pop("tokens_per_second") > 0
        assert (found.pop("scheme"), found.pop("unseen_labels")) == ("IOB2", {})
        assert (found.pop("strays"), found.pop("unlabelled"), found.pop("cut_sentences")) == (0, 0, 0)
        assert found == results["test"]
        assert (found["sentences"], found["tokens"]) == (4, 22)
        assert found["per_type"].keys() == {"PER", "LOC", "ORG"}
        for scores in found["per_type"].values():
            assert scores.keys() == {"precision", "recall", "f1", "support"}

    def test_a_file_in_other_columns_than_the_model_learnt_from(self, model, here):
        Path("other.txt").write_text("x Ada y B-PER\nx wrote y O\n\nx it y I-NEW\n", encoding="utf-8")
        columns = "corpus.columns=[n, token, pos, ner]"
        found = json.loads(
            succeed("evaluate", "other.txt", "--json", "--set", columns, "--set", "corpus.label=ner")
        )
        assert (found["sentences"], found["tokens"], found["strays"]) == (2, 3, 1)
        assert sum(found["unseen_labels"].values()) == 1

    def test_other_formats_and_names_that_say_nothing(self, model, trained_run):
        data = trained_run.parent / "corpus" / "test.txt"
        wanted = json.loads(succeed("evaluate", data, "--json"))
        succeed("convert", data, "test.jsonl")
        shutil.copy("test.jsonl", "test.unknown")
        for arguments in (["test.jsonl"], ["test.jsonl", "--from", "jsonl"], ["test.unknown", "--from", "jsonl"]):
            found = json.loads(succeed("evaluate", *arguments, "--json"))
            assert (found["f1"], found["tokens"]) == (wanted["f1"], wanted["tokens"])
        assert "error: " in invoke("evaluate", "test.jsonl", "--from", "conll").stderr
        assert invoke("evaluate", "test.jsonl", "--from", "html").exit_code == 2

    def test_as_a_table(self, model, trained_run, here):
        data = shutil.copy(trained_run.parent / "corpus" / "train.txt", here / "gold.txt")
        output = succeed("evaluate", "gold.txt", "--model", "runs/trained")
        assert "gold.txt by runs/trained" in output
        rows = re.findall(
            r"^[│|]? *(\w+) +[│|] +([\d.]+) +[│|] +([\d.]+) +[│|] +([\d.]+) +[│|] +(\d+)", output, re.M
        )
        assert [row[0] for row in rows] == ["LOC", "ORG", "PER", "macro", "micro"]
        assert all(row[1:4] == ("100.00",) * 3 for row in rows)
        assert rows[-1][4] == "19"
        assert "12 sentences, 91 tokens, token accuracy 100.00; entities scored by seqeval, strict IOBES" in output
        assert re.search(r"^labels read as IOB2; [\d,]+ tokens/s$", output, re.M)
        # The same as gzip, found in a data folder.
        Path("data").mkdir()
        Path("data/gold.gz").write_bytes(gzip.compress(Path(data).read_bytes()))
        os.environ["NERTOOL_DATA"] = "data"
        try:
            assert json.loads(succeed("evaluate", "gold.gz", "--json"))["f1"] == 1.0
        finally:
            del os.environ["NERTOOL_DATA"]

    def test_word_classes(self, here, plain_run):
        data = plain_run.parent / "train.txt"
        found = json.loads(succeed("evaluate", data, "--model", plain_run, "--json"))
        assert found["per_type"].keys() == {"NAME", "NUM", "WORD"}
        assert found["accuracy"] == pytest.approx(found["f1"]) and found["f1"] > 0.9
        assert "91 tokens, plain tags, scored token by token" in succeed("evaluate", data, "--model", plain_run)

    @pytest.mark.parametrize(
        ("name", "content", "parts"),
        [
            ("none.txt", None, ["there is no file none.txt; looked in ", "NERTOOL_DATA"]),
            ("empty.txt", b"", ["empty.txt: there is no sentence in it"]),
            ("thin.txt", b"Ada B-PER\nByron\n", ["thin.txt, line 2: found 1 column in 'Byron'"]),
            ("latin.txt", b"Malm\xf6 O\n", ["latin.txt, line 1: byte 0xf6"]),
            ("tags.txt", b"Rain NOUN\nfell VERB\n", ["tags.txt, line 1", "plain"]),
            (
                "cut.gz",
                gzip.compress(b"Ada B-PER\n" * 99, mtime=0)[:30],
                ["cut.gz: the gzip data is corrupt or truncated"],
            ),
        ],
    )
    def test_mistakes(self, model, name, content, parts):
        if content is not None:
            written(name, content)
        message = refuse("evaluate", name)
        for part in parts:
            assert part in message


class Page(HTMLParser):
    """What a page shows: its open elements in order, its text, and the text of each <mark>."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.figures: list[str] = []
        self.marks: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._mark = ["", ""]
        self.feed(page)
        self.close()
        assert self._open == [], "elements are left open"

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        if tag not in ("meta", "br"):
            self._open.append(tag)
        if tag == "figure":
            self.figures.append("")
        if tag == "mark":
            self._mark = ["", ""]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "mark":
            self.marks.append((self._mark[0].strip(), self._mark[1].strip()))

    def handle_data(self, data):
        if "mark" in self._open:
            self._mark["span" in self._open] += data
        if "figure" in self._open and "span" not in self._open:
            self.figures[-1] += data


def squeezed(text: str) -> str:
    return " ".join(text.split())


def read_conll(path: str | Path) -> list[Document]:
    """The sentences of a file in columns."""
    documents = find_format("conll").read(Path(path), ReadOptions(), Report())
    return [sentence for document in documents for sentence in document.sentences()]


def expected(tagger: Tagger, kind: str) -> list[Document]:
    """What the tagger itself says of an input."""
    lines = INPUTS[kind].split("\n")[:-1]
    if kind == "text":
        return list(tagger.tag_texts(lines))
    if kind == "tokens":
        return list(tagger.tag_tokens(line.split() for line in lines))
    first = Document(("Ada", "Byron", "moved", ".", "Babbage", "<&>"), sentence_starts=(0, 4), id="1")
    return list(tagger.tag_documents([first, Document(("Oslo",), id="2")]))


class TestTag:
    @pytest.mark.parametrize("kind", INPUTS)
    def test_jsonl(self, model, tagger, kind):
        written("input", INPUTS[kind])
        output = succeed("tag", "input", "--format", "jsonl", "--input-format", kind)
        rows = [json.loads(line) for line in output.removesuffix("\n").split("\n")]
        wanted = expected(tagger, kind)
        assert len(rows) == len(wanted) == {"text": 6, "tokens": 5, "conll": 2}[kind]
        for row, tagged in zip(rows, wanted, strict=True):
            assert list(row)[:4] == ["text", "tokens", "labels", "entities"]
            assert (row["text"], row["tokens"]) == (tagged.text, list(tagged.tokens))
            assert row["labels"] == list(tagged.labels)
            assert len(row["entities"]) == len(tagged.entities)
            for found, entity in zip(row["entities"], tagged.entities, strict=True):
                assert list(found) == ["start", "end", "label", "text", "score"]
                assert row["text"][found["start"] : found["end"]] == found["text"] == entity.text
                assert found["label"] == entity.label
                assert found["score"] == pytest.approx(entity.score, abs=1e-5)
        assert sum(len(row["entities"]) for row in rows) >= 2
        if kind == "text":
            assert [row["text"] for row in rows] == LINES
            assert rows[1] == {"text": "", "tokens": [], "labels": [], "entities": []}
        assert "Malm\\u" not in output, "letters stay legible"

    @pytest.mark.parametrize("content", ["", "\n \n"])
    def test_no_text_is_said(self, model, content):
        written("empty.txt", content)
        result = invoke("tag", "empty.txt")
        assert result.exit_code == 0
        assert "there is no text in empty.txt" in result.stderr

    @pytest.mark.parametrize("kind", INPUTS)
    def test_conll_can_be_read_back(self, model, tagger, kind):
        written("input", INPUTS[kind])
        written("found.conll", succeed("tag", "input", "--format", "conll", "--input-format", kind))
        sentences = [each for tagged in expected(tagger, kind) for each in tagged.sentences() if each.tokens]
        found = read_conll("found.conll")
        assert [(each.tokens, each.labels) for each in found] == [(each.tokens, each.labels) for each in sentences]
        if kind == "conll":
            assert [each.id for each in found] == ["1", "1", "2"]
        # And tagged once more: what was there before is kept, and the predicted labels come last.
        again = succeed("tag", "found.conll", "--to", "conll", "--from", "conll")
        lines = Path("found.conll").read_text(encoding="utf-8").split("\n")
        wanted = [f"{line} {line.split()[-1]}" if line and "DOCSTART" not in line else line for line in lines]
        assert again.replace("\t", " ").split("\n") == wanted

    @pytest.mark.parametrize("kind", INPUTS)
    def test_text(self, model, tagger, kind):
        written("input", INPUTS[kind])
        output = succeed("tag", "input", "--input-format", kind)
        assert output == succeed("tag", "input", "--input-format", kind, "--format", "text")
        lines = output.removesuffix("\n").split("\n")
        wanted = expected(tagger, kind)
        texts = [line for tagged in wanted for line in tagged.text.split("\n")]
        assert [re.sub(r"\[([^]|]+)\|(?:PER|LOC|ORG)\]", r"\1", line) for line in lines] == [*texts]
        assert re.findall(r"\[([^]|]+)\|(PER|LOC|ORG)\]", output) == [
            (entity.text, entity.label) for tagged in wanted for entity in tagged.entities
        ]

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.xml", "<a>Oslo</a>\n", "this looks like XML"),
            ("a.zip", b"PK\x03\x04rest", "this looks like a zip archive"),
            ("zip.txt", b"PK\x03\x04rest", "this looks like a zip archive"),
            ("wide.txt", "Oslo".encode("utf-16"), "this looks like text in UTF-16"),
            ("a.json", "Oslo\n", "this looks like JSON"),
        ],
    )
    def test_what_is_no_text_is_named(self, model, name, content, message):
        written(name, content)
        assert refuse("tag", name).startswith(f"{name}: {message}")

    def test_markup_is_text_where_that_is_said(self, model):
        for name, options in (("a.xml", ["--from", "text"]), ("a.txt", []), ("a.md", [])):
            written(name, "<a>Lind</a>\n")
            assert "Lind" in succeed("tag", name, *options)

    @pytest.mark.parametrize("kind", INPUTS)
    def test_html_is_the_page_of_displacy(self, model, tagger, kind):
        written("input", INPUTS[kind])
        output = succeed("tag", "input", "--format", "html", "--input-format", kind)
        wanted = expected(tagger, kind)
        page = Page(output)
        assert page.elements[:4] == ["html", "head", "meta", "meta"]
        assert '<meta charset="utf-8">' in output and "default-src 'none'; style-src 'unsafe-inline'" in output
        # displaCy puts blanks around its marks.
        assert ["".join(each.split()) for each in page.figures] == ["".join(each.text.split()) for each in wanted]
        assert page.marks == [(entity.text, entity.label) for tagged in wanted for entity in tagged.entities]
        documents = [
            {
                "text": tagged.text,
                "ents": [{"start": e.start, "end": e.end, "label": e.label} for e in tagged.entities],
                "settings": {"lang": "en", "direction": "ltr"},
            }
            for tagged in wanted
        ]
        theirs = displacy.render(documents, style="ent", page=True, manual=True, jupyter=False)

        def bare(text: str) -> str:
            text = re.sub(r' style="[^"]*"', "", re.sub("<meta [^>]*>", "", text))
            return re.sub(r"\s*(<[^>]*>)\s*", r"\1", text)

        assert bare(output) == bare(theirs)

    def test_formats_in_and_out(self, model):
        text = "Babbage lived in London ."
        written("input.jsonl", json.dumps({"text": text}) + "\n")
        wanted = "[Babbage|PER] lived in [London|LOC] .\n"
        assert succeed("tag", "input.jsonl") == wanted, "by the name"
        assert succeed("tag", "-", "--from", "jsonl", input=Path("input.jsonl").read_bytes()) == wanted
        assert succeed("tag", "input.jsonl", "--from", "text").startswith('{"text"'), "as it is told to"
        for source, target in (("input.jsonl", "found.spacy"), ("found.spacy", "found.parquet")):
            assert succeed("tag", source, "--to", target.partition(".")[2], "--output", target) == ""
            assert succeed("tag", target) == wanted, target

    def test_columns_are_kept_and_the_prediction_comes_last(self, model):
        written("input.conll", "Babbage NNP I-NP\nlived VBD I-VP\n\nLondon NNP I-NP\n")
        assert succeed("tag", "input.conll", "--to", "conll") == (
            "Babbage NNP I-NP B-PER\nlived VBD I-VP O\n\nLondon NNP I-NP B-LOC\n\n"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["input.txt", "--to", "spacy"], "spacy is not text: name a file for it with --output"),
            (["-", "--from", "spacy"], "spacy cannot be read from standard input; name a file"),
            (["gone.spacy"], "gone.spacy: there is no such file"),
        ],
    )
    def test_formats_that_do_not_fit(self, model, arguments, message):
        written("input.txt", "Oslo\n")
        assert message in refuse("tag", *arguments, input="")

    def test_standard_input_gzip_and_marks_of_byte_order_make_no_difference(self, model):
        content = INPUTS["text"].encode()
        for name, data in {
            "plain": content,
            "bom": b"\xef\xbb\xbf" + content,
            "packed.gz": gzip.compress(content),
            "windows": content.replace(b"\n", b"\r\n"),
            "cut": content.removesuffix(b"\n"),
        }.items():
            written(name, data)
        arguments = ["--format", "jsonl", "--model", "runs/trained"]
        wanted = succeed("tag", "plain", *arguments)
        for name in ("bom", "packed.gz", "windows", "cut"):
            assert succeed("tag", name, *arguments) == wanted, name
        for name in ("plain", "bom", "windows"):
            assert succeed("tag", "-", *arguments, input=Path(name).read_bytes()) == wanted, name

    @pytest.mark.parametrize("form", FORMATS)
    def test_nothing_in(self, model, form):
        result = invoke("tag", "-", "--format", form, input=b"")
        assert result.exit_code == 0
        assert "there is no text in standard input" in result.stderr
        assert Page(result.stdout).figures == [] if form == "html" else result.stdout == ""

    @pytest.mark.parametrize("form", FORMATS)
    def test_order_is_kept_over_many_parts(self, model, monkeypatch, form):
        monkeypatch.setattr(tagger_module, "TOKENS_AT_ONCE", 50)
        lines = [f"line{number} in Oslo {'so ' * (number % 7)}." for number in range(100)]
        output = succeed("tag", "-", "--format", form, input="".join(f"{line}\n" for line in lines))
        numbers = [int(each) for each in re.findall(r"line(\d+)", output)]
        assert list(dict.fromkeys(numbers)) == sorted(set(numbers)) == list(range(100))

    @pytest.mark.parametrize("form", FORMATS)
    def test_word_classes(self, here, plain_run, form):
        arguments = ["tag", "-", "--model", plain_run, "--format", form, "--input-format", "tokens"]
        output = succeed(*arguments, input="Lind moved from Oslo .\n\nNobody came .\n")
        if form == "html":
            page = Page(output)
            assert page.marks == []
            assert [squeezed(each) for each in page.figures] == ["Lind moved from Oslo .", "", "Nobody came ."]
            return
        if form == "jsonl":
            rows = [json.loads(line) for line in output.splitlines()]
            assert [row["entities"] for row in rows] == [[], [], []]
            pairs = [list(zip(row["tokens"], row["labels"], strict=True)) for row in rows]
        elif form == "conll":
            written("found", output)
            pairs = [list(zip(each.tokens, each.labels, strict=True)) for each in read_conll("found")]
            pairs.insert(1, [])
        else:
            pairs = [[tuple(token.split("|")) for token in line.split()] for line in output.split("\n")[:-1]]
        assert [[token for token, _ in row] for row in pairs] == [
            ["Lind", "moved", "from", "Oslo", "."],
            [],
            ["Nobody", "came", "."],
        ]
        assert [label for _, label in pairs[0]] == ["NAME", "WORD", "WORD", "NAME", "WORD"]

    def test_standard_output_is_utf8_whatever_the_locale(self, model):
        result = invoke("tag", "-", input="Malmö 北 \N{BALLOON}\n".encode(), charset="ascii")
        assert result.exit_code == 0
        assert result.stdout_bytes.decode("utf-8").endswith(" 北 \N{BALLOON}\n")

    def test_a_reader_that_has_seen_enough_and_a_disk_that_is_full(self, model):
        written("big.txt", "Rain fell on Oslo all week and nobody came .\n" * 6000)
        running = process("tag", "big.txt")
        assert running.stdout is not None and running.stderr is not None
        if Path("/dev/full").exists():
            with Path("/dev/full").open("wb") as full:
                command = [sys.executable, "-m", "nertool.cli.main", "info"]
                done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, encoding="utf-8")
            assert (done.returncode, done.stderr) == (
                1,
                "error: standard output cannot be written to: No space left on device\n",
            )
        assert "Oslo" in running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == ""
        running.stderr.close()
        assert running.wait(timeout=60) in (0, 1)

    def test_standard_input_that_is_closed(self, model, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        with pytest.raises(CorpusError, match="standard input: it is closed"), open_lines(None, "a text") as lines:
            next(lines)

    @pytest.mark.parametrize(
        ("kind", "content", "message"),
        [
            ("text", None, "input: there is no such file; expected a text"),
            ("text", b"one\ntwo\nMalm\xf6\n", "input, line 3: byte 0xf6 (number 5 of the line) is not UTF-8"),
            ("tokens", b"\xff\n", "input, line 1: byte 0xff"),
            ("text", gzip.compress(b"text\n" * 99, mtime=0)[:-9], "input: the gzip data is corrupt or truncated"),
            ("conll", b"Ada B-PER\n\tX\n", "line 2: the token is empty"),
        ],
    )
    def test_mistakes(self, model, kind, content, message):
        if content is not None:
            written("input", content)
        assert message in refuse("tag", "input", "--input-format", kind)
        if content is not None and not content.startswith(b"\x1f"):
            told = refuse("tag", "-", "--input-format", kind, input=content)
            assert message.replace("input, ", "standard input, ") in told

    def test_a_folder_and_a_name_that_no_file_has(self, model):
        assert refuse("tag", "runs").startswith("runs: ")
        assert "name too long" in refuse("tag", "x" * 300)

    def test_a_token_that_conll_cannot_hold(self, model):
        message = refuse("tag", "-", "--format", "conll", "--input-format", "tokens", input="a -DOCSTART- b\n")
        assert "cannot be written" in message

    def test_marginals_in_json_alone(self, model, plain_run):
        text, options = "Babbage lived in London .\n", ["--format", "jsonl", "--marginals"]
        tree = json.loads(succeed("tag", "-", *options, input=text))
        assert [max(each, key=each.get) for each in tree["marginals"]] == tree["labels"]
        assert tree["labels"] == ["B-PER", "O", "O", "B-LOC", "O"]
        plain = json.loads(succeed("tag", "-", *options, "--model", plain_run, input=text))
        assert set(plain["marginals"][1]) <= {"NAME", "NUM", "WORD"}
        for option in (["--marginals"], ["--n-best", "2"]):
            assert f"{option[0]} needs JSON Lines" in refuse("tag", "-", *option, input=text)

    def test_a_language_that_the_tokeniser_does_not_know(self, model):
        path = model / "config.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("language: en", "language: qq"), encoding="utf-8")
        assert "language 'qq': spaCy cannot tokenize it" in refuse("tag", "-", input="Oslo\n")
        for form in FORMATS:
            assert "Oslo" in succeed("tag", "-", "--input-format", "tokens", "--format", form, input="Oslo\n")


class TestOutput:
    def test_a_file_holds_what_is_printed_otherwise(self, model):
        written("input.txt", INPUTS["text"])
        for form in FORMATS:
            printed = succeed("tag", "input.txt", "--format", form)
            assert succeed("tag", "input.txt", "--format", form, "--output", "found") == ""
            assert Path("found").read_bytes() == printed.encode()
        assert names() == ["found", "input.txt", "runs"]

    def test_the_input_may_be_replaced(self, model):
        written("input.txt", "Babbage lived in London .\n")
        succeed("tag", "input.txt", "--output", "input.txt")
        assert Path("input.txt").read_text(encoding="utf-8") == "[Babbage|PER] lived in [London|LOC] .\n"

    @pytest.mark.parametrize("form", FORMATS)
    @pytest.mark.parametrize("old", [None, "old\n"])
    def test_after_an_error_all_is_as_before(self, model, monkeypatch, form, old):
        monkeypatch.setattr(tagger_module, "TOKENS_AT_ONCE", 1)  # so that the first lines are written by then
        written("input.txt", b"Oslo\nMalm\xc3\xb6\nMalm\xf6\nOslo\n")
        if old is not None:
            written("found", old)
        message = refuse("tag", "input.txt", "--format", form, "--output", "found")
        assert message.startswith("input.txt, line 3: byte 0xf6")
        assert names() == [*(["found"] if old else []), "input.txt", "runs"]
        if old is not None:
            assert Path("found").read_text(encoding="utf-8") == old

    @pytest.mark.parametrize(
        ("output", "reason"),
        [
            ("none/found", "there is no folder none"),
            ("file/found", "Not a directory"),
            ("runs", "Is a directory"),
            ("x" * 300, "File name too long"),
        ],
    )
    def test_places_that_cannot_be_written(self, model, output, reason):
        written("file", "")
        message = refuse("tag", "-", "--output", output, input="Oslo\n")
        assert message == f"{output}: cannot be written: {reason}"
        assert names() == ["file", "runs"]

    def test_a_folder_that_is_closed(self, model):
        if os.geteuid() == 0:
            pytest.skip("nothing is closed to root")
        Path("closed").mkdir(mode=0o500)
        assert "closed/found: cannot be written" in refuse("tag", "-", "--output", "closed/found", input="Oslo\n")
        assert "closed/run: cannot write there" in refuse("train", "demo", "--output", "closed/run")

    def test_a_link_stays_a_link(self, model):
        written("there/found", "old")
        Path("link").symlink_to("there/found")
        succeed("tag", "-", "--output", "link", input="Nobody\n")
        assert Path("link").is_symlink()
        assert Path("there/found").read_text(encoding="utf-8") == "Nobody\n"
        assert names("there") == ["found"]

    def test_a_pipe_is_written_to(self, model):
        os.mkfifo("pipe")
        got: list[str] = []
        reader = threading.Thread(target=lambda: got.append(Path("pipe").read_text(encoding="utf-8")), daemon=True)
        reader.start()
        succeed("tag", "-", "--output", "pipe", input="Nobody\n")
        reader.join(timeout=30)
        assert got == ["Nobody\n"]
        assert Path("pipe").is_fifo()


class TestProgress:
    def drawn(self, source: Path | None, tagger: Tagger, lines: list[str]) -> str:
        target = StringIO()
        progress = TaggingProgress(source, Console(file=target, force_terminal=True, width=100))
        progress._shown -= 1  # the first text is drawn at once
        documents = list(progress.documents(tagger.tag_texts(progress.lines(iter(lines)))))
        assert [document.text for document in documents] == lines
        return target.getvalue()

    def test_bytes_of_a_file_and_else_a_count(self, tagger, tmp_path):
        lines = ["Babbage lived in Malmö ."] * 3
        path = tmp_path / "input.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        assert "left: 0:00" in self.drawn(path, tagger, lines)
        packed = tmp_path / "input.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        for source in (packed, None):
            drawn = self.drawn(source, tagger, lines)
            assert "1 text" in drawn and "left" not in drawn

    def test_nothing_without_a_terminal(self, tagger):
        target = StringIO()
        progress = TaggingProgress(None, Console(file=target, force_terminal=False))
        assert len(list(progress.documents(tagger.tag_texts(progress.lines(iter(["Oslo"])))))) == 1
        assert target.getvalue() == ""


class TestAttention:
    def test_a_table_of_the_tokens_that_each_token_looks_at(self, here, looking_run):
        text = "Ada [b] moved to Malmö ."
        lines = succeed("attention", text, "--model", looking_run).splitlines()
        assert [part.strip() for part in re.split("[┃│|]", lines[1]) if part.strip()] == [
            *("token", "head 1 looks at", "head 2 looks at")
        ]
        ((tokens, weights),) = Tagger.load(looking_run).attention(text)
        assert tokens == ["Ada", "[", "b", "]", "moved", "to", "Malmö", "."]
        rows = [[part.strip() for part in re.split("[┃│|]", line)[1:-1]] for line in lines[3:-1]]
        assert [row[0] for row in rows] == tokens
        for place, row in enumerate(rows):
            for head, shown in enumerate(row[1:]):
                most = sorted(weights[head, place], reverse=True)[:2]
                assert [float(each) for each in re.findall(r" (\d\.\d\d)(?:, |$)", shown)] == [
                    pytest.approx(weight, abs=0.0051) for weight in most
                ]
                first, *_ = shown.rpartition(", ")[0].rpartition(" ")
                assert first == tokens[int(weights[head, place].argmax())]

    def test_each_sentence_has_a_table_and_the_first_a_picture(self, here, looking_run, monkeypatch):
        monkeypatch.setenv("NERTOOL_MODEL", str(looking_run))
        text = "Nobody came. Rain fell on Oslo."
        assert succeed("attention", text).count("head 1 looks at") == 2
        for name in ("look.svg", "look.PNG"):
            assert succeed("attention", text, "--output", name) == f"written: {name}\n"
        assert Path("look.PNG").read_bytes().startswith(b"\x89PNG")
        drawn = Path("look.svg").read_text(encoding="utf-8")
        assert "<svg" in drawn and ">Nobody<" in drawn and ">head 2<" in drawn
        assert ">Oslo<" not in drawn

    def test_one_token_and_odd_ones(self, here, looking_run):
        assert "Oslo 1.00" in succeed("attention", "Oslo", "--model", looking_run)
        text = "[/b] \x1b[31m \u202e北 \N{BALLOON}"
        succeed("attention", text, "--model", looking_run)
        succeed("attention", text, "--model", looking_run, "--output", "odd.svg")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([""], "there is no token in this text"),
            ([" \t\n "], "there is no token in this text"),
            (["Oslo", "--output", "look.pdf"], "look.pdf: the name of a picture ends in .png or .svg"),
            (["Oslo", "--output", "look"], "look: the name of a picture ends in .png or .svg"),
            (["Oslo", "--output", "none/look.svg"], "none/look.svg: cannot be written: there is no folder none"),
        ],
    )
    def test_mistakes(self, here, looking_run, arguments, message):
        assert refuse("attention", *arguments, "--model", looking_run) == message
        assert names() == []

    def test_a_model_without_it(self, model):
        assert refuse("attention", "Oslo") == (
            "this model has no attention; train one with --set model.attention.kind=multi_head"
        )


class TestInfo:
    def test_a_finished_run(self, model, trained_run):
        output = succeed("info")
        assert succeed("info", "runs/latest") == succeed("info", "runs/trained") == output
        assert f"{Path('runs/trained').resolve()} (" in output
        assert "seed 1, 30 epochs in " in output and "validation F1 100.00" in output
        assert "B-PER, E-LOC" in output or "IOBES" in output
        assert "expected calibration error: validation " in output
        for part in (
            "lstm, hidden 12, layers 1, bidirectional yes",
            "crf, constraints decoding",
            "12 dimensions",
            "adam, weight decay 0; learning rate 0.02; schedule inverse, decay 0.05, warmup 0; batches of 4",
        ):
            assert part in output
        assert str(trained_run.parent / "corpus" / "train.txt") in output
        assert f"nertool {nertool.__version__}" in output
        assert "Test split, scored once" in output and "4 sentences, 22 tokens" in output

    def test_a_plain_model(self, here, plain_run):
        output = succeed("info", plain_run)
        assert "NAME, NUM, WORD (plain)" in output
        assert "Test split" not in output

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "5", "{}", '{"seed": 1}', "[" * 100_000, "\xff"],
        ids=lambda content: content[:12] or "empty",
    )
    def test_results_that_are_damaged(self, model, content):
        (model / "results.json").write_bytes(content.encode("latin-1"))
        assert "results.json: corrupt" in refuse("info")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("validation", 1),
            ("versions", ["x"]),
            ("test", "x"),
            ("test", {}),
            ("seconds", "long"),
            ("seconds", 1e999),
        ],
    )
    def test_results_of_the_wrong_kind(self, model, key, value):
        path = model / "results.json"
        tree = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**tree, key: value}), encoding="utf-8")
        assert "results.json: corrupt" in refuse("info")

    def test_brackets_in_names_are_only_brackets(self, model, trained_run):
        shutil.copytree(trained_run, "[/b] [red]")
        assert "[/b] [red] (" in succeed("info", "[/b] [red]")
        shutil.copy(trained_run.parent / "corpus" / "test.txt", "[/test].txt")
        assert "[/test].txt by [/b] [red]" in succeed("evaluate", "[/test].txt", "--model", "[/b] [red]")


class TestModelFolder:
    def label(self, *arguments: object) -> set[str]:
        """Which of two models tags: the one with word classes or the one with entities."""
        row = json.loads(succeed("tag", "-", "--format", "jsonl", *arguments, input="Babbage lived .\n"))
        return set(row["labels"])

    def test_the_option_then_the_variable_then_the_latest(self, model, plain_run, monkeypatch, trained_run):
        assert self.label() == {"B-PER", "O"}
        monkeypatch.setenv("NERTOOL_MODEL", str(plain_run))
        assert self.label() == {"NAME", "WORD"}
        assert self.label("--model", "runs/latest") == {"B-PER", "O"}
        assert "NAME, NUM, WORD" in succeed("info")
        assert "IOBES" in succeed("info", trained_run)
        assert '"NAME"' in succeed("evaluate", plain_run.parent / "train.txt", "--json")
        monkeypatch.setenv("NERTOOL_MODEL", "")
        assert self.label() == {"B-PER", "O"}

    @pytest.mark.parametrize(
        "command", [["evaluate", "x.txt"], ["errors", "x.txt"], ["tag", "x.txt"], ["attention", "x"], ["info"]]
    )
    def test_without_any_it_is_told_how_to_train_one(self, here, monkeypatch, command):
        assert refuse(*command) == (
            "no model: neither --model nor NERTOOL_MODEL is given and there is no runs/latest here; "
            "train one with: nertool train demo.yaml"
        )
        option = [] if command == ["info"] else ["--model"]
        assert refuse(*command, *option, "gone") == (
            "there is no model folder gone; train one with: nertool train CONFIG"
        )
        monkeypatch.setenv("NERTOOL_MODEL", "lost")
        assert "there is no model folder lost (from NERTOOL_MODEL); train one" in refuse(*command)
        monkeypatch.setenv("NERTOOL_MODEL", "x" * 300)
        assert "(from NERTOOL_MODEL)" in refuse(*command)

    def test_a_latest_that_points_nowhere(self, here):
        Path("runs").mkdir()
        Path("runs/latest").symlink_to("gone")
        assert "there is no runs/latest here" in refuse("tag", "-")

    @pytest.mark.parametrize("command", [["evaluate", "x.txt"], ["tag", "x.txt"], ["info"]])
    def test_folders_that_are_no_model(self, model, command):
        written("x.txt", "Oslo B-LOC\n")
        for name in MODEL:
            whole = (model / name).read_bytes()
            # What is left of the config must lack sizes of the network, or it would be a config.
            damages = {"a quarter": whole[: len(whole) // 4], "nothing": b"", "noise": bytes(range(256)) * 4}
            for damage, content in damages.items():
                (model / name).write_bytes(content)
                assert name in refuse(*command), damage
            (model / name).unlink()
            assert refuse(*command).endswith(f"runs/latest is not a model: {name} is missing")
            (model / name).write_bytes(whole)
        assert invoke(*command).exit_code == 0


class TestOnPaper:
    """What the commands print, where the streams of this test cannot show it."""

    def test_colours_on_a_terminal(self):
        tagged = Document.from_spans(
            ["Babbage", "lived", "in", "[b]", "London", "."], [Span(0, 1, "PER"), Span(4, 5, "LOC")]
        )
        target = StringIO()
        Console(file=target, force_terminal=True, color_system="truecolor", width=20, highlight=False).print(
            coloured(tagged), soft_wrap=True
        )
        shown = target.getvalue()
        assert "\x1b[" in shown
        assert re.sub(r"\x1b\[[\d;]*m", "", shown) == "Babbage PER lived in [b] London LOC .\n"
        assert marked(tagged) == "[Babbage|PER] lived in [b] [London|LOC] ."

    def test_word_classes_on_a_terminal(self, plain_run):
        (tagged,) = Tagger.load(plain_run).tag_tokens([["Lind", "moved"]])
        assert coloured(tagged).plain.split() == ["Lind", "NAME", "moved", "WORD"]
        assert marked(tagged) == "Lind|NAME moved|WORD"

    def test_a_page_in_a_language_that_runs_from_right_to_left(self, model):
        path = model / "config.yaml"
        path.write_text(path.read_text(encoding="utf-8").replace("language: en", "language: he"), encoding="utf-8")
        output = succeed("tag", "-", "--format", "html", input="Babbage שלום\n")
        assert '<html lang="he">' in output
        assert output.count("direction: rtl") == 2
        assert "direction: ltr" not in output

    def test_figures(self):
        scores = Scores(0.5, 0.25, 1 / 3, 1234)
        evaluation = Evaluation(scores, scores, {"[/b]": scores}, 0.987654, 1000, 20000, "strict IOBES")
        target = StringIO()
        show_evaluation(Console(file=target, width=100), evaluation, "[red]")
        shown = target.getvalue()
        for part in ("[red]", "[/b]", "50.00", "25.00", "33.33", "1,234", "98.77", "20,000 tokens"):
            assert part in shown

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.6, "1:00:00"), (36061, "10:01:01")],
    )
    def test_durations(self, seconds, text):
        assert duration(seconds) == text

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({}, "sgd, momentum 0.9, weight decay 0; learning rate 0.03; schedule inverse, decay 0.05, warmup 0"),
            ({"schedule": {"kind": "step", "warmup": 1.5}}, "step, reduce every 5, reduce by 0.5, warmup 1.5"),
            ({"schedule": "one_cycle"}, "schedule one_cycle; batches of 10"),
            ({"optimizer": "adamw"}, "adamw, weight decay 0; "),
            ({"clip_by": "value"}, "clip 5 by value"),
        ],
        ids=str,
    )
    def test_a_recipe_names_what_is_in_force(self, settings, told):
        assert told in recipe(TrainingConfig(**settings))

    def test_a_narrow_console_cuts_nothing_from_a_model(self, trained_run):
        target = StringIO()
        show_model(trained_run, Console(file=target, width=30))
        assert ", ".join(load_bundle(trained_run).labels) in target.getvalue()
