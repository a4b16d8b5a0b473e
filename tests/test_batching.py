"""Forms as numbers, and batches of them, against look-ups one by one."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import small_config

from nertool.data.encoding import (
    EncodedCorpus,
    Forms,
    Table,
    concatenate,
    reading_order,
    training_order,
)
from nertool.data.vectors import look_up
from nertool.model.batch import Layout
from nertool.model.inputs import Input
from nertool.model.inputs.case import Case, case_of
from nertool.model.inputs.characters import (
    BOUNDARY,
    UNKNOWN_CHARACTER,
    Characters,
    ConvolvedCharacters,
    RecurrentCharacters,
)
from nertool.model.inputs.column import Column
from nertool.model.inputs.words import UNKNOWN_ROW, Words
from nertool.tagging.prediction import _STEP_COST, cheapest_order
from nertool.text.document import UNKNOWN, Document

LABELS = ["O", "B-X", "I-X"]
NUMBERS = {label: number for number, label in enumerate(LABELS)}
tokens = st.text("abAB01é -", min_size=1, max_size=12)
corpora = st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=12)


def spelling(width: int = 3, maximum: int = 9, *, distinct: bool = True) -> Characters:
    own = {"width": width} if distinct else {"network": "lstm"}
    entry = small_config({"characters": {**own, "maximum": maximum}}).inputs["characters"]
    return (ConvolvedCharacters if distinct else RecurrentCharacters)("characters", entry, ["a", "b", "A", "0"])


def encoders(spelled: Characters | None = None) -> dict[str, Input]:
    entries = small_config({"case": {}, "tags": {"kind": "column", "column": "pos"}}).inputs
    return {
        "words": Words("words", entries["words"], ["ab", "a0", "AB", "b", "é"], 5),
        "characters": spelled or spelling(),
        "case": Case("case", entries["case"]),
        "tags": Column("tags", entries["tags"], ["N", "V"]),
    }


def row_of(form: str) -> int:
    found = look_up(form, {"ab": 1, "a0": 2, "AB": 3, "b": 4, "é": 5})
    return UNKNOWN_ROW if found is None else found


def naive_windows(
    form: str, width: int = 3, maximum: int = 9, distinct: bool = True, numbers: str = "abA0"
) -> list[list[int]]:
    """Return the characters around each character, boundary where there are none, in order; each once or all."""
    own = [2 + numbers.index(c) if c in numbers else UNKNOWN_CHARACTER for c in form[:maximum]] or [BOUNDARY]
    half = width // 2
    inside = range(len(own))
    windows: list[list[int]] = []
    for middle in inside:
        window = [own[at] if at in inside else BOUNDARY for at in range(middle - half, middle + half + 1)]
        if not distinct or window not in windows:
            windows.append(window)
    return windows


def spellings(windows: np.ndarray, counts: np.ndarray) -> list[list[list[int]]]:
    """Return the windows of each form by itself."""
    return [part.tolist() for part in np.split(windows, np.cumsum(counts)[:-1])]


class TestForms:
    @given(st.lists(tokens, max_size=30), st.sampled_from([1, 3, 5]), st.integers(1, 12), st.booleans())
    def test_features_are_those_of_a_look_up_of_each_form(self, words, width, maximum, distinct):
        width = width if distinct else 1
        forms = Forms(encoders(spelling(width, maximum, distinct=distinct)))
        numbers = [forms[word] for word in words]
        assert numbers == [forms[word] for word in words]
        names = list(forms)
        assert [names[number] for number in numbers] == words
        assert len(forms) == len({"", *words})
        tables = forms.drain()
        assert list(tables) == ["words", "characters", "case"], "of context-free inputs alone"
        assert {len(table) for table in tables.values()} == {len(names)}
        assert tables["words"].values.tolist() == list(map(row_of, names))
        assert tables["case"].values.tolist() == list(map(case_of, names))
        result = spellings(*tables["characters"].select(np.arange(len(names))))
        assert result == [naive_windows(name, width, maximum, distinct) for name in names]

    @given(st.lists(tokens, min_size=1, max_size=20), st.randoms())
    def test_forms_can_be_selected_in_any_order_and_twice(self, words, random):
        forms = Forms(encoders())
        numbers = [forms[word] for word in words] * 2
        random.shuffle(numbers)
        names = list(forms)
        tables = forms.drain()
        windows, counts = tables["characters"].select(np.array(numbers))
        assert spellings(windows, counts) == [naive_windows(names[n]) for n in numbers]
        (rows,) = tables["words"].select(np.array(numbers))
        assert rows.tolist() == [row_of(names[n]) for n in numbers]

    def test_form_zero_is_padding(self):
        forms = Forms(encoders())
        assert forms[""] == 0
        tables = forms.drain()
        windows, counts = tables["characters"].select(np.array([0]))
        assert tables["words"].values.tolist() == [UNKNOWN_ROW]
        assert (windows.tolist(), counts.tolist()) == ([[BOUNDARY] * 3], [1])

    def test_draining_again_gives_the_forms_added_since(self):
        forms = Forms(encoders())
        forms["ab"], forms["zz"]
        first = forms.drain()
        assert (forms["ab"], forms["b"], forms["a0x"]) == (1, 3, 4)
        second = forms.drain()
        assert second["words"].values.tolist() == [row_of("b"), UNKNOWN_ROW]
        windows = spellings(*second["characters"].select(np.arange(2)))
        assert windows == [naive_windows("b"), naive_windows("a0x")]
        assert {len(table) for table in forms.drain().values()} == {0}
        for name, table in first.items():
            both = concatenate([table, second[name]])
            assert len(both) == 5
            again = Forms(encoders())
            for form in ("ab", "zz", "b", "a0x"):
                again[form]
            wanted = again.drain()[name].select(np.arange(5))
            assert all(map(np.array_equal, both.select(np.arange(5)), wanted))


class TestEncodedCorpus:
    @given(corpora, st.data())
    def test_a_batch_holds_what_a_look_up_token_by_token_finds(self, sentences, data):
        labels = [
            data.draw(st.lists(st.sampled_from([*LABELS, "B-NEW", UNKNOWN]), min_size=len(s), max_size=len(s)))
            for s in sentences
        ]
        tags = [data.draw(st.lists(st.sampled_from("NVX"), min_size=len(s), max_size=len(s))) for s in sentences]
        documents = [
            Document(tuple(own), labels=tuple(row), columns={"pos": tuple(pos)})
            for own, row, pos in zip(sentences, labels, tags, strict=True)
        ]
        corpus = EncodedCorpus(encoders(), documents, NUMBERS)
        assert len(corpus) == len(sentences)
        assert corpus.token_count == sum(map(len, sentences))
        chosen = data.draw(st.permutations(range(len(sentences))))[: data.draw(st.integers(1, len(sentences)))]
        batch = corpus.batch(np.array(chosen))
        assert batch.lengths.tolist() == [len(sentences[place]) for place in chosen]
        assert batch.forms.shape == (batch.lengths.max(), len(chosen))
        assert batch.token_count == batch.lengths.sum()
        rows, cases = (batch.form_features[name][0] for name in ("words", "case"))
        windows = spellings(*batch.form_features["characters"])
        known = {**NUMBERS, UNKNOWN: -1}
        for column, place in enumerate(chosen):
            for step in range(len(batch.forms)):
                inside = step < len(sentences[place])
                form = sentences[place][step] if inside else ""
                number = batch.forms[step, column]
                assert rows[number] == row_of(form)
                assert cases[number] == case_of(form)
                assert windows[number] == naive_windows(form)
                assert batch.labels[step, column] == (known.get(labels[place][step], 0) if inside else 0)
                tag = {"N": 1, "V": 2}.get(tags[place][step], 0) if inside else 0
                assert batch.token_features["tags"][0][step, column] == tag
        # Nothing is computed twice, and nothing that no token needs.
        distinct = {token for place in chosen for token in sentences[place]}
        distinct |= {""} if len(set(batch.lengths.tolist())) > 1 else set()
        assert len(rows) == len(distinct)
        assert batch.labels.dtype == np.int64

    def test_labels_may_be_absent(self):
        corpus = EncodedCorpus(encoders(), [Document(("a", "b"), columns={"pos": ("N", "V")})])
        assert corpus.batch(np.array([0])).labels is None

    def test_features_of_tokens_may_have_several_values(self):
        class Pairs:
            context_free = False

            def encode_documents(self, documents):
                count = sum(map(len, documents))
                return Table(np.arange(1, 2 * count + 1).reshape(count, 2))

        corpus = EncodedCorpus({"pairs": Pairs()}, [Document(("a", "b")), Document(("c",))])
        features = corpus.batch(np.array([1, 0])).token_features["pairs"][0]
        assert features.tolist() == [[[5, 6], [1, 2]], [[0, 0], [3, 4]]]


class TestLayout:
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
    def test_sentences_are_reversed_within_their_own_length(self, lengths):
        layout = Layout.of(np.array(lengths))
        assert layout.lengths.tolist() == lengths
        assert layout.mask.sum(0).tolist() == lengths
        assert layout.ragged == (len(set(lengths)) > 1)
        by_mask = Layout.of_mask(layout.mask)
        assert by_mask.ragged
        assert by_mask.lengths.tolist() == lengths
        for order in (layout.order, by_mask.order) if layout.ragged else (by_mask.order,):
            for column, length in enumerate(lengths):
                rest = list(range(length, max(lengths)))
                assert order[:, column].tolist() == [*reversed(range(length)), *rest]


class TestTrainingOrder:
    @given(st.lists(st.integers(1, 9), min_size=1, max_size=120), st.integers(1, 15), st.integers(0, 1000))
    def test_every_sentence_once_and_nearly_all_batches_of_one_length(self, lengths, size, seed):
        lengths = np.array(lengths)
        batches = training_order(lengths, size, np.random.default_rng(seed))
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert all(1 <= len(batch) <= size for batch in batches)
        # Only the two ends of the sorted row may be cut short.
        assert sum(len(batch) < size for batch in batches) <= 2
        mixed = [batch for batch in batches if len(set(lengths[batch].tolist())) > 1]
        assert len(mixed) <= len(set(lengths.tolist())) - 1

    def test_the_generator_decides(self):
        lengths = np.random.default_rng(1).integers(1, 6, size=200)

        def order(*seed: int) -> list[list[int]]:
            return [batch.tolist() for batch in training_order(lengths, 10, np.random.default_rng(seed))]

        assert order(1, 0) == order(1, 0)
        assert order(1, 0) != order(1, 1) != order(2, 1)

    def test_batches_do_not_come_by_length_and_others_meet_in_each_epoch(self):
        lengths = np.repeat(np.arange(1, 21), 20)
        meetings: Counter[frozenset[int]] = Counter()
        for epoch in range(5):
            batches = training_order(lengths, 10, np.random.default_rng((1, epoch)))
            means = [lengths[batch].mean() for batch in batches]
            assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.6
            meetings.update(frozenset(batch.tolist()) for batch in batches)
        assert max(meetings.values()) == 1

    def test_even_sentences_of_lengths_of_their_own_do_not_always_meet_the_same(self):
        lengths = np.arange(1, 31)
        epochs = [training_order(lengths, 10, np.random.default_rng((1, epoch))) for epoch in range(5)]
        assert len({frozenset(map(frozenset, (batch.tolist() for batch in batches))) for batches in epochs}) > 1


class TestReadingOrder:
    @given(st.lists(st.integers(1, 40), max_size=150), st.integers(1, 120))
    def test_every_sentence_once_and_no_more_than_the_limit(self, lengths, limit):
        lengths = np.array(lengths, dtype=np.int64)
        batches = list(reading_order(lengths, limit))
        assert sorted(place for batch in batches for place in batch.tolist()) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= limit

    def test_many_sentences_of_few_lengths_are_not_mixed(self):
        lengths = np.random.default_rng(1).integers(5, 9, size=4000)
        for batch in reading_order(lengths, 200):
            assert len(set(lengths[batch].tolist())) <= 2
        mixed = [batch for batch in reading_order(lengths, 200) if len(set(lengths[batch].tolist())) > 1]
        assert len(mixed) <= 3


class TestCheapestOrder:
    @given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 120))
    def test_every_sentence_once_and_no_more_than_the_limit(self, lengths, limit):
        lengths = np.array(lengths, dtype=np.int64)
        batches = list(cheapest_order(lengths, limit))
        assert sorted(place for batch in batches for place in batch.tolist()) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= limit

    @given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(60, 400))
    def test_no_other_cuts_take_less_time(self, lengths, limit):
        def time(batches):
            return sum(max(batch) * (_STEP_COST + len(batch)) for batch in batches)

        ordered = sorted(lengths)
        others = []
        for cuts in product([False, True], repeat=len(ordered) - 1):
            batches = [[ordered[0]]]
            for length, new in zip(ordered[1:], cuts, strict=True):
                batches.append([length]) if new else batches[-1].append(length)
            if all(len(batch) == 1 or len(batch) * max(batch) <= limit for batch in batches):
                others.append(time(batches))
        array = np.array(lengths)
        assert time([array[batch].tolist() for batch in cheapest_order(array, limit)]) == min(others)


@pytest.mark.parametrize(
    ("forms", "case"),
    [
        (["", "1984", ",", "東京", "3-1", "\ud800"], 0),
        (["house", "e-mail", "1st", "ß", "élan", "x"], 1),
        (["NATO", "U.S.", "B2B", "ÉTÉ", "A4", "II"], 2),
        (["Paris", "I", "É", "Élan", "Jean-luc", "Ab1"], 3),
        (["iPhone", "McDonald", "PhD", "Jean-Luc", "eBay", "1Password", "'Tis"], 4),
    ],
)
def test_how_a_form_uses_capitals(forms, case):
    assert {form: case_of(form) for form in forms} == dict.fromkeys(forms, case)
