"""The processes that serve: a socket, workers, and an end without losses."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, cast

import uvicorn
from uvicorn.supervisors import Multiprocess

from nertool.errors import NertoolError
from nertool.serving.application import build, load_taggers
from nertool.serving.gate import Application, Limits
from nertool.serving.metrics import SHARED
from nertool.serving.protocol import PatientProtocol
from nertool.serving.settings import Settings

_BACKLOG = 1024
_LAST_SECONDS = 5  # for requests in flight, beyond their timeout
_SECONDS_TO_START = 120  # a worker that does not answer uvicorn for so long is started again


def listen(host: str, port: int) -> socket.socket:
    """Open a socket.

    Raises:
        NertoolError: The address cannot be listened on.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name != "nt":  # there it would let two servers listen on one port
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
            server.listen(_BACKLOG)
        except OSError:
            server.close()
            raise
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise NertoolError(
            f"cannot listen on {host}, port {port}: {reason}; choose others: --host, --port"
        ) from None
    return server


def url(server: socket.socket) -> str:
    """Return where a browser finds the page."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: Settings, server: socket.socket, announce: Callable[[], object]) -> bool:
    """Serve until a signal comes; requests in flight are answered before this returns.

    Args:
        settings: Models and limits.
        server: Where to listen.
        announce: Called when the models are loaded.

    Returns:
        Whether it ended because it was asked to.

    Raises:
        NertoolError: As for `load_taggers`.
    """
    # oneDNN, which torch computes with, keeps what it compiled for each shape of batch, up to a number that it
    # reads when it is first used. There are thousands of shapes here: its default, 1,024, took 100 MB and saved no
    # time.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    taggers = load_taggers(settings)
    announce()
    if settings.workers == 1:
        return serve_alone(configure(settings, build(settings, taggers)), server)
    del taggers  # workers load their own
    return _serve_together(settings, server)


def configure(settings: Limits, application: Application, **options: Any) -> uvicorn.Config:
    """Return uvicorn's settings.

    Args:
        settings: The limits.
        application: As `build` makes it, or what makes it, with the option `factory`.
        options: Further ones of uvicorn.
    """
    return uvicorn.Config(
        application,
        http=PatientProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_worker_healthcheck=_SECONDS_TO_START,
        timeout_keep_alive=ceil(settings.timeout),
        timeout_graceful_shutdown=ceil(settings.timeout) + _LAST_SECONDS,
        **options,
    )


def serve_alone(config: uvicorn.Config, server: socket.socket) -> bool:
    """Serve in this process until a signal comes; returns whether it ended because it was asked to."""
    process = uvicorn.Server(config)
    try:
        process.run([server])
    except (KeyboardInterrupt, SystemExit):  # uvicorn sends itself the signal again when all is done
        if not process.started:
            raise
    return process.started


def _serve_together(settings: Settings, server: socket.socket) -> bool:
    counts = tempfile.mkdtemp(prefix="nertool-metrics-")
    os.environ[SHARED] = counts  # of this process, which does nothing else; workers inherit it
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // settings.workers)))
    try:
        config = configure(
            settings, cast(Application, partial(build_in_worker, settings)), factory=True, workers=settings.workers
        )
        together = Multiprocess(config, [server])
        together.run()
        return all(each.exitcode != uvicorn.config.STARTUP_FAILURE for each in together.processes)
    finally:
        shutil.rmtree(counts, ignore_errors=True)


def build_in_worker(settings: Settings) -> Application:
    """Build the application in a process of its own, which ends when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    return build(settings)


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
