"""Projects of `nertool label`: what they keep, whom they give what, and what becomes of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import nertool
from nertool.cli.main import main
from nertool.errors import CorpusError, NertoolError
from nertool.formats.project import DATABASE, VERSION
from nertool.labelling import store as store_module
from nertool.labelling.download import download, downloads
from nertool.labelling.progress import Estimate, Point, extrapolate
from nertool.labelling.project import Wishes, open_project
from nertool.labelling.records import Answer, LateError, Span
from nertool.labelling.store import Store
from nertool.labelling.texts import Source
from nertool.text.document import UNKNOWN

TEXTS = """\
Ada Byron lives in London. Rain fell on Oslo.
Otto Lind met Mina Okoye in New Haven.

Nobody came.
Granite Bank hired Otto Lind.
Nobody came.
"""


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS, encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path, texts):
    store, _ = open_project(
        tmp_path / "project", [Source(texts)], Wishes(types=("PER", "LOC"), test_share=0.0), None
    )
    yield store
    store.close()


def answer(store: Store, held, spans=(), action="accept", session="tab-00001", annotator="ada", **more):
    """Answers a sentence, as the page does."""
    before = store.sentence(held.sentence)["answer_id"]
    key = more.pop("key", f"key-{time.perf_counter_ns()}")
    before = more.pop("before", before)
    whole = {"outside": (), "partial": False, **more}
    store.answer(
        Answer(held.sentence, action, tuple(Span(*span) for span in spans), before=before, key=key, **whole),
        session,
        annotator,
    )


def find(store: Store, text: str, session="tab-00001", annotator="ada"):
    """Gives a sentence by its text."""
    ((number,),) = store._ask("SELECT id FROM sentences WHERE text = ? AND role != 'copy'", text)
    return store.reopen(number, session, annotator)


def read(path: Path, **options) -> list[tuple[str, list[str] | None]]:
    return [(each.text, each.labels and list(each.labels)) for each in nertool.read(path, **options)]


# What is taken in


def test_sentences_are_taken_in_with_their_context(project):
    rows = project._ask("SELECT text, role, gap FROM sentences ORDER BY id")
    assert rows == [
        ("Ada Byron lives in London.", "pool", "\n"),
        ("Rain fell on Oslo.", "pool", " "),
        ("Otto Lind met Mina Okoye in New Haven.", "pool", "\n"),
        ("Nobody came.", "pool", "\n"),
        ("Granite Bank hired Otto Lind.", "pool", "\n"),
        ("Nobody came.", "copy", "\n"),
    ]
    given = project.sentence(2)
    assert given["before"].strip() == "Ada Byron lives in London."
    assert given["after"].startswith("\nOtto Lind met Mina Okoye in New Haven.\nNobody came.")
    assert [given["text"][a:b] for a, b in given["tokens"]] == ["Rain", "fell", "on", "Oslo", "."]
    assert [each["name"] for each in project.types()] == ["PER", "LOC"]


def test_documents_are_the_context_of_their_own_sentences_alone(tmp_path):
    path = tmp_path / "two.jsonl"
    lines = [{"text": "Ada came. She left.", "document": 1}, {"text": "Lind came.", "document": 2}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    store, _ = open_project(tmp_path / "project", [Source(path)], Wishes(), None)
    assert [store.sentence(number)["after"].strip() for number in (1, 2, 3)] == ["She left.", "", ""]
    assert store.sentence(3)["before"] == ""
    store.close()


def test_gold_labels_are_answers_and_proposals_are_not(tmp_path, texts):
    gold, proposed = tmp_path / "gold.conll", tmp_path / "proposed.jsonl"
    gold.write_text("Mina\tB-PER\ncame\tO\n\nOslo\tB-LOC\nwon\tO\n", encoding="utf-8")
    proposed.write_text(
        json.dumps(
            {"text": "Granite Bank hired Otto Lind.", "entities": [{"start": 0, "end": 12, "label": "ORG"}]}
        )
    )
    sources = [Source(texts), Source(gold, "gold"), Source(proposed, "proposals")]
    store, reads = open_project(tmp_path / "project", sources, Wishes(types=("LOC",), test_share=0.0), None)
    assert [(each.taken.sentences, each.taken.copies, each.taken.answers) for each in reads] == [
        (6, 1, 0),
        (2, 0, 2),
        (1, 1, 0),
    ]
    assert [(each["name"], each["count"]) for each in store.types()] == [("LOC", 1), ("PER", 1), ("ORG", 0)]
    assert store.sentence(5)["imported"] == [[0, 2, 3]], "the proposal is that of the sentence in the texts"
    assert store.history(None)[0]["annotator"] == "gold.conll"
    assert read(tmp_path / "project") == [("Mina came", ["B-PER", "O"]), ("Oslo won", ["B-LOC", "O"])]
    store.close()


def test_gold_does_not_replace_what_people_said(project, tmp_path, texts):
    answer(project, find(project, "Rain fell on Oslo."), [(3, 4, 2)])
    gold = tmp_path / "gold.jsonl"
    lines = [{"text": text, "entities": []} for text in ("Rain fell on Oslo.", "Nobody came.")]
    gold.write_text("".join(json.dumps(line) + "\n" for line in lines))
    project.close()
    store, (done,) = open_project(tmp_path / "project", [Source(gold, "gold")], Wishes(), None)
    assert (done.taken.answers, done.taken.kept) == (1, 1)
    assert read(tmp_path / "project")[0][1] == ["O", "O", "O", "B-LOC", "O"]
    store.close()


def test_half_labelled_gold_stays_half_labelled(tmp_path):
    gold = tmp_path / "gold.jsonl"
    line = {
        "text": "Ada met Lind today",
        "tokens": ["Ada", "met", "Lind", "today"],
        "labels": ["B-PER", "O", None, None],
        "entities": [{"start": 0, "end": 3, "label": "PER"}],
    }
    gold.write_text(json.dumps(line))
    store, _ = open_project(tmp_path / "project", [Source(gold, "gold")], Wishes(test_share=0.0), None)
    assert read(tmp_path / "project") == [("Ada met Lind today", ["B-PER", "O", UNKNOWN, UNKNOWN])]
    store.close()


def test_a_share_is_kept_apart_at_random(tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"Number {number} came.\n" for number in range(1000)))
    store, _ = open_project(tmp_path / "project", [Source(path)], Wishes(test_share=0.2), None)
    ((count,),) = store._ask("SELECT count(*) FROM sentences WHERE role = 'test'")
    assert 150 < count < 250
    roles = []
    for _ in range(50):
        held = store.hold("tab-00001", "ada")
        roles.append(store.sentence(held.sentence)["role"])
        answer(store, held)
    assert roles.count("test") == 10, "they come in proportion to their share, however late the last one is"
    assert len(read(tmp_path / "project")) == 40 and len(read(tmp_path / "project" / "test")) == 10
    store.close()


# What is kept


def test_answers_are_read_as_a_format(project, tmp_path):
    answer(project, find(project, "Ada Byron lives in London."), [(0, 2, 1), (4, 5, 2)])
    answer(project, find(project, "Rain fell on Oslo."), [(3, 4, 2)], partial=True, outside=((0, 2),))
    answer(project, find(project, "Nobody came."), action="reject")
    answer(project, find(project, "Granite Bank hired Otto Lind."), action="skip")
    wanted = [
        ("Ada Byron lives in London.", ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]),
        ("Rain fell on Oslo.", ["O", "O", UNKNOWN, "B-LOC", UNKNOWN]),
    ]
    folder = tmp_path / "project"
    assert read(folder) == read(folder / DATABASE) == wanted
    out = tmp_path / "out.jsonl"
    done = CliRunner().invoke(main, ["convert", str(folder), str(out)])
    assert done.exit_code == 0, done.output
    assert "1 rejected sentence left out" in done.output
    assert read(out) == wanted
    assert {each.id for each in nertool.read(folder)} == {"texts.txt:1"}


@pytest.mark.parametrize("command", ["convert", "train"])
def test_a_project_without_answers_says_so(project, tmp_path, command):
    answer(project, find(project, "Nobody came."), action="skip")
    out = [str(tmp_path / "out.jsonl")] if command == "convert" else []
    done = CliRunner().invoke(main, [command, str(tmp_path / "project"), *out])
    assert done.exit_code == 1
    assert f"no sentence has been accepted yet; label some: nertool label {tmp_path / 'project'}" in done.output


def test_types_are_renamed_everywhere(project, tmp_path):
    answer(project, find(project, "Rain fell on Oslo."), [(3, 4, 2)])
    project.rename_type(2, "PLACE")
    assert read(tmp_path / "project")[0][1] == ["O", "O", "O", "B-PLACE", "O"]
    with pytest.raises(NertoolError, match="1 entities are of this type"):
        project.remove_type(2)
    with pytest.raises(NertoolError, match="another type PLACE"):
        project.rename_type(1, "PLACE")
    with pytest.raises(NertoolError, match="there is a type PLACE already"):
        project.add_type("PLACE")
    for bad in ("", "O", "two words", "\u202e", "x" * 61):
        with pytest.raises(NertoolError, match="name of a type"):
            project.add_type(bad)
    project.remove_type(1)
    assert [each["name"] for each in project.types()] == ["PLACE"]
    assert project.add_type("PER") == 1, "it comes back with what is known of it"


def test_undo_goes_back_step_by_step_and_nothing_is_removed(project, tmp_path):
    first, second = find(project, "Rain fell on Oslo."), None
    answer(project, first, [(3, 4, 2)])
    second = find(project, "Rain fell on Oslo.")
    answer(project, second, [(3, 4, 1)])
    assert read(tmp_path / "project")[0][1] == ["O", "O", "O", "B-PER", "O"]
    assert project.undo("tab-00001", "ada").sentence == first.sentence
    assert read(tmp_path / "project")[0][1] == ["O", "O", "O", "B-LOC", "O"]
    assert project.undo("tab-00001", "ada").sentence == first.sentence
    assert read(tmp_path / "project") == []
    assert project.undo("tab-00001", "ada") is None
    assert [(each["action"], each["state"]) for each in project.history(None)] == [
        ("undo", "used"),
        ("undo", "used"),
        ("accept", "undone"),
        ("accept", "undone"),
    ]
    assert project.last_answer_of(first.sentence, "ada")["spans"] == [[3, 4, 1]]


@pytest.mark.parametrize(
    ("spans", "outside"),
    [
        ([(0, 9, 1)], ()),
        ([(2, 2, 1)], ()),
        ([(0, 2, 1), (1, 3, 2)], ()),
        ([(0, 1, 7)], ()),
        ([(0, 2, 1)], ((1, 2),)),
    ],
    ids=["too-far", "empty", "overlap", "no-type", "both"],
)
def test_answers_that_do_not_fit_are_refused(project, spans, outside):
    held = find(project, "Rain fell on Oslo.")
    with pytest.raises(NertoolError):
        answer(project, held, spans, outside=outside, partial=True)
    assert project.counts()["accepted"] == 0


def test_a_request_that_comes_twice_is_one_answer(project):
    held = find(project, "Rain fell on Oslo.")
    for _ in range(2):
        answer(project, held, [(3, 4, 2)], key="the-same-key", before=None)
    assert len(project.history(None)) == 1


# Whom it gives what


def test_two_sessions_never_get_the_same_sentence(project):
    held = [project.hold(f"tab-0000{number}", "ada") for number in range(5)]
    assert sorted(each.sentence for each in held) == [1, 2, 3, 4, 5]
    assert project.hold("tab-more", "lind") is None
    assert project.hold("tab-00003", "ada").sentence == held[3].sentence, "a page that is loaded again goes on"


def test_a_sentence_is_given_to_others_when_nobody_comes_back(project, monkeypatch):
    first = project.hold("tab-00001", "ada")
    monkeypatch.setattr(store_module.time, "time", lambda clock=time.time: clock() + store_module.LEASE + 1)
    second = project.hold("tab-00002", "lind")
    assert second.sentence == first.sentence
    answer(project, second, session="tab-00002", annotator="lind")
    with pytest.raises(LateError, match="lind has answered this sentence meanwhile"):
        answer(project, first, [(0, 1, 1)], before=None)
    assert [(each["annotator"], each["state"]) for each in project.history(None)] == [
        ("ada", "late"),
        ("lind", "used"),
    ]
    assert project.sentence(first.sentence)["answer"]["annotator"] == "lind"


def test_many_threads_answer_each_sentence_once(tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"Number {number} came.\n" for number in range(60)))
    store, _ = open_project(tmp_path / "project", [Source(path)], Wishes(test_share=0.3), None)
    problems = []

    def work(name: str) -> None:
        own = Store(tmp_path / "project")
        try:
            while (held := own.hold(f"session-{name}", name)) is not None:
                answer(own, held, session=f"session-{name}", annotator=name)
        except Exception as problem:
            problems.append(problem)
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert problems == []
    rows = store._ask("SELECT sentence, state FROM answers")
    assert sorted(sentence for sentence, _ in rows) == list(range(1, 61))
    assert {state for _, state in rows} == {"used"}
    store.close()


def test_skipped_sentences_come_last(project):
    skipped = project.hold("tab-00001", "ada").sentence
    answer(project, project.hold("tab-00001", "ada"), action="skip")
    order = []
    while (held := project.hold("tab-00001", "ada")) is not None:
        order.append(held.sentence)
        answer(project, held)
    assert order[-1] == skipped and sorted(order) == [1, 2, 3, 4, 5]


def test_the_ranking_is_followed(project):
    project.add_model({"number": 0}, [(5, "mnlp"), (2, "mnlp")])
    order = []
    for _ in range(2):
        order.append(project.hold("tab-00001", "ada").sentence)
        answer(project, project.hold("tab-00001", "ada"))
    assert order == [5, 2]


def test_models_are_scored_on_answers_that_they_had_not_seen(project):
    model = {"folder": "x", "seconds": 1.0, "answers": 0, "types": {}, "test": [0, 0, 0, 0]}
    project.add_model({"number": 1, "sentences": 5, **model}, [(1, ""), (2, "")])
    held = project.hold("tab-00001", "ada")
    project.keep_proposal("tab-00001", [[0, 2, 1, 0.9], [4, 5, 1, 0.5]], 1)
    answer(project, held, [(0, 2, 1), (4, 5, 2)])
    held = project.hold("tab-00001", "ada")
    project.keep_proposal("tab-00001", [[3, 4, 2, 0.9]], 1)
    answer(project, held, [(3, 4, 2)], partial=True)  # of the rest nothing is known
    assert project.scores() == [(1, 1, 2, 2, "pool")]
    project.reopen(1, "tab-00001", "ada")
    answer(project, held._replace(sentence=1), [(0, 2, 1)])
    assert project.scores() == [(1, 1, 2, 2, "pool")], "a correction says nothing of the model"


def test_what_judges_a_training_is_never_learnt(tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"Number {number} came.\n" for number in range(150)))
    store, _ = open_project(tmp_path / "project", [Source(path)], Wishes(test_share=0.0), None)
    for number in range(150):
        held = store.hold("tab-00001", "ada")
        answer(store, held, partial=number % 10 == 9)
    _, learn, judge = store.learnable()
    assert judge in (24, 25) and learn == 150 - judge
    rows = store._ask(
        "SELECT s.id FROM sentences s JOIN answers a ON a.id = s.answer WHERE validation AND partial"
    )
    assert rows == []
    judges = {number for (number,) in store._ask("SELECT id FROM sentences WHERE validation")}
    for number in (1, 2, 3, *sorted(judges)[:3]):
        held = store.reopen(number, "tab-00001", "ada")
        answer(store, held, action="accept")
    assert judges == {number for (number,) in store._ask("SELECT id FROM sentences WHERE validation")}
    store.close()


# The curve


def test_a_curve_that_is_a_power_law_is_found_again():
    points = [Point(n, *_counts(1 - 2.0 * n**-0.5)) for n in (20, 40, 80, 160)]
    found = extrapolate(points, 320)
    assert found.f1 == pytest.approx(1 - 2.0 * 320**-0.5, abs=0.005)
    assert found.low < found.f1 < found.high


def _counts(f1: float) -> tuple[int, int, int]:
    """Entities with about this F1."""
    return round(f1 * 10_000), 10_000, 10_000


def test_a_curve_that_falls_is_not_drawn_further_down():
    points = [Point(n, *_counts(share)) for n, share in ((20, 0.7), (40, 0.65), (80, 0.6))]
    assert extrapolate(points, 160).f1 == pytest.approx(0.65, abs=0.02)


def test_the_interval_holds_what_it_says():
    """Points drawn from a known curve: the true value lies within two standard errors nearly always."""
    random = np.random.default_rng(5)
    hits = []
    for _ in range(200):
        points = []
        for n in (20, 40, 60, 80, 100):
            marked = 60
            correct = int(random.binomial(marked, 1 - 1.2 * n**-0.4))
            points.append(Point(n, correct, marked, marked))
        found = extrapolate(points, 200)
        hits.append(found.low <= 1 - 1.2 * 200**-0.4 <= found.high)
    assert np.mean(hits) > 0.85


@pytest.mark.parametrize(
    "points",
    [[], [Point(20, 5, 10, 10)] * 3, [Point(20, 5, 10, 10), Point(40, 6, 10, 10), Point(60, 1, 2, 2)]],
    ids=["none", "one-size", "too-few-entities"],
)
def test_there_is_no_estimate_from_too_little(points):
    assert extrapolate(points, 100) is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing_gives_a_finite_estimate(share):
    points = [Point(n, round(20 * share), 20, 20) for n in (10, 20, 30)]
    found = extrapolate(points, 60)
    assert isinstance(found, Estimate)
    assert 0 <= found.low <= found.f1 <= found.high <= 1


# Bad input


def label(*arguments: str):
    return CliRunner().invoke(main, ["label", *map(str, arguments)])


def test_what_is_wrong_is_said(tmp_path, texts, monkeypatch):
    project, binary, empty = tmp_path / "project", tmp_path / "picture.png", tmp_path / "empty.txt"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)))
    empty.write_text("\n\n")
    (tmp_path / "model.onnx").touch()
    for arguments, message in [
        ((), "Name texts to label"),
        ((texts,), "--output DIR"),
        ((tmp_path,), "this is not a project"),
        ((tmp_path / "absent",), "there is no such project"),
        ((tmp_path / "absent.txt", "--output", project), "there is no such file"),
        ((binary, "--output", project), "picture.png"),
        ((empty, "--output", project), "there is no sentence in it"),
        ((texts, "--output", project, "--gold", texts), "read as text, which has no labels"),
        ((texts, "--output", project, "--types", "A B"), "name of a type is one word"),
        ((texts, "--output", project, "--set", "training.epoch=3"), "training.epoch"),
        ((texts, "--output", project, "--model", tmp_path / "nowhere"), "nowhere"),
        (
            (texts, "--output", project, "--model", tmp_path / "model.onnx"),
            "training cannot start from an exported",
        ),
        ((texts, "--output", project, "--language", "qq"), "language 'qq'"),
        ((texts, "--output", project, "--vectors", "nothing.txt"), "nothing.txt"),
        (("--output", tmp_path / "new"), "there is no project in it"),
        ((texts, "--output", texts / "below"), "texts.txt"),
        ((texts, "--output", project, "--api-key", " "), "the API key is empty"),
    ]:
        done = label(*arguments, "--port", 0)
        assert done.exit_code in (1, 2), done.output
        assert message in " ".join(done.output.split()), (message, done.output)
        assert "Traceback" not in done.output
        assert not (project / DATABASE).exists(), "nothing is left half made"


def test_a_port_in_use_is_said(tmp_path, texts):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = label(texts, "--output", tmp_path / "project", "--port", port)
    assert done.exit_code == 1 and "choose others: --host, --port" in done.output
    assert not (tmp_path / "project").exists()


def test_a_project_of_another_version_is_left_alone(project, tmp_path):
    project.close()
    path = tmp_path / "project" / DATABASE
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    done = label(tmp_path / "project", "--port", 0)
    assert done.exit_code == 1 and f"of version {VERSION + 1}" in done.output
    with pytest.raises(CorpusError, match="of version"):
        read(tmp_path / "project")


def test_a_database_that_is_locked_is_said(project, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_PATIENCE", 0.05)
    other = Store(tmp_path / "project")
    blocking = sqlite3.connect(tmp_path / "project" / DATABASE, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    with pytest.raises(NertoolError, match="another program holds the database"):
        other.hold("tab-00001", "ada")
    assert read(tmp_path / "project") == [], "it can be read meanwhile"
    blocking.execute("ROLLBACK")
    assert other.hold("tab-00001", "ada") is not None
    blocking.close()
    other.close()


def test_a_damaged_database_is_said(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / DATABASE).write_bytes(b"SQLite format 3\0" + bytes(200))
    done = label(tmp_path / "project", "--port", 0)
    assert done.exit_code == 1 and "this is not a project" in done.output
    done = label("x", "--output", folder, "--port", 0)
    assert done.exit_code == 1 and "it is not a project's" in done.output


def test_a_database_damaged_inside_is_said(project, tmp_path):
    answer(project, find(project, "Rain fell on Oslo."), [(3, 4, 2)])
    project.close()
    path = tmp_path / "project" / DATABASE
    whole = path.read_bytes()
    schema = whole.index(b"CREATE TABLE types")
    tables = {
        "not UTF-8": whole[: schema + 7] + b"\xff" + whole[schema + 8 :],
        "cut": whole[: len(whole) // 2],
        "overwritten": whole[:4096] + bytes(len(whole) - 4096),
    }
    for damage in tables.values():
        path.write_bytes(damage)
        with pytest.raises(CorpusError, match="the file is damaged; take the answers from a copy"):
            read(tmp_path / "project")
        with pytest.raises(NertoolError, match="the file is damaged; take the answers from a copy"):
            Store(tmp_path / "project")


@pytest.mark.parametrize("name", downloads())
def test_answers_can_be_downloaded_in_each_format(project, tmp_path, name):
    answer(project, find(project, "Rain fell on Oslo."), [(3, 4, 2)])
    project.close()
    given = download(tmp_path / "project", name)
    assert (given["sentences"], given["entities"]) == (1, 1)
    path = tmp_path / given["name"]
    path.write_bytes(b64decode(given["content"]))
    if path.suffix == ".zip":
        path = tmp_path / "unpacked"
        shutil.unpack_archive(tmp_path / given["name"], path)
    (document,) = nertool.read(path, format=name)
    assert [(span.start, span.end) for span in document.spans] == [(3, 4)]
    assert "".join(document.tokens) == "RainfellonOslo."


def test_a_download_without_answers_says_why(project, tmp_path):
    project.close()
    with pytest.raises(NertoolError, match="no sentence has been accepted yet"):
        download(tmp_path / "project", "jsonl")


def test_a_project_in_a_folder_that_cannot_be_written_can_be_read(project, tmp_path):
    answer(project, find(project, "Rain fell on Oslo."), [(3, 4, 2)])
    project.close()
    folder = tmp_path / "project"
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    try:
        assert [text for text, _ in read(folder)] == ["Rain fell on Oslo."]
    finally:
        folder.chmod(0o755)


# Kills


LABELLING = """
import sys
from pathlib import Path
from nertool.labelling.records import Answer, Span
from nertool.labelling.store import Store

store = Store(Path(sys.argv[1]))
for number in range(10_000):
    held = store.hold("tab-00001", "ada")
    print("shown", held.sentence, flush=True)
    answer = Answer(held.sentence, "accept", (Span(0, 1, 1),), (), False, None, f"key-{number:05}")
    store.answer(answer, "tab-00001", "ada")
    print("saved", held.sentence, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
@pytest.mark.parametrize("after", [1, 7, 40])
def test_no_answer_is_lost_by_a_kill(tmp_path, after):
    path = tmp_path / "many.txt"
    path.write_text("".join(f"Number {number} came.\n" for number in range(3000)))
    store, _ = open_project(tmp_path / "project", [Source(path)], Wishes(types=("PER",), test_share=0.1), None)
    store.close()
    process = subprocess.Popen(
        [sys.executable, "-c", LABELLING, str(tmp_path / "project")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    saved, shown = [], []
    for line in process.stdout:
        what, number = line.split()
        (saved if what == "saved" else shown).append(int(number))
        if len(saved) == after:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().split("\n")
    process.stdout.close()
    process.wait()
    saved += [int(line.split()[1]) for line in rest if line.startswith("saved ")]
    store = Store(tmp_path / "project")
    kept = {number for (number,) in store._ask("SELECT sentence FROM answers")}
    assert kept >= set(saved) and len(kept) <= len(saved) + 1
    assert store._ask("PRAGMA integrity_check") == [("ok",)]
    assert {row[1][0] for row in read(tmp_path / "project")} <= {"B-PER"}
    assert store.hold("tab-00002", "lind").sentence not in kept
    store.close()
