"""The vocabularies of a model as JSON: labels, their scheme, and what each input knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nertool.config.schema import Config
from nertool.errors import BundleError
from nertool.model.inputs import input_class
from nertool.model.inputs.base import Input
from nertool.model.outline import MOST_LABELS, Outline
from nertool.text.schemes import Scheme, is_text

LARGEST_VOCABULARY = 2**29  # bytes; two million words have some 30 million


@dataclass(frozen=True)
class Vocabulary:
    """What is saved of the names that a model knows.

    Attributes:
        labels: In the order of the network's outputs.
        scheme: Of these.
        inputs: The state of each input, by name.
    """

    labels: list[str]
    scheme: Scheme
    inputs: dict[str, Any]


def vocabulary_bytes(model: Outline) -> bytes:
    """Return the vocabularies of a model as they are saved.

    Raises:
        BundleError: They are too large to be loaded again.
    """
    tree = {
        "scheme": model.scheme.value,
        "labels": model.labels,
        "inputs": {name: each.state() for name, each in model.inputs.items()},
    }
    # Escaped, so that lone surrogates and odd separators in tokens survive.
    content = (json.dumps(tree, indent=0) + "\n").encode("ascii")
    if len(content) > LARGEST_VOCABULARY:
        raise BundleError(
            f"the vocabulary is too large to be saved: {len(content):,} bytes, at most {LARGEST_VOCABULARY:,}; "
            "lower inputs.words.extra_rows, or raise inputs.words.minimum_count"
        )
    return content


def parse_vocabulary(content: bytes, path: Path) -> Vocabulary:
    """Read what `vocabulary_bytes` wrote.

    Args:
        content: Of the file.
        path: What errors name.

    Raises:
        BundleError: It is no vocabulary.
    """
    try:
        tree: Any = json.loads(content)
        if tree.keys() != {"scheme", "labels", "inputs"}:
            raise ValueError("expected the keys scheme, labels and inputs")
        labels = tree["labels"]
        if not isinstance(labels, list) or not isinstance(tree["inputs"], dict):
            raise TypeError
        if len(labels) > MOST_LABELS:
            raise ValueError(f"{len(labels)} labels; there may be {MOST_LABELS}")
        if not all(isinstance(label, str) and label and is_text(label) for label in labels):
            raise ValueError("a label is not a string, is empty, or has control characters in it")
        if len(set(labels)) != len(labels) or not labels:
            raise ValueError("a label is there twice, or there are no labels")
        vocabulary = Vocabulary(labels, Scheme(tree["scheme"]), tree["inputs"])
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        reason = problem if isinstance(problem, ValueError) and str(problem) else "wrong types"
        raise BundleError(f"{path}: not a vocabulary ({reason})") from None
    return vocabulary


def restore_inputs(path: Path, config: Config, states: Mapping[str, Any]) -> dict[str, Input]:
    """Make the inputs of a config from their saved vocabularies.

    Args:
        path: What errors name.
        config: Of the model.
        states: As in `Vocabulary.inputs`.

    Raises:
        BundleError: They are no vocabularies of these inputs.
    """
    entries = config.active_inputs
    if states.keys() != entries.keys():
        raise BundleError(
            f"{path}: the config has the inputs {', '.join(entries)}, but the vocabulary has {', '.join(states)}"
        )
    inputs = {}
    for name, entry in entries.items():
        try:
            inputs[name] = input_class(entry).restore(name, entry, states[name])
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as problem:
            reason = f"no {problem}" if isinstance(problem, KeyError) else str(problem) or "wrong types"
            raise BundleError(f"{path}: not a vocabulary of inputs.{name} ({reason})") from None
    return inputs
