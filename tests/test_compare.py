"""Comparisons: the grid, its processes and how they end, what is kept, gradients through time, and the command."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import write_tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

import nertool.cli.main
from nertool.comparison import gradients, processes, runner
from nertool.comparison import grid as grid_of
from nertool.comparison.compare import pool_folds
from nertool.comparison.gradients import STEPS, state_gradients
from nertool.comparison.grid import Job, Key, Request
from nertool.comparison.processes import Running
from nertool.comparison.records import Failure, Run
from nertool.comparison.results import fingerprint, read_run, write_run
from nertool.comparison.runner import Ended, run_jobs
from nertool.comparison.worker import main, train_one
from nertool.config.files import LOCK
from nertool.config.loading import dump_config, flow
from nertool.config.schema import Config
from nertool.data.corpus import read_corpus
from nertool.data.encoding import EncodedCorpus
from nertool.errors import ConfigError, CorpusError, NertoolError
from nertool.model.batch import Batch
from nertool.model.inputs.base import Resources
from nertool.model.model import Model, new_model
from nertool.tagging.bundle import VOCABULARY, WEIGHTS
from nertool.text.document import Document
from nertool.text.schemes import Scheme, convert
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.preparation import Prepared
from nertool.training.run import run
from nertool.training.trainer import Step
from nertool.training.validation import Validation
from nertool.views.comparison_progress import Watcher

Make = Callable[..., Config]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and shell scripts")


def a_run(**others) -> Run:
    values = {
        **{"seed": 1, "validation": 0.5, "test": 0.4, "parameters": 10, "word_parameters": 20},
        **{"training_speed": 1e4, "tagging_speed": 1e5, "best_epoch": 2, "seconds_to_best": 1.0, "seconds": 75.0},
        **{"curve": [0.1, 0.5, 0.5], "losses": [3.0, 2.0, 1.0], "gradients": None, "counts": [(1, 2, 3)] * 4},
    }
    return Run(**{**values, **others})


def plan(source: Path, overrides, varied, seeds: int, folder: Path, **more) -> list[Job]:
    return grid_of.plan(Request([str(source)], overrides, varied, seeds=seeds, **more), folder).jobs


def refused(*arguments: object, varied: list[str], seeds: int = 1) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(arguments[0], arguments[1:], varied, seeds, Path("runs"))
    return str(caught.value)


def leaves(tree: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{name}.{key}".lstrip("."))
    else:
        yield name, tree


class TestGrid:
    def test_each_cell_with_the_first_seed_then_each_with_the_second(self, tiny_yaml):
        varied = ["model.encoder.kind=rnn, lstm", "training.batch_size=2,4"]
        jobs = plan(tiny_yaml, ["training.seed=7"], varied, 2, Path("runs"))
        cells = [f"kind={kind}, batch_size={size}" for kind in ("rnn", "lstm") for size in (2, 4)]
        assert [(job.cell, job.seed) for job in jobs] == [(cell, seed) for seed in (7, 8) for cell in cells]
        assert jobs[5].folder == Path("runs/kind=rnn-batch_size=4/seed-8")
        assert jobs[5].settings == {"model.encoder.kind": "rnn", "training.batch_size": 4}

    def test_cells_differ_in_the_varied_settings_alone(self, tiny_yaml, tiny_config):
        jobs = plan(
            tiny_yaml, ["training.epochs=3"], ["model.encoder.kind=rnn,gru", "model.dropout=0,0.5"], 2, Path()
        )
        base = dict(leaves(tiny_config("training.epochs=3").model_dump(mode="json")))
        for job in jobs:
            found = dict(leaves(job.config.model_dump(mode="json")))
            other = {key: value for key, value in found.items() if value != base[key]}
            wanted = {**job.settings, "training.seed": job.seed}
            assert other == {key: value for key, value in wanted.items() if value != base[key]}

    def test_a_cell_of_another_kind_keeps_the_settings_that_it_reads(self, tiny_yaml):
        jobs = plan(tiny_yaml, [], ["model.encoder=gru,cnn,none", "training.optimizer=sgd,adam"], 1, Path())
        assert [job.config.model.encoder.kind for job in jobs] == [*["gru"] * 2, *["cnn"] * 2, *["none"] * 2]
        assert {getattr(job.config.model.encoder, "hidden", 12) for job in jobs} == {12}
        assert jobs[0].cell == "encoder=gru, optimizer=sgd"
        message = refused(tiny_yaml, "model.encoder.width=5", varied=["model.encoder.kind=lstm,cnn"])
        assert "kind=lstm: model.encoder.width: lstm does not read this setting; cnn does" in message

    def test_the_same_seed_draws_the_same_batches_in_every_cell(self, tiny_yaml, tmp_path, monkeypatch):
        drawn: list[list[int]] = []
        batch = EncodedCorpus.batch

        def watched(self, chosen):
            drawn.append(list(chosen))
            return batch(self, chosen)

        monkeypatch.setattr(EncodedCorpus, "batch", watched)
        monkeypatch.setattr(Validation, "loss", lambda _: None)  # which has batches too
        found = {}
        jobs = plan(
            tiny_yaml, ["training.epochs=2"], ["model.encoder={kind: rnn, hidden: 3},{kind: none}"], 2, tmp_path
        )
        for job in jobs:
            drawn.clear()
            list(run(job.config, job.folder))
            found[job.cell, job.seed] = list(drawn)
        (one, other), seeds = dict.fromkeys(job.cell for job in jobs), (1, 2)
        for seed in seeds:
            assert found[one, seed] == found[other, seed]
        assert found[one, 1] != found[one, 2]

    @pytest.mark.parametrize(
        ("varied", "cells"),
        [
            ("model.encoder.bidirectional=yes,false", ["bidirectional=true", "bidirectional=false"]),
            ("corpus.validation=null,test.txt", ["validation=null", "validation=test.txt"]),
            ("model.encoder.layers=1,3", ["layers=1", "layers=3"]),
            ("inputs.characters={network: gru},null", ["characters={network: gru}", "characters=null"]),
            ("training.learning_rate=1e-2,0.5", ["learning_rate=1e-2", "learning_rate=0.5"]),
            ("corpus.strip='[0-9], ',\"null\"", ["strip='[0-9], '", "strip='null'"]),
            (
                "model.attention={kind: dot},{kind: additive}",
                ["attention={kind: dot}", "attention={kind: additive}"],
            ),
            ("model.encoder.kind=gru", ["kind=gru"]),
        ],
    )
    def test_values_of_all_kinds(self, tiny_yaml, varied, cells):
        jobs = plan(tiny_yaml, [], [varied], 1, Path("runs"))
        assert [job.cell for job in jobs] == cells
        assert len({job.config.model_dump_json() for job in jobs}) == len(cells)

    def test_nothing_varied_is_one_cell(self, tiny_yaml):
        jobs = plan(tiny_yaml, [], [], 3, Path("runs"))
        assert [(job.cell, job.settings, job.seed) for job in jobs] == [("tiny", {}, seed) for seed in (1, 2, 3)]
        assert jobs[0].folder == Path("runs/tiny/seed-1")

    def test_names_are_as_long_as_they_must_be(self, tiny_yaml):
        varied = ["inputs.words.dropout=0,0.5", "model.dropout=0,0.1", "model.encoder.hidden=3"]
        first = plan(tiny_yaml, [], varied, 1, Path("runs"))[0]
        assert first.cell == "words.dropout=0, model.dropout=0, encoder.hidden=3"

    @given(
        st.lists(st.text(max_size=150) | st.text("aA-,= /.'\\", max_size=5), min_size=1, max_size=3, unique=True),
        st.lists(st.text(max_size=5) | st.text("aA-,= /.'\\", max_size=5), min_size=1, max_size=3, unique=True),
    )
    @example(["a, columns=[token, label, b]", "a"], ["b", "c"])
    @example(["../../..", ".", "..", "", "/"], ["CON", "con"])
    @example(["\u4e2d" * 90, "\U0001f388" * 99, "\ud800", "a\nb", "\x00"], ["x"])
    @settings(max_examples=40)
    def test_names_and_folders_are_unique_and_safe_whatever_the_values(self, tmp_path_factory, strips, names):
        folder = tmp_path_factory.getbasetemp() / "odd"
        source = folder / "tiny.yaml"
        if not source.exists():
            write_tiny(folder)
        strips = list(dict.fromkeys(re.escape(each) for each in strips))
        columns = [["token", "label", name] for name in names if name not in ("token", "label")] or [
            ["token", "label"]
        ]
        varied = [f"corpus.strip={flow(strips)[1:-1]}"]
        # With several lists of columns the scored labels might differ, so each makes a grid of its own.
        jobs = [
            job
            for c in columns
            for job in plan(source, [], [*varied, f"corpus.columns={flow([c])[1:-1]}"], 1, folder)
        ]
        assert [list(job.settings.values()) for job in jobs] == [[s, c] for c in columns for s in strips]
        assert len({job.cell for job in jobs}) == len(jobs) == len(strips) * len(columns)
        assert len({str(job.folder).casefold() for job in jobs}) == len(jobs)
        for job in jobs:
            assert job.folder.parent.parent == folder
            assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,119}", job.folder.parent.name)
            assert len(job.cell.splitlines()) == 1

    def test_each_training_has_one_thread_unless_the_config_says_otherwise(self, tiny_yaml):
        for given_, wanted in {0: 1, 1: 1, 3: 3}.items():
            (job,) = plan(tiny_yaml, [f"training.threads={given_}"], [], 1, Path())
            assert job.config.training.threads == wanted

    def test_wrong_values_are_reported_for_every_cell_at_once(self, tiny_yaml):
        message = refused(tiny_yaml, varied=["model.encoder.kind=rnn,gruu,x", "training.epochs=2,0"])
        assert message.startswith(f"{tiny_yaml}: 7 problems\n")
        for cell in ("kind=gruu, epochs=2", "kind=x, epochs=0"):
            assert f"\n  - {cell}: model.encoder.kind: input should be 'rnn', 'gru'" in message
        for cell in ("kind=rnn, epochs=0", "kind=gruu, epochs=0"):
            assert f"\n  - {cell}: training.epochs: input should be greater" in message

    def test_what_is_wrong_in_every_cell_is_told_once(self, tiny_yaml):
        message = refused(tiny_yaml, "training.seed=x", varied=["model.encoder.kind=rnn,gru"])
        assert message == f"{tiny_yaml}: training.seed: input should be a valid integer, found 'x'"
        message = refused(tiny_yaml, "corpus.test=gone.txt", varied=["training.epoch=3,4"])
        assert message.count("training.epoch: no such setting") == 1

    def test_what_the_file_lacks_may_vary(self, tiny_yaml):
        (tiny_yaml.parent / "bare.yaml").write_text("corpus: {test: test.txt}\n")
        jobs = plan(tiny_yaml.parent / "bare.yaml", [], ["corpus.train=train.txt,validation.txt"], 1, Path())
        assert [Path(job.config.corpus.train).name for job in jobs] == ["train.txt", "validation.txt"]

    @pytest.mark.parametrize(
        ("varied", "message"),
        [
            (["model.dropout=0", "model.dropout=0.5"], "a setting is varied twice; write all its values in one"),
            (["training.epochs=1", " training.epochs =2"], "a setting is varied twice"),
            (["training.seed=1,2"], "training.seed cannot be varied; --seeds N takes N seeds from it on"),
            (["training={seed: 1},{seed: 2}"], "training.seed cannot be varied"),
            (["model.encoder.kind=rnn,gru,rnn"], "kind=rnn: is the same as kind=rnn"),
            (["model.dropout=0.5,5e-1"], "dropout=5e-1: is the same as dropout=0.5"),
            (["training.learning_rate=1,1.0"], "learning_rate=1.0: is the same as learning_rate=1"),
            (["model.encoder.kind=rnn,gru", "model.encoder={hidden: 3}"], "is the same as kind=rnn"),
            (["model.encoder=lstm,{hidden: 12}"], "encoder={hidden: 12}: is the same as encoder=lstm"),
            (
                ["training.clip_by=norm,value", "training.clip=0"],
                "clip_by=value, clip=0: is the same as clip_by=norm",
            ),
            (["model.encoder.dropout=0,0.5"], "dropout=0.5: is the same as dropout=0"),
            (["inputs.characters=null,none"], "characters=none: is the same as characters=null"),
            (["words.dimensions=3,4"], "words.dimensions: no such setting; it is now inputs.words.dimensions"),
            (["corpus.test=test.txt,train.txt"], "what scores them cannot vary: corpus.test"),
            (["corpus.test=test.txt,null"], "what scores them cannot vary"),
            (["corpus.annotator=1,2"], "what scores them cannot vary"),
            (["model.encoder.kind"], "--vary model.encoder.kind: expected something like"),
            (["training..epochs=1"], "training..epochs=1: expected something like"),
            (["corpus.train=gone.txt,train.txt"], "train=gone.txt: there is no file gone.txt; looked in"),
        ],
    )
    def test_mistakes(self, tiny_yaml, varied, message):
        assert message in refused(tiny_yaml, varied=varied)

    def test_seeds_beyond_the_largest(self, tiny_yaml):
        assert "2 seeds from 4294967295 on go beyond" in refused(
            tiny_yaml, "training.seed=4294967295", varied=[], seeds=2
        )
        assert len(plan(tiny_yaml, ["training.seed=4294967294"], [], 2, Path())) == 2


def planned(folder: Path, *names: object, **options) -> grid_of.Plan:
    return grid_of.plan(Request([str(name) for name in names], **options), folder / "runs")


def refused_plan(folder: Path, *names: object, **options) -> str:
    with pytest.raises((ConfigError, CorpusError)) as caught:
        planned(folder, *names, **options)
    return str(caught.value)


class TestSeveralConfigs:
    def test_each_is_a_cell_named_after_its_file(self, tiny_yaml, tmp_path):
        other = tiny_yaml.with_name("gru.yaml")
        other.write_text(tiny_yaml.read_text(encoding="utf-8").replace("lstm", "gru"), encoding="utf-8")
        plan = planned(tmp_path, tiny_yaml, other, varied=["model.dropout=0,0.2"], seeds=1)
        assert [job.cell for job in plan.jobs] == [
            f"{name}, dropout={value}" for name in ("tiny", "gru") for value in ("0", "0.2")
        ]
        assert [job.config.model.encoder.kind for job in plan.jobs] == ["lstm", "lstm", "gru", "gru"]
        assert plan.varied == ["config", "model.dropout"] and plan.base is None
        assert plan.jobs[2].settings == {"config": "gru", "model.dropout": 0}
        assert len({job.folder for job in plan.jobs}) == 4

    def test_files_of_one_name_are_told_apart_by_their_folders(self, tiny_yaml, tmp_path):
        other = write_tiny(tmp_path / "other")
        other.write_text(other.read_text(encoding="utf-8").replace("lstm", "gru"), encoding="utf-8")
        message = refused_plan(tmp_path, tiny_yaml, other)
        assert "what scores them cannot vary" in message, "files with other paths"
        test = f"corpus.test={tiny_yaml.with_name('test.txt')}"
        plan = planned(tmp_path, tiny_yaml, other, overrides=[test], seeds=1)
        assert [job.cell for job in plan.jobs] == [str(tiny_yaml), str(other)]
        assert len({job.folder for job in plan.jobs}) == 2

    def test_what_is_wrong_in_one_names_it(self, tiny_yaml, tmp_path):
        other = tiny_yaml.with_name("bad.yaml")
        other.write_text(tiny_yaml.read_text(encoding="utf-8").replace("lstm", "lstn"), encoding="utf-8")
        assert "bad: model.encoder.kind: input should be" in refused_plan(tmp_path, tiny_yaml, other)
        other.write_text(tiny_yaml.read_text(encoding="utf-8").replace("threads: 1", "seed: 5"), encoding="utf-8")
        assert "choose the first one for all with --set training.seed=1" in refused_plan(
            tmp_path, tiny_yaml, other
        )

    def test_the_same_config_under_two_names_is_refused(self, tiny_yaml, tmp_path):
        other = tiny_yaml.with_name("copy.yaml")
        other.write_bytes(tiny_yaml.read_bytes())
        assert "copy: is the same as tiny" in refused_plan(tmp_path, tiny_yaml, other)


class TestAblation:
    def test_one_change_at_a_time(self, tiny_yaml, tmp_path):
        ablated = ["inputs.characters.kind=none", "model.decoder=softmax", "model.dropout=0,0.5"]
        plan = planned(tmp_path, tiny_yaml, ablated=ablated, seeds=1)
        base, characters, decoder, none, much = plan.jobs
        assert [job.cell for job in plan.jobs] == ["base", *ablated[:2], "model.dropout=0", "model.dropout=0.5"]
        assert plan.base == "base"
        assert "characters" in base.config.active_inputs and "characters" not in characters.config.active_inputs
        assert (base.config.model.decoder.kind, decoder.config.model.decoder.kind) == ("crf", "softmax")
        assert "characters" in decoder.config.active_inputs
        assert [job.config.model.dropout for job in (base, characters, none, much)] == [0.1, 0.1, 0, 0.5]
        assert base.settings == {} and decoder.settings == {"model.decoder": "softmax"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"ablated": ["model.dropout=0"], "varied": ["training.epochs=1,2"]}, "run two comparisons, or put"),
            ({"ablated": ["model.dropout=0.1"]}, "model.dropout=0.1: is the same as base"),
            ({"ablated": ["model.dropout"]}, "--ablate model.dropout: expected something like"),
            ({"ablated": ["training.seed=3"]}, "training.seed cannot be varied"),
            ({"ablated": ["model.dropout=0", "model.dropout=1"]}, "write all its values in one --ablate"),
            ({"ablated": ["model.dropout=0"], "overrides": ["model.dropout=0.2"]}, "as well as by --ablate"),
            ({"varied": ["model.dropout=0,1"], "overrides": ["model.dropout=0.2"]}, "as well as by --vary"),
        ],
    )
    def test_mistakes(self, tiny_yaml, tmp_path, options, message):
        assert message in refused_plan(tmp_path, tiny_yaml, **options)

    def test_not_of_several_configs(self, tiny_yaml, tmp_path):
        message = refused_plan(tmp_path, tiny_yaml, tiny_yaml, ablated=["model.dropout=0"])
        assert "name the one to start from" in message


class TestFolds:
    def test_each_fold_is_tested_once(self, tiny_yaml, tmp_path, tiny_train):
        plan = planned(
            tmp_path, tiny_yaml, overrides=["corpus.test=null"], folds=3, varied=["model.dropout=0,0.2"]
        )
        assert [(job.seed, job.fold, job.settings["model.dropout"]) for job in plan.jobs] == [
            (1, fold, dropout) for fold in (1, 2, 3) for dropout in (0, 0.2)
        ]
        assert len({job.folder for job in plan.jobs}) == 6
        assert plan.jobs[2].folder == tmp_path / "runs" / "dropout=0" / "seed-1-fold-2-of-3"
        corpora = [read_corpus(job.config.corpus) for job in plan.jobs[::2]]
        tested = [" ".join(s.tokens) for corpus in corpora for s in corpus.test.sentences]
        assert sorted(tested) == sorted(" ".join(tokens) for tokens, _ in tiny_train)
        for corpus in corpora:
            texts = [[" ".join(s.tokens) for s in split.sentences] for split in (corpus.train, corpus.test)]
            assert not set(texts[0]) & set(texts[1])
        assert len(planned(tmp_path, tiny_yaml, overrides=["corpus.test=null"], folds=3, seeds=2).jobs) == 6

    def test_validation_is_held_out_of_the_other_folds(self, tmp_path):
        path = tmp_path / "mine.txt"
        path.write_text("".join(f"Oslo{number} B-LOC\nis O\n\n" for number in range(40)), encoding="utf-8")
        plan = planned(tmp_path, path, folds=2, overrides=["corpus.held_out=0.3"])
        assert [job.config.corpus.fold for job in plan.jobs] == ["1/2", "2/2"]
        assert "chosen for about 14 training sentences" in plan.notes[0]
        for job in plan.jobs:
            corpus = read_corpus(job.config.corpus)
            assert {name: len(split) for name, split in corpus.splits.items()} == {
                "train": 14,
                "validation": 6,
                "test": 20,
            }
        path.write_text("".join(f"Oslo{number} B-LOC\nis O\n\n" for number in range(12)), encoding="utf-8")
        assert "6 sentences beside a fold are too few to hold some out" in refused_plan(tmp_path, path, folds=2)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "leave test out (--set corpus.test=null)"),
            (
                {"overrides": ["corpus.test=null"], "folds": 13},
                "12 sentences are too few for 13 folds; ask for fewer",
            ),
            ({"overrides": ["corpus.test=null", "corpus.fold=1/3"]}, "leave one of them out"),
            (
                {"overrides": ["corpus.test=null"], "varied": ["corpus.fold=1/3,2/3"]},
                "--folds N trains and tests on",
            ),
            (
                {"overrides": ["corpus.test=null"], "varied": ["corpus.train=train.txt,test.txt"]},
                "cannot vary: corpus.train, of which the folds are made",
            ),
        ],
    )
    def test_mistakes(self, tiny_yaml, tmp_path, options, message):
        assert message in refused_plan(tmp_path, tiny_yaml, **{"folds": 3, **options})

    @pytest.mark.parametrize("fold", ["0/3", "4/3", "1/1", "1", "a/b", "1/5000", "01/3"])
    def test_folds_that_there_are_not(self, tiny_config: Make, fold):
        with pytest.raises(ConfigError, match=r"corpus.fold: should be like 2/5"):
            tiny_config("corpus.test=null", f"corpus.fold='{fold}'")

    def test_pooled_figures_are_those_worked_out_by_hand(self):
        runs = [
            a_run(fold=2, test=1.0, counts=[(1, 1, 1)], curve=[0.5], losses=[2.0], training_sentences=3),
            a_run(fold=1, test=0.0, counts=[(0, 2, 0), (0, 0, 1)], curve=[0.1, 0.3], losses=[4.0, 1.0]),
            a_run(seed=2, fold=1),
        ]
        (pooled,) = pool_folds(runs, 2)
        # 1 right, 3 predicted, 2 there: 2 / 5; the mean over folds is 0.5.
        assert pooled.test == pytest.approx(0.4) and pooled.score == pooled.test
        assert pooled.counts == [(0, 2, 0), (0, 0, 1), (1, 1, 1)]
        assert [(fold.number, fold.test, fold.sentences, fold.entities) for fold in pooled.folds] == [
            (1, 0.0, 2, 1),
            (2, 1.0, 1, 1),
        ]
        assert pooled.curve == pytest.approx([0.3, 0.3]) and pooled.losses == [3.0, 1.0]

    def test_a_training_knows_its_fold_and_its_size(self, tiny_config: Make, tmp_path):
        config = tiny_config("corpus.test=null", "corpus.fold=2/3", "corpus.fraction=0.5", "training.epochs=1")
        result = train_one(config, tmp_path / "run", os.getppid())
        assert (result.fold, len(result.counts), result.training_sentences) == (2, 4, 4)
        assert result.training_entities > 0
        write_run(result, config, fingerprint(config), tmp_path)
        assert read_run(tmp_path, config) == result


class TestFractions:
    def test_each_seed_draws_its_own_share(self, tiny_yaml, tmp_path):
        plan = planned(tmp_path, tiny_yaml, varied=["corpus.fraction=0.25,0.5,1"], seeds=2)
        assert [(job.seed, job.config.corpus.fraction, job.config.corpus.fraction_seed) for job in plan.jobs] == [
            (1, 0.25, 1),
            (1, 0.5, 1),
            (1, 1.0, 0),
            (2, 0.25, 2),
            (2, 0.5, 2),
            (2, 1.0, 0),
        ]
        texts = [{s.tokens for s in read_corpus(job.config.corpus).train.sentences} for job in plan.jobs]
        assert list(map(len, texts)) == [3, 6, 12] * 2
        assert texts[0] < texts[1] < texts[2] and texts[3] < texts[4] < texts[5]
        fixed = planned(tmp_path, tiny_yaml, overrides=["corpus.fraction_seed=9"], varied=["corpus.fraction=0.5"])
        assert {job.config.corpus.fraction_seed for job in fixed.jobs} == {9}

    def test_settings_for_a_data_file_are_chosen_by_the_amount(self, tmp_path):
        rows = "".join(f"Oslo{number} B-LOC\nis O\n\n" for number in range(2_000))
        path = tmp_path / "mine.txt"
        path.write_text(rows, encoding="utf-8")
        plan = planned(tmp_path, path, varied=["corpus.fraction=0.1,1"], seeds=1)
        assert [job.config.training.batch_size for job in plan.jobs] == [5, 10]
        assert [note.partition(":")[0] for note in plan.notes[:2]] == ["fraction=0.1", "fraction=1"]
        assert "no pretrained word vectors" in plan.notes[2]
        assert plan.jobs[0].settings == {"corpus.fraction": 0.1}

    @pytest.mark.parametrize("value", ["0", "1.01", "-1", "x", ".nan"])
    def test_shares_that_there_are_not(self, tiny_config: Make, value):
        with pytest.raises(ConfigError, match=r"corpus\.fraction: "):
            tiny_config(f"corpus.fraction={value}")


class TestResults:
    def test_a_run_comes_back(self, tiny_config: Make, tmp_path):
        config, run = tiny_config(), a_run(losses=[float("inf"), 1.0, 0.1 + 0.2])
        write_run(run, config, fingerprint(config), tmp_path)
        assert read_run(tmp_path, config) == run
        assert read_run(tmp_path, tiny_config("training.epochs=31")) is None
        assert read_run(tmp_path / "gone", config) is None

    def test_another_corpus_under_the_same_name_is_another_run(self, tiny_config: Make, tmp_path):
        vectors = tmp_path / "vectors.txt"
        vectors.write_text("Oslo 1 2\n")
        config = tiny_config(f"inputs.words.vectors={vectors}")
        write_run(a_run(), config, fingerprint(config), tmp_path)
        test = Path(config.corpus.test or "")
        for path, content in {
            test: test.read_bytes().replace(b"Mina", b"Nina"),
            vectors: b"Oslo 1 2\nx 1 2\n",
        }.items():
            before = path.read_bytes()
            path.write_bytes(content)
            assert read_run(tmp_path, config) is None
            path.write_bytes(before)
            os.utime(path, ns=(1, 1))  # as after a copy
            assert read_run(tmp_path, config) == a_run()
        moved = vectors.rename(tmp_path / "moved.txt")
        assert read_run(tmp_path, config) is None
        assert read_run(tmp_path, tiny_config(f"inputs.words.vectors={moved}")) == a_run()

    def test_files_and_folders_are_known_by_content(self, tiny_config: Make, tiny_yaml, tmp_path):
        folder = tiny_yaml.parent / "brat"
        folder.mkdir()
        (folder / "a.txt").write_text("Oslo\n")
        (folder / "a.ann").write_text("T1\tLOC 0 4\tOslo\n")
        config = tiny_config()
        config = config.model_copy(update={"corpus": config.corpus.model_copy(update={"test": str(folder)})})
        before = fingerprint(config)
        assert before.keys() == {"corpus.train", "corpus.validation", "corpus.test"}
        (folder / "a.ann").write_text("T1\tPER 0 4\tOslo\n")
        os.utime(folder / "a.ann", ns=(1, 1))
        assert fingerprint(config)["corpus.test"] != before["corpus.test"]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda tree: "",
            lambda tree: "{",
            lambda tree: "[" * 100_000,
            lambda tree: "[]",
            lambda tree: "5",
            lambda tree: {},
            lambda tree: {**tree, "run": None},
            lambda tree: {**tree, "run": []},
            lambda tree: {**tree, "run": {**tree["run"], "new": 1}},
            lambda tree: {**tree, "run": {key: tree["run"][key] for key in tree["run"] if key != "curve"}},
            lambda tree: {**tree, "run": {**tree["run"], "counts": [[1, 2]]}},
            lambda tree: {**tree, "run": {**tree["run"], "counts": [[1, 2, float("inf")]]}},
            lambda tree: {**tree, "run": {**tree["run"], "gradients": {"start": []}}},
        ],
    )
    def test_a_damaged_or_older_file_is_no_run(self, tiny_config: Make, tmp_path, damage):
        config = tiny_config()
        write_run(a_run(), config, fingerprint(config), tmp_path)
        path = tmp_path / "run.json"
        found = damage(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(found if isinstance(found, str) else json.dumps(found))
        assert read_run(tmp_path, config) is None


@pytest.fixture
def scripted(tmp_path, monkeypatch) -> Callable[[dict[str, str]], None]:
    """Lets shell scripts train: of the first name that is in the path of the folder, which is $3."""

    def script(parts: dict[str, str]) -> None:
        path = tmp_path / "trainer"
        cases = "".join(f"*'{name}'*) {text};;\n" for name, text in parts.items())
        path.write_text(f'#!/bin/sh\ncase "$3" in\n{cases}esac\n')
        path.chmod(0o755)
        monkeypatch.setattr(processes.sys, "executable", str(path))

    return script


@pytest.fixture
def kinds(tiny_yaml, tmp_path) -> Callable[..., list[Job]]:
    """Jobs over these kinds of encoder."""

    def make(*names: str, seeds: int = 1) -> list[Job]:
        return plan(tiny_yaml, [], [f"model.encoder.kind={','.join(names)}"], seeds, tmp_path / "grid")

    return make


def done(jobs: list[Job], folder: Path) -> str:
    """The script of a training that ends well: what it leaves lies ready."""
    for job in jobs:
        ready = folder / job.folder.relative_to(job.folder.parents[1])
        ready.mkdir(parents=True)
        write_run(a_run(seed=job.seed), job.config, fingerprint(job.config), ready)
    return f'cp "{folder}/$(basename "$(dirname "$3")")/$(basename "$3")/run.json" "$3"'


SLEEP = 'echo $$ > "$3/pid.new"; mv "$3/pid.new" "$3/pid"; exec sleep 100'


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@posix
class TestProcesses:
    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ('echo "a warning" >&2; echo "error: no luck" >&2; exit 1', "no luck"),
            ("printf 'error: x: 2 problems\\n  - one\\n  - two\\n'; exit 1", "x: 2 problems - one - two"),
            (
                "printf 'Traceback (most recent call last):\\n  File x\\nValueError: no\\n'; exit 1",
                "ValueError: no",
            ),
            ("printf 'x\\377\\000[b]\\033[31my\\n\\n'; exit 1", "x\N{REPLACEMENT CHARACTER} [b] [31my"),
            ("exit 3", "ended with code 3 and no message"),
            ('rm -r "$3"; exit 4', "ended with code 4 and no message"),
            ("exit 0", "the config or the corpus was changed while it was trained"),
            ("kill -9 $$", "killed by SIGKILL; there may not have been enough memory"),
            ("kill -15 $$", "killed by SIGTERM"),
            ("kill -40 $$", "killed by signal 40"),
        ],
    )
    def test_how_a_training_fails(self, kinds, scripted, tmp_path, monkeypatch, script, reason):
        monkeypatch.setattr(processes, "_PAUSE", 0.01)
        jobs = kinds("rnn", "gru")
        scripted({"kind=rnn": script, "kind=gru": done(jobs, tmp_path / "ready")})
        ended = {each.job.cell: each for each in run_jobs(jobs, 1) if isinstance(each, Ended)}
        assert ended["kind=rnn"].result == Failure(1, reason, str(jobs[0].folder / "log.txt"))
        assert ended["kind=gru"].result == a_run()
        assert not any(each.before for each in ended.values())
        # The next time the one that failed is tried again, and no other.
        scripted({"kind=rnn": done(jobs, tmp_path / "again")})
        ended = {each.job.cell: each for each in run_jobs(jobs, 1) if isinstance(each, Ended)}
        assert {cell: (each.result, each.before) for cell, each in ended.items()} == {
            "kind=rnn": (a_run(), False),
            "kind=gru": (a_run(), True),
        }

    def test_no_more_than_so_many_at_once_and_their_epochs(self, kinds, scripted, tmp_path, monkeypatch):
        monkeypatch.setattr(processes, "_PAUSE", 0.01)
        jobs = kinds("rnn", "gru", "lstm", seeds=2)
        go = tmp_path / "go"
        wait = f"while [ ! -e {go} ]; do sleep 0.02; done; "
        scripted({"kind": 'echo x >> "$3/metrics.jsonl"; ' + wait + done(jobs, tmp_path / "ready")})
        most, ended = 0, []
        for record in run_jobs(jobs, 2):
            if isinstance(record, Ended):
                ended.append((record.job.cell, record.job.seed))
                continue
            most = max(most, len(record.epochs))
            if record.epochs == {0: 1, 1: 1}:
                assert ended == []
                go.touch()
        assert (most, len(ended), len(set(ended))) == (2, 6, 6)

    @pytest.mark.parametrize("how", ["closed", "thrown into"])
    def test_when_it_is_stopped_the_processes_are(self, kinds, scripted, how):
        jobs = kinds("rnn", "gru", "lstm")
        scripted({"kind": SLEEP})
        records = run_jobs(jobs, 2)
        files = [job.folder / "pid" for job in jobs]
        while not (files[0].exists() and files[1].exists()):
            assert isinstance(next(records), Running)
        numbers = [int(path.read_text(encoding="utf-8")) for path in files[:2]]
        assert all(map(alive, numbers))
        if how == "closed":
            records.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                records.throw(KeyboardInterrupt())
        assert not any(map(alive, numbers))
        assert not jobs[2].folder.exists()

    def test_what_a_stopped_training_left_is_no_model_of_the_next(self, kinds, scripted):
        (job,) = kinds("rnn")
        job.folder.mkdir(parents=True)
        left = {"metrics.jsonl", "results.json", WEIGHTS, CHECKPOINT}
        scripted({"kind": "exit 1"})
        for config in ("old\n", dump_config(job.config)):
            for name in (*left, "run.json", f".{WEIGHTS}.123.part", "notes.txt"):
                (job.folder / name).write_text("old\n")
            (job.folder / "config.yaml").write_text(config, encoding="utf-8")
            list(run_jobs([job], 1))
            # One of the same config goes on from its checkpoint.
            kept = left if config != "old\n" else set()
            assert {path.name for path in job.folder.iterdir()} == {"config.yaml", "log.txt", "notes.txt", *kept}
            assert (job.folder / "config.yaml").read_text(encoding="utf-8") == dump_config(job.config)

    def test_a_corpus_that_changes_meanwhile(self, kinds, scripted, tmp_path):
        (job,) = kinds("rnn")
        scripted({"kind": f'{done([job], tmp_path / "ready")}; echo >> "{job.config.corpus.test}"'})
        (ended,) = (each for each in run_jobs([job], 1) if isinstance(each, Ended))
        assert isinstance(ended.result, Failure) and "changed while it was trained" in ended.result.reason

    def test_a_folder_that_cannot_be_written(self, kinds, tmp_path):
        (job,) = kinds("rnn")
        (tmp_path / "grid").write_text("")
        with pytest.raises(NertoolError, match="grid/kind=rnn/seed-1: cannot write there: Not a directory"):
            list(run_jobs([job], 1))

    def test_a_trainer_whose_parent_is_gone_ends(self, tiny_config: Make, tmp_path):
        with pytest.raises(NertoolError, match="the comparison that started this training has ended"):
            train_one(tiny_config(), tmp_path / "run", os.getpid())
        assert not (tmp_path / "run").exists()

    def test_a_training_goes_on_where_it_was_stopped(self, tiny_config: Make, tmp_path):
        config = tiny_config("training.epochs=4")
        whole, folder = tmp_path / "whole", tmp_path / "parts"
        list(run(config, whole))
        stopped = run(config, folder)
        while not (isinstance(record := next(stopped), Step) and record.epoch == 3):
            pass
        stopped.close()
        assert not (folder / "run.json").exists()
        main(folder, os.getppid())
        found = read_run(folder, config)
        assert found is not None and len(found.curve) == len(found.losses) == 4
        lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert (found.curve, found.losses) == ([line["f1"] for line in lines], [line["loss"] for line in lines])
        assert found.gradients is not None
        assert (folder / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()

    @pytest.mark.parametrize("damage", ["another corpus", "half of it"])
    def test_a_checkpoint_that_is_of_no_use_is_passed_over(self, tiny_config: Make, tmp_path, damage):
        config = tiny_config("training.epochs=2")
        stopped = run(config, tmp_path / "run")
        while not (isinstance(record := next(stopped), Step) and record.epoch == 2):
            pass
        stopped.close()
        checkpoint, train = tmp_path / "run" / CHECKPOINT, Path(config.corpus.train or "")
        assert checkpoint.exists()
        if damage == "half of it":
            checkpoint.write_bytes(checkpoint.read_bytes()[:500])
        else:
            train.write_text(train.read_text(encoding="utf-8").replace("Ada", "Eva"), encoding="utf-8")
        main(tmp_path / "run", os.getppid())
        list(run(config, tmp_path / "anew"))
        assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "anew" / WEIGHTS).read_bytes()
        assert read_run(tmp_path / "run", config) is not None

    @pytest.mark.slow
    def test_killing_the_command_ends_the_trainings(self, tiny_yaml, tmp_path):
        command = [sys.executable, "-m", "nertool", "compare", str(tiny_yaml), "--seeds", "1", "--output", "grid"]
        command += ["--set", "training.epochs=100000", "--set", "training.patience=100000"]
        running = subprocess.Popen(command, cwd=tmp_path)
        folder = tmp_path / "grid" / "tiny" / "seed-1"
        wait_for((folder / "metrics.jsonl").exists)
        running.kill()
        running.wait()
        log = folder / "log.txt"
        wait_for(
            lambda: (
                log.read_text(encoding="utf-8") == "error: the comparison that started this training has ended\n"
            )
        )
        assert not (folder / "run.json").exists()


class TestWatcher:
    def jobs(self, tiny_yaml, cells: list[str]) -> list[Job]:
        (job,) = plan(tiny_yaml, ["training.epochs=10"], [], 1, Path("runs"))
        return [replace(job, cell=cell) for cell in cells]

    def shown(self, jobs: list[Job], records, **options) -> tuple[Watcher, str]:
        target = StringIO()
        watcher = Watcher(Console(file=target, width=60, **options), jobs)
        watcher.watch(records)
        return watcher, target.getvalue()

    def test_a_line_for_each_training_that_ended_now(self, tiny_yaml):
        jobs = self.jobs(tiny_yaml, ["kind=none", "[red]x[/] [/b] :x:", "a\x1b[31m", "kept"])
        records = [
            Ended(jobs[3], a_run(), True),
            Running({0: 0, 1: 1}),
            Ended(jobs[0], a_run(), False),
            Running({1: 2}),
            Ended(jobs[1], Failure(1, "no [/b] \\", "a/[b]/log.txt"), False),
            Ended(jobs[2], a_run(test=None), False),
        ]
        watcher, output = self.shown(jobs, records)
        assert output.splitlines() == [
            "1 training ended earlier and will not be repeated.",
            "kind=none           seed 1  validation 50.00  test 40.00  best epoch 2/3  1:15",
            "[red]x[/] [/b] :x:  seed 1  failed: no [/b] \\ (a/[b]/log.txt)",
            "a\\x1b[31m           seed 1  validation 50.00  best epoch 2/3  1:15",
        ]
        assert watcher.results == {
            Key(each.job.cell, 1, None): each.result for each in records if isinstance(each, Ended)
        }

    def test_all_had_ended_before(self, tiny_yaml):
        jobs = self.jobs(tiny_yaml, ["a", "b"])
        for terminal in (False, True):
            records = [Ended(job, a_run(), True) for job in jobs]
            watcher, output = self.shown(jobs, records, force_terminal=terminal)
            assert "2 trainings ended earlier and will not be repeated." in output
            assert len(watcher.results) == 2

    def test_the_time_left_is_never_negative(self, tiny_yaml):
        jobs = self.jobs(tiny_yaml, ["a", "b", "c"])
        records = [
            Running({0: 0, 1: 0}),
            Running({0: 10, 1: 9}),
            Ended(jobs[0], a_run(), False),
            Running({1: 10, 2: 0}),
            Ended(jobs[1], Failure(1, "no", "log"), False),
            Running({2: 0}),
            Running({2: 10}),
            Ended(jobs[2], a_run(curve=[0.5] * 10), False),
            Running({}),
        ]
        left, amounts = [], []

        def watched() -> Iterator[Ended | Running]:
            for record in records:
                yield record
                (task,) = watcher._progress.tasks
                left.append(task.fields["left"])
                amounts.append((task.completed, task.total))

        watcher = Watcher(Console(file=StringIO(), width=80, force_terminal=True), jobs)
        watcher.watch(watched())
        assert [each for each in left if "-" in each] == []
        assert all(0 <= completed <= (total or 0) for completed, total in amounts)
        assert left[:2] == ["–", "at most 0:00"]
        assert amounts[-1] == (13, 13)  # of 3 and 10 epochs; the training that failed counts no more

    def test_epochs_of_another_call_say_nothing_of_the_time_left(self, tiny_yaml):
        watcher = Watcher(Console(file=StringIO()), self.jobs(tiny_yaml, ["a", "b"]))
        watcher._began = time.perf_counter() - 60
        left = []

        def watched() -> Iterator[Ended | Running]:
            for epochs in ({0: 6}, {0: 6, 1: 0}, {0: 7, 1: 0}, {0: 8, 1: 0}):
                yield Running(epochs)
                left.append(watcher._progress.tasks[0].fields["left"])

        watcher.watch(watched())
        assert left == ["–", "–", "at most 13:00", "at most 6:00"]


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A grid of two cells with two seeds that was trained by the command; to be read, not written to."""
    folder = tmp_path_factory.mktemp("grid")
    source = write_tiny(folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "130")
        patch.setenv(
            "MPLCONFIGDIR", str(folder / "matplotlib")
        )  # it warns where it cannot write to the home folder
        (folder / "torch.py").write_text("raise RuntimeError('not this one')\n")
        options = ["--vary", "model.encoder.kind=rnn,none", "--set", "training.epochs=4"]
        command = ["compare", str(source), *options, "--seeds", "2", "--jobs", "2", "--output", "grid"]
        output = succeed(*command)
    jobs = plan(source, ["training.epochs=4"], ["model.encoder.kind=rnn,none"], 2, folder / "grid")
    runs = {job.folder: read_run(job.folder, job.config) for job in jobs}
    yield SimpleNamespace(
        folder=folder / "grid", source=source, jobs=jobs, runs=runs, command=command, output=output
    )


@pytest.fixture
def inside(grid, monkeypatch) -> None:
    """The folder where the grid was trained, and no process that may be started there."""

    def none(*arguments, **options):
        raise AssertionError("nothing is to be trained")

    monkeypatch.chdir(grid.folder.parent)
    monkeypatch.setattr(processes.subprocess, "Popen", none)
    monkeypatch.setenv("COLUMNS", "130")


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(nertool.cli.main.main, [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*arguments: object) -> str:
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def refuse(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert result.stderr.count("error: ") == 1 and result.stderr.startswith("error: ")
    return result.stderr.removeprefix("error: ").removesuffix("\n")


class TestCommand:
    def test_files_and_what_is_printed(self, grid):
        found = {path.name for path in grid.folder.iterdir()} - {LOCK}
        assert found == {
            *("kind=rnn", "kind=none", "pictures"),
            *("report.html", "report.md", "report.json", "report.tex"),
        }
        for job in grid.jobs:
            assert {path.name for path in job.folder.iterdir()} - {LOCK, CHECKPOINT} == {
                *("config.yaml", VOCABULARY, WEIGHTS, "metrics.jsonl", "results.json", "run.json", "log.txt")
            }
            assert (job.folder / "log.txt").read_text(encoding="utf-8") == ""
        lines = grid.output.splitlines()
        ended = sorted(line for line in lines if re.match(r"kind=(rnn |none)  seed [12]  validation ", line))
        assert [line[:17] for line in ended] == [f"kind={k}  seed {s}" for k in ("none", "rnn ") for s in (1, 2)]
        assert grid.output.endswith(
            "".join(f"written: grid/report.{suffix}\n" for suffix in ("html", "md", "json", "tex"))
        )
        assert "Comparison of tiny.yaml" in grid.output
        assert "\x1b" not in grid.output

    def test_figures_are_those_of_the_run_and_of_the_saved_model(self, grid):
        for job in grid.jobs:
            run = grid.runs[job.folder]
            assert isinstance(run, Run)
            results = json.loads((job.folder / "results.json").read_text(encoding="utf-8"))
            metrics = [
                json.loads(line)
                for line in (job.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            assert run.seed == results["seed"] == job.seed
            assert (run.validation, run.test) == (results["validation"]["f1"], results["test"]["f1"])
            assert run.best_epoch == results["best_epoch"]
            assert run.curve == [line["f1"] for line in metrics]
            assert run.losses == [line["loss"] for line in metrics]
            assert run.validation == max(run.curve) == run.curve[run.best_epoch - 1]
            assert run.seconds_to_best == sum(line["seconds"] for line in metrics[: run.best_epoch])
            assert run.seconds > run.seconds_to_best > 0 and run.training_speed > 0 and run.tagging_speed > 0
            assert (run.gradients is None) == (job.settings == {"model.encoder.kind": "none"})
            right, found, there = map(sum, zip(*run.counts, strict=True))
            assert run.test == pytest.approx(2 * right / (found + there))
            assert len(run.counts) == 4 and there == 6
        model, data = grid.jobs[0].folder, grid.source.parent / "test.txt"
        again = json.loads(succeed("evaluate", data, "--model", model, "--json"))
        assert again["f1"] == pytest.approx(grid.runs[model].test)

    def test_report_json(self, grid):
        report = json.loads((grid.folder / "report.json").read_text(encoding="utf-8"))
        varied = ["--vary", "model.encoder.kind=rnn,none", "--set", "training.epochs=4"]
        assert shlex.split(report["command"])[:7] == ["nertool", "compare", str(grid.source), *varied]
        assert (report["seeds"], report["jobs"], report["split"]) == ([1, 2], 2, "test")
        for cell in report["cells"]:
            wanted = [grid.runs[job.folder].test for job in grid.jobs if job.cell == cell["name"]]
            assert [run["test"] for run in cell["runs"]] == pytest.approx(wanted)
        assert [(pair["first"], pair["second"]) for pair in report["pairs"]] == [("kind=rnn", "kind=none")]

    def test_the_weights_are_those_of_a_training_that_nothing_was_measured_in(self, grid, tmp_path, monkeypatch):
        job = grid.jobs[0]
        assert grid.runs[job.folder].gradients is not None
        monkeypatch.chdir(grid.folder.parent)  # names of files are relative
        list(run(job.config, tmp_path / "run"))
        for name in (WEIGHTS, VOCABULARY, "config.yaml"):
            assert (tmp_path / "run" / name).read_bytes() == (job.folder / name).read_bytes()

    def test_the_second_time_nothing_is_trained_and_the_report_is_the_same(self, grid, inside):
        timeless = re.compile(r"(?m)^.*(?:\*\*Time:\*\*|\"seconds\": [\d.]+,\n    \"versions).*$")
        before = {name: (grid.folder / f"report.{name}").read_text(encoding="utf-8") for name in ("md", "json")}
        output = succeed(*grid.command)
        assert output.startswith("4 trainings ended earlier and will not be repeated.\n")
        assert output.partition("Comparison of")[2] == grid.output.partition("Comparison of")[2]
        report, old = (
            json.loads(text) for text in ((grid.folder / "report.json").read_text("utf-8"), before["json"])
        )
        assert {**report, "seconds": 0} == {**old, "seconds": 0}
        now = (grid.folder / "report.md").read_text(encoding="utf-8")
        assert timeless.sub("", now) == timeless.sub("", before["md"])

    def test_another_setting_or_one_seed_more_is_trained(self, grid, monkeypatch):
        started: list[str] = []

        def start(command, **options):
            started.append("/".join(Path(command[3]).parts[-2:]))
            raise OSError("no process today")

        monkeypatch.chdir(grid.folder.parent)
        monkeypatch.setattr(processes.subprocess, "Popen", start)
        folders = {job.folder: (job.folder / "config.yaml").read_bytes() for job in grid.jobs}
        monkeypatch.setattr(processes, "write_whole", lambda *arguments: None)
        monkeypatch.setattr(Path, "unlink", lambda *arguments, **options: None)
        assert refuse(*grid.command, "--seeds", 3) == "no process today"
        assert started == ["kind=rnn/seed-3"]
        started.clear()
        assert refuse(*grid.command, "--set", "training.epochs=5") == "no process today"
        assert started == ["kind=rnn/seed-1"]
        assert {folder: (folder / "config.yaml").read_bytes() for folder in folders} == folders

    def test_a_training_that_diverges(self, tiny_yaml, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "130")
        options = ["--set", "training.learning_rate=1e30", "--set", "training.clip=0", "--seeds", "1"]
        command = ["compare", tiny_yaml, *options, "--output", "grid"]
        result = invoke(*command)
        assert result.exit_code == 1
        assert result.stderr == "error: 1 of 1 trainings failed; the same command tries them again\n"
        line = result.stdout.splitlines()[0]
        assert re.match("tiny  seed 1  failed: .*training diverged: ", line)
        assert line.endswith("(grid/tiny/seed-1/log.txt)")
        assert "training diverged" in Path("grid/tiny/seed-1/log.txt").read_text(encoding="utf-8")
        assert "training diverged" in Path("grid/report.html").read_text(encoding="utf-8")
        (cell,) = json.loads(Path("grid/report.json").read_text(encoding="utf-8"))["cells"]
        assert (len(cell["runs"]), len(cell["failures"])) == (0, 1)

    @posix
    def test_ctrl_c_keeps_what_has_ended(self, kinds, scripted, tiny_yaml, tmp_path):
        jobs = kinds("rnn", "gru")
        scripted({"kind=rnn": done(jobs, tmp_path / "ready"), "kind=gru": SLEEP})
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from nertool.cli.main import main; "
            f"sys.executable = {processes.sys.executable!r}; main(prog_name='nertool')"
        )
        options = [
            "--vary",
            "model.encoder.kind=rnn,gru",
            "--seeds",
            "1",
            "--jobs",
            "2",
            "--output",
            tmp_path / "grid",
        ]
        python = Path(sys.prefix) / "bin" / "python"
        running = subprocess.Popen(
            [str(python), "-c", code, "compare", str(tiny_yaml), *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        number = jobs[1].folder / "pid"
        wait_for(lambda: number.exists() and (jobs[0].folder / "run.json").exists())
        assert running.stdout is not None
        assert running.stdout.readline().startswith("kind=rnn  seed 1  validation")
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=60)
        assert running.returncode == 130
        assert error == "\nStopped. 1 of 2 trainings have ended; the same command goes on with the others.\n"
        assert not alive(int(number.read_text(encoding="utf-8")))
        assert read_run(jobs[0].folder, jobs[0].config) == a_run()
        assert not (tmp_path / "grid" / "report.json").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["none.yaml"], "no config 'none.yaml' here"),
            (["tiny.yaml", "--vary", "model.encoder.kind"], "--vary model.encoder.kind: expected something like"),
            (["tiny.yaml", "--vary", "model.encoder.kind=rnn,x"], "tiny.yaml: kind=x: model.encoder.kind: input"),
            (["tiny.yaml", "--vary", "training.epochs=1,["], "--vary training.epochs=1,[: not valid YAML"),
            (["tiny.yaml", "--output", "train.txt"], "train.txt: cannot write there"),
        ],
    )
    def test_mistakes(self, tiny_yaml, monkeypatch, arguments, message):
        monkeypatch.chdir(tiny_yaml.parent)
        assert message in refuse("compare", *arguments)

    def test_scores_of_other_sentences_are_no_traceback(self, grid, inside, monkeypatch):
        other = a_run(counts=[(1, 1, 1)])
        found = {
            job.folder.resolve(): replace(run, counts=run.counts)
            for job, run in zip(grid.jobs, grid.runs.values(), strict=True)
        }
        found[grid.jobs[0].folder.resolve()] = other
        monkeypatch.setattr(runner, "read_run", lambda folder, config: found[folder.resolve()])
        assert "was scored on other sentences than" in refuse(*grid.command)


def cell_step(kind: str, weights: dict[str, np.ndarray], state: np.ndarray, value: np.ndarray) -> np.ndarray:
    """One step of a recurrent cell, written out; the state of an LSTM is (hidden, cell)."""

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    size = weights["weight_hh_l0"].shape[1]
    hidden = state[:size]
    inputs = weights["weight_ih_l0"] @ value + weights["bias_ih_l0"]
    before = weights["weight_hh_l0"] @ hidden + weights["bias_hh_l0"]
    if kind == "rnn":
        return np.tanh(inputs + before)
    if kind == "gru":
        (r, z, n), (rh, zh, nh) = np.split(inputs, 3), np.split(before, 3)
        reset, update = sigmoid(r + rh), sigmoid(z + zh)
        return (1 - update) * np.tanh(n + reset * nh) + update * hidden
    i, f, g, o = np.split(inputs + before, 4)
    memory = sigmoid(f) * state[size:] + sigmoid(i) * np.tanh(g)
    return np.concatenate([sigmoid(o) * np.tanh(memory), memory])


def walk(kind: str, weights: dict[str, np.ndarray], values: np.ndarray) -> list[np.ndarray]:
    """The states over a text, the first one before it."""
    size = weights["weight_hh_l0"].shape[1]
    states = [np.zeros(2 * size if kind == "lstm" else size)]
    for value in values:
        states.append(cell_step(kind, weights, states[-1], value))
    return states


def weights_of(direction: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().astype(float) for name, value in direction.cell.named_parameters()}


def by_jacobians(model: Model, tokens: list[str]) -> list[np.ndarray]:
    """What arrives at each state for each text, by the product of the Jacobians of single steps."""
    kind = model.config.model.encoder.kind
    texts = [tokens[i : i + STEPS + 1] for i in range(0, len(tokens) - min(STEPS, len(tokens) - 1), STEPS + 1)]
    arriving = torch.randn(
        (1, len(texts), model.config.model.encoder.hidden),
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )[0].numpy()
    model.network.eval()
    caught: list[torch.Tensor] = []
    hook = model.network.encoder.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    found = []
    for text, gradient in zip(texts, arriving, strict=True):
        with torch.no_grad():
            model.network(Batch.of(EncodedCorpus(model.inputs, [document(text)]).batch(np.array([0]))))
        values = caught.pop()[:, 0].numpy().astype(float)
        *below, last = (list(layer.children()) for layer in model.network.encoder.layers)
        for layer in below:
            size = model.config.model.encoder.hidden
            ahead = np.array(walk(kind, weights_of(layer[0]), values)[1:])[:, :size]
            sides = [ahead]
            if len(layer) == 2:
                sides.append(np.array(walk(kind, weights_of(layer[1]), values[::-1])[1:])[::-1, :size])
            values = np.concatenate(sides, 1)
        weights = weights_of(last[0])
        states = walk(kind, weights, values)
        at = np.concatenate([gradient / np.linalg.norm(gradient), np.zeros(len(states[0]) - len(gradient))])
        norms = [np.linalg.norm(at)]
        for state, value in zip(states[-2:0:-1], values[:0:-1], strict=True):
            steps = 1e-5 * np.eye(len(state))
            jacobian = np.array(
                [
                    (cell_step(kind, weights, state + step, value) - cell_step(kind, weights, state - step, value))
                    / 2e-5
                    for step in steps
                ]
            )
            at = jacobian @ at
            norms.append(np.linalg.norm(at))
        found.append(np.array(norms))
    hook.remove()
    return found


def document(tokens: list[str]) -> Document:
    """A sentence with a column that depends on each token's place as well as on its form."""
    return Document(tuple(tokens), columns={"initial": tuple(token[:1] for token in tokens)})


def documents_of(pairs) -> list[Document]:
    return [document(tokens) for tokens, _ in pairs]


@pytest.fixture
def untrained(tiny_config: Make, tiny_train) -> Callable[..., Model]:
    def make(**encoder: object) -> Model:
        settings = {**({} if encoder["kind"] == "none" else {"hidden": 4}), **encoder}
        config = tiny_config(
            f"model.encoder={flow(settings)}",
            "model.dropout=0.5",
            "inputs.words.dropout=0.2",
            "inputs.initial={kind: column, column: initial, dimensions: 3}",
        )
        documents = [
            replace(each, labels=tuple(convert(labels, Scheme.IOB2, Scheme.IOBES)), scheme=Scheme.IOBES)
            for each, (_, labels) in zip(documents_of(tiny_train), tiny_train, strict=True)
        ]
        return new_model(config, documents, Scheme.IOBES, Resources())

    return make


class TestGradients:
    @pytest.mark.parametrize("layers", [1, 2])
    @pytest.mark.parametrize("bidirectional", [False, True])
    @pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
    def test_they_are_products_of_jacobians(self, untrained, tiny_train, kind, bidirectional, layers):
        model = untrained(kind=kind, bidirectional=bidirectional, layers=layers)
        # Larger weights than at the start, so that steps differ, and biases in both places.
        generator = torch.Generator().manual_seed(3)
        for parameter in model.network.encoder.parameters():
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        sentences = [tokens for tokens, _ in tiny_train] * 2
        found = state_gradients(model, list(map(document, sentences)))
        assert found is not None and len(found) == STEPS + 1
        assert found[0] == pytest.approx(1, abs=1e-12)
        texts = by_jacobians(model, [token for tokens in sentences for token in tokens])
        assert len(texts) == 3
        np.testing.assert_allclose(found, np.exp(np.mean(np.log(texts), 0)), rtol=1e-4)

    @pytest.mark.parametrize("count", [1, 2, 20, 50, 51, 52])
    def test_texts_shorter_than_the_steps(self, untrained, tiny_train, count):
        model = untrained(kind="gru")
        tokens = [token for tokens, _ in tiny_train for token in tokens][:count]
        found = state_gradients(model, [document(tokens[:1]), document([]), document(tokens[1:])])
        assert found is not None and len(found) == min(count, STEPS + 1)
        np.testing.assert_allclose(found, by_jacobians(model, tokens[: STEPS + 1])[0], rtol=1e-4)

    def test_no_more_texts_than_are_needed(self, untrained, tiny_train, monkeypatch):
        model, sentences = untrained(kind="rnn"), documents_of(tiny_train) * 4
        monkeypatch.setattr(gradients, "_TEXTS", 2)
        flat = [token for sentence in sentences for token in sentence.tokens][: 2 * (STEPS + 1)]
        found = state_gradients(model, sentences)
        assert found == pytest.approx(state_gradients(model, [document(flat)]))

    def test_nothing_comes_back_through_no_weights(self, untrained, tiny_train):
        model = untrained(kind="rnn", bidirectional=False)
        model.network.encoder.layers[0][0].cell.weight_hh_l0.data.zero_()
        found = state_gradients(model, documents_of(tiny_train))
        assert found is not None
        assert found == [pytest.approx(1)] + [0.0] * STEPS

    @pytest.mark.parametrize("kind", ["cnn", "none"])
    def test_without_a_recurrent_state_there_are_none(self, untrained, tiny_train, kind):
        assert state_gradients(untrained(kind=kind), documents_of(tiny_train[:1])) is None

    @pytest.mark.parametrize("training", [True, False])
    def test_measuring_changes_nothing(self, untrained, tiny_train, training):
        model = untrained(kind="lstm", layers=2)
        network = model.network.train(training)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        noise, random, threads = network.noise.state.copy(), torch.get_rng_state(), torch.get_num_threads()
        sentences = documents_of(tiny_train)
        first = state_gradients(model, sentences)
        assert first == state_gradients(model, sentences)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert all(module.training == training for module in network.modules())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
        assert (network.noise.state == noise).all()
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.get_num_threads() == threads

    def test_training_goes_the_same_way_with_and_without(self, tiny_config: Make, tmp_path):
        config = tiny_config("training.epochs=2", "model.encoder.kind=gru")
        for name in ("with", "without"):
            for record in run(config, tmp_path / name):
                if isinstance(record, Prepared) and name == "with":
                    assert state_gradients(record.model, record.corpus.validation.sentences) is not None
        weights = [(tmp_path / name / WEIGHTS).read_bytes() for name in ("with", "without")]
        assert weights[0] == weights[1]
