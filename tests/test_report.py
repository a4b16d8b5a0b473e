"""Reports of comparisons made by hand: their figures, what they escape, and that they stand alone."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from nertool.comparison.records import Cell, Comparison, Failure, FoldScore, Gradients, Pair, Run
from nertool.errors import NertoolError
from nertool.views.comparison import latex_table, show_comparison, write_report
from nertool.views.pictures import (
    draw_attention,
    draw_curves,
    draw_gradients,
    draw_learning,
    draw_scores,
    inline_svg,
    save,
)
from nertool.views.tables import heads, last_gain, points
from nertool.views.tables import rows as rows_of
from nertool.views.visible import visible

PICTURES = ["curves.svg", "gradients.svg", "scores.svg"]
HOSTILE = [
    "<script>alert(1)</script>",
    "a|b \\| c\\",
    "</svg></style>&lt;",
    "![x](http://evil.example/x.png) `c` *b* _i_ ~~s~~",
    "$x_1$ and $ and \\alpha",
    "中文 ß \N{BALLOON} \u202e",
    '" onload="alert(1)',
    "{{ title }} {% x %}",
    "one\ntwo\r\x1b[31m\x00\ud800",
    "[bold]rich[/bold] [/]",
    "_hidden",
    "",
]
VOID = {"meta", "path", "use", "rect", "line", "image"}


@pytest.fixture
def pictures() -> None:
    """What a test asks for to have pictures in its reports; they take seconds."""


@pytest.fixture(autouse=True)
def pictures_on_request(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("nertool.views.pictures.available", lambda: False)


def a_run(seed: int, validation: float = 0.8, test: float | None = 0.75, **others) -> Run:
    curve = others.pop("curve", [validation / 2, validation])
    gradients = Gradients([0.5**k for k in range(51)], [0.9**k for k in range(50)] + [0.0])
    values = {
        "parameters": 498_130,
        "word_parameters": 259_350,
        "training_speed": 20_000.0 + 1000 * seed,
        "tagging_speed": 70_000.0,
        "best_epoch": 2,
        "seconds_to_best": 1.25,
        "seconds": 3.0,
        "losses": [9.0, 4.0],
        "gradients": gradients,
        "counts": [(1, 2, 3)] * 5,
    }
    return Run(seed=seed, validation=validation, test=test, curve=curve, **{**values, **others})


def a_comparison(cells: list[Cell], pairs: list[Pair] | None = None, **others) -> Comparison:
    values = {
        "config": "demo.yaml",
        "command": "nertool compare demo.yaml --seeds 1,2,3",
        "corpus": "train.txt",
        "varied": ["model.encoder.kind", "model.encoder.bidirectional"],
        "seeds": [1, 2, 3],
        "split": "test",
        "shuffles": 9_999,
        "jobs": 2,
        "seconds": 75.0,
        "versions": {"nertool": "0.1.0", "python": "3.11.7"},
    }
    return Comparison(cells=cells, pairs=pairs or [], **{**values, **others})


def grid(scores: dict[str, list[float]], **others) -> Comparison:
    """Cells with these scores on the test split; every pair differs over seeds where it does by 0.05."""
    cells = [
        Cell(name, {"model.encoder.kind": name}, [a_run(i, t + 0.05, t) for i, t in enumerate(tests, 1)], [])
        for name, tests in scores.items()
    ]
    pairs = []
    for i, first in enumerate(cells):
        for second in cells[i + 1 :]:
            difference = float(np.mean(scores[first.name]) - np.mean(scores[second.name]))
            seeds = range(1, min(len(first.runs), len(second.runs)) + 1)
            p = 0.0002 if abs(difference) > 0.05 else 0.4567
            over = dict.fromkeys(seeds, p)
            adjusted = dict.fromkeys(seeds, min(1, 2 * p))
            pairs.append(Pair(first.name, second.name, difference, p, min(1, 2 * p), over, adjusted))
    return a_comparison(cells, pairs, **others)


@pytest.fixture
def six() -> Comparison:
    kinds = [f"kind={kind}, bidirectional={both}" for kind in ("lstm", "gru", "rnn") for both in ("true", "false")]
    return grid({kind: [0.70 - 0.02 * i, 0.71 - 0.02 * i, 0.72 - 0.02 * i] for i, kind in enumerate(kinds)})


@pytest.fixture
def hostile() -> Comparison:
    comparison = grid({name: [0.5 + i / 100] for i, name in enumerate(HOSTILE)})
    cells = [
        replace(cell, failures=[Failure(2, name, name)])
        for cell, name in zip(comparison.cells, HOSTILE, strict=True)
    ]
    name = HOSTILE[0]
    return replace(comparison, cells=cells, config=name, command=name, corpus=name, versions={name: name})


class Page(HTMLParser):
    """Collects elements, their attributes and text, and checks that elements are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def written(comparison: Comparison, folder: Path) -> tuple[str, str, dict]:
    """Page, Markdown and JSON, after the checks that hold for every report."""
    paths = write_report(comparison, folder)
    assert [path.name for path in paths[:3]] == ["report.html", "report.md", "report.json"]
    assert all(path.is_file() for path in paths)
    page, text, tree = (path.read_text(encoding="utf-8") for path in paths[:3])
    check_page(page)
    check_tables(text)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return page, text, json.loads(tree, parse_constant=refuse)


def check_page(page: str) -> None:
    parsed = Page(page)
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in parsed.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "foreignobject", "a")
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "src"
            for target in re.findall(r"url\((.*?)\)", value or "") + ([value] if name.endswith("href") else []):
                assert target.startswith("#") and target[1:] in ids
    assert sum(tag == "style" for tag, _ in parsed.elements) == 1, "a style in a picture would hold for the page"
    assert "@import" not in page and "<?xml" not in page and page.count("<!DOCTYPE") == 1


def check_tables(text: str) -> None:
    """Each table has rows of one length."""
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(cells_of(line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def cells_of(line: str) -> list[str]:
    assert line.startswith("| ") and line.endswith(" |")
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def markdown_rows(text: str, heading: str) -> list[list[str]]:
    after = text.split(f"# {heading}\n", 1)[1]
    block = re.search(r"(?:^\|.*\n)+", after, flags=re.MULTILINE)
    assert block is not None
    return [cells_of(line) for line in block.group().splitlines()]


def test_figures_are_those_worked_out_by_hand(tmp_path):
    better = Cell(
        "kind=gru",
        {"model.encoder.kind": "gru", "model.encoder.bidirectional": True},
        [
            a_run(1, 0.80, 0.70, best_epoch=1, seconds_to_best=1.0, training_speed=1000.0),
            a_run(2, 0.82, 0.72, best_epoch=4, seconds_to_best=4.5, training_speed=2000.0),
            a_run(3, 0.84, 0.77, best_epoch=4, seconds_to_best=2.0, training_speed=4503.0),
        ],
        [],
    )
    lone = Cell("kind=rnn", {"model.encoder.kind": "rnn", "model.encoder.bidirectional": True}, [a_run(2)], [])
    lone = replace(
        lone, runs=[a_run(2, 0.9, 0.6, parameters=1234)], failures=[Failure(1, "no memory", "x/log.txt")]
    )
    none = Cell("kind=lstm", {"model.encoder.kind": "lstm", "model.encoder.bidirectional": True}, [], [])
    pair = Pair("kind=gru", "kind=rnn", 0.13, None, None, {2: 0.0123}, {2: 0.0499})
    page, text, tree = written(a_comparison([better, lone, none], [pair]), tmp_path)
    # Means of 70, 72, 77: 73, deviations -3, -1, 4, variance 26 / 2.
    gru = ["82.00 ± 2.00", "73.00 ± 3.61", "3", "498,130", "2,501", "70,000", "2.5", "3.0"]
    rnn = ["90.00 ± –", "60.00 ± –", "1", "1,234", "22,000", "70,000", "1.2", "2.0"]
    lstm = ["–", "–", "0", "–", "–", "–", "–", "–"]
    rows = Page(page).rows
    assert (
        ["1", "kind=gru", *gru] in rows and ["2", "kind=rnn", *rnn] in rows and ["3", "kind=lstm", *lstm] in rows
    )
    assert page.count('class="best"') == 1 and '<td class="score">73.00 ± 3.61</td>' in page
    bold = [value if place != 1 else f"**{value}**" for place, value in enumerate(gru)]
    assert markdown_rows(text, "Cells")[2:] == [
        ["1", "kind=gru", *bold],
        ["2", "kind=rnn", *rnn],
        ["3", "kind=lstm", *lstm],
    ]
    assert markdown_rows(text, "Failures")[2:] == [["kind=rnn", "1", "no memory", "x/log.txt"]]
    assert markdown_rows(text, "Differences")[2:] == [
        ["1", "kind=gru", "–", "+13.00", "–"],
        ["2", "kind=rnn", "−13.00", "–", "–"],
        ["3", "kind=lstm", "–", "–", "–"],
    ]
    assert markdown_rows(text, "All pairs")[2:] == [["kind=gru", "kind=rnn", "+13.00", "–", "–", "0.012", "0.050"]]
    assert "model.encoder.kind: gru, rnn, lstm; model.encoder.bidirectional: true" in page
    assert "1 pair of cells: 0 tests over seeds and 1 test over sentences" in page
    assert "The smallest possible p-value is 0.0001." in page and "1:15" in page
    assert tree["cells"][0]["runs"][1]["test"] == 0.72 and tree["pairs"][0]["over_sentences"] == {"2": 0.0123}
    assert "counts" not in tree["cells"][0]["runs"][0]


def test_six_cells_have_a_matrix_with_marks_and_all_pairs(six, tmp_path, pictures):
    page, text, tree = written(six, tmp_path)
    matrix = markdown_rows(text, "Differences")[2:]
    assert matrix[0][2:] == ["–", "+2.00", "+4.00", "+6.00 \\*", "+8.00 \\*", "+10.00 \\*"]
    assert matrix[3][2:] == ["−6.00 \\*", "−4.00", "−2.00", "–", "+2.00", "+4.00"]
    pairs = markdown_rows(text, "All pairs")
    assert len(pairs) == 2 + 15 and len(tree["pairs"]) == 15
    assert pairs[2][2:] == ["+2.00", *["0.457", "0.913"] * 4]
    assert pairs[4][2:] == ["+6.00", *["\\< 0.001"] * 8]
    assert page.count('class="marked"') == 12
    assert "15 pairs of cells: 15 tests over seeds and 45 tests over sentences" in text
    for name in (
        "Welch",
        "Yeh 2000",
        "Holm 1979",
        "up to 2 trainings ran in parallel",
        "(259,350 in every cell)",
    ):
        assert name in page and name in text.replace("\\", "")
    assert re.findall(r"!\[.*\]\(pictures/(.*)\)", text) == ["scores.svg", "curves.svg", "gradients.svg"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == PICTURES
    assert page.count("<svg") == 3


def test_many_cells_have_no_matrix(tmp_path):
    page, text, _ = written(grid({f"hidden={i}": [0.5 + i / 100, 0.6] for i in range(13)}), tmp_path)
    assert "Differences" not in page and "Differences" not in text
    assert len(markdown_rows(text, "All pairs")) == 2 + 78


@pytest.mark.parametrize("runs", [1, 0])
def test_a_single_cell(runs, tmp_path, pictures):
    cell = Cell("all", {}, [a_run(seed, 0.8, None, gradients=None) for seed in range(runs)], [])
    page, text, _ = written(a_comparison([cell], varied=[], split="validation", jobs=1), tmp_path)
    assert "There are no two cells to compare." in page and "There are no two cells to compare." in text
    assert "one training at a time" in page and "There is no test split." in page
    drawn = PICTURES[::2] if runs else []
    assert sorted(path.name for path in tmp_path.glob("pictures/*")) == drawn
    assert ("There is nothing to draw." in page) == (not runs)
    if runs:
        assert markdown_rows(text, "Cells")[2][2:5] == ["**80.00 ± –**", "–", "1"]


def test_what_is_no_number_is_null_in_json_and_a_dash_elsewhere(tmp_path):
    nan, inf = float("nan"), float("inf")
    strange = Gradients([1.0, inf, nan], [0.0, 1.0, 1e30])
    cells = [Cell(name, {}, [a_run(1, losses=[9.0, nan], gradients=strange)], []) for name in "ab"]
    page, _, tree = written(a_comparison(cells, [Pair("a", "b", 0.0, nan, nan, {}, {})]), tmp_path)
    assert tree["cells"][0]["runs"][0]["losses"] == [9.0, None]
    assert ["a", "b", "0.00", "–", "–"] in Page(page).rows


def test_names_are_shown_as_they_are(hostile, tmp_path, pictures):
    page, text, tree = written(hostile, tmp_path)
    shown = [visible(name).encode("utf-8", "replace").decode() for name in HOSTILE]
    rows = Page(page).rows
    names = [row[1] for row in rows if len(row) == 10]
    assert names == ["cell", *shown]
    failures = rows.index(["cell", "seed", "reason", "log"]) + 1
    assert rows[failures : failures + len(shown)] == [[name, "2", name, name] for name in shown]
    assert "<script" not in page
    assert tree["config"] == HOSTILE[0]
    assert all(ElementTree.parse(path) for path in tmp_path.glob("pictures/*.svg"))
    # What Markdown makes of it: the names again, and no markup but what the report has with any names.
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [child for token in tokens for child in token.children or []]
    assert {token.type for token in [*tokens, *inline]}.isdisjoint(
        {"html_block", "html_inline", "link_open", "s_open"}
    )
    assert sum(token.type == "image" for token in inline) == 3 and "em_open" not in {
        token.type for token in inline
    }
    page = MarkdownIt("commonmark").enable("table").render(text)
    rows = Page(re.sub(r"<(img|hr)[^>]*>", "", page)).rows
    failures = rows.index(["cell", "seed", "reason", "log"]) + 1
    assert rows[failures : failures + len(shown)] == [
        [name.strip(), "2", name.strip(), name.strip()] for name in shown
    ]


def test_equal_input_gives_equal_bytes(six, tmp_path, pictures):
    first, second = (write_report(six, tmp_path / name) for name in ("a", "b"))
    assert len(first) == 7
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    figure = draw_scores(six)
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        save(figure, tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert b"date" not in (tmp_path / "a.svg").read_bytes()


def test_pictures_leave_the_settings_of_the_user_alone_and_do_not_heed_them(six, tmp_path):
    import matplotlib

    def drawn() -> str:
        return inline_svg(draw_curves(six), "curves", "Curves")

    plain = drawn()
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "other"}):
        before = matplotlib.rcParams.copy()
        assert drawn() == plain
        assert matplotlib.rcParams.copy() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_inline_pictures_take_the_colour_of_the_page(six):
    drawn = inline_svg(draw_curves(six), "curves", 'Curves of "all" & more')
    root = ElementTree.fromstring(drawn)
    assert root.tag == "svg" and root.get("role") == "img" and root.get("aria-label") == 'Curves of "all" & more'
    assert "currentColor" in drawn and "#ffffff" not in drawn
    assert all(each.get("id", "curves-").startswith("curves-") for each in root.iter())
    assert {"epoch", "validation F1 (%)", "kind=lstm"} & {"".join(each.itertext()) for each in root.iter("text")}


def test_curves_are_means_in_a_band(tmp_path):
    curves = [[0.1, 0.3], [0.2, 0.5, 0.9]]
    runs = [a_run(seed, curve=curve) for seed, curve in enumerate(curves)]
    (axes,) = draw_curves(a_comparison([Cell("a", {}, runs, [])])).axes
    (line,) = axes.lines
    assert np.allclose(line.get_xydata(), [[1, 15], [2, 40], [3, 90]])
    (band,) = axes.collections
    assert {tuple(np.round(point)) for point in band.get_paths()[0].vertices} >= {
        (1, 10),
        (1, 20),
        (2, 30),
        (2, 50),
    }


def test_gradients_are_geometric_means_above_a_floor():
    runs = [
        a_run(1, gradients=Gradients([1.0, 0.04, 0.0], [1.0])),
        a_run(2, gradients=Gradients([1.0, 0.01], [4.0])),
    ]
    before, after = draw_gradients(a_comparison([Cell("a", {}, runs, [])])).axes
    assert np.allclose(before.lines[0].get_ydata(), [1, 0.02]) and np.allclose(after.lines[0].get_ydata(), [2])
    vanished = a_run(1, gradients=Gradients([1.0, 0.0], [1.0, 0.0]))
    before, _ = draw_gradients(a_comparison([Cell("a", {}, [vanished], [])])).axes
    assert np.allclose(before.lines[0].get_ydata(), [1, 1e-12], atol=0) and before.get_yscale() == "log"
    assert draw_gradients(a_comparison([Cell("a", {}, [a_run(1, gradients=None)], [])])) is None


def test_without_matplotlib_there_is_a_report_without_pictures(six, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page, text, _ = written(six, tmp_path)
    assert "pip install 'nertool[plots]'" in text and "nertool[plots]" in page
    assert "<svg" not in page and "](" not in text and not (tmp_path / "pictures").exists()
    with pytest.raises(NertoolError, match=r"pip install 'nertool\[plots\]'"):
        draw_attention(["a"], [[[1.0]]], "title")


@pytest.mark.parametrize(("heads", "kind"), [(1, "png"), (3, "svg")])
@pytest.mark.parametrize("tokens", [["a"], HOSTILE, ["w" * 500] * 3, [f"t{i}" for i in range(90)]], ids=len)
def test_attention(tokens, heads, kind, tmp_path, recwarn):
    weights = np.full((heads, len(tokens), len(tokens)), 1 / len(tokens))
    figure = draw_attention(tokens, weights, f"{HOSTILE} of a sentence")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [f"head {head + 1}" for head in range(heads)]
    assert all(len(axes.get_yticks()) <= 75 for axes in panels)
    path = tmp_path / f"attention.{kind}"
    save(figure, path)
    if kind == "svg":
        ElementTree.parse(path)
    else:
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not recwarn.list


def test_attention_takes_tokens_as_they_are():
    figure = draw_attention(["$a_b$", "\\frac", "中文"], np.eye(3)[None], "x_1$ $")
    drawn = "".join(ElementTree.fromstring(inline_svg(figure, "a", "a")).itertext())
    assert all(drawn.count(token) == 2 for token in ("$a_b$", "\\frac", "中文")) and "x_1$ $" in drawn


@pytest.mark.parametrize("shape", [(2, 2), (1, 3, 2), (0, 2, 2), (1, 3, 3)])
def test_attention_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        draw_attention(["a", "b"], np.ones(shape), "title")


def shown(comparison: Comparison, width: int) -> str:
    target = StringIO()
    show_comparison(Console(file=target, width=width), comparison)
    return target.getvalue()


def test_the_terminal_shows_cells_and_the_pairs_that_differ(six):
    text = shown(six, 160)
    assert "kind=gru, bidirectional=false" in text and "65.00 ± 1.00" in text and "21,000" not in text
    assert "22,000" in text and "Pairs with an adjusted p below 0.05" in text
    rows = [line for line in text.splitlines() if "< 0.001" in line]
    assert len(rows) == 6 and "6.00" in rows[0]
    assert all(line.count("kind=") == 2 for line in rows)
    assert "45 tests over sentences" in text
    narrow = shown(six, 80)
    assert "65.00 ± 1.00" in narrow and "22,000" not in narrow and "…" not in narrow


def test_the_terminal_shows_names_as_they_are_and_failures(hostile):
    text = shown(hostile, 200)
    assert "<script>alert(1)</script>" in text and "[bold]rich[/bold] [/]" in text and "\x1b" not in text
    assert "failed: _hidden, seed 2: _hidden (_hidden)" in text
    alike = shown(grid({"a": [0.7, 0.71], "b": [0.7, 0.72]}), 100)
    assert "No pair has an adjusted p below 0.05" in alike
    assert "pair" not in shown(grid({"a": [0.7]}), 100)


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(six, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NertoolError, match="file"):
        write_report(six, tmp_path / "file" / "report")


def test_points_have_a_sign_but_for_nothing():
    assert [points(value) for value in (0.0123, -0.0123, 0.0, -0.00001)] == ["+1.23", "−1.23", "0.00", "0.00"]


def curve_of(sizes: dict[float, list[float]], kind: str | None = None) -> list[Cell]:
    """Cells of a learning curve: the scores of each share of 1,000 sentences."""
    own = {} if kind is None else {"model.encoder.kind": kind}
    return [
        Cell(
            f"{kind or ''}fraction={share}",
            {**own, "corpus.fraction": share},
            [
                a_run(seed, score, score, training_sentences=round(1000 * share), training_entities=9)
                for seed, score in enumerate(scores, 1)
            ],
            [],
        )
        for share, scores in sizes.items()
    ]


class TestLearningCurve:
    def test_it_shows_means_spreads_and_each_seed(self):
        cells = curve_of({1: [0.6, 0.62], 0.1: [0.3, 0.4], 0.25: [0.5, 0.5]})
        (axes,) = draw_learning(a_comparison(cells, varied=["corpus.fraction"])).axes
        (bars,) = axes.containers
        assert np.allclose(bars.lines[0].get_xydata(), [[100, 35], [250, 50], [1000, 61]])
        rings = [line.get_xydata() for line in axes.lines if line.get_linestyle() == "None"]
        assert any(np.allclose(points, [[100, 30], [100, 40]]) for points in rings)
        assert axes.get_xscale() == "log"
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["100", "250", "1,000"]

    def test_a_line_for_each_combination_of_the_other_settings(self):
        cells = [*curve_of({0.5: [0.5], 1: [0.6]}, "gru"), *curve_of({0.5: [0.4], 1: [0.7]}, "rnn")]
        comparison = a_comparison(cells, varied=["model.encoder.kind", "corpus.fraction"])
        figure = draw_learning(comparison)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kind=gru", "kind=rnn"]
        assert last_gain(comparison) == (
            "More data: kind=gru: from 500 to 1,000 training sentences F1 went +10.00 points; "
            "kind=rnn: from 500 to 1,000 training sentences F1 went +30.00 points."
        )

    def test_changes_of_other_settings_of_one_last_name_are_no_line(self):
        base, half = curve_of({1: [0.6], 0.5: [0.5]})
        others = [
            replace(base, name=f"{name}=0.3", settings={name: 0.3})
            for name in ("model.dropout", "inputs.words.dropout")
        ]
        comparison = a_comparison(
            [replace(base, name="base", settings={}), half, *others],
            varied=["corpus.fraction", "model.dropout", "inputs.words.dropout"],
            base="base",
        )
        assert last_gain(comparison) == "More data: from 500 to 1,000 training sentences F1 went +10.00 points."

    def test_there_is_none_without_amounts(self, six):
        assert draw_learning(six) is None and last_gain(six) == ""
        old = [replace(cell, runs=[a_run(1)]) for cell in curve_of({0.5: [0.4], 1: [0.5]})]
        comparison = a_comparison(old, varied=["corpus.fraction"])
        assert draw_learning(comparison) is None and last_gain(comparison) == ""

    def test_cells_that_learnt_nothing_are_named(self, tmp_path):
        silent = Cell(
            "a", {}, [a_run(1, 0.0, 0.0, counts=[(0, 0, 3)]), a_run(2, 0.0, 0.0, counts=[(0, 0, 3)])], []
        )
        comparison = a_comparison([silent, Cell("b", {}, [a_run(1)], [])])
        assert "No entity was predicted with any seed in: a." in written(comparison, tmp_path)[0]
        assert "No entity was predicted with any seed in: a." in shown(comparison, 200)

    def test_it_is_in_the_report(self, tmp_path, pictures):
        cells = curve_of({0.1: [0.3, 0.4], 1: [0.6, 0.62]})
        page, text, _ = written(a_comparison(cells, varied=["corpus.fraction"]), tmp_path)
        assert "Learning curve" in page and "pictures/learning.svg" in text
        assert "training sentences" in markdown_rows(text, "Cells")[0] and "went +26.00 points" in page
        assert (tmp_path / "pictures" / "learning.svg").is_file()


class TestFoldsAndBase:
    def test_pooled_and_over_folds(self, tmp_path):
        folds = [FoldScore(number, 0.8, score, 10, 9) for number, score in enumerate((0.5, 0.6, 0.7), 1)]
        cells = [
            Cell("a", {}, [a_run(1, test=0.59, folds=folds)], [Failure(2, "no", "x.log", 3)]),
            Cell("b", {}, [], []),
        ]
        comparison = a_comparison(cells, [Pair("a", "b", 0.1, None, None, {1: 0.01}, {1: 0.01})], folds=3)
        page, text, tree = written(comparison, tmp_path)
        assert markdown_rows(text, "Cells")[0][2:5] == ["validation F1", "pooled F1", "over folds"]
        assert markdown_rows(text, "Cells")[2][3:5] == ["**59.00 ± –**", "60.00 ± 10.00"]
        assert markdown_rows(text, "Failures")[2] == ["a", "2, fold 3", "no", "x.log"]
        assert "all folds of the training split, pooled" in page and "There is no t-test over folds" in page
        assert tree["folds"] == 3 and tree["cells"][0]["runs"][0]["folds"][2]["test"] == 0.7
        assert "failed: a, seed 2, fold 3: no (x.log)" in shown(comparison, 200)

    def test_differences_to_the_base(self, tmp_path):
        cells = [
            Cell("base", {}, [a_run(1, test=0.7)], []),
            Cell("x=1", {"x": 1}, [a_run(1, test=0.6)], []),
            Cell("y=2", {"y": 2}, [a_run(1, test=0.72)], []),
        ]
        pairs = [
            Pair("base", "x=1", 0.1, 0.01, 0.02, {}, {}),
            Pair("base", "y=2", -0.02, 0.5, 0.6, {1: 0.01}, {1: 0.01}),
        ]
        comparison = a_comparison(cells, pairs, varied=["x", "y"], base="base")
        _, text, _ = written(comparison, tmp_path)
        rows = markdown_rows(text, "Cells")
        column = rows[0].index("to base")
        assert [row[column] for row in rows[2:]] == ["–", "−10.00 \\*", "+2.00"]
        assert "Differences" not in text and "x: 1; y: 2" in text
        # In cross-validation a single seed has all sentences tested, too.
        pooled = rows_of(replace(comparison, folds=3))
        assert [row.values[heads(replace(comparison, folds=3)).index("to base")] for row in pooled] == [
            "–",
            "−10.00 *",
            "+2.00 *",
        ]
        assert "−10.00 *" in shown(comparison, 90)


class TestLatex:
    def test_a_table_for_booktabs(self, six, tmp_path):
        write_report(six, tmp_path)
        text = (tmp_path / "report.tex").read_text(encoding="utf-8")
        assert text == latex_table(six)
        assert "\\begin{tabular}{lrrr}" in text and text.count("\\midrule") == 1
        lines = text.splitlines()
        assert lines[lines.index("    \\midrule") + 1] == (
            "    kind=lstm, bidirectional=true & 76.00 $\\pm$ 1.00 & \\textbf{71.00 $\\pm$ 1.00} & 3 \\\\"
        )

    def test_names_are_escaped(self, hostile):
        text = latex_table(hostile)
        body = re.sub(
            r"\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}", "", text
        )
        body = re.sub(r"\\[{}$&#%_]|\{\[\}|\{\]\}|\$\\pm\$|\$-\$", "", body)
        rows = body[body.index("\\toprule") : body.index("\\bottomrule")].splitlines()[1:-1]
        for row in rows:
            assert not re.search(r"[$#%_^~<>|{}\[\]]", re.sub(r"\\textbf\{([^}]*)\}", r"\1", row)), row
            assert row.strip() == "\\midrule" or row.count("&") == 3
        assert all(ord(character) >= 32 for line in text.splitlines() for character in line)
