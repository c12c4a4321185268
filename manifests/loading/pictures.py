"""The pictures that a manifest names, read and looked at: the second half of checking a manifest.

| what arrives | outcome |
|---|---|
| a picture missing, no regular file, too large or refused by `images.normalise` | a fault of each of its rows |
| a server that does not answer, again and again | the same, marked transient |
| one address in several rows | read once |
| one picture at several addresses, whatever their formats | accepted; the later ones carry a note |
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from manifests import layout
from manifests.errors import ManifestsError
from manifests.faults import Fault
from manifests.images.animation import identify_frames, normalise_frames
from manifests.images.decode import MAX_FILE_BYTES
from manifests.images.normalise import IdentifiedImage, NormalisedImage, identify, normalise
from manifests.notes import Note
from manifests.schema.entries import ImageEntry, Manifest, frame_key, split_key
from manifests.store.address import is_bucket
from manifests.store.files import read_address
from manifests.store.parallel import in_parallel
from manifests.store.store import Store

Picture = TypeVar("Picture", bound=IdentifiedImage)

PICTURES_AT_ONCE = 16
"""Input pictures in memory while they are written to the store."""
_READ_AHEAD = 8  # files; a bucket answers many readers as fast as one, and 8 whole files fit into memory


@dataclass(frozen=True)
class Turn(Generic[Picture]):
    """What is made of the bytes of a file: of the whole, and of frames of an animated one by their numbers."""

    whole: Callable[[bytes], Picture]
    frames: Callable[[bytes, Sequence[int]], Iterator[Picture]]


IDENTIFIED: Final = Turn[IdentifiedImage](identify, identify_frames)
NORMALISED: Final = Turn[NormalisedImage](normalise, normalise_frames)


def read_images(keys: Iterable[str], turn: Turn[Picture]) -> Iterator[tuple[str, Picture | ManifestsError]]:
    """Read some pictures, each file once, in order; little is held at any time.

    Args:
        keys: What the pictures are held under (`ImageEntry.keys`).
        turn: What is made of each.

    Yields:
        The key, and the picture or why there is none.
    """
    numbers: dict[str, list[int | None]] = {}
    for address, number in map(split_key, dict.fromkeys(keys)):
        numbers.setdefault(address, []).append(number)
    addresses = iter(numbers)
    with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="read-images") as readers:
        while batch := list(itertools.islice(addresses, _READ_AHEAD)):
            # From a disk a file comes sooner than a thread wakes up.
            reading = readers.map if any(map(is_bucket, batch)) else map
            # Decoding stays in this thread: one picture being decoded may take most of a gigabyte.
            for address, read in zip(batch, reading(_read, batch), strict=True):
                yield from _turned(address, read, numbers[address], turn)


def _turned(
    address: str, read: bytes | ManifestsError, numbers: Sequence[int | None], turn: Turn[Picture]
) -> Iterator[tuple[str, Picture | ManifestsError]]:
    """Yield what is wanted of one file: itself, frames of it by number, or both."""
    if isinstance(read, ManifestsError):
        yield from ((frame_key(address, number), read) for number in numbers)
        return
    if None in numbers:
        try:
            yield address, turn.whole(read)
        except ManifestsError as error:
            yield address, error
    frames = sorted(number for number in numbers if number is not None)
    done = 0
    try:
        for number, picture in zip(frames, turn.frames(read, frames), strict=False):
            yield frame_key(address, number), picture
            done += 1
    except ManifestsError as error:  # a decoder that failed once hands out nothing good after it
        yield from ((frame_key(address, number), error) for number in frames[done:])


def _read(address: str) -> bytes | ManifestsError:
    try:
        return read_address(address, MAX_FILE_BYTES)
    except ManifestsError as error:
        return error


def check_images(manifest: Manifest) -> tuple[dict[str, IdentifiedImage], tuple[Fault, ...]]:
    """Read and identify every picture of a manifest; an entry is good if all its `keys` are in the result.

    Returns:
        What is known of the pictures by key, and a fault for each row and picture that cannot be used, in the order
        of the rows.
    """
    entries = manifest.entries
    pictures: dict[str, IdentifiedImage] = {}
    errors: dict[str, ManifestsError] = {}
    first_key: dict[str, str] = {}
    for key, picture in read_images((key for entry in entries for key in entry.keys), IDENTIFIED):
        if isinstance(picture, ManifestsError):
            errors[key] = picture
            continue
        twin = first_key.setdefault(picture.image_id, key)
        notes = picture.notes if twin == key else (*picture.notes, f"the same picture as {' '.join(twin.splitlines())}")
        pictures[key] = dataclasses.replace(picture, notes=notes)
    faults = [
        picture_fault(entry, address, errors[key])
        for entry in entries
        for address, key in zip(entry.images, entry.keys, strict=True)
        if key in errors
    ]
    return pictures, tuple(sorted(faults, key=lambda fault: fault.row or 0))


def small_notes(manifest: Manifest, pictures: Mapping[str, IdentifiedImage], resolution_px: int) -> tuple[Note, ...]:
    """Return the pictures whose shorter side is below half of the pixels that it is resized to for training."""
    seen = ((entry, pictures[key]) for entry in manifest.entries for key in entry.keys if key in pictures)
    return tuple(
        Note(
            f"{picture.width_px} x {picture.height_px} px, far below the {resolution_px} px that it is trained at: "
            "it is enlarged and stays blurred; take a larger copy, or a smaller train.resolution_px",
            entry.name,
            entry.file,
            entry.row,
        )
        for entry, picture in seen
        if 2 * min(picture.width_px, picture.height_px) < resolution_px
    )


def write_images(store: Store, images: Mapping[str, str]) -> list[Fault]:
    """Normalise and write those that a store lacks, a few at a time: thousands of them do not fit into memory.

    Args:
        store: takes them, each once.
        images: the key of each picture, by its id.

    Returns:
        A fault for each that is not any more what its id says.
    """
    there = store.list(layout.IMAGES_PREFIX)
    wanted = {key: image_id for image_id, key in images.items() if layout.image_key(image_id) not in there}
    changed: list[Fault] = []
    read = read_images(wanted, NORMALISED)
    while some := list(itertools.islice(read, PICTURES_AT_ONCE)):
        good: dict[str, bytes] = {}
        for key, picture in some:
            if isinstance(picture, ManifestsError) or picture.image_id != wanted[key]:
                changed.append(_changed(key, picture))
            else:
                good[layout.image_key(picture.image_id)] = picture.png
        in_parallel(store, partial(_write, store, good), list(good))
    return changed


def _write(store: Store, files: Mapping[str, bytes], key: str) -> None:
    store.write_once(key, files[key])


def _changed(key: str, picture: NormalisedImage | ManifestsError) -> Fault:
    received = str(picture) if isinstance(picture, ManifestsError) else "another picture"
    hint = "run the manifest again once nobody writes to its pictures"
    what = f"{' '.join(key.splitlines())} changed while the run was being planned"
    return Fault("image", what, received, "the picture as it was", hint)


def picture_notes(manifest: Manifest, pictures: Mapping[str, IdentifiedImage]) -> tuple[Note, ...]:
    """Return what was done to the pictures of a manifest, by row: those that `check_images` found good."""
    return tuple(
        Note(text, entry.name, entry.file, entry.row)
        for entry in sorted(manifest.entries, key=lambda entry: entry.row or 0)
        for key in entry.keys
        if key in pictures
        for text in pictures[key].notes
    )


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
