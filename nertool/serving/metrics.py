"""What the service counts, in the format of Prometheus."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client import multiprocess as several

Metric = TypeVar("Metric", Counter, Histogram)

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which several workers keep their counts; prometheus_client reads it."""

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts of one worker; in a folder that workers share, where the environment names one.

    Args:
        version: Of nertool.
    """

    def __init__(self, version: str) -> None:
        self._shared = os.environ.get(SHARED)
        self._registry = registry = CollectorRegistry()
        requests = Counter(
            "nertool_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        seconds = Histogram(
            "nertool_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["path"],
            registry=registry,
            buckets=_SECONDS,
        )
        found = {
            noun: Counter(f"nertool_{noun}", f"Number of {noun}.", ["model"], registry=registry)
            for noun in ("texts", "tokens", "entities")
        }
        self.batch = Histogram(
            "nertool_batch_requests",
            "Requests that were tagged together.",
            registry=registry,
            buckets=_REQUESTS,
        )
        self._active = Gauge(
            "nertool_requests_active",
            "Requests for tagging that are being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        info = Gauge("nertool_info", "Version.", ["version"], registry=registry, multiprocess_mode="livemax")
        info.labels(version).set(1)
        self._requests = _cached(requests)
        self._seconds = _cached(seconds)
        self._found = {noun: _cached(counter) for noun, counter in found.items()}
        if self._shared is None:
            ProcessCollector(registry=registry)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests(path, status).inc()
        self._seconds(path).observe(seconds)

    def handling(self, number: int) -> None:
        """Note how many requests for tagging are being answered."""
        self._active.set(number)

    def count_found(self, model: str, texts: int, tokens: int, entities: int) -> None:
        """Count what was found by a model."""
        for noun, number in (("texts", texts), ("tokens", tokens), ("entities", entities)):
            self._found[noun](model).inc(number)

    def show(self) -> bytes:
        """Return the counts, of all workers."""
        registry = self._registry
        if self._shared is not None:
            registry = CollectorRegistry()
            several.MultiProcessCollector(registry, self._shared)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _cached(metric: Metric) -> Callable[..., Metric]:
    """Look up the metric of given labels once."""
    known: dict[tuple[Any, ...], Metric] = {}

    def find(*labels: Any) -> Metric:
        if labels not in known:
            known[labels] = metric.labels(*labels)
        return known[labels]

    return find
