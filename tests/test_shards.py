"""`nertool tag --column`: every row is in one shard, or aside with a reason, whatever happens meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from nertool.cli.main import main
from nertool.integrations import shard_files
from nertool.integrations.shard_files import line_starts
from nertool.tagging.tagger import Tagger

TEXTS = ["Ada Byron moved to London .", "", "Rain fell on Malmö . Babbage wrote ."]


def tag(model, *arguments):
    result = CliRunner().invoke(main, ["tag", *map(str, arguments), "--model", str(model), "--workers", "1"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def expected(model, texts):
    """What the tagger says of each text."""
    names = ("start", "end", "label", "text", "score")
    return [
        {
            "tokens": list(document.tokens),
            "labels": list(document.labels),
            "entities": [{name: getattr(entity, name) for name in names} for entity in document.entities],
        }
        for document in Tagger.load(model).tag_texts(texts)
    ]


def same(found, wanted):
    """Compare rows; scores depend a little on what is computed together."""
    scores = [[entity.pop("score") for row in rows for entity in row["entities"]] for rows in (found, wanted)]
    assert found == wanted
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def shards(output, suffix):
    return sorted(path for path in output.glob(f"*{suffix}"))


def lines_of(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def rejected(output):
    return [row for path in sorted((output / "_rejected").glob("*.jsonl")) for row in lines_of(path)]


def texts(count):
    return [f"{TEXTS[number % 3]} {number}" for number in range(count)]


class TestParquet:
    def test_rows_stay_in_order_with_their_columns(self, trained_run, tmp_path):
        given = pyarrow.table({"id": pyarrow.array(range(7), "int16"), "text": texts(7), "raw": [b"\xff"] * 7})
        parquet.write_table(given.replace_schema_metadata({"a": "b"}), tmp_path / "in.parquet", row_group_size=4)
        out = tmp_path / "out"
        result = tag(trained_run, tmp_path / "in.parquet", "--column", "text", "--output", out, "--shard-rows", 3)
        assert result.exit_code == 0, result.output
        paths = shards(out, ".parquet")
        assert [path.name for path in paths] == ["in-00000.parquet", "in-00001.parquet", "in-00002.parquet"]
        tables = [parquet.read_table(path) for path in paths]
        assert [table.num_rows for table in tables] == [3, 3, 1]
        found = pyarrow.concat_tables(tables)
        assert found.select(["id", "text", "raw"]).equals(given) and found.schema.metadata[b"a"] == b"b"
        assert found.column_names == ["id", "text", "raw", "tokens", "labels", "entities"]
        same(found.select(["tokens", "labels", "entities"]).to_pylist(), expected(trained_run, texts(7)))

    def test_tokens(self, trained_run, tmp_path):
        rows = [["Ada", "Byron"], [], None, ["wrote", None]]
        parquet.write_table(pyarrow.table({"words": rows}), tmp_path / "in.parquet")
        out = tmp_path / "out"
        result = tag(trained_run, tmp_path / "in.parquet", "--column", "words", "--output", out)
        assert result.exit_code == 0
        (path,) = shards(out, ".parquet")
        found = parquet.read_table(path).to_pylist()
        assert [(row["words"], len(row["labels"])) for row in found] == [(["Ada", "Byron"], 2), ([], 0)]
        assert [row["reason"] for row in rejected(out)] == [
            "there is no value (null)",
            "a token is missing (null)",
        ]

    def test_invalid_bytes_and_nulls_go_aside(self, trained_run, tmp_path):
        raw = pyarrow.Array.from_buffers(
            pyarrow.string(), 3, pyarrow.array([b"Ada wrote .", b"\xff\xfe", None], "binary").buffers()
        )
        parquet.write_table(pyarrow.table({"text": raw, "id": [1, 2, 3]}), tmp_path / "in.parquet")
        out = tmp_path / "out"
        result = tag(trained_run, tmp_path / "in.parquet", "--column", "text", "--output", out)
        assert result.exit_code == 0 and "2 rows could not be tagged" in result.output
        aside = rejected(out)
        assert [(row["row"], row["reason"]) for row in aside] == [
            (2, "invalid UTF-8"),
            (3, "there is no value (null)"),
        ]
        assert aside[0]["value"] == {"text": {"base64": "//4="}, "id": 2}
        assert parquet.read_table(shards(out, ".parquet")[0]).column("id").to_pylist() == [1]

    def test_a_file_without_rows(self, trained_run, tmp_path):
        parquet.write_table(pyarrow.table({"text": pyarrow.array([], "string")}), tmp_path / "a.parquet")
        parquet.write_table(pyarrow.table({"text": ["Ada wrote ."]}), tmp_path / "b.parquet")
        out = tmp_path / "out"
        names = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
        assert tag(trained_run, *names, "--column", "text", "--output", out).exit_code == 0
        first, second = (parquet.read_table(path) for path in shards(out, ".parquet"))
        assert first.num_rows == 0 and first.schema == second.schema


class TestLines:
    BAD = (
        (b'{"text": null}', "there is no value (null)"),
        (b'{"text": 7}', "not a text but a value of type int"),
        (b"no json", "not a JSON object"),
        (b'["text"]', "not a JSON object"),
        (b'{"text": "\xff"}', "invalid UTF-8"),
        (b'{"text": "\\ud800"}', "half a character (a lone surrogate)"),
        (b'{"other": 1}', "has no 'text'"),
        (b'{"text": "Ada", "labels": []}', "has labels already"),
        (b"[" * 100_000, "not a JSON object"),
    )

    @pytest.mark.parametrize("rows", [2, 5, 100])
    def test_every_row_is_in_a_shard_or_aside(self, trained_run, tmp_path, rows):
        good = [b'{"x": 1.10, "text": "Ada Byron wrote .", "n": %d }' % number for number in range(len(self.BAD))]
        lines = [line for pair in zip(good, [bad for bad, _ in self.BAD], strict=True) for line in pair]
        (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*lines, b"", b"  "]))
        out = tmp_path / "out"
        result = tag(trained_run, tmp_path / "in.jsonl", "--column", "text", "--output", out, "--shard-rows", rows)
        assert result.exit_code == 0
        written = [line for path in shards(out, ".jsonl") for line in path.read_bytes().splitlines()]
        assert len(written) == len(good)
        for line, given in zip(written, good, strict=True):
            assert line.startswith(given[:-2] + b', "tokens": ["Ada", "Byron"')
        aside = rejected(out)
        assert [row["reason"] for row in aside] == [reason for _, reason in self.BAD]
        assert [row["row"] for row in aside] == list(range(2, 2 * len(self.BAD) + 1, 2))
        assert aside[2]["line"] == "no json" and aside[4]["line_base64"]

    def test_lines_are_those_of_a_plain_reader(self, tmp_path):
        path = tmp_path / "in.jsonl"
        for content in (b"", b"\n", b"a", b"a\n", b"a\nb", b"a\n\nb\n", b"\n\n\n", b"a\nb\nc\nd\n"):
            path.write_bytes(content)
            lines = content.splitlines(keepends=True)
            for every in (1, 2, 3):
                starts = [len(b"".join(lines[:number])) for number in range(0, max(len(lines), 1), every)]
                assert line_starts(path, every) == (len(lines), starts), (content, every)

    def test_gzip(self, trained_run, tmp_path):
        path = tmp_path / "in.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text": "Ada wrote ."}\n' * 5))
        out = tmp_path / "out"
        assert tag(trained_run, path, "--column", "text", "--output", out, "--shard-rows", 2).exit_code == 0
        assert [len(lines_of(path)) for path in shards(out, ".jsonl")] == [5]

    def test_a_line_that_is_too_long(self, trained_run, tmp_path, monkeypatch):
        monkeypatch.setattr(shard_files, "LONGEST_LINE", 100)
        path = tmp_path / "in.jsonl"
        path.write_bytes(b'{"text": "%s"}\n{"text": "Ada wrote ."}\n' % (b"a" * 1000))
        out = tmp_path / "out"
        assert tag(trained_run, path, "--column", "text", "--output", out).exit_code == 0
        assert [row["reason"] for row in rejected(out)] == ["a line of more than 100 bytes"]
        assert [row["text"] for row in lines_of(shards(out, ".jsonl")[0])] == ["Ada wrote ."]

    def test_texts_that_are_too_long(self, trained_run, tmp_path, monkeypatch):
        monkeypatch.setattr(shard_files, "MOST_TOKENS", 20)
        path = tmp_path / "in.jsonl"
        path.write_bytes(b'{"text": "%s"}\n{"text": "Ada wrote ."}\n' % (b"a " * 11))
        out = tmp_path / "out"
        assert tag(trained_run, path, "--column", "text", "--output", out).exit_code == 0
        assert [row["reason"] for row in rejected(out)] == ["a text of more than 20 characters"]


class TestGoingOn:
    @pytest.fixture
    def source(self, tmp_path):
        path = tmp_path / "in.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(9)), encoding="utf-8")
        return path

    def test_what_is_there_stays_and_what_is_missing_is_made(self, trained_run, tmp_path, source):
        out, options = tmp_path / "out", ("--column", "text", "--output", tmp_path / "out", "--shard-rows", 4)
        tag(trained_run, source, *options)
        paths = shards(out, ".jsonl")
        before = [path.read_bytes() for path in paths]
        paths[1].unlink()
        (out / ".in-00001.jsonl.1.part").write_bytes(b"half")
        paths[0].write_bytes(b"mark")
        result = tag(trained_run, source, *options)
        assert result.exit_code == 0
        assert "2 of 3 shards are there already: tagging the other 1" in result.output
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.output.splitlines()]
        assert ["shards", "1", "3"] in rows and ["rows", "4", "9"] in rows
        assert [path.read_bytes() for path in paths] == [b"mark", *before[1:]]
        assert not list(out.rglob(".*.part"))

    @pytest.mark.parametrize(("rows", "said"), [(50, "the one shard is there"), (4, "all 3 shards are there")])
    def test_nothing_to_do(self, trained_run, tmp_path, source, rows, said):
        options = (source, "--column", "text", "--output", tmp_path / "out", "--shard-rows", rows)
        assert "tokens/s" in tag(trained_run, *options).output
        result = tag(trained_run, *options)
        assert result.exit_code == 0 and f"nothing to do: {said} already" in result.output
        assert "this call" not in result.output and "tokens/s" not in result.output

    def test_another_command_is_refused(self, trained_run, tmp_path, source):
        options = ("--column", "text", "--output", tmp_path / "out")
        tag(trained_run, source, *options)
        for more, message in (
            (("--shard-rows", 4), "--shard-rows 50000"),
            (("--min-score", 0.5), "--min-score 0"),
        ):
            result = tag(trained_run, source, *options, *more)
            assert result.exit_code == 1 and f"was begun with {message}" in result.output
        source.write_text('{"text": "Ada"}\n', encoding="utf-8")
        result = tag(trained_run, source, *options)
        assert result.exit_code == 1 and "changed since" in result.output

    def test_more_files_may_come(self, trained_run, tmp_path, source):
        options = ("--column", "text", "--output", tmp_path / "out")
        tag(trained_run, source, *options)
        (tmp_path / "later.jsonl").write_text('{"text": "Ada"}\n', encoding="utf-8")
        assert tag(trained_run, tmp_path / "*.jsonl", *options).exit_code == 0
        assert [path.name for path in shards(tmp_path / "out", ".jsonl")] == [
            "in-00000.jsonl",
            "later-00000.jsonl",
        ]


def test_folders_are_mirrored(trained_run, tmp_path):
    for name in ("data/day=1/a.jsonl", "data/day=2/a.jsonl", "data/_SUCCESS", "data/readme.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"text": "Ada wrote ."}\n', encoding="utf-8")
    out = tmp_path / "out"
    result = tag(trained_run, tmp_path / "data", "--column", "text", "--output", out)
    assert "1 file of another kind is left out" in result.output
    assert sorted(str(path.relative_to(out)) for path in out.glob("day*/*")) == [
        str(Path("day=1", "a-00000.jsonl")),
        str(Path("day=2", "a-00000.jsonl")),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["in.parquet", "--column", "other", "--output", "out"],
            "there is no column 'other'; the columns are: text, n",
        ),
        (["in.parquet", "--column", "n", "--output", "out"], "holds neither texts nor lists of tokens, but int64"),
        (["in.parquet", "--column", "text"], "name a folder with --output"),
        (
            ["in.parquet", "--column", "text", "--output", "out", "--to", "jsonl"],
            "--to has no effect with --column",
        ),
        (["none.parquet", "--column", "text", "--output", "out"], "there is no such file"),
        (["in.txt", "--column", "text", "--output", "out"], "a file is expected that ends in .parquet"),
        (["in.parquet", "in.txt"], "expected one file and got 2"),
        (["bad.parquet", "--column", "text", "--output", "out"], "not a parquet file, or a corrupt one"),
        (
            ["nulls.jsonl", "--column", "text", "--output", "out"],
            "no row has a text, or a list of tokens, as 'text'",
        ),
        (["in.parquet", "--column", "text", "--output", "full"], "holds something else"),
        (["sub", "--column", "text", "--output", "sub/out"], "is in an input folder"),
        (["in.parquet", "sub/in.jsonl", "--column", "text", "--output", "out"], "shards of the same name"),
    ],
)
def test_mistakes(trained_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    parquet.write_table(pyarrow.table({"text": ["Ada"], "n": [1]}), "in.parquet")
    for name in ("in.txt", "bad.parquet", "full/a.txt", "sub/in.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text('{"text": "Ada"}\n', encoding="utf-8")
    Path("nulls.jsonl").write_text('{"text": null}\n', encoding="utf-8")
    command = ["tag", *arguments, "--model", str(trained_run)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and message in result.output.replace("\n", " ")


def command(trained_run, source, out, workers):
    options = ["--column", "text", "--output", str(out), "--shard-rows", "500", "--workers", str(workers)]
    return [sys.executable, "-m", "nertool", "tag", str(source), "--model", str(trained_run), *options]


@pytest.mark.slow
def test_kills_lose_and_double_nothing(trained_run, tmp_path):
    """The command is killed, with its processes; so is one of the processes alone."""
    source = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"id": range(5000), "text": texts(5000)}), source)
    alone, out = tmp_path / "alone", tmp_path / "out"
    subprocess.run(command(trained_run, source, alone, 1), check=True, capture_output=True)
    for wanted in (1, 3):
        process = subprocess.Popen(command(trained_run, source, out, 2), start_new_session=True)
        while len(shards(out, ".parquet")) < wanted and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in shards(out, ".parquet"):
            assert parquet.read_table(path).num_rows == 500
    process = subprocess.Popen(command(trained_run, source, out, 2), stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    killed = False
    while not killed and process.poll() is None:
        time.sleep(0.01)
        for child in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
                killed = True
                break
    _, said = process.communicate()
    assert process.returncode == 0, said
    tables = [parquet.read_table(path) for path in shards(out, ".parquet")]
    assert len(tables) == 10
    assert pyarrow.concat_tables(tables).equals(
        pyarrow.concat_tables([parquet.read_table(path) for path in shards(alone, ".parquet")])
    )


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(trained_run, tmp_path):
    source = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"text": texts(20_000)}), source)
    process = subprocess.Popen(command(trained_run, source, tmp_path / "out", 2))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not shards(tmp_path / "out", ".parquet") and process.poll() is None:
        time.sleep(0.01)
    started = children.read_text().split()
    process.kill()
    process.wait()
    for _ in range(600):
        if not any(Path(f"/proc/{child}").exists() for child in started):
            break
        time.sleep(0.1)
    else:
        pytest.fail("processes are left")
