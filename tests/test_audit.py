"""Annotation errors: regions and their probabilities against brute force, and audits as a whole."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_tiny

from nertool.cli.main import main
from nertool.config.schema import Config, CorpusConfig, StartConfig
from nertool.data.corpus import Split, read_corpus, read_split
from nertool.errors import ConfigError, CorpusError, NertoolError
from nertool.experiments.audit import check_config, judged, plan_folds, run_folds
from nertool.experiments.fold import FoldJob, HeldOut, pieces_of, read_whole
from nertool.experiments.suspects import Kind, Region, judge, regions
from nertool.model.chain import Scores
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme, Span, allowed_transitions, spans

A, B = "A", "B"


@pytest.mark.parametrize(
    ("annotated", "suggested", "wanted"),
    [
        ([], [], []),
        ([Span(0, 2, A)], [Span(0, 2, A)], []),
        ([Span(0, 2, A)], [Span(0, 2, B)], [(0, 2, Kind.TYPE)]),
        ([Span(0, 2, A)], [Span(0, 1, A)], [(0, 2, Kind.BOUNDARY)]),
        ([Span(0, 2, A)], [Span(1, 3, B)], [(0, 3, Kind.BOTH)]),
        ([Span(0, 2, A)], [], [(0, 2, Kind.SPURIOUS)]),
        ([], [Span(0, 2, A)], [(0, 2, Kind.MISSING)]),
        ([Span(0, 4, A)], [Span(0, 2, A), Span(2, 4, A)], [(0, 4, Kind.BOUNDARY)]),
        ([Span(0, 2, A), Span(2, 4, A)], [Span(1, 3, A)], [(0, 4, Kind.BOUNDARY)]),
        ([Span(0, 1, A)], [Span(1, 2, A)], [(0, 1, Kind.SPURIOUS), (1, 2, Kind.MISSING)]),
        ([Span(0, 1, A), Span(3, 4, B)], [Span(3, 4, A)], [(0, 1, Kind.SPURIOUS), (3, 4, Kind.TYPE)]),
    ],
    ids=range(11),
)
def test_regions(annotated: list[Span], suggested: list[Span], wanted: list[tuple[int, int, Kind]]):
    found = list(regions(annotated, suggested))
    assert [(r.start, r.end, r.kind) for r in found] == wanted
    opposite = {Kind.MISSING: Kind.SPURIOUS, Kind.SPURIOUS: Kind.MISSING}
    assert [(r.start, r.end, r.kind) for r in regions(suggested, annotated)] == [
        (start, end, opposite.get(kind, kind)) for start, end, kind in wanted
    ]


LABELS = ["O", "B-A", "B-B", "E-A", "E-B", "I-A", "I-B", "S-A", "S-B"]


def sequence_split(rows: list[list[str]], scheme: Scheme = Scheme.IOBES) -> Split:
    documents = [
        Document(tuple(f"t{n}" for n in range(len(row))), labels=tuple(row), scheme=scheme) for row in rows
    ]
    return Split(documents, scheme, scheme)


def random_views(split: Split, repeats: int, seed: int, labels: list[str] = LABELS) -> list[list[HeldOut]]:
    """Return random scores for every token, in two folds whose division depends on the repeat."""
    draw = np.random.default_rng(seed)
    allowed = allowed_transitions(labels, split.label_scheme)
    _, owners, _ = pieces_of(split)
    pieces, _, _ = pieces_of(split)
    views = []
    for repeat in range(repeats):
        folds = []
        for fold in range(2):
            own = np.array([n for n in range(len(split)) if (n + repeat) % 2 == fold])
            tokens = sum(len(p) for p, o in zip(pieces, owners, strict=True) if o in own)
            scores = [draw.normal(size=table.shape) + np.where(table, 0.0, -1e9) for table in allowed]
            emissions = draw.normal(scale=2.0, size=(tokens, len(labels))).astype(np.float32)
            folds.append(HeldOut(own, labels, emissions, Scores(*scores), 0.5))
        views.append(folds)
    return views


def distribution(
    view: list[HeldOut], split: Split, sentence: int, labels: list[str] = LABELS
) -> dict[tuple[str, ...], float]:
    """Enumerate all label sequences of a sentence, with their probabilities."""
    fold = next(f for f in view if sentence in f.sentences)
    before = sum(len(split.sentences[n]) for n in fold.sentences if n < sentence)
    length = len(split.sentences[sentence])
    emissions = fold.emissions[before : before + length].astype(float)
    weights = {}
    for path in itertools.product(range(len(labels)), repeat=length):
        score = fold.scores.start[path[0]] + fold.scores.end[path[-1]] + sum(emissions[range(length), path])
        score += sum(fold.scores.transitions[a, b] for a, b in itertools.pairwise(path))
        weights[tuple(labels[n] for n in path)] = np.exp(score)
    total = sum(weights.values())
    return {path: weight / total for path, weight in weights.items()}


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_are_those_of_an_enumeration(seed: int):
    split = sequence_split(
        [["S-A", "O", "B-B", "E-B"], ["O", "O"], ["B-A", "I-A", "E-A", "O"], ["S-B"], ["O", "S-A", "S-A"]]
    )
    views = random_views(split, 2, seed)
    found = judge(split, views)
    tables = [[distribution(view, split, n) for view in views] for n in range(len(split))]
    best = [[max(table, key=lambda path: table[path]) for table in own] for own in tables]
    gold = [tuple(sentence.labels or ()) for sentence in split.sentences]
    assert found.disagreements.tolist() == [
        sum(path != wanted for path in paths) for paths, wanted in zip(best, gold, strict=True)
    ]
    assert found.suspects, "random models agree with nothing"
    for suspect in found.suspects:
        region, own = suspect.region, gold[suspect.sentence]
        place = slice(region.start, region.end)
        sources = [
            path
            for path in best[suspect.sentence]
            if region in regions(spans(own, split.scheme), spans(path, split.scheme))
        ]
        assert sources
        p, q = (
            np.mean(
                [sum(v for path, v in t.items() if path[place] == part[place]) for t in tables[suspect.sentence]]
            )
            for part in (own, sources[0])
        )
        assert suspect.annotated == pytest.approx(p, rel=1e-6)
        assert suspect.suggested == pytest.approx(q, rel=1e-6)
        assert suspect.score == pytest.approx(q / (p + q + 0.01))
        assert suspect.models == sum(path[place] != own[place] for path in best[suspect.sentence])
    scores = [suspect.score for suspect in found.suspects]
    assert scores == sorted(scores, reverse=True)
    for n in range(len(split)):  # no two of them overlap
        taken = [t for s in found.suspects if s.sentence == n for t in range(s.region.start, s.region.end)]
        assert len(taken) == len(set(taken))


def test_what_nobody_annotated_is_no_suspect():
    rows = [["S-A", UNKNOWN, "B-B", "E-B"], [UNKNOWN, UNKNOWN]]
    split = sequence_split(rows)
    for seed in range(5):
        found = judge(split, random_views(split, 2, seed))
        assert found.disagreements[1] == 0
        for suspect in found.suspects:
            assert UNKNOWN not in rows[suspect.sentence][suspect.region.start : suspect.region.end]


def test_tags_are_suspects_token_by_token():
    labels = ["N", "V"]
    split = sequence_split([["N", "V", "N"], ["V"]], Scheme.PLAIN)
    views = random_views(split, 1, 1, labels)
    found = judge(split, views)
    for suspect in found.suspects:
        table = distribution(views[0], split, suspect.sentence, labels)
        at = suspect.region.start
        assert suspect.region.end == at + 1 and suspect.region.kind is Kind.TYPE
        gold = (split.sentences[suspect.sentence].labels or ())[at]
        assert suspect.annotated == pytest.approx(sum(v for path, v in table.items() if path[at] == gold))


def test_places_in_a_long_sentence_count_from_its_beginning():
    row = ["O"] * 700
    row[600] = "S-A"
    split = sequence_split([["O"], row])
    views = random_views(split, 1, 1)
    fold = next(f for f in views[0] if 1 in f.sentences)
    fold.emissions[:] = 0
    fold.emissions[:, 0] = 30.0  # all O
    (own,) = (s for s in judge(split, views).suspects if s.sentence == 1)
    assert own.region == Region(600, 601, (Span(600, 601, "A"),), ())
    assert own.score > 0.98


def test_models_that_learnt_nothing_suspect_nothing():
    split = sequence_split([["S-A", "O"], ["O", "S-B"]])
    jobs = [FoldJob(0, 0, 2), FoldJob(0, 1, 2)]
    (view,) = random_views(split, 1, 0)
    config = Config(corpus=CorpusConfig(train="x"))
    assert judged("x", split, config, jobs, dict(zip(jobs, view, strict=True))).f1 == 0.5
    with pytest.raises(NertoolError, match=r"no model found an entity .* means nothing: train longer"):
        judged("x", split, config, jobs, {job: replace(own, f1=0.0) for job, own in zip(jobs, view, strict=True)})


def test_the_whole_split_is_read_and_nothing_held_out(tiny_config: Callable[..., Config]):
    config = tiny_config("corpus.validation=null")
    whole = read_whole(config)
    parts = read_corpus(config.corpus)
    assert len(whole) == len(parts.train) + len(parts.validation)
    assert whole.label_scheme is Scheme.IOBES


def tiny(*overrides: str) -> list[str]:
    settings = ("training.epochs=12", "training.optimizer=adam", "training.learning_rate=0.03", *overrides)
    return [word for each in settings for word in ("--set", each)]


def test_from_data_to_page_weights_and_a_second_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["audit", "tiny.yaml", "--folds", "2", "--jobs", "2", *tiny(), "--json"]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    tree = json.loads(first.stdout)
    assert (tree["folds"], tree["repeats"], tree["sentences"]) == (2, 1, 12)
    assert tree["found"] == len(tree["suspects"]) > 0
    lines = Path("train.txt").read_text(encoding="utf-8").split("\n")
    for rank, suspect in enumerate(tree["suspects"], 1):
        assert suspect["rank"] == rank
        token = suspect["tokens"][suspect["start"]]
        assert lines[suspect["line"] - 1].split()[0] == token, "the line is that of the first token"
    kept = sorted(path.name for path in Path("runs/audit-tiny/repeat-1/fold-1-of-2").iterdir())
    assert kept == ["config.yaml", "held_out.safetensors", "job.json", "log.txt"]

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("nertool.comparison.processes.Processes.start", refuse)
    again = CliRunner().invoke(
        main, [*command[:-1], "--output", "page.html", "--weights", "weights.jsonl", "--top", "3"]
    )
    assert again.exit_code == 0, again.output
    assert "2 trainings ended earlier" in again.output
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count('<span class="score">') == min(3, tree["found"]) and "Likely annotation errors" in page
    assert CliRunner().invoke(main, command).stdout == first.stdout
    trained = CliRunner().invoke(
        main, ["train", "tiny.yaml", *tiny("corpus.weights=weights.jsonl"), "--output", "w"]
    )
    assert trained.exit_code == 0, trained.output
    assert "of 12 weigh less than 1" in trained.output


def test_other_settings_or_data_are_trained_again(tiny_config: Callable[..., Config], tmp_path: Path):
    from nertool.experiments.fold import key_of

    job = FoldJob(0, 1, 3)
    config = check_config(tiny_config())
    key = key_of(config, job)
    assert key == key_of(check_config(tiny_config()), job)
    assert key != key_of(config, replace(job, fold=2))
    assert key != key_of(config, replace(job, repeat=1))
    assert key != key_of(check_config(tiny_config("model.dropout=0.2")), job)
    train = Path(config.corpus.train or "")
    moved = train.rename(train.with_name("moved.txt"))
    assert key == key_of(check_config(tiny_config("corpus.train=moved.txt")), job)
    moved.write_text(moved.read_text(encoding="utf-8") + "\nHere O\n", encoding="utf-8")
    assert key != key_of(check_config(tiny_config("corpus.train=moved.txt")), job)


def test_a_training_that_fails_says_why(tiny_config: Callable[..., Config], tmp_path: Path):
    config = check_config(tiny_config())
    jobs = plan_folds(read_whole(config), 2, 1)
    Path(config.corpus.train or "").write_text("Ada B-PER\n", encoding="utf-8")
    with pytest.raises(NertoolError, match=r"fold 1: .*1 sentence is too few for 2 folds"):
        list(run_folds(config, jobs, tmp_path / "runs", 1))


def test_more_folds_than_sentences_are_refused_before_anything_is_trained(tiny_config: Callable[..., Config]):
    with pytest.raises(CorpusError, match="12 sentences are too few for 13 folds"):
        plan_folds(read_whole(tiny_config()), 13, 1)


def test_nothing_to_check_is_said(tiny_config: Callable[..., Config]):
    config = tiny_config()
    Path(config.corpus.train or "").write_text("Ada O\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="no token is labelled as an entity"):
        read_whole(config)


def test_data_that_can_be_read_once_is_refused(tiny_config: Callable[..., Config]):
    config = tiny_config()
    piped = config.model_copy(update={"corpus": config.corpus.model_copy(update={"train": "/dev/null"})})
    with pytest.raises(ConfigError, match="can be read only once"):
        check_config(piped)
    for key in ("keep_labels", "self_label"):
        with pytest.raises(ConfigError, match=rf"start\.{key}: an audit is for types that the data annotates"):
            check_config(config.model_copy(update={"start": StartConfig(model="x", **{key: True})}))


def test_a_page_has_its_suffix():
    result = CliRunner().invoke(main, ["audit", "x.txt", "--output", "page.txt"])
    assert result.exit_code == 1 and "ends in .html" in result.output


# The benchmark that puts errors in.


@pytest.fixture
def noise() -> Iterator[object]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import noise

    yield noise
    sys.path.pop(0)


def test_noise_changes_what_it_says(noise, tmp_path: Path):
    write_tiny(tmp_path)
    source = tmp_path / "train.txt"
    split = read_split(source, CorpusConfig(train=str(source)))
    labels, changes = noise.add_noise(split, 0.5, 3)
    assert (labels, changes) == noise.add_noise(split, 0.5, 3) != noise.add_noise(split, 0.5, 4)
    assert len(changes) == round(0.5 * sum(split.entity_counts().values()))
    noise.write(source, split, labels, tmp_path / "noisy.txt")
    again = read_split(tmp_path / "noisy.txt", CorpusConfig(train="x"))
    assert again.strays == 0
    changed = {change.line: [c for c in changes if c.line == change.line] for change in changes}
    for before, after in zip(split.sentences, again.sentences, strict=True):
        assert before.tokens == after.tokens
        own = changed.get(before.origin.starts[0], [])
        wanted = {*before.spans} - {c.before for c in own} | {c.after for c in own if c.after}
        assert set(after.spans) == wanted


def test_precision_and_recall_of_a_list(noise):
    change, item = noise.Change, noise.Item
    changes = [
        change(1, Span(0, 2, A), Span(0, 2, B)),
        change(1, Span(4, 5, A), None),
        change(9, Span(1, 2, A), None),
    ]
    items = [
        item(1, range(0, 2), frozenset({Span(0, 2, A)})),  # found, and suggested right
        item(1, range(1, 3), frozenset()),  # the same again: left out
        item(5, range(0, 2), frozenset()),  # false alarm
        item(9, range(0, 2), frozenset({Span(0, 2, A)})),  # found
    ]
    found = noise.measure(items, changes)
    assert found["entries"] == 3 and found["recall"] == pytest.approx(2 / 3)
    assert found["precision@3"] == pytest.approx(2 / 3)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 3)
    assert found["suggestion_right"] == 0.5
    assert (found["recall_type"], found["recall_missed"]) == (1, 0.5)
