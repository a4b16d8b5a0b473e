"""Micro-batches: the requests that wait at the same time are tagged together.

A batch of 32 sentences takes little longer than a few single ones. While one batch is tagged, further requests
arrive and are the next one. A request that comes alone is tagged at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from nertool.errors import NertoolError
from nertool.serving.requests import Options, to_json
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document

LONGEST_WAIT = 0.002
"""Seconds that a request waits for others to come, where several came at a time before."""

CHARACTERS_AT_ONCE = 20_000  # of a batch, unless one request has more


@dataclass(frozen=True)
class Answer:
    """What was found in the texts of a request.

    Attributes:
        documents: For each text its JSON.
        tokens: How many they have.
        entities: How many were found.
    """

    documents: list[bytes]
    tokens: int
    entities: int


@dataclass(frozen=True, eq=False)
class _Job:
    texts: list[str]
    options: Options
    answer: asyncio.Future[Answer]

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))


class Batcher:
    """Tags with one model what many tasks of an event loop ask for.

    Args:
        tagger: The model.
        executor: The threads that tag; one is enough, because a batch uses the cores by itself.
        note: Called with the number of requests of each batch.
    """

    def __init__(self, tagger: Tagger, executor: Executor, note: Callable[[int], object]) -> None:
        self._tagger = tagger
        self._executor = executor
        self._note = note
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether requests are answered."""
        return self._task is not None and not self._task.done()

    @property
    def waiting(self) -> int:
        """How many requests have not been begun."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Answer nothing any more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def tag(self, texts: list[str], options: Options) -> Answer:
        """Tag the texts of a request.

        Raises:
            NertoolError: They cannot be tagged.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Job(texts, options, answer))
        self._arrived.set()
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        usual = 1  # how many requests came together the last time
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await asyncio.sleep(0)  # requests that were received in the same moment
            if len(self._waiting) < usual:
                await self._wait_for(usual)
            jobs = self._take()
            if not jobs:
                continue
            usual = len(jobs)
            self._note(usual)
            results = await loop.run_in_executor(self._executor, _tag_together, self._tagger, jobs)
            for job, result in zip(jobs, results, strict=True):
                if job.answer.done():  # nobody waits for it any more
                    continue
                if isinstance(result, Answer):
                    job.answer.set_result(result)
                else:
                    job.answer.set_exception(result)

    async def _wait_for(self, count: int) -> None:
        """Wait until so many requests are there, for a short time at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT):
                while len(self._waiting) < count:
                    self._arrived.clear()
                    await self._arrived.wait()

    def _take(self) -> list[_Job]:
        """Take the requests of a batch from those that wait."""
        jobs: list[_Job] = []
        characters = 0
        while self._waiting:
            if self._waiting[0].answer.done():  # given up
                self._waiting.popleft()
                continue
            characters += self._waiting[0].characters
            if jobs and characters > CHARACTERS_AT_ONCE:
                break
            jobs.append(self._waiting.popleft())
        return jobs


def _tag_together(tagger: Tagger, jobs: Sequence[_Job]) -> list[Answer | Exception]:
    """Tag the texts of several requests; one that fails leaves the others alone."""
    results: dict[_Job, Answer | Exception] = {}
    for options, group in groupby(sorted(jobs, key=lambda job: job.options), lambda job: job.options):
        own = list(group)
        try:
            results.update(zip(own, _tag(tagger, options, own), strict=True))
        except (NertoolError, MemoryError, RuntimeError) as problem:
            if len(own) > 1:
                results.update((job, _tag_together(tagger, [job])[0]) for job in own)
            else:
                results[own[0]] = problem
    return [results[job] for job in jobs]


def _tag(tagger: Tagger, options: Options, jobs: Sequence[_Job]) -> list[Answer]:
    documents = tagger.with_options(**options._asdict()).tag_texts([text for job in jobs for text in job.texts])
    answers = []
    for job in jobs:
        own = [next(documents) for _ in job.texts]
        answers.append(
            Answer(
                [to_json(document_json(document)) for document in own],
                sum(len(document.tokens) for document in own),
                sum(len(document.entities) for document in own),
            )
        )
    return answers


def document_json(document: Document) -> dict[str, Any]:
    """Return what `Document.to_json` does, and where the sentences are, in characters."""
    offsets = document.offsets
    sentences = [(offsets[start][0], offsets[end - 1][1]) for start, end in document.bounds]
    return {**document.to_json(), "sentences": sentences}
