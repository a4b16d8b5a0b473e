"""spaCy's DocBin (`.spacy` files): a Doc for each document, with the whitespace between its tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate, groupby
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nertool.config.files import replaced_when_done
from nertool.errors import CorpusError
from nertool.formats.alignment import outside_of
from nertool.formats.columns import half_a_character
from nertool.formats.opening import read_whole, refuse_bomb
from nertool.formats.registry import Format, Holds, ReadOptions, Report, WriteOptions
from nertool.formats.spacy_docs import doc_sentences
from nertool.formats.streams import grouped, joined, stripped, watched, with_ids
from nertool.text.document import UNKNOWN, Document, Origin
from nertool.text.schemes import OUTSIDE, Scheme

if TYPE_CHECKING:
    from spacy.tokens import Doc
    from spacy.vocab import Vocab

SCORES = "nertool"  # the span group that entities are in with their scores, as the spaCy component has it
_PIECE = 2**20  # bytes
_COLUMNS = {"tag": "TAG", "pos": "POS"}
_INSIDE, _OUTSIDE, _BEGIN = 1, 2, 3  # values of ENT_IOB; 0 is "nobody knows"
_HOLDS: frozenset[Holds] = frozenset(
    {"text", "entities", "tags", "sentences", "documents", "scores", "unlabelled"}
)


class DocBinFormat(Format):
    """A Doc for each document.

    Sentences are those of the Docs, or whole Docs where these have none. A token that is neither in an entity nor
    known to be outside is unlabelled. Tokens of whitespace are not tokens here. The columns `tag` and `pos` are
    read where all tokens have them; with `scheme` plain the tags are the labels.
    """

    name = "spacy"
    description = "spaCy's DocBin: a Doc for each document"
    suffixes = (".spacy",)
    holds = _HOLDS

    def read(self, path: Path, options: ReadOptions, report: Report) -> Iterator[Document]:
        """Read a document from each Doc."""
        documents = (_document(doc, path, number, options) for number, doc in enumerate(_read_docs(path), 1))
        yield from stripped(with_ids(documents), options.strip, path)

    def write(self, target: Path, documents: Iterable[Document], options: WriteOptions, report: Report) -> None:
        """Write a Doc for each document; sentences of no document become a Doc each.

        The Docs are held in memory, packed, until the last one is there: the format begins with their number.
        """
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab

        vocab = Vocab()
        packed = DocBin(attrs=["ENT_IOB", "ENT_TYPE", "SENT_START", "TAG"])
        with replaced_when_done(target) as stream:
            for group in grouped(watched(documents, self, target, report), loose_together=False):
                try:
                    packed.add(_make_doc(vocab, joined(group)))
                except UnicodeEncodeError as problem:
                    raise half_a_character(problem, group[0]) from None
            stream.write(packed.to_bytes())


def _read_docs(path: Path) -> Iterator[Doc]:
    from spacy.lang.lex_attrs import LEX_ATTRS
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    content = read_whole(path, "a DocBin")
    try:
        _refuse_bomb(content, path)
        yield from DocBin().from_bytes(content).get_docs(Vocab(lex_attr_getters=LEX_ATTRS))
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        zlib.error,
    ) as problem:  # as spaCy meets the corruption
        reason = " ".join(str(problem).split())
        raise CorpusError(f"not a DocBin, or a corrupt one ({reason})", path) from None


def _refuse_bomb(content: bytes, path: Path) -> None:
    """Decompress once to see how much it becomes: spaCy would keep it all."""
    inflating, rest, size = zlib.decompressobj(), content, 0
    while rest and not inflating.eof:
        size += len(inflating.decompress(rest, _PIECE))
        rest = inflating.unconsumed_tail
        refuse_bomb(len(content), size, path)


def _document(doc: Doc, path: Path, number: int, options: ReadOptions) -> Document:
    sentences, index_rows = doc_sentences(doc)
    indices = [index for row in index_rows for index in row.tolist()]
    strings = doc.vocab.strings
    table = doc.to_array(["IDX", "LENGTH", "TAG", "POS"]).reshape(len(doc), 4)[indices]
    columns = {}
    for name, values in zip(_COLUMNS, table[:, 2:].T.tolist(), strict=True):
        if all(values):
            columns[name] = tuple(strings[value] for value in values)
    starts = [0, *accumulate(map(len, sentences))][:-1]
    document = Document(
        tuple(token for sentence in sentences for token in sentence),
        doc.text,
        tuple((start, start + length) for start, length in table[:, :2].tolist()),
        tuple(starts),
        columns=columns if indices else {},
        origin=Origin(str(path), "row", (number,) * max(1, len(starts))),
    )
    if not options.labelled:
        return document
    if options.scheme is Scheme.PLAIN:
        tags = tuple(strings[value] if value else UNKNOWN for value in table[:, 2].tolist())
        return document.with_labels(tags, Scheme.PLAIN)
    return _with_entities(document, doc, indices)


def _with_entities(document: Document, doc: Doc, indices: list[int]) -> Document:
    """Add the entities of a Doc, its scores, and which tokens nobody has labelled."""
    strings = doc.vocab.strings
    table = doc.to_array(["ENT_IOB", "ENT_TYPE"]).reshape(len(doc), 2)
    begun = (table[:, 0] == _BEGIN).cumsum()  # an entity may begin with whitespace, which is no token here
    rows = zip(table[indices].tolist(), begun[indices].tolist(), strict=True)
    labels = []
    before = None
    for (iob, kind), count in rows:
        entity = (count, kind) if iob in (_INSIDE, _BEGIN) else None
        if entity is None:
            labels.append(OUTSIDE if iob == _OUTSIDE else UNKNOWN)
        else:
            labels.append(f"{'I' if entity == before else 'B'}-{strings[kind]}")
        before = entity
    whole = replace(document, labels=tuple(labels), scheme=Scheme.IOB2, sentence_starts=(0,) if labels else ())
    # No sentence ends inside an entity.
    found = replace(whole, sentence_starts=outside_of(whole.spans, document.sentence_starts))
    group = doc.spans.get(SCORES)
    scores = [] if group is None else group.attrs.get("scores")
    if (
        not isinstance(scores, list)
        or len(scores) != len(found.spans)
        or group is None
        or len(group) != len(scores)
    ):
        return found
    if not scores or not all(type(score) is float and isfinite(score) for score in scores):
        return found
    same = [(each.start, each.end, each.label) for each in group] == [(e.start, e.end, e.label) for e in doc.ents]
    return replace(found, scores=tuple(scores)) if same else found


def _make_doc(vocab: Vocab, document: Document) -> Doc:
    from spacy.tokens import Doc, Span, SpanGroup

    text, offsets, labels = document.text, document.offsets, document.labels
    words: list[str] = []
    spaces: list[bool] = []
    indices: list[int] = []  # of the document's tokens, among those of the Doc
    end = 0
    for start, after in offsets:
        _fill(text[end:start], words, spaces)
        indices.append(len(words))
        words.append(text[start:after])
        spaces.append(False)
        end = after
    _fill(text[end:], words, spaces)
    first = {indices[start] for start in document.sentence_starts}
    doc = Doc(vocab, words=words, spaces=spaces, sent_starts=[index in first for index in range(len(words))])
    if labels is None:
        return doc
    if document.has_tags:
        for index, tag in zip(indices, labels, strict=True):
            doc[index].tag_ = tag
        return doc
    entities: list[Any] = [
        Span(doc, indices[span.start], indices[span.end - 1] + 1, label=span.type) for span in document.spans
    ]
    unknown = [index for index, label in zip(indices, labels, strict=True) if label == UNKNOWN]
    missing: list[Any] = []
    for _, run in groupby(enumerate(unknown), lambda pair: pair[1] - pair[0]):  # neighbours
        members = [index for _, index in run]
        missing.append(Span(doc, members[0], members[-1] + 1))
    doc.set_ents(entities, missing=missing)
    if document.scores is not None:
        doc.spans[SCORES] = SpanGroup(doc, name=SCORES, attrs={"scores": list(document.scores)}, spans=entities)
    return doc


def _fill(gap: str, words: list[str], spaces: list[bool]) -> None:
    """Add whitespace as spaCy has it: one space belongs to the token before, the rest is a token itself."""
    if words and gap.startswith(" "):
        spaces[-1] = True
        gap = gap[1:]
    if gap:
        words.append(gap)
        spaces.append(False)
