"""Annotation errors of known place, and how well lists of suspects find them.

    python benchmarks/noise.py add corpora/demo/train.txt noisy.txt
    nertool audit noisy.txt --json > audit.json
    nertool train noisy.txt --output one
    nertool errors noisy.txt --model one --top 1000000 --json > errors.json
    python benchmarks/noise.py cleanlab noisy.txt runs/audit-noisy cleanlab.json   # pip install cleanlab
    python benchmarks/noise.py score noisy.json audit.json errors.json cleanlab.json

`add` changes 5 % of the entities of a CoNLL file at random: another type, a boundary moved by a token, or no
entity. It writes the file in IOB2, and what was changed beside it (`noisy.json`). `cleanlab` makes a list by its
filter for token classification, from the marginals of the same models that an audit left in its run directory
(`--set` as for that audit). `score` compares lists with what was changed. Errors that were in the corpus before
count as false alarms, so that precision is understated, for all lists alike.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nertool.config.schema import Config, CorpusConfig
from nertool.data.corpus import Split, read_split
from nertool.data.recipe import open_config
from nertool.experiments.audit import FoldEnded, check_config, plan_folds, run_folds
from nertool.experiments.fold import read_whole
from nertool.experiments.suspects import marginals
from nertool.text.schemes import Scheme, Span, encode

CUTS = (100, 200, 500, 1000)


class Change(NamedTuple):
    """An entity that was changed: the line of its sentence, what it was, and what it is now (None: gone)."""

    line: int
    before: Span
    after: Span | None

    @property
    def tokens(self) -> range:
        """All tokens of both."""
        both = [self.before, *([self.after] if self.after else [])]
        return range(min(span.start for span in both), max(span.end for span in both))


class Item(NamedTuple):
    """An entry of a list of suspects: the line of its sentence, its tokens, and what is suggested there."""

    line: int
    tokens: range
    suggested: frozenset[Span]


def add_noise(split: Split, share: float, seed: int) -> tuple[list[list[str]], list[Change]]:
    """Change a share of the entities; returns the labels of each sentence, and the changes."""
    draw = random.Random(seed)
    rows = [list(sentence.spans) for sentence in split.sentences]
    types = sorted({span.type for row in rows for span in row})
    places = [(number, span) for number, row in enumerate(rows) for span in row]
    changes = []
    for number, span in sorted(draw.sample(places, round(share * len(places)))):
        own = rows[number]
        moves = [move for move in _moves(span) if _fits(move, span, own, len(split.sentences[number]))]
        kind = draw.choice(["type", "boundary", "missed"])
        after: Span | None = None
        if kind == "boundary" and moves:
            after = draw.choice(moves)
        elif kind != "missed":
            after = span._replace(type=draw.choice([each for each in types if each != span.type]))
        own.remove(span)
        own += [after] if after else []
        origin = split.sentences[number].origin
        assert origin is not None
        changes.append(Change(origin.starts[0], span, after))
    labels = [encode(row, len(split.sentences[number]), Scheme.IOB2) for number, row in enumerate(rows)]
    return labels, changes


def _moves(span: Span) -> list[Span]:
    ends = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    return [Span(span.start + left, span.end + right, span.type) for left, right in ends]


def _fits(moved: Span, span: Span, own: Sequence[Span], length: int) -> bool:
    inside = 0 <= moved.start < moved.end <= length
    return inside and not any(moved.start < o.end and o.start < moved.end for o in own if o != span)


def write(source: Path, split: Split, labels: Sequence[Sequence[str]], path: Path) -> None:
    """Write a CoNLL file again with other labels in its last column."""
    lines = source.read_text(encoding="utf-8").split("\n")
    for sentence, row in zip(split.sentences, labels, strict=True):
        assert sentence.origin is not None
        for token, label in enumerate(row):
            line = sentence.origin.line(0, token)
            assert line is not None
            lines[line - 1] = f"{lines[line - 1].rstrip().rpartition(' ')[0]} {label}"
    path.write_text("\n".join(lines), encoding="utf-8")


def read_list(tree: dict[str, Any]) -> list[Item]:
    """Read the JSON of `nertool audit` or `nertool errors`, best first."""
    items: list[tuple[float, Item]] = []
    if "suspects" in tree:
        for each in tree["suspects"]:
            tokens = range(each["start"], each["end"])
            items.append((-each["score"], Item(each["sentence_line"], tokens, _spans(each["suggested"]))))
    else:
        for sentence in tree["surest"]:
            for each in sentence["mistakes"]:
                both = [span for span in (each["gold"], each["predicted"]) if span]
                tokens = range(min(s["start"] for s in both), max(s["end"] for s in both))
                suggested = _spans([each["predicted"]] if each["predicted"] else [])
                items.append((-each["score"], Item(sentence["line"], tokens, suggested)))
        items.sort(key=lambda pair: pair[0])
    return [item for _, item in items]


def cleanlab_list(config: Config, folds: int, repeats: int, runs: Path) -> dict[str, Any]:
    """Rank tokens by cleanlab (Northcutt et al. 2021), neighbours as one entry, in the form of an audit."""
    from cleanlab.token_classification.filter import find_label_issues

    split = read_whole(config)
    results = {
        each.job: each.result
        for each in run_folds(config, plan_folds(split, folds, repeats), runs, 1)
        if isinstance(each, FoldEnded)
    }
    views = [[results[job] for job in results if job.repeat == repeat] for repeat in range(repeats)]
    numbers = {label: number for number, label in enumerate(views[0][0].labels)}
    found = dict(marginals(split, views))  # no sentence of these corpora comes in pieces
    labels = [[numbers[label] for label in row] for row in split.labels]
    shares = [found[number] / found[number].sum(1, keepdims=True) for number in range(len(split))]
    suspects: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    for sentence, token in find_label_issues(labels, shares):
        if (sentence, token) in seen:
            continue
        seen |= {(sentence, token + shift) for shift in (-1, 0, 1)}
        origin = split.sentences[sentence].origin
        assert origin is not None
        place = {"sentence_line": origin.starts[0], "start": token, "end": token + 1}
        suspects.append({**place, "score": -len(suspects), "suggested": []})
    return {"suspects": suspects}


def _spans(given: Iterable[dict[str, Any]]) -> frozenset[Span]:
    return frozenset(Span(each["start"], each["end"], each["label"]) for each in given)


def measure(items: Sequence[Item], changes: Sequence[Change]) -> dict[str, Any]:
    """Compute precision and recall of the first k entries, and average precision.

    An entry finds a change if they share a token. A further entry for the same change is left out.
    """
    by_line: dict[int, list[int]] = {}
    for index, change in enumerate(changes):
        by_line.setdefault(change.line, []).append(index)
    found: set[int] = set()
    hits: list[bool] = []
    right = 0
    total = 0.0
    for item in items:
        there = [i for i in by_line.get(item.line, []) if _share(item.tokens, changes[i].tokens)]
        new = [i for i in there if i not in found]
        if there and not new:
            continue
        found.update(new)
        hits.append(bool(new))
        right += any(changes[i].before in item.suggested for i in new)
        if new:
            total += sum(hits) / len(hits) * len(new)
    count = len(changes)
    result: dict[str, Any] = {"changes": count, "entries": len(hits), "average_precision": total / count}
    for cut in sorted({*(c for c in CUTS if c < 2 * count), count}):
        result[f"precision@{cut}"] = sum(hits[:cut]) / cut
    result["recall@changes"] = sum(hits[:count]) / count
    result["recall"] = len(found) / count
    result["suggestion_right"] = right / max(len(found), 1)
    for kind in ("type", "boundary", "missed"):
        own = [index for index, change in enumerate(changes) if _kind(change) == kind]
        result[f"recall_{kind}"] = sum(index in found for index in own) / max(len(own), 1)
    return result


def _share(first: range, second: range) -> bool:
    return first.start < second.stop and second.start < first.stop


def _kind(change: Change) -> str:
    if change.after is None:
        return "missed"
    return "boundary" if change.before.type == change.after.type else "type"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    add = commands.add_parser("add", help="change entities of a CoNLL file")
    add.add_argument("source", type=Path)
    add.add_argument("output", type=Path)
    add.add_argument("--share", type=float, default=0.05)
    add.add_argument("--seed", type=int, default=1)
    other = commands.add_parser("cleanlab", help="make a list by cleanlab")
    other.add_argument("data")
    other.add_argument("runs", type=Path)
    other.add_argument("output", type=Path)
    other.add_argument("--folds", type=int, default=5)
    other.add_argument("--repeats", type=int, default=1)
    other.add_argument("--set", dest="overrides", action="append", default=[])
    score = commands.add_parser("score", help="compare lists of suspects with what was changed")
    score.add_argument("changes", type=Path)
    score.add_argument("lists", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "add":
        split = read_split(options.source, CorpusConfig(train=str(options.source)))
        labels, changes = add_noise(split, options.share, options.seed)
        write(options.source, split, labels, options.output)
        rows = [[c.line, list(c.before), None if c.after is None else list(c.after)] for c in changes]
        options.output.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")
        print(f"{len(changes)} of {sum(split.entity_counts().values())} entities changed: {options.output}")
        return
    if options.command == "cleanlab":
        config = check_config(open_config(options.data, options.overrides).config)
        tree = cleanlab_list(config, options.folds, options.repeats, options.runs)
        options.output.write_text(json.dumps(tree), encoding="utf-8")
        return
    rows = json.loads(options.changes.read_text(encoding="utf-8"))
    changes = [Change(line, Span(*before), Span(*after) if after else None) for line, before, after in rows]
    for path in options.lists:
        items = read_list(json.loads(path.read_text(encoding="utf-8")))
        figures = {name: round(value, 3) for name, value in measure(items, changes).items()}
        print(json.dumps({"list": str(path), **figures}))


if __name__ == "__main__":
    main()
