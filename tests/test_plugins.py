"""Kinds of inputs and encoders that other packages add by the entry points nertool.inputs and nertool.encoders."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import write_tiny

from nertool.config.loading import dump_config, load_config, locate_files, parse_config
from nertool.config.schema import plugins
from nertool.errors import ConfigError
from nertool.model.dropout import Dropout, Noise
from nertool.model.encoders import build_encoder
from nertool.model.encoders.convolutional import ConvolutionalEncoder
from nertool.model.inputs import input_class
from nertool.model.inputs.words import Words

SMALLEST = {"corpus": {"train": "train.txt"}}
PLUGIN = '''
"""A package with a kind of input, the length of each word, and a kind of encoder, a sum over the sentence."""

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from nertool.config.schema import Config, Section
from nertool.data.encoding import Table
from nertool.model.encoders.base import Encoder
from nertool.model.input_modules.base import InputModule
from nertool.model.inputs.base import Input


class LengthConfig(Section):
    """The length of each word."""

    kind: Literal["length"] = Field("length", description="the length of each word")
    file_settings = ("lists",)
    longest: Annotated[int, Field(ge=1)] = Field(8, description="longer words count as this long")
    lists: tuple[str, ...] = Field((), description="files")


class LengthModule(InputModule):
    def __init__(self, longest):
        super().__init__()
        self.output_size = 3
        self.weight = nn.Parameter(torch.empty(longest + 1, 3))

    def initialize(self, generator):
        nn.init.uniform_(self.weight, -1, 1, generator=generator)

    def forward(self, *features):
        return nn.functional.embedding(features[0], self.weight)


class Length(Input):
    Config = LengthConfig
    context_free = True

    @classmethod
    def fit(cls, name, config, documents, resources):
        return cls(name, config)

    @classmethod
    def restore(cls, name, config, state):
        return cls(name, config)

    def state(self):
        return None

    def module(self, noise):
        return LengthModule(self.config.longest)

    def encode_forms(self, forms):
        return Table(np.array([min(len(form), self.config.longest) for form in forms], dtype=np.int64))


class SumConfig(Section):
    """The sum of a sentence beside each token."""

    kind: Literal["sum", "mean"] = Field(description="the sum, or the mean, of a sentence beside each token")
    scale: float = Field(1.0, description="what it is multiplied by")


class Sum(Encoder):
    Config = SumConfig

    def __init__(self, config, inputs, dropout):
        super().__init__(config, inputs, dropout)
        self.config, self.output_size = config, 2 * inputs

    def forward(self, values, layout):
        mask = layout.mask.unsqueeze(-1).to(values.dtype)
        whole = (values * mask).sum(0, keepdim=True) * self.config.scale
        if self.config.kind == "mean":
            whole = whole / layout.lengths.to(values.dtype)[:, None]
        return torch.cat([values, whole.expand_as(values)], -1)
'''
ENTRY_POINTS = "[nertool.inputs]\nlength = length_plugin:Length\n[nertool.encoders]\nsum = length_plugin:Sum\n"


def install(folder: Path, entries: str = ENTRY_POINTS, code: str = PLUGIN, name: str = "length_plugin") -> Path:
    """Lay out a package as if it were installed in a folder."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(entries, encoding="utf-8")
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Install packages for one test."""
    before = set(sys.modules)

    def make(**options: str) -> Path:
        folder = install(tmp_path / "packages", **options)
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        plugins.cache_clear()
        return folder

    yield make
    plugins.cache_clear()
    for name in ("length_plugin", "broken_plugin"):
        if name not in before:
            sys.modules.pop(name, None)


def problems(tree: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config({**SMALLEST, **tree})
    return caught.value.problems


class TestConfig:
    def test_kinds_are_read_and_written_as_those_of_the_package(self, installed, tmp_path):
        installed()
        tree = {
            **SMALLEST,
            "inputs": {"length": {"longest": 4}, "other": {"kind": "length"}},
            "model": {"encoder": "mean"},
        }
        config = parse_config(tree)
        assert (config.inputs["length"].longest, config.inputs["other"].longest) == (4, 8)
        assert (config.model.encoder.kind, config.model.encoder.scale) == ("mean", 1.0)
        text = dump_config(config)
        assert "longest: 4  # longer words count as this long" in text
        assert "(one of rnn, gru, lstm, cnn, none, sum, mean)" in text
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        assert load_config(path) == config
        assert load_config(path).model_dump_json() == config.model_dump_json()

    def test_problems_name_their_kinds_and_settings(self, installed):
        installed()
        assert problems({"model": {"encoder": {"kind": "sum", "hidden": 5}}}) == [
            "model.encoder.hidden: sum does not read this setting; rnn, gru, lstm and cnn do"
        ]
        assert problems({"model": {"encoder": {"scale": 5}}}) == [
            "model.encoder.scale: lstm does not read this setting; sum and mean do"
        ]
        (message,) = problems({"model": {"encoder": "summ"}})
        assert "'none', 'sum' or 'mean', found 'summ'. Did you mean 'sum'?" in message
        (message,) = problems({"inputs": {"lenght": {}}})
        assert message.endswith("'none' or 'length'. Did you mean inputs.length?")
        assert problems({"inputs": {"length": {"longest": 0}}}) == [
            "inputs.length.longest: input should be greater than or equal to 1, found 0"
        ]
        (message,) = problems({"longest": 3})
        assert message.endswith("Did you mean inputs.length.longest?")

    def test_overrides_switch_to_them_and_back(self, installed, tmp_path):
        installed()
        path = tmp_path / "config.yaml"
        path.write_text("corpus: {train: a}\nmodel: {encoder: {kind: sum, scale: 2}}\n", encoding="utf-8")
        assert load_config(path, ["model.encoder=mean"]).model.encoder.scale == 2
        assert load_config(path, ["model.encoder=gru"]).model.encoder.hidden == 200
        assert load_config(path, ["model.encoder=gru", "model.encoder=sum"]).model.encoder.scale == 2
        assert load_config(path, ["inputs.length={longest: 5}"]).inputs["length"].longest == 5

    def test_their_files_are_found(self, installed, tmp_path, monkeypatch):
        installed()
        monkeypatch.setenv("NERTOOL_DATA", str(tmp_path / "data"))
        (tmp_path / "data").mkdir()
        for name in ("train.txt", "a.txt"):
            (tmp_path / "data" / name).touch()
        config = parse_config({**SMALLEST, "inputs": {"length": {"lists": ["a.txt"]}}})
        assert locate_files(config, None).inputs["length"].lists == (str(tmp_path / "data" / "a.txt"),)
        config = parse_config({**SMALLEST, "inputs": {"length": {"lists": ["b.txt"]}}})
        with pytest.raises(ConfigError, match=r"there is no file b\.txt"):
            locate_files(config, None)

    @pytest.mark.parametrize(
        "code",
        ["import a_module_that_is_nowhere\n", "x = 1\n", "class Length: pass\n", "class Length:\n Config = int\n"],
    )
    def test_one_that_cannot_be_loaded_is_named_where_it_is_needed(self, installed, code):
        installed(entries="[nertool.inputs]\nlength = broken_plugin:Length\n", code=code, name="broken_plugin")
        assert parse_config({**SMALLEST, "inputs": {"case": {}}}).inputs["case"].kind == "case"
        with pytest.raises(ConfigError, match=r"the entry point 'length' of nertool\.inputs cannot be loaded: "):
            parse_config({**SMALLEST, "inputs": {"length": {}}})

    def test_nothing_is_loaded_that_no_config_names(self, installed):
        entries = "[nertool.encoders]\nsum = broken_plugin:Sum\n[nertool.inputs]\nlength = broken_plugin:Length\n"
        installed(entries=entries, code="1 / 0\n", name="broken_plugin")
        config = parse_config({**SMALLEST, "model": {"encoder": "cnn"}})
        dump_config(config)
        assert input_class(config.inputs["words"]) is Words
        encoder = build_encoder(config.model.encoder, 5, Dropout(0.0, Noise(0)))
        assert type(encoder) is ConvolutionalEncoder
        assert "broken_plugin" not in sys.modules


@pytest.mark.slow
def test_a_model_with_kinds_of_other_packages_is_trained_saved_and_loaded(tmp_path):
    """In processes of their own: the package is there from the beginning, or not at all."""
    folder = install(tmp_path / "packages")
    config = write_tiny(tmp_path / "corpus")
    train = """
import sys
from pathlib import Path
from nertool.config.loading import load_config, locate_files
from nertool.training.run import run
path = Path(sys.argv[1])
overrides = ["training.epochs=2", "inputs.length={}", "model.encoder={kind: sum, scale: 0.5}"]
*_, finished = run(locate_files(load_config(path, overrides), path), Path(sys.argv[2]))
assert finished.test is not None
"""
    tag = """
import sys
from nertool.errors import NertoolError
from nertool.tagging.tagger import Tagger
try:
    print(len(Tagger.load(sys.argv[2]).tag("Ada met Otto .").tokens))
except NertoolError as problem:
    sys.exit(f"error: {problem}")
"""

    def python(code: str, packages: Path | None) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, filter(None, [packages, *sys.path])))
        return subprocess.run(
            [sys.executable, "-c", code, str(config), str(tmp_path / "run")],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    done = python(train, folder)
    assert done.returncode == 0, done.stderr
    done = python(tag, folder)
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr
    done = python(tag, None)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "'length'" in done.stderr
