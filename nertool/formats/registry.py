"""The registry of formats: which there are, which one a file is in, and the contract that each fulfils.

A new format is one file in this folder and one line in `_BUILT_IN`, or a class in another package under the entry
point `nertool.formats`. Every command that reads or writes data asks this registry.
"""

from __future__ import annotations

import codecs
import re
from abc import ABC
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, ClassVar, Literal

from nertool.errors import ConfigError, CorpusError
from nertool.forking import no_fork
from nertool.formats.foreign import by_suffix, looks_like, no_text
from nertool.formats.opening import read_head
from nertool.text.document import Document
from nertool.text.schemes import Scheme
from nertool.text.tokenization import Tokenizer

HEAD_SIZE = 4096  # bytes of a file that a format may look at to recognize it


@dataclass
class Report:
    """What a reader or writer left out, repaired or moved, for a person to see.

    Attributes:
        misfits: Entities that were left out, each with its place and the reason.
        widened: Entities that were widened to whole tokens.
        notes: Anything else.
    """

    misfits: list[str] = field(default_factory=list)
    widened: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def causes(self, path: str | Path) -> str:
        """Say what was left out, to end an error about a file without labels or entities; empty where nothing was.

        Args:
            path: The file, whose name the error has already.
        """
        said = list(self.notes)
        if count := len(self.misfits):
            were = "entity was" if count == 1 else "entities were"
            said.append(f"{count:,} {were} left out, such as {self.misfits[0]}")
        said = [each.replace(f"{path}: ", "").replace(f"{path}, ", "") for each in said]
        return f" ({'; '.join(said)})" if said else ""


@dataclass(frozen=True)
class ReadOptions:
    """How to read. A format looks at what concerns it.

    Attributes:
        columns: Names of the columns from left to right; None: the first is the token, the last the label.
        label: Name of the column with the labels; "label" is the usual one of a format whose columns have names.
        token_column, tag_column: Names of the columns of tables (parquet, Arrow).
        scheme: Scheme of the labels; None: detect it.
        strip: Regular expression whose matches are removed from each token.
        labelled: Whether labels are wanted; else a file without labels is read too.
        snap: Whether entities that begin or end inside a token are widened to whole tokens.
        tokenizer: Makes tokens and sentences of raw text; None: English.
        annotator: Whose annotations are read of texts that several people annotated; None: the first one's.
    """

    columns: tuple[str, ...] | None = None
    label: str = "label"
    token_column: str = "tokens"
    tag_column: str = "ner_tags"
    scheme: Scheme | None = None
    strip: str | None = None
    labelled: bool = True
    snap: bool = False
    tokenizer: Tokenizer | None = None
    annotator: str | None = None


@dataclass(frozen=True)
class WriteOptions:
    """How to write. A format looks at what concerns it.

    Attributes:
        scheme: Scheme of the labels, for formats that have labels; plain tags stay plain.
        language: Of the text, a spaCy code.
    """

    scheme: Scheme = Scheme.IOB2
    language: str = "en"


Holds = Literal["text", "entities", "tags", "columns", "sentences", "documents", "scores", "unlabelled", "meta"]


class Format(ABC):
    """A file format.

    Attributes:
        name: Unique; what `--from`, `--to` and `corpus.format` say.
        description: One line for `nertool formats`.
        suffixes: Of file names in lower case, such as `(".jsonl",)`.
        holds: What the format can hold. What a document has and its format cannot hold is refused, or counted in
            the report, and never dropped silently.
        readable, writable: Whether `read` and `write` are implemented.
        streams: Whether `read` can read lines as they come (standard input), in memory that does not grow.
        general: Whether other formats may be special cases of what `sniff` recognizes; it is asked after them.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    holds: ClassVar[frozenset[Holds]] = frozenset()
    readable: ClassVar[bool] = True
    writable: ClassVar[bool] = True
    streams: ClassVar[bool] = False
    general: ClassVar[bool] = False

    def sniff(self, head: str | None, path: Path) -> bool:
        """Say whether a file is in this format, from its content.

        Args:
            head: The first characters of the file, decompressed; None for a folder or where they are not UTF-8.
            path: The file, or folder.
        """
        return False

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read documents as a stream.

        Labels come as they are in the file, with `Document.scheme` None where the scheme is still to be detected
        (see `nertool.formats.labels.resolve`).

        Raises:
            CorpusError: The file cannot be read; says where, what was expected, and what to do.
        """
        raise NotImplementedError

    def read_lines(
        self, lines: Iterator[str], name: str, options: ReadOptions, report: Report
    ) -> Iterator[Document]:
        """Read documents from lines without their line ends, such as standard input; for `streams` formats."""
        raise NotImplementedError

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write documents to a file, which appears under its name when it is whole.

        Raises:
            CorpusError: A document has something that the format cannot hold.
        """
        raise NotImplementedError

    def write_stream(self, target: IO[str], documents: Iterable[Document], options: WriteOptions) -> None:
        """Write documents to an open text stream, such as standard output; refused by binary formats."""
        raise CorpusError(f"{self.name} is not text: name a file for it with --output")


# Loaded when they are asked for: some need packages that take long to import. "module:class".
_BUILT_IN: dict[str, str] = {
    "conll": "nertool.formats.conll:Columns",
    "conllu": "nertool.formats.conllu:ConllU",
    "conll2012": "nertool.formats.conll2012:Conll2012",
    "webanno": "nertool.formats.webanno:WebAnno",
    "hipe": "nertool.formats.hipe:Hipe",
    "germeval": "nertool.formats.numbered:GermEval",
    "uner": "nertool.formats.numbered:UniversalNer",
    "csv": "nertool.formats.delimited:Delimited",
    "jsonl": "nertool.formats.jsonl:JsonLines",
    "prodigy": "nertool.formats.prodigy:Prodigy",
    "labelstudio": "nertool.formats.labelstudio:LabelStudio",
    "doccano": "nertool.formats.doccano:Doccano",
    "spacy-json": "nertool.formats.spacy_json:SpacyJson",
    "project": "nertool.formats.project:Project",
    "brat": "nertool.formats.brat:Brat",
    "spacy": "nertool.formats.docbin:DocBinFormat",
    "parquet": "nertool.formats.arrow:Parquet",
    "arrow": "nertool.formats.arrow:Arrow",
    "text": "nertool.formats.plain:PlainText",
    "tokens": "nertool.formats.plain:Tokens",
}


_COLUMNS = re.compile(r"\S.*[ \t](?:O|[BILUESM](?:-\S+)?)")
_DEFAULT = "conll"  # of what has neither a known suffix nor a content that says otherwise
_GROUP = "nertool.formats"  # of entry points
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"x\x9c": "spacy", b"x\xda": "spacy"}


def formats() -> dict[str, Format]:
    """Return all formats by name: the built-in ones, then those of other packages.

    Raises:
        ConfigError: The entry point of another package cannot be loaded, or has the name of a built-in format.
    """
    return {**{name: _built_in(name) for name in _BUILT_IN}, **_plugins()}


def find_format(name: str) -> Format:
    """Return a format by name.

    Raises:
        CorpusError: There is none; lists the names.
    """
    if name in _BUILT_IN:
        return _built_in(name)
    plugins = _plugins()
    if name not in plugins:
        raise CorpusError(f"there is no format {name!r}; the formats are: {', '.join([*_BUILT_IN, *plugins])}")
    return plugins[name]


def detect_format(path: Path) -> Format:
    """Find the format of a file or folder from its name and content. Content decides where it is clear.

    Raises:
        CorpusError: The file cannot be read, or is in no format: says what it looks like, and what to do.
    """
    known = formats()
    suffix = _suffix(path)
    named = [each for each in known.values() if suffix in each.suffixes]
    if path.is_dir():
        for each in known.values():
            if each.sniff(None, path):
                return each
        raise CorpusError("this is a folder, and in none of the formats; name a file in it", path)
    if path.exists() and not path.is_file():  # what a pipe gives can be read only once
        return named[0] if named else known[_DEFAULT]
    if found := recognize(path):
        return found
    head = read_head(path, HEAD_SIZE)
    plugins = _plugins()
    for each in named:
        if each.name in plugins:
            return each
    if what := looks_like(head, _as_text(head), path):
        raise CorpusError(f"this looks like {_remedy(what)}", path)
    return named[0] if named else known[_DEFAULT]


def recognize(path: Path) -> Format | None:
    """Find the format of a file that its content alone shows; None where that is not certain."""
    known, plugins, suffix = formats(), _plugins(), _suffix(path)
    head = read_head(path, HEAD_SIZE)
    text = _as_text(head)
    # A format that has the suffix goes first, then those of other packages, which may be more special.
    named = [each for each in known.values() if suffix in each.suffixes]
    for each in sorted([*named, *plugins.values(), *known.values()], key=lambda each: each.general):
        if each.sniff(text, path):
            return each
    return next((known[name] for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def is_columns(path: Path) -> bool:
    """Say whether each line of a file's beginning is a token with a label behind it, which raw text never is."""
    lines = [line.rstrip() for line in (_as_text(read_head(path, HEAD_SIZE)) or "").split("\n")[:-1]]
    rows = [line for line in lines if line and not line.startswith(("#", "-DOCSTART-"))]
    return len(rows) > 2 and all(map(_COLUMNS.fullmatch, rows)) and any(row[-2:] in (" O", "\tO") for row in rows)


RAW = ("", ".txt", ".text")
"""Suffixes of files that are raw text where nothing says otherwise."""


def detect_texts(path: Path) -> Format:
    """Find the format of a file or folder of texts, labelled or not; what is in no format is raw text.

    Raises:
        CorpusError: It is a folder in no format, or a file that is no text.
    """
    known = formats()
    if path.is_dir():
        return detect_format(path)
    suffix = _suffix(path)
    is_file = path.is_file()  # what a pipe gives can be read only once
    if is_file and (found := recognize(path)):
        return found
    if suffix not in RAW:
        if named := [each for each in known.values() if each.readable and suffix in each.suffixes]:
            return named[0]
    elif is_file and is_columns(path):
        return known["conll"]
    if is_file:
        check_raw_text(path)
    return known["text"]


def check_raw_text(path: Path) -> None:
    """Check that a file may be raw text, for a caller that takes it for that.

    Raises:
        CorpusError: By its first bytes, or by its name, it is something else.
    """
    if what := no_text(read_head(path, HEAD_SIZE)) or by_suffix(path):
        raise CorpusError(f"this looks like {_remedy(what)}", path)


def format_for_writing(path: Path) -> Format:
    """Find the format to write from the name of a file or folder, which need not exist.

    Raises:
        CorpusError: The name's suffix belongs to something that is not a format, or to one that is only read.
    """
    known = formats()
    suffix = path.suffix.lower()
    for each in known.values():
        if suffix in each.suffixes and each.writable:
            return each
    if path.is_dir() or (not suffix and not path.exists()):
        return known["brat"]
    if suffix == ".gz":
        raise CorpusError("files are written uncompressed: leave .gz out, and compress it afterwards", path)
    if what := by_suffix(path):
        raise CorpusError(f"by its name this is {_remedy(what)}", path)
    if read := [name for name, each in known.items() if suffix in each.suffixes]:
        message = f"by its name this is {read[0]}, which is read and not written: name another format with --to"
        raise CorpusError(message, path)
    return known[_DEFAULT]


def _remedy(what: str) -> str:
    if ":" in what:  # the remedy is in it
        return f"{what} (`nertool formats` lists what can be read)"
    return (
        f"{what}, which is not a format of nertool: use one of those that `nertool formats` lists; if it is in "
        "one of them, name that with --from or --to (in a config: corpus.format)"
    )


def _suffix(path: Path) -> str:
    """Return the suffix of a name, which gzip may have lengthened."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def _as_text(head: bytes) -> str | None:
    try:
        # The last character may be incomplete.
        return codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return None


@cache
def _built_in(name: str) -> Format:
    module, _, attribute = _BUILT_IN[name].partition(":")
    with no_fork():
        made: Format = getattr(import_module(module), attribute)()
    return made


@cache
def _plugins() -> dict[str, Format]:
    result: dict[str, Format] = {}
    for entry in entry_points(group=_GROUP):
        place = f"the entry point {entry.name!r} of {_GROUP}"
        try:
            with no_fork():
                made = entry.load()()
        except Exception as problem:
            raise ConfigError(f"{place} cannot be loaded: {problem}") from problem
        if not isinstance(made, Format):
            raise ConfigError(f"{place} is not a subclass of Format")
        if made.name in _BUILT_IN or made.name in result:
            raise ConfigError(f"{place}: there is a format {made.name!r} already")
        result[made.name] = made
    return result
