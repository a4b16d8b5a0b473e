"""spaCy's DocBin: a Doc to a text, with the white space between its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from nertool.config.files import replaced_when_done
from nertool.formats import docbin
from nertool.formats.spacy_docs import doc_sentences
from nertool.formats.texts import Mark, Report, Settings, Text, fit, in_documents, refuse_tags, together
from nertool.text.schemes import Scheme


def read(path: Path, settings: Settings, report: Report) -> Iterator[Text]:
    """Reads a Doc to a text; of a Doc that is not labelled throughout, the sentences that are."""
    left_out = 0
    for number, doc in enumerate(docbin.read_docs(path)):
        sentences, places = doc_sentences(doc)
        known = doc.to_array(["ENT_IOB"]).reshape(-1) != 0
        marks = [
            Mark(f"{path}, Doc {number + 1}", entity.start_char, entity.end_char, entity.label_)
            for entity in doc.ents
        ]
        pieces = [[doc[int(place)] for place in row] for row in places]
        cuts = [[(token.idx, token.idx + len(token)) for token in piece] for piece in pieces]
        labelled = [bool(known[row].all()) for row in places]
        if all(labelled):
            offsets = [offset for cut in cuts for offset in cut]
            ends = list(accumulate(map(len, sentences)))
            yield fit(doc.text, (offsets, ends), marks, settings, report)
            continue
        left_out += labelled.count(False)
        for cut, whole in zip(cuts, labelled, strict=True):
            if whole:
                start, end = cut[0][0], cut[-1][1]
                inside = [
                    replace(mark, start=mark.start - start, end=mark.end - start)
                    for mark in marks
                    if start <= mark.start < end
                ]
                moved = [(a - start, b - start) for a, b in cut]
                found = fit(doc.text[start:end], (moved, [len(cut)]), inside, settings, report)
                yield replace(found, document=number, sentence=True)
    if left_out:
        report.notes.append(f"{path}: {left_out} sentences left out: not all of the tokens have a label")


def write(path: Path, texts: Iterable[Text], scheme: Scheme) -> None:
    """Writes a Doc to a document; sentences of no document become a Doc each."""
    groups: list[list[Text]] = []
    for group in in_documents(texts):
        groups += [group] if group[0].document is not None else [[text] for text in group]
    with replaced_when_done(path) as target:
        docbin.write_docbin(target, (_tagged(together(group), path) for group in groups))


def _tagged(text: Text, path: Path) -> docbin.TaggedText:
    refuse_tags(text, path, "a DocBin of entities")
    entities = [
        (text.offsets[span.start][0], text.offsets[span.end - 1][1], span.type, 1.0) for span in text.spans
    ]
    return docbin.TaggedText(text.text, text.offsets, text.ends, entities, None)
