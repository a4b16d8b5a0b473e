"""Labels that are not known: reading them, and learning from the others. `test_crf` has the likelihood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nertool.config.schema import Config, CorpusConfig
from nertool.data.corpus import Split, read_corpus, read_split
from nertool.errors import CorpusError
from nertool.formats.labels import resolve
from nertool.formats.registry import ReadOptions, Report, find_format
from nertool.model.batch import Layout
from nertool.model.crf import ConditionalRandomField, Softmax
from nertool.tagging.bundle import load_bundle
from nertool.text.document import UNKNOWN
from nertool.text.schemes import Scheme, convert
from nertool.training.run import Finished, run


@pytest.mark.parametrize("decoder", [ConditionalRandomField, Softmax])
def test_a_sentence_without_any_label_costs_nothing(decoder):
    torch.manual_seed(1)
    emissions = torch.randn(6, 2, 5, requires_grad=True)  # (time, batch, labels)
    module = decoder(5)
    module.initialize(torch.Generator().manual_seed(1))
    loss = module.loss(emissions, torch.full((6, 2), -1), Layout.of(np.array([6, 6])))
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    loss.backward()
    torch.testing.assert_close(emissions.grad, torch.zeros(6, 2, 5), atol=1e-5, rtol=0.0)


def test_softmax_leaves_tokens_without_a_label_out():
    torch.manual_seed(1)
    emissions = torch.randn(3, 1, 4)
    expected = -(emissions[0, 0].log_softmax(0)[2] + emissions[2, 0].log_softmax(0)[0])
    loss = Softmax(4).loss(emissions, torch.tensor([[2], [-1], [0]]), Layout.of(np.array([3])))
    torch.testing.assert_close(loss, expected)


HALF = """\
Ada B-PER
Byron ?
met O
Otto -
Lind I-PER
. O

She ?
came ?
. ?

Rain O
fell O
"""


class TestReading:
    def read(self, tmp_path: Path, text: str, target: Scheme | None = None, **options: Any) -> Split:
        path = tmp_path / "train.txt"
        path.write_text(text, encoding="utf-8")
        partial = options.pop("partial", False)
        return read_split(path, CorpusConfig(train="unused", **options), target, partial=partial)

    def test_marks_stand_for_unknown_labels(self, tmp_path: Path):
        split = self.read(tmp_path, HALF, partial=True)
        assert split.scheme is Scheme.IOB2
        assert split.labels == [["B-PER", UNKNOWN, "O", UNKNOWN, "I-PER", "O"], ["O", "O"]]
        assert (split.unlabelled, split.strays, split.unknown_count) == (1, 0, 2)
        assert split.notes() == [
            "1 sentence was left out because labels are missing",
            "2 tokens have no label; training sums over all labels that they may have",
        ]

    def test_nothing_is_lost_where_all_is_kept(self, tmp_path: Path):
        path = tmp_path / "part.txt"
        path.write_text(HALF, encoding="utf-8")
        documents = find_format("conll").read(path, ReadOptions(), Report())
        kept, facts = resolve(documents, path, partial=True, keep_unlabelled=True)
        assert [document.labels for document in kept][1] == ("", "", "") and len(kept) == 3
        assert facts.unlabelled == 0 and facts.scheme is Scheme.IOB2

    def test_labels_are_converted_only_where_all_are_known(self, tmp_path: Path):
        split = self.read(tmp_path, HALF, Scheme.IOBES, partial=True)
        assert split.label_scheme is Scheme.IOB2 and split.labels[0][0] == "B-PER"
        path = tmp_path / "train.txt"
        corpus = read_corpus(CorpusConfig(train=str(path), held_out=0.4))
        assert corpus.train.label_scheme is corpus.validation.label_scheme is Scheme.IOB2

    def test_datasets_have_unknown_labels(self, tmp_path: Path):
        self.read(tmp_path, HALF, partial=True)
        corpus = read_corpus(CorpusConfig(train=str(tmp_path / "train.txt"), held_out=0.4))
        assert -1 in corpus.to_datasets()["train"][0]["ner_tags"]

    def test_elsewhere_such_sentences_are_left_out(self, tmp_path: Path):
        split = self.read(tmp_path, HALF, Scheme.IOBES)
        assert (split.labels, split.unlabelled) == ([["O", "O"]], 2)

    def test_in_plain_tags_the_marks_are_tags(self, tmp_path: Path):
        split = self.read(tmp_path, "Why WRB\n? ?\n", partial=True)
        assert (split.labels, split.scheme) == ([["WRB", "?"]], Scheme.PLAIN)

    @pytest.mark.parametrize(
        ("rows", "found", "strays"),
        [
            ("O I-PER ? I-PER O", ["O", "", "", "I-PER", "O"], 1),  # no I- after O; after ? there may be
            ("B-PER I-LOC ? O", ["", "", "", "O"], 2),  # either may be wrong
            ("I-PER ? O", ["", "", "O"], 1),
            ("? I-PER I-PER ?", ["", "I-PER", "I-PER", ""], 0),
        ],
    )
    def test_a_stray_beside_unknown_labels_becomes_unknown(self, tmp_path: Path, rows, found, strays):
        text = "".join(f"w{n} {label}\n" for n, label in enumerate(rows.split()))
        split = self.read(tmp_path, text, partial=True, scheme="IOB2")
        assert (split.labels, split.strays) == ([found], strays)
        if strays:
            with pytest.raises(CorpusError, match="is not allowed here"):
                self.read(tmp_path, text, partial=True, scheme="IOB2", stray="refuse")

    @pytest.mark.parametrize("scheme", [Scheme.IOB1, Scheme.IOB2, Scheme.IOBES, Scheme.BILOU])
    def test_the_scheme_is_found_though_half_is_hidden(self, tmp_path: Path, tiny_train, scheme):
        random = np.random.default_rng(3)
        lines = []
        for tokens, labels in tiny_train * 3:
            row = convert(labels, Scheme.IOB2, scheme)
            lines += [
                f"{t} {'?' if random.random() < 0.5 else each}\n" for t, each in zip(tokens, row, strict=True)
            ]
            lines.append("\n")
        assert self.read(tmp_path, "".join(lines), partial=True).scheme is scheme


class TestTraining:
    def hide(self, config: Config, share: float, mark: str = "?") -> None:
        random = np.random.default_rng(1)
        path = Path(config.corpus.train or "")
        lines = path.read_text(encoding="utf-8").splitlines()
        hidden = [f"{line.split()[0]} {mark}" if line and random.random() < share else line for line in lines]
        path.write_text("\n".join(hidden) + "\n", encoding="utf-8")

    def test_not_knowing_is_better_than_taking_for_outside(self, tiny_config, tmp_path: Path):
        f1s = {}
        for mark in "?O":
            config = tiny_config("training.epochs=40", "training.patience=40")
            self.hide(config, 0.4, mark)
            *_, finished = run(config, tmp_path / mark)
            assert isinstance(finished, Finished)
            f1s[mark] = finished.best.validation.micro.f1
            Path(config.corpus.train or "").write_text(
                Path(config.corpus.validation or "").read_text(encoding="utf-8"), encoding="utf-8"
            )
        assert f1s["?"] > f1s["O"] + 0.1
        model = load_bundle(tmp_path / "?")
        assert model.scheme is Scheme.IOB2 and UNKNOWN not in model.labels

    @pytest.mark.parametrize("decoder", ["softmax", "constrained"])
    def test_the_other_decoders_learn_too(self, tiny_config, tmp_path: Path, decoder):
        config = tiny_config("training.epochs=60", "training.patience=60", f"model.decoder={decoder}")
        self.hide(config, 0.3)
        *_, finished = run(config, tmp_path / "run")
        assert isinstance(finished, Finished) and finished.best.validation.micro.f1 > 0.6

    def test_nothing_can_be_held_out_of_it(self, tiny_config, tmp_path: Path):
        config = tiny_config("corpus.validation=null", "corpus.held_out=0.5")
        self.hide(config, 0.5)
        with pytest.raises(CorpusError, match=r"corpus\.validation"):
            list(run(config, tmp_path / "run"))
