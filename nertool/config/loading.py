"""Configs as files: found by path or name, read with every problem reported at once, written with comments."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nertool.config.files import find_all, find_dataset, is_file
from nertool.config.schema import Config, Section
from nertool.errors import ConfigError

_SPLITS = ("train", "validation", "test")


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Reads and checks a YAML config.

    Args:
        path: The file.
        overrides: Settings that replace the file's, each written `a.b=c` with `c` in YAML.

    Raises:
        ConfigError: The file is missing or is no YAML mapping, or settings are wrong; all are listed.
    """
    try:
        tree = _parse_yaml(path.read_text(encoding="utf-8-sig"))
    except ConfigError as problem:
        raise ConfigError(problem.problems, path) from None
    except UnicodeDecodeError:
        raise ConfigError("not a UTF-8 text file", path) from None
    except OSError as problem:
        raise ConfigError(f"cannot be read: {problem.strerror}", path) from None
    if not isinstance(tree, dict):
        raise ConfigError("expected settings such as 'corpus:', found none", path)
    for each in overrides:
        _apply(tree, each)
    return parse_config(tree, path)


def override(config: Config, overrides: Iterable[str]) -> Config:
    """A config with some settings replaced; arguments and errors as for `load_config`."""
    return override_tree(config.model_dump(mode="json"), overrides)


def override_tree(tree: dict[str, Any], overrides: Iterable[str]) -> Config:
    """A config from a tree of settings with some replaced; arguments and errors as for `load_config`."""
    for each in overrides:
        _apply(tree, each)
    return parse_config(tree)


def parse_choices(text: str) -> tuple[str, list[Any]]:
    """Reads `a.b=c,d`: a setting's name, and values that it may take, in YAML.

    Raises:
        ConfigError: It is not of that form.
    """
    key, equals, values = text.partition("=")
    try:
        choices = _parse_yaml(f"[{values}]")
    except ConfigError as problem:
        raise ConfigError(f"--vary {text}: {problem}") from None
    if not equals or not key.strip() or not choices:
        raise ConfigError(f"--vary {text}: expected something like model.encoder.kind=rnn,gru,lstm")
    return key.strip(), list(choices)


def flow(value: Any) -> str:
    """A value in YAML, on one line, as it may stand in an override."""
    options: dict[str, Any] = {"default_flow_style": True, "allow_unicode": True, "width": 10**9}
    text: str = yaml.safe_dump(value, **options)
    if len(text.removesuffix("\n").removesuffix("\n...").splitlines()) > 1:
        text = yaml.safe_dump(value, **options, default_style='"')  # only this style writes line ends as escapes
    return text.removesuffix("\n").removesuffix("\n...")


def parse_config(tree: Mapping[str, Any], source: str | Path | None = None) -> Config:
    """Checks a tree of settings; raises ConfigError with every problem in it."""
    try:
        return Config.model_validate(tree)
    except ValidationError as failure:
        raise ConfigError([_explain(error) for error in failure.errors()], source) from None


def find_config(name: str) -> Path:
    """The file of a config given by path, or by the name of one that ships with nertool.

    Raises:
        ConfigError: There is neither; lists the shipped names.
    """
    given = Path(name)
    if is_file(given):
        return given
    shipped = {path.name: path for folder in _config_folders() for path in sorted(folder.glob("*.yaml"))}
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return shipped[candidate]
    near = difflib.get_close_matches(given.stem, [path.stem for path in shipped.values()], n=1)
    hint = f" Did you mean {near[0]}.yaml?" if near else ""
    raise ConfigError(f"no config {name!r} here, and none ships under that name ({', '.join(shipped)}).{hint}")


def locate_corpus(config: Config, source: Path | None) -> Config:
    """Replaces the names of corpus and vector files by the paths where they are found.

    Args:
        config: The config.
        source: The file that it was read from: its folder is looked in too.

    Raises:
        ConfigError: Files are missing; lists each, and where it was looked for.
    """
    also = [source.resolve().parent] if source else []
    hub = config.corpus.hub
    # Under `hub` these name splits, and a folder of the dataset's name stands in for the hub.
    given = {} if hub else {key: name for key in _SPLITS if (name := getattr(config.corpus, key)) is not None}
    try:
        paths = find_all([*given.values(), *config.words.vectors], also)
        splits = (
            {"hub": find_dataset(hub, also)} if hub else {key: str(paths[name]) for key, name in given.items()}
        )
    except ConfigError as problem:
        raise ConfigError(problem.problems, source) from None
    vectors = tuple(str(paths[name]) for name in config.words.vectors)
    return config.model_copy(
        update={
            "corpus": config.corpus.model_copy(update=splits),
            "words": config.words.model_copy(update={"vectors": vectors}),
        }
    )


def dump_config(config: Config) -> str:
    """The config as YAML, every setting with its meaning beside it."""
    lines: list[str] = []
    _dump(config, 0, lines)
    return "\n".join(lines) + "\n"


def _dump(section: Section, depth: int, lines: list[str]) -> None:
    indent = "  " * depth
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Section):
            lines.append(f"{indent}{key}:")
            _dump(value, depth + 1, lines)
        else:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{indent}{key}: {flow(plain)}  # {field.description}")


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, in which a key written twice is an error and aliases (YAML bombs) are refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or mapping cannot be a key", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    # The others leave PyYAML where a date or number is impossible (2024-13-45) or lists are nested too deep.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as problem:
        raise ConfigError(f"not valid YAML: {' '.join(str(problem).split())}") from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set {override}: expected something like training.epochs=5")
    try:
        value = _parse_yaml(text)
    except ConfigError as problem:
        raise ConfigError(f"--set {override}: {problem}") from None
    for name in names[:-1]:
        branch = tree.setdefault(name, {})
        if branch is None:
            branch = tree[name] = {}
        if not isinstance(branch, dict):
            raise ConfigError(f"--set {override}: {name!r} is a single setting, not a group")
        tree = branch
    tree[names[-1]] = value


def _explain(error: Mapping[str, Any]) -> str:
    place = [str(part) for part in error["loc"]]
    where = ".".join(place) or "the config"
    if error["type"] == "extra_forbidden":
        section: Any = Config
        for part in place[:-1]:
            section = section.model_fields[part].annotation if part in section.model_fields else section
        known = list(section.model_fields)
        near = difflib.get_close_matches(place[-1], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{where}: no such setting; {'.'.join(place[:-1]) or 'the config'} has {', '.join(known)}.{hint}"
    if error["type"] == "missing":
        return f"{where}: is missing and has no default"
    found = error.get("input")
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(found, dict | Section) else f", found {found!r}"
    return f"{where}: {message[0].lower() + message[1:]}{shown}"


def _config_folders() -> list[Path]:
    package = Path(__file__).resolve().parent.parent
    return [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
