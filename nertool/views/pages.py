"""HTML pages that need no other file, from the templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from nertool.config.files import write_whole


def write_page(path: Path, template: str, view: Mapping[str, Any]) -> None:
    """Write a page.

    Args:
        path: The file.
        template: Name of a template of this package; what it shows is escaped.
        view: The values that it shows.

    Raises:
        NertoolError: It cannot be written there.
    """
    write_whole(path, render(template, view).encode("utf-8", "replace"))


def render(template: str, view: Mapping[str, Any]) -> str:
    """Fill a template; arguments as for `write_page`."""
    environment = Environment(
        autoescape=True, loader=PackageLoader("nertool.views"), trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(view)
