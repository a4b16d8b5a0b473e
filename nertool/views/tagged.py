"""What `nertool tag` reads and writes: lines in a format to results, and results to a format."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import repeat, tee
from pathlib import Path
from typing import IO

from rich.console import Console

from nertool.config.files import replaced_when_done
from nertool.formats.conll import iterate_documents, write_conll
from nertool.formats.docbin import TaggedText, write_docbin
from nertool.tagging import windows
from nertool.tagging.tagger import Tagged, Tagger
from nertool.text.schemes import Scheme
from nertool.views.console import coloured, html_page, marked

_BLANKS = re.compile("[ \\t\\r]+")


def tag_lines(tagger: Tagger, lines: Iterator[str], kind: str, name: str) -> Iterator[tuple[int | None, Tagged]]:
    """Tags an input.

    Args:
        tagger: What tags.
        lines: The input, without line ends.
        kind: "text", "conll" or "tokens".
        name: What errors call the input.

    Returns:
        The number of the document, where the input marks documents, and the result: for each line of text,
        or for each sentence.
    """
    if kind == "conll":
        corpus = tagger.model.config.corpus
        pairs = iterate_documents(lines, columns=corpus.columns, strip=corpus.strip, name=name)
        # The two copies are never further apart than the tagger reads ahead.
        numbered, bare = tee(pairs)
        results = tagger.tag_tokens(tokens for _, tokens in bare)
        return zip((number or None for number, _ in numbered), results, strict=False)
    if kind == "tokens":
        split = ([token for token in _BLANKS.split(line) if token] for line in lines)
        return zip(repeat(None), tagger.tag_tokens(split), strict=False)
    return zip(repeat(None), tagger.tag_texts(lines), strict=False)


def noting_cuts(
    numbered: Iterator[tuple[int | None, Tagged]], say: Callable[[str], None]
) -> Iterator[tuple[int | None, Tagged]]:
    """Passes results on, and says after the last one how many sentences were too long to be tagged whole."""
    count = 0
    for number, tagged in numbered:
        count += tagged.cut_sentences
        yield number, tagged
    if count:
        say(windows.note(count))


def write_file(numbered: Iterator[tuple[int | None, Tagged]], form: str, tagger: Tagger, path: Path) -> None:
    """Writes results to a file, which appears when it is whole; arguments as for `write_results`.

    A file can also have the form "spacy", which is a DocBin and no text.
    """
    with replaced_when_done(path) as raw:
        if form == "spacy":
            plain_tags = tagger.model.lexicon.scheme is Scheme.PLAIN
            write_docbin(raw, (_doc(tagged, plain_tags) for _, tagged in numbered))
            return
        with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as target:
            write_results(numbered, form, tagger, target)


def _doc(tagged: Tagged, plain_tags: bool) -> TaggedText:
    entities = [(entity.start, entity.end, entity.label, entity.score) for entity in tagged.entities]
    tags = tagged.labels if plain_tags else None
    return TaggedText(tagged.text, tagged.offsets, tagged.sentences, entities, tags)


def write_results(
    numbered: Iterator[tuple[int | None, Tagged]], form: str, tagger: Tagger, target: IO[str]
) -> None:
    """Writes what `tag_lines` gives, one result after another.

    Args:
        numbered: The results with their documents.
        form: "text", "conll", "jsonl" or "html".
        tagger: That they come from.
        target: A terminal gets colours where a file gets brackets.
    """
    if form == "conll":
        sentences, documents = tee(
            (number, tagged.tokens[start:end], tagged.labels[start:end])
            for number, tagged in numbered
            for start, end in zip([0, *tagged.sentences], tagged.sentences, strict=False)
        )
        write_conll(
            target, ((tokens, labels) for _, tokens, labels in sentences), (number for number, _, _ in documents)
        )
        return
    results = (tagged for _, tagged in numbered)
    plain_tags = tagger.model.lexicon.scheme is Scheme.PLAIN
    if form == "html":
        target.writelines(html_page(results, tagger.model.config.language))
    elif form == "jsonl":
        for tagged in results:
            target.write(json.dumps(tagged.to_json(), ensure_ascii=False) + "\n")
    elif target.isatty():
        console = Console(file=target, highlight=False)
        for tagged in results:
            console.print(coloured(tagged, plain_tags), soft_wrap=True)
    else:
        for tagged in results:
            target.write(marked(tagged, plain_tags) + "\n")
