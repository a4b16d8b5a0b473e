"""Vectors by name, fetched from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nertool.cli.main import main
from nertool.comparison.results import fingerprint
from nertool.config import vector_sets
from nertool.config.loading import load_config, locate_files, parse_config
from nertool.config.vector_sets import VECTOR_SETS, VectorSet, find_name, meant, parse_name, recommended, stored
from nertool.data import fetching
from nertool.data.fetching import Fetched, Progress, Writing, fetch
from nertool.data.recipe import make_recipe
from nertool.data.vectors import read_vectors
from nertool.errors import ConfigError, CorpusError, NertoolError
from nertool.training.preparation import prepare

ROWS = 600
NAMES = ["Ada", "Byron", "Babbage", "London", "Oslo", "Malmö", "the", "of", "in", ",", ".", "1987"]


def rows(dimensions: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    words = [*NAMES, *(f"w{n}" for n in range(ROWS))]
    return words, np.random.default_rng(seed).normal(size=(len(words), dimensions)).round(4).astype(np.float32)


def text(dimensions: int) -> bytes:
    words, matrix = rows(dimensions)
    lines = (f"{word} {' '.join(map(repr, map(float, row)))}\n" for word, row in zip(words, matrix, strict=True))
    return "".join(lines).encode()


def glove() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for dimensions in (50, 100):
            archive.writestr(f"glove.6B.{dimensions}d.txt", text(dimensions))
    return content.getvalue()


GLOVE = glove()
CRAWL = gzip.compress(b"%d 300\n" % (ROWS + 12) + text(300), mtime=0)


@dataclass
class Server:
    """What a server has, and how it behaves.

    Attributes:
        files: By path.
        ranges: Whether it sends parts.
        cuts: After how many bytes of the body it cuts off the next answers.
        tags: Name of the version of each file, where it has another than its hash.
        moved: Where the next path leads.
        status: Of all answers, where it is no usual one.
        asked: The ranges that were asked for.
    """

    files: dict[str, bytes]
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    tags: bool = True
    moved: dict[str, str] = field(default_factory=dict)
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ThreadingHTTPServer, list[Server]]]:
    current: list[Server] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            server = current[0]
            server.asked.append(self.headers.get("Range"))
            if self.path in server.moved:
                self.send_response(301)
                self.send_header("Location", server.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = server.files.get(self.path)
            if content is None or server.status != 200:
                self.send_error(404 if content is None else server.status)
                return
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            begin = 0
            wanted = self.headers.get("Range")
            if wanted and server.ranges and self.headers.get("If-Range") == tag:
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - begin))
            if server.tags:
                self.send_header("ETag", tag)
            self.end_headers()
            body = content[begin:]
            if server.cuts:
                body = body[: server.cuts.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server, current
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(running, monkeypatch, tmp_path) -> Server:
    """Return a server that has GloVe and a fastText set, whose sets are those of the catalogue, much smaller."""
    http, current = running
    one = Server({"/glove.6B.zip": GLOVE, "/cc.de.300.vec.gz": CRAWL})
    one.url = f"http://127.0.0.1:{http.server_port}"
    current[:] = [one]
    for name in ("glove-50", "glove-100"):
        own = replace(
            VECTOR_SETS[name],
            url=f"{one.url}/glove.6B.zip",
            size=len(GLOVE),
            sha256=hashlib.sha256(GLOVE).hexdigest(),
        )
        monkeypatch.setitem(VECTOR_SETS, name, own)
    monkeypatch.setitem(
        VECTOR_SETS, "cc.de.300", replace(VECTOR_SETS["cc.de.300"], url=f"{one.url}/cc.de.300.vec.gz")
    )
    monkeypatch.setenv("NERTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(vector_sets.MIRROR, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(fetching, "_PAUSE", 0.0)
    monkeypatch.setattr(fetching, "_CHUNK", 1000)
    return one


def get(*names: str, **options: object) -> list[Fetched]:
    return list(fetch([find_name(name) for name in names], **options))


def assert_read(name: str, dimensions: int, count: int | None = None) -> None:
    words, matrix = rows(dimensions)
    found = read_vectors(name)
    assert found.words == words[:count]
    assert np.array_equal(found.matrix, matrix[:count])
    assert not found.note


def cached(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache" / "vectors").iterdir()}


class TestNames:
    def test_the_sets_that_there_are(self):
        assert {f"glove-{n}" for n in (50, 100, 200, 300)} < VECTOR_SETS.keys()
        crawl = [each for each in VECTOR_SETS.values() if each.name.startswith("cc.")]
        assert len(crawl) >= 20 and all(each.url.endswith(f"/{each.name}.vec.gz") for each in crawl)
        assert all(each.url.startswith("https://") for each in VECTOR_SETS.values())
        assert len({each.language for each in crawl}) == len(crawl)

    def test_languages_are_those_of_spacy(self):
        import spacy

        folder = Path(spacy.__file__).parent / "lang"
        assert all((folder / each.language).is_dir() for each in VECTOR_SETS.values())

    def test_parsing(self):
        assert parse_name("glove-100") == (VECTOR_SETS["glove-100"], None)
        assert parse_name("cc.de.300:200000") == (VECTOR_SETS["cc.de.300"], 200_000)
        assert str(parse_name("cc.de.300:200000")) == "cc.de.300:200000"
        for text in ("glove-100:0", "glove-100:-1", "glove-100:x", "glove-10", "./glove-100", "", "glove-100\n"):
            assert parse_name(text) is None, text

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("vectors/glove.6B.50d.txt", "glove-50"),
            ("glove100", "glove-100"),
            ("GloVe-300", "glove-300"),
            ("glove.6B.75d.txt", None),
            ("cc.de.300.vec.gz", "cc.de.300"),
            ("cc.xx.300", None),
            ("cc-de-300", "cc.de.300"),
            ("mine.txt", None),
        ],
    )
    def test_what_is_meant(self, text, name):
        assert meant(text) == name

    def test_recommended(self):
        assert str(recommended("en")) == "glove-100"
        assert str(recommended("de")) == "cc.de.300:200000"
        assert str(recommended("nb")) == "cc.no.300:200000"
        assert recommended("xx") is None


class TestFetching:
    def test_a_member_of_a_zip(self, server, tmp_path):
        (result,) = get("glove-50")
        assert (result.before, result.published, result.first) == (False, True, False)
        assert_read("glove-50", 50)
        assert cached(tmp_path) == {"glove-50.bin", "glove-50.json"}
        record = json.loads((tmp_path / "cache/vectors/glove-50.json").read_text())
        assert record["archive_sha256"] == hashlib.sha256(GLOVE).hexdigest() and record["rows"] == ROWS + 12
        assert record["sha256"] == hashlib.sha256(result.path.read_bytes()).hexdigest()
        # Once more, and nothing is asked for.
        server.asked.clear()
        assert [each.before for each in get("glove-50")] == [True] and not server.asked
        # The file is one of word2vec, which others can read too.
        assert np.array_equal(read_vectors(result.path).matrix, rows(50)[1])

    def test_several_of_one_archive_are_one_download(self, server):
        assert [str(each.named) for each in get("glove-50", "glove-100", "glove-50")] == ["glove-50", "glove-100"]
        assert len(server.asked) == 1
        assert_read("glove-100", 100)

    def test_the_first_rows(self, server, tmp_path):
        (result,) = get("cc.de.300:100")
        assert result.first and not result.published and result.record.rows == 100
        assert_read("cc.de.300:100", 300, 100)
        assert_read("cc.de.300:7", 300, 7)  # of those
        with pytest.raises(ConfigError, match=r"cc\.de\.300 have not been fetched: .*; cc\.de\.300:100 is here"):
            read_vectors("cc.de.300")
        with pytest.raises(
            ConfigError, match=r"cc.de.300:101 have not been fetched: `nertool vectors fetch cc.de.300:"
        ):
            read_vectors("cc.de.300:101")
        get("cc.de.300")
        assert_read("cc.de.300", 300)
        assert_read("cc.de.300:101", 300, 101)
        with pytest.raises(CorpusError, match="there are 612 rows, and 5,000 are wanted"):
            read_vectors("cc.de.300:5000")
        with pytest.raises(
            CorpusError, match=r"there are 612 rows of 300 dimensions, and cc.de.300:5000 is wanted"
        ):
            get("cc.de.300:5000")
        assert "cc.de.300.first-5000.bin" not in cached(tmp_path)

    @pytest.mark.parametrize("ranges", [True, False])
    def test_a_connection_that_is_cut_off(self, server, ranges):
        server.ranges = ranges
        server.cuts = [4000, 2000, 10**9]
        seen = []
        list(fetch([find_name("glove-50")], lambda event: seen.append(event)))
        assert server.asked == [None, "bytes=4000-", "bytes=6000-" if ranges else "bytes=2000-"]
        downloads = [event for event in seen if isinstance(event, Progress)]
        assert downloads[-1].done == downloads[-1].total == len(GLOVE)
        assert seen[-1] == Writing(find_name("glove-50"), ROWS + 12, 400_000)
        assert_read("glove-50", 50)

    def test_a_download_that_was_stopped_goes_on_with_the_next_command(self, server, tmp_path):
        server.cuts = [9000, 0, 0, 0, 0]
        with pytest.raises(
            NertoolError, match=r"cut off again and again. The same command goes on where it stopped"
        ):
            get("glove-50")
        server.asked.clear()
        get("glove-50")
        assert server.asked == ["bytes=9000-"]
        assert_read("glove-50", 50)
        assert cached(tmp_path) == {"glove-50.bin", "glove-50.json"}

    def test_an_interrupt_keeps_what_is_here(self, server):
        def stop(event):
            if isinstance(event, Progress) and event.done >= 8000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(fetch([find_name("glove-50")], stop))
        server.asked.clear()
        get("glove-50")
        assert server.asked == ["bytes=8000-"]
        assert_read("glove-50", 50)

    def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(self, server):
        server.cuts = [9000, 0, 0, 0, 0]
        with pytest.raises(NertoolError):
            get("cc.de.300")
        words, matrix = rows(300, seed=5)
        lines = (f"{w} {' '.join(map(str, row))}\n" for w, row in zip(words, matrix, strict=True))
        server.files["/cc.de.300.vec.gz"] = gzip.compress("".join(lines).encode())
        get("cc.de.300")
        assert np.array_equal(read_vectors("cc.de.300").matrix, matrix)

    def test_a_whole_file_that_was_not_yet_checked(self, server, tmp_path):
        server.cuts = [9000, 0, 0, 0, 0]
        with pytest.raises(NertoolError):
            get("glove-50")
        (tmp_path / "cache/vectors/.glove.6B.zip.part").write_bytes(GLOVE)
        get("glove-50")
        assert_read("glove-50", 50)

    def test_without_a_name_of_the_version_nothing_is_continued(self, server):
        server.tags = False
        server.cuts = [9000]
        get("glove-50")
        assert server.asked == [None, None]
        assert_read("glove-50", 50)

    def test_another_file_is_refused(self, server, tmp_path):
        server.files["/glove.6B.zip"] = GLOVE[:-30] + bytes(30)
        with pytest.raises(NertoolError, match=r"its SHA-256 is [0-9a-f]{64}, and [0-9a-f]{64} is expected"):
            get("glove-50")
        assert not cached(tmp_path)
        # One of another size is not even downloaded.
        server.files["/glove.6B.zip"] = GLOVE + b"x"
        seen = []
        with pytest.raises(NertoolError, match=f"has {len(GLOVE) + 1:,} bytes, and {len(GLOVE):,} are expected"):
            list(fetch([find_name("glove-50")], seen.append))
        assert not seen
        server.files["/glove.6B.zip"] = GLOVE
        get("glove-50")
        assert_read("glove-50", 50)

    def test_where_no_hash_is_published_the_first_one_counts(self, server, tmp_path):
        (result,) = get("cc.de.300")
        assert result.first and not result.published
        result.path.unlink()
        (again,) = get("cc.de.300")
        assert not again.first and not again.published
        again.path.unlink()
        server.files["/cc.de.300.vec.gz"] = other = gzip.compress(text(300)[:-3] + b"2\n", mtime=0)
        sha256 = hashlib.sha256(other).hexdigest()
        with pytest.raises(NertoolError, match=f"No hash is published for it.*--sha256 {sha256} says so"):
            get("cc.de.300")
        (new,) = get("cc.de.300", sha256=sha256)
        assert new.published and not new.first
        new.path.unlink()
        get("cc.de.300")  # that one counts now

    def test_a_given_hash(self, server):
        with pytest.raises(NertoolError, match=f"and {'0' * 64} is expected"):
            get("cc.de.300", sha256="0" * 64)
        assert get("cc.de.300", sha256=hashlib.sha256(CRAWL).hexdigest())[0].published

    def test_a_corrupt_archive_is_not_remembered(self, server, tmp_path):
        server.files["/cc.de.300.vec.gz"] = CRAWL[:-20] + bytes(20)
        with pytest.raises(CorpusError, match="gzip data is corrupt"):
            get("cc.de.300")
        assert not cached(tmp_path)
        server.files["/cc.de.300.vec.gz"] = CRAWL
        assert get("cc.de.300")[0].first

    def test_hashes_that_cannot_be_read_are_not_ignored(self, server, tmp_path):
        get("cc.de.300:5")
        (tmp_path / "cache/vectors/hashes.json").write_text("{", encoding="utf-8")
        with pytest.raises(NertoolError, match=r"hashes\.json: cannot be read"):
            get("cc.de.300:6")

    def test_redirects(self, server):
        server.moved["/glove.6B.zip"] = "/other/place.zip"
        server.files["/other/place.zip"] = GLOVE
        get("glove-50")
        assert_read("glove-50", 50)

    def test_no_redirect_leads_out_of_a_secure_connection(self, server, monkeypatch):
        import requests

        answer = requests.Response()
        answer.status_code, answer.url, answer.raw = 200, "http://elsewhere.example/x", io.BytesIO()
        monkeypatch.setattr(requests, "get", lambda *args, **options: answer)
        monkeypatch.setitem(
            VECTOR_SETS, "glove-50", replace(VECTOR_SETS["glove-50"], url="https://a.example/x.zip")
        )
        with pytest.raises(NertoolError, match=r"leads to http://elsewhere.example/x, which is not secure"):
            get("glove-50")

    @pytest.mark.parametrize(("status", "times"), [(403, 1), (503, 4), (429, 4)])
    def test_what_the_server_answers(self, server, status, times):
        server.status = status
        with pytest.raises(NertoolError, match=f"the server answers {status}"):
            get("glove-50")
        assert len(server.asked) == times

    def test_no_server(self, server, monkeypatch):
        monkeypatch.setenv(vector_sets.MIRROR, "http://127.0.0.1:9/")
        with pytest.raises(
            NertoolError, match=r"there is no connection to the server.*unset NERTOOL_VECTORS_MIRROR"
        ):
            get("glove-50")

    def test_a_mirror(self, server, monkeypatch, tmp_path):
        monkeypatch.setenv(vector_sets.MIRROR, f"{server.url}/mirror/")
        with pytest.raises(
            NertoolError, match=r"/mirror/glove\.6B\.zip: cannot be fetched: the server answers 404"
        ):
            get("glove-50")
        server.files = {"/mirror/glove.6B.zip": GLOVE}
        get("glove-50")
        assert_read("glove-50", 50)

    @pytest.mark.parametrize("as_url", [False, True])
    def test_a_folder_as_mirror(self, server, monkeypatch, tmp_path, as_url):
        folder = tmp_path / "a mirror"
        monkeypatch.setenv(vector_sets.MIRROR, folder.as_uri() if as_url else str(folder))
        with pytest.raises(NertoolError, match="there is no such file; NERTOOL_VECTORS_MIRROR names"):
            get("glove-50")
        folder.mkdir()
        (folder / "glove.6B.zip").write_bytes(GLOVE[:-1])
        with pytest.raises(NertoolError, match="is expected: it is not the same file"):
            get("glove-50")
        (folder / "glove.6B.zip").write_bytes(GLOVE)
        get("glove-50")
        assert_read("glove-50", 50)
        assert (folder / "glove.6B.zip").exists() and not server.asked

    def test_archives_are_kept_on_request(self, server, tmp_path):
        get("glove-50", keep=True)
        assert (tmp_path / "cache/vectors/glove.6B.zip").read_bytes() == GLOVE
        server.asked.clear()
        get("glove-100")
        assert not server.asked
        assert_read("glove-100", 100)

    def test_two_commands_do_not_write_at_the_same_time(self, server):
        def again(event):
            with pytest.raises(NertoolError, match="another `nertool vectors fetch` is writing"):
                get("glove-50")

        list(fetch([find_name("glove-50")], again))
        assert_read("glove-50", 50)

    def test_nothing_is_logged_and_the_logger_stays_as_it_was(self, server, caplog):
        import pooch

        before = pooch.get_logger().level
        get("glove-50", "cc.de.300")
        assert not caplog.records and pooch.get_logger().level == before


class TestTheCache:
    def test_what_was_changed_is_refused_and_fetched_again(self, server):
        (result,) = get("glove-50")
        content = bytearray(result.path.read_bytes())
        content[-3] ^= 1
        result.path.write_bytes(content)
        with pytest.raises(
            CorpusError, match="not what was fetched: `nertool vectors fetch glove-50` gets it again"
        ):
            read_vectors("glove-50")
        assert [each.before for each in get("glove-50")] == [False]
        assert_read("glove-50", 50)
        result.path.with_suffix(".json").unlink()
        with pytest.raises(CorpusError, match="not what was fetched"):
            read_vectors("glove-50")

    def test_a_path_of_such_a_name_is_a_file(self, server, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("glove-50").write_text("a 1 2\n", encoding="utf-8")
        assert read_vectors(Path("glove-50")).words == ["a"]
        assert read_vectors("./glove-50").words == ["a"]
        with pytest.raises(ConfigError, match="glove-50 have not been fetched"):
            read_vectors("glove-50")

    def test_folders(self, monkeypatch, tmp_path):
        monkeypatch.setenv("NERTOOL_CACHE", str(tmp_path / "own"))
        assert vector_sets.vectors_folder() == tmp_path / "own" / "vectors"
        monkeypatch.delenv("NERTOOL_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert vector_sets.vectors_folder() == tmp_path / "xdg" / "nertool" / "vectors"

    def test_rows_that_were_skipped_are_told_whenever_they_are_read(self, server):
        lines = text(300).split(b"\n")
        lines[3] = lines[3].replace(b"London", b"Lond\xc3")
        server.files["/cc.de.300.vec.gz"] = gzip.compress(b"\n".join(lines))
        (result,) = get("cc.de.300")
        assert "line 4: byte 0xc3" in result.record.note
        found = read_vectors("cc.de.300")
        assert found.note == result.record.note and "London" not in found.index and len(found.words) == ROWS + 11


class TestConfigs:
    @pytest.fixture
    def config(self, tiny_yaml) -> Callable[..., object]:
        return lambda *overrides: locate_files(load_config(tiny_yaml, overrides), tiny_yaml)

    def test_names_stay_names(self, server, config):
        get("glove-50", "cc.de.300:100")
        found = config("inputs.words.vectors=[glove-50, 'cc.de.300:50']")
        assert found.inputs["words"].vectors == ("glove-50", "cc.de.300:50")
        prepared = prepare(found)
        assert prepared.model.inputs["words"].dimensions == 350
        table = prepared.model.network.state_dict()["inputs.words.weight"]
        row = prepared.model.inputs["words"].rows["Oslo"]
        assert table[row, :50].tolist() == rows(50)[1][4].tolist()

    def test_what_is_missing_is_named_with_the_command(self, server, config, tmp_path):
        with pytest.raises(ConfigError) as caught:
            config(
                "inputs.words.vectors=[glove-50, 'cc.de.300:9', no.txt, glove.6B.100d.txt]", "corpus.test=none.txt"
            )
        message = str(caught.value)
        size = f"({vector_sets.megabytes(len(GLOVE))})"
        assert (
            f"the vectors glove-50 have not been fetched: `nertool vectors fetch glove-50` gets them {size}"
            in message
        )
        assert "`nertool vectors fetch cc.de.300:9`" in message
        assert "there is no file none.txt, no.txt or glove.6B.100d.txt" in message
        assert "`nertool vectors fetch glove-100` gets vectors that are named glove-100" in message
        assert not server.asked

    def test_phrases_are_files_whatever_their_names(self, server, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "glove-50").write_text("Oslo\n", encoding="utf-8")
        (tmp_path / "t").write_text("Oslo B-LOC\n", encoding="utf-8")
        tree = {"corpus": {"train": "t"}, "inputs": {"names": {"kind": "gazetteer", "files": ["glove-50"]}}}
        assert locate_files(parse_config(tree), None).inputs["names"].files == ("glove-50",)

    def test_a_file_in_a_zip(self, server, config, tmp_path, monkeypatch):
        monkeypatch.setenv("NERTOOL_DATA", str(tmp_path / "data"))
        (tmp_path / "data").mkdir()
        path = tmp_path / "data" / "g.zip"
        path.write_bytes(GLOVE)
        found = config("inputs.words.vectors=[g.zip:glove.6B.50d.txt]")
        assert found.inputs["words"].vectors == (f"{path}:glove.6B.50d.txt",)
        assert prepare(found).model.inputs["words"].dimensions == 50

    def test_a_comparison_notices_other_vectors(self, server, config, tmp_path):
        get("glove-50", "cc.de.300", "cc.de.300:20")
        (tmp_path / "own.txt").write_text("Oslo 1 2\n", encoding="utf-8")
        (tmp_path / "g.zip").write_bytes(GLOVE)
        own = str(tmp_path / "own.txt")
        lists = [
            (own,),
            (own, "glove-50"),
            ("glove-50", own),
            (own, "cc.de.300"),
            (own, "cc.de.300:10"),
            (own, f"{tmp_path / 'g.zip'}:glove.6B.50d.txt"),
            (own, f"{tmp_path / 'g.zip'}:glove.6B.100d.txt"),
        ]
        setting = "inputs.words.vectors"
        prints = [fingerprint(config(f"{setting}=[{', '.join(map(repr, names))}]"))[setting] for names in lists]
        assert len(set(prints)) == len(lists)
        # The same rows, out of a file that has more of them.
        find_name("cc.de.300:20").path.unlink()
        assert fingerprint(config(f"{setting}=[{own!r}, 'cc.de.300:10']"))[setting] == prints[4]

    def test_vectors_are_recommended_by_the_language(self, server, tiny_yaml, monkeypatch):
        monkeypatch.chdir(tiny_yaml.parent)

        def line(*overrides: str) -> str:
            (found,) = (each for each in make_recipe("train.txt", overrides).warnings if "vectors" in each)
            return found

        assert "`nertool vectors fetch glove-100`, and train with --vectors glove-100" in line()
        assert "`nertool vectors fetch cc.de.300:200000`" in line("language=de")
        assert not any("vectors" in each for each in make_recipe("train.txt", ["language=xx"]).warnings)
        get("glove-100", "cc.de.300:50")
        assert line().endswith("; train with --vectors glove-100")
        assert line("language=de").endswith("; train with --vectors cc.de.300:50")


class TestCommands:
    @pytest.fixture(autouse=True)
    def here(self, tiny_yaml, monkeypatch):
        monkeypatch.chdir(tiny_yaml.parent)

    def invoke(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    def test_the_table(self, server):
        assert "cc.de.300 │ de │ 300" in self.invoke("vectors")
        output = self.invoke("vectors", "--language", "de")
        assert "cc.de.300" in output and "glove" not in output and "CC BY-SA 3.0 │ no" in output
        get("cc.de.300:100", "cc.de.300")
        output = self.invoke("vectors", "--language", "de")
        assert "all (0.7 MB)" in output and "first 100 (0.1" in output
        assert "there are no vectors for the language 'qq'" in self.invoke("vectors", "--language", "qq", code=1)

    def test_json(self, server):
        (result,) = get("glove-50:20")
        tree = json.loads(CliRunner().invoke(main, ["vectors", "--language", "en", "--json"]).stdout)
        (entry,) = (each for each in tree if each["name"] == "glove-50")
        assert (entry["dimensions"], entry["bytes"], entry["licence"]) == (50, len(GLOVE), "PDDL 1.0")
        assert entry["sha256"] == hashlib.sha256(GLOVE).hexdigest()
        (part,) = entry["cached"]
        assert (part["name"], part["path"], part["rows"]) == ("glove-50:20", str(result.path), 20)

    def test_fetch_and_train(self, server):
        output = self.invoke("vectors", "fetch", "glove-50", "--top", "300")
        assert f"fetching {server.url}/glove.6B.zip" in output and "writing glove-50:300" in output
        assert "glove-50:300 is in the cache: 300 words, 50 dimensions" in output
        assert "glove-50:300 is here already" in self.invoke("vectors", "fetch", "glove-50:300")
        common = ("--set", "training.epochs=1", "--set", "model.encoder.hidden=4", "--set", "training.threads=1")
        output = self.invoke("train", "tiny.yaml", "--vectors", "glove-50:300", *common)
        assert " % " in output
        # The name is in the run's config, which can be trained again.
        config = load_config(Path("runs/tiny/config.yaml"))
        assert config.inputs["words"].vectors == ("glove-50:300",)
        self.invoke("train", "runs/tiny/config.yaml", "--output", "runs/again", *common)
        output = self.invoke(
            "train",
            "tiny.yaml",
            "--resume",
            "--vectors",
            "glove-50:300",
            *common[2:],
            *("--set", "training.epochs=2"),
        )
        assert "resumed after epoch 1" in output
        output = self.invoke("train", "train.txt", "--vectors", "glove-100", code=1)
        assert "error: the vectors glove-100 have not been fetched: `nertool vectors fetch glove-100`" in output

    def test_init_writes_the_name(self, server):
        get("glove-50")
        self.invoke("init", "train.txt", "--vectors", "glove-50", "--output", "own.yaml")
        assert load_config(Path("own.yaml")).inputs["words"].vectors == ("glove-50",)

    def test_notes_on_hashes(self, server):
        output = self.invoke("vectors", "fetch", "cc.de.300")
        assert "note: no hash is published for cc.de.300.vec.gz" in output
        assert hashlib.sha256(CRAWL).hexdigest() in output

    def test_mistakes(self, server):
        assert "Did you mean glove-100?" in self.invoke("vectors", "fetch", "glove100", code=1)
        assert "say the same" in self.invoke("vectors", "fetch", "glove-50:3", "--top", "5", code=2)
        assert "64 hexadecimal digits" in self.invoke("vectors", "fetch", "glove-50", "--sha256", "abc", code=2)
        both = ("vectors", "fetch", "glove-50", "cc.de.300", "--sha256", "a" * 64)
        assert "that of one file" in self.invoke(*both, code=2)
        assert not server.asked


def test_names_are_found_where_they_are_stored(server, tmp_path):
    assert stored(find_name("glove-50")) is None
    get("glove-50:10")
    assert stored(find_name("glove-50:9")) == tmp_path / "cache/vectors/glove-50.first-10.bin"
    assert isinstance(VECTOR_SETS["glove-50"], VectorSet)


def test_spacy_trains_with_names_and_warns_of_rows_that_were_skipped(server, tiny_train):
    from nertool.integrations.spacy.training import SCHEME, Sentences, new_model, parse_settings
    from nertool.text.document import Document
    from nertool.text.schemes import Scheme, convert

    documents = [
        Document(tuple(tokens)).with_labels(convert(labels, Scheme.IOB2, SCHEME), SCHEME)
        for tokens, labels in tiny_train
    ]
    settings = {"inputs": {"words": {"vectors": ["cc.de.300"]}}, "model": {"encoder": {"hidden": 4}}}
    config = parse_settings(settings, "de")
    with pytest.raises(ConfigError, match=r"`nertool vectors fetch cc\.de\.300`"):
        new_model(config, Sentences(documents, 0))
    lines = text(300).split(b"\n")
    lines[7] = b"the x"
    server.files["/cc.de.300.vec.gz"] = gzip.compress(b"\n".join(lines))
    get("cc.de.300")
    with pytest.warns(UserWarning, match="a broken row was skipped"):
        model = new_model(config, Sentences(documents, 0))
    assert model.inputs["words"].dimensions == 300
