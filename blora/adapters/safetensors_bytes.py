"""Safetensors as bytes: equal content gives equal bytes, and nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load, save
from torch import Tensor

__all__ = ["pack_safetensors", "stream_safetensors", "unpack_safetensors", "write_whole"]

_NAMES: Final = {torch.float32: "F32", torch.float64: "F64", torch.uint8: "U8"}
"""What the format calls number formats, of those that are streamed."""


def pack_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialise tensors with the metadata in sorted order.

    The library itself writes metadata in the order of a hash table, which differs from call to call.
    """
    plain = save(dict(tensors))
    size = int.from_bytes(plain[:8], "little")
    return b"".join([_head(json.loads(plain[8 : 8 + size]), metadata), memoryview(plain)[8 + size :]])


def unpack_safetensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata.

    Raises:
        safetensors.SafetensorError: Not a whole safetensors file.
    """
    tensors = load(data)
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return tensors, {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}


def _head(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """A file's beginning: its length, what it says of itself and of each tensor, padded as the library pads."""
    header = {"__metadata__": dict(sorted(metadata.items())), **tensors}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def stream_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors from any device to a file row by row: no more than a row of one of them is in the CPU's memory.

    Args:
        path: Written over.
        tensors: Of one dimension or more, of the number formats in `_NAMES`.
        metadata: Goes into the file's header.
    """
    header: dict[str, Any] = {}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    with path.open("wb") as file:
        file.write(_head(header, metadata))
        for tensor in tensors.values():
            for row in tensor.detach():
                file.write(memoryview(row.cpu().contiguous().numpy()).cast("B"))


def write_whole(path: Path, data: bytes) -> None:
    """Write beside the target and move into place, so that a reader never sees half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
