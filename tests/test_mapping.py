from __future__ import annotations

import shutil

import datasets
import pytest
from datasets import Dataset, Features, Sequence, Value
from datasets.fingerprint import Hasher

import nertool
from nertool.errors import BundleError, CorpusError
from nertool.integrations.mapper import Mapper
from nertool.tagging.tagger import Tagger

TEXTS = ["Ada Byron moved to London .", "", "Rain fell on Malmö . Babbage wrote ."]


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
        assert (row["tokens"], row["labels"]) == (expected.tokens, expected.labels)
        for entity in row["entities"]:
            assert row["body"][entity["start"] : entity["end"]] == entity["text"]


def test_streaming(trained_run):
    stream = Dataset.from_dict({"text": TEXTS * 3}).to_iterable_dataset()
    rows = list(stream.map(Mapper(trained_run, text="text"), batched=True, batch_size=2))
    assert len(rows) == 9 and rows[0]["entities"][0]["label"] == "PER" and rows[1]["labels"] == []


@pytest.mark.parametrize("kind", ["numpy", "pandas", "arrow"])
def test_other_formats_give_their_columns_or_say_so(trained_run, sentences, kind):
    shaped = sentences.with_format(kind)
    if kind == "numpy":
        assert len(shaped.map(Mapper(trained_run), batched=True)) == len(sentences)
    else:
        with pytest.raises(CorpusError, match="expected a mapping"):
            shaped.map(Mapper(trained_run), batched=True)


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
    with pytest.raises(BundleError, match="the model is another than when this was made"):
        late({"tokens": [["Ada"]]})


def test_errors(trained_run, sentences, tmp_path):
    with pytest.raises(BundleError, match="is not a model"):
        Mapper(tmp_path)
    with pytest.raises(CorpusError, match="there is no column 'words' to tag; the columns are: tokens"):
        sentences.map(Mapper(trained_run, tokens="words"), batched=True)
    for options in ({"batched": False}, {"batched": True, "batch_size": 2}):
        mapper = Mapper(trained_run) if not options["batched"] else Mapper(trained_run, text="tokens")
        with pytest.raises(
            CorpusError, match=r"does not hold (texts|lists of tokens), or batched=True is missing"
        ):
            sentences.map(mapper, **options)
    texts = Dataset.from_dict({"text": TEXTS})
    with pytest.raises(CorpusError, match="batched=True is missing"):
        texts.map(Mapper(trained_run, text="text"))
