"""Measure training from a corpus that does not fit into memory: make one, prepare it, train on a part of an epoch.

    python benchmarks/streaming.py make large.txt --sentences 10000000
    python benchmarks/streaming.py measure large.txt --validation small.txt --seconds 120
    python benchmarks/streaming.py measure large.txt --validation small.txt --in-memory

The corpus is made by substitution: sentences of the demonstration corpus, in which each entity has been replaced
by one of the same type whose words are invented from syllables. It has no use but its size.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from nertool.config.loading import find_config, load_config, locate_files
from nertool.data.sharding import Sharding
from nertool.formats.conll import Columns
from nertool.formats.registry import ReadOptions, Report
from nertool.text.document import Document
from nertool.text.schemes import Scheme, spans
from nertool.training.preparation import Prepared
from nertool.training.run import run
from nertool.training.trainer import Step

DEMO = Path(__file__).parents[1] / "corpora" / "demo" / "train.txt"
SYLLABLES = tuple(first + second for first in "bcdfkmst" for second in ("al", "en", "or", "i"))
SIZES = "inputs.words.dimensions=100", "model.encoder={kind: lstm, hidden: 200}", "model.attention=none"
AT_ONCE = 1 << 16  # sentences that are written at a time


def make(path: Path, sentences: int, names: int, seed: int) -> None:
    """Write a file of so many sentences; `names` words are invented for each type."""
    chance = random.Random(seed)
    documents = [
        each for document in Columns().read(DEMO, ReadOptions(), Report()) for each in document.sentences()
    ]
    templates = [_template(each) for each in documents]
    types = sorted({type_ for _, slots in templates for type_, _ in slots})
    words = {type_: list(itertools.islice(_words(chance), names)) for type_ in types}
    with path.open("w", encoding="utf-8") as target:
        for first in range(0, sentences, AT_ONCE):
            count = min(AT_ONCE, sentences - first)
            parts: list[str] = []
            for text, slots in chance.choices(templates, k=count):
                parts.append(text[0])
                for after, (type_, size) in zip(text[1:], slots, strict=True):
                    own = words[type_]
                    # Some names are frequent, most are rare, as in any text.
                    parts.append(f"{own[int(names * chance.random() ** 4)]} B-{type_}\n")
                    parts += [f"{own[int(names * chance.random() ** 4)]} I-{type_}\n" for _ in range(1, size)]
                    parts.append(after)
            target.write("".join(parts))


def _template(sentence: Document) -> tuple[list[str], list[tuple[str, int]]]:
    """Return the lines between entities, and the type and size of each entity."""
    texts, slots, position = [], [], 0
    for span in spans(sentence.labels or (), Scheme.IOB2):
        texts.append("".join(f"{token} O\n" for token in sentence.tokens[position : span.start]))
        slots.append((span.type, span.end - span.start))
        position = span.end
    texts.append("".join(f"{token} O\n" for token in sentence.tokens[position:]) + "\n")
    return texts, slots


def _words(chance: random.Random) -> Iterator[str]:
    known = set()
    while True:
        word = "".join(chance.choices(SYLLABLES, k=chance.randint(2, 4))).capitalize()
        if word not in known:
            known.add(word)
            yield word


def measure(train: Path, validation: Path, seconds: float, overrides: list[str], in_memory: bool) -> None:
    """Prepare a corpus and train for some seconds; print speeds and the largest resident memory so far."""
    named = [f"corpus.train={train.resolve()}", f"corpus.validation={validation.resolve()}", "corpus.test=null"]
    named += [*SIZES, *overrides] if in_memory else ["corpus.stream=true", *SIZES, *overrides]
    path = find_config("demo.yaml")
    config = locate_files(load_config(path, named), path)
    clock = cpu = 0.0
    show("start", clock, cpu)
    clock, cpu = time.perf_counter(), time.process_time()
    began = None
    with tempfile.TemporaryDirectory() as folder, closing(run(config, Path(folder))) as records:
        for record in records:
            now = time.perf_counter()
            if isinstance(record, Sharding) and record.done:
                done = time.process_time() - cpu
                show("shards", now - clock, done, record.tokens - record.before)
            elif isinstance(record, Prepared):
                show("prepared", now - clock, time.process_time() - cpu)
                corpus, words = record.encoded, len(record.model.inputs["words"].state()["words"])
                print(f"{len(corpus):,} sentences, {corpus.token_count:,} tokens, {words:,} words", flush=True)
                clock, cpu = now, time.process_time()
            elif isinstance(record, Step):
                began = began or now
                if now - began > seconds or record.tokens == record.total:
                    show("training", now - clock, time.process_time() - cpu, record.tokens)
                    print(f"{record.tokens / record.total:.2%} of an epoch, loss {record.loss:.3f}", flush=True)
                    break


def show(what: str, seconds: float, cpu: float, tokens: int = 0) -> None:
    """Print a line of figures."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = f"  {tokens / seconds:10,.0f} tokens/s, {tokens / cpu:10,.0f} by CPU time" if tokens else ""
    print(f"{what:>10}  {seconds:8.1f} s  {cpu:8.1f} s CPU  peak {largest:7,.0f} MB{rate}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("path", type=Path)
    making.add_argument("--sentences", type=int, default=10_000_000)
    making.add_argument("--names", type=int, default=50_000)
    making.add_argument("--seed", type=int, default=1)
    measuring = commands.add_parser("measure")
    measuring.add_argument("path", type=Path)
    measuring.add_argument("--validation", type=Path, required=True)
    measuring.add_argument("--seconds", type=float, default=60)
    measuring.add_argument("--in-memory", action="store_true")
    measuring.add_argument("--set", dest="overrides", action="append", default=[])
    given = parser.parse_args()
    if given.command == "make":
        make(given.path, given.sentences, given.names, given.seed)
    else:
        measure(given.path, given.validation, given.seconds, given.overrides, given.in_memory)


if __name__ == "__main__":
    main()
