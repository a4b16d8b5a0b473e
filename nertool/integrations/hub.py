"""Publish models on the Hugging Face hub: one commit with a model's files and its card.

`huggingface_hub.ModelHubMixin` is not used. It makes loading and saving of a class its own: a `config.json` of the
constructor's arguments, a cache of links, and the package imported with the class. A model of nertool has files of
its own, which are checked before anything is built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nertool.config.files import MODEL_FILES, read_limited, refuse_links
from nertool.config.loading import dump_config, without_folders
from nertool.config.model_names import HubModel
from nertool.data.hub import CARD, endpoint, explain, hub_client, hub_package, quietly
from nertool.errors import NertoolError
from nertool.model.outline import Outline
from nertool.tagging.exported import ExportedModel
from nertool.views.card import make_card

# What a repository may have that holds no model of another kind.
_HARMLESS = (".gitattributes", ".gitignore", CARD, "LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md")


@dataclass(frozen=True)
class Pushed:
    """A model that is on the hub.

    Attributes:
        named: With its commit as the revision.
        url: Page of the repository.
        private: Whether only its owner sees it.
        before: The commit before this one; None: the repository is new.
        card: The file that became the card; None: it was made.
    """

    named: HubModel
    url: str
    private: bool
    before: str | None
    card: Path | None


def own_card(path: Path) -> Path | None:
    """Return the card that somebody wrote for a run directory, if there is one."""
    card = path / CARD
    # A shell makes an empty file before `nertool card RUN > RUN/README.md` begins.
    return card if path.is_dir() and card.is_file() and card.stat().st_size else None


def card_of(model: Outline, path: Path, address: HubModel | None, licence: str | None) -> str:
    """Return the card of a model: the one in its run directory, else one that is made.

    Args:
        model: The model.
        path: Its run directory, or exported file.
        address: Where it will be; None: nobody knows yet.
        licence: As the hub names licences; None: none is named.

    Raises:
        NertoolError: A licence is given beside a card, or the card cannot be read or made.
    """
    card = own_card(path)
    if card is None:
        return make_card(model, path, address, licence)
    if licence is not None:
        raise NertoolError(f"--licence has no effect: {card} is the card; name the licence in its head")
    refuse_links(path, [CARD])
    try:
        return read_limited(card).decode()
    except (OSError, ValueError) as problem:
        raise NertoolError(f"{card}: cannot be read: {problem}") from None


def push(model: Outline, path: Path, address: HubModel, card: str, *, private: bool = False) -> Pushed:
    """Publish a model, in one commit: all of it appears, or nothing.

    Paths in its config become names of files, because they say how folders of this machine are called.

    Args:
        model: As it was loaded, and so checked.
        path: Its run directory, or exported file.
        address: The repository; it is made if there is none.
        card: See `card_of`.
        private: Whether a new repository is seen by its owner alone.

    Raises:
        NertoolError: The hub refuses it, cannot be reached, or holds something else under this name.
    """
    if address.revision is not None or address.file is not None:
        raise NertoolError(f"{address}: a model is pushed to the main branch of a repository: owner/name")
    hub = hub_package()
    if hub.get_token() is None:
        raise NertoolError(
            f"{address}: the hub takes models from those it knows: log in with `hf auth login`, or set HF_TOKEN "
            "to a token with the right to write"
        )
    client = hub_client(hub)
    contents: dict[str, str | bytes] = {CARD: card.encode()}
    if isinstance(model, ExportedModel):
        contents[path.name] = str(path)
    else:
        config, *others = MODEL_FILES
        contents[config] = dump_config(without_folders(model.config)).encode()
        contents |= {name: str(path / name) for name in others}
    with quietly(), _bars_on_terminals(hub):
        before, is_private = _find_repository(hub, client, address, private)
        try:
            if before is None:
                client.create_repo(address.repository, private=private or None)
            operations = [
                hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents.items()
            ]
            done = client.create_commit(
                address.repository,
                operations,
                commit_message=f"nertool: {path.name if path.is_file() else path.resolve().name}",
                parent_commit=before,
            )
        except Exception as problem:
            raise _explain(hub, problem, address, new=before is None) from None
    return Pushed(
        address._replace(revision=done.oid),
        f"{endpoint()}/{address.repository}",
        is_private,
        before,
        own_card(path),
    )


def _find_repository(hub: Any, client: Any, address: HubModel, private: bool) -> tuple[str | None, bool]:
    """Return the newest commit of a repository, None where there is none, and whether it is private."""
    try:
        info = client.model_info(address.repository)
    except hub.errors.RepositoryNotFoundError as problem:
        if isinstance(problem, hub.errors.GatedRepoError):
            raise explain(hub, problem, address) from None
        return None, private
    except Exception as problem:
        raise explain(hub, problem, address) from None
    if private and not info.private:
        raise NertoolError(
            f"{address}: this repository is there already, and public: its settings at "
            f"{endpoint()}/{address.repository}/settings can make it private; or push to another name"
        )
    names = {each.rfilename for each in info.siblings or ()}
    others = sorted(name for name in names if name not in _HARMLESS)
    if others and not any(name.endswith(".onnx") or name in MODEL_FILES[1:] for name in others):
        raise NertoolError(
            f"{address}: this repository holds something else ({', '.join(others[:3])}…); push to another name"
        )
    return str(info.sha), bool(info.private)


def _explain(hub: Any, problem: Exception, address: HubModel, new: bool) -> NertoolError:
    status = getattr(getattr(problem, "response", None), "status_code", None)
    if status == 412:
        return NertoolError(
            f"{address}: somebody else pushed at the same time, and nothing was changed; try again"
        )
    if isinstance(problem, ValueError) and "metadata" in str(problem):  # of the card, which the hub examines first
        return NertoolError(f"{address}: the hub refuses the card: {' '.join(str(problem).split())}")
    if status in (401, 403, 404):
        what = "makes no repository of this name for you" if new else "does not let you write there"
        return NertoolError(
            f"{address} ({endpoint()}): the hub {what} ({status}): the owner has to be you or an organization of "
            "yours, and the token needs the right to write"
        )
    reason = explain(hub, problem, address)
    return NertoolError(f"{reason}. Nothing was published; the same command tries again")


@contextmanager
def _bars_on_terminals(hub: Any) -> Iterator[None]:
    """Switch the package's progress bars off where nobody watches them."""
    unwatched = not sys.stderr.isatty() and not hub.utils.are_progress_bars_disabled()
    if unwatched:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if unwatched:
            hub.utils.enable_progress_bars()
