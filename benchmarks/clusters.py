"""Tag the same texts in one process, by `nertool tag --workers`, in Ray Data and in Spark; compare the results.

`python benchmarks/clusters.py RUN --rows 100000 --engines alone,workers,ray,spark`; the engines come with
`make test-cluster`. Texts are three documents of the demonstration corpus each, drawn at random.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

import nertool

CORPUS = Path(__file__).parent.parent / "corpora" / "demo" / "train.txt"


def write_texts(path: Path, rows: int) -> None:
    """Write a table of texts."""
    sentences = [" ".join(document.tokens) for document in nertool.read(CORPUS)]
    draw = random.Random(1)
    texts = [" ".join(draw.choices(sentences, k=3)) for _ in range(rows)]
    table = pyarrow.table({"id": range(rows), "text": texts})
    parquet.write_table(table, path, row_group_size=max(1, rows // 8))


def alone(source: Path, output: Path, run: str) -> None:
    """Tag in this process."""
    mapper = nertool.Mapper(run, text="text")
    output.mkdir()
    with parquet.ParquetFile(source) as file:
        tables = [mapper(pyarrow.Table.from_batches([batch])) for batch in file.iter_batches(1024)]
    parquet.write_table(pyarrow.concat_tables(tables), output / "all.parquet")


def workers(source: Path, output: Path, run: str) -> None:
    """Tag by the command, in two processes."""
    rows = str(parquet.read_metadata(source).num_rows // 8)
    options = ["--column", "text", "--output", str(output), "--workers", "2", "--shard-rows", rows]
    command = [sys.executable, "-m", "nertool", "tag", str(source), "--model", run, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def in_ray(source: Path, output: Path, run: str) -> None:
    """Tag in two actors."""
    import ray

    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths})
    ray.data.read_parquet(str(source), override_num_blocks=8).map_batches(
        nertool.Mapper,
        fn_constructor_args=(run,),
        fn_constructor_kwargs={"text": "text"},
        batch_format="pyarrow",
        batch_size=1024,
        concurrency=2,
    ).write_parquet(str(output))
    ray.shutdown()


def in_spark(source: Path, output: Path, run: str) -> None:
    """Tag in two processes of Spark."""
    from pyspark.sql import SparkSession

    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYSPARK_PYTHON": sys.executable}
    builder: Any = SparkSession.builder
    spark = builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    frame = spark.read.parquet(str(source)).repartition(8)
    mapper = nertool.Mapper(run, text="text")
    frame.mapInPandas(mapper.pandas, mapper.spark_schema(frame.schema)).write.parquet(str(output))
    spark.stop()


def result(output: Path) -> list[Any]:
    """Return the labels of all rows in order, each row once."""
    table = pyarrow.concat_tables(
        [parquet.ParquetFile(path).read(["id", "labels"]) for path in sorted(output.glob("*.parquet"))]
    ).sort_by("id")
    assert table.column("id").to_pylist() == list(range(table.num_rows)), "rows are missing, or there twice"
    labels: list[Any] = table.column("labels").to_pylist()
    return labels


def main() -> None:
    """Measure each engine, its start included."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--engines", default="alone,workers,ray,spark")
    options = parser.parse_args()
    run = str(Path(options.run).resolve())
    engines = {"alone": alone, "workers": workers, "ray": in_ray, "spark": in_spark}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "texts.parquet")
        write_texts(source, options.rows)
        wanted: list[Any] | None = None
        for name in options.engines.split(","):
            output = Path(folder, name)
            began, before = time.perf_counter(), sum(os.times()[:4])
            engines[name](source, output, run)
            seconds, busy = time.perf_counter() - began, sum(os.times()[:4]) - before
            labels = result(output)
            assert wanted is None or labels == wanted, f"{name}: other labels"
            wanted = labels
            tokens = sum(map(len, labels))
            print(
                f"{name:8} {tokens:,} tokens, {seconds:.1f} s, CPU {busy:.1f} s, {tokens / seconds:,.0f}/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
