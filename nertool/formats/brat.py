"""brat's standoff: a .txt file with the text, and an .ann file beside it with the entities in characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from nertool.config.files import refuse_links, write_whole
from nertool.errors import CorpusError
from nertool.formats.alignment import Mark, fit, tokenizer_of
from nertool.formats.opening import decode
from nertool.formats.registry import Format, Holds, ReadOptions, Report, WriteOptions
from nertool.formats.streams import grouped, joined, refuse_tags, stripped, watched
from nertool.text.document import Document, Entity, Origin
from nertool.text.tokenization import refuse_long

_ENTITY = re.compile(r"(T\S*)\t(\S+) (\d{1,15} \d{1,15}(?:;\d{1,15} \d{1,15})*)(?:\t(.*))?")
_LARGEST = 2**26  # bytes of a file
_HOLDS: frozenset[Holds] = frozenset({"text", "entities", "documents"})


class Brat(Format):
    """Pairs of files in a folder, a pair for each document, which is called after the file."""

    name = "brat"
    description = "brat: a folder of .txt files, each with its entities in an .ann file beside it"
    suffixes = (".ann",)
    holds = _HOLDS

    def sniff(self, head: str | None, path: Path) -> bool:
        """Recognize a folder, an .ann file, and a .txt file with an .ann file beside it."""
        suffix = path.suffix.lower()
        return path.is_dir() or suffix == ".ann" or (suffix == ".txt" and path.with_suffix(".ann").is_file())

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a pair of files, named by either, or all pairs of a folder and the folders in it."""
        if not path.is_dir():
            files = [path.with_suffix(".txt")]
            refuse_links(path.parent, [path.with_suffix(".ann" if path.suffix.lower() == ".txt" else ".txt").name])
        else:
            texts = sorted(path.rglob("*.txt"))
            paired = {text for text in texts if text.with_suffix(".ann").is_file()}
            files = [text for text in texts if text in paired]
            pairs = (each for text in files for each in (text, text.with_suffix(".ann")))
            refuse_links(path, (each.relative_to(path).as_posix() for each in pairs))
            bare = [text.name for text in texts if text not in paired]
            if bare:
                count = f"{len(bare)} .txt files have no .ann file beside them and were left out"
                report.notes.append(f"{path}: {count}: {', '.join(bare[:5])}")
            if not files:
                raise CorpusError("there is no .txt file with an .ann file beside it in this folder", path)
        names = [
            file.relative_to(path).with_suffix("").as_posix() if path.is_dir() else file.stem for file in files
        ]
        documents = (_read_pair(file, name, options, report) for file, name in zip(files, names, strict=True))
        yield from stripped(documents, options.strip, path)

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write a pair of files for each document: into a folder, or the only one where a file is named.

        A document with an id gets that name, others are numbered. Sentences of no document become one.

        Raises:
            CorpusError: There are several documents for one file, or a type has whitespace in it.
        """
        groups = grouped(watched(documents, self, target, report), loose_together=True)
        if target.suffix.lower() in (".txt", ".ann"):
            first, second = next(groups, None), next(groups, None)
            if first is None or second is not None:
                count = 0 if first is None else 2 + sum(1 for _ in groups)
                raise CorpusError(f"there are {count} documents, and this is one file: name a folder", target)
            refuse_links(target.parent, [target.with_suffix(suffix).name for suffix in (".txt", ".ann")])
            _write_pair(target, joined(first))
            return
        names: set[str] = set()
        for number, group in enumerate(groups, 1):
            name = _file_name(group[0].id, number, names)
            refuse_links(target, [f"{name}.txt", f"{name}.ann"])
            _write_pair(target / f"{name}.txt", joined(group))


def _file_name(name: str | None, number: int, taken: set[str]) -> str:
    """Choose a file's name, in a form that cannot leave the folder, and that no earlier document has."""
    if name and re.fullmatch(r"\d{1,5}", name, re.ASCII):  # so that the order of names is that of numbers
        name = name.zfill(5)
    parts = PurePosixPath(name or "").parts
    safe = all(re.fullmatch(r"[^\0-\x1f\\/:*?\"<>|\ud800-\udfff]{1,200}(?<![. ])", part) for part in parts)
    chosen = "/".join(parts) if name and parts and safe else f"{number:05}"
    while chosen.casefold() in taken:
        chosen = f"{chosen}-{number}"
    taken.add(chosen.casefold())
    return chosen


def _read_pair(path: Path, name: str, options: ReadOptions, report: Report) -> Document:
    # Bytes, for offsets count the characters of the file as it is, line ends and all.
    text = _decoded(path)
    refuse_long(text, path)
    tokens = tokenizer_of(options)(text)
    origin = Origin(str(path), "row", tuple(range(1, max(1, len(tokens.sentence_starts)) + 1)))
    marks = _marks(path.with_suffix(".ann"), report) if options.labelled else []
    document = fit(text, tokens, marks, options, report, id=name, origin=origin)
    return document if options.labelled else document.with_labels(None, None)


def _marks(path: Path, report: Report) -> Iterator[Mark]:
    others = 0
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        line = line.rstrip("\r")
        if not line.startswith("T"):
            others += bool(line.strip())
            continue
        match = _ENTITY.fullmatch(line)
        if match is None:
            message = f"{line[:60]!r} is no entity; expected T1, a tab, a type, start and end, a tab, the text"
            raise CorpusError(message, path, number)
        pieces = [tuple(map(int, piece.split(" "))) for piece in match[3].split(";")]
        yield Mark(f"{path}, line {number} ({match[1]})", tuple((a, b) for a, b in pieces), match[2], match[4])
    if others:
        report.notes.append(f"{path}: {others} lines that are no entities (relations, notes, ...) left out")


def _decoded(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise CorpusError("there is no such file; brat needs a .txt and an .ann file side by side", path) from None
    except OSError as problem:
        raise CorpusError(f"cannot be read: {problem.strerror or problem}", path) from None
    if len(content) > _LARGEST:
        raise CorpusError(f"it is larger than {_LARGEST // 2**20} MB, the most that is read: split it", path)
    return "".join(decode(line, path, number) for number, line in enumerate(content.splitlines(keepends=True), 1))


def _write_pair(path: Path, document: Document) -> None:
    refuse_tags(document, path, "brat")
    text = document.text if document.text.endswith("\n") else document.text + "\n"
    lines = [_line(number, entity, path) for number, entity in enumerate(document.entities, 1)]
    try:
        contents = text.encode(), "".join(lines).encode()
    except UnicodeEncodeError as problem:
        raise CorpusError(f"cannot be written: {problem}", path) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise CorpusError(f"cannot be written: {problem.strerror or problem}", path.parent) from None
    for suffix, content in zip((".txt", ".ann"), contents, strict=True):
        write_whole(path.with_suffix(suffix), content, durable=False)  # there may be very many


def _line(number: int, entity: Entity, path: Path) -> str:
    if not re.fullmatch(r"\S+", entity.label):
        raise CorpusError(f"{entity.label!r}: a type of brat has no whitespace in it", path)
    covered = re.sub(r"[\n\r\t]", " ", entity.text)
    return f"T{number}\t{entity.label} {entity.start} {entity.end}\t{covered}\n"
