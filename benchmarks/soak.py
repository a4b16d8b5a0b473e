"""Tag sentence after sentence in one process and print its memory along the way, which must stop growing.

The sentences are those of `memory.py`: two of eight tokens are new in each, so that whatever remembers words is
tested. Several threads may share the tagger. Needs Linux.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from memory import demo_words, made_up_lines

from nertool.tagging.tagger import Tagger


def memory_mb() -> float:
    """Return the memory that this process uses now, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


class Soak:
    """Sentences on their way through a tagger, and what has been seen of its memory.

    Args:
        tagger: Shared by all threads.
        sentences: How many there are in all.
        every: After how many to look at the memory.
    """

    def __init__(self, tagger: Tagger, sentences: int, every: int) -> None:
        self.tagger = tagger
        self.sentences = sentences
        self.every = every
        self.done = 0
        self.entities = 0
        self.seen: list[tuple[int, float]] = []
        self.began = time.perf_counter()
        self._lock = threading.Lock()

    def run(self, threads: int) -> None:
        """Tag all sentences."""
        words = demo_words()
        parts = [self.sentences // threads + (number < self.sentences % threads) for number in range(threads)]
        workers = [
            threading.Thread(target=self._work, args=(made_up_lines(part, words, seed),))
            for seed, part in enumerate(parts, 1)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _work(self, lines: Iterator[str]) -> None:
        for tagged in self.tagger.tag_texts(line.rstrip("\n") for line in lines):
            with self._lock:
                self.done += 1
                self.entities += len(tagged.entities)
                if self.done % self.every == 0:
                    self._look()

    def _look(self) -> None:
        self.seen.append((self.done, memory_mb()))
        rate = self.done / (time.perf_counter() - self.began)
        print(f"{self.done:>11,} sentences: {self.seen[-1][1]:,.0f} MB, {rate:,.0f} sentences/s", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/latest"), metavar="DIR")
    parser.add_argument("--sentences", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    soak = Soak(Tagger.load(options.model), options.sentences, options.every)
    print(f"at the start: {memory_mb():,.0f} MB", flush=True)
    soak.run(options.threads)
    half = [figure for done, figure in soak.seen if done >= options.sentences / 2]
    if half:
        print(f"{soak.entities:,} entities; second half: {min(half):,.0f} to {max(half):,.0f} MB")


if __name__ == "__main__":
    main()
