"""What `nertool label` was asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Where the page is, and what is taken from it.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0: any that is free.
        api_key: What requests must show; None: nothing.
        annotator: Name that the page begins with.
        title: Of the project.
        timeout: Seconds until a request is given up, and until a connection is closed that is silent.
        max_concurrency: Requests that are handled at a time, at most.
        max_body: Bytes of a body, at most.
    """

    host: str = "127.0.0.1"
    port: int = 8100
    api_key: str | None = None
    annotator: str = "me"
    title: str = "project"
    timeout: float = 60.0
    max_concurrency: int = 64
    max_body: int = 2**20
