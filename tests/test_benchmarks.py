"""The benchmark compares like with like: both networks compute the same, and every figure can be had."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from nertool.config.loading import load_config, locate_files
from nertool.config.schema import Config
from nertool.data.corpus import read_corpus
from nertool.model.batch import Batch
from nertool.model.inputs.words import Words
from nertool.model.model import Model, build_network
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.training.preparation import encode

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# Known and unknown words; no character known; equal characters; longer than what is looked at.
ODD = (["Nobody", "nobody", "NOBODY", "1994", "7.31", "§§", ".....", "Ab" * 60], ["O"] * 8)


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def make_setting(tiny_config: Callable[..., Config]) -> Callable[..., object]:
    from contenders import Setting

    def make(*overrides: str) -> Setting:
        config = tiny_config("training.epochs=1000", "training.patience=1000", *overrides)
        return Setting("tiny", config, read_corpus(config.corpus), None, [])

    return make


def with_lively_transitions(model: Model) -> Model:
    """Near 0, where torchcrf starts its transitions, a mistake with them would hardly show."""
    torch.manual_seed(3)
    for parameter in model.network.decoder.parameters():
        nn.init.normal_(parameter)
    return model


def test_reference_has_the_same_loss_gradients_and_labels(make_setting):
    from contenders import (
        plain_weights,
        reference_tagger,
        reference_vocabulary,
        rows_of,
        tokens_of,
        untrained_model,
    )
    from reference import label_sentences

    setting = make_setting("model.decoder.constraints=none")
    model = with_lively_transitions(untrained_model(setting))
    plain, vocabulary = reference_tagger(model), reference_vocabulary(model)
    train = setting.corpus.train
    tokens, labels = [*tokens_of(train), ODD[0]], [*train.labels, ODD[1]]
    odd = Document(tuple(ODD[0]), labels=tuple(ODD[1]), scheme=train.label_scheme)
    encoded = encode(replace(train, documents=[*train.documents, odd]), model)

    model.network.eval()
    plain.eval()
    batch = Batch.of(encoded.batch(torch.arange(len(tokens)).numpy()))
    plain_batch = vocabulary.encode(tokens, labels)
    assert batch.layout.ragged, "lengths should differ"
    torch.testing.assert_close(
        model.network(batch).transpose(0, 1)[plain_batch.mask], plain(plain_batch)[plain_batch.mask]
    )
    ours, theirs = model.network.loss(batch), plain.loss(plain_batch)
    torch.testing.assert_close(ours, theirs)

    ours.backward()
    theirs.backward()
    ours_gradients = plain_weights(
        {name: parameter.grad.to_dense() for name, parameter in model.network.named_parameters()},
        rows_of(model),
    )
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(ours_gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)

    # What the network says, before invalid sequences are repaired, which the reference does not do.
    predictions = Predictor(model).predict([Document(tuple(row)) for row in tokens])
    flat = predictions.label_tables.names[predictions.tables.labels].tolist()
    assert [label for row in label_sentences(plain, vocabulary, tokens, 4) for label in row] == flat


def test_reference_with_fewer_words_scores_training_sentences_the_same(make_setting):
    from contenders import reference_tagger, reference_vocabulary, rows_of, tokens_of, untrained_model, words_of

    setting = make_setting()
    model = untrained_model(setting)
    known = words_of(model)
    words = Words("words", known.config, [*known.words, "seldom", "hardly"], known.dimensions)
    inputs = {**model.inputs, "words": words}
    network = build_network(model.config, model.labels, model.scheme, inputs)
    network.initialize(1)
    larger = Model(model.config, model.labels, model.scheme, inputs, network)
    train, rows = setting.corpus.train, rows_of(model)
    losses = [
        reference_tagger(larger, count).eval().loss(vocabulary.encode(tokens_of(train), train.labels))
        for count in (rows, rows + 2)
        for vocabulary in [reference_vocabulary(larger, count)]
    ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    "setting",
    [
        "model.decoder=softmax",
        "model.encoder.kind=gru",
        "model.attention.kind=dot",
        "inputs.case={dimensions: 2}",
        "model.locked_dropout=true",
    ],
)
def test_reference_refuses_a_network_that_it_is_not(make_setting, setting):
    from contenders import reference_tagger, untrained_model

    with pytest.raises(ValueError, match="this model is another"):
        reference_tagger(untrained_model(make_setting(setting)))


@pytest.mark.parametrize("sort", [False, True])
def test_reference_learns(make_setting, sort):
    from contenders import reference_tagger, reference_vocabulary, tokens_of, untrained_model
    from reference import training_steps

    setting = make_setting()
    model = untrained_model(setting)
    train = setting.corpus.train
    plain, vocabulary = reference_tagger(model), reference_vocabulary(model)
    whole = vocabulary.encode(tokens_of(train), train.labels)
    torch.manual_seed(1)
    before = float(plain.eval().loss(whole).detach())
    steps = training_steps(plain, vocabulary, tokens_of(train), train.labels, batch_size=4, sort=sort)
    epoch = [next(steps) for _ in range(3)]
    assert sum(epoch) == train.token_count
    for _ in range(60):
        next(steps)
    assert float(plain.eval().loss(whole).detach()) < before / 2


def test_every_figure_can_be_had(make_setting, monkeypatch):
    import pieces
    from bench import Effort, measure_training
    from contenders import trained_model, untrained_model

    monkeypatch.setattr(pieces, "ROWS_SMALL", 500)
    monkeypatch.setattr(pieces, "ROWS_LARGE", 1000)
    setting = make_setting("training.batch_size=4")
    threads = torch.get_num_threads()
    model = trained_model(setting, 0.1, None)
    assert model.scheme is Scheme.IOBES
    rows = [
        *measure_training(setting, untrained_model(setting), 4, Effort(1, 0.02)),
        *pieces.measure_tagging(setting, model, 1, 0.02),
        *pieces.measure_latency(setting, model, 1),
        *pieces.measure_vectors(None, 1),
        *pieces.measure_help(1),
        *pieces.measure_update(setting, 1, 0.02),
    ]
    assert all(0 < row.value.low <= row.value.median <= row.value.high for row in rows)
    assert any(row.nertool_is for row in rows) and any(row.share for row in rows)
    assert torch.get_num_threads() == threads


def test_pipelines_are_measured_beside_the_tagger(make_setting):
    import spacy
    from contenders import trained_model
    from spacy_pipe import component_pipeline, measure_pipes

    setting = make_setting("training.batch_size=4")
    model = trained_model(setting, 0.1, None)
    ner = spacy.blank("en")
    ner.add_pipe("entity_ruler").add_patterns([{"label": "LOC", "pattern": "London"}])
    rows, scores = measure_pipes(setting, model, 1, 0.02, ner)
    assert [row.nertool_is is None for row in rows] == [False, True, False, True, False, False]
    assert all(row.value.low > 0 for row in rows) and 0 < scores["ner"] < 1 and scores.keys() == {"nertool", "ner"}
    assert component_pipeline(model, "en", sentences=True).pipe_names == ["sentencizer", "nertool"]


def test_made_up_lines_hold_words_that_never_come_again():
    from memory import demo_words, invented_name, made_up_lines

    names = {invented_name(number) for number in range(50_000)}
    assert len(names) == 50_000 and all(name.isalpha() for name in names)
    lines = list(made_up_lines(1000, demo_words()))
    assert {len(line.split()) for line in lines} == {8}
    assert len({line.split()[2] for line in lines} | {line.split()[5] for line in lines}) == 2000


@pytest.mark.slow
def test_memory_of_tagging_can_be_measured(trained_run, tmp_path):
    from memory import demo_words, made_up_lines, tag

    source = tmp_path / "lines.txt"
    source.write_text("".join(made_up_lines(20, demo_words())), encoding="utf-8")
    run = tag(trained_run, source, 20)
    assert run.peak_mb > 50 and run.lines_per_second > 0
    with pytest.raises(RuntimeError, match="exit code 1"):
        tag(tmp_path, source, 20)


@pytest.mark.slow
def test_the_service_is_measured(trained_run, monkeypatch, capsys):
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    import serve

    arguments = ["serve.py", str(trained_run), "--requests", "80", "--rounds", "1", "--clients", "4"]
    monkeypatch.setattr(sys, "argv", arguments)
    serve.main()
    shown = capsys.readouterr().out
    assert "80 requests" in shown and "(lean); 0 errors" in shown and "one client, httpx" in shown


class TestLabelling:
    """The simulated annotator."""

    SHARES = (25.0, 50.0, 75.0)

    @pytest.fixture
    def make(self, tiny_yaml: Path) -> Callable[[int], object]:
        from labelling import Simulation

        corpus = read_corpus(locate_files(load_config(tiny_yaml), tiny_yaml).corpus)
        # Few of the first sentences have entities of all types.
        overrides = ["training.epochs=2", "training.patience=2", "training.learning_rate=0.1"]
        return lambda seed: Simulation(str(tiny_yaml), overrides, seed, corpus)

    @pytest.mark.parametrize("by", ["mnlp", "errors", "random"])
    def test_rounds_label_more_and_more_of_the_pool(self, make, by):
        from labelling import simulate

        simulation = make(1)
        lines = list(simulate(simulation, by, self.SHARES, []))
        labelled: list[int] = []
        total = simulation.lengths.sum()
        for line, share in zip(lines, self.SHARES, strict=True):
            labelled += line["labelled"]
            tokens = simulation.lengths[labelled].sum()
            longest = simulation.lengths.max()
            assert (line["share"], line["tokens"], line["sentences"]) == (share, tokens, len(labelled))
            assert share / 100 * total <= tokens < share / 100 * total + longest
            assert {"validation", "test"} <= line.keys()
        assert len(set(labelled)) == len(labelled)

    def test_it_goes_on_where_it_was_stopped(self, make):
        from labelling import simulate

        whole = list(simulate(make(1), "mnlp", self.SHARES, []))
        rest = list(simulate(make(1), "mnlp", self.SHARES, whole[:1]))
        for each in (*whole, *rest):
            del each["seconds"]
        assert rest == whole[1:]

    def test_strategies_begin_alike_and_seeds_do_not(self, make):
        from labelling import simulate

        first = {by: next(simulate(make(1), by, self.SHARES, []))["labelled"] for by in ("mnlp", "random")}
        assert first["mnlp"] == first["random"]
        assert next(simulate(make(2), "mnlp", self.SHARES, []))["labelled"] != first["mnlp"]

    def test_the_table_says_when_the_goal_is_reached(self):
        from labelling import table

        def line(strategy: str, seed: int, share: float, test: float) -> dict[str, object]:
            return {"strategy": strategy, "seed": seed, "share": share, "test": test}

        lines = [line("full", 1, 100.0, 90.0), line("full", 2, 100.0, 91.0)]
        lines += [line("mnlp", seed, share, f1) for seed in (1, 2) for share, f1 in ((5.0, 80.0), (10.0, 89.7))]
        lines += [line("random", 1, 5.0, 70.0)]
        rows = table(lines, (5.0, 10.0)).splitlines()
        assert rows[2] == "| 5 % | 80.00 ± 0.00 (2) | 70.00 (1) |"
        assert rows[3] == "| 10 % | 89.70 ± 0.00 (2) | – |"
        assert rows[-2] == "| 99 % of that | 89.59 | 89.59 |"
        assert rows[-1] == "| reached with | 10 % | more than 10 % |"


def test_a_large_corpus_can_be_made(tmp_path: Path):
    from streaming import make

    from nertool.config.schema import CorpusConfig
    from nertool.data.corpus import read_split

    make(tmp_path / "large.txt", sentences=300, names=50, seed=1)
    split = read_split(tmp_path / "large.txt", CorpusConfig(train="large.txt"))
    assert len(split) == 300 and split.scheme is Scheme.IOB2 and not split.strays
    assert set(split.entity_counts()) == {"LOC", "MISC", "ORG", "PER"}
