"""Reading and writing sentences in columns, one token to a line, as CoNLL files have them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import repeat
from pathlib import Path
from typing import IO, Any, Literal, cast

from nertool.errors import CorpusError
from nertool.formats.columns import (
    DOCUMENT_MARK,
    Interned,
    Layout,
    decode_lines,
    find_columns,
    group_sentences,
    shorten,
)
from nertool.formats.labels import LabelledSentences, settle
from nertool.formats.opening import open_bytes
from nertool.text.schemes import Scheme

_MOST_FORMS = 100_000  # what `iterate_sentences` remembers, for a stream need never end
_WHAT = "a file with one token and its label to a line"


def iterate_sentences(
    source: str | Path | Iterable[Any], *, columns: Sequence[str] | None = None, strip: str | None = None
) -> Iterator[list[str]]:
    """Read the tokens alone, one sentence at a time, in memory that does not grow with the file.

    Args:
        source: A file (plain or gzip), or lines of text or of UTF-8 bytes, such as an open stream.
        columns: The columns' names from left to right, one of them "token"; the first holds it by default.
            Columns right of the token's may be missing.
        strip: A regular expression; what it matches is removed from each token that has more than that.

    Yields:
        The tokens of each sentence.

    Raises:
        CorpusError: The file cannot be read; a stream without a sentence is no error.
    """
    return (tokens for _, tokens in iterate_documents(source, columns=columns, strip=strip))


def iterate_documents(
    source: str | Path | Iterable[Any],
    *,
    columns: Sequence[str] | None = None,
    strip: str | None = None,
    name: str | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """As `iterate_sentences`, with the document of each sentence.

    Args:
        source: As there.
        columns: As there.
        strip: As there.
        name: What errors call the source where it is no file.

    Yields:
        The number of document marks met so far (0: none), and the tokens of each sentence.
    """
    document = 0
    is_file = isinstance(source, str | Path)
    path = Path(cast(str, source)) if is_file else Path(name) if name is not None else None
    layout = find_columns(columns, None, path)
    forms = Interned(strip, path)
    with open_bytes(cast(Path, path), _WHAT) if is_file else nullcontext(cast(Iterable[Any], source)) as stream:
        for new_document, start, rows in group_sentences(decode_lines(stream, path), layout):
            if len(forms) > _MOST_FORMS:
                forms = Interned(strip, path)
            document += new_document
            yield document, _tokens(rows, start, layout, forms)


def _tokens(rows: list[list[str]], start: int, layout: Layout, forms: Interned) -> list[str]:
    tokens = [forms[row[layout.token]] for row in rows]
    if "" in tokens:
        message = "the token is empty; expected a token in each line of a sentence"
        raise CorpusError(message, layout.path, start + tokens.index(""))
    return tokens


def read_conll(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    label: str = "label",
    scheme: Scheme | None = None,
    target: Scheme | None = None,
    stray: Literal["repair", "refuse"] = "repair",
    strip: str | None = None,
    partial: bool = False,
) -> LabelledSentences:
    """Read a labelled corpus.

    Columns are separated by tabs where a line has one, else by runs of spaces. Lines that are empty or blank
    end a sentence. A `-DOCSTART-` line and the comment `# newdoc` begin a document; neither they nor other
    CoNLL-U comments are sentences.

    Args:
        path: The file, UTF-8, plain or gzip.
        columns: The columns' names from left to right, one of them "token"; lines may have more columns. By
            default the token is the first and the label the last, and every line must have equally many.
        label: Which column holds the label.
        scheme: The scheme of the file's labels; found from the labels when None.
        target: The scheme to convert the labels to; None keeps the file's.
        stray: Whether labels that the scheme does not allow where they stand are repaired, by the reading
            that conlleval gives them, or refused.
        strip: A regular expression; what it matches is removed from each token that has more than that.
            Weibo NER writes a character and its place in the word: `(?<=.)[0-9]+$`.
        partial: Whether sentences stay of which some tokens have no label (? or - in schemes of spans).

    Raises:
        CorpusError: The file cannot be read, has no sentence, a line with too few columns, a label that is
            none of the scheme or, under `stray="refuse"`, a stray label.
    """
    path = Path(path)
    layout = find_columns(columns, label, path)
    forms, known = Interned(strip, path), Interned(None, path)
    tokens: list[list[str]] = []
    labels: list[list[str]] = []
    documents: list[int] = []
    starts = array("q")
    document = 0
    with open_bytes(path, _WHAT) as stream:
        for new_document, start, rows in group_sentences(decode_lines(stream, path), layout):
            document += new_document and bool(tokens)
            tokens.append(_tokens(rows, start, layout, forms))
            labels.append(_labels(rows, start, layout, known))
            documents.append(document)
            starts.append(start)
    if not tokens:
        message = "there is no sentence in it; expected one token to a line, with its label in the same line"
        raise CorpusError(message, path)
    return settle(
        tokens, labels, documents, starts, path, scheme=scheme, target=target, stray=stray, partial=partial
    )


def _labels(rows: list[list[str]], start: int, layout: Layout, known: Interned) -> list[str]:
    labels = [known[row[layout.label]] for row in rows]
    if "" in labels:
        message = "the label is empty; expected one, or ? where it is not known"
        raise CorpusError(message, layout.path, start + labels.index(""))
    return labels


def _check_writable(text: str) -> None:
    if text.strip(" ") in ("", DOCUMENT_MARK) or text[0] == " " or text[-1] == " " or "\t" in text:
        raise CorpusError(f"{shorten(text)} cannot be written: it would not be read back as it is")
    if "\n" in text or "\r" in text:
        raise CorpusError(f"{shorten(text)} cannot be written: a token must stand in one line")


def write_conll(
    target: str | Path | IO[str],
    sentences: Iterable[tuple[Sequence[str], Sequence[str]]],
    documents: Iterable[int | None] | None = None,
) -> None:
    """Write sentences as `read_conll` reads them: a token and its label to a line.

    A space parts the two, or a tab where the token or the label has a space in it. When the first line has a
    tab every line has one; lines before it that begin with # do in any case.

    Args:
        target: The file to write, or an open stream of text.
        sentences: The tokens and the labels of each sentence.
        documents: For each sentence the index of its document; a `-DOCSTART-` line begins each document but
            one of index None.

    Raises:
        CorpusError: A token or label would not be read back as it is: it is empty, begins or ends with a
            space, has a tab or a line end in it, or is the document mark; or a sentence has more tokens than
            labels or fewer (what came before is written by then); or the file cannot be opened.
        ValueError: There are more documents than sentences or fewer.
    """
    if isinstance(target, str | Path):
        try:
            opened = Path(target).open("w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed below
        except OSError as error:
            raise CorpusError(f"cannot be written: {error.strerror or error}", target) from None
        with opened as stream:
            write_conll(stream, sentences, documents)
        return
    # The first line that cannot be a comment tells a reader whether # without a tab begins one.
    tabs: bool | None = None
    before: int | None = None
    numbers = repeat(None) if documents is None else documents
    for (tokens, labels), document in zip(sentences, numbers, strict=documents is not None):
        if document != before:
            target.write(f"{DOCUMENT_MARK} O\n\n")
            before = document
        if len(tokens) != len(labels):
            raise CorpusError(f"a sentence has {len(tokens)} tokens and {len(labels)} labels")
        lines = []
        for token, label in zip(tokens, labels, strict=True):
            _check_writable(token)
            _check_writable(label)
            tab = " " in token or " " in label
            if tabs is None and not token.startswith("#"):
                tabs = tab
            lines.append(f"{token} {label}\n" if tabs is False and not tab else f"{token}\t{label}\n")
        try:
            target.write("".join(lines) + "\n")
        except UnicodeEncodeError as problem:
            half = problem.object[problem.start : problem.end]
            raise CorpusError(f"{shorten(half)} cannot be written: {problem.reason}") from None
