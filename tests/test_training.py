"""The training loop and a whole run: what it writes, when it stops, and that the best epoch is what is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from nertool.config.schema import Config
from nertool.data.batching import EncodedCorpus, Forms
from nertool.data.corpus import read_corpus
from nertool.data.vocabulary import build_lexicon
from nertool.errors import NertoolError
from nertool.evaluation.scores import Evaluation, Scores, evaluate
from nertool.model.network import Network
from nertool.tagging.bundle import build_network, load_bundle
from nertool.tagging.labeller import Labeller
from nertool.text.schemes import Scheme
from nertool.training.run import Finished, Prepared, run
from nertool.training.schedule import learning_rate
from nertool.training.trainer import Epoch, Step, train

MODEL = ["config.yaml", "lexicon.json", "weights.safetensors"]
Make = Callable[..., Config]


def score(folder: Path, config: Config, split: str = "validation") -> Evaluation:
    """Scores of the model in a folder."""
    sentences = read_corpus(config.corpus).splits[split]
    found = Labeller(load_bundle(folder)).label(sentences.tokens).labels
    return evaluate(sentences.labels, found, sentences.label_scheme)


def records_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fresh(config: Config, sentences: list) -> tuple[Network, EncodedCorpus]:
    """A network and an encoded corpus, for the loop alone."""
    tokens, labels = zip(*sentences, strict=True)
    lexicon = build_lexicon(tokens, labels, Scheme.IOB2)
    network = build_network(config, lexicon, config.words.dimensions)
    torch.manual_seed(1)
    network.words.reset_parameters()
    numbers = {label: number for number, label in enumerate(lexicon.labels)}
    return network, EncodedCorpus(Forms(lexicon, 3, 64), tokens, labels, numbers)


def with_f1(f1: float) -> Evaluation:
    return Evaluation(Scores(f1, f1, f1, 1), Scores(f1, f1, f1, 1), {}, f1, 1, 1, "by hand")


class TestRun:
    def test_it_writes_a_model_metrics_and_results(self, trained_run):
        assert sorted(path.name for path in trained_run.iterdir()) == sorted(
            [*MODEL, "metrics.jsonl", "results.json"]
        )
        metrics = records_of(trained_run / "metrics.jsonl")
        assert [line["epoch"] for line in metrics] == list(range(1, 31))
        for line in metrics:
            assert line.keys() >= {"epoch", "loss", "f1", "seconds", "tokens_per_second"}
            assert all(math.isfinite(line[key]) for key in ("loss", "f1", "gradient_norm"))
            assert line["seconds"] > 0
            assert line["tokens_per_second"] == pytest.approx(91 / line["seconds"])
        assert metrics[-1]["loss"] < metrics[0]["loss"] / 10
        results = json.loads((trained_run / "results.json").read_text(encoding="utf-8"))
        assert (results["epochs"], results["seed"]) == (30, 1)
        assert metrics[results["best_epoch"] - 1]["f1"] == max(line["f1"] for line in metrics) == 1.0
        assert Evaluation.from_json(results["validation"]).micro.f1 == 1.0
        assert Evaluation.from_json(results["test"]).sentences == 4
        assert Config.model_validate(results["config"]) == load_bundle(trained_run).config
        assert results["versions"].keys() == {"nertool", "python", "torch", "numpy", "spacy"}

    def test_the_records_come_in_order(self, tiny_config: Make, tmp_path):
        config = tiny_config("training.epochs=2", "training.batch_size=5")
        records = list(run(config, tmp_path / "run"))
        kinds = [type(record) for record in records]
        assert kinds[0] is Prepared
        assert kinds[-1] is Finished
        for number in (1, 2):
            steps = [record for record in records if isinstance(record, Step) and record.epoch == number]
            assert len(steps) in (3, 4)  # twelve sentences by five, from a random place
            assert [step.tokens for step in steps] == sorted({step.tokens for step in steps})
            assert (steps[-1].tokens, steps[-1].total) == (91, 91)
        epochs = [record for record in records if isinstance(record, Epoch)]
        assert [epoch.number for epoch in epochs] == [1, 2]
        assert [epoch.learning_rate for epoch in epochs] == [0.02, pytest.approx(0.02 / 1.05)]
        finished = records[-1]
        assert finished.best in epochs
        assert finished.epochs == 2

    def test_the_vocabulary_comes_from_the_training_split_alone(self, tiny_config: Make, tiny_train, tmp_path):
        prepared = next(run(tiny_config(), tmp_path / "run"))
        assert isinstance(prepared, Prepared)
        words = {token for tokens, _ in tiny_train for token in tokens}
        assert set(prepared.lexicon.words) == words
        assert set(prepared.lexicon.characters) == {character for word in words for character in word}
        assert prepared.lexicon.labels[0] == "O"
        assert not (tmp_path / "run").exists(), "nothing is written before all is read"

    def test_the_model_is_that_of_the_best_epoch(self, tiny_config: Make, tmp_path):
        config = tiny_config("training.epochs=40", "training.patience=40")
        folder = tmp_path / "run"
        kept = b""
        for record in run(config, folder):
            if isinstance(record, Epoch):
                now = (folder / MODEL[2]).read_bytes()
                assert (now != kept) == record.improved
                kept = now
                assert score(folder, config).micro.f1 == max(
                    line["f1"] for line in records_of(folder / "metrics.jsonl")
                )
        assert isinstance(record, Finished)
        assert record.best.number < record.epochs, "this test needs an epoch that is not the last to be the best"
        before, after = load(kept), load((folder / MODEL[2]).read_bytes())
        assert before.pop("decoder.temperature") == 1.0
        assert after.pop("decoder.temperature") == pytest.approx(record.calibration.temperature)
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        assert score(folder, config) == record.best.validation
        assert score(folder, config, "test") == record.test

    def test_averaged_weights_are_the_ones_that_are_scored_and_kept(self, tiny_config: Make, tmp_path):
        config = tiny_config("training.averaging=0.9", "training.epochs=12")
        *_, finished = run(config, tmp_path / "run")
        assert finished.best.validation.micro.f1 > 0
        assert score(tmp_path / "run", config) == finished.best.validation

    def test_the_test_split_is_labelled_last(self, tiny_config: Make, tiny_test, tmp_path, monkeypatch):
        labelled: list[list[list[str]]] = []
        label = Labeller.label

        def spy(self, sentences, **options):
            labelled.append([list(tokens) for tokens in sentences])
            return label(self, sentences, **options)

        monkeypatch.setattr(Labeller, "label", spy)
        list(run(tiny_config("training.epochs=4"), tmp_path / "run"))
        test = [tokens for tokens, _ in tiny_test]
        # The validation split after each epoch; then both, cold and calibrated; then the scores.
        assert [sentences == test for sentences in labelled] == [False] * 4 + [False, True, False, True, True]
        seen = {token for sentences in labelled[:5] for tokens in sentences for token in tokens}
        assert "1993" not in seen, "a word of the test split was labelled before the end"

    def test_without_a_test_split_there_is_no_test_score(self, tiny_config: Make, tmp_path):
        *_, finished = run(tiny_config("training.epochs=1", "corpus.test=null"), tmp_path / "run")
        assert finished.test is None
        assert json.loads((tmp_path / "run" / "results.json").read_text())["test"] is None

    @pytest.mark.parametrize("threads", [1, 2])
    def test_the_same_seed_writes_the_same_bytes(self, tiny_config: Make, tmp_path, threads):
        config = tiny_config("training.epochs=3", f"training.threads={threads}", "words.dropout=0.1")
        for name in "ab":
            torch.manual_seed(ord(name))  # nothing may depend on the global state
            list(run(config, tmp_path / name))
        for name in MODEL:
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_pretrained_vectors_reach_the_model(self, tiny_config: Make, tmp_path):
        path = tmp_path / "vectors.txt"
        path.write_text("oslo 1 2 3\nnobody 4 5 6\nTallinn 7 8 9\n", encoding="utf-8")
        config = tiny_config(f"words.vectors=[{path}]", "words.trainable=false", "training.epochs=1")
        prepared, *_ = run(config, tmp_path / "run")
        assert prepared.coverage["train"] == pytest.approx(3 / 91)  # Oslo twice, Nobody
        model = load_bundle(tmp_path / "run")
        for word, vector in {
            "Oslo": [1, 2, 3],
            "Nobody": [4, 5, 6],
            "TALLINN": None,
            "Tallinn": [7, 8, 9],
        }.items():
            row = model.network.words.weight[model.lexicon.row(word)].tolist()
            assert (row == vector) == (vector is not None)

    @pytest.mark.parametrize(
        "settings",
        [
            ["training.optimizer=adamw", "training.weight_decay=0.1"],
            ["training.optimizer=sgd", "training.weight_decay=0.01", "training.averaging=0.5"],
            ["training.optimizer=adam", "words.trainable=false", "model.characters.kind=none"],
            ["training.schedule=step", "training.reduce_every=2", "training.clip_by=value"],
            ["training.schedule=cosine", "training.warmup=0.5"],
            ["training.schedule=plateau", "training.reduce_every=1", "training.optimizer=sgd"],
            ["training.schedule=one_cycle"],
            ["training.decay=0.5", "training.warmup=2"],
            ["model.decoder=softmax"],
            ["model.decoder=constrained"],
            ["model.constraints=always", "corpus.learn_scheme=BILOU"],
            ["model.constraints=none", "corpus.learn_scheme=IOB2"],
            ["model.encoder.layers=2", "model.encoder.bidirectional=false"],
            ["words.minimum_count=2", "words.dropout=0.2", "model.characters.dropout=0.2"],
            ["training.threads=2", "training.averaging=0.9", "corpus.learn_scheme=IOB1"],
            ["corpus.scheme=plain"],
        ],
        ids=" ".join,
    )
    def test_every_kind_of_network_and_rule_learns(self, tiny_config: Make, tmp_path, settings):
        config = tiny_config("training.epochs=6", *settings)
        losses = [record.loss for record in run(config, tmp_path / "run") if isinstance(record, Epoch)]
        assert all(math.isfinite(loss) for loss in losses)
        assert losses[-1] < 0.9 * losses[0]
        score(tmp_path / "run", config)


class TestInterruption:
    def test_the_best_model_so_far_stays_and_loads(self, tiny_config: Make, tmp_path):
        config = tiny_config("training.threads=2", "training.averaging=0.9")
        before = torch.get_num_threads()
        running = run(config, tmp_path / "run")
        for record in running:
            if isinstance(record, Epoch):
                first = record
            if isinstance(record, Step) and record.epoch == 2 and record.tokens > 20:
                running.close()
        assert torch.get_num_threads() == before
        assert score(tmp_path / "run", config) == first.validation
        assert [line["epoch"] for line in records_of(tmp_path / "run" / "metrics.jsonl")] == [1]
        assert not (tmp_path / "run" / "results.json").exists()

    def test_a_model_that_was_there_stays_until_the_first_epoch_has_ended(self, tiny_config: Make, tmp_path):
        folder = tmp_path / "run"
        list(run(tiny_config("training.epochs=2"), folder))
        old = {name: (folder / name).read_bytes() for name in MODEL}
        running = run(tiny_config("training.epochs=2", "training.seed=2"), folder)
        for record in running:
            if isinstance(record, Step):
                break
        running.close()
        assert {name: (folder / name).read_bytes() for name in MODEL} == old
        load_bundle(folder)

    def test_an_earlier_result_is_not_taken_for_that_of_a_run_that_broke_off(self, tiny_config: Make, tmp_path):
        folder = tmp_path / "run"
        list(run(tiny_config("training.epochs=2"), folder))
        running = run(tiny_config("training.epochs=2", "training.seed=2"), folder)
        for record in running:
            if isinstance(record, Epoch):
                break
        running.close()
        assert not (folder / "results.json").exists()
        assert len(records_of(folder / "metrics.jsonl")) == 1

    @pytest.mark.parametrize("place", ["taken", "taken/run", "taken/deep/run"])
    def test_a_folder_that_cannot_be_written_is_told_before_training(self, tiny_config: Make, tmp_path, place):
        (tmp_path / "taken").write_text("a file")
        with pytest.raises(NertoolError, match="cannot write there") as refusal:
            for record in run(tiny_config(), tmp_path / place):
                assert isinstance(record, Prepared), "training had begun"
        assert "taken" in str(refusal.value)


class TestLoop:
    @pytest.mark.parametrize(
        ("scores", "patience", "epochs", "best"),
        [
            ([0.1, 0.3, 0.2, 0.25, 0.9], 2, 4, 2),
            ([0.1, 0.3, 0.2, 0.4, 0.4, 0.4, 0.4, 0.9], 3, 7, 4),  # equally good is not better
            ([0.5, 0.4, 0.9], 1, 2, 1),
            ([0.0, 0.0, 0.0, 0.0], 3, 4, 1),
            ([0.1, 0.2, 0.3], 1, 3, 3),
        ],
    )
    def test_patience_ends_it(self, tiny_config: Make, tiny_train, scores, patience, epochs, best):
        config = tiny_config(f"training.epochs={len(scores)}", f"training.patience={patience}")
        network, corpus = fresh(config, tiny_train[:2])
        given = iter(scores)
        records = [
            r
            for r in train(network, corpus, lambda: with_f1(next(given)), config.training)
            if isinstance(r, Epoch)
        ]
        assert len(records) == epochs
        assert records[-1].best == best
        assert [r.number for r in records if r.improved][-1] == best
        running_best = [max(scores[: place + 1]) for place in range(epochs)]
        assert [scores[r.best - 1] for r in records] == running_best

    def test_the_network_holds_the_average_while_an_epoch_is_scored_and_handled(
        self, tiny_config: Make, tiny_train
    ):
        config = tiny_config("training.averaging=0.3", "training.epochs=3", "words.dropout=0.2")
        network, corpus = fresh(config, tiny_train)
        own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        means = {name: tensor.clone() for name, tensor in own.items()}
        steps, validated = 0, 0

        def validate() -> Evaluation:
            nonlocal validated
            validated += 1
            assert not network.training
            for name, tensor in network.state_dict().items():
                torch.testing.assert_close(tensor, means[name])
            return with_f1(0.5)

        for record in train(network, corpus, validate, config.training):
            weights = network.state_dict()
            if isinstance(record, Step):
                share = min(0.3, (1 + steps) / (10 + steps))
                own = {name: tensor.clone() for name, tensor in weights.items()}
                means = {name: torch.lerp(own[name], means[name], share) for name in means}
                steps += 1
            else:
                for name, tensor in weights.items():
                    torch.testing.assert_close(tensor, means[name])
        assert validated == 3
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, own[name]), "the last weights remain in the network"

    def test_every_sentence_is_learnt_once_in_an_epoch(self, tiny_config: Make, tiny_train, monkeypatch):
        config = tiny_config("training.epochs=2")
        network, corpus = fresh(config, tiny_train)
        learnt: list[int] = []
        loss = network.loss

        def spy(batch):
            assert network.training
            learnt.extend(batch.sentences.tolist())
            return loss(batch)

        monkeypatch.setattr(network, "loss", spy)
        for record in train(network, corpus, lambda: with_f1(0.5), config.training):
            if isinstance(record, Epoch):
                assert sorted(learnt) == list(range(len(tiny_train)))
                learnt.clear()

    @pytest.mark.parametrize("schedule", ["inverse", "cosine", "plateau"])
    def test_each_step_learns_with_the_rate_of_its_schedule(
        self, tiny_config: Make, tiny_train, monkeypatch, schedule
    ):
        config = tiny_config(
            f"training.schedule={schedule}", "training.epochs=4", "training.reduce_every=1", "training.warmup=0.5"
        )
        network, corpus = fresh(config, tiny_train)
        f1s = [0.2, 0.1, 0.3, 0.3]
        given = iter(f1s)
        rates: list[float] = []
        update = torch.optim.Adam.step

        def spy(rule, *arguments, **options):
            rates.append(rule.param_groups[0]["lr"])
            return update(rule, *arguments, **options)

        monkeypatch.setattr(torch.optim.Adam, "step", spy)
        for record in train(network, corpus, lambda: with_f1(next(given)), config.training):
            if isinstance(record, Epoch):
                epoch = record.number - 1
                assert rates == [
                    learning_rate(config.training, epoch, step, len(rates), f1s[:epoch])
                    for step in range(len(rates))
                ]
                assert record.learning_rate == rates[-1]
                rates.clear()

    def test_the_loss_told_is_the_mean_of_the_sentences(self, tiny_config: Make, tiny_train):
        # A learning rate of next to nothing: the weights, and thus the losses, stay as they are.
        config = tiny_config("training.epochs=1", "training.learning_rate=1e-12", "model.dropout=0.0")
        network, corpus = fresh(config, tiny_train)
        wanted = [float(network.loss(corpus.batch(np.array([place]))).detach()) for place in range(len(corpus))]
        *_, epoch = train(network, corpus, lambda: with_f1(0.5), config.training)
        assert epoch.loss == pytest.approx(np.mean(wanted), rel=1e-5)
