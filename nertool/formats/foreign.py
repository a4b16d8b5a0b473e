"""Names for files that no format reads, so that none of them is misread as columns.

Only what can be told with certainty is named. The order matters: the first that fits gives the name.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

_MAGIC = [
    (b"PK\x03\x04", "a zip archive (so are .xlsx, .docx and .odt): unpack it, or export a text file from it"),
    (b"%PDF", "a PDF: extract its text first"),
    (b"SQLite format 3", "an SQLite database: export a text file from it"),
    (b"\xd0\xcf\x11\xe0", "a document of an old Office program: export a text file from it"),
    (b"{\\rtf", "rich text (RTF): save it as plain text"),
    (b"BZh", "compressed with bzip2: decompress it, or compress it with gzip"),
    (b"\xfd7zXZ", "compressed with xz: decompress it, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: decompress it, or compress it with gzip"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"\xff\xfe", "text in UTF-16: convert it with `iconv -f utf-16 -t utf-8`"),
    (b"\xfe\xff", "text in UTF-16: convert it with `iconv -f utf-16 -t utf-8`"),
]

OLD_MAC = "text with the line ends of old Macs: convert it with `tr '\\r' '\\n'`"
_LABEL = r"(?:[BILOUESM]-[^\s-]\S*|O)"
_TEXTS = [
    (
        r"T\d+\t\S+ \d+ \d+(;\d+ \d+)*\t",
        "annotations of brat without their text: name the folder that holds .ann and .txt files",
    ),
    (r"<\?xml|<!|<[A-Za-z][^<>]*>[ \t]*\r?$|<[A-Za-z][^<>]*>.*</", "XML or HTML"),
    (r".*<START:\w+>", "OpenNLP's text with <START:type> marks"),
    (r".*<([A-Za-z]+)>[^<>]+</\1>", "text with entities in <TYPE>tags</TYPE>"),
    (
        rf"[^\s,;]+([,;]){_LABEL}[ ]*\r?\n[^\s,;]+\1{_LABEL}[ ]*\r?$",
        "delimited text without a header: put one before it, such as token,label",
    ),
    (rf"(\S+[/|]{_LABEL}[ ]+)+\S+[/|]{_LABEL}[ ]*\r?$", "a sentence a line, with a label behind each token"),
]
_TABLE_WORDS = frozenset(
    {"word", "words", "token", "tokens", "text", "tag", "tags", "label", "labels", "pos", "ner"}
)
_SUFFIXES = {
    ".xlsx": "a spreadsheet",
    ".xls": "a spreadsheet",
    ".ods": "a spreadsheet",
    ".json": "JSON, which several formats are: name one of them with --from or --to (in a config: corpus.format)",
    ".xml": "XML",
    ".xmi": "XML of UIMA",
    ".html": "HTML",
    ".docx": "a document of a word processor",
    ".pdf": "a PDF",
    ".zip": "a zip archive",
    ".pickle": "a pickle, which is never loaded",
    ".pkl": "a pickle, which is never loaded",
    ".yaml": "YAML, as configs are",
    ".yml": "YAML, as configs are",
}


def looks_like(head: bytes, text: str | None, path: Path) -> str | None:
    """Say what a file looks like that no format has recognized, if it is certainly none that nertool reads.

    Args:
        head: Its first bytes, decompressed.
        text: The same as text, None where it is not UTF-8.
        path: The file.
    """
    if what := no_text(head):
        return what
    if text is not None:
        if "\n" not in text and re.search(r"\S\r+[^\r\s]", text):
            return OLD_MAC
        start = text.lstrip()
        for pattern, what in _TEXTS:
            if re.match(pattern, start, re.MULTILINE):
                return what
        for recognize in (_json, _table, _labels_beside_sentence, _prose):
            if recognize is _table and ".csv" in path.suffixes:  # whose reader knows better what is wrong
                continue
            if name := recognize(start):
                return name
    return by_suffix(path)


def no_text(head: bytes) -> str | None:
    """Say what a file looks like, from its first bytes, if it is certainly no text in UTF-8."""
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    for side, order in ((1, "utf-16le"), (0, "utf-16be")):
        if len(head) > 3 and not any(head[side : len(head) & ~1 : 2]):
            return f"text in UTF-16: convert it with `iconv -f {order} -t utf-8`"
    return "binary data" if b"\0" in head else None


def by_suffix(path: Path) -> str | None:
    """Say what a file should be by its name, if that is not a format of nertool."""
    return _SUFFIXES.get(path.suffix.lower())


def _json(start: str) -> str | None:
    if not re.match(r'\{\s*(["}]|\Z)|\[\s*([\[{"\]0-9]|\Z)', start):
        return None
    if '"denotations"' in start:
        return "PubAnnotation's JSON"
    return (
        "JSON, but of no annotation tool that nertool knows: write JSON Lines, an object with text and entities "
        "in each line"
    )


def _table(start: str) -> str | None:
    """Recognize comma-separated values by a header, and as many values in each row."""
    lines = start.splitlines()[:20]
    for separator, what in ((",", "comma"), (";", "semicolon")):
        header = [name.strip().strip('"') for name in lines[0].split(separator)] if lines else []
        words = {word.strip("#_").lower() for name in header for word in re.split(r"[\s_]+", name)}
        if len(header) > 1 and "\t" not in lines[0] and words & _TABLE_WORDS:
            # The last line may be incomplete; a quoted value may go on in the next line.
            rows = list(csv.reader(lines[1:-1], delimiter=separator))
            if all(len(row) in (0, len(header)) for row in rows) or '"' in start:
                return (
                    f"a table of {what}-separated values without a column of tokens and one of labels by their "
                    "usual names: name the columns with corpus.columns, and the format csv with --from (in a "
                    "config: corpus.format)"
                )
    return None


def _labels_beside_sentence(start: str) -> str | None:
    tokens, tab, labels = start.split("\n", 1)[0].rstrip("\r").partition("\t")
    if tab and " " in labels and re.fullmatch(rf"{_LABEL}( {_LABEL})+", labels) and len(tokens.split()) > 1:
        return "a sentence a line, with its labels behind a tab: put the line text, a tab, labels before it"
    return None


def _prose(start: str) -> str | None:
    """Recognize running text: lines of very different lengths, none of which ends in a label."""
    lines = [line for line in start.splitlines()[:50] if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    widths = {len(line.split()) for line in lines}
    if (
        "\t" not in start
        and len(widths) > 2
        and max(widths) > 6
        and any(line.endswith((".", "!", "?")) for line in lines)
    ):
        return "running text without labels: `nertool tag` reads it, and so does --from text"
    return None
