"""The output of any system beside a gold corpus: read both, and align them sentence by sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

from nertool.config.files import is_stream
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split, read_split
from nertool.data.folds import boundaries
from nertool.errors import CorpusError
from nertool.evaluation.scores import strict_entities
from nertool.formats.registry import ReadOptions, Report, find_format
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE, Scheme, Span, check_label, spans
from nertool.text.tokenization import Tokenizer

TOKEN, GOLD, IGNORED = "token", "gold", "_"
"""Names of columns with a meaning; any other is that of a system."""


@dataclass(frozen=True)
class Answers:
    """What one system found, unit by unit of the gold corpus.

    Attributes:
        strict: Entities whose labels follow their scheme.
        lenient: Entities as conlleval reads the labels.
        labels: As they are in the file, or converted to the gold labels' scheme by way of `lenient`; None where
            the texts were aligned by characters.
    """

    strict: list[list[Span]]
    lenient: list[list[Span]]
    labels: list[list[str]] | None


@dataclass(frozen=True)
class Aligned:
    """A gold corpus and the outputs of systems, over the same units.

    Attributes:
        gold: Entities of each unit: a sentence, or where texts were aligned by characters a document.
        labels: Gold labels; None likewise. In IOB2, or plain tags.
        lengths: Tokens of each unit.
        documents: For each unit the number of its document; empty where the corpus marks none.
        systems: What each system found.
        tags: Whether labels are plain tags, which mark no entities.
        by_characters: Whether tokens or sentences differ, so that the texts were aligned by characters.
        notes: What was left out or read in a special way, a line each.
    """

    gold: list[list[Span]]
    labels: list[list[str]] | None
    lengths: list[int]
    documents: list[int]
    systems: list[Answers]
    tags: bool
    by_characters: bool
    notes: list[str]


def read_outputs(
    gold: Path, others: Sequence[Path], config: CorpusConfig, tokenizer: Tokenizer | None = None
) -> tuple[Split, list[Split]]:
    """Read a gold corpus and the outputs of systems, each in a file of its own.

    Args:
        gold: The file with the right labels.
        others: Those of the systems, in any formats.
        config: How files are read.
        tokenizer: Makes tokens and sentences of raw text.

    Raises:
        CorpusError: A file cannot be read.
    """
    right = read_split(gold, config, as_is=True, tokenizer=tokenizer)
    return right, [_read_system(path, config, right, tokenizer) for path in others]


def read_columns(path: Path, names: Sequence[str] | None, config: CorpusConfig) -> tuple[Split, dict[str, Split]]:
    """Read a file with a column of gold labels and a column for each system.

    Args:
        path: A file with a token in each line.
        names: Of all columns from left to right, such as `("token", "_", "gold", "mine")`: `_` is not read, and
            every other name is that of a system. None: the last column but one is gold, the last the system's.
        config: How files are read.

    Raises:
        CorpusError: The file has other columns, or cannot be read.
    """
    if is_stream(path):
        raise CorpusError("can be read only once, and each column is read by itself; write it to a file", path)
    if names is None:
        count = _column_count(path)
        if count < 3:
            raise CorpusError(
                f"found {count} columns; a single file needs a token, its gold label and a predicted one. "
                "Name the file with the predictions too",
                path,
            )
        names = [TOKEN, *[IGNORED] * (count - 3), GOLD, "predicted"]
    systems = [name for name in names if name not in (TOKEN, GOLD, IGNORED)]
    if names.count(TOKEN) != 1 or names.count(GOLD) != 1 or not systems or len(set(systems)) != len(systems):
        raise CorpusError(
            f"--columns {','.join(names)}: expected all columns from left to right, one of them {TOKEN}, one "
            f"{GOLD}, and a name for each system's, such as token,{IGNORED},{GOLD},mine ({IGNORED}: not read)"
        )
    # Each needs a name of its own.
    own = tuple(f"{IGNORED}{number}" if name == IGNORED else name for number, name in enumerate(names))

    def read(label: str, gold: Split | None = None) -> Split:
        chosen = config.model_copy(update={"format": "conll", "columns": own, "label": label})
        if gold is None:
            return read_split(path, chosen, as_is=True)
        return _read_system(path, chosen, gold, None)

    gold = read(GOLD)
    return gold, {name: read(name, gold) for name in systems}


def align(gold: Split, systems: dict[str, Split]) -> Aligned:
    """Align the outputs of systems with a gold corpus.

    Tokens and sentences have to be the same. Where they are not, and all files have the same texts, entities are
    compared by characters.

    Raises:
        CorpusError: They cannot be aligned: says where they differ. Or one has plain tags and another entities,
            or there is nothing to score.
    """
    notes = list(_notes(GOLD, gold))
    for name, split in systems.items():
        notes += _notes(name, split)
        if (split.label_scheme is Scheme.PLAIN) != (gold.label_scheme is Scheme.PLAIN):
            plain, other = (gold, split) if gold.label_scheme is Scheme.PLAIN else (split, gold)
            raise CorpusError(
                f"its labels are read as plain tags, those of {other.path} as {other.label_scheme}: check where "
                "the labels are (--columns, --set corpus.label), or name their scheme with --scheme",
                plain.path,
            )
    differing = [_first_difference(gold, split) for split in systems.values()]
    if any(differing):
        texts = (document.source_text for each in (gold, *systems.values()) for document in each.documents)
        if any(text is None for text in texts):
            raise next(problem for problem in differing if problem)
        aligned = _by_characters(gold, systems, notes)
    else:
        aligned = _by_tokens(gold, systems, notes)
    if not aligned.gold:
        raise CorpusError("there is no sentence in it with labels for all of its tokens", gold.path)
    if not aligned.tags and not any(aligned.gold):
        raise CorpusError(
            "no token is labelled as an entity, so that there is nothing to score: check where its labels are "
            "(--columns, --set corpus.label)",
            gold.path,
        )
    for (name, split), answers in zip(systems.items(), aligned.systems, strict=True):
        if not aligned.tags and not any(answers.lenient):
            notes.append(f"{name}: no token of {split.path} is labelled as an entity")
    return aligned


def _read_system(path: Path, config: CorpusConfig, gold: Split, tokenizer: Tokenizer | None) -> Split:
    """Read the output of a system; labels that break the scheme that they seem to be in may be of the gold one."""
    split = read_split(path, config, as_is=True, tokenizer=tokenizer)
    scheme = gold.scheme
    if not split.strays or split.scheme is scheme or config.scheme != "detect" or is_stream(path):
        return split
    # Labels in IOB2 are all labels of IOB1 too, and most of them at the wrong place.
    if (scheme, split.scheme) != (Scheme.IOB1, Scheme.IOB2) and all(
        check_label(label, scheme)
        for document in split.documents
        for label in set(document.labels or ())
        if label != UNKNOWN
    ):
        return read_split(
            path, config.model_copy(update={"scheme": scheme.value}), as_is=True, tokenizer=tokenizer
        )
    return split


def _column_count(path: Path) -> int:
    documents = find_format("conll").read(path, ReadOptions(labelled=False), Report())
    first = next(documents, None)
    return 0 if first is None else 1 + len(first.columns)


def _notes(name: str, split: Split) -> Iterator[str]:
    for note in split.report.notes:
        yield f"{name}: {note}"
    if misfits := split.report.misfits:
        yield (
            f"{name}: {len(misfits):,} entities do not fit the text or its tokens and are not scored, such as "
            f"{misfits[0]}"
        )
    if split.strays:
        labels = "label breaks" if split.strays == 1 else "labels break"
        sentence, token, label = split.stray_places[0]
        read = "repaired" if name == GOLD else "repaired unless scoring is strict"
        place = split.place(sentence, token)
        yield f"{name}: {split.strays:,} {labels} {split.scheme} ({read}), such as {label} at {place}"


def _first_difference(gold: Split, split: Split) -> CorpusError | None:
    """Return where tokens or sentences differ; None where they do not."""
    if len(gold) == len(split) and all(
        one.tokens == other.tokens for one, other in zip(gold.sentences, split.sentences, strict=True)
    ):
        return None
    for number, (one, other) in enumerate(zip_longest(gold.sentences, split.sentences)):
        if one is None:
            return CorpusError(
                f"{split.place(number)}: a sentence where {gold.path} has ended; {_counts(gold, split)}",
                split.path,
            )
        if other is None:
            return CorpusError(
                f"it has ended where {gold.path}, {gold.place(number)}, goes on; {_counts(gold, split)}",
                split.path,
            )
        if one.tokens != other.tokens:
            return _token_difference(number, one, other, gold, split)
    return None


def _token_difference(number: int, one: Document, other: Document, gold: Split, split: Split) -> CorpusError:
    token = next(
        index for index, (wanted, found) in enumerate(zip_longest(one.tokens, other.tokens)) if wanted != found
    )
    shown = []
    for document, side in ((other, split), (one, gold)):
        ended = token >= len(document)
        place = side.place(number, min(token, len(document) - 1))
        shown.append(("the sentence ends" if ended else f"the token is {document.tokens[token]!r}", place))
    (found, place), (wanted, gold_place) = shown
    return CorpusError(
        f"{split.path}, {place}: {found} where in {gold.path}, {gold_place}, {wanted}; tokens and sentences "
        f"have to be the same ({_counts(gold, split)})"
    )


def _counts(gold: Split, split: Split) -> str:
    return (
        f"it has {len(split):,} sentences of {split.token_count:,} tokens, the gold corpus {len(gold):,} of "
        f"{gold.token_count:,}"
    )


def _by_tokens(gold: Split, systems: dict[str, Split], notes: list[str]) -> Aligned:
    known = [n for n, row in enumerate(gold.labels) if UNKNOWN not in row]
    if left := len(gold) - len(known):
        notes.append(f"gold: {left:,} sentences have tokens without a label and are not scored")
    rows = [gold.labels[n] for n in known]
    lengths = list(map(len, rows))
    documents = _document_numbers(gold)
    kept = [documents[n] for n in known] if documents else []
    tags = gold.label_scheme is Scheme.PLAIN
    answers = []
    for name, split in systems.items():
        own = [split.labels[n] for n in known]
        if unknown := sum(row.count(UNKNOWN) for row in own):
            notes.append(_unknown_note(name, unknown))
            own = [[label or OUTSIDE for label in row] for row in own]
        answers.append(_answers(own, split.label_scheme, gold.label_scheme))
    entities = [spans(row, gold.label_scheme) for row in rows]
    return Aligned(entities, rows, lengths, kept, answers, tags, False, notes)


def _unknown_note(name: str, count: int) -> str:
    return f"{name}: {count:,} tokens have no label and are read as {OUTSIDE}"


def _answers(rows: list[list[str]], scheme: Scheme, wanted: Scheme) -> Answers:
    if scheme is Scheme.PLAIN:
        empty: list[list[Span]] = [[] for _ in rows]
        return Answers(empty, empty, rows)
    lenient = [spans(row, scheme) for row in rows]
    same = scheme is wanted
    return Answers(strict_entities(rows, scheme), lenient, rows if same else None)


def _document_numbers(split: Split) -> list[int]:
    """Return for each sentence the number of its document; none where there is only one, or none is marked."""
    numbers: list[int] = []
    number = 0
    for document, new in zip(split.documents, [False, *boundaries(split.documents)], strict=True):
        number += new
        numbers += [number] * len(document.sentence_starts)
    return numbers if number else []


def _by_characters(gold: Split, systems: dict[str, Split], notes: list[str]) -> Aligned:
    for split in systems.values():
        _check_texts(gold, split)
    if gold.label_scheme is Scheme.PLAIN:
        raise CorpusError(
            "tokens differ, and plain tags belong to tokens: tag the tokens of the gold corpus", gold.path
        )
    notes.append("tokens or sentences differ, and the texts are the same: entities are compared by characters")
    known = [n for n, document in enumerate(gold.documents) if UNKNOWN not in (document.labels or (UNKNOWN,))]
    if left := len(gold.documents) - len(known):
        notes.append(f"gold: {left:,} texts have tokens without a label and are not scored")
    for name, split in systems.items():
        if unknown := sum((split.documents[n].labels or ()).count(UNKNOWN) for n in known):
            notes.append(_unknown_note(name, unknown))
    found: list[tuple[list[list[Span]], list[list[Span]]]] = []  # strict and lenient of gold and of each system
    for split in (gold, *systems.values()):
        both = [_character_spans(split.documents[n]) for n in known]
        found.append(([strict for strict, _ in both], [lenient for _, lenient in both]))
    lengths = []
    for number in range(len(known)):
        # Stretches between the places where some entity begins or ends stand for tokens.
        places = sorted(
            {place for sides in found for side in sides for span in side[number] for place in span[:2]}
        )
        index = {place: position for position, place in enumerate(places)}
        for sides in found:
            for side in sides:
                side[number] = [Span(index[span.start], index[span.end], span.type) for span in side[number]]
        lengths.append(max(0, len(places) - 1))
    answers = [Answers(strict, lenient, None) for strict, lenient in found[1:]]
    numbers = list(range(len(lengths)))
    return Aligned(found[0][1], None, lengths, numbers if len(numbers) > 1 else [], answers, False, True, notes)


def _check_texts(gold: Split, split: Split) -> None:
    for number, (one, other) in enumerate(zip_longest(gold.documents, split.documents)):
        if one is None or other is None:
            raise CorpusError(
                f"it has {len(split.documents):,} texts, {gold.path} has {len(gold.documents):,}", split.path
            )
        if one.text != other.text:
            at = next(
                (index for index, pair in enumerate(zip_longest(one.text, other.text)) if pair[0] != pair[1]), 0
            )
            quoted = [repr(each.text[max(0, at - 10) : at + 20]) for each in (other, one)]
            raise CorpusError(
                f"text {number + 1} differs from that in {gold.path} at character {at + 1}: {quoted[0]}, there "
                f"{quoted[1]}",
                split.path,
            )


def _character_spans(document: Document) -> tuple[list[Span], list[Span]]:
    """Return the entities of a document in characters: those that follow the scheme, and all."""
    scheme = document.scheme
    if scheme is None or document.labels is None:
        return [], []
    rows = [
        [label or OUTSIDE for label in document.labels[start:end]]
        for start, end in pairwise((*document.sentence_starts, len(document)))
    ]
    starts = document.sentence_starts

    def placed(sentences: Sequence[Sequence[Span]]) -> list[Span]:
        return [
            Span(
                document.offsets[first + span.start][0],
                document.offsets[first + span.end - 1][1],
                span.type,
            )
            for first, row in zip(starts, sentences, strict=True)
            for span in row
        ]

    return placed(strict_entities(rows, scheme)), placed([spans(row, scheme) for row in rows])
