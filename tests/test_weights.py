"""Weights of sentences: what they do to loss and gradient, their file, and trainings that read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import alone, encoded, gradients, small_config, small_model, whole

from nertool.config.schema import Config
from nertool.data.corpus import read_corpus
from nertool.data.weights import read_weights, write_weights
from nertool.errors import BundleError, CorpusError
from nertool.text.document import UNKNOWN, Document
from nertool.training.preparation import encode, prepare
from nertool.training.run import run

LENGTHS = [4, 1, 6, 4]
WEIGHTS = [0.7, 2.0, 0.0, 0.25]
DECODERS = {
    "crf": {"kind": "crf"},
    "always": {"kind": "crf", "constraints": "always"},
    "softmax": {"kind": "softmax"},
    "constrained": {"kind": "constrained"},
}


@pytest.mark.parametrize("decoder", list(DECODERS))
@pytest.mark.parametrize("partial", [False, True], ids=["all labels", "some labels"])
def test_the_loss_is_the_weighted_sum_of_the_losses_of_sentences(decoder: str, partial: bool):
    model = small_model(small_config(decoder=DECODERS[decoder]))
    corpus = encoded(model, LENGTHS)
    if partial:
        assert corpus.labels is not None
        corpus.labels[[1, 5, 9]] = -1
    network = model.network
    corpus.weights = None
    losses = [float(network.loss(alone(corpus, n)).detach()) for n in range(len(LENGTHS))]
    each = [gradients(network, alone(corpus, n)) for n in range(len(LENGTHS))]
    corpus.weights = np.array(WEIGHTS, np.float32)
    batch = whole(corpus)
    assert float(network.loss(batch).detach()) * len(LENGTHS) == pytest.approx(np.dot(WEIGHTS, losses), rel=1e-5)
    for name, found in gradients(network, batch).items():
        wanted = sum(w * g[name] for w, g in zip(WEIGHTS, each, strict=True))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_weights_of_one_change_nothing_and_integers_are_repetitions():
    model = small_model()
    corpus = encoded(model, LENGTHS)
    plain = gradients(model.network, whole(corpus))
    corpus.weights = np.ones(len(LENGTHS), np.float32)
    for name, found in gradients(model.network, whole(corpus)).items():
        torch.testing.assert_close(found, plain[name], rtol=1e-5, atol=1e-6)
    corpus.weights = np.array([3, 1, 1, 0], np.float32)
    found = gradients(model.network, whole(corpus))
    corpus.weights = None
    from nertool.model.batch import Batch

    repeated = Batch.of(corpus.batch(np.array([0, 0, 0, 1, 2])))
    for name, wanted in gradients(model.network, repeated).items():
        torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5)


def sentence(text: str) -> Document:
    return Document(tuple(text.split()), labels=("O",) * len(text.split()))


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "w.jsonl"
    given = [sentence(text) for text in ("a b", "c", "a b", "d \u2028e", "f")]
    weights = np.array([1.0, 0.5, 0.25, 0.0, 1.0])
    assert write_weights(path, given, weights) == 3
    assert len(path.read_bytes().splitlines()) == 4  # both of "a b"
    assert read_weights(path, given).tolist() == weights.tolist()
    # By tokens, whatever else is there.
    assert read_weights(path, [*given[::-1][:2], sentence("new")]).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "none of the 1 training sentences"),
        ('{"weight": 0.5, "tokens": ["other"]}', "none of the 1 training sentences is among the 1"),
        ("0.5", "no tokens"),
        ("0.5\ta b", "line 1.*not JSON"),
        ('{"weight": 0.5, "tokens": "a b"}', "no tokens"),
        ('\n{"weight": -1, "tokens": ["a", "b"]}', "line 2.*from 0 to 100"),
        ('{"weight": NaN, "tokens": ["a", "b"]}', "from 0 to 100"),
        ('{"weight": true, "tokens": ["a", "b"]}', "from 0 to 100"),
        ('{"tokens": ["a", "b"]}', "from 0 to 100"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=range(10),
)
def test_a_wrong_file_is_refused(content: str, problem: str, tmp_path: Path):
    path = tmp_path / "w.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=f"(?s){problem}"):
        read_weights(path, [sentence("a b")])


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    path = tmp_path / "w.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorpusError, match="UTF-8"):
        read_weights(path, [sentence("a b")])
    with pytest.raises(CorpusError, match="cannot be read"):
        read_weights(tmp_path, [sentence("a b")])


@pytest.fixture
def weighted(tiny_config: Callable[..., Config], tmp_path: Path) -> Callable[[float], Config]:
    """Make configs in which the first training sentence has a weight."""

    def make(weight: float) -> Config:
        config = tiny_config("training.epochs=3")
        sentences = read_corpus(config.corpus).train.sentences
        path = tmp_path / f"{weight}.jsonl"
        write_weights(path, sentences[:1], np.array([weight]))
        return tiny_config("training.epochs=3", f"corpus.weights={path}")

    return make


def test_a_training_uses_them(weighted: Callable[[float], Config]):
    prepared = prepare(weighted(0.5))
    assert prepared.encoded.weights is not None
    assert prepared.encoded.weights.tolist() == [0.5] + [1.0] * (len(prepared.encoded) - 1)
    assert prepared.digests["training"] != prepare(weighted(0.25)).digests["training"]


def test_pieces_of_a_long_sentence_have_its_weight(tiny_config: Callable[..., Config]):
    prepared = prepare(tiny_config())
    long = Document(("a",) * 1200, labels=("O",) * 1200)
    documents = [long, *prepared.corpus.train.documents[:1]]
    split = replace(prepared.corpus.train, documents=documents, weights=np.array([0.5, 2.0]))
    found = encode(split, prepared.model).weights
    assert found is not None and found.tolist() == [0.5, 0.5, 0.5, 2.0]


def test_weights_of_zero_alone_are_refused(tiny_config: Callable[..., Config], tmp_path: Path):
    sentences = read_corpus(tiny_config().corpus).train.sentences
    write_weights(tmp_path / "w.jsonl", sentences, np.zeros(len(sentences)))
    with pytest.raises(CorpusError, match=r"the weight 0 in .*w\.jsonl, so that nothing is learnt"):
        prepare(tiny_config(f"corpus.weights={tmp_path / 'w.jsonl'}"))


@pytest.mark.parametrize(
    "part",
    [["corpus.fraction=0.5"], ["corpus.fold=1/3", "corpus.test=null"], ["corpus.validation=null"]],
    ids=["fraction", "fold", "held out"],
)
def test_sentences_keep_their_weights_where_some_are_taken_out(
    part: list[str], tiny_config: Callable[..., Config], tmp_path: Path
):
    """Equal sentences as well, whichever of them are taken out."""
    path = tmp_path / "train.txt"
    rows = [f"w{number // 2} O\nx B-A\n" for number in range(24)]  # each twice
    path.write_text("\n".join(rows), encoding="utf-8")
    settings = (f"corpus.train={path}", f"corpus.weights={tmp_path / 'w.jsonl'}", "corpus.held_out=0.3")
    sentences = read_corpus(tiny_config(settings[0]).corpus).train.sentences
    write_weights(tmp_path / "w.jsonl", sentences, np.arange(1.0, 25.0))
    train = read_corpus(tiny_config(*settings, *part).corpus).train
    assert train.weights is not None and 0 < len(train) == len(train.weights) < 24
    # The line of a sentence says which one it is.
    lines = [each.origin.starts[0] for each in train.sentences if each.origin]
    assert train.weights.tolist() == [1 + (line - 1) // 3 for line in lines]


def test_a_part_of_the_data_may_have_no_weighted_sentence(tiny_config: Callable[..., Config], tmp_path: Path):
    sentences = read_corpus(tiny_config().corpus).train.sentences
    kept = read_corpus(tiny_config("corpus.fraction=0.3").corpus).train.sentences
    other = next(each for each in sentences if each.tokens not in {one.tokens for one in kept})
    write_weights(tmp_path / "w.jsonl", [other], np.array([0.5]))
    found = prepare(tiny_config("corpus.fraction=0.3", f"corpus.weights={tmp_path / 'w.jsonl'}")).encoded.weights
    assert found is not None and set(found.tolist()) == {1.0}


def test_other_weights_are_no_training_to_go_on_with(
    weighted: Callable[[float], Config], tiny_config: Callable[..., Config], tmp_path: Path
):
    config = weighted(0.5)
    epoch = next(r for r in run(config, tmp_path / "run") if type(r).__name__ == "Epoch")
    assert epoch.number == 1
    list(islice(run(config, tmp_path / "run"), 9))
    for other in (weighted(0.75), tiny_config("training.epochs=3")):
        with pytest.raises(BundleError, match=r"the content of the training split(?s:.)*corpus\.weights"):
            list(run(other, tmp_path / "run", resume=True))
    moved = Path(config.corpus.weights or "").rename(tmp_path / "moved.jsonl")
    same = tiny_config("training.epochs=3", f"corpus.weights={moved}")
    *_, finished = run(same, tmp_path / "run", resume=True)
    assert finished.epochs == 3


def test_a_weights_file_that_is_not_there_is_named(tiny_config: Callable[..., Config]):
    from nertool.errors import ConfigError

    with pytest.raises(ConfigError, match=r"there is no file nowhere\.jsonl"):
        tiny_config("corpus.weights=nowhere.jsonl")


def test_unknown_labels_keep_their_weight():
    """A sentence without any label has loss 0 at any weight."""
    model = small_model()
    corpus = encoded(model, [3, 5])
    assert corpus.labels is not None and UNKNOWN == ""
    corpus.labels[:3] = -1
    corpus.weights = np.array([50.0, 1.0], np.float32)
    assert float(model.network.loss(whole(corpus)).detach()) * 2 == pytest.approx(
        float(model.network.loss(replace(alone(corpus, 1), weights=None)).detach()), rel=1e-5
    )


def test_weights_are_json_lines(tmp_path: Path):
    write_weights(tmp_path / "w.jsonl", [sentence("é b")], np.array([0.7]))
    assert json.loads((tmp_path / "w.jsonl").read_bytes()) == {"weight": 0.7, "tokens": ["é", "b"]}
