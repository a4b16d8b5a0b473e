"""`nertool look`, its page, and what draws itself in notebooks: the figures are right, and text is only text."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import nertool
from nertool.cli.main import main
from nertool.errors import NertoolError
from nertool.evaluation.scores import evaluate
from nertool.tagging.inside import Inside, look_inside
from nertool.tagging.predictor import Predictor
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.views.console import new_console
from nertool.views.inside import MOST_LABELS, fragment, show_inside, shown_labels, write_page
from tests.networks import sentences, small_config, small_model

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e&\"'"
VARIANTS = {
    "two layers, attention": {
        "encoder": {"kind": "lstm", "layers": 2},
        "attention": {"kind": "multi_head", "heads": 2},
    },
    "GRU in one direction": {"encoder": {"kind": "gru", "bidirectional": False}},
    "RNN, softmax": {"encoder": {"kind": "rnn"}, "decoder": "softmax"},
    "convolutions, constrained": {"encoder": {"kind": "cnn"}, "decoder": "constrained"},
    "no encoder": {"encoder": {"kind": "none"}},
}


class Page(HTMLParser):
    """The tables of a page by name, and its text; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.tags: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self._name = ""
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name in values)
        if tag in ("meta", "br"):
            return
        self._open.append(tag)
        self._name = values.get("aria-label") or self._name
        if tag == "table":
            self.tables.append((self._name, []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1] += [""] * int(values.get("colspan", 1))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][1][-1][-1] += data

    def named(self, name: str) -> list[list[str]]:
        return next(rows for own, rows in self.tables if own == name)


def small_inside(length: int = 4, **settings) -> Inside:
    return look_inside(Predictor(small_model(small_config(**settings))), sentences([length])[0])


def number(text: str) -> float:
    return 0.0 if text == "·" else float(text.replace("−", "-"))


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_page_has_the_figures(settings, tmp_path):
    inside = small_inside(**settings)
    write_page([inside], "runs/x", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "default-src 'none'" in text and "http://" not in text and "https://" not in text
    for name, values, exact in (("Emissions", inside.emissions, 0.0501), ("Marginals", inside.marginals, 0.0051)):
        head, *rows = page.named(name)
        assert head == ["token", *inside.labels]
        assert [row[0] for row in rows] == list(inside.tokens)
        np.testing.assert_allclose([[*map(number, row[1:])] for row in rows], values, atol=exact)
    paths = page.named("The best paths")
    assert paths[1][2:] == inside.names(inside.paths[0]) and paths[2][2:] == inside.names(inside.paths[1])
    titles = [name for name, _ in page.tables]
    assert ("Transitions" in titles) == (inside.decoder == "crf")
    if inside.decoder == "crf":
        head, start, *rows = page.named("Transitions")
        assert head == ["from, to", *inside.labels, "end"] and start[-1] == ""
        np.testing.assert_allclose(
            [[*map(number, row[1:-1])] for row in rows], inside.transitions.transitions, atol=0.0501
        )
        np.testing.assert_allclose([number(row[-1]) for row in rows], inside.transitions.end, atol=0.0501)
    kind = inside.encoder
    gates = [(name, rows) for name, rows in page.tables if name.startswith(kind.upper())]
    assert len(gates) == len({trace.layer for trace in inside.traces})
    for layer, (_, rows) in enumerate(gates, 1):
        own = [trace for trace in inside.traces if trace.layer == layer]
        names = {"lstm": ["in", "forget", "out", "‖c‖", "‖h‖"], "gru": ["reset", "update", "‖h‖"]}
        each = names.get(kind, ["‖h‖", "change"])
        assert rows[1] == ["token", *each * len(own)]
        values = np.array([[*map(float, row[1:])] for row in rows[2:]])
        for place, trace in enumerate(own):
            columns = values[:, place * len(each) : (place + 1) * len(each)]
            means = [gate.mean(-1) for gate in trace.gates.values()]
            np.testing.assert_allclose(columns[:, : len(means)].T, np.reshape(means, (-1, 4)), atol=0.0051)
            norm = np.linalg.norm(trace.states, axis=-1)
            np.testing.assert_allclose(columns[:, each.index("‖h‖")], norm, atol=0.0051)
    heads = [rows for name, rows in page.tables if name.startswith("Head")]
    assert len(heads) == (0 if inside.attention is None else 2)
    for rows, weights in zip(heads, inside.attention if heads else (), strict=True):
        np.testing.assert_allclose([[*map(number, row[1:])] for row in rows[1:]], weights, atol=0.0051)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("length", [1, 4])
def test_a_terminal_of_80_columns_shows_it_whole(settings, length):
    inside = small_inside(length, **settings)
    inside = replace(inside, tokens=("University", *inside.tokens[1:]))
    stream = io.StringIO()
    console = new_console(stream)
    console.width = 80
    show_inside(console, [inside, inside])
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines if line.startswith(("│", "┃")))
    assert "…" not in stream.getvalue().replace(" …", "")
    assert stream.getvalue().count("Best path: probability") == 2
    for trace in inside.traces:
        mean = f"{(trace.gates['forget'] if trace.kind == 'lstm' else trace.states).mean(-1)[0]:.2f}"
        assert trace.kind != "lstm" or mean in stream.getvalue()


def hostile() -> Inside:
    inside = small_inside(3, attention={"kind": "dot"})
    labels = tuple(f"{HOSTILE}{number}" for number in range(len(inside.labels)))
    return replace(inside, tokens=(HOSTILE, "[/b]", "北"), labels=labels)


def test_text_and_labels_are_escaped(tmp_path):
    write_page([hostile()], HOSTILE, tmp_path / "page.html")
    for text in ((tmp_path / "page.html").read_text(encoding="utf-8"), fragment([hostile()], HOSTILE)):
        page = Page(text)
        assert "script" not in page.tags and "\x1b" not in text and "\u202e" not in text
        assert "<script>alert(1)</script>" in page.text and "北" in page.text
    stream = io.StringIO()
    show_inside(new_console(stream), [hostile()])
    assert "\x1b" not in stream.getvalue() and "[/b]" in stream.getvalue()


def test_of_many_labels_the_probable_ones_are_shown():
    inside = small_inside()
    count = 3 * MOST_LABELS
    marginals = np.zeros((4, count))
    probable = [1, 5, count - 1]
    marginals[[0, 1, 2], probable] = 0.9
    many = replace(
        inside,
        labels=tuple(f"L{label}" for label in range(count)),
        marginals=marginals,
        emissions=np.zeros((4, count)),
        transitions=type(inside.transitions)(np.zeros(count), np.zeros((count, count)), np.zeros(count)),
    )
    shown = shown_labels([many])
    assert set(probable) <= set(shown) and len(shown) == MOST_LABELS and shown == sorted(shown)
    assert f"{count - MOST_LABELS} more labels" in Page(fragment([many], "m")).text


class TestCommand:
    TEXT = "Ada Byron wrote to Babbage. Nobody came."

    @pytest.fixture(autouse=True)
    def here(self, tmp_path, monkeypatch, trained_run) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("NERTOOL_MODEL", str(trained_run))
        return tmp_path

    def run(self, *arguments: str, input: str | None = None) -> tuple[str, str]:
        result = CliRunner().invoke(main, ["look", *arguments], input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.stdout, result.stderr

    def test_a_text_a_file_and_standard_input_say_the_same(self):
        shown, told = self.run(self.TEXT)
        assert told == "" and shown.count("Best path: probability") == 2
        assert "B-PER" in shown and "The forget gate" not in shown and "forget gate" in shown
        Path("text.txt").write_text(self.TEXT, encoding="utf-8")
        Path("text.conll").write_text("\n".join(self.TEXT.replace(".", " .").split()) + "\n", encoding="utf-8")
        assert self.run("text.txt") == self.run("-", input=self.TEXT) == (shown, "")
        assert "Best path" in self.run("text.conll", "--from", "conll")[0]

    def test_the_page(self, trained_run):
        assert self.run(self.TEXT, "--output", "page.html") == ("written: page.html\n", "")
        page = Page(Path("page.html").read_text(encoding="utf-8"))
        (first, _) = Tagger.load(trained_run).inside(self.TEXT)
        assert page.named("Marginals")[0][1:] == list(first.labels)
        assert "×" in {cell for row in page.named("Transitions") for cell in row}
        assert [name for name, _ in page.tables].count("LSTM") == 2

    def test_of_a_long_text_the_first_sentences_are_shown(self):
        shown, told = self.run("-", input="Nobody came.\n" * 30)
        assert shown.count("Best path") == 10 and "only the first 10 sentences are shown" in told

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([""], "there is no token in this text"),
            ([" \n "], "there is no token in this text"),
            (["Oslo", "--output", "page.pdf"], "page.pdf: the name of a page ends in .html"),
            (["Oslo", "--output", "none/page.html"], "none/page.html: cannot be written"),
            (["report.txt"], "there is no file report.txt: check the path"),
            (["report.txt", "--from", "text"], "report.txt: "),
            (["x " * 600], "a sentence of 600 tokens is too long to look inside (512 at most)"),
            (["Oslo", "--model", "gone"], "there is no model folder gone"),
        ],
        ids=["empty", "whitespace", "picture", "folder", "no file", "no file, named", "long", "model"],
    )
    def test_mistakes(self, arguments, message, here):
        shown, told = self.run(*arguments)
        assert (shown, told.startswith(f"error: {message}")) == ("", True), told
        assert list(here.iterdir()) == []

    def test_texts_that_are_no_names_of_files(self):
        for text in ("a\0b", "x" * 5000, "Oslo\nLondon", "\N{BALLOON}", "U.S.", "3.5"):
            shown, told = self.run(text)
            assert "Best path" in shown and told == ""


class TestNotebooks:
    def test_a_look(self, trained_run, tmp_path):
        look = nertool.look(trained_run, "Ada Byron left Oslo.")
        (inside,) = look.sentences
        page = Page(look._repr_html_())
        assert [row[0] for row in page.named("Emissions")[1:]] == list(inside.tokens)
        look.write(tmp_path / "page.html")
        assert str(trained_run) in (tmp_path / "page.html").read_text(encoding="utf-8")
        tagger = Tagger.load(trained_run)
        assert nertool.look(tagger, Document(("Oslo",))).sentences[0].tokens == ("Oslo",)
        with pytest.raises(NertoolError, match="no token"):
            nertool.look(tagger, " ")
        with pytest.raises(TypeError, match="expected a model"):
            nertool.look(None, "Oslo")

    def test_the_style_of_a_fragment_stays_in_it(self):
        """Every rule is nested in the fragment's own class."""
        style = re.search(r"<style>(.*?)</style>", fragment([small_inside()], "m"), re.DOTALL)[1]
        assert not re.search(r":root|\bbody\b|&amp;", style)
        depth, rules = 0, []
        for piece in re.findall(r"[^{}]*[{}]", style):
            if piece.endswith("{") and depth == 0:
                rules.append(piece[:-1].strip())
            depth += 1 if piece.endswith("{") else -1
        assert depth == 0 and rules == [".nertool"]

    def test_scores(self):
        gold = [["B-P&<", "O"], ["O", "B-Q"]]
        scores = evaluate(gold, [["B-P&<", "O"], ["B-Q", "O"]], Scheme.IOB2)
        ((_, rows),) = Page(scores._repr_html_()).tables
        assert rows[0] == ["type", "precision", "recall", "F1", "support"]
        assert rows[1] == ["P&<", "100.00", "100.00", "100.00", "1"]
        assert rows[-1] == ["micro", "50.00", "50.00", "50.00", "2"]
        result = nertool.Result(Path("runs/<x>"), {"validation": scores, "test": scores}, 3)
        page = Page(result._repr_html_())
        assert len(page.tables) == 2 and "3 epochs" in page.text and "runs/<x>" in page.text

    def test_a_document_shows_types_and_probabilities(self):
        tagged = Document(
            ("Ada", "left", "Oslo"), labels=("B-A", "O", "B-B"), scheme=Scheme.IOB2, scores=(0.75, 0.5)
        )
        text = tagged._repr_html_()
        assert Page(text).text == "AdaA 0.75 left OsloB 0.50"
        colours = re.findall(r"background: ([^;]*);", text)
        assert len(colours) == len(set(colours)) == 2
