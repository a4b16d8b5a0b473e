"""What bench.py measures besides training: tagging, latency, reading vectors, starting up, and the update."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import spacy
import torch
from contenders import Setting, reference_tagger, reference_vocabulary, tokens_of, words_of
from paired import PRODUCTS, MatrixProducts, Row, Spread, alternate, growth_row, rate_rows, repeat, time_rows
from reference import label_sentences, sgd, update
from reference import read_vectors as read_vectors_plainly

from nertool.data.encoding import EncodedCorpus
from nertool.data.vectors import read_vectors
from nertool.model.batch import Batch
from nertool.model.inputs.words import Words
from nertool.model.model import Model, build_network
from nertool.tagging.predictor import Predictor
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document
from nertool.training.optimization import Optimization
from nertool.training.preparation import build_model, encode

TAGGING_WORK = 1.06e-3  # GFLOP of matrix products a token
SENTENCES_ALONE = 50
ROWS_SMALL, ROWS_LARGE = 10_000, 400_000
BATCH = 10


def measure_tagging(setting: Setting, model: Model, rounds: int, seconds: float) -> list[Row]:
    """Tokens per second of labelling the test split, and of raw text."""
    tokens = _test_tokens(setting)
    documents = [Document(tuple(row)) for row in tokens]
    count = sum(map(len, tokens))
    lines = [" ".join(sentence) for sentence in tokens]
    plain, vocabulary = reference_tagger(model), reference_vocabulary(model)
    kept, tagger, products = Predictor(model), Tagger(model), MatrixProducts()
    tokenizer = spacy.blank(setting.config.language)
    tokenizer.add_pipe("sentencizer")

    def label(predictor: Predictor) -> int:
        _ = predictor.predict(documents).labels
        return count

    def tokenize() -> int:
        with tokenizer.memory_zone():
            return sum(map(len, tokenizer.pipe(lines)))

    def label_plainly() -> int:
        label_sentences(plain, vocabulary, tokens)
        return count

    found = alternate(
        {
            "reference, sorted by length": lambda: repeat(label_plainly, seconds),
            "nertool, every word new to it": lambda: repeat(lambda: label(Predictor(model)), seconds),
            "nertool, no word new to it": lambda: repeat(lambda: label(kept), seconds),
            "raw text: nertool with spaCy's tokens": lambda: repeat(
                lambda: sum(len(tagged.tokens) for tagged in tagger.tag_texts(lines)), seconds
            ),
            "raw text: spaCy's tokens alone": partial(repeat, tokenize, seconds),
            PRODUCTS: lambda: products.slice(seconds / 4),
        },
        rounds,
    )
    rows = rate_rows(found, "nertool, every word new to it", TAGGING_WORK)
    # Only the reference does the same work as nertool does.
    return [
        replace(
            row,
            nertool_is=row.nertool_is if row.name.startswith("reference") else None,
            share=None if "alone" in row.name else row.share,
        )
        for row in rows
    ]


def measure_latency(setting: Setting, model: Model, rounds: int) -> list[Row]:
    """Milliseconds for a sentence that comes alone, the median over some sentences."""
    tokens = _test_tokens(setting)
    chosen = tokens[:: max(1, len(tokens) // SENTENCES_ALONE)][:SENTENCES_ALONE]
    plain, vocabulary = reference_tagger(model), reference_vocabulary(model)

    def fresh_predictor() -> Callable[[Sequence[str]], object]:
        predictor = Predictor(model)
        return lambda sentence: predictor.predict([Document(tuple(sentence))]).labels

    def fresh_tagger() -> Callable[[Sequence[str]], object]:
        tagger = Tagger(model)
        tagger.tag("So that spaCy is loaded.")
        return lambda sentence: tagger.tag(" ".join(sentence))

    def milliseconds(label: Callable[[Sequence[str]], object]) -> float:
        times = []
        for sentence in chosen:
            began = time.perf_counter()
            label(sentence)
            times.append(time.perf_counter() - began)
        return 1000 * median(times)

    found = alternate(
        {
            "reference, tokens": lambda: milliseconds(lambda each: label_sentences(plain, vocabulary, [each])),
            "nertool, tokens": lambda: milliseconds(fresh_predictor()),
        },
        rounds,
    )
    raw = alternate({"nertool, raw text with probabilities": lambda: milliseconds(fresh_tagger())}, rounds)
    return [
        *time_rows(found, "nertool, tokens", "ms"),
        *(Row(name, "ms", Spread.of(times)) for name, times in raw.items()),
    ]


def measure_vectors(path: Path | None, rounds: int) -> list[Row]:
    """Seconds to read a file of word vectors; an invented one where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "vectors.txt"
            numbers = np.random.default_rng(1).normal(size=(5000, 50)).round(5)
            lines = (f"word{row} {' '.join(map(str, values))}\n" for row, values in enumerate(numbers.tolist()))
            path.write_text("".join(lines), encoding="utf-8")
        processor: dict[str, list[float]] = {"reference": [], "nertool": []}

        def seconds(name: str, read: Callable[[Path], object]) -> float:
            before, began = time.process_time(), time.perf_counter()
            read(path)
            processor[name].append(time.process_time() - before)
            return time.perf_counter() - began

        wall = alternate(
            {
                "reference": lambda: seconds("reference", read_vectors_plainly),
                "nertool": lambda: seconds("nertool", read_vectors),
            },
            rounds,
        )
        count = len(read_vectors(path).words)
    rows = []
    for clock, found in (
        ("processor time", {name: times[1:] for name, times in processor.items()}),
        ("wall clock", wall),
    ):
        named = [replace(row, name=f"{row.name}, {clock}") for row in time_rows(found, "nertool", "s")]
        rows += named
    return [Row("rows in the file", "", Spread(count, count, count)), *rows]


def measure_help(rounds: int) -> list[Row]:
    """Seconds of `nertool --help`, and of Python that does nothing."""
    script = Path(sys.executable).with_name("nertool")
    nertool = [str(script)] if script.exists() else [sys.executable, "-m", "nertool.cli.main"]

    def seconds(command: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    found = alternate(
        {
            "python -c pass": lambda: seconds([sys.executable, "-c", "pass"]),
            "nertool --help": lambda: seconds([*nertool, "--help"]),
        },
        rounds,
    )
    return [Row(name, "s", Spread.of(times)) for name, times in found.items()]


def measure_update(setting: Setting, rounds: int, seconds: float) -> list[Row]:
    """Milliseconds of a step with a small and a large word table, of which it touches the same few rows.

    The update is clipping, the new weights, and clearing the gradient; the step is all that a batch takes.
    """
    corpus = setting.corpus.train
    random = np.random.default_rng(1)
    tokens = tokens_of(corpus)
    lengths = np.array([len(row) for row in tokens])
    middle = np.argsort(lengths, kind="stable")[len(lengths) // 2 :][:BATCH]
    training = setting.config.training
    without_files = setting.config.inputs["words"].model_copy(update={"vectors": (), "dimensions": None})
    config = setting.config.model_copy(update={"inputs": {**setting.config.inputs, "words": without_files}})
    fitted = build_model(config, corpus.sentences, corpus.label_scheme)
    steps: dict[str, Callable[[], tuple[float, float]]] = {}
    for rows in (ROWS_SMALL, ROWS_LARGE):
        # The table has more rows than there are words here.
        known = words_of(fitted)
        words = Words("words", known.config, [*_invented(known.words, rows - 1)], known.dimensions)
        inputs = {**fitted.inputs, "words": words}
        network = build_network(config, fitted.labels, fitted.scheme, inputs)
        network.initialize(training.seed)
        model = Model(config, fitted.labels, fitted.scheme, inputs, network)
        encoded = encode(corpus, model)
        assert isinstance(encoded, EncodedCorpus)
        batch = encoded.batch(middle)
        (used,) = batch.form_features["words"]
        touched = np.sort(random.choice(ROWS_SMALL, len(used), replace=False))
        tensors = Batch.of(replace(batch, form_features={**batch.form_features, "words": (touched,)}))
        plain = reference_tagger(model)
        vocabulary = reference_vocabulary(model)
        plain_batch = vocabulary.encode(
            [tokens[number] for number in middle], [corpus.labels[number] for number in middle]
        )
        plain_batch.words = torch.from_numpy(touched)[torch.from_numpy(batch.forms.T.copy())]
        network.train()
        optimization = Optimization(network, training)
        optimizer = sgd(plain.train(), training.learning_rate, getattr(training.optimizer, "momentum", 0.9))
        steps[f"nertool, {rows:,} rows"] = _timed(partial(network.loss, tensors), optimization.step)
        steps[f"reference, {rows:,} rows"] = _timed(
            partial(plain.loss, plain_batch), partial(update, plain, optimizer, training.clip)
        )
    updates: dict[str, list[float]] = {}
    wholes: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, step in steps.items():
            update_time, whole_time = _medians(step, seconds)
            updates.setdefault(name, []).append(update_time)
            wholes.setdefault(name, []).append(whole_time)
    small, large = f"nertool, {ROWS_SMALL:,} rows", f"nertool, {ROWS_LARGE:,} rows"
    found: list[Row] = []
    for part, times in (("update", updates), ("whole step", wholes)):
        found += [Row(f"{part}: {name}", "ms", Spread.of(each)) for name, each in times.items()]
        found.append(growth_row(f"{part}: nertool, growth with the rows", times[small], times[large]))
    return found


def _timed(loss: Callable[[], torch.Tensor], then: Callable[[], object]) -> Callable[[], tuple[float, float]]:
    def step() -> tuple[float, float]:
        began = time.perf_counter()
        loss().backward()  # type: ignore[no-untyped-call]
        middle = time.perf_counter()
        then()
        ended = time.perf_counter()
        return ended - middle, ended - began

    return step


def _medians(step: Callable[[], tuple[float, float]], seconds: float) -> tuple[float, float]:
    step()
    ends = time.perf_counter() + seconds
    times = [step()]
    while time.perf_counter() < ends:
        times.append(step())
    updates, wholes = zip(*times, strict=True)
    return 1000 * median(updates), 1000 * median(wholes)


def _invented(words: Iterable[str], count: int) -> Iterable[str]:
    known = list(islice(words, count))
    return [*known, *(f"\0{number}" for number in range(count - len(known)))]


def _test_tokens(setting: Setting) -> list[Sequence[str]]:
    return tokens_of(setting.corpus.test or setting.corpus.validation)
