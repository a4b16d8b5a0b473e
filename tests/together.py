"""What each of several processes does in tests/test_distributed.py: `python together.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import encoded, small_config, small_model
from safetensors.torch import save_file

from nertool.config.schema import TrainingConfig
from nertool.errors import NertoolError
from nertool.model.model import Model
from nertool.training.distributed import ALONE, Group, joined
from nertool.training.step import Learner

# Inputs, settings of the model, settings of the training.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "sgd, averages": ({"case": {}}, {}, {"averaging": 0.9, "clip": 0.5}),
    "adam": ({}, {"encoder": {"kind": "gru"}}, {"optimizer": "adam", "clip": 0.1, "clip_by": "value"}),
    "momentum, fixed words": (
        {"words": {"trainable": False}},
        {"attention": {"kind": "multi_head", "heads": 2}, "decoder": "softmax"},
        {"optimizer": {"kind": "sgd", "momentum": 0.9}, "averaging": 0.0},
    ),
    "one direction, threads": ({"characters": None}, {"encoder": {"bidirectional": False}}, {"threads": 2}),
}
BATCHES = [[0, 1, 2, 3], [4], [5, 1, 0], [2, 4]]  # the second one leaves most processes without a share
LENGTHS = [5, 3, 1, 4, 2, 6]


def model_of(case: str) -> Model:
    inputs, settings, _ = CASES[case]
    return small_model(small_config(inputs, **settings))


def learn(case: str, group: Group = ALONE) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Take four steps; return losses of whole batches and norms, and the averaged weights."""
    model = model_of(case)
    corpus = encoded(model, LENGTHS)
    settings = {"learning_rate": 0.05, "threads": 1, **CASES[case][2]}
    learner = Learner(model.network, TrainingConfig.model_validate(settings), group=group)
    numbers = []
    for batch in BATCHES:
        own = group.share(np.array(batch))
        loss = learner.accumulate(corpus.batch(own) if len(own) else None, len(batch))
        numbers += [group.total(loss), learner.step(0.05)]
    learner.show()
    return numbers, {name: value.clone() for name, value in model.network.state_dict().items()}


def dropped(group: Group) -> torch.Tensor:
    """Return the first masks of dropout of this process."""
    model = small_model(small_config(dropout=0.5))
    Learner(model.network, TrainingConfig(threads=1), group=group)
    return model.network.noise.keep((64,), 0.5)


def fail_in(group: Group, rank: int) -> str:
    """Fail in one process; return what this one is told."""

    def action() -> None:
        if group.rank == rank:
            raise NertoolError("there is no such file")

    try:
        group.all_or_none(action)
    except NertoolError as problem:
        return str(problem)
    return ""


def main(folder: Path) -> None:
    """Write what the tests compare, a file for each process."""
    with joined() as group:
        results = {"dropped": dropped(group).to(torch.uint8)}
        for case in CASES:
            numbers, weights = learn(case, group)
            results |= {f"{case}/{name}": value for name, value in weights.items()}
            results[f"{case}/numbers"] = torch.tensor(numbers, dtype=torch.float64)
        texts = {f"fails in {rank}": fail_in(group, rank) for rank in range(group.size)}
        texts["told"] = group.told(f"é of {group.rank}")
        own = np.arange(group.rank, dtype=np.int64)  # nothing of the first process
        texts["collected"] = str([each.tolist() for each in group.collect(own)])
        shared = group.shared({"a": torch.full((2, 3), float(group.rank))})
        texts["shared"] = str(shared["a"].tolist())
        save_file(results, folder / f"{group.rank}.safetensors", texts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
