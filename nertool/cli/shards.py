"""`nertool tag --column`: rows of parquet and JSON Lines files in, shards of the same kind out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nertool.cli.common import cores
from nertool.cli.door import say
from nertool.errors import CorpusError, NertoolError

if TYPE_CHECKING:
    from nertool.integrations.shard_files import Counts


def tag_shards(
    names: Sequence[str],
    folder: Path,
    output: Path,
    *,
    column: str,
    workers: int | None,
    rows: int | None,
    min_score: float,
    device: str,
) -> None:
    """Tag the rows of files, go on where that was stopped before, and print a summary.

    Args:
        names: Of files and folders, or patterns.
        folder: The model.
        output: The folder of the shards.
        column: What to tag.
        workers: The number of processes; None: one for each core.
        rows: Of a shard; None: the default.
        min_score: As for `Tagger.load`.
        device: The same.

    Raises:
        NertoolError: A file cannot be read, or a shard not written; or there is no row that could be tagged.
    """
    from nertool.config.files import locked
    from nertool.integrations.mapper import Mapper
    from nertool.integrations.shard_files import REJECTED, Counts, PartTagger
    from nertool.integrations.shard_workers import Ended, work_on
    from nertool.integrations.shards import HOLDER, ROWS, find_sources, holds_texts, make_plan, remove_unfinished
    from nertool.tagging import windows
    from nertool.views.console import counted, duration, new_console, waiting
    from nertool.views.shards import ShardProgress, shards_table

    console = new_console(stderr=True)
    sources, others = find_sources(names, output)
    if others:
        say(f"{counted(others, 'file')} of another kind {'is' if others == 1 else 'are'} left out")
    with waiting(console, "looking at the files"):
        texts = holds_texts(sources, column)
        mapper = Mapper(folder, tokens=column, text=column if texts else None, min_score=min_score, device=device)
    with locked(output, holder=HOLDER):
        with waiting(console, "counting rows"):
            remove_unfinished(output)
            plan = make_plan(sources, mapper, output, rows or ROWS)
        shards = plan.shards_done + len(plan.parts)
        if not plan.parts:
            there = "the one shard is" if shards == 1 else f"all {shards:,} shards are"
            say(f"nothing to do: {there} there already")
        elif plan.shards_done:
            there = f"{plan.shards_done:,} of {shards:,} shards {'is' if plan.shards_done == 1 else 'are'}"
            say(f"{there} there already: tagging the other {len(plan.parts):,}")
        now = Counts()
        began = time.perf_counter()
        unfinished: dict[str, int] = {}
        if plan.parts:
            workers = min(workers or cores(), len(plan.parts))
            with ShardProgress(console, shards, plan.rows, plan.shards_done, plan.done.rows) as bar:
                for event in work_on(plan.parts, PartTagger(mapper, output), workers):
                    name = event.part.name
                    if isinstance(event, Ended):
                        now.add(event.counts)
                        bar.advance(0, 1)
                        unfinished.pop(name, None)
                    elif event.counts is None:
                        bar.advance(-unfinished.pop(name, 0))
                        say(f"a process that tagged {event.part.path} was killed; its shard is begun again")
                    else:
                        unfinished[name] = unfinished.get(name, 0) + event.counts.rows
                        bar.advance(event.counts.rows)
    seconds = time.perf_counter() - began
    total = Counts()
    total.add(plan.done)
    total.add(now)
    reasons = [reason for reason, _ in total.reasons.most_common(10)]
    figures = _figures(now, len({part.path for part in plan.parts}), len(plan.parts), reasons)
    if now.tokens:
        figures["time"] = duration(seconds)
        figures["tokens/s"] = f"{now.tokens / seconds:,.0f}"
    columns = {"this call": figures, "in all": _figures(total, len(sources), shards, reasons)}
    if not plan.parts:
        del columns["this call"]
    elif not plan.shards_done:
        del columns["in all"]
    new_console().print(shards_table(str(output), columns))
    if total.cut:
        say(windows.note(total.cut))
    if not total.tagged:
        raise CorpusError(f"no row could be tagged; {counted(total.rejected, 'row')} rejected", output)
    if total.rejected:
        are = "it is" if total.rejected == 1 else "they are"
        say(f"{counted(total.rejected, 'row')} could not be tagged; {are} in {output / REJECTED}")
    if not total.entities:
        say("no entity was found: is it the right column, and the right model?")
    if total.rows != plan.rows:
        raise NertoolError(f"{output}: {total.rows:,} of {plan.rows:,} rows are there; this is a bug")


def _figures(counts: Counts, files: int, shards: int, reasons: Sequence[str]) -> dict[str, int | str]:
    """Return a column of the table: what became of the rows of some shards."""
    return {
        "files": files,
        "shards": shards,
        "rows": counts.tagged + counts.rejected,
        "tagged": counts.tagged,
        "rejected": counts.rejected,
        **{f"  {reason}": counts.reasons[reason] for reason in reasons},
        **({"blank lines": counts.blank} if counts.blank else {}),
        "tokens": counts.tokens,
        "entities": counts.entities,
    }
