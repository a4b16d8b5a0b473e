from __future__ import annotations

import io

import pytest
from click.testing import CliRunner
from rich.console import Console

from nertool.cli.main import main
from nertool.config.schema import CorpusConfig
from nertool.evaluation.corpus_checks import LONG, Findings, check, read_config, read_files
from nertool.views.corpus import show_check

TRAIN = "Ada B-PER\nmet O\nLeeds B-LOC\n\nRain O\n\nRain O\n\nhe O\nin O\nLeeds B-ORG\nall O\nday O\n\n"
TEST = "he O\nin O\nLeeds B-ORG\nall O\nday O\n\nOslo B-LOC\n\nAda B-PER\n\nit O\nI I-PER\n\n"


@pytest.fixture
def found(tmp_path):
    """What a check says about files of these contents."""

    def look(**contents):
        for name, content in contents.items():
            (tmp_path / name).write_text(content, encoding="utf-8")
        findings = Findings()
        splits = read_files({name: tmp_path / name for name in contents}, CorpusConfig(train="unused"), findings)
        if splits:
            check(splits, findings)
        return splits, findings

    return look


def test_each_finding(found):
    splits, findings = found(train=TRAIN, test=TEST)
    assert findings.errors == ["test, line 12: I-PER is not allowed here in IOB2"]
    assert findings.warnings == [
        "train: 1 sentence (0 of 5 tokens or more) is repeated in it (line 7 is line 5)",
        "test: 1 sentence (1 of 5 tokens or more) is in train too (line 1 is line 9 of train)",
        "test: of 4 entities 50% do not occur in train, such as Oslo (LOC), I (PER)",
        "1 name with several types, such as Leeds (ORG 2, LOC 1)",
    ]
    assert [split.entity_counts().total() for split in splits.values()] == [3, 4]


def test_nothing_to_report(found):
    splits, findings = found(train="Ada B-PER\n\nOslo B-LOC\n")
    assert findings == Findings()
    console = Console(file=io.StringIO(), width=100)
    show_check(console, splits, findings)
    assert "nothing to report" in console.file.getvalue() and "│ LOC" in console.file.getvalue()


def test_many_strays_long_sentences_and_new_labels(found):
    _, findings = found(
        train="a O\n\nb I-X\n\n" * 8 + "c B-X\n\nd B-X\n" * 9, test="x O\n" * (LONG + 1) + "\ny B-NEW\n"
    )
    assert len(findings.errors) == 6
    assert findings.errors[-1] == "train: and 3 more labels that IOB2 does not allow"
    assert findings.errors[0] == "train, line 3: I-X is not allowed here in IOB2"
    assert (
        f"test: 1 sentence longer than {LONG} tokens (201 at line 1); are sentences not separated?"
        in findings.warnings
    )
    assert "test: labels that train does not have: NEW" in findings.warnings


def test_plain_tags(found):
    _, findings = found(train="a NN\nb VB\n", test="c XX\n")
    assert findings.errors == [] and findings.warnings == ["test: labels that train does not have: XX"]


def test_a_file_that_cannot_be_read_hides_no_other(found):
    splits, findings = found(train="a B-X\nb B_X\nc I-X\n", test="a O\n\na O\n")
    assert list(splits) == ["test"]
    assert len(findings.errors) == 1 and "line 2: 'B_X' is not a label of IOB2" in findings.errors[0]
    assert findings.warnings == [
        "test: no token is labelled as an entity",
        "test: 1 sentence (0 of 5 tokens or more) is repeated in it (line 3 is line 1)",
    ]


def test_partial_labels_and_other_splits(found):
    _, findings = found(train="Mina B-PER\nOkoye ?\n\nRain ?\n\nAda B-PER\n", test="a NN\nb VB\n")
    assert findings.warnings[0] == (
        "train: 2 sentences are not fully labelled: training learns from the labels that there are, and they are "
        "not scored"
    )
    assert findings.errors == ["test: read as plain tags where train has entities"]


def test_a_dataset(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value

    features = Features(
        {"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=["O", "I-X"]))}
    )
    rows = Dataset.from_dict(
        {"tokens": [["a"], ["b", "c"], ["d"]], "ner_tags": [[0], [0, 1], [-1]]}, features=features
    )
    DatasetDict(train=rows).save_to_disk(tmp_path / "saved")
    findings = Findings()
    hub = {"hub": str(tmp_path / "saved"), "validation": None, "test": None, "scheme": "IOB2"}
    splits = read_config(CorpusConfig(**hub), findings)
    check(splits, findings)
    assert findings.errors[0] == "train, row 2, token 2: I-X is not allowed here in IOB2"
    assert any("not fully labelled" in line for line in findings.warnings)


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(main, ["check", *map(str, arguments)])

    def test_a_config(self, tiny_yaml):
        done = self.run(tiny_yaml)
        assert done.exit_code == 0, done.output
        assert "│ train " in done.output and "│ validation " in done.output and "│ PER " in done.output
        assert "validation: 12 sentences" in done.output and "are in train too" in done.output

    def test_files_and_settings(self, tiny_yaml, tmp_path):
        folder = tiny_yaml.parent
        assert self.run(folder / "train.txt", folder / "test.txt").exit_code == 0
        (tmp_path / "wide.txt").write_text("1 Ada B-PER x\n", encoding="utf-8")
        columns = ("--set", "corpus.columns=[n, token, ner, x]", "--set", "corpus.label=ner")
        done = self.run(tmp_path / "wide.txt", *columns)
        assert done.exit_code == 0 and "│ PER" in done.output

    def test_errors(self, tiny_yaml, tmp_path):
        (tmp_path / "wrong.txt").write_text("Ada I-PER\n\nx B-PER\n\ny B-PER\n", encoding="utf-8")
        done = self.run(tmp_path / "wrong.txt")
        assert done.exit_code == 1 and "line 1: I-PER is not allowed here in IOB2" in done.output
        done = self.run(tmp_path / "absent.txt")
        assert done.exit_code == 1 and "there is no file" in done.output
        done = self.run(tiny_yaml, "--set", "corpus.scheme=IOBES")
        assert done.exit_code == 1 and "errors" in done.output
