"""`nertool label`: from texts to a tagger, on a page."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import click

from nertool.cli.common import MEASURES, FormatName, check_service, examples, model_folder
from nertool.cli.door import explains_errors, say
from nertool.errors import NertoolError


@click.command(
    epilog=examples(
        "nertool label reports.txt --output project --types PER,ORG,LOC --vectors glove-100",
        "nertool label project",
        "nertool label more.txt --gold checked.jsonl --output project",
        "nertool train project --test project/test",
    )
)
@click.argument("texts", nargs=-1, metavar="[TEXTS]... | PROJECT")
@click.option("--output", metavar="DIR", help="Folder of the project.")
@click.option(
    "--gold", metavar="FILE", multiple=True, help="Labelled texts, whose labels are answers; may be repeated."
)
@click.option(
    "--proposals",
    metavar="FILE",
    multiple=True,
    help="Labelled texts, whose labels are proposed; may be repeated.",
)
@click.option(
    "--from",
    "form",
    metavar="FORMAT",
    type=FormatName(),
    help="Format of the files, such as text or conll.  [default: detected, else text]",
)
@click.option("--types", metavar="A,B,...", help="Types of entities; the page can add more.")
@click.option(
    "--model",
    metavar="MODEL",
    help="Model that proposes first, and from which training starts: a run directory, or hub:owner/name@revision.",
)
@click.option(
    "--vectors",
    metavar="FILE|NAME",
    multiple=True,
    help="Pretrained word vectors: a file, or a name of `nertool vectors`; may be repeated.",
)
@click.option("--language", metavar="CODE", help="Language of the texts.  [default: en]")
@click.option(
    "--set",
    "overrides",
    metavar="A.B=C",
    multiple=True,
    help="Replace a setting of the trainings; may be repeated.",
)
@click.option(
    "--every",
    type=click.IntRange(0, 1_000_000),
    metavar="N",
    help="Train after so many answers; 0: when the page is told to.  [default: 20]",
)
@click.option("--by", type=click.Choice(MEASURES), help="What to label next.  [default: mnlp]")
@click.option(
    "--test-share",
    type=click.FloatRange(0, 0.5),
    metavar="P",
    help="Share of the texts, drawn at random, that is kept apart to test with.  [default: 0.1]",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31), metavar="N", help="Seed of the random choices.  [default: 1]"
)
@click.option(
    "--annotator", metavar="NAME", help="Name to begin with; the page can change it.  [default: the user's]"
)
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8100,
    show_default=True,
    help="Port; 0: any that is free.",
)
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="NERTOOL_API_KEY",
    help="Key that the page asks for. Other users of the machine can read options: prefer $NERTOOL_API_KEY.",
)
@explains_errors
def label(
    texts: tuple[str, ...],
    output: str | None,
    gold: tuple[str, ...],
    proposals: tuple[str, ...],
    form: str | None,
    types: str | None,
    model: str | None,
    vectors: tuple[str, ...],
    language: str | None,
    overrides: tuple[str, ...],
    every: int | None,
    by: str | None,
    test_share: float | None,
    seed: int | None,
    annotator: str | None,
    host: str,
    port: int,
    api_key: str | None,
) -> None:
    """Label texts on a page, with a model that learns meanwhile.

    TEXTS are files in any format, or raw text, a text a line; their labels, if they have any, are not looked at
    (see --gold and --proposals). With --output DIR they become a project, or are added to the one that is there.
    With PROJECT, the work goes on.

    Each answer is in the project's database before the next sentence is shown. `nertool train PROJECT` and
    `nertool convert PROJECT OUT` read the answers, also meanwhile; PROJECT/test has those kept apart.
    """
    check_service("labelling", api_key)
    folder, named = _folder(texts, output)
    from nertool.labelling.project import Wishes, beginning_of, open_project
    from nertool.labelling.records import checked_name
    from nertool.labelling.server import held, serve
    from nertool.labelling.settings import Settings
    from nertool.labelling.texts import Source
    from nertool.serving.server import listen, url
    from nertool.serving.settings import LOCAL_ADDRESSES
    from nertool.views.console import counted

    sources = [
        *(Source(Path(name), "gold") for name in gold),
        *(Source(Path(name), "proposals") for name in proposals),
        *(Source(Path(name)) for name in named),
    ]
    wishes = Wishes(
        types=tuple(filter(None, (name.strip() for name in (types or "").split(",")))),
        language=language,
        model=None if model is None else str(model_folder(model)),
        vectors=vectors or None,
        overrides=overrides or None,
        every=every,
        by=by,
        test_share=test_share,
        seed=seed,
    )
    settings = Settings(
        host=host,
        port=port,
        api_key=api_key,
        annotator=checked_name(annotator or _user(), "annotator"),
        title=folder.resolve().name,
    )
    with listen(host, port) as server, held(folder):
        store, reads = open_project(folder, sources, wishes, form)
        for source, read in zip(sources, reads, strict=True):
            taken = read.taken
            for note in read.notes:
                say(note)
            parts = [
                counted(taken.sentences, "sentence"),
                *([f"{taken.copies:,} of them there before"] if taken.copies else []),
                *([f"{taken.answers:,} labelled"] if source.use == "gold" else []),
                *([f"{taken.kept:,} had an answer, which stays"] if taken.kept else []),
                *([f"{taken.proposals:,} with proposals"] if source.use == "proposals" else []),
            ]
            say(f"{source.path}: {', '.join(parts)}")

        def announce() -> None:
            say(f"labelling {folder} at {url(server)}; stop with Ctrl-C")
            if api_key is None and host not in LOCAL_ADDRESSES:
                say("whoever reaches this address can read the texts and change labels: no API key is asked for")

        try:
            if not serve(store, settings, server, beginning_of(store), announce):
                sys.exit(1)
        finally:
            store.close()


def _folder(texts: tuple[str, ...], output: str | None) -> tuple[Path, tuple[str, ...]]:
    """Return the folder of the project, and the names of files to take in."""
    if output is not None:
        return Path(output), texts
    from nertool.formats.project import is_project

    if not texts:
        raise click.UsageError("Name texts to label, with --output DIR; or a project.")
    if is_project(Path(texts[0])):
        if len(texts) > 1:
            raise NertoolError(f"{texts[0]} is a project; to add texts to it: --output {texts[0]}")
        return Path(texts[0]), ()
    if len(texts) == 1 and Path(texts[0]).is_dir():
        raise NertoolError(f"{texts[0]}: this is not a project; to make one of its texts, add --output DIR")
    if len(texts) == 1 and not Path(texts[0]).exists():
        raise NertoolError(f"{texts[0]}: there is no such project; to make one: nertool label TEXTS --output DIR")
    raise click.UsageError("Name the folder of the project: --output DIR.")


def _user() -> str:
    try:
        return getpass.getuser()[:60]
    except (OSError, KeyError, ImportError):
        return "me"
