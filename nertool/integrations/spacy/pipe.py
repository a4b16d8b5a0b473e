"""A trained model at work in a spaCy pipeline: entities on Docs, and the model saved with the pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import srsly
from spacy import util
from spacy.pipeline.pipe import Pipe
from spacy.tokens import Doc, Span, SpanGroup
from spacy.vocab import Vocab

from nertool.errors import BundleError, NertoolError
from nertool.formats.spacy_docs import doc_sentences
from nertool.text.schemes import Scheme, spans

if TYPE_CHECKING:
    from nertool.tagging.bundle import Model
    from nertool.tagging.labeller import Labeller

TOKENS_AT_ONCE = 20_000


class EntityPipe(Pipe):
    """Sets the entities of Docs.

    The entities that it sets are also in `doc.spans[name]`, in order, and their probabilities in
    `doc.spans[name].attrs["scores"]`.

    Args:
        vocab: Of the pipeline.
        name: Of the component; names the span group too.
        source: The run directory that the pipeline's config names, if it does.
        overwrite_ents: Whether entities that are on a Doc already give way where these overlap them.
        scorer: What `nlp.evaluate` scores the component with.
    """

    def __init__(
        self,
        vocab: Vocab,
        name: str = "nertool",
        *,
        source: str | None = None,
        overwrite_ents: bool = False,
        scorer: Callable[..., Any] | None = None,
    ) -> None:
        self.vocab = vocab
        self.name = name
        self.source = source
        self.overwrite_ents = overwrite_ents
        self.scorer = scorer
        self.model: Model | None = None
        self._labeller: Labeller | None = None
        self._process = os.getpid()

    def load_source(self) -> None:
        """Loads the model in the run directory.

        Where there is no such folder, only using the component is an error: the config of a saved pipeline
        still names the folder that its weights, which are loaded afterwards, came from long ago.

        Raises:
            BundleError: It is damaged, or tags something else than entities.
        """
        from nertool.tagging.bundle import load_bundle

        folder = Path(self.source or "").expanduser()
        if self.source is not None and folder.is_dir():
            self._adopt(load_bundle(folder), str(folder))

    def __call__(self, doc: Doc) -> Doc:
        """Sets the entities of one Doc."""
        try:
            self._annotate([doc])
        except Exception as problem:
            self.get_error_handler()(self.name, self, [doc], problem)
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Sets the entities of a stream of Docs, in order.

        Args:
            stream: The Docs.
            batch_size: How many are held together, at most; fewer where they have many tokens.
        """
        handle = self.get_error_handler()
        for docs in _parts(stream, batch_size):
            try:
                self._annotate(docs)
            except Exception as problem:
                handle(self.name, self, docs, problem)
            else:
                yield from docs

    def _annotate(self, docs: list[Doc]) -> None:
        labeller, scheme = self._ready_labeller(), self._ready_model().lexicon.scheme
        cut = [doc_sentences(doc) for doc in docs]
        found = labeller.label([tokens for sentences, _ in cut for tokens in sentences], probabilities=True)
        number = 0
        for doc, (_, places) in zip(docs, cut, strict=True):
            entities: list[tuple[int, int, str, float]] = []
            for index, where in enumerate(places, number):
                for start, end, kind in spans(found.labels[index], scheme):
                    score = round(found.probability(index, start, end), 6)
                    entities.append((int(where[start]), int(where[end - 1]) + 1, kind, score))
            number += len(places)
            self._set(doc, entities)

    def _set(self, doc: Doc, entities: list[tuple[int, int, str, float]]) -> None:
        earlier = list(doc.ents)
        if earlier:
            taken = np.zeros(len(doc), dtype=bool)
            if self.overwrite_ents:
                for start, end, _, _ in entities:
                    taken[start:end] = True
                earlier = [entity for entity in earlier if not taken[entity.start : entity.end].any()]
            else:
                for entity in earlier:
                    taken[entity.start : entity.end] = True
                entities = [entity for entity in entities if not taken[entity[0] : entity[1]].any()]
        own = [Span(doc, start, end, label=kind) for start, end, kind, _ in entities]
        doc.set_ents([*earlier, *own])
        scores = [score for *_, score in entities]
        doc.spans[self.name] = SpanGroup(doc, name=self.name, attrs={"scores": scores}, spans=own)

    def _ready_model(self) -> Model:
        """The model as it is to be used and saved."""
        if self.model is None:
            why = "it has no model: name one (model), or train one (nlp.initialize, spacy train)"
            if self.source is not None:
                why = f"there is no model folder {self.source}"
            raise NertoolError(f"component {self.name!r}: {why}")
        return self.model

    def _ready_labeller(self) -> Labeller:
        model = self._ready_model()
        import torch

        from nertool.tagging.labeller import Labeller

        if self._process != os.getpid():
            # This process was forked, and has none of the threads that torch believes in: work that is
            # given to them is never done.
            torch.set_num_threads(1)
            self._labeller = None
            self._process = os.getpid()
        if self._labeller is None:
            self._labeller = Labeller(model)
        return self._labeller

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """The model as bytes: config, lexicon, and weights as safetensors.

        Args:
            exclude: "vocab" or "model".
        """
        from nertool.tagging.bundle import pack

        parts: dict[str, Callable[[], bytes]] = {"vocab": lambda: self.vocab.to_bytes(exclude=exclude)}
        if self.model is not None:
            parts["model"] = lambda: srsly.msgpack_dumps(pack(self._ready_model()))
        return util.to_bytes(parts, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> EntityPipe:
        """Loads what `to_bytes` gave; arguments as there.

        Raises:
            BundleError: The model is damaged.
        """
        from nertool.tagging.bundle import unpack

        def load(content: bytes) -> None:
            where = f"bytes of {self.name!r}"
            self._adopt(unpack(srsly.msgpack_loads(content), where), where)

        parts = {"vocab": lambda data: self.vocab.from_bytes(data, exclude=exclude), "model": load}
        util.from_bytes(bytes_data, parts, exclude)
        return self

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Writes a folder; in it, `model` is a run directory such as `nertool train` writes.

        Args:
            path: The folder.
            exclude: "vocab" or "model".
        """
        from nertool.tagging.bundle import save_bundle

        parts: dict[str, Callable[[Path], None]] = {
            "vocab": lambda place: self.vocab.to_disk(place, exclude=exclude)
        }
        if self.model is not None:
            parts["model"] = lambda place: save_bundle(self._ready_model(), place)
        util.to_disk(path, parts, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> EntityPipe:
        """Loads what `to_disk` wrote; arguments as there.

        Raises:
            BundleError: The model is damaged.
        """
        from nertool.tagging.bundle import load_bundle

        def load(place: Path) -> None:
            if place.is_dir():  # a component that had no model wrote none
                self._adopt(load_bundle(place), str(place))

        parts: dict[str, Callable[[Path], Any]] = {
            "vocab": lambda place: self.vocab.from_disk(place, exclude=exclude),
            "model": load,
        }
        util.from_disk(path, parts, exclude)
        return self

    def _adopt(self, model: Model, where: str) -> None:
        if model.lexicon.scheme is Scheme.PLAIN:
            raise BundleError(f"{where}: this model gives each token a tag; the component sets entities")
        self.model = model
        self._labeller = None


def _parts(stream: Iterable[Doc], size: int) -> Iterator[list[Doc]]:
    """Cuts a stream by the number of Docs, or of tokens, whichever is reached first."""
    docs: list[Doc] = []
    count = 0
    for doc in stream:
        docs.append(doc)
        count += len(doc)
        if len(docs) >= size or count >= TOKENS_AT_ONCE:
            yield docs
            docs, count = [], 0
    if docs:
        yield docs
