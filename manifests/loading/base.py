"""The base model that a manifest names: each place of it made absolute, all of it in one line."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

from manifests.parsing.fault_list import shown
from manifests.parsing.row_faults import RowFaults
from manifests.schema.addresses import AddressError, Roots
from manifests.schema.fields import BASE_NAMES
from manifests.schema.rows import BaseRow, DocumentRow
from manifests.store.address import is_bucket

_HUB: Final = re.compile(r"[\w-][\w.-]*/[\w.-]+@\S*", re.ASCII)
_PINNED: Final = re.compile(r"[^@]+@[0-9a-f]{40}(/[^@#]+\.safetensors)?(#sha256:[0-9a-f]{64})?")
_DIGEST: Final = "#sha256:"


def read_base(said: str | BaseRow | None, roots: Roots, faults: RowFaults) -> str:
    """Return a base in one line, as `blora.bases.spec` reads it, after adding a fault for each place that is none.

    Args:
        said: What the manifest says; None for nothing.
        roots: What it may reach.
        faults: Takes what is wrong.
    """
    if said is None:
        return ""
    if isinstance(said, str):
        return _place(said, ("base",), roots, faults)
    parts: dict[str, Any] = {"model": _place(said.model, ("base", "model"), roots, faults)}
    if said.vae:
        parts["vae"] = _place(said.vae, ("base", "vae"), roots, faults)
    if said.fuse:
        parts["fuse"] = [
            {"lora": _place(one.lora, ("base", "fuse", index, "lora"), roots, faults), "weight": one.weight}
            for index, one in enumerate(said.fuse)
        ]
    if said.quantize:
        parts["quantize"] = said.quantize
    if said.rest:
        parts["rest"] = _place(said.rest, ("base", "rest"), roots, faults)
    return json.dumps(parts, ensure_ascii=False)


def _place(text: str, at: tuple[str | int, ...], roots: Roots, faults: RowFaults) -> str:
    """Return a place with a path made absolute, after adding a fault if it is none of the accepted forms."""
    accepted, field = DocumentRow.model_fields["base"].description or "", ".".join(map(str, at))
    if text in BASE_NAMES or (_PINNED.fullmatch(text) and _HUB.fullmatch(text)):
        return text
    if _HUB.fullmatch(text):
        hint = "name the commit: a name such as main means another model tomorrow"
        faults.add("base model without a fixed revision", shown(text), accepted, hint, at=at, field=field)
        return text
    bare, mark, digest = text.partition(_DIGEST)
    if mark and not re.fullmatch(r"[0-9a-f]{64}", digest):
        faults.add("no SHA-256", shown(digest), "64 hex digits", "write what sha256sum prints", at=at, field=field)
    try:
        address = roots.resolve(bare)
    except AddressError as error:
        faults.add(*error.args, at=at, field=field)
        return text
    if not is_bucket(address) and not os.path.isdir(address) and not _is_model_file(address):
        hint = "correct the path; a model of the hub needs its revision, and sdxl stands for SDXL base 1.0"
        if os.path.isfile(address):
            hint = "take its .safetensors twin: a pickle can run code"
        faults.add("no such base model", shown(text), accepted, hint, at=at, field=field)
    return address + mark + digest


def _is_model_file(address: str) -> bool:
    return address.lower().endswith(".safetensors") and os.path.isfile(address)
