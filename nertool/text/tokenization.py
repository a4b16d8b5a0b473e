"""Tokenization: from raw text to tokens and sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, NamedTuple

from nertool.errors import ConfigError, CorpusError
from nertool.forking import no_fork
from nertool.text.document import Document

LONGEST_TEXT = 10_000_000
"""Characters of a text."""

MOST_TOKENS = 5_000_000
"""Tokens of a text. Tagging such a text takes 2 GB."""

STRINGS_KEPT = 50_000
_AT_ONCE = 20_000  # characters in one of spaCy's Docs
_LAST_WHITESPACE = re.compile(r"(?s:.*)(?<=\s)(?=\S)()")
_LONG_WORD = re.compile(r"\S{301,}")
# Of a long word; not within letters and digits.
_PART = re.compile(r"\S{1,100}\w*")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"\S+")


class Tokens(NamedTuple):
    """What a tokenizer finds in a text.

    Attributes:
        offsets: Start and end of each token in characters; no token is whitespace.
        sentence_starts: Index of the first token of each sentence.
    """

    offsets: list[tuple[int, int]]
    sentence_starts: list[int]


Tokenizer = Callable[[str], Tokens]


def refuse_long(text: str, path: str | Path | None = None, line: int | None = None) -> None:
    """Refuse a text that there would not be enough memory for.

    Args:
        text: Any.
        path: Where it was read.
        line: The line there.

    Raises:
        CorpusError: It is longer than `LONGEST_TEXT`.
    """
    if len(text) > LONGEST_TEXT:
        raise CorpusError(
            f"a text of {len(text):,} characters; at most {LONGEST_TEXT:,} are taken as one text: split it",
            path,
            line,
        )


def tokenize(text: str, tokenizer: Tokenizer) -> Document:
    """Make a document of a text."""
    offsets, starts = tokenizer(text)
    tokens = tuple(text[start:end] for start, end in offsets)
    return Document(tokens, text, tuple(offsets), tuple(starts))


class _Pipeline(NamedTuple):
    """What is taken of one of spaCy's pipelines.

    Attributes:
        tokenizer: From a text to a Doc.
        by_rules: Whether it is spaCy's own.
        stops: What ends sentences, by spaCy's numbers of strings.
        strings: Every word that it has met.
        most_strings: With more of them a new pipeline is built.
    """

    tokenizer: Callable[[str], Any]
    by_rules: bool
    stops: frozenset[int]
    strings: Sized
    most_strings: int

    @classmethod
    def build(cls, language: str) -> _Pipeline:
        with no_fork():  # the first time this imports a lot
            import spacy
            from spacy.tokenizer import Tokenizer as RuleTokenizer

            try:
                pipeline = spacy.blank(language)
                sentencizer: Any = pipeline.add_pipe("sentencizer")
            except (ImportError, ValueError, AttributeError) as problem:  # the last for other modules of spaCy
                reason = " ".join(str(problem).split())
                raise ConfigError(f"language {language!r}: spaCy cannot tokenize it: {reason}") from None
            strings = pipeline.vocab.strings
            stops = frozenset(map(strings.add, sentencizer.punct_chars))
            by_rules = isinstance(pipeline.tokenizer, RuleTokenizer)
            return cls(pipeline.tokenizer, by_rules, stops, strings, len(strings) + STRINGS_KEPT)


class SpacyTokenizer:
    """Tokenizes by spaCy's rules for a language, with sentences by spaCy's sentencizer. Threads may share one.

    A word of more than 300 characters is tokenized in parts of about a hundred characters, because spaCy's time
    grows with the square of a word's length.

    Args:
        language: A spaCy code, such as "en".
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._pipeline: _Pipeline | None = None

    def __call__(self, text: str) -> Tokens:
        """Tokenize a text; tokens of whitespace are left out.

        Raises:
            ConfigError: spaCy has no such language, or lacks a package for it.
            CorpusError: The text is longer than `LONGEST_TEXT`, or has more tokens than `MOST_TOKENS`.
        """
        refuse_long(text)
        # spaCy refuses lone surrogates; a stand-in of the same length keeps the offsets.
        clean = _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
        offsets: list[tuple[int, int]] = []
        ends: list[int] = []
        stopped = False  # whether the sentence has had its full stop, which quotes may follow
        for start, end in self._stretches(clean):
            pipeline = self._ready_pipeline()
            doc = pipeline.tokenizer(clean[start:end])
            columns = (
                doc.to_array(["IDX", "LENGTH", "IS_SPACE", "IS_PUNCT", "ORTH"]).reshape(len(doc), 5).T.tolist()
            )
            for place, length, space, punctuation, orth in zip(*columns, strict=True):
                # The rule of spaCy's sentencizer, which cannot continue from one Doc to the next.
                if orth in pipeline.stops:
                    stopped = True
                elif stopped and not punctuation:
                    stopped = False
                    if offsets and (not ends or ends[-1] < len(offsets)):
                        ends.append(len(offsets))
                if not space:
                    offsets.append((start + place, start + place + length))
            if len(offsets) > MOST_TOKENS:
                raise CorpusError(f"a text of more than {MOST_TOKENS:,} tokens: split it")
        return Tokens(offsets, [0, *(end for end in ends if end < len(offsets))] if offsets else [])

    def _stretches(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield stretches that can be tokenized apart: a Doc takes much memory, and a long word much time."""
        # spaCy removes prefixes and suffixes one by one, and looks at all of the rest each time.
        long_words = self._ready_pipeline().by_rules
        start = 0
        while start < len(text):
            end = min(start + _AT_ONCE, len(text))
            if end < len(text):
                whitespace = _LAST_WHITESPACE.match(text, start + _AT_ONCE // 2, end)
                end = whitespace.end(1) if whitespace else end
            position = start
            if long_words:
                for word in _LONG_WORD.finditer(text, start, end):
                    if position < word.start():
                        yield position, word.start()
                    yield from (part.span() for part in _PART.finditer(text, *word.span()))
                    position = word.end()
            if position < end:
                yield position, end
            start = end

    def _ready_pipeline(self) -> _Pipeline:
        pipeline = self._pipeline
        # spaCy keeps every word it has met: a new pipeline now and then bounds the memory of an endless stream.
        if pipeline is None or len(pipeline.strings) > pipeline.most_strings:
            # Other threads, and this one after an interrupt, see a pipeline that is complete, or the one before.
            pipeline = self._pipeline = _Pipeline.build(self.language)
        return pipeline


def split_whitespace(text: str) -> Tokens:
    """Tokenize text that is tokenized already: tokens are separated by whitespace, sentences by line ends.

    Raises:
        CorpusError: The text is longer than `LONGEST_TEXT`.
    """
    refuse_long(text)
    offsets: list[tuple[int, int]] = []
    starts: list[int] = []
    position = 0
    for line in text.split("\n"):
        tokens = [(position + match.start(), position + match.end()) for match in _TOKEN.finditer(line)]
        if tokens:
            starts.append(len(offsets))
        offsets += tokens
        position += len(line) + 1
    return Tokens(offsets, starts)
