"""Finished adapters that a manifest names by their files: checked, named by their bytes, brought into the store.

| what a file is | outcome |
|---|---|
| a B-LoRA in any dialect that `blora.adapters.load` knows, of the layers and shapes of the run's base | taken |
| missing, too large, no adapter, of other layers or another base, without the half of its side | a fault of its row |
| one file under two names | one adapter |
| a base whose configuration cannot be had here | taken unseen, with a note |

In the store such an adapter is like any other: two halves and a marker. A half that a file lacks is written without
layers, so that what is whole can be told by a listing; nothing that is drawn asks for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from blora.adapters.blocks import Half
from blora.errors import BloraError
from blora.settings.block_split import BlockSplit, splits_apart
from manifests import layout
from manifests.errors import ManifestsError, StoreError
from manifests.faults import Fault
from manifests.notes import Note
from manifests.schema.addresses import shown_address
from manifests.schema.entries import ImageEntry, Manifest, PairEntry, content_parts, style_parts
from manifests.store.store import Store
from tasks.downloads import base_config
from tasks.errors import RunRefused
from tasks.planning.adapter_file import AdapterFile
from tasks.run.inventory import is_whole

if TYPE_CHECKING:
    from torch import nn

    from blora.adapters.adapter import Adapter

_UNSEEN = "not compared with the base model, whose configuration cannot be had here"


@dataclass(frozen=True)
class FinishedAdapter:
    """An adapter that came as a file.

    Attributes:
        adapter_id: of the file's bytes.
        address: where it lies.
        halves: those that it has.
        split: the blocks of each half.
    """

    adapter_id: str
    address: str
    halves: frozenset[Half]
    split: BlockSplit


Finished = Mapping[str, FinishedAdapter]
"""The finished adapters of a manifest, by address."""


def check_adapters(manifest: Manifest) -> tuple[dict[str, FinishedAdapter], tuple[Fault, ...], tuple[Note, ...]]:
    """Read every adapter file that a manifest names.

    Returns:
        The good ones, a fault for each row with another one, and what there is to know of the good ones.
    """
    finished: dict[str, FinishedAdapter] = {}
    faults: list[Fault] = []
    notes: list[Note] = []
    sides: tuple[tuple[Half, Sequence[ImageEntry]], ...] = (("content", manifest.contents), ("style", manifest.styles))
    errors: dict[str, BloraError | ManifestsError] = {}
    unet = base_unet(manifest.base) if any(entry.adapter for _, entries in sides for entry in entries) else None
    for half, entries in sides:
        for entry in entries:
            address = entry.adapter
            if address is None:
                continue
            if address not in finished and address not in errors:
                try:
                    finished[address] = _looked_at(address, unet)
                except (BloraError, ManifestsError) as error:
                    errors[address] = error
            if address in errors:
                faults.append(_fault(entry, errors[address]))
            elif half not in finished[address].halves:
                faults.append(_without(entry, half))
            elif unet is None:
                notes.append(Note(_UNSEEN, entry.name, entry.file, entry.row))
    return finished, tuple(sorted(faults, key=lambda fault: fault.row or 0)), tuple(notes)


def is_usable(entry: ImageEntry, half: Half, finished: Finished) -> bool:
    """Whether an entry is no finished adapter, or one that was found good."""
    return entry.adapter is None or (entry.adapter in finished and half in finished[entry.adapter].halves)


def refused_pair(
    pair: PairEntry,
    contents: Mapping[str, ImageEntry],
    styles: Mapping[str, ImageEntry],
    finished: Finished,
    trained: BlockSplit,
) -> Fault | None:
    """The fault of a pair that wants of a finished adapter what it does not have: a picture, another half, free blocks.

    Args:
        pair: what is drawn.
        contents: by name.
        styles: by name.
        finished: the adapters that came as files.
        trained: the split of all others.
    """
    sides = {
        "content": [contents[part.name] for part in content_parts(pair)],
        "style": [styles[part.name] for part in style_parts(pair)],
    }
    row: dict[str, Any] = {"file": pair.file, "row": pair.row, "item": pair.content or pair.style or ""}
    asked = pair.colour_of or ("content" if pair.colour_by or pair.colour_amount else "")
    bare = (
        next((entry.name for entry in sides.get(asked, ()) if entry.adapter), None) if pair.colour_amount != 0 else None
    )
    if bare is not None:
        received, accepted = f"the colours of {bare!r}, an adapter file", f"a {asked} with a picture"
        hint = f"remove colour_of, or give {bare} by its image"
        return Fault("manifest", "colours of an adapter", received, accepted, hint, field="colour_of", **row)
    for entry in sides["content"] if pair.own_style else ():
        if entry.adapter and "style" not in finished[entry.adapter].halves:
            received, accepted = f"{entry.name!r}, an adapter file without a style half", "a content that has one"
            hint = "remove own_style, or name a file with both halves"
            return Fault("manifest", "own_style of half an adapter", received, accepted, hint, field="own_style", **row)
    splits = {
        half: [finished[entry.adapter].split if entry.adapter else trained for entry in entries]
        for half, entries in sides.items()
    }
    own = splits["content"] if pair.own_style else []
    if apart := splits_apart(splits["content"], [*splits["style"], *own]):
        what, received = apart
        hint = "take adapters that were trained with one split, or train them anew with train.blocks"
        accepted = "content and style without a block in common, and mixes of the same blocks"
        return Fault("manifest", what, received, accepted, hint, field="", **row)
    return None


def write_adapters(store: Store, finished: Finished, base: str, base_revision: str) -> None:
    """Bring finished adapters into the store: halves first, the marker last, what is there is not written again.

    Raises:
        RunRefused: a file has changed since it was looked at.
    """
    for one in {one.adapter_id: one for one in finished.values()}.values():
        if is_whole(store, one.adapter_id):
            continue
        file = AdapterFile.read(one.address)
        if file.adapter_id != one.adapter_id:
            what, hint = f"{one.address} changed while the run was being planned", "run the manifest again"
            fault = Fault("image", what, "another file", "the file as it was", hint)
            raise RunRefused("an adapter file changed while the run was being planned", (fault,))
        adapter = file.load(None)
        halves = {half: _half_bytes(adapter, half) for half in get_args(Half)}
        for half, content in halves.items():
            store.write_once(layout.adapter_key(one.adapter_id, half), content)
        marker = _marker(one, adapter.rank, halves, base, base_revision)
        store.write_once(layout.adapter_marker_key(one.adapter_id), json.dumps(marker, indent=2).encode())


def base_unet(base: str) -> nn.Module | None:
    """The denoiser of a base without its weights: names and shapes of layers; None where they cannot be had here."""
    from blora.models.families.known import empty_denoiser  # torch: only a manifest that names a file needs it

    config = base_config(base)
    return None if config is None else empty_denoiser(config)


def _looked_at(address: str, unet: nn.Module | None) -> FinishedAdapter:
    """Read a file as a run would.

    Raises:
        StoreError: It cannot be read.
        KeyMismatchError: It is no adapter, or none for this base.
    """
    file = AdapterFile.read(address)
    adapter = file.load(unet)
    halves = frozenset(half for half in get_args(Half) if adapter.half(half).layers)
    for half in halves:
        _half_bytes(adapter, half)  # what does not fit half precision is refused here
    return FinishedAdapter(file.adapter_id, address, halves, adapter.split)


def _half_bytes(adapter: Adapter, half: Half) -> bytes:
    """A half as the store keeps it; without layers where the file has none."""
    from blora.adapters.safetensors_bytes import pack_safetensors

    part = adapter.half(half)
    return part.save_half() if part.layers else pack_safetensors({}, {"half": half, "format": "pt"})


def _marker(
    one: FinishedAdapter, rank: int, halves: Mapping[str, bytes], base: str, base_revision: str
) -> dict[str, Any]:
    """The content of adapter.json: the columns of table ADAPTERS, of a training that was none."""
    return {
        "adapter_id": one.adapter_id,
        "name": one.address.rsplit("/", 1)[-1],
        "source_file": shown_address(one.address),
        "image_ids": [],
        "base": base,
        "base_revision": base_revision,
        "rank": rank,
        "steps": 0,
        "final_loss": None,
        "skipped_steps": 0,
        "train_seconds": 0.0,
        "pack_id": "",
        "pack_size": 0,
        "device": "",
        "content_bytes": len(halves["content"]),
        "style_bytes": len(halves["style"]),
        "sha256": [hashlib.sha256(data).hexdigest() for data in halves.values()],
        "trained_at": datetime.now(UTC).isoformat(),
        "check": None,
    }


def _fault(entry: ImageEntry, error: BloraError | ManifestsError) -> Fault:
    """The fault of a row whose file cannot be used."""
    address = shown_address(entry.adapter or "")
    hint = error.hint or "correct the path or the file"
    where = error.where if isinstance(error, BloraError) and error.where else address
    what = error.what if address in error.what else f"{where}: {error.what}"
    return Fault(
        kind="image",
        what=what,
        received=error.received,
        accepted=error.accepted,
        hint=hint,
        file=entry.file,
        row=entry.row,
        field="adapter",
        item=entry.name,
        transient=isinstance(error, StoreError) and error.transient,
    )


def _without(entry: ImageEntry, half: Half) -> Fault:
    other = "style" if half == "content" else "content"
    what = f"{shown_address(entry.adapter or '')}: an adapter without a {half} half"
    hint = f"name it among the {other}s, or give another file"
    return Fault(
        kind="image",
        what=what,
        received=f"only the {other} block",
        accepted=f"layers of the {half} block",
        hint=hint,
        file=entry.file,
        row=entry.row,
        field="adapter",
        item=entry.name,
    )
