"""What the commands share: where runs are, which model is meant, how data is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from nertool.cli.door import say
from nertool.errors import NertoolError

if TYPE_CHECKING:
    from collections import Counter

    from nertool.data.corpus import Split
    from nertool.data.hub import HubCopy
    from nertool.model.outline import Outline

RUNS = Path("runs")
LATEST = RUNS / "latest"
# As `nertool.tagging.ranking` has them, which is too heavy for a help page.
MEASURES = ("mnlp", "errors", "random")


class FormatName(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3, and 8.1 will do
    """Name of a file format, checked against the registry, which is loaded only where a name is given.

    Args:
        writes: Whether the format has to be writable; else it has to be readable.
        also: Further names.
    """

    name = "format"

    def __init__(self, *, writes: bool = False, also: Sequence[str] = ()) -> None:
        self._writes = writes
        self._also = tuple(also)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check a name."""
        if value in self._also:
            return str(value)
        from nertool.formats.registry import formats

        try:
            known = formats()
        except NertoolError as problem:
            self.fail(str(problem), param, ctx)
        usable = [name for name, each in known.items() if (each.writable if self._writes else each.readable)]
        names = dict.fromkeys([*self._also, *usable])
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(names)}.", param, ctx)
        return str(value)


def check_service(what: str, api_key: str | None, *further: str) -> None:
    """Check that a command can answer requests over HTTP.

    Args:
        what: What the command does, for the message.
        api_key: What requests must show; None: nothing.
        further: Packages that it needs beside those that every service needs.

    Raises:
        NertoolError: A package is missing, or the key is empty.
    """
    missing = [name for name in ("fastapi", "uvicorn", "httptools", *further) if find_spec(name) is None]
    if missing:
        raise NertoolError(f"{what} needs {', '.join(missing)}: pip install 'nertool[serve]'")
    if api_key is not None and not api_key.strip():
        raise NertoolError("the API key is empty; leave --api-key and NERTOOL_API_KEY out to ask for none")


def examples(*commands: str) -> str:
    """Return the examples that end a help page, each on a line of its own."""
    # \b is click's mark for a paragraph whose lines stay as they are.
    return "\n".join(["\b", "Examples:" if len(commands) > 1 else "Example:", *(f"  {each}" for each in commands)])


class DeviceName(click.ParamType):  # type: ignore[type-arg]
    """Name of a device; whether it is there is seen when it is used."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check a name."""
        from nertool.config.schema import DEVICES, is_device

        if not is_device(value):
            self.fail(f"{value!r} is not one of {DEVICES}.", param, ctx)
        return str(value)


MODEL = click.option(
    "--model",
    metavar="MODEL",
    help="Run directory of a trained model, a file of nertool export, or hub:owner/name@revision.  "
    "[default: $NERTOOL_MODEL, else runs/latest]",
)
DEVICE = click.option(
    "--device",
    metavar="NAME",
    type=DeviceName(),
    default="cpu",
    show_default=True,
    help="What the model computes on: cpu, cuda (cuda:1 of several GPUs), mps, or auto.",
)
FROM = click.option(
    "--from",
    "form",
    metavar="FORMAT",
    type=FormatName(),
    help="Format of DATA, such as conll or jsonl (see `nertool formats`).  [default: detected]",
)
READ_OTHERWISE = click.option(
    "--set",
    "overrides",
    metavar="A.B=C",
    multiple=True,
    help="Change how files are read, such as corpus.columns='[token, pos, ner]' with corpus.label=ner.",
)
TOKENIZER_LANGUAGE = click.option(
    "--language", metavar="CODE", default="en", show_default=True, help="Language whose rules tokenize raw text."
)
JOBS = click.option(
    "--jobs", type=click.IntRange(1, 256), metavar="N", help="Trainings at a time.  [default: one for each core]"
)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_folder(given: str | None) -> Path:
    """Find the model that is meant: a run directory, or a file of `nertool export`; fetch one of the hub.

    Args:
        given: Its name on the command line, if any; else NERTOOL_MODEL names it, else it is the latest run.

    Raises:
        NertoolError: There is none.
    """
    named = given or os.environ.get("NERTOOL_MODEL")
    if named and named.startswith("hub:"):
        return fetch_from_hub(named).path
    folder = Path(named) if named else LATEST
    with contextlib.suppress(OSError):  # a name too long for a folder
        if folder.is_dir() or (folder.suffix.lower() == ".onnx" and folder.is_file()):
            return folder
    if named:
        origin = "" if given else " (from NERTOOL_MODEL)"
        raise NertoolError(f"there is no model folder {folder}{origin}; train one with: nertool train CONFIG")
    raise NertoolError(
        "no model: neither --model nor NERTOOL_MODEL is given and there is no runs/latest here; "
        "train one with: nertool train demo.yaml"
    )


def fetch_from_hub(name: str) -> HubCopy:
    """Fetch a model of the hub unless the cache has it, and show the progress.

    Raises:
        NertoolError: It cannot be fetched.
    """
    from nertool.data.hub import fetch_model
    from nertool.views.console import new_console
    from nertool.views.vectors import FetchWatcher

    with FetchWatcher(new_console(stderr=True)) as watcher:
        copy = fetch_model(name, watcher.watch)
    if copy.note:
        say(copy.note, head=f"{click.style('note:', fg='yellow')} ")
    return copy


def point_latest(folder: Path) -> None:
    """Make runs/latest point to a run directory, on systems that have links."""
    beside = RUNS / f".latest-{os.getpid()}"
    try:
        if LATEST.resolve() == folder.resolve():
            return
        RUNS.mkdir(exist_ok=True)
        beside.symlink_to(os.path.relpath(folder.resolve(), RUNS.resolve()), target_is_directory=True)
        beside.replace(LATEST)
    except (OSError, NotImplementedError):
        say(f"{LATEST} cannot be made to point to this run; name it: --model {folder}")
        with contextlib.suppress(OSError):
            beside.unlink()


class Data(NamedTuple):
    """Labelled data beside the model that is to be compared with it.

    Attributes:
        path: The file or folder.
        model: The model.
        split: The data, with labels in the model's scheme.
        unseen: Labels that the model does not know, and how often they occur.
    """

    path: Path
    model: Outline
    split: Split
    unseen: Counter[str]

    def notes(self) -> list[str]:
        """Describe what was repaired or left out, and which labels the model does not know."""
        notes = list(self.split.notes())
        if self.unseen:
            names = ", ".join(sorted(self.unseen))
            notes.append(f"{self.unseen.total():,} tokens have labels that the model does not know: {names}")
        return notes


def read_data(name: str, folder: Path, form: str | None, overrides: Sequence[str], device: str = "cpu") -> Data:
    """Load a model and read labelled data the way the model's corpus was read.

    Args:
        name: Of a file, which is looked for in the data folders too, or of a folder.
        folder: Of the model, or its file.
        form: Format of the data; None: detect it, whatever format the training data had.
        overrides: Such as "corpus.label=ner".
        device: That the model is to compute on.

    Raises:
        NertoolError: The model or the data cannot be read.
    """
    from nertool.config.files import find
    from nertool.config.loading import override
    from nertool.data.corpus import read_split, unseen_labels
    from nertool.tagging.loading import load_model
    from nertool.text.tokenization import SpacyTokenizer

    path = Path(name) if Path(name).is_dir() else find(name)
    model = load_model(folder, device)
    config = model.config
    detected = config.model_copy(update={"corpus": config.corpus.model_copy(update={"format": None})})
    corpus = override(detected, tuple(overrides)).corpus
    if form is not None:
        corpus = corpus.model_copy(update={"format": form})
    split = read_split(path, corpus, model.scheme, tokenizer=SpacyTokenizer(config.language))
    return Data(path, model, split, unseen_labels(split, model.labels))
