"""HTTP connections that cannot be held open for nothing.

uvicorn waits without end for the head of a request, for the rest of a body that was refused, and for a client that
does not read its answer. Here a connection is closed when it has no request to be answered, and has had none for
`timeout_keep_alive` seconds. Heads, and requests sent before the answers to earlier ones, are limited too.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 65_536
"""Bytes before the body of a request, at most."""

MOST_AHEAD = 100
"""Requests that a client has sent without waiting for the answers to those before, at most."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PatientProtocol(HttpToolsProtocol):
    """A connection whose patience ends."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch a connection."""
        super().connection_made(transport)
        self._head = 0  # bytes of a head that is not complete
        self._in_head = True
        self._since = self.loop.time()
        self._watch: asyncio.TimerHandle = self.loop.call_later(self.timeout_keep_alive, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch it no longer."""
        self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse a head without end."""
        if self._in_head:
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > MOST_HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Note that a request begins to be answered."""
        self._in_head = False
        super().on_headers_complete()
        if len(self.pipeline) > MOST_AHEAD:
            self.transport.abort()

    def on_message_complete(self) -> None:
        """Note that a request is here."""
        self._in_head, self._head = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that a request is answered."""
        self._since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        """Close the connection if nothing goes on, and look again later if something does."""
        cycle: Any = self.cycle
        now = self.loop.time()
        if cycle is not None and not cycle.response_complete:
            self._since = now
        left = self._since + self.timeout_keep_alive - now
        if left > 0:
            self._watch = self.loop.call_later(left, self._look)
            return
        if self._head and self._in_head and not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()
            self._watch = self.loop.call_later(1.0, self.transport.abort)
            return
        self.transport.abort()
