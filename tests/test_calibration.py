"""Temperature: fitted where the truth is known, applied as the definition says, and without a say in labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from nertool.config.loading import load_config, locate_files
from nertool.config.schema import Config
from nertool.data.corpus import read_corpus
from nertool.data.encoding import EncodedCorpus
from nertool.errors import BundleError
from nertool.evaluation.scores import calibration_error
from nertool.model.batch import Batch, Layout
from nertool.model.crf import ConditionalRandomField
from nertool.model.model import Model
from nertool.tagging.bundle import load_bundle, save_bundle
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.training.calibration import calibrate, confidences, fit_temperature


class TestError:
    def test_worked_by_hand(self):
        # Bins of 0.5: {0.1, 0.3} with one right, {0.6, 0.9, 1.0} with two right.
        found = calibration_error([0.1, 0.6, 0.3, 0.9, 1.0], [False, True, True, False, True], bins=2)
        assert found == pytest.approx((abs(1 - 0.4) + abs(2 - 2.5)) / 5)

    def test_nothing_found_has_none(self):
        assert calibration_error([], []) is None

    def test_confidence_that_comes_true_has_little(self):
        random = np.random.default_rng(1)
        given = random.random(100_000)
        assert calibration_error(given, random.random(100_000) < given) < 0.01
        assert calibration_error(given, random.random(100_000) < given**3) > 0.2


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_posterior_is_that_of_scores_divided_by_the_temperature(temperature: float):
    generator = torch.Generator().manual_seed(1)
    decoder = ConditionalRandomField(3)
    decoder.initialize(generator)
    decoder.double()
    decoder.temperature.fill_(temperature)
    emissions = torch.randn(4, 1, 3, dtype=torch.float64, generator=generator)
    layout = Layout.of(np.array([4]))
    paths = list(product(range(3), repeat=4))
    scores = torch.stack(
        [
            decoder.crf._compute_score(emissions, torch.tensor(path).unsqueeze(1), layout.mask).squeeze(0)
            for path in paths  # scored by pytorch-crf
        ]
    )
    probabilities = (scores.detach() / temperature).softmax(0)
    marginals = decoder.posterior(emissions, layout).marginals()
    for t, label in product(range(4), range(3)):
        wanted = sum(p for p, path in zip(probabilities, paths, strict=True) if path[t] == label)
        assert float(marginals[t, 0, label]) == pytest.approx(float(wanted), abs=1e-9)
    labels = torch.tensor(paths[17]).unsqueeze(1)
    loss = decoder.loss_at(temperature, emissions, labels, layout)
    assert loss == pytest.approx(-float(probabilities[17].log()))


@pytest.fixture
def model(trained_run: Path) -> Model:
    return load_bundle(trained_run)


def corpus_of(run: Path):
    path = run.parent / "corpus" / "tiny.yaml"
    return read_corpus(locate_files(load_config(path), path).corpus)


def test_it_finds_the_temperature_that_labels_were_drawn_at(model: Model, trained_run: Path):
    """Draw labels from the softmax of the emissions at a known temperature, many for each sentence."""
    split = corpus_of(trained_run).train
    decoder = model.network.decoder
    with torch.no_grad():
        for each in (decoder.crf.start_transitions, decoder.crf.transitions, decoder.crf.end_transitions):
            each.zero_()
        for name, each in decoder.named_buffers():
            if name.endswith("penalty"):
                each.zero_()
    random = np.random.default_rng(1)
    encoded = EncodedCorpus(model.inputs, split.sentences)
    drawn = []
    for index, sentence in enumerate(split.sentences):
        with torch.no_grad():
            emissions = model.network(Batch.of(encoded.batch(np.array([index]))))
        shares = (emissions[:, 0] / 2.5).softmax(-1).double().numpy()
        for _ in range(60):
            row = [model.labels[random.choice(len(each), p=each / each.sum())] for each in shares]
            drawn.append(sentence.with_labels(row, Scheme.PLAIN))
    # Taken as plain tags, because drawn labels follow no scheme.
    labelled = replace(split, documents=drawn, label_scheme=Scheme.PLAIN)
    assert fit_temperature(model, labelled) == pytest.approx(2.5, rel=0.1)


def test_labels_stay_and_scores_move(model: Model, trained_run: Path):
    split = corpus_of(trained_run).validation
    before = Predictor(model).predict(split.sentences).labels
    model.network.decoder.temperature.fill_(1.0)
    cold, _ = confidences(model, split)
    model.network.decoder.temperature.fill_(4.0)
    warm, right = confidences(model, split)
    assert Predictor(model).predict(split.sentences).labels == before
    assert len(warm) == len(right) > 0 and all(right)
    assert all(w < c for w, c in zip(warm, cold, strict=True))


def test_calibrating_sets_the_temperature_and_measures_both_splits(model: Model, trained_run: Path):
    corpus = corpus_of(trained_run)
    found = calibrate(model, corpus.validation, corpus.test)
    assert float(model.network.decoder.temperature) == pytest.approx(found.temperature)
    assert found.before.keys() == found.after.keys() == {"validation", "test"}
    scores, right = confidences(model, corpus.test)
    assert found.after["test"] == calibration_error(scores, right)
    model.network.decoder.temperature.fill_(1.0)
    assert found.before["test"] == calibration_error(*confidences(model, corpus.test))


def test_sentences_with_labels_that_nobody_knows_have_no_say(model: Model, trained_run: Path):
    split = corpus_of(trained_run).validation
    wanted = fit_temperature(model, split)
    odd = [
        Document(("Oslo",), labels=("S-PLANET",), scheme=Scheme.IOBES),
        Document(("in", "Oslo"), labels=("O", "I-LOC"), scheme=Scheme.IOBES),
    ]
    assert fit_temperature(model, replace(split, documents=[*split.documents, *odd])) == wanted
    assert fit_temperature(model, replace(split, documents=[])) == 1.0


def test_plain_tags_are_calibrated_token_by_token(tiny_config: Callable[..., Config], tmp_path: Path):
    from nertool.training.run import Finished, run

    config = tiny_config("corpus.scheme=plain", "training.epochs=3")
    *_, finished = run(config, tmp_path)
    assert isinstance(finished, Finished)
    scores, right = confidences(load_bundle(tmp_path), read_corpus(config.corpus).validation)
    assert len(scores) == read_corpus(config.corpus).validation.token_count
    assert finished.calibration.after["validation"] == calibration_error(scores, right)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_cannot_be_is_refused(temperature: float, model: Model, tmp_path: Path):
    model.network.decoder.temperature.fill_(temperature)
    save_bundle(model, tmp_path)
    with pytest.raises(BundleError, match=r"decoder\.temperature"):
        load_bundle(tmp_path)
