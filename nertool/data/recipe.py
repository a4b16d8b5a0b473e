"""Settings for a data file without a config: those of the shipped configs, adapted to the size of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nertool.config.files import MODEL_FILES, find, is_file, is_folder, is_stream, split_member
from nertool.config.loading import find_config, flow, load_config, locate_files, names_config, override_tree
from nertool.config.model_names import find_model
from nertool.config.schema import Config, CorpusConfig
from nertool.config.vector_sets import fetched, recommended
from nertool.config.vector_sets import locate as locate_vectors
from nertool.data.corpus import read_options, read_split
from nertool.errors import ConfigError, CorpusError
from nertool.formats.registry import Report, detect_format, find_format
from nertool.text.tokenization import SpacyTokenizer

FEWEST = 10  # sentences of which some are held out
ENOUGH = 20_000  # sentences; more change no setting, and are not counted if they are streamed
_SMALL = 1_000  # sentences; fewer take a minute, and nothing is gained by fewer epochs


@dataclass(frozen=True)
class Recipe:
    """A config to train with, and what was chosen where a data file was given.

    Attributes:
        config: With the paths of the files that were found.
        name: For its runs.
        summary: What was chosen, on one line; empty where a config was given.
        warnings: What a person should know, a line each.
    """

    config: Config
    name: str
    summary: str = ""
    warnings: tuple[str, ...] = ()


def choose_settings(sentences: int, optimizer: str = "sgd") -> dict[str, Any]:
    """Choose the settings of training that depend on the size of the data.

    Chosen on validation splits: on 300 sentences a cosine over 20 epochs was no better than 40 epochs whose rate
    falls slowly; on 3,000 one over 15 epochs was as good as 23 such epochs, at which patience ended.

    Args:
        sentences: Those that are learnt from.
        optimizer: The update rule's kind.

    Returns:
        Settings for `training`.
    """
    settings: dict[str, Any]
    if sentences < _SMALL:
        epochs = min(max(40, round(2_000 / max(1, sentences // 5))), 60)
        settings = {"epochs": epochs, "patience": epochs // 4, "batch_size": 5, "averaging": 0.99}
    else:
        epochs = min(max(10, round(4_000 / (sentences // 10))), 40)
        averaging = 0.999 if sentences >= 10_000 else 0.99
        settings = {"epochs": epochs, "patience": epochs, "batch_size": 10, "averaging": averaging}
        settings["schedule"] = {"kind": "cosine"}  # which is worth its last epochs most
    return settings if optimizer == "sgd" else {**settings, "learning_rate": 0.001}


def overrides_of(
    validation: str | None = None,
    test: str | None = None,
    vectors: Sequence[str] = (),
    language: str | None = None,
    start: str | None = None,
    keep_labels: bool = False,
    self_label: bool = False,
    device: str | None = None,
) -> list[str]:
    """Write what the options of `nertool train` say as overrides of a config."""
    given = {
        "corpus.validation": validation,
        "corpus.test": test,
        "inputs.words.vectors": list(vectors) or None,
        "language": language,
        "start.model": start,
        "start.keep_labels": keep_labels or None,
        "start.self_label": self_label or None,
        "training.device": device,
    }
    return [f"{name}={flow(value)}" for name, value in given.items() if value is not None]


def find_data(name: str) -> Path:
    """Find a data file or folder.

    Raises:
        ConfigError: There is none, or it cannot be read twice.
    """
    path = find(name, folder_too=True)
    if is_stream(path):
        raise ConfigError(f"{name}: can be read only once; write it to a file, and name that")
    return path


def run_name(path: Path) -> str:
    """Return the name of a data file's runs: that of the file without its suffix."""
    path = path if path.name else path.resolve()
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return (plain.name if path.is_dir() else plain.stem) or "model"


def open_config(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a config, or make one for a data file.

    Args:
        name: Of a config (`.yaml`, or one that ships), or else of a data file or folder.
        overrides: As for `load_config`.

    Raises:
        ConfigError, CorpusError: There is none of the name, or it is wrong.
    """
    if not names_config(name) and (Path(name).suffix or is_file(Path(name)) or is_folder(Path(name))):
        return make_recipe(name, overrides)
    path = find_config(name)
    return Recipe(locate_files(load_config(path, overrides), path), path.stem)


def make_recipe(data: str, overrides: Iterable[str] = ()) -> Recipe:
    """Make a config for a data file, which is read for that.

    Where overrides name a model to start from, language, inputs and network are its own.

    Args:
        data: A file or folder in any format.
        overrides: Settings that replace the chosen ones, as for `load_config`.

    Raises:
        ConfigError, CorpusError: A file is missing or wrong, or settings are.
    """
    path = find_data(data)
    overrides = list(overrides)
    corpus: dict[str, Any] = {"train": str(path), "held_out_by": "shuffled"}
    base = _settings_of_model(override_tree({"corpus": corpus}, overrides).start.model)
    if base:
        corpus["learn_scheme"] = base.pop("learn_scheme")
    given = override_tree({**base, "corpus": corpus}, overrides)
    if given.corpus.hub is not None:
        raise ConfigError(f"corpus.hub: {data} is a file; a dataset of the hub is named in a config")
    try:
        given = locate_files(given, None)
    except ConfigError as problem:
        hint = "inputs.words.vectors=[] trains without files of vectors: known words keep theirs"
        raise ConfigError([*problem.problems, *([hint] if _lacks_vectors(base) else [])]) from None
    count = _count_sentences(given)
    if given.corpus.fold_numbers is not None:
        count -= count // given.corpus.fold_numbers[1]
    learnt = count
    warnings = []
    judged = "--validation names what judges it"
    if given.corpus.validation is not None:
        judged = f"{given.corpus.validation} chooses the best epoch"
    elif count < FEWEST and given.corpus.fold is not None:
        raise CorpusError(f"{count} sentences beside a fold are too few to hold some out; annotate more", path)
    elif count < FEWEST:
        corpus["validation"] = str(path)
        judged = "the training sentences choose the best epoch"
        warnings.append(
            f"{count} sentence{'s are' if count > 1 else ' is'} too few to hold some out: the training sentences "
            "are the validation sentences too, so that validation scores say nothing about other text. Annotate "
            "more, or name other sentences with --validation"
        )
    else:
        corpus["held_out"] = 0.2 if count < 100 else given.corpus.held_out
        share = override_tree({**base, "corpus": corpus}, overrides).corpus.held_out
        learnt = count - round(share * count)
        judged = f"{share:.0%} of the sentences, held out at random, choose the best epoch"
    learnt = max(1, round(learnt * given.corpus.fraction))
    training = choose_settings(learnt, given.training.optimizer.kind)
    if "schedule" in training:  # a cosine is run to its end
        chosen = override_tree({**base, "corpus": corpus, "training": training}, overrides).training
        training["patience"] = chosen.epochs
    config = locate_files(override_tree({**base, "corpus": corpus, "training": training}, overrides), None)
    if not base and not any(getattr(each, "vectors", ()) for each in config.active_inputs.values()):
        warnings += _recommend_vectors(config.language)
    chosen = config.training
    about = "at least" if given.corpus.stream and count >= ENOUGH else "about"
    summary = (
        f"chosen for {about} {learnt:,} training sentence{'s' * (learnt != 1)}: at most {chosen.epochs} epochs "
        f"(patience {chosen.patience}), batches of {chosen.batch_size}, learning rate {chosen.learning_rate:g}, "
        f"schedule {chosen.schedule.kind}, averaging {chosen.averaging:g}; {judged}"
    )
    return Recipe(config, run_name(path), summary, tuple(warnings))


def _count_sentences(config: Config) -> int:
    """Count the sentences of the training file; a comparison asks again for each of its cells."""
    corpus = config.corpus.model_copy(update={"fold": None, "fraction": 1.0, "fraction_seed": 0})
    path = Path(corpus.train or "")
    return _count(corpus, config.language, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=16)
def _count(corpus: CorpusConfig, language: str, _changed: int) -> int:
    tokenizer = SpacyTokenizer(language)
    if not corpus.stream:
        return len(read_split(corpus.train or "", corpus, partial=True, tokenizer=tokenizer))
    path = Path(corpus.train or "")
    used = find_format(corpus.format) if corpus.format else detect_format(path)
    documents = used.read(path, read_options(corpus, tokenizer=tokenizer), Report())
    count = 0
    for document in documents:
        count += len(document.sentence_starts)
        if count >= ENOUGH:
            break
    return count


def _settings_of_model(name: str | None) -> dict[str, Any]:
    """Return what decides on the network of a model, as a tree; nothing without one."""
    if name is None:
        return {}
    path = find_model(name) / MODEL_FILES[0]
    if not path.is_file():
        raise ConfigError(f"start.model: {path.parent} is not a model: {path.name} is missing")
    config = load_config(path)
    tree = config.model_dump(mode="json", include={"language", "inputs", "model"})
    return {**tree, "learn_scheme": config.corpus.learn_scheme}


def _lacks_vectors(tree: dict[str, Any]) -> bool:
    vectors = tree.get("inputs", {}).get("words", {}).get("vectors", ())
    names, problems = locate_vectors(vectors)
    return bool(problems) or any(not Path(split_member(file)[0]).exists() for file in vectors if file not in names)


def _recommend_vectors(language: str) -> list[str]:
    """Say which vectors there are for a language, on a line; none where there are none."""
    named = recommended(language)
    if named is None:
        return []
    here = [str(each) for each in fetched(named.set)]
    get = "" if here else f"get some with `nertool vectors fetch {named}`, and "
    return [
        "no pretrained word vectors: with them F1 is usually much higher, most of all on little data; "
        f"{get}train with --vectors {here[0] if here else named}"
    ]
