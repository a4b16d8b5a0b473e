from __future__ import annotations

import subprocess
import sys

import datasets
import pyarrow
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from pyarrow import feather, parquet

from nertool.config.loading import load_config, locate_files, parse_config
from nertool.config.schema import Config, CorpusConfig
from nertool.data.corpus import read_corpus, read_split
from nertool.errors import ConfigError, CorpusError
from nertool.formats.datasets_export import to_dataset_dict
from nertool.formats.registry import ReadOptions, Report, WriteOptions, find_format
from nertool.text.document import UNKNOWN
from nertool.text.schemes import Scheme

NAMES = ["B-PER", "O", "I-PER", "B-LOC"]  # in no usual order, so that a name can only come from the feature
TOKENS = [["Ada", "Byron", "sings"], ["Oslo"], ["Rain"]]
NUMBERS = [[0, 2, 1], [3], [1]]
LABELS = [["B-PER", "I-PER", "O"], ["B-LOC"], ["O"]]


def tokens(split):
    return [list(sentence.tokens) for sentence in split.sentences]


def rows(split):
    """The row of each sentence."""
    return [sentence.origin.starts[0] for sentence in split.sentences]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """What datasets keeps of a folder that it read stays out of the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def features(tags=None, **others):
    tags = ClassLabel(names=NAMES) if tags is None else tags
    return Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(tags), **others})


def dataset(numbers=NUMBERS, tokens=TOKENS, tags=None):
    return Dataset.from_dict({"tokens": tokens, "ner_tags": numbers}, features=features(tags))


def config(**settings):
    return CorpusConfig(**({"train": "unused"} | settings))


@pytest.fixture
def hub_folder(tmp_path):
    """A repository as it is on the hub: the names of labels are in the README alone."""
    folder = tmp_path / "hub" / "owner" / "name"
    (folder / "data").mkdir(parents=True)
    card = ["---", "dataset_info:", "  features:", "  - {name: tokens, sequence: string}", "  - name: ner_tags"]
    card += ["    sequence:", "      class_label:", "        names:"]
    card += [f"          '{number}': {name}" for number, name in enumerate(NAMES)]
    (folder / "README.md").write_text("\n".join([*card, "---", "# name", ""]), encoding="utf-8")
    for split in ("train", "validation", "test"):
        table = pyarrow.table({"tokens": TOKENS, "ner_tags": NUMBERS})
        parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_folder_shaped_as_on_the_hub(hub_folder):
    corpus = read_corpus(CorpusConfig(hub=str(hub_folder), learn_scheme="IOB2"))
    assert corpus.splits.keys() == {"train", "validation", "test"}
    for name, split in corpus.splits.items():
        assert (tokens(split), split.labels) == (TOKENS, LABELS)
        assert split.scheme is Scheme.IOB2 and split.path == hub_folder / name and split.document_count == 1
        assert rows(split) == [1, 2, 3] and split.unit == "row"
    assert read_corpus(CorpusConfig(hub=str(hub_folder))).train.labels[0] == ["B-PER", "E-PER", "O"]


def test_by_name_a_folder_of_nertool_data_stands_in_for_the_hub(hub_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NERTOOL_DATA", str(tmp_path / "hub"))
    path = tmp_path / "config.yaml"
    path.write_text("corpus: {hub: owner/name, train: test, validation: train}\n", encoding="utf-8")
    located = locate_files(load_config(path), path).corpus
    assert located.hub == str(hub_folder) and located.train == "test"
    assert read_corpus(located).train.path == hub_folder / "test"
    monkeypatch.delenv("NERTOOL_DATA")
    assert locate_files(load_config(path), path).corpus.hub == "owner/name"


@pytest.mark.parametrize("as_dict", [True, False])
def test_what_save_to_disk_wrote(tmp_path, as_dict):
    folder = tmp_path / "saved"
    (DatasetDict(train=dataset(), dev=dataset()) if as_dict else dataset()).save_to_disk(folder)
    named = CorpusConfig(hub=str(folder), validation="dev" if as_dict else None, test=None, held_out=0.4)
    corpus = read_corpus(named)
    assert corpus.test is None
    assert len(corpus.train) == (3 if as_dict else 2) and len(corpus.validation) == (3 if as_dict else 1)
    assert rows(corpus.validation) == ([1, 2, 3] if as_dict else [3])


@pytest.mark.parametrize("kind", ["parquet", "arrow", "feather", "strings", "large"])
def test_single_files(tmp_path, kind):
    path = tmp_path / ("file.parquet" if kind in ("parquet", "strings") else "file.arrow")
    if kind == "parquet":
        dataset().to_parquet(path)
    elif kind == "strings":
        parquet.write_table(pyarrow.table({"tokens": TOKENS, "ner_tags": LABELS}), path)
    else:
        data = dataset() if kind != "large" else dataset(LABELS, tags=Value("large_string"))
        table = data.with_format("arrow")[:]
        if kind == "feather":
            feather.write_feather(table, str(path), compression="uncompressed")
        else:
            with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
    split = read_split(path, config(), Scheme.IOB2)
    assert (tokens(split), split.labels, split.path) == (TOKENS, LABELS, path)
    assert tokens(split)[0] is not tokens(split)[1] and split.labels[0][2] is split.labels[2][0]


def test_files_of_both_kinds_in_one_corpus(tmp_path):
    dataset().to_parquet(tmp_path / "train.parquet")
    (tmp_path / "test.txt").write_text("Oslo B-LOC\n", encoding="utf-8")
    corpus = read_corpus(
        CorpusConfig(train=str(tmp_path / "train.parquet"), test=str(tmp_path / "test.txt"), held_out=0.4)
    )
    assert corpus.train.label_scheme is Scheme.IOBES and corpus.test.labels == [["S-LOC"]]


def test_sentences_without_all_labels_are_left_out_of_corpora_and_counted(tmp_path):
    path = tmp_path / "part.parquet"
    words = [["a", "b"], ["c"], [], ["d"], ["e"], ["f"]]
    dataset([[0, -1], [1], [], [None], None, [0]], words).to_parquet(path)
    split = read_split(path, config())
    assert tokens(split) == [["c"], ["f"]] and split.labels == [["O"], ["B-PER"]]
    assert split.unlabelled == 3 and rows(split) == [2, 6]
    assert split.notes() == ["3 sentences were left out because labels are missing"]
    documents = list(find_format("parquet").read(path, ReadOptions(), Report()))
    assert [document.labels.count(UNKNOWN) for document in documents] == [1, 0, 1, 1, 0]


def test_documents_columns_and_strip(tmp_path):
    path = tmp_path / "named.parquet"
    table = {"words": [["a1"], ["b"], ["c"]], "pos": [["NN"], ["VB"], ["NN"]], "document": ["x", "x", "y"]}
    parquet.write_table(pyarrow.table(table), path)
    split = read_split(path, config(tokens="words", tags="pos", strip="[0-9]$"))
    assert [sentence.id for sentence in split.sentences] == ["x", "x", "y"]
    assert split.scheme is Scheme.PLAIN and tokens(split)[0] == ["a"]


def test_stray_labels_have_their_row(tmp_path):
    path = tmp_path / "stray.parquet"
    dataset([[0, 2, 1], [3], [2]]).to_parquet(path)
    split = read_split(path, config())
    assert split.strays == 1 and split.stray_places == [(2, 0, "I-PER")] and split.labels[2] == ["B-PER"]
    with pytest.raises(CorpusError, match=r"row 3: 'I-PER' is not allowed here"):
        read_split(path, config(stray="refuse"))


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        ({"tokens": TOKENS, "ner_tags": NUMBERS}, {}, "numbers have no names that could be guessed.*README"),
        ({"tokens": TOKENS, "tags": LABELS}, {}, r"no column 'ner_tags' for corpus\.tags; .* tokens, tags"),
        ({"words": TOKENS, "ner_tags": LABELS}, {}, r"no column 'tokens' for corpus\.tokens"),
        ({"tokens": NUMBERS, "ner_tags": LABELS}, {}, "'tokens' does not hold lists of strings"),
        ({"tokens": ["a"], "ner_tags": ["O"]}, {}, "'tokens' does not hold lists of strings"),
        ({"tokens": [["a"], ["b", "c"]], "ner_tags": [["O"], ["O"]]}, {}, "row 2: 2 tokens and 1 labels"),
        ({"tokens": [["a"], ["b", ""]], "ner_tags": [["O"], ["O", "O"]]}, {}, "row 2: token 2 is empty"),
        ({"tokens": [["a"], [None]], "ner_tags": [["O"], ["O"]]}, {}, "row 2: token 1 is empty"),
        (
            {"tokens": [["a", "b", "c"]], "ner_tags": [["O", "B-X", "B_X"]]},
            {"scheme": "IOB2"},
            "row 1: 'B_X' is no",
        ),
        ({"tokens": [["a"]], "ner_tags": [[None]]}, {}, "does not hold lists of ClassLabel or of strings"),
    ],
)
def test_errors_of_files(tmp_path, table, settings, message):
    path = tmp_path / "wrong.parquet"
    parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(CorpusError, match=message) as caught:
        read_split(path, config(**settings))
    assert str(caught.value.path) == str(path)


def test_a_number_without_a_name_and_nothing_labelled(tmp_path):
    path = tmp_path / "wrong.parquet"
    for number, message in (
        (4, "row 1: there is no label 4; they are from 0 to 3"),
        (-1, "no sentence in it with labels for all"),
    ):
        column = pyarrow.array([[number]])
        schema = features().arrow_schema
        table = pyarrow.table({"tokens": [["a"]], "ner_tags": column}).cast(schema)
        parquet.write_table(table.replace_schema_metadata(schema.metadata), path)
        with pytest.raises(CorpusError, match=message):
            read_split(path, config())


@pytest.mark.parametrize("name", ["wrong.parquet", "wrong.arrow"])
def test_files_that_are_none(tmp_path, name):
    for content in (b"", b"no such thing" * 9):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorpusError, match=rf"{name}: not a {name[5:]} file, or a corrupt one"):
            read_split(tmp_path / name, config())
    with pytest.raises(CorpusError, match=r"absent.*no such file"):
        read_split(tmp_path / f"absent{name}", config())


def test_errors_of_datasets(hub_folder, tmp_path):
    for settings, message in (
        (
            {"train": "trian"},
            "no split 'trian'; its splits are: train, validation, test. Name one in the config",
        ),
        ({"test": "x"}, "no split 'x'; .* or none as null"),
        ({"config": "de"}, r"'de' not found. Available: \['default'\] Choose one with corpus.config"),
    ):
        with pytest.raises(CorpusError, match=message):
            read_corpus(CorpusConfig(hub=str(hub_folder), **settings))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="datasets cannot load it"):
        read_corpus(CorpusConfig(hub=str(tmp_path / "empty")))


def test_a_dataset_that_loads_by_a_script(tmp_path):
    folder = tmp_path / "conll2003"
    folder.mkdir()
    (folder / "conll2003.py").write_text("raise SystemExit('never run')\n", encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        read_corpus(CorpusConfig(hub=str(folder)))
    assert "loads by a script of its own" in str(caught.value)
    assert "'revision: refs/convert/parquet'" in str(caught.value) and "its files" in str(caught.value)


def test_without_a_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=r"owner/absent: the hub cannot be reached.*NERTOOL_DATA"):
        read_corpus(CorpusConfig(hub="owner/absent"))


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({}, "corpus.train: is missing; name a file to learn from, or a dataset with hub"),
        ({"hub": "a", "train": None}, "corpus.train: is missing"),
        ({"train": "a", "revision": "main"}, "corpus.revision: is for a dataset only, and hub names none"),
        (
            {"train": "a", "config": "x", "revision": "y"},
            "corpus.config: is for a dataset only",
        ),
        ({"hub": "a", "token": "x"}, "corpus.token: no such setting; .*Did you mean corpus.tokens"),
    ],
)
def test_what_a_config_may_say(corpus, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"corpus": corpus})


def test_splits_have_their_usual_names_unless_told_otherwise():
    named = parse_config({"corpus": {"hub": "a", "test": None}})
    assert (named.corpus.train, named.corpus.validation, named.corpus.test) == ("train", "validation", None)
    assert parse_config(named.model_dump(mode="json")) == named
    assert parse_config({"corpus": {"train": "a"}}).corpus.validation is None


def test_what_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("./data", "/no/such", "a/b/c", "data.parquet", ".."):
        located = Config(corpus=CorpusConfig(hub=name))
        if name == "..":  # a folder
            assert locate_files(located, None).corpus.hub == ".."
            continue
        with pytest.raises(ConfigError, match=f"there is no folder {name}, and it is not a name on the hub"):
            locate_files(located, None)
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match="is a file: name it as train, not as hub"):
        locate_files(Config(corpus=CorpusConfig(hub="data.parquet")), None)


def test_a_corpus_as_a_dataset_dict_and_back(hub_folder, tmp_path):
    corpus = read_corpus(CorpusConfig(hub=str(hub_folder)))
    given = corpus.to_datasets()
    assert isinstance(given, DatasetDict) and given.keys() == {"train", "validation", "test"}
    label = given["train"].features["ner_tags"].feature
    assert label.names == ["O", "B-LOC", "B-PER", "I-PER"]
    assert given["train"][0]["tokens"] == TOKENS[0] and label.int2str(given["train"][0]["ner_tags"]) == LABELS[0]
    assert corpus.to_datasets(Scheme.IOBES)["test"].features["ner_tags"].feature.names[0] == "O"
    given.save_to_disk(tmp_path / "again")
    again = read_corpus(CorpusConfig(hub=str(tmp_path / "again")))
    assert {name: (tokens(split), split.labels) for name, split in again.splits.items()} == {
        name: (tokens(split), split.labels) for name, split in corpus.splits.items()
    }


def test_plain_tags_and_documents_are_kept(tmp_path):
    (tmp_path / "train.txt").write_text("-DOCSTART- X\n\na NN\n\n-DOCSTART- X\n\nb VB\n", encoding="utf-8")
    corpus = read_corpus(CorpusConfig(train=str(tmp_path / "train.txt"), held_out=0.5))
    given = corpus.to_datasets()
    assert given["train"].features["ner_tags"].feature.names == ["NN", "VB"]
    assert given["train"]["document"][:] == [1] and given["validation"]["document"][:] == [2]
    whole = read_split(tmp_path / "train.txt", config())
    find_format("parquet").write(tmp_path / "out.parquet", whole.documents, WriteOptions(), Report())
    again = read_split(tmp_path / "out.parquet", config())
    assert (tokens(again), again.labels) == (tokens(whole), whole.labels)
    assert [sentence.id for sentence in again.sentences] == ["1", "2"]


def test_further_columns_have_their_names_as_strings(tmp_path):
    path = tmp_path / "columns.parquet"
    table = {
        "pos_tags": [[1, 0, -1], [1], [1]],
        "chunks": [["a", None, "c"], [""], ["b"]],
        "lines": [[1, 2, 3], [4], [5]],
        "heads": [[0], [0, 1], []],  # not a value for each token
        "id": ["x", "y", "z"],
    }
    others = {
        "pos_tags": Sequence(ClassLabel(names=["NN", "VB"])),
        "chunks": Sequence(Value("string")),
        "lines": Sequence(Value("int32")),
        "heads": Sequence(Value("int64")),
        "id": Value("string"),
    }
    Dataset.from_dict(
        {"tokens": TOKENS, "ner_tags": NUMBERS, **table}, features=features(None, **others)
    ).to_parquet(path)
    first, *_ = read_split(path, config()).sentences
    assert first.columns == {"pos_tags": ("VB", "NN", ""), "chunks": ("a", "", "c"), "lines": ("1", "2", "3")}
    documents = list(find_format("parquet").read(path, ReadOptions(), Report()))
    find_format("arrow").write(tmp_path / "again.arrow", documents, WriteOptions(), Report())
    assert [sentence.columns for sentence in read_split(tmp_path / "again.arrow", config()).sentences] == [
        document.columns for document in documents
    ]


def test_labels_that_are_missing_are_minus_one(tmp_path):
    (tmp_path / "train.txt").write_text("Ada B-PER\nleft ?\n\nOslo B-LOC\n", encoding="utf-8")
    partial = read_split(tmp_path / "train.txt", config(), partial=True)
    table = to_dataset_dict({"train": partial.documents}, Scheme.IOB2)["train"]
    assert table["ner_tags"][:] == [[2, -1], [1]] and table.features["ner_tags"].feature.names[0] == "O"


def test_tables_without_labels_are_read_where_none_are_wanted(tmp_path):
    parquet.write_table(pyarrow.table({"tokens": TOKENS}), tmp_path / "a.parquet")
    documents = find_format("parquet").read(tmp_path / "a.parquet", ReadOptions(labelled=False), Report())
    assert [(list(each.tokens), each.labels) for each in documents] == [(row, None) for row in TOKENS]


def test_without_the_package(tmp_path):
    code = (
        "import sys\nsys.modules['datasets'] = None\n"
        "from nertool.config.schema import CorpusConfig\nfrom nertool.data.corpus import read_corpus\n"
        "try:\n    read_corpus(CorpusConfig(hub='owner/name'))\n"
        "except Exception as problem:\n    print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "this needs the package datasets: pip install 'nertool[datasets]'\n"
