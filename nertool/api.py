"""The public API: train a model, evaluate it, read data. All of it is also in `nertool` itself.

| name | what it does |
| --- | --- |
| `train(data or config)` | train a model; returns a `Result` with scores and a `Tagger` |
| `Tagger.load(path)` | load a model, exported or not; `tagger(text)` returns a `Document` with entities |
| `evaluate(model, data)` | score a model on labelled data |
| `look(model, text)` | look inside a model at work; returns a `Look`, which a notebook draws |
| `read(path)` | read documents from a file in any format |
| `read_corpus(config)` | read the splits that a config names |
| `Document`, `Entity` | text with tokens, labels, entities and scores |
| `Config` | all settings of a run; every default is visible |
| `Mapper(folder)` | a model as a function for `datasets.Dataset.map` |
| `NertoolError` | base of all errors about what was given |

The examples run in a folder that holds the demonstration corpus as `corpora/demo` (it ships with nertool).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from html import escape
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nertool.errors import NertoolError
from nertool.forking import cached_property, no_fork

if TYPE_CHECKING:
    from nertool.config.schema import Config
    from nertool.data.corpus import Corpus
    from nertool.evaluation.scores import Evaluation
    from nertool.model.outline import Outline
    from nertool.tagging.inside import Inside
    from nertool.tagging.tagger import Tagger
    from nertool.text.document import Document

    AnyConfig = str | Path | Mapping[str, Any] | Config
    AnyModel = str | Path | Tagger | Outline


@dataclass(frozen=True)
class Result:
    """A finished training.

    Attributes:
        folder: The run directory: the model of the best epoch, its metrics and its scores.
        scores: An `Evaluation` of the best epoch for "validation" and, if there is a test split, for "test".
        epochs: How many were trained.
    """

    folder: Path
    scores: dict[str, Evaluation]
    epochs: int

    @cached_property
    def tagger(self) -> Tagger:
        """The trained model, ready to tag."""
        from nertool.tagging.tagger import Tagger

        return Tagger.load(self.folder)

    def _repr_html_(self) -> str:
        """Return the scores of each split as tables for notebooks."""
        tables = [scores.to_html(f"{split.capitalize()} split") for split, scores in self.scores.items()]
        count = f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"
        return f"<p>Trained for {count}; the model is in {escape(str(self.folder))}</p>{''.join(tables)}"


@dataclass(frozen=True)
class Look:
    """The inside of a model at work on a text. A notebook draws it.

    Attributes:
        sentences: What the model computes for each sentence, as arrays of numpy.
        model: Name of the model.
    """

    sentences: list[Inside]
    model: str

    def write(self, path: str | Path) -> None:
        """Write a page that shows it, the one of `nertool look --output`.

        Raises:
            NertoolError: It cannot be written there.
        """
        from nertool.views.inside import write_page

        write_page(self.sentences, self.model, Path(path))

    def _repr_html_(self) -> str:
        """Return what the page shows for notebooks."""
        from nertool.views.inside import fragment

        return fragment(self.sentences, self.model)


def train(
    config: AnyConfig,
    output: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    *,
    validation: str | None = None,
    test: str | None = None,
    vectors: Sequence[str] = (),
    language: str | None = None,
    start: str | Path | None = None,
    keep_labels: bool = False,
    self_label: bool = False,
    device: str | None = None,
) -> Result:
    """Train a model on a data file, or as a config says.

    >>> import nertool
    >>> result = nertool.train(
    ...     {
    ...         "corpus": {
    ...             "train": "corpora/demo/train.txt",
    ...             "validation": "corpora/demo/validation.txt",
    ...             "test": "corpora/demo/test.txt",
    ...         },
    ...         "inputs": {"words": {"dimensions": 20}, "characters": {"filters": 10}},
    ...         "model": {"encoder": {"kind": "lstm", "hidden": 20}, "dropout": 0.1},
    ...         "training": {"epochs": 2, "optimizer": "adam", "learning_rate": 0.01, "threads": 1},
    ...     },
    ...     output="runs/small",
    ... )
    >>> result.folder.name, result.epochs, sorted(result.scores)
    ('small', 2, ['test', 'validation'])
    >>> 0.0 <= result.scores["test"].micro.f1 <= 1.0
    True
    >>> document = result.tagger("Ada lives in London.")
    >>> document.tokens
    ('Ada', 'lives', 'in', 'London', '.')

    Args:
        config: A file or folder of labelled text in any format, for whose size settings are chosen; or the path of
            a YAML file, the name of a config that ships with nertool, a dictionary, or a `Config`.
        output: The run directory. None: a new folder in `runs`, named after the config's file, else `model`.
        resume: Whether to go on where a training of this config in `output` was stopped, if one was. It ends with
            the same bits as if it had not been stopped. One that has ended goes on if more epochs are asked for.
        progress: Whether to print progress and scores.
        validation: A file that chooses the best epoch.
        test: A file that is scored once, at the end.
        vectors: Files of pretrained word vectors, or names such as `glove-100` (see `nertool vectors`).
        language: Of the text, a spaCy code.
        start: Run directory of a model whose weights training starts from; a data file is then learnt with the
            network of that model, and a config has to describe the same.
        keep_labels: Whether types of that model which the training split does not annotate are unknown there,
            where it has O.
        self_label: Whether that model labels these types in the training split itself.
        device: What to train on: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`, a GPU where there is one. None: what
            the config says.

    Raises:
        NertoolError: The config or the corpus is wrong, or training diverged; says what to do.
    """
    with no_fork():
        from nertool.data.recipe import overrides_of
        from nertool.training.distributed import launched
        from nertool.training.folders import run_folder
        from nertool.training.run import run

    if launched() is not None:
        raise NertoolError(
            "nertool.train trains in one process; several train together by the command: torchrun "
            "--nproc-per-node N -m nertool train CONFIG"
        )
    files = [vectors] if isinstance(vectors, str) else vectors
    model = None if start is None else str(start)
    settings, name = _load_config(
        config, overrides_of(validation, test, files, language, model, keep_labels, self_label, device)
    )
    if output is None and resume:
        raise NertoolError("resume: name the run directory of the training that was stopped as output")
    last: list[Any] = []

    def records(folder: Path) -> Generator[Any, None, None]:
        with closing(run(settings, folder, resume=resume)) as running:
            for record in running:
                last[:] = [record]
                yield record

    place = run_folder(name) if output is None else nullcontext(Path(output))
    with place as folder, closing(records(folder)) as running:
        if progress:
            from nertool.views.console import new_console
            from nertool.views.training import Watcher

            Watcher(new_console(), folder).watch(running)
        else:
            deque(running, maxlen=0)
    (finished,) = last
    scores = {"validation": finished.best.validation}
    if finished.test is not None:
        scores["test"] = finished.test
    return Result(folder, scores, finished.epochs)


def evaluate(model: AnyModel, data: str | Path | Iterable[Document], *, device: str = "cpu") -> Evaluation:
    """Score a model on labelled data.

    >>> import nertool
    >>> scores = nertool.evaluate("runs/small", "corpora/demo/test.txt")
    >>> scores.sentences > 100, scores.mode
    (True, 'strict IOBES')
    >>> documents = nertool.read("corpora/demo/test.txt")
    >>> nertool.evaluate("runs/small", documents) == scores
    True

    Args:
        model: A run directory, a file of `nertool export`, a `Tagger` or a loaded model.
        data: A labelled file, read as the model's corpus was; or labelled documents, such as those of `read`.
        device: What a model that is loaded here computes on; one that is loaded already stays where it is.

    Returns:
        Precision, recall and F1, over all (`.micro`) and for each type (`.per_type`).

    Raises:
        NertoolError: There is no such model, the data is not labelled, or its labels do not fit the model.
        TypeError: It is neither a path nor documents, or there is no model.
    """
    with no_fork():
        from nertool.config.files import find
        from nertool.data.corpus import read_split
        from nertool.evaluation.scores import evaluate as score
        from nertool.tagging.predictor import Predictor
        from nertool.text.tokenization import SpacyTokenizer

    loaded = _load_model(model, device)
    if isinstance(data, str | Path):
        tokenizer = SpacyTokenizer(loaded.config.language)
        split = read_split(find(str(data)), loaded.config.corpus, loaded.scheme, tokenizer=tokenizer)
        sentences, gold = list(split.sentences), list(split.labels)
    else:
        sentences, gold = _labelled_sentences(data, loaded)
    return score(gold, Predictor(loaded).predict(sentences).labels, loaded.scheme)


def look(model: AnyModel, text: str | Document) -> Look:
    """Look inside a model while it labels a text: gates, attention, label scores, transitions, the best two paths.

    >>> import nertool
    >>> look = nertool.look("runs/small", "Ada lives in London.")
    >>> (inside,) = look.sentences
    >>> inside.emissions.shape == inside.marginals.shape == (5, len(inside.labels))
    True
    >>> inside.paths[0].probability >= inside.paths[1].probability
    True

    Args:
        model: A run directory, a file of `nertool export`, a `Tagger` or a loaded model.
        text: A short text; or a document, where the model reads columns.

    Raises:
        NertoolError: There is no token, or a sentence is too long.
        TypeError: It is no text, or there is no model.
    """
    with no_fork():
        from nertool.tagging.tagger import Tagger

    tagger = model if isinstance(model, Tagger) else Tagger(_load_model(model))
    sentences = tagger.inside(text)
    if not sentences:
        raise NertoolError("there is no token in this text")
    return Look(sentences, str(model) if isinstance(model, str | Path) else "a loaded model")


def read(path: str | Path, format: str | None = None) -> Iterator[Document]:
    """Read documents from a file or folder, labelled or not.

    >>> import nertool
    >>> document = next(nertool.read("corpora/demo/test.txt"))
    >>> document.tokens[0], document.labels[0], str(document.scheme)
    ('Deshmukh', 'B-ORG', 'IOB2')
    >>> sum(len(document.entities) for document in nertool.read("corpora/demo/test.txt")) > 100
    True

    Args:
        path: See `nertool formats` for the formats.
        format: Name of the format; None: detect it from name and content.

    Yields:
        Documents. Labels are in the scheme of the file, which is detected; labels at invalid places are repaired.

    Raises:
        NertoolError: The file cannot be read; says where, what was expected, and what to do.
    """
    from nertool.formats.labels import resolve
    from nertool.formats.registry import ReadOptions, Report, detect_format, find_format

    source = Path(path)
    reader = detect_format(source) if format is None else find_format(format)
    documents = reader.read(source, ReadOptions(), Report())
    first = next(documents, None)
    if first is None:
        return
    documents = chain([first], documents)
    if first.labels is not None and first.scheme is None:  # the scheme is that of the whole file
        documents = iter(resolve(documents, source, partial=True, keep_unlabelled=True)[0])
    yield from documents


def read_corpus(config: AnyConfig) -> Corpus:
    """Read the splits that a config names, with labels in the scheme to be learnt.

    >>> import nertool
    >>> corpus = nertool.read_corpus("demo")
    >>> list(corpus.splits), corpus.train.label_scheme
    (['train', 'validation', 'test'], <Scheme.IOBES: 'IOBES'>)
    >>> corpus.test.sentences[0].labels[0]
    'B-ORG'

    Args:
        config: As for `train`.

    Raises:
        NertoolError: The config is wrong, or a file is missing or wrong.
    """
    from nertool.data.corpus import read_corpus as read_splits
    from nertool.text.tokenization import SpacyTokenizer

    settings, _ = _load_config(config)
    return read_splits(settings.corpus, tokenizer=SpacyTokenizer(settings.language))


def _load_config(config: AnyConfig, overrides: Sequence[str] = ()) -> tuple[Config, str]:
    """Return a config with the paths of its files, and a name for its runs."""
    with no_fork():
        from nertool.config.loading import locate_files, override, parse_config
        from nertool.config.schema import Config
        from nertool.data.recipe import open_config

    if isinstance(config, str | Path):
        recipe = open_config(str(config), overrides)
        return recipe.config, recipe.name
    checked = config if isinstance(config, Config) else parse_config(config)
    return locate_files(override(checked, overrides) if overrides else checked, None), "model"


def _load_model(model: AnyModel, device: str = "cpu") -> Outline:
    with no_fork():
        from nertool.model.outline import Outline
        from nertool.tagging.loading import load_model, locate

    if isinstance(model, str | Path):
        return load_model(locate(model), device)
    loaded = getattr(model, "model", model)
    if not isinstance(loaded, Outline):
        raise TypeError(f"expected a model: a run directory or a Tagger, and got {type(model).__name__}")
    return loaded


def _sentences(documents: Iterable[Document]) -> Iterator[Document]:
    from nertool.text.document import Document

    if not isinstance(documents, Iterable):
        raise TypeError(f"expected data: a path or labelled documents, and got {type(documents).__name__}")
    for document in documents:
        if not isinstance(document, Document):
            raise TypeError(f"expected a Document, and got {type(document).__name__}")
        yield from document.sentences()


def _labelled_sentences(documents: Iterable[Document], model: Outline) -> tuple[list[Document], list[list[str]]]:
    """Return the sentences of documents, and their labels in the model's scheme."""
    from nertool.errors import CorpusError
    from nertool.text.document import UNKNOWN
    from nertool.text.schemes import convert

    sentences, gold = [], []
    for sentence in _sentences(documents):
        if sentence.labels is None or sentence.scheme is None or UNKNOWN in sentence.labels:
            raise CorpusError(f"a sentence has no labels, or not for all of its tokens: {sentence.text[:60]!r}")
        try:
            gold.append(convert(sentence.labels, sentence.scheme, model.scheme))
        except ValueError as problem:
            raise CorpusError(f"the labels do not fit the model: {problem}") from None
        sentences.append(sentence)
    return sentences, gold
