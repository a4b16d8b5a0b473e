"""Over real text: in whatever order, batches and threads sentences come, each has the same labels and scores."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from nertool.config.loading import load_config, locate_files
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_split
from nertool.model.model import Model
from nertool.tagging import prediction, predictor
from nertool.tagging.bundle import load_bundle
from nertool.tagging.predictor import Predictions, Predictor
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document
from nertool.text.schemes import spans
from nertool.training.run import run

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "lstm": ["model.encoder.hidden=40"],
    "multi_head": ["model.encoder={kind: gru, hidden: 24}", "model.attention={kind: multi_head, dimensions: 32}"],
    "cnn": ["model.encoder={kind: cnn, hidden: 40}", "model.decoder=constrained", "inputs.characters.network=gru"],
}


@pytest.fixture(scope="module")
def sentences() -> list[Document]:
    files = sorted((ROOT / "corpora" / "demo").glob("*.txt"))
    splits = [read_split(path, CorpusConfig(train=str(path))) for path in files]
    return [sentence for split in splits for sentence in split.sentences[::3]]


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = ROOT / "configs" / "demo.yaml"
    small = ["training.epochs=1", "training.threads=1", "training.optimizer=adam", "training.learning_rate=0.01"]
    config = locate_files(load_config(path, [*small, *VARIANTS[request.param]]), path)
    folder = tmp_path_factory.mktemp("demo")
    list(run(config, folder))
    return load_bundle(folder)


def assert_same(found: Predictions, wanted: Predictions, order: np.ndarray, model: Model) -> None:
    """What was found for sentences in an order is what was wanted for them."""
    scheme = model.scheme
    for place, sentence in enumerate(order.tolist()):
        assert found.labels[place] == wanted.labels[sentence]
        np.testing.assert_allclose(found.marginals(place), wanted.marginals(sentence), rtol=0, atol=1e-5)
        for start, end, _ in spans(wanted.labels[sentence], scheme):
            score = wanted.probability(sentence, start, end)
            assert found.probability(place, start, end) == pytest.approx(score, abs=1e-5)


def test_neither_order_nor_size_of_batches_changes_a_label_or_score(model, sentences, monkeypatch):
    def label(order: np.ndarray) -> Predictions:
        return Predictor(model).predict([sentences[n] for n in order.tolist()], probabilities=True, marginals=True)

    everything = np.arange(len(sentences))
    assert len(sentences) > 450
    wanted = label(everything)
    assert sum(name != "O" for row in wanted.labels for name in row) > 30
    random = np.random.default_rng(1)
    for size in (1, 300, 2000, 50_000):
        monkeypatch.setattr(prediction, "TOKENS_PER_BATCH", size)
        order = random.permutation(len(sentences))[: 300 if size == 1 else None]
        assert_same(label(order), wanted, order, model)
    monkeypatch.setattr(predictor, "TOKENS_AT_ONCE", 700)
    monkeypatch.setattr(predictor, "FORMS_KEPT", 100)
    assert_same(label(everything[::-1]), wanted, everything[::-1], model)


def test_threads_that_share_a_tagger_get_the_answers_of_one(model, sentences, monkeypatch):
    monkeypatch.setattr(predictor, "FORMS_KEPT", 200)  # so that each makes the others begin anew
    texts = [each.text for each in sentences]
    wanted = list(Tagger(model).tag_texts(texts))
    shared = Tagger(model)
    found: dict[int, list[Document]] = {}
    together = threading.Barrier(4)

    def work(number: int) -> None:
        together.wait()
        own = texts[number::4]
        # One text at a time, and a stream.
        found[number] = [shared.tag(text) for text in own[:50]] + list(shared.tag_texts(own[50:]))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    before = torch.get_num_threads()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert torch.get_num_threads() == before
    for number in range(4):
        for result, each in zip(found[number], wanted[number::4], strict=True):
            assert (result.text, result.offsets, result.labels) == (each.text, each.offsets, each.labels)
            assert result.scores == pytest.approx(each.scores, abs=1e-5)
