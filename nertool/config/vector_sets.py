"""Word vectors that are known by name: what they are, where they come from, and where fetched ones are."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from nertool.config.files import cache_folder
from nertool.errors import ConfigError

MIRROR = "NERTOOL_VECTORS_MIRROR"
"""Environment variable: an address or a folder that has the archives under their names."""

PIPELINE = "spacy:"
"""What the name of an installed spaCy pipeline has before it."""

# Of the whole archive, which has four files. Many who use it have published its size and hash, for example
# Embeddings.jl and GluonNLP.
_GLOVE = "https://nlp.stanford.edu/data/glove.6B.zip"
_GLOVE_BYTES = 862_182_613
_GLOVE_SHA256 = "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb"
_CRAWL = "https://dl.fbaipublicfiles.com/fasttext/vectors-crawl"
# Of the 157 languages of fastText, those whose text spaCy's rules tokenize: its code, and that of spaCy if it is
# another.
_LANGUAGES = """
    af am ar az bg bn bo ca cs da de el en es et eu fa fi fr ga gd gu he hi hr hsb ht hu hy id is it ja kn ko ky la
    lb lt lv mk ml mr ms ne nl nn no pl pt ro ru sa si sk sl sq sr sv ta te th tl tr tt uk ur vi yo zh
"""
_SPACY_CODES = {"no": "nb"}
_CRAWL_BYTES = {"de": 1_278_030_050, "en": 1_325_960_915, "es": 1_285_580_896}  # as others found them
# How many of the most frequent words serve well: `inputs.words.extra_rows` keeps fewer.
_ENOUGH = 200_000
_NAME = re.compile(r"(?P<name>[\w.-]+?)(?::(?P<top>[1-9]\d{0,8}))?", re.ASCII)


@dataclass(frozen=True)
class VectorSet:
    """Word vectors that have a name.

    Attributes:
        name: The name.
        language: Code of the language, as spaCy has it.
        dimensions: Size of a vector.
        url: Of the archive that holds them.
        member: The file in the archive, where it has several.
        words: How many there are; None: the file says it.
        size: Of the archive in bytes; None: nobody has published it.
        sha256: Of the archive; None: nobody whom one could trust has published it.
        licence: Under which they are published.
        source: Who made them, of what.
    """

    name: str
    language: str
    dimensions: int
    url: str
    member: str | None
    words: int | None
    size: int | None
    sha256: str | None
    licence: str
    source: str

    @property
    def archive(self) -> str:
        """Name of the archive."""
        return urlsplit(self.url).path.rpartition("/")[2]


class Named(NamedTuple):
    """Vectors as somebody names them.

    Attributes:
        set: Which ones.
        top: How many of the first rows, which are those of the most frequent words; None: all.
    """

    set: VectorSet
    top: int | None = None

    def __str__(self) -> str:
        return self.set.name if self.top is None else f"{self.set.name}:{self.top}"

    @property
    def path(self) -> Path:
        """Where they are when they have been fetched as they are named."""
        part = "" if self.top is None else f".first-{self.top}"
        return vectors_folder() / f"{self.set.name}{part}.bin"


def _glove(dimensions: int) -> VectorSet:
    return VectorSet(
        f"glove-{dimensions}",
        "en",
        dimensions,
        _GLOVE,
        f"glove.6B.{dimensions}d.txt",
        400_000,
        _GLOVE_BYTES,
        _GLOVE_SHA256,
        "PDDL 1.0",
        "GloVe 6B: Wikipedia 2014, Gigaword 5; lower case",
    )


def _crawl(code: str) -> VectorSet:
    return VectorSet(
        f"cc.{code}.300",
        _SPACY_CODES.get(code, code),
        300,
        f"{_CRAWL}/cc.{code}.300.vec.gz",
        None,
        None,
        _CRAWL_BYTES.get(code),
        None,
        "CC BY-SA 3.0",
        "fastText: Common Crawl, Wikipedia",
    )


VECTOR_SETS = {each.name: each for each in (*map(_glove, (50, 100, 200, 300)), *map(_crawl, _LANGUAGES.split()))}
"""All of them, by name."""


def vectors_folder() -> Path:
    """Return the folder of fetched vectors."""
    return cache_folder() / "vectors"


def parse_name(text: str) -> Named | None:
    """Read a name such as `glove-100`, or `glove-100:50000` for the first rows; None for anything else."""
    match = _NAME.fullmatch(text)
    if match is None or match["name"] not in VECTOR_SETS:
        return None
    return Named(VECTOR_SETS[match["name"]], int(match["top"]) if match["top"] else None)


def find_name(text: str) -> Named:
    """Read a name, which has to be one.

    Raises:
        ConfigError: It is none; says which one may be meant.
    """
    named = parse_name(text)
    if named is None:
        near = meant(text)
        hint = f" Did you mean {near}?" if near else ""
        raise ConfigError(f"no vectors are called {text!r}; `nertool vectors` lists the names.{hint}")
    return named


def meant(text: str) -> str | None:
    """Return the name that may be meant by a name or a file's name that is not there."""
    plain = Path(text).name.lower()
    if glove := re.match(r"glove[._-]?(?:6b[._-]?)?(\d+)d?\b", plain):
        name = f"glove-{glove[1]}"
    elif crawl := re.match(r"cc\.([a-z]+)\.300", plain):
        name = f"cc.{crawl[1]}.300"
    else:
        name = next(iter(difflib.get_close_matches(plain, VECTOR_SETS, n=1, cutoff=0.75)), "")
    return name if name in VECTOR_SETS else None


def stored(named: Named) -> Path | None:
    """Find fetched vectors: as they are named, or others of the same set that have at least these rows."""
    if named.path.is_file():
        return named.path
    if named.top is None:
        return None
    more = [each for each in fetched(named.set) if each.top is None or each.top > named.top]
    return min(more, key=lambda each: each.top or float("inf")).path if more else None


def fetched(vectors: VectorSet) -> list[Named]:
    """Return what has been fetched of a set: whole, and parts."""
    found = []
    try:
        names = sorted(path.name for path in vectors_folder().glob(f"{vectors.name}.*"))
    except OSError:
        return []
    for name in names:
        match = re.fullmatch(re.escape(vectors.name) + r"(?:\.first-([1-9]\d{0,8}))?\.bin", name)
        if match:
            found.append(Named(vectors, int(match[1]) if match[1] else None))
    return found


def not_fetched(named: Named) -> str:
    """Say that vectors are not here, and how to get them."""
    message = f"the vectors {named} have not been fetched: `nertool vectors fetch {named}` gets them"
    if named.set.size is not None:
        message += f" ({megabytes(named.set.size)})"
    here = [str(each) for each in fetched(named.set)]
    return message + (f"; {' and '.join(here)} is here" if here else "")


def locate(names: Iterable[str]) -> tuple[set[str], list[str]]:
    """Tell names of vectors from those of files.

    Args:
        names: As in a config.

    Returns:
        Those that are names of vectors, and what is wrong with them: what has not been fetched or installed.
    """
    names = list(names)
    known = {name: named for name in names if (named := parse_name(name)) is not None}
    problems = [not_fetched(named) for named in known.values() if stored(named) is None]
    pipelines = [name for name in names if name.startswith(PIPELINE)]
    problems += [
        f"{name}: no spaCy pipeline of this name is installed; `python -m spacy download "
        f"{name.removeprefix(PIPELINE)}` gets those of spaCy"
        for name in pipelines
        if pipeline_folder(name) is None
    ]
    return {*known, *pipelines}, problems


def pipeline_folder(name: str) -> Path | None:
    """Find an installed spaCy pipeline, without loading it.

    Args:
        name: Such as `spacy:en_core_web_md`.

    Returns:
        Its folder, which has the folder `vocab`; None if it is not installed, and for other names.
    """
    package = name.removeprefix(PIPELINE)
    if package == name or not package.isidentifier():
        return None
    try:
        spec = find_spec(package)
    except ValueError:  # a module without any
        return None
    roots = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    # A package has its pipeline in a folder with its version.
    inside = (folder for root in roots for folder in (root, *sorted(root.iterdir())))
    return next((folder for folder in inside if (folder / "vocab").is_dir()), None)


def recommended(language: str) -> Named | None:
    """Return vectors to begin with for a language; None where there are none."""
    if language == "en":
        return Named(VECTOR_SETS["glove-100"])
    found = next((each for each in VECTOR_SETS.values() if each.language == language), None)
    return None if found is None else Named(found, _ENOUGH)


def mirror() -> str | None:
    """Return the address or folder that stands in for where vectors come from."""
    return os.environ.get(MIRROR) or None


def megabytes(size: int) -> str:
    """Format a number of bytes as MB or GB, of a thousand each."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.{0 if size >= 1e7 else 1}f} MB"
