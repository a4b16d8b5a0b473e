"""Parts of a corpus: folds, nested shares, sentences taken out; documents stay whole."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.data.corpus import Split
from nertool.data.folds import divide, draw_share, make_folds, units_of
from nertool.errors import CorpusError
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme

TYPES = ["O", "B-PER", "B-LOC", "B-ORG"]


def sentence(number: int, label: str = "O", name: str | None = None) -> Document:
    return Document((f"w{number}", "."), labels=(label, "O"), scheme=Scheme.IOB2, id=name)


def a_split(documents: list[Document]) -> Split:
    return Split(documents, Scheme.IOB2, Scheme.IOB2)


def numbers_of(split: Split) -> list[int]:
    """The numbers that the sentences were made with."""
    return [int(each.tokens[0][1:]) for each in split.sentences]


@st.composite
def splits(draw) -> tuple[Split, list[int]]:
    """Draw a split, and for each sentence the number of its unit."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=30))
    if draw(st.booleans()):
        sizes = [1] * len(sizes)
    in_parts = draw(st.booleans())
    documents, units = [], []
    for number, size in enumerate(sizes):
        own = [sentence(len(units) + each, draw(st.sampled_from(TYPES)), f"d{number}") for each in range(size)]
        units += [number] * size
        if in_parts:
            documents += own
        else:
            tokens = tuple(token for each in own for token in each.tokens)
            labels = tuple(label for each in own for label in each.labels)
            starts = tuple(range(0, 2 * size, 2))
            documents.append(
                Document(tokens, labels=labels, scheme=Scheme.IOB2, id=f"d{number}", sentence_starts=starts)
            )
    if len(sizes) == 1:
        units = list(range(len(units)))
    return a_split(documents), units


class TestFolds:
    @given(splits(), st.integers(2, 8), st.integers(0, 3))
    def test_each_sentence_is_in_one_fold_and_documents_stay_whole(self, drawn, count, seed):
        split, units = drawn
        if len(set(units)) < count:
            with pytest.raises(CorpusError, match=f"too few for {count} folds"):
                make_folds(split, count, seed)
            return
        folds = make_folds(split, count, seed)
        assert sorted(number for fold in folds for number in fold) == list(range(len(split)))
        assert all(fold == sorted(fold) and fold for fold in folds)
        owners = [{units[number] for number in fold} for fold in folds]
        assert sum(map(len, owners)) == len(set(units)), "no document is in two folds"
        assert folds == make_folds(split, count, seed)

    def test_types_and_sizes_are_even(self):
        labels = ["B-PER"] * 100 + ["B-LOC"] * 35 + ["B-ORG"] * 7 + ["B-MISC"] * 2 + ["O"] * 56
        split = a_split([sentence(number, label) for number, label in enumerate(labels)])
        folds = make_folds(split, 5)
        counts = [Counter(labels[number] for number in fold) for fold in folds]
        assert [len(fold) for fold in folds] == [40] * 5
        for name, total in Counter(labels).items():
            found = [each[name] for each in counts]
            assert max(found) - min(found) <= 1, (name, total)

    def test_large_documents_are_spread(self):
        sizes = [40, 30, 20, 10, 10, 10, 10, 10, 5, 5]
        documents = [
            sentence(number, "B-PER", f"d{document}")
            for document, size in enumerate(sizes)
            for number in range(size)
        ]
        folds = make_folds(a_split(documents), 3)
        assert sorted(map(len, folds)) == [50, 50, 50]

    def test_another_seed_gives_other_folds(self):
        split = a_split([sentence(number) for number in range(40)])
        assert make_folds(split, 4, 0) != make_folds(split, 4, 1)

    def test_plain_tags_are_spread_too(self):
        tags = ["NOUN", "VERB"] * 10 + ["INTJ"] * 5
        documents = [
            Document((f"w{number}",), labels=(tag,), scheme=Scheme.PLAIN) for number, tag in enumerate(tags)
        ]
        folds = make_folds(Split(documents, Scheme.PLAIN, Scheme.PLAIN), 5)
        assert [Counter(tags[number] for number in fold) for fold in folds] == [
            Counter(NOUN=2, VERB=2, INTJ=1)
        ] * 5

    def test_what_is_too_few(self):
        split = a_split([sentence(number, name=f"d{number // 10}") for number in range(20)])
        with pytest.raises(CorpusError, match="2 documents, which are not divided, are too few for 3 folds"):
            make_folds(split, 3)
        with pytest.raises(CorpusError, match="3 sentences are too few for 5 folds"):
            make_folds(a_split([sentence(number) for number in range(3)]), 5)
        with pytest.raises(ValueError, match="1 folds"):
            make_folds(split, 1)


class TestShares:
    @given(splits(), st.lists(st.floats(0.001, 1), min_size=2, max_size=5), st.integers(0, 3))
    def test_smaller_shares_are_part_of_larger_ones(self, drawn, shares, seed):
        split, units = drawn
        parts = [draw_share(split, share, seed) for share in sorted(shares)]
        for smaller, larger in pairwise(parts):
            assert set(smaller) <= set(larger)
        for share, part in zip(sorted(shares), parts, strict=True):
            assert part
            owners = {units[number] for number in part}
            assert len(part) == sum(units.count(owner) for owner in owners), "documents are whole"
            if len(set(units)) == len(units):
                assert len(part) == pytest.approx(max(1, share * len(split)), abs=0.5)
        assert draw_share(split, 1.0, seed) == list(range(len(split)))

    def test_seeds_differ(self):
        split = a_split([sentence(number) for number in range(40)])
        assert draw_share(split, 0.5, 1) != draw_share(split, 0.5, 2)


class TestDivision:
    @given(splits(), st.data())
    def test_both_parts_keep_the_order_and_lose_nothing(self, drawn, data):
        split, _ = drawn
        chosen = data.draw(st.sets(st.integers(0, len(split) - 1)))
        rest, taken = divide(split, chosen)
        assert numbers_of(taken) == sorted(chosen)
        assert numbers_of(rest) == sorted(set(range(len(split))) - chosen)
        assert Counter(rest.labels and map(tuple, rest.labels)) + Counter(map(tuple, taken.labels)) == Counter(
            map(tuple, split.labels)
        )

    def test_documents_stay_documents(self):
        text = [
            Document(
                ("w0", ".", "w1", "."),
                labels=("B-PER", "O", "O", "O"),
                scheme=Scheme.IOB2,
                sentence_starts=(0, 2),
                id="a",
            ),
            sentence(2, name="b"),
        ]
        rest, taken = divide(a_split(text), {0, 1})
        assert [len(each.sentence_starts) for each in taken.documents] == [2]
        assert [each.id for each in rest.documents] == ["b"]

    def test_places_of_repaired_labels_move_along(self):
        split = Split(
            [sentence(number) for number in range(4)],
            Scheme.IOB2,
            Scheme.IOB2,
            strays=2,
            stray_places=[(1, 0, "I-X"), (3, 1, "I-Y")],
        )
        rest, taken = divide(split, {0, 3})
        assert (rest.strays, rest.stray_places) == (1, [(0, 0, "I-X")])
        assert (taken.strays, taken.stray_places) == (1, [(1, 1, "I-Y")])


def test_unlabelled_units_are_known_as_such():
    documents = [sentence(0), Document(("w1", "."), labels=("O", UNKNOWN), scheme=Scheme.IOB2)]
    assert [unit.is_known for unit in units_of(documents)] == [True, False]
