"""A corpus looked over before it is learnt from: counts, label errors, duplicates, what training never saw."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_split, split_reader
from nertool.errors import CorpusError
from nertool.formats.labels import LabelledSentences
from nertool.text.schemes import Scheme, spans
from nertool.views.console import counted

LONG = 200  # tokens
_SHOWN = 5  # examples of anything
_SHORT = 5  # tokens: shorter sentences are alike by chance


@dataclass
class Findings:
    """What there is to say about a corpus.

    Attributes:
        errors: Labels that are wrong and files that cannot be read, each with its place.
        warnings: What may be meant so.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_config(config: CorpusConfig, findings: Findings) -> dict[str, LabelledSentences]:
    """The splits of a config by name; those that cannot be read go to the findings."""
    named = {key: getattr(config, key) for key in ("train", "validation", "test")}
    try:
        read = split_reader(config)
    except CorpusError as problem:
        findings.errors.append(str(problem))
        return {}
    found = {}
    for key, name in named.items():
        if name is not None:
            try:
                found[key] = read(name, None)
            except CorpusError as problem:
                findings.errors.append(str(problem))
    return found


def read_files(names: Sequence[str], config: CorpusConfig, findings: Findings) -> dict[str, LabelledSentences]:
    """The files by name; those that cannot be read go to the findings."""
    found = {}
    for name in names:
        try:
            found[name] = read_split(name, config)
        except CorpusError as problem:
            findings.errors.append(str(problem))
    return found


def check(splits: Mapping[str, LabelledSentences], findings: Findings) -> None:
    """Adds to the findings what is wrong or odd in some splits, the first of which is the training split."""
    for name, split in splits.items():
        _check_labels(name, split, findings)
        _check_lengths(name, split, findings)
    _check_duplicates(splits, findings)
    _check_unseen(splits, findings)
    _check_ambiguity(splits, findings)


def place(split: LabelledSentences, sentence: int, token: int | None = None) -> str:
    """Where a sentence begins, or a token of it stands, in lines or rows."""
    start = split.starts[sentence]
    if split.unit == "line":
        return f"line {start + (token or 0)}"
    return f"row {start}" if token is None else f"row {start}, token {token + 1}"


def _check_labels(name: str, split: LabelledSentences, findings: Findings) -> None:
    for sentence, token, label in split.stray_places[:_SHOWN]:
        where = f"{name}, {place(split, sentence, token)}"
        findings.errors.append(f"{where}: {label} may not stand here in {split.scheme.value}")
    more = len(split.stray_places) - _SHOWN
    if more > 0:
        findings.errors.append(
            f"{name}: and {counted(more, 'more label')} that {split.scheme.value} does not allow"
        )
    if split.unlabelled:
        findings.warnings.append(
            f"{name}: {counted(split.unlabelled, 'sentence')} not labelled throughout: learnt from as far as "
            "they are, and not scored"
        )


def _check_lengths(name: str, split: LabelledSentences, findings: Findings) -> None:
    long = [number for number, tokens in enumerate(split.tokens) if len(tokens) > LONG]
    if long:
        shown = ", ".join(f"{len(split.tokens[n]):,} at {place(split, n)}" for n in long[:_SHOWN])
        text = f"{counted(len(long), 'sentence')} longer than {LONG} tokens ({shown})"
        findings.warnings.append(f"{name}: {text}; are they not split?")


def _check_duplicates(splits: Mapping[str, LabelledSentences], findings: Findings) -> None:
    seen: dict[str, dict[tuple[str, ...], int]] = {}
    for name, split in splits.items():
        rows = [tuple(tokens) for tokens in split.tokens]
        first: dict[tuple[str, ...], int] = {}
        again = [n for n, row in enumerate(rows) if first.setdefault(row, n) != n]
        if again:
            n = again[-1]
            example = f"{place(split, n)} is {place(split, first[rows[n]])}"
            findings.warnings.append(f"{name}: {_alike(rows, again)} stood in it before ({example})")
        for other, known in seen.items():
            shared = [n for n, row in enumerate(rows) if row in known]
            if shared:
                longest = max(shared, key=lambda n: len(rows[n]))
                example = f"{place(split, longest)} is {place(splits[other], known[rows[longest]])} of {other}"
                findings.warnings.append(f"{name}: {_alike(rows, shared)} are in {other} too ({example})")
        seen[name] = first


def _alike(rows: Sequence[tuple[str, ...]], which: Sequence[int]) -> str:
    longer = sum(len(rows[n]) >= _SHORT for n in which)
    return f"{counted(len(which), 'sentence')}, {longer:,} of {_SHORT} tokens or more,"


def _entities(split: LabelledSentences) -> Iterator[tuple[str, str]]:
    """The words and the type of each entity."""
    for tokens, labels in zip(split.tokens, split.labels, strict=True):
        for span in spans(labels, split.label_scheme):
            yield " ".join(tokens[span.start : span.end]), span.type


def _check_unseen(splits: Mapping[str, LabelledSentences], findings: Findings) -> None:
    """Entities and labels of the later splits that the first has not."""
    (first, train), *others = splits.items()
    known = set(_entities(train))
    types = {kind for _, kind in known}
    tags = {label for row in train.labels for label in row}
    for name, split in others:
        new_types = sorted({kind for _, kind in _entities(split)} - types)
        if split.label_scheme is Scheme.PLAIN:
            new_types = sorted({label for row in split.labels for label in row} - tags)
        if new_types:
            findings.warnings.append(f"{name}: labels that {first} has not: {', '.join(new_types)}")
        entities = list(_entities(split))
        new = Counter(entity for entity in entities if entity not in known)
        if new:
            share = f"of {len(entities):,} entities {new.total() / len(entities):.0%}"
            shown = ", ".join(f"{words} ({kind})" for (words, kind), _ in new.most_common(_SHOWN))
            findings.warnings.append(f"{name}: {share} were never seen in {first}, such as {shown}")


def _check_ambiguity(splits: Mapping[str, LabelledSentences], findings: Findings) -> None:
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for split in splits.values():
        for words, kind in _entities(split):
            kinds[words][kind] += 1
    several = {words: counts for words, counts in kinds.items() if len(counts) > 1}
    if several:
        # Where the rarer reading is frequent, it is an ambiguity; where it stands once, often a slip.
        order = sorted(several, key=lambda words: (-sorted(several[words].values())[-2], words))
        shown = "; ".join(
            f"{words} ({', '.join(f'{kind} {count}' for kind, count in several[words].most_common())})"
            for words in order[:_SHOWN]
        )
        findings.warnings.append(f"{counted(len(several), 'name')} with several types, such as {shown}")


def show(console: Console, splits: Mapping[str, LabelledSentences], findings: Findings) -> None:
    """Prints counts as tables and findings as lines."""
    if splits:
        console.print(_counts(splits))
        types = {name: split.entity_counts() for name, split in splits.items()}
        names = sorted({kind for counts in types.values() for kind in counts})
        if names:
            table = Table(title="Entities", title_justify="left")
            table.add_column("type")
            for split in splits:
                table.add_column(escape(split), justify="right")
            for kind in names:
                table.add_row(escape(kind), *(f"{counts[kind]:,}" for counts in types.values()))
            console.print(table)
    for title, style, lines in (("errors", "red", findings.errors), ("to look at", "yellow", findings.warnings)):
        if lines:
            console.print(f"[bold {style}]{title}[/]")
        for line in lines:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if not findings.errors and not findings.warnings:
        console.print("nothing to report")


def _counts(splits: Mapping[str, LabelledSentences]) -> Table:
    table = Table(title="Corpus", title_justify="left")
    table.add_column("split")
    for column in ("documents", "sentences", "tokens", "longest", "entities"):
        table.add_column(column, justify="right")
    table.add_column("scheme")
    for name, split in splits.items():
        figures = (
            split.document_count,
            len(split),
            split.token_count,
            max(map(len, split.tokens)),
            sum(split.entity_counts().values()),
        )
        table.add_row(escape(name), *(f"{figure:,}" for figure in figures), split.scheme.value)
    return table
