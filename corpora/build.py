"""Builds the demonstration corpus's column files from its annotated source documents.

Run as `python corpora/build.py`; `--check` writes nothing and exits 1 when a built file differs. README.md
beside this file says how the sources are written.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import spacy
from rich.console import Console
from rich.table import Table

from nertool.formats.registry import WriteOptions, find_format
from nertool.text.document import Document as Labelled
from nertool.text.schemes import Span

HERE = Path(__file__).resolve().parent
DEMO = HERE / "demo"
README = HERE / "README.md"
SPLITS = ("train", "validation", "test")
TYPES = ("PER", "LOC", "ORG", "MISC")
HEADERS = ("title", "kind", "split")
_COUNTS_BEGIN, _COUNTS_END = "<!-- counts: written by build.py -->", "<!-- end of counts -->"


class Sentence(NamedTuple):
    """The tokens of one line and its entities."""

    tokens: list[str]
    entities: list[Span]


@dataclass
class Document:
    """One source file."""

    path: Path
    title: str
    kind: str
    split: str
    sentences: list[Sentence]


class SourceError(Exception):
    """Source documents are wrong; `problems` has one line for each thing, with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class _Mark(NamedTuple):
    """An entity by its characters in the text without brackets."""

    start: int
    end: int
    type: str


@lru_cache(maxsize=1)
def _tokeniser() -> Any:
    # The one that the tagger splits raw text with, so that what it learns here is what it meets later.
    return spacy.blank("en").tokenizer


def parse_markup(line: str) -> tuple[str, list[_Mark]]:
    """Take the brackets out of a line.

    Args:
        line: Text with entities as `[text|TYPE]`.

    Returns:
        The bare text, and where its entities are.

    Raises:
        ValueError: The brackets are wrong; says how, for the first that is.
    """
    text, marks = "", []
    start: int | None = None
    kind: str | None = None
    for piece in re.split(r"([\[\]|])", line):
        if piece == "[":
            if start is not None:
                raise ValueError(f"'[' inside the entity that begins {text[start:]!r}: entities never nest")
            start = len(text)
        elif piece == "|":
            if start is None or kind is not None:
                raise ValueError("'|' stands only between an entity's text and its type")
            kind = ""
        elif piece == "]":
            if start is None:
                raise ValueError(f"']' closes nothing, after {text[-20:]!r}")
            entity = text[start:]
            if kind is None:
                raise ValueError(f"the entity {entity!r} has no type: write [text|TYPE]")
            if kind not in TYPES:
                raise ValueError(f"the entity {entity!r} has type {kind!r}; the types are {', '.join(TYPES)}")
            if not entity.strip():
                raise ValueError(f"an entity of type {kind} is empty")
            marks.append(_Mark(start, len(text), kind))
            start = kind = None
        elif kind is not None:
            kind += piece
        else:
            text += piece
    if start is not None:
        raise ValueError(f"no ']' closes the entity that begins {text[start:]!r}")
    return text, marks


def parse_sentence(line: str) -> tuple[Sentence, list[str]]:
    """Read one line of a source document.

    Args:
        line: Text with entities as `[text|TYPE]`.

    Returns:
        The sentence, and what is wrong with the line; the sentence is of use only if nothing is.
    """
    try:
        text, marks = parse_markup(line)
    except ValueError as error:
        return Sentence([], []), [str(error)]
    problems = []
    if text != " ".join(text.split()):
        problems.append("blanks other than single spaces between words")
    words = [token for token in _tokeniser()(text) if not token.is_space]
    tokens = [str(token.text) for token in words]
    starts = {token.idx: index for index, token in enumerate(words)}
    ends = {token.idx + len(token.text): index + 1 for index, token in enumerate(words)}
    entities = []
    for start, end, kind in marks:
        if start in starts and end in ends:
            entities.append(Span(starts[start], ends[end], kind))
            continue
        around = [token.text for token in words if token.idx < end and token.idx + len(token.text) > start]
        problems.append(
            f"the entity {text[start:end]!r} does not lie on token borders; the tokens there are: "
            + " ".join(map(repr, around))
        )
    return Sentence(tokens, entities), problems


def _header_problem(key: str, value: str, header: dict[str, str], path: Path) -> str:
    """Say what is wrong with a line of the header, or nothing."""
    if key not in HEADERS or not value.strip():
        return f"expected a header line 'key: value', the key one of {', '.join(HEADERS)}"
    if key in header:
        return f"a second header {key!r}"
    if key == "split" and value not in SPLITS:
        return f"split is {value!r}; the splits are {', '.join(SPLITS)}"
    if key == "kind" and not path.name.startswith(value.replace(" ", "-") + "-"):
        return f"kind is {value!r}, but the file's name does not begin with it"
    return ""


def read_document(path: Path) -> tuple[Document, list[str]]:
    """Read one source document.

    Args:
        path: A file whose name is its kind of text, with hyphens for spaces, a hyphen and a word or more.

    Returns:
        The document, and a line for each problem in it; the document is of use only if there is none.
    """
    problems: list[str] = []
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

    def complain(number: int, message: str) -> None:
        problems.append(f"{shown}:{number}: {message}")

    header: dict[str, str] = {}
    sentences: list[Sentence] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        complain(1, f"not UTF-8: {error.reason} at byte {error.start}")
        lines = []
    end = lines.index("") if "" in lines else len(lines)
    for number, line in enumerate(lines[:end], 1):
        key, _, value = line.partition(": ")
        if problem := _header_problem(key, value, header, path):
            complain(number, problem)
        header.setdefault(key, value)
    for number, line in enumerate(lines[end:], end + 1):
        if line:
            sentence, wrong = parse_sentence(line)
            sentences.append(sentence)
            for message in wrong:
                complain(number, message)
    if lines:
        missing = [key for key in HEADERS if key not in header]
        if missing:
            complain(1, f"the header lacks {', '.join(missing)}")
        if not sentences:
            complain(len(lines), "no text follows the header and a blank line")
    title, kind, split = (header.get(key, "") for key in HEADERS)
    return Document(path, title, kind, split, sentences), problems


def read_documents(folder: Path | None = None) -> list[Document]:
    """Read every source document, in the order in which they are written: by split, then by file name.

    Args:
        folder: Where the `.txt` files are; the corpus's own if None.

    Raises:
        SourceError: Any of them is wrong; holds all problems of all files.
    """
    folder = folder or DEMO / "source"
    documents, problems = [], []
    for path in sorted(folder.glob("*.txt"), key=lambda path: path.name):
        document, wrong = read_document(path)
        documents.append(document)
        problems += wrong
    if not documents:
        problems.append(f"there are no .txt files in {folder}")
    if problems:
        raise SourceError(problems)
    return sorted(documents, key=lambda document: SPLITS.index(document.split))


def render(documents: Iterable[Document]) -> str:
    """Write documents in two columns, token and IOB2 label."""
    stream = io.StringIO()
    labelled = (
        Labelled.from_spans(sentence.tokens, sentence.entities, id=str(number))
        for number, document in enumerate(documents)
        for sentence in document.sentences
    )
    find_format("conll").write_stream(stream, labelled, WriteOptions())
    return stream.getvalue()


def mentions(documents: Iterable[Document], split: str) -> list[tuple[str, ...]]:
    """The tokens of every entity of a split, in order."""
    return [
        tuple(sentence.tokens[span.start : span.end])
        for document in documents
        if document.split == split
        for sentence in document.sentences
        for span in sentence.entities
    ]


def unseen_share(documents: Sequence[Document], split: str) -> float:
    """The share of a split's entity mentions whose text is no entity, of any type, in the training part."""
    seen = set(mentions(documents, "train"))
    found = mentions(documents, split)
    return sum(mention not in seen for mention in found) / max(len(found), 1)


def count_rows(documents: Sequence[Document]) -> list[list[str]]:
    """The table of counts.

    Args:
        documents: The whole corpus.

    Returns:
        A row of headings, then a row for each thing counted: its name, each split, and all of it.
    """
    names = ["documents", "kinds of text", "sentences", "tokens", "entities", *TYPES]
    columns = []
    for part in (*SPLITS, None):
        chosen = [document for document in documents if part in (document.split, None)]
        sentences = [sentence for document in chosen for sentence in document.sentences]
        types = Counter(span.type for sentence in sentences for span in sentence.entities)
        numbers = [len(chosen), len({document.kind for document in chosen}), len(sentences)]
        numbers += [sum(len(sentence.tokens) for sentence in sentences), types.total()]
        numbers += [types[kind] for kind in TYPES]
        unseen = f"{unseen_share(documents, part):.1%}" if part in SPLITS[1:] else ""
        columns.append([*(f"{number:,}" for number in numbers), unseen])
    rows = zip([*names, "entities unseen in train"], *columns, strict=True)
    return [["", *SPLITS, "all"], *map(list, rows)]


def counts_markdown(documents: Sequence[Document]) -> str:
    """The table of counts as README.md has it."""
    head, *rows = count_rows(documents)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def built_files(documents: Sequence[Document]) -> dict[Path, str]:
    """The text of every file that is built: one for each split, and README.md with its table of counts.

    Args:
        documents: The whole corpus, in order.
    """
    files = {
        DEMO / f"{split}.txt": render(document for document in documents if document.split == split)
        for split in SPLITS
    }
    if README.is_file():
        # Kept by hand but for its table, which is therefore never out of date.
        before, begin, rest = README.read_text(encoding="utf-8").partition(_COUNTS_BEGIN)
        _, end, after = rest.partition(_COUNTS_END)
        if not begin or not end:
            raise SourceError([f"{README.name}:1: the lines {_COUNTS_BEGIN!r} and {_COUNTS_END!r} are gone"])
        files[README] = f"{before}{begin}\n{counts_markdown(documents)}{end}{after}"
    return files


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_bytes() != text.encode("utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or check the corpus.

    Args:
        arguments: The command line; the process's own if None.

    Returns:
        The exit status: 1 when a source is wrong or `--check` found a difference.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a built file differs")
    parser.add_argument("--counts", action="store_true", help="print a table of what the corpus holds")
    options = parser.parse_args(arguments)
    try:
        documents = read_documents()
        files = built_files(documents)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1

    changed = [path for path, text in files.items() if _differs(path, text)]
    for path in changed:
        if options.check:
            print(f"{path.relative_to(HERE)} is not what the sources give: run build.py", file=sys.stderr)
        else:
            path.write_bytes(files[path].encode("utf-8"))
            print(f"wrote {path.relative_to(HERE)}", file=sys.stderr)
    if options.counts:
        head, *rows = count_rows(documents)
        table = Table()
        for name in head:
            table.add_column(name, justify="right" if name else "left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
