"""Datasets in the format of the package `datasets`: named on the hub, or in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nertool.config.schema import CorpusConfig
from nertool.errors import CorpusError
from nertool.formats.arrow import one_line, table_documents
from nertool.formats.datasets_export import datasets_package, without_bars
from nertool.formats.registry import ReadOptions
from nertool.text.document import Document
from nertool.text.schemes import Scheme


def open_dataset(config: CorpusConfig) -> Callable[[str], Iterator[Document]]:
    """Open the dataset that a config names, in a folder or on the hub.

    Args:
        config: With `hub`: a folder that `load_dataset` or `load_from_disk` reads, or a name on the hub.

    Returns:
        A function from a split's name to its documents. It raises a `CorpusError` where there is no such split or
        a document is wrong.

    Raises:
        CorpusError: There is no such dataset.
        ConfigError: The package `datasets` is not installed.
    """
    source = config.hub or ""
    dataset = _load(source, config)
    splits = dataset if isinstance(dataset, Mapping) else {"train": dataset}
    options = ReadOptions(
        token_column=config.tokens,
        tag_column=config.tags,
        scheme=None if config.scheme == "detect" else Scheme(config.scheme),
        strip=config.strip,
    )

    def read(name: str) -> Iterator[Document]:
        if name not in splits:
            listed = ", ".join(splits)
            raise CorpusError(
                f"it has no split {name!r}; its splits are: {listed}. Name one in the config, as train, "
                "validation or test, or none as null",
                source,
            )
        data = splits[name]
        return table_documents(data.with_format("arrow")[:], data.features, str(Path(source, name)), options)

    return read


def _load(name: str, config: CorpusConfig) -> Any:
    datasets = datasets_package()
    folder = Path(name)
    with without_bars(datasets):
        try:
            if any((folder / each).is_file() for each in ("dataset_dict.json", "state.json")):
                return datasets.load_from_disk(name)
            # A name that is a folder too would be taken for the folder, wherever the config was read.
            return datasets.load_dataset(
                str(folder.resolve()) if folder.is_dir() else name, config.config, revision=config.revision
            )
        # It raises errors of its own, of Arrow, of the network, and bare ones.
        except Exception as problem:
            raise CorpusError(_explain(problem, folder.is_dir(), datasets), name) from None


def _explain(problem: Exception, local: bool, datasets: Any) -> str:
    message = one_line(problem)
    if "scripts are no longer supported" in message or "trust_remote_code" in message:
        return (
            f"this dataset loads by a script of its own, which datasets {datasets.__version__} does not run. Use "
            "the hub's copy of it, where there is one, with 'revision: refs/convert/parquet'; or another dataset "
            "with the same sentences; or its files, with train, validation and test"
        )
    if isinstance(problem, ConnectionError) or "OfflineMode" in message or "connect" in message.lower():
        return (
            f"the hub cannot be reached ({message}). A folder of that name, here or in one of NERTOOL_DATA, "
            "is read instead of the hub; so is what datasets has cached"
        )
    if isinstance(problem, FileNotFoundError) and not local:
        return f"no such dataset on the hub, or you have no access to it: {message}"
    if "config" in message.lower():
        return f"{message} Choose one with corpus.config"
    return f"datasets cannot load it: {message}"
