"""Tag the same sentences in one process, by `nertool tag --workers`, and in engines; compare results and rates.

`python benchmarks/clusters.py RUN --rows 100000 --engines one,worker,workers,ray,spark`; Ray and Spark come with
`make test-cluster`, dask[dataframe] and apache-beam are engines too where they are installed.

Each engine runs in a process of its own, first over a few rows, which shows what its start costs, then over all.
Rows are sentences of the demonstration corpus, drawn at random; one token in ten is replaced by an invented word,
so that words are as various as in large corpora.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from pyarrow import parquet

import nertool

CORPUS = Path(__file__).parent.parent / "corpora" / "demo" / "train.txt"
FEW = 16
BLOCKS = 8
SYLLABLES = ("ba", "den", "fil", "gor", "hus", "jan", "kel", "lom", "mir", "nas", "pol", "rin", "sut", "tov")


def write_texts(path: Path, rows: int) -> None:
    """Write a table of sentences."""
    sentences: list[list[str]] = []
    for document in nertool.read(CORPUS):
        for start, stop in itertools.pairwise([*document.sentence_starts, len(document.tokens)]):
            sentences.append(list(document.tokens[start:stop]))
    draw = random.Random(1)
    texts = []
    for _ in range(rows):
        tokens = [
            "".join(draw.choices(SYLLABLES, k=draw.randint(2, 5))) if draw.random() < 0.1 else token
            for token in draw.choice(sentences)
        ]
        texts.append(" ".join(tokens))
    table = pyarrow.table({"id": range(rows), "text": texts})
    parquet.write_table(table, path, row_group_size=max(1, rows // BLOCKS))


def one(source: Path, output: Path, run: str) -> None:
    """Tag in one process."""
    mapper = nertool.Mapper(run, text="text")
    output.mkdir()
    with parquet.ParquetFile(source) as file:
        tables = [mapper(pyarrow.Table.from_batches([batch])) for batch in file.iter_batches(1024)]
    parquet.write_table(pyarrow.concat_tables(tables), output / "all.parquet")


def worker(source: Path, output: Path, run: str, count: int = 1) -> None:
    """Tag by the command."""
    rows = str(max(1, parquet.read_metadata(source).num_rows // BLOCKS))
    options = ["--column", "text", "--output", str(output), "--workers", str(count), "--shard-rows", rows]
    command = [sys.executable, "-m", "nertool", "tag", str(source), "--model", run, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def workers(source: Path, output: Path, run: str) -> None:
    """Tag by the command, in two processes."""
    worker(source, output, run, 2)


def ray(source: Path, output: Path, run: str) -> None:
    """Tag in two actors of Ray."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ray.init(
        num_cpus=3,  # one for each actor, and one for those who read and write
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=2**28,
        runtime_env={"env_vars": paths},
    )
    ray.data.read_parquet(str(source)).repartition(BLOCKS).map_batches(
        nertool.Mapper,
        fn_constructor_args=(run,),
        fn_constructor_kwargs={"text": "text"},
        batch_format="pyarrow",
        batch_size=1024,
        compute=ray.data.ActorPoolStrategy(size=2),
    ).write_parquet(str(output))
    ray.shutdown()


def spark(source: Path, output: Path, run: str) -> None:
    """Tag in two processes of Spark."""
    from pyspark.sql import SparkSession

    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYSPARK_PYTHON": sys.executable}
    builder: Any = SparkSession.builder
    session = builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    frame = session.read.parquet(str(source)).repartition(BLOCKS)
    mapper = nertool.Mapper(run, text="text")
    frame.mapInPandas(mapper.pandas, mapper.spark_schema(frame.schema)).write.parquet(str(output))
    session.stop()


def dask(source: Path, output: Path, run: str) -> None:
    """Tag in two processes of Dask."""
    import dask.dataframe

    mapper = nertool.Mapper(run, text="text")
    frame = dask.dataframe.read_parquet(source, split_row_groups=True)
    tagged = frame.map_partitions(mapper, meta=mapper(frame._meta))
    schema = mapper(pyarrow.table({"text": pyarrow.array([], "string")})).schema
    types = {name: schema.field(name).type for name in mapper.new_columns}
    tagged.to_parquet(output, schema=types, compute_kwargs={"scheduler": "processes", "num_workers": 2})


ENGINES = {each.__name__: each for each in (one, worker, workers, ray, spark, dask)}


def measure(name: str, source: Path, output: Path, run: str) -> tuple[float, float]:
    """Run an engine in a process of its own.

    Returns:
        Seconds on the clock, and seconds of CPU time of the process and all that descend from it.
    """
    import psutil

    began = time.perf_counter()
    command = [sys.executable, __file__, run, "--as", name, str(source), str(output)]
    process = psutil.Popen(command)
    known: dict[int, Any] = {process.pid: process}
    busy: dict[int, float] = {}
    while process.poll() is None:
        time.sleep(0.1)
        for each in list(known.values()):
            try:
                known |= {child.pid: child for child in each.children(recursive=True) if child.pid not in known}
                times = each.cpu_times()
                busy[each.pid] = times.user + times.system
            except psutil.Error:  # it has ended
                known.pop(each.pid)
    if process.returncode:
        raise RuntimeError(f"ended with code {process.returncode}")
    return time.perf_counter() - began, sum(busy.values())


def result(output: Path) -> Any:
    """Return the rows by number, each of which has to be there once."""
    columns = ["id", "tokens", "labels", "entities"]
    table = pyarrow.concat_tables(
        [parquet.ParquetFile(path).read(columns) for path in sorted(output.glob("*.parquet"))]
    ).sort_by("id")
    assert table.column("id").to_pylist() == list(range(table.num_rows)), "rows are missing, or there twice"
    return table


def compare(found: Any, wanted: Any) -> float:
    """Check that tokens, labels and entities are the same; return the largest difference of two scores."""
    for name in ("tokens", "labels"):
        assert found.column(name).to_pylist() == wanted.column(name).to_pylist(), f"other {name}"
    ours, theirs = (
        [entity for row in table.column("entities").to_pylist() for entity in row] for table in (found, wanted)
    )
    scores = [numpy.array([entity.pop("score") for entity in entities]) for entities in (ours, theirs)]
    assert ours == theirs, "other entities"
    return float(numpy.abs(scores[0] - scores[1]).max(initial=0.0))


def main() -> None:
    """Measure each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--engines", default="one,worker,workers,ray,spark")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--as", nargs=3, dest="one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = str(Path(options.run).resolve())
    if options.one:
        name, source, output = options.one
        ENGINES[name](Path(source), Path(output), run)
        return
    with tempfile.TemporaryDirectory() as folder:
        few, source = Path(folder, "few.parquet"), Path(folder, "texts.parquet")
        write_texts(few, FEW)
        write_texts(source, options.rows)
        wanted: Any = None
        print("engine   rows     tokens     start s  all s    rows/s   tokens/s  CPU s    tokens/CPU s  scores")
        for number in range(options.rounds):
            for name in options.engines.split(","):
                try:
                    start, idle = measure(name, few, Path(folder, f"{name}-{number}-few"), run)
                    seconds, busy = measure(name, source, Path(folder, f"{name}-{number}"), run)
                except RuntimeError as problem:
                    print(f"{name:8} {problem}", flush=True)
                    continue
                found = result(Path(folder, f"{name}-{number}"))
                wanted = wanted or found
                difference = compare(found, wanted)
                tokens = sum(map(len, found.column("labels").to_pylist()))
                net = max(seconds - start, 1e-9)
                print(
                    f"{name:8} {options.rows:<8,} {tokens:<10,} {start:<8.1f} {seconds:<8.1f} "
                    f"{options.rows / net:<8,.0f} {tokens / net:<9,.0f} {busy:<8.1f} "
                    f"{tokens / max(busy - idle, 1e-9):<13,.0f} {difference:.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
