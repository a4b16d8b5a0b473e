"""Mappers in Ray Data and Spark: the same as in one process, also when a process of theirs is killed.

They are not among the packages that `make install` installs: `make test-cluster` does both.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

import nertool
from nertool.errors import CorpusError

ROWS = int(os.environ.get("NERTOOL_CLUSTER_ROWS", "2000"))
NAMES = ["start", "end", "label", "text", "score"]


def table(rows=ROWS):
    texts = ["Ada Byron moved to London .", "", "Rain fell on Malmö . Babbage wrote ."]
    return pyarrow.table({"id": range(rows), "text": [f"{texts[row % 3]} {row}" for row in range(rows)]})


@pytest.fixture(scope="module")
def alone(trained_run):
    """What one process makes of the table, by the number of the row."""
    return normal(nertool.Mapper(trained_run, text="text")(table()).to_pandas())


def normal(frame):
    """Rows as plain Python objects, scores with three digits, by their numbers; each may be there once."""
    rows = {}
    for row in frame.to_dict("records"):
        assert row["id"] not in rows
        entities = []
        for entity in row["entities"]:
            fields = [entity[name] for name in NAMES]
            entities.append((*fields[:4], round(float(fields[4]), 3)))
        rows[int(row["id"])] = (row["text"], list(row["tokens"]), list(row["labels"]), entities)
    return rows


class DiesOnce(nertool.Mapper):
    """A mapper whose process is killed at its second batch; that of no other one is, once this has happened.

    Args:
        folder: Of the model.
        mark: A file that is there afterwards.
    """

    def __init__(self, folder, mark, **options):
        super().__init__(folder, **options)
        self.mark = str(mark)
        self.batches = 0

    def __call__(self, batch):
        self.batches += 1
        if self.batches < 2:
            return super().__call__(batch)
        try:
            os.close(os.open(self.mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return super().__call__(batch)
        os.kill(os.getpid(), signal.SIGKILL)


class TestWithoutAnEngine:
    def test_numpy_batches_keep_their_columns(self, trained_run):
        batch = {"id": np.arange(2), "text": np.array(["Ada Byron", "wrote"])}
        found = nertool.Mapper(trained_run, text="text")(batch)
        assert list(found) == ["id", "text", "tokens", "labels", "entities"]
        assert all(isinstance(values, np.ndarray) and len(values) == 2 for values in found.values())
        assert found["tokens"].tolist() == [["Ada", "Byron"], ["wrote"]]

    def test_frames_one_after_another(self, trained_run):
        frames = [pandas.DataFrame({"text": [text]}) for text in ("Ada Byron", "")]
        mapper = pickle.loads(pickle.dumps(nertool.Mapper(trained_run, text="text")))
        assert [list(frame["tokens"]) for frame in mapper.pandas(iter(frames))] == [[["Ada", "Byron"]], [[]]]

    def test_min_score(self, trained_run):
        assert nertool.Mapper(trained_run, min_score=1.0)({"tokens": [["Ada"]]})["entities"] == [[]]
        with pytest.raises(nertool.NertoolError, match="a probability from 0 to 1"):
            nertool.Mapper(trained_run, min_score=2)


@pytest.fixture(scope="module")
def ray():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would be sent over the network
    package = pytest.importorskip("ray", reason="ray is not installed: make test-cluster")
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    package.init(
        num_cpus=3,  # one is for tasks that read and write: where two actors have all, these wait without end
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=2**28,
        runtime_env={"env_vars": paths},
    )
    yield package
    package.shutdown()


@pytest.mark.slow
class TestRay:
    @pytest.mark.parametrize("batches", ["numpy", "pandas", "pyarrow"])
    def test_two_actors(self, trained_run, alone, ray, batches):
        pieces = [table().slice(start, ROWS // 4) for start in range(0, ROWS, ROWS // 4)]
        mapped = ray.data.from_arrow(pieces).map_batches(
            nertool.Mapper,
            fn_constructor_args=(str(trained_run),),
            fn_constructor_kwargs={"text": "text"},
            batch_format=batches,
            batch_size=256,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        assert normal(mapped.to_pandas()) == alone

    def test_a_killed_actor(self, trained_run, alone, ray, tmp_path):
        parquet.write_table(table(), tmp_path / "in.parquet", row_group_size=ROWS // 4)
        mapped = ray.data.read_parquet(str(tmp_path / "in.parquet"), override_num_blocks=4).map_batches(
            DiesOnce,
            fn_constructor_args=(str(trained_run), str(tmp_path / "mark")),
            fn_constructor_kwargs={"text": "text"},
            batch_format="pyarrow",
            batch_size=256,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        mapped.write_parquet(str(tmp_path / "out"))
        assert (tmp_path / "mark").exists()
        assert normal(parquet.read_table(tmp_path / "out").to_pandas()) == alone


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed: make test-cluster")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        sql.SparkSession.builder.master("local[2, 4]")  # a task may fail four times
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("spark")))
        .config("spark.driver.memory", "1g")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "256")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.mark.slow
class TestSpark:
    def test_two_processes(self, trained_run, alone, spark, tmp_path):
        parquet.write_table(table(), tmp_path / "in.parquet")
        frame = spark.read.parquet(str(tmp_path / "in.parquet")).repartition(4)
        mapper = nertool.Mapper(trained_run, text="text")
        mapped = frame.mapInPandas(mapper.pandas, mapper.spark_schema(frame.schema))
        mapped.write.parquet(str(tmp_path / "out"))
        assert normal(parquet.read_table(tmp_path / "out").to_pandas()) == alone

    def test_a_killed_process(self, trained_run, alone, spark, tmp_path):
        parquet.write_table(table(), tmp_path / "in.parquet")
        frame = spark.read.parquet(str(tmp_path / "in.parquet")).repartition(4)
        mapper = DiesOnce(trained_run, tmp_path / "mark", text="text")
        frame.mapInPandas(mapper.pandas, mapper.spark_schema(frame.schema)).write.parquet(str(tmp_path / "out"))
        assert (tmp_path / "mark").exists()
        assert normal(parquet.read_table(tmp_path / "out").to_pandas()) == alone

    def test_the_schema(self, trained_run, spark):
        mapper = nertool.Mapper(trained_run, text="text")
        schema = mapper.spark_schema()
        assert schema.names == ["text", "tokens", "labels", "entities"]
        with pytest.raises(CorpusError, match="there is no column 'tokens' to tag"):
            nertool.Mapper(trained_run).spark_schema(schema["entities"].dataType.elementType)
        with pytest.raises(CorpusError, match="the data has entities, labels, tokens already"):
            mapper.spark_schema(schema)
