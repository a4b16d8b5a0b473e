"""The pages: files that need nothing else, and may do nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import NamedTuple

_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


class Page(NamedTuple):
    """A page with its headers."""

    content: bytes
    headers: dict[str, str]


def read_page(name: str, package: str = "nertool.serving") -> Page:
    """Read a page of a package; its policy lets it run its own scripts and ask this server, and no more."""
    content = files(package).joinpath(name).read_bytes()
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for kind, inline in _INLINE.findall(content):
        digest = base64.b64encode(hashlib.sha256(inline).digest()).decode()
        allowed[kind.decode()].append(f"'sha256-{digest}'")
    policy = "; ".join(
        [
            "default-src 'none'",
            *(f"{kind}-src {' '.join(hashes)}" for kind, hashes in allowed.items() if hashes),
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
    return Page(content, headers)
