"""Suggestions: what is left out, what is written for each annotation tool, and what the command says."""

from __future__ import annotations

import json
import math

import pytest
from click.testing import CliRunner

from nertool.cli import suggest as command
from nertool.cli.main import main
from nertool.errors import CorpusError
from nertool.formats.registry import ReadOptions, Report, WriteOptions, find_format
from nertool.tagging import ranking, suggestions
from nertool.tagging.ranking import rank, uncertainty
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document

TEXTS = [
    "Ada Byron moved from Oslo to Malmö. Nobody came.",
    "",
    "Rain fell on New Haven all week.",
    "Somebody sold the Zyx Qwv to Abc Def in Ghi. Okoye met Lind.",
]
SENTENCES = [
    "Ada Byron moved from Oslo to Malmö.",
    "Nobody came.",
    "Rain fell on New Haven all week.",
    "Somebody sold the Zyx Qwv to Abc Def in Ghi.",
    "Okoye met Lind.",
]


@pytest.fixture(scope="module")
def tagger(trained_run):
    return Tagger.load(trained_run)


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path


@pytest.fixture
def run(trained_run, pool):
    """Runs the command; returns what it wrote and its result."""

    def run(*options, output="tasks.jsonl", ok=True):
        target = pool.parent / output
        arguments = ["suggest", str(pool), "--model", str(trained_run), "--output", str(target), *options]
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code == 0) is ok, result.output
        return target, result

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_command_has_the_measures_and_the_share_of_the_ranking():
    assert command.MEASURES == ranking.MEASURES
    assert command._RANDOM_SHARE == ranking.RANDOM_SHARE


@pytest.mark.parametrize("by", ["mnlp", "errors"])
def test_tasks_are_in_the_order_of_the_ranking_with_what_the_model_proposes(run, tagger, by):
    target, _ = run("--by", by, "--random-share", "0")
    tasks = lines(target)
    documents = [tagger.tag(text) for text in SENTENCES]
    order = [each.index for each in rank(tagger, documents, by=by, random_share=0)]
    assert [task["text"] for task in tasks] == [SENTENCES[index] for index in order]
    scores = uncertainty(tagger, documents, by)
    for task, index in zip(tasks, order, strict=True):
        own = [(each.start, each.end, each.label) for each in documents[index].entities]
        assert [(each["start"], each["end"], each["label"]) for each in task["entities"]] == own
        confidence = pytest.approx(math.exp(-scores[index]), abs=1e-5)
        assert task["meta"] == {"reason": by, "confidence": confidence}


def test_label_studio_shows_them_as_predictions(run):
    target, _ = run("--to", "labelstudio", "--top", "3", output="tasks.json")
    tasks = json.loads(target.read_text(encoding="utf-8"))
    assert len(tasks) == 3
    for task in tasks:
        (prediction,) = task["predictions"]
        assert task.keys() == {"data", "meta", "predictions"}
        assert prediction["score"] == task["meta"]["confidence"]
        for region in prediction["result"]:
            value = region["value"]
            assert task["data"]["text"][value["start"] : value["end"]] == value["text"]
            assert 0 <= region["score"] <= 1


def test_prodigy_shows_them_as_spans(run):
    target, _ = run("--to", "prodigy", "--by", "errors")
    for task in lines(target):
        assert "answer" not in task, "nobody has accepted it"
        assert set(task["meta"]) == {"reason", "confidence"}
        for span in task["spans"]:
            first, last = task["tokens"][span["token_start"]], task["tokens"][span["token_end"]]
            assert (first["start"], last["end"]) == (span["start"], span["end"])


def test_doccano_shows_them_as_labels(run):
    target, result = run("--to", "doccano")
    for task in lines(target):
        assert all(task["text"][start:end].strip() for start, end, _ in task["label"])
        assert task["meta"]["reason"] in ("mnlp", "random")
    assert "cannot hold" not in result.output


@pytest.mark.parametrize("tool", ["labelstudio", "prodigy", "doccano", "jsonl"])
def test_every_tool_is_told_why(tool, tmp_path):
    document = Document(("Ada", "left"), labels=("B-PER", "O"), scheme="IOB2", meta={"confidence": 0.5, "a": [1]})
    target, report = tmp_path / "x", Report()
    find_format(tool).write(target, [document, Document(("Rain",))], WriteOptions(), report)
    text = target.read_text(encoding="utf-8")
    assert text.count('"meta": {"confidence": 0.5, "a": [1]}') == 1
    assert not report.notes or "unknown" in str(report.notes) or "not known" in str(report.notes)
    if tool == "jsonl":
        first, second = find_format(tool).read(target, ReadOptions(), Report())
        assert (first.meta, second.meta) == (document.meta, None)


def test_a_format_without_room_for_it_says_so(tmp_path):
    report = Report()
    document = Document(("Ada",), labels=("O",), scheme="IOB2", meta={"a": 1})
    find_format("conllu").write(tmp_path / "x", [document], WriteOptions(), report)
    assert any("meta" in note for note in report.notes)


def test_whole_texts_stay_whole(run):
    target, _ = run("--units", "documents", "--random-share", "0")
    assert sorted(task["text"] for task in lines(target)) == sorted(filter(None, TEXTS))


def test_what_is_labelled_is_left_out(run, pool):
    done = pool.parent / "done.jsonl"
    rows = [
        {"text": TEXTS[0], "entities": []},  # both of its sentences
        {"text": " Rain fell  on New Haven\tall week.", "entities": []},
        {"text": SENTENCES[4]},  # nobody has labelled it
    ]
    done.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    target, result = run("--labelled", str(done))
    assert sorted(task["text"] for task in lines(target)) == sorted(SENTENCES[3:])
    assert "3 of 5 sentences are labelled there" in result.output
    assert "2 of 2 sentences" in result.output


def test_when_all_is_labelled_there_is_nothing_to_suggest(run, pool):
    done = pool.parent / "done.jsonl"
    done.write_text("".join(json.dumps({"text": text, "entities": []}) + "\n" for text in TEXTS), encoding="utf-8")
    target, result = run("--labelled", str(done), ok=False)
    assert "labelled already" in result.output and not target.exists()


def test_texts_are_the_same_however_they_were_tokenized():
    pool = [Document(("Ada", "left", "."), id="1"), Document(("Rain", "fell", "."))]
    labelled = [Document(("Ada", "left."), labels=("O", "O"), scheme="IOB2")]
    assert suggestions.unlabelled(pool, labelled, "x") == pool[1:]
    with pytest.raises(CorpusError, match="no text in it is labelled"):
        suggestions.unlabelled(pool, [Document(("Ada",))], "x")


def test_the_table_says_what_and_why(run):
    _, result = run("--top", "4", "--random-share", "0.25", "--seed", "2")
    assert "4 of 5 sentences" in result.output
    assert "3 least probable labels, 1 at random" in result.output or "1 at random, 3" in result.output
    assert "written:" in result.output
    _, result = run("--by", "random", "--top", "2")
    assert "2 at random" in result.output and "probability" not in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "tokens"], "cannot hold what the model proposes"),
        (["--labelled", "nothing.jsonl"], "nothing.jsonl: there is no such file"),
        (["--from", "spacy"], "pool.txt"),
        (["--top", "0"], "--top"),
        (["--random-share", "nan"], "random_share is nan"),
    ],
    ids=str,
)
def test_mistakes_are_explained(run, options, message):
    target, result = run(*options, ok=False)
    assert message in result.output
    assert "Traceback" not in result.output
    assert not target.exists()


def test_an_empty_pool_is_an_error(run, pool):
    pool.write_text("\n \n", encoding="utf-8")
    _, result = run(ok=False)
    assert "there is no text in it" in result.output


def test_long_pools_are_shortened_in_the_table(run, pool):
    pool.write_text("".join(f"Okoye met Lind number {n}.\n" for n in range(40)), encoding="utf-8")
    target, result = run("--top", "30")
    assert len(lines(target)) == 30
    assert "and 10 more" in result.output
