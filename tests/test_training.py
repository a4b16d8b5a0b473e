"""The training loop and a whole run: what it writes, when it stops, and that the best epoch is what is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load

from nertool.config.schema import Config, TrainingConfig
from nertool.data.corpus import read_corpus
from nertool.data.encoding import EncodedCorpus
from nertool.errors import CorpusError, NertoolError
from nertool.evaluation.scores import Evaluation, Scores
from nertool.model.batch import Batch
from nertool.model.network import Network
from nertool.tagging.bundle import load_bundle
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.training import run as run_module
from nertool.training.preparation import build_model
from nertool.training.run import Finished, Prepared, run
from nertool.training.schedule import learning_rate
from nertool.training.step import Learner, training_threads
from nertool.training.trainer import Epoch, Step, train
from nertool.views.training import Watcher

MODEL = ["config.yaml", "vocabulary.json", "weights.safetensors"]
Make = Callable[..., Config]


def score(folder: Path, config: Config, split: str = "validation") -> Evaluation:
    """Score the model in a folder."""
    return run_module.score(load_bundle(folder), read_corpus(config.corpus).splits[split])


def records_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fresh(config: Config, sentences: list) -> tuple[Network, EncodedCorpus]:
    """Build a network and an encoded corpus, for the loop alone."""
    documents = [Document(tuple(tokens), labels=tuple(labels), scheme=Scheme.IOB2) for tokens, labels in sentences]
    model = build_model(config, documents, Scheme.IOB2)
    return model.network, EncodedCorpus(model.inputs, documents, model.label_numbers)


def with_f1(f1: float) -> Evaluation:
    return Evaluation(Scores(f1, f1, f1, 1), Scores(f1, f1, f1, 1), {}, f1, 1, 1, "by hand")


class TestRun:
    def test_it_writes_a_model_metrics_and_results(self, trained_run):
        assert sorted(path.name for path in trained_run.iterdir()) == sorted(
            [*MODEL, "metrics.jsonl", "results.json", "checkpoint.safetensors"]
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
        model = prepared.model
        assert set(model.inputs["words"].words) == words
        assert set(model.inputs["characters"].characters) == {character for word in words for character in word}
        assert model.labels[0] == "O"
        assert prepared.encoded.token_count == 91
        assert sum(prepared.parameters) == sum(each.numel() for each in model.network.parameters())
        assert prepared.parameters[1] == 12 * (len(words) + 1)
        assert not (tmp_path / "run").exists(), "nothing is written before all is read"

    def test_the_model_is_that_of_the_best_epoch(self, tiny_config: Make, tmp_path):
        config = tiny_config("training.epochs=40", "training.patience=40", "corpus.validation=test.txt")
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
        predict = Predictor.predict

        def spy(self, documents, **options):
            labelled.append([list(document.tokens) for document in documents])
            return predict(self, documents, **options)

        monkeypatch.setattr(Predictor, "predict", spy)
        list(run(tiny_config("training.epochs=4"), tmp_path / "run"))
        test = [tokens for tokens, _ in tiny_test]
        # The validation split after each epoch; then both, before and after calibration; then the scores.
        tested = [sentences == test for sentences in labelled]
        first = tested.index(True)
        assert first >= 5 and tested[-1] and sum(tested) == 3
        seen = {token for sentences in labelled[:first] for tokens in sentences for token in tokens}
        assert "1993" not in seen, "a word of the test split was labelled before the end"

    def test_without_a_test_split_there_is_no_test_score(self, tiny_config: Make, tmp_path):
        *_, finished = run(tiny_config("training.epochs=1", "corpus.test=null"), tmp_path / "run")
        assert finished.test is None
        assert json.loads((tmp_path / "run" / "results.json").read_text())["test"] is None

    @pytest.mark.parametrize("threads", [1, 2])
    def test_the_same_seed_writes_the_same_bytes(self, tiny_config: Make, tmp_path, threads):
        config = tiny_config("training.epochs=3", f"training.threads={threads}", "inputs.words.dropout=0.1")
        for name in "ab":
            torch.manual_seed(ord(name))  # nothing may depend on the global state
            list(run(config, tmp_path / name))
        for name in MODEL:
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_pretrained_vectors_reach_the_model(self, tiny_config: Make, tmp_path):
        path = tmp_path / "vectors.txt"
        path.write_text("oslo 1 2 3\nnobody 4 5 6\nTallinn 7 8 9\n", encoding="utf-8")
        config = tiny_config(
            f"inputs.words={{vectors: [{json.dumps(str(path))}], trainable: false}}", "training.epochs=1"
        )
        prepared, *_ = run(config, tmp_path / "run")
        assert prepared.coverage["train"] == pytest.approx(3 / 91)  # Oslo twice, Nobody
        model = load_bundle(tmp_path / "run")
        words, table = model.inputs["words"], model.network.input("words").weight
        for word, vector in {
            "Oslo": [1, 2, 3],
            "Nobody": [4, 5, 6],
            "TALLINN": None,
            "Tallinn": [7, 8, 9],
        }.items():
            row = table[int(words.encode_forms([word]).values[0])].tolist()
            assert (row == vector) == (vector is not None)

    @pytest.mark.parametrize(
        "settings",
        [
            ["training.optimizer={kind: adamw, weight_decay: 0.1}"],
            ["training.optimizer={kind: sgd, weight_decay: 0.01}", "training.averaging=0.5"],
            ["training.optimizer=adam", "inputs.words.trainable=false", "inputs.characters=null"],
            ["training.schedule={kind: step, reduce_every: 2}", "training.clip_by=value"],
            ["training.schedule={kind: cosine, warmup: 0.5}"],
            ["training.schedule={kind: plateau, reduce_every: 1}", "training.optimizer=sgd"],
            ["training.schedule=one_cycle"],
            ["training.schedule={kind: inverse, decay: 0.5, warmup: 2}"],
            ["model.decoder=softmax"],
            ["model.decoder=constrained"],
            ["model.decoder={kind: crf, constraints: always}", "corpus.learn_scheme=BILOU"],
            ["model.decoder={kind: crf, constraints: none}", "corpus.learn_scheme=IOB2"],
            ["model.encoder.layers=2", "model.encoder.bidirectional=false"],
            ["inputs.words.minimum_count=2", "inputs.words.dropout=0.2", "inputs.characters.dropout=0.2"],
            ["inputs.case={}", "inputs.words=null"],
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


class TestWithoutEntities:
    def test_while_f1_is_0_a_lower_loss_is_better_and_patience_lasts(self, tiny_config: Make, tmp_path):
        config = tiny_config(
            "training.optimizer=sgd", "training.learning_rate=0.003", "training.epochs=6", "training.patience=2"
        )
        *records, finished = run(config, tmp_path / "run")
        epochs = [record for record in records if isinstance(record, Epoch)]
        # The first one guesses; then the network learns that most tokens are outside.
        assert {epoch.validation.micro.f1 for epoch in epochs[2:]} == {0.0}
        assert finished.epochs == 6
        assert "no entity was predicted" in epochs[-1].note
        assert "no entity was predicted" in records_of(tmp_path / "run" / "metrics.jsonl")[-1]["note"]

    def test_a_validation_split_without_entities_is_said(self, tiny_config: Make, tiny_yaml, tmp_path):
        (tiny_yaml.parent / "none.txt").write_text("Nobody O\ncame O\n. O\n\nRain O\nfell O\n", encoding="utf-8")
        config = tiny_config("corpus.validation=none.txt", "training.epochs=5")
        *records, finished = run(config, tmp_path / "run")
        epochs = [record for record in records if isinstance(record, Epoch)]
        assert all("the validation split has no entity" in epoch.note for epoch in epochs)
        losses = [epoch.validation_loss for epoch in epochs]
        assert finished.best.validation_loss == min(losses)

    def test_the_note_is_printed_once(self, tiny_config: Make, tiny_yaml, tmp_path):
        (tiny_yaml.parent / "none.txt").write_text("Nobody O\ncame O\n", encoding="utf-8")
        printed = StringIO()
        config = tiny_config("corpus.validation=none.txt", "training.epochs=3")
        Watcher(Console(file=printed, width=200), tmp_path / "run").watch(run(config, tmp_path / "run"))
        assert printed.getvalue().count("the validation split has no entity") == 1


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

    def test_between_equal_scores_the_lower_validation_loss_decides(self, tiny_config: Make, tiny_train):
        scores = [0.0, 0.0, 0.0, 0.5, 0.4, 0.5, 0.5, 0.5]
        losses = [9.0, 8.0, 8.5, None, 0.1, 7.0, 7.0, 6.0]
        config = tiny_config("training.epochs=8", "training.patience=5")
        network, corpus = fresh(config, tiny_train[:2])
        number = 0

        def validate() -> Evaluation:
            nonlocal number
            number += 1
            return with_f1(scores[number - 1])

        records = train(network, corpus, validate, config.training, validation_loss=lambda: losses[number - 1])
        epochs = [record for record in records if isinstance(record, Epoch)]
        assert [epoch.best for epoch in epochs] == [1, 2, 2, 4, 4, 6, 6, 8]
        # It is computed where it may decide, and nowhere else.
        assert [epoch.validation_loss for epoch in epochs] == [9.0, 8.0, 8.5, None, None, 7.0, 7.0, 6.0]
        assert [epoch.improved for epoch in epochs] == [epoch.best == epoch.number for epoch in epochs]

    def test_a_loss_that_falls_for_ever_does_not_keep_patience(self, tiny_config: Make, tiny_train):
        config = tiny_config("training.epochs=50", "training.patience=4")
        network, corpus = fresh(config, tiny_train[:2])
        scores, losses = iter([0.5, *[1.0] * 49]), (0.9**number for number in range(50))
        records = train(
            network,
            corpus,
            lambda: with_f1(next(scores)),
            config.training,
            validation_loss=lambda: next(losses),
        )
        epochs = [record for record in records if isinstance(record, Epoch)]
        # Four epochs after the last higher F1; of the equal ones the last has the lowest loss.
        assert [epoch.best for epoch in epochs] == [1, 2, 3, 4, 5, 6]

    def test_while_f1_is_0_a_falling_loss_keeps_patience(self, tiny_config: Make, tiny_train):
        scores = [0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]
        losses = [9.0, 8.0, 7.0, 6.0, 6.5, 7.0, 6.0]
        config = tiny_config("training.epochs=8", "training.patience=3")
        network, corpus = fresh(config, tiny_train[:2])
        given, lost = iter(scores), iter(losses)
        records = train(
            network,
            corpus,
            lambda: with_f1(next(given)),
            config.training,
            validation_loss=lambda: next(lost),
        )
        epochs = [record for record in records if isinstance(record, Epoch)]
        assert (len(epochs), epochs[-1].best) == (7, 1)

    def test_the_network_holds_the_average_while_an_epoch_is_scored_and_handled(
        self, tiny_config: Make, tiny_train
    ):
        config = tiny_config("training.averaging=0.3", "training.epochs=3", "inputs.words.dropout=0.2")
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
        batch = corpus.batch

        def spy(sentences):
            assert network.training
            learnt.extend(sentences.tolist())
            return batch(sentences)

        monkeypatch.setattr(corpus, "batch", spy)
        for record in train(network, corpus, lambda: with_f1(0.5), config.training):
            if isinstance(record, Epoch):
                assert sorted(learnt) == list(range(len(tiny_train)))
                learnt.clear()

    @pytest.mark.parametrize("schedule", ["inverse", "cosine", "plateau"])
    def test_each_step_learns_with_the_rate_of_its_schedule(
        self, tiny_config: Make, tiny_train, monkeypatch, schedule
    ):
        config = tiny_config(
            f"training.schedule={{kind: {schedule}, warmup: 0.5{', reduce_every: 1' * (schedule == 'plateau')}}}",
            "training.epochs=4",
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
        config = tiny_config(
            "training.epochs=1", "training.learning_rate=1e-12", "model.dropout=0.0", "inputs.words.dropout=0.0"
        )
        network, corpus = fresh(config, tiny_train)
        wanted = [
            float(network.loss(Batch.of(corpus.batch(np.array([index])))).detach()) for index in range(len(corpus))
        ]
        *_, epoch = train(network, corpus, lambda: with_f1(0.5), config.training)
        assert epoch.loss == pytest.approx(np.mean(wanted), rel=1e-5)

    @pytest.mark.parametrize("stop_at", [Step, Epoch])
    @pytest.mark.parametrize("how", ["close", "throw"])
    def test_stopped_anywhere_it_leaves_the_weights_that_training_goes_on_from(
        self, tiny_config: Make, tiny_train, stop_at, how
    ):
        config = tiny_config("training.averaging=0.9", "training.epochs=3", "training.batch_size=5")
        network, corpus = fresh(config, tiny_train)
        records = train(network, corpus, lambda: with_f1(0.5), config.training)
        own: dict[str, torch.Tensor] = {}
        for record in records:
            if isinstance(record, Step):
                own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            elif stop_at is Epoch:
                assert any(not torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())
            if isinstance(record, stop_at):
                break
        if how == "close":
            records.close()
        else:
            with pytest.raises(KeyboardInterrupt):
                records.throw(KeyboardInterrupt())
        assert not network.training
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, own[name])

    def test_a_failing_validation_leaves_them_too(self, tiny_config: Make, tiny_train):
        config = tiny_config("training.averaging=0.9")
        network, corpus = fresh(config, tiny_train)

        def fail() -> Evaluation:
            raise RuntimeError("no scores")

        with pytest.raises(RuntimeError, match="no scores"):
            for _ in train(network, corpus, fail, config.training):
                own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, own[name])


class TestLearner:
    @pytest.mark.parametrize(
        ("cores", "batch", "configured", "expected"),
        [
            (16, 10, 0, 2),
            (16, 127, 0, 2),
            (16, 128, 0, 8),
            (4, 256, 0, 4),
            (1, 256, 0, 1),
            (1, 10, 0, 1),
            (16, 256, 3, 3),
        ],
    )
    def test_threads(self, monkeypatch, cores, batch, configured, expected):
        monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
        assert training_threads(TrainingConfig(batch_size=batch, threads=configured)) == expected

    def test_gradients_of_several_batches_are_those_of_one(self, tiny_config: Make, tiny_train):
        config = tiny_config("model.dropout=0.0", "inputs.words.dropout=0.0")
        (once, corpus), (thrice, _) = fresh(config, tiny_train), fresh(config, tiny_train)
        learners = [Learner(network, config.training) for network in (once, thrice)]
        whole = learners[0].accumulate(corpus.batch(np.arange(12)))
        parts = [learners[1].accumulate(corpus.batch(np.arange(*part))) for part in ((0, 3), (3, 4), (4, 12))]
        assert whole == pytest.approx((3 * parts[0] + parts[1] + 8 * parts[2]) / 12, rel=1e-5)
        assert [learner.pending for learner in learners] == [12, 12]
        norms = [learner.step(0.02) for learner in learners]
        assert norms[0] == pytest.approx(norms[1], rel=1e-4)
        assert learners[0].pending == 0

    def test_a_gradient_that_is_not_finite_is_dropped(self, tiny_config: Make, tiny_train):
        config = tiny_config()
        network, corpus = fresh(config, tiny_train)
        learner = Learner(network, config.training)
        good = network.scores.bias.detach().clone()
        with torch.no_grad():
            network.scores.bias.fill_(float("nan"))
        learner.accumulate(corpus.batch(np.arange(3)))
        with pytest.raises(NertoolError, match="training diverged"):
            learner.step(0.02)
        with torch.no_grad():
            network.scores.bias.copy_(good)
        assert learner.pending == 0
        learner.accumulate(corpus.batch(np.arange(3)))
        assert math.isfinite(learner.step(0.02))

    def test_shown_averages_are_put_back_once(self, tiny_config: Make, tiny_train):
        config = tiny_config("training.averaging=0.9")
        network, corpus = fresh(config, tiny_train)
        learner = Learner(network, config.training)
        for _ in range(3):
            learner.accumulate(corpus.batch(np.arange(4)))
            learner.step(0.02)
        own = network.scores.weight.detach().clone()
        for _ in range(2):
            learner.show()
            assert not torch.equal(network.scores.weight, own)
        learner.resume()
        assert torch.equal(network.scores.weight, own)
        with learner.averaged():
            assert not torch.equal(network.scores.weight, own)
        assert torch.equal(network.scores.weight, own)

    def test_no_global_state_changes(self, tiny_config: Make, tiny_train):
        config = tiny_config("training.threads=3", "inputs.words.dropout=0.5")
        before = torch.get_num_threads(), torch.get_rng_state(), np.random.get_state()[1].tolist()
        network, corpus = fresh(config, tiny_train)
        learner = Learner(network, config.training)
        learner.accumulate(corpus.batch(np.arange(4)))
        learner.step(0.02)
        assert torch.get_num_threads() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert np.random.get_state()[1].tolist() == before[2]
        assert torch.tensor(1e-40) * 0.5 > 0, "denormal numbers are not flushed"


class TestInputs:
    def corpora(self, folder: Path, sentences) -> None:
        """Write the three splits with columns token, pos, chunk, ner; pos tells where an entity is."""
        rows = []
        for tokens, labels in sentences:
            tags = ["NNP" if label != "O" else "X" for label in labels]
            rows.append("".join(f"{t} {p} _ {n}\n" for t, p, n in zip(tokens, tags, labels, strict=True)))
        for name in ("train", "validation", "test"):
            (folder / f"{name}.txt").write_text("\n".join(rows), encoding="utf-8")

    def test_a_column(self, tiny_config: Make, tiny_yaml, tiny_train, tmp_path):
        self.corpora(tiny_yaml.parent, tiny_train)
        config = tiny_config(
            "corpus.columns=[token, pos, chunk, ner]", "corpus.label=ner", "inputs.pos={kind: column, column: pos}"
        )
        prepared, *_, finished = run(config, tmp_path / "run")
        assert prepared.model.inputs["pos"].values == ["X", "NNP"]
        assert isinstance(finished, Finished) and finished.best.validation.micro.f1 > 0.9
        assert score(tmp_path / "run", config, "test") == finished.test
        # The network reads the column: other tags, other entities.
        model = load_bundle(tmp_path / "run")
        words = ("Bulk", "Bulk", "Bulk")
        label = Predictor(model).predict
        named = label([Document(words, columns={"pos": ("NNP", "X", "X")})]).labels
        assert named != label([Document(words, columns={"pos": ("X", "X", "X")})]).labels

    def test_a_split_without_the_column_is_refused(self, tiny_config: Make, tiny_yaml, tiny_train, tmp_path):
        (tiny_yaml.parent / "test.jsonl").write_text(
            '{"text": "Oslo .", "entities": [{"start": 0, "end": 4, "label": "LOC"}]}\n'
        )
        self.corpora(tiny_yaml.parent, tiny_train)
        config = tiny_config(
            "corpus.columns=[token, pos, chunk, ner]",
            "corpus.label=ner",
            "inputs.pos={kind: column, column: pos}",
            "corpus.test=test.jsonl",
        )
        with pytest.raises(CorpusError, match=r"test\.jsonl.*no column 'pos'"):
            next(run(config, tmp_path / "run"))
        with pytest.raises(CorpusError, match="no column 'tag'"):
            settings = ("corpus.columns=[token, pos, chunk, ner]", "corpus.label=ner")
            next(run(tiny_config(*settings, "inputs.tag={kind: column, column: tag}"), tmp_path / "run"))

    def test_a_gazetteer(self, tiny_config: Make, tiny_yaml, tmp_path):
        (tiny_yaml.parent / "places.txt").write_text("Oslo\nNew Haven\nTallinn\n", encoding="utf-8")
        config = tiny_config("inputs.places={kind: gazetteer, files: places.txt}", "training.epochs=3")
        *_, finished = run(config, tmp_path / "run")
        assert isinstance(finished, Finished)
        (tiny_yaml.parent / "places.txt").unlink()  # the model does not need it
        assert score(tmp_path / "run", config, "test") == finished.test
