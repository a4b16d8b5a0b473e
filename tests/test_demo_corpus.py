from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split, read_split
from nertool.text.schemes import Scheme

CORPORA = Path(__file__).parents[1] / "corpora"
SPLITS = ("train", "validation", "test")
TYPES = {"PER", "LOC", "ORG", "MISC"}
HEADER = "title: A title\nkind: wire news\nsplit: test\n\n"


def read_demo(split: str) -> Split:
    path = str(CORPORA / "demo" / f"{split}.txt")
    return read_split(path, CorpusConfig(train=path, stray="refuse"))


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_corpus_build", CORPORA / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents(build: ModuleType) -> list[Any]:
    documents: list[Any] = build.read_documents()
    return documents


def test_built_files_are_what_the_sources_give(build: ModuleType, documents: list[Any]) -> None:
    files = build.built_files(documents)
    assert {path.name for path in files} == {"train.txt", "validation.txt", "test.txt", "README.md"}
    for path, text in files.items():
        assert path.read_bytes() == text.encode("utf-8"), f"{path.name}: run corpora/build.py"


def test_it_is_as_large_and_varied_as_it_claims(documents: list[Any]) -> None:
    assert len(documents) >= 80
    assert sum(len(document.sentences) for document in documents) >= 1000
    assert len({document.kind for document in documents}) >= 10
    for split in SPLITS:
        part = [document for document in documents if document.split == split]
        sentences = [sentence for document in part for sentence in document.sentences]
        assert {span.type for sentence in sentences for span in sentence.entities} == TYPES
        assert {document.kind for document in part} == {document.kind for document in documents}


def test_no_document_is_in_two_splits(documents: list[Any]) -> None:
    assert len({document.path.name for document in documents}) == len(documents)
    assert len({document.title for document in documents}) == len(documents)
    texts: dict[str, str] = {}
    for split in SPLITS:
        for line in (CORPORA / "demo" / f"{split}.txt").read_text(encoding="utf-8").split("\n\n"):
            if line.count("\n") >= 5:  # shorter sentences, "Nobody was hurt.", may well come again
                assert texts.setdefault(line, split) == split, line


@pytest.mark.parametrize("split", SPLITS)
def test_the_project_reads_the_files_as_valid_iob2(documents: list[Any], split: str) -> None:
    part = [document for document in documents if document.split == split]
    read = read_demo(split)
    assert read.scheme is Scheme.IOB2
    assert read.strays == 0
    assert read.document_count == len(part)
    tokens = [list(sentence.tokens) for sentence in read.sentences]
    assert tokens == [sentence.tokens for document in part for sentence in document.sentences]
    assert set(read.entity_counts()) == TYPES
    assert not any(token.isspace() for row in tokens for token in row)


def test_readme_has_the_computed_counts(build: ModuleType, documents: list[Any]) -> None:
    readme = (CORPORA / "README.md").read_text(encoding="utf-8")
    table = [line.strip("| ").split(" | ") for line in readme.splitlines() if line.startswith("| ")]
    for name, *numbers in build.count_rows(documents)[1:]:
        assert [name, *filter(None, numbers)] in [[cell for cell in row if cell.strip()] for row in table]
    sentences = sum(len(document.sentences) for document in documents)
    assert ["sentences", f"{sentences:,}"] in [[row[0], row[-1]] for row in table]
    assert f"{len(documents)} short English documents" in readme


def test_most_test_entities_are_unseen_in_training(build: ModuleType, documents: list[Any]) -> None:
    train, test = map(_entities, ("train", "test"))
    share = sum(entity not in train for entity in test) / len(test)
    assert share > 0.5
    assert share == pytest.approx(build.unseen_share(documents, "test"))


def _entities(split: str) -> list[tuple[str, ...]]:
    return [
        sentence.tokens[span.start : span.end]
        for sentence in read_demo(split).sentences
        for span in sentence.spans
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "A [nested [name|PER]|ORG].", ":5: '[' inside the entity that begins 'nested '"),
        (HEADER + "Fine.\nA [name|PER.", ":6: no ']' closes"),
        (HEADER + "A name|PER].", ":5: '|' stands only between"),
        (HEADER + "A name].", ":5: ']' closes nothing"),
        (HEADER + "A [name].", ":5: the entity 'name' has no type"),
        (HEADER + "A [name|PERS].", ":5: the entity 'name' has type 'PERS'; the types are PER, LOC"),
        (HEADER + "A [|PER] b.", ":5: an entity of type PER is empty"),
        (HEADER + "[Ada's|PER]hat.", ':5: the entity "Ada\'s" does not lie on token borders'),
        (HEADER + "[Ada |PER]fell.", ":5: the entity 'Ada ' does not lie on token borders"),
        (HEADER + "Two  spaces.", ":5: blanks other than single spaces"),
        (HEADER, ": no text follows the header"),
        (HEADER.replace("title", "topic") + "Text.", ":1: expected a header line"),
        (HEADER.replace("title: A title\n", "") + "Text.", ":1: the header lacks title"),
        (HEADER.replace("\nsplit", "\nkind: wire news\nsplit") + "Text.", ":3: a second header 'kind'"),
        (HEADER.replace("test", "dev") + "Text.", ":3: split is 'dev'; the splits are train"),
        (HEADER.replace("wire news", "recipe") + "Text.", ":2: kind is 'recipe', but the file's name"),
    ],
)
def test_a_wrong_source_is_refused_with_its_place(
    build: ModuleType, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "wire-news-x-bad.txt").write_text(text, encoding="utf-8")
    (tmp_path / "wire-news-x-good.txt").write_text(HEADER + "[Ada|PER]'s hat.\n", encoding="utf-8")
    with pytest.raises(build.SourceError) as caught:
        build.read_documents(tmp_path)
    problem = caught.value.problems[0]
    assert "wire-news-x-bad.txt:" in problem
    assert message in problem
    assert "x-good" not in str(caught.value)


def test_all_problems_are_reported_together(build: ModuleType, tmp_path: Path) -> None:
    for name in "ab":
        path = tmp_path / f"wire-news-{name}.txt"
        path.write_text(HEADER + "A [name|PERS].\nA name].\n", encoding="utf-8")
    with pytest.raises(build.SourceError) as caught:
        build.read_documents(tmp_path)
    places = [problem.split(": ")[0].rpartition("wire-news-")[2] for problem in caught.value.problems]
    assert places == ["a.txt:5", "a.txt:6", "b.txt:5", "b.txt:6"]


def test_check_says_what_differs_and_writes_nothing(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "demo" / "source"
    source.mkdir(parents=True)
    (source / "wire-news-x.txt").write_text(HEADER + "[Ada|PER] fell.\n", encoding="utf-8")
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(build, "README", tmp_path / "README.md")
    assert build.main(["--check"]) == 1
    assert "test.txt is not what the sources give" in capsys.readouterr().err
    assert not (tmp_path / "demo" / "test.txt").exists()
    assert build.main([]) == 0
    built = (tmp_path / "demo" / "test.txt").read_text(encoding="utf-8")
    assert built == "-DOCSTART- O\n\nAda B-PER\nfell O\n. O\n\n"
    assert build.main(["--check", "--counts"]) == 0
    assert "sentences" in capsys.readouterr().out
