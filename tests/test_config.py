"""Configs: problems and their messages, overrides, writing and reading, and where files are found."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nertool.config.files import data_folders, find, find_all
from nertool.config.loading import (
    dump_config,
    find_config,
    flow,
    in_force,
    load_config,
    locate_files,
    override,
    override_tree,
    parse_choices,
    parse_config,
)
from nertool.config.schema import READ_BY_SPACY, Config, Section
from nertool.data.corpus import read_corpus
from nertool.errors import ConfigError, CorpusError

SMALLEST = {"corpus": {"train": "train.txt"}}
INTEGER = "input should be a valid integer"
ALL_OFF = "all are switched off; a network needs at least one"
ENCODER_KINDS = "'rnn', 'gru', 'lstm', 'cnn' or 'none'"
INPUT_KINDS = "'words', 'characters', 'case', 'column', 'gazetteer', 'transformer' or 'none'"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no other folder to find files in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NERTOOL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def written(folder: Path, text: str | bytes, name: str = "config.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(*arguments, of=load_config) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        of(*arguments)
    return caught.value


class TestProblems:
    def test_all_are_reported_at_once(self, tmp_path):
        path = written(
            tmp_path,
            """
            corpus: {train: 5, columns: [word, ner], held_out: 1.0, strip: "("}
            inputs:
              words: {dimension: 50, dropout: 1.5, vectors: 7}
              characters: {width: 4, filtres: 10, network: cnn}
              case: {dimensions: 0}
              pos: {dimensions: 5}
            model:
              encoder: {kind: gru, hidden: 0}
              decoder: viterbi
            training:
              epochs: 0
              learning_rate: 0
              seed: -1
              clip: .nan
              optimizer: {kind: adam, weight_decay: .inf, momentum: 0.5}
              threads: many
            modle: {}
            """,
        )
        error = refusal(path)
        places = {problem.partition(":")[0] for problem in error.problems}
        assert places == {
            "corpus.train",
            "corpus.columns",
            "corpus.held_out",
            "corpus.strip",
            "inputs.words.dimension",
            "inputs.words.dropout",
            "inputs.words.vectors",
            "inputs.characters.width",
            "inputs.characters.filtres",
            "inputs.case.dimensions",
            "inputs.pos.kind",
            "model.encoder.hidden",
            "model.decoder",
            "training.epochs",
            "training.learning_rate",
            "training.seed",
            "training.clip",
            "training.optimizer.weight_decay",
            "training.optimizer.momentum",
            "training.threads",
            "modle",
        }
        assert error.source == path
        lines = str(error).splitlines()
        assert lines[0] == f"{path}: {len(error.problems)} problems"
        assert lines[1:] == [f"  - {problem}" for problem in error.problems]

    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            ({}, "corpus: is missing and has no default"),
            ({"corpus": {}}, "corpus.train: is missing; name a file to learn from, or a dataset with hub"),
            (
                {"corpus": {"train": "t", "revision": "main"}},
                "corpus.revision: is for a dataset only, and hub names none",
            ),
            (
                {**SMALLEST, "training": {"learning_rat": 1}},
                "training.learning_rat: no such setting; training has seed, epochs, patience, batch_size, "
                "optimizer, learning_rate, schedule, clip, clip_by, averaging, device, precision, threads. "
                "Did you mean training.learning_rate?",
            ),
            (
                {**SMALLEST, "model": {"encoder": {"units": 1}}},
                "model.encoder.units: no such setting; model.encoder has kind, hidden, layers, bidirectional, "
                "dropout.",
            ),
            (
                {**SMALLEST, "model": {"attention": {"kind": "multi_head", "dimensions": 10}}},
                "model.attention.dimensions: 10 cannot be shared equally by 4 heads",
            ),
            (
                {**SMALLEST, "model": {"encoder": {"kind": "cnn", "width": 4}}},
                "model.encoder.width: must be odd, so that a filter has a middle, found 4",
            ),
            (
                {**SMALLEST, "model": {"encoder": {"kind": "cnn", "dilations": [1, 65]}}},
                "model.encoder.dilations.1: input should be less than or equal to 64, found 65",
            ),
            (
                {**SMALLEST, "trainng": {}},
                "trainng: no such setting; the config has language, corpus, inputs, model, start, training. "
                "Did you mean training?",
            ),
            ({**SMALLEST, "model": "lstm"}, "model: input should be a valid dictionary, found 'lstm'"),
            ({**SMALLEST, "training": {"epochs": "x" * 500}}, f"training.epochs: {INTEGER}, found '{'x' * 99}..."),
            (
                {**SMALLEST, "training": {"schedule": {"kind": "step", "reduce_by": 1.0}}},
                "training.schedule.reduce_by: input should be less than 1, found 1.0",
            ),
            (
                {**SMALLEST, "training": {"schedule": "plateau", "patience": 5}},
                "training.schedule.reduce_every: 5 is not below patience (5), so that training ends before the "
                "rate is ever reduced",
            ),
            (
                {**SMALLEST, "inputs": {"words": {"vectors": "v.txt", "dimensions": 5}}},
                "inputs.words.dimensions: the files of vectors have their own; remove dimensions or vectors",
            ),
            ({**SMALLEST, "inputs": {"words": None, "characters": None}}, f"inputs: {ALL_OFF}"),
            ({**SMALLEST, "inputs": 5}, "inputs: input should be a valid dictionary, found 5"),
            ({**SMALLEST, "inputs": {"case": 5}}, "inputs.case: input should be a valid dictionary, found 5"),
            (
                {**SMALLEST, "inputs": {"Pos": {"kind": "case"}}},
                "inputs.Pos: the name of an input consists of a-z, 0-9 and _, and begins with a letter",
            ),
            (
                {**SMALLEST, "inputs": {"pos": {"kind": "column"}}},
                "inputs.pos.column: is missing and has no default",
            ),
            (
                {"corpus": {"train": "t", "columns": ["token", "ner"]}},
                "corpus.label: no column is called 'label' (columns: token, ner)",
            ),
            (
                {"corpus": {"train": "t", "columns": ["token", "a", "a"]}},
                "corpus.columns: each column needs a name of its own, found ['token', 'a', 'a']",
            ),
            ({**SMALLEST, 5: 1}, "5: keys should be strings, found 5"),
        ],
    )
    def test_messages(self, tree, message):
        assert refusal(tree, "c.yaml", of=parse_config).problems == [message]

    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            ({"model": {"encoder": {"width": 3}}}, "model.encoder.width: lstm | cnn does"),
            (
                {"model": {"encoder": {"kind": "none", "hidden": 3}}},
                "model.encoder.hidden: none | {recurrent}, cnn do",
            ),
            (
                {"model": {"attention": {"kind": "dot", "heads": 2}}},
                "model.attention.heads: dot | multi_head does",
            ),
            (
                {"model": {"decoder": {"kind": "softmax", "constraints": "none"}}},
                "model.decoder.constraints: softmax | crf does",
            ),
            (
                {"training": {"optimizer": {"kind": "adam", "momentum": 0.5}}},
                "training.optimizer.momentum: adam | sgd does",
            ),
            (
                {"training": {"schedule": {"kind": "one_cycle", "warmup": 1}}},
                "training.schedule.warmup: one_cycle | inverse, step, plateau, cosine do",
            ),
            (
                {"training": {"schedule": {"kind": "cosine", "reduce_by": 0.5}}},
                "training.schedule.reduce_by: cosine | step, plateau do",
            ),
            (
                {"inputs": {"characters": {"network": "lstm", "filters": 5}}},
                "inputs.characters.filters: lstm | cnn does",
            ),
            ({"inputs": {"characters": {"hidden": 5}}}, "inputs.characters.hidden: cnn | lstm, gru do"),
            ({"inputs": {"case": {"network": "cnn"}}}, "inputs.case.network: case | characters does"),
            ({"inputs": {"any": {"kind": "case", "files": ["a"]}}}, "inputs.any.files: case | gazetteer does"),
            ({"inputs": {"words": {"kind": "none", "vectors": []}}}, "inputs.words.vectors: none | words does"),
        ],
    )
    def test_a_setting_that_the_kind_does_not_read(self, tree, message):
        subject, readers = message.format(recurrent="rnn, gru, lstm").split(" | ")
        *names, verb = readers.replace(",", "").split()
        listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        wanted = f"{subject} does not read this setting; {listed} {verb}"
        assert refusal({**SMALLEST, **tree}, of=parse_config).problems == [wanted]

    @pytest.mark.parametrize(
        ("tree", "place", "kinds", "end"),
        [
            (
                {"model": {"encoder": "gruu"}},
                "model.encoder",
                ENCODER_KINDS,
                ", found 'gruu'. Did you mean 'gru'?",
            ),
            ({"model": {"encoder": {"kind": 7}}}, "model.encoder.kind", ENCODER_KINDS, ", found 7"),
            ({"model": {"encoder": {"kind": ["x"]}}}, "model.encoder.kind", ENCODER_KINDS, ", found ['x']"),
            (
                {"training": {"optimizer": "lion"}},
                "training.optimizer",
                "'sgd', 'adam' or 'adamw'",
                ", found 'lion'",
            ),
            (
                {"inputs": {"characters": {"network": "rnn"}}},
                "inputs.characters.network",
                "'cnn', 'lstm' or 'gru'",
                None,
            ),
            (
                {"inputs": {"word": {"dropout": 0.1}}},
                "inputs.word.kind",
                INPUT_KINDS,
                ". Did you mean inputs.words?",
            ),
            ({"inputs": {"pos": {"column": "pos"}}}, "inputs.pos.kind", INPUT_KINDS, None),
            ({"inputs": {"pos": {"kind": "colum"}}}, "inputs.pos.kind", INPUT_KINDS, "Did you mean 'column'?"),
        ],
    )
    def test_unknown_kinds(self, tree, place, kinds, end):
        (message,) = refusal({**SMALLEST, **tree}, of=parse_config).problems
        assert message.startswith(f"{place}: ")
        assert f"should be {kinds}" in message
        assert message.endswith(end or "")

    @pytest.mark.parametrize(
        ("tree", "meant"),
        [
            ({"epochs": 5}, "training.epochs"),
            ({"encoder": {"kind": "gru"}}, "model.encoder"),
            ({"kind": "gru"}, "model.attention.kind, model.decoder.kind or model.encoder.kind"),
            ({"vectors": []}, "inputs.words.vectors"),
            ({"model": {"width": 3}}, "model.encoder.width or inputs.characters.width"),
            ({"model": {"epochs": 3}}, "training.epochs"),
            ({"training": {"dropuot": 3}}, "model.dropout, model.encoder.dropout or inputs.characters.dropout"),
            ({"training": {"bach_size": 3}}, "training.batch_size"),
            ({"training": {"optimizer": {"momentun": 0.5}}}, "training.optimizer.momentum"),
            ({"inputs": {"characters": {"filtres": 5}}}, "inputs.characters.filters"),
        ],
    )
    def test_misplaced_and_misspelt_settings(self, tree, meant):
        (message,) = refusal({**SMALLEST, **tree}, of=parse_config).problems
        assert message.endswith(f"Did you mean {meant}?")

    @pytest.mark.parametrize(
        ("tree", "wanted"),
        [
            ({"words": {"vectors": ["x"], "dropout": 0.1}}, ["inputs.words.vectors", "inputs.words.dropout"]),
            ({"words": {}}, ["inputs.words"]),
            ({"words": 5}, ["inputs.words"]),
            (
                {"model": {"characters": {"kind": "none"}}},
                ["inputs.characters.network (`inputs.characters: null`"],
            ),
            ({"model": {"characters": {"case_dimensions": 5}}}, ["inputs.case.dimensions"]),
            ({"model": {"characters": {"filters": 5}}}, ["inputs.characters.filters"]),
            ({"model": {"constraints": "always"}}, ["model.decoder.constraints"]),
            (
                {"training": {"decay": 0.1, "reduce_every": 5, "reduce_by": 0.5, "warmup": 1}},
                [f"training.schedule.{name}" for name in ("decay", "reduce_every", "reduce_by", "warmup")],
            ),
            (
                {"training": {"momentum": 0.1, "weight_decay": 0.5}},
                ["training.optimizer.momentum", "training.optimizer.weight_decay"],
            ),
        ],
    )
    def test_settings_of_earlier_versions(self, tree, wanted):
        problems = refusal({**SMALLEST, **tree}, of=parse_config).problems
        assert len(problems) == len(wanted)
        for problem, new in zip(problems, wanted, strict=True):
            assert f": no such setting; it is now {new}" in problem

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "expected settings such as 'corpus:', found none"),
            ("# nothing but a comment\n", "expected settings such as 'corpus:', found none"),
            ("- corpus\n", "expected settings such as 'corpus:', found none"),
            ("corpus\n", "expected settings such as 'corpus:', found none"),
            ("corpus:\n\ttrain: a\n", r"not valid YAML: .*'\\t' that cannot start any token.*line 2"),
            (
                "corpus: {train: a\n",
                r"not valid YAML: while parsing a flow mapping, expected ',' or '}', .*\(line 2, column 1\)",
            ),
            (
                "corpus: {train: a}\ncorpus: {train: b}\n",
                r"not valid YAML: the key 'corpus' is written twice.*line 2",
            ),
            ("corpus:\n  train: a\n  test: b\n  train: c\n", r"the key 'train' is written twice.*line 4"),
            ("a: &x 1\nb: *x\n", r"aliases \(\*name\) are not used here.*line 2"),
            ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"),
            ("corpus: {train: a}\n? [x]\n: 1\n", r"a list or mapping cannot be a key.*line 2"),
            ("corpus: {train: a}\n{a: b}: 1\n", r"cannot be a key.*line 2"),
            ("corpus: {train: a}\n---\nlanguage: de\n", "expected a single document"),
            ("corpus: {train: !!python/object/apply:os.getcwd []}\n", "could not determine a constructor"),
            ("corpus: {train: a}\nlanguage: 2024-13-45\n", "not valid YAML: month must be in 1..12"),
            ("corpus: {train: a}\nlanguage: 0b_\n", "not valid YAML: invalid literal"),
            ("corpus: {train: a}\nlanguage: !!bool maybe\n", "not valid YAML"),
            ("corpus: {train: a}\nlanguage: !!timestamp noon\n", "not valid YAML"),
            (f"corpus: {{train: a}}\nlanguage: {'1' * 5000}\n", "not valid YAML"),
            ("[" * 5000, "not valid YAML"),
            ("corpus: {train: 'a\0'}\n", "not valid YAML: unacceptable character"),
            ("corpus: {train: caf\xe9}\n".encode("latin-1"), "not a UTF-8 text file"),
        ],
    )
    def test_files_that_are_no_settings(self, tmp_path, text, message):
        path = written(tmp_path, text)
        error = refusal(path)
        assert re.search(message, str(error)), str(error)
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)

    def test_files_that_cannot_be_read(self, tmp_path):
        assert "No such file" in str(refusal(tmp_path / "none.yaml"))
        assert "directory" in str(refusal(tmp_path))

    def test_a_byte_order_mark_and_windows_lines_are_no_problem(self, tmp_path):
        path = written(tmp_path, b"\xef\xbb\xbfcorpus:\r\n  train: a\r\n")
        assert load_config(path).corpus.train == "a"

    def test_a_config_cannot_be_changed(self):
        config = parse_config(SMALLEST)
        with pytest.raises(ValueError, match="frozen"):
            config.training.epochs = 3


NAMES = """
corpus inputs model training words characters case pos encoder attention decoder optimizer schedule kind network
none null lstm cnn gru sgd adam filters hidden width vectors files column train hub epochs momentum clip
"""
names = st.sampled_from(NAMES.split())
keys = names | st.sampled_from(["", "x", "Pos", 3, None, True, 1.5, "words.vectors"])
values = names | st.sampled_from([None, 0, 5, -1, 0.5, True, "", [], ["a"], {}, float("nan")])
trees = st.dictionaries(
    keys,
    values | st.dictionaries(keys, values | st.dictionaries(keys, values, max_size=3), max_size=4),
    max_size=5,
)


@given(trees, st.lists(st.tuples(st.lists(names, min_size=1, max_size=3), values | trees), max_size=3))
@example({"inputs": {3: {"kind": "case", "filters": 1}}}, [])
@example({"corpus": {"train": "a"}, "inputs": 5}, [(["inputs", "words", "kind"], "case")])
@settings(max_examples=300)
def test_whatever_is_given_is_a_config_or_a_list_of_problems(tree, overrides):
    given_ = [f"{'.'.join(path)}={flow(value)}" for path, value in overrides]
    try:
        config = override_tree({"corpus": {"train": "train.txt"}, **tree}, given_)
    except ConfigError as error:
        assert error.problems and all(error.problems)
        assert all(re.match(r"--set |(\S+|the config)( |: )", problem) for problem in error.problems)
    else:
        assert override(config, []) == config


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "place", "value"),
        [
            ("training.epochs=2", "training.epochs", 2),
            (" training.epochs = 2 ", "training.epochs", 2),
            ("training.learning_rate=1e-3", "training.learning_rate", 0.001),
            ("corpus.train=a=b.txt", "corpus.train", "a=b.txt"),
            ("corpus.validation=null", "corpus.validation", None),
            ("corpus.validation=", "corpus.validation", None),
            ("inputs.words.vectors=[a.txt, b.txt]", "inputs.words.vectors", ("a.txt", "b.txt")),
            ("inputs.words.vectors=[]", "inputs.words.vectors", ()),
            ("inputs.characters.kind=none", "inputs.characters.kind", "none"),
            ("inputs.characters=null", "inputs.characters.kind", "none"),
            ("inputs.pos={kind: column, column: pos}", "inputs.pos.column", "pos"),
            ("model.encoder=cnn", "model.encoder.width", 3),
            ("model.encoder={hidden: 7, layers: 2}", "model.encoder.hidden", 7),
            ("model.encoder.bidirectional=no", "model.encoder.bidirectional", False),
            ("corpus.strip=(?<=.)[0-9]+$", "corpus.strip", "(?<=.)[0-9]+$"),
            ("corpus={train: c}", "corpus.train", "c"),
        ],
    )
    def test_they_replace_what_the_file_says(self, tmp_path, override, place, value):
        path = written(
            tmp_path,
            "corpus: {train: a, validation: v}\ninputs: {words: {vectors: [x]}}\nmodel:\ntraining: {epochs: 9}\n",
        )
        config = load_config(path, ["model.dropout=0.25", override])
        found = config
        for name in place.split("."):
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        assert found == value
        assert config.model.dropout == 0.25

    def test_the_last_one_counts(self, tmp_path):
        path = written(tmp_path, "corpus: {train: a}\n")
        assert load_config(path, ["training.seed=1", "training.seed=2"]).training.seed == 2

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("epochs", "--set epochs: expected something like training.epochs=5"),
            ("=5", "--set =5: expected something like training.epochs=5"),
            ("training..epochs=5", "--set training..epochs=5: expected something like"),
            (".=5", "--set .=5: expected something like"),
            ("language.code=de", "--set language.code=de: 'language' is a single setting, not a group"),
            ("training.epochs=[", "--set training.epochs=[: not valid YAML: "),
            ("training.epochs=2024-13-45", "--set training.epochs=2024-13-45: not valid YAML: month"),
            ("corpus={a: 1, a: 2}", "the key 'a' is written twice"),
            ("training.epochs=few", "training.epochs: input should be a valid integer, found 'few'"),
            ("training=5", "training: input should be a valid dictionary"),
            ("epochs=5", "epochs: no such setting; the config has language, corpus"),
            ("training.epoch=5", "Did you mean training.epochs?"),
        ],
    )
    def test_wrong_ones(self, tmp_path, override, message):
        path = written(tmp_path, "corpus: {train: a}\nlanguage: en\n")
        assert message in str(refusal(path, [override]))


class TestSwitching:
    """Overrides that choose another kind than the file's."""

    FILE = """
    corpus: {train: a}
    inputs:
      words: {dimensions: 20, dropout: 0.1}
      characters: {network: cnn, filters: 9, width: 5, dropout: 0.2}
    model:
      encoder: {kind: cnn, hidden: 7, width: 5, dropout: 0.3}
      decoder: crf
    training:
      optimizer: {kind: sgd, momentum: 0.8, weight_decay: 0.01}
      schedule: {kind: plateau, reduce_every: 3, warmup: 0.5}
    """

    @pytest.mark.parametrize("source", ["file", "config"])
    @pytest.mark.parametrize(
        ("overrides", "place", "wanted"),
        [
            (["model.encoder.kind=lstm"], "model.encoder", {"kind": "lstm", "hidden": 7, "dropout": 0.3}),
            (["model.encoder=lstm"], "model.encoder", {"kind": "lstm", "hidden": 7, "dropout": 0.3}),
            (["model.encoder.kind=none"], "model.encoder", {"kind": "none"}),
            (["model.encoder=gru", "model.encoder.kind=cnn"], "model.encoder", {"width": 5, "hidden": 7}),
            (["model.encoder.hidden=4", "model.encoder=gru"], "model.encoder", {"kind": "gru", "hidden": 4}),
            (["model.encoder={kind: gru}"], "model.encoder", {"kind": "gru", "hidden": 200, "dropout": None}),
            (["model.encoder={layers: 2}"], "model.encoder", {"kind": "lstm", "hidden": 200, "layers": 2}),
            (["model={dropout: 0.1}"], "model.encoder", {"kind": "lstm", "hidden": 200}),
            (["model.decoder.constraints=always"], "model.decoder", {"kind": "crf", "constraints": "always"}),
            (["model.decoder=softmax"], "model.decoder", {"kind": "softmax"}),
            (["training.optimizer=adam"], "training.optimizer", {"kind": "adam", "weight_decay": 0.01}),
            (["training.schedule.kind=cosine"], "training.schedule", {"kind": "cosine", "warmup": 0.5}),
            (["training.schedule=one_cycle"], "training.schedule", {"kind": "one_cycle"}),
            (["training.schedule=step"], "training.schedule", {"kind": "step", "reduce_every": 3}),
            (
                ["inputs.characters.network=lstm"],
                "inputs.characters",
                {"kind": "characters", "network": "lstm", "hidden": 25, "dropout": 0.2},
            ),
            (["inputs.characters.kind=none"], "inputs.characters", {"kind": "none"}),
            (["inputs.characters=none"], "inputs.characters", {"kind": "none"}),
            (["inputs.characters.kind=case"], "inputs.characters", {"kind": "case", "dimensions": 5}),
            (
                ["inputs.words.vectors=[v]"],
                "inputs.words",
                {"vectors": ("v",), "dimensions": None, "dropout": 0.1},
            ),
            (["inputs.words.vectors=[]"], "inputs.words", {"vectors": (), "dimensions": 20}),
        ],
    )
    def test_what_the_new_kind_reads_is_kept(self, tmp_path, source, overrides, place, wanted):
        path = written(tmp_path, self.FILE)
        config = load_config(path, overrides) if source == "file" else override(load_config(path), overrides)
        group, name = place.split(".")
        section = config.inputs[name] if group == "inputs" else getattr(getattr(config, group), name)
        found = section.model_dump()
        defaults = ("dimensions", "bidirectional", "maximum", "width", "dilations") if source == "config" else ()
        assert {key: found[key] for key in wanted if key not in defaults} == {
            key: value for key, value in wanted.items() if key not in defaults
        }
        assert config.training.optimizer.weight_decay == 0.01, "all else stays"

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (
                ["model.encoder.width=3", "model.encoder=gru"],
                "model.encoder.width: gru does not read this setting",
            ),
            (
                ["model.encoder=gru", "model.encoder.width=3"],
                "model.encoder.width: gru does not read this setting",
            ),
            (["model.encoder={kind: gru, width: 3}"], "model.encoder.width: gru does not read this setting"),
            (["model={encoder: {kind: gru, width: 3}}"], "model.encoder.width: gru does not read this setting"),
            (
                ["inputs={words: {dimensions: 5}}", "inputs.words.vectors=[v]"],
                "inputs.words.dimensions: the files of vectors have their own",
            ),
            (["model.encoder=gruu"], "model.encoder.kind: input should be 'rnn'"),
            (["inputs.characters.network=gruu"], "inputs.characters.network: input should be 'cnn'"),
            (["inputs.pos.column=x"], "inputs.pos.kind: is missing"),
            (["words.vectors=[]"], "words.vectors: no such setting; it is now inputs.words.vectors"),
        ],
    )
    def test_what_overrides_say_is_never_dropped(self, tmp_path, overrides, message):
        assert message in str(refusal(written(tmp_path, self.FILE), overrides))

    def test_a_mistake_of_the_file_stays_one(self, tmp_path):
        path = written(tmp_path, "corpus: {train: a}\nmodel: {encoder: {kind: cnn, widht: 3, heads: 2}}\n")
        error = refusal(path, ["model.encoder=gru"])
        assert [problem.partition(":")[0] for problem in error.problems] == [
            "model.encoder.widht",
            "model.encoder.heads",
        ]

    def test_an_input_that_is_switched_off_is_switched_on_by_its_kind(self, tmp_path):
        path = written(tmp_path, "corpus: {train: a}\ninputs: {characters: }\n")
        assert "characters" not in load_config(path).active_inputs
        assert load_config(path, ["inputs.characters=characters"]).inputs["characters"].network == "cnn"
        on = load_config(path, ["inputs.characters.kind=characters", "inputs.characters.network=gru"])
        assert on.inputs["characters"].network == "gru"

    def test_the_tree_that_is_given_stays_as_it_is(self):
        tree = {**SMALLEST, "model": {"encoder": "gru"}}
        override_tree(tree, ["model.encoder.hidden=3", "training.epochs=3"])
        assert tree == {**SMALLEST, "model": {"encoder": "gru"}}

    def test_all_that_are_malformed_are_told(self, tmp_path):
        error = refusal(written(tmp_path, self.FILE), ["a", "training.epochs=3", "b=["])
        assert len(error.problems) == 2


class TestChoices:
    @pytest.mark.parametrize(
        ("text", "key", "values"),
        [
            ("model.encoder.kind=rnn,gru , lstm", "model.encoder.kind", ["rnn", "gru", "lstm"]),
            (" training.epochs = 3", "training.epochs", [3]),
            ("a=1,0.5,true,null,~,'null','a, b'", "a", [1, 0.5, True, None, None, "null", "a, b"]),
            ("model.encoder.dilations=[1],[1, 2]", "model.encoder.dilations", [[1], [1, 2]]),
            ("model.attention={kind: dot},{kind: none}", "model.attention", [{"kind": "dot"}, {"kind": "none"}]),
            ("corpus.train=a=b.txt", "corpus.train", ["a=b.txt"]),
        ],
    )
    def test_a_setting_and_its_values(self, text, key, values):
        assert parse_choices(text) == (key, values)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("model.dropout", "--vary model.dropout: expected something like model.encoder.kind=rnn,gru,lstm"),
            ("model.dropout=", "expected something like"),
            ("=1,2", "expected something like"),
            ("", "expected something like"),
            ("a=1,[", "--vary a=1,[: not valid YAML"),
            ("a=1,,2", "not valid YAML"),
            ("a=1], [2", "not valid YAML"),
            ("a=&x 1,*x", "aliases"),
            ("a=2024-13-45", "not valid YAML: month"),
        ],
    )
    def test_wrong_ones(self, text, message):
        assert message in str(refusal(text, of=parse_choices))


NEWLINES = ["a\nb", "a\n\nb\n", "\r\n", "\u2028", "\x85 x", "a\n..."]
LIKE_YAML = [
    "",
    " ",
    "yes",
    "null",
    "~",
    "1",
    "1e5",
    "0x1F",
    "2024-01-01",
    "a: b",
    "a #b",
    "- a",
    "...",
    "---",
    "#",
]
SPECIAL = ["\ufeff", "\ud800", "🎈", "'", '"', "%a", "&a", "*a", "!a", "=", "<<", "?", "[a", "{a"]
text = st.text(st.characters(), max_size=12) | st.sampled_from(NEWLINES + LIKE_YAML + SPECIAL)
share = st.floats(0, 1, exclude_max=True)
rate = st.floats(0, allow_infinity=False)
count = st.integers(1, 65_536)
columns = st.none() | st.lists(text, unique=True, max_size=3).map(lambda names: ("token", "label", *names)).filter(
    lambda names: len(set(names)) == len(names)
)
configs = st.fixed_dictionaries(
    {
        "language": st.sampled_from(["en", "zh", "xx"]),
        "corpus": st.fixed_dictionaries(
            {
                "train": text,
                "validation": st.none() | text,
                "held_out": st.floats(0, 1, exclude_min=True, exclude_max=True),
                "held_out_by": st.sampled_from(["last", "shuffled"]),
                "test": st.none() | text,
                "columns": columns,
                "scheme": st.sampled_from(["detect", "IOB1", "IOB2", "IOBES", "BILOU", "BMES", "plain"]),
                "stray": st.sampled_from(["repair", "refuse"]),
                "strip": st.none() | text.map(re.escape),
            }
        ),
        "inputs": st.fixed_dictionaries(
            {
                "words": st.fixed_dictionaries(
                    {
                        "vectors": st.lists(text, max_size=3).map(tuple),
                        "extra_rows": st.integers(0, 10**7),
                        "dropout": share,
                        "trainable": st.booleans(),
                    }
                )
            },
            optional={
                "characters": st.none()
                | st.just("none")
                | st.fixed_dictionaries({"network": st.just("cnn"), "width": st.sampled_from([1, 3, 9])})
                | st.fixed_dictionaries({"network": st.sampled_from(["lstm", "gru"]), "hidden": count}),
                "case": st.fixed_dictionaries({}, optional={"dimensions": count}),
                "pos": st.fixed_dictionaries({"kind": st.just("column"), "column": text}),
                "names": st.fixed_dictionaries(
                    {"kind": st.just("gazetteer"), "files": st.lists(text, min_size=1, max_size=2)}
                ),
                "null": st.just("case"),
                "other": st.none(),
            },
        ),
        "model": st.fixed_dictionaries(
            {
                "encoder": st.sampled_from(["rnn", "gru", "lstm", "cnn", "none"])
                | st.fixed_dictionaries(
                    {},
                    optional={
                        "kind": st.sampled_from(["rnn", "gru", "lstm"]),
                        "hidden": count,
                        "layers": st.integers(1, 8),
                        "bidirectional": st.booleans(),
                        "dropout": st.none() | share,
                    },
                )
                | st.fixed_dictionaries(
                    {
                        "kind": st.just("cnn"),
                        "dilations": st.lists(st.integers(1, 64), min_size=1, max_size=4).map(tuple),
                    }
                ),
                "attention": st.sampled_from(["none", "dot", {"kind": "multi_head", "heads": 8}]),
                "decoder": st.sampled_from(["crf", "softmax", "constrained", {"constraints": "always"}]),
                "dropout": share,
                "locked_dropout": st.booleans(),
            }
        ),
        "training": st.fixed_dictionaries(
            {
                "seed": st.integers(0, 2**32 - 1),
                "epochs": count,
                "learning_rate": st.floats(0, exclude_min=True, allow_infinity=False),
                "optimizer": st.sampled_from(["sgd", "adam", "adamw"])
                | st.fixed_dictionaries({"momentum": share, "weight_decay": rate}),
                "schedule": st.sampled_from(["inverse", "step", "cosine", "plateau", "one_cycle"])
                | st.fixed_dictionaries({"decay": rate, "warmup": rate})
                | st.fixed_dictionaries(
                    {
                        "kind": st.just("step"),
                        "reduce_every": count,
                        "reduce_by": st.floats(0, 1, exclude_min=True, exclude_max=True),
                    }
                ),
                "clip": rate,
                "clip_by": st.sampled_from(["norm", "value"]),
            }
        ),
    }
).map(Config.model_validate)


class TestFlow:
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
            max_leaves=5,
        )
    )
    @example(["a\nb", 1, None, True])
    @example("\ud800")
    def test_a_value_comes_back_from_one_line(self, value):
        assert len(flow(value).splitlines()) == 1
        assert parse_choices(f"a={flow([value])[1:-1]}") == ("a", [value])


def leaves(section: Section, depth: int = 0) -> list[tuple[int, str]]:
    """Depth and key of every setting that a dump may have, in order."""
    found: list[tuple[int, str]] = []
    for key in type(section).model_fields:
        value = getattr(section, key)
        found.append((depth, key))
        for name, entry in value.items() if isinstance(value, dict) else ():
            found.append((depth + 1, name))
            found += leaves(entry, depth + 2) if entry.kind != "none" else []
        found += leaves(value, depth + 1) if isinstance(value, Section) else []
    return found


class TestWriting:
    @given(configs)
    @example(
        parse_config(
            {"corpus": {"train": "\x85\\ x", "validation": "a\n\n b", "columns": ["token", "label", "\n"]}}
        )
    )
    @settings(max_examples=60)
    def test_what_is_written_is_read_back(self, tmp_path_factory, config):
        folder = tmp_path_factory.getbasetemp() / "configs"
        path = written(folder, dump_config(config))
        assert load_config(path) == config

    @given(configs)
    @settings(max_examples=20)
    def test_each_line_is_one_setting_with_its_description(self, config):
        lines = dump_config(config).split("\n")
        assert lines.pop() == ""
        found = []
        for line in lines:
            setting, _, comment = line.partition("  # ")
            indent = re.match(" *", line)
            assert indent is not None
            assert comment or setting.endswith(":")
            found.append((len(indent[0]) // 2, setting.strip().partition(":")[0].strip("'")))
        wanted = leaves(config)
        order = iter(wanted)
        assert all(each in order for each in found), "in the order of the schema"
        missing = {key for _, key in wanted} - {key for _, key in found}
        idle = {"held_out", "held_out_by", "config", "revision", "dropout", "dimensions", "extra_rows", "clip_by"}
        idle |= {"fraction_seed", "shuffle", "epoch_tokens", "keep_labels", "self_label"}
        assert missing <= idle

    def test_defaults_are_written_out(self, tmp_path):
        text = dump_config(parse_config(SMALLEST))
        assert "hidden: 200  # units in each direction" in text
        assert "kind: lstm  # recurrent network over the sentence (one of rnn, gru, lstm, cnn, none)" in text
        assert "network: cnn  # what reads the characters (one of cnn, lstm, gru)" in text
        assert "train: train.txt  #" in text
        assert "vectors: []  #" in text
        assert "validation: null  #" in text
        assert load_config(written(tmp_path, text)) == parse_config(SMALLEST)

    def test_what_is_not_in_force_is_left_out(self, tmp_path):
        config = parse_config(
            {
                "corpus": {"train": "a", "validation": "b"},
                "inputs": {"characters": None},
                "model": {"encoder": "none"},
            }
        )
        text = dump_config(config)
        for key in ("hidden", "held_out", "revision", "filters"):
            assert f"{key}:" not in text
        assert "  characters: null  # switched off\n" in text
        assert load_config(written(tmp_path, text)) == config
        kept = parse_config({"corpus": {"train": "a", "validation": "b", "held_out": 0.5}})
        assert "held_out: 0.5" in dump_config(kept)

    def test_settings_that_have_no_effect_make_no_difference(self):
        base = {"corpus": {"train": "a", "validation": "b"}, "training": {"clip": 0}}
        one = parse_config(base)
        for override_ in ("corpus.held_out=0.5", "training.clip_by=value", "model.encoder.dropout=0.25"):
            assert in_force(override(one, [override_])) == in_force(one)
        for override_ in ("training.clip=1", "model.encoder.layers=2", "inputs.case={}", "corpus.validation=null"):
            assert in_force(override(one, [override_])) != in_force(one)


class TestFindConfig:
    def test_by_path(self, here):
        path = written(here, "", "own.yaml")
        assert find_config("own.yaml").resolve() == path
        assert find_config(str(path)) == path

    @pytest.mark.parametrize("name", ["demo.yaml", "demo", "ewt-pos", "conll03.yaml"])
    def test_by_the_name_of_one_that_ships(self, here, name):
        found = find_config(name)
        assert found.name == f"{name.removesuffix('.yaml')}.yaml"
        load_config(found)

    def test_a_file_here_comes_before_one_that_ships(self, here):
        path = written(here, "", "demo.yaml")
        assert find_config("demo.yaml").resolve() == path
        (here / "conll03.yaml").mkdir()
        assert find_config("conll03.yaml").resolve().parent != here, "a folder is no config"

    @pytest.mark.parametrize(
        ("name", "hint"), [("conl03.yaml", "conll03"), ("wiebo", "weibo"), ("configs/demo", "demo")]
    )
    def test_a_misspelt_name(self, here, name, hint):
        message = str(refusal(name, of=find_config))
        assert message.startswith(f"no config '{name}' here")
        assert message.endswith(f"Did you mean {hint}.yaml?")
        for shipped in ("conll03.yaml", "conll2000.yaml", "demo.yaml", "ewt-pos.yaml", "weibo.yaml"):
            assert shipped in message

    @pytest.mark.parametrize("name", ["", ".", "qqq", "x" * 5000, "demo.yaml/x", ".."])
    def test_names_of_nothing(self, here, name):
        assert "Did you mean" not in str(refusal(name, of=find_config))


class TestLocating:
    def config(self, **corpus) -> Config:
        return parse_config({"corpus": {"train": "train.txt", **corpus}})

    def test_first_here_then_beside_the_config_then_in_the_data_folders_then_in_the_cache(
        self, here, tmp_path, monkeypatch
    ):
        source = written(tmp_path / "configs", "", "c.yaml")
        one, two = tmp_path / "one", tmp_path / "two"
        monkeypatch.setenv("NERTOOL_DATA", f"{one}{os.pathsep}{os.pathsep}{two}")
        order = [tmp_path / "cache" / "nertool", two, one, tmp_path / "configs", here]
        for folder in order:
            path = written(folder, "", "sets/train.txt")
            found = locate_files(self.config(train="sets/train.txt"), source).corpus.train
            assert Path(found).resolve() == path, folder

    def test_every_split_and_vector_file_is_found_and_all_else_stays(self, here, tmp_path, monkeypatch):
        monkeypatch.setenv("NERTOOL_DATA", str(tmp_path / "data"))
        written(here, "", "train.txt")
        written(tmp_path / "data", "", "dev/valid.txt")
        absolute = written(tmp_path / "elsewhere", "", "test.txt")
        vectors = [written(tmp_path / "data", "", f"{name}.vec") for name in "ab"]
        config = parse_config(
            {
                "language": "de",
                "corpus": {
                    "train": "train.txt",
                    "validation": "dev/valid.txt",
                    "test": str(absolute),
                    "columns": ["token", "x"],
                    "label": "x",
                },
                "inputs": {
                    "words": {"vectors": ["b.vec", "a.vec"], "dropout": 0.5},
                    "more": {"kind": "words", "vectors": "a.vec"},
                    "names": {"kind": "gazetteer", "files": ["a.vec"]},
                },
            }
        )
        found = locate_files(config, None)
        assert found.corpus.train == "train.txt"
        assert found.corpus.validation == str(tmp_path / "data/dev/valid.txt")
        assert found.corpus.test == str(absolute)
        assert found.inputs["words"].vectors == (str(vectors[1]), str(vectors[0]))
        assert found.inputs["more"].vectors == found.inputs["names"].files == (str(vectors[0]),)
        assert (found.language, found.corpus.label, found.inputs["words"].dropout) == ("de", "x", 0.5)
        assert locate_files(found, None) == found

    def test_one_file_may_serve_twice_and_a_split_may_be_missing(self, here):
        written(here, "", "train.txt")
        found = locate_files(self.config(test="train.txt"), None).corpus
        assert (found.train, found.validation, found.test) == ("train.txt", None, "train.txt")

    def test_home_is_understood(self, here, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
        path = written(tmp_path / "home", "", "sets/train.txt")
        assert locate_files(self.config(train="~/sets/train.txt"), None).corpus.train == str(path)
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert data_folders()[-1] == tmp_path / "home" / ".cache" / "nertool"

    def test_what_is_missing_and_where_it_was_looked_for(self, here, tmp_path, monkeypatch):
        source = written(tmp_path / "configs", "", "c.yaml")
        monkeypatch.setenv("NERTOOL_DATA", os.pathsep.join([str(tmp_path / "one"), str(tmp_path / "two")]))
        written(here, "", "test.txt")
        config = parse_config(
            {
                "corpus": {"train": "conll03/train.txt", "validation": "conll03/valid.txt", "test": "test.txt"},
                "inputs": {
                    "words": {"vectors": ["vectors/glove.6B.50d.txt"]},
                    "names": {"kind": "gazetteer", "files": ["cities.txt"]},
                },
            }
        )
        error = refusal(config, source, of=locate_files)
        message = str(error)
        assert error.source == source
        assert message.startswith(
            f"{source}: there is no file conll03/train.txt, conll03/valid.txt, vectors/glove.6B.50d.txt "
            "or cities.txt; "
        )
        folders = [here, tmp_path / "configs", tmp_path / "one", tmp_path / "two", tmp_path / "cache" / "nertool"]
        assert f"looked in {', '.join(map(str, folders))}; set NERTOOL_DATA" in message
        assert "`nertool vectors fetch glove-50`" in message and "conll2003/ner" in message
        assert "test.txt" not in message.replace("conll03", "")

    def test_what_spacy_reads_is_no_file(self, here):
        assert locate_files(self.config(train=READ_BY_SPACY), None).corpus.train == READ_BY_SPACY

    def test_an_absolute_name_was_looked_for_nowhere_else(self, here, tmp_path):
        message = str(refusal(str(tmp_path / "none.txt"), of=find))
        assert message == f"there is no file {tmp_path / 'none.txt'}"

    @pytest.mark.parametrize("name", ["x" * 300, "train.txt/x", "~nobody-of-this-name/x", ".", "\ud800"])
    def test_names_that_no_file_can_have(self, here, name):
        written(here, "", "train.txt")
        assert "there is no file" in str(refusal([name], of=find_all))


class TestHeldOut:
    def test_the_last_training_sentences_validate_where_no_file_is_given(self, tiny_config, tiny_train):
        whole = read_corpus(tiny_config().corpus).train
        corpus = read_corpus(tiny_config("corpus.validation=null", "corpus.held_out=0.25").corpus)
        assert (len(corpus.train), len(corpus.validation)) == (9, 3)
        both = [*corpus.train.sentences, *corpus.validation.sentences]
        assert both == whole.sentences
        assert [list(sentence.tokens) for sentence in both] == [tokens for tokens, _ in tiny_train]
        assert corpus.train.labels + corpus.validation.labels == whole.labels
        again = read_corpus(
            tiny_config("corpus.validation=null", "corpus.held_out=0.25", "training.seed=5").corpus
        )
        assert again == corpus

    def test_documents_are_counted_anew(self, tmp_path):
        path = written(
            tmp_path, "-DOCSTART- O\n\na O\n\n-DOCSTART- O\n\nb O\n\nc O\n\n-DOCSTART- O\n\nd O\n", "t.txt"
        )
        settings = {"corpus": {"train": str(path), "held_out": 0.5, "scheme": "IOB2"}}
        corpus = read_corpus(parse_config(settings).corpus)
        # Half would be two sentences, but no document is cut in two.
        held_out = [sentence.tokens for sentence in corpus.validation.sentences]
        assert (len(corpus.train), held_out) == (1, [("b",), ("c",), ("d",)])
        assert (corpus.train.document_count, corpus.validation.document_count) == (1, 2)

    def test_a_label_needs_the_names_of_the_columns(self):
        with pytest.raises(ConfigError, match="'chunk' is no column's name while columns are not named"):
            parse_config({"corpus": {"train": "a", "label": "chunk", "format": "conll"}})
        # Other formats have names for their columns.
        assert parse_config({"corpus": {"train": "a", "label": "upos"}}).corpus.label == "upos"

    def test_types_without_a_prefix_have_a_name(self):
        assert parse_config({"corpus": {"train": "a", "scheme": "IO"}}).corpus.scheme == "IOB1"

    def test_one_file_of_vectors_needs_no_list(self):
        config = parse_config({"corpus": {"train": "a"}, "inputs": {"words": {"vectors": "glove.txt"}}})
        assert config.inputs["words"].vectors == ("glove.txt",)

    def test_yes_is_no_number(self):
        with pytest.raises(ConfigError, match=r"training\.epochs"):
            parse_config({"corpus": {"train": "a"}, "training": {"epochs": True}})

    def test_a_file_that_is_given_is_used(self, tiny_config):
        corpus = read_corpus(tiny_config("corpus.held_out=0.5", "corpus.validation=test.txt").corpus)
        assert (len(corpus.train), len(corpus.validation)) == (12, 4)

    @pytest.mark.parametrize("amount", ["0.01", "0.99"])
    def test_too_few_sentences(self, tiny_config, amount):
        config = tiny_config("corpus.validation=null", f"corpus.held_out={amount}")
        with pytest.raises(CorpusError, match=r"train\.txt: 12 sentences are too few to hold out"):
            read_corpus(config.corpus)

    @pytest.mark.parametrize("amount", ["0", "1", "-0.1", ".nan"])
    def test_shares_that_leave_nothing(self, tiny_yaml, amount):
        assert "corpus.held_out" in str(refusal(tiny_yaml, [f"corpus.held_out={amount}"]))
