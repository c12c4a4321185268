"""The pictures that a manifest names, read and normalised: the second half of checking a manifest.

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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from manifests.animation import normalise_frames
from manifests.entries import ImageEntry, Manifest, frame_key
from manifests.errors import ManifestsError
from manifests.faults import Fault
from manifests.images import MAX_FILE_BYTES, NormalisedImage, normalise
from manifests.store import read_address

_READ_AHEAD = 8  # files; a bucket answers many readers as fast as one, and 8 whole files fit into memory


def read_images(entries: Iterable[ImageEntry]) -> Iterator[tuple[str, NormalisedImage | ManifestsError]]:
    """Read and normalise the pictures of some entries, each address once, in order; little is held at any time.

    Yields:
        What it is held under (`ImageEntry.keys`), and the picture or why there is none.
    """
    numbers: dict[str, list[int | None]] = {}
    for entry in entries:
        wanted = [None] * len(entry.images) if entry.frame is None else [entry.frame.number]
        for address, number in zip(entry.images, wanted, strict=True):
            if number not in (known := numbers.setdefault(address, [])):
                known.append(number)
    addresses = iter(numbers)
    with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="read-images") as readers:
        while batch := list(itertools.islice(addresses, _READ_AHEAD)):
            # Decoding stays in this thread: one picture being decoded may take most of a gigabyte.
            for address, read in zip(batch, readers.map(_read, batch), strict=True):
                yield from _normalised(address, read, numbers[address])


def _normalised(
    address: str, read: bytes | ManifestsError, numbers: Sequence[int | None]
) -> Iterator[tuple[str, NormalisedImage | ManifestsError]]:
    """Yield what is wanted of one file: itself, frames of it by number, or both."""
    if isinstance(read, ManifestsError):
        yield from ((frame_key(address, number), read) for number in numbers)
        return
    if None in numbers:
        yield address, _normalise(read)
    frames = sorted(number for number in numbers if number is not None)
    done = 0
    try:
        for number, picture in zip(frames, normalise_frames(read, frames), strict=False):
            yield frame_key(address, number), picture
            done += 1
    except ManifestsError as error:  # a decoder that failed once hands out nothing good after it
        yield from ((frame_key(address, number), error) for number in frames[done:])


def _read(address: str) -> bytes | ManifestsError:
    try:
        return read_address(address, MAX_FILE_BYTES)
    except ManifestsError as error:
        return error


def _normalise(data: bytes) -> NormalisedImage | ManifestsError:
    try:
        return normalise(data)
    except ManifestsError as error:
        return error


def check_images(manifest: Manifest) -> tuple[dict[str, NormalisedImage], tuple[Fault, ...]]:
    """Read and normalise every picture of a manifest; an entry is good if all its `keys` are in the result.

    Holds every normalised picture in memory; `read_images` hands them out one by one.

    Returns:
        The pictures by key, and a fault for each row and picture that cannot be used, in the order of the rows.
    """
    entries = (*manifest.contents, *manifest.styles)
    pictures: dict[str, NormalisedImage] = {}
    errors: dict[str, ManifestsError] = {}
    first_address: dict[str, str] = {}
    for key, found in read_images(entries):
        if isinstance(found, ManifestsError):
            errors[key] = found
            continue
        twin = first_address.setdefault(found.image_id, key)
        notes = found.notes if twin == key else (*found.notes, f"the same picture as {' '.join(twin.splitlines())}")
        pictures[key] = dataclasses.replace(found, notes=notes)
    faults = [
        picture_fault(entry, address, errors[key])
        for entry in entries
        for address, key in zip(entry.images, entry.keys, strict=True)
        if key in errors
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
