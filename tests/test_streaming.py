"""Training from shards on disk; the same corpus in memory is the oracle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nertool.config.schema import Config, CorpusConfig
from nertool.data import sharding
from nertool.data import shards as shards_module
from nertool.data.corpus import Split, open_splits, read_corpus, read_training
from nertool.data.encoding import EncodedCorpus
from nertool.data.pieces import LONGEST, in_pieces
from nertool.data.sharding import Sharding, write_shards
from nertool.data.shards import Shards, shards_folder
from nertool.data.streaming import StreamedCorpus, StreamedSplit, read_streamed
from nertool.errors import BundleError, ConfigError, CorpusError
from nertool.training.preparation import prepare
from nertool.training.run import Finished, Prepared, Resumed, run
from nertool.training.trainer import Epoch, Step

# Lines of a token and its label; an empty one ends a sentence. `MANY` of them make several shards.
CORPORA = {
    "IOB1": "Ada I-PER\nByron I-PER\nBo B-PER\nran O\n\nOslo I-LOC\nBank I-ORG\n\nran O\n",
    "IOB2": "Ada B-PER\nByron I-PER\nBo B-PER\nran O\n\nOslo B-LOC\n\nran O\nAda B-PER\n",
    "IOBES": "Ada B-PER\nByron E-PER\nBo S-PER\nran O\n\nOslo S-LOC\n\nran O\n",
    "strays": "Ada I-PER\nByron I-PER\nran O\n\nOslo B-LOC\nBank I-ORG\n\nAda B-PER\n\nBo B-PER\n\nBo B-PER\n",
    "plain": "Ada NOUN\nran VERB\n\nOslo NOUN\n. .\n\nran VERB\n",
    "partial": "Ada B-PER\nByron ?\nBo B-PER\n\nOslo ?\nran ?\n\nran O\nOslo B-LOC\nBank I-ORG\n\nAda B-PER\n\n",
    "documents": "-DOCSTART- O\n\nAda B-PER\nran O\n\nBo B-PER\n\n-DOCSTART- O\n\nran O\nOslo B-LOC\n",
    "late": "ran O\n. O\n\n. O\n\nran O\n\nAda S-PER\nran O\n\nOslo S-LOC\n\nran O\nNew B-LOC\nBank E-LOC\n",
    "long": "".join(f"w{n % 7} {'B-X' if n % 5 == 0 else 'I-X' if n % 5 == 1 else 'O'}\n" for n in range(1300)),
}
REPEATED = 3


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep shards in a folder of the test, and make them small."""
    monkeypatch.setenv("NERTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sharding, "SHARD_TOKENS", 7)
    monkeypatch.setattr(shards_module, "BLOCK_TOKENS", 3)
    return tmp_path / "cache"


def corpus_config(path: Path, **settings: Any) -> CorpusConfig:
    return CorpusConfig(train=str(path), validation=str(path), stream=True, **settings)


def write_corpus(folder: Path, name: str) -> Path:
    path = folder / f"{name}.txt"
    path.write_text(f"{CORPORA[name]}\n" * REPEATED, encoding="utf-8")
    return path


def in_memory(config: CorpusConfig) -> Split:
    config = config.model_copy(update={"stream": False})
    return read_training(open_splits(config), config)


def rows(split: Split) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(each.tokens, each.labels or ()) for each in in_pieces(split.sentences, split.label_scheme)]


def written(config: CorpusConfig) -> tuple[list[Sharding], Shards]:
    """Write shards; return the records and the shards."""
    records, writing = [], write_shards(config)
    while True:
        try:
            records.append(next(writing))
        except StopIteration as ended:
            return records, ended.value


@pytest.mark.parametrize("learnt", ["IOBES", "IOB2", "IOB1"])
@pytest.mark.parametrize("name", CORPORA)
def test_the_split_is_that_of_a_corpus_in_memory(name: str, learnt: Any, tmp_path: Path):
    config = corpus_config(write_corpus(tmp_path, name), learn_scheme=learnt)
    expected, split = in_memory(config), read_streamed(config)
    assert split.shards.count > 1
    assert (split.scheme, split.label_scheme) == (expected.scheme, expected.label_scheme)
    assert rows(split) == rows(expected)
    assert split.entity_counts() == expected.entity_counts()
    assert split.label_counts() == expected.label_counts()
    for count in ("token_count", "document_count", "unknown_count", "long_count", "has_entities"):
        assert getattr(split, count) == getattr(expected, count), count
    assert (len(split), split.unlabelled, split.strays) == (len(expected), expected.unlabelled, expected.strays)
    assert split.notes() == expected.notes()
    assert split.documents.token_counts() == Counter(  # type: ignore[attr-defined]
        token for document in expected.documents for token in document.tokens
    )
    sentences = list(split.sentences)
    assert [split.sentences[number] for number in range(len(sentences))] == sentences
    assert split.sentences[-1] == sentences[-1]


def test_it_reads_any_format(tmp_path: Path):
    path = tmp_path / "texts.jsonl"
    texts = [
        {"text": "Ada ran. Bo Lind won.", "entities": [{"start": 0, "end": 3, "label": "PER"}]},
        {"text": "Rain in Oslo", "entities": [{"start": 8, "end": 12, "label": "LOC"}], "document": 7},
        {"text": "no one looked at this"},
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in texts * 3), encoding="utf-8")
    config = corpus_config(path)
    expected, split = in_memory(config), read_streamed(config)
    assert rows(split) == rows(expected)
    assert split.unlabelled == expected.unlabelled == 3
    assert split.document_count == expected.document_count


def test_a_label_may_be_anything_that_utf8_can_hold(tmp_path: Path):
    path = tmp_path / "odd.jsonl"
    texts = [{"tokens": ["\u2028", "\ud800x", "é"], "labels": ["x\ty".replace("\t", " "), "ß", "ß"]}] * 12
    path.write_text("".join(json.dumps(each) + "\n" for each in texts), encoding="utf-8")
    config = corpus_config(path, scheme="plain")
    assert rows(read_streamed(config)) == rows(in_memory(config))


# Training


def both(tiny_config: Callable[..., Config], *overrides: str) -> tuple[Config, Config]:
    return tiny_config(*overrides), tiny_config("corpus.stream=true", *overrides)


def losses(folder: Path) -> list[tuple[float, float, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(each["loss"], each["f1"], each["gradient_norm"]) for each in lines]


def same_weights(first: Path, second: Path) -> bool:
    from safetensors.numpy import load_file

    one, two = (load_file(folder / "weights.safetensors") for folder in (first, second))
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_training_is_that_of_a_corpus_in_memory_to_the_bit(tiny_config, tmp_path: Path):
    memory, stream = both(tiny_config, "training.epochs=3", "model.dropout=0.3")
    *_, expected = run(memory, tmp_path / "memory")
    records = list(run(stream, tmp_path / "stream"))
    finished = records[-1]
    assert isinstance(finished, Finished) and isinstance(expected, Finished)
    assert finished.test == expected.test
    assert losses(tmp_path / "stream") == losses(tmp_path / "memory")
    assert same_weights(tmp_path / "stream", tmp_path / "memory")
    assert [type(record) for record in records[:2]] == [Sharding, Sharding]
    steps = [record for record in records if isinstance(record, Step)]
    assert steps[-1].tokens == steps[-1].total


@pytest.mark.parametrize("batch_size", [1, 5, 100])
@pytest.mark.parametrize("window", [1, 40])
def test_an_epoch_has_each_sentence_once(window: int, batch_size: int, tiny_config):
    prepared = prepare(tiny_config("corpus.stream=true", f"corpus.shuffle={window}"))
    memory = prepare(tiny_config()).encoded
    corpus = prepared.encoded
    assert isinstance(corpus, StreamedCorpus) and isinstance(memory, EncodedCorpus) and not corpus.covered
    orders = []
    for epoch in range(3):
        steps, sentences, tokens, batches = corpus.epoch(batch_size, 1, epoch)
        order = []
        count = 0
        for part, indices, numbers in batches:
            count += 1
            assert part.token_count <= window + 2 * 14  # two blocks more, which no sentence is cut for
            got, wanted = part.batch(indices), memory.batch(numbers)
            assert np.array_equal(got.labels, wanted.labels) and np.array_equal(got.lengths, wanted.lengths)
            assert np.array_equal(got.forms, wanted.forms)
            for name, values in wanted.form_features.items():
                assert all(map(np.array_equal, got.form_features[name], values))
            order += numbers.tolist()
        assert (count, sentences, tokens) == (steps, len(memory), memory.token_count)
        assert sorted(order) == list(range(len(memory)))
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]
    again = [n for *_, numbers in corpus.epoch(batch_size, 1, 0).batches for n in numbers]
    assert again == orders[0]


@pytest.mark.parametrize("window", [20, 1000])
def test_several_epochs_have_each_sentence_once(window: int, tiny_config):
    corpus = prepare(
        tiny_config("corpus.stream=true", f"corpus.shuffle={window}", "corpus.epoch_tokens=30")
    ).encoded
    assert isinstance(corpus, StreamedCorpus) and 1 < corpus.parts == round(corpus.token_count / 30)
    turns = []
    for turn in range(3):
        numbers: list[int] = []
        for part in range(corpus.parts):
            steps, sentences, tokens, batches = corpus.epoch(3, 1, turn * corpus.parts + part)
            drawn = list(batches)
            assert len(drawn) == steps
            assert sum(len(own) for _, _, own in drawn) == sentences < len(corpus)
            assert sum(int(each.lengths[indices].sum()) for each, indices, _ in drawn) == tokens
            numbers += [int(number) for _, _, own in drawn for number in own]
        assert sorted(numbers) == list(range(len(corpus)))
        turns.append(numbers)
    assert turns[0] != turns[1] != turns[2]


def test_there_are_no_more_epochs_than_blocks(tiny_config):
    corpus = prepare(tiny_config("corpus.stream=true", "corpus.epoch_tokens=1")).encoded
    assert isinstance(corpus, StreamedCorpus)
    assert all(corpus.epoch(3, 1, number).sentences for number in range(corpus.parts))


@pytest.mark.parametrize("window", [30, 1000])
def test_columns_and_gazetteers_are_read(window: int, tiny_config, tmp_path: Path):
    text = "".join(f"w{n % 5} T{n * n % 7} {'B-X' if n % 3 else 'O'}\n" + "\n" * (n % 4 == 0) for n in range(60))
    for name in ("train", "validation"):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "names.txt").write_text("w1 w2\nw4\n", encoding="utf-8")
    settings = [f"corpus.{name}={tmp_path / name}.txt" for name in ("train", "validation")] + [
        "corpus.columns=[token, pos, label]",
        "corpus.test=null",
        "training.epochs=1",
        "inputs.pos={kind: column, column: pos, minimum_count: 3}",
        f"inputs.names={{kind: gazetteer, files: [{tmp_path / 'names.txt'}]}}",
    ]
    memory, stream = (prepare(each) for each in both(tiny_config, f"corpus.shuffle={window}", *settings))
    assert isinstance(memory.encoded, EncodedCorpus) and isinstance(stream.encoded, StreamedCorpus)
    assert stream.encoded.covered == (window == 1000)
    assert {name: each.state() for name, each in stream.model.inputs.items()} == {
        name: each.state() for name, each in memory.model.inputs.items()
    }
    for part, indices, numbers in stream.encoded.epoch(3, 1, 0).batches:
        got, wanted = part.batch(indices).token_features, memory.encoded.batch(numbers).token_features
        assert got.keys() == wanted.keys() == {"pos", "names"}
        assert all(np.array_equal(got[name][0], wanted[name][0]) for name in wanted)
    list(run(stream.config, tmp_path / "run"))
    assert [each.columns for each in stream.corpus.train.sentences] == [
        each.columns for each in memory.corpus.train.sentences
    ]


def test_unannotated_types_are_sets_of_labels(tiny_config, trained_run: Path, tmp_path: Path):
    path = tmp_path / "places.txt"
    path.write_text("Ada O\nsaw O\nOslo B-LOC\n\nMalmö B-LOC\n. O\n\n" * 4, encoding="utf-8")
    settings = [f"corpus.train={path}", f"corpus.validation={path}", f"start.model={trained_run}"]
    memory, stream = both(tiny_config, *settings, "start.keep_labels=true", "training.epochs=2")
    run_both = [list(run(each, tmp_path / name))[-1] for each, name in ((memory, "m"), (stream, "s"))]
    assert all(isinstance(each, Finished) for each in run_both)
    assert losses(tmp_path / "s") == losses(tmp_path / "m")


@pytest.mark.parametrize("epoch_tokens", [None, 30])
def test_a_stopped_training_goes_on_to_the_same_bits(epoch_tokens: int | None, tiny_config, tmp_path: Path):
    settings = [] if epoch_tokens is None else [f"corpus.epoch_tokens={epoch_tokens}"]
    config = tiny_config(
        "corpus.stream=true", "corpus.shuffle=20", "training.epochs=4", "model.dropout=0.3", *settings
    )
    list(run(config, tmp_path / "whole"))
    with closing(run(config, tmp_path / "stopped")) as records:
        while not (isinstance(record := next(records), Step) and record.epoch == 3):
            pass
    records = list(run(config, tmp_path / "stopped", resume=True))
    assert isinstance(records[0], Prepared) and isinstance(records[1], Resumed)
    assert sum(isinstance(record, Epoch) for record in records) == 2
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("key", ["shuffle", "epoch_tokens"])
def test_another_window_or_epoch_is_another_training(key: str, tiny_config, tmp_path: Path):
    settings = "corpus.stream=true", "training.epochs=2"
    with closing(run(tiny_config(*settings, f"corpus.{key}=20"), tmp_path / "run")) as records:
        while not (isinstance(record := next(records), Step) and record.epoch == 2):
            pass
    with pytest.raises(BundleError, match=rf"corpus.{key}: 30, was 20"):
        list(run(tiny_config(*settings, f"corpus.{key}=30"), tmp_path / "run", resume=True))


# Shards


def many(tmp_path: Path) -> CorpusConfig:
    path = tmp_path / "many.txt"
    path.write_text("".join(f"w{n} B-X\nv{n // 3} O\n\n" for n in range(30)), encoding="utf-8")
    return corpus_config(path)


def test_what_was_written_is_used_again(tmp_path: Path, cache: Path):
    config = many(tmp_path)
    records, shards = written(config)
    assert [record.done for record in records] == [False] * (len(records) - 1) + [True]
    assert records[-1].tokens == shards.facts.tokens == 60 and records[-1].before == 0
    assert records[-1].share == 1.0
    assert shards.folder.parent == cache / "shards"
    os.utime(tmp_path / "many.txt", (1, 1))
    again, same = written(config)
    assert again == [] and same.digest == shards.digest and same.folder == shards.folder
    moved = tmp_path / "elsewhere.txt"
    moved.write_bytes((tmp_path / "many.txt").read_bytes())
    assert written(corpus_config(moved))[0] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text(path.read_text() + "more O\n"),
        lambda path: path.write_text(path.read_text().replace("w3", "w4", 1)),
    ],
)
def test_changed_data_is_written_anew(change: Callable[[Path], Any], tmp_path: Path):
    config = many(tmp_path)
    _, before = written(config)
    change(tmp_path / "many.txt")
    records, after = written(config)
    assert records and after.folder != before.folder and after.digest != before.digest
    assert rows(StreamedSplit.of(after, config)) == rows(in_memory(config))


def test_other_settings_are_written_anew(tmp_path: Path):
    config = many(tmp_path)
    written(config)
    assert written(config.model_copy(update={"strip": "[0-9]$"}))[0]
    assert written(config.model_copy(update={"shuffle": 5}))[0] == []


@pytest.mark.parametrize("stop", [1, 3, 8])
def test_a_stopped_preparation_goes_on(stop: int, tmp_path: Path):
    config = many(tmp_path)
    with closing(write_shards(config)) as writing:
        for _ in range(stop):
            next(writing)
    (folder,) = shards_folder().iterdir()
    (folder / f".000099.safetensors.{os.getpid()}.part").write_bytes(b"left by a kill")
    records, shards = written(config)
    assert records[-1].before > 0
    assert not list(folder.glob(".*.part"))
    assert rows(StreamedSplit.of(shards, config)) == rows(in_memory(config))
    (tmp_path / "copy").mkdir()
    folder.rename(tmp_path / "copy" / folder.name)
    assert written(config)[1].digest == shards.digest


def test_a_killed_preparation_goes_on(tmp_path: Path, cache: Path):
    config = many(tmp_path)
    script = (
        "import sys, os, signal\n"
        "from nertool.config.schema import CorpusConfig\n"
        "from nertool.data import sharding\n"
        "sharding.SHARD_TOKENS = 7\n"
        f"config = CorpusConfig(train={config.train!r}, validation={config.train!r}, stream=True)\n"
        "for number, record in enumerate(sharding.write_shards(config)):\n"
        "    if number == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    records, shards = written(config)
    assert records[-1].before > 0
    assert rows(StreamedSplit.of(shards, config)) == rows(in_memory(config))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": _flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "noise": lambda path: path.write_bytes(b"\xff" * 300),
    "another": lambda path: path.write_bytes((path.parent / "000001.safetensors").read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("number", [0, 4])
def test_a_damaged_shard_is_made_anew(number: int, damage: str, tmp_path: Path):
    config = many(tmp_path)
    _, shards = written(config)
    DAMAGES[damage](shards.folder / f"{number:06}.safetensors")
    records, again = written(config)
    assert records and records[-1].before == number * 8  # of two tokens a sentence, four make more than seven
    assert again.digest == shards.digest


def test_a_damaged_index_is_made_anew(tmp_path: Path):
    config = many(tmp_path)
    _, shards = written(config)
    (shards.folder / "corpus.json").write_text("[")
    assert written(config)[1].digest == shards.digest


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_damage_during_training_is_an_error(damage: str, tiny_config, tmp_path: Path):
    config = tiny_config("corpus.stream=true", "corpus.shuffle=20", "training.epochs=3")
    with closing(run(config, tmp_path / "run")) as records:
        while not (isinstance(record := next(records), Step) and record.epoch == 2):
            pass
        (folder,) = shards_folder().iterdir()
        for path in folder.glob("*.safetensors"):
            DAMAGES[damage](path)
        with pytest.raises(CorpusError, match=r"safetensors: this shard .* --resume makes it anew"):
            list(records)
    assert isinstance(list(run(config, tmp_path / "run", resume=True))[-1], Finished)


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = many(tmp_path)
    _, first = written(config)
    monkeypatch.setenv(shards_module.LIMIT, "0.000001")
    _, second = written(config.model_copy(update={"strip": "[0-9]$"}))
    assert first.folder.exists()  # used today
    for path in first.folder.iterdir():
        os.utime(path, (1, 1))
    _, third = written(config.model_copy(update={"strip": "[1-9]$"}))
    assert [folder.exists() for folder in (first.folder, second.folder, third.folder)] == [False, True, True]
    monkeypatch.setenv(shards_module.LIMIT, "some")
    with pytest.raises(ConfigError, match="NERTOOL_SHARDS_GB is 'some'; expected a number"):
        written(config)


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\n\nb B-X\n\n" + "c O\n\n" * 5 + "d I-X\nd O\n\n" * 9, r"labelled in IOB2, .* looks like IOB1: name"),
        ("", "there is no sentence in it"),
        ("a ?\nb ?\n\n" * 9, r"no sentence in it with labels for any of its tokens \(9 lack them\)"),
        ("a O\n\nb B-X\n\n" * 9 + "c O\nd\n", "line 38: found 1 column"),
        ("a O\n\nb B-X\n\n" * 9 + "c Z-X\n", r"'Z-X' is not a label of IOB2"),
    ],
)
def test_wrong_data_is_refused_and_leaves_nothing(text: str, message: str, tmp_path: Path):
    path = tmp_path / "wrong.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_streamed(corpus_config(path))
    assert not list(shards_folder().glob("*/*.safetensors"))


def test_strays_may_be_refused(tmp_path: Path):
    config = corpus_config(write_corpus(tmp_path, "strays"), stray="refuse", scheme="IOB2")
    with pytest.raises(CorpusError, match=r"line 1: 'I-PER' is not allowed here in IOB2"):
        read_streamed(config)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path):
    config = many(tmp_path)
    writing = write_shards(config)
    next(writing)
    with (tmp_path / "many.txt").open("a") as target:
        target.write("more O\n")
    with pytest.raises(CorpusError, match="changed while it was read"):
        list(writing)


def test_a_pipe_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CorpusError, match="can be read only once"):
        read_streamed(corpus_config(tmp_path / "pipe"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["corpus.validation=null"], r"corpus.stream: no part of it can be held out.*--validation"),
        (["corpus.fold=1/5", "corpus.test=null"], "stream: with fold all sentences are read into memory"),
        (["corpus.fraction=0.5"], "stream: a fraction is drawn"),
        (["corpus.weights=weights.jsonl"], "stream: with weights all sentences"),
        (["corpus.hub=owner/name"], "stream: a dataset is read into memory; .*parquet"),
    ],
)
def test_what_needs_all_in_memory_is_refused(settings: list[str], message: str, tiny_config):
    with pytest.raises(ConfigError, match=message):
        tiny_config("corpus.stream=true", *settings)


def test_a_transformer_is_refused(tiny_config, tmp_path: Path):
    config = tiny_config("corpus.stream=true", "inputs.bert={kind: transformer, model: somebody/model}")
    with pytest.raises(ConfigError, match=r"corpus.stream: inputs.bert \(kind transformer\) looks at more than"):
        next(run(config, tmp_path / "run"))
    assert not shards_folder().exists()


def test_a_missing_column_is_refused(tiny_config, tmp_path: Path):
    config = tiny_config("corpus.stream=true", "inputs.pos={kind: column, column: pos}")
    message = r"train.txt, line 1: there is no column 'pos', which an input reads \(further columns here: none\)"
    with pytest.raises(CorpusError, match=message):
        next(run(config, tmp_path / "run"))


def test_a_window_without_streaming_has_no_effect(tiny_config):
    assert tiny_config("corpus.shuffle=5").corpus.idle() >= {"shuffle"}


def test_reading_all_of_it_is_refused(tmp_path: Path):
    config = many(tmp_path)
    with pytest.raises(ConfigError, match=r"corpus.stream: here all sentences are read into memory"):
        read_training(open_splits(config), config)
    assert isinstance(read_corpus(config).train, StreamedSplit)


def test_long_sentences_are_learnt_in_pieces(tmp_path: Path):
    split = read_streamed(corpus_config(write_corpus(tmp_path, "long")))
    assert split.long_count == REPEATED and len(split) == REPEATED
    assert max(map(len, split.sentences)) <= LONGEST


def test_labels_are_those_of_each_sentence(tmp_path: Path):
    split = read_streamed(corpus_config(write_corpus(tmp_path, "long")))
    with pytest.raises(CorpusError, match="take those of each sentence"):
        split.labels  # noqa: B018
    assert all(sentence.labels for sentence in split.sentences)
