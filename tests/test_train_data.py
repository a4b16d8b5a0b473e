"""Training without a config: what is chosen for a data file, what is held out of it, and what `init` writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import nertool
from nertool.cli.main import main
from nertool.config.loading import load_config, locate_files
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_corpus
from nertool.data.recipe import choose_settings, make_recipe, run_name
from nertool.data.stratification import choose_share
from nertool.errors import ConfigError, CorpusError

SMALL = (
    *("--set", "inputs.words.dimensions=8", "--set", "inputs.characters=null"),
    *("--set", "model.encoder.hidden=8", "--set", "training.threads=1", "--set", "training.epochs=2"),
)
NAMES = ("Ada", "Otto", "Mina", "Sefa")
TOWNS = ("Oslo", "Lima", "Malmö")


def texts(count: int) -> list[tuple[str, list[list[object]]]]:
    """Sentences with one person each, every third with a town, every twentieth with a ship."""
    result = []
    for number in range(count):
        text, labels = "", []
        for word, kind in (
            (NAMES[number % 4], "PER"),
            ("left", ""),
            *([(TOWNS[number % 5 % 3], "LOC")] if number % 3 == 0 else []),
            *([("Vasa", "SHIP")] if number % 20 == 1 else []),
        ):
            if kind:
                labels.append([len(text), len(text) + len(word), kind])
            text += f"{word} "
        result.append((text.strip(), labels))
    return result


def doccano(path: Path, count: int) -> Path:
    """Write a doccano export."""
    lines = [json.dumps({"text": text, "label": labels}) for text, labels in texts(count)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def columns(path: Path, count: int, document_size: int | None = None) -> Path:
    """Write columns, with documents of some sentences if asked for."""
    lines = []
    for number, (text, labels) in enumerate(texts(count)):
        if document_size and number % document_size == 0:
            lines.append("-DOCSTART- O\n")
        kinds = {text[start:end]: kind for start, end, kind in labels}  # type: ignore[misc]
        lines += [f"{word} B-{kinds[word]}" if word in kinds else f"{word} O" for word in text.split()]
        lines.append("")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestStratification:
    @given(
        st.lists(
            st.tuples(st.integers(1, 5), st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 3))),
            min_size=2,
            max_size=40,
        ),
        st.floats(0.05, 0.5),
    )
    def test_parts_are_whole_and_no_type_is_lost_from_training(self, groups, share):
        sizes, types = [size for size, _ in groups], [found for _, found in groups]
        chosen = choose_share(sizes, types, share, [True] * len(groups))
        assert 0 < len(chosen) < len(groups)
        assert chosen == choose_share(sizes, types, share, [True] * len(groups))
        if len(chosen) > 1:
            for name in set().union(*types):
                assert any(name in types[index] for index in range(len(types)) if index not in chosen)

    def test_each_type_has_about_its_share_in_both_parts(self):
        types = [{"common": 1}] * 80 + [{"rare": 2}] * 15 + [{}] * 100 + [{"twice": 1}] * 2 + [{"once": 1}]
        chosen = choose_share([1] * len(types), types, 0.2, [True] * len(types))
        held = Counter(name for index in chosen for name in types[index])
        assert len(chosen) == round(0.2 * len(types))
        assert (held["common"], held["rare"], held["twice"], held["once"]) == (16, 3, 1, 0)

    def test_what_is_not_allowed_is_not_chosen(self):
        chosen = choose_share([1] * 20, [{}] * 20, 0.5, [index % 2 == 0 for index in range(20)])
        assert len(chosen) == 10
        assert all(index % 2 == 0 for index in chosen)
        assert choose_share([1] * 20, [{}] * 20, 0.5, [False] * 20) == set()


class TestHeldOut:
    def corpus(self, path: Path, share: float = 0.2):
        return read_corpus(CorpusConfig(train=str(path), held_out=share, held_out_by="shuffled"))

    def test_each_type_is_in_both_parts_and_nothing_is_lost(self, tmp_path):
        path = columns(tmp_path / "a.txt", 60)
        corpus = self.corpus(path)
        assert len(corpus.validation) == 12
        assert (
            set(corpus.train.entity_counts()) == set(corpus.validation.entity_counts()) == {"PER", "LOC", "SHIP"}
        )
        whole = Counter(" ".join(text.split()) for text, _ in texts(60))
        parts = Counter(" ".join(each.tokens) for split in corpus.splits.values() for each in split.sentences)
        assert parts == whole
        last = read_corpus(CorpusConfig(train=str(path), held_out=0.2))
        assert [each.tokens for each in corpus.validation.sentences] != [
            each.tokens for each in last.validation.sentences
        ]

    def test_documents_stay_whole(self, tmp_path):
        corpus = self.corpus(columns(tmp_path / "a.txt", 60, document_size=4))
        assert (corpus.train.document_count, corpus.validation.document_count) == (12, 3)
        assert len(corpus.validation) == 12

    def test_of_few_documents_sentences_are_held_out(self, tmp_path):
        corpus = self.corpus(columns(tmp_path / "a.txt", 40, document_size=20))
        assert (len(corpus.train), len(corpus.validation)) == (32, 8)

    def test_sentences_without_all_labels_are_learnt_from(self, tmp_path):
        path = columns(tmp_path / "a.txt", 40)
        path.write_text(path.read_text(encoding="utf-8").replace("left O\nOslo", "left ?\nOslo"), encoding="utf-8")
        corpus = self.corpus(path)
        assert corpus.train.unknown_count
        assert (len(corpus.validation), corpus.validation.unknown_count) == (8, 0)

    def test_nothing_can_be_held_out_where_no_sentence_has_all_labels(self, tmp_path):
        path = columns(tmp_path / "a.txt", 40)
        path.write_text(path.read_text(encoding="utf-8").replace("left O", "left ?"), encoding="utf-8")
        with pytest.raises(CorpusError, match=r"name a file with all labels as corpus\.validation"):
            self.corpus(path)

    def test_repaired_labels_are_counted_where_they_are(self, tmp_path):
        path = columns(tmp_path / "a.txt", 40)
        path.write_text(path.read_text(encoding="utf-8").replace("left O", "left I-SHIP"), encoding="utf-8")
        corpus = read_corpus(CorpusConfig(train=str(path), held_out=0.2, held_out_by="shuffled", scheme="IOB2"))
        for split in corpus.splits.values():
            assert split.strays == len(split.stray_places) == len(split)
            assert {split.sentences[place].tokens[token] for place, token, _ in split.stray_places} == {"left"}


class TestRecipe:
    def test_settings_follow_the_size(self):
        tiny, small, large = (choose_settings(count) for count in (1, 300, 14_000))
        assert tiny["epochs"] >= small["epochs"] >= large["epochs"] >= 10
        assert "schedule" not in small
        assert large["schedule"] == {"kind": "cosine"} and large["patience"] == large["epochs"]
        assert tiny["batch_size"] <= small["batch_size"] < large["batch_size"] == 10
        assert (small["averaging"], large["averaging"]) == (0.99, 0.999)
        assert "learning_rate" not in large
        assert choose_settings(300, "adam")["learning_rate"] == 0.001

    def test_options_and_settings_are_in_force(self, here):
        doccano(here / "mine.jsonl", 40)
        doccano(here / "dev.jsonl", 12)
        recipe = make_recipe(
            "mine.jsonl", ["corpus.validation=dev.jsonl", "training.epochs=7", "training.optimizer=adam"]
        )
        assert recipe.name == "mine"
        assert (recipe.config.corpus.train, recipe.config.corpus.validation) == ("mine.jsonl", "dev.jsonl")
        assert (recipe.config.training.epochs, recipe.config.training.learning_rate) == (7, 0.001)
        assert "about 40 training sentences: at most 7 epochs" in recipe.summary

    def test_vectors_are_recommended_where_there_are_any(self, here):
        doccano(here / "mine.jsonl", 40)
        (here / "own.txt").write_text("Ada 0.1 0.2\nleft 0.3 0.4\n", encoding="utf-8")
        (line,) = make_recipe("mine.jsonl").warnings
        assert "--vectors" in line
        assert not make_recipe("mine.jsonl", ["language=xx"]).warnings
        assert not make_recipe("mine.jsonl", ["inputs.words.vectors=[own.txt]"]).warnings

    @pytest.mark.parametrize(
        ("name", "expected"), [("a/mine.jsonl", "mine"), ("mine.v2.txt.gz", "mine.v2"), ("mine", "mine")]
    )
    def test_runs_are_named_after_the_file(self, name, expected):
        assert run_name(Path(name)) == expected

    def test_what_cannot_be_read_is_refused(self, here):
        doccano(here / "mine.jsonl", 12)
        with pytest.raises(ConfigError, match=r"there is no file other\.jsonl"):
            make_recipe("other.jsonl")
        with pytest.raises(ConfigError, match=r"corpus\.hub"):
            make_recipe("mine.jsonl", ["corpus.hub=owner/name"])
        (here / "empty").mkdir()
        with pytest.raises(CorpusError, match=r"there is no \.txt file with an \.ann file beside it"):
            make_recipe("empty")


class TestTrain:
    def test_a_file_is_enough(self, here):
        doccano(here / "mine.jsonl", 30)
        doccano(here / "test.jsonl", 8)
        result = run("train", "mine.jsonl", "--test", "test.jsonl", *SMALL)
        assert result.exit_code == 0, result.output
        folder = here / "runs" / "mine"
        assert "chosen for about 24 training sentences" in result.output
        assert "Test split, scored once" in result.output
        assert str(Path("runs", "mine", "config.yaml")) in result.output
        config = load_config(folder / "config.yaml")
        assert (config.corpus.held_out, config.corpus.held_out_by) == (0.2, "shuffled")
        again = run("train", Path("runs", "mine", "config.yaml"), "--output", "again")
        assert again.exit_code == 0, again.output
        before, after = (json.loads((each / "results.json").read_text()) for each in (folder, here / "again"))
        assert before["test"] == after["test"]

    def test_resume_finds_the_run(self, here):
        doccano(here / "mine.jsonl", 12)
        assert run("train", "mine.jsonl", *SMALL).exit_code == 0
        result = run("train", "mine.jsonl", *SMALL, "--set", "training.epochs=3", "--resume")
        assert result.exit_code == 0, result.output
        assert "resumed after epoch 2" in result.output
        assert [path.name for path in sorted((here / "runs").glob("mine*"))] == ["mine"]

    def test_few_sentences_validate_themselves_with_a_warning(self, here):
        doccano(here / "mine.jsonl", 3)
        result = run("train", "mine.jsonl", *SMALL)
        assert result.exit_code == 0, result.output
        assert "3 sentences are too few to hold some out" in result.output
        assert "validation scores say nothing about other text" in result.output

    def test_a_folder_of_brat(self, here):
        (here / "notes").mkdir()
        for number, (text, labels) in enumerate(texts(12)):
            (here / "notes" / f"{number}.txt").write_text(text, encoding="utf-8")
            marks = [f"T{n}\t{kind} {a} {b}\t{text[a:b]}\n" for n, (a, b, kind) in enumerate(labels, 1)]  # type: ignore[misc]
            (here / "notes" / f"{number}.ann").write_text("".join(marks), encoding="utf-8")
        result = run("train", "notes", *SMALL)
        assert result.exit_code == 0, result.output
        assert (here / "runs" / "notes" / "weights.safetensors").exists()

    def test_options_are_settings_of_a_config_too(self, here, tiny_yaml):
        result = run(*("train", tiny_yaml, "--language", "de", "--set", "training.epochs=1", "--output", "out"))
        assert result.exit_code == 0, result.output
        assert load_config(here / "out" / "config.yaml").language == "de"

    def test_tiny_data_is_learnt(self, here):
        doccano(here / "mine.jsonl", 4)
        result = nertool.train("mine.jsonl")
        assert result.scores["validation"].micro.f1 == 1
        assert [entity.label for entity in result.tagger(texts(1)[0][0]).entities] == ["PER", "LOC"]

    def test_a_missing_file_is_named(self, here):
        result = run("train", "mine.jsonl")
        assert result.exit_code == 1
        assert "there is no file mine.jsonl" in result.output
        assert "no config 'mine'" in run("train", "mine").output


class TestInit:
    def test_what_it_writes_trains_as_the_data_does(self, here):
        (here / "data").mkdir()
        doccano(here / "data" / "mine.jsonl", 40)
        doccano(here / "data" / "test.jsonl", 8)
        result = run("init", "data/mine.jsonl", "--test", "data/test.jsonl", "--language", "de")
        assert result.exit_code == 0, result.output
        assert "written: mine.yaml" in result.output
        text = (here / "mine.yaml").read_text(encoding="utf-8")
        assert text.startswith("# Chosen for about 32 training sentences")
        assert "train: data/mine.jsonl  #" in text
        written = locate_files(load_config(here / "mine.yaml"), here / "mine.yaml")
        chosen = make_recipe("data/mine.jsonl", ["corpus.test=data/test.jsonl", "language=de"]).config
        assert written.training == chosen.training
        assert Path(written.corpus.train or "").samefile(chosen.corpus.train or "")

    def test_it_never_replaces_a_file(self, here):
        doccano(here / "mine.jsonl", 12)
        (here / "mine.yaml").write_text("mine", encoding="utf-8")
        result = run("init", "mine.jsonl")
        assert result.exit_code == 1
        assert "mine.yaml: is there already" in result.output
        assert (here / "mine.yaml").read_text(encoding="utf-8") == "mine"

    def test_it_prints_and_writes_elsewhere(self, here):
        doccano(here / "mine.jsonl", 12)
        (here / "configs").mkdir()
        assert run("init", "mine.jsonl", "--output", "configs/own.yaml").exit_code == 0
        path = here / "configs" / "own.yaml"
        assert Path(load_config(path).corpus.train or "").samefile(here / "mine.jsonl")
        assert "held_out_by: shuffled" in run("init", "mine.jsonl", "--output", "-").output

    def test_each_file_that_it_names_is_found_from_anywhere(self, here, trained_run, monkeypatch):
        doccano(here / "mine.jsonl", 12)
        (here / "configs").mkdir()
        (here / "w.jsonl").touch()
        (here / "old").symlink_to(trained_run)
        result = run(
            *("init", "mine.jsonl", "--output", "configs/own.yaml", "--set", "start.model=old"),
            *("--set", "corpus.weights=w.jsonl"),
        )
        assert result.exit_code == 0, result.output
        monkeypatch.chdir("/")
        path = here / "configs" / "own.yaml"
        config = locate_files(load_config(path), path)
        assert Path(config.corpus.weights or "").samefile(here / "w.jsonl")
        assert Path(config.start.model or "").samefile(trained_run)

    @pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
    @pytest.mark.slow
    def test_on_a_terminal_it_asks_and_asks_again(self, here):
        doccano(here / "mine.jsonl", 12)
        doccano(here / "other.jsonl", 4)
        ours, theirs = os.openpty()
        answers = ["no.jsonl", "mine.jsonl", "no.jsonl", "", "other.jsonl", "", "zz", "de"]
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        command = [sys.executable, "-m", "nertool", "init"]
        done = subprocess.run(command, stdin=theirs, capture_output=True, encoding="utf-8", timeout=120)
        os.close(ours)
        os.close(theirs)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("there is no file no.jsonl") == 2
        assert "spaCy has no language 'zz'" in done.stderr
        config = load_config(here / "mine.yaml")
        assert (config.corpus.train, config.corpus.validation, config.corpus.test, config.language) == (
            *("mine.jsonl", None, "other.jsonl"),
            "de",
        )

    def test_without_data_and_terminal_it_says_what_to_do(self, here):
        result = run("init")
        assert result.exit_code == 2
        assert "nertool init DATA" in result.output
