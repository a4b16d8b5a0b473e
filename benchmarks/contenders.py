"""nertool and the reference, made ready to be measured: one corpus, one network, the same weights."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from reference import ReferenceTagger, Vocabulary, training_steps

from nertool.config.loading import find_config, load_config, locate_corpus
from nertool.config.schema import Config
from nertool.data.corpus import Corpus, read_corpus
from nertool.data.vectors import read_vectors
from nertool.data.vocabulary import build_lexicon
from nertool.errors import ConfigError
from nertool.evaluation.scores import Evaluation, Scores
from nertool.tagging.bundle import Model, fresh_model, load_bundle
from nertool.training.run import encode_split, run
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
    """CoNLL-2003 with GloVe; where these are missing, or where it is asked for, the demonstration corpus."""
    warnings: list[str] = []
    attempts = [
        ("CoNLL-2003", "conll03.yaml", ()),
        ("CoNLL-2003", "conll03.yaml", ("words.vectors=[]", "words.dimensions=100")),
    ]
    for name, file, overrides in [] if demo else attempts:
        try:
            return _setting(name, file, overrides, warnings)
        except ConfigError as problem:
            # The first message names all that is missing.
            warnings = warnings or [str(problem)]
    if warnings:
        warnings.append("CoNLL-2003 is not to be had: the small demonstration corpus stands in for it")
    return _setting("demonstration corpus", "demo.yaml", ("words.dimensions=100",), warnings)


def _setting(name: str, file: str, overrides: tuple[str, ...], warnings: list[str]) -> Setting:
    path = find_config(file)
    # Training must go on for as long as it is measured.
    endless = ("training.epochs=100000", "training.patience=100000")
    # Both sides do the same work: the reference neither averages its weights nor hides words.
    equal = ("training.averaging=0", "words.dropout=0")
    config = locate_corpus(load_config(path, (*overrides, *endless, *equal)), path)
    vectors = Path(config.words.vectors[0]) if config.words.vectors else None
    return Setting(name, config, read_corpus(config.corpus), vectors, warnings)


def untrained_model(setting: Setting) -> Model:
    """The model that `nertool train` begins with."""
    words, train = setting.config.words, setting.corpus.train
    vectors = [read_vectors(path) for path in words.vectors]
    lexicon = build_lexicon(
        train.tokens, train.labels, train.label_scheme, vectors, words.minimum_count, words.extra_rows
    )
    return fresh_model(setting.config, lexicon, vectors)


def trained_model(setting: Setting, seconds: float, folder: Path | None) -> Model:
    """A model to tag with: that in the folder, or one that was trained for so many seconds."""
    if folder is not None:
        return load_bundle(folder)
    model = untrained_model(setting)
    nothing = Scores(0.0, 0.0, 0.0, 0)
    unscored = Evaluation(nothing, nothing, {}, 0.0, 0, 0, "")
    ends = time.perf_counter() + seconds
    encoded = encode_split(setting.corpus.train, model)
    for _ in train(model.network, encoded, lambda: unscored, setting.config.training):
        if time.perf_counter() > ends:
            break
    model.network.eval()
    return model


def work_of(model: Model) -> float:
    """FLOP of matrix products that tagging a token takes; training takes three times as much."""
    hidden, labels = model.config.model.encoder.hidden, len(model.lexicon.labels)
    inputs = model.network.words.output_size + model.config.model.characters.filters
    return 2 * (2 * 4 * hidden * (inputs + hidden) + 2 * hidden * labels)


def nertool_steps(setting: Setting, batch_size: int, folder: Path) -> Generator[int | None, None, None]:
    """`nertool train` as it is: yields the tokens of each batch learnt, None for all that is not training."""
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
    """Training of the reference: the tokens of each batch learnt.

    Args:
        setting: Corpus and rates.
        model: Whose vocabularies and weights it begins with.
        batch_size: Sentences in a batch.
        sort: Whether batches are of sentences of about one length.
        train_words_only: Whether its word table leaves out the words that training never sees.
    """
    corpus, training = setting.corpus.train, setting.config.training
    rows = model.lexicon.row_count
    if train_words_only:
        rows = 1 + len({token for tokens in corpus.tokens for token in tokens} & model.lexicon.rows.keys())
    yield from training_steps(
        reference_tagger(model, rows),
        reference_vocabulary(model, rows),
        corpus.tokens,
        corpus.labels,
        batch_size=batch_size,
        sort=sort,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
        clip=training.clip,
    )


def reference_vocabulary(model: Model, rows: int | None = None) -> Vocabulary:
    """The reference's vocabularies, equal to the model's; the word table may be cut after some rows."""
    lexicon = model.lexicon
    words = lexicon.words if rows is None else lexicon.words[: rows - 1]
    return Vocabulary(words, lexicon.characters, lexicon.labels)


def reference_tagger(model: Model, rows: int | None = None) -> ReferenceTagger:
    """The reference with the network and the weights of a model; the word table may be cut after some rows."""
    config, words = model.config.model, model.network.words.weight
    if (
        config.characters.kind != "cnn"
        or config.characters.dropout
        or config.decoder != "crf"
        or config.constraints == "always"
        or config.characters.case_dimensions
        or config.encoder.kind != "lstm"
        or config.encoder.layers != 1
        or not config.encoder.bidirectional
        or config.attention.kind != "none"
        or config.locked_dropout
    ):
        raise ValueError("the reference is a BiLSTM-CNN-CRF of one layer; this model is another")
    count = len(words) if rows is None else rows
    tagger = ReferenceTagger(
        count,
        words.shape[1],
        model.lexicon.kind_count,
        len(model.lexicon.labels),
        config.characters.dimensions,
        config.characters.filters,
        config.characters.width,
        config.encoder.hidden,
        config.dropout,
        model.config.words.dropout,
    )
    tagger.load_state_dict(plain_weights(model.network.state_dict(), count))
    return tagger


def plain_weights(ours: Mapping[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """A network's weights, or their gradients, under the names and in the shapes of torch's own parts."""
    weights = {
        "words.weight": ours["words.weight"][:rows],
        "characters.weight": ours["characters.embedding"],
        "convolution.weight": ours["characters.kernel"].permute(2, 1, 0),
        "convolution.bias": ours["characters.bias"],
        "scores.weight": ours["scores.weight"],
        "scores.bias": ours["scores.bias"],
    }
    for name in ("start_transitions", "transitions", "end_transitions"):
        weights[f"crf.{name}"] = ours[f"decoder.{name}"]
    for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        weights[f"lstm.{part}"] = ours[f"encoder.layers.0.0.cell.{part}"]
        weights[f"lstm.{part}_reverse"] = ours[f"encoder.layers.0.1.cell.{part}"]
    return weights
