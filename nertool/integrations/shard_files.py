"""Read parts of parquet and JSON Lines files, tag their rows, and write each part as a file of its own.

A shard appears under its name when it is complete. What is said about it is written before it, so that a shard
that is there needs nothing more. Memory is bounded: rows are read, tagged and written some at a time.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from nertool.config.files import is_file, replaced_when_done, write_whole
from nertool.errors import CorpusError, NertoolError
from nertool.formats.opening import BYTE_ORDER_MARK, LONGEST_LINE, open_bytes
from nertool.integrations.mapper import Mapper, with_columns
from nertool.text.tokenization import MOST_TOKENS

RECORDS, REJECTED = "_nertool", "_rejected"
"""Folders beside the shards. Readers of datasets ignore names that begin with an underscore."""

PARQUET, LINES = ".parquet", ".jsonl"
SUFFIXES = {
    ".parquet": PARQUET,
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), LINES),
}
"""How the names of input files end, and those of their shards."""

_ROWS = 1024  # read and tagged at a time, at most
_CHARACTERS = 1_000_000  # of texts that are tagged at a time, unless one alone has more
_GROUP = 2**25  # bytes of a row group that is written


class Part(NamedTuple):
    """Some rows of a file, which become a shard.

    Attributes:
        path: The file.
        name: Of the shard, without its suffix, below the output folder.
        suffix: `PARQUET` or `LINES`.
        start: Number of its first row in the file, from 0.
        rows: Number of its rows; of lines, blank ones included.
        offset: Byte of the file at which it begins; 0 in parquet and gzip files.
    """

    path: str
    name: str
    suffix: str
    start: int
    rows: int
    offset: int = 0


@dataclass
class Counts:
    """What became of rows.

    Attributes:
        tagged: Rows with labels.
        rejected: Rows that were written aside.
        blank: Lines without anything on them, which are left out.
        tokens: Of the tagged rows.
        entities: The same.
        cut: Sentences that were too long to be tagged as a whole.
        reasons: Why rows were rejected, with how many of them.
    """

    tagged: int = 0
    rejected: int = 0
    blank: int = 0
    tokens: int = 0
    entities: int = 0
    cut: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """All rows, and blank lines."""
        return self.tagged + self.rejected + self.blank

    def add(self, other: Counts) -> None:
        """Add the counts of other rows."""
        for name in ("tagged", "rejected", "blank", "tokens", "entities", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)


class PartTagger:
    """Tags parts of files: call it with a part. It can be pickled, and loads its model when it is called.

    Args:
        mapper: With the column to tag.
        output: The folder of the shards.
    """

    def __init__(self, mapper: Mapper, output: Path) -> None:
        self.mapper = mapper
        self.output = output

    def __call__(self, part: Part) -> Iterator[Counts]:
        """Write the shard of a part.

        Yields:
            The counts of some rows after another.

        Raises:
            CorpusError: The file cannot be read, or has changed.
            NertoolError: The shard cannot be written.
        """
        shard = shard_path(self.output, part)
        rejected = self.output / REJECTED / f"{part.name}.jsonl"
        for path in (shard, record_path(self.output, part)):
            _make_folder(path.parent)
        tag = _tag_parquet if part.suffix == PARQUET else _tag_lines
        total = Counts()
        with replaced_when_done(shard) as target:
            with _Aside(rejected, part) as aside:
                for counts in tag(part, self.mapper, target, aside):
                    total.add(counts)
                    yield counts
            record = json.dumps(vars(total))
            write_whole(record_path(self.output, part), record.encode())


def shard_path(output: Path, part: Part) -> Path:
    """Return the path of the shard of a part."""
    return output / f"{part.name}{part.suffix}"


def record_path(output: Path, part: Part) -> Path:
    """Return the path of the counts of a part."""
    return output / RECORDS / f"{part.name}.json"


def earlier(output: Path, part: Part) -> Counts | None:
    """Return the counts of a shard that is there; None where the part has to be tagged."""
    if not is_file(shard_path(output, part)):
        return None
    try:
        tree = json.loads(record_path(output, part).read_bytes())
        return Counts(**{**tree, "reasons": Counter(tree["reasons"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def line_starts(path: Path, every: int) -> tuple[int, list[int]]:
    """Count the lines of a JSON Lines file.

    Args:
        path: The file, plain or gzip.
        every: Lines of a part.

    Returns:
        The number of lines, and the byte at which each part begins; a gzip file is one part.
    """
    lines, position, last = 0, 0, b"\n"
    starts = [0]
    packed = is_gzip(path)
    with open_bytes(path, "JSON Lines") if packed else _opened(path) as stream:
        while block := stream.read(2**22):
            count = block.count(b"\n")
            if not packed and (lines + count) // every > lines // every:
                found = -1
                for number in range(lines + 1, lines + count + 1):
                    found = block.index(b"\n", found + 1)
                    if number % every == 0:
                        starts.append(position + found + 1)
            lines += count
            position += len(block)
            last = block[-1:]
    if last != b"\n":
        lines += 1
    elif len(starts) > 1 and starts[-1] == position:
        starts.pop()
    return lines, starts


def is_gzip(path: Path) -> bool:
    """Say whether a file is compressed."""
    with _opened(path) as stream:
        return stream.read(2) == b"\x1f\x8b"


def parquet_rows(path: Path) -> tuple[int, Any]:
    """Return the number of rows of a parquet file, and its Arrow schema."""
    with _parquet(path) as file:
        return file.metadata.num_rows, file.schema_arrow


def first_value(path: Path, column: str) -> Any:
    """Return the first value of a key in a JSON Lines file that is text or a list; None where there is none."""
    with open_bytes(path, "JSON Lines") as stream:
        for _ in range(10_000):
            line = stream.readline(LONGEST_LINE)
            if not line:
                break
            with contextlib.suppress(ValueError, RecursionError):
                tree = json.loads(line)
                if isinstance(tree, dict) and isinstance(tree.get(column), str | list):
                    return tree[column]
    return None


class _Aside:
    """Writes the rows that cannot be tagged; the file appears when all of them are written, if there are any."""

    def __init__(self, path: Path, part: Part) -> None:
        self._path, self._part = path, part
        self._stack = contextlib.ExitStack()
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> _Aside:
        self._stack.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.__exit__(*problem)

    def write(self, index: int, reason: str, content: dict[str, Any]) -> None:
        """Write a row.

        Args:
            index: Its number in the part, from 0.
            reason: Why it cannot be tagged.
            content: What it holds.
        """
        if self._stream is None:
            _make_folder(self._path.parent)
            self._stream = self._stack.enter_context(replaced_when_done(self._path))
        place = {"file": self._part.path, "row": self._part.start + index + 1, "reason": reason}
        self._stream.write(json.dumps({**place, **content}).encode() + b"\n")


def refusal(value: Any, holds_texts: bool) -> str | None:
    """Say why a value cannot be tagged; None where it can be.

    Args:
        value: Of a row.
        holds_texts: Whether texts are expected, else lists of tokens.
    """
    if value is None:
        return "there is no value (null)"
    if holds_texts:
        if not isinstance(value, str):
            return f"not a text but a value of type {type(value).__name__}"
        if len(value) > MOST_TOKENS:
            return f"a text of more than {MOST_TOKENS:,} characters"
        return _half_a_character(value)
    if not isinstance(value, list):
        return f"not a list of tokens but a value of type {type(value).__name__}"
    if len(value) > MOST_TOKENS:
        return f"a list of more than {MOST_TOKENS:,} tokens"
    if set(map(type, value)) - {str}:
        return "a token is missing (null)" if None in value else "a token is not a string"
    return _half_a_character("".join(value))


def _half_a_character(text: str) -> str | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a character (a lone surrogate)"
    return None


def _tag_rows(mapper: Mapper, rows: list[Any], counts: Counts) -> dict[str, list[Any]]:
    """Tag rows that can be tagged, and count what was found."""
    before = mapper.cut_sentences
    columns = mapper.tag_rows(rows)
    counts.tagged += len(rows)
    counts.tokens += sum(map(len, columns["labels"]))
    counts.entities += sum(map(len, columns["entities"]))
    counts.cut += mapper.cut_sentences - before
    return columns


def _sizes(values: list[Any]) -> Iterator[slice]:
    """Cut values into runs that are tagged at a time."""
    start, size = 0, 0
    for index, value in enumerate(values):
        own = len(value) if isinstance(value, str | list) else 0
        if size and size + own > _CHARACTERS:
            yield slice(start, index)
            start, size = index, 0
        size += own
    if start < len(values):
        yield slice(start, len(values))


def _tag_parquet(part: Part, mapper: Mapper, target: IO[bytes], aside: _Aside) -> Iterator[Counts]:
    import pyarrow
    from pyarrow import parquet

    with _parquet(Path(part.path)) as file:
        schema = file.schema_arrow
        whole = with_columns(schema.empty_table(), dict.fromkeys(mapper.new_columns, ()))
        done, index = 0, 0
        waiting: list[Any] = []
        with parquet.ParquetWriter(target, whole.schema) as writer:
            for table in _tables(file, part):
                values = _values(table.column(mapper.column))
                for run in _sizes(values):
                    counts = Counts()
                    kept = []
                    for number in range(run.start, run.stop):
                        value = values[number]
                        reason = value.reason if isinstance(value, _Bad) else refusal(value, mapper.holds_texts)
                        if reason is None:
                            kept.append(number)
                            continue
                        counts.reasons[reason] += 1
                        counts.rejected += 1
                        aside.write(index + number, reason, {"value": _as_json(table.slice(number, 1))})
                    columns = _tag_rows(mapper, [values[number] for number in kept], counts)
                    piece = table.slice(run.start, run.stop - run.start)
                    if len(kept) < piece.num_rows:
                        piece = piece.take(pyarrow.array([number - run.start for number in kept], "int64"))
                    waiting.append(with_columns(piece, columns))
                    if sum(each.nbytes for each in waiting) > _GROUP:
                        writer.write_table(pyarrow.concat_tables(waiting))
                        waiting = []
                    done += run.stop - run.start
                    yield counts
                index += len(values)
            if waiting:
                writer.write_table(pyarrow.concat_tables(waiting))
    if done != part.rows:
        raise CorpusError("the file changed while it was being tagged", part.path)


def _tables(file: Any, part: Part) -> Iterator[Any]:
    """Read the rows of a part, some at a time."""
    import pyarrow

    groups, before, skipped = [], 0, 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if before + rows <= part.start:
            skipped += rows
        elif before < part.start + part.rows:
            groups.append(group)
        before += rows
    position, end = skipped, part.start + part.rows
    try:
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=groups, use_threads=False):
            start, stop = max(part.start - position, 0), min(end - position, batch.num_rows)
            position += batch.num_rows
            if start < stop:
                yield pyarrow.Table.from_batches([batch.slice(start, stop - start)])
            if position >= end:
                break
    except (pyarrow.ArrowException, OSError) as problem:
        raise CorpusError(f"cannot be read, or is corrupt: {_one_line(problem)}", part.path) from None


class _Bad(NamedTuple):
    """Stands for a value that cannot be decoded."""

    reason: str


def _values(column: Any) -> list[Any]:
    """Return the values of an Arrow column as Python objects."""
    with contextlib.suppress(UnicodeDecodeError):
        values: list[Any] = column.to_pylist()
        return values
    values = []
    for scalar in column:
        try:
            values.append(scalar.as_py())
        except UnicodeDecodeError:
            values.append(_Bad("invalid UTF-8"))
    return values


def _as_json(row: Any) -> dict[str, Any]:
    """Return a row of an Arrow table as JSON can hold it."""
    import pyarrow

    values: dict[str, Any] = {}
    for name in row.column_names:
        column = row.column(name)
        try:
            value = column[0].as_py()
        except UnicodeDecodeError:
            try:
                value = column.cast(pyarrow.large_binary())[0].as_py()
            except pyarrow.ArrowException:
                value = f"{column.type} with invalid UTF-8"
        values[name] = value
    return json.loads(json.dumps(values, default=_plain))  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else str(value)


def _tag_lines(part: Part, mapper: Mapper, target: IO[bytes], aside: _Aside) -> Iterator[Counts]:
    new = frozenset(mapper.new_columns)
    index = 0
    for lines in _lines(part):
        counts = Counts()
        kept: list[tuple[bytes, Any]] = []
        for line in lines:
            value: Any = None
            if line is None:
                reason: str | None = f"a line of more than {LONGEST_LINE:,} bytes"
            elif not line.strip():
                counts.blank += 1
                index += 1
                continue
            else:
                value, reason = _read_line(line, mapper.column, new)
                reason = reason or refusal(value, mapper.holds_texts)
            if reason is None:
                assert line is not None
                kept.append((line, value))
            else:
                counts.reasons[reason] += 1
                counts.rejected += 1
                aside.write(index, reason, {} if line is None else _line_content(line))
            index += 1
        columns = _tag_rows(mapper, [value for _, value in kept], counts)
        names = list(columns)
        for (line, _), *values in zip(kept, *columns.values(), strict=True):
            added = json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False).encode()
            # All other keys stay as they were written, to the byte.
            target.write(line.rstrip()[:-1].rstrip() + b", " + added[1:] + b"\n")
        yield counts
    if index != part.rows:
        raise CorpusError("the file changed while it was being tagged", part.path)


def _read_line(line: bytes, column: str, new: frozenset[str]) -> tuple[Any, str | None]:
    """Return the value of a line's object; or why there is none."""
    try:
        tree = json.loads(line.decode())
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    except (ValueError, RecursionError):
        return None, "not a JSON object"
    if not isinstance(tree, dict):
        return None, "not a JSON object"
    if taken := sorted(new & tree.keys()):
        return None, f"has {', '.join(taken)} already"
    if column not in tree:
        return None, f"has no {column!r}"
    return tree[column], None


def _line_content(line: bytes) -> dict[str, str]:
    line = line.rstrip(b"\r\n")
    try:
        return {"line": line.decode()}
    except UnicodeDecodeError:
        return {"line_base64": base64.b64encode(line).decode()}


def _lines(part: Part) -> Iterator[list[bytes | None]]:
    """Read the lines of a part, some at a time; None for one that is too long."""
    path = Path(part.path)
    with open_bytes(path, "JSON Lines") if is_gzip(path) else _opened(path) as stream:
        if part.offset:
            stream.seek(part.offset)
        lines: list[bytes | None] = []
        size = 0
        for number in range(part.rows):
            line: bytes | None = stream.readline(LONGEST_LINE + 1)
            assert line is not None
            if number == 0 and part.offset == 0:
                line = line.removeprefix(BYTE_ORDER_MARK)
            elif not line:
                break
            if len(line) > LONGEST_LINE:
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LONGEST_LINE)
                line = None
            lines.append(line)
            size += len(line or b"")
            if len(lines) == _ROWS or size > _CHARACTERS:
                yield lines
                lines, size = [], 0
        if lines:
            yield lines


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise NertoolError(f"{path}: cannot write there: {problem.strerror or problem}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as problem:
        if problem.filename not in (None, str(path)):
            raise
        raise CorpusError(f"cannot be read: {problem.strerror or problem}", path) from None


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """Open a parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as problem:
        raise CorpusError(f"not a parquet file, or a corrupt one: {_one_line(problem)}", path) from None
    with file:
        yield file


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
