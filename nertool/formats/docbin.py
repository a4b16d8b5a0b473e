"""spaCy's DocBin (`.spacy` files) as labelled sentences, and tagged text as a DocBin."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from nertool.config.schema import CorpusConfig
from nertool.errors import CorpusError
from nertool.formats.columns import Interned
from nertool.formats.labels import UNKNOWN, LabelledSentences, settle
from nertool.formats.opening import open_bytes
from nertool.formats.spacy_docs import doc_sentences
from nertool.text.schemes import OUTSIDE, Scheme

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

SUFFIX = ".spacy"
SCORES = "nertool"  # the span group that entities stand in with their scores, as the spaCy component has it
_PREFIXES = {1: "I-", 2: OUTSIDE, 3: "B-"}  # by the value of ENT_IOB; 0 is "nobody knows"


class TaggedText(NamedTuple):
    """What becomes a Doc.

    Attributes:
        text: The characters.
        offsets: Where each token begins and ends; between them is nothing but white space.
        sentences: Where each sentence ends among the tokens.
        entities: Begin and end in characters, type and score of each.
        tags: A tag for each token; None where there are entities instead.
    """

    text: str
    offsets: Sequence[tuple[int, int]]
    sentences: Sequence[int]
    entities: Sequence[tuple[int, int, str, float]]
    tags: Sequence[str] | None


def read_docbin(
    path: str | Path, config: CorpusConfig, target: Scheme | None = None, *, partial: bool = False
) -> LabelledSentences:
    """Reads the entities of a `.spacy` file, a document to a Doc.

    Sentences are those of the Docs, or whole Docs where these have none. A token that is neither in an entity
    nor known to be outside has no label.

    Args:
        path: The file.
        config: What to strip from tokens, and what to do with stray labels.
        target: The scheme of the labels that are wanted; None: IOB2.
        partial: Whether sentences stay of which some tokens have no label.

    Raises:
        CorpusError: The file is no DocBin, no sentence has labels, or plain tags are wanted.
    """
    if target is Scheme.PLAIN:
        raise CorpusError("a DocBin is read for its entities; tags of tokens need a file in columns", path)
    path = Path(path)
    forms = Interned(config.strip, path)
    tokens: list[list[str]] = []
    labels: list[list[str]] = []
    documents: list[int] = []
    starts = array("q")
    for number, doc in enumerate(read_docs(path)):
        strings = doc.vocab.strings
        table = doc.to_array(["ENT_IOB", "ENT_TYPE"]).reshape(len(doc), 2)
        for words, places in zip(*doc_sentences(doc), strict=True):
            rows = table[places]
            tokens.append([forms[word] for word in words])
            labels.append([_PREFIXES[iob] + strings[kind] if iob else UNKNOWN for iob, kind in rows.tolist()])
            documents.append(number)
            starts.append(number + 1)
    if not tokens:
        raise CorpusError("there is no sentence in it", path)
    # Numbered anew: a Doc may have had no sentence with labels.
    numbers = {number: place for place, number in enumerate(dict.fromkeys(documents))}
    return settle(
        tokens,
        labels,
        [numbers[number] for number in documents],
        starts,
        path,
        scheme=Scheme.IOB2,
        target=target,
        stray=config.stray,
        partial=partial,
        unit="row",
    )


def write_docbin(target: IO[bytes], texts: Iterable[TaggedText]) -> None:
    """Writes texts as a DocBin, a Doc for each: tokens, sentences, entities or tags, and scores.

    The Docs are held in memory, packed, until the last one is there, for the format begins with their number.

    Args:
        target: The file.
        texts: As they come.
    """
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    vocab = Vocab()
    packed = DocBin(attrs=["ENT_IOB", "ENT_TYPE", "SENT_START", "TAG"])
    for text in texts:
        packed.add(_make_doc(vocab, text))
    target.write(packed.to_bytes())


def read_docs(path: Path) -> Iterator[Doc]:
    """The Docs of a `.spacy` file.

    Raises:
        CorpusError: It is no DocBin.
    """
    from spacy.lang.lex_attrs import LEX_ATTRS
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    with open_bytes(path, "a DocBin") as stream:
        content = stream.read()
    try:
        yield from DocBin().from_bytes(content).get_docs(Vocab(lex_attr_getters=LEX_ATTRS))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as problem:  # as spaCy meets the damage
        reason = " ".join(str(problem).split())
        raise CorpusError(f"not a DocBin, or a damaged one ({reason})", path) from None


def _make_doc(vocab: Vocab, tagged: TaggedText) -> Doc:
    from spacy.tokens import Doc, Span, SpanGroup

    words: list[str] = []
    spaces: list[bool] = []
    places: list[int] = []  # of the tokens that were given, among those of the Doc
    end = 0
    for start, after in tagged.offsets:
        _fill(tagged.text[end:start], words, spaces)
        places.append(len(words))
        words.append(tagged.text[start:after])
        spaces.append(False)
        end = after
    _fill(tagged.text[end:], words, spaces)
    first = {places[number] for number in (0, *tagged.sentences) if number < len(places)}
    doc = Doc(vocab, words=words, spaces=spaces, sent_starts=[place in first for place in range(len(words))])
    if tagged.tags is not None:
        for place, tag in zip(places, tagged.tags, strict=True):
            doc[place].tag_ = tag
        return doc
    begins = {start: place for place, (start, _) in zip(places, tagged.offsets, strict=True)}
    ends = {after: place + 1 for place, (_, after) in zip(places, tagged.offsets, strict=True)}
    entities = [Span(doc, begins[start], ends[after], label=kind) for start, after, kind, _ in tagged.entities]
    doc.set_ents(entities)
    scores = [score for *_, score in tagged.entities]
    doc.spans[SCORES] = SpanGroup(doc, name=SCORES, attrs={"scores": scores}, spans=entities)
    return doc


def _fill(gap: str, words: list[str], spaces: list[bool]) -> None:
    """Adds white space as spaCy has it: one blank belongs to the token before, the rest is a token itself."""
    if words and gap.startswith(" "):
        spaces[-1] = True
        gap = gap[1:]
    if gap:
        words.append(gap)
        spaces.append(False)
