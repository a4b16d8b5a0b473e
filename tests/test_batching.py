"""Words, characters and labels as numbers, and batches of them, against look-ups one by one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nertool.data.batching import EncodedCorpus, Forms, case_of, reading_order, training_order
from nertool.data.vectors import Vectors
from nertool.data.vocabulary import (
    BORDER,
    UNKNOWN_CHARACTER,
    UNKNOWN_ROW,
    Lexicon,
    build_lexicon,
    initial_rows,
)
from nertool.text.schemes import Scheme

LABELS = ["O", "B-X", "I-X"]
tokens = st.text("abAB01é -", min_size=1, max_size=12)
corpora = st.lists(st.lists(tokens, min_size=1, max_size=8), min_size=1, max_size=12)


def lexicon() -> Lexicon:
    return Lexicon(["ab", "a0", "AB", "b", "é"], ["a", "b", "A", "0"], LABELS, Scheme.IOB2)


def naive_windows(form: str, known: Lexicon, width: int, maximum: int, distinct: bool = True) -> list[list[int]]:
    """The characters around each character, border where there are none, in the order met; each once or all."""
    kinds = [known.kinds.get(character, UNKNOWN_CHARACTER) for character in form[:maximum]] or [BORDER]
    half = width // 2
    places = range(len(kinds))
    found: list[list[int]] = []
    for place in places:
        window = [kinds[at] if at in places else BORDER for at in range(place - half, place + half + 1)]
        if not distinct or window not in found:
            found.append(window)
    return found


def spellings(windows: np.ndarray, lengths: np.ndarray) -> list[list[list[int]]]:
    """The windows of each form by itself."""
    return [part.tolist() for part in np.split(windows, np.cumsum(lengths)[:-1])]


class TestForms:
    @given(st.lists(tokens, max_size=30), st.sampled_from([1, 3, 5]), st.integers(1, 12), st.booleans())
    def test_rows_and_windows_are_those_of_a_look_up_of_each_form(self, words, width, maximum, distinct):
        known = lexicon()
        forms = Forms(known, width, maximum, distinct=distinct)
        numbers = [forms[word] for word in words]
        assert numbers == [forms[word] for word in words]
        names = list(forms)
        assert [names[number] for number in numbers] == words
        assert len(forms) == len({"", *words})
        tables = forms.drain()
        assert tables.rows.tolist() == [known.row(name) for name in names]
        assert tables.cases.tolist() == [case_of(name) for name in names]
        found = spellings(*tables.select(np.arange(len(names))))
        assert found == [naive_windows(name, known, width, maximum, distinct) for name in names]

    @given(st.lists(tokens, min_size=1, max_size=20), st.randoms())
    def test_forms_can_be_selected_in_any_order_and_twice(self, words, random):
        known = lexicon()
        forms = Forms(known, 3, 20)
        numbers = [forms[word] for word in words] * 2
        random.shuffle(numbers)
        names = list(forms)
        windows, lengths = forms.drain().select(np.array(numbers))
        assert spellings(windows, lengths) == [naive_windows(names[n], known, 3, 20) for n in numbers]

    def test_form_zero_pads(self):
        forms = Forms(lexicon(), 3, 20)
        assert forms[""] == 0
        tables = forms.drain()
        windows, lengths = tables.select(np.array([0]))
        assert tables.rows.tolist() == [UNKNOWN_ROW]
        assert windows.tolist() == [[BORDER, BORDER, BORDER]]
        assert lengths.tolist() == [1]

    def test_draining_again_gives_the_forms_added_since(self):
        known = lexicon()
        forms = Forms(known, 3, 20)
        forms["ab"], forms["zz"]
        first = forms.drain()
        assert len(first.rows) == 3
        assert (forms["ab"], forms["b"], forms["a0x"]) == (1, 3, 4)
        second = forms.drain()
        assert second.rows.tolist() == [known.row("b"), UNKNOWN_ROW]
        assert second.cases.tolist() == [1, 1]
        found = spellings(*second.select(np.arange(2)))
        assert found == [naive_windows(form, known, 3, 20) for form in ("b", "a0x")]
        assert len(forms.drain().rows) == 0


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


class TestEncodedCorpus:
    @given(corpora, st.data())
    def test_a_batch_holds_what_a_look_up_token_by_token_finds(self, sentences, data):
        known = lexicon()
        labels = [
            data.draw(st.lists(st.sampled_from(LABELS), min_size=len(s), max_size=len(s))) for s in sentences
        ]
        corpus = EncodedCorpus(Forms(known, 3, 9), sentences, labels, {label: n for n, label in enumerate(LABELS)})
        assert len(corpus) == len(sentences)
        assert corpus.token_count == sum(map(len, sentences))
        chosen = data.draw(st.permutations(range(len(sentences))))[: data.draw(st.integers(1, len(sentences)))]
        batch = corpus.batch(np.array(chosen))
        assert batch.sentences.tolist() == list(chosen)
        assert batch.mask.shape == (max(len(sentences[place]) for place in chosen), len(chosen))
        assert batch.mask.sum(0).tolist() == [len(sentences[place]) for place in chosen]
        assert batch.token_count == sum(len(sentences[place]) for place in chosen)
        found = spellings(batch.windows, batch.window_counts)
        for column, place in enumerate(chosen):
            for step in range(len(batch.mask)):
                inside = step < len(sentences[place])
                form = sentences[place][step] if inside else ""
                number = batch.forms[step, column]
                assert batch.mask[step, column] == inside
                assert batch.rows[number] == known.row(form)
                assert batch.cases[number] == case_of(form)
                assert found[number] == naive_windows(form, known, 3, 9)
                assert batch.labels[step, column] == (LABELS.index(labels[place][step]) if inside else 0)
        # Nothing is computed twice, and nothing that no token needs.
        distinct = {token for place in chosen for token in sentences[place]} | (
            {""} if not batch.mask.all() else set()
        )
        assert len(batch.rows) == len(distinct)
        assert batch.labels.dtype == np.int64

    def test_labels_may_be_unknown_or_absent(self):
        known = lexicon()
        numbers = {label: n for n, label in enumerate(LABELS)}
        corpus = EncodedCorpus(Forms(known, 3, 9), [["a", "b"]], [["I-X", "B-NEW"]], numbers)
        assert corpus.batch(np.array([0])).labels.tolist() == [[2], [0]]
        assert EncodedCorpus(Forms(known, 3, 9), [["a", "b"]]).batch(np.array([0])).labels is None


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


class TestLexicon:
    SENTENCES = (["The", "cat", "saw", "Ada"], ["the", "cat", "in", "1987"])
    TAGS = (["O", "O", "O", "B-PER"], ["O", "O", "O", "O"])

    def vectors(self, words: list[str], dimensions: int = 2, base: float = 10.0) -> Vectors:
        matrix = base + np.arange(len(words) * dimensions, dtype=np.float32).reshape(len(words), dimensions)
        return Vectors(words, matrix, Path("own.txt"))

    def test_it_holds_the_training_words_the_most_frequent_first(self):
        built = build_lexicon(self.SENTENCES, self.TAGS, Scheme.IOB2)
        assert built.words == ["cat", "1987", "Ada", "The", "in", "saw", "the"]
        assert built.characters == sorted(set("ThecatsawAdathein1987"))
        assert built.labels == ["O", "B-PER"]
        assert (built.row_count, built.kind_count) == (8, len(built.characters) + 2)
        assert [built.row(word) for word in built.words] == list(range(1, 8))

    def test_other_words_fall_back_to_lower_case_then_to_zeros_then_to_unknown(self):
        known = Lexicon(["cat", "the", "00", "a0b"], [], ["O"], Scheme.IOB2)
        rows = {word: known.row(word) for word in ("cat", "CAT", "The", "17", "A9B", "dog", "")}
        assert rows == {"cat": 1, "CAT": 1, "The": 2, "17": 3, "A9B": 4, "dog": UNKNOWN_ROW, "": UNKNOWN_ROW}

    def test_rare_words_are_left_out_unless_they_have_a_vector(self):
        built = build_lexicon(self.SENTENCES, self.TAGS, Scheme.IOB2, [self.vectors(["ada", "dog"])], 2)
        # "Ada" is found in the vectors in lower case.
        assert built.words == ["cat", "Ada", "ada", "dog"]

    def test_words_of_the_vectors_that_training_never_saw_are_added_up_to_a_number(self):
        files = [self.vectors(["dog", "cat", "emu"]), self.vectors(["fox", "dog", "gnu"])]

        def extra(number: int) -> list[str]:
            return build_lexicon(self.SENTENCES, self.TAGS, Scheme.IOB2, files, 1, number).words[7:]

        assert extra(100) == ["dog", "emu", "fox", "gnu"]
        assert extra(3) == ["dog", "emu", "fox"]
        assert extra(0) == []

    def test_words_of_the_vectors_bring_no_characters(self):
        built = build_lexicon(self.SENTENCES, self.TAGS, Scheme.IOB2, [self.vectors(["żółw"])])
        assert "ż" not in built.characters

    def test_the_table_has_pretrained_vectors_and_random_ones_elsewhere(self):
        files = [self.vectors(["cat", "dog"]), self.vectors(["ada", "cat"], 3, base=50.0)]
        built = build_lexicon(self.SENTENCES, self.TAGS, Scheme.IOB2, files)
        random = np.random.default_rng(1).normal(size=(built.row_count, 5)).astype(np.float32)
        table = initial_rows(built, files, random)
        np.testing.assert_array_equal(table[built.row("cat")], [10, 11, 53, 54, 55])
        for word, parts in {"dog": ([12, 13], None), "Ada": (None, [50, 51, 52]), "saw": (None, None)}.items():
            row = built.row(word)
            np.testing.assert_array_equal(table[row, :2], parts[0] or random[row, :2])
            np.testing.assert_array_equal(table[row, 2:], parts[1] or random[row, 2:])
        np.testing.assert_array_equal(table[UNKNOWN_ROW], random[UNKNOWN_ROW])
        assert table.dtype == np.float32

    @pytest.mark.parametrize("labels", [["O", "B-PER"], ["VERB", "NOUN"]])
    def test_outside_comes_first_where_there_is_one(self, labels):
        built = build_lexicon([["a", "b"]], [labels], Scheme.PLAIN)
        assert built.labels == (["O", "B-PER"] if "O" in labels else ["NOUN", "VERB"])
