"""`nertool score`: the output of other systems; modes against seqeval, seqscore and cases worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2 as SEQEVAL_IOB2
from seqscore.scoring import score_label_sequences

import nertool.cli.main
from nertool.comparison.systems import score_systems
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split
from nertool.errors import CorpusError, NertoolError
from nertool.evaluation.modes import Mode, evaluate_spans, span_counts
from nertool.evaluation.outputs import align, read_columns, read_outputs
from nertool.evaluation.scores import strict_entities
from nertool.text.schemes import Scheme, Span, convert, spans

GOLD = """\
Ada B-PER
Byron I-PER
met O
Otto B-PER
in O
New B-LOC
Haven I-LOC
. O

Granite B-ORG
Bank I-ORG
fell O
"""
# Ada Byron begins with a stray I-; New Haven is two places; the bank changes its type in the middle.
MINE = """\
Ada I-PER
Byron I-PER
met O
Otto B-PER
in O
New B-LOC
Haven B-LOC
. O

Granite B-ORG
Bank I-LOC
fell O
"""
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
rows = st.lists(st.sampled_from(LABELS), min_size=1, max_size=8)


@st.composite
def pairs(draw) -> tuple[list[list[str]], list[list[str]]]:
    """Gold labels that follow IOB2, and predictions that need not."""
    predicted = draw(st.lists(rows, min_size=1, max_size=4))
    gold = [draw(st.lists(st.sampled_from(LABELS), min_size=len(row), max_size=len(row))) for row in predicted]
    return [convert(row, Scheme.IOB2, Scheme.IOB2) for row in gold], predicted


def scored(gold: list[list[str]], predicted: list[list[str]], mode: Mode):
    wanted = [spans(row, Scheme.IOB2) for row in gold]
    strict = mode is Mode.STRICT
    found = strict_entities(predicted, Scheme.IOB2) if strict else [spans(row, Scheme.IOB2) for row in predicted]
    lengths = list(map(len, gold))
    evaluation = evaluate_spans(wanted, found, lengths, mode)
    right, given_, there = (sum(column) for column in zip(*span_counts(wanted, found, mode), strict=True))
    f1 = 2 * right / (given_ + there) if given_ + there else 0.0
    assert evaluation.micro.f1 == pytest.approx(f1), "counts of sentences add up to the score"
    return evaluation


class TestModes:
    @pytest.mark.filterwarnings("ignore::RuntimeWarning:numpy")  # of types that seqeval finds none of
    @given(pairs())
    @settings(max_examples=60)
    def test_strict_is_seqeval_in_strict_mode(self, pair):
        gold, predicted = pair
        evaluation = scored(gold, predicted, Mode.STRICT)
        if any(label != "O" for row in (*gold, *predicted) for label in row):
            report = classification_report(
                gold, predicted, mode="strict", scheme=SEQEVAL_IOB2, output_dict=True, zero_division=0
            )
            assert evaluation.micro.f1 == pytest.approx(float(report["micro avg"]["f1-score"]))

    @given(pairs())
    @settings(max_examples=60)
    def test_lenient_is_conlleval_as_seqscore_repairs(self, pair):
        gold, predicted = pair
        evaluation = scored(gold, predicted, Mode.LENIENT)
        wanted, _ = score_label_sequences(predicted, gold, "BIO", repair="conlleval")
        assert evaluation.micro.f1 == pytest.approx(wanted.f1)
        assert evaluation.micro.precision == pytest.approx(wanted.precision)
        assert evaluation.micro.recall == pytest.approx(wanted.recall)
        for name, each in wanted.type_scores.items():
            assert evaluation.per_type[name].f1 == pytest.approx(each.f1)

    @given(pairs())
    @settings(max_examples=60)
    def test_modes_are_ordered(self, pair):
        recall = {mode: scored(*pair, mode).micro.recall for mode in Mode}
        assert recall[Mode.STRICT] <= recall[Mode.LENIENT] <= recall[Mode.BOUNDARIES]
        assert recall[Mode.LENIENT] <= recall[Mode.OVERLAP]

    @pytest.mark.parametrize(
        ("mode", "precision", "recall"),
        [
            # Predicted: Otto, New, Haven, Granite; Otto is right.
            (Mode.STRICT, 1 / 4, 1 / 4),
            # Ada Byron, Otto, New, Haven, Granite, Bank; Ada Byron and Otto are right.
            (Mode.LENIENT, 2 / 6, 2 / 4),
            (Mode.BOUNDARIES, 2 / 6, 2 / 4),
            # Also one half of New Haven and one of the bank.
            (Mode.OVERLAP, 4 / 6, 4 / 4),
        ],
    )
    def test_hand_worked(self, mode, precision, recall):
        gold, mine = (
            [[line.split()[1] for line in part.splitlines()] for part in text.split("\n\n")]
            for text in (GOLD, MINE)
        )
        micro = scored(gold, mine, mode).micro
        assert (micro.precision, micro.recall) == pytest.approx((precision, recall))

    def test_boundaries_ignore_types_and_overlap_does_not(self):
        gold, predicted = [["B-PER", "I-PER", "O"]], [["B-LOC", "I-LOC", "O"]]
        assert [scored(gold, predicted, mode).micro.f1 for mode in Mode] == [0, 0, 1, 0]

    def test_a_partner_of_another_type_does_not_hide_one_of_the_same(self):
        gold, predicted = [[Span(0, 4, "PER")]], [[Span(0, 2, "PER"), Span(2, 4, "LOC")]]
        assert span_counts(gold, predicted, Mode.OVERLAP) == [(1, 2, 1)]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "gold.txt").write_text(GOLD, encoding="utf-8")
    (tmp_path / "mine.txt").write_text(MINE, encoding="utf-8")
    return tmp_path


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(nertool.cli.main.main, ["score", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def scores(*arguments: object) -> dict:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code != 0 and not result.stdout
    return result.stderr


def relabelled(text: str, scheme: Scheme, separator: str = " ") -> str:
    parts = [[line.split() for line in part.splitlines()] for part in text.split("\n\n")]
    return "\n\n".join(
        "\n".join(
            f"{token}{separator}{label}"
            for (token, _), label in zip(
                part, convert([label for _, label in part], Scheme.IOB2, scheme), strict=True
            )
        )
        for part in parts
    )


class TestCommand:
    def test_one_system(self, folder):
        result = invoke("gold.txt", "mine.txt")
        assert result.exit_code == 0
        assert "mine on gold.txt, strict" in result.stdout and "labels read as IOB2" in result.stdout
        assert "│ micro │     25.00 │  25.00 │ 25.00 │       4 │" in result.stdout
        assert "│ overlap    │     66.67 │ 100.00 │ 80.00 │" in result.stdout
        assert "2 labels break IOB2 (repaired unless scoring is strict), such as I-PER at line 1" in result.stderr

    def test_json_has_every_mode(self, folder):
        tree = scores("gold.txt", "mine.txt", "--mode", "lenient")
        (system,) = tree["systems"]
        assert tree["mode"] == "lenient" and system["name"] == "mine"
        assert system["f1"] == pytest.approx(0.4) == system["modes"]["lenient"]["f1"]
        assert {name: each["recall"] for name, each in system["modes"].items()} == {
            "strict": 0.25,
            "lenient": 0.5,
            "boundaries": 0.5,
            "overlap": 1.0,
        }
        # Ada, Haven and Bank have other labels than the gold ones.
        assert system["accuracy"] == pytest.approx(8 / 11)

    @pytest.mark.parametrize("scheme", ["IOB1", "IOBES", "BILOU", "BMES"])
    def test_the_same_entities_in_another_scheme_are_right(self, folder, scheme):
        (folder / "other.txt").write_text(relabelled(GOLD, Scheme(scheme)), encoding="utf-8")
        for files in (("gold.txt", "other.txt"), ("other.txt", "gold.txt")):
            (system,) = scores(*files)["systems"]
            assert {each["f1"] for each in system["modes"].values()} == {1.0}

    def test_another_format(self, folder):
        rows = [
            {
                "text": "Ada Byron met Otto in New Haven .",
                "entities": [[0, 9, "PER"], [14, 18, "PER"], [22, 31, "ORG"]],
            },
            {"text": "Granite Bank fell", "entities": [[0, 12, "ORG"]]},
        ]
        (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (system,) = scores("gold.txt", "mine.jsonl")["systems"]
        assert system["f1"] == 0.75 and system["modes"]["boundaries"]["f1"] == 1.0

    def test_columns_of_one_file(self, folder):
        lines = [
            f"{one.split()[0]} x {one.split()[1]} {other.split()[1]}" if one else ""
            for one, other in zip(GOLD.splitlines(), MINE.splitlines(), strict=True)
        ]
        (folder / "both.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (system,) = scores("both.txt")["systems"]
        assert (system["name"], system["f1"]) == ("predicted", 0.25)
        tree = scores("both.txt", "--columns", "token,_,mine,gold")
        assert [each["name"] for each in tree["systems"]] == ["mine"]
        # Gold labels that break their scheme are repaired: six entities, four are predicted, two are right.
        assert tree["systems"][0]["recall"] == pytest.approx(2 / 6)
        tree = scores("both.txt", "--columns", "token, _, gold, mine", "--mode", "lenient")
        assert tree["systems"][0]["f1"] == pytest.approx(0.4)

    def test_several_systems_are_compared(self, folder):
        sentences = 40
        gold = "\n".join("Ada B-PER\nmet O\nOtto B-PER\n" for _ in range(sentences))
        (folder / "gold.txt").write_text(gold, encoding="utf-8")
        (folder / "same.txt").write_text(gold, encoding="utf-8")
        (folder / "bad.txt").write_text(gold.replace("Otto B-PER", "Otto O"), encoding="utf-8")
        (folder / "copy.txt").write_text(gold, encoding="utf-8")
        tree = scores("gold.txt", "same.txt", "bad.txt", "copy.txt")
        assert [(pair["first"], pair["second"]) for pair in tree["pairs"]] == [
            ("same", "bad"),
            ("same", "copy"),
            ("bad", "copy"),
        ]
        assert tree["pairs"][0]["difference"] == pytest.approx(1 - 2 / 3)
        assert tree["pairs"][0]["p"] < 0.001 and tree["pairs"][1]["p"] == 1.0
        result = invoke("gold.txt", "same.txt", "bad.txt")
        assert (
            "Paired approximate randomization over 40 sentences" in result.stdout
            and "Micro F1 by mode" in result.stdout
        )
        assert "marks no documents" in refused("gold.txt", "same.txt", "bad.txt", "--units", "documents")
        marked = gold.replace("\n\n", "\n\n-DOCSTART- O\n\n", 3)
        (folder / "gold.txt").write_text(f"-DOCSTART- O\n\n{marked}", encoding="utf-8")
        tree = scores("gold.txt", "same.txt", "bad.txt", "--units", "documents")
        assert (tree["units"], tree["unit_count"]) == ("documents", 4)

    def test_systems_of_one_name(self, folder):
        for name in ("a", "b"):
            (folder / name).mkdir()
            (folder / name / "out.txt").write_text(MINE, encoding="utf-8")
        assert [each["name"] for each in scores("gold.txt", "a/out.txt", "b/out.txt")["systems"]] == [
            "a/out.txt",
            "b/out.txt",
        ]

    def test_latex(self, folder):
        result = invoke("gold.txt", "mine.txt", "--format", "latex")
        assert (
            result.stdout.startswith("% needs \\usepackage{booktabs}\n")
            and "    PER & 100.00 & 50.00" in result.stdout
        )
        (folder / "a_b.txt").write_text(GOLD, encoding="utf-8")
        result = invoke("gold.txt", "mine.txt", "a_b.txt", "--format", "latex")
        assert "    a\\_b & 100.00 & 100.00 & \\textbf{100.00} \\\\" in result.stdout

    def test_plain_tags(self, folder):
        (folder / "gold.tsv").write_text("Rain\tNOUN\nfell\tVERB\n", encoding="utf-8")
        (folder / "mine.tsv").write_text("Rain\tVERB\nfell\tVERB\n", encoding="utf-8")
        tree = scores("gold.tsv", "mine.tsv")
        assert tree["mode"] is None and tree["systems"][0]["accuracy"] == 0.5 and tree["systems"][0]["modes"] == {}
        assert "are read as plain tags" in refused("gold.txt", "mine.tsv")

    def test_gold_tokens_without_label_are_not_scored(self, folder):
        (folder / "part.txt").write_text(GOLD.replace("fell O", "fell ?"), encoding="utf-8")
        tree = scores("part.txt", "mine.txt")
        assert tree["systems"][0]["sentences"] == 1
        assert any("1 sentences have tokens without a label and are not scored" in note for note in tree["notes"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                MINE.replace("met O", "saw O"),
                "mine.txt, line 3: the token is 'saw' where in gold.txt, line 3, the token is 'met'",
            ),
            (MINE.replace(". O\n", ""), "line 7: the sentence ends where in gold.txt, line 8, the token is '.'"),
            (
                MINE.partition("\n\n")[0] + "\n",
                "it has ended where gold.txt, line 10, goes on; it has 1 sentences",
            ),
            (MINE + "\nRain O\n", "line 14: a sentence where gold.txt has ended"),
            (
                MINE.replace("\n\n", "\n"),
                "line 9: the token is 'Granite' where in gold.txt, line 8, the sentence ends",
            ),
            ("", "there is no sentence in it"),
        ],
    )
    def test_files_that_do_not_fit_are_refused_with_the_place(self, folder, text, message):
        (folder / "mine.txt").write_text(text, encoding="utf-8")
        assert message in refused("gold.txt", "mine.txt")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("gold.txt",), "found 2 columns; a single file needs a token, its gold label and a predicted one"),
            (("gold.txt", "none.txt"), "there is no file none.txt"),
            (("gold.txt", "mine.txt", "--columns", "token,gold,x"), "leave PRED or --columns out"),
            (("gold.txt", "--columns", "token,mine"), "expected all columns from left to right"),
            (("gold.txt", "--columns", "token,gold,mine"), "expected 3 (token, gold, mine)"),
            (("gold.txt", "mine.txt", "--json", "--format", "latex"), "choose one of them"),
        ],
    )
    def test_mistakes(self, folder, arguments, message):
        assert message in refused(*arguments)

    def test_gold_without_entities_is_no_success(self, folder):
        (folder / "empty.txt").write_text("Rain O\nfell O\n", encoding="utf-8")
        assert "there is nothing to score" in refused("empty.txt", "empty.txt")
        (folder / "none.txt").write_text(
            "\n".join(f"{line.split()[0]} O" if line else "" for line in GOLD.splitlines()) + "\n",
            encoding="utf-8",
        )
        tree = scores("gold.txt", "none.txt")
        assert tree["systems"][0]["f1"] == 0 and "no token of none.txt is labelled" in tree["notes"][0]


class TestTexts:
    def write(self, path: Path, rows: list[dict]) -> Path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def test_other_tokens_of_the_same_texts_are_aligned_by_characters(self, folder):
        text = "Ada-Lind met Otto."
        gold = {"text": text, "tokens": ["Ada-Lind", "met", "Otto", "."], "labels": ["B-PER", "O", "B-PER", "O"]}
        mine = {
            "text": text,
            "tokens": ["Ada", "-", "Lind", "met", "Otto", "."],
            "labels": ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "O"],
        }
        tree = scores(self.write(folder / "g.jsonl", [gold]), self.write(folder / "m.jsonl", [mine]))
        assert tree["aligned_by"] == "characters" and tree["units"] == "documents"
        (system,) = tree["systems"]
        assert (system["precision"], system["recall"]) == (0.5, 0.5)
        assert system["modes"]["boundaries"]["f1"] == 1.0

    def test_texts_without_all_labels_are_not_scored(self, folder):
        """They are left out as sentences are: nobody knows what is right there."""
        text = "Ada met Otto."
        labels = ["B-PER", "O", "B-PER", "O"]
        row = {"text": text, "tokens": ["Ada", "met", "Otto", "."]}
        gold = [{**row, "labels": labels}, {**row, "labels": ["B-PER", "O", None, "O"]}]
        mine = {"text": text, "tokens": ["Ada", "met", "Otto."]}
        rows = [{**mine, "labels": ["B-PER", "O", None]}, {**mine, "labels": ["B-PER", "O", "B-PER"]}]
        tree = scores(self.write(folder / "g.jsonl", gold), self.write(folder / "m.jsonl", rows))
        (system,) = tree["systems"]
        assert tree["unit_count"] == 1 and (system["precision"], system["recall"]) == (1.0, 0.5)
        assert "gold: 1 texts have tokens without a label and are not scored" in tree["notes"]
        assert "m: 1 tokens have no label and are read as O" in tree["notes"]

    def test_other_texts_are_refused_with_the_place(self, folder):
        one = self.write(folder / "g.jsonl", [{"text": "Ada met Otto.", "entities": [[0, 3, "PER"]]}])
        two = self.write(folder / "m.jsonl", [{"text": "Ada saw Otto.", "entities": [[0, 3, "PER"]]}])
        assert "text 1 differs from that in" in refused(one, two) and "at character 5" in refused(one, two)


def split_of(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


class TestSchemes:
    def test_broken_labels_are_read_in_the_gold_scheme(self, tmp_path):
        """A system that begins most entities with I- is not taken for one that writes IOB1."""
        gold = split_of(tmp_path, "gold.txt", "a B-X\nb O\nc B-X\n\nd B-X\ne B-X\n")
        mine = split_of(tmp_path, "mine.txt", "a I-X\nb O\nc I-X\n\nd B-X\ne I-X\n")
        right, (other,) = read_outputs(gold, [mine], CorpusConfig(train="x"))
        assert (right.scheme, other.scheme, other.strays) == (Scheme.IOB2, Scheme.IOB2, 2)
        result = score_systems(align(right, {"mine": other}), ["mine"])
        assert result.systems[0].evaluation.micro.recall == 0

    def test_proper_iob1_and_iob2_are_each_what_they_are(self, tmp_path):
        one = split_of(tmp_path, "one.txt", "a I-X\nb O\nc I-X\nd B-X\n")
        two = split_of(tmp_path, "two.txt", "a B-X\nb O\nc B-X\nd B-X\n")
        for gold, mine in ((one, two), (two, one)):
            right, (other,) = read_outputs(gold, [mine], CorpusConfig(train="x"))
            assert {right.scheme, other.scheme} == {Scheme.IOB1, Scheme.IOB2}
            assert score_systems(align(right, {"x": other}), ["x"]).systems[0].evaluation.micro.f1 == 1

    def test_columns_of_a_file(self, tmp_path):
        path = split_of(tmp_path, "both.txt", "a B-X B-X O\nb O O O\n")
        gold, systems = read_columns(path, ["token", "gold", "one", "two"], CorpusConfig(train="x"))
        assert isinstance(gold, Split) and list(systems) == ["one", "two"]
        with pytest.raises(CorpusError, match="a name for each system"):
            read_columns(path, ["token", "gold", "one", "one"], CorpusConfig(train="x"))
        with pytest.raises(NertoolError, match="marks no documents"):
            score_systems(align(gold, systems), list(systems), units="documents")
