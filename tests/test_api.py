"""The public API: its examples run, and it keeps what it promises about folders, configs and imports."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nertool
from nertool import api
from nertool.config.loading import load_config, locate_files

ROOT = Path(__file__).parent.parent
LEAST = ["training.epochs=1"]


def test_every_example_of_the_package_runs(tmp_path, monkeypatch):
    shutil.copytree(
        ROOT / "corpora" / "demo", tmp_path / "corpora" / "demo", ignore=shutil.ignore_patterns("source")
    )
    monkeypatch.chdir(tmp_path)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    package = Path(nertool.__file__).parent
    tests = []
    for path in sorted(package.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            name = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            tests += [test for test in finder.find(import_module(name)) if test.examples]
    names = {test.name.rpartition(".")[2] for test in tests}
    assert names >= {*nertool.__all__} - {"Entity", "Look", "NertoolError", "Result"}
    # First the example that makes the model of others.
    for test in sorted(tests, key=lambda test: test.name != "nertool.api.train"):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_everything_public_is_there_and_described():
    for name in nertool.__all__:
        assert getattr(nertool, name).__doc__
        assert name in dir(nertool)
        assert name == "Result" or name in api.__doc__
    with pytest.raises(AttributeError, match="no attribute 'Taggr'"):
        _ = nertool.Taggr


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, nertool; "
        "print([name for name in ('torch', 'numpy', 'spacy', 'pydantic', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture
def tree(tiny_config) -> dict:
    """The tiny config with absolute paths, as a dictionary."""
    return tiny_config(*LEAST).model_dump(mode="json")


def test_a_config_may_be_a_path_a_name_a_dictionary_or_a_config(
    tiny_yaml, tree, tiny_config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    corpora = [nertool.read_corpus(given) for given in (tiny_yaml, str(tiny_yaml), tree, tiny_config(*LEAST))]
    assert {tuple(corpus.splits) for corpus in corpora} == {("train", "validation", "test")}
    assert {corpus.train.token_count for corpus in corpora} == {91}
    assert list(nertool.read_corpus("demo").splits) == ["train", "validation", "test"]
    with pytest.raises(nertool.NertoolError, match=r"no config 'demos'.*Did you mean demo"):
        nertool.read_corpus("demos")
    with pytest.raises(nertool.NertoolError, match=r"training\.epoch: no such setting"):
        nertool.train({**tree, "training": {"epoch": 1}})


def test_without_a_folder_each_training_has_a_new_one(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = nertool.train(tree), nertool.train(tree)
    assert [each.folder.as_posix() for each in (first, second)] == ["runs/model", "runs/model-2"]
    assert first.scores == second.scores and first.scores.keys() == {"validation", "test"}
    broken = {**tree, "corpus": {**tree["corpus"], "label": "nowhere", "columns": ["token", "nowhere", "x", "y"]}}
    with pytest.raises(nertool.NertoolError):
        nertool.train(broken)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["model", "model-2"]
    with pytest.raises(nertool.NertoolError, match="name the run directory"):
        nertool.train(tree, resume=True)


def test_a_result_has_scores_a_tagger_and_epochs(trained_run, tmp_path, capsys):
    path = trained_run.parent / "corpus" / "tiny.yaml"
    result = nertool.train(locate_files(load_config(path, ["training.epochs=2"]), path), tmp_path / "run")
    assert (result.folder, result.epochs) == (tmp_path / "run", 2)
    results = json.loads((result.folder / "results.json").read_text())
    assert {name: each.to_json() for name, each in result.scores.items()} == {
        name: results[name] for name in ("validation", "test")
    }
    assert result.tagger is result.tagger
    assert result.tagger("Oslo fell .").tokens == ("Oslo", "fell", ".")
    assert capsys.readouterr().out == ""
    again = nertool.train(path, tmp_path / "again", progress=True)
    assert again.scores["validation"].micro.f1 == 1.0
    assert "Test split, scored once" in capsys.readouterr().out


def test_a_training_is_resumed(tiny_config, tmp_path):
    from contextlib import closing

    from nertool.training.run import Epoch, run

    config = tiny_config("training.epochs=3")
    whole = nertool.train(config, tmp_path / "whole")
    with closing(run(config, tmp_path / "stopped")) as records:
        for record in records:
            if isinstance(record, Epoch) and record.number == 2:
                break
    resumed = nertool.train(config, tmp_path / "stopped", resume=True)
    assert resumed.scores == whole.scores
    weights = [(each.folder / "weights.safetensors").read_bytes() for each in (whole, resumed)]
    assert weights[0] == weights[1]


def test_evaluating_files_and_documents_with_folders_and_taggers(trained_run):
    folder = trained_run.parent / "corpus"
    scores = [
        nertool.evaluate(model, data)
        for model in (trained_run, str(trained_run), nertool.Tagger.load(trained_run))
        for data in (folder / "test.txt", list(nertool.read(folder / "test.txt")))
    ]
    assert all(each == scores[0] for each in scores) and scores[0].sentences == 4
    with pytest.raises(nertool.NertoolError, match="no labels"):
        nertool.evaluate(trained_run, [nertool.Document(("Oslo",))])


def test_reading_any_format(tmp_path, trained_run):
    lines = tmp_path / "a.jsonl"
    entities = [{"start": 0, "end": 3, "label": "PER"}, {"start": 9, "end": 13, "label": "LOC"}]
    lines.write_text(json.dumps({"text": "Ada left Oslo.", "entities": entities}) + "\n", encoding="utf-8")
    (document,) = nertool.read(lines)
    assert [(each.text, each.label) for each in document.entities] == [("Ada", "PER"), ("Oslo", "LOC")]
    other = lines.rename(tmp_path / "a.data")
    assert [each.entities for each in nertool.read(other, format="jsonl")] == [document.entities]
    path = trained_run.parent / "corpus" / "test.txt"
    first = next(nertool.read(path))
    assert [(each.text, each.label) for each in first.entities] == [("Mina Lind", "PER"), ("London", "LOC")]
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(nertool.NertoolError):
        list(nertool.read(tmp_path / "nothing.txt"))


def test_what_is_no_model_and_no_data_is_told(trained_run):
    for model in (None, 5, Path):
        with pytest.raises(TypeError, match="expected a model: a run directory or a Tagger"):
            nertool.evaluate(model, [])
    for data, message in ((None, "a path or labelled documents"), (5, "labelled documents"), ([1], "a Document")):
        with pytest.raises(TypeError, match=f"expected .*{message}, and got "):
            nertool.evaluate(trained_run, data)


def test_a_corpus_is_shown_in_a_few_lines(tiny_yaml):
    corpus = nertool.read_corpus(tiny_yaml)
    assert len(repr(corpus)) < 2000
    assert "tokens=" in repr(corpus.train.documents) and "PER" not in repr(corpus)
