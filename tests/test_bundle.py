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
from nertool.data.encoding import EncodedCorpus
from nertool.errors import BundleError, NertoolError
from nertool.evaluation.scores import evaluate
from nertool.model.inputs.base import Resources
from nertool.model.model import Model, new_model
from nertool.tagging.bundle import fingerprint, load_bundle, pack, save_bundle, unpack
from nertool.tagging.predictor import Predictor
from nertool.tagging.tensorfile import write_tensors
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.training.trainer import train

WEIGHTS = "weights.safetensors"
TABLE = "inputs.words.weight"


def predictions(model: Model, sentences: list[list[str]]) -> tuple[list[list[str]], list[list[float]]]:
    """Labels, and the probability of each token's label."""
    found = Predictor(model).predict([Document(tuple(tokens)) for tokens in sentences], probabilities=True)
    scores = [[found.probability(i, t, t + 1) for t in range(len(s))] for i, s in enumerate(sentences)]
    return found.labels, scores


@pytest.fixture(scope="module")
def others(tiny_test) -> list[list[str]]:
    """Sentences with words and characters that the model never saw."""
    return [*(tokens for tokens, _ in tiny_test), ["Ünseen", "wörds", "\ud800", "…"]]


class TestThreeSentences:
    @pytest.fixture
    def learnt(self, tiny_config: Callable[..., Config], tiny_train) -> Model:
        config = tiny_config("training.epochs=40", "training.patience=40", "model.dropout=0.0")
        tokens, labels = zip(*tiny_train[:3], strict=True)
        documents = [Document(tuple(t), labels=tuple(row), scheme=Scheme.IOB2) for t, row in tiny_train[:3]]
        model = new_model(config, documents, Scheme.IOB2, Resources())
        corpus = EncodedCorpus(model.inputs, documents, model.label_numbers)
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
        assert (loaded.labels, loaded.scheme) == (learnt.labels, learnt.scheme)
        assert list(loaded.inputs) == list(learnt.inputs) == ["words", "characters"]
        for name, each in learnt.inputs.items():
            assert loaded.inputs[name].state() == each.state()
        assert not loaded.network.training
        for name, tensor in learnt.network.state_dict().items():
            assert torch.equal(loaded.network.state_dict()[name], tensor)

    def test_saving_again_writes_the_same_bytes_and_leaves_nothing_else(self, learnt, tmp_path):
        folder = tmp_path / "model"
        save_bundle(learnt, folder)
        first = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert first.keys() == {"config.yaml", "vocabulary.json", WEIGHTS}
        for _ in range(5):
            save_bundle(load_bundle(folder), folder)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_another_process_gives_the_same_answer(trained_run, others):
    program = (
        "import json, sys; from pathlib import Path\n"
        "from nertool.tagging.bundle import load_bundle; from nertool.tagging.predictor import Predictor\n"
        "from nertool.text.document import Document\n"
        "sentences = json.load(sys.stdin)\n"
        "documents = [Document(tuple(tokens)) for tokens in sentences]\n"
        "found = Predictor(load_bundle(Path(sys.argv[1]))).predict(documents, probabilities=True)\n"
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
    for name in ("config.yaml", "vocabulary.json", WEIGHTS):
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


def change_trained(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes the settings that the weights say they were trained with."""

    def spoil(folder: Path) -> None:
        tree = json.loads(read_weights(folder)[1]["settings"])
        change(tree)
        change_metadata(settings=json.dumps(tree))(folder)

    return spoil


def write_vocabulary(folder: Path, content: bytes) -> None:
    """A vocabulary that the weights take for their own."""
    (folder / "vocabulary.json").write_bytes(content)
    change_metadata(vocabulary=hashlib.sha256(content).hexdigest())(folder)


def change_vocabulary(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tree = json.loads((folder / "vocabulary.json").read_bytes())
        change(tree)
        write_vocabulary(folder, json.dumps(tree).encode())

    return spoil


def change_inputs(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return change_vocabulary(lambda tree: change(tree["inputs"]))


def change_words(change: Callable[[list], object]) -> Callable[[Path], None]:
    return change_inputs(lambda states: change(states["words"]["words"]))


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
        settings = load_config(folder / "config.yaml").model_dump(mode="json", include={"inputs", "model"})
        change_metadata(settings=json.dumps(settings))(folder)

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
        tree[TABLE] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + length]}
        # What the old table took is left to a tensor that nobody knows.
        tree["rest"] = json.loads(content[8 : 8 + size])[TABLE]
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
    "no folder": (shutil.rmtree, r"config.yaml, vocabulary.json, weights.safetensors is missing"),
    "no config": (lambda folder: (folder / "config.yaml").unlink(), r"is not a model: config.yaml is missing"),
    "no vocabulary": (lambda folder: (folder / "vocabulary.json").unlink(), r"vocabulary.json is missing"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), r"weights.safetensors is missing"),
    "weights cut short": (cut(WEIGHTS, 0.9), r"corrupt"),
    "weights cut in the head": (cut(WEIGHTS, 0.001), r"corrupt"),
    "empty weights": (cut(WEIGHTS, 0.0), r"corrupt"),
    "weights that are text": (lambda folder: (folder / WEIGHTS).write_bytes(b"x" * 5000), r"corrupt"),
    "missing tensor": (change_weights(lambda tensors: tensors.pop("scores.bias")), r"scores\.bias: missing"),
    "missing word table": (
        change_weights(lambda tensors: tensors.pop(TABLE)),
        r"inputs\.words\.weight: missing",
    ),
    "extra tensor": (change_weights(lambda tensors: tensors.update(extra=torch.zeros(2))), r"extra: unexpected"),
    "other shape": (shorten("scores.bias"), r"scores\.bias: shape \(\d+,\), expected \(\d+,\)"),
    "fewer words": (shorten(TABLE), r"inputs\.words\.weight: shape"),
    "flat word table": (
        change_weights(lambda tensors: tensors.update({TABLE: tensors[TABLE].view(-1)})),
        r"inputs\.words\.weight: shape",
    ),
    "wider word vectors": (
        change_weights(lambda tensors: tensors.update({TABLE: tensors[TABLE].repeat(1, 2)})),
        r"inputs\.words\.weight: shape",
    ),
    "wider word vectors, and a vocabulary that says so": (
        change_inputs(lambda states: states["words"].update(dimensions=24)),
        r"encoder\.\S+: shape",
    ),
    "absurd word vectors": (
        change_inputs(lambda states: states["words"].update(dimensions=10**15)),
        r"no possible network|shape",
    ),
    "word vectors without a size": (
        change_inputs(lambda states: states["words"].pop("dimensions")),
        r"not a vocabulary of inputs\.words \(no 'dimensions'\)",
    ),
    "a further input": (change_inputs(lambda states: states.update(more=[])), r"has words, characters, more"),
    "an input less": (change_inputs(lambda states: states.pop("words")), r"has the inputs words, characters"),
    "states that are none": (
        change_inputs(lambda states: states.update(characters=7)),
        r"not a vocabulary of inputs\.characters",
    ),
    "no score weights": (
        change_weights(lambda tensors: tensors.pop("scores.weight")),
        r"'scores\.weight' is missing",
    ),
    "other type": (
        change_weights(lambda tensors: tensors.update({"scores.bias": tensors["scores.bias"].double()})),
        r"scores\.bias: type torch\.float64, expected torch\.float32",
    ),
    "not a number": (put("scores.weight", float("nan")), r"scores\.weight: holds values that are not finite"),
    "infinity": (put(TABLE, float("inf")), r"inputs\.words\.weight: holds values that are not finite"),
    "other format": (change_metadata(nertool="99"), r"another version of nertool \(format 99"),
    "other vocabulary": (
        lambda folder: (folder / "vocabulary.json").write_bytes(
            (folder / "vocabulary.json").read_bytes().replace(b'"London"', b'"Madrid"')
        ),
        r"belongs to another vocabulary\.json",
    ),
    "unknown setting": (change_config("dropout: 0.1", "dropuot: 0.1"), r"dropuot: no such setting"),
    "other architecture": (change_settings("hidden: 12", "hidden: 13"), r"encoder\.\S+: shape"),
    "absurd size": (change_settings("hidden: 12", "hidden: 3000"), r"encoder\.\S+: shape"),
    "size beyond all bounds": (
        change_config("hidden: 12", "hidden: 1000000000000000000"),
        r"hidden: input should be less than or equal to 65536",
    ),
    "other size than trained with": (
        change_config("hidden: 12", "hidden: 13"),
        r"does not fit config\.yaml: model\.encoder\.hidden: 13, trained with 12",
    ),
    "other decoder": (
        lambda folder: (
            change_config("    constraints: decoding", "    # constraints: decoding")(folder),
            change_config("kind: crf", "kind: constrained")(folder),
        ),
        r"model\.decoder\.kind: constrained, trained with crf",
    ),
    "other constraints": (
        change_config("constraints: decoding", "constraints: none"),
        r"model\.decoder\.constraints: none, trained with decoding",
    ),
    "other limit to spelling": (
        change_config("maximum: 64", "maximum: 6"),
        r"inputs\.characters\.maximum: 6, trained with 64",
    ),
    "settings that are no JSON": (change_metadata(settings="{"), r"corrupt \(the settings of its network"),
    "settings that are none": (change_metadata(settings="[1]"), r"corrupt \(the settings of its network"),
    "deep settings": (change_metadata(settings="[" * 50_000), r"corrupt \(the settings of its network"),
    "settings of a newer version": (
        change_trained(lambda tree: tree["model"].update(gates=7)),
        r"corrupt \(the settings of its network",
    ),
    "an input that is not installed": (
        change_trained(lambda tree: tree["inputs"].update(sense={"kind": "sense2vec"})),
        r"inputs\.sense is of kind 'sense2vec', which is not installed; .* nertool\.inputs\)",
    ),
    "an encoder that is not installed": (
        change_trained(lambda tree: tree["model"]["encoder"].update(kind="mamba")),
        r"model\.encoder is of kind 'mamba', which is not installed; .* nertool\.encoders\)",
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
    "vocabulary that is a link": (link("vocabulary.json"), r"vocabulary\.json: a link out of the folder"),
    "weights that are a link": (link(WEIGHTS), r"weights\.safetensors: a link out of the folder"),
    "header of 100 MB": (write_header(100_000_000), r"corrupt \(a header of 100,000,000 bytes"),
    "header beyond all bounds": (write_header(2**64 - 1), r"corrupt \(a header of 18,446,744"),
    "header that is no JSON": (write_header(8, b"{{{{{{{{"), r"corrupt"),
    "deep header": (write_header(100_000, b"[" * 100_000), r"corrupt"),
    "tensors beyond the end": (cut(WEIGHTS, 0.5), r"corrupt"),
    "word table of 4 GB": (claim([10**6, 1000]), r"inputs\.words\.weight: shape"),
    "temperature of 0": (put("decoder.temperature", 0.0), r"temperature: 0\.0, expected 0\.01 to 100"),
    "no temperature": (
        change_weights(lambda tensors: tensors.pop("decoder.temperature")),
        r"decoder\.temperature: missing",
    ),
    "one label less": (change_vocabulary(lambda tree: tree["labels"].pop()), r"labels, but scores\.weight"),
    "one label more": (
        change_vocabulary(lambda tree: tree["labels"].append("B-X")),
        r"labels, but scores\.weight",
    ),
    "more labels than there are numbers": (
        change_vocabulary(lambda tree: tree.update(labels=[f"B-{n}" for n in range(40_000)])),
        r"40000 labels; there may be 32767",
    ),
    "label that is no text to print": (
        change_vocabulary(lambda tree: tree["labels"].__setitem__(-1, "S-\x1b[31m")),
        r"control characters",
    ),
    "vocabulary with another key": (change_vocabulary(lambda tree: tree.update(hook="x")), r"expected the keys"),
    "config that is no YAML": (
        lambda folder: (folder / "config.yaml").write_text("corpus: [", encoding="utf-8"),
        r"not valid YAML",
    ),
    "config with an object": (
        lambda folder: (folder / "config.yaml").write_text("!!python/object/apply:os.getcwd []", encoding="utf-8"),
        r"not valid YAML",
    ),
    "config that is not text": (lambda folder: (folder / "config.yaml").write_bytes(b"\xff\xfe\x00"), r"UTF-8"),
    "word twice": (change_words(lambda words: words.append(words[0])), r"inputs\.words \(a name occurs twice"),
    "label twice": (change_vocabulary(lambda tree: tree["labels"].append("O")), r"there twice"),
    "no labels": (change_vocabulary(lambda tree: tree["labels"].clear()), r"no labels"),
    "more words": (change_words(lambda words: words.append("more")), r"inputs\.words\.weight: shape"),
    "words that are numbers": (change_words(lambda words: words.__setitem__(0, 1)), r"not a vocabulary of inputs"),
    "words that are one text": (
        change_inputs(lambda states: states["words"].update(words="abc")),
        r"not a vocabulary of inputs\.words",
    ),
    "vocabulary without labels": (change_vocabulary(lambda tree: tree.pop("labels")), r"expected the keys"),
    "labels that are numbers": (change_vocabulary(lambda tree: tree.update(labels=[1, 2])), r"not a string"),
    "unknown scheme": (change_vocabulary(lambda tree: tree.update(scheme="IOBX")), r"not a vocabulary"),
    "labels of another scheme": (change_vocabulary(lambda tree: tree.update(scheme="BILOU")), r"BILOU"),
    "vocabulary that is a list": (lambda folder: write_vocabulary(folder, b"[]"), r"not a vocabulary"),
    "vocabulary that is no JSON": (lambda folder: write_vocabulary(folder, b"{"), r"not a vocabulary"),
    "vocabulary that is not text": (lambda folder: write_vocabulary(folder, b"\xff\xfe"), r"not a vocabulary"),
    "deep vocabulary": (lambda folder: write_vocabulary(folder, b"[" * 100_000), r"not a vocabulary"),
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


@pytest.mark.parametrize("name", ["config.yaml", "vocabulary.json", WEIGHTS])
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
        assert (found.config.model, found.config.inputs) == (model.config.model, model.config.inputs)
    assert accepted < 120 and (name == "config.yaml" or not accepted)


def test_a_model_is_not_written_through_a_link(bundle, tmp_path):
    model = load_bundle(bundle)
    (tmp_path / "precious").write_text("mine")
    (bundle / "vocabulary.json").unlink()
    (bundle / "vocabulary.json").symlink_to(tmp_path / "precious")
    with pytest.raises(BundleError, match=r"vocabulary\.json: a link out of the folder"):
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


def test_packed_and_unpacked_it_is_the_same_model(bundle, others):
    model = load_bundle(bundle)
    files = pack(model)
    assert files == {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert predictions(unpack(files, "here"), others) == predictions(model, others)
    with pytest.raises(BundleError, match=r"^the archive.*vocabulary\.json is missing"):
        unpack({"config.yaml": files["config.yaml"], WEIGHTS: files[WEIGHTS]}, "the archive")


def test_a_model_of_an_older_version_is_to_be_retrained(bundle):
    change_metadata(nertool="3")(bundle)
    with pytest.raises(BundleError, match=r"another version of nertool \(format 3, this one reads 4\): retrain"):
        load_bundle(bundle)
    (bundle / "vocabulary.json").rename(bundle / "lexicon.json")
    with pytest.raises(BundleError, match=r"vocabulary\.json is missing \(a model of an older version"):
        load_bundle(bundle)


def test_the_fingerprint_changes_with_each_file(bundle):
    before = {fingerprint(bundle)}
    for name in ("config.yaml", "vocabulary.json"):
        (bundle / name).write_bytes((bundle / name).read_bytes() + b"\n")
        before.add(fingerprint(bundle))
    put("scores.weight", 1.5)(bundle)
    assert len(before | {fingerprint(bundle)}) == 4


def test_where_pretrained_vectors_were_does_not_matter(bundle):
    """The config may name them elsewhere, for example on another machine."""
    change_trained(lambda tree: tree["inputs"]["words"].update(vectors=["glove.txt"], dimensions=None))(bundle)
    change_config("vectors: []", "vectors: [/home/a/glove.txt]")(bundle)
    change_config("dimensions: 12", "dimensions: null")(bundle)
    load_bundle(bundle)
    change_config("a/glove.txt", "a/other.txt")(bundle)
    with pytest.raises(BundleError, match=r"words\.vectors: \['other\.txt'\], trained with \['glove\.txt'\]"):
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
