"""The application: what is at which path, described in OpenAPI."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

import nertool
from nertool.serving.gate import Application, Gate, Handler
from nertool.serving.label_studio import LabelStudio
from nertool.serving.metrics import TYPE, Metrics
from nertool.serving.pages import Page, read_page
from nertool.serving.requests import FieldProblems, ModelList, Problem, TagRequest, TagResponse
from nertool.serving.service import Service
from nertool.serving.settings import Settings
from nertool.tagging.tagger import Tagger

_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The API key is missing or wrong."},
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {"model": Problem, "description": "The body or its texts are too long."},
    422: {"model": FieldProblems, "description": "The body is not JSON of this form; says which field is wrong."},
    503: {"model": Problem, "description": "Too many requests at a time; the header Retry-After says when."},
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": TagRequest.model_json_schema(),
            "example": {"text": "Ada Moreau lives in Lisbon.", "min_score": 0.5},
        }
    },
}


def load_taggers(settings: Settings) -> dict[str, Tagger]:
    """Load all models, and use each once, so that the first request need not wait.

    Raises:
        NertoolError: A model cannot be loaded, or reads something that texts do not have.
    """
    taggers = {name: Tagger.load(folder, device=settings.device) for name, folder in settings.models.items()}
    for tagger in taggers.values():
        tagger.tag("One text.")
    return taggers


def print_line(line: str) -> None:
    """Print a line of the access log; where nobody reads it, the service goes on."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        pass


def build(
    settings: Settings,
    taggers: Mapping[str, Tagger] | None = None,
    log: Callable[[str], object] = print_line,
) -> Application:
    """Build the application as a server calls it.

    Args:
        settings: Models and limits.
        taggers: The models, if they are loaded already.
        log: Called with each line of the access log.

    Raises:
        NertoolError: As for `load_taggers`.
    """
    metrics = Metrics(nertool.__version__)
    service = Service(taggers or load_taggers(settings), settings.max_chars, metrics)
    known = ("/models", "/metrics")
    studio = LabelStudio(service) if settings.label_studio else None
    handlers: dict[str, Handler] = {"/tag": service.answer}
    if studio is not None:
        handlers |= {"/setup": studio.setup, "/predict": studio.predict}
        handlers |= dict.fromkeys(("/train", "/webhook"), studio.ignore)
    return Gate(_routes(service, metrics, studio), handlers, settings, metrics, log, known=known)


def _routes(service: Service, metrics: Metrics, studio: LabelStudio | None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="nertool",
        version=nertool.__version__,
        description="Entities in text, each with its probability.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )

    @app.post(
        "/tag",
        summary="Tag texts",
        response_model=TagResponse,
        responses=_ERRORS,
        openapi_extra={"requestBody": _BODY},
    )
    async def tag(request: Request) -> Response:
        """Find entities. The offsets count Unicode code points, as Python does."""
        return Response(await service.answer(await request.body(), {}), media_type="application/json")

    @app.get("/models", summary="List the models", responses={401: _ERRORS[401]})
    async def models() -> ModelList:
        """List the models, the default one first."""
        return ModelList(models=service.models, max_chars=service.max_chars)

    @app.get("/health", summary="Whether the process answers")
    async def health() -> dict[str, str]:
        """Answer, whatever else goes on."""
        return {"status": "ok"} if studio is None else {"status": "UP", "model_class": studio.version}

    @app.get("/ready", summary="Whether texts can be tagged", responses={503: {"model": Problem}})
    async def ready() -> JSONResponse:
        """Answer 200 where requests for tagging are answered, else 503."""
        if service.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"detail": "not ready"}, 503, {"retry-after": "1"})

    @app.get("/metrics", summary="Counts, for Prometheus", responses={401: _ERRORS[401]})
    async def show_metrics() -> Response:
        """Show the counts of all workers in Prometheus's format."""
        return Response(metrics.show(), headers={"content-type": TYPE})

    if studio is not None:
        versions = {"versions": [studio.version]}
        app.add_api_route("/versions", lambda: versions, methods=["GET"], summary="For Label Studio")
    for path, name in (("/", "page.html"), ("/docs", "reference.html")):
        app.add_api_route(path, partial(show, read_page(name)), methods=["GET", "HEAD"], include_in_schema=False)
    return app


async def show(page: Page) -> Response:
    """Answer with a page."""
    return Response(page.content, headers=page.headers)
