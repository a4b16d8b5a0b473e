"""What a run is made of: a typed tree read from YAML, every default visible, every unknown key refused.

The tree is the only place that knows a setting's name, default, range and meaning; the comments of a
written config are the `description`s below.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Size = Annotated[int, Field(strict=True, ge=1)]
Dilation = Annotated[int, Field(strict=True, ge=1, le=64)]

READ_BY_SPACY = "(read by spaCy)"  # corpus.train of a model that the spaCy component trained


def _odd(width: int) -> int:
    if width % 2 == 0:
        raise ValueError("must be odd, so that a filter has a middle")
    return width


def _as_list(given: object) -> object:
    return (given,) if isinstance(given, str) else given


class Section(BaseModel):
    """A group of settings: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class CorpusConfig(Section):
    """Which files hold the words and labels, and how to read them."""

    train: str | None = Field(None, description="file of labelled sentences to learn from")
    validation: str | None = Field(None, description="file that chooses the best epoch")
    held_out: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="share of the training sentences, its last ones, that do so where no file is given"
    )
    test: str | None = Field(None, description="file scored once, when training has ended")
    hub: str | None = Field(
        None,
        description="instead of files a dataset: its name on the hub, or a folder; train, validation and test "
        "are then names of its splits, where left out these",
    )
    config: str | None = Field(None, description="hub: which configuration of the dataset; none: its only one")
    revision: str | None = Field(None, description="hub: branch, tag or commit; none: the main branch")
    tokens: str = Field("tokens", description="hub, .parquet and .arrow: name of the column with the tokens")
    tags: str = Field("ner_tags", description="hub, .parquet and .arrow: name of the column with the labels")
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
        if strip is not None:
            try:
                re.compile(strip)
            except re.error as problem:
                raise ValueError(f"not a regular expression: {problem}") from None
        return strip

    @property
    def origin(self) -> str:
        """What is learnt from: a dataset, or a file."""
        return self.hub or self.train or ""

    @model_validator(mode="before")
    @classmethod
    def _splits_have_their_usual_names(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or tree.get("hub") is None:
            return tree
        return {"train": "train", "validation": "validation", "test": "test", **tree}

    @model_validator(mode="after")
    def _there_is_something_to_learn_from(self) -> CorpusConfig:
        if self.train is None:
            raise ValueError("train: is missing; name a file to learn from, or a dataset with hub")
        if self.hub is None:
            idle = [key for key in ("config", "revision") if getattr(self, key) is not None]
            if idle:
                raise ValueError(f"{' and '.join(idle)}: for a dataset only, and hub names none")
        return self

    @model_validator(mode="after")
    def _label_is_a_column(self) -> CorpusConfig:
        if self.columns is None and self.label != "label":
            raise ValueError(f"label: {self.label!r} is no column's name while columns are not named; name them")
        if self.columns is not None and self.label not in self.columns:
            raise ValueError(f"label: no column is called {self.label!r} (columns: {', '.join(self.columns)})")
        return self


class WordsConfig(Section):
    """The word vectors."""

    vectors: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (), description="files of pretrained vectors (GloVe or word2vec); several are concatenated"
    )
    dimensions: Size = Field(100, description="size of a word vector where no file is given")
    minimum_count: Size = Field(
        1, description="training words rarer than this, and without a pretrained vector, are unknown words"
    )
    extra_rows: Annotated[int, Field(strict=True, ge=0)] = Field(
        100_000, description="how many pretrained words outside the training split keep their vectors"
    )
    dropout: Fraction = Field(0.0, description="share of tokens whose word is hidden during training")
    trainable: bool = Field(True, description="whether training changes the vectors")


class CharactersConfig(Section):
    """What a word's spelling adds to its vector."""

    kind: Literal["cnn", "lstm", "gru", "none"] = Field(
        "cnn", description="a convolution or a recurrent network over the characters, or nothing"
    )
    dimensions: Size = Field(30, description="size of a character vector")
    filters: Size = Field(50, description="cnn: number of filters, which is the size of the result")
    width: Annotated[int, Field(strict=True, ge=1, le=9), AfterValidator(_odd)] = Field(
        3, description="cnn: characters that a filter sees"
    )
    hidden: Size = Field(25, description="lstm, gru: units in each direction; the result has twice as many")
    case_dimensions: Annotated[int, Field(strict=True, ge=0)] = Field(
        0, description="size of a vector for how the word uses capitals; 0: none"
    )
    dropout: Fraction = Field(0.0, description="dropout on the character vectors")
    maximum: Size = Field(64, description="characters of a word that are looked at, counted from its start")


class EncoderConfig(Section):
    """What lets a token see its sentence."""

    kind: Literal["rnn", "gru", "lstm", "cnn", "none"] = Field(
        "lstm", description="recurrent cell, iterated dilated convolutions, or nothing"
    )
    hidden: Size = Field(200, description="units in each direction; cnn: filters")
    layers: Annotated[int, Field(strict=True, ge=1, le=8)] = Field(
        1, description="layers, one above the other; cnn: how often the block is applied"
    )
    bidirectional: bool = Field(True, description="read the sentence from both ends; cnn: look to both sides")
    dropout: Fraction | None = Field(None, description="dropout between the layers; none: that of the model")
    width: Annotated[int, Field(strict=True, ge=1, le=9), AfterValidator(_odd)] = Field(
        3, description="cnn: tokens that a filter sees"
    )
    dilations: Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=16)] = Field(
        (1, 2, 1), description="cnn: steps between these tokens, for each convolution of the block"
    )


class AttentionConfig(Section):
    """How the tokens of a sentence look at one another's states."""

    kind: Literal["none", "dot", "scaled_dot", "additive", "multi_head"] = Field(
        "none", description="how a state is scored against another"
    )
    dimensions: Size = Field(128, description="size of queries, keys and values, those of all heads together")
    heads: Size = Field(4, description="multi_head: number of heads")

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> AttentionConfig:
        if self.kind == "multi_head" and self.dimensions % self.heads:
            raise ValueError(f"dimensions: {self.dimensions} cannot be shared equally by {self.heads} heads")
        return self


class ModelConfig(Section):
    """The network: characters and words, encoder, attention, decoder."""

    characters: CharactersConfig = Field(default_factory=CharactersConfig)
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    attention: AttentionConfig = Field(default_factory=AttentionConfig)
    decoder: Literal["crf", "softmax", "constrained"] = Field(
        "crf",
        description="score whole label sequences, or each label by itself; constrained: the latter, and the "
        "best sequence that the scheme allows",
    )
    constraints: Literal["none", "decoding", "always"] = Field(
        "decoding",
        description="crf: where label sequences that the scheme forbids are ruled out; always: in the loss too",
    )
    dropout: Fraction = Field(0.5, description="dropout before the encoder, between its layers, and after it")
    locked_dropout: bool = Field(False, description="variational dropout: one mask for all tokens of a sentence")

    @model_validator(mode="after")
    def _constraints_are_the_crfs(self) -> ModelConfig:
        if self.decoder != "crf" and self.constraints == "always":
            raise ValueError(f"constraints: 'always' is for the crf; decoder is {self.decoder!r}")
        return self


class TrainingConfig(Section):
    """How the network learns."""

    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = Field(
        1, description="same seed, same machine: same model"
    )
    epochs: Size = Field(50, description="passes over the training split, at most")
    patience: Size = Field(10, description="epochs without a better validation F1 before training ends")
    batch_size: Size = Field(10, description="sentences in a batch")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="update rule")
    learning_rate: Annotated[float, Field(gt=0.0)] = Field(
        0.015, description="largest step size: where a schedule starts, or the peak of one_cycle"
    )
    schedule: Literal["inverse", "step", "cosine", "plateau", "one_cycle"] = Field(
        "inverse", description="how the learning rate changes; cosine and one_cycle are laid out over all epochs"
    )
    decay: Annotated[float, Field(ge=0.0)] = Field(
        0.05, description="inverse: epoch n (from 0) learns with learning_rate / (1 + decay * n)"
    )
    reduce_every: Size = Field(
        5, description="step: epochs between reductions; plateau: epochs without a better F1 before one"
    )
    reduce_by: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="step and plateau: what a reduction multiplies the learning rate by"
    )
    warmup: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="epochs, or a part of one, in which the rate rises from 0 to the schedule's; 0: none"
    )
    momentum: Fraction = Field(0.9, description="momentum of sgd")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="L2 penalty on all weights but the word vectors (decoupled for adamw)"
    )
    clip: Annotated[float, Field(ge=0.0)] = Field(
        5.0, description="largest norm of the gradient, or size of each of its elements; 0: no limit"
    )
    clip_by: Literal["norm", "value"] = Field(
        "norm", description="scale a gradient that is too long, or cut each element to [-clip, clip]"
    )
    averaging: Fraction = Field(
        0.0, description="decay per step of an exponential moving average of the weights; 0: none"
    )
    threads: Annotated[int, Field(strict=True, ge=0)] = Field(
        0, description="processor threads; 0: all there are, up to 4"
    )

    @model_validator(mode="after")
    def _one_cycle_has_its_own_warmup(self) -> TrainingConfig:
        if self.warmup and self.schedule == "one_cycle":
            raise ValueError("warmup: one_cycle has one of its own; set warmup to 0 or take another schedule")
        return self


class Config(Section):
    """A whole run: what to read, what to build, how to train it."""

    language: str = Field(
        "en", pattern="^[a-z]{2,3}$", description="language of the tokeniser for raw text (a spaCy code)"
    )
    corpus: CorpusConfig
    words: WordsConfig = Field(default_factory=WordsConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
