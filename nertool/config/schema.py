"""The settings of a run: a typed tree in which every default is visible and every unknown key is refused.

One class describes one kind: `model.encoder: {kind: lstm}` is read by the class of recurrent encoders, which has
no `width`. So a setting that the chosen kind does not read is refused, and a written config shows what is in force
and no more. The field descriptions below are the comments of written configs.

Where there are several kinds, a `Choice` (see `CHOICES`) finds the class of an entry. Other packages add kinds of
inputs and encoders by the entry points `nertool.inputs` and `nertool.encoders`, loaded when a config names a kind
that is not built in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nertool.config.patterns import compile_pattern
from nertool.errors import ConfigError
from nertool.forking import no_fork


@dataclass(frozen=True)
class Search:
    """Where `nertool tune` looks for a good value of a setting: beside its type, in `Annotated`.

    Attributes:
        low, high: A range, both included; whole numbers give whole numbers.
        log: Whether the range is searched by orders of magnitude.
        choices: Values to choose from, instead of a range.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    choices: tuple[str | int | float | bool | None, ...] = ()


Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
# Bounds that no sensible setting reaches: beyond them memory ends, or threads cannot be made.
Size = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Epochs = Annotated[int, Field(strict=True, ge=1, le=100_000)]
Number = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Layer = Annotated[int, Field(strict=True, ge=-256, le=256)]
Dilation = Annotated[int, Field(strict=True, ge=1, le=64)]

MOST_FOLDS = 1_000
READ_BY_SPACY = "(read by spaCy)"  # corpus.train of a model that the spaCy component trained


def _odd(width: int) -> int:
    if width % 2 == 0:
        raise ValueError("must be odd, so that a filter has a middle")
    return width


Width = Annotated[int, Field(strict=True, ge=1, le=9), AfterValidator(_odd)]

DEVICES = "auto, cpu, cuda, cuda:N (of several GPUs the one of number N, from 0) or mps"


def is_device(name: str) -> bool:
    """Say whether a name is one of a device; nobody knows yet whether it is there."""
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", name) is not None


def _device(name: str) -> str:
    if not is_device(name):
        raise ValueError(f"there is no device {name!r}; expected {DEVICES}")
    return name


def _as_tuple(given: object) -> object:
    return (given,) if isinstance(given, str) else given


Files = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class Section(BaseModel):
    """A group of settings: immutable, and closed to unknown keys.

    Attributes:
        chosen_by: The settings that choose this class among those of a `Choice`, the first one first.
        file_settings: The settings that name files.
        places: The settings that say where something is whose content is known by other means: it may move.
        replaces: For a setting the others that are not read where it is given.
        searches: Where to look for good values of settings elsewhere, by full names, if this class is chosen.
        adjustable: The settings that may differ from those of the model that a training starts from, as they
            change neither the sizes nor the meaning of its weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
    chosen_by: ClassVar[tuple[str, ...]] = ("kind",)
    file_settings: ClassVar[tuple[str, ...]] = ()
    places: ClassVar[tuple[str, ...]] = ()
    replaces: ClassVar[dict[str, tuple[str, ...]]] = {}
    searches: ClassVar[dict[str, Search]] = {}
    adjustable: ClassVar[tuple[str, ...]] = ()

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return set()


@cache
def plugins(group: str) -> tuple[type[Any], ...]:
    """Load the classes that other packages register under a group of entry points.

    Each has an attribute `Config`, a `Section` with a field `kind` of type `Literal`.

    Raises:
        ConfigError: One of them cannot be loaded, or is no such class.
    """
    classes: list[type[Any]] = []
    for entry in entry_points(group=group):
        try:
            with no_fork():
                loaded = entry.load()
            kind_names(loaded.Config)
        except Exception as problem:
            raise ConfigError(
                f"the entry point {entry.name!r} of {group} cannot be loaded: {problem}"
            ) from problem
        classes.append(loaded)
    return tuple(classes)


def kind_names(section: type[Section], key: str = "kind") -> tuple[str, ...]:
    """Return the kinds that a class describes, such as `("rnn", "gru", "lstm")`."""
    names: tuple[str, ...] = section.model_fields[key].annotation.__args__  # type: ignore[union-attr]
    return names


def kinds_of(sections: Iterable[type[Section]], key: str = "kind") -> list[str]:
    """Return the kinds that classes describe together, each once, in order."""
    return list(dict.fromkeys(name for section in sections for name in kind_names(section, key)))


class UnknownKindError(LookupError):
    """No class is of the kind that an entry names.

    Args:
        key: The setting that names it.
        kinds: Those that there are.
    """

    def __init__(self, key: str, kinds: list[str]) -> None:
        super().__init__(key)
        self.key, self.kinds = key, kinds


@dataclass(frozen=True)
class Choice:
    """Classes of settings, one of which an entry chooses by its `kind`.

    Attributes:
        built_in: The classes of this package.
        default: The kind of an entry that names none; None: it has to name one.
        group: The entry points that add classes.
    """

    built_in: tuple[type[Section], ...]
    default: str | None = None
    group: str | None = None

    @property
    def classes(self) -> tuple[type[Section], ...]:
        """All classes, those of other packages included."""
        more = plugins(self.group) if self.group else ()
        return (*self.built_in, *(each.Config for each in more))

    def complete(self, entry: Any, name: str | None = None) -> Any:
        """Write out what is left out of an entry: `gru` stands for `{kind: gru}`, no kind for the default one.

        Args:
            entry: As in the config.
            name: A kind that it may stand for, where it names none.
        """
        if isinstance(entry, str):
            entry = {"kind": entry}
        if not isinstance(entry, dict):
            return entry
        if "kind" not in entry:
            kind = self.default
            if name is not None and (name in kinds_of(self.built_in) or name in kinds_of(self.classes)):
                kind = name
            if kind is None:
                return entry
            entry = {"kind": kind, **entry}
        for section in self.built_in:
            if entry["kind"] in kind_names(section):
                further = {key: section.model_fields[key].default for key in section.chosen_by}
                return {**entry, **{key: value for key, value in further.items() if key not in entry}}
        return entry

    def find(self, entry: Mapping[str, Any]) -> type[Section]:
        """Return the class of a completed entry.

        Raises:
            UnknownKindError: There is none.
        """
        named = entry.get("kind")
        classes = self.built_in if named in kinds_of(self.built_in) else self.classes
        depth = 0
        while True:
            keys = {each.chosen_by[depth] for each in classes if len(each.chosen_by) > depth}
            if not keys:
                return classes[0]
            (key,) = keys
            matching = tuple(each for each in classes if entry.get(key) in kind_names(each, key))
            if not matching:
                raise UnknownKindError(key, kinds_of(classes, key))
            classes, depth = matching, depth + 1

    def validate(self, entry: Any) -> Section:
        """Check an entry; a `BeforeValidator`."""
        if isinstance(entry, Section):
            return entry
        entry = self.complete(entry)
        if not isinstance(entry, dict):
            raise PydanticCustomError("dict_type", "Input should be a valid dictionary")
        try:
            section = self.find(entry)
        except UnknownKindError as problem:
            raise PydanticCustomError("kind", "{key}", {"key": problem.key, "kinds": problem.kinds}) from None
        return section.model_validate(entry)


class CorpusConfig(Section):
    """Which files hold the words and labels, and how to read them."""

    train: str | None = Field(None, description="file of labelled sentences to learn from")
    validation: str | None = Field(None, description="file that chooses the best epoch")
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="share of the training sentences for validation where no file is given"
    )
    held_out_by: Literal["last", "shuffled"] = Field(
        "last",
        description="which sentences these are: the last ones; shuffled: at random, each type in both parts",
    )
    test: str | None = Field(None, description="file scored once, when training has ended")
    fold: str | None = Field(
        None,
        description="cross-validation: 2/5 tests on the second of five folds of train and learns from the others; "
        "none: test as named",
    )
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0,
        description="share of the training sentences (whole documents, if there are several) to learn from, drawn "
        "at random after validation and fold were taken out; smaller shares are part of larger ones",
    )
    fraction_seed: Seed = Field(0, description="seed of this draw")
    format: str | None = Field(
        None,
        description="format of the files (`nertool formats` lists them); none: detect it from name and content",
    )
    hub: str | None = Field(
        None,
        description="a dataset instead of files: its name on the hub, or a folder; train, validation and test "
        "are then names of its splits",
    )
    config: str | None = Field(None, description="hub: configuration of the dataset; none: its only one")
    revision: str | None = Field(None, description="hub: branch, tag or commit; none: the main branch")
    tokens: str = Field("tokens", description="hub, .parquet and .arrow: name of the column with the tokens")
    tags: str = Field("ner_tags", description="hub, .parquet, .arrow, .jsonl: name of the column with the labels")
    columns: tuple[str, ...] | None = Field(
        None,
        description="names of the columns from left to right; none: as the format has them, or the first is the "
        "token and the last the label",
    )
    label: str = Field(
        "label", description="name of the column with the labels to learn; label: the format's usual one"
    )
    scheme: Literal["detect", "IOB1", "IOB2", "IOBES", "BILOU", "BMES", "plain"] = Field(
        "detect", description="label scheme of the files (IO, types without a prefix, is read as IOB1)"
    )
    learn_scheme: Literal["IOB1", "IOB2", "IOBES", "BILOU", "BMES"] = Field(
        "IOBES", description="label scheme that the network learns (plain tags stay plain)"
    )
    stray: Literal["repair", "refuse"] = Field(
        "repair",
        description="what to do with a label that the scheme does not allow at its place, such as a stray I-",
    )
    strip: str | None = Field(None, description="regular expression whose matches are removed from each token")
    annotator: str | None = Field(
        None,
        description="Label Studio, Prodigy, doccano: name or number of the annotator whose annotations are read; "
        "none: the annotator who comes first in each text",
    )
    weights: str | None = Field(
        None,
        description="JSON Lines file of training sentences that count less or more in the loss, as "
        "`nertool audit --weights` writes it; none: all count the same",
    )
    allow_empty: bool = Field(False, description="train although no token of the training split is an entity")
    stream: bool = Field(
        False,
        description="the training split need not fit into memory: it is written into shards in the cache once, "
        "and read from these; validation and test are in memory",
    )
    shuffle: Number = Field(2**24, description="stream: how many tokens are in memory, and are shuffled, together")
    epoch_tokens: Number | None = Field(
        None,
        description="stream: about how many tokens an epoch has, with validation and a checkpoint after it; "
        "none: all of the training split",
    )

    @field_validator("scheme", mode="before")
    @classmethod
    def _types_alone_are_iob1(cls, scheme: Any) -> Any:
        return "IOB1" if scheme == "IO" else scheme

    @field_validator("columns")
    @classmethod
    def _columns_have_a_token(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if columns is not None:
            if "token" not in columns:
                raise ValueError("one of the columns must be called 'token'")
            if len(set(columns)) != len(columns):
                raise ValueError("each column needs a name of its own")
        return columns

    @field_validator("annotator", mode="before")
    @classmethod
    def _annotator_may_be_a_number(cls, annotator: Any) -> Any:
        return str(annotator) if type(annotator) is int else annotator

    @field_validator("fold")
    @classmethod
    def _fold_is_one_of_several(cls, fold: str | None) -> str | None:
        if fold is not None:
            match = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", fold)
            if not match or int(match[1]) > int(match[2]) or not 2 <= int(match[2]) <= MOST_FOLDS:
                raise ValueError(f"should be like 2/5, the second of five folds (2 to {MOST_FOLDS:,})")
        return fold

    @field_validator("strip")
    @classmethod
    def _strip_is_a_pattern(cls, strip: str | None) -> str | None:
        if strip is not None:
            compile_pattern(strip)
        return strip

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return (
            ({"held_out", "held_out_by"} if self.validation is not None else set())
            | ({"config", "revision"} if self.hub is None else set())
            | ({"fraction_seed"} if self.fraction == 1 else set())
            | ({"shuffle", "epoch_tokens"} if not self.stream else set())
        )

    @property
    def fold_numbers(self) -> tuple[int, int] | None:
        """The number of the fold that is the test split, from 1, and how many there are; None without folds."""
        if self.fold is None:
            return None
        number, _, count = self.fold.partition("/")
        return int(number), int(count)

    @property
    def origin(self) -> str:
        """What the model learns from: the name of a dataset, or of a file."""
        return self.hub or self.train or ""

    @model_validator(mode="before")
    @classmethod
    def _splits_have_their_usual_names(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or tree.get("hub") is None:
            return tree
        usual = {"train": "train", "validation": "validation", "test": "test"}
        if tree.get("fold") is not None:
            del usual["test"]
        return {**usual, **tree}

    @model_validator(mode="after")
    def _there_is_something_to_learn_from(self) -> CorpusConfig:
        if self.train is None:
            raise ValueError("train: is missing; name a file to learn from, or a dataset with hub")
        if self.hub is None:
            for key in ("config", "revision"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: is for a dataset only, and hub names none")
        return self

    @model_validator(mode="after")
    def _what_is_streamed_is_not_divided(self) -> CorpusConfig:
        if not self.stream:
            return self
        for key in ("hub", "fold", "weights"):
            if getattr(self, key) is not None:
                what = "a dataset is" if key == "hub" else f"with {key} all sentences are"
                more = "; name its files instead, such as .parquet" if key == "hub" else ""
                raise ValueError(f"stream: {what} read into memory; leave one of the two out{more}")
        if self.validation is None:
            raise ValueError(
                "stream: no part of it can be held out; name a file as validation (--validation FILE)"
            )
        if self.fraction < 1:
            raise ValueError("stream: a fraction is drawn from sentences in memory; leave one of the two out")
        return self

    @model_validator(mode="after")
    def _one_test_split(self) -> CorpusConfig:
        if self.fold is not None and self.test is not None:
            raise ValueError(
                "test: in cross-validation a fold of train is the test split; leave test out (--set "
                "corpus.test=null)"
            )
        return self

    @model_validator(mode="after")
    def _label_is_a_column(self) -> CorpusConfig:
        if self.columns is None and self.label != "label" and self.format == "conll":
            raise ValueError(f"label: {self.label!r} is no column's name while columns are not named; name them")
        if self.columns is not None and self.label not in self.columns:
            raise ValueError(f"label: no column is called {self.label!r} (columns: {', '.join(self.columns)})")
        return self


# Inputs: what a token brings into the network.


class WordsConfig(Section):
    """A vector for each word."""

    file_settings = ("vectors",)
    replaces: ClassVar[dict[str, tuple[str, ...]]] = {"vectors": ("dimensions",)}
    adjustable = ("vectors", "dimensions", "minimum_count", "extra_rows", "dropout", "trainable")

    kind: Literal["words"] = Field("words", description="a vector for each word")
    vectors: Files = Field(
        (),
        description="pretrained vectors: files (GloVe, word2vec, fastText), folders of model2vec, names of "
        "`nertool vectors`, or spacy:PIPELINE; several are concatenated",
    )
    dimensions: Size | None = Field(None, description="size of a word vector where no file is given; none: 100")
    minimum_count: Number = Field(
        1, description="training words rarer than this, and without a pretrained vector, are unknown words"
    )
    extra_rows: Annotated[int, Field(strict=True, ge=0, le=10_000_000)] = Field(
        100_000, description="how many pretrained words outside the training split keep their vectors"
    )
    dropout: Annotated[Fraction, Search(0.0, 0.3)] = Field(
        0.1, description="share of tokens whose word is hidden during training"
    )
    trainable: bool = Field(True, description="whether training changes the vectors")

    @model_validator(mode="after")
    def _files_have_their_dimensions(self) -> WordsConfig:
        if self.vectors and self.dimensions is not None:
            raise ValueError("dimensions: the files of vectors have their own; remove dimensions or vectors")
        return self

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return {"dimensions"} if self.vectors else {"extra_rows"}


class CharacterCNNConfig(Section):
    """The spelling of each word, read by a convolution."""

    chosen_by = ("kind", "network")
    adjustable = ("dropout",)
    kind: Literal["characters"] = Field("characters", description="the spelling of each word")
    network: Literal["cnn"] = Field("cnn", description="what reads the characters")
    dimensions: Size = Field(30, description="size of a character vector")
    filters: Size = Field(50, description="number of filters, which is the size of the result")
    width: Width = Field(3, description="characters that a filter sees")
    dropout: Fraction = Field(0.0, description="dropout on the character vectors")
    maximum: Size = Field(64, description="characters of a word that are read, counted from its start")


class CharacterRNNConfig(Section):
    """The spelling of each word, read by a recurrent network in both directions."""

    chosen_by = ("kind", "network")
    adjustable = ("dropout",)
    kind: Literal["characters"] = Field("characters", description="the spelling of each word")
    network: Literal["lstm", "gru"] = Field(description="what reads the characters")
    dimensions: Size = Field(30, description="size of a character vector")
    hidden: Size = Field(25, description="units in each direction; the result has twice as many")
    dropout: Fraction = Field(0.0, description="dropout on the character vectors")
    maximum: Size = Field(64, description="characters of a word that are read, counted from its start")


class CaseConfig(Section):
    """How each word uses capital letters."""

    kind: Literal["case"] = Field("case", description="how each word uses capital letters")
    dimensions: Size = Field(5, description="size of the vector")


class ColumnConfig(Section):
    """A further column of the corpus, such as part-of-speech tags."""

    adjustable = ("minimum_count", "dropout")

    kind: Literal["column"] = Field("column", description="a further column of the corpus, such as pos or chunk")
    column: str = Field(description="name of the column (see corpus.columns)")
    dimensions: Size = Field(20, description="size of a value's vector")
    minimum_count: Number = Field(1, description="values rarer than this in the training split are unknown values")
    dropout: Fraction = Field(0.0, description="share of tokens whose value is hidden during training")


class GazetteerConfig(Section):
    """Lists of known phrases."""

    file_settings = ("files",)
    adjustable = ("files", "dropout")

    kind: Literal["gazetteer"] = Field("gazetteer", description="lists of known phrases")
    files: Annotated[Files, Field(min_length=1)] = Field(
        description="files with a phrase a line, or a phrase, a tab and its type; a phrase without one has the "
        "file's name as its type"
    )
    lowercase: bool = Field(False, description="whether upper and lower case are the same")
    dimensions: Size = Field(5, description="size of the vector for a token's position in a phrase, for each type")
    dropout: Fraction = Field(0.0, description="share of tokens whose matches are hidden during training")


class TransformerConfig(Section):
    """The states of a pretrained transformer."""

    places = ("model", "revision")
    adjustable = ("model", "revision", "trainable", "learning_rate", "warmup", "checkpointing", "include")

    kind: Literal["transformer"] = Field("transformer", description="the states of a pretrained transformer")
    model: Annotated[str, Field(min_length=1)] = Field(
        description="name on the Hugging Face hub, or a folder with config.json, tokenizer.json and .safetensors"
    )
    revision: str | None = Field(None, description="hub: branch, tag or commit; none: the main branch")
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=256)] = Field(
        (-4, -3, -2, -1), description="layers that are read: 1 is the first, -1 the last, 0 the embeddings"
    )
    mix: Literal["mean", "learned"] = Field(
        "mean", description="how the layers become one vector; learned: with a weight for each"
    )
    pooling: Literal["first", "mean"] = Field("first", description="which sub-tokens of a token count")
    context: Annotated[int, Field(strict=True, ge=0, le=512)] = Field(
        0, description="tokens of the document that are read on either side of a sentence, as far as they fit"
    )
    trainable: bool = Field(
        False, description="whether training changes the transformer; else its states are computed once, and kept"
    )
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(
        2e-5, description="trainable: its largest step size, by AdamW; it follows training.schedule"
    )
    warmup: Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)] = Field(
        100, description="trainable: steps in which its rate rises from 0"
    )
    checkpointing: bool = Field(
        False, description="trainable: compute states twice rather than keep them: less memory, more time"
    )
    include: bool = Field(
        False, description="whether a saved model holds the transformer's weights; else it finds them by name"
    )

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> TransformerConfig:
        for key in ("learning_rate", "warmup", "checkpointing"):
            if not self.trainable and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}: has no effect while the transformer is not trained (trainable: false)")
        if self.trainable and self.include:
            raise ValueError("include: has no effect, because a trained transformer is always part of the model")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("layers: one of them is named twice")
        return self

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return {"include"} if self.trainable else {"learning_rate", "warmup", "checkpointing"}


class NoInputConfig(Section):
    """Switches an input off."""

    kind: Literal["none"] = Field("none", description="this input is switched off")


INPUTS: list[type[Section]] = [
    WordsConfig,
    CharacterCNNConfig,
    CharacterRNNConfig,
    CaseConfig,
    ColumnConfig,
    GazetteerConfig,
    TransformerConfig,
    NoInputConfig,
]


# Encoders: what lets a token see its sentence.


class RecurrentConfig(Section):
    """A recurrent network over the sentence."""

    adjustable = ("dropout",)

    kind: Literal["rnn", "gru", "lstm"] = Field(description="recurrent network over the sentence")
    hidden: Annotated[Size, Search(choices=(100, 150, 200, 300))] = Field(
        200, description="units in each direction"
    )
    layers: Annotated[int, Field(strict=True, ge=1, le=8)] = Field(1, description="number of layers")
    bidirectional: bool = Field(True, description="read the sentence from both ends")
    dropout: Fraction | None = Field(None, description="dropout between the layers; none: that of the model")

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return {"dropout"} if self.layers == 1 else set()


class ConvolutionalConfig(Section):
    """Iterated dilated convolutions over the sentence."""

    adjustable = ("dropout",)

    kind: Literal["cnn"] = Field(description="iterated dilated convolutions")
    hidden: Annotated[Size, Search(choices=(100, 150, 200, 300))] = Field(200, description="number of filters")
    layers: Annotated[int, Field(strict=True, ge=1, le=8)] = Field(1, description="how often the block is applied")
    bidirectional: bool = Field(True, description="look to both sides; else backwards only")
    dropout: Fraction | None = Field(None, description="dropout between the iterations; none: that of the model")
    width: Width = Field(3, description="tokens that a filter sees")
    dilations: Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=16)] = Field(
        (1, 2, 1), description="steps between these tokens, for each convolution of the block"
    )

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return {"dropout"} if self.layers == 1 else set()


class NoEncoderConfig(Section):
    """Each token sees itself alone."""

    kind: Literal["none"] = Field(description="no encoder: each token sees itself alone")


ENCODERS: list[type[Section]] = [
    RecurrentConfig,
    ConvolutionalConfig,
    NoEncoderConfig,
]


# Attention.


class NoAttentionConfig(Section):
    """No attention."""

    kind: Literal["none"] = Field("none", description="no attention")


class AttentionConfig(Section):
    """Attention with one head."""

    kind: Literal["dot", "scaled_dot", "additive"] = Field(description="how a state is scored against another")
    dimensions: Size = Field(128, description="size of queries, keys and values")


class MultiHeadConfig(Section):
    """Attention with several heads."""

    kind: Literal["multi_head"] = Field(description="scaled dot products in several heads")
    dimensions: Size = Field(128, description="size of queries, keys and values, of all heads together")
    heads: Size = Field(4, description="number of heads")

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> MultiHeadConfig:
        if self.dimensions % self.heads:
            raise ValueError(f"dimensions: {self.dimensions} cannot be shared equally by {self.heads} heads")
        return self


ATTENTIONS: list[type[Section]] = [NoAttentionConfig, AttentionConfig, MultiHeadConfig]


# Decoders: from scores to a label sequence.


class CRFConfig(Section):
    """A conditional random field: whole label sequences are scored."""

    adjustable = ("constraints",)

    kind: Literal["crf"] = Field("crf", description="score whole label sequences")
    constraints: Literal["none", "decoding", "always"] = Field(
        "decoding",
        description="where label sequences that the scheme does not allow are ruled out; always: in the loss too",
    )


class SoftmaxConfig(Section):
    """Each label is scored by itself."""

    kind: Literal["softmax", "constrained"] = Field(
        description="score each label by itself; constrained: and take the best sequence that the scheme allows"
    )


DECODERS: list[type[Section]] = [CRFConfig, SoftmaxConfig]


# Optimizers and schedules.


class SGDConfig(Section):
    """Stochastic gradient descent."""

    searches: ClassVar[dict[str, Search]] = {"training.learning_rate": Search(0.005, 0.1, log=True)}

    kind: Literal["sgd"] = Field("sgd", description="stochastic gradient descent")
    momentum: Fraction = Field(0.9, description="momentum")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="L2 penalty on all weights but the word vectors"
    )


class AdamConfig(Section):
    """Adam (Kingma & Ba 2015), or AdamW (Loshchilov & Hutter 2019)."""

    searches: ClassVar[dict[str, Search]] = {"training.learning_rate": Search(0.0003, 0.01, log=True)}

    kind: Literal["adam", "adamw"] = Field(description="Adam; adamw: with decoupled weight decay")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="penalty on all weights but the word vectors"
    )


OPTIMIZERS: list[type[Section]] = [SGDConfig, AdamConfig]

Warmup = Annotated[float, Field(ge=0.0)]
_WARMUP = "epochs, or a part of one, in which the rate rises from 0 to the schedule's; 0: none"


class InverseConfig(Section):
    """A learning rate that falls with the inverse of the epoch."""

    kind: Literal["inverse"] = Field(
        "inverse", description="epoch n (from 0) learns with learning_rate / (1 + decay * n)"
    )
    decay: Annotated[float, Field(ge=0.0)] = Field(0.05, description="how fast the rate falls")
    warmup: Warmup = Field(0.0, description=_WARMUP)


class StepConfig(Section):
    """A learning rate that is reduced after a number of epochs, or when validation F1 no longer rises."""

    kind: Literal["step", "plateau"] = Field(
        description="reduce the rate every few epochs; plateau: after a few epochs without a better F1"
    )
    reduce_every: Epochs = Field(
        5, description="epochs between reductions; plateau: without a better F1 before one"
    )
    reduce_by: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="what a reduction multiplies the learning rate by"
    )
    warmup: Warmup = Field(0.0, description=_WARMUP)


class CosineConfig(Section):
    """A learning rate that falls to 0 along half a cosine, over all epochs."""

    kind: Literal["cosine"] = Field(description="half a cosine down to 0, over all epochs")
    warmup: Warmup = Field(0.0, description=_WARMUP)


class OneCycleConfig(Section):
    """A learning rate that rises to its peak and falls to nearly 0, over all epochs."""

    kind: Literal["one_cycle"] = Field(description="up to the peak and down to nearly 0, over all epochs")


SCHEDULES: list[type[Section]] = [InverseConfig, StepConfig, CosineConfig, OneCycleConfig]

CHOICES = {
    "inputs.*": Choice(tuple(INPUTS), None, "nertool.inputs"),
    "model.encoder": Choice(tuple(ENCODERS), "lstm", "nertool.encoders"),
    "model.attention": Choice(tuple(ATTENTIONS), "none"),
    "model.decoder": Choice(tuple(DECODERS), "crf"),
    "training.optimizer": Choice(tuple(OPTIMIZERS), "sgd"),
    "training.schedule": Choice(tuple(SCHEDULES), "inverse"),
}
"""The settings that are entries of several kinds, by their full names."""

if TYPE_CHECKING:
    InputConfig = Any
    EncoderConfig = Any
    AnyAttention = Any
    DecoderConfig = Any
    OptimizerConfig = Any
    ScheduleConfig = Any
else:

    def _entry(name: str) -> Any:
        return Annotated[SerializeAsAny[Section], BeforeValidator(CHOICES[name].validate)]

    InputConfig = _entry("inputs.*")
    EncoderConfig = _entry("model.encoder")
    AnyAttention = _entry("model.attention")
    DecoderConfig = _entry("model.decoder")
    OptimizerConfig = _entry("training.optimizer")
    ScheduleConfig = _entry("training.schedule")


class ModelConfig(Section):
    """The network over the inputs: encoder, attention, decoder."""

    adjustable = ("dropout", "locked_dropout")

    encoder: EncoderConfig = Field({"kind": "lstm"}, description="what lets a token see its sentence")
    attention: AnyAttention = Field(
        {"kind": "none"}, description="how the tokens of a sentence look at one another"
    )
    decoder: DecoderConfig = Field({"kind": "crf"}, description="how scores become a label sequence")
    dropout: Annotated[Fraction, Search(0.2, 0.6)] = Field(
        0.5, description="dropout before the encoder, between its layers, and after it"
    )
    locked_dropout: bool = Field(False, description="variational dropout: one mask for all tokens of a sentence")


class TrainingConfig(Section):
    """How the network learns."""

    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = Field(
        1, description="same seed, same machine: same model"
    )
    epochs: Epochs = Field(50, description="passes over the training split, at most")
    patience: Epochs = Field(
        10,
        description="epochs without a higher validation F1 before the end; while F1 is 0, without a lower loss",
    )
    batch_size: Annotated[int, Field(strict=True, ge=1, le=100_000), Search(choices=(5, 10, 20, 32))] = Field(
        10, description="sentences in a batch"
    )
    optimizer: Annotated[OptimizerConfig, Search(choices=("sgd", "adam"))] = Field(
        {"kind": "sgd"}, description="update rule"
    )
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(
        0.03, description="largest step size: where a schedule starts, or the peak of one_cycle"
    )
    schedule: Annotated[ScheduleConfig, Search(choices=("inverse", "cosine", "one_cycle"))] = Field(
        {"kind": "inverse"}, description="how the learning rate changes"
    )
    clip: Annotated[float, Field(ge=0.0)] = Field(
        5.0, description="largest norm of the gradient, or size of each of its elements; 0: no limit"
    )
    clip_by: Literal["norm", "value"] = Field(
        "norm", description="scale a gradient that is too long, or cut each element to [-clip, clip]"
    )
    averaging: Annotated[Fraction, Search(choices=(0.0, 0.99, 0.999))] = Field(
        0.99, description="decay per step of an exponential moving average of the weights; 0: none"
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        "cpu", description="cpu; cuda, or cuda:1 of several GPUs; mps; auto: cuda where it is there, else cpu"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: the layers before the decoder compute with 16 bits where torch deems it safe"
    )
    threads: Annotated[int, Field(strict=True, ge=0, le=1024)] = Field(
        0,
        description="processor threads; 0: 2, with batches of 128 or more 8, but no more than there are cores",
    )

    @model_validator(mode="after")
    def _plateau_can_reduce(self) -> TrainingConfig:
        schedule: Any = self.schedule
        if schedule.kind == "plateau" and schedule.reduce_every >= self.patience:
            raise ValueError(
                f"schedule.reduce_every: {schedule.reduce_every} is not below patience ({self.patience}), so that "
                "training ends before the rate is ever reduced"
            )
        return self

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return set() if self.clip else {"clip_by"}


class StartConfig(Section):
    """The model whose weights a training starts from."""

    model: str | None = Field(None, description="run directory of a model to continue from; none: new weights")
    keep_labels: bool = Field(
        False,
        description="types of that model that the training split does not annotate are unknown there",
    )
    self_label: bool = Field(
        False, description="that model labels its types which the training split does not annotate, where it has O"
    )

    @model_validator(mode="after")
    def _there_is_a_model(self) -> StartConfig:
        for key in ("keep_labels", "self_label"):
            if getattr(self, key) and self.model is None:
                raise ValueError(f"{key}: has no effect without start.model (--from DIR), the model to start from")
        return self

    def idle(self) -> set[str]:
        """Return the settings that have no effect, because of the values of others."""
        return {"keep_labels", "self_label"} if self.model is None else set()


DEFAULT_INPUTS: dict[str, Any] = {"words": {}, "characters": {}}


def complete_inputs(tree: Any) -> Any:
    """Add the default inputs, and for each entry the kind that its name stands for.

    `characters: null` switches an input off, as `characters: {kind: none}` does.
    """
    if not isinstance(tree, dict):
        return tree
    complete = CHOICES["inputs.*"].complete
    return {
        name: complete("none" if entry is None else entry, name)
        for name, entry in {**DEFAULT_INPUTS, **tree}.items()
    }


InputName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Config(Section):
    """A whole run: what to read, what to build, how to train it.

    >>> import nertool
    >>> config = nertool.Config(corpus={"train": "train.txt"}, training={"optimizer": "adam"})
    >>> list(config.inputs), config.model.encoder.hidden, config.training.optimizer.kind
    (['words', 'characters'], 200, 'adam')
    """

    language: str = Field(
        "en", pattern="^[a-z]{2,3}$", description="language of the tokenizer for raw text (a spaCy code)"
    )
    corpus: CorpusConfig
    inputs: Annotated[dict[InputName, InputConfig], BeforeValidator(complete_inputs), Field(max_length=100)] = (
        Field({}, description="what each token brings into the network, by name")
    )
    model: ModelConfig = Field(default_factory=ModelConfig)
    start: StartConfig = Field(default_factory=StartConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)

    @property
    def active_inputs(self) -> dict[str, Any]:
        """The inputs that are not switched off, in order."""
        return {name: entry for name, entry in self.inputs.items() if entry.kind != "none"}

    @model_validator(mode="after")
    def _some_input_is_left(self) -> Config:
        if not self.active_inputs:
            raise ValueError("inputs: all are switched off; a network needs at least one")
        return self
