"""The answers of a project as a file in any format, for the page to offer."""

from __future__ import annotations

import shutil
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

from nertool.formats.convert import convert_file
from nertool.formats.registry import formats

_SHOWN = 5  # notes on what was left out


def downloads() -> list[str]:
    """Return the names of the formats that can hold answers."""
    return [name for name, each in formats().items() if each.writable and "entities" in each.holds]


def download(project: Path, name: str) -> dict[str, Any]:
    """Write the answers of a project in a format.

    The sentences that are kept apart to test with are not among them.

    Args:
        project: Its folder.
        name: Of the format.

    Returns:
        The name of the file, its content in Base64, how many sentences and entities it has, and notes on what was
        left out. Several files, as brat has them, come as one zip file.

    Raises:
        NertoolError: Nothing was accepted yet, or the format cannot hold what was.
    """
    suffixes = formats()[name].suffixes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        path = folder / f"labels{suffixes[0] if suffixes else '.json'}"
        written = convert_file(project, path, writer=name, allow_empty=True)
        files = sorted(folder.iterdir())
        if len(files) > 1 or files[0].is_dir():
            files = [Path(shutil.make_archive(str(Path(temporary) / "labels"), "zip", folder))]
        content = b64encode(files[0].read_bytes()).decode("ascii")
        notes = [*written.report.notes, *written.report.misfits]
    if len(notes) > _SHOWN:
        notes[_SHOWN:] = [f"and {len(notes) - _SHOWN:,} more; nertool convert shows them all"]
    return {
        "name": files[0].name,
        "content": content,
        "sentences": written.sentences,
        "entities": written.entities,
        "notes": notes,
    }
