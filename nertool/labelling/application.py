"""The application: the page, what it asks for, and who may ask."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI

from nertool.labelling.desk import Desk
from nertool.labelling.download import downloads
from nertool.labelling.settings import Settings
from nertool.serving.application import show
from nertool.serving.gate import Application, Gate, Scope
from nertool.serving.pages import read_page
from nertool.serving.settings import LOCAL_ADDRESSES


class _Uncounted:
    """Counts nothing."""

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""

    def handling(self, number: int) -> None:
        """Note how many requests are being handled."""


def build(desk: Desk, settings: Settings, log: Callable[[str], object]) -> Application:
    """Build the application as a server calls it.

    Args:
        desk: Answers the page; it is closed when the server ends.
        settings: Limits.
        log: Called with each line of the access log.
    """
    return Gate(
        _routes(desk, settings), desk.handlers, settings, _Uncounted(), log, refuse=partial(_refuse, settings)
    )


def _routes(desk: Desk, settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            desk.close()

    app = FastAPI(title="nertool label", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/", partial(show, read_page("page.html", "nertool.labelling")), methods=["GET", "HEAD"])

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Answer, whatever else goes on."""
        return {"status": "ok"}

    @app.get("/begin")
    async def begin() -> dict[str, Any]:
        """Say what the page begins with."""
        return {"annotator": settings.annotator, "title": settings.title, "formats": downloads()}

    return app


def _refuse(settings: Settings, scope: Scope) -> str | None:
    """Say why a request is refused that another site's page may have made in this browser; None: it is not.

    Such a page can send requests without asking, though not with JSON's content type; and by a name of its own
    that leads to this machine it could read the answers too.
    """
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    if settings.host in LOCAL_ADDRESSES and not _is_local(host):
        return "this is for localhost alone; start it with --host to reach it by another name"
    origin = headers.get(b"origin")
    if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
        return "the request comes from the page of another site"
    if (
        scope["method"] == "POST"
        and headers.get(b"content-type", b"").split(b";")[0].strip() != b"application/json"
    ):
        return "a request's content type is application/json"
    return None


def _is_local(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def to_log(line: str) -> str | None:
    """Return a line of the access log if it is of a request that failed; those of every answer would fill it."""
    return line if json.loads(line)["status"] >= 400 else None
