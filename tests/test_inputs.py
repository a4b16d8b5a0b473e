"""Inputs: vocabularies of the training documents alone, encoding, and what a saved model gives back."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import CLOSE, initialized, restored, small_config, small_model

from nertool.config import schema
from nertool.data.encoding import EncodedCorpus
from nertool.data.vectors import Vectors
from nertool.errors import CorpusError
from nertool.model import encoders
from nertool.model.batch import Batch
from nertool.model.dropout import Noise
from nertool.model.inputs import BUILT_IN, input_class
from nertool.model.inputs.base import Input, Resources
from nertool.model.inputs.column import Column
from nertool.model.inputs.gazetteer import BEGIN, END, INSIDE, NONE, SINGLE, Gazetteer, read_phrases
from nertool.model.inputs.words import UNKNOWN_ROW, Words
from nertool.model.model import fit_labels, new_model
from nertool.text.document import Document, Origin
from nertool.text.schemes import Scheme

SENTENCES = [Document(("The", "cat", "saw", "Ada")), Document(("the", "cat", "in", "1987"))]


def fitted(kind: str, documents=SENTENCES, resources: Resources | None = None, **own) -> Input:
    entry = small_config({kind: {"kind": kind, **own}}).inputs[kind]
    return input_class(entry).fit(kind, entry, documents, resources or Resources())


def vectors(words: list[str], dimensions: int = 2, base: float = 10.0) -> Vectors:
    matrix = base + np.arange(len(words) * dimensions, dtype=np.float32).reshape(len(words), dimensions)
    return Vectors(words, matrix, Path("own.txt"))


def words_with(files: list[Vectors], **own) -> tuple[Words, Resources]:
    resources = Resources({f"{number}.txt": each for number, each in enumerate(files)})
    entry = schema.WordsConfig(vectors=tuple(resources.vectors), **own)
    return Words.fit("words", entry, SENTENCES, resources), resources


class TestWords:
    def test_they_are_those_of_training_the_most_frequent_first(self):
        words = fitted("words")
        assert words.words == ["cat", "1987", "Ada", "The", "in", "saw", "the"]
        assert words.encode_forms(words.words).values.tolist() == list(range(1, 8))

    def test_other_words_fall_back_to_lower_case_then_to_zeros_then_to_unknown(self):
        words = Words("words", schema.WordsConfig(), ["cat", "the", "00", "a0b"], 5)
        rows = {"cat": 1, "CAT": 1, "The": 2, "17": 3, "A9B": 4, "dog": UNKNOWN_ROW, "": UNKNOWN_ROW}
        assert words.encode_forms(list(rows)).values.tolist() == list(rows.values())

    def test_rare_words_are_left_out_unless_they_have_a_vector(self):
        # "Ada" is found in the vectors in lower case.
        words, _ = words_with([vectors(["ada", "dog"])], minimum_count=2)
        assert words.words == ["cat", "Ada", "ada", "dog"]

    def test_words_of_the_vectors_that_training_never_saw_are_added_up_to_a_number(self):
        files = [vectors(["dog", "cat", "emu"]), vectors(["fox", "dog", "gnu"])]
        for number, wanted in ((100, ["dog", "emu", "fox", "gnu"]), (3, ["dog", "emu", "fox"]), (0, [])):
            assert words_with(files, extra_rows=number)[0].words[7:] == wanted

    def test_the_table_has_pretrained_vectors_side_by_side_and_random_ones_elsewhere(self):
        words, resources = words_with([vectors(["cat", "dog"]), vectors(["ada", "cat"], 3, base=50.0)])
        assert words.dimensions == 5
        module = initialized(words.module(Noise(1)))
        before = module.weight.detach().clone()
        words.initial_weights(resources, module)
        table = module.weight.detach()
        assert table[words.rows["cat"]].tolist() == [10, 11, 53, 54, 55]
        for word, parts in {"dog": ([12, 13], None), "Ada": (None, [50, 51, 52]), "saw": (None, None)}.items():
            row = words.rows[word]
            assert table[row, :2].tolist() == (parts[0] or before[row, :2].tolist())
            assert table[row, 2:].tolist() == (parts[1] or before[row, 2:].tolist())
        assert torch.equal(table[UNKNOWN_ROW], before[UNKNOWN_ROW])

    def test_the_size_is_the_config_s_or_that_of_the_files(self):
        assert fitted("words", dimensions=None).dimensions == 100
        assert fitted("words", dimensions=7).dimensions == 7

    @pytest.mark.parametrize(
        "state",
        [{"words": ["a"]}, {"words": ["a", "a"], "dimensions": 3}, {"words": [1], "dimensions": 3}]
        + [{"words": ["a"], "dimensions": wrong} for wrong in (0, "3", True, 2.0)]
        + [["a"], None, {"words": "ab", "dimensions": 3}],
    )
    def test_a_state_that_is_none_is_refused(self, state):
        with pytest.raises((ValueError, TypeError, LookupError)):
            Words.restore("words", schema.WordsConfig(), state)


class TestCharacters:
    @pytest.mark.parametrize("network", ["cnn", "lstm", "gru"])
    def test_they_are_those_of_training(self, network):
        characters = fitted("characters", network=network)
        assert characters.characters == sorted(set("ThecatsawAdathein1987"))

    def test_words_of_the_vectors_bring_none(self):
        resources = Resources({"0.txt": vectors(["żółw"])})
        documents = [document.with_labels(["O"] * 4, Scheme.IOB2) for document in SENTENCES]
        config = small_config({"words": {"vectors": "0.txt", "dimensions": None}})
        model = new_model(config, documents, Scheme.IOB2, resources)
        assert "żółw" in model.inputs["words"].words
        assert "ż" not in model.inputs["characters"].characters


class TestLabels:
    @pytest.mark.parametrize("labels", [("O", "B-PER"), ("VERB", "NOUN")])
    def test_outside_comes_first_where_there_is_one(self, labels):
        document = Document(("a", "b"), labels=labels, scheme=Scheme.PLAIN)
        assert fit_labels([document], Scheme.PLAIN) == (["O", "B-PER"] if "O" in labels else ["NOUN", "VERB"])

    def test_a_scheme_of_spans_has_outside_seen_or_not_and_unknown_is_no_label(self):
        assert fit_labels([Document(("a", "b"), labels=("B-X", ""))], Scheme.IOB2) == ["O", "B-X"]
        assert fit_labels([], Scheme.IOB2, ["I-Y"]) == ["O", "I-Y"]


def tagged(*tags: str, **more) -> Document:
    return Document(tuple(f"w{n}" for n in range(len(tags))), columns={"pos": tags, **more})


class TestColumn:
    def test_values_of_training_have_numbers_and_others_are_unknown(self):
        column = fitted("column", [tagged("N", "V", "N"), tagged("X")], column="pos")
        assert column.values == ["N", "V", "X"]
        assert column.encode_documents([tagged("V", "new"), Document(()), tagged("N")]).values.tolist() == [
            2,
            0,
            1,
        ]

    def test_rare_values_are_unknown(self):
        column = fitted("column", [tagged("N", "V", "N")], column="pos", minimum_count=2)
        assert column.values == ["N"]

    def test_training_documents_without_the_column_are_refused(self):
        documents = [
            tagged("N"),
            Document(("a",), columns={"chunk": ("x",)}, origin=Origin("a.txt", "line", (7,))),
        ]
        wanted = (
            r"a\.txt, line 7: there is no column 'pos', which the model needs for its input 'column' \(further "
            r"columns of this text: 'chunk'\)\. Give a file .* columns.*corpus\.columns.*columns=\{'pos'"
        )
        with pytest.raises(CorpusError, match=wanted):
            fitted("column", documents, column="pos")

    def test_so_are_those_to_tag_and_columns_of_another_length(self):
        column = fitted("column", [tagged("N")], column="pos")
        with pytest.raises(CorpusError, match=r"no column 'pos'.*\(further columns of this text: none\)"):
            column.encode_documents([tagged("N"), Document(("a",))])
        origin = Origin("b.json", "row", (3,))
        with pytest.raises(CorpusError, match=r"b\.json: row 3: column 'pos' has 1 values for 2 tokens"):
            column.check(Document(("a", "b"), columns={"pos": ("N",)}, origin=origin))
        column.check(Document(()))

    def test_dropout_hides_its_share_of_the_values_in_training_alone(self):
        module = initialized(fitted("column", [tagged(*"ABC")], column="pos", dropout=0.3).module(Noise(1)))
        values = torch.randint(1, 4, (60, 70))
        plain = module.eval()(values)
        torch.testing.assert_close(plain, module.weight[values], **CLOSE)
        trained = module.train()(values)
        hidden = (trained == module.weight[0]).all(-1)
        assert hidden.float().mean() == pytest.approx(0.3, abs=0.03)
        assert torch.equal(trained[~hidden], plain[~hidden])


def gazetteer(tmp_path, text: str, name: str = "places.txt", **own) -> Gazetteer:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return fitted("gazetteer", files=str(tmp_path / name), **own)


def positions(one: Input, *sentences: str) -> list[list[int]]:
    return one.encode_documents([Document(tuple(text.split())) for text in sentences]).values.tolist()


class TestGazetteer:
    def test_positions_in_phrases_by_type(self, tmp_path):
        one = gazetteer(tmp_path, "New York City\nYork\tCOUNTY\nOslo\nthe # 1\tSONG\n")
        assert list(one.phrases) == ["places", "COUNTY", "SONG"]
        assert positions(one, "New York City and Oslo", "York", "the # 1") == [
            [BEGIN, NONE, NONE],
            [INSIDE, SINGLE, NONE],
            [END, NONE, NONE],
            [NONE, NONE, NONE],
            [SINGLE, NONE, NONE],
            [NONE, SINGLE, NONE],
            [NONE, NONE, BEGIN],
            [NONE, NONE, INSIDE],
            [NONE, NONE, END],
        ]

    def test_the_longest_phrase_counts_and_of_equally_long_ones_the_first(self, tmp_path):
        one = gazetteer(tmp_path, "a b\nb c\nb c d\nx y\ny z\n")
        assert positions(one, "a b c d x y z") == [[n] for n in (NONE, BEGIN, INSIDE, END, BEGIN, END, NONE)]

    def test_no_phrase_crosses_the_end_of_a_sentence(self, tmp_path):
        one = gazetteer(tmp_path, "New York\n")
        document = Document(("in", "New", "York", "New"), sentence_starts=(0, 2))
        assert one.encode_documents([document, Document(("York",))]).values.tolist() == [[NONE]] * 5

    def test_case_counts_unless_it_does_not(self, tmp_path):
        assert positions(gazetteer(tmp_path, "Oslo\n"), "OSLO Oslo") == [[NONE], [SINGLE]]
        assert positions(gazetteer(tmp_path, "Oslo\n", lowercase=True), "OSLO osLo") == [[SINGLE], [SINGLE]]

    def test_phrases_match_text_tokenized_at_whitespace_and_by_a_tokenizer(self, tmp_path):
        one = gazetteer(tmp_path, "Smith (John)\n")
        assert positions(one, "Smith (John)") == [[BEGIN], [END]]
        assert positions(one, "Smith ( John )") == [[BEGIN], [INSIDE], [INSIDE], [END]]

    def test_lines(self, tmp_path):
        path = tmp_path / "x.list.txt"
        path.write_text("# a comment\n\n \t \n#tag\n New   York \n#\nOslo\tCITY\n# no\tX\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=r"x\.list\.txt, line 3: expected a phrase"):
            path.write_text("\n \n\tCITY\n", encoding="utf-8")
            list(read_phrases(path))
        path.write_text("# a comment\n\n  \n#tag\n New   York \n#\nOslo\tBIG  CITY\n# no\tX\n", encoding="utf-8")
        assert list(read_phrases(path)) == [("#tag", "x"), ("New York", "x"), ("#", "x"), ("Oslo", "BIG CITY")]

    @pytest.mark.parametrize("line", ["Oslo\t", "Oslo\tA\tB", "\tA"])
    def test_wrong_lines_are_refused(self, tmp_path, line):
        with pytest.raises(CorpusError, match=r"places\.txt, line 2: expected a phrase, .*found"):
            gazetteer(tmp_path, f"Rome\n{line}\n")

    def test_files_without_a_phrase_are_refused(self, tmp_path):
        with pytest.raises(CorpusError, match=r"places\.txt: found no phrase"):
            gazetteer(tmp_path, "# nothing\n")

    def test_strange_tokens_are_matched_or_not_but_harmless(self, tmp_path):
        one = gazetteer(tmp_path, "a\n")
        document = Document(("a", "\ud800", "", "\n", "x\u00a0y", "a"))
        assert (
            one.encode_documents([document, Document(()), document]).values[:, 0].tolist()
            == [4, 0, 0, 0, 0, 4] * 2
        )
        assert one.encode_documents([]).values.shape == (0, 1)

    def test_a_new_vocabulary_finds_the_same(self, tmp_path, monkeypatch):
        one = gazetteer(tmp_path, "New York\nOslo\n")
        texts = [f"w{n} New York x{n} Oslo" for n in range(50)]
        wanted = positions(one, *texts)
        monkeypatch.setattr("nertool.model.inputs.gazetteer._STRINGS", 20)
        monkeypatch.setattr("nertool.model.inputs.gazetteer._TOKENS_AT_ONCE", 10)
        vocabulary = one._vocabulary
        assert positions(one, *texts) == wanted
        assert one._vocabulary is not vocabulary
        assert len(one._vocabulary.strings) < 60

    @given(
        st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=1, max_size=5),
        st.lists(st.lists(st.sampled_from("abcd"), max_size=9), max_size=4),
    )
    def test_all_is_as_a_plain_search_finds_it(self, phrases, sentences):
        one = Gazetteer("g", schema.GazetteerConfig(files="x"), {"T": [" ".join(phrase) for phrase in phrases]})
        wanted: list[int] = []
        for tokens in sentences:
            matches = [(len(p), -n) for n in range(len(tokens)) for p in phrases if tokens[n : n + len(p)] == p]
            own = [NONE] * len(tokens)
            for size, at in sorted(set(matches), reverse=True):
                if own[-at : -at + size] == [NONE] * size:
                    own[-at : -at + size] = [BEGIN, *[INSIDE] * (size - 2), END] if size > 1 else [SINGLE]
            wanted += own
        documents = [Document(tuple(tokens)) for tokens in sentences]
        assert one.encode_documents(documents).values[:, 0].tolist() == wanted

    def test_its_vectors_are_concatenated_over_types_and_hidden_together(self, tmp_path):
        one = gazetteer(tmp_path, "Oslo\nOslo\tB\n", dimensions=3, dropout=0.4)
        module = initialized(one.module(Noise(1)))
        assert module.output_size == 6
        features = torch.randint(1, 5, (40, 50, 2)).to(torch.int8)
        plain, table = module.eval()(features), module.weight.view(2, 5, 3)
        wanted = torch.cat([table[number][features[..., number].long()] for number in range(2)], -1)
        torch.testing.assert_close(plain, wanted, **CLOSE)
        trained = module.train()(features)
        hidden = (trained == table[:, 0].flatten()).all(-1)
        assert hidden.float().mean() == pytest.approx(0.4, abs=0.04)
        assert torch.equal(trained[~hidden], plain[~hidden])

    def test_a_model_needs_no_file(self, tmp_path):
        one = gazetteer(tmp_path, "Oslo\nNew York\tB\n")
        (tmp_path / "places.txt").unlink()
        assert positions(restored(one), "Oslo New York") == positions(one, "Oslo New York")


SETTINGS = {
    "words": {},
    "characters": {},
    "recurrent": {"kind": "characters", "network": "gru"},
    "case": {},
    "column": {"column": "pos"},
    "gazetteer": {"files": "phrases.txt"},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_restored_input_is_the_same(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("phrases.txt").write_text("Fab 7a\ncab\tB\n")
    model = small_model(small_config({kind: {"kind": kind, **SETTINGS[kind]}}))
    one = model.inputs[kind]
    again = restored(one)
    assert type(again) is type(one)
    shapes = [{k: v.shape for k, v in each.module(Noise(1)).state_dict().items()} for each in (one, again)]
    assert shapes[0] == shapes[1]
    assert again.describe() == one.describe() != ""
    document = Document(("Fab", "7a", "cab", "zz"), columns={"pos": tuple("NVD?")})
    for each in (again, one):
        each.check(document)
    if one.context_free:
        forms = ["", *document.tokens]
        tables = [each.encode_forms(forms).select(np.arange(5)) for each in (one, again)]
    else:
        tables = [each.encode_documents([document]).select(np.arange(4)) for each in (one, again)]
    assert all(map(np.array_equal, *tables))
    with pytest.raises((ValueError, TypeError, LookupError)):
        if kind == "case":
            raise ValueError("it has no state")
        input_class(one.config).restore(kind, one.config, {"other": 1})


def test_each_kind_of_the_config_has_its_class():
    assert {each.Config for each in BUILT_IN} == set(schema.INPUTS) - {schema.NoInputConfig}
    assert {each.Config for each in encoders.BUILT_IN} == set(schema.ENCODERS)


class LengthConfig(schema.Section):
    kind: str = "length"


class Length(Column):
    """An input of another package."""

    Config = LengthConfig


class Mean(encoders.NoEncoder):
    Config = LengthConfig


def test_a_column_helps_where_words_say_nothing():
    random.seed(1)
    pairs = [[(random.choice("xyz"), random.choice("NV")) for _ in range(5)] for _ in range(30)]
    documents = [
        Document(
            tuple(word for word, _ in pair),
            labels=tuple("B-X" if tag == "N" else "O" for _, tag in pair),
            scheme=Scheme.IOB2,
            columns={"pos": tuple(tag for _, tag in pair)},
        )
        for pair in pairs
    ]
    config = small_config({"characters": None, "pos": {"kind": "column", "column": "pos"}})
    model = new_model(config, documents, Scheme.IOB2, Resources())
    corpus = EncodedCorpus(model.inputs, documents, model.label_numbers)
    batch = Batch.of(corpus.batch(np.arange(len(documents))))
    dense = [each for each in model.network.parameters() if each is not model.network.inputs.words.weight]
    rule = torch.optim.Adam(dense, 0.05)
    for _ in range(40):
        rule.zero_grad()
        model.network.loss(batch).backward()
        rule.step()
    best = model.network.eval().decoder.best_labels(model.network(batch), batch.layout)
    assert torch.equal(best, batch.labels)
