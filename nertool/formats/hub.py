"""Corpora in the format of `datasets`: named on the hub, in a folder, or as a file.

Names of labels come from the features of the data. This is the only module that imports `datasets` and Arrow.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nertool.config.schema import CorpusConfig
from nertool.errors import ConfigError, CorpusError
from nertool.formats.columns import Interned
from nertool.formats.labels import UNKNOWN, LabelledSentences, Reader, settle
from nertool.text.schemes import Scheme

SUFFIXES = (".parquet", ".arrow")
DOCUMENT = "document"
_ROWS = 10_000  # that are Python objects at a time


def read_file(
    path: str | Path, config: CorpusConfig, target: Scheme | None = None, *, partial: bool = False
) -> LabelledSentences:
    """Reads a .parquet or .arrow file, a sentence to a row.

    Args:
        path: The file.
        config: Names of the columns, scheme of the labels, and policies.
        target: The scheme of the labels that are wanted; None: the file's.
        partial: Whether rows stay of which some tokens have no label.

    Raises:
        CorpusError: The file is none, lacks a column, or its labels are numbers without names.
        ConfigError: The package `datasets` is not installed.
    """
    datasets = datasets_package()
    import pyarrow
    from pyarrow import ipc, parquet

    path = Path(path)
    try:
        with path.open("rb") as stream:
            if path.suffix.lower() == ".parquet":
                table = parquet.read_table(stream)
            else:
                try:
                    table = ipc.open_stream(stream).read_all()
                except pyarrow.ArrowInvalid:  # the other of Arrow's two formats
                    stream.seek(0)
                    table = ipc.open_file(stream).read_all()
        # Arrow trusts the offsets of a file until it is told not to; Python would read from where they lead.
        table.validate(full=True)
        features = datasets.Features.from_arrow_schema(table.schema)
    except OSError as problem:
        raise CorpusError(f"cannot be read: {problem.strerror or problem}", path) from None
    # The features are JSON in the file, which datasets takes for what it should be.
    except (pyarrow.ArrowException, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
        raise CorpusError(f"not a {path.suffix} file, or a damaged one: {_line(problem)}", path) from None
    return _sentences(table, features, path, config, target, partial)


def open_dataset(config: CorpusConfig) -> Reader:
    """Opens the dataset that a config names, in a folder or on the hub.

    Args:
        config: With `hub`: a folder that `load_dataset` or `load_from_disk` reads, or a name on the hub.

    Returns:
        What reads a split by its name.

    Raises:
        CorpusError: There is no such dataset, it has no such split, or its labels cannot be read.
        ConfigError: The package `datasets` is not installed.
    """
    source = config.hub or ""
    found = _load(source, config)
    splits = found if isinstance(found, Mapping) else {"train": found}

    def read(name: str, target: Scheme | None = None, *, partial: bool = False) -> LabelledSentences:
        if name not in splits:
            listed = ", ".join(splits)
            raise CorpusError(
                f"it has no split {name!r}; its splits are: {listed}. Name one in the config, as train, "
                "validation or test, or none as null",
                source,
            )
        data = splits[name]
        return _sentences(data.with_format("arrow")[:], data.features, Path(source, name), config, target, partial)

    return read


def _load(name: str, config: CorpusConfig) -> Any:
    datasets = datasets_package()
    folder = Path(name)
    with without_bars(datasets):
        try:
            if any((folder / each).is_file() for each in ("dataset_dict.json", "state.json")):
                return datasets.load_from_disk(name)
            # A name that is a folder too would be taken for the folder, wherever the config was read.
            return datasets.load_dataset(
                str(folder.resolve()) if folder.is_dir() else name, config.config, revision=config.revision
            )
        # It raises errors of its own, of Arrow, of the network, and bare ones.
        except Exception as problem:
            raise CorpusError(_explain(problem, folder.is_dir(), datasets), name) from None


def _explain(problem: Exception, local: bool, datasets: Any) -> str:
    message = _line(problem)
    if "scripts are no longer supported" in message or "trust_remote_code" in message:
        return (
            f"this dataset loads by a script of its own, and datasets {datasets.__version__} runs none. Take the "
            "copy of it that the hub has made, where there is one, with 'revision: refs/convert/parquet'; or "
            "another dataset with the same sentences; or its files, with train, validation and test"
        )
    if isinstance(problem, ConnectionError) or "OfflineMode" in message or "connect" in message.lower():
        return (
            f"the hub cannot be reached ({message}). A folder of that name, here or in one of NERTOOL_DATA, "
            "is read instead of the hub; so is what datasets has kept of an earlier reading"
        )
    if isinstance(problem, FileNotFoundError) and not local:
        return f"no such dataset on the hub, or it is not open to you: {message}"
    if "config" in message.lower():
        return f"{message} Choose one with corpus.config"
    return f"datasets cannot load it: {message}"


def _sentences(
    table: Any, features: Any, path: Path, config: CorpusConfig, target: Scheme | None, partial: bool
) -> LabelledSentences:
    """The rows of an Arrow table."""
    names = _label_names(features, path, config)
    # -1 and null are what stands where nobody has labelled.
    lookup = {-1: UNKNOWN, None: UNKNOWN} | dict(enumerate(names)) if names is not None else None
    forms, known = Interned(config.strip, path), Interned(None, path)
    tokens: list[list[str]] = []
    labels: list[list[str]] = []
    documents: list[int] = []
    starts = array("q")
    document, before = 0, None
    for row, words, tags, mark in _rows(table, config):
        words = words or []
        tags = [None] * len(words) if tags is None else tags
        if len(words) != len(tags):
            counts = f"{len(words)} tokens and {len(tags)} labels"
            raise CorpusError(f"row {row}: {counts}; expected as many labels as tokens", path)
        if not words:
            continue
        if not all(words):
            raise CorpusError(f"row {row}: token {words.index('' if '' in words else None) + 1} is empty", path)
        if lookup is not None:
            try:
                tags = [lookup[number] for number in tags]
            except KeyError as problem:
                listed = f"from 0 to {len(lookup) - 3}, or -1 for none"
                raise CorpusError(f"row {row}: there is no label {problem}; they are {listed}", path) from None
        document += bool(tokens) and mark != before
        before = mark
        tokens.append([forms[word] for word in words])
        labels.append([known[tag or UNKNOWN] for tag in tags])
        documents.append(document)
        starts.append(row)
    if not tokens:
        raise CorpusError("there is no sentence in it", path)
    return settle(
        tokens,
        labels,
        documents,
        starts,
        path,
        scheme=None if config.scheme == "detect" else Scheme(config.scheme),
        target=target,
        stray=config.stray,
        partial=partial,
        unit="row",
    )


def _rows(table: Any, config: CorpusConfig) -> Iterator[tuple[int, Any, Any, Any]]:
    """The number of each row, its tokens and labels, and its document where there is such a column."""
    columns = [config.tokens, config.tags, *([DOCUMENT] if DOCUMENT in table.column_names else [])]
    row = 0
    for batch in table.select(columns).to_batches(max_chunksize=_ROWS):
        lists = [column.to_pylist() for column in batch.columns]
        for words, tags, *mark in zip(*lists, strict=True):
            row += 1
            yield row, words, tags, mark[0] if mark else None


def _label_names(features: Any, path: Path, config: CorpusConfig) -> list[str] | None:
    """The names behind the numbers of the label column; None where it holds the names themselves."""
    listed = ", ".join(features)
    for key in ("tokens", "tags"):
        name = getattr(config, key)
        if name not in features:
            raise CorpusError(f"there is no column {name!r} for corpus.{key}; the columns are: {listed}", path)
    if not _is_text(_element(features[config.tokens])):
        raise CorpusError(f"the column {config.tokens!r} does not hold lists of strings; name another", path)
    tags = _element(features[config.tags])
    names = getattr(tags, "names", None)
    if names is not None:
        return list(names)
    if _is_text(tags):
        return None
    raise CorpusError(
        f"the column {config.tags!r} does not hold lists of ClassLabel or of strings, and numbers have no names "
        "that could be guessed. The names may stand in the dataset's README: name its folder as corpus.hub; or "
        "cast the column to Sequence(ClassLabel(names=[...])) and save it",
        path,
    )


def _element(feature: Any) -> Any:
    """What a list feature is a list of: it is written in three ways."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def _is_text(feature: Any) -> bool:
    return str(getattr(feature, "dtype", None)) in ("string", "large_string", "string_view")


def datasets_package() -> Any:
    """The package `datasets`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError("this needs the package datasets: pip install 'nertool[datasets]'") from None
    return datasets


@contextmanager
def without_bars(datasets: Any) -> Iterator[None]:
    """No bars where nobody watches them."""
    before = datasets.utils.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.utils.enable_progress_bars()


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
