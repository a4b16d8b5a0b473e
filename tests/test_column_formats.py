"""Formats like columns: CoNLL-U, CoNLL-2012, WebAnno, HIPE, Universal NER, GermEval, MultiCoNER, tables."""

from __future__ import annotations

import csv
import io
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
from nertool.formats.registry import ReadOptions, Report, WriteOptions, detect_format, find_format
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme, Span
from nertool.training.preparation import prepare


@pytest.fixture
def put(tmp_path: Path):
    """Write a file, in which | stands for a tab."""

    def put(content: str, name: str = "a.txt", bars: bool = True) -> Path:
        path = tmp_path / name
        path.write_text(content.replace("|", "\t") if bars else content, encoding="utf-8", newline="")
        return path

    return put


def read(path: Path, **settings: Any) -> Split:
    return read_split(path, CorpusConfig(train="unused", **settings), partial=True)


def unlabelled(path: Path, **options: Any) -> list[Document]:
    used = detect_format(path)
    return list(used.read(path, ReadOptions(labelled=False, **options), Report()))


def written(kind: str, *documents: Document, scheme: Scheme = Scheme.IOB2) -> str:
    target = io.StringIO()
    find_format(kind).write_stream(target, documents, WriteOptions(scheme=scheme))
    return target.getvalue()


def entities(split: Split) -> list[tuple[str, str]]:
    return [(each.text, each.label) for document in split.documents for each in document.entities]


UD = """\
# newdoc id = news-7
# sent_id = 1
# text = Ada, née Byron, ama al Prado.
1|Ada|Ada|PROPN|NNP|Number=Sing|8|nsubj|_|name=B-PER;SpaceAfter=No
2|,|,|PUNCT|,|_|1|punct|_|name=O
3|née|née|ADJ|_|_|1|x|_|name=O
4|Byron|Byron|PROPN|NNP|_|1|flat|_|SpaceAfter=No;name=B-PER;Gloss=x
5|,|,|PUNCT|,|_|1|punct|_|name=O
6|ama|amar|VERB|_|_|0|root|_|name=O
7-8|al|_|_|_|_|_|_|_|_
7|a|a|ADP|_|_|9|case|_|name=O
8|el|el|DET|_|_|9|det|_|name=O
8.1|se|_|_|_|_|_|_|6:obj|_
9|Prado|Prado|PROPN|NNP|_|6|obl|_|SpaceAfter=No;name=B-GPE_LOC
10|.|.|PUNCT|.|_|6|punct|_|name=O

# sent_id = 2
1|#1|#1|SYM|_|_|0|root|_|name=O

# newdoc
1|Rain|rain|NOUN|NN|_|0|root|_|name=O
""".replace("|", "\t").replace(";", "|")


def tokens_of(*rows: str, head: str = "") -> str:
    """CoNLL-U of forms with MISC behind a slash; the other columns are empty."""
    pairs = [row.rpartition("/") for row in rows]
    return head + "".join(
        f"{n}\t{form}{chr(9)}_{chr(9)}NOUN" + "\t_" * 5 + f"\t{misc}\n"
        for n, (form, _, misc) in enumerate(pairs, 1)
    )


class TestConllU:
    def test_entities_of_misc_and_the_text(self, put):
        split = read(put(UD, "a.conllu", bars=False))
        assert split.scheme is Scheme.IOB2 and split.entity_counts() == {"PER": 2, "GPE_LOC": 1}
        first, second, third = split.documents
        assert first.tokens == ("Ada", ",", "née", "Byron", ",", "ama", "a", "el", "Prado", ".")
        assert first.text == "Ada, née Byron, ama a el Prado."
        assert [first.text[a:b] for a, b in first.offsets] == list(first.tokens)
        assert (first.id, second.id, third.id) == ("news-7", "news-7", "2") and split.document_count == 2
        assert second.tokens == ("#1",) and split.place(0, 8) == "line 14"
        assert first.columns["upos"][:2] == ("PROPN", "PUNCT") and first.columns["misc"][3] == "Gloss=x"
        assert first.columns["feats"][0] == "Number=Sing" and first.columns["head"][0] == "8"
        assert split.notes() == [
            f"{split.path}: 1 sentence has contractions (2-3); the text has their words instead"
        ]

    def test_a_column_is_chosen_by_its_name(self, put):
        path = put(UD, "a.conllu", bars=False)
        split = read(path, label="upos")
        assert split.scheme is Scheme.PLAIN and split.labels[0][:3] == ["PROPN", "PUNCT", "ADJ"]
        assert "upos" not in split.documents[0].columns and not split.entity_counts()
        partly = read(path, label="XPOS")
        assert partly.labels[0][:3] == ["NNP", ",", UNKNOWN] and partly.unlabelled == 1
        assert read(path, label="Gloss", scheme="plain").unknown_count  # a key of MISC
        with pytest.raises(
            CorpusError, match=r"column deps has no values; .* lemma, upos, xpos, feats, head, deprel"
        ):
            read(path, label="deps")
        with pytest.raises(CorpusError, match=r"called 'chunk'. MISC has name=, .*; .*set corpus\.label=upos"):
            read(path, label="chunk")

    @pytest.mark.parametrize(
        "misc", ["NER=B-PER", "name=B-PER", "ner=B-PER", "B-PER", "SpaceAfter=No|B-PER", "B_PER"]
    )
    def test_labels_have_several_places(self, put, misc):
        outside = re.sub("B.PER", "O", misc.replace("SpaceAfter=No|", ""))
        split = read(put(tokens_of(f"Ada/{misc}", f"sings/{outside}"), "a.conllu", bars=False))
        assert split.labels == [["B-PER", "O"]] and len(split.notes()) == ("B_PER" in misc)

    def test_labels_of_any_key_where_it_is_the_only_one(self, put):
        path = put(tokens_of("Ada/Span=B-PER|X=1", "sings/Span=O|X=2"), "a.conllu", bars=False)
        assert read(path).labels == [["B-PER", "O"]]
        path = put(tokens_of("Ada/Span=B-PER|Other=B-X", "sings/Span=O|Other=O"), "a.conllu", bars=False)
        with pytest.raises(CorpusError, match=r"MISC has Span=, Other=; .* Choose what to learn"):
            read(path)
        assert read(path, label="Other").labels == [["B-X", "O"]]

    def test_a_name_that_is_no_label(self, put):
        with pytest.raises(CorpusError, match="no entities in MISC"):
            read(put(tokens_of("Ada/name=yes", "sings/_"), "a.conllu", bars=False))

    def test_missing_labels_are_unknown_where_others_are_outside(self, put):
        split = read(put(tokens_of("Ada/NER=B-PER", "sings/NER=O", "so/_"), "a.conllu", bars=False))
        assert split.labels == [["B-PER", "O", UNKNOWN]]
        assert "1 token has no NER= in MISC: the label is unknown" in split.notes()[0]
        split = read(put(tokens_of("Ada/NER=B-PER", "sings/_", "so/_"), "a.conllu", bars=False))
        assert split.labels == [["B-PER", "O", "O"]]
        assert "2 tokens that have no NER= in MISC were read as outside" in split.notes()[0]

    def test_labels_of_a_range_are_those_of_its_words(self, put):
        rows = ["1-2|al|NER=%s", "1|a|_", "2|el|_", "3|Prado|NER=O"]
        for label, expected in {"S-LOC": ["B-LOC", "E-LOC"], "B-LOC": ["B-LOC", "I-LOC"], "O": ["O", "O"]}.items():
            lines = [row.split("|") for row in rows]
            text = "".join(f"{n}\t{form}" + "\t_" * 7 + f"\t{misc}\n" for n, form, misc in lines) % label
            text += "\n" + tokens_of(f"x/NER={label}", "y/NER=O")
            assert read(put(text, "a.conllu", bars=False)).labels[0] == [*expected, "O"]

    def test_brackets_of_coreference_are_refused_by_name(self, put):
        path = put(tokens_of("Ada/Entity=(e1-person-1-coref)", "sings/_"), "a.conllu", bars=False)
        with pytest.raises(CorpusError, match=r"Entity=, in brackets .* not read\. .*set corpus\.label=upos"):
            read(path)
        assert read(path, label="upos").labels == [["NOUN", "NOUN"]]

    def test_the_text_is_made_of_spaces_after_tokens_where_there_is_no_other(self, put):
        path = put(tokens_of("Ada/NER=B-PER|SpaceAfter=No", "'s/NER=O", "cat/NER=O"), "a.conllu", bars=False)
        assert read(path).documents[0].source_text == "Ada's cat"
        path = put(tokens_of("Ada/NER=B-PER", "sings/NER=O"), "a.conllu", bars=False)
        assert read(path).documents[0].source_text is None
        path = put(tokens_of("Ada/NER=B-PER", "sings/NER=O", head="# text = Eve sings\n"), "a.conllu", bars=False)
        assert read(path).documents[0].text == "Ada sings"
        assert "1 sentence has other words than the comment # text" in read(path).notes()[0]
        path = put(tokens_of("New York/NER=B-LOC", head="# text =  New York \n"), "a.conllu", bars=False)
        assert read(path).documents[0].text == "New York"

    def test_words_that_make_up_a_range_stand_in_the_text(self, put):
        text = "# text = I don't\n1|I|NER=O\n2-3|don't|_\n2|do|NER=O\n3|n't|NER=B-X\n"
        rows = [line.split("|") if "|" in line else line for line in text.splitlines()]
        lines = [row if isinstance(row, str) else "\t".join([*row[:2], *"_" * 7, row[2]]) for row in rows]
        split = read(put("\n".join(lines) + "\n", "a.conllu", bars=False))
        assert split.documents[0].source_text == "I don't" and entities(split) == [("n't", "X")]
        assert split.notes() == []

    def test_conllu_plus_names_its_columns(self, put):
        text = "# global.columns = ID FORM UPOS MISC X:NE\n1|Ada|PROPN|_|B-PER\n2|sings|VERB|_|O\n"
        split = read(put(text))
        assert split.labels == [["B-PER", "O"]] and split.documents[0].columns == {"upos": ("PROPN", "VERB")}
        assert read(put(text), label="upos").labels == [["PROPN", "VERB"]]
        with pytest.raises(CorpusError, match=r"line 1: global\.columns is 'ID ID FORM'"):
            read(put("# global.columns = ID ID FORM\n1|1|a\n", "a.conllup"))

    def test_columns_that_are_named_are_read_as_columns(self, put):
        path = put("1|Ada|X|B-PER\n1.1|_|_|_\n2|sings|Y|O\n", "a.conllu")
        with pytest.raises(CorpusError, match=r"line 1: found 4 columns .* CoNLL-U has 10.*set corpus\.columns"):
            read(path)
        split = read(path, columns=["id", "token", "pos", "ner"], label="ner")
        assert split.labels == [["B-PER", "O"]] and split.documents[0].tokens == ("Ada", "sings")
        # Those of a model that was trained on other columns are not taken for them.
        path = put(UD, "b.conllu", bars=False)
        other = read(path, columns=["token", "pos", "ner"], label="ner")
        assert other.entity_counts().total() == 3 and "corpus.columns is not used" in other.notes()[0]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("x|Ada|_|_|_|_|_|_|_|_", "line 2: found 'x' as ID"),
            ("1||_|_|_|_|_|_|_|_", "line 2: the form is empty"),
            ("1 Ada _ _ _ _ _ _ _ _", "line 2: found 1 column in '1 Ada"),
            ("1-3|abc|_|_|_|_|_|_|_|_\n1|a|_|_|_|_|_|_|_|_", "line 2: a range such as 2-3 has not all"),
        ],
    )
    def test_errors_say_where(self, put, line, message):
        with pytest.raises(CorpusError, match=message):
            read(put(f"# text = x\n{line}\n", "a.conllu"))

    def test_tokens_are_read_as_they_come(self, put):
        first, second, _ = unlabelled(put(UD, "a.conllu", bars=False))
        assert first.labels is None and "name=B-PER" in first.columns["misc"][0] and second.tokens == ("#1",)
        given = 0

        def endless():
            nonlocal given
            while True:
                given += 1
                yield from [*tokens_of(f"{given}/_").splitlines(), ""]

        found = find_format("conllu").read_lines(endless(), "lines", ReadOptions(labelled=False), Report())
        assert [next(found).tokens for _ in range(3)] == [("1",), ("2",), ("3",)] and given < 6

    def test_what_is_written(self):
        labels = ("B-PER", "I-PER", "O", UNKNOWN)
        columns = {"upos": ("PROPN", "PROPN", "VERB", "X"), "chunk": ("B-NP", "I-NP", "O", "O")}
        document = Document(
            ("Ada", "B.", "sings", "!"),
            "Ada B. sings!",
            ((0, 3), (4, 6), (7, 12), (12, 13)),
            labels=labels,
            scheme=Scheme.IOB2,
            columns=columns,
            id="d",
        )
        assert written("conllu", document).splitlines()[:5] == [
            "# newdoc id = d",
            "# sent_id = 1",
            "# text = Ada B. sings!",
            "1\tAda\t_\tPROPN\t_\t_\t_\t_\t_\tNER=B-PER|chunk=B-NP",
            "2\tB.\t_\tPROPN\t_\t_\t_\t_\t_\tNER=I-PER|chunk=I-NP",
        ]
        assert written("conllu", document).splitlines()[6].endswith("NER=?|chunk=O")
        tags = Document(("a", "b"), labels=("DT", "NN"), scheme=Scheme.PLAIN)
        assert "\n1\ta\t_\tDT\t_" in written("conllu", tags)
        both = Document(("a",), labels=("DT",), scheme=Scheme.PLAIN, columns={"upos": ("X",), "xpos": ("Y",)})
        assert written("conllu", both).endswith("\tTag=DT\n\n")
        gold = Document(("a",), labels=("O",), scheme=Scheme.IOB2, columns={"misc": ("NER=B-X",)})
        assert written("conllu", gold).endswith("\tNER=B-X|predicted=O\n\n")
        for wrong in (["a\tb"], ["a\n"], [" a"], [""]):
            with pytest.raises(CorpusError, match="cannot be written"):
                written("conllu", Document(tuple(wrong)))

    def test_documents_are_marked(self):
        several = Document(("a", "b"), sentence_starts=(0, 1), labels=("O", "O"), scheme=Scheme.IOB2)
        one = Document(("c",), "c", ((0, 1),), labels=("O",), scheme=Scheme.IOB2)
        assert written("conllu", several, one).count("# newdoc\n") == 2
        assert "newdoc" not in written("conllu", one, one)


WORD = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]), min_size=1, max_size=5)
WORDS = WORD.filter(lambda word: word.strip() == word)
SENTENCES = st.lists(
    st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-A", "B-B c", ""])), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)


def drawn_documents(drawn, named: bool) -> list[Document]:
    return [
        Document(
            tuple(token for token, _ in sentence),
            labels=tuple(label for _, label in sentence),
            scheme=Scheme.IOB2,
            columns={"upos": tuple(label[2:] or "_" for _, label in sentence)},
            id=f"d{n // 2}" if named else None,
        )
        for n, sentence in enumerate(drawn)
    ]


@pytest.mark.parametrize("kind", ["conllu", "csv"])
@given(drawn=SENTENCES, named=st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, kind, drawn, named):
    documents = drawn_documents([*drawn, [("x", "B-A"), ("y", "O")]], named)
    path = tmp_path_factory.mktemp("written") / f"a.{kind}"
    used = find_format(kind)
    used.write(path, documents, WriteOptions(), Report())
    found = list(used.read(path, ReadOptions(scheme=Scheme.IOB2), Report()))
    assert [each.tokens for each in found] == [each.tokens for each in documents]
    labels = [tuple("" if name == "?" else name for name in each.labels or ()) for each in found]
    assert labels == [each.labels for each in documents]
    assert [each.id for each in found] == [each.id for each in documents]
    assert [each.columns["upos"] for each in found] == [each.columns["upos"] for each in documents]


ONTO = """\
#begin document (bc/x/00/x_0000); part 000
bc/x/00/x_0000   0   0    Mina    NNP   (TOP(S(NP*     -    -   -   Speaker1   (PERSON*   (ARG0*   (1
bc/x/00/x_0000   0   1   Okoye    NNP            *)    -    -   -   Speaker1          *)       *)   1)
bc/x/00/x_0000   0   2    left    VBD        (VP*   leave  01   1   Speaker1          *      (V*)    -
bc/x/00/x_0000   0   3    Oslo    NNP        (NP*)     -    -   -   Speaker1       (GPE)   (ARG1*)   -

#end document
#begin document (bc/x/00/x_0000); part 001
bc/x/00/x_0000   1   0      #     SYM   (TOP*)         -    -   -   Speaker1          *      -
#end document
#begin document (y); part 000
y   0   0      It    PRP   (TOP*)         -    -   -   Speaker1          *      -

#end document
"""


class TestConll2012:
    def test_brackets_and_documents(self, put):
        split = read(put(ONTO, "a.v4_gold_conll"))
        assert entities(split) == [("Mina Okoye", "PERSON"), ("Oslo", "GPE")] and split.document_count == 2
        assert [each.id for each in split.documents] == ["bc/x/00/x_0000"] * 2 + ["y"]
        assert split.documents[0].columns["pos"] == ("NNP", "NNP", "VBD", "NNP")
        assert split.place(1) == "line 9" and split.notes() == []

    def test_parts_of_speech(self, put):
        split = read(put(ONTO), label="pos")
        assert split.labels[0] == ["NNP", "NNP", "VBD", "NNP"] and split.scheme is Scheme.PLAIN
        assert "pos" not in split.documents[0].columns
        with pytest.raises(CorpusError, match=r"no column 'srl'; .* pos, lemma, speaker"):
            read(put(ONTO), label="srl")
        assert unlabelled(put(ONTO))[0].labels is None

    def test_what_is_not_understood_is_unknown(self, put):
        split = read(put(ONTO.replace("*)       *)   1)", "*        *)   1)")))
        assert len(split) == 2 and split.unlabelled == 1
        assert any("has no closing bracket" in misfit for misfit in split.report.misfits)
        nested = read(put(ONTO.replace("(PERSON*", "(PERSON(NORP)*")))
        assert entities(nested)[0] == ("Mina Okoye", "PERSON") and "NORP" in nested.report.misfits[0]
        split = read(put(ONTO.replace("       (GPE)", "           -")))
        assert split.labels[0][3] == UNKNOWN

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("(GPE)", "B-GPE", "line 5: 'B-GPE' in column 11; expected brackets"),
            ("Speaker1       (GPE)   (ARG1*)   -", "", "line 5: found 9 columns"),
        ],
    )
    def test_errors_say_where(self, put, old, new, message):
        with pytest.raises(CorpusError, match=message):
            read(put(ONTO.replace(old, new)))

    def test_masked_words_are_refused(self, put):
        line = "x 0 0 [WORD] NN (TOP*) - - - - (PER) -\n"
        with pytest.raises(CorpusError, match="line 2: the words are masked"):
            read(put("#begin document (x); part 000\n" + line))


WEBANNO = r"""#FORMAT=WebAnno TSV 3.3
#T_SP=de.tudarmstadt.ukp.dkpro.core.api.lexmorph.type.pos.POS|coarseValue|PosValue
#T_SP=de.tudarmstadt.ukp.dkpro.core.api.ner.type.NamedEntity|identifier|value
#T_RL=de.tudarmstadt.ukp.dkpro.core.api.syntax.type.dependency.Dependency|flavor|BT_pos.POS
#T_SP=webanno.custom.Note|


#Text=Mina Okoye, 😀 met_X "A\\B".
1-1~0-4~Mina~*~NNP~http://x/y[1]~PER[1]~_~_~_~
1-2~5-10~Okoye~*~NNP~http://x/y[1]~PER[1]~_~_~*[4]~
1-3~10-11~,~*~PUNCT~_~_~_~_~*[4]~
1-4~12-14~😀~*~SYM~*~LOC~_~_~_~
1-5~15-20~met\_X~*~VB~_~_~_~_~_~
1-6~21-22~"~*~PUNCT~_~_~_~_~_~
1-7~22-25~A\\B~*~NN~*|*[3]~GPE\_LOC[2]|ORG[3]~_~_~_~
1-8~25-26~"~*~PUNCT~*[3]~ORG[3]~_~_~_~
1-9~26-27~.~*~PUNCT~_~_~_~_~_~

#Text=Nordseewind kam.
2-1~28-39~Nordseewind~*~NN~_~_~_~_~_~
2-1.1~28-35~Nordsee~_~_~*~LOC~_~_~_~
2-2~40-43~kam~*~VB~_~_~_~_~_~
2-3~43-44~.~*~_~*~*~_~_~_~
""".replace("~", "\t")


class TestWebAnno:
    def test_the_layer_of_entities(self, put):
        split = read(put(WEBANNO, "news.tsv", bars=False))
        assert entities(split) == [("Mina Okoye", "PER"), ("😀", "LOC"), ('A\\B"', "ORG")]
        first, second = split.documents
        assert first.text == 'Mina Okoye, 😀 met_X "A\\B".' and first.tokens[4] == "met_X"
        assert first.id == second.id == "news" and split.place(1, 1) == "line 22"
        assert second.labels == (UNKNOWN, "O", UNKNOWN)
        misfits = split.report.misfits
        assert "line 15: GPE_LOC" in misfits[0] and "overlaps ORG" in misfits[0]
        assert "line 21: LOC [0, 7) 'Nordsee' does not fall on token boundaries" in misfits[2]
        assert "line 23: an annotation of NamedEntity.value has no value" in misfits[1]
        assert "layers that are not read: POS, Dependency, Note" in split.notes()[0]

    def test_parts_of_tokens_can_be_widened(self, put):
        path = put(WEBANNO, bars=False)
        report = Report()
        documents = list(find_format("webanno").read(path, ReadOptions(snap=True), report))
        assert documents[1].entities[0].text == "Nordseewind" and "became 'Nordseewind'" in report.widened[0]

    @pytest.mark.parametrize("label", ["POS.PosValue", "posvalue"])
    def test_another_feature_is_chosen_by_its_name(self, put, label):
        split = read(put(WEBANNO, bars=False), label=label)
        assert split.scheme is Scheme.PLAIN and split.labels[0][:3] == ["NNP", "NNP", "PUNCT"]
        assert split.labels[1] == ["NN", "VB", UNKNOWN]

    def test_identifiers_may_be_chosen(self, put):
        assert read(put(WEBANNO, bars=False), label="identifier").entity_counts() == {"http://x/y": 1}

    def test_several_layers_or_none(self, put):
        head = "#FORMAT=WebAnno TSV 3.2\n#T_SP=webanno.custom.A~kind\n{}\n\n#Text=Ada\n1-1~0-3~Ada~x~y~\n"
        head = head.replace("~", "|", 1)
        text = head.format("#T_SP=webanno.custom.B|sort").replace("~", "\t")
        with pytest.raises(
            CorpusError, match=r"several layers .* are: A\.kind, B\.sort\. .*corpus\.label=A\.kind"
        ):
            read(put(text, bars=False))
        assert read(put(text, bars=False), label="B").entity_counts() == {"y": 1}
        assert read(put(head.format("").replace("~", "\t"), bars=False)).entity_counts() == {"x": 1}
        with pytest.raises(CorpusError, match="none is called 'C'"):
            read(put(text, bars=False), label="C")
        none = "#FORMAT=WebAnno TSV 3.3\n\n\n#Text=Ada\n1-1\t0-3\tAda\n"
        with pytest.raises(CorpusError, match="there is no layer of entities"):
            read(put(none, bars=False))
        assert unlabelled(put(none, bars=False))[0].tokens == ("Ada",)

    def test_an_annotation_over_the_end_of_a_sentence(self, put):
        text = "#FORMAT=WebAnno TSV 3.3\n#T_SP=x.NamedEntity|value\n\n\n#Text=In New\n1-1~0-2~In~_~\n"
        text += "1-2~3-6~New~LOC[1]~\n\n#Text=York .\n2-1~7-11~York~LOC[1]~\n2-2~12-13~.~_~\n"
        split = read(put(text.replace("~", "\t"), bars=False))
        assert split.labels == [["O", ""], ["", "O"]] and "over the end of a sentence" in split.report.misfits[0]

    def test_the_text_is_compared(self, put):
        text = WEBANNO.replace("#Text=Nordseewind kam.", "#Text=Nordseewind kamen.")
        split = read(put(text, bars=False))
        assert split.documents[1].source_text is None and "1 sentence has other tokens" in split.notes()[0]
        two = read(put(WEBANNO.replace("#Text=Nordseewind kam.", "#Text=Nordseewind\n#Text=kam."), bars=False))
        assert two.documents[1].source_text == "Nordseewind\nkam."

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("TSV 3.3", "TSV 2.0", "line 1: the first line is '#FORMAT=WebAnno TSV 2.0'; expected"),
            ("2-2\t40-43\tkam\t*\tVB\t_\t_\t_\t_\t_\t", "2-2\t40-43\tkam\t*", "line 22: found 4 columns"),
            ("2-2\t", "two\t", "line 22: .*expected a token's number"),
            ("28-35\tNordsee", "29-36\tNordsee", "line 21: 2-1.1 'Nordsee' at 29-36 is not a part"),
        ],
    )
    def test_errors_say_where(self, put, old, new, message):
        with pytest.raises(CorpusError, match=message):
            read(put(WEBANNO.replace(old, new), bars=False))


HIPE = """\
TOKEN|NE-COARSE-LIT|NE-COARSE-METO|NE-FINE-LIT|NEL-LIT|MISC
# hipe2022:document_id = A-1
# hipe2022:date = 1900-01-01
La|O|O|O|_|EndOfLine
comtesse|O|O|O|_|_
#|O|O|O|_|_
# hipe2022:segment = 2
d|B-pers|B-org|B-pers.ind|Q1|NoSpaceAfter
'|I-pers|I-org|I-pers.ind|Q1|EndOfLine;EndOfSentence
Art|I-pers|I-org|I-pers.ind|Q1|NoSpaceAfter
.|O|O|O|_|EndOfSentence
Fin|O|O|O|_|_

# hipe2022:document_id = A-2
X|_|O|O|_|_
Y|_|B-org|O|_|_
""".replace(";", "\\")


class TestHipe:
    def put(self, put, text: str = HIPE) -> Path:
        return put(text.replace("|", "\t").replace("\\", "|"), "a.tsv", bars=False)

    def test_documents_sentences_and_flags(self, put):
        split = read(self.put(put))
        (document,) = split.documents
        assert document.text == "La\ncomtesse # d'\nArt. Fin" and document.id == "A-1"
        # No sentence ends inside an entity, though one is marked there.
        assert [each.tokens for each in document.sentences()][1] == ("Fin",)
        assert entities(split) == [("d'\nArt", "pers")] and split.place(0, 3) == "line 8"
        assert split.unlabelled == 1 and document.columns["NEL-LIT"][3] == "Q1"

    def test_another_column_is_chosen_by_its_name(self, put):
        assert read(self.put(put), label="NE-FINE-LIT").entity_counts() == {"pers.ind": 1}
        split = read(self.put(put), label="ne-coarse-meto")
        assert split.entity_counts() == {"org": 2} and [each.id for each in split.documents] == ["A-1", "A-2"]
        with pytest.raises(
            CorpusError, match=r"no column 'NE-X'; those with labels are: NE-COARSE-LIT, .*NEL-LIT"
        ):
            read(self.put(put), label="NE-X")

    def test_files_that_were_put_together(self, put):
        split = read(self.put(put, HIPE + HIPE.replace("A-1", "B-1")), label="NE-FINE-LIT")
        assert [each.id for each in split.documents] == ["A-1", "A-2", "B-1", "A-2"]

    def test_a_column_without_labels(self, put):
        text = HIPE.replace("|B-pers|", "|_|").replace("|I-pers|", "|_|").replace("|O|O|O|", "|_|O|O|")
        with pytest.raises(
            CorpusError, match=r"the column NE-COARSE-LIT has no labels; .* corpus\.label=NE-COARSE"
        ):
            read(self.put(put, text))

    def test_lines_of_print_where_no_sentence_ends(self, put):
        split = read(self.put(put, HIPE.replace("\\EndOfSentence", "").replace("EndOfSentence", "_")))
        assert len(split) == 2 and "no end of a sentence is marked" in split.notes()[0]

    def test_errors_say_where(self, put):
        with pytest.raises(CorpusError, match=r"line 5: found 3 columns in .*; the header has 6: TOKEN, NE-"):
            read(self.put(put, HIPE.replace("comtesse|O|O|O|_|_", "comtesse|O|O")))
        with pytest.raises(CorpusError, match="line 1: found 'Ada"):
            read(self.put(put, "Ada|B-PER\n"), format="hipe")
        assert unlabelled(self.put(put))[0].labels is None


UNER = """\
# newdoc id = x
# sent_id = w-1
# text = Al-Zaman: #OK
1|Al-Zaman|B-ORG|-|someone
2|:|O|-|someone
3|#OK|O|-|someone

# sent_id = w-2
# text = dahin
1-2|dahin|_|-|-
1|da|O|-|x
2|hin|_|-|x
"""
GERMEVAL = """\
#|http://de.example.org/wiki/X [2009-10-17]
1|An|O|O
2|#|O|O
3|Universität|B-ORG|O
4|Bonn|I-ORG|B-LOC

#|example.org vom 26.02.2005 [2005-02-26]\x20
1|#Bonner|B-LOCderiv|O
"""
MULTICONER = """\
# id 2c8f5b49-4df5-11ec|domain=en
ada _ _ B-PER
# _ _ O
#lovelace _ _ I-PER

# id 2c8f5b49-4df5-11ec-81d3-0242ac130003
#yes _ _ O
oslo _ _ B-LOC
"""


class TestCountedTokens:
    def test_universal_ner(self, put):
        split = read(put(UNER, "a.iob2"))
        assert detect_format(split.path).name == "uner"
        assert split.labels == [["B-ORG", "O", "O"], ["O", ""]]
        first, second = split.documents
        assert first.source_text == "Al-Zaman: #OK" and second.tokens == ("da", "hin")
        assert first.columns == {"4": ("-",) * 3, "5": ("someone",) * 3} and split.place(1, 1) == "line 12"

    def test_germeval(self, put):
        split = read(put(GERMEVAL, "a.tsv"))
        assert entities(split) == [("Universität Bonn", "ORG"), ("#Bonner", "LOCderiv")]
        assert split.documents[0].tokens[1] == "#" and split.documents[0].columns == {
            "inner": ("O", "O", "O", "B-LOC")
        }
        inner = read(put(GERMEVAL, "a.tsv"), label="inner")
        assert entities(inner) == [("Bonn", "LOC")]
        with pytest.raises(CorpusError, match=r"no column 'x'; corpus\.label may be: outer, inner"):
            read(put(GERMEVAL, "a.tsv"), label="x")
        with pytest.raises(CorpusError, match=r"line 3: found '2\\t#\\tO'; expected at least 4 columns"):
            read(put(GERMEVAL.replace("2|#|O|O", "2|#|O"), "a.tsv"))
        assert unlabelled(put(GERMEVAL, "a.tsv"))[0].columns["outer"][2] == "B-ORG"

    @pytest.mark.parametrize("tabs", [True, False])
    def test_multiconer(self, put, tabs):
        text = MULTICONER.replace("|", "\t")
        split = read(put(text.replace(" _", "\t_").replace("_ ", "_\t") if tabs else text, bars=False))
        assert [list(each.tokens) for each in split.sentences] == [["ada", "#", "#lovelace"], ["#yes", "oslo"]]
        assert split.labels == [["B-PER", "O", "I-PER"], ["O", "B-LOC"]] or split.strays == 1


def rows_of(*rows: list[str], delimiter: str = ",") -> str:
    target = io.StringIO()
    csv.writer(target, delimiter=delimiter).writerows(rows)
    return target.getvalue()


KAGGLE = [["Sentence #", "Word", "POS", "Tag"], ["Sentence: 1", "Mina, the", "NNP", "B-per"], ["", '"', "Q", "O"]]
KAGGLE += [["", "NA", "NNP", "O"], ["Sentence: 2", "Oslo", "NNP", "B-geo"]]


class TestDelimited:
    def put(self, put, text: str, name: str = "a.csv") -> Path:
        return put(text, name, bars=False)

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.tsv"])
    def test_numbers_of_sentences_on_their_first_row(self, put, delimiter, name):
        split = read(self.put(put, rows_of(*KAGGLE, delimiter=delimiter), name))
        assert detect_format(split.path).name == "csv"
        assert [each.tokens for each in split.sentences] == [("Mina, the", '"', "NA"), ("Oslo",)]
        assert split.labels == [["B-per", "O", "O"], ["B-geo"]]
        assert split.documents[0].columns == {"POS": ("NNP", "Q", "NNP")} and split.place(1) == "line 5"

    def test_another_column_is_chosen_by_its_name(self, put):
        split = read(self.put(put, rows_of(*KAGGLE)), label="pos")
        assert split.labels == [["NNP", "Q", "NNP"], ["NNP"]] and "Tag" in split.documents[0].columns

    @pytest.mark.parametrize(
        "text",
        [
            "sentence_id,token,label\n0,Ada,B-PER\n0,left,O\n1,Oslo,B-LOC\n",
            "Word,Tag\nAda,B-PER\nleft,O\n\nOslo,B-LOC\n",
            "Word;Tag\nAda;B-PER\nleft;O\n;\nOslo;B-LOC\n",
            "Word;Tag\nAda;B-PER\nleft;O\n\t\nOslo;B-LOC\n",
            ",doc_id,sentence,words,ner_tags\n0,x,1,Ada,B-PER\n1,x,1,left,O\n2,x,2,Oslo,B-LOC\n",
            "text,labels\nAda left,B-PER O\nOslo,B-LOC\n",
            "Sentence #,Sentence,Tag\n1,Ada left,\"['B-PER', 'O']\"\n2,Oslo,['B-LOC']\n",
            'tokens,ner_tags\n"[""Ada"", ""left""]","[""B-PER"", ""O""]"\n"[""Oslo""]","[""B-LOC""]"\n',
            "tokens\ttags\n['Ada' 'left']\t['B-PER' 'O']\n['Oslo']\t['B-LOC']\n",
            "\ufeffToken, Label\nAda, B-PER\nleft, O\n,\nOslo, B-LOC\n",
            "sep=;\nToken;Label\nAda;B-PER\nleft;O\n;\nOslo;B-LOC\n",
            "token\tlabel\r\nAda\tB-PER\r\nleft\tO\r\n\r\nOslo\tB-LOC\r\n",
        ],
    )
    def test_usual_shapes(self, put, text):
        split = read(self.put(put, text))
        assert [list(each.tokens) for each in split.sentences] == [["Ada", "left"], ["Oslo"]]
        assert split.labels == [["B-PER", "O"], ["B-LOC"]] and split.notes() == []

    def test_documents(self, put):
        text = "file,sentence,word,tag\nx,1,a,O\n,,b,B-X\n,2,c,O\ny,1,d,O\n"
        split = read(self.put(put, text))
        assert [(each.id, each.tokens) for each in split.documents] == [
            ("x", ("a", "b")),
            ("x", ("c",)),
            ("y", ("d",)),
        ]

    def test_quotes_that_stand_for_themselves(self, put):
        split = read(self.put(put, 'token\tlabel\n"\tO\nAda\tB-PER\n"\tO\n\n"x\tO\n', "a.tsv"))
        assert [list(each.tokens) for each in split.sentences] == [['"', "Ada", '"'], ['"x']]
        for text in ('token,label\n",O\nAda,B-PER\n', 'token,label\nAda,B-PER\n",O\n",O\n'):
            with pytest.raises(CorpusError, match=r"line \d: .*quotes? .*doubled"):
                read(self.put(put, text))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("token,label\n,,O\n", "line 2: found 3 values .* the header has 2, separated by commas"),
            ("token,label\nAda\n", "line 2: found 1 values"),
            ("token,label\n,B-PER\n", "line 2: the token is empty and its label is 'B-PER'"),
            (
                "w,l\nAda,B-PER\n",
                r"no column of tokens; the columns, .*commas, are: 'w', 'l'\. .*corpus\.columns=",
            ),
            ("word,kind\nAda,B-PER\n", r"no column of labels; .*corpus\.label="),
            ("text,labels\nAda left,B-PER O O\n", "line 2: 2 tokens and 3 labels"),
            ("text,label\nAda left today,positive\n", "line 2: 3 tokens and 1 label; expected"),
            ('text,labels\nAda left,"[3, 0]"\n', "line 2: labels are numbers"),
            ("text,labels\nAda left,\"[None, 'O']\"\n", "line 2: .* is no list of words"),
            ("text,labels\n\"['A\0a', 'b']\",O O\n", "line 2: .* is no list of words"),
            ("\n\n", "it is empty"),
            ("token,label\n", "there is no sentence"),
        ],
    )
    def test_errors_say_where(self, put, text, message):
        with pytest.raises(CorpusError, match=message):
            read(self.put(put, text))

    def test_columns_can_be_named(self, put):
        columns = {"columns": ["sentence", "token", "x", "mine"], "label": "mine"}
        rows = "1,Ada,y,B-PER\n1,left,y,O\n2,Oslo,z,B-LOC\n"
        for head in ("", "Sentence,w,x,l\n", "s,w,x,mine\n"):
            split = read(self.put(put, head + rows), **columns)
            assert split.labels == [["B-PER", "O"], ["B-LOC"]] and split.documents[0].columns == {"x": ("y", "y")}
        with pytest.raises(CorpusError, match="line 1: 2 columns are named and there are 4"):
            read(self.put(put, rows), columns=["token", "label"])
        # Those of a model that was trained on other columns are not taken for them.
        assert (
            read(self.put(put, rows_of(*KAGGLE)), columns=["token", "ner"], label="ner").entity_counts().total()
            == 2
        )

    def test_missing_labels_are_unknown(self, put):
        split = read(self.put(put, "token,label\nAda,B-PER\nleft,\n"))
        assert split.labels == [["B-PER", ""]] and "1 row has no label" in " ".join(split.notes())

    def test_a_table_without_sentences_is_one(self, put):
        split = read(self.put(put, "token,label\nAda,B-PER\nleft,O\n"))
        assert len(split) == 1 and "all rows are one sentence" in split.notes()[0]

    def test_tokens_alone(self, put):
        assert unlabelled(self.put(put, rows_of(*KAGGLE)))[0].columns["Tag"] == ("B-per", "O", "O")
        path = self.put(put, "token\nAda\nleft\n")
        found = find_format("csv").read(path, ReadOptions(labelled=False), Report())
        assert next(found).tokens == ("Ada", "left")

    def test_what_is_written(self):
        first = Document(("a,b", '"'), labels=("B-X", ""), scheme=Scheme.IOB2, columns={"pos": ("N", "")}, id="d")
        assert written("csv", first) == ('document,sentence_id,token,pos,label\nd,1,"a,b",N,B-X\nd,1,"""",,\n')
        gold = Document(("a",), labels=("O",), scheme=Scheme.IOB2, columns={"label": ("B-X",)})
        assert written("csv", gold).startswith("sentence_id,token,label,predicted\n")
        several = Document(("a", "b"), sentence_starts=(0, 1), labels=("O", "O"), scheme=Scheme.IOB2)
        assert written("csv", several, several).splitlines()[1:] == ["1,1,a,O", "1,2,b,O", "2,3,a,O", "2,4,b,O"]
        with pytest.raises(CorpusError, match="a column called token would be there twice"):
            written("csv", Document(("a",), columns={"Token": ("b",)}))
        with pytest.raises(CorpusError, match="differ in their columns"):
            written("csv", Document(("a",)), Document(("a",), columns={"x": ("b",)}))
        for wrong in ("", "a\nb", " a"):
            with pytest.raises(CorpusError, match="cannot be written"):
                written("csv", Document((wrong,)))


class TestNothingIsTaken:
    """A corpus without an entity is an error where it would be learnt or written, unless it is meant."""

    def test_training(self, tiny_config):
        for more, fails in (((), True), (("corpus.allow_empty=true",), False)):
            config = tiny_config("training.epochs=1", *more)
            Path(config.corpus.train or "").write_text("Rain O\nfell O\n\nIt O\nrained O\n", encoding="utf-8")
            if fails:
                with pytest.raises(CorpusError, match=r"train\.txt: no token .* corpus\.allow_empty=true"):
                    prepare(config)
            else:
                assert not prepare(config).corpus.train.has_entities

    def test_converting(self, put, tmp_path):
        path = put(tokens_of("Rain/NER=O", "fell/NER=O"), "a.conllu", bars=False)
        done = CliRunner().invoke(convert, [str(path), str(tmp_path / "b.jsonl")])
        assert done.exit_code == 1 and "no entity was found in it, read as conllu" in done.output
        assert not (tmp_path / "b.jsonl").exists()
        done = CliRunner().invoke(convert, [str(path), str(tmp_path / "b.jsonl"), "--allow-empty"])
        assert done.exit_code == 0 and (tmp_path / "b.jsonl").exists()

    def test_tags_are_no_entities(self, put, tmp_path):
        path = put(UD, "a.conllu", bars=False)
        done = CliRunner().invoke(convert, [str(path), str(tmp_path / "b.txt"), "--set", "corpus.label=upos"])
        assert done.exit_code == 0 and " PROPN\n" in (tmp_path / "b.txt").read_text(), done.output


@pytest.mark.parametrize(
    ("name", "content", "entities"),
    [
        ("a.conllu", UD, 3),
        ("a.gold_conll", ONTO, 2),
        ("a.tsv", WEBANNO, 3),
        ("b.tsv", HIPE.replace("|", "\t").replace("\\", "|"), 1),
        ("a.iob2", UNER.replace("|", "\t"), 1),
        ("c.tsv", GERMEVAL.replace("|", "\t"), 2),
        ("a.csv", rows_of(*KAGGLE), 2),
    ],
)
def test_every_command_reads_them(put, tmp_path, name, content, entities):
    path = put(content, name, bars=False)
    for target in ("out.txt", "out.jsonl", "out.conllu", "out.csv"):
        done = CliRunner().invoke(convert, [str(path), str(tmp_path / target)])
        noun = "entity" if entities == 1 else "entities"
        assert f"{entities} {noun})" in done.output, done.output
        again = read(tmp_path / target)
        assert again.entity_counts().total() == entities
    assert "Entities" in CliRunner().invoke(check, [str(path)]).output


def test_spans_of_several_types_are_kept_apart():
    document = Document.from_spans(["a", "b"], [Span(0, 1, "X"), Span(1, 2, "X")])
    assert written("csv", document).count("B-X") == 2 and written("conllu", document).count("=B-X") == 2


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5000], ids=len)
def test_numbers_that_are_no_numbers_of_words(put, digits):
    """Python converts at most 4,300 digits."""
    rows = CONLLU_RANGE.replace("1-2", f"1-{digits}")
    with pytest.raises(CorpusError, match=r"found .* as ID; expected 1, 2-3 or 3\.1"):
        list(find_format("conllu").read(put(rows, "a.conllu", bars=False), ReadOptions(), Report()))
    rows = "#FORMAT=WebAnno TSV 3.3\n#T_SP=x.NE|value\n\n\n#Text=Ada\n1-1\t0-3\tAda\tX\t\n"
    rows += f"1-1.1\t{digits}-3\ta\tY\t\n"
    with pytest.raises(CorpusError, match="is not a part of the token"):
        list(find_format("webanno").read(put(rows, "a.tsv", bars=False), ReadOptions(), Report()))


CONLLU_RANGE = "".join(
    "\t".join([number, form, *"_" * 7, misc]) + "\n"
    for number, form, misc in [("1-2", "al", "_"), ("1", "a", "NER=O"), ("2", "el", "NER=O")]
)
