"""Every config that ships says how to run it, and trains on its corpus or on a few lines that look like it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from nertool.config.files import find
from nertool.config.loading import find_config, load_config, locate_files, parse_config
from nertool.config.schema import READ_BY_SPACY, Config
from nertool.data.corpus import read_split
from nertool.errors import ConfigError, CorpusError
from nertool.tagging.tagger import Tagger
from nertool.training.preparation import Prepared
from nertool.training.run import Finished, run
from nertool.training.trainer import Epoch, Step

SHIPPED = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
SENTENCES = {"train": 120, "validation": 30, "test": 30}
# A token and its label, in IOB2 or, for plain tags, a word class.
ENTITIES = [
    ("Mina", "B-PER"),
    ("Lind", "I-PER"),
    ("left", "O"),
    ("Oslo", "B-LOC"),
    ("in", "O"),
    ("May", "O"),
    (".", "O"),
]
TAGS = [("Rain", "NOUN"), ("fell", "VERB"), ("on", "ADP"), ("Oslo", "PROPN"), ("all", "DET"), ("week", "NOUN")]
CHARACTERS = [
    ("李", "B-PER.NAM"),
    ("华", "I-PER.NAM"),
    ("去", "O"),
    ("北", "B-GPE.NAM"),
    ("京", "I-GPE.NAM"),
    ("。", "O"),
]

shipped = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)


def first_sentences(source: Path, number: int) -> str:
    """The first sentences of a corpus, as written."""
    lines: list[str] = []
    found = 0
    with source.open(encoding="utf-8") as stream:
        for line in stream:
            found += not line.strip()
            if found == number:
                break
            lines.append(line)
    return "".join(lines)


def own_sentences(config: Config, number: int) -> str:
    """Sentences in the columns of a config; columns that are not read hold X."""
    corpus = config.corpus
    columns = corpus.columns or ("token", corpus.label)
    rows = TAGS if corpus.scheme == "plain" else CHARACTERS if config.language == "zh" else ENTITIES
    place = {"token": 0, corpus.label: 1}
    separator = "\t" if corpus.scheme == "plain" else " "
    sentence = "".join(
        separator.join(row[place[name]] if name in place else "X" for name in columns) + "\n" for row in rows
    )
    if corpus.strip:
        sentence = "".join(line[0] + "0" + line[1:] + "\n" for line in sentence.splitlines())
    return "\n".join([sentence] * number)


def vectors_of(config: Config) -> tuple[str, ...]:
    """The files of word vectors."""
    vectors: tuple[str, ...] = config.inputs["words"].vectors
    return vectors


def small(path: Path, folder: Path, *, real: bool) -> Config:
    """A shipped config over shortened corpora and vectors; raises ConfigError where they are not here."""
    whole = load_config(path)
    overrides = ["training.epochs=1", "training.threads=1"]
    for split, number in SENTENCES.items():
        name = getattr(whole.corpus, split)
        if name is not None:
            source = find(name, [path.parent]) if real else None
            text = first_sentences(source, number) if source else own_sentences(whole, number)
            (folder / f"{split}.txt").write_text(text, encoding="utf-8")
            overrides.append(f"corpus.{split}={folder / split}.txt")
    if vectors_of(whole):
        cut = []
        for number, name in enumerate(vectors_of(whole)):
            if real:
                with find(name, [path.parent]).open(encoding="utf-8") as stream:
                    text = "".join(islice(stream, 2000))
            else:
                text = "oslo 0.1 0.2 0.3\nrain 0.4 0.5 0.6\n"
            cut.append(folder / f"vectors{number}.txt")
            cut[-1].write_text(text, encoding="utf-8")
        overrides.append(f"inputs.words.vectors=[{', '.join(map(str, cut))}]")
    return locate_files(load_config(path, overrides), path)


def test_there_are_those_that_the_documentation_names():
    assert {path.stem for path in SHIPPED} >= {
        *("conll03", "conll03-fast", "conll2000", "conll2002-es", "demo", "ewt-pos", "weibo", "wikigold")
    }


@shipped
def test_its_head_says_what_it_is_and_how_to_run_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    head = []
    for line in lines:
        if line and not line.startswith("#"):
            break
        head.append(line)
    assert lines[0].startswith("# ")
    assert any("nertool train" in line or "nertool compare" in line for line in head)


@shipped
def test_its_name_is_enough(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (path.name, path.stem):
        assert find_config(name).samefile(path)
    assert load_config(path).corpus.test is not None or "--folds" in path.read_text(encoding="utf-8")


def test_the_config_for_spacy_has_the_settings_of_its_model():
    spacy = pytest.importorskip("spacy")
    path = SHIPPED[0].parent / "spacy.cfg"
    found = spacy.util.load_config(path, interpolate=True)["components"]["nertool"]["settings"]
    wanted = load_config(path.with_name("conll03.yaml"))
    config = parse_config({"corpus": {"train": READ_BY_SPACY}, **found})
    assert (config.inputs, config.model) == (wanted.inputs, wanted.model)
    patience = {"training": wanted.training.model_copy(update={"patience": config.training.patience})}
    assert config.training == wanted.model_copy(update=patience).training


@shipped
def test_it_builds_and_trains(path, tmp_path):
    try:
        config = small(path, tmp_path, real=True)
    except ConfigError:
        config = small(path, tmp_path, real=False)
    prepared, *records, finished = run(config, tmp_path / "run")
    assert isinstance(prepared, Prepared)
    assert prepared.corpus.train.strays < 5
    assert (prepared.coverage is not None) == bool(vectors_of(config))
    assert prepared.coverage is None or all(0 < share < 1 for share in prepared.coverage.values())
    assert prepared.model.scheme == ("plain" if config.corpus.scheme == "plain" else config.corpus.learn_scheme)
    assert sum(isinstance(record, Step) for record in records) >= 2
    assert isinstance(finished, Finished) and isinstance(finished.best, Epoch)
    assert finished.best.loss > 0
    test = config.corpus.test
    sentences = None if test is None else len(read_split(Path(test), config.corpus))
    assert (finished.test and finished.test.sentences) == sentences
    # Raw text goes through the tokenizer of its language.
    tagger = Tagger.load(tmp_path / "run")
    text = "李华去北京。" if config.language == "zh" else "Mina Lind left Oslo in May."
    if any(each.kind == "column" for each in config.active_inputs.values()):
        with pytest.raises(CorpusError, match="column"):
            tagger.tag(text)
        return
    tagged = tagger.tag(text)
    assert (tagged.text, len(tagged.tokens)) == (text, 6 if config.language == "zh" else 7)


@shipped
def test_lines_that_look_like_its_corpus_will_do_too(path, tmp_path):
    config = small(path, tmp_path, real=False)
    prepared = next(run(config, tmp_path / "run"))
    assert isinstance(prepared, Prepared)
    sentences = prepared.corpus.train.sentences
    assert all(" " not in token for sentence in sentences for token in sentence.tokens)
    assert len(sentences[0]) == 6 + (config.language != "zh" and config.corpus.scheme != "plain")
