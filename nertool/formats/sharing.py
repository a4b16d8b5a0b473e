"""Sentences and tagged columns as `datasets` has them, its names of labels in the features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nertool.config.files import replaced_when_done
from nertool.formats.hub import DOCUMENT, datasets_package, without_bars
from nertool.formats.labels import LabelledSentences
from nertool.text.schemes import OUTSIDE, Scheme, convert

TOKENS, TAGS = "tokens", "ner_tags"


def to_dataset_dict(splits: Mapping[str, LabelledSentences], scheme: Scheme) -> Any:
    """Splits as a `datasets.DatasetDict` with the columns tokens and ner_tags, the same labels in each.

    Where a split has several documents, the column document holds their numbers.

    Args:
        splits: The splits by name.
        scheme: That the labels shall be in; plain tags stay plain.

    Raises:
        ConfigError: The package `datasets` is not installed.
    """
    datasets = datasets_package()
    if all(split.label_scheme is Scheme.PLAIN for split in splits.values()):
        scheme = Scheme.PLAIN
    rows = {
        name: [convert(row, split.label_scheme, scheme) for row in split.labels] for name, split in splits.items()
    }
    names = sorted({label for each in rows.values() for row in each for label in row} - {OUTSIDE})
    names = names if scheme is Scheme.PLAIN else [OUTSIDE, *names]
    numbers = {name: number for number, name in enumerate(names)}
    features = {
        TOKENS: datasets.Sequence(datasets.Value("string")),
        TAGS: datasets.Sequence(datasets.ClassLabel(names=names)),
    }
    documents = any(split.document_count > 1 for split in splits.values())
    if documents:
        features[DOCUMENT] = datasets.Value("int64")
    found = {}
    for name, split in splits.items():
        columns = {TOKENS: split.tokens, TAGS: [[numbers[label] for label in row] for row in rows[name]]}
        columns |= {DOCUMENT: split.documents} if documents else {}
        found[name] = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.DatasetDict(found)


def write_parquet(split: LabelledSentences, path: Path, scheme: Scheme) -> None:
    """Writes a split as a .parquet file that `read_file` and `datasets` read, its labels in a scheme.

    Raises:
        ConfigError: The package `datasets` is not installed.
        NertoolError: The file cannot be written.
    """
    dataset = to_dataset_dict({"train": split}, scheme)["train"]
    with replaced_when_done(path) as target, without_bars(datasets_package()):
        dataset.to_parquet(target)


def entity_features(given: Any, with_tokens: bool) -> Any:
    """The features of a dataset, and those of the columns that tagging adds (see `nertool.integrations.mapper.Mapper`).

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
    found = {"labels": datasets.Sequence(text), "entities": [entity]}
    if with_tokens:
        found = {"tokens": datasets.Sequence(text), **found}
    return datasets.Features({**given, **found})
