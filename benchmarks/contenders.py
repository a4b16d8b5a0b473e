"""nertool and the reference, ready to be measured: one corpus, one network, the same weights."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from reference import ReferenceTagger, Vocabulary, training_steps

from nertool.config.loading import find_config, load_config, locate_files
from nertool.config.schema import CharacterCNNConfig, Config, RecurrentConfig, WordsConfig
from nertool.data.corpus import Corpus, Split, read_corpus
from nertool.errors import ConfigError
from nertool.evaluation.scores import Evaluation, Scores
from nertool.model.inputs.characters import Characters
from nertool.model.inputs.words import Words
from nertool.model.model import Model
from nertool.tagging.bundle import load_bundle
from nertool.training.preparation import build_model, encode
from nertool.training.run import run
from nertool.training.trainer import Step, train


@dataclass(frozen=True)
class Setting:
    """What is measured on.

    Attributes:
        name: Of the corpus.
        config: With paths that exist.
        corpus: Its splits; there is a test split.
        vectors: The file of word vectors; None where word vectors are random.
        warnings: What is missing, for the reader of the figures.
    """

    name: str
    config: Config
    corpus: Corpus
    vectors: Path | None
    warnings: list[str]


def read_setting(demo: bool) -> Setting:
    """Read CoNLL-2003 with GloVe, or the demonstration corpus where these are missing or it is asked for."""
    warnings: list[str] = []
    attempts = [
        ("CoNLL-2003", "conll03.yaml", ()),
        ("CoNLL-2003", "conll03.yaml", ("inputs.words.vectors=[]", "inputs.words.dimensions=100")),
    ]
    for name, file, overrides in [] if demo else attempts:
        try:
            return _setting(name, file, overrides, warnings)
        except ConfigError as problem:
            # The first message names all that is missing.
            warnings = warnings or [str(problem)]
    if warnings:
        warnings.append("CoNLL-2003 was not found: the small demonstration corpus is used instead")
    return _setting("demonstration corpus", "demo.yaml", ("inputs.words.dimensions=100",), warnings)


def _setting(name: str, file: str, overrides: tuple[str, ...], warnings: list[str]) -> Setting:
    path = find_config(file)
    # Training must go on for as long as it is measured.
    endless = ("training.epochs=100000", "training.patience=100000")
    # Both sides do the same work: the reference neither averages its weights nor hides words.
    equal = ("training.averaging=0", "inputs.words.dropout=0")
    config = locate_files(load_config(path, (*overrides, *endless, *equal)), path)
    files = config.inputs["words"].vectors
    vectors = Path(files[0]) if files else None
    return Setting(name, config, read_corpus(config.corpus), vectors, warnings)


def untrained_model(setting: Setting) -> Model:
    """Build the model that `nertool train` begins with."""
    train = setting.corpus.train
    return build_model(setting.config, train.sentences, train.label_scheme)


def trained_model(setting: Setting, seconds: float, folder: Path | None) -> Model:
    """Load the model in a folder, or train one for a number of seconds."""
    if folder is not None:
        return load_bundle(folder)
    model = untrained_model(setting)
    nothing = Scores(0.0, 0.0, 0.0, 0)
    unscored = Evaluation(nothing, nothing, {}, 0.0, 0, 0, "")
    ends = time.perf_counter() + seconds
    encoded = encode(setting.corpus.train, model)
    for _ in train(model.network, encoded, lambda: unscored, setting.config.training):
        if time.perf_counter() > ends:
            break
    model.network.eval()
    return model


def work_of(model: Model) -> float:
    """Compute the FLOP of matrix products for tagging a token; training takes three times as many."""
    hidden: int = model.config.model.encoder.hidden
    inputs: int = words_of(model).dimensions + characters_of(model).config.filters
    labels = len(model.labels)
    return 2 * (2 * 4 * hidden * (inputs + hidden) + 2 * hidden * labels)


def words_of(model: Model) -> Words:
    """Return the words of a model."""
    words = model.inputs["words"]
    assert isinstance(words, Words)
    return words


def characters_of(model: Model) -> Characters:
    """Return the characters of a model."""
    characters = model.inputs["characters"]
    assert isinstance(characters, Characters)
    return characters


def rows_of(model: Model) -> int:
    """Count the rows of its word table, including that of unknown words."""
    return len(words_of(model).words) + 1


def tokens_of(split: Split) -> list[Sequence[str]]:
    """Return the tokens of each sentence."""
    return [sentence.tokens for sentence in split.sentences]


def nertool_steps(setting: Setting, batch_size: int, folder: Path) -> Generator[int | None, None, None]:
    """Run `nertool train`: yield the tokens of each batch, and None after what is not training."""
    training = setting.config.training.model_copy(update={"batch_size": batch_size})
    tokens = 0
    for record in run(setting.config.model_copy(update={"training": training}), folder):
        if isinstance(record, Step):
            yield record.tokens - tokens
            tokens = record.tokens
        else:
            tokens = 0
            yield None


def reference_steps(
    setting: Setting, model: Model, batch_size: int, *, sort: bool, train_words_only: bool = False
) -> Iterator[int | None]:
    """Train the reference: yield the tokens of each batch.

    Args:
        setting: Corpus and rates.
        model: Whose vocabularies and weights it begins with.
        batch_size: Sentences in a batch.
        sort: Whether batches are of sentences of about one length.
        train_words_only: Whether its word table leaves out the words that training never sees.
    """
    corpus, training = setting.corpus.train, setting.config.training
    tokens, rows = tokens_of(corpus), rows_of(model)
    if train_words_only:
        rows = 1 + len({token for row in tokens for token in row} & words_of(model).rows.keys())
    yield from training_steps(
        reference_tagger(model, rows),
        reference_vocabulary(model, rows),
        tokens,
        corpus.labels,
        batch_size=batch_size,
        sort=sort,
        learning_rate=training.learning_rate,
        momentum=getattr(training.optimizer, "momentum", 0.9),
        clip=training.clip,
    )


def reference_vocabulary(model: Model, rows: int | None = None) -> Vocabulary:
    """Make the reference's vocabularies, equal to the model's; the word table may be truncated."""
    words = words_of(model).words
    return Vocabulary(words if rows is None else words[: rows - 1], characters_of(model).characters, model.labels)


def reference_tagger(model: Model, rows: int | None = None) -> ReferenceTagger:
    """Make the reference with the network and weights of a model; the word table may be truncated."""
    config, inputs = model.config.model, model.config.active_inputs
    if (
        list(inputs) != ["words", "characters"]
        or not isinstance(inputs["words"], WordsConfig)
        or not isinstance(inputs["characters"], CharacterCNNConfig)
        or inputs["characters"].dropout
        or not isinstance(config.encoder, RecurrentConfig)
        or (config.encoder.kind, config.encoder.layers, config.encoder.bidirectional) != ("lstm", 1, True)
        or config.attention.kind != "none"
        or config.decoder.kind != "crf"
        or config.decoder.constraints == "always"
        or config.locked_dropout
    ):
        raise ValueError("the reference is a BiLSTM-CNN-CRF of one layer; this model is another")
    count = rows_of(model) if rows is None else rows
    tagger = ReferenceTagger(
        count,
        words_of(model).dimensions,
        len(characters_of(model).characters) + 2,
        len(model.labels),
        inputs["characters"].dimensions,
        inputs["characters"].filters,
        inputs["characters"].width,
        config.encoder.hidden,
        config.dropout,
        inputs["words"].dropout,
    )
    tagger.load_state_dict(plain_weights(model.network.state_dict(), count))
    return tagger


def plain_weights(ours: Mapping[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """Return a network's weights, or their gradients, under the names and in the shapes of torch's own modules."""
    weights = {
        "words.weight": ours["inputs.words.weight"][:rows],
        "characters.weight": ours["inputs.characters.embedding"],
        "convolution.weight": ours["inputs.characters.kernel"].permute(2, 1, 0),
        "convolution.bias": ours["inputs.characters.bias"],
        "scores.weight": ours["scores.weight"],
        "scores.bias": ours["scores.bias"],
    }
    for name in ("start_transitions", "transitions", "end_transitions"):
        weights[f"crf.{name}"] = ours[f"decoder.crf.{name}"]
    for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        weights[f"lstm.{part}"] = ours[f"encoder.layers.0.0.cell.{part}"]
        weights[f"lstm.{part}_reverse"] = ours[f"encoder.layers.0.1.cell.{part}"]
    return weights
