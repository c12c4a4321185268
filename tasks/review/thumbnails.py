"""Thumbnails in pages: one script file holds those of `PAGE_SIZE` pictures, and a browser asks for it when it is near.

Not one file a picture: 10,000 small requests to a bucket take a minute. Not one large sheet of them either: to show one
cell of a sheet a browser decodes all of it, and sorted by score the cells on a screen come from as many sheets. In a
page each thumbnail is a picture of its own, and only those on the screen are decoded. Scripts and not JSON, because
a page that is opened from a disk may not fetch.

Pages hold fixed stretches of the plan and are named after what they hold: a rerun writes those that changed.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from manifests import ids
from manifests.store import Missing, Store

PAGE_SIZE = 64
SIDE_PX = 192
"""Longest side of a thumbnail; smaller pictures stay as they are."""

_QUALITY = 80
_OURS = re.compile(rf"([0-9a-f]{{{ids.ID_LENGTH}}})\.js")  # a copy may lie in a folder with other files
_FORMAT = 1  # raise it when thumbnails are made otherwise
_AT_ONCE = 16  # pictures read at once; below the connections that a store keeps


def write_thumbnails(source: Store, keys: Sequence[str | None], target: Store, prefix: str) -> list[str]:
    """Write the pages that are not there yet, and remove those of an older state.

    Args:
        source: the store of the pictures.
        keys: key of each picture, in the page's order; None where there is none.
        target: where to.
        prefix: the folder of the pages, with a slash at its end.

    Returns:
        The name of each page, in order, without folder and extension.
    """
    found = (_OURS.fullmatch(key.removeprefix(prefix)) for key in target.list(prefix))
    there = {match[1] for match in found if match}
    stretches = [keys[start : start + PAGE_SIZE] for start in range(0, len(keys), PAGE_SIZE)]
    names = [ids.digest("thumbnails", _FORMAT, [SIDE_PX, _QUALITY], list(stretch)) for stretch in stretches]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, stretch in zip(names, stretches, strict=True):
            if name not in there and any(stretch):
                pictures = list(pool.map(lambda key: _thumbnail(source, key), stretch))
                target.replace(f"{prefix}{name}.js", _script(name, pictures))
    for name in there.difference(names):
        target.delete(f"{prefix}{name}.js")
    return names


def _script(name: str, pictures: Sequence[str]) -> bytes:
    return f"blora.thumbnails.add({json.dumps(name)}, {json.dumps(pictures, indent=0)});\n".encode("ascii")


def _thumbnail(source: Store, key: str | None) -> str:
    """A small WebP in base64; empty for a picture that is not there or cannot be read."""
    if key is None:
        return ""
    try:
        with Image.open(io.BytesIO(source.read(key))) as picture:
            small = picture.convert("RGB")
    except (Missing, OSError):  # a page is for looking; what is missing stands among the faults
        return ""
    small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
