"""A model card: what a model is, how well it did, what it is for, as Markdown with a head that the hub reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

import nertool
from nertool.config.files import RUN_FILES, read_limited, refuse_links
from nertool.config.model_names import HubModel
from nertool.config.schema import READ_BY_SPACY, CorpusConfig
from nertool.data.hub import hub_package
from nertool.errors import BundleError
from nertool.evaluation.scores import Evaluation
from nertool.model.outline import Outline
from nertool.tagging.exported import ExportedModel
from nertool.tagging.windows import LONGEST
from nertool.text.schemes import Scheme, split_label
from nertool.views.console import counted, duration, percent
from nertool.views.model import describe, recipe
from nertool.views.visible import as_markdown, visible

RESULTS = RUN_FILES[1]
_USUAL_STEMS = {"train", "training", "trn", "valid", "validation", "dev", "test"}
_EXAMPLE = "Ada Moreau of the Harbour Company lives in Lisbon."


def make_card(model: Outline, path: Path, address: HubModel | None, licence: str | None) -> str:
    """Return the card of a model.

    Scores come from `results.json` beside the model.

    Args:
        model: The model.
        path: Its run directory, or exported file.
        address: Where it will be; None: the card says `owner/name`.
        licence: As the hub names licences, such as `cc-by-4.0`; None: the card says that there is none.

    Raises:
        BundleError: `results.json` is corrupt.
        NertoolError: The package `huggingface_hub` is not installed.
    """
    results = {} if isinstance(model, ExportedModel) else _read_results(path)
    name = path.stem if isinstance(model, ExportedModel) else path.resolve().name
    name = visible(name if address is None else address.repository.partition("/")[2])
    split = next((each for each in ("test", "validation") if results.get(each)), None)
    scores = None if split is None else _evaluation(path, results[split])
    body = Environment(
        finalize=as_markdown,
        loader=PackageLoader("nertool.views"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("card.md")
    address = address or HubModel("owner/name")
    types = _types(model)
    plain = model.scheme is Scheme.PLAIN
    what = "gives each token a tag" if plain else "finds entities"
    kinds = f"{counted(len(types), 'tag' if plain else 'type')}: {', '.join(types)}"
    language = model.config.language
    view = {
        "title": name,
        "summary": f"A model of nertool that {what} in text of the language {language}; {kinds}.",
        "address": str(address).removeprefix("hub:"),
        "example": _EXAMPLE,
        "language": language,
        "extras": "hub,onnx" if isinstance(model, ExportedModel) else "hub",
        "in_spacy": not plain and not isinstance(model, ExportedModel),
        "rows": [] if scores is None else _rows(scores),
        "scored": "" if scores is None or split is None else _scored(scores, split),
        "about_scores": [] if scores is None else _about_scores(results, split),
        "facts": _facts(model, results),
        "intended": (
            f"Tagging text of the language {language} that is like the training data in kind and time. The "
            "probability of each entity says how sure the model is: leave out less probable ones where a wrong "
            "entity costs more than a missed one (min_score)."
        ),
        "limits": _limits(model, plain),
        "licence": licence or "None is named: ask the owner before you use the model.",
    }
    return f"---\n{_head(model, name, licence, split, scores)}\n---\n\n{body.render(view)}"


def _head(model: Outline, name: str, licence: str | None, split: str | None, scores: Evaluation | None) -> str:
    hub = hub_package()
    corpus = model.config.corpus
    plain = model.scheme is Scheme.PLAIN
    tags = [
        "nertool",
        "token-classification",
        *([] if plain else ["named-entity-recognition"]),
        "sequence-labelling",
    ]
    measured = {} if scores is None else {
        "precision": scores.micro.precision,
        "recall": scores.micro.recall,
        "f1": scores.micro.f1,
        "accuracy": scores.accuracy,
    }  # fmt: skip
    results = [
        hub.EvalResult(
            task_type="token-classification",
            task_name="Tagging of tokens" if plain else "Named entity recognition",
            dataset_type=_dataset(corpus) or _data_name(corpus),
            dataset_name=_data_name(corpus),
            dataset_config=corpus.config if _dataset(corpus) else None,
            dataset_revision=corpus.revision if _dataset(corpus) else None,
            dataset_split=split,
            metric_type=metric,
            metric_name=f"{metric.capitalize() if metric != 'f1' else 'F1'}, {split} split",
            metric_value=round(value, 4),
        )
        for metric, value in measured.items()
    ]
    language = model.config.language
    head: str = hub.ModelCardData(
        language="multilingual" if language == "xx" else language,
        license=licence,
        library_name="nertool",
        pipeline_tag="token-classification",
        tags=tags,
        datasets=_dataset(corpus) and [_dataset(corpus)],
        metrics=list(measured) or None,
        model_name=name,
        eval_results=results or None,
    ).to_yaml()
    return head


def _types(model: Outline) -> list[str]:
    if model.scheme is Scheme.PLAIN:
        return sorted(model.labels)
    return sorted({split_label(label)[1] for label in model.labels} - {""})


def _dataset(corpus: CorpusConfig) -> str | None:
    """Return the name of the dataset of the hub that was learnt from, if it was one."""
    return corpus.hub if corpus.hub is not None and not Path(corpus.hub).is_dir() else None


def _data_name(corpus: CorpusConfig) -> str:
    """Name the training data without saying where it lay."""
    if corpus.train == READ_BY_SPACY:
        return "a corpus that spaCy read"
    path = Path(corpus.origin)
    stem = path.parent.name if path.stem.lower() in _USUAL_STEMS and path.parent.name else path.stem
    return visible(_dataset(corpus) or stem or path.name)


def _rows(scores: Evaluation) -> list[list[str]]:
    named = {**scores.per_type, "macro average": scores.macro, "micro average": scores.micro}
    return [
        [name, percent(each.precision), percent(each.recall), percent(each.f1), f"{each.support:,}"]
        for name, each in named.items()
    ]


def _scored(scores: Evaluation, split: str) -> str:
    once = (
        ", scored once" if split == "test" else ", which also chose the best epoch, so that they may be too good"
    )
    return (
        f"In percent, on the {split} split{once}: {counted(scores.sentences, 'sentence')}, "
        f"{counted(scores.tokens, 'token')}; by seqeval, {scores.mode}; token accuracy {percent(scores.accuracy)}."
    )


def _about_scores(results: dict[str, Any], split: str | None) -> list[str]:
    lines = [
        f"They are those of one training, with seed {results['seed']}; other seeds give other scores. F1 of "
        f"the validation split in the best epoch: {percent(results['validation']['f1'])}."
    ]
    calibration = results.get("calibration") or {}
    before, after = (calibration.get(each, {}).get(split) for each in ("before", "after"))
    if before is not None and after is not None:
        lines.append(
            f"Probabilities are calibrated by temperature ({calibration['temperature']:.2f}); their expected "
            f"calibration error on the {split} split is {percent(after)} % (before: {percent(before)} %)."
        )
    return lines


def _facts(model: Outline, results: dict[str, Any]) -> dict[str, str]:
    config = model.config
    facts = {
        "data": _data_name(config.corpus),
        **{f"input {name}": each.describe() for name, each in model.inputs.items()},
        "encoder": describe(config.model.encoder),
        "decoder": f"{describe(config.model.decoder)}; {model.scheme.value}",
    }
    if config.model.attention.kind != "none":
        facts["attention"] = describe(config.model.attention)
    vectors = [Path(file).name for each in config.active_inputs.values() for file in getattr(each, "vectors", ())]
    if vectors:
        facts["word vectors"] = ", ".join(vectors)
    if config.corpus.train != READ_BY_SPACY:
        facts["recipe"] = f"{recipe(config.training)}, dropout {config.model.dropout:g}"
    if results:
        facts["training"] = (
            f"seed {results['seed']}, {counted(results['epochs'], 'epoch')} in {duration(results['seconds'])}, "
            f"the best: {results['best_epoch']}"
        )
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    else:
        facts["versions"] = f"nertool {nertool.__version__}"
    if isinstance(model, ExportedModel):
        facts["file"] = f"exported to ONNX, weights as {model.precision}; runs without torch"
    return facts


def _limits(model: Outline, plain: bool) -> list[str]:
    lines = [
        "Text of another kind, time or variety than the training data is tagged worse than the scores say.",
        "What the training data gets wrong, or treats unequally, the model learns; it was not examined for that.",
        f"Sentences of more than {LONGEST} tokens are labelled in overlapping windows.",
        "A sentence is tagged by itself; the rest of the document does not help.",
    ]
    if not plain:
        lines.insert(2, "Entities do not overlap, and only the types above are found.")
    if any(getattr(each, "kind", "") == "column" for each in model.config.active_inputs.values()):
        lines.append("It reads further columns of the corpus, which raw text does not have.")
    return lines


def _read_results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    refuse_links(folder, [RESULTS])
    if not path.is_file():
        return {}
    try:
        tree = json.loads(read_limited(path))
        wanted = ("seed", "epochs", "best_epoch", "seconds", "validation", "test", "versions")
        return {**{name: tree[name] for name in wanted}, "calibration": tree.get("calibration")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as problem:
        raise BundleError(f"{path}: corrupt ({problem!r})") from None


def _evaluation(path: Path, tree: dict[str, Any]) -> Evaluation:
    try:
        return Evaluation.from_json(tree)
    except (LookupError, TypeError, AttributeError) as problem:
        raise BundleError(f"{path / RESULTS}: corrupt ({problem!r})") from None
