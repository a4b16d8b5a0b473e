"""Labelled documents in the shape of the package `datasets`, label names in the features."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from nertool.errors import ConfigError
from nertool.formats.labels import relabel
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import OUTSIDE, Scheme

TOKENS, TAGS, DOCUMENT = "tokens", "ner_tags", "document"
UNLABELLED = -1
"""Stands in columns of numbers where nobody has labelled."""


def to_dataset_dict(splits: Mapping[str, Iterable[Document]], scheme: Scheme) -> Any:
    """Make a `datasets.DatasetDict` with a row for each sentence.

    The columns are `tokens`, `ner_tags` (`ClassLabel`, with the same names in each split; -1 where nobody has
    labelled), `document` where documents have ids, and further columns, empty where a sentence lacks one.

    Args:
        splits: The documents of each split.
        scheme: Scheme to write the labels in; plain tags stay plain.

    Raises:
        ConfigError: The package `datasets` is not installed.
    """
    datasets = datasets_package()
    rows = {name: list(_rows(documents)) for name, documents in splits.items()}
    sentences = [sentence for split in rows.values() for _, sentence in split]
    ids = [document for split in rows.values() for document, _ in split if document is not None]
    number_ids = all(re.fullmatch(r"0|[1-9]\d{0,17}", name, re.ASCII) for name in ids)
    further = dict.fromkeys(name for sentence in sentences for name in sentence.columns)
    if any(sentence.has_tags for sentence in sentences):
        scheme = Scheme.PLAIN

    def labels(sentence: Document) -> Sequence[str]:
        if scheme is Scheme.PLAIN and sentence.labels is not None:
            return sentence.labels
        return relabel(sentence, scheme)

    label_rows = {name: [labels(sentence) for _, sentence in split] for name, split in rows.items()}
    names = {label for split in label_rows.values() for row in split for label in row} - {UNKNOWN}
    ordered = sorted(names) if scheme is Scheme.PLAIN else [OUTSIDE, *sorted(names - {OUTSIDE})]
    numbers = {UNKNOWN: UNLABELLED, **{label: number for number, label in enumerate(ordered)}}
    strings = datasets.Sequence(datasets.Value("string"))
    features = {TOKENS: strings, TAGS: datasets.Sequence(datasets.ClassLabel(names=ordered))}
    features |= {_free_name(name): strings for name in further}
    if ids:
        features[DOCUMENT] = datasets.Value("int64" if number_ids else "string")
    result = {}
    for name, split in rows.items():
        columns: dict[str, list[Any]] = {
            _free_name(column): [list(sentence.columns.get(column, [""] * len(sentence))) for _, sentence in split]
            for column in further
        }
        columns[TOKENS] = [list(sentence.tokens) for _, sentence in split]
        columns[TAGS] = [[numbers[label] for label in row] for row in label_rows[name]]
        if ids:
            columns[DOCUMENT] = [int(each) if each is not None and number_ids else each for each, _ in split]
        result[name] = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.DatasetDict(result)


def _free_name(name: str) -> str:
    """Return a further column's name, which must not be that of a column with another meaning."""
    return f"{name}_column" if name in (TOKENS, TAGS, DOCUMENT) else name


def _rows(documents: Iterable[Document]) -> Iterator[tuple[str | None, Document]]:
    """Yield each sentence with the id of its document; a text of several sentences without an id gets one."""
    serial = 0
    given: set[str] = set()
    for document in documents:
        name = document.id
        if name is None and len(document.sentence_starts) > 1:
            serial = next(number for number in count(serial) if str(number) not in given)
            name = str(serial)
        if name is not None:
            given.add(name)
        for sentence in document.sentences():
            yield name, sentence


def entity_features(given: Any, with_tokens: bool) -> Any:
    """Return the features of a dataset with those that tagging adds (see `nertool.integrations.mapper.Mapper`).

    Args:
        given: Features of the dataset, None where it does not know them.
        with_tokens: Whether the tokens are among them.
    """
    if given is None:
        return None
    datasets = datasets_package()
    text = datasets.Value("string")
    number = datasets.Value("int64")
    entity = {"start": number, "end": number, "label": text, "text": text, "score": datasets.Value("float64")}
    added = {"labels": datasets.Sequence(text), "entities": [entity]}
    if with_tokens:
        added = {"tokens": datasets.Sequence(text), **added}
    return datasets.Features({**given, **added})


def datasets_package() -> Any:
    """Return the package `datasets`.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError("this needs the package datasets: pip install 'nertool[datasets]'") from None
    return datasets


@contextmanager
def without_bars(datasets: Any) -> Iterator[None]:
    """Switch progress bars off where nobody watches them."""
    before = datasets.utils.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            datasets.utils.enable_progress_bars()
