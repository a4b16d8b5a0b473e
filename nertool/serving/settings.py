"""What `nertool serve` was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nertool.config.model_names import is_hub_name, parse_hub_name
from nertool.errors import NertoolError

LOCAL_ADDRESSES = ("127.0.0.1", "::1", "localhost")
"""Addresses that this machine alone reaches."""


@dataclass(frozen=True)
class Settings:
    """Models, and the limits of the service.

    Attributes:
        models: Folder of each model by its name; the first one is used where a request names none.
        device: What they compute on.
        host: Address to listen on.
        port: Port to listen on; 0: any that is free.
        workers: Processes, each with models of its own.
        max_chars: Characters of all texts of a request, at most.
        max_concurrency: Requests for tagging that a worker has at a time, at most; further ones are refused.
        timeout: Seconds until a request is given up, and until a connection is closed that is silent.
        api_key: What requests for tagging must show; None: nothing.
        label_studio: Whether Label Studio is answered too, as its ML backend.
    """

    models: dict[str, Path]
    device: str = "cpu"
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    max_chars: int = 100_000
    max_concurrency: int = 100
    timeout: float = 30.0
    api_key: str | None = None
    label_studio: bool = False

    @property
    def max_body(self) -> int:
        """Bytes of a body, at most: JSON may spell a character with twelve, and some are around the texts."""
        return 12 * self.max_chars + 65_536


def named_models(folders: Sequence[str], find: Callable[[str], Path] = Path) -> dict[str, Path]:
    """Give each model a name: as in `NAME=DIR`, else the name of its folder, or of its repository on the hub.

    Args:
        folders: The models.
        find: Finds each one.

    Raises:
        NertoolError: Two models have one name, or a name cannot be written as UTF-8.
    """
    models: dict[str, Path] = {}
    for given in folders:
        name, _, folder = given.rpartition("=") if not Path(given).is_dir() else ("", "", given)
        if not name and is_hub_name(folder):
            name = parse_hub_name(folder).repository.partition("/")[2]
        path = find(folder)
        name = name or path.resolve().name
        try:
            name.encode()
        except UnicodeEncodeError:
            raise NertoolError(f"the name of {path} is not UTF-8; give the model another: NAME=DIR") from None
        if name in models:
            raise NertoolError(
                f"{models[name]} and {path} are both called {name!r}; give one of them another name: NAME=DIR"
            )
        models[name] = path
    return models
