"""What a comparison trains: all combinations of varied settings, or one change at a time, by seeds and folds."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from nertool.comparison.results import files_of
from nertool.config.files import is_stream
from nertool.config.loading import find_config, flow, in_force, names_config, parse_choices
from nertool.config.schema import MOST_FOLDS, Config
from nertool.data.corpus import open_splits
from nertool.data.folds import make_folds
from nertool.data.recipe import Recipe, open_config, run_name
from nertool.errors import ConfigError, CorpusError
from nertool.text.tokenization import SpacyTokenizer

SEED, FOLD, FRACTION = "training.seed", "corpus.fold", "corpus.fraction"
BASE = "base"
"""Name of the cell that nothing was changed in, where one thing at a time is."""
CONFIG = "config"
"""Stands for a setting where there are several configs."""
SEEDS = 3
"""How many without cross-validation, where nothing is asked for; with it, 1."""

_REFUSED = {
    SEED: f"{SEED} cannot be varied; --seeds N takes N seeds from it on",
    FOLD: f"{FOLD} cannot be varied; --folds N trains and tests on each of N folds",
}


@dataclass(frozen=True)
class Request:
    """What is to be compared.

    Attributes:
        names: Of configs, or of data files.
        overrides: Settings that replace those of the files in every cell, each written `a.b=c`.
        varied: Settings that vary and their values, each written `a.b=c,d`; all combinations are trained.
        ablated: Settings and values likewise; one of them at a time is changed.
        seeds: How many, beginning with the seed of the config; None: as many as is usual.
        folds: Of a cross-validation; None: train and test as the config says.
    """

    names: Sequence[str]
    overrides: Sequence[str] = ()
    varied: Sequence[str] = ()
    ablated: Sequence[str] = ()
    seeds: int | None = None
    folds: int | None = None

    @property
    def seed_count(self) -> int:
        """How many seeds there are."""
        return self.seeds or (SEEDS if self.folds is None else 1)

    @property
    def title(self) -> str:
        """The names of the files, without their folders."""
        return ", ".join(dict.fromkeys(Path(name).name or name for name in self.names))

    @property
    def folder_name(self) -> str:
        """A name for what is written: that of the first files."""
        return "-".join(
            [find_config(name).stem if names_config(name) else run_name(Path(name)) for name in self.names[:3]]
        )


class Key(NamedTuple):
    """What tells the trainings of a comparison apart."""

    cell: str
    seed: int
    fold: int | None


@dataclass(frozen=True)
class Job:
    """A training to run.

    Attributes:
        cell: Name of the cell.
        settings: Value of each varied setting, by its full name.
        seed: Seed of the training.
        config: Its config, with the paths of the files that were found.
        folder: The run directory.
        fold: Number of the fold that it is tested on, from 1; None without folds.
    """

    cell: str
    settings: dict[str, Any]
    seed: int
    config: Config
    folder: Path
    fold: int | None = None

    @property
    def key(self) -> Key:
        """What tells it apart from the other trainings."""
        return Key(self.cell, self.seed, self.fold)

    @property
    def fold_name(self) -> str:
        """The fold in words."""
        return f"fold {self.config.corpus.fold}"


@dataclass(frozen=True)
class Plan:
    """All trainings of a comparison.

    Attributes:
        jobs: In the order in which they begin.
        varied: Full names of the settings that vary.
        base: Name of the cell that the others differ from in one setting; None where there is none.
        notes: What was chosen for data files, and what a person should know; a line each.
    """

    jobs: list[Job]
    varied: list[str]
    base: str | None = None
    notes: list[str] = field(default_factory=list)


class _Wanted(NamedTuple):
    """A cell before its config was read."""

    name: str
    source: str
    settings: dict[str, Any]
    changes: list[str]


def plan(request: Request, folder: Path) -> Plan:
    """Plan all trainings: every cell with the first seed, then every cell with the second, and so on.

    Cells differ in the varied settings alone: a seed draws the same batches in all of them, and of the training
    split the same sentences where only a share of them is learnt from. Each training uses one thread unless the
    config says otherwise. For a data file, settings that depend on the size of the data are chosen for each cell.

    Args:
        request: What is to be compared.
        folder: The folder for the run directories.

    Raises:
        ConfigError: The request or a cell's config is wrong, or two cells are the same run; lists all problems.
        CorpusError: A data file is wrong, or the corpus has too few sentences or documents for the folds.
    """
    _check(request)
    folded = [f"{FOLD}=1/{request.folds}"] if request.folds else []
    wanted = _cells(request)
    recipes: dict[str, Recipe] = {}
    names: dict[str, str] = {}  # of cells by what is in force in them
    problems: dict[str, list[str]] = {}  # and the cells that have them
    for cell in wanted:
        try:
            recipe = open_config(cell.source, [*request.overrides, *cell.changes, *folded])
        except ConfigError as problem:
            for each in problem.problems:
                problems.setdefault(each, []).append(cell.name)
            continue
        key = json.dumps(in_force(recipe.config))
        if key in names:
            problems[f"is the same as {names[key]}"] = [cell.name]
        names[key] = cell.name
        recipes[cell.name] = recipe
    if problems:
        # What is wrong in every cell is not the fault of what varies.
        raise ConfigError(
            [
                problem if len(names_) == len(wanted) else f"{name}: {problem}"
                for problem, names_ in problems.items()
                for name in (names_[:1] if len(names_) == len(wanted) else names_)
            ],
            _source(request),
        )
    configs = [_with(recipe.config, threads=recipe.config.training.threads or 1) for recipe in recipes.values()]
    first = _check_together(request, configs)
    settings = {cell.name: cell.settings for cell in wanted}
    jobs = [
        _job(name, settings[name], config, seed, fold, request.folds, folder)
        for seed in range(first, first + request.seed_count)
        for fold in (range(1, request.folds + 1) if request.folds else (None,))
        for name, config in zip(recipes, configs, strict=True)
    ]
    varied = list(dict.fromkeys(key for cell in wanted for key in cell.settings))
    return Plan(jobs, varied, BASE if request.ablated else None, _notes(recipes))


def _check(request: Request) -> None:
    """Refuse requests that make no sense, whatever the configs are."""
    if request.varied and request.ablated:
        raise ConfigError(
            "--vary trains all combinations, --ablate changes one setting at a time: run two comparisons, or put "
            "the values of --ablate into --vary"
        )
    if request.ablated and len(request.names) > 1:
        raise ConfigError(
            "--ablate changes one setting of one config, and there are several: name the one to start from"
        )
    option = "--ablate" if request.ablated else "--vary"
    keys = [parse_choices(each, option)[0] for each in (*request.varied, *request.ablated)]
    for key, message in _REFUSED.items():
        if key in keys:
            raise ConfigError(message)
    if len(set(keys)) != len(keys):
        raise ConfigError(f"a setting is varied twice; write all its values in one {option}")
    fixed = [each.partition("=")[0].strip() for each in request.overrides]
    if both := [key for key in keys if key in fixed]:
        raise ConfigError(f"{both[0]}: is given by --set as well as by {option}; leave one of them out")
    if request.folds is not None:
        if not 2 <= request.folds <= MOST_FOLDS:
            raise ConfigError(f"--folds {request.folds}: there can be 2 to {MOST_FOLDS:,} folds")
        if FOLD in fixed:
            raise ConfigError(
                f"--folds goes through all folds, and --set {FOLD} chooses one; leave one of them out"
            )


def _cells(request: Request) -> list[_Wanted]:
    """Return all cells, in order."""
    wanted = []
    several = len(request.names) > 1
    for label, source in zip(_labels(request.names), request.names, strict=True):
        own = {CONFIG: label} if several else {}
        if request.ablated:
            wanted.append(_Wanted(BASE, source, {}, []))
            for key, values in (parse_choices(each, "--ablate") for each in request.ablated):
                for value in values:
                    settings = {key: value}
                    wanted.append(
                        _Wanted(name_settings(settings, whole=True), source, settings, _changes(settings))
                    )
            continue
        choices = [parse_choices(each) for each in request.varied]
        keys = [key for key, _ in choices]
        for combination in product(*(each for _, each in choices)):
            settings = dict(zip(keys, combination, strict=True))
            name = ", ".join(filter(None, [label if several else "", name_settings(settings)])) or label
            wanted.append(_Wanted(name, source, {**own, **settings}, _changes(settings)))
    return wanted


def _labels(names: Sequence[str]) -> list[str]:
    """Name files without folder and suffix where that tells them apart."""
    stems = [find_config(name).stem if names_config(name) else run_name(Path(name)) for name in names]
    return [name if stems.count(stem) > 1 else stem for name, stem in zip(names, stems, strict=True)]


def _changes(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={flow(value)}" for key, value in settings.items()]


def _source(request: Request) -> Path | str | None:
    """Return the file that problems are in, where it is a single one."""
    if len(request.names) > 1:
        return None
    name = request.names[0]
    return find_config(name) if names_config(name) else name


def _check_together(request: Request, configs: Sequence[Config]) -> int:
    """Check that cells can be compared with one another; return the first seed."""
    if once := [name for names in files_of(configs[0]).values() for name in names if is_stream(Path(name))]:
        raise ConfigError(f"{', '.join(once)}: can be read only once, and each training reads it; name a file")
    if len({_scored(config) for config in configs}) > 1:
        tested = (
            "corpus.train, of which the folds are made"
            if request.folds
            else "corpus.test (without one corpus.validation, without both corpus.train)"
        )
        raise ConfigError(
            f"cells are compared sentence by sentence, so what scores them cannot vary: {tested}, nor its "
            "columns, format, label, scheme and annotator"
        )
    first, *others = {config.training.seed for config in configs}
    if others:
        several = "the configs have several seeds; choose the first one for all with --set training.seed=1"
        raise ConfigError(several if len(request.names) > 1 else _REFUSED[SEED])
    if first + request.seed_count > 2**32:
        raise ConfigError(f"{SEED}: {request.seed_count} seeds from {first} on go beyond the largest, {2**32 - 1}")
    if request.folds:
        config = configs[0]
        read = open_splits(config.corpus, tokenizer=SpacyTokenizer(config.language))
        split = read(config.corpus.train or "", partial=True)
        make_folds(split, request.folds)
        if split.unknown_count:
            raise CorpusError(
                "some tokens have no label, so that not every fold can be scored; label all of it, or test on "
                "another file, without --folds",
                split.path,
            )
    return first


def _scored(config: Config) -> tuple[object, ...]:
    corpus = config.corpus
    split: object = corpus.test or corpus.validation or (corpus.train, corpus.held_out, corpus.held_out_by)
    if corpus.fold is not None:
        split = corpus.train, corpus.fold
    dataset = corpus.hub, corpus.config, corpus.revision, corpus.tokens, corpus.tags
    return split, corpus.format, corpus.columns, corpus.label, corpus.scheme, corpus.annotator, dataset


def _job(
    name: str,
    settings: dict[str, Any],
    config: Config,
    seed: int,
    fold: int | None,
    folds: int | None,
    folder: Path,
) -> Job:
    corpus: dict[str, Any] = {} if fold is None else {"fold": f"{fold}/{folds}"}
    # Each seed draws a share of its own, so that the spread is also that of the data.
    if config.corpus.fraction < 1 and "fraction_seed" not in config.corpus.model_fields_set:
        corpus["fraction_seed"] = seed
    if corpus:
        config = config.model_copy(update={"corpus": config.corpus.model_copy(update=corpus)})
    part = "" if fold is None else f"-fold-{fold}-of-{folds}"
    return Job(
        name, settings, seed, _with(config, seed=seed), folder / _folder_name(name) / f"seed-{seed}{part}", fold
    )


def _with(config: Config, **training: int) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def _notes(recipes: dict[str, Recipe]) -> list[str]:
    """Say what was chosen for data files: once where it is the same in all cells."""
    notes: list[str] = []
    chosen = {name: recipe.summary for name, recipe in recipes.items() if recipe.summary}
    if len(set(chosen.values())) == 1 == len({recipe.name for recipe in recipes.values()}):
        notes += set(chosen.values())
    else:
        notes += [f"{name}: {summary}" for name, summary in chosen.items()]
    warnings = [warning for recipe in recipes.values() for warning in recipe.warnings]
    # Vectors may be what varies: then who asked knows of them.
    return notes + [each for each in dict.fromkeys(warnings) if warnings.count(each) == len(recipes)]


def name_settings(settings: dict[str, Any], *, whole: bool = False) -> str:
    """Name a cell after its settings: the last part of their names, or more parts where these would be the same.

    Values are written as in --vary, so that no two cells have the same name.

    Args:
        settings: Their values by their full names.
        whole: Whether full names are written: cells may differ in the settings that they have.
    """
    parts = {key: key.split(".") for key in settings}
    for size in range(1, max(map(len, parts.values()), default=1) + 1):
        short = {key: key if whole else ".".join(names[-size:]) for key, names in parts.items()}
        if len(set(short.values())) == len(short):
            break
    return ", ".join(f"{short[key]}={flow([value])[1:-1]}" for key, value in settings.items()) if settings else ""


def _folder_name(cell: str) -> str:
    parts = cell.split(", ")
    if len(cell) <= 100 and all(re.fullmatch(r"[a-z0-9_][a-z0-9_.-]*(=[a-z0-9_.-]+)?", part) for part in parts):
        return "-".join(parts)
    # A digest, so that two cells never share a folder, not even where the file system ignores case.
    plain = re.sub(r"[^\w=.]+", "-", cell, flags=re.ASCII).strip("-.")
    digest = hashlib.sha256(cell.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[:80]}-{digest}".lstrip("-")
