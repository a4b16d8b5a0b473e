"""The database of a project: sentences, what people said of them and when, and who is at work on which.

Each answer is on the disk before the method that takes it returns. Answers are never changed or removed: undoing
one puts the sentence back to the answer that it had before, and both stay in the history.
"""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nertool.config.files import write_whole
from nertool.errors import NertoolError
from nertool.formats.project import (
    DATABASE,
    SQLITE_ERRORS,
    TEST,
    TEST_LINE,
    check_version,
    explained,
)
from nertool.labelling.records import Answer, Held, LateError, New, Taken, check_answer, checked_name
from nertool.labelling.tables import TABLES

LEASE = 600.0
"""Seconds for which a sentence is a session's alone, from when it was last heard of."""

_PATIENCE = 10.0  # seconds to wait for another program that holds the database
_AROUND = 400  # characters of context before a sentence, and after it
_NEIGHBOURS = 4  # sentences of context, at most
_MOST_TYPES = 200


class Store:
    """The database of a project, for several threads.

    Args:
        folder: Of the project, which exists.

    Raises:
        NertoolError: It is not a project, of another version, or it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / DATABASE
        self._lock = threading.RLock()
        if not self.path.is_file():
            raise NertoolError(f"{folder}: this is not a project of `nertool label`: {DATABASE} is missing")
        try:
            self._database = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            check_version(self._database, self.path)
            for (finding,) in self._database.execute("PRAGMA quick_check(1)"):
                if finding != "ok":
                    raise explained(sqlite3.DatabaseError(f"malformed: {finding}"), self.path)
            self._database.execute("PRAGMA journal_mode = WAL")
            # An answer must also survive a power failure; the default of many builds does not see to that.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA foreign_keys = ON")
        except SQLITE_ERRORS as problem:
            raise explained(problem, self.path) from None

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, Any]) -> Store:
        """Make the database of a new project.

        Raises:
            NertoolError: There is one, or it cannot be written.
        """
        path = folder / DATABASE
        beside = folder / f".{DATABASE}.part"
        if path.exists():
            raise NertoolError(f"{folder}: there is a project in it already")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            database = sqlite3.connect(beside, isolation_level=None)
            try:
                database.executescript(f"BEGIN;{TABLES}COMMIT;")
                database.executemany(
                    "INSERT INTO settings VALUES (?, ?)",
                    [(name, json.dumps(value)) for name, value in settings.items()],
                )
            finally:
                database.close()
            write_whole(folder / TEST, f"{TEST_LINE}\n".encode())
            beside.replace(path)
        except SQLITE_ERRORS as problem:
            raise explained(problem, path) from None
        except OSError as problem:
            raise NertoolError(f"{folder}: cannot write there: {problem.strerror or problem}") from None
        return cls(folder)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the database for changes that are made together, or not at all."""
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except SQLITE_ERRORS as problem:
                raise explained(problem, self.path) from None

    def _ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._database.execute(query, values).fetchall()
            except SQLITE_ERRORS as problem:
                raise explained(problem, self.path) from None

    # Settings

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the project."""
        return {name: json.loads(value) for name, value in self._ask("SELECT name, value FROM settings")}

    def set(self, **settings: Any) -> None:
        """Change settings."""
        with self._writing() as database:
            rows = [(name, json.dumps(value)) for name, value in settings.items()]
            database.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", rows)

    # Texts

    def take(
        self,
        documents: Iterable[tuple[str, str | None, int, Sequence[New]]],
        *,
        test_share: float,
        seed: int,
        gold: bool = False,
        source: str = "",
    ) -> Taken:
        """Take sentences into the project.

        Args:
            documents: Of each its source, its name, a number that it shares with those that are its context, and
                its sentences.
            test_share: Share of them that is kept apart to test with.
            seed: Of the choice.
            gold: Whether their entities are answers; else they are proposals.
            source: Who gave these answers.
        """
        chance = random.Random(seed)
        counts = {"sentences": 0, "copies": 0, "answers": 0, "kept": 0, "proposals": 0}
        with self._writing() as database:
            known = {text: number for number, text in database.execute("SELECT id, text FROM sentences")}
            types = {name: number for number, name in database.execute("SELECT id, name FROM types")}
            (shift,) = database.execute("SELECT coalesce(max(context), 0) FROM documents").fetchone()
            for place, name, context, own in documents:
                document = database.execute(
                    "INSERT INTO documents (source, name, context) VALUES (?, ?, ?)",
                    (place, name, shift + context),
                ).lastrowid
                for new in own:
                    draw = chance.random()
                    role = "copy" if new.text in known else "test" if draw < test_share else "pool"
                    spans = []
                    for start, end, label in new.spans or ():
                        if label not in types:
                            types[label] = _add_type(database, label)
                        spans.append([start, end, types[label]])
                    proposal = json.dumps(spans) if new.spans is not None and not gold else None
                    number = database.execute(
                        "INSERT INTO sentences "
                        "(document, text, offsets, spaced, gap, columns, role, draw, proposal) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (
                            document,
                            new.text,
                            json.dumps(new.offsets),
                            new.spaced,
                            new.gap,
                            json.dumps(new.columns),
                            role,
                            chance.random(),
                            proposal,
                        ),
                    ).lastrowid
                    counts["sentences"] += 1
                    counts["copies"] += role == "copy"
                    # What is new of a sentence that is there already belongs to that one.
                    target = known.setdefault(new.text, number or 0)
                    if role == "copy" and proposal is not None:
                        database.execute("UPDATE sentences SET proposal = ? WHERE id = ?", (proposal, target))
                    counts["proposals"] += proposal is not None
                    if gold and new.spans is not None:
                        is_first = _answer_from_file(database, target, spans, new, source)
                        counts["answers" if is_first else "kept"] += 1
        return Taken(**counts)

    # Types

    def types(self) -> list[dict[str, Any]]:
        """Return the types in their order: number, name, and of how many entities they are."""
        counts = dict(
            self._ask(
                "SELECT json_extract(span.value, '$[2]'), count(*) FROM sentences s "
                "JOIN answers a ON a.id = s.answer AND a.action = 'accept', json_each(a.spans) span GROUP BY 1"
            )
        )
        rows = self._ask("SELECT id, name FROM types WHERE NOT removed ORDER BY id")
        return [{"id": number, "name": name, "count": counts.get(number, 0)} for number, name in rows]

    def type_names(self) -> dict[str, int]:
        """Return the number of each type by its name."""
        return dict(self._ask("SELECT name, id FROM types WHERE NOT removed ORDER BY id"))

    def add_type(self, name: str) -> int:
        """Add a type; one that was removed comes back.

        Raises:
            NertoolError: There is one of that name, or it cannot be a name.
        """
        name = checked_name(name, "type")
        with self._writing() as database:
            row = database.execute("SELECT id, removed FROM types WHERE name = ?", (name,)).fetchone()
            if row is not None and not row[1]:
                raise NertoolError(f"there is a type {name} already")
            if row is not None:
                database.execute("UPDATE types SET removed = 0 WHERE id = ?", (row[0],))
                return int(row[0])
            return _add_type(database, name)

    def rename_type(self, number: int, name: str) -> None:
        """Rename a type, in all answers too.

        Raises:
            NertoolError: There is no such type, or another of that name.
        """
        name = checked_name(name, "type")
        with self._writing() as database:
            other = database.execute("SELECT id FROM types WHERE name = ? AND id != ?", (name, number)).fetchone()
            if other is not None:
                raise NertoolError(f"there is, or was, another type {name}")
            if not database.execute("UPDATE types SET name = ? WHERE id = ?", (name, number)).rowcount:
                raise NertoolError("there is no such type")

    def remove_type(self, number: int) -> None:
        """Remove a type of which there are no entities.

        Raises:
            NertoolError: There are.
        """
        count = next((each["count"] for each in self.types() if each["id"] == number), 0)
        if count:
            raise NertoolError(f"{count:,} entities are of this type: correct them first, or rename it")
        with self._writing() as database:
            database.execute("UPDATE types SET removed = 1 WHERE id = ?", (number,))

    # Sentences and answers

    def hold(self, session: str, annotator: str) -> Held | None:
        """Return the sentence that a session is to answer next, and keep it from others; None where none is left.

        Sentences of the test set come at random, in proportion to their share. Of the others those come first that
        the last ranking puts first, the rest at random, and last those that were skipped.
        """
        now = time.time()
        with self._writing() as database:
            database.execute("DELETE FROM leases WHERE expires < ?", (now,))
            row = database.execute(
                "SELECT l.sentence, l.proposal, l.model FROM leases l WHERE session = ?", (session,)
            ).fetchone()
            if row is not None:
                database.execute(
                    "UPDATE leases SET expires = ?, annotator = ? WHERE session = ?",
                    (now + LEASE, annotator, session),
                )
                return Held(row[0], None if row[1] is None else json.loads(row[1]), row[2])
            number = _choose(database, annotator)
            if number is None:
                return None
            database.execute(
                "INSERT INTO leases (sentence, session, annotator, expires) VALUES (?, ?, ?, ?)",
                (number, session, annotator, now + LEASE),
            )
            return Held(number, None, None)

    def keep_proposal(self, session: str, proposal: Sequence[Sequence[Any]], model: int) -> None:
        """Remember what a model proposed to a session."""
        with self._writing() as database:
            database.execute(
                "UPDATE leases SET proposal = ?, model = ? WHERE session = ?",
                (json.dumps(proposal), model, session),
            )

    def renew(self, session: str) -> None:
        """Keep a session's sentence from others for longer."""
        with self._writing() as database:
            database.execute("UPDATE leases SET expires = ? WHERE session = ?", (time.time() + LEASE, session))

    def sentence(self, number: int) -> dict[str, Any]:
        """Return a sentence with its context, and the answer that it has.

        Raises:
            NertoolError: There is no such sentence.
        """
        rows = self._ask(
            "SELECT s.text, s.offsets, s.role, s.proposal, s.answer, d.context, d.source, d.name FROM sentences s "
            "JOIN documents d ON d.id = s.document WHERE s.id = ?",
            number,
        )
        if not rows:
            raise NertoolError("there is no such sentence")
        ((text, offsets, role, proposal, answer, context, source, name),) = rows
        result = {
            "id": number,
            "text": text,
            "tokens": json.loads(offsets),
            "role": role,
            "imported": None if proposal is None else json.loads(proposal),
            "before": self._context(number, context, -1),
            "after": self._context(number, context, 1),
            "source": source if name is None else f"{source}, {name}",
            "answer": None,
            "answer_id": answer,
        }
        if answer is not None:
            ((action, spans, outside, partial, annotator),) = self._ask(
                "SELECT action, spans, outside, partial, annotator FROM answers WHERE id = ?", answer
            )
            result["answer"] = {
                "action": action,
                "spans": json.loads(spans),
                "outside": json.loads(outside),
                "partial": bool(partial),
                "annotator": annotator,
            }
        reason = self._ask("SELECT reason FROM ranking WHERE sentence = ?", number)
        result["reason"] = reason[0][0] if reason else ""
        return result

    def _context(self, number: int, context: int, way: int) -> str:
        """Return the text before a sentence or after it."""
        order, side = ("DESC", "<") if way < 0 else ("ASC", ">")
        rows = self._ask(
            "SELECT s.text, s.gap, s.document FROM sentences s JOIN documents d ON d.id = s.document "
            f"WHERE d.context = ? AND s.id {side} ? AND s.id BETWEEN ? AND ? ORDER BY s.id {order}",
            context,
            number,
            number - _NEIGHBOURS,
            number + _NEIGHBOURS,
        )
        if way < 0:
            own = self._ask("SELECT gap, document FROM sentences WHERE id = ?", number)[0]
            after = "".join(gap + text for text, gap, _ in reversed(rows)) + (own[0] if rows else "")
            return after if len(after) <= _AROUND else "…" + after[-_AROUND:]
        before = "".join(gap + text for text, gap, _ in rows)
        return before if len(before) <= _AROUND else before[:_AROUND] + "…"

    def answer(self, answer: Answer, session: str, annotator: str) -> None:
        """Take an answer; when this returns, it is on the disk.

        Raises:
            LateError: Another answer came first; this one is in the history, and not used.
            NertoolError: It does not fit the sentence.
        """
        with self._writing() as database:
            if database.execute("SELECT 1 FROM answers WHERE key = ?", (answer.key,)).fetchone():
                return  # the request comes again, because the answer to it was lost
            row = database.execute(
                "SELECT answer, offsets, role FROM sentences WHERE id = ?", (answer.sentence,)
            ).fetchone()
            if row is None:
                raise NertoolError("there is no such sentence")
            now_in_force, offsets, _ = row
            known = {number for (number,) in database.execute("SELECT id FROM types WHERE NOT removed")}
            check_answer(answer, len(json.loads(offsets)), known)
            lease = database.execute(
                "SELECT proposal, model FROM leases WHERE session = ? AND sentence = ?", (session, answer.sentence)
            ).fetchone()
            proposal, model = lease or (None, None)
            late = now_in_force != answer.before
            scored: tuple[int | None, ...] = (None, None, None)
            first = answer.before is None and answer.action == "accept" and not answer.partial
            if proposal is not None and first and not late:
                proposed = {tuple(each[:3]) for each in json.loads(proposal)}
                scored = len(proposed & set(answer.spans)), len(proposed), len(answer.spans)
            number = database.execute(
                "INSERT INTO answers (key, sentence, annotator, time, seconds, action, spans, outside, partial, "
                "proposal, model, correct, proposed, marked, before, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    answer.key,
                    answer.sentence,
                    annotator,
                    time.time(),
                    answer.seconds,
                    answer.action,
                    json.dumps(sorted(answer.spans)),
                    json.dumps(sorted(answer.outside)),
                    answer.partial,
                    proposal,
                    model,
                    *scored,
                    now_in_force,
                    "late" if late else "used",
                ),
            ).lastrowid
            if not late:
                if answer.action == "skip":
                    database.execute("UPDATE sentences SET skipped = ? WHERE id = ?", (number, answer.sentence))
                else:
                    database.execute("UPDATE sentences SET answer = ? WHERE id = ?", (number, answer.sentence))
                    _judge_by(database, answer.sentence, answer.partial or answer.action != "accept")
            database.execute("DELETE FROM leases WHERE session = ?", (session,))
            who = None
            if late and now_in_force is not None:
                (who,) = database.execute("SELECT annotator FROM answers WHERE id = ?", (now_in_force,)).fetchone()
        if late:
            raise LateError(
                f"{who or 'Somebody'} has answered this sentence meanwhile; your answer is only in the history"
            )

    def undo(self, session: str, annotator: str) -> Held | None:
        """Take back an annotator's last answer, and give its sentence to the session; None where there is none.

        Raises:
            LateError: Somebody has changed it since.
        """
        with self._writing() as database:
            row = database.execute(
                "SELECT id, sentence, action, before FROM answers WHERE annotator = ? AND state = 'used' "
                "AND action != 'undo' AND key IS NOT NULL ORDER BY id DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            if row is None:
                return None
            number, sentence, action, before = row
            (in_force,) = database.execute("SELECT answer FROM sentences WHERE id = ?", (sentence,)).fetchone()
            if action != "skip" and in_force != number:
                raise LateError("somebody has changed your last answer since; the history shows it")
            if action == "skip":
                database.execute("UPDATE sentences SET skipped = 0 WHERE id = ?", (sentence,))
            else:
                database.execute("UPDATE sentences SET answer = ? WHERE id = ?", (before, sentence))
            database.execute("UPDATE answers SET state = 'undone' WHERE id = ?", (number,))
            database.execute(
                "INSERT INTO answers (sentence, annotator, time, action, spans, outside, partial, before, state) "
                "VALUES (?, ?, ?, 'undo', '[]', '[]', 0, ?, 'used')",
                (sentence, annotator, time.time(), number),
            )
            return self._give(database, sentence, session, annotator)

    def reopen(self, sentence: int, session: str, annotator: str) -> Held:
        """Give a sentence to a session, to correct its answer.

        Raises:
            LateError: Somebody else is at work on it.
            NertoolError: There is no such sentence.
        """
        with self._writing() as database:
            if not database.execute("SELECT 1 FROM sentences WHERE id = ?", (sentence,)).fetchone():
                raise NertoolError("there is no such sentence")
            return self._give(database, sentence, session, annotator)

    def _give(self, database: sqlite3.Connection, sentence: int, session: str, annotator: str) -> Held:
        now = time.time()
        other = database.execute(
            "SELECT annotator FROM leases WHERE sentence = ? AND session != ? AND expires >= ?",
            (sentence, session, now),
        ).fetchone()
        if other is not None:
            raise LateError(f"{other[0]} is at work on this sentence")
        database.execute("DELETE FROM leases WHERE session = ? OR sentence = ?", (session, sentence))
        database.execute(
            "INSERT INTO leases (sentence, session, annotator, expires) VALUES (?, ?, ?, ?)",
            (sentence, session, annotator, now + LEASE),
        )
        return Held(sentence, None, None)

    def last_answer_of(self, sentence: int, annotator: str) -> dict[str, Any] | None:
        """Return the last answer that an annotator gave to a sentence, undone or not; None where there is none."""
        rows = self._ask(
            "SELECT spans, outside, partial FROM answers WHERE sentence = ? AND annotator = ? "
            "AND action IN ('accept', 'reject', 'skip') ORDER BY id DESC LIMIT 1",
            sentence,
            annotator,
        )
        if not rows:
            return None
        spans, outside, partial = rows[0]
        return {"spans": json.loads(spans), "outside": json.loads(outside), "partial": bool(partial)}

    def history(self, before: int | None, count: int = 50) -> list[dict[str, Any]]:
        """Return answers of all annotators, the newest first.

        Args:
            before: Number of an answer; those before it are returned.
            count: How many, at most.
        """
        rows = self._ask(
            "SELECT a.id, a.sentence, a.annotator, a.time, a.seconds, a.action, a.spans, a.partial, a.state, "
            "s.text, s.offsets FROM answers a JOIN sentences s ON s.id = a.sentence "
            "WHERE ? IS NULL OR a.id < ? ORDER BY a.id DESC LIMIT ?",
            before,
            before,
            count,
        )
        names = dict(self._ask("SELECT id, name FROM types"))
        result = []
        for number, sentence, annotator, when, seconds, action, spans, partial, state, text, offsets in rows:
            places = json.loads(offsets)
            result.append(
                {
                    "id": number,
                    "sentence": sentence,
                    "annotator": annotator,
                    "time": when,
                    "seconds": seconds,
                    "action": action,
                    "partial": bool(partial),
                    "state": state,
                    "text": text[:300],
                    "entities": [
                        [text[places[start][0] : places[end - 1][1]][:80], names.get(type_, "?")]
                        for start, end, type_ in json.loads(spans)[:20]
                    ],
                }
            )
        return result

    # Counts

    def counts(self) -> dict[str, Any]:
        """Return how many sentences were answered, and how, and how many are left."""
        by_role: dict[str, dict[str, int]] = {"pool": {}, "test": {}}
        for role, action, count in self._ask(
            "SELECT s.role, a.action, count(*) FROM sentences s JOIN answers a ON a.id = s.answer GROUP BY 1, 2"
        ):
            by_role.setdefault(role, {})[action] = count
        ((left, skipped),) = self._ask(
            "SELECT count(*), coalesce(sum(skipped > 0), 0) FROM sentences WHERE answer IS NULL AND role != 'copy'"
        )
        people = dict(
            self._ask(
                "SELECT a.annotator, count(*) FROM sentences s JOIN answers a ON a.id = s.answer "
                "GROUP BY 1 ORDER BY 2 DESC LIMIT 20"
            )
        )
        return {
            "accepted": by_role["pool"].get("accept", 0) + by_role["test"].get("accept", 0),
            "rejected": by_role["pool"].get("reject", 0) + by_role["test"].get("reject", 0),
            "test": by_role["test"].get("accept", 0),
            "left": left,
            "skipped": skipped,
            "annotators": people,
        }

    def learnable(self) -> tuple[int, int, int]:
        """Return the last answer, and how many sentences there are to learn from and to judge by."""
        ((last,),) = self._ask("SELECT coalesce(max(id), 0) FROM answers")
        ((learn, judge),) = self._ask(
            "SELECT coalesce(sum(NOT s.validation), 0), coalesce(sum(s.validation), 0) FROM sentences s "
            "JOIN answers a ON a.id = s.answer WHERE s.role = 'pool' AND a.action = 'accept'"
        )
        return last, learn, judge

    def answers_since(self, number: int) -> int:
        """Return how many sentences to learn from have got the answer that they have after this one."""
        ((count,),) = self._ask(
            "SELECT count(*) FROM sentences s JOIN answers a ON a.id = s.answer "
            "WHERE a.id > ? AND s.role = 'pool' AND a.action = 'accept'",
            number,
        )
        return int(count)

    def scores(self) -> list[tuple[int, int, int, int, str]]:
        """Return how the models did on first answers, of which they knew nothing.

        Each row has the number of a model; correct, proposed and marked entities; and the role of the sentences.
        """
        rows = self._ask(
            "SELECT a.model, sum(a.correct), sum(a.proposed), sum(a.marked), s.role FROM answers a "
            "JOIN sentences s ON s.id = a.sentence WHERE a.correct IS NOT NULL AND a.state = 'used' GROUP BY 1, 5"
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    # Models

    def models(self) -> list[dict[str, Any]]:
        """Return all models that were trained, the oldest first."""
        keys = ("number", "folder", "time", "answers", "sentences", "seconds", "types", "test")
        rows = self._ask(f"SELECT {', '.join(keys)} FROM models ORDER BY number")
        result = []
        for row in rows:
            tree = dict(zip(keys, row, strict=True))
            result.append({**tree, "types": json.loads(tree["types"]), "test": json.loads(tree["test"])})
        return result

    def add_model(self, model: Mapping[str, Any], ranking: Sequence[tuple[int, str]]) -> None:
        """Remember a model that was trained, and in which order it would be taught."""
        with self._writing() as database:
            if model["number"]:
                database.execute(
                    "INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        model["number"],
                        model["folder"],
                        time.time(),
                        model["answers"],
                        model["sentences"],
                        model["seconds"],
                        json.dumps(model["types"]),
                        json.dumps(model["test"]),
                    ),
                )
            database.execute("DELETE FROM ranking")
            database.executemany(
                "INSERT OR IGNORE INTO ranking VALUES (?, ?, ?)",
                [(place, sentence, reason) for place, (sentence, reason) in enumerate(ranking)],
            )


def _answer_from_file(
    database: sqlite3.Connection, sentence: int, spans: list[list[int]], new: New, source: str
) -> bool:
    """Take an answer from a file; says whether it is the first one of its sentence, and else leaves that alone."""
    (before,) = database.execute("SELECT answer FROM sentences WHERE id = ?", (sentence,)).fetchone()
    if before is not None:
        return False
    values = (sentence, source, time.time(), json.dumps(spans), json.dumps(new.outside), new.partial)
    number = database.execute(
        "INSERT INTO answers (sentence, annotator, time, action, spans, outside, partial, state) "
        "VALUES (?, ?, ?, 'accept', ?, ?, ?, 'used')",
        values,
    ).lastrowid
    database.execute("UPDATE sentences SET answer = ? WHERE id = ?", (number, sentence))
    _judge_by(database, sentence, new.partial)
    return True


def _add_type(database: sqlite3.Connection, name: str) -> int:
    (count,) = database.execute("SELECT count(*) FROM types").fetchone()
    if count >= _MOST_TYPES:
        raise NertoolError(f"there are {count} types already; more are not taken")
    return int(database.execute("INSERT INTO types (name) VALUES (?)", (name,)).lastrowid or 0)


def _judge_by(database: sqlite3.Connection, sentence: int, partial: bool) -> None:
    """Choose whether a sentence judges trainings: every fifth does of the first hundred, then every tenth."""
    (role, before) = database.execute(
        "SELECT role, validation FROM sentences WHERE id = ?", (sentence,)
    ).fetchone()
    if role != "pool" or (before and not partial):
        return  # once it does, it always does, or a later model would be judged by what an earlier one learnt
    (count, judges) = database.execute(
        "SELECT count(*), coalesce(sum(s.validation), 0) FROM sentences s JOIN answers a ON a.id = s.answer "
        "WHERE s.role = 'pool' AND a.action = 'accept' AND s.id != ?",
        (sentence,),
    ).fetchone()
    wanted = 0.2 * min(count + 1, 100) + 0.1 * max(0, count - 99)
    chosen = not partial and not before and judges + 1 <= wanted and _is_new(database, sentence)
    database.execute("UPDATE sentences SET validation = ? WHERE id = ?", (chosen, sentence))


def _is_new(database: sqlite3.Connection, sentence: int) -> bool:
    """Say whether a sentence has its first answer, so that no model has learnt from it."""
    (count,) = database.execute(
        "SELECT count(*) FROM answers WHERE sentence = ? AND action = 'accept'", (sentence,)
    ).fetchone()
    return bool(count <= 1)


def _choose(database: sqlite3.Connection, annotator: str) -> int | None:
    """Choose a sentence that nobody has answered and nobody is at work on."""
    row = database.execute("SELECT value FROM settings WHERE name = 'test_share'").fetchone()
    share = json.loads(row[0]) if row else 0.0
    ((tests, others),) = database.execute(
        "SELECT coalesce(sum(s.role = 'test'), 0), coalesce(sum(s.role = 'pool'), 0) FROM sentences s "
        "JOIN answers a ON a.id = s.answer WHERE a.key IS NOT NULL"
    ).fetchall()
    open_ = (
        "FROM sentences s LEFT JOIN ranking r ON r.sentence = s.id WHERE s.answer IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.sentence = s.id) "
    )
    from_rank = (
        "SELECT s.id FROM ranking r JOIN sentences s ON s.id = r.sentence WHERE s.answer IS NULL "
        "AND s.skipped = 0 AND s.role = 'pool' AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.sentence = s.id) "
        "ORDER BY r.place LIMIT 1"
    )
    from_pool = f"SELECT s.id {open_} AND s.role = 'pool' AND s.skipped = 0 ORDER BY s.draw LIMIT 1"
    from_test = f"SELECT s.id {open_} AND s.role = 'test' AND s.skipped = 0 ORDER BY s.draw LIMIT 1"
    skipped = f"SELECT s.id {open_} AND s.role != 'copy' ORDER BY s.skipped LIMIT 1"
    due = tests + 1 <= share * (tests + others + 1)
    for query in (*([from_test] if due else []), from_rank, from_pool, from_test, skipped):
        row = database.execute(query).fetchone()
        if row is not None:
            return int(row[0])
    return None
