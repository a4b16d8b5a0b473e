"""Tensors and a few texts in a safetensors file, with a digest: a bit that has changed is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nertool.config.files import replaced_when_done
from nertool.errors import BundleError, NertoolError

DIGEST = "digest"


def digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """SHA-256 over texts, and over names, types, shapes and values of tensors, whatever their order."""
    own = {name: text for name, text in texts.items() if name != DIGEST}
    found = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file; equal content makes equal bytes.

    Raises:
        NertoolError: It cannot be written; what was there before is still there.
    """
    # Parameters may share memory, and safetensors wants each tensor to have its own.
    own = {name: tensor.detach().clone() for name, tensor in tensors.items()}
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


def read_tensors(
    path: Path, version: tuple[str, str], largest_header: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a file. Tensors are not in memory before they are looked at.

    Args:
        path: The file.
        version: The text that tells the version of the file, and the version that can be read.
        largest_header: Bytes of the header, at most; it is parsed as a whole.

    Returns:
        The tensors, not yet compared with the digest, and the texts.

    Raises:
        BundleError: It is damaged, or of another version.
    """
    key, wanted = version
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
        if size > largest_header:
            raise BundleError(f"{path}: damaged (a header of {size:,} bytes, expected {largest_header:,} at most)")
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get(key) != wanted:
                raise BundleError(
                    f"{path}: written by another version of nertool (format {metadata.get(key)}, this one reads "
                    f"{wanted})"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except NertoolError:
        raise
    except Exception as problem:  # safetensors raises its own error type and those of the system
        raise BundleError(f"{path}: damaged ({problem})") from None


def check_digest(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Compares what was read with the digest of what was written.

    Raises:
        BundleError: It is something else.
    """
    if digest(tensors, metadata) != metadata.get(DIGEST):
        raise BundleError(f"{path}: damaged (its content is not what was written); fetch it again")
