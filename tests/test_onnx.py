"""Exported models: the same labels and probabilities as torch's, without torch, and nothing else is run."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import PHRASES, sentences, small_config, small_model

from nertool.errors import BundleError, NertoolError
from nertool.model.chain import Places, Scores
from nertool.model.decoding import best_sequences, viterbi
from nertool.tagging.bundle import load_bundle
from nertool.tagging.predictor import Predictor
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from nertool.tagging.export import export_model  # noqa: E402
from nertool.tagging.exported import digest, load_exported  # noqa: E402

CLOSE = {"rtol": 0.0, "atol": 1e-4}
LENGTHS = [1, 7, 3, 7, 12, 2, 1, 5]


def predicted(model: Any, documents: list[Document]) -> Any:
    return Predictor(model).predict(documents, probabilities=True, n_best=3, marginals=True).tables


@pytest.fixture(scope="module")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_model(load_bundle(trained_run), path)
    return path


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lstm": ({}, {}),
    "gru, two layers": ({}, {"encoder": {"kind": "gru", "layers": 2}}),
    "rnn, one direction": ({}, {"encoder": {"kind": "rnn", "bidirectional": False}}),
    "no encoder": ({}, {"encoder": {"kind": "none"}}),
    "convolutions": ({}, {"encoder": {"kind": "cnn", "dilations": [1, 2], "layers": 2}}),
    "causal convolutions": ({}, {"encoder": {"kind": "cnn", "bidirectional": False}}),
    "softmax": ({}, {"decoder": {"kind": "softmax"}}),
    "recurrent characters": ({"characters": {"network": "gru"}}, {}),
    "words alone": ({"characters": None}, {}),
    "case": ({"case": {"dimensions": 3}}, {}),
    "two tables of words": ({"more": {"kind": "words", "dimensions": 3}}, {}),
    "a column": ({"pos": {"kind": "column", "column": "pos", "dimensions": 3}}, {}),
    "a column alone": (
        {"words": None, "characters": None, "pos": {"kind": "column", "column": "pos", "dimensions": 3}},
        {},
    ),
    "dot": ({}, {"attention": {"kind": "dot"}}),
    "several heads": ({}, {"attention": {"kind": "multi_head", "heads": 2}}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_torch_does(case: str, tmp_path: Path):
    inputs, model_settings = CASES[case]
    model = small_model(small_config(inputs, **model_settings))
    documents = sentences(LENGTHS)
    export_model(model, tmp_path / "m.onnx")
    wanted, found = predicted(model, documents), predicted(load_exported(tmp_path / "m.onnx"), documents)
    for name in ("first", "last", "shares", "marginals"):
        np.testing.assert_allclose(
            np.exp(getattr(found, name)), np.exp(getattr(wanted, name)), **CLOSE, err_msg=name
        )
    assert (found.labels == wanted.labels).all()
    assert (found.sequences[:, 0] == wanted.sequences[:, 0]).all()


def test_phrases_are_matched(tmp_path: Path):
    (tmp_path / "phrases.txt").write_text(PHRASES, encoding="utf-8")
    entry = {"kind": "gazetteer", "files": [str(tmp_path / "phrases.txt")], "dimensions": 3}
    model = small_model(small_config({"phrases": entry}))
    export_model(model, tmp_path / "m.onnx")
    documents = sentences(LENGTHS)
    found = predicted(load_exported(tmp_path / "m.onnx"), documents)
    np.testing.assert_allclose(found.marginals, predicted(model, documents).marginals, **CLOSE)


def test_the_threads_treatment_of_denormals_stays(exported: Path):
    Tagger.load(exported)("Ada lives in London.")
    half = 0.5
    assert sys.float_info.min * half > 0.0


def test_neither_padding_nor_what_was_tagged_before_matters(tmp_path: Path):
    export_model(small_model(), tmp_path / "m.onnx")
    model = load_exported(tmp_path / "m.onnx")
    documents = sentences(LENGTHS)
    together = predicted(model, documents).marginals
    predictor = Predictor(model)
    alone = [predictor.predict([each], marginals=True).tables.marginals for each in reversed(documents)]
    np.testing.assert_allclose(np.concatenate(alone[::-1]), together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_files_say_nearly_the_same(trained_run: Path, tmp_path: Path, precision: str, exported: Path):
    model = load_bundle(trained_run)
    export_model(model, tmp_path / "m.onnx", precision)
    small = load_exported(tmp_path / "m.onnx")
    documents = [Document(("Mina", "Lind", "left", "London", "in", "1993", "."))]
    np.testing.assert_allclose(
        predicted(small, documents).marginals, predicted(model, documents).marginals, atol=0.1
    )
    kept = {name: str(each.dtype) for name, each in _tensors(tmp_path / "m.onnx").items()}
    assert kept["inputs.words.weight"] == {"fp16": "float16", "int8": "int8"}[precision]
    assert (tmp_path / "m.onnx").stat().st_size < exported.stat().st_size


class TestTagger:
    TEXT = "Mina Lind left London in 1993. Rain fell."

    def test_it_tags_texts_as_the_run_does(self, trained_run: Path, exported: Path):
        options: dict[str, Any] = {"n_best": 3, "marginals": True}
        one, other = (
            Tagger.load(trained_run, **options).tag(self.TEXT),
            Tagger.load(exported, **options).tag(self.TEXT),
        )
        assert other.labels == one.labels and other.tokens == one.tokens
        np.testing.assert_allclose(other.scores or (), one.scores or (), **CLOSE)
        for a, b in zip(one.alternatives, other.alternatives, strict=True):
            np.testing.assert_allclose([each.probability for each in b], [each.probability for each in a], **CLOSE)

    def test_long_sentences_come_in_windows(self, trained_run: Path, exported: Path):
        document = Document(("Mina", "Lind", "left", "London", "in", "1993", ".") * 100)
        (one,), (other,) = (list(Tagger.load(path).tag_documents([document])) for path in (trained_run, exported))
        assert one.labels == other.labels and other.cut_sentences == 1

    def test_it_can_be_pickled_as_long_as_the_file_is_the_same(self, trained_run: Path, tmp_path: Path):
        path = tmp_path / "m.onnx"
        export_model(load_bundle(trained_run), path)
        content = pickle.dumps(Tagger.load(path))
        assert pickle.loads(content).tag(self.TEXT).labels == Tagger.load(path).tag(self.TEXT).labels
        export_model(load_bundle(trained_run), path, "int8")
        with pytest.raises(BundleError, match="was replaced"):
            pickle.loads(content)

    def test_attention_is_refused(self, exported: Path):
        with pytest.raises(NertoolError, match="does not show its attention"):
            Tagger.load(exported).attention("Ada left.")


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run nertool's command line where torch, torchcrf, safetensors and onnx cannot be imported."""
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'torchcrf', 'safetensors', 'onnx'):\n"
        "            raise ImportError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from nertool.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, encoding="utf-8")


def test_commands_do_without_torch(exported: Path, trained_run: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("Mina Lind left London.\n", encoding="utf-8")
    options = ["--to", "jsonl", "--n-best", "2", "--marginals"]
    done = without_torch("tag", str(text), "--model", str(exported), *options)
    assert done.returncode == 0, done.stderr
    wanted = Tagger.load(trained_run).tag("Mina Lind left London.")
    assert len(json.loads(done.stdout)["entities"]) == len(wanted.entities)
    data = exported.parent / "test.conll"
    data.write_text("Mina B-PER\nleft O\nOslo B-LOC\n\n", encoding="utf-8")
    done = without_torch("evaluate", str(data), "--model", str(exported), "--json")
    assert done.returncode == 0 and "f1" in json.loads(done.stdout), done.stderr
    done = without_torch("info", str(exported))
    assert done.returncode == 0 and "fp32" in done.stdout, done.stderr
    done = without_torch("tag", str(text), "--model", str(trained_run))
    assert done.returncode == 1 and "needs torch" in done.stderr and "Traceback" not in done.stderr


def test_the_command_writes_a_file_that_the_checker_of_onnx_accepts(trained_run: Path, tmp_path: Path):
    from click.testing import CliRunner

    from nertool.cli.main import main

    path = tmp_path / "out.onnx"
    done = CliRunner().invoke(main, ["export", str(trained_run), str(path), "--fp16"])
    assert done.exit_code == 0, done.output
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    texts = {each.key: each.value for each in model.metadata_props}
    tree = json.loads(texts["decoder"])
    labels = json.loads(texts["vocabulary"])["labels"]
    assert np.array(tree["transitions"]).shape == (len(labels), len(labels))
    assert json.loads(texts["config"])["language"] == "en"
    for arguments, message in (
        ([str(trained_run), str(tmp_path / "out.bin")], "ends in .onnx"),
        ([str(trained_run), str(path), "--fp16", "--int8"], "choose one"),
        ([str(path), str(path)], "cannot be exported again"),
        ([str(tmp_path / "none"), str(path)], "there is no model folder"),
    ):
        done = CliRunner().invoke(main, ["export", *arguments])
        assert done.exit_code == 1 and message in done.output, done.output


def test_what_cannot_be_exported_is_named(tmp_path: Path):
    model = small_model(small_config(attention={"kind": "additive"}))
    with pytest.raises(NertoolError, match=r"model\.attention: the kind 'additive' cannot be exported"):
        export_model(model, tmp_path / "m.onnx")
    model = small_model()
    model.network.input("words").weight.data[0, 0] = 1e6
    with pytest.raises(NertoolError, match=r"16 bits cannot hold"):
        export_model(model, tmp_path / "m.onnx", "fp16")
    assert not list(tmp_path.iterdir())


def _tensors(path: Path) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    return {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def _signed(model: Any) -> None:
    """Give a model the digest of what it holds, as whoever means harm would."""
    from onnx import numpy_helper

    texts = {each.key: each.value for each in model.metadata_props}
    tensors = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    own = digest(texts, tensors)
    for each in model.metadata_props:
        if each.key == "digest":
            each.value = own


def _text(name: str, change: Any) -> Any:
    def apply(model: Any) -> None:
        for each in model.metadata_props:
            if each.key == name:
                each.value = change(each.value)

    return apply


def _weights(value: float) -> Any:
    def apply(model: Any) -> None:
        from onnx import numpy_helper

        for each in model.graph.initializer:
            if each.name == "scores.weight":
                each.CopyFrom(numpy_helper.from_array(np.full(each.dims, value, np.float32), each.name))

    return apply


def _external(model: Any) -> None:
    tensor = model.graph.initializer[-1]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def _foreign(model: Any) -> None:
    model.graph.node[0].domain = "com.example"


def _more(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Identity", ["emissions"], ["other"]))


def _loop(model: Any) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", [], ["x"], body=body))


def _smaller(model: Any) -> None:
    model.graph.initializer[-1].dims[0] -= 1


HOSTILE: dict[str, tuple[Any, str]] = {
    "a weight that is no number": (_weights(np.nan), "not finite"),
    "weights beyond all measure": (_weights(3e38), "not finite"),
    "a tensor in another file": (_external, "not known"),
    "an operator of another domain": (_foreign, "domain"),
    "a further operator": (_more, "its graph is another"),
    "a graph in an operator": (_loop, "not known"),
    "a tensor of another shape": (_smaller, "shape|reshape"),
    "no vocabulary": (_text("vocabulary", lambda _: "{}"), "not a vocabulary"),
    "another label": (_text("vocabulary", lambda text: text.replace('"O"', '"Z"', 1)), "decoder|labels"),
    "no config": (_text("config", lambda _: "[1]"), "its config cannot be read"),
    "another config": (_text("config", lambda text: text.replace('"lstm"', '"gru"')), "does not fit"),
    "layers without end": (
        _text("config", lambda t: t.replace('"layers": 1', '"layers": 60000')),
        "its config cannot be read",
    ),
    "a decoder that is no object": (_text("decoder", lambda _: "7"), "its decoder cannot be read"),
    "a temperature of 0": (
        _text("decoder", lambda text: json.dumps({**json.loads(text), "temperature": 0})),
        "temperature",
    ),
    "scores that forbid nothing": (
        _text("decoder", lambda text: text.replace("-1000000000.0", "0.0")),
        "allow what the label scheme does not",
    ),
    "another version": (_text("nertool", lambda _: "99"), "export the model again"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_stranger_changed_is_refused(case: str, exported: Path, tmp_path: Path):
    change, message = HOSTILE[case]
    model = onnx.load(exported)
    change(model)
    if case not in ("a tensor in another file", "a tensor of another shape"):
        _signed(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=message) as found:
        Tagger.load(path)
    assert str(path) in str(found.value)


def test_a_corrupt_file_is_refused(exported: Path, tmp_path: Path):
    content, path = exported.read_bytes(), tmp_path / "m.onnx"
    random = np.random.default_rng(1)
    for size in [0, 1, len(content) // 2, len(content) - 1, *random.integers(0, len(content), 20)]:
        path.write_bytes(content[:size])
        with pytest.raises(BundleError):
            load_exported(path)
    for position in random.integers(0, len(content), 200):
        changed = bytearray(content)
        changed[position] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            Tagger.load(path)  # the name of the program that wrote it may be another
        except BundleError:
            continue


@pytest.mark.parametrize(
    "content", [b"", b"\n" * 100, b"\x3a\xff\xff\xff\xff\x0f", "żółw".encode() * 50, b"\x80" * 99]
)
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="not an ONNX file"):
        Tagger.load(tmp_path / "m.onnx")


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(BundleError, match=r"none\.onnx: cannot be read"):
        Tagger.load(tmp_path / "none.onnx")


class TestDecoding:
    """The algorithms in numpy beside those in torch, which have their own oracles."""

    @pytest.mark.parametrize("lengths", [[4, 4], [1, 6, 3]])
    def test_it_finds_the_sequences_that_torch_finds(self, lengths: list[int]):
        import torch

        from nertool.model import crf, nbest
        from nertool.model.batch import Layout

        random = np.random.default_rng(len(lengths))
        count, sizes = 4, np.array(lengths)
        emissions = random.normal(size=(sizes.max(), len(sizes), count))
        parts = [random.normal(size=shape) for shape in ((count,), (count, count), (count,))]
        parts[1][0, 1] = -1e9
        layout, places = Layout.of(sizes), Places.of(sizes)
        tensors = Scores(*map(torch.from_numpy, parts))
        wanted = crf.viterbi(torch.from_numpy(emissions), tensors, layout).numpy()
        assert (viterbi(emissions, Scores(*parts), places) == wanted).all()
        several = nbest.best_sequences(torch.from_numpy(emissions), tensors, layout, 5)
        labels, totals = best_sequences(emissions, Scores(*parts), places, 5)
        assert (labels == several.labels.numpy()).all()
        np.testing.assert_allclose(totals, several.scores.numpy())
