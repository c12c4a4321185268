"""Frames of untrusted animated files (GIF, WebP, APNG), each as it is shown, decoded one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from manifests.errors import ImageError
from manifests.images.decode import has_more_frames, open_untrusted
from manifests.images.normalise import MAX_SIDE_PX, IdentifiedImage, NormalisedImage, identified, normalised, upright

ANIMATED = ("GIF", "WEBP", "PNG")
"""Of these, files whose pictures are the frames of a clip; the pictures of a TIFF are pages."""


@dataclass(frozen=True)
class Animation:
    """What an animated file says of itself.

    Attributes:
        frames: How many there are.
        width_px: Width in pixels.
        height_px: Height in pixels.
        frames_per_second: As its first frame says; None where it says nothing.
    """

    frames: int
    width_px: int
    height_px: int
    frames_per_second: float | None


def look_at(data: bytes) -> Animation:
    """Read what an animated GIF, WebP or APNG says of itself, without decoding its frames.

    Raises:
        ImageError: It cannot be used, or does not move.
    """
    with open_untrusted(data) as opened:
        if not has_more_frames(opened):
            hint = "write image: instead, or name the folder of the frames"
            raise ImageError("picture that does not move", f"{opened.format} of one frame", "an animation", hint)
        if opened.format not in ANIMATED:
            hint = "save its pictures as files of one folder"
            raise ImageError("several pictures that are no clip", str(opened.format), "GIF, WebP or APNG", hint)
        if "duration" not in opened.info:
            opened.load()  # WebP says it with the first frame
        shown_ms = float(opened.info.get("duration") or 0)
        frames = int(getattr(opened, "n_frames", 1))
        return Animation(frames, opened.width, opened.height, 1000 / shown_ms if shown_ms > 0 else None)


def identify_frames(data: bytes, numbers: Sequence[int]) -> Iterator[IdentifiedImage]:
    """Find out which pictures some frames of an animated file are, as `normalise_frames` would.

    Raises:
        ImageError: A frame cannot be used; those before it have been handed out.
    """
    return (identified(*frame) for frame in _upright_frames(data, numbers))


def normalise_frames(data: bytes, numbers: Sequence[int]) -> Iterator[NormalisedImage]:
    """Turn some frames of an animated file, as they are shown, into upright 8-bit RGB pictures.

    Args:
        data: The whole file.
        numbers: Which frames, from 0, in rising order.

    Raises:
        ImageError: A frame cannot be used; those before it have been handed out.
    """
    return (normalised(*frame) for frame in _upright_frames(data, numbers))


def _upright_frames(data: bytes, numbers: Sequence[int]) -> Iterator[tuple[Image.Image, list[str]]]:
    """Each frame as it is shown, with what was done to it."""
    with open_untrusted(data) as opened:
        for number in numbers:
            opened.seek(number)
            yield upright(opened, MAX_SIDE_PX, of_many=True)
