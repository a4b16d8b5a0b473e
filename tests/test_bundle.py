"""A model on disk: what is read is what was written, and whatever does not fit together is refused."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import nertool
from nertool.config import Config
from nertool.data.batching import EncodedCorpus, Forms
from nertool.data.lexicon import build_lexicon
from nertool.data.schemes import Scheme
from nertool.errors import BundleError, NertoolError
from nertool.evaluation import evaluate
from nertool.model.bundle import Model, build_network, load_bundle, save_bundle
from nertool.model.labeller import Labeller
from nertool.training.trainer import train

WEIGHTS = "weights.safetensors"


def predictions(model: Model, sentences: list[list[str]]) -> tuple[list[list[str]], list[list[float]]]:
    """Labels, and the probability of each token's label."""
    labelled = Labeller(model).label(sentences, probabilities=True)
    scores = [[labelled.probability(i, t, t + 1) for t in range(len(s))] for i, s in enumerate(sentences)]
    return labelled.labels, scores


@pytest.fixture(scope="module")
def others(tiny_test) -> list[list[str]]:
    """Sentences with words and characters that the model never saw."""
    return [*(tokens for tokens, _ in tiny_test), ["Ünseen", "wörds", "\ud800", "…"]]


class TestThreeSentences:
    @pytest.fixture
    def learnt(self, tiny_config: Callable[..., Config], tiny_train) -> Model:
        config = tiny_config("training.epochs=40", "training.patience=40", "model.dropout=0.0")
        tokens, labels = zip(*tiny_train[:3], strict=True)
        lexicon = build_lexicon(tokens, labels, Scheme.IOB2)
        model = Model(config, lexicon, build_network(config, lexicon, config.words.dimensions))
        torch.manual_seed(1)
        model.network.words.reset_parameters()
        numbers = {label: number for number, label in enumerate(lexicon.labels)}
        corpus = EncodedCorpus(Forms(lexicon, 3, 64), tokens, labels, numbers)
        for _ in train(model.network, corpus, lambda: evaluate(labels, labels, Scheme.IOB2), config.training):
            pass
        found, scores = predictions(model, list(tokens))
        assert found == list(labels), "three sentences were not learnt"
        assert min(map(min, scores)) > 0.8
        return model

    def test_saved_and_loaded_they_get_the_same_answer(self, learnt, tiny_train, others, tmp_path):
        sentences = [tokens for tokens, _ in tiny_train[:3]] + others
        save_bundle(learnt, tmp_path / "a" / "model")
        loaded = load_bundle(tmp_path / "a" / "model")
        assert predictions(loaded, sentences) == predictions(learnt, sentences)
        assert loaded.config == learnt.config
        assert loaded.lexicon == learnt.lexicon
        assert not loaded.network.training
        for name, tensor in learnt.network.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[name], tensor)

    def test_saving_again_writes_the_same_bytes_and_leaves_nothing_else(self, learnt, tmp_path):
        folder = tmp_path / "model"
        save_bundle(learnt, folder)
        first = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert first.keys() == {"config.yaml", "lexicon.json", WEIGHTS}
        for _ in range(5):
            save_bundle(load_bundle(folder), folder)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_another_process_gives_the_same_answer(trained_run, others):
    program = (
        "import json, sys; from pathlib import Path\n"
        "from nertool.model.bundle import load_bundle; from nertool.model.labeller import Labeller\n"
        "sentences = json.load(sys.stdin)\n"
        "found = Labeller(load_bundle(Path(sys.argv[1]))).label(sentences, probabilities=True)\n"
        "scores = [[found.probability(i, t, t + 1) for t in range(len(s))] for i, s in enumerate(sentences)]\n"
        "json.dump([found.labels, scores], sys.stdout)"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, str(trained_run)], input=json.dumps(others), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    labels, scores = predictions(load_bundle(trained_run), others)
    found_labels, found_scores = json.loads(process.stdout)
    assert found_labels == labels
    assert found_scores == [pytest.approx(row, abs=1e-6) for row in scores]


@pytest.fixture
def bundle(trained_run, tmp_path) -> Path:
    """A copy of the trained model that may be spoilt."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.yaml", "lexicon.json", WEIGHTS):
        shutil.copy(trained_run / name, folder)
    return folder


def read_weights(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safetensors.safe_open(folder / WEIGHTS, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def change_weights(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors, metadata = read_weights(folder)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata)

    return spoil


def change_metadata(**changes: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors, metadata = read_weights(folder)
        save_file(tensors, folder / WEIGHTS, {**metadata, **changes})

    return spoil


def write_lexicon(folder: Path, content: bytes) -> None:
    """A lexicon that the weights take for their own."""
    (folder / "lexicon.json").write_bytes(content)
    tensors, metadata = read_weights(folder)
    save_file(tensors, folder / WEIGHTS, {**metadata, "lexicon": hashlib.sha256(content).hexdigest()})


def change_lexicon(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tree = json.loads((folder / "lexicon.json").read_bytes())
        change(tree)
        write_lexicon(folder, json.dumps(tree).encode())

    return spoil


def change_config(old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        assert old in text
        (folder / "config.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")

    return spoil


def put(name: str, value: object) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change_weights(lambda tensors: change(tensors[name]))


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(keep * len(content))])

    return spoil


def shorten(name: str) -> Callable[[Path], None]:
    return change_weights(lambda tensors: tensors.update({name: tensors[name][:-1].contiguous()}))


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"config.yaml, lexicon.json, weights.safetensors is missing"),
    "no config": (lambda folder: (folder / "config.yaml").unlink(), r"is not a model: config.yaml is missing"),
    "no lexicon": (lambda folder: (folder / "lexicon.json").unlink(), r"lexicon.json is missing"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"weights.safetensors is missing"),
    "weights cut short": (cut(WEIGHTS, 0.9), r"damaged"),
    "weights cut in the head": (cut(WEIGHTS, 0.001), r"damaged"),
    "empty weights": (cut(WEIGHTS, 0.0), r"damaged"),
    "weights that are text": (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 5000), r"damaged"),
    "missing tensor": (change_weights(lambda tensors: tensors.pop("scores.bias")), r"scores\.bias: missing"),
    "missing word table": (
        change_weights(lambda tensors: tensors.pop("words.weight")),
        r"'words.weight' or 'decoder.transitions' is missing",
    ),
    "extra tensor": (change_weights(lambda tensors: tensors.update(extra=torch.zeros(2))), r"extra: unexpected"),
    "other shape": (shorten("scores.bias"), r"scores\.bias: shape \(\d+,\), expected \(\d+,\)"),
    "fewer words": (shorten("words.weight"), r"words\.weight: shape"),
    "flat word table": (
        change_weights(lambda tensors: tensors.update({"words.weight": tensors["words.weight"].view(-1)})),
        r"'words.weight'",
    ),
    "wider word vectors": (
        change_weights(lambda tensors: tensors.update({"words.weight": tensors["words.weight"].repeat(1, 2)})),
        r"encoder.*shape",
    ),
    "other type": (
        change_weights(lambda tensors: tensors.update({"scores.bias": tensors["scores.bias"].double()})),
        r"scores\.bias: type torch\.float64, expected torch\.float32",
    ),
    "not a number": (put("scores.weight", float("nan")), r"scores\.weight: holds values that are not finite"),
    "infinity": (put("words.weight", float("inf")), r"words\.weight: holds values that are not finite"),
    "other format": (change_metadata(nertool="99"), r"another version of nertool \(format 99"),
    "other lexicon": (
        lambda folder: (folder / "lexicon.json").write_bytes(
            (folder / "lexicon.json").read_bytes().replace(b'"London"', b'"Madrid"')
        ),
        r"belongs to another lexicon\.json",
    ),
    "unknown setting": (change_config("dropout: 0.1", "dropuot: 0.1"), r"dropuot: no such setting"),
    "other architecture": (change_config("hidden: 12", "hidden: 13"), r"shape"),
    "absurd size": (change_config("hidden: 12", "hidden: 1000000"), r"shape"),
    "size beyond all bounds": (change_config("hidden: 12", "hidden: 1000000000000000000"), r"no possible network"),
    "config that is no YAML": (
        lambda folder: (folder / "config.yaml").write_text("corpus: [", encoding="utf-8"),
        r"not valid YAML",
    ),
    "config with an object": (
        lambda folder: (folder / "config.yaml").write_text("!!python/object/apply:os.getcwd []", encoding="utf-8"),
        r"not valid YAML",
    ),
    "config that is not text": (lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe\x00"), r"UTF-8"),
    "word twice": (change_lexicon(lambda tree: tree["words"].append(tree["words"][0])), r"stands twice"),
    "label twice": (change_lexicon(lambda tree: tree["labels"].append("O")), r"stands twice"),
    "no labels": (change_lexicon(lambda tree: tree["labels"].clear()), r"no labels"),
    "more words": (change_lexicon(lambda tree: tree["words"].append("more")), r"words\.weight: shape"),
    "lexicon without words": (change_lexicon(lambda tree: tree.pop("words")), r"not a lexicon"),
    "words that are numbers": (change_lexicon(lambda tree: tree.update(words=[1, 2])), r"not a lexicon"),
    "words that are one text": (change_lexicon(lambda tree: tree.update(words="abc")), r"not a lexicon"),
    "unknown scheme": (change_lexicon(lambda tree: tree.update(scheme="IOBX")), r"not a lexicon"),
    "labels of another scheme": (change_lexicon(lambda tree: tree.update(scheme="BILOU")), r"BILOU"),
    "lexicon that is a list": (lambda folder: write_lexicon(folder, b"[]"), r"not a lexicon"),
    "lexicon that is no JSON": (lambda folder: write_lexicon(folder, b"{"), r"not a lexicon"),
    "lexicon that is not text": (lambda folder: write_lexicon(folder, b"\xff\xfe"), r"not a lexicon"),
    "deep lexicon": (lambda folder: write_lexicon(folder, b"[" * 100_000), r"not a lexicon"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_bundle_is_refused_and_the_error_says_why(bundle, name):
    load_bundle(bundle)
    spoil, message = SPOILT[name]
    spoil(bundle)
    with pytest.raises(BundleError, match=message) as refusal:
        load_bundle(bundle)
    assert "model" in str(refusal.value), "the error must name the folder or file"


def test_all_that_does_not_fit_is_told_at_once(bundle):
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["scores.bias"]
        tensors["extra"] = torch.zeros(1)
        tensors["scores.weight"][0, 0] = torch.nan

    change_weights(change)(bundle)
    with pytest.raises(BundleError, match=r"extra: unexpected; scores\.bias: missing; scores\.weight: holds"):
        load_bundle(bundle)


def test_a_model_is_not_written_over_a_file(bundle, tmp_path):
    model = load_bundle(bundle)
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(BundleError, match="cannot be saved"):
        save_bundle(model, tmp_path / "taken")
    with pytest.raises(NertoolError):
        save_bundle(model, tmp_path / "taken" / "model")
    assert (tmp_path / "taken").read_text() == "mine"


def modules() -> list[Path]:
    return sorted(Path(nertool.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_nothing_in_the_package_runs_code_that_it_reads(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = importlib.import_module(
        ".".join(path.relative_to(Path(nertool.__file__).parents[1]).with_suffix("").parts)
    )
    runners = {"eval", "exec", "compile", "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = {alias.name.split(".")[0] for alias in node.names} | {
                (getattr(node, "module", "") or "").split(".")[0]
            }
            assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in runners, f"line {node.lineno} calls {called}"
        assert not called.startswith("pickle"), f"line {node.lineno} calls {called}"
        assert called not in {"torch.load", "torch.save", "torch.jit.load", "torch.package.PackageImporter"}
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in {"np.load", "numpy.load"}:
            assert given.get("allow_pickle", "False") == "False"
        if called.startswith("yaml.") and "load" in called and called != "yaml.safe_load":
            loader = getattr(module, given["Loader"])
            assert called == "yaml.load"
            assert issubclass(loader, yaml.SafeLoader)
