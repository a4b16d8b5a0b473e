"""What `nertool check` looks for: label errors, duplicates, entities that training never saw, and more."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nertool.config.schema import CorpusConfig
from nertool.data.corpus import Split, open_splits, read_split
from nertool.errors import CorpusError
from nertool.text.document import UNKNOWN
from nertool.text.schemes import Scheme
from nertool.text.tokenization import Tokenizer

LONG = 200  # tokens
_EXAMPLES = 5  # that are shown of anything
_SHORT = 5  # tokens: shorter sentences are equal by chance


@dataclass
class Findings:
    """What there is to say about a corpus.

    Attributes:
        errors: Labels that are wrong and files that cannot be read, each with its place.
        warnings: What may be intended.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_config(
    config: CorpusConfig, findings: Findings, *, tokenizer: Tokenizer | None = None
) -> dict[str, Split]:
    """Read the splits of a config by name; what cannot be read is added to the findings."""
    named = {key: getattr(config, key) for key in ("train", "validation", "test")}
    try:
        read = open_splits(config, tokenizer=tokenizer)
    except CorpusError as problem:
        findings.errors.append(str(problem))
        return {}
    return _read({key: name for key, name in named.items() if name is not None}, read, findings)


def read_files(
    names: Mapping[str, str | Path],
    config: CorpusConfig,
    findings: Findings,
    *,
    tokenizer: Tokenizer | None = None,
) -> dict[str, Split]:
    """Read files, given by the names that the findings use; what cannot be read is added to the findings."""

    def read(path: str | Path, target: Scheme | None = None, *, partial: bool = False) -> Split:
        return read_split(path, config, target, partial=partial, tokenizer=tokenizer)

    return _read(names, read, findings)


def _read(names: Mapping[str, str | Path], read: Callable[..., Split], findings: Findings) -> dict[str, Split]:
    splits = {}
    for key, name in names.items():
        try:
            splits[key] = read(name, partial=True)
        except CorpusError as problem:
            findings.errors.append(str(problem))
    return splits


def check(splits: Mapping[str, Split], findings: Findings) -> None:
    """Add to the findings what is wrong or odd in some splits, the first of which is the training split."""
    for name, split in splits.items():
        _check_reading(name, split, findings)
        _check_labels(name, split, findings)
        _check_lengths(name, split, findings)
    _check_duplicates(splits, findings)
    _check_unseen(splits, findings)
    _check_ambiguity(splits, findings)


def _check_reading(name: str, split: Split, findings: Findings) -> None:
    """Report what the reader left out or changed."""
    misfits = split.report.misfits
    known = f"{split.path}"  # readers begin with it
    findings.errors += [
        f"{name}: left out: {misfit.removeprefix(known).lstrip(',: ')}" for misfit in misfits[:_EXAMPLES]
    ]
    if len(misfits) > _EXAMPLES:
        findings.errors.append(f"{name}: and {len(misfits) - _EXAMPLES:,} more entities that were left out")
    findings.warnings += [f"{name}: {note.removeprefix(f'{known}: ')}" for note in split.report.notes]


def _check_labels(name: str, split: Split, findings: Findings) -> None:
    for sentence, token, label in split.stray_places[:_EXAMPLES]:
        place = f"{name}, {split.place(sentence, token)}"
        findings.errors.append(f"{place}: {label} is not allowed here in {split.scheme}")
    more = len(split.stray_places) - _EXAMPLES
    if more > 0:
        findings.errors.append(f"{name}: and {_count(more, 'more label')} that {split.scheme} does not allow")
    incomplete = split.unlabelled + sum(UNKNOWN in labels for labels in split.labels)
    if incomplete:
        are, they = ("is", "it is") if incomplete == 1 else ("are", "they are")
        findings.warnings.append(
            f"{name}: {_count(incomplete, 'sentence')} {are} not fully labelled: training learns from the labels "
            f"that there are, and {they} not scored"
        )
    if not split.has_entities:
        findings.warnings.append(f"{name}: no token is labelled as an entity")


def _check_lengths(name: str, split: Split, findings: Findings) -> None:
    long = [n for n, sentence in enumerate(split.sentences) if len(sentence) > LONG]
    if long:
        examples = ", ".join(f"{len(split.sentences[n]):,} at {split.place(n)}" for n in long[:_EXAMPLES])
        text = f"{_count(len(long), 'sentence')} longer than {LONG} tokens ({examples})"
        findings.warnings.append(f"{name}: {text}; are sentences not separated?")


def _check_duplicates(splits: Mapping[str, Split], findings: Findings) -> None:
    seen: dict[str, dict[tuple[str, ...], int]] = {}
    for name, split in splits.items():
        rows = [sentence.tokens for sentence in split.sentences]
        first: dict[tuple[str, ...], int] = {}
        again = [n for n, row in enumerate(rows) if first.setdefault(row, n) != n]
        if again:
            n = again[-1]
            example = f"{split.place(n)} is {split.place(first[rows[n]])}"
            findings.warnings.append(f"{name}: {_duplicates(rows, again)} repeated in it ({example})")
        for other, known in seen.items():
            shared = [n for n, row in enumerate(rows) if row in known]
            if shared:
                longest = max(shared, key=lambda n: len(rows[n]))
                example = f"{split.place(longest)} is {splits[other].place(known[rows[longest]])} of {other}"
                findings.warnings.append(f"{name}: {_duplicates(rows, shared)} in {other} too ({example})")
        seen[name] = first


def _duplicates(rows: Sequence[tuple[str, ...]], which: Sequence[int]) -> str:
    longer = sum(len(rows[n]) >= _SHORT for n in which)
    are = "is" if len(which) == 1 else "are"
    return f"{_count(len(which), 'sentence')} ({longer:,} of {_SHORT} tokens or more) {are}"


def _entities(split: Split) -> Iterator[tuple[str, str]]:
    """Yield the words and the type of each entity."""
    for document in split.documents:
        for span in document.spans:
            yield " ".join(document.tokens[span.start : span.end]), span.type


def _labels(split: Split) -> set[str]:
    return {label for document in split.documents for label in document.labels or ()} - {UNKNOWN}


def _check_unseen(splits: Mapping[str, Split], findings: Findings) -> None:
    """Report entities and types of the later splits that the first one does not have."""
    (first, train), *others = splits.items()
    known = set(_entities(train))
    plain = train.label_scheme is Scheme.PLAIN
    types = _labels(train) if plain else {kind for _, kind in known}
    for name, split in others:
        if (split.label_scheme is Scheme.PLAIN) is not plain:
            names = ("plain tags", "entities") if plain else ("entities", "plain tags")
            findings.errors.append(f"{name}: read as {names[1]} where {first} has {names[0]}")
            continue
        entities = list(_entities(split))
        new_types = sorted((_labels(split) if plain else {kind for _, kind in entities}) - types)
        if new_types:
            findings.warnings.append(f"{name}: labels that {first} does not have: {', '.join(new_types)}")
        new = Counter(entity for entity in entities if entity not in known)
        if new:
            share = f"of {len(entities):,} entities {new.total() / len(entities):.0%}"
            examples = ", ".join(f"{words} ({kind})" for (words, kind), _ in new.most_common(_EXAMPLES))
            findings.warnings.append(f"{name}: {share} do not occur in {first}, such as {examples}")


def _check_ambiguity(splits: Mapping[str, Split], findings: Findings) -> None:
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for split in splits.values():
        for words, kind in _entities(split):
            kinds[words][kind] += 1
    several = {words: counts for words, counts in kinds.items() if len(counts) > 1}
    if several:
        # Where the rarer type is frequent, the name is ambiguous; where it occurs once, it is often a slip.
        order = sorted(several, key=lambda words: (-sorted(several[words].values())[-2], words))
        examples = "; ".join(
            f"{words} ({', '.join(f'{kind} {count}' for kind, count in several[words].most_common())})"
            for words in order[:_EXAMPLES]
        )
        findings.warnings.append(f"{_count(len(several), 'name')} with several types, such as {examples}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
