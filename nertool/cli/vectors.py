"""The command `nertool vectors`: word vectors by name."""

from __future__ import annotations

import json
import re
import sys

import click

from nertool.cli.common import examples
from nertool.cli.door import explains_errors, say
from nertool.errors import NertoolError


@click.group(
    invoke_without_command=True,
    epilog=examples("nertool vectors --language de", "nertool vectors fetch glove-100"),
)
@click.option("--language", metavar="CODE", help="Only those of a language, such as de.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_context
@explains_errors
def vectors(context: click.Context, language: str | None, as_json: bool) -> None:
    """List pretrained word vectors, or fetch some.

    Vectors that have been fetched are used by their name: `nertool train DATA --vectors glove-100`. Nothing is
    fetched in a training.
    """
    if context.invoked_subcommand is not None:
        return
    from nertool.config.vector_sets import VECTOR_SETS, vectors_folder
    from nertool.views.console import new_console
    from nertool.views.vectors import show_vectors, vectors_tree

    sets = [each for each in VECTOR_SETS.values() if language in (None, each.language)]
    if not sets:
        known = ", ".join(sorted({each.language for each in VECTOR_SETS.values()}))
        raise NertoolError(f"there are no vectors for the language {language!r}; there are some for {known}")
    if as_json:
        click.echo(json.dumps(vectors_tree(sets), indent=2))
    else:
        show_vectors(new_console(), sets, vectors_folder())


@vectors.command(
    epilog=examples("nertool vectors fetch glove-100", "nertool vectors fetch cc.de.300 --top 200000")
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--top", type=click.IntRange(1, 10**9 - 1), metavar="N", help="Keep the N most frequent words: NAME:N."
)
@click.option("--sha256", metavar="HASH", help="SHA-256 that the download has to have, instead of the known one.")
@click.option("--keep-archive", is_flag=True, help="Keep what was downloaded, too.")
@explains_errors
def fetch(names: tuple[str, ...], top: int | None, sha256: str | None, keep_archive: bool) -> None:
    """Fetch word vectors, check them and put them into the cache.

    A download that was cut off goes on where it stopped. NERTOOL_VECTORS_MIRROR names another address, or a
    folder, that has the files.
    """
    from nertool.config.vector_sets import find_name
    from nertool.data.fetching import fetch as fetch_vectors
    from nertool.views.console import new_console
    from nertool.views.vectors import FetchWatcher, describe_fetched

    named = [find_name(name) for name in names]
    if top is not None:
        if any(each.top is not None for each in named):
            raise click.UsageError("--top and NAME:N say the same; give one of the two.")
        named = [each._replace(top=top) for each in named]
    if sha256 is not None:
        if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise click.UsageError("--sha256 has 64 hexadecimal digits.")
        if len({each.set.archive for each in named}) > 1:
            raise click.UsageError(
                "--sha256 is that of one file, and these names are of several; fetch them one by one."
            )
    try:
        with FetchWatcher(new_console(stderr=True)) as watcher:
            for result in fetch_vectors(named, watcher.watch, sha256=sha256 and sha256.lower(), keep=keep_archive):
                first, *rest = describe_fetched(result)
                say(first, err=False)
                for line in rest:
                    say(line, head=f"{click.style('note:', fg='yellow')} ")
    except KeyboardInterrupt:
        say("\nStopped. The same command goes on where it stopped.")
        sys.exit(130)
