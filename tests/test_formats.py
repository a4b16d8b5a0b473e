"""The registry: the format of a file, files of other tools, labels that only look like plain tags, plugins."""

from __future__ import annotations

import csv
import gzip
import io
import os
import threading
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from nertool.cli.data import check, convert, list_formats
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_corpus, read_split
from nertool.errors import ConfigError, CorpusError
from nertool.formats import registry
from nertool.formats.registry import (
    ReadOptions,
    Report,
    WriteOptions,
    detect_format,
    find_format,
    format_for_writing,
    formats,
)
from nertool.text.document import Document
from nertool.text.schemes import Scheme

COLUMNS = "Ada B-PER\nleft O\n\nOslo B-LOC\n"
JSONL = '{"text": "Ada left.", "entities": [{"start": 0, "end": 3, "label": "PER"}]}\n'


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("train.txt", COLUMNS)
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", COLUMNS, "conll"),
        ("a.whatever", COLUMNS, "conll"),
        ("a", COLUMNS, "conll"),
        ("a.txt", "", "conll"),
        ("a.txt.gz", gzip.compress(COLUMNS.encode(), mtime=0), "conll"),
        ("a.tsv", "Ada\tB-PER\n", "conll"),
        ("a.txt", "[ O\n{ O\n", "conll"),
        ("a.txt", "<s> O\n< O\n", "conll"),
        ("a.txt", "1,000 O\n2,000 O\n", "conll"),
        ("a.txt", "M/F O\nand/or O\n", "conll"),
        ("a.txt", "caf\xe9 O\n".encode("latin-1"), "conll"),
        ("a.jsonl", JSONL, "jsonl"),
        ("a.txt", JSONL, "jsonl"),
        ("a.json", JSONL * 2, "jsonl"),
        ("a.json", '[{"text": "Ada"}]', "jsonl"),
        ("a.json", '{\n  "text": "Ada"\n}\n', "jsonl"),
        ("a.jsonl", "", "jsonl"),
        ("a.jsonl.gz", gzip.compress(JSONL.encode(), mtime=0), "jsonl"),
        ("a.txt", "\ufeff" + JSONL, "jsonl"),
        ("a.json", '[{"annotations": [{"result": []}], "data": {"text": "Ada"}}]', "labelstudio"),
        ("a.json", '[{"id": 0, "paragraphs": [{"sentences": []}]}]', "spacy-json"),
        ("a.jsonl", '{"text": "Ada", "label": [[0, 3, "PER"]]}\n', "doccano"),
        ("a.jsonl", '{"text": "Ada", "spans": []}\n', "prodigy"),
        ("a.csv", "Sentence #,Word,POS,Tag\nSentence: 1,Ada,NNP,B-per\n", "csv"),
        ("a.txt", "token;label\nAda;B-PER\n", "csv"),
        ("a.tsv", "token\tlabel\nAda\tB-PER\n", "csv"),
        ("a.csv", "a,b\n", "csv"),
        ("a.tsv", "1\tCD\tB-NP\tO\nover\tIN\tO\tO\n", "conll"),
        ("a.conllu", "", "conllu"),
        ("a.txt", "# text = Ada\n1\tAda" + "\t_" * 8 + "\n", "conllu"),
        ("a.conll", "1\tAda" + "\t_" * 8 + "\n2\tleft" + "\t_" * 8 + "\n", "conllu"),
        ("a.conll", "1\tAda" + "\t_" * 8 + "\nover\tleft" + "\t_" * 8 + "\n", "conll"),
        ("a.txt", "#begin document (bc/x); part 000\n", "conll2012"),
        ("a.tsv", "#FORMAT=WebAnno TSV 3.3\n", "webanno"),
        ("a.tsv", "TOKEN\tNE-COARSE-LIT\tMISC\n", "hipe"),
        ("a.tsv", "#\tx [2005-02-26] \n1\tAda\tB-PER\tO\n", "germeval"),
        ("a.iob2", "# sent_id = 1\n# text = Ada\n1\tAda\tB-PER\t-\t-\n", "uner"),
        ("a.txt", b"PAR1....", "parquet"),
        ("a.txt", b"ARROW1..", "arrow"),
        ("a.spacy", b"x\x9c\xff\xff", "spacy"),
    ],
)
def test_name_and_content_decide(tmp_path, name, content, expected):
    assert detect_format(put(tmp_path, name, content)).name == expected


def table(separator: str, label: str = "Tag") -> str:
    target = io.StringIO()
    rows = [
        ["Sentence #", "Word", "POS", label],
        ["Sentence: 1", "Mina, the", "NNP", "B-per"],
        ["", "left", "V", "O"],
    ]
    csv.writer(target, delimiter=separator).writerows(rows)
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", zipped(), "a zip archive .*xlsx.* unpack it"),
        ("a.txt", zipped(), "a zip archive"),
        ("a.txt", b"%PDF-1.7 ...", "a PDF"),
        ("a.txt", b"SQLite format 3\0...", "an SQLite database"),
        ("a.txt", b"BZh91AY&SY", "compressed with bzip2"),
        ("a.txt", COLUMNS.encode("utf-16"), "UTF-16: convert it with `iconv"),
        ("a.txt", b"Ada\0 O\n", "binary data"),
        ("a.txt", "Ada B-PER\rleft O\r", "line ends of old Macs"),
        ("a.csv", "token,label\rAda,B-PER\r", "line ends of old Macs"),
        ("a.conllu", "1\tAda" + "\t_" * 8 + "\r2\tx" + "\t_" * 8 + "\r", "line ends of old Macs"),
        ("a.xml", '<?xml version="1.0"?>\n<corpus/>\n', "XML"),
        ("a.txt", "<corpus>\n<s>Ada</s>\n</corpus>\n", "XML"),
        ("a.txt", "He met <PER>Ada</PER> there .\n", "<TYPE>tags</TYPE>"),
        ("a.txt", "He met <START:person> Ada <END> there .\n", "OpenNLP"),
        ("a.txt", "{\\rtf1\\ansi Ada}", "rich text"),
        ("a.txt", table(",", "Kind"), "comma-separated values without a column .* corpus.columns"),
        ("a.txt", table(";", "Kind"), "semicolon-separated values without"),
        ("a.txt", COLUMNS.encode("utf-16-le"), "UTF-16: convert it with `iconv -f utf-16le"),
        ("a.jsonl", '[{"texts": "Ada"}]', "JSON, but of no annotation tool that nertool knows: write"),
        ("a.json", '{\n  "data": [1]\n}\n', "JSON, but of no annotation tool"),
        ("a.json", '[{"text": "Ada", "denotations": []}]', "PubAnnotation's JSON"),
        ("a.txt", "T1\tPER 0 4\tMina\n", "annotations of brat .* name the folder"),
        ("a.txt", "Mina,B-PER\nleft,O\n", "delimited text without a header: put one before it"),
        ("a.txt", "Mina/B-PER left/O Oslo/B-LOC\n", "a label behind each token"),
        ("a.tsv", "Mina left Oslo\tB-PER O B-LOC\n", "its labels behind a tab"),
        ("a.txt", "She came.\nHe left the town the day after.\nThen it rained and rained.\n", "running text"),
    ],
)
def test_files_of_other_tools_are_refused_by_name(tmp_path, name, content, message):
    path = put(tmp_path, name, content)
    with pytest.raises(CorpusError, match=f"looks like .*{message}") as caught:
        detect_format(path)
    assert "`nertool formats`" in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "Ada left.", "mentions": [{"start": 0, "end": 3, "label": "PER"}]}',
        '{"text": "Ada left.", "ner": [{"start": 0, "end": 3, "label": "PER"}]}',
        '{"content": "Ada left.", "annotation": [{"label": ["PER"], "points": [{"start": 0, "end": 2}]}]}',
    ],
)
def test_json_lines_with_entities_under_other_keys_are_not_read_without_them(tmp_path, line):
    for name in ("a.jsonl", "a.txt"):
        with pytest.raises(CorpusError, match=r"line 1: .*entities are expected under"):
            read_split(put(tmp_path, name, line + "\n"), CorpusConfig(train="unused"))


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ("B_PER I_PER O LOC O O", "no hyphen separates"),
        ("*[1] PER[1] _ _ LOC[2] _", "number in brackets"),
        ("name=B-PER name=I-PER name=O SpaceAfter=No|name=B-LOC name=O name=O", "name=B-PER"),
        ("PER _ _ _ LOC _", "types without a prefix"),
        ("_ _ _ _ _ _", "nothing but '_'"),
    ],
)
def test_labels_that_only_look_like_plain_tags_are_refused(tmp_path, labels, what):
    path = put(tmp_path, "a.txt", "".join(f"w {label}\n" for label in labels.split()))
    with pytest.raises(CorpusError, match=r"line \d: .*set corpus\.scheme=plain") as caught:
        read_split(path, CorpusConfig(train="unused"))
    assert what in str(caught.value)
    assert read_split(path, CorpusConfig(train="unused", scheme="plain")).scheme is Scheme.PLAIN


@pytest.mark.parametrize("labels", ["NN VB NN DT", "NOUN VERB X O", "( ) , NN", "^ N V S O D", "1 2 3 5"])
def test_plain_tags_are_read(tmp_path, labels):
    path = put(tmp_path, "a.txt", "".join(f"w {label}\n" for label in labels.split()))
    assert read_split(path, CorpusConfig(train="unused")).scheme is Scheme.PLAIN


def test_what_is_written_is_named(tmp_path):
    names = {"a.txt": "conll", "a.jsonl": "jsonl", "a.spacy": "spacy", "a.parquet": "parquet", "folder": "brat"}
    assert {name: format_for_writing(tmp_path / name).name for name in names} == names
    assert format_for_writing(Path(os.devnull)).name == "conll"
    with pytest.raises(CorpusError, match=r"JSON, which several formats are: name one of them .* --to"):
        format_for_writing(tmp_path / "a.json")
    assert format_for_writing(tmp_path / "a.csv").name == "csv"
    with pytest.raises(CorpusError, match="is conll2012, which is read and not written"):
        format_for_writing(tmp_path / "a.gold_conll")
    for name in ("a.xml", "a.xlsx"):
        with pytest.raises(CorpusError, match="not a format of nertool"):
            format_for_writing(tmp_path / name)
    with pytest.raises(CorpusError, match=r"leave \.gz out"):
        format_for_writing(tmp_path / "a.txt.gz")
    with pytest.raises(CorpusError, match="there is no format 'xml'; the formats are: conll, "):
        find_format("xml")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(CorpusError, match="no such file"):
        detect_format(tmp_path / "absent.txt")
    with pytest.raises(CorpusError, match=str(tmp_path)):
        read_split(tmp_path, CorpusConfig(train="unused"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    writer = threading.Thread(target=(tmp_path / "pipe.txt").write_text, args=(COLUMNS,))
    writer.start()
    assert len(read_split(tmp_path / "pipe.txt", CorpusConfig(train="unused"))) == 2
    writer.join()


def test_every_format_keeps_its_contract():
    known = formats()
    assert list(known) == [each.name for each in known.values()]
    for each in known.values():
        assert each.description and "\n" not in each.description
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in each.suffixes)
        assert each.readable or each.writable
        assert find_format(each.name) is each
    suffixes = [suffix for each in known.values() for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)


class TestPlain:
    unlabelled = ReadOptions(labelled=False)

    def test_text(self, tmp_path):
        path = put(tmp_path, "a.txt", "Ada left. She came back.\n\nOslo\n")
        documents = list(find_format("text").read(path, self.unlabelled, Report()))
        assert [document.text for document in documents] == ["Ada left. She came back.", "", "Oslo"]
        assert [len(document.sentence_starts) for document in documents] == [2, 0, 1]
        assert documents[2].origin.place(0) == "row 3"

    def test_tokens(self, tmp_path):
        path = put(tmp_path, "a.txt", "Ada  left\t.\n\nOslo\u00a0! \n")
        tokens = find_format("tokens")
        documents = list(tokens.read(path, self.unlabelled, Report()))
        assert [document.tokens for document in documents] == [("Ada", "left", "."), (), ("Oslo\u00a0!",)]
        target = io.StringIO()
        tokens.write_stream(target, documents, WriteOptions())
        assert target.getvalue() == "Ada left .\n\nOslo\u00a0!\n"
        with pytest.raises(CorpusError, match="'New York' cannot be written"):
            tokens.write_stream(target, [Document(("New York",))], WriteOptions())
        report = Report()
        tokens.write(
            tmp_path / "b.txt", [Document(("a",), labels=("B-X",), scheme=Scheme.IOB2)], WriteOptions(), report
        )
        assert "cannot hold labels" in report.notes[0]

    def test_labels_are_not_there(self, tmp_path):
        for name in ("text", "tokens"):
            with pytest.raises(CorpusError, match=f"the format {name} has no labels"):
                read_split(put(tmp_path, "a.txt", "Ada left\n"), CorpusConfig(train="unused", format=name))


class TestSplits:
    def documents(self, tmp_path, count=5):
        text = "".join(f"-DOCSTART- O\n\na{n} B-X\n\nb{n} O\n\n" for n in range(count))
        return put(tmp_path, "train.txt", text)

    def test_what_is_held_out_are_whole_documents(self, tmp_path):
        corpus = read_corpus(CorpusConfig(train=str(self.documents(tmp_path)), held_out=0.3))
        assert [document.id for document in corpus.train.documents] == ["1", "2", "3"]
        assert [document.id for document in corpus.validation.documents] == ["4", "5"]
        assert corpus.train.label_scheme is corpus.validation.label_scheme is Scheme.IOBES

    def test_sentences_of_no_document_are_cut_anywhere(self, tmp_path):
        path = put(tmp_path, "train.txt", "".join(f"a{n} B-X\n\n" for n in range(10)))
        corpus = read_corpus(CorpusConfig(train=str(path), held_out=0.2))
        assert (len(corpus.train), len(corpus.validation)) == (8, 2)
        assert corpus.validation.place(0) == "line 17"

    def test_a_document_cannot_be_cut(self, tmp_path):
        with pytest.raises(CorpusError, match=r"2 sentences are too few to hold out 0\.1"):
            read_corpus(CorpusConfig(train=str(put(tmp_path, "train.txt", "a B-X\n\nb O\n"))))

    def test_json_lines_are_a_corpus(self, tmp_path):
        path = put(tmp_path, "train.jsonl", JSONL * 3)
        split = read_split(path, CorpusConfig(train="unused"), Scheme.IOBES)
        assert split.labels[0] == ["S-PER", "O", "O"] and split.document_count == 3 and split.unit == "row"

    def test_what_does_not_fit_is_noted(self, tmp_path):
        wrong = '{"text": "Ada left.", "entities": [{"start": 0, "end": 2, "label": "PER"}]}\n'
        split = read_split(put(tmp_path, "a.jsonl", JSONL + wrong), CorpusConfig(train="unused"), partial=True)
        assert split.notes()[0].startswith(
            "1 entity does not fit the text or its tokens and was left out, such as"
        )

    def test_a_split_without_entities_is_noted(self, tmp_path):
        split = read_split(put(tmp_path, "a.txt", "a O\nb O\n"), CorpusConfig(train="unused"))
        assert split.notes() == ["no token is labelled as an entity"]


PLUGIN = """
from nertool.formats.registry import Format
from nertool.text.document import Document

class Upper(Format):
    name = "upper"
    description = "a token a line; those in capitals are names"
    suffixes = (".upper", ".names")
    holds = frozenset({"entities"})
    writable = False

    def sniff(self, head, path):
        return (head or "").startswith("%upper")

    def read(self, path, options, report):
        tokens = tuple(path.read_text().split()[1:])
        yield Document(tokens, labels=tuple("B-NAME" if token.isupper() else "O" for token in tokens))
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a package with one format."""

    def install(source: str = PLUGIN, entry: str = "upper = upper_format:Upper") -> None:
        folder = tmp_path / "site"
        information = folder / "upper_format-1.0.dist-info"
        information.mkdir(parents=True)
        (folder / "upper_format.py").write_text(source)
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: upper-format\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[nertool.formats]\n{entry}\n")
        monkeypatch.syspath_prepend(folder)
        registry._plugins.cache_clear()

    yield install
    import sys

    sys.modules.pop("upper_format", None)
    monkeypatch.undo()
    registry._plugins.cache_clear()


class TestPlugins:
    def test_a_format_of_another_package_is_read_by_every_command(self, plugin, tmp_path):
        plugin()
        path = put(tmp_path, "a.upper", "%upper\nADA\nleft\nOSLO\n")
        assert find_format("upper").description == formats()["upper"].description
        assert read_split(path, CorpusConfig(train="unused")).entity_counts() == {"NAME": 2}
        assert detect_format(put(tmp_path, "a.txt", "%upper\nADA\n")).name == "upper"  # by its content
        assert detect_format(put(tmp_path, "a.names", "ADA X\n")).name == "upper"  # by its name
        done = CliRunner().invoke(convert, [str(path), str(tmp_path / "out.txt")])
        assert done.exit_code == 0 and (tmp_path / "out.txt").read_text() == "ADA B-NAME\nleft O\nOSLO B-NAME\n\n"
        assert "upper" in CliRunner().invoke(list_formats).output
        with pytest.raises(CorpusError, match="by its name this is upper, which is read and not written"):
            format_for_writing(tmp_path / "b.names")

    @pytest.mark.parametrize(
        ("source", "entry", "message"),
        [
            (PLUGIN, "upper = upper_format:Absent", "'upper' of nertool.formats cannot be loaded"),
            ("class Upper: ...", "upper = upper_format:Upper", "is not a subclass of Format"),
            (
                PLUGIN.replace('"upper"', '"conll"'),
                "upper = upper_format:Upper",
                "there is a format 'conll' already",
            ),
        ],
    )
    def test_a_broken_one_is_named(self, plugin, source, entry, message):
        plugin(source, entry)
        with pytest.raises(ConfigError, match=message):
            formats()


class TestCommands:
    def test_formats(self):
        done = CliRunner().invoke(list_formats)
        assert done.exit_code == 0
        for name in formats():
            assert f"\n{name} " in "\n" + done.output

    def test_convert_and_check_name_what_they_cannot_read(self, tmp_path):
        path = put(tmp_path, "a.csv", table(",", "Kind"))
        for command, arguments in ((convert, [str(path), str(tmp_path / "out.txt")]), (check, [str(path)])):
            done = CliRunner().invoke(command, arguments)
            assert done.exit_code == 1 and "no column of labels; the columns, separated by commas" in done.output
        assert not (tmp_path / "out.txt").exists()

    def test_raw_text_is_tokenized(self, tmp_path):
        path = put(tmp_path, "a.txt", "Ada left. She came.\n")
        done = CliRunner().invoke(
            convert, [str(path), str(tmp_path / "out.txt"), "--from", "text", "--to", "tokens"]
        )
        assert done.exit_code == 0, done.output
        assert (tmp_path / "out.txt").read_text() == "Ada left .\nShe came .\n"

    def test_a_format_can_be_named(self, tmp_path):
        path = put(tmp_path, "a.csv", COLUMNS)
        assert CliRunner().invoke(check, [str(path)]).exit_code == 1
        assert CliRunner().invoke(check, [str(path), "--from", "conll"]).exit_code == 0
        assert CliRunner().invoke(check, [str(path), "--set", "corpus.format=conll"]).exit_code == 0
