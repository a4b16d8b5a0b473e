"""Sentences without end: cut in windows, joined to what the whole would be, in memory that has a limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nertool.cli.main import main
from nertool.errors import NertoolError
from nertool.model.model import Model, build_network
from nertool.tagging import predictor, windows
from nertool.tagging.bundle import load_bundle
from nertool.tagging.predictor import Predictions, Predictor
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document
from nertool.text.schemes import Scheme, spans, stray_positions


@pytest.fixture(scope="module")
def model(trained_run: Path) -> Model:
    return load_bundle(trained_run)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows so small that a few words are a sentence without end."""
    for module in (windows, predictor):
        monkeypatch.setattr(module, "LONGEST", 24)
    monkeypatch.setattr(windows, "OVERLAP", 12)
    monkeypatch.setattr(windows, "_SEAM", 3)


def predict(model: Model, sentences: list[list[str]], **options: object) -> Predictions:
    return Predictor(model).predict([Document(tuple(tokens)) for tokens in sentences], **options)


def whole(model: Model, sentences: list[list[str]]) -> Predictions:
    """As labelled without any limit."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (windows, predictor):
            patch.setattr(module, "LONGEST", 10**9)
        return predict(model, sentences, probabilities=True, marginals=True)


@given(st.lists(st.integers(0, 200) | st.integers(0, 5000), max_size=12))
def test_pieces_cover_every_token_and_overlap(lengths):
    sizes = np.array(lengths, dtype=np.int64)
    pieces = windows.cut(sizes)
    for sentence, length in enumerate(lengths):
        own = pieces.sentences == sentence
        starts, ends = pieces.starts[own].tolist(), pieces.ends[own].tolist()
        if length <= windows.LONGEST:
            assert list(zip(starts, ends, strict=True)) == ([(0, length)] if length else [])
            continue
        assert starts[0] == 0 and ends[-1] == length
        assert {end - start for start, end in zip(starts, ends, strict=True)} == {windows.LONGEST}
        for start, end in zip(starts[1:], ends[:-1], strict=True):
            assert end - start >= windows.OVERLAP
        # Seams come one after the other, however short the way between them.
        middles = [(start + end) // 2 for start, end in zip(starts[1:], ends[:-1], strict=True)]
        assert all(b - a > 2 * windows._SEAM for a, b in pairwise(middles))
    assert list(pieces.sentences) == sorted(pieces.sentences)


def test_a_long_sentence_has_the_labels_and_scores_of_the_whole(model, tiny_train):
    tokens = [token for _ in range(30) for words, _ in tiny_train for token in words]
    assert len(tokens) > 5 * windows.LONGEST
    wanted, found = whole(model, [tokens]), predict(model, [tokens], probabilities=True, marginals=True)
    assert found.cut.tolist() == [True] and wanted.cut.tolist() == [False]
    (labels,) = found.labels
    assert labels == wanted.labels[0]
    entities = spans(labels, model.scheme)
    assert len(entities) > 50
    for start, end, _ in entities:
        assert found.probability(0, start, end) == pytest.approx(wanted.probability(0, start, end), abs=0.01)
    np.testing.assert_allclose(found.marginals(0), wanted.marginals(0), atol=0.02)
    np.testing.assert_allclose(found.marginals(0).sum(-1), 1, rtol=1e-6)


WORDS = ["Ada", "Byron", "Granite", "Bank", "New", "Haven", "Oslo", ".", "of", "Zyx", "3"]


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=90), max_size=4),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 3.0]),
)
@settings(max_examples=60)
def test_joined_sentences_are_valid_and_spans_have_probabilities(model, sentences, seed, noise):
    loud = replace(model, network=load_noisy(model, seed, noise))
    with pytest.MonkeyPatch.context() as patch:
        for module in (windows, predictor):
            patch.setattr(module, "LONGEST", 16)
        patch.setattr(windows, "OVERLAP", 8)
        patch.setattr(windows, "_SEAM", 3)
        found = predict(loud, sentences, probabilities=True, n_best=2)
    scheme = model.scheme
    for number, (tokens, labels) in enumerate(zip(sentences, found.labels, strict=True)):
        assert len(tokens) == len(labels)
        assert found.cut[number] == (len(tokens) > 16)
        assert not stray_positions(labels, scheme)
        for start, end, _ in spans(labels, scheme):
            assert 0.0 <= found.probability(number, start, end) <= 1.0
        best, share = found.alternatives[number][0]
        assert best == labels and 0.0 <= share <= 1.0
        assert not found.cut[number] or len(found.alternatives[number]) == 1


def load_noisy(model: Model, seed: int, noise: float) -> torch.nn.Module:
    """The network, or one whose labels are as good as drawn."""
    network = build_network(model.config, model.labels, model.scheme, model.inputs)
    network.load_state_dict(model.network.state_dict())
    generator = torch.Generator().manual_seed(seed)
    if noise:
        torch.nn.init.normal_(network.scores.weight, std=noise, generator=generator)
        torch.nn.init.normal_(network.input("words").weight, std=noise, generator=generator)
    return network.eval()


class TestSeams:
    labels = ("O", "B", "I", "E", "S")
    allowed = np.array(
        [
            [True, True, False, False, True],
            [False, False, False, False, False],
            [False, False, False, False, False],
            [True, True, False, False, True],
            [True, True, False, False, True],
        ]
    )

    def seam(self, left: str, right: str) -> tuple[int, bool]:
        rows = (np.array([self.labels.index(label) for label in text]) for text in (left, right))
        return windows._seam(*rows, windows.Joints(0, self.allowed))

    @pytest.fixture(autouse=True)
    def narrow(self, monkeypatch):
        monkeypatch.setattr(windows, "_SEAM", 3)

    @pytest.mark.parametrize(
        ("left", "right", "wanted"),
        [
            ("OOOOOOO", "OOOOOOO", (0, True)),
            ("OBIEOOO", "OBIEOOO", (0, True)),
            ("OOBIIIE", "OOBIIIE", (-3, True)),  # at the only O, however far from the middle
            ("BIIIIII", "BIIIIII", (0, True)),  # inside an entity on which both agree
            ("BIIIEBI", "IIIIIII", (-1, True)),
            ("OSSSSSS", "BBEBEBE", (-2, False)),  # one could end here and another begin
            ("BIIIIII", "ISSSSSS", (0, False)),  # nothing fits
        ],
    )
    def test_where_they_are(self, left, right, wanted):
        found = self.seam(left, right)
        if wanted == (-2, False):
            place, same = found
            assert (
                not same and self.allowed[self.labels.index(left[place + 3]), self.labels.index(right[place + 4])]
            )
        else:
            assert found == wanted


class TestLimits:
    def test_up_to_the_limit_every_bit_is_as_without_one(self, model):
        tokens = [WORDS[n % 7] for n in range(windows.LONGEST)]
        wanted, found = whole(model, [tokens]), predict(model, [tokens], probabilities=True)
        assert not found.cut.any() and found.labels == wanted.labels
        for name in ("first", "path", "last"):
            assert np.array_equal(getattr(found.tables, name), getattr(wanted.tables, name))

    def test_short_ones_beside_a_long_one(self, model, small, tiny_test):
        short = [tokens for tokens, _ in tiny_test]
        long = [token for tokens in short for token in tokens] * 5
        wanted = whole(model, short)
        found = predict(model, [short[0], [], long, *short[1:]], probabilities=True)
        assert found.cut.tolist() == [False, False, True, False, False, False]
        assert [found.labels[0], *found.labels[3:]] == wanted.labels and found.labels[1] == []
        for number, place in enumerate((0, 3, 4, 5)):
            for start, end, _ in spans(wanted.labels[number], model.scheme):
                score = found.probability(place, start, end)
                assert score == pytest.approx(wanted.probability(number, start, end), abs=1e-6)

    def test_parts_change_nothing(self, model, small, tiny_train, monkeypatch):
        sentences = [tokens for tokens, _ in tiny_train] * 3 + [[]] + [tiny_train[0][0] * 20]
        wanted = predict(model, sentences, probabilities=True, n_best=3, marginals=True)
        monkeypatch.setattr(predictor, "TOKENS_AT_ONCE", 30)
        monkeypatch.setattr(predictor, "FORMS_KEPT", 10)
        found = predict(model, sentences, probabilities=True, n_best=3, marginals=True)
        assert found.labels == wanted.labels
        np.testing.assert_allclose(found.tables.marginals, wanted.tables.marginals, atol=1e-5)
        for own, other in zip(found.alternatives, wanted.alternatives, strict=True):
            assert [labels for labels, _ in own] == [labels for labels, _ in other]
            assert [share for _, share in own] == pytest.approx([share for _, share in other], abs=1e-5)

    def test_plain_tags(self, model, small):
        plain = replace(model, scheme=Scheme.PLAIN)
        tokens = WORDS * 12
        found = predict(plain, [tokens], n_best=2)
        assert len(found.labels[0]) == len(tokens)
        assert [labels for labels, _ in found.alternatives[0]] == found.labels

    def test_the_result_says_so(self, model, small):
        tagger = Tagger(model)
        text = "Ada met Lind in Oslo , " * 30 + ". Rain fell ."
        tagged = tagger.tag(text)
        assert tagged.cut_sentences == 1 and len(tagged.sentence_starts) == 2
        assert tagged.to_json()["cut_sentences"] == 1
        assert {entity.text for entity in tagged.entities} >= {"Lind", "Oslo"}
        assert all(text[entity.start : entity.end] == entity.text for entity in tagged.entities)
        for short in tagger.tag_texts(["Rain fell .", ""]):
            assert short.cut_sentences == 0 and "cut_sentences" not in short.to_json()

    def test_attention_is_not_shown_for_them(self, model, small):
        model.network.attention = torch.nn.Identity()
        try:
            with pytest.raises(NertoolError, match="100 tokens is too long"):
                Predictor(model).attention(Document(("x",) * 100))
        finally:
            model.network.attention = None


def endless(count: int) -> Iterator[str]:
    for number in range(count):
        yield WORDS[number % len(WORDS)] if number % 13 else f"w{number}"


def test_fifty_thousand_tokens(model):
    tokens = [token if token != "." else "," for token in endless(50_000)]
    (tagged,) = Tagger(model).tag_tokens([tokens])
    assert tagged.tokens == tuple(tokens) and len(tagged.labels) == 50_000
    assert tagged.cut_sentences == 1 and tagged.bounds == [(0, 50_000)]
    assert not stray_positions(tagged.labels, Scheme.IOB2)
    assert len(tagged.entities) > 5000


def test_the_commands_say_so(trained_run: Path, tmp_path: Path):
    long = ["Oslo", "and"] * 300
    (tmp_path / "text").write_text(" ".join(long) + "\nRain fell .\n", encoding="utf-8")
    (tmp_path / "gold").write_text("".join(f"{token} O\n" for token in long), encoding="utf-8")
    said = "sentences of more than 512 tokens, tagged in windows that overlap: 1"
    tagged = CliRunner().invoke(main, ["tag", str(tmp_path / "text"), "--model", str(trained_run)])
    assert tagged.exit_code == 0 and tagged.stderr.strip() == said
    assert tagged.stdout.count("Oslo|LOC]") > 200 and tagged.stdout.endswith("Rain fell .\n")
    command = ["evaluate", str(tmp_path / "gold"), "--model", str(trained_run)]
    assert said in CliRunner().invoke(main, command).stdout
    assert json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)["cut_sentences"] == 1
