"""A trained model in a spaCy pipeline: entities on Docs, and the model saved with the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import srsly
from spacy import util
from spacy.pipeline.pipe import Pipe
from spacy.tokens import Doc, Span, SpanGroup
from spacy.vocab import Vocab

from nertool.errors import BundleError, NertoolError
from nertool.integrations.spacy.documents import columns_read, doc_documents
from nertool.text.schemes import Scheme, split_label

if TYPE_CHECKING:
    from nertool.model.model import Model
    from nertool.tagging.predictor import Predictor

TOKENS_AT_ONCE = 20_000


class _Found(NamedTuple):
    start: int
    end: int
    label: str
    score: float


class EntityPipe(Pipe):
    """Sets the entities of Docs.

    The entities that it finds are also in `doc.spans[name]`, in order, and their probabilities in
    `doc.spans[name].attrs["scores"]`. Called on a Doc again, it replaces the entities that it set before.

    Args:
        vocab: Of the pipeline.
        name: Of the component; names the span group too.
        source: The run directory that the pipeline's config names, if any.
        device: What the model computes on.
        overwrite_ents: Whether other entities that are on a Doc already give way to overlapping ones.
        scorer: What `nlp.evaluate` scores the component with.

    Raises:
        ConfigError: There is no such device.
    """

    def __init__(
        self,
        vocab: Vocab,
        name: str = "nertool",
        *,
        source: str | None = None,
        device: str = "cpu",
        overwrite_ents: bool = False,
        scorer: Callable[..., Any] | None = None,
    ) -> None:
        self.vocab = vocab
        self.name = name
        self.source = source
        self.device = device
        if device != "cpu":  # said now, and not when the component is used
            from nertool.model.devices import find_device

            find_device(device, f"component {name!r}: device")
        self.overwrite_ents = overwrite_ents
        self.scorer = scorer
        self.model: Model | None = None
        self._missing = f"there is no model folder {source}"
        self._columns: tuple[str, ...] = ()
        self._predictor: Predictor | None = None

    def load_source(self) -> None:
        """Load the model in the run directory, or of the hub.

        A missing folder, or a hub that cannot be reached, is an error only when the component is used: the config
        of a saved pipeline still names what its weights, which are loaded afterwards, once came from.

        Raises:
            BundleError: The model is corrupt, or tags something else than entities.
        """
        from nertool.tagging.bundle import load_bundle
        from nertool.tagging.loading import locate

        if self.source is None:
            return
        try:
            folder = locate(self.source).expanduser()
        except NertoolError as problem:
            self._missing = str(problem)
            return
        if folder.is_dir():
            self._adopt(load_bundle(folder), str(folder))
        elif folder.is_file():
            self._missing = f"{self.source} is one file; the component needs a run directory"

    def __call__(self, doc: Doc) -> Doc:
        """Set the entities of one Doc."""
        try:
            self._annotate([doc])
        except Exception as problem:
            self.get_error_handler()(self.name, self, [doc], problem)
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Set the entities of a stream of Docs, in order.

        Args:
            stream: The Docs.
            batch_size: How many are held together, at most; fewer if they have many tokens.
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
        predictor = self._ready_predictor()
        cut = [doc_documents(doc, self._columns) for doc in docs]
        sentences = [sentence for documents, _ in cut for sentence in documents]
        predictions = predictor.predict(sentences, probabilities=True)
        found, names = predictions.entities, predictions.label_tables.names
        types = [split_label(label)[1] for label in names[predictions.tables.labels[found.starts]].tolist()]
        scores = np.round(predictions.probabilities(found.starts, found.ends), 6).tolist()
        # From tokens of all sentences in a row to tokens of each Doc.
        tokens = np.concatenate([np.zeros(0, np.int64), *(each for _, indices in cut for each in indices)])
        starts, ends = tokens[found.starts].tolist(), (tokens[found.ends - 1] + 1).tolist()
        entities = list(map(_Found, starts, ends, types, scores))
        counts = [sum(map(len, indices)) for _, indices in cut]
        bounds = np.searchsorted(found.starts, np.cumsum([0, *counts])).tolist()
        for doc, first, last in zip(docs, bounds, bounds[1:], strict=False):
            self._set(doc, entities[first:last])

    def _set(self, doc: Doc, entities: list[_Found]) -> None:
        blocked = _blocked(doc)
        taken = np.zeros(len(doc), dtype=bool)
        for start, end in blocked:
            taken[start:end] = True
        entities = [each for each in entities if not taken[each.start : each.end].any()]
        # What an earlier call set gives way, so that a second call gives what the first one gave.
        before = {_key(span) for span in doc.spans.get(self.name, ())}
        wanted = {each[:3] for each in entities}
        same = {_key(entity): entity for entity in doc.ents if _key(entity) in wanted}
        others = [entity for entity in doc.ents if _key(entity) not in before | same.keys()]
        if others and self.overwrite_ents:
            for each in entities:
                taken[each.start : each.end] = True
            others = [entity for entity in others if not taken[entity.start : entity.end].any()]
        elif others:
            for entity in others:
                taken[entity.start : entity.end] = True
            entities = [each for each in entities if not taken[each.start : each.end].any()]
        # An entity that is there already keeps its knowledge base id.
        own = [same.get(each[:3]) or Span(doc, each.start, each.end, label=each.label) for each in entities]
        doc.set_ents([*others, *own], blocked=[Span(doc, start, end) for start, end in blocked])
        scores = [each.score for each in entities]
        doc.spans[self.name] = SpanGroup(doc, name=self.name, attrs={"scores": scores}, spans=own)

    def _ready_model(self) -> Model:
        """Return the model as it is to be used and saved."""
        if self.model is None:
            why = "it has no model: name one (model), or train one (nlp.initialize, spacy train)"
            if self.source is not None:
                why = self._missing
            raise NertoolError(f"component {self.name!r}: {why}")
        return self.model

    def _ready_predictor(self) -> Predictor:
        model = self._ready_model()
        from nertool.tagging.predictor import Predictor

        if self._predictor is None:
            self._predictor = Predictor(model)
        return self._predictor

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Return the model as bytes: config, vocabulary, and weights as safetensors.

        Args:
            exclude: "vocab" or "model".
        """
        from nertool.tagging.bundle import pack

        parts: dict[str, Callable[[], bytes]] = {"vocab": lambda: self.vocab.to_bytes(exclude=exclude)}
        if self.model is not None:
            parts["model"] = lambda: srsly.msgpack_dumps(pack(self._ready_model()))
        return util.to_bytes(parts, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> EntityPipe:
        """Load what `to_bytes` returned; arguments as there.

        Raises:
            BundleError: The model is corrupt.
        """
        from nertool.tagging.bundle import unpack

        def load(content: bytes) -> None:
            where = f"bytes of {self.name!r}"
            self._adopt(unpack(srsly.msgpack_loads(content), where), where)

        parts = {"vocab": lambda data: self.vocab.from_bytes(data, exclude=exclude), "model": load}
        util.from_bytes(bytes_data, parts, exclude)
        return self

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write a folder; in it, `model` is a run directory such as `nertool train` writes.

        Args:
            path: The folder.
            exclude: "vocab" or "model".
        """
        from nertool.tagging.bundle import save_bundle

        parts: dict[str, Callable[[Path], None]] = {
            "vocab": lambda target: self.vocab.to_disk(target, exclude=exclude)
        }
        if self.model is not None:
            parts["model"] = lambda target: save_bundle(self._ready_model(), target)
        util.to_disk(path, parts, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> EntityPipe:
        """Load what `to_disk` wrote; arguments as there.

        Raises:
            BundleError: The model is corrupt.
        """
        from nertool.tagging.bundle import load_bundle

        def load(folder: Path) -> None:
            if folder.is_dir():  # a component without a model wrote none
                self._adopt(load_bundle(folder), str(folder))

        parts: dict[str, Callable[[Path], Any]] = {
            "vocab": lambda source: self.vocab.from_disk(source, exclude=exclude),
            "model": load,
        }
        util.from_disk(path, parts, exclude)
        return self

    def _adopt(self, model: Model, where: str) -> None:
        if model.scheme is Scheme.PLAIN:
            raise BundleError(f"{where}: this model gives each token a tag; the component sets entities")
        try:
            columns = columns_read(model.config)
        except NertoolError as problem:
            raise BundleError(f"{where}: {problem}") from None
        if self.device != "cpu":
            from nertool.model.devices import find_device

            model.network.to(find_device(self.device))
        self.model = model
        self._columns = columns
        self._predictor = None


def _key(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.label_


def _blocked(doc: Doc) -> list[tuple[int, int]]:
    """Find the tokens that `doc.set_ents(blocked=...)` keeps free of entities, as runs: start and end of each."""
    begin = 3  # of an entity; without a type it means that none may be here
    table = doc.to_array(["ENT_IOB", "ENT_TYPE"]).reshape(len(doc), 2)
    flags = np.concatenate(([False], (table[:, 0] == begin) & (table[:, 1] == 0), [False]))
    starts, ends = np.flatnonzero(flags[1:] & ~flags[:-1]), np.flatnonzero(flags[:-1] & ~flags[1:])
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _parts(stream: Iterable[Doc], size: int) -> Iterator[list[Doc]]:
    """Cut a stream by the number of Docs, or of tokens, whichever is reached first."""
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
