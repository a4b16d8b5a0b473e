"""Raw text cut into tokens and sentences."""

from __future__ import annotations

import re
from typing import Any

from nertool.errors import ConfigError

STRINGS_KEPT = 50_000
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"\S+")

Cut = tuple[list[tuple[int, int]], list[int]]


class Rules:
    """Cuts by spaCy's rules for a language. Several threads may share one.

    Args:
        language: A spaCy code.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._pipeline: Any = None
        self._strings = 0

    def __call__(self, text: str) -> Cut:
        """Where each token that is not blank begins and ends, and where each sentence ends among them.

        Raises:
            ConfigError: spaCy has no such language, or lacks a package for it.
        """
        pipeline = self._spacy()
        # spaCy refuses lone surrogates; a stand-in of the same length keeps the offsets.
        doc = pipeline.tokenizer(_LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text))
        for _, pipe in pipeline.pipeline:
            doc = pipe(doc)
        offsets: list[tuple[int, int]] = []
        ends: list[int] = []
        for token in doc:
            if token.is_sent_start and offsets and (not ends or ends[-1] < len(offsets)):
                ends.append(len(offsets))
            if not token.is_space:
                offsets.append((token.idx, token.idx + len(token)))
        if offsets and (not ends or ends[-1] < len(offsets)):
            ends.append(len(offsets))
        return offsets, ends

    def _spacy(self) -> Any:
        # spaCy keeps every word that it met for ever; a new pipeline is how a stream without end forgets them.
        if self._pipeline is None or len(self._pipeline.vocab.strings) > self._strings + STRINGS_KEPT:
            import spacy

            try:
                pipeline = spacy.blank(self.language)
                pipeline.add_pipe("sentencizer")
            except (ImportError, ValueError, AttributeError) as problem:  # the last where it is another module
                reason = " ".join(str(problem).split())
                raise ConfigError(f"language {self.language!r}: spaCy cannot tokenise it: {reason}") from None
            # Another thread may be waiting for it, so it is not shown before it is whole.
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
