"""What a saved model is, how it was trained, and how well it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from nertool.display import duration, percent, show_evaluation
from nertool.errors import BundleError
from nertool.evaluation import Evaluation
from nertool.model.bundle import WEIGHTS, load_bundle
from nertool.training.run import METRICS, RESULTS


def show_model(folder: Path, console: Console) -> None:
    """Prints a model's vocabularies, layers, training and scores.

    Raises:
        BundleError: It is not a model, or a damaged one.
    """
    model = load_bundle(folder)
    config, lexicon, network = model.config, model.lexicon, model.network
    table = network.words.weight
    dense = sum(parameter.numel() for parameter in network.parameters()) - table.numel()
    encoder, characters = config.model.encoder, config.model.characters
    directions = "two directions" if encoder.bidirectional else "one direction"
    lines = {
        "model": f"{folder.resolve()} ({(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB)",
        "labels": f"{', '.join(lexicon.labels)} ({lexicon.scheme.value})",
        "words": f"{len(lexicon.words):,} of {table.shape[1]} dimensions"
        + (
            f", from {', '.join(Path(path).name for path in config.words.vectors)}" if config.words.vectors else ""
        ),
        "characters": f"{len(lexicon.characters)} kinds"
        + (
            f", {characters.filters} filters of width {characters.width}"
            if characters.kind == "cnn"
            else ", not used"
        ),
        "encoder": f"{encoder.kind}, {encoder.hidden} units, layers: {encoder.layers}, {directions}",
        "decoder": f"{config.model.decoder}, constraints: {config.model.constraints}",
        "weights": f"{dense:,} and {table.numel():,} in word vectors",
        "trained on": config.corpus.train,
    }
    results = _read_results(folder)
    if results is None:
        lines["training"] = f"not finished; see {METRICS} for the epochs so far"
    else:
        lines["training"] = (
            f"seed {results['seed']}, {results['epochs']} epochs in {duration(results['seconds'])}, "
            f"best: {results['best_epoch']}, validation F1 {percent(results['validation']['f1'])}"
        )
        lines["versions"] = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    width = max(map(len, lines))
    for name, text in lines.items():
        console.print(f"[bold]{name:<{width}}[/]  {text}", highlight=False, soft_wrap=True)
    if results is not None and results["test"] is not None:
        show_evaluation(console, Evaluation.from_json(results["test"]), "Test split, scored once")


def _read_results(folder: Path) -> dict[str, Any] | None:
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(tree["test"], dict):
            Evaluation.from_json(tree["test"])
        for key in ("seed", "epochs", "seconds", "best_epoch", "validation", "versions"):
            tree[key]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BundleError(f"{path}: damaged ({problem!r})") from None
    result: dict[str, Any] = tree
    return result
