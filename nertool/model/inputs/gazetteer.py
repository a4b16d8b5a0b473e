"""Lists of known phrases: where each token stands in a phrase, for each type of phrase.

Phrases are matched over tokens by spaCy's `PhraseMatcher`. A phrase is split at whitespace, and also as spaCy's
language-independent tokenizer splits it, so that "St. John's" matches text of either tokenization. Of matches of
one type that overlap the longest counts, of equally long ones the first. Types do not affect one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nertool.config.schema import GazetteerConfig
from nertool.data.encoding import Table
from nertool.errors import CorpusError
from nertool.formats.opening import open_lines
from nertool.model.inputs.base import Input, Resources, grown, names_of
from nertool.text.document import Document
from nertool.text.schemes import Span

if TYPE_CHECKING:
    from nertool.model.dropout import Noise
    from nertool.model.input_modules.gazetteer import GazetteerVectors

NONE, BEGIN, INSIDE, END, SINGLE = POSITIONS = range(5)

_SEPARATOR = "\n"  # stands between sentences; no token of a phrase contains it
_TOKENS_AT_ONCE = 20_000
_STRINGS = 200_000  # known to a vocabulary of spaCy before it is replaced

Phrases = dict[str, list[str]]


class Gazetteer(Input):
    """Phrases by type. They are part of a saved model, which does not need their files.

    Args:
        name: Of the entry.
        config: The entry.
        phrases: The phrases of each type.
    """

    Config = GazetteerConfig
    context_free = False

    def __init__(self, name: str, config: GazetteerConfig, phrases: Phrases) -> None:
        super().__init__(name, config)
        self.phrases = phrases
        self._matcher: Any = None
        self._vocabulary: Any = None

    @classmethod
    def fit(
        cls, name: str, config: GazetteerConfig, documents: Sequence[Document], resources: Resources
    ) -> Gazetteer:
        """Read the files.

        Raises:
            CorpusError: A file cannot be read, a line is none of a phrase, or there is no phrase.
        """
        phrases: dict[str, dict[str, None]] = {}
        for file in config.files:
            for phrase, type_ in read_phrases(Path(file)):
                phrases.setdefault(type_, {})[phrase] = None
        if not phrases:
            raise CorpusError(f"{', '.join(config.files)}: found no phrase; expected a phrase a line")
        return cls(name, config, {type_: list(own) for type_, own in phrases.items()})

    def grow(self, config: GazetteerConfig, documents: Sequence[Document], resources: Resources) -> Gazetteer:
        """Add the phrases and types of the config's files, if there are any."""
        if not config.files:
            return Gazetteer(self.name, config, self.phrases)
        more = self.fit(self.name, config, documents, resources).phrases
        types = grown(list(self.phrases), more)
        phrases = {type_: grown(self.phrases.get(type_, ()), more.get(type_, ())) for type_ in types}
        return Gazetteer(self.name, config, phrases)

    @classmethod
    def restore(cls, name: str, config: GazetteerConfig, state: Any) -> Gazetteer:
        """Make the input from pairs of a type and its phrases."""
        phrases = {type_: names_of(own) for type_, own in state}
        if len(phrases) != len(state) or not all(map(_is_phrase, chain(phrases, *phrases.values()))):
            raise ValueError("expected distinct types with their phrases")
        return cls(name, config, phrases)

    def state(self) -> list[tuple[str, list[str]]]:
        """Return pairs of a type and its phrases: the order of the types is that of the weights."""
        return list(self.phrases.items())

    def module(self, noise: Noise) -> GazetteerVectors:
        """Build the table."""
        from nertool.model.input_modules.gazetteer import GazetteerVectors

        return GazetteerVectors(len(self.phrases), self.config.dimensions, noise, self.config.dropout)

    def encode_documents(self, documents: Sequence[Document]) -> Table:
        """Say for each token and type where in a phrase the token stands, (tokens, types)."""
        sentences = [document.tokens[start:end] for document in documents for start, end in document.bounds]
        parts = [self._positions(part) for part in _parts(sentences)]
        return Table(np.concatenate([np.zeros((0, len(self.phrases)), np.int8), *parts]))

    def describe(self) -> str:
        """Describe the lists."""
        types = ", ".join(f"{type_} ({len(own):,})" for type_, own in self.phrases.items())
        return f"phrases: {types}, {self.config.dimensions} dimensions each"

    def _positions(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """Match sentences at once: positions in phrases, (tokens, types)."""
        words = list(chain.from_iterable(chain((_SEPARATOR,), tokens) for tokens in sentences))
        positions = np.zeros((len(words), len(self.phrases)), np.int8)
        for number, spans in enumerate(self._matches(words)):
            if not spans:
                continue
            begins, ends = (np.array([getattr(span, side) for span in spans]) for side in ("start", "end"))
            sizes = ends - begins
            inside = np.repeat(begins - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
            positions[inside, number] = INSIDE
            positions[ends - 1, number] = END
            positions[begins, number] = np.where(sizes == 1, SINGLE, BEGIN)
        counts = np.fromiter(map(len, sentences), np.int64, len(sentences))
        return np.delete(positions, np.cumsum(counts + 1) - (counts + 1), axis=0)

    def _matches(self, words: list[str]) -> list[list[Span]]:
        """Find the phrases of each type that count, in order."""
        from spacy.tokens import Doc
        from spacy.util import filter_spans

        if self._matcher is None:
            self._build()
        elif len(self._vocabulary.strings) > _STRINGS:
            self._vocabulary = _new_vocabulary()  # strings are compared by their hashes, so the matcher may stay
        names = self._matcher.vocab.strings
        numbers = {names[str(number)]: number for number in range(len(self.phrases))}
        spans: list[list[Span]] = [[] for _ in numbers]
        for key, start, end in self._matcher(Doc(self._vocabulary, words=self._normalized(words))):
            spans[numbers[key]].append(Span(start, end, ""))
        return [filter_spans(own) for own in spans]  # type: ignore[misc, arg-type]  # it takes any such spans

    def _build(self) -> None:
        import spacy
        from spacy.matcher import PhraseMatcher
        from spacy.tokens import Doc

        tokenizer = spacy.blank("xx").tokenizer
        vocabulary = _new_vocabulary()
        matcher = PhraseMatcher(vocabulary, attr="ORTH")
        for number, own in enumerate(self.phrases.values()):
            texts = self._normalized(own)
            tokenized = {tuple(text.split()) for text in texts}
            # The tokenizer is slow, and splits no letters.
            others = (text for text in texts if not text.replace(" ", "").isalpha())
            tokenized |= {tuple(token.text for token in tokenizer(text)) for text in others}
            matcher.add(str(number), [Doc(vocabulary, words=list(words)) for words in tokenized])
        self._matcher, self._vocabulary = matcher, _new_vocabulary()

    def _normalized(self, texts: list[str]) -> list[str]:
        if self.config.lowercase:
            texts = list(map(str.lower, texts))
        if "" in texts:  # spaCy refuses empty tokens
            texts = [text or _SEPARATOR for text in texts]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:  # halves of surrogate pairs, which spaCy cannot hold
            texts = [text.encode(errors="replace").decode() for text in texts]
        return texts


def read_phrases(path: Path) -> Iterator[tuple[str, str]]:
    """Read a file with a phrase a line, or a phrase, a tab and its type.

    Whitespace within a phrase counts as one space. Empty lines are skipped, and lines that begin with "# ", a
    number sign and a space. A phrase without a type has the name of the file, up to its first dot, as its type.

    Raises:
        CorpusError: The file cannot be read, or a line has an empty phrase or type, or more than one tab.
    """
    with open_lines(path, "a file with a phrase a line") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("# "):
                continue
            phrase, *types = (" ".join(part.split()) for part in line.split("\t"))
            if not phrase or len(types) > 1 or "" in types:
                raise CorpusError(
                    f"expected a phrase, or a phrase, a tab and its type; found {line!r}", path, number
                )
            yield phrase, types[0] if types else path.name.split(".")[0]


def _is_phrase(text: str) -> bool:
    return isinstance(text, str) and text != "" and text == " ".join(text.split())


def _new_vocabulary() -> Any:
    from spacy.vocab import Vocab

    return Vocab()


def _parts(sentences: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """Cut sentences into parts of about `_TOKENS_AT_ONCE` tokens."""
    part: list[Sequence[str]] = []
    count = 0
    for sentence in sentences:
        part.append(sentence)
        count += len(sentence)
        if count >= _TOKENS_AT_ONCE:
            yield part
            part, count = [], 0
    if part:
        yield part
