"""A project: made, opened, and given more texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nertool.config.files import find, join_member, split_member
from nertool.config.loading import override_tree
from nertool.config.vector_sets import locate
from nertool.data.recipe import overrides_of
from nertool.errors import ConfigError, NertoolError
from nertool.formats.project import DATABASE, is_project
from nertool.labelling.records import checked_name
from nertool.labelling.store import Store
from nertool.labelling.texts import Read, Source, read_texts
from nertool.tagging.loading import load_model
from nertool.tagging.ranking import MEASURES
from nertool.text.schemes import OUTSIDE, Scheme, split_label
from nertool.text.tokenization import SpacyTokenizer


@dataclass(frozen=True)
class Wishes:
    """What is asked of a project; None: as it is, or the default of a new one.

    Attributes:
        types: Names of types to begin with.
        language: Of the texts, a spaCy code.
        model: Folder of a model to begin with.
        vectors: As for `nertool train`.
        overrides: Settings of the trainings.
        every: Answers after which a training begins; 0: never by itself.
        by: What to label next.
        test_share: Share of new texts that is kept apart to test with.
        seed: Of what is drawn.
    """

    types: tuple[str, ...] = ()
    language: str | None = None
    model: str | None = None
    vectors: tuple[str, ...] | None = None
    overrides: tuple[str, ...] | None = None
    every: int | None = None
    by: str | None = None
    test_share: float | None = None
    seed: int | None = None


DEFAULTS: dict[str, Any] = {
    "language": "en",
    "model": None,
    "vectors": [],
    "overrides": [],
    "every": 20,
    "by": MEASURES[0],
    "test_share": 0.1,
    "seed": 1,
}


def open_project(
    folder: Path, sources: Sequence[Source], wishes: Wishes, form: str | None
) -> tuple[Store, list[Read]]:
    """Open a project, or make it, and take in texts. A project that cannot be made is not left half made.

    Args:
        folder: Of the project.
        sources: Files of texts.
        wishes: What is asked of it.
        form: Format of the files; None: detect it.

    Raises:
        NertoolError: A file, a model or a setting is wrong, or the project cannot be opened.
    """
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name in DEFAULTS
        if (value := getattr(wishes, name)) is not None
    }
    # A wrong setting is an error now, and not when the first training begins.
    override_tree(
        {"corpus": {"train": "-"}},
        [
            *overrides_of(vectors=wishes.vectors or (), language=wishes.language),
            *(wishes.overrides or ()),
        ],
    )
    if wishes.vectors:
        given["vectors"] = _located(wishes.vectors)
    types = [checked_name(name, "type") for name in wishes.types]
    if wishes.model is not None:
        if Path(wishes.model).is_file():
            raise NertoolError(
                f"{wishes.model}: training cannot start from an exported file; name a run directory"
            )
        types += _types_of(Path(wishes.model))
        given["model"] = str(Path(wishes.model).resolve())
    is_new = not is_project(folder)
    if is_new:
        if not sources:
            raise NertoolError(
                f"{folder}: there is no project in it; name texts: nertool label TEXTS --output {folder}"
            )
        if (folder / DATABASE).exists():
            raise NertoolError(f"{folder / DATABASE}: there is such a file, and it is not a project's")
        store = Store.create(folder, {**DEFAULTS, **given})
    else:
        store = Store(folder)
    try:
        settings = store.settings
        if not is_new:
            if given.get("language", settings["language"]) != settings["language"]:
                raise NertoolError(
                    f"{folder}: its texts were tokenized as {settings['language']}: make a new project"
                )
            if given:
                store.set(**given)
                settings |= given
        known = store.type_names()
        for name in dict.fromkeys(types):
            if name not in known:
                store.add_type(name)
        tokenizer = SpacyTokenizer(settings["language"])
        reads = [
            read_texts(
                store,
                each,
                tokenizer,
                form=form,
                test_share=settings["test_share"],
                seed=settings["seed"] + number,
            )
            for number, each in enumerate(sources)
        ]
    except BaseException:
        store.close()
        if is_new:
            for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "test"):
                (folder / name).unlink(missing_ok=True)
        raise
    return store, reads


def beginning_of(store: Store) -> Path | None:
    """Return the folder of the model that a project begins with, if there is one."""
    model = store.settings["model"]
    return None if model is None else Path(model)


def _located(vectors: Sequence[str]) -> list[str]:
    """Return names of vectors as they hold in any folder.

    Raises:
        ConfigError: There are none of a name.
    """
    known, problems = locate(vectors)
    if problems:
        raise ConfigError(problems)
    result = []
    for name in vectors:
        file, member = split_member(name)
        result.append(name if name in known else join_member(find(file).resolve(), member))
    return result


def _types_of(folder: Path) -> list[str]:
    """Return the types of a model.

    Raises:
        NertoolError: It cannot be loaded, or gives plain tags.
    """
    model = load_model(folder)
    if model.scheme is Scheme.PLAIN:
        raise NertoolError(f"{folder}: the model gives plain tags, and a project is of entities")
    return sorted({split_label(label)[1] for label in model.labels if label != OUTSIDE})
