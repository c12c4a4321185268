"""Thumbnails in pages: one script file holds those of some pictures, and a browser asks for it when it is near.

Not one file a picture: 10,000 small requests to a bucket take a minute. Not one large sheet of them either: to show one
cell of a sheet a browser decodes all of it, and sorted by score the cells on a screen come from as many sheets. In a
page each thumbnail is a picture of its own, and only those on the screen are decoded. Scripts and not JSON, because
a page that is opened from a disk may not fetch.

The samples of a page are of one shard, and a page is named after what it holds. So the slot that scores a shard, which
has its pictures in memory, writes their thumbnails, and whoever closes the run finds them there: full-size pictures are
read again only for what is missing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from PIL import Image

from manifests import ids, layout
from manifests.errors import Missing
from manifests.store.parallel import in_parallel
from manifests.store.store import Store
from tasks.pictures import THUMBNAIL_QUALITY, decoded, thumbnail
from tasks.run.plan import PlannedSample

PAGE_SIZE = 64
"""The most pictures of a page."""

SIDE_PX = 192
"""Longest side of a thumbnail; smaller pictures stay as they are."""

ThumbnailPage: TypeAlias = "tuple[str, int]"
"""The name of a page, without folder and extension, and how many pictures it has places for."""

Keys: TypeAlias = "Sequence[str | None]"
"""The pictures of a page in order; None where there is none (yet)."""

_OURS = re.compile(rf"([0-9a-f]{{{ids.ID_LENGTH}}})\.js")  # a copy may lie in a folder with other files
_FORMAT = 1  # raise it when thumbnails are made otherwise


def in_pages(keys: Keys) -> list[Keys]:
    """Cut a list of pictures into pages."""
    return [keys[start : start + PAGE_SIZE] for start in range(0, len(keys), PAGE_SIZE)]


def write_thumbnails(source: Store, pages: Sequence[Keys], target: Store, prefix: str) -> list[ThumbnailPage]:
    """Write the pages that are not there yet, and remove those of an older state.

    Args:
        source: the store of the pictures.
        pages: the pictures of each page.
        target: where to.
        prefix: the folder of the pages, with a slash at its end.

    Returns:
        The pages, in order.
    """
    matches = (_OURS.fullmatch(key.removeprefix(prefix)) for key in target.list(prefix))
    there = {match[1] for match in matches if match}
    named = [(_name(keys), keys) for keys in pages]
    for name, keys in named:
        if name not in there and any(keys):
            pictures = in_parallel(source, lambda key: _read(source, key) if key else "", [key or "" for key in keys])
            target.replace(f"{prefix}{name}.js", _script(name, pictures))
    for name in there.difference(name for name, _ in named):
        target.delete(f"{prefix}{name}.js")
    return [(name, len(keys)) for name, keys in named]


def write_shard_thumbnails(
    store: Store, run_id: str, samples: Sequence[PlannedSample], pictures: Mapping[str, Image.Image | None]
) -> None:
    """Write the pages of a shard, as far as all their pictures are at hand.

    Args:
        store: the store.
        run_id: the run.
        samples: those of the shard.
        pictures: the pictures that are there, by sample_id; None for one that is there and not at hand.
    """
    prefix = layout.thumbnails_prefix(run_id)
    for keys in in_pages([sample.key if sample.sample_id in pictures else None for sample in samples]):
        shown = {sample.key: pictures[sample.sample_id] for sample in samples if sample.key in keys}
        at_hand = {key: picture for key, picture in shown.items() if picture is not None}
        if at_hand and len(at_hand) == len(shown):
            name = _name(keys)
            store.replace(f"{prefix}{name}.js", _script(name, [_encode(at_hand[key]) if key else "" for key in keys]))


def _name(keys: Keys) -> str:
    return ids.digest("thumbnails", _FORMAT, [SIDE_PX, THUMBNAIL_QUALITY], list(keys))


def _script(name: str, pictures: Sequence[str]) -> bytes:
    return f"blora.thumbnails.add({json.dumps(name)}, {json.dumps(pictures, indent=0)});\n".encode("ascii")


def _read(source: Store, key: str) -> str:
    """The thumbnail of a picture; empty for one that is not there or cannot be read."""
    try:
        return _encode(decoded(source.read(key)))
    except (Missing, OSError):  # a page is for looking; what is missing stands among the faults
        return ""


def _encode(picture: Image.Image) -> str:
    """A thumbnail in base64."""
    return base64.b64encode(thumbnail(picture, SIDE_PX)).decode("ascii")
