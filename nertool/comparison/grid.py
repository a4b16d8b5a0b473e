"""The grid of a comparison: every combination of the varied settings, each with every seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from nertool.comparison.results import files_of
from nertool.config.files import is_stream
from nertool.config.loading import flow, in_force, load_config, locate_files, parse_choices
from nertool.config.schema import Config
from nertool.errors import ConfigError

SEED = "training.seed"
_SEED_VARIED = f"{SEED} cannot be varied; --seeds N takes N seeds from it on"


@dataclass(frozen=True)
class Job:
    """A training to run.

    Attributes:
        cell: Name of the cell.
        settings: Value of each varied setting, by its full name.
        seed: Seed of the training.
        config: Its config, with the paths of the files that were found.
        folder: The run directory.
    """

    cell: str
    settings: dict[str, Any]
    seed: int
    config: Config
    folder: Path


def plan(source: Path, overrides: Iterable[str], varied: Sequence[str], seeds: int, folder: Path) -> list[Job]:
    """Plan all trainings of a grid: every cell with the first seed, then every cell with the second, and so on.

    Cells differ in the varied settings alone: a seed draws the same batches in all of them. Each training uses
    one thread unless the config says otherwise.

    Args:
        source: The config file.
        overrides: Settings that replace the file's in every cell, each written `a.b=c`.
        varied: Settings that vary and their values, each written `a.b=c,d`.
        seeds: How many, beginning with the seed of the config.
        folder: The folder for the run directories.

    Raises:
        ConfigError: The config of a cell is wrong, or two cells are the same run; lists all problems.
    """
    given = list(overrides)
    choices = [parse_choices(each) for each in varied]
    keys = [key for key, _ in choices]
    if SEED in keys:
        raise ConfigError(_SEED_VARIED)
    if len(set(keys)) != len(keys):
        raise ConfigError("a setting is varied twice; write all its values in one --vary")
    cells: dict[str, tuple[dict[str, Any], Config]] = {}
    names: dict[str, str] = {}  # of cells by what is in force in them
    problems: dict[str, list[str]] = {}  # and the cells that have them
    combinations = list(product(*(each for _, each in choices)))
    for values in combinations:
        settings = dict(zip(keys, values, strict=True))
        name = _name(settings) or source.stem
        try:
            config = locate_files(
                load_config(source, [*given, *(f"{key}={flow(value)}" for key, value in settings.items())]), source
            )
        except ConfigError as problem:
            for each in problem.problems:
                problems.setdefault(each, []).append(name)
            continue
        key = json.dumps(in_force(config))
        if key in names:
            problems[f"is the same as {names[key]}"] = [name]
        names[key] = name
        cells[name] = settings, _with(config, threads=config.training.threads or 1)
    if problems:
        # What is wrong in every cell is not the fault of what varies.
        raise ConfigError(
            [
                problem if len(names_) == len(combinations) else f"{name}: {problem}"
                for problem, names_ in problems.items()
                for name in (names_[:1] if len(names_) == len(combinations) else names_)
            ],
            source,
        )
    configs = [config for _, config in cells.values()]
    if once := [name for names in files_of(configs[0]).values() for name in names if is_stream(Path(name))]:
        raise ConfigError(f"{', '.join(once)}: can be read only once, and each training reads it; name a file")
    if len({_scored(config) for config in configs}) > 1:
        raise ConfigError(
            "cells are compared sentence by sentence, so what scores them cannot vary: corpus.test (without one "
            "corpus.validation, without both corpus.train), nor its columns, format, label and scheme"
        )
    first, *others = {config.training.seed for config in configs}
    if others:
        raise ConfigError(_SEED_VARIED)
    if first + seeds > 2**32:
        raise ConfigError(f"{SEED}: {seeds} seeds from {first} on go beyond the largest, {2**32 - 1}")
    return [
        Job(name, settings, seed, _with(config, seed=seed), folder / _folder_name(name) / f"seed-{seed}")
        for seed in range(first, first + seeds)
        for name, (settings, config) in cells.items()
    ]


def _scored(config: Config) -> tuple[object, ...]:
    corpus = config.corpus
    split = corpus.test or corpus.validation or (corpus.train, corpus.held_out, corpus.held_out_by)
    dataset = corpus.hub, corpus.config, corpus.revision, corpus.tokens, corpus.tags
    return split, corpus.format, corpus.columns, corpus.label, corpus.scheme, dataset


def _with(config: Config, **training: int) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def _name(settings: dict[str, Any]) -> str:
    """Name a cell after its settings: the last part of their names, or more parts where these would be the same.

    Values are written as in --vary, so that no two cells have the same name.
    """
    parts = {key: key.split(".") for key in settings}
    for size in range(1, max(map(len, parts.values()), default=1) + 1):
        short = {key: ".".join(names[-size:]) for key, names in parts.items()}
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
