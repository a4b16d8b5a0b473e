"""Every example of the pages on spaCy and on datasets runs, and prints what the page says.

A page is run from top to bottom in a folder of its own, which holds what the page takes for granted. `runs/demo`
is a smaller model there: the examples are such that it finds the same entities, and numbers with a decimal point
are not compared. Trainings are cut short, and of what they print no number counts, nor how often a line comes.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import shutil
import traceback
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import datasets
import pytest
from click.testing import CliRunner

from nertool.cli.main import main
from nertool.config.loading import load_config

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.[\d.]+")
ALIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SHORTER = {
    "python -m spacy train": ["--training.max_steps", "2", "--training.eval_frequency", "2"],
}
SCORED = (*SHORTER, "nertool train", "nertool evaluate")


class Block(NamedTuple):
    """A fenced block of a page: what it says it is written in, its text, and the line that it begins in."""

    language: str
    text: str
    line: int


def blocks_of(page: str) -> list[Block]:
    return [Block(match[1], match[2], page[: match.start()].count("\n") + 1) for match in BLOCK.finditer(page)]


def steps_of(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a shell session, and what the page says that each prints."""
    for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = step.replace("\\\n", "").partition("\n")
        yield command, expected


def assert_alike(expected: str, printed: str, where: str) -> None:
    shown = f"\n{where}: expected\n{expected}\nprinted\n{printed}"
    expected, printed = (NUMBER.sub("0.0", _plain(text)) for text in (expected, printed))
    assert doctest.OutputChecker().check_output(expected, printed, ALIKE), shown


def _plain(text: str) -> str:
    """Without colours, and with the signs that spaCy prints where a terminal has no others."""
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    return text.replace("✔", "[+]").replace("ℹ", "[i]").replace("⚠", "[!]")


def run_python(code: str, names: dict[str, object]) -> str:
    """Runs it; returns what it prints, warnings of nertool among it and an error at its end."""
    with contextlib.redirect_stdout(io.StringIO()) as stream, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(compile(code, "<page>", "exec"), names)
        except Exception as problem:
            stream.write("".join(traceback.format_exception_only(problem)))
    told = [f"UserWarning: {each.message}\n" for each in caught if str(each.message).startswith("component ")]
    return "".join(told) + stream.getvalue()


def run_command(command: str, expected: str) -> str:
    program, *arguments = shlex.split(command)
    more = next((extra for start, extra in SHORTER.items() if command.startswith(start)), [])
    if program == "cat":
        path = Path(arguments[0])
        if not path.exists():  # a file that the reader is to write
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(expected, encoding="utf-8")
        return path.read_text(encoding="utf-8")
    if program == "nertool":
        return CliRunner().invoke(main, [*arguments, *more]).output
    assert [program, *arguments[:2]] == ["python", "-m", "spacy"], f"{command}: a test cannot run this"
    from spacy.cli._util import app
    from typer.testing import CliRunner as TyperRunner

    result = TyperRunner().invoke(app, [*arguments[2:], *more])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folder(tmp_path, monkeypatch, trained_run) -> Path:
    for name in ("configs", "corpora"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("source", "__pycache__"))
    shutil.copytree(trained_run, tmp_path / "runs" / "demo")
    (tmp_path / "conll2003").mkdir()
    (tmp_path / "conll2003" / "conll2003.py").write_text("raise SystemExit('never run')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("name", ["spacy", "datasets"])
def test_every_example_of_the_page(name, folder):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "__main__"}
    printed, at = "", ""
    blocks = blocks_of(page)
    assert page.count("```") == 2 * len(blocks) > 20
    for block in blocks:
        where = f"docs/{name}.md, line {block.line}"
        is_output = block.language == "" and not block.text.startswith("$ ")
        if printed and not is_output:
            assert_alike("", printed, at)
        if is_output:
            assert_alike(block.text, printed, at)
            printed = ""
        elif block.language == "python":
            printed, at = run_python(block.text, names), where
        elif block.language == "yaml":
            head = re.match(r"# (\S+\.yaml)\n", block.text)
            assert head, f"{where}: its first line names no file"
            (folder / head[1]).write_text(block.text, encoding="utf-8")
            load_config(folder / head[1])  # wrong settings are an error
        else:
            assert block.language == "", f"{where}: nobody knows how to run {block.language}"
            for command, expected in steps_of(block.text):
                found = run_command(command, expected)
                if command.startswith(SCORED):
                    expected, found = map(_shape, (expected, found))
                assert_alike(expected, found, f"{where}: {command}")
    assert not printed, printed


def _shape(text: str) -> str:
    """The text with all numbers alike, without frames, and of lines that are then the same the first."""
    text = re.sub(r"[\u2500-\u257f]", "", re.sub(r"\d[\d.,:]*", "0", text))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line, _ in groupby(lines))


def test_a_page_that_is_wrong_is_noticed(folder):
    assert list(steps_of("$ a \\\n  b\nc\n\nd\n$ e\n")) == [("a   b", "c\n\nd\n"), ("e", "")]
    assert_alike("a 1.25\n...\nb", "a 3.5\nc\nb\n", "")
    for expected, printed in (("a 1", "a 2"), ("", "a"), ("a", ""), ("a\n...\nb", "a\nc\n")):
        with pytest.raises(AssertionError):
            assert_alike(expected, printed, "")
    assert run_python("print(1)\n1 / 0", {}) == "1\nZeroDivisionError: division by zero\n"
    assert run_command("cat new/file", "one\n") == run_command("cat new/file", "two\n") == "one\n"
    assert _shape("E  #\n──\n 0 1.5\n 1  2,000\nsaved 0:12\n") == "E #\n\n0 0\nsaved 0"
