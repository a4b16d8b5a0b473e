"""The file in which a training of a grid leaves what came of it."""

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

METRICS, RUN = "metrics.jsonl", "run.json"


def fingerprint(config: Config) -> dict[str, str]:
    """What tells whether the files of a config are still those that a training read: digests, of vectors sizes.

    Raises:
        OSError: One of them cannot be read.
    """
    corpus = config.corpus
    named = [name for name in (corpus.train, corpus.validation, corpus.test) if name and is_file(Path(name))]
    vectors = [name for name in config.words.vectors if is_file(Path(name))]
    return {name: _digest(name) for name in named} | {
        name: f"{Path(name).stat().st_size} bytes" for name in vectors
    }


def write_run(run: Run, config: Config, files: Mapping[str, str], folder: Path) -> None:
    """Writes what came of the training of a config, and the fingerprint of the files that it read."""
    tree = {"config": config.model_dump(mode="json", exclude_unset=True), "files": files, "run": run.to_json()}
    write_whole(folder / RUN, (json.dumps(tree) + "\n").encode())


def read_run(folder: Path, config: Config) -> Run | None:
    """What came of a training of exactly this config and corpus in this folder; None if none has ended there."""
    try:
        tree: Any = json.loads((folder / RUN).read_text(encoding="utf-8"))
        # Read as a config: settings that there were not yet when it ran have their defaults.
        if Config.model_validate(tree["config"]).model_dump() != config.model_dump():
            return None
        if tree.get("files") != fingerprint(config):
            return None
        return Run.from_json(tree["run"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None


def _digest(name: str) -> str:
    state = Path(name).stat()
    return _digest_of(name, state.st_mtime_ns, state.st_size)


@lru_cache  # every training of a grid asks for the same files
def _digest_of(name: str, _changed: int, _size: int) -> str:
    return hashlib.sha256(Path(name).read_bytes()).hexdigest()
