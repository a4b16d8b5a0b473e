"""A trained model as a function for `datasets`: a column of texts or tokens in, labels and entities out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nertool.errors import BundleError, CorpusError
from nertool.tagging.bundle import CONFIG, LEXICON, WEIGHTS
from nertool.tagging.tagger import Entity, Tagged, Tagger

_PROCESS = os.getpid()


class Mapper:
    """Tags the batches of a dataset: `dataset.map(Mapper("runs/demo"), batched=True)`.

    It goes to other processes (`num_proc=2`) and into the fingerprints of datasets as the name of a folder
    and a digest of its files; each process loads the model when it has something to tag.

    The new columns are `labels`, as strings; `entities`, each with start, end, label, text and score; and for
    texts `tokens`. Offsets count characters of a text, or tokens where these were given; the end is exclusive.

    Args:
        folder: The run directory of a model.
        tokens: The column to tag, which holds lists of tokens, each list a sentence.
        text: Instead of it a column that holds texts.

    Raises:
        BundleError: It is not a model.
    """

    def __init__(self, folder: str | Path, *, tokens: str = "tokens", text: str | None = None) -> None:
        self.folder = str(Path(folder).resolve())
        self.column = tokens if text is None else text
        self.holds_texts = text is not None
        self.digest = _digest(Path(self.folder))
        self._tagger: Tagger | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Tags a batch, a mapping from column names to values.

        Raises:
            CorpusError: It has no such column, or holds something else.
            BundleError: The model has been replaced since this was made.
        """
        if not isinstance(batch, Mapping):
            raise CorpusError(
                f"expected a mapping of columns, found {type(batch).__name__}: use no format, or numpy"
            )
        if self.column not in batch:
            raise CorpusError(f"there is no column {self.column!r} to tag; the columns are: {', '.join(batch)}")
        values = batch[self.column]
        wanted = "texts" if self.holds_texts else "lists of tokens"
        if isinstance(values, str) or any(isinstance(value, str) is not self.holds_texts for value in values):
            raise CorpusError(f"the column {self.column!r} does not hold {wanted}, or batched=True is missing")
        tagger = self._ready()
        if self.holds_texts:
            tagged = list(tagger.tag_texts(values))
            entities = [[_columns(entity) for entity in each.entities] for each in tagged]
            extra = {"tokens": [each.tokens for each in tagged]}
        else:
            tagged = list(tagger.tag_tokens(list(map(str, value)) for value in values))
            entities = [_in_tokens(each) for each in tagged]
            extra = {}
        return {**extra, "labels": [each.labels for each in tagged], "entities": entities}

    def features(self, given: Any) -> Any:
        """The features of a dataset that has been mapped, for `map(..., features=...)`.

        Without them `datasets` goes by the first rows, which fails where these have no entity and later ones do.

        Args:
            given: `dataset.features`, of the dataset to be mapped.
        """
        from nertool.formats.sharing import entity_features

        return entity_features(given, self.holds_texts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_tagger"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _tagger=None)

    def _ready(self) -> Tagger:
        if self._tagger is None:
            if _digest(Path(self.folder)) != self.digest:
                raise BundleError(f"{self.folder}: the model is another than when this was made; make it again")
            if os.getpid() != _PROCESS:
                # Threads do not survive a fork, but what waits for them does; and processes share the cores.
                import torch

                torch.set_num_threads(1)
            self._tagger = Tagger.load(self.folder)
        return self._tagger


def _in_tokens(tagged: Tagged) -> list[dict[str, Any]]:
    starts = {start: place for place, (start, _) in enumerate(tagged.offsets)}
    ends = {end: place + 1 for place, (_, end) in enumerate(tagged.offsets)}
    return [
        {**_columns(entity), "start": starts[entity.start], "end": ends[entity.end]} for entity in tagged.entities
    ]


def _columns(entity: Entity) -> dict[str, Any]:
    """What `Mapper.features` promises."""
    return {name: getattr(entity, name) for name in ("start", "end", "label", "text", "score")}


def _digest(folder: Path) -> str:
    """What changes when a file of the model does."""
    found = hashlib.sha256()
    try:
        for name in (CONFIG, LEXICON, WEIGHTS):
            found.update(hashlib.sha256((folder / name).read_bytes()).digest())
    except OSError as problem:
        raise BundleError(f"{folder} is not a model: {problem.filename}: {problem.strerror}") from None
    return found.hexdigest()
