"""The tagger: exact offsets on any text, exact scores, a stream that stays one, company that changes nothing."""

from __future__ import annotations

import json
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import combinations, count, islice, product
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch
from conftest import end_of_threads, thread_count
from hypothesis import given, settings
from hypothesis import strategies as st

from nertool.config.loading import load_config, locate_files
from nertool.data.encoding import EncodedCorpus
from nertool.errors import BundleError, ConfigError, CorpusError, NertoolError
from nertool.model.batch import Batch
from nertool.model.inputs import Column
from nertool.model.model import Model
from nertool.tagging import prediction, predictor, torch_backend
from nertool.tagging import tagger as tagger_module
from nertool.tagging.bundle import load_bundle
from nertool.tagging.labels import LabelTables
from nertool.tagging.predictor import Predictor
from nertool.tagging.tagger import Tagger
from nertool.text import tokenization
from nertool.text.document import Document, Origin
from nertool.text.schemes import Scheme, convert, spans, stray_positions
from nertool.training.run import run

# Known words, words of none, and what makes offsets go wrong: marks that combine, characters of two UTF-16
# units, right-to-left letters, separators of lines, NUL, half of a surrogate pair, spaces of all kinds.
KNOWN = ["Ada Byron", "Babbage", "London", "New Haven", "Granite Bank", "Malmö", "Oslo", "in", "hired", ".", "Mr."]
ODD = [
    "\0",
    "e\u0301",
    "🎈",
    "👩\u200d🚀",
    "שלום",
    "\u202eabc",
    "\u2028",
    "\u2029",
    "\x85",
    "\r\n",
    "\n\n",
    "\t",
    "\x1c",
]
ODD += [
    "\ud800",
    "\udfff",
    "\ufeff",
    "\xa0",
    "\u3000",
    "\u200b",
    "'s",
    "n't",
    "--",
    "…",
    '"',
    "don't",
    "3 %",
    "a/b",
]
pieces = st.sampled_from(KNOWN) | st.sampled_from(ODD) | st.text(st.characters(), max_size=8)
texts = st.lists(pieces | st.just(" "), max_size=14).map("".join) | st.lists(pieces, max_size=8).map(" ".join)

SAMPLES = [
    "Ada Byron moved to New Haven . Nobody came .",
    "Rain fell on Oslo .",
    "",
    "Otto Lind hired Babbage at Granite Bank in 1987 .",
    "x",
    "   ",
    "Okoye , Okoye and Mina Okoye met at Blue Door Theatre in London . " * 3,
    "Rain fell on Oslo .",
    "Zyx qwv 12 3.4 Malmö !",
]


@pytest.fixture(scope="module")
def tagger(trained_run) -> Tagger:
    return Tagger.load(trained_run)


@pytest.fixture(scope="module")
def looking(trained_run, tmp_path_factory) -> Tagger:
    """One with four heads of attention."""
    path = trained_run.parent / "corpus" / "tiny.yaml"
    settings = ["training.epochs=1", "model.attention={kind: multi_head, dimensions: 8, heads: 4}"]
    folder = tmp_path_factory.mktemp("looking")
    list(run(locate_files(load_config(path, settings), path), folder))
    return Tagger.load(folder)


@pytest.fixture(scope="module")
def model(tagger) -> Model:
    return tagger.model


def documents(*sentences: list[str]) -> list[Document]:
    return [Document(tuple(tokens)) for tokens in sentences]


def in_language(model: Model, language: str) -> Model:
    return replace(model, config=model.config.model_copy(update={"language": language}))


def ends(document: Document) -> list[int]:
    return [end for _, end in document.bounds]


def check(found: Document, text: str, scheme: Scheme = Scheme.IOB2) -> None:
    """Everything that holds for any text that was tagged."""
    assert found.text == text
    assert len(found.tokens) == len(found.offsets) == len(found.labels)
    assert list(found.tokens) == [text[start:end] for start, end in found.offsets]
    assert found.sentence_starts == tuple(sorted(set(found.sentence_starts)))
    assert found.sentence_starts[:1] == ((0,) if found.tokens else ())
    assert all(start < len(found.tokens) for start in found.sentence_starts)
    # Entities are what the labels say, sentence by sentence.
    expected = []
    for first, last in found.bounds:
        for span in spans(found.labels[first:last], scheme):
            start, end = found.offsets[first + span.start][0], found.offsets[first + span.end - 1][1]
            expected.append((start, end, span.type))
    assert [(entity.start, entity.end, entity.label) for entity in found.entities] == expected
    for entity in found.entities:
        assert text[entity.start : entity.end] == entity.text
        assert entity.text
        assert 0.0 <= entity.score <= 1.0
    # Escaped, neighbouring halves of characters would be read as one character.
    assert json.loads(json.dumps(found.to_json(), ensure_ascii=False))["text"] == text


def same(found: Document, wanted: Document) -> None:
    """Equal, but for rounding in the scores."""
    assert replace(found, scores=None) == replace(wanted, scores=None)
    assert found.scores == pytest.approx(wanted.scores, abs=1e-5)


@contextmanager
def working(count: int) -> Iterator[None]:
    """So many threads for torch, and for the taggers made in this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TestOffsets:
    @given(texts)
    @settings(max_examples=200)
    def test_any_text(self, tagger, text):
        found = tagger.tag(text)
        check(found, text)
        assert all(token and not token.isspace() for token in found.tokens)
        # Tokens and blanks between them are the whole text.
        ends = [0, *(end for _, end in found.offsets)]
        starts = [*(start for start, _ in found.offsets), len(text)]
        between = [text[end:start] for end, start in zip(ends, starts, strict=True)]
        assert all(not gap or gap.isspace() for gap in between)
        assert "".join(a + b for a, b in zip(between, [*found.tokens, ""], strict=True)) == text

    @given(st.lists(pieces.filter(bool), max_size=10))
    def test_any_tokens(self, tagger, tokens):
        (found,) = tagger.tag_tokens([tokens])
        check(found, " ".join(tokens))
        assert found.tokens == tuple(tokens)
        assert found.sentence_starts == ((0,) if tokens else ())

    def test_every_sample_has_what_it_takes_to_fail(self, tagger):
        found = list(tagger.tag_texts(SAMPLES))
        for each, text in zip(found, SAMPLES, strict=True):
            check(each, text)
        assert sum(len(each.entities) for each in found) > 10
        assert any(len(each.sentence_starts) > 1 for each in found)

    def test_training_sentences_come_back_with_their_entities(self, tagger, tiny_train):
        for (tokens, labels), found in zip(
            tiny_train, tagger.tag_tokens(tokens for tokens, _ in tiny_train), strict=True
        ):
            assert (found.tokens, found.labels) == (tuple(tokens), tuple(labels))

    def test_a_character_of_two_units_counts_as_one(self, tagger):
        found = tagger.tag("🎈🎈 Babbage lived in London .")
        babbage, london = found.entities
        assert (babbage.start, babbage.end, babbage.label, babbage.text) == (3, 10, "PER", "Babbage")
        assert (london.start, london.end, london.label, london.text) == (20, 26, "LOC", "London")

    def test_sentences_end_where_the_rules_say(self, tagger):
        found = tagger.tag("Nobody came. Rain fell!  She met him?\nYes")
        assert [found.tokens[end - 1] for end in ends(found)] == [".", "!", "?", "Yes"]

    @pytest.mark.parametrize("text", ["", " ", "\n", " \t\r\n\u3000\u2028 "])
    def test_nothing_in_gives_nothing_out(self, tagger, text):
        assert tagger.tag(text) == Document((), text, labels=(), scheme=Scheme.IOB2, scores=())

    def test_no_texts_and_no_tokens(self, tagger):
        assert list(tagger.tag_texts([])) == list(tagger.tag_tokens([])) == []
        assert list(tagger.tag_tokens([[]])) == [Document((), labels=(), scheme=Scheme.IOB2, scores=())]

    def test_a_token_of_ten_thousand_characters(self, tagger):
        text = "Oslo " + "y" * 10_000 + " Oslo"
        found = tagger.tag(text)
        check(found, text)
        assert len(found.tokens) == 3


class TestScores:
    def brute_force(self, model: Model, tokens: list[str], start: int, end: int, labels: list[int]) -> float:
        """Share of the mass of all label paths that carries these labels from start to end."""
        network = model.network
        corpus = EncodedCorpus(model.inputs, [Document(tuple(tokens))])
        with torch.inference_mode():
            emissions = network(Batch.of(corpus.batch(np.array([0]))))[:, 0].double().numpy()
        decoder = network.decoder
        first, step, last = (values.detach().double().numpy() for values in decoder.scores(constrained=True))
        paths = np.indices((len(first),) * len(tokens)).reshape(len(tokens), -1).T  # (paths, time)
        score = first[paths[:, 0]] + last[paths[:, -1]] + emissions[np.arange(len(tokens)), paths].sum(1)
        score += step[paths[:, :-1], paths[:, 1:]].sum(1)
        mass = np.exp((score - score.max()) / float(decoder.temperature))
        return float(mass[(paths[:, start:end] == labels).all(1)].sum() / mass.sum())

    @pytest.mark.parametrize("text", ["Oslo", "Mina Lind", "Ada beat Oslo", "Babbage lived in London ."])
    def test_they_are_the_share_of_all_label_paths(self, tagger, model, text):
        tokens = text.split()
        labelled = Predictor(model).predict(documents(["Nobody", "came"], tokens), probabilities=True)
        numbers = [model.labels.index(label) for label in labelled.labels[1]]
        wanted = {}
        for start, end in combinations(range(len(tokens) + 1), 2):
            wanted[start, end] = self.brute_force(model, tokens, start, end, numbers[start:end])
            assert labelled.probability(1, start, end) == pytest.approx(wanted[start, end], abs=1e-6)
            assert 0 <= wanted[start, end] <= 1
        (found,) = tagger.tag_tokens([tokens])
        for span, entity in zip(spans(found.labels, Scheme.IOB2), found.entities, strict=True):
            assert entity.score == pytest.approx(wanted[span.start, span.end], abs=2e-6)
        assert len(found.entities) == 2 or len(tokens) < 5


class TestStream:
    def test_it_takes_no_more_than_it_needs_and_keeps_the_order(self, tagger, monkeypatch):
        monkeypatch.setattr(tagger_module, "TOKENS_AT_ONCE", 20)
        taken: list[str] = []

        def endless() -> Iterator[str]:
            for number in count():
                taken.append(f"Oslo is {number} .")
                yield taken[-1]

        results = tagger.tag_texts(endless())
        assert taken == []
        for number in range(30):
            assert next(results).text == f"Oslo is {number} ."
            assert len(taken) <= number + 20 // 5
        assert len(taken) < 35

    def test_blank_texts_do_not_hold_it_up(self, tagger, monkeypatch):
        monkeypatch.setattr(tagger_module, "TOKENS_AT_ONCE", 20)
        results = tagger.tag_texts("" for _ in count())
        assert [next(results).text for _ in range(50)] == [""] * 50

    def test_tokens_stream_too(self, tagger, monkeypatch):
        monkeypatch.setattr(tagger_module, "TOKENS_AT_ONCE", 20)
        results = tagger.tag_tokens(["Oslo", str(number)] for number in count())
        assert [next(results).text for _ in range(30)] == [f"Oslo {number}" for number in range(30)]


class TestCompany:
    @pytest.fixture
    def alone(self, model) -> list[Document]:
        """Each sample tagged by a tagger that met nothing else."""
        fresh = [Tagger(model) for _ in SAMPLES]
        for each in fresh[1:]:
            each._tokenizer = fresh[0]._tokenizer
        return [each.tag(text) for each, text in zip(fresh, SAMPLES, strict=True)]

    @pytest.mark.parametrize(
        "sizes",
        [
            {},
            {"TOKENS_AT_ONCE": 1},
            {"TOKENS_AT_ONCE": 12, "FORMS_KEPT": 0},
            {"TOKENS_PER_BATCH": 1},
            {"TOKENS_PER_BATCH": 15, "TOKENS_AT_ONCE": 30, "FORMS_KEPT": 5},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("threads", [1, 3])
    def test_it_changes_neither_labels_nor_scores(self, model, alone, monkeypatch, sizes, threads):
        homes = {
            "TOKENS_AT_ONCE": tagger_module,
            "TOKENS_PER_BATCH": prediction,
            "FORMS_KEPT": predictor,
        }
        for name, value in sizes.items():
            monkeypatch.setattr(homes[name], name, value)
        wanted = dict(zip(SAMPLES, alone, strict=True))
        with working(threads):
            tagger = Tagger(model)
            for order in (SAMPLES, SAMPLES[::-1]):
                for found in tagger.tag_texts(order):
                    same(found, wanted[found.text])

    @given(st.lists(texts, max_size=5), st.integers(1, 30), st.integers(1, 30), st.integers(0, 20))
    @settings(max_examples=30)
    def test_on_any_texts(self, model, tagger, batch, at_once, per_batch, kept):
        wanted = [tagger.tag(text) for text in batch]
        with ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(tagger_module, "TOKENS_AT_ONCE", at_once)
            patch.setattr(prediction, "TOKENS_PER_BATCH", per_batch)
            patch.setattr(predictor, "FORMS_KEPT", kept)
            for found, each in zip(tagger.tag_texts(batch), wanted, strict=True):
                same(found, each)

    def test_a_new_pipeline_changes_nothing_and_keeps_the_store_small(self, model, monkeypatch):
        model = in_language(model, "xx")  # whose pipeline is quick to make
        texts = [f"Ada Byron met Nobody{number} in Oslo . Rain{number} fell ." for number in range(40)]
        wanted = list(Tagger(model).tag_texts(texts))
        made = []
        blank = spacy.blank

        def spy(language):
            made.append(blank(language))
            return made[-1]

        monkeypatch.setattr(spacy, "blank", spy)
        monkeypatch.setattr(tokenization, "STRINGS_KEPT", 60)
        tagger = Tagger(model)
        for found, each in zip(tagger.tag_texts(texts), wanted, strict=True):
            same(found, each)
        assert 4 < len(made) < 30
        fewest = min(len(each.vocab.strings) for each in made)
        assert max(len(each.vocab.strings) for each in made) < fewest + 100

    def test_texts_and_tokens_agree(self, tagger):
        (given,) = tagger.tag_tokens([SAMPLES[1].split(" ")])
        wanted = tagger.tag(SAMPLES[1])
        assert (given.text, given.offsets) == (wanted.text, wanted.offsets)
        same(replace(given, source_text=wanted.text, source_offsets=wanted.offsets), wanted)


class TestThreads:
    def test_one_tagger_for_several_threads(self, model, tagger, monkeypatch):
        monkeypatch.setattr(predictor, "FORMS_KEPT", 8)
        wanted = [tagger.tag(text) for text in SAMPLES]
        together = threading.Barrier(4)
        found: dict[int, list[Document]] = {}

        def work(number: int) -> None:
            together.wait()
            order = SAMPLES[number:] + SAMPLES[:number]
            results = [each for _ in range(3) for each in map(shared.tag, order)]
            found[number] = results

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        with working(2):
            shared = Tagger(model)
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            assert torch.get_num_threads() == 2
        assert found.keys() == set(range(4))
        for number, results in found.items():
            for result, each in zip(results, (wanted[number:] + wanted[:number]) * 3, strict=True):
                same(result, each)

    @pytest.mark.parametrize("read", [0, 1, 9, 10_000])
    def test_a_stream_leaves_no_threads_however_far_it_is_read(self, model, monkeypatch, read):
        monkeypatch.setattr(prediction, "TOKENS_PER_BATCH", 8)
        monkeypatch.setattr(tagger_module, "TOKENS_AT_ONCE", 60)
        with working(4):
            shared = Tagger(model)
            list(shared.pipe(SAMPLES * 9))
            assert end_of_threads(thread_count())
            named, count = threading.enumerate(), thread_count()
            stream = shared.pipe(SAMPLES * 9)
            assert len(list(islice(stream, read))) == min(read, 9 * len(SAMPLES))
            assert threading.enumerate() == named
            assert end_of_threads(count)
            stream.close()

    def test_no_thread_sees_a_pipeline_that_is_half_made(self, model, monkeypatch):
        blank = spacy.blank

        def slow(language):
            pipeline = blank(language)
            add = pipeline.add_pipe

            def add_late(name):
                time.sleep(0.05)
                return add(name)

            pipeline.add_pipe = add_late
            return pipeline

        monkeypatch.setattr(spacy, "blank", slow)
        shared = Tagger(in_language(model, "xx"))
        sentences: list[int] = []

        def work(wait: float) -> None:
            time.sleep(wait)
            sentences.append(len(shared.tag("Nobody came . Rain fell .").sentence_starts))

        workers = [threading.Thread(target=work, args=(0.02 * number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sentences == [2] * 4


class TestAttention:
    @given(texts)
    def test_any_text(self, looking, text):
        tagged, found = looking.tag(text), looking.attention(text)
        assert tuple(token for tokens, _ in found for token in tokens) == tagged.tokens
        assert list(np.cumsum([len(tokens) for tokens, _ in found])) == ends(tagged)
        for tokens, weights in found:
            assert weights.shape == (4, len(tokens), len(tokens))
            assert (weights >= 0).all()
            np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)

    def test_they_are_those_that_labels_come_from(self, looking, monkeypatch):
        seen: list[np.ndarray] = []
        network = looking.model.network
        layer = network.attention
        assert layer is not None
        forward = type(layer).forward

        def watched(self, states, layout):
            seen.append(self.weights(states, layout).detach().numpy())
            return forward(self, states, layout)

        monkeypatch.setattr(type(layer), "forward", watched)
        tokens = ["Mina", "Lind", "left", "New", "Haven", ",", "said", "Zyx", "."]
        corpus = EncodedCorpus(looking.model.inputs, documents(tokens, tokens[:4]))
        network(Batch.of(corpus.batch(np.arange(2))))
        ((found_tokens, found),) = looking.attention(" ".join(tokens))
        assert found_tokens == tokens
        np.testing.assert_allclose(found, seen[0][0], rtol=1e-4, atol=1e-6)
        ((_, short),) = looking.attention(" ".join(tokens[:4]))
        np.testing.assert_allclose(short, seen[0][1][:, :4, :4], rtol=1e-4, atol=1e-6)

    def test_a_model_without_it(self, tagger):
        assert tagger.attention("  ") == []
        with pytest.raises(NertoolError, match="this model has no attention; train one with"):
            tagger.attention("Oslo")


class TestLanguages:
    @pytest.mark.parametrize("language", ["qq", "", "en.fr", "../en", "punctuation"])
    def test_unknown_ones(self, model, language):
        tagger = Tagger(in_language(model, language))
        for _ in range(2):
            with pytest.raises(ConfigError, match=f"language '{language}': spaCy cannot tokenize it"):
                tagger.tag("Ada Byron")
        (found,) = tagger.tag_tokens([["Babbage", "lived", "in", "London", "."]])
        assert [entity.text for entity in found.entities] == ["Babbage", "London"]

    def test_chinese(self, tmp_path):
        rows = {
            "[王小明]PER住在[北京]LOC。": "",
            "[李华]PER去[上海]LOC了。": "",
            "昨天下雨。": "",
            "[北京]LOC离[上海]LOC很远。": "",
            "[王小明]PER见了[李华]PER。": "",
            "没有人来。": "",
        }
        text = "\n".join(self.columns(row) for row in rows)
        (tmp_path / "zh.txt").write_text(text, encoding="utf-8")
        (tmp_path / "zh.yaml").write_text(
            "language: zh\n"
            "corpus: {train: zh.txt, validation: zh.txt, columns: [token, ner], label: ner}\n"
            "inputs: {words: {dimensions: 12}, characters: {kind: none}}\n"
            "model: {encoder: {kind: lstm, hidden: 12}, dropout: 0.0}\n"
            "training: {epochs: 25, batch_size: 3, optimizer: adam, learning_rate: 0.03, threads: 1}\n",
            encoding="utf-8",
        )
        config = locate_files(load_config(tmp_path / "zh.yaml"), tmp_path / "zh.yaml")
        *_, finished = run(config, tmp_path / "run")
        assert finished.best.validation.micro.f1 == 1.0
        text = "王小明住在北京。昨天下雨。 李华去上海了。"
        found = Tagger.load(tmp_path / "run").tag(text)
        check(found, text)
        assert found.tokens == tuple(character for character in text if character != " ")
        assert ends(found) == [8, 13, 20]
        assert [(entity.text, entity.label) for entity in found.entities] == [
            ("王小明", "PER"),
            ("北京", "LOC"),
            ("李华", "PER"),
            ("上海", "LOC"),
        ]

    def columns(self, row: str) -> str:
        """A line for each character, from text with [entities]TYPE."""
        lines = []
        label, rest = "O", row
        while rest:
            if rest[0] == "[":
                kind = rest.partition("]")[2][:3]
                entity = rest[1 : rest.index("]")]
                lines += [f"{c} {'I' if place else 'B'}-{kind}" for place, c in enumerate(entity)]
                rest = rest[len(entity) + 5 :]
            else:
                lines.append(f"{rest[0]} {label}")
                rest = rest[1:]
        return "\n".join(lines) + "\n"


def test_a_folder_that_is_no_model(tmp_path: Path):
    with pytest.raises(BundleError, match="is not a model"):
        Tagger.load(tmp_path)


@pytest.fixture
def warm(trained_run: Path) -> Model:
    """A model of its own, at a temperature that leaves the best label sequence less than all probability."""
    model = load_bundle(trained_run)
    model.network.decoder.temperature.fill_(5.0)
    return model


class TestAlternatives:
    def test_they_are_the_best_of_all_label_sequences(self, warm: Model):
        tokens = ["Ada", "met", "Lind"]
        tagger = Tagger(warm, n_best=4)
        found = Predictor(warm).predict(documents([], tokens, ["Oslo"]), n_best=4)
        shares: dict[tuple[str, ...], float] = {}
        for path in product(range(len(warm.labels)), repeat=len(tokens)):
            share = TestScores().brute_force(warm, tokens, 0, len(tokens), list(path))
            shares[tuple(warm.labels[label] for label in path)] = share
        wanted = sorted(shares, key=lambda labels: -shares[labels])[:4]
        assert [tuple(labels) for labels, _ in found.alternatives[1]] == wanted
        for labels, probability in found.alternatives[1]:
            assert probability == pytest.approx(shares[tuple(labels)], rel=1e-4)
        assert found.alternatives[0] == [([], 1.0)] and len(found.alternatives[2]) == 3, "O, S-LOC, S-PER"
        (tagged,) = tagger.tag_tokens([tokens])
        assert [each.probability for each in tagged.alternatives[0]] == [
            pytest.approx(shares[labels], abs=1e-6) for labels in wanted
        ]
        assert tuple(tagged.alternatives[0][0].labels) == tagged.labels

    def test_offsets_are_those_of_the_whole_text(self, warm: Model):
        text = "Nobody came. Mina Lind left New Haven."
        tagged = Tagger(warm, n_best=3).tag(text)
        assert len(tagged.alternatives) == len(tagged.sentence_starts) == 2
        best = [entity for sentence in tagged.alternatives for entity in sentence[0].entities]
        assert best == [(entity.start, entity.end, entity.label) for entity in tagged.entities]
        assert {text[start:end] for start, end, _ in best} == {"Mina Lind", "New Haven"}

    def test_json_has_them_where_asked_for(self, warm: Model):
        assert "alternatives" not in Tagger(warm).tag("Oslo").to_json()
        tree = json.loads(json.dumps(Tagger(warm, n_best=2).tag("Oslo").to_json()))
        assert len(tree["alternatives"][0]) == 2
        assert tree["alternatives"][0][0].keys() == {"probability", "labels", "entities"}


class TestMarginals:
    @pytest.mark.parametrize("text", ["Oslo", "Mina Lind", "Ada met Lind"])
    def test_they_are_the_shares_of_all_label_sequences(self, warm: Model, text: str):
        tokens, learnt = text.split(), warm.labels
        found = Predictor(warm).predict(documents(["Rain"], tokens), marginals=True).marginals(1)
        shown: list[dict[str, float]] = []
        for place in range(len(tokens)):
            shares = [
                TestScores().brute_force(warm, tokens, place, place + 1, [label]) for label in range(len(learnt))
            ]
            assert found[place] == pytest.approx(shares, abs=1e-6)
            shown.append({})
            for label, share in zip(learnt, shares, strict=True):
                name = label.replace("S-", "B-").replace("E-", "I-")
                shown[-1][name] = shown[-1].get(name, 0.0) + share
        (tagged,) = Tagger(warm, marginals=True).tag_tokens([tokens])
        for each, wanted in zip(tagged.marginals, shown, strict=True):
            kept = {name: share for name, share in wanted.items() if share >= tagger_module.LEAST_MARGINAL}
            assert each == pytest.approx(kept, abs=2e-6)
            assert list(each.values()) == sorted(each.values(), reverse=True)

    def test_each_token_of_a_text_has_its_own(self, warm: Model):
        text = "Nobody came. Mina Lind left New Haven."
        tagger = Tagger(warm, marginals=True, min_score=0.99)
        tagged = tagger.tag(text)
        assert len(tagged.marginals) == len(tagged.tokens)
        for token, each in zip(tagged.tokens, tagged.marginals, strict=True):
            assert 1 - 0.001 * len(warm.labels) < sum(each.values()) <= 1 + 1e-5, token
        # An entity that is left out for its score is still there among the marginals.
        assert set(tagged.labels) == {"O"}
        assert all(
            label in each for label, each in zip(Tagger(warm).tag(text).labels, tagged.marginals, strict=True)
        )
        tree = json.loads(json.dumps(tagged.to_json()))
        assert tree["marginals"] == list(tagged.marginals)
        assert "marginals" not in Tagger(warm).tag("Oslo").to_json()
        assert tagger.tag(" ").marginals == ()

    def test_names_of_other_schemes(self):
        labels = ["O", "B-X-Y", "I-X-Y", "L-X-Y", "U-X-Y", "I-Z"]
        names, table = LabelTables(labels, Scheme.BILOU).shown_shares()
        assert names == ["O", "B-X-Y", "I-X-Y", "I-Z"]
        assert (np.array([0.1, 0.2, 0.3, 0.05, 0.25, 0.1]) @ table).tolist() == pytest.approx(
            [0.1, 0.45, 0.35, 0.1]
        )
        for scheme, learnt in [(Scheme.PLAIN, ["S-1", "NN", "$"]), (Scheme.IOB1, ["O", "I-X", "B-X"])]:
            names, table = LabelTables(learnt, scheme).shown_shares()
            assert names == learnt and (table == np.eye(3)).all()

    def test_not_asked_for(self, model: Model):
        with pytest.raises(ValueError, match="not asked for"):
            Predictor(model).predict(documents(["Oslo"])).marginals(0)


def test_entities_below_the_least_score_are_left_out(warm: Model):
    text = "Mina Lind left New Haven."
    whole = Tagger(warm).tag(text)
    scores = sorted(entity.score for entity in whole.entities)
    assert len(scores) == 2 and scores[0] < scores[1]
    some = Tagger(warm, min_score=sum(scores) / 2).tag(text)
    (kept,) = some.entities
    assert kept.score == scores[1] and kept in whole.entities
    assert sum(label != "O" for label in some.labels) == len(kept.text.split())
    assert Tagger(warm, min_score=1.0).tag(text).labels == ("O",) * len(whole.tokens)


LABELS = {
    Scheme.IOB1: ["O", "I-PER", "B-PER", "I-LOC", "B-LOC"],
    Scheme.IOB2: ["B-PER", "O", "I-LOC", "I-PER", "B-LOC"],
    Scheme.IOBES: ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("a-b", "LOC"))],
    Scheme.BILOU: ["O", *(f"{prefix}-{kind}" for prefix in "BILU" for kind in ("PER", "LOC"))],
    Scheme.BMES: ["O", *(f"{prefix}-{kind}" for prefix in "BMES" for kind in ("PER", "LOC"))],
    Scheme.PLAIN: ["O", "NN", "S-1", "B-2"],
}


class TestLabelTables:
    """The same answers for many sentences at once as `schemes` gives for one."""

    @given(st.data(), st.sampled_from(list(LABELS)))
    def test_entities_repair_and_conversion(self, data, scheme):
        labels = LABELS[scheme]
        rows = data.draw(st.lists(st.lists(st.integers(0, len(labels) - 1), max_size=8), max_size=5))
        tables = LabelTables(labels, scheme)
        offsets = np.cumsum([0, *map(len, rows)])
        flat = np.array([number for row in rows for number in row], np.int16)
        found = tables.entities(flat, offsets)
        names = [[labels[number] for number in row] for row in rows]
        pairs = zip(names, offsets.tolist(), strict=False)
        wanted = [(at + span.start, at + span.end) for row, at in pairs for span in spans(row, scheme)]
        assert list(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == wanted
        invalid = [number for number, row in enumerate(names) if stray_positions(row, scheme)]
        assert tables.invalid(flat, offsets).tolist() == invalid
        shown = tables.shown_names[tables.shown(flat, found)].tolist()
        assert shown == [label for row in names for label in convert(row, scheme, tables.shown_scheme)]


def test_what_is_scored_is_what_is_put_out(trained_run: Path, tiny_test):
    """Without constraints the best labels may be invalid; predictions are their repair, as the tagger's are."""
    model = load_bundle(trained_run)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a decoder without constraints, and labels as good as drawn
        for name in ("start", "transitions", "end"):
            getattr(model.network.decoder, f"{name}_penalty").zero_()
        torch.nn.init.normal_(model.network.scores.weight, std=3.0, generator=random)
    sentences = documents(*(tokens for tokens, _ in tiny_test))
    found = Predictor(model).predict(sentences, probabilities=True, n_best=2)
    raw = [model.labels[number] for number in found.tables.labels.tolist()]
    assert raw != [label for row in found.labels for label in row]
    for number, (row, tagged) in enumerate(zip(found.labels, Tagger(model).tag_documents(sentences), strict=True)):
        assert not stray_positions(row, model.scheme)
        assert spans(row, model.scheme) == list(tagged.spans)
        assert found.alternatives[number][0][0] == row
        scores = [found.probability(number, span.start, span.end) for span in tagged.spans]
        assert tagged.scores == pytest.approx(scores, abs=1e-6)


class TestDocuments:
    def test_all_but_labels_and_scores_stays(self, tagger):
        given = Document(
            ("Ada", "left", "Oslo", ".", "Rain", "fell", "."),
            "Ada  left Oslo.\nRain fell.",
            ((0, 3), (5, 9), (10, 14), (14, 15), (16, 20), (21, 25), (25, 26)),
            (0, 4),
            ("O", "B-X", "O", "O", "O", "O", "O"),
            Scheme.IOB2,
            columns={"pos": ("NNP", "VBD", "NNP", ".", "NN", "VBD", ".")},
            id="7",
            origin=Origin("file", "line", (3, 8)),
        )
        (found,) = tagger.tag_documents([given])
        assert replace(found, labels=given.labels, scores=None) == given
        assert ("Oslo", 10, 14) in [(entity.text, entity.start, entity.end) for entity in found.entities]
        sentences = list(tagger.tag_documents(given.sentences()))
        assert tuple(label for sentence in sentences for label in sentence.labels) == found.labels
        assert found.scores == pytest.approx([score for each in sentences for score in each.scores], abs=1e-5)

    def test_a_document_shows_itself_in_notebooks(self, tagger):
        tagged = tagger("<b>Ada</b> & Oslo")
        assert tagged.tokens == ("<", "b", ">", "Ada</b", ">", "&", "Oslo")
        labels = ("O", "O", "O", "B-PER", "O", "O", "B-LOC")
        html = replace(tagged, labels=labels, scores=(0.75, 0.5))._repr_html_()
        assert "&lt;b&gt;" in html and "<b>" not in html and " &amp; " in html
        assert html.count("<mark") == 2 and "score 0.75" in html
        tags = Document(("a<", "b"), labels=("X&", "Y"), scheme=Scheme.PLAIN)._repr_html_()
        assert tags.count("<mark") == 2 and "a&lt;" in tags and "X&amp;" in tags
        assert "<mark" not in Document(("a", "b"))._repr_html_()


class TestMistakes:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda t: t.tag(["Ada"]),
                r"tag takes one text, a string, and got a value of type list; use tag_texts",
            ),
            (lambda t: t(None), r"tag takes one text, a string, and got None"),
            (lambda t: t.tag_texts("Ada left."), r"tag_texts takes several texts .*; use tag\(text\)"),
            (lambda t: t.pipe("Ada left."), r"tag_texts takes several texts"),
            (lambda t: t.tag_texts(None), r"tag_texts takes texts .* and got None"),
            (lambda t: list(t.tag_texts(["Ada", None])), r"expected a text, a string, and got None"),
            (lambda t: t.tag_tokens("Ada left."), r"tag_tokens takes sentences of tokens, .*; use tag\(text\)"),
            (lambda t: t.tag_tokens(7), r"tag_tokens takes sentences of tokens .* and got a value of type int"),
            (
                lambda t: list(t.tag_tokens(["Ada", "left"])),
                r"expected a sentence, a sequence of tokens .*type str",
            ),
            (lambda t: list(t.tag_tokens([None])), r"expected a sentence, .* and got None"),
            (lambda t: list(t.tag_tokens([["Ada", None]])), r"token 2 of a sentence is None"),
            (lambda t: t.tag_documents(Document(("Ada",))), r"takes several documents and got one"),
            (lambda t: list(t.tag_documents(["Ada"])), r"expected a Document and got a value of type str"),
        ],
    )
    def test_other_types_are_refused(self, tagger, call, message):
        with pytest.raises(TypeError, match=message):
            call(tagger)

    def test_sequences_of_all_kinds_are_accepted(self, tagger):
        wanted = tagger.tag("Ada left Oslo").labels
        for tokens in (["Ada", "left", "Oslo"], ("Ada", "left", "Oslo"), np.array(["Ada", "left", "Oslo"])):
            (found,) = tagger.tag_tokens(each for each in [tokens])
            assert found.labels == wanted


@pytest.fixture(scope="module")
def reading(trained_run, tmp_path_factory) -> Tagger:
    """One that reads a column, learned from a corpus that has it."""
    folder = tmp_path_factory.mktemp("columns")
    lines = (trained_run.parent / "corpus" / "train.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split() for line in lines)
    text = "\n".join(f"{row[0]} {'UP' if row[0][0].isupper() else 'low'} {row[1]}" if row else "" for row in rows)
    (folder / "train.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "pos.yaml").write_text(
        "corpus: {train: train.txt, validation: train.txt, columns: [token, pos, label]}\n"
        "inputs: {words: {dimensions: 12}, pos: {kind: column, column: pos}}\n"
        "model: {encoder: {kind: lstm, hidden: 12}, dropout: 0.1}\n"
        "training: {epochs: 15, batch_size: 4, optimizer: adam, learning_rate: 0.02, threads: 1}\n",
        encoding="utf-8",
    )
    config = locate_files(load_config(folder / "pos.yaml"), folder / "pos.yaml")
    list(run(config, folder / "run"))
    return Tagger.load(folder / "run")


class TestColumns:
    def test_they_are_read_whatever_the_company_and_the_windows(self, reading, monkeypatch):
        assert any(isinstance(each, Column) for each in reading.model.inputs.values())
        words = ("Ada", "met", "Lind", "in", "Oslo", ".")
        given = [
            Document(words[:n], columns={"pos": tuple("UP" if word[0].isupper() else "low" for word in words[:n])})
            for n in (6, 1, 4, 5)
        ]
        wanted = [next(reading.tag_documents([document])) for document in given]
        for document, each in zip(reading.tag_documents(given), wanted, strict=True):
            same(document, each)
        lowered = [replace(document, columns={"pos": ("low",) * len(document)}) for document in given]
        scores = Predictor(reading.model).predict(given, marginals=True).tables.marginals
        assert (
            np.abs(scores - Predictor(reading.model).predict(lowered, marginals=True).tables.marginals).max()
            > 0.01
        )
        from nertool.tagging import windows

        for module in (windows, predictor):
            monkeypatch.setattr(module, "LONGEST", 4)
        monkeypatch.setattr(windows, "OVERLAP", 2)
        monkeypatch.setattr(windows, "_SEAM", 0)
        monkeypatch.setattr(predictor, "TOKENS_AT_ONCE", 5)
        assert [found.labels for found in reading.tag_documents([Document((), columns={"pos": ()})])] == [()]
        (long,) = reading.tag_documents(given[:1])
        assert long.cut_sentences == 1 and len(long.labels) == 6

    def test_without_them_there_is_an_error_before_anything_is_tagged(self, reading):
        with pytest.raises(CorpusError, match="pos"):
            reading.tag("Ada met Lind.")
        with pytest.raises(CorpusError, match="pos"):
            next(reading.tag_tokens([["Ada", "met"]]))


def in_child(work: Callable[[], object]) -> object:
    """What a forked child answers, or None where it does not within a minute."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(sending, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(sending)
    ready, _, _ = select.select([receiving], [], [], 60)
    answer = os.read(receiving, 10**6) if ready else b""
    os.close(receiving)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return json.loads(answer) if answer else None


class TestProcesses:
    @pytest.mark.parametrize("from_folder", [True, False])
    def test_pickled_it_gives_the_same(self, trained_run, from_folder):
        tagger = Tagger.load(trained_run, n_best=2, marginals=True, min_score=0.5)
        if not from_folder:
            model = load_bundle(trained_run)
            model.network.decoder.temperature.fill_(3.0)
            tagger = Tagger(model, n_best=2, marginals=True, min_score=0.5)
        content = pickle.dumps(tagger)
        assert (len(content) < 1000) == from_folder
        copy = pickle.loads(content)
        for text in SAMPLES:
            assert copy.tag(text) == tagger.tag(text)

    def test_unpickling_notices_another_model(self, trained_run, tmp_path):
        shutil.copytree(trained_run, tmp_path / "run")
        content = pickle.dumps(Tagger.load(tmp_path / "run"))
        config = tmp_path / "run" / "config.yaml"
        config.write_text(config.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
        with pytest.raises(BundleError, match="the model was replaced after the tagger loaded it"):
            pickle.loads(content)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_forked_it_gives_the_same(self, trained_run):
        """In a process of its own, whose torch has threads: those of the parent do not exist in the child."""
        program = (
            "import json, sys; from test_tagger import SAMPLES, Tagger, in_child\n"
            "def work(): return [list(found.labels) for found in tagger.tag_texts(SAMPLES * 40)]\n"
            "tagger = Tagger.load(sys.argv[1], n_best=2, marginals=True)\n"
            "wanted = work()\n"
            "def load(): return [list(each.labels) for each in Tagger.load(sys.argv[1]).tag_texts(SAMPLES)]\n"
            "print(in_child(work) == wanted, in_child(load) == wanted[: len(SAMPLES)])\n"
        )
        process = subprocess.run(
            [sys.executable, "-c", program, str(trained_run)],
            env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
            capture_output=True,
            text=True,
        )
        assert process.stdout == "True True\n", process.stderr

    def test_an_interrupt_leaves_nothing_that_disagrees(self, model, monkeypatch):
        tagger = Tagger(model)
        wanted = [tagger.tag(text) for text in SAMPLES]
        monkeypatch.setattr(torch_backend, "form_vectors", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        for text in ("Unseen1 words1", "Unseen2 words2"):
            with pytest.raises(KeyboardInterrupt):
                tagger.tag(text)
        monkeypatch.undo()
        for text, each in zip(SAMPLES, wanted, strict=True):
            same(tagger.tag(text), each)


def test_it_changes_no_state_of_the_process(model):
    def state() -> tuple[object, ...]:
        return torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.get_rng_state().tolist()

    with working(3):
        before = state()
        list(Tagger(model, n_best=2, marginals=True).tag_texts(SAMPLES * 20))
        assert state() == before
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
