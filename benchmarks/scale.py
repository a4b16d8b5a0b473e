"""Measure what threads, processes, bfloat16 and a GPU are worth in training: steps in turn, in one run.

    python benchmarks/scale.py threads                                  # up to 16 threads, training and tagging
    python benchmarks/scale.py precision                                # fp32 and bf16
    python benchmarks/scale.py device                                   # the CPU and a GPU, training and tagging
    torchrun --nproc-per-node 2 benchmarks/scale.py processes           # 1 process and all of them

The network is that of `conll03.yaml` without pretrained vectors (2 x 200 units), the corpus the demonstration
corpus. Wall time says most on an idle machine. On a busy one the CPU time of the busiest thread says how fast it
could be at best: what it does not compute itself, others compute meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from nertool.config.loading import find_config, load_config, locate_files
from nertool.config.schema import TrainingConfig
from nertool.data.encoding import EncodedCorpus, training_order
from nertool.model.concurrency import threads
from nertool.model.devices import find_device
from nertool.model.model import Model
from nertool.tagging.predictor import Predictor
from nertool.training.distributed import ALONE, Group, joined
from nertool.training.preparation import prepare
from nertool.training.step import Learner

BATCHES = (10, 32, 256)
COPIES = 20  # of the test split, for enough batches
SIZES = ("inputs.words.dimensions=100", "model.encoder={kind: lstm, hidden: 200}", "model.attention=none")


class Time(NamedTuple):
    """Seconds: on the clock, of the calling thread on a CPU, and of all threads of this process."""

    wall: float
    thread: float
    process: float

    @classmethod
    def now(cls) -> Time:
        return cls(time.perf_counter(), time.thread_time(), time.process_time())

    def since(self, tokens: int) -> Time:
        """Microseconds a token since this time."""
        return Time(*(1e6 * (now - then) / tokens for now, then in zip(Time.now(), self, strict=True)))


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def network() -> tuple[Model, EncodedCorpus]:
    path = find_config("demo.yaml")
    prepared = prepare(locate_files(load_config(path, SIZES), path))
    assert isinstance(prepared.encoded, EncodedCorpus)
    return prepared.model, prepared.encoded


def steps(learner: Learner, corpus: EncodedCorpus, batches: list[np.ndarray]) -> Time:
    """Take steps over some batches, as the trainer does."""
    began = Time.now()
    for indices in batches:
        own = learner.group.share(indices)
        learner.accumulate(corpus.batch(own) if len(own) else None, len(indices))
        learner.step(0.001)
    return began.since(int(sum(corpus.lengths[indices].sum() for indices in batches)))


def report(what: str, found: dict[str, list[Time]]) -> None:
    """Print the medians, and how fast each contender is, the first one being 1."""
    first = next(iter(found.values()))
    for name, times in found.items():
        ratios = [a.wall / b.wall for a, b in zip(first, times, strict=True)]
        middle = Time(*(statistics.median(column) for column in zip(*times, strict=True)))
        bound = statistics.median(each.thread for each in first) / middle.thread
        print(
            f"{what:>12}  {name:>15}  {middle.wall:8.1f} us a token, on the CPU {middle.thread:6.1f} of the "
            f"calling thread, {middle.process:6.1f} of all; speed {statistics.median(ratios):5.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), at best {bound:5.2f}",
            flush=True,
        )


def alternate(contenders: Mapping[str, Callable[[], Time]], rounds: int) -> dict[str, list[Time]]:
    found: dict[str, list[Time]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            if number:  # the first round warms up
                found[name].append(contender())
            else:
                contender()
    return found


def batches_of(corpus: EncodedCorpus, size: int, tokens: int) -> list[np.ndarray]:
    order = training_order(corpus.lengths, size, np.random.default_rng(1))
    return order[: max(1, round(tokens / (size * float(corpus.lengths.mean()))))]


def compare_settings(settings: Mapping[str, Mapping[str, object]], rounds: int, tokens: int) -> None:
    """Train with each of some settings in turn, on the device that they name."""
    learners = {}
    for name, values in settings.items():
        model, corpus = network()
        config = TrainingConfig.model_validate(values)
        learners[name] = Learner(model.network.to(find_device(config.device)), config)
    for size in BATCHES:
        batches = batches_of(corpus, size, tokens)
        contenders = {name: partial(steps, each, corpus, batches) for name, each in learners.items()}
        report(f"batch {size}", alternate(contenders, rounds))


def compare_tagging(places: Mapping[str, tuple[str, int]], rounds: int) -> None:
    """Tag the test split in each place: on a device, with a number of threads."""
    path = find_config("demo.yaml")
    prepared = prepare(locate_files(load_config(path, SIZES), path))
    prepared.model.network.eval()
    assert prepared.corpus.test is not None
    sentences = [*prepared.corpus.test.sentences] * COPIES
    tokens = sum(map(len, sentences))

    def tag(device: str, count: int) -> Time:
        prepared.model.network.to(find_device(device))
        with threads(count):
            predictor = Predictor(prepared.model)
            began = Time.now()
            predictor.predict(sentences)
            return began.since(tokens)

    report("tagging", alternate({name: partial(tag, *place) for name, place in places.items()}, rounds))


def compare_processes(group: Group, rounds: int, tokens: int) -> None:
    """Let process 0 train alone while the others wait, then all together."""
    config = TrainingConfig(threads=1)
    model, corpus = network()
    together = Learner(model.network, config, group)
    alone = Learner(network()[0].network, config, ALONE)
    for size in BATCHES:
        batches = batches_of(corpus, size, tokens)

        def by_itself(batches: list[np.ndarray] = batches) -> Time:
            result = steps(alone, corpus, batches) if group.leads else Time(1, 1, 1)
            group.total(0.0)  # the others wait here, without work
            return result

        contenders: dict[str, Callable[[], Time]] = {
            "1 process": by_itself,
            f"{group.size} processes": partial(steps, together, corpus, batches),
        }
        found = alternate(contenders, rounds)
        if group.leads:
            report(f"batch {size}", found)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["threads", "precision", "device", "processes"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=5000, help="of a slice")
    args = parser.parse_args()
    if args.what == "processes":
        with joined() as group:
            compare_processes(group, args.rounds, args.tokens)
    elif args.what == "precision":
        values = {name: {"precision": name, "threads": 1} for name in ("fp32", "bf16")}
        compare_settings(values, args.rounds, args.tokens)
    elif args.what == "device":
        places: dict[str, dict[str, object]] = {"cpu": {"threads": 2}}
        places |= {f"cuda {name}": {"device": "cuda", "precision": name} for name in ("fp32", "bf16")}
        compare_settings(places, args.rounds, args.tokens)
        compare_tagging({f"cpu, {cores()} threads": ("cpu", cores()), "cuda": ("cuda", cores())}, args.rounds)
    else:
        counts = [count for count in (1, 2, 4, 8, 16) if count <= cores()]
        compare_settings({f"{count} threads": {"threads": count} for count in counts}, args.rounds, args.tokens)
        compare_tagging({f"{count} threads": ("cpu", count) for count in counts}, args.rounds)


if __name__ == "__main__":
    main()
