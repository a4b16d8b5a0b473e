"""The process that serves the page, and trains beside it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from nertool.config.files import locked
from nertool.labelling.application import build, to_log
from nertool.labelling.desk import Desk
from nertool.labelling.rounds import Rounds
from nertool.labelling.settings import Settings
from nertool.labelling.store import Store
from nertool.serving.server import configure, serve_alone

_HOLDER = "another `nertool label` is at work in this project: use its page, or stop it first"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a project, so that no other process changes it.

    Raises:
        NertoolError: Another one does.
    """
    with locked(folder, holder=_HOLDER):
        yield


@contextmanager
def at_work(store: Store, settings: Settings, beginning: Path | None) -> Iterator[uvicorn.Config]:
    """Build the server of a project, and train for it until the block ends.

    Args:
        store: Of the project, which is held.
        settings: Of the server.
        beginning: A model that proposes first; None: none.

    Raises:
        NertoolError: A model cannot be loaded.
    """
    rounds = Rounds(store, beginning)
    application = build(Desk(store, rounds), settings, _log)
    rounds.start()
    try:
        yield configure(settings, application)
    finally:
        rounds.stop()


def serve(
    store: Store, settings: Settings, server: socket.socket, beginning: Path | None, announce: Callable[[], object]
) -> bool:
    """Serve until a signal comes.

    Args:
        store: Of the project, which is held.
        settings: Of the server.
        server: Where to listen.
        beginning: A model that proposes first; None: none.
        announce: Called when the page is about to be served.

    Returns:
        Whether it ended because it was asked to.

    Raises:
        NertoolError: A model cannot be loaded.
    """
    with at_work(store, settings, beginning) as config:
        announce()
        return serve_alone(config, server)


def _log(line: str) -> None:
    if (kept := to_log(line)) is not None:
        try:
            sys.stdout.write(kept + "\n")
            sys.stdout.flush()
        except (OSError, ValueError):
            pass
