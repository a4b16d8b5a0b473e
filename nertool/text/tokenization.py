"""Raw text cut into tokens and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from nertool.errors import ConfigError

STRINGS_KEPT = 50_000
_AT_ONCE = 20_000  # characters that become one of spaCy's Docs
_LAST_BLANKS = re.compile(r"(?s:.*)(?<=\s)(?=\S)()")
_LONG_WORD = re.compile(r"\S{301,}")
# Of a long word; not within letters and digits.
_PART = re.compile(r"\S{1,100}\w*")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"\S+")

Cut = tuple[list[tuple[int, int]], list[int]]


class Rules:
    """Cuts by spaCy's rules for a language. Several threads may share one.

    Of a word of more than 300 characters the parts are cut by themselves, some hundred characters each, for time
    would grow with the square of its length.

    Args:
        language: A spaCy code.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._pipeline: Any = None
        self._strings = 0
        self._stops: frozenset[int] = frozenset()

    def __call__(self, text: str) -> Cut:
        """Where each token that is not blank begins and ends, and where each sentence ends among them.

        Raises:
            ConfigError: spaCy has no such language, or lacks a package for it.
        """
        # spaCy refuses lone surrogates; a stand-in of the same length keeps the offsets.
        clean = _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
        offsets: list[tuple[int, int]] = []
        ends: list[int] = []
        stopped = False  # whether a sentence has come to its full stop, after which quotes may follow
        for start, end in self._stretches(clean):
            doc = self._spacy().tokenizer(clean[start:end])
            columns = (
                doc.to_array(["IDX", "LENGTH", "IS_SPACE", "IS_PUNCT", "ORTH"]).reshape(len(doc), 5).T.tolist()
            )
            for place, length, space, punctuation, orth in zip(*columns, strict=True):
                # As spaCy's sentencizer has it, which cannot go on from one Doc to the next.
                if orth in self._stops:
                    stopped = True
                elif stopped and not punctuation:
                    stopped = False
                    if offsets and (not ends or ends[-1] < len(offsets)):
                        ends.append(len(offsets))
                if not space:
                    offsets.append((start + place, start + place + length))
        if offsets and (not ends or ends[-1] < len(offsets)):
            ends.append(len(offsets))
        return offsets, ends

    def _stretches(self, text: str) -> Iterator[tuple[int, int]]:
        """Cuts a text where it makes no difference, if it can be: a Doc takes much memory, a long word time."""
        from spacy.tokenizer import Tokenizer

        # spaCy takes prefixes and suffixes off a word one by one and looks at all of the rest each time.
        long_words = isinstance(self._spacy().tokenizer, Tokenizer)
        start = 0
        while start < len(text):
            end = min(start + _AT_ONCE, len(text))
            if end < len(text):
                blanks = _LAST_BLANKS.match(text, start + _AT_ONCE // 2, end)
                end = blanks.end(1) if blanks else end
            at = start
            if long_words:
                for word in _LONG_WORD.finditer(text, start, end):
                    if at < word.start():
                        yield at, word.start()
                    yield from (part.span() for part in _PART.finditer(text, *word.span()))
                    at = word.end()
            if at < end:
                yield at, end
            start = end

    def _spacy(self) -> Any:
        # spaCy keeps every word that it met for ever; a new pipeline is how a stream without end forgets them.
        if self._pipeline is None or len(self._pipeline.vocab.strings) > self._strings + STRINGS_KEPT:
            import spacy

            try:
                pipeline = spacy.blank(self.language)
                sentencizer: Any = pipeline.add_pipe("sentencizer")
            except (ImportError, ValueError, AttributeError) as problem:  # the last where it is another module
                reason = " ".join(str(problem).split())
                raise ConfigError(f"language {self.language!r}: spaCy cannot tokenise it: {reason}") from None
            # Another thread may be waiting for it, so it is not shown before it is whole.
            self._stops = frozenset(map(pipeline.vocab.strings.add, sentencizer.punct_chars))
            self._strings = len(pipeline.vocab.strings)
            self._pipeline = pipeline
        return self._pipeline


def at_blanks(text: str) -> Cut:
    """Cuts text that is tokenised already: tokens at white space, sentences at line ends."""
    offsets: list[tuple[int, int]] = []
    ends: list[int] = []
    start = 0
    for line in text.split("\n"):
        found = [(start + match.start(), start + match.end()) for match in _TOKEN.finditer(line)]
        offsets += found
        if found:
            ends.append(len(offsets))
        start += len(line) + 1
    return offsets, ends
