"""Configs as files: found by path or name, read with every problem reported at once, written with comments."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from pydantic import ValidationError

from nertool.config.files import (
    find_all,
    find_dataset,
    find_transformer,
    is_file,
    is_folder,
    join_member,
    split_member,
)
from nertool.config.model_names import find_model
from nertool.config.schema import (
    CHOICES,
    READ_BY_SPACY,
    Choice,
    Config,
    Section,
    UnknownKindError,
    complete_inputs,
    kind_names,
    kinds_of,
)
from nertool.config.vector_sets import PIPELINE, meant, parse_name
from nertool.config.vector_sets import locate as locate_vectors
from nertool.errors import ConfigError

Name = tuple[str, ...]
"""A setting's full name, in parts."""

_SPLITS = ("train", "validation", "test")
_MOVED = {
    "words": "inputs.words",
    "model.characters": "inputs.characters",
    "model.characters.kind": "inputs.characters.network (`inputs.characters: null` switches it off)",
    "model.characters.case_dimensions": "inputs.case.dimensions",
    "model.constraints": "model.decoder.constraints",
    "training.momentum": "training.optimizer.momentum",
    "training.weight_decay": "training.optimizer.weight_decay",
    "training.decay": "training.schedule.decay",
    "training.reduce_every": "training.schedule.reduce_every",
    "training.reduce_by": "training.schedule.reduce_by",
    "training.warmup": "training.schedule.warmup",
}
_LONGEST_VALUE = 100
_LONGEST_NUMBER = 50  # characters
LARGEST = 2**17  # bytes of a config; those that ship have some thousands


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read and check a YAML config.

    Args:
        path: The file.
        overrides: Settings that replace those of the file, each written `a.b=c` with `c` in YAML. An override that
            chooses another kind (`model.encoder.kind=cnn`, `model.encoder=cnn`) keeps what the file says of
            settings that the new kind reads, and drops the others.

    Raises:
        ConfigError: The file is missing or is not a YAML mapping, or settings are wrong; lists all problems.
    """
    tree = read_tree(path)
    if tree is None:
        raise ConfigError("expected settings such as 'corpus:', found none", path)
    return parse_config(_overridden(tree, overrides), path)


def read_tree(path: Path) -> dict[str, Any] | None:
    """Read a YAML file that holds a mapping; None if it holds something else.

    Raises:
        ConfigError: The file cannot be read, or is not YAML.
    """
    try:
        tree = _parse_yaml(_read(path))
    except ConfigError as problem:
        raise ConfigError(problem.problems, path) from None
    except UnicodeDecodeError:
        raise ConfigError("not a UTF-8 text file", path) from None
    except OSError as problem:
        raise ConfigError(f"cannot be read: {problem.strerror}", path) from None
    return tree if isinstance(tree, dict) else None


def parse_values(text: str) -> list[Any]:
    """Read values in YAML, separated by commas.

    Raises:
        ConfigError: They are not YAML.
    """
    return list(_parse_yaml(f"[{text}]"))


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ConfigError(f"too large for a config: more than {LARGEST:,} bytes")
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def override(config: Config, overrides: Iterable[str]) -> Config:
    """Replace some settings of a config; arguments and errors as for `load_config`."""
    return override_tree(config.model_dump(mode="json"), overrides)


def override_tree(tree: Mapping[str, Any], overrides: Iterable[str]) -> Config:
    """Check a tree of settings after replacing some; arguments and errors as for `load_config`."""
    return parse_config(_overridden(tree, overrides))


def parse_choices(text: str, option: str = "--vary") -> tuple[str, list[Any]]:
    """Read `a.b=c,d`: a setting's name, and values that it may take, in YAML.

    Args:
        text: As given.
        option: Where, for the error.

    Raises:
        ConfigError: It is not of that form.
    """
    key, equals, values = text.partition("=")
    try:
        choices = _parse_yaml(f"[{values}]")
    except ConfigError as problem:
        raise ConfigError(f"{option} {_short(text)}: {problem}") from None
    if not equals or not key.strip() or not choices:
        raise ConfigError(f"{option} {_short(text)}: expected something like model.encoder.kind=rnn,gru,lstm")
    return key.strip(), list(choices)


def flow(value: Any) -> str:
    """Write a value in YAML on one line, as it may stand in an override."""
    options: dict[str, Any] = {"default_flow_style": True, "allow_unicode": True, "width": 10**9}
    text: str = yaml.safe_dump(value, **options)
    if len(text.removesuffix("\n").removesuffix("\n...").splitlines()) > 1:
        text = yaml.safe_dump(value, **options, default_style='"')  # only this style writes line ends as escapes
    return text.removesuffix("\n").removesuffix("\n...")


def parse_config(tree: Mapping[str, Any], source: str | Path | None = None) -> Config:
    """Check a tree of settings.

    Args:
        tree: As read from YAML.
        source: Where it comes from, for the error.

    Raises:
        ConfigError: Settings are wrong; lists all problems.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as failure:
        problems = [line for error in failure.errors() for line in _explain(error, tree)]
        raise ConfigError(problems, source) from None


def find_config(name: str) -> Path:
    """Find the file of a config given by path, or by the name of one that ships with nertool.

    Raises:
        ConfigError: There is neither; lists the shipped names.
    """
    given = Path(name)
    if is_file(given):
        return given
    shipped = _shipped_configs()
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return shipped[candidate]
    near = difflib.get_close_matches(given.stem, [path.stem for path in shipped.values()], n=1)
    hint = f" Did you mean {near[0]}.yaml?" if near else ""
    raise ConfigError(f"no config {name!r} here, and none ships under that name ({', '.join(shipped)}).{hint}")


def names_config(name: str) -> bool:
    """Say whether a name is that of a config, and not of a data file: by its suffix, or because it ships."""
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        return True
    return not is_file(Path(name)) and f"{name}.yaml" in _shipped_configs()


def locate_files(config: Config, source: Path | None) -> Config:
    """Replace the names of files (corpus, word vectors, gazetteers, a model) by the paths where they are found.

    Names of vectors that have been fetched, such as `glove-100`, stay names; they come before files.

    Args:
        config: The config.
        source: The file that it was read from: its folder is searched too.

    Raises:
        ConfigError: Files are missing, or vectors have not been fetched; lists each, and the folders that were
            searched.
    """
    also = [source.resolve().parent] if source else []
    corpus = config.corpus
    # Under `hub` these name splits, and a folder of the dataset's name stands in for the hub.
    named = {} if corpus.hub else {key: getattr(corpus, key) for key in _SPLITS}
    splits = {key: name for key, name in named.items() if name not in (None, READ_BY_SPACY)}
    weights = {} if corpus.weights is None else {"weights": corpus.weights}
    needed = {
        (entry, key): getattr(section, key)
        for entry, section in config.inputs.items()
        for key in section.file_settings
    }
    vectors = [name for (_, key), names in needed.items() if key == "vectors" for name in names]
    known, problems = locate_vectors(vectors)
    members = {name: split_member(name) for names in needed.values() for name in names if name not in known}
    found: dict[str, Any] = {}
    try:
        paths = find_all(
            [*splits.values(), *weights.values(), *(file for file, _ in members.values())],
            also,
            folders_too={*splits.values(), *vectors},  # a folder of brat's, of model2vec's
        )
        found = {"hub": find_dataset(corpus.hub, also)} if corpus.hub else {}
        model = None if config.start.model is None else str(find_model(config.start.model, also))
    except ConfigError as problem:
        near = {name: meant(name) for name in vectors if name in str(problem)}
        hints = [
            f"; `nertool vectors fetch {each}` gets vectors that are named {each}"
            for each in dict.fromkeys(near.values())
            if each
        ]
        if any(each is None and not Path(name).suffix for name, each in near.items()):
            hints.append("; `nertool vectors` lists the vectors that have a name")
        problems = [*problem.problems[:-1], "".join([problem.problems[-1], *hints]), *problems]
    transformers: dict[str, str] = {}
    for entry, section in config.active_inputs.items():
        if section.kind == "transformer":
            try:
                transformers[entry] = find_transformer(section.model, also)
            except ConfigError as problem:
                problems.append(f"inputs.{entry}.model: {problem}")
                continue
            if section.revision is not None and is_folder(Path(transformers[entry])):
                problems.append(f"inputs.{entry}.revision: has no effect, because {section.model} is a folder")
    if problems:
        raise ConfigError(problems, source)
    found |= {key: str(paths[name]) for key, name in (splits | weights).items()}
    inputs = dict(config.inputs)
    places = {name: join_member(paths[file], member) for name, (file, member) in members.items()}
    for (entry, key), names in needed.items():
        inputs[entry] = inputs[entry].model_copy(update={key: tuple(places.get(name, name) for name in names)})
    for entry, place in transformers.items():
        inputs[entry] = inputs[entry].model_copy(update={"model": place})
    start = config.start.model_copy(update={"model": model})
    return config.model_copy(update={"corpus": corpus.model_copy(update=found), "inputs": inputs, "start": start})


def without_folders(config: Config) -> Config:
    """Return a config that says what its files are called, and not how folders of this machine are."""

    def name(file: str | None) -> str | None:
        return None if file is None else PurePath(file).name or file

    def names(files: tuple[str, ...]) -> tuple[str | None, ...]:
        return tuple(file if parse_name(file) or file.startswith(PIPELINE) else name(file) for file in files)

    corpus = config.corpus
    parts: dict[str, Any] = {"weights": name(corpus.weights)}
    if corpus.hub is None:
        parts |= {key: name(getattr(corpus, key)) for key in ("train", "validation", "test")}
    elif Path(corpus.hub).is_dir():
        parts["hub"] = name(corpus.hub)
    start = config.start.model_copy(update={"model": name(config.start.model)})
    inputs = {
        key: entry.model_copy(update={each: names(getattr(entry, each)) for each in entry.file_settings})
        for key, entry in config.inputs.items()
    }
    for key, entry in inputs.items():
        if entry.kind == "transformer" and is_folder(Path(entry.model)):
            inputs[key] = entry.model_copy(update={"model": name(entry.model)})
    return config.model_copy(update={"corpus": corpus.model_copy(update=parts), "inputs": inputs, "start": start})


def in_force(config: Config) -> dict[str, Any]:
    """Return the settings that have an effect, as a tree of plain values.

    Configs that differ in others alone, such as `held_out` beside a validation file, describe the same run.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Section):
            return {key: plain(getattr(value, key)) for key in type(value).model_fields if key not in value.idle()}
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        return list(value) if isinstance(value, tuple) else value

    tree: dict[str, Any] = plain(config)
    return tree


# Writing


def dump_config(config: Config) -> str:
    """Write a config as YAML, every setting with its meaning beside it.

    A setting that has no effect is left out where it has its default.
    """
    return "".join(f"{line}\n" for line in _lines(config, ()))


def _lines(section: Section, path: Name) -> Iterator[str]:
    indent = "  " * len(path)
    idle = section.idle()
    choice = _choice_at(path)
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if key in idle and value == field.default:
            continue
        comment = field.description or ""
        if isinstance(value, Section):
            yield f"{indent}{key}:{comment and f'  # {comment}'}"
            yield from _lines(value, (*path, key))
        elif isinstance(value, dict):
            yield f"{indent}{key}:{comment and f'  # {comment}'}"
            for name, entry in value.items():
                if entry.kind == "none":
                    yield f"{indent}  {flow(name)}: null  # switched off"
                else:
                    yield f"{indent}  {flow(name)}:"
                    yield from _lines(entry, (*path, key, name))
        else:
            if choice and key in section.chosen_by:
                kinds = kinds_of(
                    [each for each in (*choice.built_in, type(section)) if key in each.chosen_by], key
                )
                comment = f"{comment} (one of {', '.join(kinds)})"
            plain = list(value) if isinstance(value, tuple) else value
            yield f"{indent}{key}: {flow(plain)}{comment and f'  # {comment}'}"


# Overriding


def _overridden(settings: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply overrides to a tree of settings, and drop what they made the tree's own kinds no longer read."""
    tree: dict[str, Any] = copy.deepcopy(dict(settings))
    given: list[tuple[str, Name, Any]] = []
    problems: list[str] = []
    for text in overrides:
        try:
            given.append((text, *_parse_override(text)))
        except ConfigError as problem:
            problems += problem.problems
    if problems:
        raise ConfigError(problems)
    before = {path: _class_at(tree, path) for path in _choice_paths(tree)}
    own: set[Name] = set()  # what overrides have set: never dropped
    for text, path, value in given:
        branch = _branch(tree, path, text)
        choice = _choice_at(path)
        entry = branch.get(path[-1])
        if choice and isinstance(value, str):
            # Another kind, and of the other settings those that it reads.
            branch[path[-1]] = {**_entry(entry), "kind": value}
            own.add((*path, "kind"))
            continue
        for old in [old for old in before if old[: len(path)] == path]:
            del before[old]
        branch[path[-1]] = value
        own.update(_paths(path, value))
    for path in _choice_paths(tree):
        new = _class_at(tree, path)
        if new is None:
            continue
        entry = _entry(_get(tree, path))
        old_class = before.get(path)
        dropped = set(old_class.model_fields) - set(new.model_fields) if old_class else set()
        for key, replaced in new.replaces.items():
            if (*path, key) in own and entry.get(key):
                dropped |= set(replaced)
        kept = {key: value for key, value in entry.items() if key not in dropped or (*path, key) in own}
        if len(kept) < len(entry):
            _branch(tree, path, "")[path[-1]] = kept
    return tree


def _parse_override(text: str) -> tuple[Name, Any]:
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ConfigError(f"--set {_short(text)}: expected something like training.epochs=5")
    try:
        return path, _parse_yaml(value)
    except ConfigError as problem:
        raise ConfigError(f"--set {_short(text)}: {problem}") from None


def _paths(path: Name, value: Any) -> Iterator[Name]:
    """Yield the names of a group and of all settings in it."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else ():
        yield from _paths((*path, key), each)


def _branch(tree: dict[str, Any], path: Name, text: str) -> dict[str, Any]:
    """Return the mapping that holds a setting, made where there is none; a shorthand becomes a mapping."""
    for depth, name in enumerate(path[:-1], 1):
        value = tree.get(name)
        if value is None or (_choice_at(path[:depth]) and isinstance(value, str)):
            switched_off = name in tree and len(path[:depth]) == 2 and path[0] == "inputs"
            value = tree[name] = {"kind": "none"} if switched_off else _entry(value)
        if not isinstance(value, dict):
            raise ConfigError(f"--set {_short(text)}: {name!r} is a single setting, not a group")
        tree = value
    return tree


def _entry(value: Any) -> dict[Any, Any]:
    """Return an entry as a mapping: a string is its kind."""
    return value if isinstance(value, dict) else {"kind": value} if isinstance(value, str) else {}


# Walking the schema


def _choice_at(path: Sequence[str]) -> Choice | None:
    return CHOICES.get("inputs.*" if len(path) == 2 and path[0] == "inputs" else ".".join(path))


def _choice_paths(tree: Mapping[str, Any]) -> list[Name]:
    """Return the paths of all entries that choose a kind, as far as the tree has them."""
    inputs = tree.get("inputs")
    paths = [("inputs", name) for name in inputs] if isinstance(inputs, dict) else []
    paths += [tuple(name.split(".")) for name in CHOICES if "*" not in name]  # type: ignore[misc]
    return [path for path in paths if _get(tree, path) is not None]


def _get(tree: Any, path: Sequence[Any]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _class_at(tree: Mapping[str, Any], path: Sequence[str]) -> type[Section] | None:
    """Return the class that reads an entry of a tree; None where its kind is unknown."""
    choice = _choice_at(path)
    assert choice is not None
    entry = _get(tree, path)
    if path[0] == "inputs":
        entry = complete_inputs({path[1]: entry})[path[1]]
    entry = choice.complete(entry)
    try:
        return choice.find(entry) if isinstance(entry, dict) else None
    except UnknownKindError:
        return None


def _section_at(tree: Mapping[str, Any], path: Sequence[str]) -> type[Section] | None:
    """Return the class that reads a group of a tree of settings."""
    section: type[Section] | None = Config
    for depth in range(1, len(path) + 1):
        if _choice_at(path[:depth]):
            section = _class_at(tree, path[:depth])
        elif section is not None and path[depth - 1] in section.model_fields:
            found = section.model_fields[path[depth - 1]].annotation
            section = found if isinstance(found, type) and issubclass(found, Section) else None
    return section


def _all_settings(section: type[Section] = Config, path: str = "") -> Iterator[str]:
    """Yield the full names of all settings and groups; an input stands under the name of its kind."""
    for key in section.model_fields:
        name = f"{path}{key}"
        yield name
        found = section.model_fields[key].annotation
        if name == "inputs":
            for each in CHOICES["inputs.*"].classes:
                entry = f"{name}.{kind_names(each)[0]}"
                yield entry
                yield from _all_settings(each, f"{entry}.")
        elif name in CHOICES:
            for each in CHOICES[name].classes:
                yield from _all_settings(each, f"{name}.")
        elif isinstance(found, type) and issubclass(found, Section):
            yield from _all_settings(found, f"{name}.")


# Explaining what is wrong


def _explain(error: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a setting: its full name, what was found and what was expected."""
    path = tuple(str(part) for part in error["loc"])
    where = ".".join(path)
    found = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return _unknown(path, found, tree)
        case "kind":
            return [_unknown_kind(path, found, error["ctx"]["key"], error["ctx"]["kinds"])]
        case "missing":
            return [f"{where}: is missing and has no default"]
        case "string_pattern_mismatch" if path == ("language",):
            wanted = "a code of two or three lower-case letters, such as en or de"
            return [f"{where}: expected {wanted}, found {_shown(found)}"]
        case "string_pattern_mismatch" if path[-1] == "[key]":
            return [
                f"{'.'.join(path[:-1])}: the name of an input consists of a-z, 0-9 and _, and begins with a letter"
            ]
    message = re.sub("^Value error, | or instance of .*", "", error["msg"])
    if error["type"] == "value_error" and isinstance(found, dict | Section):
        # What is wrong with a group begins with the setting that is to be changed.
        named = re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)*): (.*)", message, re.DOTALL)
        if named:
            return [f"{'.'.join([*path, named[1]])}: {named[2]}"]
    shown = "" if isinstance(found, dict | Section) else f", found {_shown(found)}"
    return [f"{where or 'the config'}: {message[0].lower() + message[1:]}{shown}"]


def _shown(value: object) -> str:
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def _unknown_kind(path: Name, found: Any, key: str, kinds: list[str]) -> str:
    value = found.get(key) if isinstance(found, dict) else found
    where = ".".join(path if isinstance(found, str) else (*path, key))
    expected = _either([repr(kind) for kind in kinds])
    if value is None:
        near = difflib.get_close_matches(path[-1], kinds, n=1) if path[0] == "inputs" else []
        hint = f". Did you mean inputs.{near[0]}?" if near else ""
        return f"{where}: is missing; it should be {expected}{hint}"
    near = difflib.get_close_matches(str(value), kinds, n=1)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return f"{where}: input should be {expected}, found {_shown(value)}{hint}"


def _unknown(path: Name, found: Any, tree: Mapping[str, Any]) -> list[str]:
    """Say which setting was meant by a key that is not read."""
    where = ".".join(path)
    moved = [
        f"{old}: no such setting; it is now {new}"
        for old in (_leaves(path, found) if where in _MOVED else [])
        if (new := _new_name(old))
    ]
    if moved:
        return moved
    *parent, key = path
    section = _section_at(tree, parent)
    choice = _choice_at(parent)
    if choice and section:
        readers = [each for each in choice.classes if key in each.model_fields]
        if readers:
            same = [
                each for each in readers if kind_names(each) == kind_names(section) and len(each.chosen_by) > 1
            ]
            told_by = section.chosen_by[-1] if same else "kind"
            entry = choice.complete(_get(tree, parent), parent[-1]) or {}
            kind = entry.get(told_by, "this kind")
            names = kinds_of(same or readers, told_by)
            verb = "does" if len(names) == 1 else "do"
            return [f"{where}: {kind} does not read this setting; {_either(names, 'and')} {verb}"]
    known = list(section.model_fields) if section else []
    hints = _meant(path, known)
    hint = f" Did you mean {_either(hints)}?" if hints else ""
    return [f"{where}: no such setting; {'.'.join(parent) or 'the config'} has {', '.join(known)}.{hint}"]


def _leaves(path: Name, value: Any) -> list[str]:
    """Return the full names of the settings in a group."""
    if not isinstance(value, dict) or not value:
        return [".".join(path)]
    return [name for key, each in value.items() for name in _leaves((*path, str(key)), each)]


def _new_name(old: str) -> str | None:
    """Return what replaced a setting of earlier versions."""
    if old in _MOVED:
        return _MOVED[old]
    group, _, key = old.rpartition(".")
    return f"{_MOVED[group]}.{key}" if group in _MOVED else None


def _meant(path: Name, known: list[str]) -> list[str]:
    """Return full names of settings that may have been meant, at most three."""
    *parent, key = path
    everywhere = list(_all_settings())

    def best(names: Iterable[str]) -> list[str]:
        # Those of the same group first, inputs last, and of the others those nearest to the top.
        def rank(name: str) -> tuple[object, ...]:
            group = name.partition(".")[0]
            return group != path[0], group == "inputs", name.count("."), name

        return sorted(set(names), key=rank)[:3]

    same = best(name for name in everywhere if name.rpartition(".")[2] == key)
    if same:
        return same
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return [".".join([*parent, near[0]])]
    leaves = difflib.get_close_matches(key, {name.rpartition(".")[2] for name in everywhere}, n=1, cutoff=0.75)
    return best(name for name in everywhere if leaves and name.rpartition(".")[2] == leaves[0])


def _either(names: Sequence[str], word: str = "or") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


# YAML


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


def _construct_number(loader: _StrictLoader, node: yaml.ScalarNode) -> Any:
    """Make a number, unless it has so many digits that Python takes long to read it, or refuses to write it."""
    if len(node.value) > _LONGEST_NUMBER:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of more than {_LONGEST_NUMBER} characters", node.start_mark
        )
    if node.tag.endswith("int"):
        return loader.construct_yaml_int(node)
    return loader.construct_yaml_float(node)


for _tag in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct_number)


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        what = ", ".join(filter(None, (problem.context, problem.problem)))
        raise ConfigError(f"not valid YAML: {what}{place}") from None
    # The others leave PyYAML where a date or number is impossible (2024-13-45) or lists are nested too deep.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as problem:
        raise ConfigError(f"not valid YAML: {' '.join(str(problem).split())}") from None


def _shipped_configs() -> dict[str, Path]:
    return {path.name: path for folder in _config_folders() for path in sorted(folder.glob("*.yaml"))}


def _config_folders() -> list[Path]:
    package = Path(__file__).resolve().parent.parent
    return [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
