"""brat's standoff: a .txt file with the text, and an .ann file beside it with the entities by character."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from nertool.config.files import write_whole
from nertool.errors import CorpusError
from nertool.formats.opening import decode
from nertool.formats.texts import Mark, Report, Settings, Text, fit, in_documents, refuse_tags, together
from nertool.text.schemes import Scheme

_ENTITY = re.compile(r"(T\S*)\t(\S+) (\d{1,15} \d{1,15}(?:;\d{1,15} \d{1,15})*)(?:\t(.*))?")


def read(path: Path, settings: Settings, report: Report) -> Iterator[Text]:
    """Reads a pair of files, named by either, or all pairs of a folder and the folders in it."""
    if path.is_dir():
        texts = sorted(path.rglob("*.txt"))
        bare = [text for text in texts if not text.with_suffix(".ann").is_file()]
        if bare:
            count = f"{len(bare)} .txt files have no .ann file beside them and were left out"
            report.notes.append(f"{path}: {count}: {', '.join(each.name for each in bare[:5])}")
        texts = [text for text in texts if text not in bare]
        if not texts:
            raise CorpusError("there is no .txt file with an .ann file beside it in this folder", path)
    else:
        texts = [path.with_suffix(".txt")]
    for each in texts:
        name = each.relative_to(path).with_suffix("").as_posix() if path.is_dir() else each.stem
        yield replace(_read_pair(each, settings, report), name=name)


def write(path: Path, texts: Iterable[Text], scheme: Scheme) -> None:
    """Writes a pair of files for each document: into a folder, or the only one where a file is named.

    Raises:
        CorpusError: There are several documents for one file, or a type has white space in it.
    """
    documents = [together(group) for group in in_documents(texts)]
    single = path.suffix.lower() in (".txt", ".ann")
    if single and len(documents) != 1:
        raise CorpusError(f"there are {len(documents)} documents, and this is one file: name a folder", path)
    width = len(str(len(documents)))
    for number, text in enumerate(documents, 1):
        refuse_tags(text, path, "brat")
        place = path if single else path / f"{text.name or str(number).zfill(width)}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place.with_suffix(".txt"), _text_bytes(text, place))
        lines = [_line(text, order, place) for order in range(len(text.spans))]
        write_whole(place.with_suffix(".ann"), "".join(lines).encode())


def _read_pair(path: Path, settings: Settings, report: Report) -> Text:
    # Bytes, for offsets count the characters of the file as it is, line ends and all.
    text = _decoded(path)
    annotations = path.with_suffix(".ann")
    marks: list[Mark] = []
    others = 0
    for number, line in enumerate(_decoded(annotations).split("\n"), 1):
        line = line.rstrip("\r")
        if not line.startswith("T"):
            others += bool(line.strip())
            continue
        match = _ENTITY.fullmatch(line)
        if match is None:
            message = f"{line[:60]!r} is no entity; expected T1, a tab, a type, begin and end, a tab, the text"
            raise CorpusError(message, annotations, number)
        place = f"{annotations}, line {number} ({match[1]})"
        parts = [tuple(map(int, part.split(" "))) for part in match[3].split(";")]
        start, end = parts[0][0], parts[-1][1]
        # Annotators break a span at a line end: its parts have nothing but white space between them.
        gaps = [text[left[1] : right[0]] for left, right in pairwise(parts)]
        if any(gap.strip() for gap in gaps):
            report.misfits.append(f"{place}: {match[2]} {match[4]!r} is in several pieces: {match[3]}")
        elif match[4] is not None and match[4].split() != text[start:end].split() and end <= len(text):
            found = f"the text at [{start}, {end}) is {text[start:end]!r}"
            report.misfits.append(f"{place}: {match[2]} {match[4]!r} stands elsewhere; {found}")
        else:
            marks.append(Mark(place, start, end, match[2]))
    if others:
        report.notes.append(f"{annotations}: {others} lines that are no entities (relations, notes, ...) left out")
    return fit(text, settings.cut(text), marks, settings, report)


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CorpusError("there is no such file; brat needs a .txt and an .ann file side by side", path) from None
    except OSError as problem:
        raise CorpusError(f"cannot be read: {problem.strerror or problem}", path) from None
    return "".join(decode(line, path, number) for number, line in enumerate(content.splitlines(keepends=True), 1))


def _text_bytes(text: Text, place: Path) -> bytes:
    try:
        return (text.text if text.text.endswith("\n") else text.text + "\n").encode()
    except UnicodeEncodeError as problem:
        raise CorpusError(f"cannot be written: {problem}", place) from None


def _line(text: Text, order: int, place: Path) -> str:
    span = text.spans[order]
    if not re.fullmatch(r"\S+", span.type):
        raise CorpusError(f"{span.type!r}: a type of brat has no white space in it", place)
    start, end = text.offsets[span.start][0], text.offsets[span.end - 1][1]
    covered = re.sub(r"[\n\r\t]", " ", text.text[start:end])
    return f"T{order + 1}\t{span.type} {start} {end}\t{covered}\n"
