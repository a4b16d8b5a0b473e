"""The spaCy component: agrees with the Tagger on any Doc, is saved with its pipeline, learns in spaCy's loop."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as run_training
from spacy.util import load_config, load_model_from_config

from nertool import Tagger
from nertool.config.loading import find_config, parse_config
from nertool.config.loading import load_config as yaml_config
from nertool.errors import BundleError, ConfigError, NertoolError
from nertool.formats.spacy_docs import doc_sentences
from nertool.integrations.spacy.component import NertoolPipe
from nertool.text.document import Document
from nertool.text.schemes import Scheme, convert

TEXT = "Ada Byron wrote to Babbage about the engine. \n\n She met Mina  Okoye at Blue Door Theatre . "
VOCAB = spacy.blank("en").vocab
SETTINGS = {
    "inputs": {"words": {"dimensions": 12}, "characters": {"dimensions": 6, "filters": 8}},
    "model": {"encoder": {"kind": "lstm", "hidden": 12}, "dropout": 0.1},
    "training": {"epochs": 40, "optimizer": "adam", "learning_rate": 0.02, "threads": 1},
}


@pytest.fixture
def nlp(trained_run) -> Language:
    """A pipeline with sentences and a trained model."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("nertool", config={"model": str(trained_run)})
    return nlp


def found(doc: Doc, name: str = "nertool") -> list[tuple[int, int, str, float]]:
    """The entities of a Doc with their scores."""
    scores = doc.spans[name].attrs["scores"]
    assert [(e.start, e.end, e.label_) for e in doc.ents] == [(e.start, e.end, e.label_) for e in doc.spans[name]]
    return [(e.start_char, e.end_char, e.label_, s) for e, s in zip(doc.ents, scores, strict=True)]


def entities(doc: Doc) -> list[tuple[int, int, str]]:
    return [entity[:3] for entity in found(doc)]


def expected(tagger: Tagger, text: str) -> list[tuple[int, int, str, float]]:
    return [(e.start, e.end, e.label, e.score) for e in tagger.tag(text).entities]


def examples(nlp: Language, sentences) -> list[Example]:
    """Examples from tokens and labels in IOB2."""
    return [
        Example.from_dict(Doc(nlp.vocab, words=words), {"entities": convert(tags, Scheme.IOB2, Scheme.BILOU)})
        for words, tags in sentences
    ]


def python(code: str, **variables: str) -> str:
    """Runs code in a fresh process, in which nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **variables}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# On Docs


def test_same_entities_and_scores_as_the_tagger(nlp, trained_run):
    tagger = Tagger.load(trained_run)
    assert found(nlp(TEXT)) == expected(tagger, TEXT) and len(nlp(TEXT).ents) == 4


def test_same_entities_as_the_tagger_for_tokens(nlp, trained_run, tiny_train, tiny_test):
    tagger = Tagger.load(trained_run)
    sentences = [tokens for tokens, _ in (*tiny_train, *tiny_test)]
    docs = [Doc(nlp.vocab, words=tokens) for tokens in sentences]
    with nlp.select_pipes(disable="sentencizer"):
        for doc, tagged in zip(nlp.pipe(docs), tagger.tag_tokens(sentences), strict=True):
            assert found(doc) == [(e.start, e.end, e.label, e.score) for e in tagged.entities]


def test_a_doc_without_sentence_boundaries_is_one_sentence(trained_run, tiny_train):
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"model": str(trained_run)})
    tokens = [token for sentence, _ in tiny_train for token in sentence]
    (tagged,) = Tagger.load(trained_run).tag_tokens([tokens])
    doc = nlp(Doc(nlp.vocab, words=tokens))
    assert found(doc) == [(e.start, e.end, e.label, e.score) for e in tagged.entities]
    assert not doc.has_annotation("SENT_START")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["a", " ", "\n\n", "Oslo"]), st.sampled_from([None, True, False]))))
def test_sentences_are_those_of_the_doc_without_white_space(drawn):
    words, starts = [word for word, _ in drawn], [start for _, start in drawn]
    doc = Doc(VOCAB, words=words, spaces=[False] * len(words), sent_starts=starts)
    tokens, places = doc_sentences(doc)
    parts = list(doc.sents) if len(doc) and doc.has_annotation("SENT_START") else [doc[:]] if len(doc) else []
    wanted = [[token for token in part if not token.is_space] for part in parts]
    assert tokens == [[token.text for token in part] for part in wanted if part]
    assert [each.tolist() for each in places] == [[token.i for token in part] for part in wanted if part]


@pytest.mark.parametrize("text", ["", " ", "\n \n", "\t"])
def test_a_doc_of_nothing_has_no_entities(nlp, text):
    alone = nlp(text)
    first, between, last = nlp.pipe([TEXT, text, TEXT])
    assert alone.ents == between.ents == () and alone.spans["nertool"].attrs["scores"] == []
    assert found(first) == found(last) == found(nlp(TEXT)) and between.text == text


def test_spans_leap_over_white_space_tokens(nlp):
    doc = nlp(TEXT)
    assert "Mina  Okoye" in [entity.text for entity in doc.ents]
    assert any(token.is_space for entity in doc.ents for token in entity)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_stream_stays_in_order_whatever_the_batch(nlp, size):
    texts = [f"{number} Mina Okoye met Ada Byron {number} times ." for number in range(20)]
    docs = list(nlp.pipe(texts, batch_size=size))
    assert [doc.text for doc in docs] == texts
    assert [entities(doc) for doc in docs] == [entities(nlp(text)) for text in texts]
    tuples = nlp.pipe(zip(texts, range(20), strict=True), as_tuples=True, batch_size=size)
    assert [context for _, context in tuples] == list(range(20))


def test_a_stream_need_not_end(nlp):
    def endless():
        while True:
            yield TEXT

    stream = nlp.pipe(endless(), batch_size=4)
    assert [len(next(stream).ents) for _ in range(9)] == [4] * 9


@pytest.mark.parametrize("overwrite", [False, True])
def test_earlier_entities_stay_unless_they_are_to_be_overwritten(trained_run, overwrite):
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"model": str(trained_run), "overwrite_ents": overwrite})
    words = ["Nobody", "met", "Mina", "Okoye", "at", "Blue", "Door", "Theatre", "in", "May", "."]
    doc = Doc(nlp.vocab, words=words)
    doc.set_ents([Span(doc, 1, 3, label="X", kb_id="Q1"), Span(doc, 9, 10, label="DATE")])
    nlp(doc)
    date, place = (9, 10, "DATE"), (5, 8, "ORG")
    entities = [(entity.start, entity.end, entity.label_) for entity in doc.ents]
    own = [(span.start, span.end, span.label_) for span in doc.spans["nertool"]]
    if overwrite:
        assert entities == [(2, 4, "PER"), place, date] and own == [(2, 4, "PER"), place]
    else:
        assert entities == [(1, 3, "X"), place, date] and own == [place] and doc.ents[0].kb_id_ == "Q1"
    assert len(doc.spans["nertool"].attrs["scores"]) == len(own)


@pytest.mark.parametrize("overwrite", [False, True])
def test_tagging_twice_changes_nothing(trained_run, overwrite):
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"model": str(trained_run), "overwrite_ents": overwrite})
    doc = nlp(TEXT)
    before = found(doc)
    assert found(nlp.get_pipe("nertool")(doc)) == before != []
    # An entity linker may have been there in between.
    first, *rest = doc.ents
    doc.set_ents([Span(doc, first.start, first.end, label=first.label, kb_id="Q7259"), *rest])
    assert found(nlp.get_pipe("nertool")(doc)) == before
    assert doc.ents[0].kb_id_ == doc.spans["nertool"][0].kb_id_ == "Q7259"
    # A Doc that has lost its span groups, as in a file.
    bare = doc.copy()
    bare.spans.clear()
    assert found(nlp.get_pipe("nertool")(bare)) == before


def test_a_second_call_replaces_what_the_first_one_set(nlp):
    doc = nlp(TEXT)
    wrong = Span(doc, 2, 3, label="ORG")
    doc.set_ents([wrong])
    doc.spans["nertool"] = [wrong]  # as if an older model had set it
    assert found(nlp.get_pipe("nertool")(doc)) == found(nlp(TEXT))


@pytest.mark.parametrize("overwrite", [False, True])
def test_blocked_tokens_stay_blocked(trained_run, overwrite):
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"model": str(trained_run), "overwrite_ents": overwrite})
    words = ["Nobody", "met", "Mina", "Okoye", "at", "Blue", "Door", "Theatre", "."]
    doc = Doc(nlp.vocab, words=words)
    doc.set_ents([], blocked=[Span(doc, 0, 1), Span(doc, 3, 5)])
    for _ in range(2):
        nlp.get_pipe("nertool")(doc)
        assert [(entity.start, entity.end, entity.label_) for entity in doc.ents] == [(5, 8, "ORG")]
        assert [token.ent_iob for token in doc] == [3, 2, 2, 3, 3, 3, 1, 1, 2]
        assert [bool(token.ent_type) for token in doc] == [False] * 5 + [True] * 3 + [False]
        assert len(doc.spans["nertool"]) == 1


def test_two_in_a_pipeline_and_a_renamed_one(nlp, trained_run):
    nlp.add_pipe("nertool", name="second", config={"model": str(trained_run), "overwrite_ents": True})
    doc = nlp(TEXT)
    assert list(doc.spans) == ["nertool", "second"] and found(doc, "second") == found(doc)
    nlp.rename_pipe("nertool", "first")
    doc = nlp(TEXT)
    assert list(doc.spans) == ["first", "second"] and found(doc, "first") == found(doc, "second")
    assert spacy.blank("en").from_config(nlp.config).pipe_names == ["sentencizer", "first", "second"]
    nlp.remove_pipe("second")
    assert len(nlp(TEXT).ents) == 4


def test_pipes_can_be_selected_and_analysed(nlp):
    with nlp.select_pipes(enable=["sentencizer"]):
        assert nlp(TEXT).ents == ()
    with nlp.select_pipes(disable=["nertool"]):
        assert not nlp(TEXT).spans
    assert len(nlp(TEXT).ents) == 4
    analysis = nlp.analyze_pipes()
    assert analysis["problems"]["nertool"] == [] and "nertool" in analysis["attrs"]["doc.ents"]["assigns"]
    assert analysis["summary"]["nertool"]["scores"] == ["ents_f", "ents_p", "ents_r", "ents_per_type"]
    assert nlp.pipe_labels["nertool"] == ["LOC", "ORG", "PER"]


def test_a_doc_of_fifty_thousand_tokens(nlp, tiny_train):
    tokens = [token for sentence, _ in tiny_train for token in sentence]
    words = (tokens * (50_000 // len(tokens) + 1))[:50_000]
    with nlp.select_pipes(disable="sentencizer"):
        doc = nlp(Doc(nlp.vocab, words=words))
    assert len(doc) == 50_000 and len(found(doc)) > 5_000
    assert np.isfinite(doc.spans["nertool"].attrs["scores"]).all()


def test_a_failing_batch_goes_to_the_error_handler(nlp, monkeypatch):
    failures = []
    pipe = nlp.get_pipe("nertool")
    nlp.set_error_handler(lambda name, proc, docs, problem: failures.append((name, proc, len(docs), problem)))
    ready = pipe._annotate

    def fail(docs):
        if any("9" in doc.text for doc in docs):
            raise RuntimeError("nine")
        ready(docs)

    monkeypatch.setattr(pipe, "_annotate", fail)
    docs = list(nlp.pipe([f"Ada Byron {number} ." for number in range(11)], batch_size=3))
    assert len(docs) == 9 and len(failures) == 1
    assert failures[0][:3] == ("nertool", pipe, 2) and str(failures[0][3]) == "nine"


def test_without_a_model_it_says_so(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool")
    with pytest.raises(NertoolError, match="'nertool': it has no model"):
        nlp("Oslo")
    with pytest.raises(NertoolError, match="has no model"):
        list(nlp.pipe(["Oslo"]))
    nlp.add_pipe("nertool", name="other", config={"model": str(tmp_path / "none")})
    with nlp.select_pipes(enable="other"), pytest.raises(NertoolError, match=r"no model folder .*none"):
        nlp("Oslo")


def test_what_is_no_model_of_entities_is_refused_when_it_is_added(tmp_path, tiny_config, trained_run):
    nlp = spacy.blank("en")
    with pytest.raises(BundleError, match="not a model"):
        nlp.add_pipe("nertool", config={"model": str(tmp_path)})
    with pytest.raises(ConfigError, match="give one of the two"):
        nlp.add_pipe("nertool", config={"model": str(trained_run), "settings": {}})
    from nertool.tagging.bundle import save_bundle
    from nertool.text.document import Document
    from nertool.training.preparation import build_model

    def save(name, config, document):
        save_bundle(build_model(config, [document], document.scheme), tmp_path / name)

    tags = Document(("rain", "fell"), labels=("NOUN", "VERB"), scheme=Scheme.PLAIN)
    save("tags", tiny_config(), tags)
    with pytest.raises(BundleError, match="tags: this model gives each token a tag"):
        nlp.add_pipe("nertool", config={"model": str(tmp_path / "tags")})
    config = tiny_config(
        "corpus.columns=[token, chunk, ner]", "corpus.label=ner", "inputs.c={kind: column, column: chunk}"
    )
    save("chunks", config, Document(("rain",), labels=("O",), scheme=Scheme.IOBES, columns={"chunk": ("NP",)}))
    with pytest.raises(BundleError, match=r"inputs\.c: the column 'chunk' is no attribute.*pos, tag, lemma"):
        nlp.add_pipe("nertool", config={"model": str(tmp_path / "chunks")})


# Processes


PROCESSES = """
import multiprocessing, sys, spacy, torch
nlp = spacy.blank("en")
nlp.add_pipe("nertool", config={"model": sys.argv[1]})
# So many words, all of them new, that a thread would be given a part of the work on them.
texts = [" ".join(["Ada", "Byron", "left", *(f"w{60 * n + m}" for m in range(60))]) for n in range(100)]
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    # The threads of the parent are there before its children are.
    torch.set_num_threads(4)
    torch.ones(600, 600) @ torch.ones(600, 600)
    nlp(texts[0])
    docs = list(nlp.pipe(texts, n_process=2, batch_size=25))
    assert [doc.text for doc in docs] == texts
    alone = nlp.pipe(texts)
    assert [[(e.text, e.label_) for e in doc.ents] for doc in docs] == [
        [(e.text, e.label_) for e in doc.ents] for doc in alone
    ]
    assert all(len(doc.spans["nertool"].attrs["scores"]) == len(doc.ents) for doc in docs)
    print("done")
"""


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_processes_agree_with_one_and_end(tmp_path, trained_run, method):
    path = tmp_path / "processes.py"
    path.write_text(PROCESSES)
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, path, str(trained_run), method],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


def test_importing_the_component_needs_nothing_heavy():
    heavy = ("torch", "datasets", "seqeval", "sklearn", "matplotlib", "torchcrf", "yaml", "rich", "safetensors")
    # spaCy itself looks for torch (by way of thinc), so only what comes after it is for nertool to answer.
    code = f"""
import sys, spacy
for name in {heavy!r}:
    sys.modules[name] = None  # importing it is an error from here on
import nertool.integrations.spacy.component
assert "nertool" in spacy.blank("en").factory_names
"""
    python(code)


def test_a_blank_pipeline_starts_as_fast_as_without(tmp_path):
    # Processor time of the import alone, spaCy being there: what every blank pipeline pays.
    code = """
import contextlib, time, spacy
with contextlib.suppress(ImportError):  # spaCy 3.8.2 has its factories elsewhere
    import spacy.pipeline.factories
began = time.process_time()
import nertool.integrations.spacy.component
print(time.process_time() - began)
"""
    assert any(float(python(code)) < 0.05 for _ in range(5)), "each of five times"


# Saved and loaded


def test_saved_and_loaded_in_a_fresh_process(nlp, tmp_path):
    nlp.to_disk(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved" / "nertool" / "model").iterdir()} == {
        "config.yaml",
        "vocabulary.json",
        "weights.safetensors",
    }
    code = f"import spacy; print(spacy.load({str(tmp_path / 'saved')!r})({TEXT!r}).spans['nertool'].attrs)"
    assert python(code) == str(nlp(TEXT).spans["nertool"].attrs)


def test_a_saved_pipeline_does_not_need_the_folder_that_its_model_came_from(nlp, tmp_path, trained_run):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    own = spacy.blank("en")
    own.add_pipe("nertool", config={"model": str(run)})
    own.to_disk(tmp_path / "saved")
    data = own.to_bytes()
    shutil.rmtree(run)
    assert found(spacy.load(tmp_path / "saved")(TEXT)) == found(own(TEXT)) != []
    again = spacy.blank("en").from_config(own.config).from_bytes(data)
    assert found(again(TEXT)) == found(own(TEXT))
    spacy.load(tmp_path / "saved").initialize()  # leaves a model that was named as it is


def test_bytes_and_what_is_excluded(nlp, tmp_path):
    other = spacy.blank("en")
    other.add_pipe("sentencizer")
    other.add_pipe("nertool")
    without = spacy.blank("en").from_config(other.config)
    other.from_bytes(nlp.to_bytes())
    assert found(other(TEXT)) == found(nlp(TEXT))
    without.from_bytes(nlp.to_bytes(), exclude=["nertool"])
    pipe, source = without.get_pipe("nertool"), nlp.get_pipe("nertool")
    assert pipe.model is None
    small = source.to_bytes(exclude=["model", "vocab"])
    assert len(small) < 10
    pipe.from_bytes(small)
    assert pipe.model is None
    pipe.from_bytes(source.to_bytes(exclude=["vocab"]), exclude=["vocab"])
    assert found(without(TEXT)) == found(nlp(TEXT))
    source.to_disk(tmp_path / "pipe", exclude=["model"])
    assert {path.name for path in (tmp_path / "pipe").iterdir()} == {"vocab"}
    source.to_disk(tmp_path / "pipe", exclude=["vocab"])
    fresh = NertoolPipe(nlp.vocab).from_disk(tmp_path / "pipe", exclude=["vocab"])
    assert fresh.labels == source.labels and fresh.to_bytes() == source.to_bytes()
    assert NertoolPipe(nlp.vocab).from_disk(tmp_path / "pipe", exclude=["vocab", "model"]).model is None


def test_damaged_bytes_and_folders_are_refused(nlp, tmp_path):
    pipe = nlp.get_pipe("nertool")
    data = bytearray(pipe.to_bytes(exclude=["vocab"]))
    data[-4:] = b"\xff\xff\xff\xff"  # a weight that is not a number
    with pytest.raises(BundleError, match=r"bytes of 'nertool'.*not finite"):
        NertoolPipe(nlp.vocab).from_bytes(bytes(data))
    nlp.to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "nertool" / "model" / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"weights\.safetensors is missing"):
        spacy.load(tmp_path / "saved")


def test_a_pipeline_without_a_model_is_saved_without(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"settings": SETTINGS})
    nlp.to_disk(tmp_path)
    pipe = spacy.load(tmp_path).get_pipe("nertool")
    assert pipe.model is None and pipe.settings == SETTINGS


@pytest.mark.slow
def test_packaged_with_its_weights(nlp, tmp_path):
    nlp.to_disk(tmp_path / "saved")
    command = [sys.executable, "-m", "spacy", "package", "saved", ".", "--build", "none", "--name", "little"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("en_little-*")
    assert "nertool>=" in (folder / "meta.json").read_text()
    place = tmp_path / "installed"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        place,
        folder,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(place.rglob("weights.safetensors"))) == 1
    code = f"import spacy; print([e.text for e in spacy.load('en_little')({TEXT!r}).ents])"
    assert python(code, PYTHONPATH=str(place)) == str([entity.text for entity in nlp(TEXT).ents])


# Training


def train(nlp: Language, data: list[Example], epochs: int = 40) -> dict[str, float]:
    optimizer = nlp.initialize(lambda: data)
    for _ in range(epochs):
        losses: dict[str, float] = {}
        for start in range(0, len(data), 4):
            nlp.update(data[start : start + 4], sgd=optimizer, losses=losses)
    return losses


def trainable(**changes) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("nertool", config={"settings": {**SETTINGS, **changes}})
    return nlp


def test_learns_saves_and_predicts_the_same(tmp_path, tiny_train):
    nlp = trainable()
    data = examples(nlp, tiny_train)
    losses = train(nlp, data)
    scores = nlp.evaluate(examples(nlp, tiny_train))
    assert scores["ents_f"] == 1.0 and set(scores["ents_per_type"]) == {"LOC", "ORG", "PER"}
    assert 0 < losses["nertool"] < 10
    nlp.to_disk(tmp_path)
    docs = [Doc(nlp.vocab, words=tokens) for tokens, _ in tiny_train]
    loaded = spacy.load(tmp_path)
    again = [Doc(loaded.vocab, words=tokens) for tokens, _ in tiny_train]
    assert [found(d) for d in nlp.pipe(docs)] == [found(d) for d in loaded.pipe(again)]
    assert Tagger.load(tmp_path / "nertool" / "model").tag_tokens([tiny_train[0][0]])


def test_averages_are_what_is_scored_and_saved(tiny_train):
    nlp = trainable(training={**SETTINGS["training"], "averaging": 0.9})
    data = examples(nlp, tiny_train)
    train(nlp, data, 3)
    pipe = nlp.get_pipe("nertool")
    before = pipe.to_bytes(exclude=["vocab"])
    assert found(nlp(TEXT)) == found(spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())(TEXT))
    assert pipe.to_bytes(exclude=["vocab"]) == before  # however often it is asked
    weights = {name: tensor.clone() for name, tensor in pipe.model.network.state_dict().items()}
    pipe._training.learner.resume()
    raw = pipe.model.network.state_dict()
    assert any(not bool((weights[name] == raw[name]).all()) for name in raw)


def test_gradients_of_several_batches_make_one_step(tiny_train):
    once, thrice = trainable(), trainable()
    for nlp, parts in ((once, [12]), (thrice, [4, 4, 4])):
        pipe = nlp.get_pipe("nertool")
        pipe.initialize(lambda nlp=nlp: examples(nlp, tiny_train), nlp=nlp)
        for module in pipe.model.network.modules():  # no dropout, which draws for each batch anew
            for name in {"probability", "dropout"} & vars(module).keys():
                setattr(module, name, 0.0)
        data = examples(nlp, tiny_train)
        for size in parts:
            pipe.update([data.pop(0) for _ in range(size)])
        pipe.finish_update(None)
    a, b = (nlp.get_pipe("nertool").model.network.state_dict() for nlp in (once, thrice))
    for name in a:
        assert np.allclose(a[name], b[name], atol=1e-4), name


def test_sentences_without_whole_labels_are_left_out_and_counted_once(tiny_train):
    nlp = trainable()
    whole = examples(nlp, tiny_train)
    # Nothing is known of the first; the entity of the second begins inside a token; the third is known in part.
    unknown = Example.from_dict(Doc(nlp.vocab, words=["Oslo", "fell"]), {})
    with pytest.warns(UserWarning, match="W030"):  # spaCy's own
        torn = Example.from_dict(nlp.make_doc("NewHaven fell ."), {"entities": [(3, 8, "LOC")]})
    partial = Example.from_dict(Doc(nlp.vocab, words=["Oslo", "fell"]), {"entities": ["-", "O"]})
    with pytest.warns(UserWarning, match="3 of 15 sentences are not learnt from") as caught:
        pipe = nlp.get_pipe("nertool")
        pipe.initialize(lambda: [*whole, unknown, torn, partial], nlp=nlp)
        pipe.update([*whole[:2], unknown, torn])
    assert len([each for each in caught if "learnt" in str(each.message)]) == 1
    assert "NewHaven" not in pipe.model.inputs["words"].words and pipe._training.epoch_size == 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe.update([unknown], losses={})
        pipe.finish_update(None)


def test_nothing_to_learn_from_is_an_error():
    nlp = trainable()
    with pytest.raises(NertoolError, match="nothing to learn from"):
        nlp.initialize()
    with pytest.raises(NertoolError, match="has no model"):
        nlp.update([Example.from_dict(nlp.make_doc("Oslo"), {"entities": ["U-LOC"]})])


def test_labels_can_be_given_and_added_at_any_time(tiny_train):
    nlp = trainable()
    pipe = nlp.get_pipe("nertool")
    assert pipe.add_label("EVENT") == 1 and pipe.add_label("EVENT") == 0 and pipe.labels == ("EVENT",)
    pipe.initialize(lambda: examples(nlp, tiny_train), nlp=nlp, labels=["DATE"])
    assert pipe.labels == ("DATE", "EVENT", "LOC", "ORG", "PER") == tuple(pipe.label_data)
    assert pipe.add_label("LOC") == 0
    before = pipe.model
    assert pipe.add_label("X") == 1 and pipe.add_label("X") == 0
    pipe.update(examples(nlp, [(["Oslo"], ["B-Y"])]))  # grows by itself
    assert pipe.labels == ("DATE", "EVENT", "LOC", "ORG", "PER", "X", "Y")
    size = len(before.labels)
    assert pipe.model.labels[:size] == before.labels and {"B-X", "I-Y"} < set(pipe.model.labels[size:])
    kept = pipe.model.network.scores.weight[:size].detach()
    np.testing.assert_array_equal(kept, before.network.scores.weight.detach())
    assert pipe._training.epoch_size == len(tiny_train)
    pipe.finish_update(None)
    with pytest.raises(NotImplementedError, match="cannot rehearse"):
        nlp.rehearse(examples(nlp, tiny_train))


def test_settings_are_checked_when_the_component_is_added():
    nlp = spacy.blank("en")
    for settings_, message in (
        (
            {"inputs": {"words": {"dimension": 3}}},
            r"words\.dimension: no such setting.*Did you mean inputs\.words\.dimensions",
        ),
        (
            {"inputs": {"c": {"kind": "column", "column": "chunk"}}},
            r"inputs\.c: the column 'chunk' is no attribute",
        ),
        ({"corpus": {"train": "x"}}, "spaCy reads the corpora"),
        ({"training": {"schedule": "plateau"}}, "spaCy tells no component its scores"),
    ):
        with pytest.raises(ConfigError, match=message):
            nlp.add_pipe("nertool", config={"settings": settings_})


def test_a_trained_model_can_be_trained_on(nlp, tiny_test):
    data = examples(nlp, tiny_test)
    nlp.initialize(lambda: data)
    words = nlp.get_pipe("nertool").model.inputs["words"].words
    assert {"Mina", "Lind", "1993"} < set(words)  # the new ones come after those of the model
    before = nlp.evaluate(examples(nlp, tiny_test))["ents_f"]
    for _ in range(40):
        nlp.update(data, sgd=nlp.create_optimizer())
    assert nlp.evaluate(examples(nlp, tiny_test))["ents_f"] > before
    assert nlp.get_pipe("nertool").model.inputs["words"].words is words
    assert nlp.get_pipe("nertool").model.config.start.model == nlp.get_pipe("nertool").source


DATES = [
    (["Ada", "met", "Babbage", "in", "May", "1840", "."], ["O", "O", "O", "O", "B-DATE", "I-DATE", "O"]),
    (["Nobody", "came", "in", "Zürich", "on", "Friday", "."], ["O", "O", "O", "O", "O", "B-DATE", "O"]),
    (["Oslo", "beat", "London", "in", "1987", "."], ["O", "O", "O", "O", "B-DATE", "O"]),
]


class TestGoingOn:
    """Training that starts from the weights of a model."""

    def start(self, trained_run: Path, **options) -> tuple[Language, list[Example]]:
        nlp = spacy.blank("en")
        nlp.add_pipe("nertool")
        data = examples(nlp, DATES)
        pipe = nlp.get_pipe("nertool")
        pipe.initialize(lambda: data, nlp=nlp, model=str(trained_run), **options)
        return nlp, data

    def learn(self, nlp: Language, data: list[Example]) -> dict[str, set[str]]:
        for _ in range(40):
            nlp.get_pipe("nertool").update(data, sgd=True)
        doc = nlp(Doc(nlp.vocab, words=["Mina", "Okoye", "met", "Otto", "in", "Oslo", "on", "Friday", "."]))
        return {
            label: {span.text for span in doc.ents if span.label_ == label} for label in ("PER", "LOC", "DATE")
        }

    @pytest.mark.parametrize("options", [{"keep_labels": True}, {"self_label": True}], ids=["keep", "self-label"])
    def test_types_that_the_examples_lack_are_kept(self, trained_run, options):
        nlp, data = self.start(trained_run, **options)
        pipe = nlp.get_pipe("nertool")
        assert pipe.labels == ("DATE", "LOC", "ORG", "PER")
        assert "Zürich" in pipe.model.inputs["words"].rows
        assert pipe.model.config.model.encoder.hidden == 12
        found = self.learn(nlp, data)
        assert found["DATE"] == {"Friday"} and "Oslo" in found["LOC"] and found["PER"]
        # Nobody annotated persons and places in these examples.
        assert set(nlp.evaluate(data)["ents_per_type"]) == {"DATE"}

    def test_otherwise_they_are_unlearnt_with_a_warning(self, trained_run):
        with pytest.warns(UserWarning, match="no example has the types LOC, ORG, PER of the model"):
            nlp, data = self.start(trained_run)
        found = self.learn(nlp, data)
        assert found == {"PER": set(), "LOC": set(), "DATE": {"Friday"}}

    def test_what_has_no_effect_is_refused(self, trained_run, tiny_train):
        nlp = spacy.blank("en")
        pipe = nlp.add_pipe("nertool", config={"settings": SETTINGS})
        data = examples(nlp, tiny_train)
        with pytest.raises(ConfigError, match="are for a model to start from"):
            pipe.initialize(lambda: data, nlp=nlp, keep_labels=True)
        with pytest.raises(ConfigError, match="annotate all types of the model"):
            pipe.initialize(lambda: data, nlp=nlp, model=str(trained_run), keep_labels=True)
        other = nlp.add_pipe("nertool", name="other", config={"model": str(trained_run)})
        with pytest.raises(ConfigError, match="name one"):
            other.initialize(lambda: data, nlp=nlp, model=str(trained_run))
        with pytest.raises(ConfigError, match=r"start: name the model in the config's \[initialize"):
            nlp.add_pipe("nertool", name="third", config={"settings": {"start": {"model": "x"}}})
        small = {**SETTINGS, "model": {"encoder": {"kind": "lstm", "hidden": 5}}}
        fourth = nlp.add_pipe("nertool", name="fourth", config={"settings": small})
        with pytest.raises(ConfigError, match=r"model\.encoder\.hidden: 5; the model has 12"):
            fourth.initialize(lambda: data, nlp=nlp, model=str(trained_run))

    def test_a_loaded_pipeline_grows_by_the_types_that_it_meets(self, nlp, tmp_path):
        nlp.to_disk(tmp_path / "nlp")
        loaded = spacy.load(tmp_path / "nlp")
        optimizer = loaded.resume_training()
        data = examples(loaded, DATES)
        for _ in range(40):
            loaded.update(data, sgd=optimizer)
        assert loaded.get_pipe("nertool").labels == ("DATE", "LOC", "ORG", "PER")
        loaded.to_disk(tmp_path / "grown")
        doc = spacy.load(tmp_path / "grown")("It rained on Friday .")
        assert [(span.text, span.label_) for span in doc.ents] == [("Friday", "DATE")]

    def test_a_config_starts_from_a_model(self, tmp_path, trained_run):
        nlp = spacy.blank("en")
        DocBin(docs=[each.reference for each in examples(nlp, DATES)]).to_disk(tmp_path / "dates.spacy")
        nlp.add_pipe("nertool")
        config = nlp.config.copy()
        config["paths"].update({"train": str(tmp_path / "dates.spacy"), "dev": str(tmp_path / "dates.spacy")})
        config["initialize"]["components"]["nertool"] = {"model": str(trained_run), "keep_labels": True}
        started = init_nlp(config)
        assert started.get_pipe("nertool").labels == ("DATE", "LOC", "ORG", "PER")


@pytest.mark.parametrize("schedule", ["inverse", "cosine", "one_cycle", "step"])
def test_the_rate_follows_the_schedule_over_the_sentences_that_were_seen(tiny_train, schedule):
    from nertool.training.schedule import learning_rate

    extra = {"reduce_every": 1} if schedule == "step" else {}
    training = {"epochs": 3, "schedule": {"kind": schedule, **extra}, "threads": 1}
    nlp = trainable(training=training)
    pipe, rates = nlp.get_pipe("nertool"), []
    data = examples(nlp, tiny_train)
    pipe.initialize(lambda: data, nlp=nlp)
    optimization = pipe._training.learner.optimization
    set_rate = optimization.set_rate
    optimization.set_rate = lambda rate: (rates.append(rate), set_rate(rate))
    for _ in range(4):
        for start in range(0, 12, 4):
            pipe.update(data[start : start + 4])
            pipe.finish_update(None)
    config = pipe.model.config.training
    wanted = [learning_rate(config, epoch, step, 3, ()) for epoch in range(3) for step in range(3)]
    assert rates[:9] == wanted and rates[9:] == [wanted[-1]] * 3


def test_using_it_between_steps_sees_the_new_weights(tiny_train):
    nlp = trainable()
    data = examples(nlp, tiny_train)
    seen = []
    optimizer = nlp.initialize(lambda: data)
    for _ in range(3):
        nlp.update(data, sgd=optimizer)
        pipe = nlp.get_pipe("nertool")
        predictions = pipe._ready_predictor().predict([Document(("Ada", "Byron"))], probabilities=True)
        seen.append(predictions.probability(0, 0, 2))
    assert len(set(seen)) == 3


POS_SETTINGS = {
    **SETTINGS,
    "inputs": {**SETTINGS["inputs"], "pos": {"kind": "column", "column": "pos", "dimensions": 4}},
}


def tagged_with_pos(nlp: Language, sentences) -> list[Example]:
    """Make examples whose references have parts of speech that tell where an entity is."""
    made = []
    for words, tags in sentences:
        pos = ["PROPN" if tag != "O" else "X" for tag in tags]
        reference = Doc(nlp.vocab, words=words, pos=pos, ents=tags)
        made.append(Example(Doc(nlp.vocab, words=words), reference))
    return made


def test_a_column_comes_from_the_tokens(tiny_train, tmp_path):
    nlp = trainable(**POS_SETTINGS)
    # Before a tagger has run, the annotation is that of the reference.
    data = tagged_with_pos(nlp, tiny_train)
    train(nlp, data)
    pipe = nlp.get_pipe("nertool")
    assert pipe.model.inputs["pos"].values == ["X", "PROPN"]
    for words, tags in tiny_train:
        doc = Doc(nlp.vocab, words=words, pos=["PROPN" if tag != "O" else "X" for tag in tags])
        gold = Doc(nlp.vocab, words=words, ents=tags)
        assert [(e.text, e.label_) for e in pipe(doc).ents] == [(e.text, e.label_) for e in gold.ents]
    with pytest.raises(NertoolError, match=r"reads the column 'pos', but the Doc has no token\.pos_"):
        nlp("Oslo fell .")
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path).get_pipe("nertool")
    assert [(e.text, e.label_) for e in again(doc.copy()).ents] == [(e.text, e.label_) for e in doc.ents]
    with pytest.raises(NertoolError, match=r"training examples have no token\.pos_"):
        nlp.update(examples(nlp, tiny_train))


def test_a_shape_needs_no_annotation(tiny_train):
    shape = {"kind": "column", "column": "shape", "dimensions": 4}
    nlp = trainable(inputs={**SETTINGS["inputs"], "shape": shape})
    train(nlp, examples(nlp, tiny_train), 2)
    assert "Xxxx" in nlp.get_pipe("nertool").model.inputs["shape"].values
    assert nlp("Ada met Otto .").spans["nertool"] is not None


SHIPPED = Path(__file__).parent.parent / "configs" / "spacy.cfg"


def test_the_shipped_config_is_complete():
    config = load_config(SHIPPED)
    filled = load_model_from_config(config, auto_fill=True).config
    assert filled == config and filled.to_str(interpolate=False) == config.to_str(interpolate=False)
    head = "".join(line for line in SHIPPED.read_text().splitlines() if line.startswith("#"))
    assert "python -m spacy train spacy.cfg" in head and "Expect" in head
    ours = config.interpolate()["components"]["nertool"]["settings"]
    theirs = yaml_config(find_config("conll03.yaml"))
    wanted = parse_config({**ours, "corpus": theirs.corpus.model_dump()})
    assert wanted == theirs


def test_spacy_trains_as_the_shipped_config_says(tmp_path, tiny_train):
    nlp = spacy.blank("en")
    words = [token for tokens, _ in tiny_train for token in tokens]
    starts = [number == 0 for tokens, _ in tiny_train for number, _ in enumerate(tokens)]
    doc = Doc(nlp.vocab, words=words, sent_starts=starts, ents=[label for _, row in tiny_train for label in row])
    DocBin(docs=[doc]).to_disk(tmp_path / "tiny.spacy")
    settings = {**SETTINGS, "training": {**SETTINGS["training"], "averaging": 0.5}}
    settings["inputs"] = {**SETTINGS["inputs"], "words": {"vectors": [], "dimensions": 12, "dropout": 0.0}}
    changes = {
        "paths": {"train": str(tmp_path / "tiny.spacy"), "dev": str(tmp_path / "tiny.spacy")},
        "components": {"nertool": {"settings": settings}},
        "training": {"max_epochs": 40, "eval_frequency": 20, "batcher": {"size": 4}},
    }
    (tmp_path / "out").mkdir()
    initialized = init_nlp(load_config(SHIPPED).merge(changes))
    trained, path = run_training(initialized, tmp_path / "out", stdout=io.StringIO(), stderr=io.StringIO())
    best = spacy.load(tmp_path / "out" / "model-best")
    assert best.meta["performance"]["ents_f"] == 1.0 and path == tmp_path / "out" / "model-last"
    gold = [(entity.start, entity.end, entity.label_) for entity in doc.ents]
    with_borders = Doc(best.vocab, words=words, sent_starts=starts)
    assert [(entity.start, entity.end, entity.label_) for entity in best(with_borders).ents] == gold
    # What is saved last is what was trained last, averaged.
    last = spacy.load(path).get_pipe("nertool")
    assert last.to_bytes(exclude=["vocab"]) == trained.get_pipe("nertool").to_bytes(exclude=["vocab"])


def test_batches_have_sentences_of_one_length(tiny_train):
    from nertool.integrations.spacy.component import batch_by_length

    data = examples(spacy.blank("en"), tiny_train * 20)
    np.random.seed(1)
    batches = list(batch_by_length(8)(data))
    assert sorted(map(id, data)) == sorted(id(each) for batch in batches for each in batch)
    lengths = [{len(each.predicted) for each in batch} for batch in batches]
    assert sum(len(each) == 1 for each in lengths) > len(lengths) / 2 and max(map(len, batches)) <= 8
    np.random.seed(1)
    assert list(batch_by_length(8)(data)) == batches != list(batch_by_length(8)(data))
    assert spacy.registry.batchers.get("nertool.batch_by_length.v1")(8)


def test_time_is_not_wasted_on_small_docs(nlp):
    texts = ["Ada Byron wrote to Babbage about the engine."] * 2000
    list(nlp.pipe(texts[:10]))
    began = time.perf_counter()
    assert sum(len(doc.ents) for doc in nlp.pipe(texts)) == 4000
    assert time.perf_counter() - began < 10


def test_the_component_is_an_entry_point():
    from importlib.metadata import entry_points

    (entry,) = {each.value for each in entry_points(group="spacy_factories", name="nertool")}
    assert entry == "nertool.integrations.spacy.component:make_nertool"
    assert Path(sys.modules[NertoolPipe.__module__].__file__).name == "component.py"


def test_info_says_that_spacy_trained_it(tmp_path, monkeypatch, tiny_train):
    from click.testing import CliRunner

    from nertool.cli.main import main

    nlp = trainable()
    train(nlp, examples(nlp, tiny_train), 1)
    nlp.to_disk(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["info", "nertool/model"])
    assert done.exit_code == 0, done.output
    assert re.search(r"trained on +a corpus that spaCy read\n", done.output)
    assert re.search(r"training +by spaCy", done.output)
    assert "not finished" not in done.output
