"""Training that starts from the weights of another model, and types that the new data does not annotate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import SETTINGS, TRAIN, parse
from networks import TAGS, sentences, small_config, small_model

import nertool
from nertool.cli.main import main
from nertool.config.loading import load_config, locate_files
from nertool.config.schema import Config
from nertool.data.corpus import Split
from nertool.data.encoding import EncodedCorpus
from nertool.data.vectors import Vectors
from nertool.errors import BundleError, ConfigError, CorpusError
from nertool.model.batch import Batch
from nertool.model.growing import check_settings
from nertool.model.inputs.base import Resources
from nertool.model.model import Model, new_model
from nertool.tagging.bundle import CONFIG, load_bundle, save_bundle
from nertool.tagging.predictor import Predictor
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme
from nertool.training.preparation import prepare
from nertool.training.run import Epoch, Finished, run
from nertool.training.starting import fill_in, types_of

# The same kind of text, in which only dates are annotated.
DATES = """
Ada Byron wrote to Babbage in [DATE May 1840] .
Babbage lived in Zürich until [DATE Friday] .
Granite Bank hired Otto Lind in [DATE 1987] .
Nobody came on [DATE Friday] .
Rain fell on Malmö all week .
Oslo beat London in [DATE May] .
"""


def write(path: Path, text: str) -> Path:
    rows = ["".join(f"{t} {label}\n" for t, label in zip(*pair, strict=True)) for pair in parse(text)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture
def dates(tmp_path: Path, trained_run: Path) -> Callable[..., Config]:
    """Make configs over text in which only dates are annotated, starting from the trained run."""
    write(tmp_path / "dates.txt", DATES)
    write(tmp_path / "all.txt", TRAIN)
    path = tmp_path / "dates.yaml"
    path.write_text(
        SETTINGS.splitlines()[0]
        .replace("train.txt", "dates.txt", 1)
        .replace("validation.txt", "dates.txt")
        .replace(", test: test.txt", "")
        + "\n"
        + SETTINGS.split("\n", 1)[1],
        encoding="utf-8",
    )

    def config(*overrides: str, start: Path = trained_run) -> Config:
        return locate_files(load_config(path, [f"start.model={start}", "training.epochs=2", *overrides]), path)

    return config


def outcome(records: Any) -> Finished:
    *_, finished = records
    assert isinstance(finished, Finished)
    return finished


def label(model: Model, *rows: str) -> list[list[str]]:
    return Predictor(model).predict([Document(tuple(row.split())) for row in rows]).labels


class TestGrowing:
    def grow(self, old: Model, documents: list[Document], config: Config | None = None, **more: Any) -> Model:
        return new_model(
            config or old.config, documents, old.scheme, more.pop("resources", Resources()), start=old
        )

    def emissions(self, model: Model, documents: list[Document]) -> torch.Tensor:
        model.network.eval()
        corpus = EncodedCorpus(model.inputs, documents)
        with torch.no_grad():
            return model.network(Batch.of(corpus.batch(np.arange(len(corpus)))))

    @pytest.mark.parametrize(
        "model",
        [
            {},
            {"encoder": {"kind": "cnn"}},
            {"encoder": {"kind": "none"}, "attention": {"kind": "scaled_dot"}},
            {"attention": {"kind": "multi_head", "heads": 2}, "encoder": {"layers": 2}},
            {"decoder": {"kind": "softmax"}},
            {"encoder": {"kind": "gru", "bidirectional": False}},
        ],
        ids=["lstm", "cnn", "no encoder", "attention", "softmax", "gru"],
    )
    def test_what_was_known_is_scored_as_before(self, model: dict[str, Any]):
        inputs = {"pos": {"kind": "column", "column": "pos"}, "case": {}, "characters": {"network": "gru"}}
        old = small_model(small_config(inputs, **model))
        new_words = Document(
            ("www", "Qx", "y"),
            labels=("L9", "L0", "L8"),
            scheme=Scheme.PLAIN,
            columns={"pos": ("N", "X", "V")},
        )
        grown = self.grow(old, [new_words])
        assert grown.labels == [*old.labels, "L8", "L9"]
        assert (
            grown.inputs["words"].state()["words"][: len(old.inputs["words"].state()["words"])]
            == (old.inputs["words"].state()["words"])
        )
        assert set(grown.inputs["pos"].state()) == {*TAGS, "X"}
        known = [
            Document(
                each.tokens, columns={"pos": tuple("N" if tag == "new" else tag for tag in each.columns["pos"])}
            )
            for each in sentences([5, 5])
        ]
        before, after = self.emissions(old, known), self.emissions(grown, known)
        torch.testing.assert_close(after[..., : len(old.labels)], before)
        old_scores, new_scores = (each.network.decoder.scores(constrained=False) for each in (old, grown))
        size = len(old.labels)
        torch.testing.assert_close(new_scores.transitions[:size, :size], old_scores.transitions)
        torch.testing.assert_close(new_scores.start[:size], old_scores.start)
        torch.testing.assert_close(new_scores.end[:size], old_scores.end)

    @pytest.mark.parametrize("encoder", ["lstm", "cnn", "none"])
    def test_new_types_of_a_gazetteer_move_the_columns_behind_it(self, tmp_path: Path, encoder: str):
        first, second = tmp_path / "a.txt", tmp_path / "b.txt"
        first.write_text("Fab 7a\tA\neF\tB\n", encoding="utf-8")
        second.write_text("Oslo\tC\ncab\tA\nnowhere\tD\n", encoding="utf-8")

        def config(*files: Path) -> Config:
            entries = {
                "list": {"kind": "gazetteer", "files": list(map(str, files))},
                "pos": {"kind": "column", "column": "pos"},
            }
            return small_config(entries, encoder={"kind": encoder})

        old = small_model(config(first))
        known = [Document(("Fab", "7a", "eF", "zz"), columns={"pos": ("N", "V", "D", ".")})]
        grown = self.grow(old, small_documents(), config(second))
        assert [type_ for type_, _ in grown.inputs["list"].state()] == ["A", "B", "C", "D"]
        assert dict(grown.inputs["list"].state())["A"] == ["Fab 7a", "cab"]
        torch.testing.assert_close(self.emissions(grown, known), self.emissions(old, known))

    def test_new_words_take_pretrained_vectors_or_what_they_had(self):
        old = small_model(small_config({"words": {"dimensions": 3}}))
        config = old.config.model_copy(
            update={
                "inputs": {
                    **old.config.inputs,
                    "words": old.config.inputs["words"].model_copy(update={"vectors": ("v",), "dimensions": None}),
                }
            }
        )
        vectors = Vectors(["north", "eF", "extra"], np.arange(9, dtype=np.float32).reshape(3, 3), Path("v"))
        known = old.inputs["words"].rows
        lower = next(word for word in known if word.islower() and word.upper() not in known)
        tokens = ("north", lower.upper(), "unheard")
        documents = [Document(tokens, labels=("L0",) * 3, scheme=Scheme.PLAIN)]
        grown = self.grow(old, documents, config, resources=Resources({"v": vectors}))
        table, rows = grown.network.input("words").weight, grown.inputs["words"].rows
        before = old.network.input("words").weight
        torch.testing.assert_close(table[: len(before)], before)
        assert table[rows["north"]].tolist() == [0.0, 1.0, 2.0]
        assert table[rows["extra"]].tolist() == [6.0, 7.0, 8.0]
        torch.testing.assert_close(table[rows[lower.upper()]], before[known[lower]])
        torch.testing.assert_close(table[rows["unheard"]], before[0])

    def test_vectors_of_another_size_are_refused(self):
        old = small_model(small_config({"words": {"dimensions": 3}}))
        config = small_config({"words": {"dimensions": 4}})
        with pytest.raises(ConfigError, match=r"inputs\.words\.dimensions: 4 dimensions, .* have 3"):
            self.grow(old, small_documents(), config)

    def test_a_network_of_another_size_is_refused_with_its_settings(self):
        old = small_config({"case": {}}, dropout=0.5)
        new = small_config(
            {"case": {"dimensions": 7}, "characters": {"filters": 9, "dropout": 0.3}},
            encoder={"kind": "gru"},
            dropout=0.1,
        )
        with pytest.raises(ConfigError) as caught:
            check_settings(new, old, "runs/old")
        assert {each.partition(":")[0] for each in caught.value.problems} == {
            "inputs.characters.filters",
            "inputs.case.dimensions",
            "model.encoder.kind",
        }
        assert "runs/old/config.yaml" in str(caught.value)
        check_settings(old, small_config({"case": {}}, dropout=0.1), "runs/old")

    def test_inputs_in_another_order_are_refused(self):
        old = small_config({"case": {}, "pos": {"kind": "column", "column": "pos"}})
        new = small_config({"pos": {"kind": "column", "column": "pos"}, "case": {}})
        with pytest.raises(ConfigError, match="inputs: "):
            check_settings(new, old, "runs/old")


def small_documents() -> list[Document]:
    return [Document(("Fab", "x"), labels=("L0", "L1"), scheme=Scheme.PLAIN, columns={"pos": ("N", "V")})]


class TestTraining:
    def test_labels_and_words_grow(self, dates: Callable[..., Config], trained_run: Path, tmp_path: Path):
        old = load_bundle(trained_run)
        finished = outcome(run(dates(), tmp_path / "run"))
        new = load_bundle(tmp_path / "run")
        assert finished.epochs == 2
        assert new.labels[: len(old.labels)] == old.labels
        assert types_of(new) == ["DATE", "LOC", "ORG", "PER"]
        assert "Zürich" in new.inputs["words"].rows and "ü" in new.inputs["characters"].numbers
        assert new.config.start.model == str(trained_run)

    def test_the_first_weights_are_those_of_the_model(self, dates: Callable[..., Config], trained_run: Path):
        old, prepared = load_bundle(trained_run), prepare(dates())
        row = "Mina Okoye met Ada Byron in Oslo ."
        size = len(old.labels)
        assert prepared.model.network.decoder.temperature == 1.0
        for name, value in old.network.state_dict().items():
            grown = prepared.model.network.state_dict()[name]
            if name != "decoder.temperature":
                torch.testing.assert_close(grown[tuple(map(slice, value.shape))], value)
        with torch.no_grad():  # new labels score low, so that only old ones are predicted
            prepared.model.network.scores.bias[size:] = -50.0
        prepared.model.network.eval()
        assert label(prepared.model, row) == label(old, row)

    def test_what_is_not_annotated_is_said(self, dates: Callable[..., Config]):
        start = prepare(dates()).start
        assert start is not None
        assert (start.missing, start.new_types) == (["LOC", "ORG", "PER"], ["DATE"])
        assert "LOC, ORG, PER of the model are not annotated" in start.warning()
        kept = prepare(dates("start.keep_labels=true")).start
        assert kept is not None and kept.warning() == ""
        assert "train: LOC, ORG, PER are not annotated; where the split has O, a token may be one of them" in (
            kept.notes()
        )
        assert any(note.startswith("validation: LOC, ORG, PER are not annotated") for note in kept.notes())

    def test_kept_types_stay_while_others_are_unlearnt(self, dates: Callable[..., Config], tmp_path: Path):
        people = ["Mina Okoye met Otto Lind in Oslo .", "Babbage moved from London to New Haven ."]

        def found(*overrides: str) -> list[set[str]]:
            folder = tmp_path / ("-".join(overrides) or "plain").replace("=", "-")
            outcome(run(dates("training.epochs=25", "training.patience=25", *overrides), folder))
            model = load_bundle(folder)
            shown = [*people, "Rain fell in May 1840 ."]
            return [{each.split("-")[-1] for each in row} - {"O"} for row in label(model, *shown)]

        keep, fill = "start.keep_labels=true", "start.self_label=true"
        for overrides in ([keep], [fill], [keep, fill]):
            one, other, date = found(*overrides)
            assert one & other >= {"PER", "LOC"} and date == {"DATE"}, overrides
        plain = found()
        assert (plain[0] | plain[1]) <= {"DATE"} and plain[2] == {"DATE"}

    def test_unannotated_types_are_not_scored(self, dates: Callable[..., Config], tmp_path: Path):
        # The test split has all types but DATE: they count there, and not in the validation split.
        test = write(tmp_path / "test.txt", TRAIN)
        overrides = [f"corpus.test={test}", "training.epochs=12", "training.patience=12"]
        finished = outcome(run(dates("start.keep_labels=true", *overrides), tmp_path / "run"))
        assert set(finished.best.validation.per_type) == {"DATE"}
        assert finished.best.validation.micro.f1 == 1.0
        assert finished.test is not None
        assert {"LOC", "ORG", "PER"} <= set(finished.test.per_type)
        assert finished.test.micro.f1 > 0.8

    def test_resume_goes_on_to_the_same_bits(self, dates: Callable[..., Config], tmp_path: Path):
        config = dates("start.keep_labels=true", "training.epochs=3", "training.patience=3")
        outcome(run(config, tmp_path / "whole"))
        records = run(config, tmp_path / "stopped")
        for record in records:
            if isinstance(record, Epoch):
                next(records)  # the next step: the checkpoint of the epoch is written
                break
        records.close()
        outcome(run(config, tmp_path / "stopped", resume=True))
        assert (tmp_path / "whole/weights.safetensors").read_bytes() == (
            tmp_path / "stopped/weights.safetensors"
        ).read_bytes()

    def test_resume_notices_another_model_and_another_way(
        self, dates: Callable[..., Config], trained_run: Path, tmp_path: Path
    ):
        source = shutil.copytree(trained_run, tmp_path / "source")
        outcome(run(dates(start=source), tmp_path / "run"))
        outcome(
            run(dates("training.epochs=3", start=trained_run), tmp_path / "run", resume=True)
        )  # the same model
        with pytest.raises(BundleError, match=r"start\.keep_labels: true, was false"):
            outcome(run(dates("start.keep_labels=true", start=source), tmp_path / "run", resume=True))
        model = load_bundle(source)
        with torch.no_grad():
            model.network.scores.bias += 1.0
        save_bundle(model, source)
        with pytest.raises(BundleError, match=r"start\.model: the content of the model"):
            outcome(run(dates("training.epochs=3", start=source), tmp_path / "run", resume=True))

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["start.model=nowhere"], "start.model: nowhere: there is no such folder"),
            (
                ["start.model=null", "start.keep_labels=true"],
                "start.keep_labels: has no effect without start.model",
            ),
            (["model.encoder.hidden=13"], "model.encoder.hidden: 13; the model has 12"),
            (["inputs.words.dimensions=9"], "inputs.words.dimensions: 9 dimensions, .* have 12"),
            (["corpus.learn_scheme=IOB2"], "corpus.learn_scheme: IOB2, .* learnt IOBES; set"),
            (["corpus.train=all.txt", "start.keep_labels=true"], "start.keep_labels: has no effect, because"),
            (
                ["corpus.train=tags.txt", "corpus.validation=tags.txt"],
                "has plain tags, and the model .* gives entities",
            ),
            (["corpus.train=holes.txt"], "some tokens have no label, .* stay in IOB2"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, dates: Callable[..., Config], tmp_path: Path, overrides: list[str], message: str
    ):
        (tmp_path / "tags.txt").write_text("Ada N\ncame V\n", encoding="utf-8")
        (tmp_path / "holes.txt").write_text("Ada B-PER\nByron ?\ncame O\nMay B-DATE\n", encoding="utf-8")
        with pytest.raises((ConfigError, CorpusError), match=message):
            prepare(dates(*overrides))

    def test_a_model_is_not_replaced_by_what_starts_from_it(self, dates: Callable[..., Config], trained_run: Path):
        with pytest.raises(ConfigError, match="is the run directory too"):
            outcome(run(dates(), trained_run))


class TestSelfLabel:
    def test_predictions_fill_what_is_outside(self, trained_run: Path):
        model = load_bundle(trained_run)
        tokens = [
            "Ada",
            "Byron",
            "wrote",
            "to",
            "Babbage",
            ".",
            "Nobody",
            "came",
            ".",
            "Lind",
            "left",
            "Oslo",
            ".",
        ]
        labels = ["O"] * len(tokens)
        labels[1] = "S-TITLE"  # overlaps the person Ada Byron
        labels[11] = UNKNOWN
        document = Document(tuple(tokens), labels=tuple(labels), scheme=Scheme.IOBES, sentence_starts=(0, 6, 9))
        (filled,), counts = fill_in([document], Predictor(model), ["PER", "LOC"])
        wanted = [*labels]
        wanted[4] = wanted[9] = "S-PER"
        assert (filled.labels, dict(counts)) == (tuple(wanted), {"PER": 2})
        assert label(model, "Lind left Oslo .") == [["S-PER", "O", "S-LOC", "O"]]

    def test_only_the_types_that_are_asked_for(self, trained_run: Path):
        model = load_bundle(trained_run)
        document = Document(("Lind", "left", "Oslo", "."), labels=("O",) * 4, scheme=Scheme.IOBES)
        (filled,), _ = fill_in([document], Predictor(model), ["LOC"])
        assert filled.labels == ("O", "O", "S-LOC", "O")


@pytest.mark.parametrize("part", ["corpus.fraction=0.4", "corpus.fold=1/3"])
def test_a_type_that_a_part_lacks_is_annotated(part: str, dates: Callable[..., Config], tmp_path: Path):
    """Where there is O in the part it is no entity of that type, as the rest of the data shows."""
    rare = next(name for name in types_of(load_bundle(Path(dates().start.model or ""))) if name != "DATE")
    write(tmp_path / "dates.txt", DATES.replace("Malmö", f"[{rare} Malmö]"))
    found = [
        prepare(
            dates(f"corpus.fraction_seed={seed}", "start.keep_labels=true", part.replace("1/3", f"{seed + 1}/3"))
        )
        for seed in range(3)
    ]
    assert any(rare not in each.corpus.train.entity_counts() for each in found)
    for each in found:
        assert each.start is not None and rare not in each.start.missing
        assert rare not in each.corpus.train.unannotated


def test_predictions_are_comparable_without_unannotated_types():
    split = Split([], Scheme.IOB2, Scheme.IOB2, unannotated=frozenset({"PER"}))
    assert split.comparable([["B-PER", "I-PER", "B-LOC"], ["O"]]) == [["O", "O", "B-LOC"], ["O"]]


class TestCommands:
    @pytest.fixture
    def here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_run: Path) -> Path:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(trained_run, tmp_path / "runs" / "old")
        write(tmp_path / "dates.txt", DATES * 3)
        return tmp_path

    def invoke(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, arguments)
        return result.exit_code, result.output

    def test_data_takes_the_network_of_the_model(self, here: Path):
        code, output = self.invoke(
            *("train", "dates.txt", "--from", "runs/old", "--keep-labels", "--self-label"),
            *("--set", "training.epochs=2", "--set", "training.threads=1"),
        )
        assert code == 0, output
        assert "starts from the weights of runs/old" in output
        assert "train: runs/old labelled " in output
        config = load_config(here / "runs/dates" / CONFIG)
        assert config.model.encoder.hidden == 12
        assert (config.start.model, config.start.keep_labels, config.start.self_label) == ("runs/old", True, True)
        code, again = self.invoke(
            *("train", "runs/dates/config.yaml", "--output", "runs/dates", "--resume"),
            *("--set", "training.epochs=3"),
        )
        assert code == 0 and "resumed after epoch 2" in again, again
        # The link to the newest run moves on; the config does not.
        code, output = self.invoke(
            *("train", "dates.txt", "--from", "runs/latest", "--set", "training.epochs=1"),
            *("--set", "training.threads=1"),
        )
        assert code == 0, output
        assert load_config(here / "runs/dates-2" / CONFIG).start.model == "runs/dates"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--keep-labels"], "start.keep_labels: has no effect without start.model (--from DIR)"),
            (["--from", "nowhere"], "nowhere: there is no such folder"),
            (["--from", "dates.txt"], "dates.txt is a file"),
            (["--from", "runs"], "is not a model: config.yaml is missing"),
            (
                ["--from", "runs/old", "--set", "model.encoder.hidden=3"],
                "model.encoder.hidden: 3; the model has 12",
            ),
        ],
    )
    def test_mistakes_are_explained(self, here: Path, arguments: list[str], message: str):
        code, output = self.invoke("train", "dates.txt", *arguments)
        assert code != 0
        assert message in " ".join(output.split())
        assert [each.name for each in (here / "runs").iterdir()] == ["old"]

    def test_the_api_takes_the_same(self, here: Path):
        result = nertool.train(
            {
                **json.loads(load_config(here / "runs/old" / CONFIG).model_dump_json(exclude={"corpus", "start"})),
                "corpus": {"train": "dates.txt", "validation": "dates.txt"},
                "training": {"epochs": 1, "threads": 1},
            },
            "runs/new",
            start="runs/old",
            keep_labels=True,
        )
        assert load_config(result.folder / CONFIG).start.keep_labels
