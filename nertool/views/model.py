"""What a saved model is, how it was trained, and how well it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from nertool.config.files import MODEL_FILES, RUN_FILES, read_limited, refuse_links
from nertool.config.model_names import read_origin
from nertool.config.schema import READ_BY_SPACY, CorpusConfig, Section, TrainingConfig
from nertool.errors import BundleError
from nertool.evaluation.scores import Evaluation
from nertool.model.outline import Outline
from nertool.tagging.exported import ExportedModel
from nertool.tagging.loading import load_model
from nertool.views.console import counted, duration, percent, show_evaluation
from nertool.views.visible import visible

METRICS, RESULTS = RUN_FILES
_BY_SPACY = "by spaCy, which keeps the scores in meta.json of the pipeline"


def show_model(folder: Path, console: Console) -> None:
    """Print a model's inputs, layers, training and scores.

    Raises:
        BundleError: The folder holds no model, or a corrupt one.
    """
    model = load_model(folder)
    config = model.config
    exported = model if isinstance(model, ExportedModel) else None
    origin = read_origin(folder.parent if exported else folder)
    size = (folder if exported else folder / MODEL_FILES[-1]).stat().st_size
    lines = {
        "model": f"{folder.resolve()} ({size / 1e6:.1f} MB" + (f", {exported.precision})" if exported else ")"),
        **({"fetched from": str(origin)} if origin else {}),
        "labels": f"{', '.join(model.labels)} ({model.scheme.value})",
        **{f"input {name}": each.describe() for name, each in model.inputs.items()},
        "encoder": describe(config.model.encoder),
        **({"attention": describe(config.model.attention)} if config.model.attention.kind != "none" else {}),
        "decoder": describe(config.model.decoder),
        "weights": f"{exported.weights:,}" if exported else _weights(model),
        "trained on": _origin(config.corpus),
    }
    test = None
    if exported:
        pass  # how it was trained is in its run directory
    elif config.corpus.train == READ_BY_SPACY:
        lines["training"] = _BY_SPACY
    else:
        lines["recipe"] = f"{recipe(config.training)}, dropout {config.model.dropout:g}"
        about_training, test = _read_results(folder / RESULTS)
        lines |= about_training
    width = max(map(len, lines))
    for name, text in lines.items():
        line = f"[bold]{escape(f'{name:<{width}}')}[/]  {escape(visible(text))}"
        console.print(line, highlight=False, soft_wrap=True)
    if test is not None:
        show_evaluation(console, test, "Test split, scored once")


def _weights(model: Outline) -> str:
    network: Any = getattr(model, "network")  # noqa: B009
    total = sum(parameter.numel() for parameter in network.parameters())
    sparse = sum(parameter.numel() for parameter in network.sparse_parameters())
    return f"{total - sparse:,}" + (f" and {sparse:,} in word vectors" if sparse else "")


def describe(section: Section) -> str:
    """Describe a group of settings with a kind: the kind, then each setting that has an effect.

    >>> from nertool.config.schema import RecurrentConfig
    >>> describe(RecurrentConfig(kind="lstm", hidden=100))
    'lstm, hidden 100, layers 1, bidirectional yes'
    """
    idle = section.idle()
    values = {name: value for name, value in section if name != "kind" and value is not None and name not in idle}
    settings = [f"{name.replace('_', ' ')} {_value(value)}" for name, value in values.items()]
    return ", ".join([str(getattr(section, "kind", "")), *settings])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " ".join(map(_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def recipe(config: TrainingConfig) -> str:
    """Describe how a model was trained, in a line."""
    clip = f"clip {config.clip:g}" + (" by value" if config.clip and config.clip_by == "value" else "")
    return (
        f"{describe(config.optimizer)}; learning rate {config.learning_rate:g}; schedule "
        f"{describe(config.schedule)}; batches of {config.batch_size}, {clip}, averaging {config.averaging:g}"
    )


def _origin(corpus: CorpusConfig) -> str:
    if corpus.train == READ_BY_SPACY:
        return "a corpus that spaCy read"
    path = Path(corpus.origin)
    if corpus.hub is None or path.is_dir():
        return str(path.resolve() if path.exists() else path)
    return f"{corpus.hub} of the hub" + (f", revision {corpus.revision}" if corpus.revision else "")


def _read_results(path: Path) -> tuple[dict[str, str], Evaluation | None]:
    """Return lines about the training, and the scores of the test split if there are any."""
    refuse_links(path.parent, [path.name])
    if not path.is_file() and not (path.parent / METRICS).is_file():
        return {"training": f"unknown: there is neither {RESULTS} nor {METRICS}"}, None
    if not path.is_file():
        return {"training": f"not finished; {METRICS} has the epochs so far"}, None
    try:
        tree = json.loads(read_limited(path))
        lines = {
            "training": f"seed {tree['seed']}, {tree['epochs']} epochs in {duration(tree['seconds'])}, "
            f"best: {tree['best_epoch']}, validation F1 {percent(tree['validation']['f1'])}, "
            f"{tree['tokens_per_second']:,.0f} tokens/s on {_machine(tree)}",
            **_calibration(tree.get("calibration")),
            "versions": ", ".join(f"{name} {version}" for name, version in tree["versions"].items()),
        }
        test = None if tree["test"] is None else Evaluation.from_json(tree["test"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise BundleError(f"{path}: corrupt ({problem!r})") from None
    return lines, test


def _machine(tree: dict[str, Any]) -> str:
    device = tree.get("device", "cpu")
    return counted(tree["threads"], "thread") if device == "cpu" else str(device)


def _calibration(tree: dict[str, Any] | None) -> dict[str, str]:
    """Return the line about calibration; none for a run that was not calibrated."""
    if tree is None:
        return {}
    errors = [
        f"{name} {percent(before)} before, {percent(tree['after'][name])} after"
        for name, before in tree["before"].items()
        if before is not None
    ]
    text = f"temperature {tree['temperature']:.2f}; expected calibration error: {'; '.join(errors) or 'none'}"
    return {"calibration": text}
