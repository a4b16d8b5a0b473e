"""A server in a thread of the test, and the plainest of clients."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from nertool.serving.application import build
from nertool.serving.server import configure, listen
from nertool.serving.settings import Settings
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document

WAIT = 120.0  # seconds until a test takes it for a hang


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that answers.

    Attributes:
        port: Where.
        log: Lines of the access log.
        process: uvicorn's server.
    """

    port: int
    log: list[str] = field(default_factory=list)
    process: uvicorn.Server | None = None

    @property
    def connections(self) -> int:
        assert self.process is not None
        return len(self.process.server_state.connections)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def tag(self, body: Any, **headers: str) -> Reply:
        return self.ask("POST", "/tag", body, headers)

    def raw(self, *parts: bytes, close: bool = False) -> bytes:
        """Send bytes as they are; returns all that comes until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT) as client:
            with contextlib.suppress(ConnectionError):
                for part in parts:
                    client.sendall(part)
            if close:
                return b""
            return received(client)


def received(client: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            data += part
    return bytes(data)


def post(body: bytes, *more: str, length: int | None = None) -> bytes:
    """A request for tagging as bytes."""
    head = ["POST /tag HTTP/1.1", "Host: x", f"Content-Length: {len(body) if length is None else length}", *more]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextlib.contextmanager
def serving(
    folder: Path, taggers: dict[str, Tagger] | None = None, idle: float | None = None, **limits: Any
) -> Iterator[Running]:
    """Serve a model for the time of a block; `idle` seconds end a silent connection."""
    settings = Settings(dict.fromkeys(taggers or ["tiny"], folder), **limits)
    log: list[str] = []
    config = configure(settings, build(settings, taggers, log.append))
    config.timeout_keep_alive = idle or config.timeout_keep_alive  # type: ignore[assignment]
    with listen("127.0.0.1", 0) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # or it could hold a whole answer
        process = uvicorn.Server(config)
        port = server.getsockname()[1]
        thread = threading.Thread(target=process.run, args=([server],))
        thread.start()
        try:
            until(lambda: process.started or not thread.is_alive())
            yield Running(port, log, process)
        finally:
            process.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive(), "the server does not end"


def until(condition: Any) -> None:
    """Wait for something that other threads do."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


class Held(Tagger):
    """A tagger that tags when it is let, and says how many requests it was given at a time."""

    def __init__(self, tagger: Tagger) -> None:
        self.__dict__.update(tagger.__dict__)
        self.may_go = threading.Event()
        self.calls: list[int] = []

    def with_options(self, **options: Any) -> Any:
        return self

    def tag_texts(self, texts: Any) -> Iterator[Document]:
        own = list(texts)
        self.calls.append(len(own))
        assert self.may_go.wait(WAIT)
        return super().tag_texts(own)


def run(coroutine: Any) -> Any:
    """Run a coroutine to its end."""
    return asyncio.run(asyncio.wait_for(coroutine, WAIT))
