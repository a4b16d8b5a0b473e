"""Find files by name, write files so that they appear only when they are complete, and lock folders."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nertool.errors import ConfigError, NertoolError
from nertool.forking import no_fork

LOCK = ".lock"
MODEL_FILES = "config.yaml", "vocabulary.json", "weights.safetensors"
RUN_FILES = "metrics.jsonl", "results.json"
_TRAINING = (
    "another training or comparison is writing to this folder; wait until it has ended, stop it, or name another "
    "folder with --output"
)
_LARGEST_RECORD = 2**26  # bytes; the metrics of 100,000 epochs have half of it
_HUB_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*(?<!\.parquet)(?<!\.arrow)", re.ASCII)
_HOW_TO_GET = {
    "conll03/": "CoNLL-2003 English requires the Reuters licence: https://www.clips.uantwerpen.be/conll2003/ner/",
    "conll2000/": "CoNLL-2000 is at https://www.clips.uantwerpen.be/conll2000/chunking/",
    "ud_ewt/": "UD English EWT (as word, XPOS, UPOS): https://github.com/UniversalDependencies/UD_English-EWT",
    "weibo_zh/": "Weibo NER is at https://github.com/hltcoe/golden-horse",
}


def data_folders() -> list[Path]:
    """Return the folders that are searched for named files, in order.

    The current one, those of the environment variable `NERTOOL_DATA`, and the cache.
    """
    named = os.environ.get("NERTOOL_DATA", "")
    return [Path(), *(Path(folder) for folder in named.split(os.pathsep) if folder), cache_folder()]


def cache_folder() -> Path:
    """Return the folder of what is fetched.

    It is that of the environment variable `NERTOOL_CACHE`, else `nertool` in the user's folder of caches.
    """
    if named := os.environ.get("NERTOOL_CACHE"):
        return expanded(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "nertool"


def find(name: str, also: Sequence[Path] = (), *, folder_too: bool = False) -> Path:
    """Find a file by name.

    Args:
        name: An absolute path, or a name relative to one of the folders.
        also: More folders to search, after the current one.
        folder_too: Whether it may be a folder, where there is no such file.

    Raises:
        ConfigError: It is in none of them; says which folders were searched, and how to get the file.
    """
    return find_all([name], also, folders_too=[name] if folder_too else ())[name]


def find_all(names: Iterable[str], also: Sequence[Path] = (), folders_too: Container[str] = ()) -> dict[str, Path]:
    """Find files by name; arguments and errors as for `find`, with all missing files in one error.

    Args:
        names: Of files.
        also: More folders to search.
        folders_too: Those names that may be folders too, where there is no such file.
    """
    first, *rest = data_folders()
    folders = [first, *also, *rest]
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in names:
        given = expanded(name)
        # An absolute path swallows the folder before it.
        path = next((folder / given for folder in folders if is_file(folder / given)), None)
        if path is None and name in folders_too:
            path = next((folder / given for folder in folders if is_folder(folder / given)), None)
        if path is None:
            missing.append(name)
        else:
            found[name] = path
    if missing:
        searched = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
        problems = [f"there is no file {' or '.join(filter(None, [', '.join(missing[:-1]), missing[-1]]))}"]
        if not all(expanded(name).is_absolute() for name in missing):
            which = "it" if len(missing) == 1 else "them"
            problems.append(f"looked in {searched}; set NERTOOL_DATA to the folder that holds {which}")
        problems += [text for part, text in _HOW_TO_GET.items() if any(part in name for name in missing)]
        raise ConfigError("; ".join(problems))
    return found


def find_dataset(name: str, also: Sequence[Path] = ()) -> str:
    """Find the folder of a dataset as files are found; without one return the name, to be asked of the hub.

    Args:
        name: A folder, or a name on the hub; a folder of that name comes first.
        also: More folders to search, after the current one.

    Raises:
        ConfigError: There is no such folder, and the name cannot be one on the hub.
    """
    first, *rest = data_folders()
    given = expanded(name)
    for folder in (first, *also, *rest):
        with suppress(OSError):
            if (folder / given).is_dir():
                return str(folder / given)
    if not _HUB_NAME.fullmatch(name):
        file = next((folder / given for folder in (first, *also, *rest) if is_file(folder / given)), None)
        hint = f"; {file} is a file: name it as train, not as hub" if file else ""
        raise ConfigError(
            f"corpus.hub: there is no folder {name}, and it is not a name on the hub (owner/name){hint}"
        )
    return name


def find_transformer(name: str, also: Sequence[Path] = ()) -> str:
    """Find the folder of a pretrained transformer as files are found; without one return its name on the hub.

    Raises:
        ConfigError: There is no such folder, and the name cannot be one on the hub.
    """
    first, *rest = data_folders()
    given = expanded(name)
    folder = next((each / given for each in (first, *also, *rest) if is_folder(each / given)), None)
    if folder is None and not _HUB_NAME.fullmatch(name):
        raise ConfigError(f"there is no folder {name}, and it is not a name on the hub (owner/name)")
    return name if folder is None else str(folder)


def split_member(name: str) -> tuple[str, str | None]:
    """Split `archive.zip:member` into the archive and the file in it; None where none is named."""
    if is_file(expanded(name)):
        return name, None
    archive, colon, member = name.partition(".zip:")
    return (f"{archive}.zip", member) if colon and member else (name, None)


def join_member(path: Path, member: str | None) -> str:
    """Name a file in an archive; the inverse of `split_member`."""
    return str(path) if member is None else f"{path}:{member}"


def is_file(path: Path) -> bool:
    """Say whether there is something of that name to read: a file, a pipe or a device, and no folder.

    False for names that no file can have, and in unreadable folders.
    """
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Say whether there is a folder of that name; False for names that nothing can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_stream(path: Path) -> bool:
    """Say whether there is a pipe or a device of that name, which can be read only once."""
    return is_file(path) and not path.is_file()


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse files that are links out of their folder, pipes or devices.

    Reading and writing would happen elsewhere, or wait forever. Whoever made the folder chose where a link leads,
    which need not be whoever uses it.

    Args:
        folder: It may be a link itself.
        names: Of files in it, or in folders of it, whether they exist or not.

    Raises:
        NertoolError: One of them is such a link, a pipe or a device.
    """
    try:
        home = folder.resolve()
        for name in names:
            if not (folder / name).resolve().is_relative_to(home):
                message = "a link out of the folder; put a copy of the file in its place"
                raise NertoolError(f"{folder / name}: {message}")
            if is_stream(folder / name):
                raise NertoolError(f"{folder / name}: a pipe or a device; put a file in its place")
    except (OSError, RuntimeError) as problem:  # links that lead in circles
        raise NertoolError(f"{folder}: cannot be read: {problem}") from None


def read_limited(path: Path) -> bytes:
    """Read a file that nertool wrote into the folder of a run, as far as it may be.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file, or larger than any that nertool writes.
    """
    if is_stream(path):
        raise ValueError("not a regular file")
    with path.open("rb") as stream:
        content = stream.read(_LARGEST_RECORD + 1)
    if len(content) > _LARGEST_RECORD:
        raise ValueError(f"larger than {_LARGEST_RECORD // 2**20} MB")
    return content


def expanded(name: str) -> Path:
    """Return a path with the home folder in place of `~`, where there is one."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # there is no such user, or this one has no home
        return Path(name)


@contextmanager
def replaced_when_done(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name when it is complete, and not at all after an error.

    A link stays a link. A pipe or a device such as /dev/null is written to directly.

    Args:
        path: The file.
        durable: Whether to wait until the disk has it: after a power failure there is then the old file or the new
            one, and never an empty one. Costs some milliseconds a file.

    Raises:
        NertoolError: It cannot be written there.
    """
    try:
        special = path.exists() and not path.is_file() and not path.is_dir()
        place = path if special else path.resolve()
        beside = place if special else place.with_name(f".{place.name}.{os.getpid()}.part")
        if not special:
            beside.unlink(missing_ok=True)  # of a killed process of the same number, or a link
    except OSError as problem:
        raise _unwritable(path, problem) from None
    try:
        with beside.open("wb" if special else "xb") as target:
            yield target
        if not special:
            if place.exists():
                shutil.copymode(place, beside)
            if durable:
                with beside.open("rb+") as written:  # whoever wrote it may have closed it
                    os.fsync(written.fileno())
            beside.replace(place)
            if durable:
                sync_folder(place.parent)
    except OSError as problem:
        # An error that names another file is the caller's.
        if problem.filename not in (None, str(beside), str(place)):
            raise
        raise _unwritable(path, problem) from None
    finally:
        if not special:
            with suppress(OSError):
                beside.unlink()


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder of files, so that all of it appears together, or nothing.

    Raises:
        NertoolError: There is something of that name, or it cannot be written there.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, beside)
        if target.exists():
            raise NertoolError(f"{target}: is there already; name another folder, or remove it")
        beside.rename(target)
        sync_folder(target.parent)
    except (OSError, shutil.Error) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise NertoolError(f"{target}: cannot be written: {reason}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder's files, where the system can do that."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove those files that there are, in this order, also after a power failure.

    Raises:
        NertoolError: One cannot be removed.
    """
    for name in names:
        path = folder / name
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise NertoolError(f"{path}: cannot be removed: {problem.strerror or problem}") from None
        sync_folder(folder)


@contextmanager
def locked(folder: Path, *, wait: float = 0, holder: str = _TRAINING) -> Iterator[None]:
    """Hold a folder, so that no other process writes to it; make it if there is none.

    The lock of a process that was killed does not count.

    Args:
        folder: The folder.
        wait: For how many seconds to wait until another process lets go of it.
        holder: What that process is doing, and what can be done, for the error.

    Raises:
        NertoolError: Another process holds the folder, or it cannot be written to.
    """
    with no_fork():
        from filelock import FileLock, Timeout

    path, process = folder / LOCK, os.getpid()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=wait, thread_local=False)
        lock.acquire()
    except Timeout:
        raise NertoolError(f"{folder}: {holder}") from None
    except OSError as problem:
        raise NertoolError(f"{folder}: cannot write there: {problem.strerror or problem}") from None
    try:
        yield
    finally:
        if os.getpid() == process:  # a forked process has copies of the locks of its parent
            with suppress(OSError):
                path.unlink()  # while it is held: whoever opened it meanwhile notices that it is gone
            lock.release()


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove what was being written under these names when a process was killed."""
    for name in names:
        for path in folder.glob(f".{name}.*.part"):
            with suppress(OSError):
                path.unlink()


def _unwritable(path: Path, problem: OSError) -> NertoolError:
    if isinstance(problem, FileNotFoundError) and not path.parent.is_dir():
        return NertoolError(f"{path}: cannot be written: there is no folder {path.parent}")
    return NertoolError(f"{path}: cannot be written: {problem.strerror or problem}")


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file so that nobody sees it half written; `durable` as for `replaced_when_done`.

    Raises:
        NertoolError: It cannot be written there.
    """
    with replaced_when_done(path, durable=durable) as target:
        target.write(content)
