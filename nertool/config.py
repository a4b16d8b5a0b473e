"""What a run is made of: a typed tree read from YAML, every default visible, every unknown key refused.

The tree is the only place that knows a setting's name, default, range and meaning; the comments of a
written config are the `description`s below.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nertool.errors import ConfigError
from nertool.files import find

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Size = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of settings: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class CorpusConfig(Section):
    """Which files hold the words and labels, and how to read them."""

    train: str = Field(description="file of labelled sentences to learn from")
    validation: str = Field(description="file that chooses the best epoch")
    test: str | None = Field(None, description="file scored once, when training has ended")
    columns: tuple[str, ...] | None = Field(
        None, description="names of the columns, left to right; none: first is token, last is label"
    )
    label: str = Field("label", description="name of the column with the labels to learn")
    scheme: Literal["detect", "IOB1", "IOB2", "IOBES", "BILOU", "BMES", "plain"] = Field(
        "detect", description="label scheme of the files"
    )
    learn_scheme: Literal["IOB1", "IOB2", "IOBES", "BILOU", "BMES"] = Field(
        "IOBES", description="scheme that the network learns (plain tags stay plain)"
    )
    stray: Literal["repair", "refuse"] = Field(
        "repair", description="a label that the scheme forbids at its place, such as a stray I-"
    )
    strip: str | None = Field(None, description="regular expression removed from each token")

    @field_validator("columns")
    @classmethod
    def _columns_have_a_token(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if columns is not None:
            if "token" not in columns:
                raise ValueError("one of the columns must be called 'token'")
            if len(set(columns)) != len(columns):
                raise ValueError("each column needs a name of its own")
        return columns

    @field_validator("strip")
    @classmethod
    def _strip_is_a_pattern(cls, strip: str | None) -> str | None:
        import re

        if strip is not None:
            try:
                re.compile(strip)
            except re.error as problem:
                raise ValueError(f"not a regular expression: {problem}") from None
        return strip

    @model_validator(mode="after")
    def _label_is_a_column(self) -> CorpusConfig:
        if self.columns is not None and self.label not in self.columns:
            raise ValueError(f"label: no column is called {self.label!r} (columns: {', '.join(self.columns)})")
        return self


class WordsConfig(Section):
    """The word vectors."""

    vectors: tuple[str, ...] = Field(
        (), description="files of pretrained vectors (GloVe or word2vec); several are concatenated"
    )
    dimensions: Size = Field(100, description="size of a word vector where no file is given")
    minimum_count: Size = Field(
        1, description="training words rarer than this, and without a pretrained vector, are unknown words"
    )
    extra_rows: Annotated[int, Field(ge=0)] = Field(
        100_000, description="how many pretrained words outside the training split keep their vectors"
    )
    dropout: Fraction = Field(0.0, description="share of tokens whose word is hidden during training")
    trainable: bool = Field(True, description="whether training changes the vectors")


class CharactersConfig(Section):
    """What a word's spelling adds to its vector."""

    kind: Literal["cnn", "none"] = Field("cnn", description="a convolution over the characters, or nothing")
    dimensions: Size = Field(30, description="size of a character vector")
    filters: Size = Field(50, description="number of convolution filters, which is the size of the result")
    width: Annotated[int, Field(ge=1, le=9)] = Field(3, description="characters that a filter sees")
    dropout: Fraction = Field(0.0, description="dropout on the character vectors")
    maximum: Size = Field(64, description="characters of a word that are looked at, counted from its start")

    @field_validator("width")
    @classmethod
    def _width_is_odd(cls, width: int) -> int:
        if width % 2 == 0:
            raise ValueError("must be odd, so that a filter has a middle")
        return width


class EncoderConfig(Section):
    """The recurrent network over the sentence."""

    kind: Literal["lstm"] = Field("lstm", description="recurrent cell")
    hidden: Size = Field(200, description="units in each direction")
    layers: Annotated[int, Field(ge=1, le=8)] = Field(1, description="layers, one above the other")
    bidirectional: bool = Field(True, description="read the sentence from both ends")


class ModelConfig(Section):
    """The network: characters and words, encoder, decoder."""

    characters: CharactersConfig = Field(default_factory=CharactersConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    decoder: Literal["crf", "softmax"] = Field(
        "crf", description="score whole label sequences, or each label by itself"
    )
    constraints: Literal["none", "decoding", "always"] = Field(
        "decoding",
        description="where label sequences that the scheme forbids are ruled out; always: in the loss too",
    )
    dropout: Fraction = Field(0.5, description="dropout before and after the encoder")


class TrainingConfig(Section):
    """How the network learns."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(1, description="same seed, same machine: same model")
    epochs: Size = Field(50, description="passes over the training split, at most")
    patience: Size = Field(10, description="epochs without a better validation F1 before training ends")
    batch_size: Size = Field(10, description="sentences in a batch")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="update rule")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(0.015, description="step size of the first epoch")
    decay: Annotated[float, Field(ge=0.0)] = Field(
        0.05, description="epoch n (from 0) learns with learning_rate / (1 + decay * n)"
    )
    momentum: Fraction = Field(0.9, description="momentum of sgd")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="L2 penalty on all weights but the word vectors (decoupled for adamw)"
    )
    clip: Annotated[float, Field(ge=0.0)] = Field(5.0, description="largest norm of the gradient; 0: no limit")
    averaging: Fraction = Field(
        0.0, description="decay per step of an exponential moving average of the weights; 0: none"
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="processor threads; 0: all there are")


class Config(Section):
    """A whole run: what to read, what to build, how to train it."""

    language: str = Field("en", description="language of the tokeniser for raw text (a spaCy code)")
    corpus: CorpusConfig
    words: WordsConfig = Field(default_factory=WordsConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Reads and checks a YAML config.

    Args:
        path: The file.
        overrides: Settings that replace the file's, each written `a.b=c` with `c` in YAML.

    Raises:
        ConfigError: The file is missing or is no YAML mapping, or settings are wrong; all are listed.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_StrictLoader)
    except yaml.YAMLError as problem:
        raise ConfigError(f"not valid YAML: {_one_line(problem)}", path) from None
    except UnicodeDecodeError:
        raise ConfigError("not a UTF-8 text file", path) from None
    except OSError as problem:
        raise ConfigError(f"cannot be read: {problem.strerror}", path) from None
    if not isinstance(tree, dict):
        raise ConfigError("expected settings such as 'corpus:', found none", path)
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree, path)


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
    if given.is_file():
        return given
    shipped = {path.name: path for folder in _config_folders() for path in sorted(folder.glob("*.yaml"))}
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return shipped[candidate]
    near = difflib.get_close_matches(name, shipped, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no config {name!r} here, and none ships under that name ({', '.join(shipped)}).{hint}")


def locate_corpus(config: Config, source: Path | None) -> Config:
    """Replaces the names of corpus and vector files by the paths where they are found.

    Args:
        config: The config.
        source: The file that it was read from: its folder is looked in too.

    Raises:
        ConfigError: Files are missing; lists each, and where it was looked for.
    """
    beside = [source.resolve().parent] if source is not None else []
    problems: list[str] = []

    def located(name: str) -> str:
        try:
            return str(find(name, beside))
        except ConfigError as problem:
            problems.extend(problem.problems)
            return name

    corpus = {key: located(name) for key in ("train", "validation", "test") if (name := getattr(config.corpus, key))}
    vectors = tuple(located(name) for name in config.words.vectors)
    if problems:
        raise ConfigError(problems, source)
    return config.model_copy(
        update={
            "corpus": config.corpus.model_copy(update=corpus),
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
            text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10**9)
            text = text.removesuffix("\n").removesuffix("\n...")
            lines.append(f"{indent}{key}: {text}  # {field.description}")


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe subset, in which a key written twice is an error and aliases (YAML bombs) are refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set {override}: expected something like training.epochs=5")
    try:
        value = yaml.load(text, Loader=_StrictLoader) if text.strip() else None
    except yaml.YAMLError as problem:
        raise ConfigError(f"--set {override}: not valid YAML: {_one_line(problem)}") from None
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


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())


def _config_folders() -> list[Path]:
    package = Path(__file__).resolve().parent
    return [folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()]
