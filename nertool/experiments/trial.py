"""One training of a search, in a process of its own: `python -m nertool.experiments.trial FOLDER PARENT`.

The folder holds the config. The metrics of each epoch are written to it, and at last `results.json`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nertool.config.files import remove_files
from nertool.config.loading import load_config
from nertool.errors import BundleError, DivergenceError, NertoolError
from nertool.tagging.bundle import CONFIG
from nertool.training.checkpoint import CHECKPOINT
from nertool.training.run import METRICS, RESULTS, run

DIVERGED = 3
"""Exit code of a training that diverged."""


def main(folder: Path, parent: int) -> None:
    """Train the config of a folder; go on where it was stopped before."""
    try:
        _train(folder, parent)
    except BundleError:
        if not (folder / CHECKPOINT).exists():
            raise
        # It is corrupt, or of another corpus that had the same name.
        remove_files(folder, [RESULTS, CHECKPOINT, METRICS])
        _train(folder, parent)


def _train(folder: Path, parent: int) -> None:
    for _ in run(load_config(folder / CONFIG), folder, resume=True):
        if os.name == "posix" and os.getppid() != parent:
            raise NertoolError("the search that started this training has ended")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())
    except DivergenceError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(DIVERGED)
    except NertoolError as problem:
        sys.exit(f"error: {problem}")
