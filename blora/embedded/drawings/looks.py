"""Looks: deterministic ways to redraw a transparent drawing.

A *look* is everything about a picture that is not the thing on it: paper, colours, line, texture. Each drawn set is a
look of its own; the recipes here turn any drawing into many more, without moving anything. So pictures of one drawing
in different looks share their layout exactly, and pictures of different things in one look share nothing else.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Look:
    """One recipe. Steps run in the order of the fields."""

    name: str
    words: str
    colours: str = "own"  # own | map | hue | gray | invert | posterise
    palette: tuple[Colour, ...] = ()  # dark to light, for colours="map"
    amount: float = 0.0  # hue turn (0..1) or levels of posterise
    paper: Colour = WHITE
    paper2: Colour | None = None  # second colour of the paper
    paper_kind: str = "plain"  # plain | down | radial | stripes | dots | checks | clouds
    line: str = "none"  # none | outline | edges
    ink: Colour = (20, 20, 20)
    line_width: int = 1
    blur: str = "none"  # none | soft | oil | pixels | ripple
    blur_size: int = 2
    texture: str = "none"  # none | canvas | grain | halftone | hatch | scanlines
    texture_size: float = 0.0

    def draw(self, drawing: np.ndarray) -> np.ndarray:
        """Redraw one RGBA drawing (H, W, 4 uint8) as an RGB picture of the same size."""
        alpha = drawing[..., 3:].astype(np.float32) / 255
        own = drawing[..., :3].astype(np.float32)
        paper = _paper(self, own.shape[:2])
        if self.line == "edges":
            picture = _edges(self, own, alpha, paper)
        else:
            picture = self.recolour(own) * alpha + paper * (1 - alpha)
            if self.line == "outline":
                rim = _rim(alpha[..., 0], self.line_width)[..., None]
                picture = picture * (1 - rim) + np.array(self.ink, np.float32) * rim
        picture = _texture(self, _blur(self, picture))
        return np.clip(picture, 0, 255).astype(np.uint8)

    def recolour(self, rgb: np.ndarray) -> np.ndarray:
        """Colours (H, W, 3 float32, 0..255) as this look has them."""
        if self.colours == "own":
            return rgb
        light = luminance(rgb)
        if self.colours == "map":
            stops = np.array(self.palette, np.float32)
            where = np.linspace(0, 255, len(stops))
            return np.stack([np.interp(light, where, stops[:, c]) for c in range(3)], -1)
        if self.colours == "gray":
            return np.repeat(light[..., None], 3, -1)
        if self.colours == "invert":
            return 255 - rgb
        if self.colours == "posterise":
            step = 255 / max(self.amount, 1)
            return np.round(rgb / step) * step
        if self.colours == "hue":
            # A turn about the gray axis; unlike a turn in HSV it keeps neighbouring colours neighbours.
            angle = self.amount * 2 * np.pi
            cos, third, root = np.cos(angle), (1 - np.cos(angle)) / 3, np.sqrt(1 / 3) * np.sin(angle)
            turn = np.array(
                [
                    [cos + third, third - root, third + root],
                    [third + root, cos + third, third - root],
                    [third - root, third + root, cos + third],
                ],
                np.float32,
            )
            return np.clip(rgb @ turn.T, 0, 255)
        raise ValueError(f"unknown colours {self.colours!r}")


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Brightness of colours, in their own unit."""
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def _paper(look: Look, size: tuple[int, int]) -> np.ndarray:
    first, second = np.array(look.paper, np.float32), np.array(look.paper2 or look.paper, np.float32)
    part = _second_colour(look, *size)[..., None]
    return first * (1 - part) + second * part


def _second_colour(look: Look, high: int, wide: int) -> np.ndarray:
    """How much of the paper's second colour is where, 0..1."""
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    unit = high / 128
    if look.paper_kind == "plain":
        return np.zeros((high, wide), np.float32)
    if look.paper_kind == "down":
        return y / high
    if look.paper_kind == "radial":
        return np.clip(np.hypot(x - wide / 2, y - high / 2) / (0.7 * high), 0, 1)
    if look.paper_kind == "stripes":
        return ((x + y) // (8 * unit) % 2).astype(np.float32)
    if look.paper_kind == "dots":
        return (np.hypot(x % (16 * unit) - 8 * unit, y % (16 * unit) - 8 * unit) < 4 * unit).astype(np.float32)
    if look.paper_kind == "checks":
        return ((x // (16 * unit) + y // (16 * unit)) % 2).astype(np.float32)
    if look.paper_kind == "clouds":
        coarse = np.random.default_rng(zlib.crc32(look.name.encode())).random((7, 7)) * 255
        cloud = Image.fromarray(coarse.astype(np.uint8)).resize((wide, high), Image.Resampling.BICUBIC)
        return np.asarray(cloud, np.float32) / 255
    raise ValueError(f"unknown paper {look.paper_kind!r}")


def _filtered(plane: np.ndarray, filters: list[ImageFilter.Filter]) -> np.ndarray:
    picture = Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))
    for item in filters:
        picture = picture.filter(item)
    return np.asarray(picture, np.float32)


def _rim(alpha: np.ndarray, width: int) -> np.ndarray:
    """The band around a silhouette, 0..1."""
    return _filtered(alpha * 255, [ImageFilter.MaxFilter(2 * width + 1)]) / 255 - alpha


def _edges(look: Look, own: np.ndarray, alpha: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """A line drawing: where colour or silhouette changes, ink; elsewhere paper."""
    planes = np.concatenate([own * alpha + 255 * (1 - alpha), alpha * 255], -1)
    strength = np.zeros(alpha.shape[:2], np.float32)
    for c in range(planes.shape[-1]):
        down, across = np.gradient(planes[..., c])
        strength = np.maximum(strength, np.hypot(down, across))
    ink = np.clip((strength - 12) / 40, 0, 1) * 255
    if look.line_width > 1:
        ink = _filtered(ink, [ImageFilter.MaxFilter(3)])
    ink = ink[..., None] / 255
    return paper * (1 - ink) + np.array(look.ink, np.float32) * ink


def _blur(look: Look, picture: np.ndarray) -> np.ndarray:
    if look.blur == "none":
        return picture
    high, wide = picture.shape[:2]
    if look.blur == "soft":
        return _filtered(picture, [ImageFilter.GaussianBlur(look.blur_size)])
    if look.blur == "oil":
        return _filtered(picture, [ImageFilter.ModeFilter(2 * look.blur_size + 1), ImageFilter.SMOOTH()])
    if look.blur == "pixels":
        small = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        small = small.resize((wide // look.blur_size, high // look.blur_size), Image.Resampling.BOX)
        return np.asarray(small.resize((wide, high), Image.Resampling.NEAREST), np.float32)
    if look.blur == "ripple":
        y, x = np.mgrid[0:high, 0:wide]
        dy = np.round(look.blur_size * np.sin(x / 5.0)).astype(int)
        dx = np.round(look.blur_size * np.sin(y / 4.0)).astype(int)
        return picture[np.clip(y + dy, 0, high - 1), np.clip(x + dx, 0, wide - 1)]
    raise ValueError(f"unknown blur {look.blur!r}")


def _texture(look: Look, picture: np.ndarray) -> np.ndarray:
    if look.texture == "none":
        return picture
    high, wide = picture.shape[:2]
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    size, ink = look.texture_size, np.array(look.ink, np.float32)
    if look.texture == "canvas":
        weave = 14 * (np.sin(x * np.pi / 2) + np.sin(y * np.pi / 2))
        return picture + weave[..., None] * size
    if look.texture == "grain":
        noise = np.random.default_rng(zlib.crc32(look.name.encode())).normal(0, 22, (high // 2, wide // 2))
        return picture + np.kron(noise, np.ones((2, 2)))[..., None] * size
    if look.texture == "scanlines":
        return picture * np.where((y // 2) % max(size, 2) < 1, 0.55, 1.0)[..., None]
    dark = 1 - luminance(picture) / 255
    light_paper = np.array(look.paper, np.float32)
    if look.texture == "halftone":
        u, v = (x + y) * 0.7071, (x - y) * 0.7071
        spot = np.hypot(u % size - size / 2, v % size - size / 2) / size
        part = np.clip((np.sqrt(dark) * 0.75 - spot) * size + 0.5, 0, 1)
    elif look.texture == "hatch":
        one = np.abs(((x + y) % size) / size - 0.5) * 2
        two = np.abs(((x - y) % size) / size - 0.5) * 2
        part = np.maximum(
            np.clip((dark * 1.1 - one) * size / 1.5, 0, 1), np.clip((dark * 1.3 - 0.65 - two) * size, 0, 1)
        )
    else:
        raise ValueError(f"unknown texture {look.texture!r}")
    return light_paper * (1 - part[..., None]) + ink * part[..., None]
