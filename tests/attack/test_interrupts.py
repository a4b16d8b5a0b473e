"""Interrupts at random moments of tagging: afterwards a tagger gives the answers that it gave before."""

from __future__ import annotations

import ctypes
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import end_of_threads, thread_count
from shares import share

from nertool.tagging import prediction, predictor
from nertool.tagging.tagger import Tagger
from nertool.text import tokenization
from nertool.text.document import Document

NAMES = ["Ada Byron", "Babbage", "London", "New Haven", "Granite Bank", "Otto Lind", "Oslo", "Blue Door Theatre"]
PROBES = ["Ada Byron moved to New Haven . Nobody came .", "Otto Lind hired Babbage at Granite Bank in 1987 ."]


class Interrupted(KeyboardInterrupt):
    """What the handler of a signal raises."""


def settings() -> dict[str, object]:
    half = 0.5
    return {
        "threads": torch.get_num_threads(),
        "inference": torch.is_inference_mode_enabled(),
        "gradients": torch.is_grad_enabled(),
        "flush denormal": sys.float_info.min * half == 0.0,
    }


class Signals:
    """Interrupts a call by a signal, in the thread that makes the call."""

    def __init__(self) -> None:
        self._armed = False

    def interrupt(self, call: Callable[[], object], seconds: float) -> bool:
        """Make a call and interrupt it after a time; says whether it was interrupted."""
        before = signal.signal(signal.SIGALRM, self._handle)
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
            self._armed = False
        except Interrupted:
            return True
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return False

    def _handle(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise Interrupted


class Exceptions:
    """Interrupts a call in another thread by an exception that is raised in it from outside."""

    def interrupt(self, call: Callable[[], object], seconds: float) -> bool:
        """Make a call and interrupt it after a time; says whether it was interrupted."""
        hits: list[bool] = []
        begun = threading.Event()
        leave = False  # no event: the exception may leave its lock held

        def work() -> None:
            try:
                begun.set()
                call()
                hits.append(False)
                while not leave:  # the exception may still be on its way
                    time.sleep(0.001)
            except Interrupted:
                hits[:] = [*hits, True][:1]

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        time.sleep(seconds)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupted)
        )
        leave = True
        thread.join()
        return hits == [True]


def texts(chance: random.Random) -> Iterator[str]:
    """Texts with words that have never been there, of one sentence or of many."""
    for number in range(sys.maxsize):
        sentences = [
            f"{chance.choice(NAMES)} {chance.choice(['hired', 'left', f'verb{number}x{n}'])} "
            f"{chance.choice(NAMES)}{chance.choice(['', number])} ."
            for n in range(chance.choice([1, 2, 30]))
        ]
        yield " ".join(sentences)


def same(found: Document, wanted: Document) -> None:
    assert replace(found, scores=None, marginals=(), alternatives=()) == replace(
        wanted, scores=None, marginals=(), alternatives=()
    )
    assert found.scores == pytest.approx(wanted.scores, abs=1e-5)
    assert [list(each) for each in found.marginals] == [list(each) for each in wanted.marginals]


@contextmanager
def often() -> Iterator[None]:
    """Make everything that happens now and then happen often: batches, threads, forgetting."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "TOKENS_PER_BATCH", 40)
        patch.setattr(predictor, "FORMS_KEPT", 150)
        patch.setattr(tokenization, "STRINGS_KEPT", 2000)
        torch.set_num_threads(3)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def attack(folder: Path, count: int, attacker: Signals | Exceptions) -> None:
    chance = random.Random(1)
    with often():
        reference = Tagger.load(folder, marginals=True)
        tagger = Tagger.load(folder, marginals=True)
        wanted = list(map(reference.tag, PROBES))
        list(map(tagger.tag, PROBES))
        before, named, threads = settings(), threading.enumerate(), thread_count()
        hits = calls = 0
        longest = 0.002
        for text in texts(chance):
            if hits == count:
                break
            calls += 1
            found: list[Document] = []
            began = time.perf_counter()
            if attacker.interrupt(lambda: found.append(tagger.tag(text)), chance.uniform(1e-6, longest)):  # noqa: B023
                hits += 1
                assert settings() == before
                assert threading.enumerate() == named
                same(tagger.tag(text), reference.tag(text))
                probe = chance.randrange(len(PROBES))
                same(tagger.tag(PROBES[probe]), wanted[probe])
            else:
                longest = 0.9 * longest + 0.1 * (time.perf_counter() - began)
                same(found[0], reference.tag(text))
            assert calls < 20 * count
        assert end_of_threads(threads)
        print(f"{hits} of {calls} calls interrupted")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
@pytest.mark.parametrize("count", [200, pytest.param(share(10_000), marks=pytest.mark.slow)])
def test_signals(trained_run: Path, count: int):
    attack(trained_run, count, Signals())


# Python may give the exception to a thread that has just begun, which then ends with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("count", [50, pytest.param(share(2000), marks=pytest.mark.slow)])
def test_exceptions_in_other_threads(trained_run: Path, count: int):
    attack(trained_run, count, Exceptions())
