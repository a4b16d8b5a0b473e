from __future__ import annotations

import shutil

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
from datasets import Dataset, Features, Sequence, Value
from datasets.fingerprint import Hasher

import nertool
from nertool.errors import BundleError, CorpusError
from nertool.integrations.mapper import Mapper
from nertool.tagging.tagger import Tagger

TEXTS = ["Ada Byron moved to London .", "", "Rain fell on Malmö . Babbage wrote ."]


KNOWN = ["Ada", "Byron", "wrote", "to", "Babbage", "about", "the", "engine", "."]
KNOWN_LABELS = ["B-PER", "I-PER", "O", "O", "B-PER", "O", "O", "O", "O"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def sentences(tiny_train):
    return Dataset.from_dict({"tokens": [tokens for tokens, _ in tiny_train] + [[]]})


def test_tokens(trained_run, sentences, tiny_train):
    mapped = sentences.map(Mapper(trained_run), batched=True, batch_size=5)
    assert mapped.column_names == ["tokens", "labels", "entities"]
    assert mapped["labels"] == [labels for _, labels in tiny_train] + [[]]
    first = mapped[0]
    found = [(entity["start"], entity["end"], entity["label"], entity["text"]) for entity in first["entities"]]
    assert found == [(0, 2, "PER", "Ada Byron"), (4, 5, "PER", "Babbage")]
    expected = next(Tagger.load(trained_run).tag_tokens([first["tokens"]]))
    assert [entity["score"] for entity in first["entities"]] == pytest.approx(
        [entity.score for entity in expected.entities], abs=1e-5
    )


def test_texts(trained_run):
    mapped = Dataset.from_dict({"body": TEXTS}).map(nertool.Mapper(trained_run, text="body"), batched=True)
    for row, expected in zip(mapped, Tagger.load(trained_run).tag_texts(TEXTS), strict=True):
        assert (row["tokens"], row["labels"]) == (list(expected.tokens), list(expected.labels))
        for entity in row["entities"]:
            assert row["body"][entity["start"] : entity["end"]] == entity["text"]


def test_streaming(trained_run):
    stream = Dataset.from_dict({"text": TEXTS * 3}).to_iterable_dataset()
    rows = list(stream.map(Mapper(trained_run, text="text"), batched=True, batch_size=2))
    assert len(rows) == 9 and rows[0]["entities"][0]["label"] == "PER" and rows[1]["labels"] == []


@pytest.mark.parametrize("kind", ["numpy", "pandas", "arrow"])
def test_other_formats_of_datasets_give_the_same(trained_run, sentences, kind):
    mapper = Mapper(trained_run)
    options = {"features": mapper.features(sentences.features), "batched": True, "batch_size": 5}
    mapped = sentences.with_format(kind).map(mapper, **options)
    wanted = sentences.map(mapper, **options)
    assert mapped.with_format(None)["labels"] == wanted["labels"]
    assert mapped.with_format(None)["entities"] == wanted["entities"]


@pytest.fixture(scope="module")
def wanted(trained_run):
    return Mapper(trained_run, text="text")({"text": TEXTS})


class TestTables:
    def test_a_frame_gives_a_frame(self, trained_run, wanted):
        frame = pandas.DataFrame({"text": TEXTS, "n": [1, 2, 3]}, index=[7, 5, 6])
        found = Mapper(trained_run, text="text")(frame)
        assert list(frame.columns) == ["text", "n"], "the frame given must stay as it is"
        assert list(found.columns) == ["text", "n", "tokens", "labels", "entities"]
        assert list(found.index) == [7, 5, 6] and list(found["n"]) == [1, 2, 3]
        for name, column in wanted.items():
            assert found[name].tolist() == column

    @pytest.mark.parametrize("batches", [False, True])
    def test_an_arrow_table_gives_a_table(self, trained_run, wanted, batches):
        table = pyarrow.table({"text": TEXTS, "n": [1, 2, 3]})
        found = Mapper(trained_run, text="text")(table.to_batches()[0] if batches else table)
        assert isinstance(found, pyarrow.Table)
        assert found.column_names == ["text", "n", "tokens", "labels", "entities"]
        assert {name: found.column(name).to_pylist() for name in wanted} == wanted
        empty = Mapper(trained_run, text="text")(table.slice(0, 0))
        assert empty.schema == found.schema and len(empty) == 0

    def test_arrays_of_numpy(self, trained_run, wanted):
        found = Mapper(trained_run, text="text")({"text": np.array(TEXTS)})
        assert found.pop("text").tolist() == TEXTS
        assert {name: list(values) for name, values in found.items()} == wanted
        rows = np.empty(2, object)
        rows[:] = [np.array(KNOWN), np.array([], dtype=object)]
        found = Mapper(trained_run)({"tokens": rows})
        assert list(map(list, found["labels"])) == [KNOWN_LABELS, []]
        assert found["entities"][0][0]["text"] == "Ada Byron"

    def test_a_dictionary_of_nothing(self, trained_run):
        assert Mapper(trained_run)({"tokens": []}) == {"labels": [], "entities": []}


class TestColumnsThatAreThere:
    """Such as gold labels, which nobody wants to lose."""

    @pytest.mark.parametrize("name", ["labels", "entities"])
    def test_they_are_refused(self, trained_run, name):
        batch = {"tokens": [["Ada"]], name: [["O"]]}
        table = pyarrow.table(batch)
        for given in (batch, table, table.to_pandas()):
            with pytest.raises(
                CorpusError, match=f"the data has {name} already: rename it, or pass overwrite=True"
            ):
                Mapper(trained_run)(given)
        features = Features({"tokens": Sequence(Value("string")), name: Sequence(Value("string"))})
        with pytest.raises(CorpusError, match="overwrite=True"):
            Mapper(trained_run).features(features)

    def test_tokens_are_one_of_them_for_texts(self, trained_run):
        with pytest.raises(CorpusError, match="the data has tokens already"):
            Mapper(trained_run, text="text")({"text": ["Ada"], "tokens": [["Ada"]]})

    def test_or_replaced_where_that_is_asked_for(self, trained_run):
        mapper = Mapper(trained_run, overwrite=True)
        batch = {"labels": [["X"]], "tokens": [KNOWN]}
        assert mapper(batch)["labels"] == [KNOWN_LABELS]
        found = mapper(pyarrow.table(batch))
        assert found.column_names == ["labels", "tokens", "entities"]
        assert found.column("labels").to_pylist() == [KNOWN_LABELS]
        assert list(mapper(pandas.DataFrame(batch)).columns) == ["labels", "tokens", "entities"]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("tokens", [["Ada"], None], r"row 2 of the batch, column 'tokens': there is no value"),
        ("tokens", [["Ada", None]], r"row 1 of the batch, column 'tokens': token 2 is missing \(null\)"),
        ("tokens", [["Ada", float("nan")]], r"token 2 is missing \(null\)"),
        ("tokens", [["Ada", 7]], r"token 2 is 7 \(int\); expected a string"),
        (
            "tokens",
            [["Ada"], "Oslo"],
            r"row 2 of the batch, column 'tokens': 'Oslo' \(str\); expected a list of tokens",
        ),
        ("tokens", [["Ada"], 7], r"row 2 of the batch, column 'tokens': 7 \(int\); expected a list of tokens"),
        ("text", ["Ada", None], r"row 2 of the batch, column 'text': there is no value"),
        ("text", ["Ada", float("nan")], r"row 2 of the batch, column 'text': there is no value"),
        ("text", ["Ada", pandas.NA], r"row 2 of the batch, column 'text': there is no value"),
        ("text", ["Ada", 7], r"row 2 of the batch, column 'text': 7 \(int\); expected a text"),
        ("text", [["Ada"]], r"row 1 of the batch, column 'text': \['Ada'\] \(list\); expected a text"),
        ("text", "Ada", r"is batched=True missing"),
    ],
)
def test_what_is_no_text_and_no_token_is_refused(trained_run, column, values, message):
    mapper = Mapper(trained_run, **({"text": "text"} if column == "text" else {}))
    with pytest.raises(CorpusError, match=message):
        mapper({column: values})
    if isinstance(values, list):
        with pytest.raises(CorpusError):
            mapper(pandas.DataFrame({column: pandas.Series(values, dtype=object)}))


@pytest.mark.parametrize("batch", [[["Ada"]], "Ada", None])
def test_what_is_no_batch_is_refused(trained_run, batch):
    with pytest.raises(CorpusError, match="expected a batch of columns"):
        Mapper(trained_run)(batch)


def test_other_processes_give_the_same(trained_run, sentences):
    mapper = Mapper(trained_run)
    options = {"batched": True, "features": mapper.features(sentences.features), "load_from_cache_file": False}
    alone = sentences.map(mapper, **options)  # its threads must not be missed by the processes that are forked
    assert sentences.map(mapper, num_proc=2, **options)[:] == alone[:]


def test_features_are_known_before_the_first_entity(trained_run):
    rows = Dataset.from_dict({"tokens": [["Nobody", "came", "."]] * 2 + [["Ada", "Byron", "wrote"]]})
    mapper = Mapper(trained_run)
    options = {"batched": True, "batch_size": 1, "writer_batch_size": 1, "load_from_cache_file": False}
    mapped = rows.map(mapper, features=mapper.features(rows.features), **options)
    assert [len(entities) for entities in mapped["entities"]] == [0, 0, 1]
    assert mapped.features["entities"] == mapper.features(rows.features)["entities"]
    texts = Features({"text": Value("string")})
    assert list(Mapper(trained_run, text="text").features(texts)) == ["text", "tokens", "labels", "entities"]
    assert mapper.features(None) is None
    assert mapper.features(texts)["labels"] == Sequence(Value("string"))


def test_the_fingerprint_is_the_models(trained_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    mapper = Mapper(folder)
    before = Hasher.hash(mapper)
    mapper({"tokens": [["Ada"]]})
    assert Hasher.hash(mapper) == Hasher.hash(Mapper(folder)) == before
    assert Hasher.hash(Mapper(folder, tokens="words")) != before
    late = Mapper(folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert Hasher.hash(Mapper(folder)) != before
    with pytest.raises(BundleError, match="the model was replaced after this was made"):
        late({"tokens": [["Ada"]]})


def test_errors(trained_run, sentences, tmp_path):
    with pytest.raises(BundleError, match="is not a model"):
        Mapper(tmp_path)
    with pytest.raises(CorpusError, match="there is no column 'words' to tag; the columns are: tokens"):
        sentences.map(Mapper(trained_run, tokens="words"), batched=True)
    for options in ({"batched": False}, {"batched": True, "batch_size": 2}):
        mapper = Mapper(trained_run) if not options["batched"] else Mapper(trained_run, text="tokens")
        with pytest.raises(
            CorpusError,
            match=r"expected (a text|a list of tokens) in each row of a batch; is batched=True missing",
        ):
            sentences.map(mapper, **options)
    texts = Dataset.from_dict({"text": TEXTS})
    with pytest.raises(CorpusError, match="is batched=True missing"):
        texts.map(Mapper(trained_run, text="text"))
