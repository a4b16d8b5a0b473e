"""Tag many files of rows, parquet and JSON Lines, shard by shard; what was done stays done.

A folder of shards holds, beside them, the plan, `_nertool/plan.json`: the settings and the input files. Whoever
gives the same ones again goes on after the shards that are there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nertool.config.files import is_folder, write_whole
from nertool.errors import CorpusError, NertoolError
from nertool.integrations.mapper import Mapper
from nertool.integrations.shard_files import (
    PARQUET,
    RECORDS,
    SUFFIXES,
    Counts,
    Part,
    earlier,
    first_value,
    is_gzip,
    line_starts,
    parquet_rows,
)

PLAN = "plan.json"
HOLDER = (
    "another `nertool tag` is writing to this folder; wait until it has ended, stop it, or name another folder"
)
ROWS = 50_000
"""Of a shard, unless another number is given."""


@dataclass(frozen=True)
class Source:
    """An input file.

    Attributes:
        path: Of the file, absolute.
        name: Of its shards, without number and suffix, below the output folder.
        suffix: `PARQUET` or `LINES`.
    """

    path: Path
    name: str
    suffix: str


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        parts: That are not done.
        done: The counts of those that are.
        shards_done: Their number.
        rows: Of all parts, done or not; with blank lines.
    """

    parts: list[Part] = field(default_factory=list)
    done: Counts = field(default_factory=Counts)
    shards_done: int = 0
    rows: int = 0


def find_sources(names: Sequence[str], output: Path) -> tuple[list[Source], int]:
    """Find the input files.

    Args:
        names: Of files; of folders, whose files are taken, also of folders in them; or patterns (`*.parquet`).
        output: The folder of shards.

    Returns:
        The files by name; and how many in the folders are neither parquet nor JSON Lines.

    Raises:
        CorpusError: There is no such file, it is of another kind, two have the same name, or the output
            would be among the input.
    """
    found: dict[str, Source] = {}
    others = 0
    for name in names:
        path = Path(name)
        if is_folder(path):
            if output.resolve().is_relative_to(path.resolve()):
                raise CorpusError(f"is in an input folder, {path}; name another folder", output)
            files = sorted(each for each in path.rglob("*") if each.is_file() and not _hidden(each, path))
            kept = [each for each in files if _suffix(each)]
            others += len(files) - len(kept)
            pairs = [(each, each.relative_to(path)) for each in kept]
            if not pairs:
                raise CorpusError("there is no file in it that ends in " + ", ".join(SUFFIXES), path)
        else:
            pairs = [(path, Path(path.name))]
            if not path.exists():
                matches = _matches(path)
                if not matches:
                    raise CorpusError("there is no such file, folder, or file that matches: check the path", path)
                pairs = [(each, Path(each.name)) for each in matches if not each.is_dir()]
        for each, relative in pairs:
            suffix = _suffix(each)
            if suffix is None:
                raise CorpusError("with --column a file is expected that ends in " + ", ".join(SUFFIXES), each)
            source = Source(each.resolve(), str(relative)[: -len(suffix)], SUFFIXES[suffix])
            same = found.setdefault(source.name, source)
            if same.path != source.path:
                raise CorpusError(f"{same.path} would have shards of the same name; rename one of them", each)
    return list(found.values()), others


def holds_texts(sources: Sequence[Source], column: str) -> bool:
    """Say whether the column holds texts; else it holds lists of tokens.

    Raises:
        CorpusError: There is no such column in a file, or it holds something else.
    """
    kinds: dict[bool, Path] = {}
    for source in sources:
        kind = (_parquet_kind if source.suffix == PARQUET else _lines_kind)(source.path, column)
        if kind is not None:
            kinds.setdefault(kind, source.path)
    if len(kinds) == 2:
        raise CorpusError(f"{column!r} holds texts in {kinds[True]}, and lists of tokens here", kinds[False])
    if not kinds:
        raise CorpusError(f"no row has a text, or a list of tokens, as {column!r}", sources[0].path)
    return next(iter(kinds))


def make_plan(sources: Sequence[Source], mapper: Mapper, output: Path, rows: int) -> Plan:
    """Divide the files into parts, and see which of them are done.

    Args:
        sources: The input files.
        mapper: What tags their rows.
        output: The folder of shards. It is held by the caller.
        rows: Of a shard.

    Raises:
        NertoolError: The folder holds something else, or a file has changed since it was begun.
    """
    for source in sources:
        if source.path.is_relative_to(output.resolve()):
            raise NertoolError(f"{source.path}: is in the output folder, {output}; name another folder")
    settings = {
        "version": 1,
        "model": mapper.digest,
        "column": mapper.column,
        "texts": mapper.holds_texts,
        "min_score": mapper.min_score,
        "rows": rows,
    }
    path = output / RECORDS / PLAN
    files: dict[str, Any] = _earlier_files(path, settings, output)
    plan = Plan()
    for source in sources:
        state = source.path.stat()
        mark = {
            "path": str(source.path),
            "suffix": source.suffix,
            "bytes": state.st_size,
            "modified": state.st_mtime_ns,
        }
        known = files.get(source.name)
        if known is None:
            files[source.name] = known = {**mark, **_measure(source, rows)}
        elif any(known[key] != value for key, value in mark.items()):
            raise NertoolError(
                f"{source.path}: is not the file that {output} was begun with, or it changed since; "
                "name another folder with --output"
            )
        for part in _parts(source, known, rows):
            plan.rows += part.rows
            counts = earlier(output, part)
            if counts is None:
                plan.parts.append(part)
            else:
                plan.done.add(counts)
                plan.shards_done += 1
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as problem:
        raise NertoolError(f"{output}: cannot write there: {problem.strerror or problem}") from None
    write_whole(path, json.dumps({**settings, "files": files}, indent=1).encode())
    return plan


def remove_unfinished(output: Path) -> None:
    """Remove what was being written when a process was killed."""
    for path in output.rglob(".*.part"):
        path.unlink(missing_ok=True)


def _earlier_files(path: Path, settings: dict[str, Any], output: Path) -> dict[str, Any]:
    """Return the files of the plan that the folder was begun with; none for a new folder."""
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        if any(not each.name.startswith((".", "_")) for each in output.iterdir()):
            raise NertoolError(f"{output}: holds something else; name a new or an empty folder") from None
        return {}
    except (OSError, ValueError) as problem:
        raise NertoolError(f"{path}: cannot be read: {problem}; name another folder") from None
    said = {
        "version": "by another version of nertool",
        "model": "with another model",
        "column": f"with --column {tree.get('column')}",
        "texts": "with another kind of column",
        "min_score": f"with --min-score {tree.get('min_score')}",
        "rows": f"with --shard-rows {tree.get('rows')}",
    }
    if other := next((key for key, value in settings.items() if tree.get(key) != value), None):
        raise NertoolError(f"{output}: was begun {said[other]}; do the same again, or name another folder")
    files: dict[str, Any] = tree["files"]
    return files


def _measure(source: Source, rows: int) -> dict[str, Any]:
    if source.suffix == PARQUET:
        return {"rows": parquet_rows(source.path)[0]}
    count, starts = line_starts(source.path, rows)
    return {"rows": count, "starts": starts, "whole": is_gzip(source.path)}


def _parts(source: Source, known: dict[str, Any], rows: int) -> Iterator[Part]:
    starts = known.get("starts")
    if known.get("whole"):
        rows = max(known["rows"], 1)
    for number, start in enumerate(range(0, max(known["rows"], 1), rows)):
        count = min(rows, known["rows"] - start)
        offset = 0 if starts is None else starts[number]
        yield Part(str(source.path), f"{source.name}-{number:05}", source.suffix, start, count, offset)


def _parquet_kind(path: Path, column: str) -> bool | None:
    import pyarrow

    _, schema = parquet_rows(path)
    if schema.names.count(column) != 1:
        raise CorpusError(f"there is no column {column!r}; the columns are: {', '.join(schema.names)}", path)
    kind = schema.field(column).type
    texts = _is_text(kind)
    if texts or (hasattr(kind, "value_type") and "list" in str(kind) and _is_text(kind.value_type)):
        new = {"tokens", "labels", "entities"} if texts else {"labels", "entities"}
        if taken := sorted(new & set(schema.names)):
            raise CorpusError(f"has the columns {', '.join(taken)} already, which are added: rename them", path)
        return texts
    if pyarrow.types.is_null(kind):
        return None
    raise CorpusError(f"the column {column!r} holds neither texts nor lists of tokens, but {kind}", path)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_string_view(value))


def _lines_kind(path: Path, column: str) -> bool | None:
    value = first_value(path, column)
    return None if value is None else isinstance(value, str)


def _suffix(path: Path) -> str | None:
    """Return how the name of an input file ends; the name keeps its case."""
    name = path.name.lower()
    return max((each for each in SUFFIXES if name.endswith(each)), key=len, default=None)


def _matches(pattern: Path) -> list[Path]:
    """Return the files that match a pattern, which the shell has not expanded."""
    base = Path(pattern.anchor)
    try:
        return sorted(base.glob(str(pattern.relative_to(base))))
    except (ValueError, OSError, NotImplementedError):  # not a pattern
        return []


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
