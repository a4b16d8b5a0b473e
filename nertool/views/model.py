"""What a saved model is, how it was trained, and how well it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from nertool.config.schema import (
    READ_BY_SPACY,
    AttentionConfig,
    CharactersConfig,
    CorpusConfig,
    EncoderConfig,
    TrainingConfig,
)
from nertool.errors import BundleError
from nertool.evaluation.scores import Evaluation
from nertool.tagging.bundle import WEIGHTS, load_bundle
from nertool.training.run import METRICS, RESULTS
from nertool.views.console import duration, percent, show_evaluation

_BY_SPACY = "by spaCy, which keeps the scores in meta.json of the pipeline"


def show_model(folder: Path, console: Console) -> None:
    """Prints a model's vocabularies, layers, training and scores.

    Raises:
        BundleError: It is not a model, or a damaged one.
    """
    model = load_bundle(folder)
    config, lexicon, network = model.config, model.lexicon, model.network
    table = network.words.weight
    dense = sum(parameter.numel() for parameter in network.parameters()) - table.numel()
    lines = {
        "model": f"{folder.resolve()} ({(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB)",
        "labels": f"{', '.join(lexicon.labels)} ({lexicon.scheme.value})",
        "words": f"{len(lexicon.words):,} of {table.shape[1]} dimensions"
        + (
            f", from {', '.join(Path(path).name for path in config.words.vectors)}" if config.words.vectors else ""
        ),
        "characters": f"{len(lexicon.characters)} kinds" + _spelling(config.model.characters),
        "encoder": _encoder(config.model.encoder),
        **({"attention": _attention(config.model.attention)} if config.model.attention.kind != "none" else {}),
        "decoder": config.model.decoder
        + (f", constraints: {config.model.constraints}" if config.model.decoder == "crf" else ""),
        "weights": f"{dense:,} and {table.numel():,} in word vectors",
        "trained on": _origin(config.corpus),
    }
    by_spacy = config.corpus.train == READ_BY_SPACY
    about_training, test = ({"training": _BY_SPACY}, None) if by_spacy else _read_results(folder / RESULTS)
    lines |= about_training
    width = max(map(len, lines))
    for name, text in lines.items():
        console.print(f"[bold]{name:<{width}}[/]  {escape(text)}", highlight=False, soft_wrap=True)
    if test is not None:
        show_evaluation(console, test, "Test split, scored once")


def _origin(corpus: CorpusConfig) -> str:
    if corpus.train == READ_BY_SPACY:
        return "a corpus that spaCy read"
    path = Path(corpus.origin)
    if corpus.hub is None or path.is_dir():
        return str(path.resolve())
    return f"{corpus.hub} of the hub" + (f", revision {corpus.revision}" if corpus.revision else "")


def _spelling(config: CharactersConfig) -> str:
    case = f", {config.case_dimensions} dimensions for capitals" if config.case_dimensions else ""
    if config.kind == "none":
        return ", not used" + case
    if config.kind == "cnn":
        return f", {config.filters} filters of width {config.width}" + case
    return f", {config.kind}, 2 x {config.hidden} units" + case


def _encoder(config: EncoderConfig) -> str:
    if config.kind == "none":
        return "none"
    if config.kind == "cnn":
        steps = ", ".join(map(str, config.dilations))
        sides = "to both sides" if config.bidirectional else "backwards"
        return (
            f"cnn, {config.hidden} filters of width {config.width} looking {sides}, dilations {steps}, "
            f"times: {config.layers}"
        )
    directions = "two directions" if config.bidirectional else "one direction"
    return f"{config.kind}, {config.hidden} units, layers: {config.layers}, {directions}"


def _attention(config: AttentionConfig) -> str:
    heads = f", {config.heads} heads" if config.kind == "multi_head" else ""
    return f"{config.kind}, {config.dimensions} dimensions{heads}"


def _read_results(path: Path) -> tuple[dict[str, str], Evaluation | None]:
    """Lines about the training, and the scores of the test split where there are any."""
    if not path.is_file():
        return {"training": f"not finished; see {METRICS} for the epochs so far"}, None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        how = TrainingConfig.model_validate(tree["config"]["training"])
        lines = {
            "recipe": f"{how.optimizer}, batches of {how.batch_size}, learning rate {how.learning_rate}, "
            f"{_schedule(how)}, momentum {how.momentum}, {_clip(how)}, averaging {how.averaging}, "
            f"dropout {tree['config']['model']['dropout']}, word dropout {tree['config']['words']['dropout']}",
            "training": f"seed {tree['seed']}, {tree['epochs']} epochs in {duration(tree['seconds'])}, "
            f"best: {tree['best_epoch']}, validation F1 {percent(tree['validation']['f1'])}, "
            f"{tree['tokens_per_second']:,.0f} tokens/s on {tree['threads']} threads",
            **_calibration(tree.get("calibration")),
            "versions": ", ".join(f"{name} {version}" for name, version in tree["versions"].items()),
        }
        test = None if tree["test"] is None else Evaluation.from_json(tree["test"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise BundleError(f"{path}: damaged ({problem!r})") from None
    return lines, test


def _schedule(how: TrainingConfig) -> str:
    reduced = f"times {how.reduce_by}"
    text = {
        "inverse": f"decay {how.decay}",
        "step": f"{reduced} every {how.reduce_every} epochs",
        "cosine": "cosine down to 0",
        "plateau": f"{reduced} after {how.reduce_every} epochs without a better F1",
        "one_cycle": "one cycle",
    }[how.schedule]
    return f"{text}, epochs of warm-up: {how.warmup:g}" if how.warmup else text


def _clip(how: TrainingConfig) -> str:
    return f"clip {how.clip}" + (" by value" if how.clip and how.clip_by == "value" else "")


def _calibration(tree: dict[str, Any] | None) -> dict[str, str]:
    """The line about it; none where a run was not calibrated."""
    if tree is None:
        return {}
    errors = [
        f"{name} {percent(before)} before, {percent(tree['after'][name])} after"
        for name, before in tree["before"].items()
        if before is not None
    ]
    text = f"temperature {tree['temperature']:.2f}; expected calibration error: {'; '.join(errors) or 'none'}"
    return {"calibration": text}
