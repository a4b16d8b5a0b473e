"""Tensors and a few texts in a safetensors file, with a digest that detects corruption."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nertool.config.files import is_stream, replaced_when_done
from nertool.errors import BundleError, NertoolError

DIGEST = "digest"


def digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of texts, and of names, types, shapes and values of tensors, whatever their order."""
    own = {name: text for name, text in texts.items() if name != DIGEST}
    result = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        result.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        result.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file; equal content makes equal bytes.

    Raises:
        NertoolError: The file cannot be written; what was there before is still there.
    """
    # Parameters may share memory, and safetensors wants each tensor to have its own.
    own = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    texts = {**metadata, DIGEST: digest(own, metadata)}
    content = safetensors.torch.save(own, texts)
    # safetensors puts the metadata in another order each time.
    size = int.from_bytes(content[:8], "little")
    header = {**json.loads(content[8 : 8 + size]), "__metadata__": texts}
    with replaced_when_done(path) as target:
        target.write(
            content[:8] + json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        )
        target.write(memoryview(content)[8 + size :])


def read_texts(path: Path, largest_header: int) -> dict[str, str]:
    """Read the texts of a file, its digest included, but no tensors.

    Args:
        path: The file.
        largest_header: Largest size of the header in bytes; it is parsed as a whole.

    Raises:
        BundleError: The file is corrupt.
    """
    return _open(path, largest_header)[1]


def read_tensors(
    path: Path, version: tuple[str, str], largest_header: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file. The values of a tensor are read from disk when they are used for the first time.

    Args:
        path: The file.
        version: Name of the text that holds the version of the file, and the version that can be read.
        largest_header: Largest size of the header in bytes; it is parsed as a whole.

    Returns:
        The tensors, not yet compared with the digest, and the texts.

    Raises:
        BundleError: The file is corrupt, or of another version.
    """
    file, texts = _open(path, largest_header)
    key, wanted = version
    if texts.get(key) != wanted:
        raise BundleError(
            f"{path}: written by another version of nertool (format {texts.get(key)}, this one reads {wanted}): "
            "retrain the model"
        )
    try:
        return {name: file.get_tensor(name) for name in file.keys()}, texts  # noqa: SIM118
    except Exception as problem:  # safetensors raises its own error type and those of the system
        raise BundleError(f"{path}: corrupt ({problem})") from None


def check_digest(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Compare what was read with the digest of what was written.

    Raises:
        BundleError: They differ.
    """
    if digest(tensors, metadata) != metadata.get(DIGEST):
        raise BundleError(f"{path}: corrupt (its content is not what was written); copy or download it again")


def _is_utf8(path: Path) -> bool:
    try:
        return bool(os.fspath(path).encode())
    except UnicodeEncodeError:
        return False


def _open(path: Path, largest_header: int) -> tuple[Any, dict[str, str]]:
    try:
        if is_stream(path):
            raise BundleError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > largest_header:
                raise BundleError(
                    f"{path}: corrupt (a header of {size:,} bytes, expected {largest_header:,} at most)"
                )
            # safetensors takes no name that is not UTF-8; systems that have such names have this one too.
            named = _is_utf8(path)
            file: Any = safetensors.safe_open(path if named else f"/dev/fd/{stream.fileno()}", "pt")
        return file, file.metadata() or {}
    except NertoolError:
        raise
    except Exception as problem:  # safetensors raises its own error type and those of the system
        raise BundleError(f"{path}: corrupt ({problem})") from None
