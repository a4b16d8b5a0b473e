"""What to label next: uncertainty against an enumeration of all label sequences, and the choice of texts."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from networks import LABELS, sentences, small_config, small_model
from test_crf import both_paths, computed_in

from nertool.errors import NertoolError
from nertool.model.batch import Layout
from nertool.model.crf import ConditionalRandomField, Constraints
from nertool.model.inputs.base import Resources
from nertool.model.model import new_model
from nertool.tagging import ranking, windows
from nertool.tagging.labels import LabelTables
from nertool.tagging.ranking import rank, uncertainty
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document
from nertool.text.schemes import Scheme, allowed_transitions, spans

SCHEMES = {
    Scheme.IOB1: ["O", "B-X", "I-X", "I-Y", "B-Y"],
    Scheme.IOB2: ["O", "B-X", "I-X", "B-Y", "I-Y"],
    Scheme.IOBES: ["B-X", "I-X", "E-X", "S-X", "O", "S-Y"],
    Scheme.BILOU: ["O", "B-X", "I-X", "L-X", "U-X"],
    Scheme.BMES: ["O", "B-X", "M-X", "E-X", "S-X"],
    Scheme.PLAIN: ["N", "V", "."],
}
MOST = 4  # tokens


def entities(labels: list[str], scheme: Scheme) -> set:
    """The entities of a label sequence; of plain tags each token with its tag."""
    return set(enumerate(labels)) if scheme is Scheme.PLAIN else set(spans(labels, scheme))


def expected_errors(scores, emissions, names, scheme, labels) -> float:
    """The expected size of the symmetric difference with the entities of the labels, by enumeration."""
    start, transitions, end = scores
    paths = np.array(list(product(range(len(names)), repeat=len(emissions))))
    totals = start[paths[:, 0]] + end[paths[:, -1]] + emissions[np.arange(len(emissions)), paths].sum(1)
    totals += transitions[paths[:, :-1], paths[:, 1:]].sum(1)
    weights = np.exp(totals - totals.max())
    own = entities([names[each] for each in labels], scheme)
    differences = [len(own ^ entities([names[each] for each in path], scheme)) for path in paths]
    return float(weights @ differences / weights.sum())


@both_paths
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_expected_errors_are_those_of_all_label_sequences(scheme, constrained, scale, path):
    names = SCHEMES[scheme]
    size, lengths = len(names), [MOST, 1, 2, 3, MOST]
    random = np.random.default_rng(3)
    decoder = ConditionalRandomField(
        size, Constraints(*allowed_transitions(names, scheme)) if constrained else None
    ).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.from_numpy(scale * random.normal(size=parameter.shape)))
        decoder.temperature.fill_(1.5)
    emissions = torch.from_numpy(scale * random.normal(size=(MOST, len(lengths), size)))
    layout = Layout.of(np.array(lengths))
    with computed_in(path):
        posterior = decoder.posterior(emissions, layout)
        best = decoder.best_labels(emissions, layout)
        any_labels = torch.from_numpy(random.integers(size, size=best.shape)) * layout.mask
        marks = LabelTables(names, scheme).marks
        for labels in (best, any_labels):
            wrong = posterior.wrong_entities(labels, marks).numpy()
            scores = [each.detach().numpy() / 1.5 for each in decoder.scores(constrained=True)]
            for number, length in enumerate(lengths):
                own = labels[:length, number].numpy()
                wanted = expected_errors(scores, emissions[:length, number].numpy() / 1.5, names, scheme, own)
                assert wrong[:, number].sum() == pytest.approx(wanted, abs=1e-9)
                assert (wrong[length:, number] == 0).all()


@pytest.fixture(scope="module")
def tagger():
    """A tagger with random weights that finds entities."""
    labels = ("O", "B-A", "I-A", "B-B", "I-B")
    words = sentences([60])[0].tokens
    document = Document(words, labels=tuple((labels * 12)[: len(words)]), scheme=Scheme.IOB2)
    model = new_model(small_config({"words": {"dimensions": 5}}), [document], Scheme.IOB2, Resources())
    generator = torch.Generator().manual_seed(3)
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return Tagger(model)


def enumerated(tagger, document):
    """Expected errors and log-probability of each sentence of a document, by enumeration, and its tokens."""
    results = []
    for sentence in document.sentences():
        predictions = tagger.predictor.predict([sentence], n_best=2000)
        rows = [row for row, _ in predictions.alternatives[0]]
        shares = np.array([share for _, share in predictions.alternatives[0]])
        assert shares.sum() == pytest.approx(1, abs=1e-6), "all of them"
        scheme = tagger.model.scheme
        own = entities(predictions.labels[0], scheme)
        wrong = shares @ [len(own ^ entities(row, scheme)) for row in rows]
        results.append((wrong, np.log(shares[0])))
    return results


def test_uncertainty_is_that_of_all_sentences_of_a_document(tagger):
    words = sentences([4, 3, 2, 1, 4])
    texts = [
        words[0],
        Document(()),
        Document(words[1].tokens + words[2].tokens, sentence_starts=(0, 3)),
        words[3],
        words[4],
    ]
    wanted = [enumerated(tagger, each) for each in texts]
    notes: list[int] = []
    errors = uncertainty(tagger, texts, "errors", note=notes.append)
    np.testing.assert_allclose(errors, [sum(wrong for wrong, _ in each) for each in wanted], atol=1e-5)
    mnlp = uncertainty(tagger, texts, "mnlp")
    logs = [-sum(log for _, log in each) / max(1, len(text)) for each, text in zip(wanted, texts, strict=True)]
    np.testing.assert_allclose(mnlp, logs, atol=1e-5)
    assert sum(notes) == len(texts)
    assert errors[1] == mnlp[1] == 0


@pytest.mark.parametrize("by", ["mnlp", "errors"])
def test_parts_and_batches_change_nothing(tagger, by, monkeypatch):
    texts = sentences([3, 7, 1, 12, 5, 5, 2] * 3)
    whole = uncertainty(tagger, texts, by)
    monkeypatch.setattr(ranking, "_TOKENS_AT_ONCE", 9)
    np.testing.assert_allclose(uncertainty(tagger, texts, by), whole, atol=1e-6)


@pytest.mark.parametrize("by", ["mnlp", "errors"])
def test_long_sentences_are_as_uncertain_as_their_windows(tagger, by):
    (long,) = sentences([windows.LONGEST * 2])
    (value,) = uncertainty(tagger, [long], by)
    parts = [Document(long.tokens[start : start + 64]) for start in range(0, len(long), 64)]
    pieces = uncertainty(tagger, parts, by)
    assert value == pytest.approx(pieces.mean() if by == "mnlp" else pieces.sum(), rel=0.1)


def test_plain_tags_count_as_entities_of_one_token():
    tagger = Tagger(small_model())
    texts = sentences([6, 2])
    marginals = tagger.predictor.predict(texts, marginals=True).tables
    wrong = 1 - np.take_along_axis(marginals.marginals, marginals.labels[:, None].astype(int), 1)[:, 0]
    assert set(tagger.model.labels) == set(LABELS)
    np.testing.assert_allclose(uncertainty(tagger, texts, "errors"), 2 * np.add.reduceat(wrong, [0, 6]), atol=1e-6)


def test_an_exported_model_ranks_alike(tagger, tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    from nertool.tagging.export import export_model

    target = tmp_path / "model.onnx"
    export_model(tagger.model, target)
    other = Tagger.load(target)
    texts = sentences([3, 9, 4, 1])
    for by in ("mnlp", "errors"):
        np.testing.assert_allclose(uncertainty(other, texts, by), uncertainty(tagger, texts, by), atol=1e-4)


# The choice


@pytest.fixture
def scored(tagger, monkeypatch):
    """Ranks documents whose uncertainty is given."""

    def scored(texts, values, **options):
        monkeypatch.setattr(ranking, "uncertainty", lambda *_, **__: np.array(values))
        return rank(tagger, [Document(tuple(text.split())) for text in texts], **options)

    return scored


def test_the_least_certain_come_first_but_not_what_is_alike(scored):
    texts = ["a b c d", "a b c d", "A B C e", "x y", "z", ""]
    ranked = scored(texts, [1.0, 0.9, 0.8, 0.3, 0.25, 0.0], top=4, random_share=0)
    # "A B C e" shares 3 of 5 forms with the first: 0.8 x 0.4 = 0.32.
    assert [each.index for each in ranked] == [0, 2, 3, 4]
    assert [each.score for each in ranked] == [1.0, 0.8, 0.3, 0.25]
    assert {each.reason for each in ranked} == {"mnlp"}
    ranked = scored(texts, [1.0, 0.9, 0.8, 0.3, 0.25, 0.0], top=100, random_share=0)
    assert [each.index for each in ranked] == [0, 2, 3, 4, 1], "repeated texts last, empty ones never"


def test_overlap_is_the_greatest_with_any_that_was_chosen():
    random = np.random.default_rng(5)
    texts = [Document(tuple(random.choice(list("abcdefghij"), random.integers(1, 7)))) for _ in range(60)]
    scores = np.sort(random.random(60))[::-1]
    forms = [set(text.tokens) for text in texts]
    wanted: list[int] = []
    for _ in range(25):
        values = [
            scores[n] * (1 - max((len(forms[n] & forms[m]) / len(forms[n] | forms[m]) for m in wanted), default=0))
            for n in range(60)
        ]
        wanted.append(max((n for n in range(60) if n not in wanted), key=lambda n: values[n]))
    assert ranking._choose(texts, scores, 25).tolist() == wanted


def test_some_are_a_fair_sample_of_all(scored, tagger):
    texts = [f"word{number}" for number in range(200)]
    values = np.linspace(1, 0.1, 200)
    ranked = scored(texts, values, top=20, random_share=0.2, seed=4)
    drawn = [each.index for each in ranked if each.reason == "random"]
    assert len(ranked) == 20 and len(drawn) == 4
    assert len({each.index for each in ranked}) == 20
    own = [each.index for each in ranked if each.reason == "mnlp"]
    assert own == [index for index in range(200) if index not in drawn][:16]
    places = [place for place, each in enumerate(ranked) if each.reason == "random"]
    assert places == [2, 7, 12, 17]
    assert ranked == scored(texts, values, top=20, random_share=0.2, seed=4)
    assert ranked != scored(texts, values, top=20, random_share=0.2, seed=5)
    # The same texts whatever the model thinks of them.
    again = scored(texts, values[::-1].copy(), top=20, random_share=0.2, seed=4)
    assert [each.index for each in again if each.reason == "random"] == drawn
    assert [each.reason for each in rank(tagger, [Document(("a",))] * 3, by="random", top=2)] == ["random"] * 2


def test_a_choice_from_nothing(tagger):
    assert rank(tagger, []) == []
    assert rank(tagger, [Document(())], by="errors") == []


@pytest.mark.parametrize(
    "options", [{"by": "entropy"}, {"top": 0}, {"random_share": 1.5}, {"random_share": float("nan")}], ids=str
)
def test_wrong_arguments_are_refused(tagger, options):
    with pytest.raises(NertoolError, match=next(iter(options))):
        rank(tagger, [Document(("a",))], **options)
