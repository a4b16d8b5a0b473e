"""Measure the spaCy component over the test split: beside the Tagger, and beside spaCy's `ner` if one is given.

Each from raw text, spaCy's tokeniser and sentence borders included, and from tokens that are there already. All
take turns in one run, so that the ratios hold though the machine is used by others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import spacy
from contenders import Setting, read_setting, tokens_of, trained_model
from paired import Row, Spread, alternate
from rich import box
from rich.console import Console
from rich.table import Table
from spacy.language import Language
from spacy.tokens import Doc

from nertool.evaluation.scores import evaluate
from nertool.model.model import Model
from nertool.tagging.bundle import save_bundle
from nertool.tagging.tagger import Tagger
from nertool.text.schemes import Scheme, convert


def component_pipeline(model: Model, language: str, *, sentences: bool) -> Language:
    """A pipeline with nertool in it, made as a user makes one."""
    nlp = spacy.blank(language)
    if sentences:
        nlp.add_pipe("sentencizer")
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(model, Path(folder))
        nlp.add_pipe("nertool", config={"model": folder})
    return nlp


def measure_pipes(
    setting: Setting, model: Model, rounds: int, seconds: float, ner: Language | None = None
) -> tuple[list[Row], dict[str, float]]:
    """Tokens per second of each, and F1 of the pipelines over the tokens of the test split.

    Args:
        setting: With the test split.
        model: That nertool tags with.
        rounds: Slices of each contender.
        seconds: Length of a slice.
        ner: Another pipeline with tokens and entities, such as one with spaCy's `ner`.

    Returns:
        Rows, each compared with the component on the same input; and F1 by pipeline.
    """
    split = setting.corpus.test
    assert split is not None
    sentences = tokens_of(split)
    lines = [" ".join(tokens) for tokens in sentences]
    tagger = Tagger(model)
    whole = component_pipeline(model, setting.config.language, sentences=True)
    alone = component_pipeline(model, setting.config.language, sentences=False)

    def rate(prepare: Callable[[], Any], work: Callable[[Any], object]) -> Callable[[], float]:
        def measure() -> float:
            spent, count = 0.0, 0
            while spent < seconds:
                prepared = prepare()
                began = time.perf_counter()
                work(prepared)
                spent += time.perf_counter() - began
                count += split.token_count
            return count / spent

        return measure

    def docs(nlp: Language) -> list[Doc]:
        return [Doc(nlp.vocab, words=list(tokens)) for tokens in sentences]

    def nothing() -> None:
        return None

    contenders = {
        "raw text: Tagger.tag_texts": rate(nothing, lambda _: list(tagger.tag_texts(lines))),
        "raw text: nlp.pipe with nertool": rate(nothing, lambda _: list(whole.pipe(lines))),
        "tokens: Tagger.tag_tokens": rate(nothing, lambda _: list(tagger.tag_tokens(sentences))),
        "tokens: nlp.pipe with nertool": rate(lambda: docs(alone), lambda made: list(alone.pipe(made))),
    }
    scores = {"nertool": _f1(split.labels, split.label_scheme, alone.pipe(docs(alone)))}
    if ner is not None:
        other = ner
        contenders["raw text: nlp.pipe with ner"] = rate(nothing, lambda _: list(other.pipe(lines)))
        contenders["tokens: nlp.pipe with ner"] = rate(lambda: docs(other), lambda made: list(other.pipe(made)))
        scores["ner"] = _f1(split.labels, split.label_scheme, other.pipe(docs(other)))
    found = alternate(contenders, rounds)
    rows = []
    for name, rates in found.items():
        base = found[f"{name.partition(':')[0]}: nlp.pipe with nertool"]
        ratios = [one / other_rate for one, other_rate in zip(base, rates, strict=True)]
        rows.append(Row(name, "tokens/s", Spread.of(rates), None if base is rates else Spread.of(ratios)))
    return rows, scores


def _f1(labels: list[list[str]], scheme: Scheme, docs: Any) -> float:
    found = [[f"{token.ent_iob_}-{token.ent_type_}".removesuffix("-") for token in doc] for doc in docs]
    return evaluate([convert(row, scheme, Scheme.IOB2) for row in labels], found, Scheme.IOB2).micro.f1


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, metavar="DIR", help="tag with this model, not with a new one")
    parser.add_argument("--ner", metavar="DIR", help="a pipeline with spaCy's ner, to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="slices of each contender  [default: 5]")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a slice  [default: 1]")
    parser.add_argument("--demo", action="store_true", help="measure on the demonstration corpus")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 120
    setting = read_setting(options.demo)
    for warning in setting.warnings:
        console.print(warning, style="yellow", highlight=False, soft_wrap=True)
    model = trained_model(setting, 2.0, options.model)
    ner = None if options.ner is None else spacy.load(options.ner)
    rows, scores = measure_pipes(setting, model, options.rounds, options.seconds, ner)
    table = Table("what", "tokens/s", "lowest to highest", "the component is", box=box.SIMPLE_HEAD)
    for row in rows:
        ratio = row.nertool_is
        times = "" if ratio is None else f"{ratio.median:.2f} x ({ratio.low:.2f} to {ratio.high:.2f})"
        value = row.value
        table.add_row(row.name, f"{value.median:,.0f}", f"{value.low:,.0f} to {value.high:,.0f}", times)
    console.print(table)
    shown = ", ".join(f"{name} {100 * f1:.2f}" for name, f1 in scores.items())
    console.print(f"{setting.name}; F1 over the tokens of the test split: {shown}", highlight=False)
    if options.json is not None:
        figures = {"corpus": setting.name, "rows": [asdict(row) for row in rows], "f1": scores}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
