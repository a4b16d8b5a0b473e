"""The commands for the Hugging Face hub: `nertool push`, `pull` and `card`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from nertool.cli.common import examples, fetch_from_hub, model_folder
from nertool.cli.door import explains_errors, say
from nertool.errors import NertoolError

_LICENCE = click.option(
    "--licence",
    "--license",
    "licence",
    metavar="NAME",
    help="Licence as the hub names it, such as mit, apache-2.0 or cc-by-4.0.",
)


@click.command(
    epilog=examples(
        "nertool push runs/demo ada/places --licence cc-by-4.0", "nertool push demo.onnx ada/places-onnx --private"
    )
)
@click.argument("run")
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Let nobody else see a new repository.")
@_LICENCE
@explains_errors
def push(run: str, repository: str, private: bool, licence: str | None) -> None:
    """Publish a model on the Hugging Face hub.

    RUN is a run directory or a file of `nertool export`. The model's files and a card (README.md) go there in one
    commit; `nertool card` shows the card. A README.md in RUN is taken instead. Log in with `hf auth login`, or set
    HF_TOKEN.
    """
    path = model_folder(run)
    from nertool.config.model_names import parse_hub_name
    from nertool.integrations.hub import card_of, own_card
    from nertool.integrations.hub import push as publish
    from nertool.tagging.loading import load_model

    address = parse_hub_name(repository)
    _check_licence(licence)
    model = load_model(path)
    if licence is None and own_card(path) is None:
        licence = _ask_licence()
    done = publish(model, path, address, card_of(model, path, address, licence), private=private)
    if done.named.revision == done.before:
        say(f"nothing has changed: {done.url} holds this model already, commit {done.before}", err=False)
        return
    say(f"pushed: {done.url}{' (private)' if done.private else ''}, commit {done.named.revision}", err=False)
    say(f"the card is {done.card}" if done.card else "the card was made; change README.md there", err=False)
    say(f"load it with: --model {done.named}", err=False)
    if done.before is not None:
        say(f"what was there before: {done.named._replace(revision=done.before)}", err=False)
    if licence is None and done.card is None:
        note = click.style("note:", fg="yellow")
        say("no licence is named, so that others may not use the model; --licence names one", head=f"{note} ")


@click.command(epilog=examples("nertool pull ada/places", "nertool pull ada/places@v1 --output models/places"))
@click.argument("repository", metavar="OWNER/NAME[@REVISION]")
@click.option("--output", metavar="DIR", help="Write a copy to this folder, too.")
@explains_errors
def pull(repository: str, output: str | None) -> None:
    """Fetch a model from the Hugging Face hub.

    It is checked and put into the cache. REVISION is a branch, a tag or a commit. OWNER/NAME/FILE.onnx is an
    exported file, where there are several.

    What has been fetched is found without a network: --model hub:OWNER/NAME.
    """
    if output is not None and Path(output).exists():
        raise NertoolError(f"{output}: is there already; name another folder, or remove it")
    copy = fetch_from_hub(repository)
    from nertool.tagging.loading import load_model

    load_model(copy.path)
    where = "is here already" if copy.before else "was fetched"
    say(f"{copy.named} {where}, and checked: {copy.path}", err=False)
    if output is None:
        say(f"use it with: --model {copy.named}", err=False)
        return
    from nertool.config.files import copy_folder

    folder = copy.path if copy.path.is_dir() else copy.path.parent
    copy_folder(folder, Path(output))
    model = output if copy.path.is_dir() else Path(output) / copy.path.name
    say(f"written: {output}; use it with: --model {model}", err=False)


@click.command(epilog=examples("nertool card runs/demo", "nertool card runs/demo ada/places --licence mit"))
@click.argument("run")
@click.argument("repository", required=False, metavar="[OWNER/NAME]")
@_LICENCE
@explains_errors
def card(run: str, repository: str | None, licence: str | None) -> None:
    """Print the model card of RUN for the hub.

    This is the card that `nertool push` would publish. To change it, write it to README.md in RUN:

    nertool card RUN > RUN/README.md
    """
    path = model_folder(run)
    from nertool.config.model_names import parse_hub_name
    from nertool.integrations.hub import card_of
    from nertool.tagging.loading import load_model

    address = None if repository is None else parse_hub_name(repository)
    _check_licence(licence)
    text = card_of(load_model(path), path, address, licence)
    click.echo(text, nl=False)


def _check_licence(licence: str | None) -> None:
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise NertoolError(
            f"{licence!r} is not how the hub names a licence: small letters, such as mit, cc-by-4.0 or other"
        )


def _ask_licence() -> str | None:
    """Ask for the licence on a terminal; None where there is none, or no answer."""
    if not sys.stdin.isatty():
        return None

    def check(given: str) -> str:
        try:
            _check_licence(given or None)
        except NertoolError as problem:
            raise click.BadParameter(str(problem)) from None
        return given

    question = "Licence, such as mit, apache-2.0, cc-by-4.0 (empty: none is named)"
    given: str = click.prompt(question, default="", show_default=False, value_proc=check, err=True)
    return given or None
