"""Models on the hub: push, pull, cards, and what goes wrong; against a stand-in on this machine."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import yaml
from click.testing import CliRunner
from hub_server import TOKEN, Hub

import nertool
from nertool.cli.main import main
from nertool.config.files import MODEL_FILES
from nertool.config.loading import load_config, locate_files
from nertool.config.model_names import HubModel, parse_hub_name, read_origin
from nertool.data import hub as fetching
from nertool.data.hub import fetch_model
from nertool.errors import BundleError, ConfigError, NertoolError
from nertool.serving.settings import named_models
from nertool.tagging.bundle import FILES
from nertool.views.card import make_card

TEXT = "Mina Lind left London in 1993."
NAME = "ada/places"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("NERTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    hurried = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    for module in ("huggingface_hub.file_download", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", hurried)
    huggingface_hub.close_session()
    with Hub().running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def files(trained_run):
    return {name: (trained_run / name).read_bytes() for name in FILES}


def run(*arguments: str, fails: bool = False) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == (1 if fails else 0), result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def cached(tmp_path: Path) -> list[str]:
    """What is in the cache, without notes of which commit a branch is."""
    folder = tmp_path / "cache" / "models"
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "refs" not in path.parts and path.name != ".lock"
    )


def labels(model: str | Path) -> list:
    document = nertool.Tagger.load(model)(TEXT)
    return [(entity.text, entity.label, entity.score) for entity in document.entities]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hub:ada/places", HubModel("ada/places")),
        ("ada/places@v1.0", HubModel("ada/places", None, "v1.0")),
        ("hub:ada/pla.ces-2/small.onnx@refs/pr/4", HubModel("ada/pla.ces-2", "small.onnx", "refs/pr/4")),
    ],
)
def test_names(text, expected):
    assert parse_hub_name(text) == expected
    assert parse_hub_name(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "hub:",
            "hub:ada",
            "hub:/ada",
            "hub:../x",
            "hub:a/..",
            "hub:a/b/../c.onnx",
            "hub:a/b/c.bin",
            "hub:a--b/c",
        ),
        *("hub:a/b@", "hub:a/b@x y", "hub:a/b\n", "hub:ä/b", "hub:https://x/y"),
    ],
)
def test_names_that_are_none(text, hub):
    with pytest.raises(ConfigError, match="expected hub:owner/name"):
        nertool.Tagger.load(text)
    assert hub.requests == []


def test_push_then_load(hub, trained_run, tmp_path):
    printed = run("push", str(trained_run), NAME, "--licence", "cc-by-4.0")
    pushed = hub.files(NAME)
    commit = hub.repositories[NAME].branches["main"]
    assert pushed.keys() == {*MODEL_FILES, "README.md", ".gitattributes"}
    assert len(hub.repositories[NAME].commits) == 2  # the first one made the repository
    assert f"hub:{NAME}@{commit}" in printed and not hub.repositories[NAME].private
    assert str(trained_run.parent).encode() not in b"".join(pushed.values())
    config = yaml.safe_load(pushed["config.yaml"])
    assert config["corpus"]["train"] == "train.txt"
    assert labels(f"hub:{NAME}") == labels(trained_run) != []
    assert cached(tmp_path) == sorted(
        f"ada--places/{commit}/{name}" for name in (*MODEL_FILES, "README.md", "hub.json")
    )
    folder = tmp_path / "cache" / "models" / "ada--places" / commit
    assert read_origin(folder) == HubModel(NAME, None, commit)
    assert run("push", str(trained_run), NAME, "--licence", "cc-by-4.0").startswith("nothing has changed")
    assert len(hub.repositories[NAME].commits) == 2


def test_only_what_is_needed_is_fetched(hub, files, tmp_path):
    commit = hub.add(NAME, {**files, "optimizer.bin": b"x" * 100, "sub/config.yaml": b"", "small.onnx": b"no"})
    copy = fetch_model(NAME)
    assert {path.name for path in copy.path.iterdir()} == {*FILES, "hub.json"} and not copy.before
    fetched = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    assert fetched == set(FILES)
    assert copy.named.revision == commit
    hub.requests.clear()
    assert fetch_model(copy.named).before and hub.requests == []  # a whole commit never changes
    assert fetch_model(NAME).before and hub.requests == [f"GET /api/models/{NAME}"]


def test_revisions(hub, files, tmp_path):
    first = hub.add(NAME, {**files, "README.md": b"one"})
    hub.repositories[NAME].branches["v1"] = first
    second = hub.repositories[NAME].commit({"README.md": b"two"})
    for revision, expected in ((None, second), ("v1", first), (second, second)):
        copy = fetch_model(HubModel(NAME, None, revision))
        assert copy.named.revision == expected == copy.path.name
        assert (copy.path / "README.md").read_bytes() == (b"one" if expected == first else b"two")
    hub.repositories[NAME].branches["v1"] = second
    assert fetch_model(f"{NAME}@v1").path.name == second


def test_pull_to_a_folder(hub, files, tmp_path):
    hub.add(NAME, {**files, "README.md": b"---\nlicense: mit\n---\n"})
    target = tmp_path / "models" / "places"
    printed = run("pull", NAME, "--output", str(target))
    assert f"use it with: --model {target}" in printed
    assert {path.name for path in target.iterdir()} == {*FILES, "README.md", "hub.json"}
    assert f"fetched from hub:{NAME}@" in run("info", str(target))
    assert "is there already" in run("pull", NAME, "--output", str(target), fails=True)
    assert [path.name for path in target.parent.iterdir()] == ["places"]


def test_without_a_network(hub, files, tmp_path, monkeypatch):
    commit = hub.add(NAME, files)
    hub.add("ada/other", files)
    run("pull", NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.warns(UserWarning, match=rf"cannot be reached.*fetched before, commit {commit}"):
        expected = labels(f"hub:{NAME}")
    assert expected == labels(f"hub:{NAME}@{commit}")
    assert "note: hub:ada/places: the hub cannot be reached" in run("info", f"hub:{NAME}")
    with pytest.raises(NertoolError, match=r"not in the cache either: `nertool pull ada/other` gets it where"):
        nertool.Tagger.load("hub:ada/other")
    with pytest.raises(NertoolError, match="not in the cache"):
        nertool.Tagger.load(f"hub:{NAME}@v2")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    assert expected == labels(f"hub:{NAME}")  # nobody expects it to be asked
    with pytest.raises(NertoolError, match="HF_HUB_OFFLINE is set"):
        nertool.Tagger.load("hub:ada/other")


@pytest.mark.parametrize("answer", [500, 503, 429, "web page"])
def test_what_is_no_hub(answer, hub, files, tmp_path, monkeypatch):
    hub.add(NAME, files)
    if answer == "web page":
        monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/large")
        hub.faults = {f"/{NAME}": 200}
    else:
        hub.faults = {f"/api/models/{NAME}": answer}
    with pytest.raises(NertoolError, match="cannot be reached"):
        fetch_model(NAME)
    assert cached(tmp_path) == []


def test_no_access(hub, files, tmp_path, monkeypatch):
    hub.add("ada/private", files, private=True)
    hub.add("ada/gated", files, gated=True)
    hub.add(NAME, files)
    assert fetch_model("ada/private").path.is_dir()
    with pytest.raises(NertoolError, match=r"ask for access at .*/ada/gated"):
        fetch_model("ada/gated")
    with pytest.raises(NertoolError, match="no such repository, or your token has no access"):
        fetch_model("ada/nothing")
    with pytest.raises(NertoolError, match="has no revision 'v9'"):
        fetch_model(f"{NAME}@v9")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(NertoolError, match=r"does not accept your token \(401\).*hf auth login") as caught:
        fetch_model("ada/private")
    assert "hf_wrong" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(NertoolError, match="or it is private: then log in with `hf auth login`"):
        fetch_model(f"ada/private@{'0' * 40}")
    assert [name.split("/")[0] for name in cached(tmp_path)] == ["ada--private"] * 4


@pytest.mark.parametrize("fault", ["tamper", "cut", "endless", 404, 403, 500])
def test_files_that_do_not_arrive(fault, hub, files, tmp_path):
    hub.add(NAME, files)
    hub.faults = {"weights.safetensors": fault}
    expected = {
        "tamper": "changed or cut off on its way",
        "endless": "goes on after its end|cannot be reached",
        403: "may not do this",
        404: "no such repository|refuses",
    }.get(fault, "cannot be reached")
    printed = run("pull", NAME, "--output", str(tmp_path / "out"), fails=True)
    assert any(part in printed for part in expected.split("|")), printed
    assert cached(tmp_path) == [] and not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache").rglob(".part-*"))
    hub.faults = {}
    assert labels(f"hub:{NAME}")  # the same command goes well when the hub does


def test_what_is_no_model(hub, files, tmp_path):
    hub.add(NAME, {name: content for name, content in files.items() if name != "vocabulary.json"})
    hub.add("ada/several", {"a.onnx": b"1", "b.onnx": b"2"})
    hub.add("ada/huge", files)
    with pytest.raises(NertoolError, match=r"is not a model of nertool: vocabulary.json is missing"):
        fetch_model(NAME)
    with pytest.raises(NertoolError, match=r"several .*hub:ada/several/a.onnx, hub:ada/several/b.onnx"):
        fetch_model("ada/several")
    with pytest.raises(NertoolError, match=r"has no file c.onnx; it has a.onnx, b.onnx"):
        fetch_model("ada/several/c.onnx")
    hub.faults = {"/api/models/ada/huge": "lie"}
    with pytest.raises(NertoolError, match=r"weights.safetensors is too large \(1,?09\d.* GB"):
        fetch_model("ada/huge")
    assert cached(tmp_path) == [] and not any("/resolve/" in line for line in hub.requests)


def test_a_model_that_does_not_fit_together(hub, files):
    vocabulary = files["vocabulary.json"].replace(b"Babbage", b"Cabbage")
    hub.add(NAME, {**files, "vocabulary.json": vocabulary})
    with pytest.raises(BundleError, match=r"belongs to another vocabulary\.json"):
        nertool.Tagger.load(f"hub:{NAME}")
    assert "belongs to another" in run("pull", NAME, fails=True)


def test_full_disk(hub, files, tmp_path, monkeypatch):
    hub.add(NAME, files)
    usage = types.SimpleNamespace(total=10, used=9, free=1)
    with monkeypatch.context() as patch:
        patch.setattr(fetching.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(NertoolError, match=r"not enough space: .* are needed"):
            fetch_model(NAME)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "hf_hub_download", full)
        with pytest.raises(NertoolError, match="cannot be written to: No space left on device"):
            fetch_model(NAME)
    assert cached(tmp_path) == [] and not list((tmp_path / "cache").rglob(".part-*"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NERTOOL_CACHE", str(tmp_path / "file"))
    with pytest.raises(NertoolError, match="cannot write there"):
        fetch_model(NAME)


def test_an_interrupted_fetch_leaves_nothing(hub, files, tmp_path, monkeypatch):
    hub.add(NAME, files)

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_model(NAME, interrupt)
    assert cached(tmp_path) == []
    left = tmp_path / "cache" / "models" / "ada--places" / ".part-killed"
    left.mkdir(parents=True)
    assert labels(f"hub:{NAME}") and not left.exists()


def test_push_is_refused(hub, trained_run, tmp_path, monkeypatch):
    hub.add("ada/public", {"weights.safetensors": b"x"})
    hub.add("ada/bert", {"pytorch_model.bin": b"x"})
    push = ("push", str(trained_run))
    assert "already, and public" in run(*push, "ada/public", "--private", fails=True)
    assert "holds something else (pytorch_model.bin" in run(*push, "ada/bert", fails=True)
    assert "not how the hub names a licence" in run(*push, NAME, "--licence", "MIT!", fails=True)
    assert "main branch" in run(*push, f"{NAME}@v1", fails=True)
    assert "names no model of the hub" in run(*push, "ada", fails=True)
    assert hub.repositories.keys() == {"ada/public", "ada/bert"}
    assert "refuses the card" in run(*push, "ada/public", "--licence", "nonsense", fails=True)
    hub.faults = {"/commit/main": "race"}
    assert "somebody else pushed" in run(*push, "ada/public", fails=True)
    hub.faults = {"/api/repos/create": 403}
    assert "makes no repository of this name for you (403)" in run(*push, NAME, fails=True)
    assert hub.files("ada/public")["weights.safetensors"] == b"x"
    monkeypatch.delenv("HF_TOKEN")
    assert "log in with `hf auth login`" in run(*push, NAME, fails=True)
    broken = tmp_path / "broken"
    shutil.copytree(trained_run, broken)
    (broken / "weights.safetensors").write_bytes(b"x" * 100)
    hub.requests.clear()
    run("push", str(broken), NAME, fails=True)
    assert hub.requests == []


def test_push_again(hub, trained_run, tmp_path):
    first = run("push", str(trained_run), NAME, "--private")
    assert hub.repositories[NAME].private and "(private)" in first and "no licence is named" in first
    before = hub.repositories[NAME].branches["main"]
    run_folder = tmp_path / "run"
    shutil.copytree(trained_run, run_folder)
    (run_folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    assert "no effect" in run("push", str(run_folder), NAME, "--licence", "mit", fails=True)
    printed = run("push", str(run_folder), NAME, "--private")
    assert f"the card is {run_folder / 'README.md'}" in printed
    assert f"what was there before: hub:{NAME}@{before}" in printed
    assert hub.files(NAME)["README.md"] == b"---\nlicense: mit\n---\nMine.\n"
    assert run("card", str(run_folder)) == "--- license: mit --- Mine."


def test_an_empty_file_is_no_card(trained_run, tmp_path):
    """`nertool card RUN > RUN/README.md`: the shell makes the file before the command begins."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / "README.md").touch()
    assert run("card", str(folder), NAME, "--licence", "mit").startswith("--- ")


def test_exported_models(hub, trained_run, tmp_path):
    pytest.importorskip("onnx")
    for name in ("small", "other"):
        run("export", str(trained_run), str(tmp_path / f"{name}.onnx"))
    printed = run("push", str(tmp_path / "small.onnx"), NAME, "--licence", "mit")
    assert hub.files(NAME).keys() == {"small.onnx", "README.md", ".gitattributes"} and "load it with" in printed
    assert str(trained_run.parent).encode() not in hub.files(NAME)["small.onnx"]
    assert "nertool[hub,onnx]" in hub.files(NAME)["README.md"].decode()
    assert labels(f"hub:{NAME}") == labels(tmp_path / "small.onnx")
    run("pull", NAME, "--output", str(tmp_path / "out"))
    assert labels(tmp_path / "out" / "small.onnx")
    run("push", str(tmp_path / "other.onnx"), NAME)
    assert "name one" in run("info", f"hub:{NAME}", fails=True)
    assert labels(f"hub:{NAME}/other.onnx") == labels(tmp_path / "small.onnx")
    assert fetch_model(f"{NAME}/other.onnx").before
    corpus = str(trained_run.parent / "corpus" / "train.txt")
    assert "one exported file" in run("train", corpus, "--from", f"hub:{NAME}/other.onnx", fails=True)


def head_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card(trained_run, tmp_path):
    printed = CliRunner().invoke(main, ["card", str(trained_run), NAME, "--licence", "mit"]).output
    results = json.loads((trained_run / "results.json").read_text())
    head = head_of(printed)
    assert head["license"] == "mit" and head["language"] == "en" and head["library_name"] == "nertool"
    assert head["pipeline_tag"] == "token-classification" and "named-entity-recognition" in head["tags"]
    (index,) = head["model-index"]
    (result,) = index["results"]
    assert index["name"] == "places" and result["dataset"]["split"] == "test"
    values = {each["type"]: each["value"] for each in result["metrics"]}
    assert values == {name: round(results["test"][name], 4) for name in ("precision", "recall", "f1", "accuracy")}
    for kind, scores in results["test"]["per_type"].items():
        assert f"| {kind} | {100 * scores['precision']:.2f} |" in printed
    assert 'Tagger.load("hub:ada/places")' in printed and "with seed 1;" in printed
    assert str(trained_run.parent) not in printed
    assert huggingface_hub.ModelCard(printed).data.eval_results[2].metric_value == values["f1"]


def test_a_card_without_results_and_with_odd_names(trained_run, tmp_path):
    bare = tmp_path / "a|b_c <x>"
    bare.mkdir()
    for name in FILES:
        shutil.copy(trained_run / name, bare)
    model = nertool.Tagger.load(bare).model
    card = make_card(model, bare, None, None)
    head = head_of(card)
    assert "license" not in head and "model-index" not in head and "metrics" not in head
    assert "# a\\|b\\_c \\<x\\>" in card and "No scores" in card and "hub:owner/name" in card
    (bare / "results.json").write_text('{"seed": 1}')
    assert "results.json: corrupt" in run("card", str(bare), fails=True)


def test_commands_take_names_of_the_hub(hub, files, trained_run, tmp_path, monkeypatch):
    commit = hub.add(NAME, files)
    corpus = trained_run.parent / "corpus"
    monkeypatch.chdir(tmp_path)
    model = ("--model", f"hub:{NAME}")
    (tmp_path / "text.txt").write_text(TEXT)
    assert "London" in run("tag", "text.txt", *model, "--to", "conll")
    evaluate = ("evaluate", str(corpus / "test.txt"), "--json", "--model")
    local, there = (json.loads(run(*evaluate, each)) for each in (str(trained_run), f"hub:{NAME}"))
    assert there["f1"] == local["f1"]
    run("errors", str(corpus / "test.txt"), *model)
    run("info", f"hub:{NAME}")
    run("export", f"hub:{NAME}", "out.onnx")
    assert named_models([f"hub:{NAME}", f"x=hub:{NAME}@main"], lambda name: Path(name)).keys() == {"places", "x"}
    monkeypatch.setenv("NERTOOL_MODEL", f"hub:{NAME}")
    assert "London" in run("tag", "text.txt", "--to", "conll")
    settings = ("--set", "training.epochs=1", "--set", "training.threads=1", "--output", "out")
    run("train", str(corpus / "train.txt"), "--from", f"hub:{NAME}", *settings)
    assert commit in load_config(tmp_path / "out" / "config.yaml").start.model


def test_a_config_names_what_was_fetched(hub, files, tiny_yaml):
    hub.add(NAME, files)
    config = load_config(tiny_yaml, [f"start.model=hub:{NAME}"])
    with pytest.raises(ConfigError, match="has not been fetched: `nertool pull ada/places` gets it"):
        locate_files(config, tiny_yaml)
    assert hub.requests == []
    copy = fetch_model(NAME)
    assert locate_files(config, tiny_yaml).start.model == str(copy.path)


def test_the_spacy_component(hub, files, tmp_path, monkeypatch):
    spacy = pytest.importorskip("spacy")
    hub.add(NAME, files)
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"model": f"hub:{NAME}"})
    found = [(entity.text, entity.label_) for entity in nlp(TEXT).ents]
    assert found == [each[:2] for each in labels(f"hub:{NAME}")]
    nlp.to_disk(tmp_path / "pipeline")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NERTOOL_CACHE", str(tmp_path / "empty"))
    restored = spacy.load(tmp_path / "pipeline")  # it has the model, and needs no hub
    assert [(entity.text, entity.label_) for entity in restored(TEXT).ents] == found
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"model": f"hub:{NAME}"})
    with pytest.raises(NertoolError, match="the hub cannot be reached"):
        nlp(TEXT)


def test_without_the_package():
    code = (
        "import sys\nsys.modules['huggingface_hub'] = None\nimport nertool\n"
        "try:\n    nertool.Tagger.load('hub:ada/places')\n"
        "except nertool.NertoolError as problem:\n    assert \"'nertool[hub]'\" in str(problem), problem\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
