"""Devices: training and tagging on a device that is not the CPU give what they give on the CPU.

Most machines have no such device. There, two stand in for it. One is `meta`, whose tensors have shapes but no
values, so that any operation that waits for values is refused; that of `otherdevice` has values. Both refuse
operations on tensors of two devices, as a graphics card does. Where there is a GPU, it is tested too.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import LABELS, PHRASES, encoded, sentences, small_config, small_model
from otherdevice import DEVICE, OtherDevice
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import nertool
from nertool.config.schema import Config, TrainingConfig
from nertool.data.encoding import EncodedCorpus
from nertool.errors import ConfigError
from nertool.model.batch import Batch
from nertool.model.devices import find_device
from nertool.model.model import Model
from nertool.tagging.loading import load_model
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.training import run as run_module
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.run import Finished, run
from nertool.training.step import Learner
from nertool.training.trainer import Epoch

MOVES = {"aten::_to_copy", "aten::copy_"}

# Name: inputs, and settings of the model.
NETWORKS: dict[str, tuple[dict, dict]] = {
    "default": ({"words": {"dropout": 0.2}}, {"dropout": 0.5}),
    "all kinds of inputs": (
        {
            "characters": {"network": "gru", "dropout": 0.1},
            "case": {},
            "tags": {"kind": "column", "column": "pos", "dropout": 0.5},
            "places": {"kind": "gazetteer", "files": "phrases.txt", "dropout": 0.5},
        },
        {"encoder": {"layers": 2}, "locked_dropout": True, "dropout": 0.3},
    ),
    "convolutions, attention, softmax": (
        {"words": {"trainable": False}},
        {
            "encoder": {"kind": "cnn", "layers": 2},
            "attention": {"kind": "multi_head", "heads": 2},
            "decoder": "softmax",
        },
    ),
    "additive attention, constrained": (
        {"characters": None},
        {"encoder": {"kind": "gru"}, "attention": {"kind": "additive"}, "decoder": "constrained"},
    ),
    "crf, always constrained": ({}, {"decoder": {"kind": "crf", "constraints": "always"}}),
}


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices; numbers, which have no dimension, may be anywhere."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.dim()]
        devices = {each.device.type for each in tensors}
        if len(devices) > 1 and function._schema.name not in MOVES:
            raise AssertionError(f"{function} gets tensors of {devices}")
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=NETWORKS)
def make(request: pytest.FixtureRequest, tmp_path, monkeypatch) -> Callable[[], Model]:
    """Return what makes one of the networks, each time with the same weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phrases.txt").write_text(PHRASES)
    inputs, settings = NETWORKS[request.param]
    return lambda: small_model(small_config(inputs, **settings))


@pytest.fixture
def model(make) -> Model:
    return make()


def _gpu(name: str) -> torch.device:
    there = torch.cuda.is_available() if name == "cuda" else torch.backends.mps.is_available()
    return torch.device(name) if there else pytest.skip(f"there is no {name} here")


@pytest.fixture
def stand_in(monkeypatch) -> Iterator[OtherDevice]:
    # Tensors of other types than torch's own have no inference mode.
    monkeypatch.setattr(torch._C, "_InferenceMode", lambda mode: torch.no_grad())
    with warnings.catch_warnings(), OtherDevice() as mode:
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
        yield mode


@pytest.fixture(params=["stand-in", "cuda", "mps"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
        yield DEVICE
        return
    found = _gpu(request.param)
    # By default torch lets recurrent layers and convolutions multiply in 19 bits (TF32) on NVIDIA's GPUs.
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        yield found


def batch_of(corpus: EncodedCorpus) -> Batch:
    return Batch.of(corpus.batch(np.arange(len(corpus))), "meta")


LENGTHS = pytest.mark.parametrize("lengths", [[5, 3, 1], [4, 4]], ids=["ragged", "equal"])


@LENGTHS
def test_a_training_step(model, lengths):
    corpus = encoded(model, lengths)
    network = model.network.to("meta").train()
    with OneDevice():
        loss = network.loss(batch_of(corpus))
        loss.backward()
    assert loss.is_meta
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.device.type == "meta", name


@LENGTHS
def test_tagging(model, lengths):
    corpus = encoded(model, lengths)
    network = model.network.to("meta").eval()
    time, sentences = max(lengths), len(lengths)
    with OneDevice(), torch.inference_mode():
        batch = batch_of(corpus)
        vectors = network.form_vectors(batch.form_features)
        scores = network.encode(network.inputs_of(vectors, batch.forms, batch.token_features), batch.layout)
        best = network.decoder.best_labels(scores, batch.layout)
        posterior = network.decoder.posterior(scores, batch.layout)
        results = [best, posterior.marginals(), *posterior.path_logs(best)]
        results += network.decoder.best_sequences(scores, batch.layout, 3)
        if network.attention is not None:
            network.attention.weights(
                network.encoder(network.inputs_of(vectors, batch.forms, {}), batch.layout), batch.layout
            )
    assert all(each.is_meta for each in results)
    size = (time, sentences)
    shapes = [size, (*size, len(LABELS)), size, size, size, (*size, 3), (sentences, 3)]
    assert [tuple(each.shape) for each in results] == shapes


def test_the_check_finds_a_mix():
    with pytest.raises(AssertionError, match="tensors of"), OneDevice():
        torch.zeros(3, device="meta") + torch.zeros(3)


# A GPU adds in another order than a CPU.
NEAR: dict[str, float] = {"rtol": 2e-3, "atol": 2e-4}
RULES = {
    "sgd": {"averaging": 0.9},
    "momentum, no average": {"optimizer": {"kind": "sgd", "momentum": 0.9}, "averaging": 0.0, "clip": 0.5},
    "adam": {"optimizer": "adam", "averaging": 0.5, "clip": 1.0, "clip_by": "value"},
}


def learnt(
    model: Model, config: dict[str, Any], state: dict[str, Tensor] | None = None
) -> tuple[list, dict, dict]:
    """Take four steps; return losses and norms, the averaged weights, and the state of the update rules."""
    corpus = encoded(model, [5, 3, 1, 4])
    learner = Learner(model.network, TrainingConfig.model_validate({"learning_rate": 0.02, **config}))
    if state is not None:
        learner.optimization.restore(state)
    numbers = []
    for indices in ([0, 1, 2], [3], [1, 3], [0, 1, 2, 3]):
        numbers += [learner.accumulate(corpus.batch(np.array(indices))), learner.step(0.02)]
    state = {name: value.detach().cpu().clone() for name, value in learner.optimization.state().items()}
    with learner.averaged():
        weights = {name: value.detach().cpu().clone() for name, value in model.network.state_dict().items()}
    return numbers, weights, state


def assert_near(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.allclose(found[name].double(), value.double(), **NEAR), name


class TestValues:
    """The same numbers as on the CPU, with dropout and word dropout."""

    def test_training(self, make, device):
        numbers, weights, state = learnt(make(), RULES["sgd"])
        other = make()
        other.network.to(device)
        found = learnt(other, RULES["sgd"])
        assert found[0] == pytest.approx(numbers, rel=2e-3, abs=2e-4)
        assert_near(found[1], weights)
        assert_near(found[2], state)  # so that a checkpoint goes on anywhere

    @pytest.mark.parametrize("rule", RULES)
    def test_training_goes_on_elsewhere(self, device, rule):
        models = [small_model() for _ in range(3)]
        _, _, state = learnt(models[0], RULES[rule])
        wanted = learnt(models[1], RULES[rule], state)
        models[2].network.to(device)
        found = learnt(models[2], RULES[rule], state)
        assert_near(found[1], wanted[1])
        assert_near(found[2], wanted[2])

    def test_tagging(self, make, device):
        documents = sentences([5, 3, 1, 4, 0])
        wanted = Predictor(make()).predict(documents, probabilities=True, n_best=3, marginals=True)
        other = make()
        other.network.to(device)
        found = Predictor(other).predict(documents, probabilities=True, n_best=3, marginals=True)
        assert found.labels == wanted.labels
        for name in ("first", "path", "last", "sequences", "shares", "marginals"):
            assert np.allclose(getattr(found.tables, name), getattr(wanted.tables, name), **NEAR), name
        if other.network.attention is not None:
            one = sentences([5])[0]
            assert np.allclose(Predictor(other).attention(one), Predictor(make()).attention(one), **NEAR)


def test_moves_do_not_grow_with_the_tokens(stand_in):
    """Nothing that is done for each token moves a number between the devices."""
    model = small_model()
    corpora = [encoded(model, lengths) for lengths in ([4, 3, 2], [40, 30, 20], [20] * 30)]
    model.network.to(DEVICE)
    learner = Learner(model.network, TrainingConfig(averaging=0.9))

    def moves_of(action: Callable[[], object]) -> int:
        before = stand_in.moves
        action()
        return stand_in.moves - before

    def step(corpus: EncodedCorpus) -> None:
        learner.accumulate(corpus.batch(np.arange(len(corpus))))
        learner.step(0.01)

    def tag(documents: list[Document]) -> None:
        Predictor(model).predict(documents, probabilities=True, n_best=3, marginals=True)

    few, more, equal = (moves_of(lambda corpus=corpus: step(corpus)) for corpus in corpora)
    assert few == more == equal + 1 > 5  # sentences of one length need no order
    learner.show()
    assert moves_of(lambda: tag(sentences([40, 40]))) == moves_of(lambda: tag(sentences([4, 4]))) > 5


def on_other_device(monkeypatch: pytest.MonkeyPatch, device: torch.device = DEVICE) -> None:
    """Let a config's `cuda` be another device."""
    found = run_module.training_device

    def training_device(config: Config, *group: Any) -> torch.device:
        return device if config.training.device == "cuda" else found(config, *group)

    monkeypatch.setattr(run_module, "training_device", training_device)


class TestRun:
    """A whole run: the files of the CPU, and a training that goes on elsewhere."""

    SETTINGS = ("training.epochs=2", "training.averaging=0.9", "model.dropout=0.2")

    def test_gives_the_model_of_the_cpu(self, tiny_config, tmp_path, monkeypatch, device):
        on_other_device(monkeypatch, device)
        ends = {}
        for name in ("cpu", "cuda"):
            *_, end = run(tiny_config(*self.SETTINGS, f"training.device={name}"), tmp_path / name)
            assert isinstance(end, Finished)
            ends[name] = end
            results = json.loads((tmp_path / name / "results.json").read_text())
            assert results["device"] == ("cpu" if name == "cpu" else str(device))
        assert ends["cuda"].best.validation == ends["cpu"].best.validation
        assert ends["cuda"].test == ends["cpu"].test
        files = [load_file(tmp_path / name / CHECKPOINT) for name in ("cuda", "cpu")]
        assert files[0].keys() == files[1].keys()
        for name, value in files[1].items():
            assert files[0][name].shape == value.shape
            assert files[0][name].dtype == value.dtype or "row_logs" in name  # mps has no double precision
        assert load_model(tmp_path / "cuda").labels == load_model(tmp_path / "cpu").labels

    def test_goes_on_elsewhere(self, tiny_config, tmp_path, monkeypatch, device):
        on_other_device(monkeypatch, device)
        folder, first, second = tmp_path / "run", "cuda", "cpu"
        records = run(tiny_config(*self.SETTINGS, f"training.device={first}"), folder)
        for record in records:
            if isinstance(record, Epoch) and record.number == 1:
                next(records)  # its checkpoint is written
                records.close()
        *_, found = run(tiny_config(*self.SETTINGS, f"training.device={second}"), folder, resume=True)
        *_, wanted = run(tiny_config(*self.SETTINGS), tmp_path / "whole")
        assert found.best.loss == pytest.approx(wanted.best.loss, rel=1e-2)
        assert found.best.validation == wanted.best.validation


class TestLowPrecision:
    """bfloat16 before the decoder."""

    @pytest.mark.parametrize("threads", [1, 2])
    def test_is_near_full_precision(self, make, threads):
        exact, *_ = learnt(make(), {"threads": threads})
        model = make()
        rough, weights, _ = learnt(model, {"threads": threads, "precision": "bf16"})
        assert rough != exact
        assert rough == pytest.approx(exact, rel=0.1)
        assert {value.dtype for value in weights.values()} == {torch.float32}
        assert not torch.is_autocast_enabled("cpu")

    def test_the_decoder_has_full_precision(self, model):
        seen = set()
        own = model.network.decoder.loss

        def loss(emissions: Tensor, *rest: Any) -> Tensor:
            seen.add((emissions.dtype, torch.is_autocast_enabled("cpu")))
            return own(emissions, *rest)

        model.network.decoder.loss = loss
        learnt(model, {"precision": "bf16"})
        assert seen == {(torch.float32, False)}

    def test_a_training_keeps_its_precision(self, tiny_config, tmp_path):
        *_, end = run(tiny_config("training.epochs=1", "training.precision=bf16"), tmp_path)
        assert isinstance(end, Finished)
        with pytest.raises(nertool.NertoolError, match=r"training\.precision: .*bf16"):
            list(run(tiny_config("training.epochs=2"), tmp_path, resume=True))


class TestMissing:
    """A device that is not there, or does not exist, is a clear error before anything takes time."""

    @pytest.fixture(autouse=True)
    def _none_here(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    @pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CUDA", "cpu:0", "meta", ""])
    def test_no_name_of_a_device(self, tiny_config, name):
        with pytest.raises(ConfigError, match=r"there is no device .*expected auto, cpu, cuda"):
            tiny_config(f"training.device={name!r}")
        with pytest.raises(ConfigError, match=r"there is no device .*expected auto, cpu, cuda"):
            find_device(name)

    @pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps"])
    def test_not_there(self, tiny_config, tmp_path, trained_run: Path, name):
        with pytest.raises(ConfigError, match=rf"training\.device: {name} is not there: torch .*; use cpu"):
            next(run(tiny_config(f"training.device={name}"), tmp_path / "run"))
        assert not (tmp_path / "run").exists()
        for use in (lambda: nertool.Tagger.load(trained_run, device=name), lambda: load_model(trained_run, name)):
            with pytest.raises(ConfigError, match=rf"device: {name} is not there: torch .*; use cpu"):
                use()

    def test_auto_is_the_cpu(self, trained_run: Path):
        assert find_device("auto") == torch.device("cpu")
        assert nertool.Tagger.load(trained_run, device="auto")("Ada left").tokens == ("Ada", "left")

    def test_the_number_of_a_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
        assert (find_device("auto"), find_device("cuda:1")) == (torch.device("cuda"), torch.device("cuda:1"))
        with pytest.raises(ConfigError, match="cuda:2 is not there: there are 2 GPUs, and the first is cuda:0"):
            find_device("cuda:2")
