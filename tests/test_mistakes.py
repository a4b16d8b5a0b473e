"""What a model gets wrong: the classes by hand, their sums against seqeval, pages that no file breaks."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import nertool.cli.main
from nertool.data.corpus import Split
from nertool.evaluation.mistakes import BINS, Findings, find_mistakes, reliability
from nertool.evaluation.pairing import Judged, Outcome, pair
from nertool.evaluation.scores import calibration_error, evaluate, sentence_counts, strict_entities
from nertool.tagging.bundle import load_bundle
from nertool.tagging.predictor import Predictor
from nertool.text.document import Document, Origin
from nertool.text.schemes import Scheme, Span, convert, spans
from nertool.views.mistakes import _point, show_findings, write_page
from nertool.views.visible import visible
from nertool.views.wording import confusion_table, outcome_table, pieces

RIGHT, WRONG_TYPE, WRONG_BOUNDARY, WRONG_BOTH, MISSED, INVENTED = Outcome


def find(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    score: Any = 0.9,
    *,
    tokens: Sequence[Sequence[str]] | None = None,
    scheme: Scheme = Scheme.IOB2,
    unit: Literal["line", "row"] = "line",
    top: int = 10,
) -> Findings:
    """Findings about labels, with a score that is the same everywhere or a function of sentence, start and end."""
    lines = [1 + sum(len(row) + 1 for row in gold[:n]) for n in range(len(gold))]
    documents = [
        Document(
            tuple(tokens[n]) if tokens else tuple(f"t{index}" for index in range(len(row))),
            labels=tuple(row),
            scheme=scheme,
            origin=Origin("data", unit, (n + 1 if unit == "row" else lines[n],)),
        )
        for n, row in enumerate(gold)
    ]
    split = Split(documents, scheme, scheme, path=Path("data"), unit=unit)
    chance = score if callable(score) else lambda *_: score
    labelled: Any = SimpleNamespace(labels=[list(row) for row in predicted], probability=chance)
    return find_mistakes(split, labelled, top)


def printed(findings: Findings, width: int = 120, **options: Any) -> str:
    console = Console(file=StringIO(), width=width, **options)
    show_findings(console, findings, "x.txt by [model]")
    return console.file.getvalue()


def words(text: str) -> list[str]:
    return text.split()


class TestPairs:
    @pytest.mark.parametrize(
        ("gold", "predicted", "wanted"),
        [
            ("B-X I-X O", "B-X I-X O", [RIGHT]),
            ("B-X I-X O", "B-Y I-Y O", [WRONG_TYPE]),
            ("B-X I-X O", "B-X O O", [WRONG_BOUNDARY]),
            ("B-X I-X O", "O B-X I-X", [WRONG_BOUNDARY]),
            ("B-X I-X O", "O B-Y O", [WRONG_BOTH]),
            ("B-X I-X O", "O O O", [MISSED]),
            ("B-X I-X O", "O O B-X", [MISSED, INVENTED]),
            ("O O O", "O B-X O", [INVENTED]),
            ("O O O", "O O O", []),
            # Cut in two, joined of two: one partner each.
            ("B-X I-X I-X", "B-X I-X B-X", [WRONG_BOUNDARY, INVENTED]),
            ("B-X I-X I-X", "B-X B-X I-X", [WRONG_BOUNDARY, INVENTED]),
            ("B-X B-X I-X", "B-X I-X I-X", [WRONG_BOUNDARY, MISSED]),
            # The same type goes before the greater share, the same borders before all.
            ("B-X I-X I-X", "B-Y I-Y B-X", [WRONG_BOUNDARY, INVENTED]),
            ("B-X B-Y I-Y", "B-X I-X I-X", [WRONG_BOUNDARY, MISSED]),
            ("B-X B-Y", "B-Y B-X", [WRONG_TYPE, WRONG_TYPE]),
            # Between equals the first.
            ("B-X B-X", "B-X I-X", [WRONG_BOUNDARY, MISSED]),
            # A chain, where each overlaps two.
            ("B-X I-X B-Y I-Y", "O B-Y I-Y B-X", [MISSED, WRONG_BOUNDARY, INVENTED]),
        ],
    )
    def test_by_hand(self, gold, predicted, wanted):
        found = pair(spans(words(gold), Scheme.IOB2), spans(words(predicted), Scheme.IOB2))
        assert [each.outcome for each in found] == wanted

    def test_the_pairs_themselves(self):
        gold = [Span(0, 2, "X"), Span(3, 4, "Y"), Span(6, 7, "X")]
        predicted = [Span(1, 2, "X"), Span(3, 4, "X"), Span(8, 9, "Y")]
        assert pair(gold, predicted) == [
            Judged(WRONG_BOUNDARY, gold[0], predicted[0]),
            Judged(WRONG_TYPE, gold[1], predicted[1]),
            Judged(MISSED, gold[2], None),
            Judged(INVENTED, None, predicted[2]),
        ]

    def test_the_greater_share_and_before_it_the_same_type(self):
        whole, short, long = Span(0, 3, "X"), Span(0, 1, "X"), Span(1, 3, "X")
        assert pair([whole], [short, long])[0] == Judged(WRONG_BOUNDARY, whole, long)
        assert pair([short, long], [whole])[0] == Judged(WRONG_BOUNDARY, long, whole)
        other = Span(1, 3, "Y")
        assert pair([whole], [short, other])[0] == Judged(WRONG_BOUNDARY, whole, short)
        assert pair([short, other], [whole])[1] == Judged(MISSED, other, None)

    def test_a_sentence_of_many(self):
        gold = [Span(n, n + 1, "X") for n in range(0, 60_000, 2)]
        found = pair(gold, [Span(n, n + 1, "X") for n in range(1, 60_000, 2)])
        assert Counter(each.outcome for each in found) == {MISSED: 30_000, INVENTED: 30_000}


LABELS = ["O", "O", "B-X", "I-X", "B-Y", "I-Y", "B-Z"]
SENTENCES = st.lists(
    st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=9),
    min_size=1,
    max_size=5,
)


class TestSums:
    @given(SENTENCES, st.sampled_from([Scheme.IOB2, Scheme.IOBES, Scheme.BILOU]))
    @settings(max_examples=80)
    def test_each_entity_is_in_one_class_and_seqeval_counts_the_same(self, pairs, scheme):
        gold = [convert([wanted for wanted, _ in row], Scheme.IOB2, scheme) for row in pairs]
        # As a model without constraints has them: strays too, which strict scores leave out.
        predicted = [[found for _, found in row] for row in pairs]
        if scheme is not Scheme.IOB2:
            predicted = [convert(row, Scheme.IOB2, scheme) for row in predicted]
        for row, other in zip(strict_entities(gold, scheme), strict_entities(predicted, scheme), strict=True):
            judged = pair(row, other)
            assert sorted(each.gold for each in judged if each.gold) == row
            assert sorted(each.predicted for each in judged if each.predicted) == other
            for outcome, wanted, found in judged:
                assert (wanted is None) == (outcome is INVENTED) and (found is None) == (outcome is MISSED)
                if wanted and found:
                    assert wanted.start < found.end and found.start < wanted.end
                    assert (wanted.type == found.type) == (outcome in (RIGHT, WRONG_BOUNDARY))
                    assert (wanted[:2] == found[:2]) == (outcome in (RIGHT, WRONG_TYPE))
            left = [each for outcome, each, _ in judged if outcome is MISSED]
            for outcome, _, found in judged:
                if outcome is INVENTED:
                    assert not any(each.start < found.end and found.start < each.end for each in left)
        findings, scores = find(gold, predicted, scheme=scheme), evaluate(gold, predicted, scheme)
        counts = [sum(column) for column in zip(*sentence_counts(gold, predicted, scheme), strict=True)]
        total = findings.total
        assert [total[RIGHT], findings.predicted_count(), findings.gold_count()] == counts
        assert findings.gold_count() == scores.micro.support == total.total() - total[INVENTED]
        assert findings.predicted_count() == total.total() - total[MISSED]
        for name, row in scores.per_type.items():
            own = findings.outcomes.get(name, Counter())
            assert row.support == findings.gold_count(name) == own.total() - own[INVENTED]
            assert own[RIGHT] == pytest.approx(row.recall * row.support)
            assert own[RIGHT] == pytest.approx(row.precision * findings.predicted_count(name))
            assert findings.confusion[name, name] == own[RIGHT] + own[WRONG_BOUNDARY]
            assert findings.confusion[name, None] == own[MISSED]
            assert findings.confusion[None, name] == own[INVENTED]
        assert findings.confusion.total() == total.total()
        assert findings.wrong_sentences == sum(
            not right == found == there for right, found, there in sentence_counts(gold, predicted, scheme)
        )
        tree = json.loads(json.dumps(findings.to_json(), allow_nan=False))
        assert tree["outcomes"] == {outcome.value: total[outcome] for outcome in Outcome}
        assert sum(each["count"] for each in tree["confusion"]) == total.total()

    @given(st.lists(st.lists(st.tuples(*[st.sampled_from(["N", "V", "B-X"])] * 2), min_size=1), min_size=1))
    @settings(max_examples=50)
    def test_plain_tags(self, pairs):
        gold, predicted = ([[each[side] for each in row] for row in pairs] for side in (0, 1))
        findings = find(gold, predicted, scheme=Scheme.PLAIN)
        scores = evaluate(gold, predicted, Scheme.PLAIN)
        assert findings.plain_tags and findings.total.keys() <= {RIGHT, WRONG_TYPE}
        assert findings.total[RIGHT] == pytest.approx(scores.accuracy * scores.tokens)
        for name, row in scores.per_type.items():
            assert (row.support, row.support * row.recall) == (
                findings.gold_count(name),
                pytest.approx(findings.confusion[name, name]),
            )
        for sentence in findings.surest:
            assert len(sentence.gold) == len(sentence.predicted) == len(sentence.mistakes) > 0

    @given(st.lists(st.tuples(st.floats(0, 1), st.booleans())))
    def test_the_calibration_error_follows_from_the_bins(self, pairs):
        confidences, right = [each for each, _ in pairs], [each for _, each in pairs]
        bins = reliability(confidences, right)
        assert len(bins) == BINS and sum(each.size for each in bins) == len(pairs)
        assert all(
            each.low - 1e-9 <= each.confidence <= each.high + 1e-9 and 0 <= each.right <= 1
            for each in bins
            if each.size
        )
        gap = sum(each.size * abs(each.confidence - each.right) for each in bins)
        wanted = calibration_error(confidences, right)
        assert wanted is None if not pairs else wanted == pytest.approx(gap / len(pairs), abs=1e-9)

    def test_a_bin_by_hand(self):
        bins = reliability([0.05, 0.5, 0.52, 1.0], [False, True, False, True])
        assert [each.size for each in bins] == [1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1]
        assert bins[7][2:] == (2, pytest.approx(0.51), 0.5)
        assert bins[1] == (1 / 15, 2 / 15, 0, 0, 0)
        # Wilson's interval for 1 of 2, as published tables have it: 0.0945 to 0.9055.
        point = _point(bins[7])
        assert (point["top"], point["bottom"], point["y"]) == ("28.4", "271.6", "150.0")


class TestSurest:
    def test_sentences_and_their_mistakes_come_surest_first_each_with_its_line(self):
        gold = ["B-X O B-X", "O B-Y I-Y", "O", "B-X"]
        predicted = ["B-Y O O", "O B-Y O", "O", "B-X"]
        chances = {(0, 0, 1): 0.4, (0, 2, 3): 0.6, (1, 1, 2): 0.7, (3, 0, 1): 0.99}
        findings = find([*map(words, gold)], [*map(words, predicted)], lambda *place: chances[place])
        second, first = findings.surest[1], findings.surest[0]
        assert (first.line, first.score, first.mistakes[0].line) == (5, 0.7, 6)
        assert first.mistakes == [((WRONG_BOUNDARY, Span(1, 3, "Y"), Span(1, 2, "Y")), 0.7, 6)]
        # A missed entity has the probability of what the model says of its tokens.
        assert [(each.judged.outcome, each.score, each.line) for each in second.mistakes] == [
            (MISSED, 0.6, 3),
            (WRONG_TYPE, 0.4, 1),
        ]
        assert second.gold == [Span(0, 1, "X"), Span(2, 3, "X")] and second.predicted == [Span(0, 1, "Y")]
        assert findings.wrong_sentences == 2
        assert len(find([*map(words, gold)], [*map(words, predicted)], top=1).surest) == 1
        assert find([*map(words, gold)], [*map(words, predicted)], top=0).surest == []

    def test_rows_count_sentences(self):
        findings = find([["O", "O", "B-X"]], [["O", "O", "O"]], unit="row")
        assert findings.surest[0].mistakes[0].line == findings.surest[0].line == 1
        assert findings.to_json()["surest"][0]["row"] == 1
        assert "row 1" in printed(findings)

    def test_a_long_sentence_is_shown_in_part(self):
        gold, predicted = ["O"] * 5000, ["O"] * 5000
        gold[3000:3300] = ["B-X", *["I-X"] * 299]
        predicted[10] = "B-X"
        findings = find([gold], [predicted], lambda _, start, end: 0.5 if start == 10 else 0.9)
        wanted, found = ([*pieces(findings.surest[0], gold=side)] for side in (True, False))
        assert [each.text for each in wanted][::3] == ["…", "…"] and wanted[2].wrong
        assert wanted[1].text.split() == [f"t{n}" for n in range(2960, 3000)]
        assert [each.text[:6] for each in found] == ["…", "t2960 ", "…"]
        assert len(printed(findings)) < 8000

    def test_scores_are_those_of_the_model(self, trained_run: Path, tiny_test):
        model = load_bundle(trained_run)
        tokens = [row for row, _ in tiny_test]
        found = Predictor(model).predict([Document(tuple(row)) for row in tokens], probabilities=True)
        gold = [convert(row, Scheme.IOB2, Scheme.IOBES) for _, row in tiny_test]
        gold[0] = [label if label == "O" else label[:2] + "NEW" for label in gold[0]]
        findings = find(gold, found.labels, found.probability, tokens=tokens, scheme=Scheme.IOBES)
        assert findings.surest
        for sentence in findings.surest:
            place = tokens.index(list(sentence.tokens))
            for (_, wanted, shown), score, _ in sentence.mistakes:
                span = shown or wanted
                assert score == found.probability(place, span.start, span.end)
                assert 0 <= score <= 1


HOSTILE = [
    "<script>alert(1)</script>",
    "&amp;\"'",
    "\x1b[31mred\x07",
    "[bold]x[/bold]",
    "\ud800",
    "\u2028a",
    "x" * 9000,
]


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.values: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.values += [f"{name}={value}" for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


class TestPaper:
    @pytest.fixture(params=[Scheme.IOB2, Scheme.PLAIN], ids=str)
    def hostile(self, request) -> Findings:
        gold = ["B-<b>X</b>", "I-<b>X</b>", *["O"] * (len(HOSTILE) - 2)]
        predicted = [*["O"] * (len(HOSTILE) - 2), 'B-[red]"&', "O"]
        return find([gold, gold], [predicted, gold], tokens=[HOSTILE] * 2, scheme=request.param)

    def test_hostile_tokens_on_a_page(self, hostile, tmp_path):
        write_page(hostile, "<i>data</i>", "run\x00<b>", tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert not set(text) & {"\x00", "\x07", "\x1b", "\u2028"}
        page = Page(text)
        assert not page.tags.keys() & {"script", "b", "i", "img", "link", "iframe"}
        assert "<script>alert(1)</script>" in page.text and "<i>data</i>" in page.text
        assert "<b>X</b>" in page.text and "[bold]x[/bold]" in page.text
        assert not any(re.match(r"(on\w+|src|href|xlink:href)=", value) for value in page.values)
        assert "url(" not in text and "http" not in text.replace("http-equiv", "")
        assert len(text) < 30_000

    @pytest.mark.parametrize("width", [40, 80, 200])
    def test_hostile_tokens_on_a_terminal(self, hostile, width):
        text = printed(hostile, width, force_terminal=True, no_color=True)
        bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert not set(bare) & {"\x1b", "\x07", "\u2028", "\ud800"}
        assert "\x1b[31m" not in text
        assert "[bold]x[/bold]" in re.sub(r"\s+", "", printed(hostile, 10_000))

    def test_tables_by_hand(self):
        gold = [words("B-X I-X O B-X B-Y O")]
        predicted = [words("B-X O O B-Y O B-Y")]
        heads, rows = outcome_table(findings := find(gold, predicted))
        assert heads == ["gold", *(each.value for each in Outcome), "predicted"]
        assert dict(rows) == {
            "X": words("2 0 1 1 0 0 0 1"),
            "Y": words("1 0 0 0 0 1 1 2"),
            "all": words("3 0 1 1 0 1 1 3"),
        }
        assert confusion_table(findings) == (
            ["X", "Y", "none"],
            [("X", words("1 1 0")), ("Y", words("0 0 1")), ("none", ["0", "1", ""])],
        )
        text = printed(findings)
        assert "x.txt by [model]" in text and "F1 0.00" in text
        assert "[t0 t1|X] t2 [t3|X] [t4|Y] t5" in text and "[t0|X] t1 t2 [t3|Y] t4 [t5|Y]" in text
        assert "0.900 wrong boundary: gold [t0 t1|X], model [t0|X] (line 1)" in text
        # Too narrow for the table: a list.
        assert "Most frequent confusions" in printed(findings, 25)

    def test_nothing_is_wrong(self, tmp_path):
        findings = find([["O", "B-X"]], [["O", "B-X"]])
        assert findings.surest == [] and "0 of 1 sentence with a mistake" in printed(findings)
        write_page(findings, "data", "model", tmp_path / "page.html")
        assert "There is none." in (tmp_path / "page.html").read_text(encoding="utf-8")

    def test_no_entity_at_all(self, tmp_path):
        findings = find([["O"]], [["O"]])
        assert findings.calibration_error is None and findings.total.total() == 0
        assert "Nothing is predicted" in printed(findings)
        write_page(findings, "data", "model", tmp_path / "page.html")
        assert "<svg" not in (tmp_path / "page.html").read_text(encoding="utf-8")

    def test_letters_that_join_stay(self):
        assert visible("\u0645\u06cc\u200c\u062e\a\n") == "\u0645\u06cc\u200c\u062e\\x07 "


class TestCommand:
    @pytest.fixture
    def here(self, trained_run: Path, tmp_path: Path, monkeypatch) -> Path:
        for name in ("NERTOOL_DATA", "NERTOOL_MODEL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "120")
        shutil.copy(trained_run.parent / "corpus" / "test.txt", tmp_path / "test.txt")
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "latest").symlink_to(trained_run)
        return tmp_path

    def call(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(nertool.cli.main.main, ["errors", *arguments])
        assert result.exit_code == code, result.output
        return result.stderr if code else result.stdout

    def test_json_agrees_with_evaluate(self, here):
        tree = json.loads(self.call("test.txt", "--json"))
        scores = json.loads(CliRunner().invoke(nertool.cli.main.main, ["evaluate", "test.txt", "--json"]).stdout)
        assert tree["gold"] == scores["support"] and tree["outcomes"]["right"] / tree["gold"] == scores["recall"]
        assert tree["outcomes"]["right"] / tree["predicted"] == pytest.approx(scores["precision"])
        lines = Path("test.txt").read_text(encoding="utf-8").split("\n")
        assert tree["surest"]
        for sentence in tree["surest"]:
            assert lines[sentence["line"] - 1].split()[0] == sentence["tokens"][0]
            for mistake in sentence["mistakes"]:
                start = min(each["start"] for each in (mistake["gold"], mistake["predicted"]) if each)
                assert lines[mistake["line"] - 1].split()[0] == sentence["tokens"][start]

    def test_text_and_page(self, here):
        text = self.call("test.txt", "--top", "1")
        assert "test.txt by runs/latest" in text and "\n1. " in text and "\n2. " not in text
        assert self.call("test.txt", "--output", "page.html") == "written: page.html\n"
        assert "<title>Mistakes on test.txt</title>" in Path("page.html").read_text(encoding="utf-8")
        tree = json.loads(self.call("test.txt", "--output", "page.html", "--json"))
        assert tree["data"] == "test.txt"

    def test_other_columns_and_labels_that_the_model_does_not_know(self, here):
        Path("other.txt").write_text("x Ada y B-NEW\nx wrote y O\n", encoding="utf-8")
        columns = ["--set", "corpus.columns=[n, token, pos, ner]", "--set", "corpus.label=ner"]
        text = self.call("other.txt", *columns)
        assert "1 tokens have labels that the model does not know: S-NEW" in text
        assert "gold   [Ada|NEW] wrote" in text

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["none.txt"], "there is no file none.txt"),
            (["test.txt", "--output", "page.pdf"], "page.pdf: the name of a page ends in .html"),
            (["test.txt", "--output", "none/page.html"], "cannot be written"),
            (["test.txt", "--model", "gone"], "there is no model folder gone"),
        ],
    )
    def test_mistakes(self, here, arguments, message):
        assert message in self.call(*arguments, code=1)
