"""In front of the application: keys, limits, time, counts and the access log.

Whatever a client sends, each request ends: with an answer, or, where nobody waits for one any more, without.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol

from nertool.errors import NertoolError
from nertool.serving.requests import BadRequestError, to_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[bytearray, dict[str, Any]], Awaitable[bytes]]
"""From the body of a request to that of its answer, in JSON; a dictionary receives what the log shall say."""

OPEN = frozenset({"/", "/docs", "/openapi.json", "/health", "/ready"})
"""Paths for which no key is asked."""

_LONGEST_PATH = 100  # characters in the log
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


class Limits(Protocol):
    """What is taken from clients; see `nertool.serving.settings.Settings`."""

    @property
    def max_body(self) -> int:
        """Bytes of a body, at most."""

    @property
    def max_concurrency(self) -> int:
        """Requests that are handled at a time, at most."""

    @property
    def timeout(self) -> float:
        """Seconds until a request is given up."""

    @property
    def api_key(self) -> str | None:
        """What requests must show."""


class Counts(Protocol):
    """What is counted; see `nertool.serving.metrics.Metrics`."""

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""

    def handling(self, number: int) -> None:
        """Note how many requests are being handled."""


class GoneError(Exception):
    """The client is gone before its request was whole."""


class Exchange:
    """A request and its answer, for the log.

    Attributes:
        status: Of the answer; 499 where the client went away before it.
        received, sent: Bytes of the bodies.
        details: What more is known of it; never the texts.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.status = 499
        self.received = self.sent = 0
        self.details: dict[str, Any] = {}
        self.began = False  # whether the answer began
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass on a message of the application."""
        if message["type"] == "http.response.start":
            self.began = True
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)

    async def answer(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a whole answer in JSON."""
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                    *headers,
                ],
            }
        )
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, status: int, detail: Any, *headers: tuple[bytes, bytes]) -> None:
        """Send what was wrong."""
        await self.answer(status, to_json({"detail": detail}), *headers)


class Gate:
    """The application as the server calls it.

    Args:
        application: Answers all requests but those that are handled.
        handlers: Answer the POST requests to their paths.
        limits: What is taken from clients.
        counts: Counts requests.
        log: Called with each line of the access log.
        known: Paths that are counted each by itself, beside those of the handlers.
        refuse: Called with a request before it is answered; says why it is refused, or None.
    """

    def __init__(
        self,
        application: Application,
        handlers: Mapping[str, Handler],
        limits: Limits,
        counts: Counts,
        log: Callable[[str], object],
        *,
        known: Iterable[str] = (),
        refuse: Callable[[Scope], str | None] | None = None,
    ) -> None:
        self._application = application
        self._handlers = handlers
        self._limits = limits
        self._counts = counts
        self._log = log
        self._known = {*OPEN, *handlers, *known}
        self._refuse = refuse
        self._active = 0
        self._key = None if limits.api_key is None else limits.api_key.encode("utf-8", "surrogateescape")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        began = time.perf_counter()
        exchange = Exchange(scope, send)
        try:
            await self._answer(exchange, receive)
        finally:
            seconds = time.perf_counter() - began
            path = scope["path"]
            self._counts.count(path if path in self._known else "other", exchange.status, seconds)
            self._log(_line(exchange, seconds))

    async def _answer(self, exchange: Exchange, receive: Receive) -> None:
        scope = exchange.scope
        try:
            if self._refuse is not None and (reason := self._refuse(scope)) is not None:
                await exchange.refuse(403, reason)
            elif scope["path"] not in OPEN and not self._allowed(scope["headers"]):
                await exchange.refuse(
                    401,
                    "an API key is needed: send it as Authorization: Bearer KEY",
                    (b"www-authenticate", b"Bearer"),
                )
            elif scope["method"] == "POST" and (handler := self._handlers.get(scope["path"])) is not None:
                await self._handle(handler, exchange, receive)
            else:
                async with asyncio.timeout(self._limits.timeout):
                    await self._application(scope, receive, exchange.send)
        except GoneError:
            pass
        except BadRequestError as problem:
            await exchange.refuse(problem.status, problem.detail)
        except NertoolError as problem:
            await exchange.refuse(422, str(problem))
        except (TimeoutError, MemoryError) as problem:
            if exchange.began:
                raise
            reason = "out of memory" if isinstance(problem, MemoryError) else "no answer in time"
            await exchange.refuse(503, f"{reason}; try again later", (b"retry-after", b"5"))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            if exchange.began:
                raise
            await exchange.refuse(500, "an error of the server, which its log describes")

    async def _handle(self, handler: Handler, exchange: Exchange, receive: Receive) -> None:
        limits = self._limits
        if self._active >= limits.max_concurrency:
            await exchange.refuse(
                503,
                f"{self._active:,} requests are being answered already; try again later",
                (b"retry-after", b"1"),
            )
            return
        self._active += 1
        self._counts.handling(self._active)
        try:
            deadline = asyncio.get_running_loop().time() + limits.timeout
            try:
                async with asyncio.timeout_at(deadline):
                    body = await self._body(exchange, receive)
            except TimeoutError:
                await exchange.refuse(408, "the body did not arrive in time", (b"connection", b"close"))
                return
            async with asyncio.timeout_at(deadline):
                answer = await handler(body, exchange.details)
            await exchange.answer(200, answer)
        finally:
            self._active -= 1
            self._counts.handling(self._active)

    async def _body(self, exchange: Exchange, receive: Receive) -> bytearray:
        """Receive the body of a request.

        Raises:
            BadRequestError: It is too long.
            GoneError: It ends in the middle.
        """
        most = self._limits.max_body
        too_long = BadRequestError(413, f"the body is too long; at most {most:,} bytes are taken: split the texts")
        for name, value in exchange.scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > most:
                raise too_long
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise GoneError
            body += message.get("body", b"")
            exchange.received = len(body)
            if len(body) > most:
                raise too_long
            if not message.get("more_body", False):
                return body

    def _allowed(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Return whether a request shows the key; how long that takes says nothing about the key."""
        if self._key is None:
            return True
        given = dict(headers)
        shown = given.get(b"x-api-key", b"")
        scheme, _, rest = given.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            shown = rest.strip()
        elif scheme.lower() == b"basic":  # the key is the password, for any user
            with contextlib.suppress(ValueError):
                shown = base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        return hmac.compare_digest(shown, self._key)


def _line(exchange: Exchange, seconds: float) -> str:
    scope = exchange.scope
    client = scope.get("client")
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:_LONGEST_PATH],
            "status": exchange.status,
            "milliseconds": round(1000 * seconds, 2),
            "received": exchange.received,
            "sent": exchange.sent,
            **exchange.details,
        }
    )
