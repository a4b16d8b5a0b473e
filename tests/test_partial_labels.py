"""Labels that are not known: the likelihood against the sum over all that fit; reading; learning from half."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nertool.config.schema import Config
from nertool.errors import CorpusError
from nertool.formats.conll import read_conll
from nertool.formats.labels import UNKNOWN, LabelledSentences
from nertool.model.chain import Scores, negative_log_likelihood
from nertool.model.crf import ConditionalRandomField, Softmax
from nertool.tagging.bundle import load_bundle
from nertool.text.schemes import Scheme, convert
from nertool.training.run import Finished, run


def by_enumeration(emissions: torch.Tensor, crf: ConditionalRandomField, labels: np.ndarray, mask: np.ndarray):
    """The loss by the book, differentiable."""
    loss = torch.zeros((), dtype=torch.float64)
    for sentence, length in enumerate(mask.sum(0)):
        every, fitting = [], []
        for path in product(range(crf.num_tags), repeat=int(length)):
            score = crf.start_transitions[path[0]] + crf.end_transitions[path[-1]]
            score = score + sum(emissions[t, sentence, label] for t, label in enumerate(path))
            score = score + sum(crf.transitions[a, b] for a, b in pairwise(path))
            every.append(score)
            if all(wanted in (-1, label) for wanted, label in zip(labels[:length, sentence], path, strict=True)):
                fitting.append(score)
        loss = loss + torch.stack(every).logsumexp(0) - torch.stack(fitting).logsumexp(0)
    return loss


@given(st.data())
def test_loss_and_gradient_are_those_of_the_enumeration(data):
    torch.manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    size = data.draw(st.integers(1, 3))
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    mask = np.arange(max(lengths))[:, None] < np.array(lengths)
    labels = np.array(
        data.draw(st.lists(st.integers(-1, size - 1), min_size=mask.size, max_size=mask.size))
    ).reshape(mask.shape)
    crf = ConditionalRandomField(size).double()
    torch.nn.init.normal_(crf.transitions)
    emissions = (2 * torch.randn(*mask.shape, size, dtype=torch.float64)).requires_grad_()
    sources = [emissions, *crf.parameters()]
    wanted = by_enumeration(emissions, crf, labels, mask)
    found = crf.loss(emissions, torch.from_numpy(labels), torch.from_numpy(mask))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(found, sources, allow_unused=True),
        tuple(
            torch.zeros_like(source) if part is None else part
            for source, part in zip(sources, torch.autograd.grad(wanted, sources, allow_unused=True), strict=True)
        ),
        rtol=1e-7,
        atol=1e-9,
    )


def test_a_sentence_without_any_label_costs_nothing():
    random = np.random.default_rng(1)
    scores = Scores(random.normal(size=5), random.normal(size=(5, 5)), random.normal(size=5))
    mask = np.ones((6, 2), dtype=bool)
    found = negative_log_likelihood(random.normal(size=(6, 2, 5)), scores, np.full((6, 2), -1), mask)
    assert found.value == pytest.approx(0.0, abs=1e-9)
    for gradient in (found.emissions, found.scores.start, found.scores.transitions, found.scores.end):
        np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


def test_softmax_leaves_tokens_without_a_label_out():
    torch.manual_seed(1)
    emissions, mask = torch.randn(3, 1, 4), torch.ones(3, 1, dtype=torch.bool)
    labels = torch.tensor([[2], [-1], [0]])
    wanted = -(emissions[0, 0].log_softmax(0)[2] + emissions[2, 0].log_softmax(0)[0])
    torch.testing.assert_close(Softmax(4).loss(emissions, labels, mask), wanted)


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
    def read(self, tmp_path: Path, text: str, **options: Any) -> LabelledSentences:
        path = tmp_path / "train.txt"
        path.write_text(text, encoding="utf-8")
        return read_conll(path, **options)

    def test_marks_stand_for_unknown_labels(self, tmp_path: Path):
        split = self.read(tmp_path, HALF, partial=True)
        assert split.scheme is Scheme.IOB2
        assert split.labels == [["B-PER", UNKNOWN, "O", UNKNOWN, "I-PER", "O"], ["O", "O"]]
        assert (split.unlabelled, split.strays, split.unknown_count) == (1, 0, 2)
        assert split.notes() == [
            "1 sentence was left out for want of labels",
            "2 tokens have no label, and all that they may have are learnt from",
        ]

    def test_elsewhere_such_sentences_are_left_out(self, tmp_path: Path):
        split = self.read(tmp_path, HALF, target=Scheme.IOBES)
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
        split = self.read(tmp_path, text, partial=True, scheme=Scheme.IOB2)
        assert (split.labels, split.strays) == ([found], strays)
        if strays:
            with pytest.raises(CorpusError, match="may not stand here"):
                self.read(tmp_path, text, partial=True, scheme=Scheme.IOB2, stray="refuse")

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
            config = tiny_config("training.epochs=60", "training.patience=60")
            self.hide(config, 0.4, mark)
            *_, finished = run(config, tmp_path / mark)
            assert isinstance(finished, Finished)
            f1s[mark] = finished.best.validation.micro.f1
            Path(config.corpus.train or "").write_text(
                Path(config.corpus.validation or "").read_text(encoding="utf-8"), encoding="utf-8"
            )
        assert f1s["?"] > f1s["O"] + 0.1
        lexicon = load_bundle(tmp_path / "?").lexicon
        assert lexicon.scheme is Scheme.IOB2 and UNKNOWN not in lexicon.labels

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
