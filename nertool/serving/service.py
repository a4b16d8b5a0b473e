"""From the body of a request to the body of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nertool.serving.batching import Answer, Batcher
from nertool.serving.metrics import Metrics
from nertool.serving.requests import ModelInfo, Options, parse, to_json, wrong_field
from nertool.tagging.tagger import Tagger
from nertool.text.schemes import OUTSIDE, Scheme, split_label


class Service:
    """The models, and what they are asked.

    Args:
        taggers: By name; the first one is used where a request names none.
        max_chars: Characters of all texts of a request, at most.
        metrics: Counts what is found.
    """

    def __init__(self, taggers: Mapping[str, Tagger], max_chars: int, metrics: Metrics) -> None:
        self.max_chars = max_chars
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(1, "nertool-tagging")
        self.models = [_describe(name, tagger) for name, tagger in taggers.items()]
        self._default = self.models[0].name
        self._batchers = {
            name: Batcher(tagger, self._executor, metrics.batch.observe) for name, tagger in taggers.items()
        }

    @property
    def ready(self) -> bool:
        """Whether texts can be tagged."""
        return all(batcher.running for batcher in self._batchers.values())

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        for batcher in self._batchers.values():
            batcher.start()

    async def stop(self) -> None:
        """Answer nothing any more."""
        for batcher in self._batchers.values():
            await batcher.stop()
        self._executor.shutdown()

    async def answer(self, body: bytes | bytearray, details: dict[str, Any]) -> bytes:
        """Tag the texts of a request.

        Args:
            body: A `TagRequest` in JSON.
            details: Receives what the access log shall say of it.

        Returns:
            A `TagResponse` in JSON.

        Raises:
            BadRequestError: It asks for something that there is not.
            NertoolError: The texts cannot be tagged.
        """
        request = parse(body, self.max_chars)
        name = request.model if request.model is not None else self._default
        if name not in self._batchers:
            known = ", ".join(self._batchers)
            raise wrong_field("model", f"there is no such model; there are: {known}")
        answer = await self.tag(name, request.all_texts, request.options, details)
        return b'{"model":%b,"documents":[%b]}' % (to_json(name), b",".join(answer.documents))

    async def tag(self, name: str, texts: list[str], options: Options, details: dict[str, Any]) -> Answer:
        """Tag texts, and count what is found.

        Args:
            name: Of a model that there is.
            texts: Not longer than is allowed.
            options: What to find out about them.
            details: Receives what the access log shall say of it.

        Raises:
            NertoolError: The texts cannot be tagged.
        """
        details |= {"model": name, "texts": len(texts), "characters": sum(map(len, texts))}
        answer = await self._batchers[name].tag(texts, options)
        details |= {"tokens": answer.tokens, "entities": answer.entities}
        self._metrics.count_found(name, len(texts), answer.tokens, answer.entities)
        return answer


def _describe(name: str, tagger: Tagger) -> ModelInfo:
    model = tagger.model
    plain = model.scheme is Scheme.PLAIN
    labels = model.labels if plain else sorted({split_label(each)[1] for each in model.labels if each != OUTSIDE})
    return ModelInfo(name=name, language=model.config.language, scheme="PLAIN" if plain else "IOB2", labels=labels)
