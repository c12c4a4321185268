"""The pictures that a manifest names, read and looked at: the second half of checking a manifest.

| what arrives | outcome |
|---|---|
| a picture missing, no regular file, too large or refused by `manifests.images` | a fault of each of its rows |
| a server that does not answer, again and again | the same, marked transient |
| one address in several rows | read once |
| one picture at several addresses, whatever their formats | accepted; the later ones carry a note |
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from manifests.entries import ImageEntry, Manifest
from manifests.errors import ManifestsError
from manifests.faults import Fault
from manifests.images import MAX_FILE_BYTES, IdentifiedImage, identify
from manifests.store import read_address

Picture = TypeVar("Picture", bound=IdentifiedImage)

_READ_AHEAD = 8  # files; a bucket answers many readers as fast as one, and 8 whole files fit into memory


def read_images(
    addresses: Iterable[str], turn: Callable[[bytes], Picture]
) -> Iterator[tuple[str, Picture | ManifestsError]]:
    """Read some pictures, each address once, in order; little is held at any time.

    Args:
        addresses: Where they lie.
        turn: What is made of the bytes of each, such as `normalise`.

    Yields:
        The address, and the picture or why there is none.
    """
    addresses = iter(dict.fromkeys(addresses))
    with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="read-images") as readers:
        while batch := list(itertools.islice(addresses, _READ_AHEAD)):
            # Decoding stays in this thread: one picture being decoded may take most of a gigabyte.
            for address, read in zip(batch, readers.map(_read, batch), strict=True):
                yield address, read if isinstance(read, ManifestsError) else _turned(read, turn)


def _read(address: str) -> bytes | ManifestsError:
    try:
        return read_address(address, MAX_FILE_BYTES)
    except ManifestsError as error:
        return error


def _turned(data: bytes, turn: Callable[[bytes], Picture]) -> Picture | ManifestsError:
    try:
        return turn(data)
    except ManifestsError as error:
        return error


def check_images(manifest: Manifest) -> tuple[dict[str, IdentifiedImage], tuple[Fault, ...]]:
    """Read and identify every picture of a manifest; an entry is good if all its addresses are in the result.

    Returns:
        What is known of the pictures by address, and a fault for each row and picture that cannot be used, in the
        order of the rows.
    """
    entries = (*manifest.contents, *manifest.styles)
    pictures: dict[str, IdentifiedImage] = {}
    errors: dict[str, ManifestsError] = {}
    first_address: dict[str, str] = {}
    for address, found in read_images((address for entry in entries for address in entry.images), identify):
        if isinstance(found, ManifestsError):
            errors[address] = found
            continue
        twin = first_address.setdefault(found.image_id, address)
        notes = found.notes if twin == address else (*found.notes, f"the same picture as {twin}")
        pictures[address] = dataclasses.replace(found, notes=notes)
    faults = [
        picture_fault(entry, address, errors[address])
        for entry in entries
        for address in entry.images
        if address in errors
    ]
    return pictures, tuple(sorted(faults, key=lambda fault: fault.row or 0))


def picture_fault(entry: ImageEntry, address: str, error: ManifestsError) -> Fault:
    """Return the fault of a row whose picture cannot be used."""
    return Fault(
        kind="image",
        what=error.what if address in error.what else f"{address}: {error.what}",
        received=error.received,
        accepted=error.accepted,
        hint=error.hint or "correct the path or the file",
        file=entry.file,
        row=entry.row,
        field="image",
        item=entry.name,
        transient=error.transient,
    )
