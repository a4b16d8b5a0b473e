"""The page of `nertool label` in a browser: marking by mouse and keyboard, sessions, what it does not let in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

for package in ("fastapi", "uvicorn", "playwright.sync_api"):
    pytest.importorskip(package, reason="an extra is not installed")

import uvicorn  # noqa: E402
from servers import WAIT, Running, until  # noqa: E402

import nertool  # noqa: E402
from nertool.cli.main import main  # noqa: E402
from nertool.errors import NertoolError  # noqa: E402
from nertool.labelling.project import Wishes, beginning_of, open_project  # noqa: E402
from nertool.labelling.server import at_work, held  # noqa: E402
from nertool.labelling.settings import Settings  # noqa: E402
from nertool.labelling.store import Store  # noqa: E402
from nertool.labelling.texts import Source  # noqa: E402
from nertool.serving.server import listen  # noqa: E402

SMALL = (
    "inputs.words.dimensions=12",
    "inputs.characters={dimensions: 6, filters: 8}",
    "model.encoder.hidden=12",
    "model.dropout=0.1",
    "training.optimizer=adam",
    "training.learning_rate=0.02",
)
FIRST = ["Ada", "Otto", "Mina", "Signe", "Lena", "Ivo", "Tuva"]
LAST = ["Byron", "Lind", "Okoye", "Lund", "Moreau", "Babić", "Aas"]
PLACES = ["Oslo", "Malmö", "Leeds", "Porto", "Turku", "Bergen", "Nairobi"]


def invented(count: int) -> list[tuple[str, list[str]]]:
    """Sentences with the entities that are in them, such as "PER Ada Byron"."""
    result = []
    for number in range(count):
        person = f"{FIRST[number % 7]} {LAST[number // 2 % 7]}"
        place, other = PLACES[number % 7], PLACES[(number // 3 + 1) % 7]
        text = [
            f"{person} lives in {place} .",
            f"Rain fell on {place} on day {number} .",
            f"{person} moved from {place} to {other} in {1900 + number} .",
            f"Nobody came at {number} .",
        ][number % 4]
        own = [
            [f"PER {person}", f"LOC {place}"],
            [f"LOC {place}"],
            [f"PER {person}", f"LOC {place}", f"LOC {other}"],
        ]
        result.append((text, own[number % 4] if number % 4 < 3 else []))
    return result


@contextlib.contextmanager
def labelling(
    folder: Path, texts: list[str] | None = None, api_key: str | None = None, **wishes
) -> Iterator[Running]:
    """Serve a project for the time of a block."""
    sources = []
    if texts is not None:
        path = folder.with_suffix(".txt")
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        sources = [Source(path)]
        wishes = {"types": ("PER", "LOC"), "test_share": 0.0, "overrides": SMALL, **wishes}
    with held(folder), listen("127.0.0.1", 0) as server:
        store, _ = open_project(folder, sources, Wishes(**wishes), None)
        settings = Settings(annotator="ada", title="<b>birds", api_key=api_key)
        with at_work(store, settings, beginning_of(store)) as config:
            process = uvicorn.Server(config)
            thread = threading.Thread(target=process.run, args=([server],))
            thread.start()
            try:
                until(lambda: process.started or not thread.is_alive())
                yield Running(server.getsockname()[1], [], process)
            finally:
                process.should_exit = True
                thread.join(WAIT)
                assert not thread.is_alive(), "the server does not end"
        store.close()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "project"


def ready(page, text: str | None = None):
    """Waits until a sentence is shown."""
    until(lambda: page.evaluate("now !== null && !waiting"))
    if text is not None:
        until(lambda: page.evaluate("now.text") == text)


def word(page, text: str, last: bool = False):
    return (
        page.locator("#sentence .t", has_text=text).last
        if last
        else page.locator("#sentence .t", has_text=text).first
    )


def drag(page, start, end):
    for place, do in ((start, page.mouse.down), (end, page.mouse.up)):
        box = place.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
        do()


def marks(page) -> list[str]:
    return page.eval_on_selector_all(
        "#sentence mark",
        """all => all.map(each => each.querySelector('small').textContent + ' '
            + [...each.querySelectorAll('.t')].map(token => token.textContent).join(' '))""",
    )


def trained(page, number: int):
    """Waits for a model; a training has low priority, and the machine may have other things to do."""
    for _ in range(10):
        with contextlib.suppress(AssertionError):
            until(lambda: page.evaluate("ask('/state', {}).then(({state}) => state.model?.number ?? 0)") >= number)
            return
    raise AssertionError("it never came")


def accept(page):
    """Accepts, and waits for what follows."""
    before = page.evaluate("now.id")
    page.keyboard.press("Space")
    answered(page, before)


def answered(page, before):
    """Waits until another sentence is shown, or none."""
    until(lambda: page.evaluate("before => !waiting && (now === null || now.id !== before)", before))


def mark_as(page, wanted: list[str]) -> int:
    """Makes the entities those that are wanted, by keyboard; returns how many were changed."""
    changed = 0
    for own in [each for each in marks(page) if each not in wanted]:
        number = marks(page).index(own)
        page.evaluate("number => { now.focus = number; now.anchor = null; draw(); }", number)
        page.keyboard.press("Delete")
        changed += 1
    for each in wanted:
        if each in marks(page):
            continue
        type_, *words = each.split()
        tokens = page.evaluate("now.places.map(([a, b]) => now.text.slice(a, b))")
        at = next(n for n in range(len(tokens)) if tokens[n : n + len(words)] == words)
        page.keyboard.press("Home")
        for _ in range(at):
            page.keyboard.press("ArrowRight")
        for _ in words[1:]:
            page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("1" if type_ == "PER" else "2")
        changed += 1
    assert sorted(marks(page)) == sorted(wanted)
    return changed


def test_marking_with_the_mouse(visit, folder):
    with labelling(folder, ["Ada Byron met Lind in New Haven ."]) as server:
        page = visit(server)
        ready(page)
        drag(page, word(page, "Ada"), word(page, "Byron"))
        assert marks(page) == ["PER Ada Byron"]
        page.click("#types button[data-type='2']")  # the entity is still chosen
        assert marks(page) == ["LOC Ada Byron"]
        page.keyboard.press("1")
        word(page, "Lind").click()
        assert marks(page) == ["PER Ada Byron", "PER Lind"]
        drag(page, word(page, "New"), word(page, "Haven"))
        page.keyboard.press("2")
        drag(page, word(page, "Haven"), word(page, "."))
        assert marks(page)[-1] == "LOC New Haven ."
        drag(page, word(page, "."), word(page, "Haven"))
        assert marks(page) == ["PER Ada Byron", "PER Lind", "LOC New Haven"]
        word(page, "Lind").click()
        page.locator("mark.on .off").click()
        assert marks(page) == ["PER Ada Byron", "LOC New Haven"]
        page.click("#undo")
        assert marks(page) == ["PER Ada Byron", "PER Lind", "LOC New Haven"]
        page.click("#accept")
        until(lambda: page.evaluate("!waiting && now === null"))
        assert "Nothing is left" in page.inner_text("#sentence")
        labels = ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "I-LOC", "O"]
        assert [list(each.labels) for each in nertool.read(folder)] == [labels]


def test_answers_are_downloaded(visit, folder, tmp_path):
    with labelling(folder, ["Ada Byron met Lind in New Haven ."]) as server:
        page = visit(server, expected=("409",))
        ready(page)
        page.select_option("#format", "conll")
        page.click("#download button")
        until(lambda: "no sentence has been accepted yet" in page.inner_text("#status"))
        mark_as(page, ["PER Ada Byron"])
        page.click("#accept")
        until(lambda: page.evaluate("!waiting && now === null"))
        for name in ("conll", "brat", "spacy"):
            page.select_option("#format", name)
            with page.expect_download() as waited:
                page.click("#download button")
            path = tmp_path / waited.value.suggested_filename
            waited.value.save_as(path)
            if path.suffix == ".zip":
                shutil.unpack_archive(path, tmp_path / "unpacked")
                path = tmp_path / "unpacked"
            (document,) = nertool.read(path)
            assert document.text.strip() == "Ada Byron met Lind in New Haven ." and len(document.spans) == 1
            until(lambda: "1 sentence, 1 entity" in page.inner_text("#status"))


def test_the_keyboard_is_enough(visit, folder):
    texts = ["Ada Byron met Lind in Oslo .", "Nobody came to Oslo .", "Broken <b>"]
    with labelling(folder, texts) as server:
        page = visit(server, expected=("409",))
        ready(page)
        assert page.inner_text("#title") == "<b>birds"
        done = {}
        for _ in range(3):
            text = page.evaluate("now.text")
            if text.startswith("Ada"):
                for key in ("Home", "Shift+ArrowRight", "1", "e", "e", "1", "e", "Shift+e", "2"):
                    page.keyboard.press(key)
                assert marks(page) == ["PER Ada Byron", "PER Lind", "LOC in Oslo"]
                page.keyboard.press("z")
                assert marks(page)[:2] == ["PER Ada Byron", "PER Lind"]
                page.keyboard.press("ArrowUp")
                assert page.locator("mark.on").count() == 1
                accept(page)
            elif text.startswith("Nobody"):
                page.keyboard.press("p")
                page.keyboard.press("Home")
                page.keyboard.press("0")
                page.keyboard.press("End")
                page.keyboard.press("ArrowLeft")
                page.keyboard.press("2")
                accept(page)
            else:
                before = page.evaluate("now.id")
                page.keyboard.press("x")
                answered(page, before)
            done[text] = True
        assert set(done) == set(texts)
        found = {each.text: list(each.labels) for each in nertool.read(folder)}
        assert found["Nobody came to Oslo ."] == ["O", "", "", "B-LOC", ""]
        assert set(found) == set(texts[:2])
        for _ in range(3):
            page.keyboard.press("z")
            until(lambda: not page.evaluate("waiting"))
        assert list(nertool.read(folder)) == []
        page.keyboard.press("z")
        until(lambda: not page.evaluate("waiting"))
        assert "nothing to undo" in page.inner_text("#status")


def test_types_are_added_and_renamed(visit, folder):
    with labelling(folder, ["Ada met Lind ."], types=()) as server:
        page = visit(server, expected=("422",))
        ready(page)
        word(page, "Ada").click()  # without a type: it is asked for
        page.keyboard.type("PER")
        page.keyboard.press("Enter")
        until(lambda: marks(page) == ["PER Ada"])
        page.keyboard.press("t")
        page.keyboard.type("<img src=x onerror=alert(1)>")
        page.keyboard.press("Enter")
        page.wait_for_selector("#types-status:not(:empty)")
        assert "name of a type is one word" in page.inner_text("#types-status")
        page.fill("#name", "<img/src=x>")
        page.keyboard.press("Enter")
        until(lambda: page.locator("#types-box[open]").count() == 0)
        until(lambda: marks(page) == ["<img/src=x> Ada"])
        page.keyboard.press("t")
        page.fill("#names input[data-type='1']", "PERSON")
        page.keyboard.press("Tab")
        until(lambda: "PERSON" in page.inner_text("#types"))
        page.keyboard.press("Escape")
        assert page.locator("#sentence img").count() == 0
        page.keyboard.press("1")
        assert marks(page) == ["PERSON Ada"]
        accept(page)
        page.keyboard.press("h")
        page.wait_for_selector("#past button")
        assert "PERSON Ada" in page.inner_text("#past")
        page.click("#past button")
        ready(page)
        assert marks(page) == ["PERSON Ada"] and "answered by ada" in page.inner_text("#origin")


def test_two_tabs_and_two_people_do_not_collide(visit, folder):
    with labelling(folder, [f"Number {number} came ." for number in range(6)]) as server:
        first, second = visit(server), visit(server)
        ready(first)
        ready(second)
        second.fill("#annotator", "lind")
        second.keyboard.press("Enter")
        shown = [first.evaluate("now.text"), second.evaluate("now.text")]
        assert shown[0] != shown[1]
        own = first.evaluate("now.id")
        first.reload()
        ready(first)
        assert first.evaluate("now.id") == own, "a page that is loaded again goes on"
        for page in (first, second, first, second):
            accept(page)
        store = Store(folder)
        assert sorted(each["annotator"] for each in store.history(None)) == ["ada", "ada", "lind", "lind"]
        assert len({each["sentence"] for each in store.history(None)}) == 4
        store.close()


def test_an_answer_that_cannot_be_saved_stays_on_the_page(visit, folder):
    with labelling(folder, ["Ada met Lind .", "Nobody came ."]) as server:
        page = visit(server, expected=("ERR_",))
        ready(page)
        page.keyboard.press("1")
        assert marks(page) == [], "without a cursor, a selection or an entity it chooses the type and no more"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("1")
        kept = marks(page)
    page.keyboard.press("Space")
    page.wait_for_selector("#status.bad")
    assert "Not saved: the server does not answer. Your answer is still here" in page.inner_text("#status")
    assert marks(page) == kept != []


def test_nothing_that_is_shown_is_markup_and_others_are_refused(visit, folder):
    bad = '<img src=x onerror="alert(1)"> \u202e <script>alert(2)</script> &lt;i&gt; 😀 Ada .'
    with labelling(folder, [bad], types=("\u3042", "a<b>")) as server:
        page = visit(server)
        ready(page)
        page.keyboard.press("2")
        word(page, "Ada").click()
        assert page.locator("#sentence img, #sentence b, #sentence script, #above img, #below img").count() == 0
        assert marks(page)[-1] == "a<b> Ada", "what is marked is what was meant, after an emoji too"
        until(lambda: page.locator("script").count() == 1)
        port = server.port
        body = {"session": "tab-00001", "annotator": "eve"}
        as_json = {"content-type": "application/json"}
        assert server.ask("POST", "/next", body, as_json).status == 200
        for headers in (
            {"content-type": "text/plain"},
            {**as_json, "Host": f"evil.example:{port}"},
            {**as_json, "Origin": "http://evil.example"},
        ):
            assert server.ask("POST", "/next", body, headers).status == 403
        assert server.ask("GET", "/begin", headers={"Host": "evil.example"}).status == 403
        for wrong in (b"{", b"[]", {"session": "x"}, {**body, "more": 1}, {**body, "annotator": "\u0000"}):
            reply = server.ask("POST", "/next", wrong, as_json)
            assert reply.status == 422 and reply.json["detail"]
        answer = {**body, "sentence": 99, "action": "accept", "key": "12345678"}
        assert "no such sentence" in server.ask("POST", "/answer", answer, as_json).json["detail"]
        assert server.ask("POST", "/answer", b"x" * 2**21, as_json).status == 413


def test_a_key_is_asked_for(visit, folder):
    with labelling(folder, ["Ada met Lind ."], api_key="secret") as server:
        page = visit(server, expected=("401",))
        page.wait_for_selector("#key:visible")
        page.fill("#key", "secret")
        page.keyboard.press("Enter")
        ready(page)
        assert not page.is_visible("#key")
        assert "secret" not in page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")


@pytest.mark.parametrize("width", [320, 375, 1400])
def test_it_fits_the_width(visit, folder, width):
    with labelling(folder, [f"{'x' * 300} Ada Byron moved from {'Oslo' * 50} .", "Nobody came ."]) as server:
        page = visit(server, width=width)
        ready(page)
        page.keyboard.press("1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.keyboard.press("h")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_follows_the_colours_of_the_system(visit, folder):
    with labelling(folder, ["Ada met Lind .", "Nobody came ."]) as server:
        for scheme, dark in (("light", False), ("dark", True)):
            page = visit(server, color_scheme=scheme)
            ready(page)
            colour = page.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
            )
            assert (sum(colour) / 3 < 60) == dark


def test_one_project_has_one_server(folder):
    with labelling(folder, ["Ada met Lind ."]):
        with pytest.raises(NertoolError, match="another `nertool label` is at work"), held(folder):
            pass
        done = CliRunner().invoke(main, ["label", str(folder), "--port", "0"])
        assert done.exit_code == 1 and "another `nertool label` is at work" in done.output


@pytest.mark.slow
def test_a_whole_session(visit, folder, tmp_path, monkeypatch):
    """Import 50 texts, label 20, a model trains, proposals change, export, train on the export."""
    gold = dict(invented(50))
    with labelling(folder, list(gold), every=8, test_share=0.1) as server:
        page = visit(server, expected=("ERR_",))  # it is still open when the server has ended
        ready(page)
        work = []
        for number in range(20):
            ready(page)
            own = page.evaluate("now.text")
            work.append(mark_as(page, gold[own]))
            accept(page)
            if number == 9:
                trained(page, 1)
        trained(page, 2)
        assert "model 1" in page.inner_text("#origin") or page.evaluate("now.role") == "test"
        page.keyboard.press("s")
        until(lambda: "model 2" in page.inner_text("#origin") or page.evaluate("!waiting && now.role === 'test'"))
        assert sum(work[:10]) > sum(work[10:]), "the model proposes what would have to be marked by hand"
        state = page.evaluate("ask('/state', {}).then(({state}) => state)")
        assert state["scores"]["all"]["f1"] > 0.3 and state["counts"]["accepted"] == 20
    out = tmp_path / "out.jsonl"
    done = CliRunner().invoke(main, ["convert", str(folder), str(out)])
    assert done.exit_code == 0, done.output
    exported = {json.loads(line)["text"]: json.loads(line)["entities"] for line in out.read_text().splitlines()}
    assert 15 <= len(exported) <= 20
    for text, entities in exported.items():
        assert [f"{each['label']} {each['text']}" for each in entities] == gold[text]
    monkeypatch.chdir(tmp_path)
    settings = [part for each in SMALL for part in ("--set", each)]
    done = CliRunner().invoke(main, ["train", str(folder), "--test", str(folder / "test"), *settings])
    assert done.exit_code == 0, done.output
    assert "The model is in runs/project" in done.output


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_server_that_is_killed_goes_on_where_it_was(folder, tmp_path):
    gold = invented(30)
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text, _ in gold), encoding="utf-8")
    settings = [part for each in SMALL for part in ("--set", each)]
    command = [sys.executable, "-m", "nertool", "label", "--port", "0", "--every", "6", "--types", "PER,LOC"]

    def start(*more: str) -> tuple[subprocess.Popen[str], Running]:
        process = subprocess.Popen([*command, *more], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if "http://" in line:
                return process, Running(int(line.split("127.0.0.1:")[1].split(";")[0]))
        raise AssertionError("it ended")

    body = {"session": "tab-00001", "annotator": "ada"}
    as_json = {"content-type": "application/json"}
    process, server = start(str(path), "--output", str(folder), *settings)
    saved = set()
    try:
        given = server.ask("POST", "/next", body, as_json).json
        for number in range(12):
            sentence = given["sentence"]
            answer = {
                **body,
                "sentence": sentence["id"],
                "action": "accept",
                "spans": [[0, 1, 1]],
                "key": f"key-{number:05}",
            }
            given = server.ask("POST", "/answer", answer, as_json).json
            saved.add(sentence["id"])
    finally:
        process.send_signal(signal.SIGKILL)  # while a model is being trained
        process.wait()
        process.stderr.close()
    process, server = start(str(folder))
    try:
        state = server.ask("POST", "/state", body, as_json).json["state"]
        assert state["counts"]["accepted"] == 12
        history = server.ask("POST", "/history", body, as_json).json["answers"]
        assert {each["sentence"] for each in history} == saved
        until(lambda: server.ask("POST", "/state", body, as_json).json["state"]["model"] is not None)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
        process.stderr.close()
