"""What the page asks for, and what it is answered: the store and the newest model behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nertool.errors import NertoolError
from nertool.formats.project import open_database, sentences
from nertool.labelling.download import download, downloads
from nertool.labelling.progress import FEWEST_ENTITIES, FEWEST_MODELS, Point, extrapolate, f1
from nertool.labelling.records import Answer, Held, LateError, Span, checked_name
from nertool.labelling.requests import Answered, Asked, Looked, Reopened, TypeChanged, Wanted, parse, refuse
from nertool.labelling.rounds import Proposer, Rounds
from nertool.labelling.store import Store
from nertool.serving.requests import to_json

_RECENT = 3  # models whose answers say how good the proposals are now


class Desk:
    """Answers the page.

    Args:
        store: Of the project.
        rounds: Trains its models.
    """

    def __init__(self, store: Store, rounds: Rounds) -> None:
        self._store = store
        self._rounds = rounds
        self._database = open_database(store.folder)
        # One thread: SQLite has one writer, and the answers of a person come one after another.
        self._executor = ThreadPoolExecutor(1, "nertool-desk")
        self.handlers = {
            "/next": self._handler(self._next),
            "/answer": self._handler(self._answer),
            "/undo": self._handler(self._undo),
            "/reopen": self._handler(self._reopen),
            "/types": self._handler(self._types),
            "/history": self._handler(self._history),
            "/train": self._handler(self._train),
            "/state": self._handler(self._state),
            "/download": self._download,
        }

    def close(self) -> None:
        """Answer nothing any more; what was asked is answered first."""
        self._executor.shutdown()
        self._database.close()

    def _handler(self, answer: Callable[[bytearray], Any]) -> Any:
        async def handle(body: bytearray, details: dict[str, Any]) -> bytes:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, lambda: to_json(answer(body)))

        return handle

    async def _download(self, body: bytearray, details: dict[str, Any]) -> bytes:
        """Give all answers as a file; this takes long in a large project, and nobody else waits for it."""
        asked = parse(body, Wanted)
        if asked.format not in downloads():
            refuse(422, f"format: one of {', '.join(downloads())}")
        try:
            return to_json(await asyncio.to_thread(download, self._store.folder, asked.format))
        except NertoolError as problem:
            refuse(409, str(problem))

    # Handlers, in the thread of the executor

    def _next(self, body: bytearray) -> dict[str, Any]:
        return self._given(_checked(parse(body, Asked)))

    def _state(self, body: bytearray) -> dict[str, Any]:
        asked = _checked(parse(body, Asked))
        self._store.renew(asked.session)
        return {"state": self.state()}

    def _answer(self, body: bytearray) -> dict[str, Any]:
        asked = _checked(parse(body, Answered))
        answer = Answer(
            sentence=asked.sentence,
            action=asked.action,
            spans=tuple(Span(*span) for span in asked.spans),
            outside=tuple(asked.outside) if asked.partial else (),
            partial=asked.partial,
            before=asked.before,
            key=asked.key,
            seconds=asked.seconds,
        )
        message = ""
        try:
            self._store.answer(answer, asked.session, asked.annotator)
        except LateError as problem:
            message = str(problem)
        return {**self._given(asked), "message": message}

    def _undo(self, body: bytearray) -> dict[str, Any]:
        asked = _checked(parse(body, Asked))
        try:
            held = self._store.undo(asked.session, asked.annotator)
        except LateError as problem:
            refuse(409, str(problem))
        if held is None:
            refuse(409, "there is nothing to undo")
        own = self._store.last_answer_of(held.sentence, asked.annotator)
        return self._given(asked, held, own)

    def _reopen(self, body: bytearray) -> dict[str, Any]:
        asked = _checked(parse(body, Reopened))
        try:
            held = self._store.reopen(asked.sentence, asked.session, asked.annotator)
        except LateError as problem:
            refuse(409, str(problem))
        return self._given(asked, held)

    def _types(self, body: bytearray) -> dict[str, Any]:
        asked = _checked(parse(body, TypeChanged))
        added = None
        if asked.id is None:
            added = self._store.add_type(asked.name or "")
        elif asked.name is None:
            self._store.remove_type(asked.id)
        else:
            self._store.rename_type(asked.id, asked.name)
        return {"state": self.state(), "added": added}

    def _history(self, body: bytearray) -> dict[str, Any]:
        asked = _checked(parse(body, Looked))
        return {"answers": self._store.history(asked.before)}

    def _train(self, body: bytearray) -> dict[str, Any]:
        _checked(parse(body, Asked))
        self._rounds.ask()
        return {"state": self.state()}

    # What they answer

    def _given(self, asked: Asked, held: Held | None = None, own: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the sentence that a session is to answer, and how things stand.

        Args:
            asked: Who asks.
            held: The sentence, if it is chosen already.
            own: What the annotator said of it before.
        """
        held = held or self._store.hold(asked.session, asked.annotator)
        if held is None:
            return {"sentence": None, "state": self.state()}
        sentence = self._store.sentence(held.sentence)
        proposer = self._rounds.proposer
        proposal, model = held.proposal, held.model
        if proposal is None and proposer is not None:
            proposal, model = self._propose(proposer, held.sentence), proposer.number
            self._store.keep_proposal(asked.session, proposal, model)
        imported = sentence.pop("imported")
        given: dict[str, Any] = {"spans": [], "outside": [], "partial": False}
        origin = "nothing"
        if sentence["role"] == "test":
            origin = "test"  # a proposal would draw the annotator to it, and the score with it
        elif imported is not None and not model:
            given["spans"], origin = imported, "file"
        elif proposal is not None:
            given["spans"], origin = proposal, "model"
        if own is not None:
            given, origin = own, "own"
        elif sentence["answer"] is not None:
            given, origin = sentence["answer"], "answer"
        sentence |= {"given": given, "origin": origin, "model": model}
        return {"sentence": sentence, "state": self.state()}

    def _propose(self, proposer: Proposer, number: int) -> list[list[Any]]:
        """Return the entities that a model finds: first token, token after the last, type and probability."""
        ((_, document),) = sentences(self._database, [number])
        try:
            (found,) = proposer.tagger.tag_documents([document])
        except NertoolError:
            return []
        scores = found.scores or (None,) * len(found.spans)
        return [
            [span.start, span.end, proposer.types[span.type], score]
            for span, score in zip(found.spans, scores, strict=True)
            if span.type in proposer.types
        ]

    def state(self) -> dict[str, Any]:
        """Return how things stand: types, counts, the model, how good it is, and what more labels would bring."""
        models = self._store.models()
        by_number = {model["number"]: model for model in models}
        scores = self._store.scores()
        points: dict[str, list[Point]] = {"all": [], "test": []}
        sums: dict[int, list[int]] = {}
        for number, correct, proposed, marked, _ in scores:
            own = sums.setdefault(number, [0, 0, 0])
            own[0], own[1], own[2] = own[0] + correct, own[1] + proposed, own[2] + marked
        for number, own in sorted(sums.items()):
            if number in by_number:  # the model that a project begins with learnt from something else
                points["all"].append(Point(by_number[number]["sentences"], *own))
        for model in models:
            correct, proposed, marked, _ = model["test"]
            points["test"].append(Point(model["sentences"], correct, proposed, marked))
        which = (
            "test" if sum(each.marked >= FEWEST_ENTITIES for each in points["test"]) >= FEWEST_MODELS else "all"
        )
        recent = [own for _, own in sorted(sums.items())[-_RECENT:]]
        last = models[-1] if models else None
        estimate = None if last is None else extrapolate(points[which], 2 * last["sentences"])
        return {
            "types": self._store.types(),
            "counts": self._store.counts(),
            "rounds": self._rounds.state(),
            "model": None
            if self._rounds.proposer is None
            else {
                "number": self._rounds.proposer.number,
                "sentences": last["sentences"] if last else None,
                "seconds": last["seconds"] if last else None,
                "folder": str(self._store.folder / last["folder"]) if last else None,
            },
            "scores": {
                "all": _score([sum(column) for column in zip(*sums.values(), strict=True)] if sums else None),
                "recent": _score([sum(column) for column in zip(*recent, strict=True)] if recent else None),
                "test": _score(last["test"][:3] if last and last["test"][3] else None),
                "test_sentences": last["test"][3] if last else 0,
            },
            "curve": {
                "kind": which,
                "points": [
                    [each.sentences, round(each.f1, 4), each.marked] for each in points[which] if each.marked
                ],
                "estimate": None
                if estimate is None
                else [
                    estimate.sentences,
                    *(round(each, 4) for each in (estimate.f1, estimate.low, estimate.high)),
                ],
            },
        }


def _score(counts: list[int] | None) -> dict[str, Any] | None:
    if counts is None or not counts[1] + counts[2]:
        return None
    correct, proposed, marked = counts
    return {
        "f1": round(f1(correct, proposed, marked), 4),
        "marked": marked,
        "proposed": proposed,
        "correct": correct,
    }


def _checked(asked: Any) -> Any:
    """Return a request whose annotator has a name that can be kept."""
    asked.annotator = checked_name(asked.annotator, "annotator")
    return asked
