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
    environment = Environment(
        autoescape=True, loader=PackageLoader("nertool.views"), trim_blocks=True, lstrip_blocks=True
    )
    write_whole(path, environment.get_template(template).render(view).encode("utf-8", "replace"))
