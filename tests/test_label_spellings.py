"""Labels as people write them: what is read, with a note, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nertool.cli.data import check, convert
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split, read_split
from nertool.errors import CorpusError
from nertool.formats.labels import resolve
from nertool.formats.spellings import read_brackets, respell
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme, Span, encode


@pytest.fixture
def read(tmp_path: Path):
    """Read labels, a sentence for each string, from a file of two columns."""

    def read(*sentences: str, **settings: Any) -> Split:
        text = "\n".join("".join(f"w\t{label}\n" for label in each.split()) for each in sentences)
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        return read_split(tmp_path / "a.txt", CorpusConfig(train="unused", **settings), partial=True)

    return read


READ = [
    ("B I O O B O", "B-ENTITY I-ENTITY O O B-ENTITY O", "prefixes without a type, which is taken to be ENTITY"),
    ("B- I- O O B- O", "B-ENTITY I-ENTITY O O B-ENTITY O", "prefixes without a type"),
    ("I I O O I O", "I-ENTITY I-ENTITY O O I-ENTITY O", "prefixes without a type"),
    ("B E S B M E", "B-ENTITY E-ENTITY S-ENTITY B-ENTITY M-ENTITY E-ENTITY", "prefixes without a type"),
    ("B I L U O U", "B-ENTITY I-ENTITY L-ENTITY U-ENTITY O U-ENTITY", "prefixes without a type"),
    ("B_PER I_PER O B_LOC O O", "B-PER I-PER O B-LOC O O", "no hyphen separates from the type: B_PER was read as"),
    ("B:PER I:PER O B:LOC O O", "B-PER I-PER O B-LOC O O", "no hyphen"),
    ("B/PER I/PER O B/geo-loc O O", "B-PER I-PER O B-geo-loc O O", "no hyphen"),
    ("B|PER I|PER O B|LOC O O", "B-PER I-PER O B-LOC O O", "no hyphen"),
    ("PER-B PER-I O LOC-B O O", "B-PER I-PER O B-LOC O O", "behind the type: PER-B was read as B-PER"),
    ("PER_B PER_E O LOC_S O O", "B-PER E-PER O S-LOC O O", "behind the type"),
    ("b-per i-per o b-loc o o", "B-per I-per O B-loc O O", "in lower case"),
    ("b_per i_per O b_loc O O", "B-per I-per O B-loc O O", "in lower case"),
    ("begin-PER inside-PER outside BEGIN_LOC outside O", "B-PER I-PER O B-LOC O O", "in full"),
    ("(PERSON* *) * (GPE) * *", "B-PERSON I-PERSON O B-GPE O O", "brackets"),
    ("PER PER O O LOC O O", "I-PER I-PER O O I-LOC O O", r"types without a prefix \(IO\).* \(LOC, PER\)"),
    ("Übung Übung O O geo-loc O O", "I-Übung I-Übung O O I-geo-loc O O", "types without a prefix"),
]


@pytest.mark.parametrize(("labels", "expected", "note"), READ)
def test_one_meaning_is_read_and_said(read, labels, expected, note):
    outside = labels.split()[-1] if "*" in labels or "o" in labels.split() else "O"
    split = read(labels, f"{outside} {outside}")
    assert split.labels == [expected.split(), ["O", "O"]] and split.scheme is not Scheme.PLAIN
    (said,) = split.notes()
    assert re.search(note, said) and "--set corpus.scheme=plain" in said
    assert read(labels, scheme="plain").labels == [labels.split()]
    assert not read(labels, scheme="plain").notes()


def test_neighbours_of_one_type_are_one_entity_where_prefixes_are_missing(read):
    assert read("PER PER LOC O O O O O").entity_counts() == {"PER": 1, "LOC": 1}


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ("B_PER I_PER O LOC O O", "no hyphen separates"),  # not all of them
        ("PER LOC ORG B_PER O O O O O", "types without a prefix"),
        ("PER _ _ _ LOC _", "types without a prefix"),  # nobody knows what _ stands for
        ("1 0 0 0 2 0", "types without a prefix"),
        ("*[1] PER[1] _ _ LOC[2] _", "number in brackets"),
        ("name=B-PER name=I-PER name=O name=O", "name=B-PER"),
        ("S S E E S", "prefixes without a type"),
        ("B B B B", "prefixes without a type"),
        ("_ _ _", "nothing but '_'"),
    ],
)
def test_several_meanings_are_refused_with_the_setting(read, labels, what):
    with pytest.raises(CorpusError, match=r"line \d: .*set corpus\.scheme=plain.*corpus\.scheme=IO") as caught:
        read(labels)
    assert what in str(caught.value)
    assert read(labels, scheme="plain").scheme is Scheme.PLAIN


def test_plain_tags_are_silent_only_where_they_look_like_nothing_else(read):
    assert read("NN VB NN DT").notes() == []
    (note,) = read("N V ^ O N V").notes()  # a tagset of tweets, in which O is a pronoun
    assert "read as plain tags" in note and "O is among them" in note and "corpus.scheme=IO" in note
    (note,) = read("NN VB DT JJ B-PER").notes()
    assert "although B-PER is among them" in note


def test_types_without_a_prefix_can_be_named(read):
    split = read("PER PER LOC O", scheme="IO")  # O is not the most frequent
    assert split.labels == [["I-PER", "I-PER", "I-LOC", "O"]] and split.scheme is Scheme.IOB1
    with pytest.raises(CorpusError, match="'PER' is not a label of IOB2"):
        read("PER PER LOC O", scheme="IOB2")


def test_a_named_scheme_is_respelled_too(read):
    assert read("B_PER I_PER O", scheme="IOB2").labels == [["B-PER", "I-PER", "O"]]
    with pytest.raises(CorpusError, match="line 3: 'B_PER' is not a label of IOB2"):
        read("B-PER O B_PER", scheme="IOB2")
    with pytest.raises(CorpusError, match="'L-PER' is not a label of IOB2"):
        read("B_PER L_PER O", scheme="IOB2")


def test_of_several_labels_the_first_is_read(read):
    split = read("B-PER|B-ORG I-PER|I-ORG O O|O B-a|b", "B-LOC O")
    assert split.labels == [["B-PER", "I-PER", "O", "O", "B-a|b"], ["B-LOC", "O"]]
    assert split.notes()[0].endswith("3 labels give several at once, such as B-PER|B-ORG: the first was read")
    unknown = read("B-ORG O|B-LOC B-PER", "B-LOC O")
    assert unknown.labels == [["B-ORG", UNKNOWN, "B-PER"], ["B-LOC", "O"]]
    assert "1 label gives several at once" in unknown.notes()[0] and "read as unknown" in unknown.notes()[0]
    assert read("B-PER|B-ORG O", scheme="plain").labels == [["B-PER|B-ORG", "O"]]


def test_labels_that_know_their_scheme_are_left_alone():
    document = Document.from_spans(["a", "b"], [Span(0, 1, "A|B-C")])
    (kept,), facts = resolve([document], "a")
    assert kept.labels == ("B-A|B-C", "O") and not facts.notes


def test_unknown_labels_stay_unknown(read):
    assert read("B_PER ? O B_LOC O").labels == [["B-PER", "", "O", "B-LOC", "O"]]
    assert read("(PER) - * * *").labels == [["B-PER", "", "O", "O", "O"]]


class TestBrackets:
    @pytest.mark.parametrize(
        ("row", "entities", "left_out"),
        [
            ("(A* * *) (B)", [(0, 3, "A"), (3, 4, "B")], []),
            ("(A) (A*) *", [(0, 1, "A"), (1, 2, "A")], []),
            ("(A(B*) *) (C(D))", [(0, 2, "A"), (2, 3, "C")], ["B lies in A", "D lies in C"]),
            ("(A* *)(B* *)", [(0, 2, "A")], ["B shares a token with A"]),
            ("(A* * *", [], ["A has no closing bracket"]),
            ("* *) (B)", [(2, 3, "B")], ["? has no opening bracket"]),
        ],
    )
    def test_the_outermost_are_read(self, row, entities, left_out):
        found, others = read_brackets(row.split())
        assert found == entities
        assert [f"{span.type} {reason}" for span, reason in others] == left_out

    def test_what_is_not_closed_is_unknown(self, read):
        split = read("(A* * *", "(B) * *")
        assert (
            split.labels == [["B-B", "O", "O"]] and "1 that overlap another, or are not closed" in split.notes()[0]
        )


KINDS = st.sampled_from(["PER", "geo-loc", "Ort"])


@given(st.lists(st.lists(KINDS | st.none(), min_size=1, max_size=6), min_size=1, max_size=4), st.data())
def test_rewriting_undoes_a_spelling(drawn, data):
    scheme = data.draw(st.sampled_from([Scheme.IOB2, Scheme.IOBES, Scheme.BILOU, Scheme.BMES]))
    rows = [
        encode([Span(n, n + 1, kind) for n, kind in enumerate(row) if kind], len(row), scheme) for row in drawn
    ]
    rows += [encode([Span(0, 3, "PER")], 4, scheme)]  # all of a scheme, and O
    written = data.draw(
        st.sampled_from(
            [
                lambda prefix, kind: f"{prefix}_{kind}",
                lambda prefix, kind: f"{prefix}:{kind}",
                lambda prefix, kind: f"{kind}-{prefix}",
                lambda prefix, kind: f"{prefix.lower()}-{kind}",
            ]
        )
    )
    spelled = [[name if name == "O" else written(*name.split("-", 1)) for name in row] for row in rows]
    result = respell(spelled)
    assert result is not None and result.rows == rows


class TestCommands:
    def test_how_labels_were_read_is_shown(self, tmp_path):
        source = tmp_path / "a.txt"
        source.write_text("Ada B\nByron I\nleft O\n", encoding="utf-8")
        done = CliRunner().invoke(convert, [str(source), str(tmp_path / "b.txt")])
        assert done.exit_code == 0 and "B was read as B-ENTITY" in done.output, done.output
        assert (tmp_path / "b.txt").read_text() == "Ada B-ENTITY\nByron I-ENTITY\nleft O\n\n"
        done = CliRunner().invoke(check, [str(source)])
        assert done.exit_code == 0 and "B was read as B-ENTITY" in done.output

    def test_a_scheme_without_prefixes_can_be_named(self, tmp_path):
        source = tmp_path / "a.txt"
        source.write_text("Ada PER\nByron PER\nleft O\n", encoding="utf-8")
        done = CliRunner().invoke(convert, [str(source), str(tmp_path / "b.txt"), "--scheme", "IO"])
        assert done.exit_code == 0, done.output
        assert (tmp_path / "b.txt").read_text() == "Ada B-PER\nByron I-PER\nleft O\n\n"
