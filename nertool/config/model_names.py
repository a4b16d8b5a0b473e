"""Models by name: run directories, and those of the Hugging Face hub, `hub:owner/name@revision`, once fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from nertool.config.files import MODEL_FILES, cache_folder, data_folders, expanded, is_file, is_folder, write_whole
from nertool.errors import ConfigError

PREFIX = "hub:"
ORIGIN = "hub.json"
"""File beside a fetched model that says where it came from."""

_NAME = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<file>[\w.-]+\.onnx))?(?:@(?P<revision>[\w./-]+))?",
    re.ASCII,
)
_COMMIT = re.compile("[0-9a-f]{40}")


class HubModel(NamedTuple):
    """A model as somebody names it.

    Attributes:
        repository: `owner/name`.
        file: An exported file in it; None: its run directory, or its only exported file.
        revision: Branch, tag or commit; None: the main branch.
    """

    repository: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        file = "" if self.file is None else f"/{self.file}"
        return f"{PREFIX}{self.repository}{file}" + ("" if self.revision is None else f"@{self.revision}")

    @property
    def folder(self) -> Path:
        """Folder of all that was fetched of the repository."""
        return cache_folder() / "models" / self.repository.replace("/", "--")

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    @property
    def _note(self) -> Path:
        return self.folder / "refs" / quote(self.revision or "main", safe="")

    def place(self, commit: str) -> Path:
        """Return the folder for the files of a commit."""
        return self.folder / (commit if self.file is None else f"{commit}-{self.file}")

    def stored(self) -> tuple[Path, str] | None:
        """Find what was fetched: the run directory or exported file, and its commit; None if nothing was."""
        commit = self.revision if self.is_pinned else self._known_commit()
        if commit is None:
            return None
        folder = self.place(commit)
        if self.file is None and all((folder / name).is_file() for name in MODEL_FILES):
            return folder, commit
        if self.file is None:
            found = sorted(folder.glob("*.onnx")) if is_folder(folder) else []
            return (found[0], commit) if len(found) == 1 else None
        return (folder / self.file, commit) if (folder / self.file).is_file() else None

    def remember(self, commit: str) -> None:
        """Write down which commit a branch or tag is, for when there is no network.

        Raises:
            NertoolError: It cannot be written.
        """
        if not self.is_pinned and self._known_commit() != commit:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._note, f"{commit}\n".encode())

    def _known_commit(self) -> str | None:
        try:
            commit = self._note.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return commit if _COMMIT.fullmatch(commit) else None


def is_hub_name(name: str | Path) -> bool:
    """Return whether a name is that of a model of the hub, and not of a folder."""
    return str(name).startswith(PREFIX)


def parse_hub_name(name: str) -> HubModel:
    """Read `owner/name`, `owner/name@revision` or `owner/name/file.onnx@revision`, with `hub:` before it or not.

    >>> parse_hub_name("hub:ada/places@v2")
    HubModel(repository='ada/places', file=None, revision='v2')

    Raises:
        ConfigError: It is none of these.
    """
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None or any(part in match["repository"] for part in ("--", "..")) or ".." in (match["file"] or ""):
        raise ConfigError(
            f"{name!r} names no model of the hub; expected {PREFIX}owner/name, {PREFIX}owner/name@revision, or "
            f"{PREFIX}owner/name/file.onnx for an exported file"
        )
    return HubModel(match["repository"], match["file"], match["revision"])


def find_model(name: str, also: Sequence[Path] = ()) -> Path:
    """Find the run directory that a training starts from, without a network.

    It is found as files are; a link is followed, as `runs/latest` moves on. A model of the hub has to be fetched.

    Args:
        name: Of a folder, or of the hub.
        also: More folders to search, after the current one.

    Raises:
        ConfigError: There is no such folder, or the model has not been fetched.
    """
    if is_hub_name(name):
        return _find_fetched(parse_hub_name(name))
    first, *rest = data_folders()
    folder = next(
        (each / expanded(name) for each in (first, *also, *rest) if is_folder(each / expanded(name))), None
    )
    if folder is None:
        hint = " is a file" if is_file(Path(name)) else ": there is no such folder"
        raise ConfigError(
            f"start.model: {name}{hint}; name the run directory of a trained model, such as runs/demo"
        )
    if folder.is_symlink():
        folder, here = folder.resolve(), Path().resolve()
        folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return folder


def _find_fetched(named: HubModel) -> Path:
    found = named.stored()
    if found is None:
        command = f"nertool pull {str(named).removeprefix(PREFIX)}"
        raise ConfigError(f"start.model: {named} has not been fetched: `{command}` gets it")
    if not found[0].is_dir():
        raise ConfigError(f"start.model: {named} is one exported file; a training starts from a run directory")
    return found[0]


def read_origin(folder: Path) -> HubModel | None:
    """Return what a folder was fetched from; None for a folder of another origin."""
    try:
        with (folder / ORIGIN).open("rb") as stream:
            tree = json.loads(stream.read(2**16))
        return parse_hub_name(f"{tree['repository']}@{tree['revision']}")
    except (OSError, ValueError, LookupError, TypeError, RecursionError, ConfigError):
        return None
