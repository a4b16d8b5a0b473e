"""How many tokens must be labelled? A simulated annotator, who labels what a model asks for.

    NERTOOL_DATA=/folder/with/the/corpora python benchmarks/labelling.py --output labelling.jsonl

The training split is the pool. At first some sentences drawn at random are labelled. Then, round after round, a
model is trained on all that is labelled, from new weights; it is scored, and chooses what is labelled next, until
the tokens of the next round are reached. Each strategy starts with the same sentences.

Network and vectors are those of the config. A model is trained as `nertool train` trains on a data file with so
many sentences, with a cosine to the last epoch; no label of the validation or test split takes part in it.

Each round is a line of the output, with its scores and the sentences that it labelled. The same command goes on
where it was stopped. Several may run at the same time for different strategies or seeds, into one file.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from nertool.config.schema import Config
from nertool.data.corpus import Corpus, Split, read_corpus
from nertool.data.recipe import choose_settings, open_config
from nertool.errors import NertoolError
from nertool.evaluation.scores import evaluate
from nertool.model.model import Model
from nertool.tagging.ranking import MEASURES, By, rank
from nertool.tagging.tagger import Tagger
from nertool.training.preparation import prepare
from nertool.training.run import score
from nertool.training.trainer import Epoch, train

FULL = "full"
SHARES = (1.0, 2.0, 4.0, 7.0, 10.0, 13.0, 16.0, 20.0)
GOAL = 0.99
Line = dict[str, Any]


class Simulation:
    """An annotator, and the models that ask.

    Args:
        name: Of the config.
        overrides: Of its settings.
        seed: Of the sentences that are labelled first, and of the models.
        corpus: Its splits; the training split is the pool.
    """

    def __init__(self, name: str, overrides: Sequence[str], seed: int, corpus: Corpus) -> None:
        self.name = name
        self.overrides = overrides
        self.seed = seed
        self.corpus = corpus
        self.pool = corpus.train.sentences
        self.lengths = np.array(list(map(len, self.pool)))
        self.labels = sorted({label for row in corpus.train.labels for label in row})

    def round(self, chosen: Sequence[int]) -> tuple[Tagger, Line]:
        """Train on sentences of the pool.

        Args:
            chosen: Those that are labelled.

        Returns:
            The model, and its scores.
        """
        began = time.perf_counter()
        config = self._config(len(chosen))
        training = config.training
        epochs = training.epochs
        corpus = replace(self.corpus, train=self._part(chosen), test=None)
        prepared = prepare(config, corpus, self.labels)
        nothing = evaluate([], [], corpus.train.label_scheme)
        network = prepared.model.network
        weights = network.state_dict()
        for record in train(network, prepared.encoded, lambda: nothing, training):
            if isinstance(record, Epoch) and record.number == epochs:  # the network holds the averaged weights
                weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(weights)
        seconds = time.perf_counter() - began
        return Tagger(prepared.model), {
            "tokens": int(self.lengths[list(chosen)].sum()),
            "sentences": len(chosen),
            "epochs": epochs,
            "seconds": round(seconds, 1),
        }

    def scores(self, tagger: Tagger) -> Line:
        """Score a model."""
        splits = {name: split for name, split in self.corpus.splits.items() if name != "train"}
        assert isinstance(tagger.model, Model)
        return {name: round(100 * score(tagger.model, split).micro.f1, 2) for name, split in splits.items()}

    def choose(self, tagger: Tagger | None, by: By, labelled: Sequence[int], tokens: int) -> list[int]:
        """Choose sentences until so many tokens are labelled; without a model at random."""
        free = np.setdiff1d(np.arange(len(self.pool)), np.array(labelled, dtype=np.int64))
        count = int(self.lengths[list(labelled)].sum())
        if tagger is None or by == "random":
            # One order for all rounds: a share is a part of every larger one.
            order = np.random.default_rng(self.seed).permutation(len(self.pool))
            candidates = order[np.isin(order, free)].tolist()
        else:
            texts = [self.pool[index] for index in free.tolist()]
            ranked = rank(tagger, texts, by=by, top=max(50, (tokens - count) // 4), random_share=0)
            candidates = [int(free[each.index]) for each in ranked]
        result = []
        for index in candidates:
            if count >= tokens:
                break
            result.append(index)
            count += int(self.lengths[index])
        return result

    def _config(self, sentences: int) -> Config:
        settings: Line = {**choose_settings(sentences), "schedule": "cosine", "seed": self.seed, "threads": 1}
        settings["patience"] = settings["epochs"]
        chosen = [f"training.{name}={value}" for name, value in settings.items()]
        return open_config(self.name, [*chosen, *self.overrides]).config

    def _part(self, chosen: Sequence[int]) -> Split:
        return replace(self.corpus.train, documents=[self.pool[index] for index in chosen], stray_places=[])


def simulate(simulation: Simulation, by: By, shares: Sequence[float], past: Sequence[Line]) -> Iterator[Line]:
    """Play the rounds of a strategy; yields those that are not past yet, with what each labelled."""
    total = int(simulation.lengths.sum())
    labelled: list[int] = []
    tagger: Tagger | None = None
    for number, share in enumerate(shares):
        if number < len(past):
            labelled += past[number]["labelled"]
            continue
        if number and tagger is None and by != "random":
            tagger, _ = simulation.round(labelled)  # again: the one before was in another process
        new = simulation.choose(tagger, by, labelled, math.ceil(total * share / 100))
        labelled += new
        tagger, line = simulation.round(labelled)
        yield {"share": share, **line, **simulation.scores(tagger), "labelled": new}


def read_lines(path: Path, settings: Line) -> list[Line]:
    """Read the rounds that were played already.

    Raises:
        NertoolError: They were played with other settings.
    """
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:  # cut off
            continue
    for line in lines:
        if line["settings"] != settings:
            raise NertoolError(f"{path} was made with other settings ({line['settings']}); name another --output")
    return lines


def table(lines: Sequence[Line], shares: Sequence[float]) -> str:
    """Return the scores by share and strategy, mean and standard deviation over the seeds, in Markdown."""
    full = [line["test"] for line in lines if line["strategy"] == FULL]
    own = [name for name in MEASURES if any(line["strategy"] == name for line in lines)]
    rows = [["tokens", *own], ["---:"] * (len(own) + 1)]
    for share in shares:
        cells = [_cell([_["test"] for _ in lines if (_["strategy"], _["share"]) == (by, share)]) for by in own]
        rows.append([f"{share:g} %", *cells])
    if full:
        rows.append(["100 %", *[_cell(full)] * len(own)])
        rows.append([f"{100 * GOAL:g} % of that", *[f"{GOAL * mean(full):.2f}"] * len(own)])
        rows.append(["reached with", *[_reached(lines, by, shares) for by in own]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f} ({len(values)})" if len(values) > 1 else " (1)")


def _reached(lines: Sequence[Line], by: str, shares: Sequence[float]) -> str:
    """Return the share of tokens at which the mean over the seeds reaches the goal."""
    scores = {(line["strategy"], line["seed"], line["share"]): line["test"] for line in lines}
    seeds = sorted({seed for strategy, seed, _ in scores if strategy == FULL})
    for share in shares:
        pairs = [(scores.get((by, seed, share)), scores[FULL, seed, 100.0]) for seed in seeds]
        known = [(own, full) for own, full in pairs if own is not None]
        if known and sum(own for own, _ in known) >= GOAL * sum(full for _, full in known):
            return f"{share:g} %"
    return f"more than {max(shares):g} %"


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw F1 on the test split against the share of tokens."""
    from nertool.views import pictures

    with pictures._style() as new_figure:
        figure = new_figure(7, 4)
        axes = figure.add_subplot()
        for number, by in enumerate(name for name in MEASURES if any(_["strategy"] == name for _ in lines)):
            own = [line for line in lines if line["strategy"] == by]
            shares = sorted({line["share"] for line in own})
            means = [mean(line["test"] for line in own if line["share"] == share) for share in shares]
            axes.plot(shares, means, label=by, **pictures._look(number))
        if full := [line["test"] for line in lines if line["strategy"] == FULL]:
            axes.axhline(mean(full), color="#888888", linewidth=1)
            axes.axhline(GOAL * mean(full), color="#888888", linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate("all tokens", (0, mean(full)), (2, 3), textcoords="offset points", fontsize=8)
            axes.annotate("99 % of that", (0, GOAL * mean(full)), (2, -10), textcoords="offset points", fontsize=8)
        axes.set_xlabel("labelled tokens, % of the training split")
        axes.set_ylabel("F1 on the test split")
        axes.set_xlim(left=0)
        axes.legend(loc="lower right")
        pictures.save(figure, path)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="conll03.yaml", help="[default: conll03.yaml]")
    parser.add_argument("--output", type=Path, default=Path("labelling.jsonl"), metavar="FILE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument(
        "--strategies", nargs="+", default=["mnlp", "errors", "random", FULL], choices=[*MEASURES, FULL]
    )
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), metavar="PERCENT")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="where to draw the curves")
    parser.add_argument("--show", action="store_true", help="show what there is, and play no round")
    options = parser.parse_args()
    settings = {"config": options.config, "set": options.overrides}
    if not options.show:
        corpus = read_corpus(open_config(options.config, options.overrides).config.corpus)
        for seed in options.seeds:
            simulation = Simulation(options.config, options.overrides, seed, corpus)
            for strategy in options.strategies:
                past = [
                    line
                    for line in read_lines(options.output, settings)
                    if (line["strategy"], line["seed"]) == (strategy, seed)
                ]
                for line in play(simulation, strategy, options.shares, past):
                    whole = {"strategy": strategy, "seed": seed, **line, "settings": settings}
                    with options.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(whole) + "\n")
                    shown = {key: value for key, value in whole.items() if key not in ("labelled", "settings")}
                    print(*(f"{key} {value}" for key, value in shown.items()), sep="  ", flush=True)
    lines = read_lines(options.output, settings) if not options.show else read_any(options.output)
    print(table(lines, options.shares))
    if options.picture is not None:
        draw(lines, options.picture)


def read_any(path: Path) -> list[Line]:
    """Read all rounds, whatever their settings."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def play(simulation: Simulation, strategy: str, shares: Sequence[float], past: Sequence[Line]) -> Iterator[Line]:
    """Play the rounds of a strategy that are not past yet, or train on the whole pool."""
    if strategy != FULL:
        yield from simulate(simulation, next(by for by in MEASURES if by == strategy), shares, past)
    elif not past:
        tagger, line = simulation.round(range(len(simulation.pool)))
        yield {"share": 100.0, **line, **simulation.scores(tagger)}


if __name__ == "__main__":
    main()
