"""The file in which a training of a grid leaves its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from nertool.comparison.records import Run
from nertool.config.files import MODEL_FILES, read_limited, split_member, write_whole
from nertool.config.schema import Config
from nertool.config.vector_sets import parse_name, pipeline_folder, stored
from nertool.data.vector_cache import read_record
from nertool.errors import NertoolError

RUN = "run.json"
_SPLITS = ("train", "validation", "test")


def fingerprint(config: Config) -> dict[str, str]:
    """Describe the files of a config, to notice when they are no longer those that a training read.

    Returns:
        For each setting that names files a digest of what they hold, wherever they are.

    Raises:
        OSError: One of them cannot be read.
    """
    return {setting: _content(names) for setting, names in files_of(config).items()}


def files_of(config: Config) -> dict[str, tuple[str, ...]]:
    """Return the files and folders of a config, and vectors that have names, by the setting that names them."""
    corpus = config.corpus
    named: dict[str, tuple[str | None, ...]] = (
        {"corpus.hub": (corpus.hub,)} if corpus.hub else {f"corpus.{k}": (getattr(corpus, k),) for k in _SPLITS}
    )
    if corpus.weights:
        named["corpus.weights"] = (corpus.weights,)
    for name, entry in config.active_inputs.items():
        named |= {f"inputs.{name}.{key}": getattr(entry, key) for key in entry.file_settings}
        named |= {f"inputs.{name}.{key}": (getattr(entry, key),) for key in entry.places if key == "model"}
    if config.start.model is not None:
        named["start.model"] = tuple(str(Path(config.start.model) / name) for name in MODEL_FILES)
    found = {setting: tuple(name for name in names if name and _exists(name)) for setting, names in named.items()}
    return {setting: names for setting, names in found.items() if names}


def _exists(name: str) -> bool:
    named = parse_name(name)
    if named is not None:
        return stored(named) is not None
    if pipeline_folder(name) is not None:
        return True
    try:
        return Path(split_member(name)[0]).exists()
    except OSError:  # a name that no file can have
        return False


def without(config: Config, settings: Iterable[str]) -> dict[str, Any]:
    """Return a config as a tree, without some settings."""
    tree = config.model_dump(mode="json")
    for setting in settings:
        *sections, key = setting.split(".")
        section = tree
        for name in sections:
            section = section[name]
        del section[key]
    return tree


def write_run(run: Run, config: Config, files: Mapping[str, str], folder: Path) -> None:
    """Write the result of the training of a config, and the fingerprint of the files that it read."""
    tree = {"config": config.model_dump(mode="json", exclude_unset=True), "files": files, "run": run.to_json()}
    write_whole(folder / RUN, (json.dumps(tree) + "\n").encode())


def read_run(folder: Path, config: Config) -> Run | None:
    """Read the result of a training of these settings and files; None if none has ended in this folder."""
    try:
        tree: Any = json.loads(read_limited(folder / RUN))
        # Read as a config: settings that did not exist when it ran have their defaults.
        before, files = Config.model_validate(tree["config"]), fingerprint(config)
        if tree["files"] != files or without(before, files) != without(config, files):
            return None
        return Run.from_json(tree["run"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    except NertoolError:  # of a kind that a package added which is gone
        return None


def _content(names: Iterable[str]) -> str:
    """Compute a digest of files and of all that is in folders, in order."""
    digests = []
    for name in names:
        named = parse_name(name)
        place = stored(named) if named else None
        if named and place:  # its name and its archive say what is in it; a part may be in several files
            record = read_record(place)
            digests += [str(named), record.archive_sha256 if record else ""]
            continue
        pipeline = pipeline_folder(name)
        file_name, member = (str(pipeline / "vocab"), None) if pipeline else split_member(name)
        if member is not None:
            digests.append(member)
        path = Path(file_name)
        inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        for file in inside:
            state = file.stat()
            digests.append(_digest_of(str(file), state.st_mtime_ns, state.st_size))
            if file != path:
                digests.append(str(file.relative_to(path)))
    return hashlib.sha256("\n".join(digests).encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1000)  # every training of a grid asks for the same files
def _digest_of(name: str, _changed: int, _size: int) -> str:
    with Path(name).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
