"""Fetch models from the Hugging Face hub: the files that are needed, checked, into the cache.

The cache of `huggingface_hub` has links in place of files, which a model may not have. So files are downloaded
beside their place in nertool's cache, compared with the sizes and hashes that the hub lists, and renamed together.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nertool
from nertool.config.files import MODEL_FILES, locked, sync_folder, write_whole
from nertool.config.model_names import ORIGIN, PREFIX, HubModel, parse_hub_name
from nertool.config.vector_sets import megabytes
from nertool.data.fetching import Progress
from nertool.errors import NertoolError
from nertool.forking import no_fork

CARD = "README.md"
_HOME = "https://huggingface.co"
_TIMEOUT = 10.0  # seconds for the list of files
_PATIENCE = 600.0  # seconds until another process has fetched the same
_BUSY = "another process is fetching this model; wait until it has ended"
# In bytes; larger ones are no model of nertool, which refuses them when it reads them.
_LARGEST = {MODEL_FILES[0]: 2**20, MODEL_FILES[1]: 2**29, MODEL_FILES[2]: 2**34, CARD: 2**22, ".onnx": 2**31 - 1}


@dataclass(frozen=True)
class HubCopy:
    """A model of the hub that is in the cache.

    Attributes:
        named: With the commit as its revision.
        path: The run directory, or the exported file.
        before: Whether it was there before.
        note: Why the hub was not asked, where it should have been; "" otherwise.
    """

    named: HubModel
    path: Path
    before: bool = False
    note: str = ""


@dataclass(frozen=True)
class _File:
    """A file of a repository, as the hub lists it."""

    size: int
    sha256: str | None
    git_sha1: str | None


class HubUnreachableError(NertoolError):
    """The hub does not answer, or not as a hub does."""


def fetch_model(name: str | HubModel, watch: Callable[[Progress], None] = lambda event: None) -> HubCopy:
    """Fetch a model, unless the cache has it.

    A whole commit that is in the cache is not asked for again. Where the hub cannot be reached, what was fetched
    before is taken, and `HubCopy.note` says so.

    Args:
        name: As for `parse_hub_name`.
        watch: Called as files are being downloaded.

    Raises:
        NertoolError: There is no such model, no access to it, or no network; it is too large, or not what the hub
            lists; the cache cannot be written to.
    """
    named = name if isinstance(name, HubModel) else parse_hub_name(name)
    if named.is_pinned and (found := named.stored()) is not None:
        return HubCopy(named, found[0], before=True)
    hub = hub_package()
    try:
        commit, files = _list_files(hub, named)
    except HubUnreachableError as problem:
        found = named.stored()
        if found is None:
            raise NertoolError(
                f"{problem}. {named} is not in the cache either: `nertool pull {str(named).removeprefix(PREFIX)}` "
                f"gets it where there is a network; {named.folder.parent} can be copied from there"
            ) from None
        offline = hub.constants.HF_HUB_OFFLINE  # then nobody expects it to be asked
        note = "" if offline else f"{problem}; {named} is what was fetched before, commit {found[1]}"
        return HubCopy(named._replace(revision=found[1]), found[0], before=True, note=note)
    pinned = named._replace(revision=commit)
    if (found := pinned.stored()) is not None:
        _remember(named, commit)
        return HubCopy(pinned, found[0], before=True)
    wanted = _choose(named, files)
    with locked(named.folder, wait=_PATIENCE, holder=_BUSY):
        if pinned.stored() is None:
            _download(hub, pinned, wanted, watch)
        _remember(named, commit)
    found = pinned.stored()
    assert found is not None
    return HubCopy(pinned, found[0])


def hub_package() -> Any:
    """Return the package `huggingface_hub`.

    Raises:
        NertoolError: It is not installed.
    """
    with no_fork():
        try:
            import huggingface_hub
            import huggingface_hub.constants
            import huggingface_hub.errors
            import huggingface_hub.utils
        except ImportError:
            raise NertoolError("this needs the package huggingface_hub: pip install 'nertool[hub]'") from None
        return huggingface_hub


def hub_client(hub: Any) -> Any:
    """Return a client of the hub, or of the one that the environment variable HF_ENDPOINT names."""
    return hub.HfApi(endpoint=endpoint(), library_name="nertool", library_version=nertool.__version__)


def endpoint() -> str:
    """Return the hub's address."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HOME


def explain(hub: Any, problem: Exception, named: HubModel) -> NertoolError:
    """Say what went wrong at the hub, and what to do; `HubUnreachableError` where asking again may help."""
    errors = hub.errors
    if isinstance(problem, errors.LocalEntryNotFoundError) and isinstance(problem.__cause__, Exception):
        problem = problem.__cause__  # what happened; the package looked for the file in its own cache then
    where = f"{named} ({endpoint()})"
    status = getattr(getattr(problem, "response", None), "status_code", None)
    login = "log in with `hf auth login`, or set HF_TOKEN"
    has_token = hub.get_token() is not None
    if isinstance(problem, NertoolError):
        return problem
    if isinstance(problem, errors.GatedRepoError):
        page = f"{endpoint()}/{named.repository}"
        return NertoolError(f"{where}: its owner decides who gets it: ask for access at {page}, then {login}")
    if isinstance(problem, errors.RevisionNotFoundError):
        return NertoolError(f"{where}: the repository has no revision {named.revision or 'main'!r}")
    if status == 401 and has_token and not isinstance(problem, errors.RepositoryNotFoundError):
        return NertoolError(f"{where}: the hub does not accept your token (401): {login} to a valid one")
    if isinstance(problem, errors.RepositoryNotFoundError) or status in (401, 404):
        access = "your token has no access to it" if has_token else f"it is private: then {login}"
        return NertoolError(f"{where}: there is no such repository, or {access}")
    if status == 403:
        return NertoolError(f"{where}: your token may not do this (403): {_line(problem)}")
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return NertoolError(f"{named.folder}: cannot be written to: {problem.strerror}")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return NertoolError(f"{where}: the hub refuses this ({status}): {_line(problem)}")
    if isinstance(problem, errors.OfflineModeIsEnabled):
        return HubUnreachableError(f"{named}: the hub is not asked, because HF_HUB_OFFLINE is set")
    return HubUnreachableError(f"{named}: the hub cannot be reached at {endpoint()} ({_line(problem)})")


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the package's warnings out of what a command prints: its errors are explained here."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _line(problem: Exception) -> str:
    """Return an error's message in one line, without the number of the request."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"


def _remember(named: HubModel, commit: str) -> None:
    try:
        named.remember(commit)
    except OSError as problem:
        raise NertoolError(f"{named.folder}: cannot be written to: {problem.strerror or problem}") from None


def _list_files(hub: Any, named: HubModel) -> tuple[str, dict[str, _File]]:
    """Ask for the commit of a revision and for its files."""
    with quietly():
        try:
            info = hub_client(hub).model_info(
                named.repository, revision=named.revision, files_metadata=True, timeout=_TIMEOUT
            )
            files = {
                each.rfilename: _File(int(each.size), each.lfs and each.lfs.sha256, each.blob_id)
                for each in info.siblings or ()
                if each.size is not None
            }
            commit = str(info.sha)
        except Exception as problem:  # of the network, of the hub, and bare ones for answers that are none
            raise explain(hub, problem, named) from None
    if not HubModel(named.repository, None, commit).is_pinned:
        raise HubUnreachableError(f"{named}: {endpoint()} answers as no hub does (no commit)")
    return commit, files


def _choose(named: HubModel, files: dict[str, _File]) -> dict[str, _File]:
    """Choose the files that are needed, and refuse too large ones before anything is downloaded."""
    exported = sorted(name for name in files if name.endswith(".onnx") and "/" not in name)
    missing = [name for name in MODEL_FILES if name not in files]
    if named.file is not None:
        if named.file not in files:
            listed = f"; it has {', '.join(exported)}" if exported else " and no other exported one"
            raise NertoolError(f"{named}: the repository has no file {named.file}{listed}")
        names = [named.file]
    elif not missing:
        names = list(MODEL_FILES)
    elif len(exported) == 1:
        names = exported
    elif exported:
        choices = ", ".join(str(named._replace(file=name)) for name in exported)
        raise NertoolError(f"{named}: the repository has several exported models; name one: {choices}")
    else:
        raise NertoolError(f"{named} is not a model of nertool: {', '.join(missing)} is missing")
    for name in [*names, CARD]:
        limit = _LARGEST.get(name, _LARGEST[".onnx"])
        if name in files and files[name].size > limit:
            size = megabytes(files[name].size)
            raise NertoolError(f"{named}: {name} is too large ({size}, at most {megabytes(limit)})")
    return {name: files[name] for name in [*names, CARD] if name in files}


def _download(hub: Any, pinned: HubModel, files: dict[str, _File], watch: Callable[[Progress], None]) -> None:
    """Download files beside their place, check them, and put them there together."""
    total = sum(file.size for file in files.values())
    try:
        for old in pinned.folder.glob(".part-*"):  # of a killed process: this one holds the lock
            shutil.rmtree(old, ignore_errors=True)
        free = shutil.disk_usage(pinned.folder).free
        if free < total:
            raise NertoolError(
                f"{pinned.folder}: not enough space: {megabytes(total)} are needed, {megabytes(free)} are free"
            )
        folder = Path(tempfile.mkdtemp(prefix=".part-", dir=pinned.folder))
    except OSError as problem:
        raise NertoolError(f"{pinned.folder}: cannot be written to: {problem.strerror or problem}") from None
    done = 0
    try:
        with quietly():
            for name, file in files.items():
                hub.hf_hub_download(
                    pinned.repository,
                    name,
                    revision=pinned.revision,
                    local_dir=folder,
                    endpoint=endpoint(),
                    library_name="nertool",
                    library_version=nertool.__version__,
                    tqdm_class=_bar(pinned, file.size, done, total, watch),
                )
                _check(pinned, folder / name, file)
                done += file.size
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # notes of the package
        origin = {"repository": pinned.repository, "revision": pinned.revision, "endpoint": endpoint()}
        write_whole(folder / ORIGIN, (json.dumps(origin, indent=2) + "\n").encode())
        folder.chmod(0o777 & ~_umask())
        place = pinned.place(pinned.revision or "")
        shutil.rmtree(place, ignore_errors=True)  # a part of it may be left of an earlier removal by hand
        folder.replace(place)
        sync_folder(place.parent)
    except Exception as problem:
        raise explain(hub, problem, pinned) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    """Return which rights new files do not get, without changing it for other threads."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("Umask:")[2].split()[0], 8)
    except (OSError, ValueError, IndexError):
        return 0o077


def _bar(named: HubModel, size: int, before: int, total: int, watch: Callable[[Progress], None]) -> type:
    """Return a class that the package takes for one of progress bars.

    It ends a download that goes on and on: a little more than the size may travel, but not twice as much.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})
            self.bytes = 0

        def update(self, count: float | None = 1) -> None:
            self.bytes += int(count or 0)
            if self.bytes > 2 * size + 2**20:
                raise NertoolError(f"{named}: a file goes on after its end; nothing of it is used")
            watch(Progress(str(named), str(named), before + min(self.bytes, size), total))

    return Bar


def _check(named: HubModel, path: Path, file: _File) -> None:
    """Compare a file with what the hub lists.

    Raises:
        NertoolError: It is another one.
    """
    size = path.stat().st_size
    expected = file.sha256 or file.git_sha1
    # Small files are known by git's hash, which begins with their size.
    found = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        while part := stream.read(2**20):
            found.update(part)
    if size != file.size or (expected is not None and found.hexdigest() != expected):
        raise NertoolError(
            f"{named}: {path.name} was changed or cut off on its way: it is not what the hub lists. Nothing of it "
            "is used; try again"
        )
