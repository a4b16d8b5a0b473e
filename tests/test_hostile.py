"""Files, names and settings of somebody who means harm, or of a bad day: what is promised holds all the same."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from nertool.cli import door
from nertool.cli.main import main
from nertool.config import patterns
from nertool.config.files import is_file, refuse_links, write_whole
from nertool.config.loading import LARGEST, find_config, flow, load_config, locate_files
from nertool.data import pieces
from nertool.data.corpus import read_split
from nertool.data.vectors import read_vectors
from nertool.errors import BundleError, ConfigError, CorpusError, NertoolError
from nertool.formats import columns, opening
from nertool.formats.registry import ReadOptions, Report, WriteOptions, find_format, formats
from nertool.model import nbest
from nertool.model.batch import Layout
from nertool.model.chain import Scores
from nertool.model.inputs.base import Resources
from nertool.model.model import new_model
from nertool.tagging import bundle, tagger
from nertool.tagging.bundle import VOCABULARY, WEIGHTS, load_bundle, save_bundle
from nertool.tagging.tagger import Tagger
from nertool.tagging.tensorfile import DIGEST, digest
from nertool.text import tokenization
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.training.preparation import prepare
from nertool.training.run import run
from nertool.views.console import new_console
from nertool.views.model import show_model
from nertool.views.tagged import write_text
from nertool.views.visible import visible

HARMFUL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
EVIL = "\x1b]0;owned\x07\x1b[31m\b\x9b2J\u202e"
EXOTIC = ["\u00a0", "\u200b", "\u00ad", "\ufeff", "\u2028", "\ue000", "\U000e0001", "\u202e"]


def invoke(*arguments: object, **options: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), **options)  # type: ignore[arg-type]


def nertool(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which NERTOOL is the command."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    whole = command.replace("NERTOOL", f"{sys.executable} -m nertool")
    return subprocess.run(["bash", "-c", whole], cwd=cwd, capture_output=True, text=True, env=environment)


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


@pytest.fixture
def model(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of the trained model."""
    return Path(shutil.copytree(trained_run, tmp_path / "model"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change weights as somebody would who also computes a new digest."""
    path = folder / WEIGHTS
    with safetensors.safe_open(path, "pt") as file:
        texts = dict(file.metadata())
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    texts[DIGEST] = digest(tensors, texts)
    safetensors.torch.save_file(tensors, path, texts)


class TestLabels:
    @pytest.mark.parametrize("character", EXOTIC, ids=ascii)
    def test_what_trains_is_saved_and_loaded(self, character, tiny_config, tiny_yaml, tmp_path):
        for name in ("train", "validation", "test"):
            path = tiny_yaml.parent / f"{name}.txt"
            rows = [line.split(" ") for line in path.read_text(encoding="utf-8").split("\n")]
            changed = ["\t".join((row[0], f"x{character}{len(row[0])}", row[1].replace("PER", f"P{character}R")))
                       if len(row) > 1 else "" for row in rows]  # fmt: skip
            path.write_text("\n".join(changed), encoding="utf-8")
        column = f"p{character}s"
        quoted = flow(column)
        config = tiny_config(
            f"corpus.columns=[token, {quoted}, label]",
            f"inputs.pos={{kind: column, column: {quoted}}}",
        )
        model = prepare(config).model
        assert f"S-P{character}R" in model.labels
        save_bundle(model, tmp_path / "model")
        assert load_bundle(tmp_path / "model").labels == model.labels

    @pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\x85", "\ud800"], ids=ascii)
    def test_others_are_refused_where_they_are_read(self, character, tmp_path, tiny_config):
        line = {"text": "Ada left", "tokens": ["Ada", "left"], "labels": [f"B-P{character}R", "O"]}
        path = tmp_path / "train.jsonl"
        path.write_text(json.dumps(line) + "\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=r"train\.jsonl: row 1: the label 'B-P\\.* has a control character"):
            read_split(path, tiny_config().corpus)
        document = Document(("Ada",), labels=(f"S-P{character}R",), scheme=Scheme.IOBES)
        with pytest.raises(ConfigError, match="control character"):
            new_model(tiny_config(), [document], Scheme.IOBES, Resources())

    def test_more_labels_than_a_model_can_have(self, tiny_config, monkeypatch):
        monkeypatch.setattr("nertool.model.model.MOST_LABELS", 5)
        document = Document(tuple("abcdef"), labels=tuple("ABCDEF"), scheme=Scheme.PLAIN)
        with pytest.raises(ConfigError, match="6 labels, and at most 5"):
            new_model(tiny_config(), [document], Scheme.PLAIN, Resources())

    @pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX systems alone")
    def test_a_folder_name_that_is_not_utf8(self, trained_run, tmp_path):
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        try:
            folder.mkdir()
        except OSError:
            pytest.skip("this file system has no such names")
        save_bundle(load_bundle(trained_run), folder / "model")
        entities = Tagger.load(folder / "model")("Ada Byron wrote to Babbage .").entities
        assert entities == Tagger.load(trained_run)("Ada Byron wrote to Babbage .").entities
        result = invoke("info", folder / "model")
        assert result.exit_code == 0 and "caf\\udce9" in result.stdout
        assert "caf\\udce9" in invoke("tag", folder / "none", "--model", trained_run).stderr


class TestLinks:
    """A folder of a stranger may have links in it, to files of whoever works there."""

    @pytest.fixture
    def mine(self, tmp_path: Path) -> Path:
        path = tmp_path / "mine.txt"
        path.write_text("mine", encoding="utf-8")
        return path

    @pytest.mark.parametrize(
        "name",
        [
            *bundle.FILES,
            "metrics.jsonl",
            "results.json",
            "curves.svg",
            "checkpoint.safetensors",
            f".{WEIGHTS}.kept",
            ".lock",
        ],
    )
    def test_training_writes_through_none(self, name, mine, tiny_config, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / name).symlink_to(mine)
        with pytest.raises(NertoolError, match=f"{re.escape(name)}: a link out of the folder"):
            list(run(tiny_config("training.epochs=1"), folder))
        assert mine.read_text(encoding="utf-8") == "mine" and [path.name for path in folder.iterdir()] == [name]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
    @pytest.mark.parametrize("name", ["metrics.jsonl", "results.json", "checkpoint.safetensors", *bundle.FILES])
    def test_a_pipe_in_place_of_a_file_is_not_waited_for(self, name, model, tiny_config):
        (model / name).unlink()
        os.mkfifo(model / name)
        with pytest.raises(NertoolError, match=f"{re.escape(name)}: a pipe or a device"):
            list(run(tiny_config("training.epochs=1"), model, resume=True))
        if name not in ("metrics.jsonl", "checkpoint.safetensors"):
            with pytest.raises(NertoolError, match=rf"{re.escape(name)}(: a pipe or a device| is missing)"):
                show_model(model, new_console(io.StringIO()))

    def test_a_link_to_nothing_and_one_within_the_folder(self, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "a").symlink_to(tmp_path / "not" / "there")
        (folder / "b").symlink_to("c")
        refuse_links(folder, ["b", "c", "d/e"])
        with pytest.raises(NertoolError, match="a link out of the folder"):
            refuse_links(folder, ["a"])
        (folder / "x").symlink_to("y")
        (folder / "y").symlink_to("x")
        with pytest.raises(NertoolError):
            refuse_links(folder, ["x"])

    def test_a_folder_that_is_a_link_is_named_by_its_user(self, model, tmp_path):
        (tmp_path / "latest").symlink_to(model)
        assert load_bundle(tmp_path / "latest").labels == load_bundle(model).labels

    def test_results_are_not_read_through_one(self, model, mine):
        shutil.move(model / "results.json", mine)
        (model / "results.json").symlink_to(mine)
        with pytest.raises(NertoolError, match=r"results\.json: a link out of the folder"):
            show_model(model, new_console(io.StringIO()))

    def test_what_is_written_beside_a_file_goes_through_none(self, mine, tmp_path):
        beside = tmp_path / f".new.txt.{os.getpid()}.part"
        beside.symlink_to(mine)
        write_whole(tmp_path / "new.txt", b"new")
        assert mine.read_text(encoding="utf-8") == "mine"
        assert (tmp_path / "new.txt").read_bytes() == b"new" and not beside.is_symlink()

    def test_a_comparison_writes_through_none(self, mine, tiny_yaml, tmp_path):
        folder, command = tmp_path / "out", ["compare", tiny_yaml, "--set", "training.epochs=1", "--seeds", "1"]
        outside = tmp_path / "outside"
        outside.mkdir()
        folder.mkdir()
        (folder / "tiny").symlink_to(outside)  # the folder of a cell
        result = invoke(*command, "--output", folder)
        assert result.exit_code == 1 and "a link out of the folder" in result.stderr
        assert not list(outside.iterdir())

    @pytest.mark.parametrize("name", ["a.txt", "a.ann"])
    def test_brat_neither_reads_nor_writes_through_one(self, name, mine, tmp_path):
        brat, folder = find_format("brat"), tmp_path / "brat"
        folder.mkdir()
        for each in ("a.txt", "a.ann"):
            (folder / each).write_text("", encoding="utf-8")
        (folder / name).unlink()
        (folder / name).symlink_to(mine)
        with pytest.raises(NertoolError, match="a link out of the folder"):
            list(brat.read(folder, ReadOptions(), Report()))
        document = Document(("Ada",), labels=("B-PER",), scheme=Scheme.IOB2, id="a")
        with pytest.raises(NertoolError, match="a link out of the folder"):
            brat.write(folder, [document], WriteOptions(), Report())
        assert mine.read_text(encoding="utf-8") == "mine"


class TestTerminal:
    @given(st.text())
    def test_nothing_visible_is_harmful(self, text):
        shown = visible(text)
        assert not HARMFUL.search(shown) and "\n" not in shown
        assert visible(shown) == shown
        shown.encode("utf-8")
        if text.isprintable():
            assert shown == text

    def test_letters_and_emoji_stay(self):
        for text in ("Ünïcode 北京", "\u0645\u06cc\u200c\u062e", "👩\u200d🚀", "\u05d0\u200f", "a\u00a0b"):
            assert visible(text) == text
        assert visible("a\nb\tc\x1b[1m", keep="\n") == "a\nb c\\x1b[1m"

    def test_whatever_a_console_prints(self):
        from rich.table import Table
        from rich.text import Text

        target = io.StringIO()
        console = new_console(target)
        table = Table(title=EVIL)
        table.add_column(EVIL)
        table.add_row(EVIL)
        table.add_row(Text(EVIL))
        for each in (table, EVIL, Text(EVIL), f"[bold]x[/] {EVIL}", ":x:"):
            console.print(each)
        shown = target.getvalue()
        assert not HARMFUL.search(shown) and r"\x1b]0;owned" in shown and ":x:" in shown

    def test_tagged_text_is_exact_in_a_file_and_visible_on_a_terminal(self):
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        document = Document(("Ada" + EVIL, "left"), labels=("B-PER", "O"), scheme=Scheme.IOB2)
        terminal, file = Terminal(), io.StringIO()
        write_text(terminal, [document], "en")
        write_text(file, [document], "en")
        assert file.getvalue() == f"[Ada{EVIL}|PER] left\n"
        shown = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
        assert not HARMFUL.search(shown) and shown.startswith(r"Ada\x1b]0;owned\x07\x1b[31m\x08\x9b2J\u202e PER")

    def test_commands_on_a_hostile_corpus(self, trained_run, tmp_path, monkeypatch):
        monkeypatch.setenv("COLUMNS", "300")
        tokens = [f"A{EVIL}", "left", f"B{EVIL}", "."]
        line = {"text": " ".join(tokens), "tokens": tokens, "labels": ["B-PER", "O", "B-X\u202e", "O"], EVIL: 1}
        path = tmp_path / f"a{EVIL.replace('/', '')}.jsonl"
        path.write_text(f"{json.dumps(line)}\n" * 2, encoding="utf-8")
        model = ("--model", trained_run)
        for command in (
            ("check", path),
            ("check", path, tmp_path / f"none{EVIL}"),
            ("evaluate", path, *model),
            ("errors", path, *model),
            ("convert", path, tmp_path / f"b{EVIL}.txt"),
            ("convert", path, tmp_path / f"b{EVIL}.txt", "--set", f"corpus.{EVIL}=1"),
            ("tag", path, *model, "--output", tmp_path / "out.jsonl"),
            ("tag", tmp_path / f"none{EVIL}", *model),
            ("info", tmp_path / f"none{EVIL}"),
            ("info", f"--{EVIL}"),
            ("train", tmp_path / f"none{EVIL}"),
            (EVIL,),
        ):
            result = invoke(*command)
            shown = result.stdout + result.stderr
            assert "Traceback" not in shown and (result.exception is None or type(result.exception) is SystemExit)
            assert not HARMFUL.search(shown), command

    def test_the_page_of_tagged_text_runs_nothing(self, trained_run, tmp_path):
        result = invoke("tag", "-", "--model", trained_run, "--to", "html", input="Ada <script>alert(1)</script>")
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in result.stdout
        assert result.stdout.index("Content-Security-Policy") < result.stdout.index("<body")
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"text": f"Ada{EVIL} left\nOslo"}) + "\n", encoding="utf-8")
        result = invoke("tag", path, "--model", trained_run, "--to", "html")
        assert result.exit_code == 0 and not HARMFUL.search(result.stdout) and "\\x1b]0;owned" in result.stdout


class TestBoundedMemory:
    def test_lines(self, monkeypatch, tmp_path):
        monkeypatch.setattr(opening, "LONGEST_LINE", 1000)
        monkeypatch.setattr(opening, "_BUFFER", 100)
        content = b"a O\n" + b"b" * 1500 + b" O\n"
        for name, raw in {
            "a.txt": content,
            "b.txt.gz": gzip.compress(content),
            "c.txt": b"a O\n" + b"x" * 10**6,
        }.items():
            path = tmp_path / name
            path.write_bytes(raw)
            for form in ("conll", "tokens", "jsonl"):
                options = ReadOptions(labelled=form == "conll")
                expected = "line 1: not JSON" if form == "jsonl" else "line 2: the line is longer than"
                with pytest.raises(CorpusError, match=expected):
                    list(find_format(form).read(path, options, Report()))
        vectors = tmp_path / "v.txt"
        vectors.write_bytes(b"a 1 2\n" + b"b 1 2" + b"0" * 2000)
        with pytest.raises(CorpusError, match="line 2: the line is longer"):
            read_vectors(vectors)
        vectors.write_bytes(b"0" * 2000)
        with pytest.raises(CorpusError, match="line 1: the line is longer"):
            read_vectors(vectors)

    @given(st.lists(st.binary(max_size=40)), st.integers(1, 30))
    def test_lines_are_those_of_the_file(self, parts, size):
        content = b"\n".join(parts)

        class Slow(io.BytesIO):
            def read1(self, _: int | None = -1) -> bytes:
                return self.read(size)

        found = list(opening.byte_lines(Slow(content), "f"))
        assert found == [line.removesuffix(b"\n") for line in io.BytesIO(content)]

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
    def test_a_file_without_end(self, tiny_yaml, monkeypatch):
        monkeypatch.setattr(opening, "LARGEST_WHOLE", 10**6)
        monkeypatch.setattr(opening, "LONGEST_LINE", 10**6)
        for form in ("conll", "jsonl", "spacy", "text"):
            if form == "spacy":
                monkeypatch.setattr("nertool.formats.docbin.read_whole", lambda *a: opening.read_whole(*a, 10**6))
            with pytest.raises(CorpusError, match=r"line 1: the line is longer|larger than"):
                list(find_format(form).read(Path("/dev/zero"), ReadOptions(labelled=form != "text"), Report()))
        with pytest.raises(ConfigError, match="too large for a config"):
            load_config(Path("/dev/zero"))
        tiny_yaml.write_bytes(b"#" * (LARGEST + 1))
        with pytest.raises(ConfigError, match="too large for a config"):
            load_config(tiny_yaml)

    def test_compressed_data_that_expands_without_end(self, monkeypatch, tmp_path):
        monkeypatch.setattr(opening, "_EXPANDED", 10**5)
        path = tmp_path / "bomb.txt.gz"
        path.write_bytes(gzip.compress(b"a O\n\n" * 10**5))
        with pytest.raises(CorpusError, match="compressed bytes became more than"):
            list(find_format("conll").read(path, ReadOptions(), Report()))
        path = tmp_path / "bomb.spacy"
        path.write_bytes(zlib.compress(b"a" * 10**6))
        with pytest.raises(CorpusError, match="compressed bytes became more than"):
            list(find_format("spacy").read(path, ReadOptions(), Report()))

    def test_sentences_without_end(self, monkeypatch):
        for module in ("columns", "blocks"):
            monkeypatch.setattr(f"nertool.formats.{module}.LONGEST_SENTENCE", 1000)
        assert columns.LONGEST_SENTENCE == 1000
        endless = (f"{number % 7} O" for number in iter(int, 1))
        with pytest.raises(CorpusError, match=r"line 1000: .* without an empty one"):
            list(find_format("conll").read_lines(endless, "f", ReadOptions(), Report()))
        endless = ("\t".join(["1", "a", *"_" * 8]) for _ in iter(int, 1))
        with pytest.raises(CorpusError, match="without an empty one"):
            list(find_format("conllu").read_lines(endless, "f", ReadOptions(labelled=False), Report()))

    def test_texts(self, monkeypatch, trained_run):
        monkeypatch.setattr(tokenization, "LONGEST_TEXT", 100)
        for form, line in {"text": "a " * 60, "jsonl": json.dumps({"text": "a " * 60})}.items():
            with pytest.raises(CorpusError, match="f, line 2: a text of 120 characters; at most 100"):
                options = ReadOptions(labelled=False)
                list(find_format(form).read_lines(iter(['{"text": "a"}', line]), "f", options, Report()))
        with pytest.raises(CorpusError, match="at most 100"):
            Tagger.load(trained_run)("a " * 60)
        monkeypatch.setattr(tokenization, "LONGEST_TEXT", 1000)
        monkeypatch.setattr(tokenization, "MOST_TOKENS", 100)
        with pytest.raises(CorpusError, match="more than 100 tokens"):
            Tagger.load(trained_run)("a " * 150)

    @pytest.mark.parametrize("score", ["nan", "-0.5", "2"])
    def test_a_score_that_is_no_probability(self, score, trained_run):
        with pytest.raises(NertoolError, match="expected a probability from 0 to 1"):
            Tagger.load(trained_run, min_score=float(score))
        result = invoke("tag", "-", "--model", trained_run, "--min-score", score, input="Ada")
        assert result.exit_code in (1, 2) and result.stdout == ""

    @pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no /proc")
    @pytest.mark.parametrize(
        "kind", ["conll", "jsonl", "text", "csv", "conllu", "parquet", "spacy", "labelstudio"]
    )
    def test_a_file_that_cannot_be_read_to_its_end(self, kind, trained_run):
        options = ReadOptions(labelled=kind != "text")
        with pytest.raises(CorpusError, match="/proc/self/mem: cannot be read: "):
            list(find_format(kind).read(Path("/proc/self/mem"), options, Report()))
        with pytest.raises(CorpusError, match="/proc/self/mem: cannot be read: "):
            read_vectors(Path("/proc/self/mem"))

    def test_documents_and_their_alternatives(self, monkeypatch, trained_run):
        monkeypatch.setattr(tagger, "MOST_LABELS", 200)
        document = Document(("a",) * 50)
        loaded = load_bundle(trained_run)
        assert len(list(Tagger(loaded, n_best=4).tag_documents([document, document]))) == 2
        with pytest.raises(NertoolError, match="50 tokens with 5 label sequences: at most 40"):
            list(Tagger(loaded, n_best=5).tag_documents([document]))
        with pytest.raises(NertoolError, match="50 tokens with marginals: at most 20"):
            list(Tagger(loaded, marginals=True).tag_documents([document]))

    def test_alternatives_are_the_same_in_small_parts(self, monkeypatch, trained_run, tiny_train):
        documents = [Document(tuple(tokens)) for tokens, _ in tiny_train]
        model = load_bundle(trained_run)
        whole = [each.alternatives for each in Tagger(model, n_best=30).tag_documents(documents)]
        monkeypatch.setattr("nertool.tagging.prediction._WAYS_PER_BATCH", 1)
        monkeypatch.setattr(nbest, "_WAYS", 1)
        monkeypatch.setattr(tagger, "_LABELS_AT_ONCE", 1)
        parts = [each.alternatives for each in Tagger(model, n_best=30).tag_documents(documents)]
        for one, other in zip(whole, parts, strict=True):
            assert [each.labels for each in one[0]] == [each.labels for each in other[0]]
        generator = torch.Generator().manual_seed(1)
        emissions = torch.randn(4, 3, 5, generator=generator)
        scores = Scores(*(torch.randn(*size, generator=generator) for size in ((5,), (5, 5), (5,))))
        layout = Layout.of(np.array([4, 2, 3]), torch.device("cpu"))
        small = nbest.best_sequences(emissions, scores, layout, 7)
        monkeypatch.setattr(nbest, "_WAYS", 2**24)
        large = nbest.best_sequences(emissions, scores, layout, 7)
        assert torch.equal(small.labels, large.labels) and torch.equal(small.scores, large.scores)

    def test_entities_that_overlap_are_quoted_in_part(self, tmp_path):
        text = "word " * 2000
        entities = [
            {"start": 5 * n, "end": len(text) - 1, "label": "X", "text": text[5 * n : -1]} for n in range(50)
        ]
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"text": text, "entities": entities}), encoding="utf-8")
        report = Report()
        (document,) = find_format("jsonl").read(path, ReadOptions(), report)
        assert len(report.misfits) == 49 and max(map(len, report.misfits)) < 400
        assert [(span.start, span.end) for span in document.spans] == [(0, 2000)]

    @pytest.mark.parametrize("scheme", [Scheme.IOB1, Scheme.IOB2, Scheme.IOBES, Scheme.PLAIN])
    @given(data=st.data())
    def test_long_sentences_are_learnt_in_pieces(self, scheme, data):
        """No piece is longer than it has to be, and no entity is cut."""
        from nertool.text.schemes import Span, encode, spans

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pieces, "LONGEST", 8)
            patch.setattr(pieces, "_FARTHEST", 32)
            sizes = data.draw(
                st.lists(st.tuples(st.integers(1, 6), st.sampled_from("OXY")), min_size=4, max_size=20)
            )
            entities, length = [], 0
            for size, kind in sizes:
                if kind != "O":
                    entities.append(Span(length, length + size, kind))
                length += size
            labels = ["T"] * length if scheme is Scheme.PLAIN else encode(entities, length, scheme)
            tokens = tuple(f"t{n}" for n in range(length))
            sentence = Document(tokens, labels=tuple(labels), scheme=scheme, columns={"c": tokens})
            cut = pieces.in_pieces([sentence], scheme)
        assert sum((each.tokens for each in cut), ()) == tokens
        assert sum((each.columns["c"] for each in cut), ()) == tokens
        assert max(map(len, cut)) <= 8
        if scheme is not Scheme.IOB1:  # where a piece cannot begin with the B- that separates two neighbours
            assert sum((each.labels or () for each in cut), ()) == tuple(labels)
        if scheme is not Scheme.PLAIN:
            found, start = [], 0
            for each in cut:
                allowed = encode(spans(each.labels or (), scheme), len(each), scheme)
                assert allowed == list(each.labels or ())
                found += [Span(start + a, start + b, kind) for a, b, kind in spans(each.labels or (), scheme)]
                start += len(each)
            assert found == entities

    def test_an_entity_without_end(self):
        labels = ("B-X", *["I-X"] * 5000)
        sentence = Document(("a",) * 5001, labels=labels, scheme=Scheme.IOB2)
        with pytest.raises(CorpusError, match="an entity of more than 512 tokens"):
            pieces.in_pieces([sentence], Scheme.IOB2)
        (whole,) = pieces.in_pieces([Document(("a",) * 900, labels=labels[:900], scheme=Scheme.IOB2)], Scheme.IOB2)
        assert len(whole) == 900, "shorter ones are learnt as they are"

    def test_a_long_training_sentence(self, tiny_config, tiny_yaml):
        path = tiny_yaml.parent / "train.txt"
        rows = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
        path.write_text("\n".join(rows * 20) + "\n", encoding="utf-8")
        prepared = prepare(tiny_config())
        assert len(prepared.corpus.train) == 1 and prepared.encoded.lengths.max() <= 512
        assert prepared.encoded.lengths.sum() == prepared.corpus.train.token_count

    @pytest.mark.parametrize(
        "problem",
        [MemoryError(), MemoryError("no"), RuntimeError("DefaultCPUAllocator: can't allocate memory: x")],
    )
    def test_memory_that_ends(self, problem, monkeypatch):
        def fail() -> None:
            raise problem

        monkeypatch.setattr("nertool.formats.registry.formats", fail)
        result = invoke("formats")
        assert result.exit_code == 1 and result.stderr.startswith("error: there is not enough memory")
        assert door._explain(RuntimeError("anything else")) is None

    @pytest.mark.parametrize(
        ("module", "source"),
        [("pyarrow.parquet", "'nertool[datasets]'"), ("uvloop", "'nertool[serve]'"), ("spacy", "spacy")],
    )
    def test_a_missing_package_is_named_with_the_extra_that_has_it(self, module: str, source: str):
        problem = ModuleNotFoundError(f"No module named {module!r}", name=module)
        assert str(door._explain(problem)).endswith(f"try: pip install {source}")

    def test_sizes_beyond_the_machine(self, tiny_config):
        with pytest.raises(ConfigError, match="a network of these sizes cannot be built"):
            prepare(tiny_config("model.encoder.hidden=65536"))

    def test_a_vocabulary_that_is_too_large(self, model, monkeypatch):
        loaded = load_bundle(model)
        with (model / VOCABULARY).open("r+b") as file:
            file.truncate(20 * 2**30)  # sparse: it takes no space
        with pytest.raises(BundleError, match="too large for a vocabulary"):
            load_bundle(model)
        with pytest.raises(BundleError, match="too large for a vocabulary"):
            bundle.fingerprint(model)
        monkeypatch.setattr("nertool.tagging.vocabulary.LARGEST_VOCABULARY", 100)
        with pytest.raises(BundleError, match=r"too large to be saved: .*extra_rows"):
            save_bundle(loaded, model)

    def test_results_that_are_too_large(self, model):
        with (model / "results.json").open("r+b") as file:
            file.truncate(20 * 2**30)
        with pytest.raises(BundleError, match=r"results\.json: corrupt .*larger than 64 MB"):
            show_model(model, new_console(io.StringIO()))
        with pytest.raises(BundleError, match=r"not a regular file"):
            bundle.training_digest(Path(os.devnull))

    def test_a_word_without_end_in_binary_vectors(self, tmp_path):
        path = tmp_path / "v.bin"
        path.write_bytes(b"5 3\n" + b"\0" * 100_000)
        with pytest.raises(CorpusError, match="the word of row 1 is longer than"):
            read_vectors(path)


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("training.epochs=" + "9" * 5000, "a number of more than 50 characters"),
            ("training.epochs=0x" + "f" * 5000, "a number of more than 50 characters"),
            ("training.epochs=1" + ":59" * 10_000, "a number of more than 50 characters"),
            ("training.learning_rate=1" + ":59" * 10_000 + ".0", "a number of more than 50 characters"),
            ("training.learning_rate=1.0e+999", "should be a finite number"),
            ("training.threads=100000", "threads: input should be less than or equal to 1024, found 100000"),
            ("training.epochs=100001", "epochs: input should be less than or equal to 100000"),
            ("training.batch_size=100001", "batch_size: input should be less than or equal to 100000"),
            ("model.encoder.hidden=65537", "hidden: input should be less than or equal to 65536"),
            ("inputs.words.dimensions=65537", "dimensions: input should be less than or equal to 65536"),
            ("inputs.words.extra_rows=10000001", "extra_rows: input should be less than or equal to 10000000"),
            ("x=" + "[" * 30_000, "not valid YAML"),
            ("corpus.strip='" + "(" * 5000 + ")" * 5000 + "'", "10,000 characters; at most 500"),
            ("corpus.strip='" + "(" * 240 + ")" * 240 + "'", None),
            ("corpus.strip='(a{1000}){1000}'", "repeats too much"),
            ("corpus.strip='a{99999999999999999999}'", "repeats too much"),
            ("corpus.strip='['", "not a regular expression"),
            (r"corpus.strip='[^\w\s]+$'", None),
        ],
    )
    def test_numbers_and_patterns(self, setting, message):
        path = find_config("demo.yaml")
        if message is None:
            load_config(path, [setting])
            return
        with pytest.raises(ConfigError, match=re.escape(message)) as problem:
            load_config(path, [setting])
        assert len(str(problem.value)) < 600

    def test_many_inputs(self):
        entries = ", ".join(f"c{n}: {{kind: case}}" for n in range(120))
        with pytest.raises(ConfigError, match="at most 100"):
            load_config(find_config("demo.yaml"), [f"inputs={{{entries}}}"])

    @pytest.mark.parametrize(
        "pattern", [r"^\W+|\W+$", r"\d{4}-(\d\d)", "(?i)ß", r"(?<=a)b", r"(.)\1", "[äöü]+", "a|b*"]
    )
    @given(token=st.text(st.sampled_from("abzAZß0159 .,;-–_äöüßÄéñпрЯ北京\u00a0'\"!?()")))
    def test_ordinary_patterns_are_those_of_re(self, pattern, token):
        assert patterns.Remover(pattern)(token) == re.sub(pattern, "", token)

    def test_a_pattern_that_runs_for_ever(self, monkeypatch, tmp_path):
        monkeypatch.setattr(patterns, "SECONDS", 0.1)
        path = tmp_path / "a.txt"
        path.write_text("a O\n" + "a" * 200 + "! O\n", encoding="utf-8")
        with pytest.raises(CorpusError, match=r"strip: .*\(a\|aa\)\+\$.* takes too long"):
            list(find_format("conll").read(path, ReadOptions(strip="(a|aa)+$"), Report()))


HALVES = {
    "text": {"text": "Ada \ud800 left", "entities": []},
    "tokens": {"text": "A\ud800 left", "tokens": ["A\ud800", "left"], "entities": []},
    "entity": {"text": "A\ud800 left", "entities": [{"start": 0, "end": 2, "label": "PER", "text": "A\ud800"}]},
    "label": {"text": "Ada left", "entities": [{"start": 0, "end": 3, "label": "P\ud800"}]},
    "column": {
        "text": "Ada left",
        "tokens": ["Ada", "left"],
        "entities": [],
        "columns": {"p\ud800": ["a", "b\ud800"]},
    },
    "document": {"text": "Ada left", "entities": [{"start": 0, "end": 3, "label": "PER"}], "document": "d\ud800"},
    "key": {"text": "Ada left", "entities": [], "k\ud800": 1},
}


class TestHalfCharacters:
    @pytest.mark.parametrize("case", HALVES)
    @pytest.mark.parametrize("target", [name for name, each in formats().items() if each.writable])
    def test_into_any_format(self, case, target, tmp_path):
        path = tmp_path / "in.jsonl"
        path.write_text(json.dumps(HALVES[case]) + "\n", encoding="utf-8")
        result = invoke("convert", path, tmp_path / "out", "--to", target, "--allow-empty")
        assert result.exception is None or type(result.exception) is SystemExit
        assert result.exit_code == 0 or result.stderr.startswith("error: ")
        if result.exit_code and "cannot be written" in result.stderr:
            assert f"{path}, row 1" in result.stderr or str(tmp_path / "out") in result.stderr

    @pytest.mark.parametrize("case", HALVES)
    def test_through_a_model(self, case, tmp_path, trained_run):
        path = tmp_path / "in.jsonl"
        path.write_text(json.dumps(HALVES[case]) + "\n", encoding="utf-8")
        for command in (
            *(("tag", path, "--to", form) for form in ("text", "html", "conll", "jsonl", "tokens")),
            ("evaluate", path),
            ("errors", path),
        ):
            result = invoke(*command, "--model", trained_run)
            assert result.exception is None or type(result.exception) is SystemExit, command
            assert result.exit_code == 0 or result.stderr.startswith("error: ")

    @pytest.mark.parametrize("score", ["NaN", "Infinity", "1" + "0" * 400, "true"])
    def test_scores_that_are_no_numbers(self, score, tmp_path):
        path = tmp_path / "in.jsonl"
        line = '{"text": "Ada left", "entities": [{"start": 0, "end": 3, "label": "PER", "score": X}]}'
        path.write_text(line.replace("X", score), encoding="utf-8")
        with pytest.raises(CorpusError, match=r"line 1: entities: .* a score that is a finite number"):
            list(find_format("jsonl").read(path, ReadOptions(), Report()))


def make_useless(tensors: dict[str, torch.Tensor]) -> None:
    """Give weights finite values whose products are not."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if name != "decoder.temperature":
            tensor.copy_(3e38 * (torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1))


class TestNaN:
    def test_a_useless_model_is_refused(self, model):
        change_weights(model, make_useless)
        with pytest.raises(BundleError, match="computes scores that are not finite numbers"):
            load_bundle(model)
        result = invoke("info", model)
        assert result.exit_code == 1 and "Traceback" not in result.stderr

    @pytest.mark.parametrize("size", [1e30, 3e38])
    @pytest.mark.parametrize("name", ["scores.weight", "scores.bias", "decoder.crf.transitions"])
    def test_extreme_weights_are_refused(self, model, name, size):
        change_weights(model, lambda tensors: tensors[name].copy_(torch.full_like(tensors[name], size)))
        try:
            loaded = load_bundle(model)
        except BundleError as problem:
            assert "not finite" in str(problem)
            return
        result = [
            each.to_json() for each in Tagger(loaded, marginals=True, n_best=3).tag_tokens([["Ada", "left"]])
        ]
        json.dumps(result, allow_nan=False)

    def test_extreme_weights_of_a_word_that_the_trial_does_not_have(self, model):
        row = load_bundle(model).inputs["words"].rows["Babbage"]  # type: ignore[attr-defined]

        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors["inputs.words.weight"][row] = 3e38

        change_weights(model, change)
        tagger = Tagger.load(model)
        list(tagger.tag_tokens([["Nobody", "came"]]))
        try:
            found = list(tagger.tag_tokens([["Babbage", "came"]]))
        except NertoolError as problem:
            assert "not finite" in str(problem)
        else:
            json.dumps([each.to_json() for each in found], allow_nan=False)

    @pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-3, 1e3, 1e30, -1.0])
    def test_temperatures_that_no_calibration_finds(self, model, temperature):
        change_weights(model, lambda tensors: tensors["decoder.temperature"].fill_(temperature))
        with pytest.raises(BundleError, match=r"decoder\.temperature: .*, expected 0\.01 to 100"):
            load_bundle(model)

    def test_models_of_further_columns_are_tried_out_too(self, tiny_config, tiny_yaml, tmp_path):
        path = tiny_yaml.parent / "train.txt"
        path.write_text(
            "".join(
                f"{line.split()[0]} X {line.split()[1]}\n" if line.strip() else "\n"
                for line in path.read_text(encoding="utf-8").split("\n")
            ),
            encoding="utf-8",
        )
        settings = ["corpus.columns=[token, pos, label]", "inputs.pos={kind: column, column: pos}"]
        settings += ["corpus.validation=train.txt", "corpus.test=null"]
        model = prepare(locate_files(load_config(tiny_yaml, settings), tiny_yaml)).model
        save_bundle(model, tmp_path / "model")
        load_bundle(tmp_path / "model")
        change_weights(tmp_path / "model", make_useless)
        with pytest.raises(BundleError, match="not finite"):
            load_bundle(tmp_path / "model")


@needs_bash
class TestOutput:
    @pytest.mark.parametrize("command", ["--help", "tag text.txt --model {model} --to jsonl"])
    @pytest.mark.parametrize("target", ["> /dev/full", ">&-"])
    def test_that_cannot_be_written(self, command, target, tmp_path, trained_run):
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full")
        (tmp_path / "text.txt").write_text("Ada lives in London .\n", encoding="utf-8")
        done = nertool(f"NERTOOL {command.format(model=trained_run)} {target}", tmp_path)
        reason = "No space left on device" if "full" in target else "it is closed"
        assert (done.returncode, done.stderr) == (1, f"error: standard output cannot be written to: {reason}\n")

    @pytest.mark.slow
    def test_a_file_does_not_need_standard_output(self, tmp_path, trained_run):
        done = nertool(f"echo Oslo | NERTOOL tag - --model {trained_run} --output out.txt >&- 2>&-", tmp_path)
        assert done.returncode == 0 and "Oslo" in (tmp_path / "out.txt").read_text(encoding="utf-8")

    def test_standard_error_that_cannot_be_written(self, tmp_path):
        assert nertool("NERTOOL info none 2> /dev/full", tmp_path).returncode == 1
        assert nertool("NERTOOL info none 2>&-", tmp_path).returncode == 1

    def test_a_reader_that_has_seen_enough(self, tmp_path, trained_run):
        (tmp_path / "text.txt").write_text("Ada lives in London .\n" * 20_000, encoding="utf-8")
        done = nertool(f"NERTOOL tag text.txt --model {trained_run} --to conll | head -1", tmp_path)
        assert done.stdout.startswith("Ada ") and done.stdout.count("\n") == 1 and done.stderr == ""

    @pytest.mark.skipif(not Path("/dev/fd").exists(), reason="there is no /dev/fd")
    def test_pipes_are_read(self, tmp_path, trained_run, monkeypatch):
        """What a shell makes of <(zcat corpus.gz)."""
        monkeypatch.chdir(tmp_path)  # runs/latest is made there
        corpus = trained_run.parent / "corpus"
        ends: list[int] = []

        def pipe(content: bytes) -> str:
            end, start = os.pipe()
            ends.append(end)
            os.write(start, content)
            os.close(start)
            return f"/dev/fd/{end}"

        train, test = (corpus / "train.txt").read_bytes(), (corpus / "test.txt").read_bytes()
        vectors = b"2 2\n" + b"".join(word + b" " + struct.pack("<2f", 1, 2) for word in (b"Ada", b"left"))
        docbin, settings = tmp_path / "a.spacy", ("--set", "training.epochs=1", "--output", tmp_path / "run")
        model = ("--model", trained_run)
        for command, wanted in [
            (("evaluate", pipe(gzip.compress(test)), *model), "tokens/s"),
            (("errors", pipe(test), *model), "with a mistake"),
            (("check", pipe(test)), "tokens"),
            (("convert", pipe(test), docbin), "written"),
            (("tag", pipe(b"Oslo"), *model), "Oslo"),
            (
                ("train", corpus / "tiny.yaml", "--set", f"corpus.train={pipe(train)}", *settings),
                "The model is in",
            ),
            (
                ("train", corpus / "tiny.yaml", "--set", f"inputs.words.vectors={pipe(vectors)}", *settings),
                "model",
            ),
        ]:
            result = invoke(*command)
            assert result.exit_code == 0 and wanted in result.stdout, (command, result.stderr)
        result = invoke("convert", pipe(docbin.read_bytes()), tmp_path / "b.txt", "--from", "spacy")
        assert result.exit_code == 0, result.stderr
        result = invoke("compare", corpus / "tiny.yaml", "--set", f"corpus.train={pipe(train)}")
        assert result.exit_code == 1 and "can be read only once" in result.stderr
        for end in ends:
            os.close(end)

    def test_what_is_a_file(self, tmp_path):
        assert is_file(Path(__file__)) and not is_file(tmp_path) and not is_file(tmp_path / "none")
        assert not is_file(Path("a" * 5000)) and not is_file(Path("a\0b"))
        assert is_file(Path(os.devnull))
