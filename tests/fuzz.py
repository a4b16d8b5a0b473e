"""Feed corrupt files and odd text to everything that reads, and count how many were fed.

    python tests/fuzz.py --seconds 60

What is read is either refused with an error of nertool's own, or understood; anything else ends the run, and the
input is kept. `tests/test_fuzz.py` runs the same targets for a moment with hypothesis.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch

from nertool.comparison.results import RUN, read_run
from nertool.config.loading import load_config, parse_choices
from nertool.config.patterns import Remover, compile_pattern
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_split
from nertool.data.vectors import read_vectors
from nertool.errors import NertoolError
from nertool.formats.convert import convert_file
from nertool.formats.project import DATABASE
from nertool.formats.registry import (
    ReadOptions,
    Report,
    WriteOptions,
    check_raw_text,
    detect_format,
    find_format,
    formats,
    recognize,
)
from nertool.labelling.records import New
from nertool.labelling.store import Store
from nertool.model.inputs.gazetteer import read_phrases
from nertool.tagging.bundle import CONFIG, FILES, VOCABULARY, WEIGHTS, load_bundle
from nertool.tagging.tagger import Tagger
from nertool.tagging.tensorfile import DIGEST, digest, read_texts
from nertool.text.document import Document
from nertool.text.schemes import Scheme, Span
from nertool.text.tokenization import SpacyTokenizer
from nertool.training.checkpoint import CHECKPOINT, Checkpoint, identify
from nertool.training.preparation import prepare
from nertool.training.run import RESULTS
from nertool.training.step import Learner
from nertool.views.console import new_console
from nertool.views.model import show_model
from nertool.views.tagged import VIEWS

PARTS = [
    b"\n",
    b"\n\n",
    b" ",
    b"\t",
    b"\r",
    b"\0",
    b"\xff",
    b"\x1f\x8b",
    b"\xef\xbb\xbf",
    b"O",
    b"B-",
    b"I-PER",
    b"-1",
]
PARTS += [
    b"-DOCSTART- O\n",
    b"# newdoc\n",
    b"#",
    b"nan",
    b"1e999",
    b"9" * 30,
    b"9" * 5000,
    "é".encode(),
    "\u2028".encode(),
]
PARTS += [
    b"{",
    b"}",
    b"[" * 2000,
    b'"',
    b"\\ud800",
    b"null",
    b"*a",
    b"&a ",
    b"!!python/name:os.system ",
    b"<<: ",
    b": ",
]
PARTS += [
    b"2024-13-45",
    b"0x",
    b"1_0",
    b"~",
    b"- ",
    b"|",
    b"? ",
    b"%",
    b"NaN",
    b"true",
    b"\xf0\x9f\x8e\x88",
    b"T1\tPER 0 3",
]


class Edit(NamedTuple):
    """A change of bytes: at a position, from 0 to 1, `length` of them are replaced by others."""

    place: float
    length: int
    new: bytes


def edited(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Return the content after some changes."""
    for edit in edits:
        at = int(edit.place * (len(content) + 1))
        content = content[:at] + edit.new + content[at + edit.length :]
    return content


class Target(NamedTuple):
    """Something that reads.

    Attributes:
        seeds: Content that it understands.
        read: Given the content and a folder of its own.
    """

    seeds: list[bytes]
    read: Callable[[bytes, Path], object]


def project_database() -> bytes:
    """A project of `nertool label` with an answer in it, as its database."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder), {})
        sentence = New("Ada in Oslo", ((0, 3), (4, 6), (7, 11)), True, "", {}, ((0, 1, "PER"), (2, 3, "LOC")))
        store.take([("a.txt", None, 0, [sentence])], test_share=0.0, seed=1, gold=True, source="ada")
        store.close()
        return (Path(folder) / DATABASE).read_bytes()


def targets(run: Path) -> dict[str, Target]:
    """Return all readers by name.

    Args:
        run: A model; it is not changed.
    """
    lines = b"-DOCSTART- O\n\nAda B-PER\nByron I-PER\nin O\nOslo B-LOC\n. O\n\nRain O\nfell ?\n"
    vectors = b"the 0.1 -2 3e-5\nof 1 2 3\nNew York 1 1 1\n"
    rows = b"".join(word + b" " + struct.pack("<3f", 1, 2, 3) + b"\n" for word in (b"a", "é".encode()))
    model = {name: (run / name).read_bytes() for name in FILES}
    tagger = Tagger.load(run)
    options = ReadOptions(tokenizer=SpacyTokenizer("xx"))
    entity, columns = [Span(0, 2, "PER")], {"pos": ("A", "B", "C", "D")}
    document = Document.from_spans(
        ["Ada", "Byron", "in", "Oslo"], entity, unknown=[3], scores=[0.9], columns=columns
    )
    tables: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in ("parquet", "arrow", "spacy"):
            path = Path(name, f"a.{kind}")
            find_format(kind).write(path, [document, document], WriteOptions(), Report())
            tables[kind] = path.read_bytes()

    def file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
        def run_it(content: bytes, folder: Path) -> object:
            (folder / name).write_bytes(content)
            return read(folder / name)

        return run_it

    def split(path: Path, reader: str | None = None) -> None:
        for settings in ({"columns": ("token", "label")}, {"stray": "refuse", "format": reader}):
            for target in (None, Scheme.IOBES):
                with suppress(NertoolError):
                    read_split(path, CorpusConfig(train="x", **settings), target, partial=target is None)
        read_split(path, CorpusConfig(train="x", format=reader), partial=True)

    def tokens(path: Path) -> None:
        for kind in ("conll", "tokens", "text"):
            with suppress(NertoolError):
                list(find_format(kind).read(path, replace(options, labelled=False), Report()))
        split(path)

    def config(path: Path) -> None:
        text = path.read_bytes().decode(errors="replace")
        for read in (lambda: parse_choices(text), lambda: load_config(path, [text])):
            with suppress(NertoolError):
                read()
        load_config(path)

    def bundle(changed: str) -> Callable[[bytes, Path], object]:
        def read(content: bytes, folder: Path) -> object:
            for name in FILES:
                (folder / name).write_bytes(content if name == changed else model[name])
            return load_bundle(folder)

        return read

    def text(content: bytes, _: Path) -> None:
        given = content.decode("utf-8", "surrogatepass") if is_utf8(content) else content.decode("latin-1")
        found = tagger.tag(given)
        assert found.text == given
        assert tuple(given[a:b] for a, b in found.offsets) == found.tokens
        assert "".join("".join(found.tokens).split()) == "".join(given.split())
        assert all(given[each.start : each.end] == each.text and 0 <= each.score <= 1 for each in found.entities)
        json.dumps(found.to_json())

    def to_tables(content: bytes, folder: Path) -> object:
        (folder / "a.jsonl").write_bytes(content)
        return convert_file(folder / "a.jsonl", folder / "b.parquet", options)

    known = formats()
    readers = [name for name, each in known.items() if each.readable]
    writers = [name for name, each in known.items() if each.writable]

    def beside(content: bytes, folder: Path, name: str) -> Path:
        """Write content where a format expects it, with the text that brat has beside it."""
        path = folder / f"a{known[name].suffixes[0] if known[name].suffixes else '.txt'}"
        if name == "project":
            path = folder / DATABASE
        path.write_bytes(content)
        if name == "brat":
            path.with_suffix(".txt").write_text("Ada Byron in Oslo é\nRain .\n", encoding="utf-8")
        return path

    def each_way(name: str) -> Callable[[bytes, Path], object]:
        """Read content as one format whatever it looks like, and as what it looks like."""

        def read(content: bytes, folder: Path) -> object:
            path, own = beside(content, folder, name), known[name]
            with suppress(NertoolError):
                list(own.read(path, replace(options, snap=True), Report()))
            if not own.holds & {"entities", "tags"}:
                return list(own.read(path, replace(options, labelled=False), Report()))
            with suppress(NertoolError):
                convert_file(path, folder / "b.jsonl", options)
            writer = name if own.writable else "jsonl"
            return convert_file(path, folder / "b", options, reader=name, writer=writer, allow_empty=True)

        return read

    def across(content: bytes, folder: Path) -> object:
        """Read any content as what it looks like or as any format, and write it as any other."""
        path, source, choice = guessed(content, folder)
        target = writers[choice % len(writers)]
        return convert_file(path, folder / "b", options, reader=source, writer=target, allow_empty=True)

    def guessed(content: bytes, folder: Path) -> tuple[Path, str, int]:
        choice, half = divmod(zlib.crc32(content), 2)
        choice, source = divmod(choice, len(readers))
        path = beside(content, folder, readers[source])
        for look in (recognize, check_raw_text):
            with suppress(NertoolError):
                look(path)
        return path, detect_format(path).name if half else readers[source], choice

    def tagged(content: bytes, folder: Path) -> None:
        """Tag what is read, and show it."""
        path, source, _ = guessed(content, folder)
        found = list(tagger.tag_documents(known[source].read(path, replace(options, labelled=False), Report())))
        for view in VIEWS.values():
            with suppress(UnicodeEncodeError):  # which `nertool tag` expects
                view(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), found, "en")
        json.dumps([each.to_json() for each in found], allow_nan=False)

    def forged(content: bytes, folder: Path) -> object:
        """Load weights that somebody changed who also computed a new digest, and tag with them."""
        tensors = safetensors.torch.load(model[WEIGHTS])
        texts = read_texts(run / WEIGHTS, 10**6)
        values = torch.frombuffer(bytearray(content[: len(content) // 4 * 4] or bytes(4)), dtype=torch.float32)
        for number, tensor in enumerate(tensors.values()):
            flat = tensor.view(-1)
            if (zlib.crc32(content) >> number) & 1 and tensor.numel() > 1:
                flat.copy_(values.repeat(len(flat) // len(values) + 1)[: len(flat)])
        texts[DIGEST] = digest(tensors, texts)
        for name in FILES:
            (folder / name).write_bytes(model[name])
        safetensors.torch.save_file(tensors, folder / WEIGHTS, texts)
        found = list(Tagger(load_bundle(folder), marginals=True, n_best=3).tag_tokens([["Ada", "left"], ["x"]]))
        return json.dumps([each.to_json() for each in found], allow_nan=False)

    prepared = prepare(load_config(run / CONFIG))

    def checkpoint(content: bytes, folder: Path) -> object:
        learner = Learner(prepared.model.network, prepared.config.training)
        for name in FILES:
            (folder / name).write_bytes(model[name])
        (folder / CHECKPOINT).write_bytes(content)
        return Checkpoint(folder, learner, identify(prepared)).load()

    def results(content: bytes, folder: Path) -> None:
        for name in FILES:
            (folder / name).write_bytes(model[name])
        (folder / RESULTS).write_bytes(content)
        show_model(folder, new_console(io.StringIO()))

    def compared(content: bytes, folder: Path) -> None:
        (folder / RUN).write_bytes(content)
        read_run(folder, prepared.config)

    def pattern(content: bytes, _: Path) -> str:
        given = content.decode(errors="replace")
        try:
            compile_pattern(given)
        except ValueError as problem:  # which becomes an error of the config
            raise NertoolError(str(problem)) from None
        return Remover(given)("Ada's 3rd (big) éclair_!")

    standoff = b"T1\tPER 0 9\tAda Byron\nT2\tLOC 13 17;18 20\tOslo\nR1\tx\n"
    jsonl = b'{"text": "Ada in Oslo", "entities": [{"start": 0, "end": 3, "label": "PER"}], "document": 1}\n'
    jsonl += b'{"text": "a b", "tokens": ["a", "b"], "sentences": [1, 2], "entities": null}\n'
    labels = b'{"text": "a b", "tokens": ["a", "b"], "labels": ["B-X", null], "columns": {"pos": ["x", "y"]}}\n'
    span = b'{"start": 0, "end": 3, "label": "PER", "labels": ["PER"], "start_offset": 0, "end_offset": 3}'
    triple = b'[0, 3, "PER"]'
    doccano = b'{"id": 1, "text": "Ada in Oslo", "label": [%s], "Comments": [], "relations": [{}]}\n' % triple
    doccano += b'{"data": "Ada in Oslo", "entities": [%s], "cats": ["x"]}\n' % span
    prodigy = b'{"text": "Ada x", "spans": [%s], "answer": "accept", "_input_hash": 1, "tokens": ' % span
    prodigy += (
        b'[{"text": "Ada", "start": 0, "end": 3, "id": 0}], "_view_id": "ner"}\n{"text": "a", "spans": []}\n'
    )
    region = b'{"value": %s, "type": "labels", "to_name": "text"}, {"type": "relation"}' % span
    tasks = (
        b'[{"data": {"text": "Ada x", "u": "y"}, "annotations": [{"completed_by": {"id": 1}, "result": [%s]}]},'
    )
    tasks = (
        tasks % region
        + b'\n{"data": {"text": "x"}, "annotations": [{"was_cancelled": true}], "predictions": [1]}]'
    )
    minimal = b'{"id": 1, "text": "Ada x", "label": [%s], "annotator": 1, "annotation_id": 2}\n' % span
    pairs = b'["Ada x", {"entities": [%s]}]\n["a b", {"cats": {}}]\n' % triple
    words = b'["a b", {"entities": ["U-X", "-"], "words": ["a", "b"]}]\n'
    trees = b'[{"id": 0, "paragraphs": [{"raw": "Ada x", "sentences": [{"tokens": [{"orth": "Ada", "ner": "U-X"}, '
    trees += b'{"orth": "x", "ner": "-"}]}]}]}]'
    empty = b"\t_" * 5
    conllu = (
        b"# newdoc id = d\n# text = Ada al.\n1\tAda\t_\tX" + empty + b"\tSpaceAfter=No|NER=B-PER\n2-3\tal\t_\t_"
    )
    conllu += empty + b"\t_\n2\ta\t_\tX" + empty + b"\tNER=O\n3\tel\t_\tX" + empty + b"\tNER=?\n3.1\t_\t_\t_"
    conllu += empty + b"\t_\n4\t.\t_\tX" + empty + b"\tNER=O\n"
    onto = b"#begin document (x); part 000\nx 0 0 Ada NN * - - - - (PER* -\nx 0 1 B NN * - - - - *) -\n"
    onto += b"#end document\n"
    webanno = b"#FORMAT=WebAnno TSV 3.3\n#T_SP=x.NamedEntity|identifier|value\n\n\n#Text=Ada\\\\ B.\n"
    webanno += b"1-1\t0-4\tAda\\\\\t*[1]\tA[1]|B\\_[2]\t\n1-2\t5-7\tB.\t*[1]\tA[1]\t\n1-2.1\t6-7\t.\t_\tX\t\n"
    hipe = b"TOKEN\tNE-COARSE-LIT\tNE-FINE-LIT\tMISC\n# document_id = x\nAda\tB-p\tB-p.i\tNoSpaceAfter\n"
    hipe += b".\tO\t_\tEndOfSentence|EndOfLine\nB\tI-p\tO\t_\n\nC\tO\tO\t_\n"
    uner = b"# sent_id = 1\n# text = Ada #\n1\tAda\tB-PER\t-\tx\n1-2\t_\t_\t_\t_\n2\t#\tO\t-\tx\n"
    germeval = b"#\tx [2009-10-17]\n1\tAda\tB-PER\tO\n2\t#\tO\tB-LOC\n"
    rows_csv = b'Sentence #,Word,POS,Tag\n1,"Ada, ""B""",NNP,B-per\n,left,VB,O\n\n2,Oslo,NNP,B-geo\n'
    lists_csv = b"tokens;tags\n['Ada', 'left'];['B-PER', 'O']\n[\"Oslo\" \"x\"];B-LOC O\n"
    spelled = (
        b"Ada B_PER\nleft O\n\nOslo B_LOC\n",
        b"(A* (A*\nx *)\n",
        b"a PER\nb O\nc O\n",
        b"a B-X|B-Y\nb O|B-Z\n",
    )
    own = {
        "conll": [lines],
        "conllu": [conllu],
        "conll2012": [onto],
        "webanno": [webanno],
        "hipe": [hipe],
        "germeval": [germeval],
        "uner": [uner],
        "csv": [rows_csv, lists_csv],
        "jsonl": [jsonl, labels],
        "prodigy": [prodigy],
        "labelstudio": [tasks, minimal],
        "doccano": [doccano],
        "spacy-json": [pairs, words, trees],
        "brat": [standoff],
        "project": [project_database()],
        "spacy": [tables["spacy"]],
        "parquet": [tables["parquet"]],
        "arrow": [tables["arrow"]],
        "text": ["Ada Byron left Oslo. Rain fell é\n\n(x)\n".encode()],
        "tokens": ["Ada Byron left Oslo .\n\nRain\tfell é\n".encode()],
    }
    all_seeds = [seed for seeds in own.values() for seed in seeds]
    return {
        **{name: Target(seeds, each_way(name)) for name, seeds in own.items()},
        "any format as any other": Target(all_seeds, across),
        "any format, tagged": Target(all_seeds, tagged),
        "bundle: weights with a new digest": Target([struct.pack("<6f", 0, 1, -1, 3, 1e-40, 2)], forged),
        "checkpoint": Target([(run / CHECKPOINT).read_bytes()], checkpoint),
        "results": Target([(run / RESULTS).read_bytes()], results),
        "results of a comparison": Target(
            [b'{"config": {"corpus": {"train": "x"}}, "files": {}, "run": {"seed": 1, "epochs": 2}}'], compared
        ),
        "gazetteer": Target(
            [b"New York\tLOC\nAda\n# x\n\n"], file("a.txt", lambda path: list(read_phrases(path)))
        ),
        "strip": Target([rb"^\W+|\W+$", rb"(?i)[a-z]{2,3}(?=x)|\d+", b"(a|b)*c"], pattern),
        "columns": Target([lines, lines.replace(b" ", b"\t"), gzip.compress(lines)], file("a.txt", tokens)),
        "vectors": Target(
            [vectors, b"3 3\n" + vectors, b"2 3\n" + rows, gzip.compress(vectors)], file("v", read_vectors)
        ),
        "config": Target([model[CONFIG], b"corpus: {train: x}\nmodel:\n  dropout: 0.5\n"], file("c.yaml", config)),
        "bundle: config": Target([model[CONFIG]], bundle(CONFIG)),
        "bundle: vocabulary": Target([model[VOCABULARY]], bundle(VOCABULARY)),
        "bundle: weights": Target([model[WEIGHTS]], bundle(WEIGHTS)),
        "split: parquet": Target([tables["parquet"]], file("a.parquet", lambda path: split(path, "parquet"))),
        "split: arrow": Target([tables["arrow"]], file("a.arrow", lambda path: split(path, "arrow"))),
        "split: spacy": Target([tables["spacy"]], file("a.spacy", lambda path: split(path, "spacy"))),
        "JSON Lines: to tables": Target([jsonl + labels], to_tables),
        "spellings": Target(list(spelled), file("a.txt", split)),
        "tagged text": Target(
            ["Ada Byron in Oslo. 🎈 e\u0301 שלום \u2028".encode(), b"(" * 400, "長".encode() * 300], text
        ),
    }


def is_utf8(content: bytes) -> bool:
    """Say whether bytes are UTF-8, lone surrogates allowed."""
    try:
        content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def throw(target: Target, content: bytes) -> bool:
    """Say whether the content was understood; errors that are not nertool's own are raised."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            target.read(content, Path(folder))
        except NertoolError as problem:
            assert str(problem).strip()
            return False
    return True


def drawn(draw: random.Random, target: Target) -> bytes:
    """Return corrupt content."""
    content = draw.choice(target.seeds)
    edits = []
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        other = draw.choice(target.seeds)
        start = draw.randrange(len(other) + 1)
        new = draw.choice(
            (
                b"",
                draw.choice(PARTS),
                draw.randbytes(draw.randint(1, 4)),
                other[start : start + draw.randint(1, 60)],
            )
        )
        # The heads of binary files are where the structure is.
        place = draw.random() if draw.random() < 0.7 else draw.random() * min(1.0, 200 / (len(content) + 1))
        length = draw.choice((0, len(new), 1, draw.randint(0, 40), draw.randint(0, len(content))))
        edits.append(Edit(place, length, new))
    return edited(content, edits)


class Count(NamedTuple):
    """What came of feeding a target.

    Attributes:
        inputs: How many there were.
        understood: How many of them were understood.
        slowest: Seconds for the one that took longest.
        failures: Each kind of error that is not nertool's own, with the first input that led to it.
    """

    inputs: int
    understood: int
    slowest: float
    failures: dict[str, bytes]


def feed(name: str, target: Target, seconds: float, seed: int) -> Count:
    """Feed a target for some seconds, always the same inputs for a seed."""
    draw = random.Random(f"{seed} {name}")
    inputs = understood = 0
    slowest = 0.0
    failures: dict[str, bytes] = {}
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        content = drawn(draw, target)
        try:
            understood += throw(target, content)
        except Exception as problem:
            place = traceback.format_exc().splitlines()[-3].strip()
            failure = f"{name}: {type(problem).__name__} from {place}"
            if failure not in failures:
                traceback.print_exc()
                failures[failure] = content
        inputs += 1
        slowest = max(slowest, time.monotonic() - began)
    return Count(inputs, understood, slowest, failures)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/latest"), metavar="DIR")
    parser.add_argument("--seconds", type=float, default=60, help="for each target  [default: 60]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="some of the targets")
    options = parser.parse_args()
    total = 0
    failures: dict[str, bytes] = {}
    for name, target in targets(options.model).items():
        if options.only and name not in options.only:
            continue
        count = feed(name, target, options.seconds, options.seed)
        total += count.inputs
        for failure, content in count.failures.items():
            failures[failure] = content
            kept = Path(f"fuzz-{len(failures)}")
            kept.write_bytes(content)
            print(f"{failure}: not an error of nertool's; the input is {kept}")
        numbers = f"{count.inputs:,} inputs, {count.understood:,} of them understood"
        print(f"{name}: {numbers}; slowest {count.slowest:.2f} s", flush=True)
    print(f"all: {total:,} inputs, {len(failures)} kinds of errors that are not nertool's")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
