"""Tables in parquet and Arrow files: a row for each sentence, with lists of tokens, labels and further values.

Names of labels come from the features of the data, as the package `datasets` writes them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.columns import Interned
from nertool.formats.datasets_export import DOCUMENT, UNLABELLED, datasets_package, to_dataset_dict
from nertool.formats.opening import LARGEST_WHOLE
from nertool.formats.registry import Format, Holds, ReadOptions, Report, WriteOptions
from nertool.formats.streams import watched
from nertool.text.document import UNKNOWN, Document, Origin

_ROWS = 10_000  # that are Python objects at a time
_HOLDS: frozenset[Holds] = frozenset({"entities", "tags", "columns", "sentences", "documents", "unlabelled"})
_SCALARS = ("string", "large_string", "string_view", "bool")


class Parquet(Format):
    """A row for each sentence: `tokens`, `ner_tags` with names, further columns, and `document` as the id."""

    name = "parquet"
    description = "parquet: a row for each sentence, as the package datasets has it"
    suffixes = (".parquet",)
    holds = _HOLDS

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a sentence from each row."""
        table, features = _open(path, _parquet_table)
        yield from table_documents(table, features, str(path), options)

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write a row for each sentence; label names are in the features."""
        from pyarrow import parquet

        dataset = _dataset(watched(documents, self, target, report), target, options).with_format("arrow")
        # `Dataset.to_parquet` leaves its writer open when it is interrupted, which complains when it is collected.
        with (
            replaced_when_done(target) as stream,
            parquet.ParquetWriter(stream, dataset.features.arrow_schema) as writer,
        ):
            for table in dataset.iter(_ROWS):
                writer.write_table(table)


class Arrow(Format):
    """The same as parquet in Arrow's own formats: read both, write the stream that `datasets` reads."""

    name = "arrow"
    description = "Arrow: a row for each sentence, as the package datasets has it"
    suffixes = (".arrow",)
    holds = _HOLDS

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize Arrow's stream, whose first bytes are those of other files too, by the name as well."""
        return head is None and path.is_file() and path.suffix.lower() in self.suffixes

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a sentence from each row."""
        table, features = _open(path, _arrow_table)
        yield from table_documents(table, features, str(path), options)

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write a row for each sentence; label names are in the features."""
        from pyarrow import ipc

        table = _dataset(watched(documents, self, target, report), target, options).with_format("arrow")[:]
        with replaced_when_done(target) as stream, ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)


def table_documents(table: Any, features: Any, name: str, options: ReadOptions) -> Iterator[Document]:
    """Read a sentence from each row of an Arrow table.

    Args:
        table: A `pyarrow.Table`.
        features: Its `datasets.Features`.
        name: Of the file or dataset, for errors.
        options: Names of the columns of tokens and labels, scheme of the labels, what to strip.

    Raises:
        CorpusError: A column is missing, labels are numbers without names, or a row is wrong.
    """
    tags, lookup = _tag_column(features, name, options)
    further = _further_columns(table, features, options)
    columns = [options.token_column, *([tags] if tags else []), *further]
    columns += [DOCUMENT] if DOCUMENT in table.column_names else []
    forms, values = Interned(options.strip, Path(name)), Interned(None, Path(name))
    row = 0
    for batch in table.select(columns).to_batches(max_chunksize=_ROWS):
        lists = {column: batch.column(column).to_pylist() for column in columns}
        words = lists[options.token_column]
        for index in range(len(words)):
            row += 1
            if not words[index]:
                continue
            tokens = _tokens(words[index], name, row, forms)
            labels = None
            if tags is not None:
                labels = _labels(lists[tags][index], len(tokens), lookup, name, row, values)
            mark = lists[DOCUMENT][index] if DOCUMENT in lists else None
            yield Document(
                tokens,
                labels=labels,
                scheme=None if labels is None else options.scheme,
                columns={
                    column: tuple(values[show(value)] for value in lists[column][index])
                    for column, show in further.items()
                },
                id=None if mark is None else str(mark),
                origin=Origin(name, "row", (row,)),
            )


def _open(path: Path, read: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Read a table and its features."""
    datasets = datasets_package()
    import pyarrow

    try:
        with path.open("rb") as stream:
            # A pipe cannot be rewound; Arrow begins at the end of a file.
            table = read(stream if stream.seekable() else io.BytesIO(stream.read(LARGEST_WHOLE)))
        # Arrow trusts the offsets of a file until it is told not to; Python would read from where they lead.
        table.validate(full=True)
        return table, datasets.Features.from_arrow_schema(table.schema)
    except OSError as problem:
        raise CorpusError(f"cannot be read: {problem.strerror or problem}", path) from None
    # The features are JSON in the file, which datasets takes for what it should be.
    except (
        pyarrow.ArrowException,
        MemoryError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as problem:
        raise CorpusError(f"not a {path.suffix} file, or a corrupt one: {one_line(problem)}", path) from None


def _parquet_table(stream: Any) -> Any:
    from pyarrow import parquet

    return parquet.read_table(stream)


def _arrow_table(stream: Any) -> Any:
    import pyarrow
    from pyarrow import ipc

    try:
        return ipc.open_stream(stream).read_all()
    except pyarrow.ArrowInvalid:  # the other of Arrow's two formats
        stream.seek(0)
        return ipc.open_file(stream).read_all()


def _dataset(documents: Iterable[Document], path: Path, options: WriteOptions) -> Any:
    try:
        dataset = to_dataset_dict({"train": documents}, options.scheme)["train"]
    except UnicodeEncodeError as problem:
        raise CorpusError(f"cannot be written: {problem.reason}", path) from None
    if not len(dataset):
        raise CorpusError("there is no sentence to write", path)
    return dataset


def _tokens(words: list[Any], name: str, row: int, forms: Interned) -> tuple[str, ...]:
    if not all(words):
        raise CorpusError(f"row {row}: token {words.index('' if '' in words else None) + 1} is empty", name)
    return tuple(forms[word] for word in words)


def _labels(
    tags: list[Any] | None, count: int, lookup: dict[Any, str] | None, name: str, row: int, values: Interned
) -> tuple[str, ...]:
    if tags is None:
        return (UNKNOWN,) * count
    if len(tags) != count:
        counts = f"{count} tokens and {len(tags)} labels"
        raise CorpusError(f"row {row}: {counts}; expected as many labels as tokens", name)
    if lookup is None:
        return tuple(values[tag or UNKNOWN] for tag in tags)
    try:
        return tuple(lookup[number] for number in tags)
    except KeyError as problem:
        listed = f"from 0 to {len(lookup) - 3}, or -1 for none"
        raise CorpusError(f"row {row}: there is no label {problem}; they are {listed}", name) from None


def _tag_column(features: Any, path: str, options: ReadOptions) -> tuple[str | None, dict[Any, str] | None]:
    """Check the columns of tokens and labels.

    Returns:
        The name of the label column, None where there is none and none is wanted; and the names behind its
        numbers, None where it holds the names themselves.
    """
    listed = ", ".join(features)
    wanted = {"tokens": options.token_column, **({"tags": options.tag_column} if options.labelled else {})}
    for key, name in wanted.items():
        if name not in features:
            raise CorpusError(f"there is no column {name!r} for corpus.{key}; the columns are: {listed}", path)
    if not _is_text(_element(features[options.token_column])):
        column = options.token_column
        raise CorpusError(f"the column {column!r} does not hold lists of strings; name another", path)
    column = options.tag_column
    tags = _element(features[column]) if column in features else None
    names = getattr(tags, "names", None)
    if names is not None:
        return column, {UNLABELLED: UNKNOWN, None: UNKNOWN} | dict(enumerate(names))
    if _is_text(tags):
        return column, None
    if not options.labelled:
        return None, None
    raise CorpusError(
        f"the column {column!r} does not hold lists of ClassLabel or of strings, and numbers have no names that "
        "could be guessed. The names may be in the dataset's README: name its folder as corpus.hub; or cast the "
        "column to Sequence(ClassLabel(names=[...])) and save it",
        path,
    )


def _further_columns(table: Any, features: Any, options: ReadOptions) -> dict[str, Callable[[Any], str]]:
    """Find the columns with a value for each token, and how each value is written as a string."""
    from pyarrow import compute

    found: dict[str, Callable[[Any], str]] = {}
    counts = compute.list_value_length(table[options.token_column])
    for name, feature in features.items():
        element = _element(feature)
        dtype = str(getattr(element, "dtype", None))
        if name in (options.token_column, options.tag_column) or not dtype.startswith((*_SCALARS, "int", "uint")):
            continue
        same = compute.equal(counts, compute.list_value_length(table[name]))
        # A row without tokens has no values either.
        if compute.all(compute.fill_null(same, False)).as_py():
            found[name] = _as_string(getattr(element, "names", None))
    return found


def _as_string(names: list[str] | None) -> Callable[[Any], str]:
    lookup: dict[Any, str] = {None: ""}
    if names is not None:
        lookup |= {UNLABELLED: "", **dict(enumerate(names))}
    return lambda value: lookup[value] if value in lookup else str(value)


def _element(feature: Any) -> Any:
    """Return what a list feature is a list of: it is written in three ways."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def _is_text(feature: Any) -> bool:
    return str(getattr(feature, "dtype", None)) in ("string", "large_string", "string_view")


def one_line(problem: Exception) -> str:
    """Return what an exception says, in one line."""
    return " ".join(str(problem).split())[:300]
