"""A model on disk: what is read is what was written, and whatever does not fit together is refused."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
import yaml
from torch import Tensor

import nertool
from nertool.config.loading import load_config
from nertool.config.schema import Config
from nertool.data.batching import EncodedCorpus, Forms
from nertool.data.vocabulary import build_lexicon
from nertool.errors import BundleError, NertoolError
from nertool.evaluation.scores import evaluate
from nertool.tagging.bundle import Model, build_network, load_bundle, save_bundle
from nertool.tagging.labeller import Labeller
from nertool.tagging.tensorfile import write_tensors
from nertool.text.schemes import Scheme
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
        "from nertool.tagging.bundle import load_bundle; from nertool.tagging.labeller import Labeller\n"
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
    """Spoils the tensors as somebody would who knows the format: the digest is theirs."""

    def spoil(folder: Path) -> None:
        tensors, metadata = read_weights(folder)
        change(tensors)
        write_tensors(folder / WEIGHTS, tensors, metadata)

    return spoil


def change_metadata(**changes: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors, metadata = read_weights(folder)
        write_tensors(folder / WEIGHTS, tensors, {**metadata, **changes})

    return spoil


def write_lexicon(folder: Path, content: bytes) -> None:
    """A lexicon that the weights take for their own."""
    (folder / "lexicon.json").write_bytes(content)
    change_metadata(lexicon=hashlib.sha256(content).hexdigest())(folder)


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


def change_settings(old: str, new: str) -> Callable[[Path], None]:
    """Changes settings of the network, and tells the weights that they were trained with these."""

    def spoil(folder: Path) -> None:
        change_config(old, new)(folder)
        settings = load_config(folder / "config.yaml").model.model_dump(mode="json")
        change_metadata(model=json.dumps(settings))(folder)

    return spoil


def link(name: str) -> Callable[[Path], None]:
    """Moves a file elsewhere, and puts a link to it in its place."""

    def spoil(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to("../elsewhere")

    return spoil


def write_header(size: int, header: bytes = b"{}") -> Callable[[Path], None]:
    """Weights with a header that says that it is so large."""

    def spoil(folder: Path) -> None:
        with (folder / WEIGHTS).open("wb") as file:
            file.write(size.to_bytes(8, "little") + header)
            file.truncate(8 + min(size, 200_000_000))  # as a hole: nothing is written

    return spoil


def claim(shape: list[int]) -> Callable[[Path], None]:
    """A word table of that shape, as a hole in the file."""

    def spoil(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        size = int.from_bytes(content[:8], "little")
        tree = json.loads(content[8 : 8 + size])
        end = len(content) - 8 - size
        length = 4 * shape[0] * shape[1]
        tree["words.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + length]}
        # What the old table took is left to a tensor that nobody knows.
        tree["rest"] = json.loads(content[8 : 8 + size])["words.weight"]
        header = json.dumps(tree).encode()
        with (folder / WEIGHTS).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header + content[8 + size :])
            file.truncate(8 + len(header) + end + length)

    return spoil


def bomb(folder: Path) -> None:
    """Nine lines of nine references each to the line before: a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (folder / "config.yaml").write_text("\n".join(lines), encoding="utf-8")


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
    "other architecture": (change_settings("hidden: 12", "hidden: 13"), r"encoder\.\S+: shape"),
    "absurd size": (change_settings("hidden: 12", "hidden: 1000000"), r"encoder\.\S+: shape"),
    "size beyond all bounds": (
        change_settings("hidden: 12", "hidden: 1000000000000000000"),
        r"no possible network",
    ),
    "other size than trained with": (
        change_config("hidden: 12", "hidden: 13"),
        r"does not fit config\.yaml: model\.encoder\.hidden: 13, trained with 12",
    ),
    "other dilations": (
        change_config("dilations: [1, 2, 1]", "dilations: [1, 2, 4]"),
        r"model\.encoder\.dilations: \(1, 2, 4\), trained with \(1, 2, 1\)",
    ),
    "other heads": (change_config("heads: 4", "heads: 2"), r"model\.attention\.heads: 2, trained with 4"),
    "other decoder": (change_config("decoder: crf", "decoder: softmax"), r"softmax, trained with crf"),
    "other constraints": (
        change_config("constraints: decoding", "constraints: none"),
        r"model\.constraints: none, trained with decoding",
    ),
    "other limit to spelling": (change_config("maximum: 64", "maximum: 6"), r"maximum: 6, trained with 64"),
    "settings that are no JSON": (change_metadata(model="{"), r"damaged \(the settings of its network"),
    "settings that are none": (change_metadata(model="[1]"), r"damaged \(the settings of its network"),
    "deep settings": (change_metadata(model="[" * 50_000), r"damaged \(the settings of its network"),
    "settings of a newer version": (
        change_metadata(model=json.dumps({"gates": 7})),
        r"damaged \(the settings of its network",
    ),
    "config of a newer version": (
        change_config("model:", "gates: 7\nmodel:"),
        r"gates: no such setting",
    ),
    "config that is a bomb": (bomb, r"not valid YAML: aliases \(\*name\) are not used here"),
    "deep config": (
        lambda folder: (folder / "config.yaml").write_text("[" * 100_000, encoding="utf-8"),
        r"not valid YAML",
    ),
    "huge config": (
        lambda folder: (folder / "config.yaml").write_text("#" * 2**21, encoding="utf-8"),
        r"too large for a config",
    ),
    "config that is a link": (link("config.yaml"), r"config\.yaml: a link out of the folder"),
    "lexicon that is a link": (link("lexicon.json"), r"lexicon\.json: a link out of the folder"),
    "weights that are a link": (link(WEIGHTS), r"weights\.safetensors: a link out of the folder"),
    "header of 100 MB": (write_header(100_000_000), r"damaged \(a header of 100,000,000 bytes"),
    "header beyond all bounds": (write_header(2**64 - 1), r"damaged \(a header of 18,446,744"),
    "header that is no JSON": (write_header(8, b"{{{{{{{{"), r"damaged"),
    "deep header": (write_header(100_000, b"[" * 100_000), r"damaged"),
    "tensors beyond the end": (cut(WEIGHTS, 0.5), r"damaged"),
    "word table of 4 GB": (claim([10**6, 1000]), r"words\.weight: shape"),
    "temperature of 0": (put("decoder.temperature", 0.0), r"temperature: 0\.0, expected more than 0"),
    "no temperature": (
        change_weights(lambda tensors: tensors.pop("decoder.temperature")),
        r"decoder\.temperature: missing",
    ),
    "one label less": (change_lexicon(lambda tree: tree["labels"].pop()), r"labels, but decoder\.transitions"),
    "one label more": (change_lexicon(lambda tree: tree["labels"].append("B-X")), r"labels, but decoder\.trans"),
    "more labels than there are numbers": (
        change_lexicon(lambda tree: tree.update(labels=[f"B-{n}" for n in range(40_000)])),
        r"40000 labels; there may be 32767",
    ),
    "label that is no text to print": (
        change_lexicon(lambda tree: tree["labels"].__setitem__(-1, "S-\x1b[31m")),
        r"not printable",
    ),
    "lexicon with another key": (change_lexicon(lambda tree: tree.update(hook="x")), r"keys that it should not"),
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


def test_a_refusal_takes_neither_memory_nor_time(bundle):
    claim([10**6, 1000])(bundle)
    program = (
        "import resource, sys, time; from pathlib import Path\n"
        "from nertool.errors import BundleError; from nertool.tagging.bundle import load_bundle\n"
        "before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()\n"
        "try:\n    load_bundle(Path(sys.argv[1]))\nexcept BundleError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.perf_counter() - began)\n"
    )
    found = subprocess.run([sys.executable, "-c", program, str(bundle)], capture_output=True, text=True)
    grown, seconds = map(float, found.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024
    assert grown * unit < 100e6
    assert seconds < 10


@pytest.mark.parametrize("name", ["config.yaml", "lexicon.json", WEIGHTS])
def test_a_bit_that_has_changed_is_noticed_or_changes_nothing(bundle, name):
    model = load_bundle(bundle)
    content = (bundle / name).read_bytes()
    random = np.random.default_rng(1)
    # The head of the weights is small beside their values, so that half of the bits are from there.
    ends = [len(content), 8 + int.from_bytes(content[:8], "little")] if name == WEIGHTS else [len(content)]
    accepted = 0
    for number in range(120):
        place, bit = int(random.integers(ends[number % len(ends)])), int(random.integers(8))
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << bit
        (bundle / name).write_bytes(spoilt)
        try:
            found = load_bundle(bundle)
        except BundleError:
            continue
        accepted += 1
        # In a config a comment is changed, or a setting of the training that is over.
        assert name == "config.yaml"
        assert found.config.model == model.config.model
    assert accepted < 120 and (name == "config.yaml" or not accepted)


def test_a_model_is_not_written_through_a_link(bundle, tmp_path):
    model = load_bundle(bundle)
    (tmp_path / "precious").write_text("mine")
    (bundle / "lexicon.json").unlink()
    (bundle / "lexicon.json").symlink_to(tmp_path / "precious")
    with pytest.raises(BundleError, match=r"lexicon\.json: a link out of the folder"):
        save_bundle(model, bundle)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_folder_may_be_a_link_and_files_links_within_it(bundle, tmp_path):
    (bundle / WEIGHTS).rename(bundle / "kept")
    (bundle / WEIGHTS).symlink_to("kept")
    (tmp_path / "latest").symlink_to("model")
    load_bundle(tmp_path / "latest")


def test_all_that_does_not_fit_is_told_at_once(bundle):
    def change(tensors: dict[str, Tensor]) -> None:
        del tensors["scores.bias"]
        tensors["extra"] = torch.zeros(1)
        tensors["scores.weight"] = tensors["scores.weight"][:, 1:].contiguous()

    change_weights(change)(bundle)
    with pytest.raises(BundleError, match=r"extra: unexpected; scores\.bias: missing; scores\.weight: shape"):
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


UNPICKLERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg"}
RUNNERS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "runpy.run_module"}
# Each of them may unpickle, whatever it is called with.
LOADERS = {"torch": {"load", "save", "jit", "package", "hub"}, "pandas": {"read_pickle"}, "sklearn": {"externals"}}


def dangers(tree: ast.AST, names: object) -> Iterator[str]:
    """What in a module runs code that it reads; `names` has its global names as attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if UNPICKLERS & set(alias.name.split(".")):
                    yield f"line {node.lineno} imports {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            package, imported = str(node.module).split("."), {alias.name for alias in node.names}
            if UNPICKLERS & {*package, *imported} or imported & LOADERS.get(package[0], set()):
                yield f"line {node.lineno} imports {', '.join(sorted(imported))} from {node.module}"
            if package[0] in ("numpy", "yaml") and any("load" in name.lower() for name in imported):
                yield f"line {node.lineno} imports {', '.join(sorted(imported))} from {node.module}"
        elif isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            package = whole.split(".")
            if UNPICKLERS & set(package) or (len(package) > 1 and package[1] in LOADERS.get(package[0], set())):
                yield f"line {node.lineno} names {whole}"
            if "pickle" in node.attr:  # srsly.pickle_loads, pandas.read_pickle
                yield f"line {node.lineno} names {whole}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in RUNNERS:
                yield f"line {node.lineno} calls {called}"
            if any(given.get(key, "False") != "False" for key in ("allow_pickle", "trust_remote_code", "shell")):
                yield f"line {node.lineno} allows what it must not: {given}"
            if called.startswith("yaml.") and "load" in called and called != "yaml.safe_load":
                loader = getattr(names, given.get("Loader", ""), object)
                if called != "yaml.load" or not issubclass(loader, yaml.SafeLoader):
                    yield f"line {node.lineno} calls {called} with {loader}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_nothing_in_the_package_runs_code_that_it_reads(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = importlib.import_module(
        ".".join(path.relative_to(Path(nertool.__file__).parents[1]).with_suffix("").parts)
    )
    assert list(dangers(tree, module)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import six.moves.cPickle as p",
        "from multiprocessing.reduction import pickle",
        "from joblib import load",
        "from torch import load",
        "found = torch.load(path, weights_only=True)",
        "reader = torch.load",
        "torch.hub.load(name)",
        "from numpy import load",
        "np.load(path, allow_pickle=True)",
        "np.lib.format.read_array(file, allow_pickle=flag)",
        "yaml.load(text, Loader=yaml.UnsafeLoader)",
        "yaml.load(text, SafeLoader)",
        "yaml.unsafe_load(text)",
        "from yaml import full_load",
        "srsly.pickle_loads(data)",
        "pd.read_pickle(path)",
        "eval(text)",
        "exec(compile(text, name, 'exec'))",
        "load_dataset(name, trust_remote_code=True)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_walk_sees_what_it_is_to_see(code):
    assert list(dangers(ast.parse(code), yaml))
