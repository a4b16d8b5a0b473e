"""The results of a comparison, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Gradients:
    """How much of a gradient is left after k steps back through the recurrent state.

    A gradient of norm 1 arrives at a token's output; entry k is the norm of what reaches the state k steps
    before (geometric mean over texts). Entry 0 is the state of the token itself.

    Attributes:
        start: With the weights before training.
        end: With the weights of the best epoch.
    """

    start: list[float]
    end: list[float]


@dataclass(frozen=True)
class FoldScore:
    """One fold of a cross-validation.

    Attributes:
        number: From 1.
        validation: F1 of the best epoch on what was held out of the other folds.
        test: F1 on the fold.
        sentences: How many it has.
        entities: Gold entities in it.
    """

    number: int
    validation: float
    test: float
    sentences: int
    entities: int


@dataclass(frozen=True)
class Run:
    """One training: a cell of the grid with one seed; in cross-validation those of all folds, pooled.

    Attributes:
        seed: Seed of weights, dropout and batches.
        validation: F1 of the best epoch, from 0 to 1.
        test: F1 on the test split, scored once; None where there is none.
        parameters: Number of weights, without those of word vectors.
        word_parameters: Number of weights of word vectors.
        training_speed: Tokens a second, median over the epochs.
        tagging_speed: Tokens a second, with every word new to the tagger.
        best_epoch: Counted from 1.
        seconds_to_best: Training time up to the end of the best epoch, without validation.
        seconds: Time of the whole run.
        curve: Validation F1 of each epoch.
        losses: Mean training loss of a sentence in each epoch.
        gradients: None where the encoder has no recurrent state.
        counts: For each sentence of the scored split (test; validation where there is no test) the number of
            right, of predicted and of gold entities.
        fold: Number of the fold that it was tested on, from 1; None without folds, and for all of them.
        folds: What was pooled: F1 is that of the counts of all folds together, other figures are means.
        training_sentences: How many it learnt from; 0 where that was not recorded.
        training_entities: Those in them.
    """

    seed: int
    validation: float
    test: float | None
    parameters: int
    word_parameters: int
    training_speed: float
    tagging_speed: float
    best_epoch: int
    seconds_to_best: float
    seconds: float
    curve: list[float]
    losses: list[float]
    gradients: Gradients | None
    counts: list[tuple[int, int, int]] = field(repr=False)
    fold: int | None = None
    folds: list[FoldScore] = field(default_factory=list)
    training_sentences: int = 0
    training_entities: int = 0

    @property
    def score(self) -> float:
        """F1 on the split that cells are compared on."""
        return self.validation if self.test is None else self.test

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> Run:
        """Make a run from the result of `to_json`; raise TypeError or ValueError for anything else."""
        gradients = None if tree["gradients"] is None else Gradients(**tree["gradients"])
        counts = [(int(right), int(predicted), int(gold)) for right, predicted, gold in tree["counts"]]
        folds = [FoldScore(**each) for each in tree.get("folds", [])]
        return cls(**{**tree, "gradients": gradients, "counts": counts, "folds": folds})


@dataclass(frozen=True)
class Failure:
    """A training that failed.

    Attributes:
        seed: Its seed.
        reason: Its last message.
        log: The file with all its output.
        fold: Number of the fold that it was to be tested on; None without folds.
    """

    seed: int
    reason: str
    log: str
    fold: int | None = None


@dataclass(frozen=True)
class Cell:
    """One combination of the varied settings.

    Attributes:
        name: Short and unique, such as `kind=gru, bidirectional=true`.
        settings: Value of each varied setting, by its full name; `config` where there are several.
        runs: One for each seed that was trained to its end, in cross-validation on all folds.
        failures: One for each training that failed.
    """

    name: str
    settings: dict[str, Any]
    runs: list[Run]
    failures: list[Failure]


@dataclass(frozen=True)
class Pair:
    """Whether two cells differ.

    Attributes:
        first: Name of a cell.
        second: Name of another.
        difference: Mean score of the first less that of the second, in F1 from -1 to 1.
        over_seeds: p-value of Welch's t-test over the seeds; None with fewer than two runs of either.
        over_seeds_adjusted: The same after Holm's correction for the number of pairs.
        over_sentences: p-value of the paired approximate randomization test of the two runs of each seed
            that both cells have, by seed.
        over_sentences_adjusted: The same after Holm's correction for the number of such tests.
    """

    first: str
    second: str
    difference: float
    over_seeds: float | None
    over_seeds_adjusted: float | None
    over_sentences: dict[int, float]
    over_sentences_adjusted: dict[int, float]


@dataclass(frozen=True)
class Comparison:
    """A whole grid.

    Attributes:
        config: Name of the config, or names of several.
        command: The command that repeats it.
        corpus: Name of the file trained on.
        varied: Full names of the settings that vary.
        seeds: Seeds of every cell.
        split: The split that scores are compared on: `test` or `validation`.
        cells: In the order of the grid.
        pairs: Every pair of cells with at least one run each; where there is a base, it and each other cell.
        shuffles: Random assignments of each approximate randomization test.
        jobs: How many trainings ran side by side, with a thread each.
        seconds: From start to report, in this call.
        versions: Versions of nertool and its main dependencies.
        base: Name of the cell that each other one differs from in a single setting; None where there is none.
        folds: Number of folds; None without cross-validation.
    """

    config: str
    command: str
    corpus: str
    varied: list[str]
    seeds: list[int]
    split: str
    cells: list[Cell]
    pairs: list[Pair]
    shuffles: int
    jobs: int
    seconds: float
    versions: dict[str, str]
    base: str | None = None
    folds: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)
