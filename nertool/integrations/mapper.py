"""A trained model as a function over batches: a column of texts or tokens in, labels and entities out.

`datasets`, pandas and pyarrow are used where they are given, and never imported otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nertool.errors import BundleError, CorpusError, NertoolError
from nertool.tagging.loading import fingerprint, locate
from nertool.tagging.tagger import Tagger
from nertool.text.document import Document, Entity


class Mapper:
    """Tags the batches of a dataset: `dataset.map(Mapper("runs/demo"), batched=True)`.

    A batch is a mapping of columns, a pandas DataFrame, or an Arrow table or record batch. For a mapping the new
    columns come back; for a DataFrame, or an Arrow table, one of the same kind with the new columns added. A
    dictionary of numpy arrays, as Ray Data has it, comes back with its columns and the new ones.

    It goes to other processes (`num_proc=2`) and into the fingerprints of datasets as the name of a folder and a
    digest of its files; each process loads the model when it has something to tag. Ray Data makes one in each
    actor, `dataset.map_batches(Mapper, fn_constructor_args=("runs/demo",), ...)`; Spark calls `pandas`.

    The new columns are `labels`, as strings; `entities`, each with start, end, label, text and score; and for
    texts `tokens`. Offsets count characters of a text, or tokens where these were given; the end is exclusive.

    >>> import nertool
    >>> mapper = nertool.Mapper("runs/small", text="report")  # the model of `nertool.train`
    >>> batch = mapper({"report": ["Ada lives in London.", "She likes it."]})
    >>> list(batch), batch["tokens"][1]
    (['tokens', 'labels', 'entities'], ['She', 'likes', 'it', '.'])

    Args:
        folder: The run directory of a model, or `hub:owner/name@revision`.
        tokens: The column to tag, which holds lists of tokens, each list a sentence.
        text: Instead of it a column that holds texts.
        overwrite: Whether the new columns may replace columns of the same names.
        device: What the model computes on in each process: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`.
        min_score: Entities with a lower score are left out, and their tokens labelled O.

    Raises:
        BundleError: It is not a model.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        tokens: str = "tokens",
        text: str | None = None,
        overwrite: bool = False,
        device: str = "cpu",
        min_score: float = 0.0,
    ) -> None:
        if not 0 <= min_score <= 1:
            raise NertoolError(f"min_score is {min_score}; expected a probability from 0 to 1")
        self.folder = str(locate(folder).resolve())
        self.column = tokens if text is None else text
        self.holds_texts = text is not None
        self.overwrite = overwrite
        self.device = device
        self.min_score = min_score
        self.digest = _digest(Path(self.folder))
        self._tagger: Tagger | None = None
        self._cut_sentences = 0

    @property
    def new_columns(self) -> tuple[str, ...]:
        """The names of the columns that are added."""
        return ("tokens", "labels", "entities") if self.holds_texts else ("labels", "entities")

    @property
    def cut_sentences(self) -> int:
        """How many sentences were too long to be tagged whole, in this process."""
        return self._cut_sentences

    def __call__(self, batch: Any) -> Any:
        """Tag a batch.

        Raises:
            CorpusError: It has no such column, the column holds something else, or a new column is there already.
            BundleError: The model was replaced after this was made.
        """
        package = type(batch).__module__.partition(".")[0]
        if package == "pandas" and hasattr(batch, "columns"):
            columns = self._tag(list(batch.columns), lambda: batch[self.column].tolist())
            return batch.assign(**columns)
        if package == "pyarrow" and hasattr(batch, "column_names"):
            columns = self._tag(batch.column_names, lambda: batch.column(self.column).to_pylist())
            return with_columns(batch, columns)
        if isinstance(batch, Mapping):
            columns = self._tag(list(batch), lambda: batch[self.column])
            # Ray takes what comes back for the whole batch; `datasets` adds it to the other columns.
            arrays = type(batch) is dict and all(type(each).__module__ == "numpy" for each in batch.values())
            return _with_arrays(dict(batch), columns) if arrays else columns
        raise CorpusError(
            f"expected a batch of columns (a mapping, a pandas DataFrame or an Arrow table) and got "
            f"{type(batch).__name__}"
        )

    def features(self, given: Any) -> Any:
        """Return the features of a dataset that has been mapped, for `map(..., features=...)`.

        Without them `datasets` derives them from the first rows, which fails where these have no entity and later
        ones do.

        Args:
            given: `dataset.features`, of the dataset to be mapped.

        Raises:
            CorpusError: One of the new columns is there.
        """
        from nertool.formats.datasets_export import entity_features

        self._refuse_overwriting(given or ())
        return entity_features(given, self.holds_texts)

    def pandas(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Tag DataFrames one after another, for `df.mapInPandas(mapper.pandas, mapper.spark_schema(df.schema))`.

        Args:
            frames: pandas DataFrames.
        """
        yield from map(self, frames)

    def spark_schema(self, given: Any = None) -> Any:
        """Return the schema of a Spark DataFrame that has been mapped, a `pyspark.sql.types.StructType`.

        Args:
            given: `df.schema`, of the DataFrame to be mapped; None: it has the column to tag alone.

        Raises:
            CorpusError: The column to tag is not in it, or one of the new columns is.
        """
        from pyspark.sql import types

        texts = types.ArrayType(types.StringType())
        if given is None:
            given = types.StructType().add(self.column, types.StringType() if self.holds_texts else texts)
        names = list(given.names)
        self._find_column(names)
        self._refuse_overwriting(names)
        entity = types.StructType()
        for name, kind in (("start", "long"), ("end", "long"), ("label", "string"), ("text", "string")):
            entity.add(name, kind)
        entity.add("score", "double")
        fields = {field.name: field for field in given.fields}
        for name in self.new_columns:
            kind = types.ArrayType(entity) if name == "entities" else texts
            fields[name] = types.StructField(name, kind)
        return types.StructType(list(fields.values()))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_tagger", "_cut_sentences")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _tagger=None, _cut_sentences=0)

    def _tag(self, names: list[str], values: Any) -> dict[str, list[Any]]:
        self._find_column(names)
        rows = self._checked(values())
        self._refuse_overwriting(names)
        return self.tag_rows(rows)

    def tag_rows(self, rows: list[Any]) -> dict[str, list[Any]]:
        """Tag the values of a column.

        Args:
            rows: Texts, or lists of tokens, and nothing else.

        Returns:
            The new columns.
        """
        tagger = self._ready()
        if self.holds_texts:
            tagged = list(tagger.tag_texts(rows))
            entities = [[_fields(entity) for entity in document.entities] for document in tagged]
            extra: dict[str, list[Any]] = {"tokens": [list(document.tokens) for document in tagged]}
        else:
            tagged = list(tagger.tag_tokens(rows))
            entities = [_in_tokens(document) for document in tagged]
            extra = {}
        self._cut_sentences += sum(document.cut_sentences for document in tagged)
        return {**extra, "labels": [list(document.labels or ()) for document in tagged], "entities": entities}

    def _find_column(self, names: list[str]) -> None:
        if self.column not in names:
            raise CorpusError(
                f"there is no column {self.column!r} to tag; the columns are: {', '.join(map(str, names))}. Name "
                "one that holds lists of tokens with tokens=..., or one that holds texts with text=..."
            )

    def _checked(self, values: Any) -> list[Any]:
        """Return the rows, texts or lists of tokens; refuse anything else."""
        kind = "a text" if self.holds_texts else "a list of tokens"
        advice = f"expected {kind} in each row of a batch; is batched=True missing, or is it another column?"
        if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
            raise CorpusError(f"the column {self.column!r} is {_describe(values)}: {advice}")
        rows: list[Any] = []
        for number, value in enumerate(values, 1):
            place = f"row {number} of the batch, column {self.column!r}"
            if _is_null(value):
                raise CorpusError(f"{place}: there is no value; fill it in, or filter such rows out")
            if isinstance(value, str) is not self.holds_texts or not hasattr(value, "__iter__"):
                raise CorpusError(f"{place}: {_describe(value)}; {advice}")
            if self.holds_texts:
                rows.append(str(value))  # numpy has strings of its own
                continue
            row = list(value)
            if set(map(type, row)) - {str}:
                row = [self._token(token, index, place) for index, token in enumerate(row, 1)]
            rows.append(row)
        return rows

    def _token(self, token: Any, index: int, place: str) -> str:
        if isinstance(token, str):
            return str(token)
        wrong = "is missing (null)" if _is_null(token) else f"is {_describe(token)}"
        raise CorpusError(f"{place}: token {index} {wrong}; expected a string")

    def _refuse_overwriting(self, names: Iterable[str]) -> None:
        new = self.new_columns
        taken = sorted(set(new) & set(names))
        if taken and not self.overwrite:
            raise CorpusError(
                f"the columns {', '.join(new)} are added, and the data has {', '.join(taken)} already: rename it, "
                "or pass overwrite=True to replace it"
            )

    def _ready(self) -> Tagger:
        if self._tagger is None:
            if _digest(Path(self.folder)) != self.digest:
                raise BundleError(f"{self.folder}: the model was replaced after this was made; make it again")
            self._tagger = Tagger.load(self.folder, device=self.device, min_score=self.min_score)
        return self._tagger


def _digest(path: Path) -> str:
    """Return a digest of a model: a run directory, or a file of `nertool export`."""
    found = fingerprint(path)
    if found is None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _with_arrays(batch: dict[str, Any], columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Return a dictionary of numpy arrays with new columns, whose rows are Python lists."""
    import numpy

    result = dict(batch)
    for name, values in columns.items():
        result[name] = numpy.empty(len(values), dtype=object)
        result[name][:] = values
    return result


def with_columns(batch: Any, columns: Mapping[str, Any]) -> Any:
    """Return an Arrow table with columns added, or replaced in their places."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    fields = {"start": number, "end": number, "label": text, "text": text, "score": pyarrow.float64()}
    table = pyarrow.Table.from_batches([batch]) if isinstance(batch, pyarrow.RecordBatch) else batch
    for name, values in columns.items():
        kind = pyarrow.struct(list(fields.items())) if name == "entities" else text
        column = pyarrow.array(values, pyarrow.list_(kind))
        place = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, column) if place is None else table.set_column(place, name, column)
    return table


def _in_tokens(document: Document) -> list[dict[str, Any]]:
    return [
        {**_fields(entity), "start": span.start, "end": span.end}
        for entity, span in zip(document.entities, document.spans, strict=True)
    ]


def _fields(entity: Entity) -> dict[str, Any]:
    """Return what `Mapper.features` promises."""
    return {name: getattr(entity, name) for name in ("start", "end", "label", "text", "score")}


def _is_null(value: Any) -> bool:
    """Say whether a value stands for none: None, NaN, or pandas' NA and NaT."""
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and value != value)
    )


def _describe(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:40] + '…'} ({type(value).__name__})"
