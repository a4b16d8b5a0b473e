"""The file in which a training of a grid leaves what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nertool.comparison.records import Run
from nertool.config import Config
from nertool.files import write_whole

METRICS, RUN = "metrics.jsonl", "run.json"


def write_run(run: Run, config: Config, folder: Path) -> None:
    """Writes what came of the training of a config."""
    tree = {"config": config.model_dump(mode="json"), "run": run.to_json()}
    write_whole(folder / RUN, (json.dumps(tree) + "\n").encode())


def read_run(folder: Path, config: Config) -> Run | None:
    """What came of a training of exactly this config in this folder; None if none has ended there."""
    try:
        tree: Any = json.loads((folder / RUN).read_text(encoding="utf-8"))
        return Run.from_json(tree["run"]) if tree["config"] == config.model_dump(mode="json") else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
