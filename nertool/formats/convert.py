"""From one format to another: which is meant, how it is read, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nertool.errors import CorpusError
from nertool.formats import brat, jsonl, sentences
from nertool.formats import docbin_texts as docbin
from nertool.formats.texts import Report, Settings, Text
from nertool.text.schemes import Scheme

Reader = Callable[[Path, Settings, Report], Iterator[Text]]
Writer = Callable[[Path, Iterable[Text], Scheme], None]
READERS: dict[str, Reader] = {
    "conll": sentences.read,
    "jsonl": jsonl.read,
    "brat": brat.read,
    "spacy": docbin.read,
    "parquet": sentences.read,
}
WRITERS: dict[str, Writer] = {
    "conll": sentences.write_columns,
    "jsonl": jsonl.write,
    "brat": brat.write,
    "spacy": docbin.write,
    "parquet": sentences.write_table,
}
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".ann": "brat",
    ".spacy": "spacy",
    ".parquet": "parquet",
    ".arrow": "parquet",
}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        sentences, tokens, entities: How many of each.
        report: What was left out, widened or repaired.
    """

    sentences: int
    tokens: int
    entities: int
    report: Report


def format_of(path: Path) -> str:
    """The format that a name tells: a folder is brat's, and so is a .txt with an .ann beside it.

    A name whose suffix means nothing here is a file in columns.
    """
    if path.is_dir() or (not path.suffix and not path.is_file()):
        return "brat"
    if path.suffix.lower() == ".txt" and path.with_suffix(".ann").is_file():
        return "brat"
    return _SUFFIXES.get(path.suffix.lower(), "conll")


def convert_file(
    source: Path,
    target: Path,
    settings: Settings,
    scheme: Scheme,
    reader: str | None = None,
    writer: str | None = None,
) -> Converted:
    """Reads one format and writes another.

    Args:
        source: A file, or a folder of brat's.
        target: The same.
        settings: How to read.
        scheme: That labels are written in, where the format has labels.
        reader: The format of the source; None: as its name tells.
        writer: That of the target; None: as its name tells.

    Raises:
        CorpusError: The source cannot be read, or what it holds not be written in that format.
    """
    if source.resolve() == target.resolve():
        raise CorpusError("it would be written over itself; name another file", source)
    report = Report()
    counts = [0, 0, 0]

    def counted() -> Iterator[Text]:
        for text in READERS[reader or format_of(source)](source, settings, report):
            for place, number in enumerate((len(text.ends), len(text.offsets), len(text.spans))):
                counts[place] += number
            yield text

    WRITERS[writer or format_of(target)](target, counted(), scheme)
    sentence_count, token_count, entity_count = counts
    return Converted(sentence_count, token_count, entity_count, report)
