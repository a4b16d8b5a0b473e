"""The file in which a training of a grid leaves its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from nertool.comparison.records import Run
from nertool.config.files import is_file, write_whole
from nertool.config.schema import Config
from nertool.errors import NertoolError

METRICS, RUN = "metrics.jsonl", "run.json"
_LARGE = 64_000_000  # bytes of a file that is not read as a whole


def fingerprint(config: Config) -> dict[str, str]:
    """Describe the files of a config, to notice when they are no longer those that a training read.

    Returns:
        The digest of each; the size of large ones, which are vectors.

    Raises:
        OSError: One of them cannot be read.
    """
    corpus = config.corpus
    names = [corpus.train, corpus.validation, corpus.test]
    for entry in config.active_inputs.values():
        names += [name for key in entry.file_settings for name in getattr(entry, key)]
    return {name: _describe(name) for name in names if name and is_file(Path(name))}


def write_run(run: Run, config: Config, files: Mapping[str, str], folder: Path) -> None:
    """Write the result of the training of a config, and the fingerprint of the files that it read."""
    tree = {"config": config.model_dump(mode="json", exclude_unset=True), "files": files, "run": run.to_json()}
    write_whole(folder / RUN, (json.dumps(tree) + "\n").encode())


def read_run(folder: Path, config: Config) -> Run | None:
    """Read the result of a training of exactly this config and corpus; None if none has ended in this folder."""
    try:
        tree: Any = json.loads((folder / RUN).read_text(encoding="utf-8"))
        # Read as a config: settings that did not exist when it ran have their defaults.
        if Config.model_validate(tree["config"]).model_dump() != config.model_dump():
            return None
        if tree.get("files") != fingerprint(config):
            return None
        return Run.from_json(tree["run"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    except NertoolError:  # of a kind that a package added which is gone
        return None


def _describe(name: str) -> str:
    state = Path(name).stat()
    if state.st_size > _LARGE:
        return f"{state.st_size} bytes"
    return _digest_of(name, state.st_mtime_ns, state.st_size)


@lru_cache  # every training of a grid asks for the same files
def _digest_of(name: str, _changed: int, _size: int) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()
