"""Files of sentences: CoNLL, parquet and Arrow, which know tokens and labels but not the text between."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from nertool.config.files import replaced_when_done
from nertool.data.corpus import read_split
from nertool.formats.conll import write_conll
from nertool.formats.sharing import write_parquet
from nertool.formats.texts import Report, Settings, Text, join, to_sentences
from nertool.text.schemes import Scheme, convert, spans


def read(path: Path, settings: Settings, report: Report) -> Iterator[Text]:
    """Reads a sentence to a text; its tokens are parted by blanks."""
    split = read_split(path, settings.corpus)
    report.notes += [f"{path}: {note}" for note in split.notes()]
    plain = split.label_scheme is Scheme.PLAIN
    several = split.document_count > 1
    for words, labels, document in zip(split.tokens, split.labels, split.documents, strict=True):
        text, offsets = join(words)
        found = spans(labels, split.label_scheme)
        number = document if several else None
        yield Text(text, offsets, [len(words)], found, labels if plain else None, number, sentence=True)


def write_columns(path: Path, texts: Iterable[Text], scheme: Scheme) -> None:
    """Writes a token and its label to a line."""
    split = to_sentences(texts, path)
    plain = split.label_scheme is Scheme.PLAIN
    rows = (row if plain else convert(row, Scheme.IOB2, scheme) for row in split.labels)
    documents = split.documents if split.document_count > 1 else None
    with replaced_when_done(path) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as target:
        write_conll(target, zip(split.tokens, rows, strict=True), documents)


def write_table(path: Path, texts: Iterable[Text], scheme: Scheme) -> None:
    """Writes a sentence to a row of a parquet file, its labels named by the features."""
    write_parquet(to_sentences(texts, path), path, scheme)
