"""Where to look for good settings: the ranges that the schema declares, or those that a person gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from nertool.config.loading import flow, override, parse_values
from nertool.config.schema import Config, Search, Section
from nertool.errors import ConfigError

_NEVER = {
    "corpus": "what scores a trial cannot vary",
    "training.seed": "--seeds N trains each trial with N seeds",
    "training.epochs": "trials are stopped early where others were better after as many epochs",
    "training.threads": "it changes no result",
    "training.device": "it changes no result",
}
_LARGEST = 1e300  # integers may be larger than any float
_EXAMPLE = "expected something like training.learning_rate=0.01..0.1 (or 0.001..0.1:log, or a,b,c)"
Value = str | int | float | bool | None


class Suggest(Protocol):
    """Chooses a value of a setting; the name tells it from the same setting under other circumstances."""

    def __call__(self, name: str, search: Search) -> Value:
        """Return a value."""
        ...


@dataclass(frozen=True)
class Space:
    """The settings that are varied.

    Attributes:
        given: Those that a person named, by their full names; None: all that the schema declares.
    """

    given: dict[str, Search] | None = None

    def choose(self, config: Config, suggest: Suggest) -> dict[str, Value]:
        """Choose values, kinds first: which settings there are depends on them.

        Args:
            config: That is varied.
            suggest: Chooses each value.

        Returns:
            A value for each varied setting, by its full name.
        """
        chosen: dict[str, Value] = {}
        while True:
            current = varied(config, chosen)
            waiting = [each for each in self._searches(current) if each[0] not in chosen]
            if not waiting:
                return chosen
            kinds = [each for each in waiting if _is_kind(current, each[0])]
            for name, key, search in kinds or waiting:
                chosen[name] = suggest(key, search)

    def _searches(self, config: Config) -> Iterator[tuple[str, str, Search]]:
        """Yield name, name for the search, and search of each setting, in order."""
        if self.given is not None:
            yield from ((name, name, search) for name, search in self.given.items())
            return
        elsewhere: dict[str, tuple[str, Search]] = {}
        for name, section in _sections(config, ""):
            kind = getattr(section, "kind", "")
            for target, search in type(section).searches.items():
                # Ranges differ, and so do the values that are good in them.
                elsewhere[target] = f"{target} ({kind})", search
            # The network of a model to start from stays what it is.
            fixed = config.start.model is not None and name.startswith(("model.", "inputs."))
            for key, field in type(section).model_fields.items():
                if key in section.idle() or (fixed and key not in section.adjustable):
                    continue
                for search in field.metadata:
                    if isinstance(search, Search):
                        yield f"{name}{key}", f"{name}{key}", search
        yield from ((name, key, search) for name, (key, search) in elsewhere.items())


def varied(config: Config, values: Mapping[str, Value]) -> Config:
    """Return a config with other values of settings.

    Raises:
        ConfigError: A value is impossible.
    """
    return override(config, [f"{name}={flow(value)}" for name, value in values.items()]) if values else config


def parse_space(file: Mapping[str, Any] | None, options: Iterable[str], config: Config) -> Space:
    """Read the settings that a person wants to vary.

    Args:
        file: Of YAML: `name: 0.1..0.5`, `name: [a, b]` or `name: {low: …, high: …, log: true}`.
        options: The same as `name=0.1..0.5` or `name=a,b`; they replace those of the file.
        config: That is varied.

    Raises:
        ConfigError: Something is wrong; lists all problems.
    """
    found: dict[str, Search] = {}
    problems: list[str] = []
    for name, value in (file or {}).items():
        try:
            found[str(name)] = _of_tree(value)
        except ValueError as problem:
            problems.append(f"{name}: {problem}")
    for text in options:
        name, equals, value = (part.strip() for part in text.partition("="))
        try:
            if not equals or not name or not value:
                raise ValueError(_EXAMPLE)
            found[name] = _of_text(value)
        except ValueError as problem:
            problems.append(f"--tune {text}: {problem}")
    for name, search in found.items():
        for part, reason in _NEVER.items():
            if name == part or name.startswith(f"{part}."):
                problems.append(f"{name} cannot be varied: {reason}")
                break
        else:
            for value in search.choices or (search.low, search.high):
                try:
                    override(config, [f"{name}={flow(value)}"])
                except ConfigError as problem:
                    problems += [each for each in problem.problems if each not in problems]
    if problems:
        raise ConfigError(problems)
    return Space(found or None)


def describe(space: Space, config: Config) -> dict[str, str]:
    """Return what is varied where all kinds are those of the config, as `parse_space` reads it."""
    return {name: write(search) for name, _, search in space._searches(config)}


def write(search: Search) -> str:
    """Write a search as `parse_space` reads it."""
    if search.choices:
        return flow(list(search.choices))
    return f"{search.low:g}..{search.high:g}{':log' if search.log else ''}"


def _of_text(text: str) -> Search:
    low, dots, high = text.partition("..")
    if dots and "," not in text:
        return _range(_number(low), _number(high.removesuffix(":log")), high.endswith(":log"))
    try:
        return _choices(parse_values(text.removeprefix("[").removesuffix("]")))
    except ConfigError as problem:
        raise ValueError(str(problem)) from None


def _of_tree(value: Any) -> Search:
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, dict):
        if set(value) - {"low", "high", "log"} or not {"low", "high"} <= set(value):
            raise ValueError("expected the keys low, high and log")
        return _range(_number(value["low"]), _number(value["high"]), value.get("log", False) is True)
    return _choices(value)


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        text = value.strip()
        with suppress(ValueError):
            value = int(text) if text.lstrip("+-").isdigit() else float(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        raise ValueError(f"{value!r:.60} is not a number; {_EXAMPLE}")
    return value


def _range(low: int | float, high: int | float, log: bool) -> Search:
    if low >= high:
        raise ValueError(f"{low:g} is not below {high:g}")
    if log and low <= 0:
        raise ValueError("a range that is searched by orders of magnitude begins above 0")
    return Search(low, high, log)


def _choices(values: Any) -> Search:
    plain = isinstance(values, list) and all(v is None or isinstance(v, str | int | float) for v in values)
    if not plain:
        raise ValueError(_EXAMPLE)
    if len(values) < 2 or len(set(map(repr, values))) < len(values):
        raise ValueError(f"expected two different values or more, or a range; {_EXAMPLE}")
    return Search(choices=tuple(values))


def _sections(section: Section, name: str) -> Iterator[tuple[str, Section]]:
    yield name, section
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, Section):
            yield from _sections(value, f"{name}{key}.")
        elif isinstance(value, dict):
            for entry, each in value.items():
                if isinstance(each, Section):
                    yield from _sections(each, f"{name}{key}.{entry}.")


def _is_kind(config: Config, name: str) -> bool:
    """Say whether a setting chooses a class of settings."""
    value: Any = config
    for part in name.removesuffix(".kind").split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return isinstance(value, Section)
