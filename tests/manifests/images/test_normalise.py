"""Every row of the table in `manifests.images.normalise` that ends in a picture, on real files made here."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from manifests.images.normalise import MAX_SIDE_PX, MIN_SIDE_PX, normalise
from tests.manifests.images.made import (
    FORMATS,
    big_endian_tiff,
    encode,
    patch,
    picture,
    pixels,
    png_chunk,
    refusal,
)

# What is taken as it is


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP"])
def test_lossless_files_of_one_picture_are_one_image(kind: str) -> None:
    result = normalise(encode(picture(), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(pixels(result), np.asarray(picture()))
    assert result.notes == ()
    assert result.image_id == normalise(encode(picture(), "PNG", compress_level=1)).image_id


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_lossy_files_come_close(kind: str) -> None:
    result = normalise(encode(picture(), kind))
    assert np.abs(pixels(result).astype(int) - np.asarray(picture())).mean() < 12
    assert result.notes == ()


@pytest.mark.parametrize("kind", FORMATS)
def test_normalising_again_changes_nothing(kind: str) -> None:
    once = normalise(encode(picture(300, 40), kind), max_side_px=200)
    again = normalise(once.png, max_side_px=200)
    assert (again.image_id, again.png, again.notes) == (once.image_id, once.png, ())


def test_another_pixel_is_another_image() -> None:
    other = picture()
    other.putpixel((5, 5), (1, 2, 3))
    assert normalise(encode(other)).image_id != normalise(encode(picture())).image_id


def test_transposed_size_is_another_image() -> None:
    striped = Image.new("RGB", (20, 40), "red")
    striped.paste("blue", (0, 0, 20, 16))  # as many blue pixels first, however the others lie
    other = Image.new("RGB", (40, 20), "red")
    other.paste("blue", (0, 0, 40, 8))
    assert striped.tobytes() == other.tobytes()
    assert normalise(encode(striped)).image_id != normalise(encode(other)).image_id


# Size


def test_a_long_side_is_reduced_to_fit_and_noted() -> None:
    result = normalise(encode(picture(20_000, 400), "JPEG"))
    assert (result.width_px, result.height_px) == (MAX_SIDE_PX, 41)
    assert result.notes == ("reduced from 20000 x 400 px to 2048 x 41 px",)
    assert pixels(result)[20, -1, 0] > 240 > 15 > pixels(result)[20, 0, 0]


def test_a_small_picture_is_never_enlarged() -> None:
    assert normalise(encode(picture(17, 18)), max_side_px=4096).width_px == 17


@pytest.mark.parametrize(("width", "height"), [(MIN_SIDE_PX - 1, 40), (1, 1), (3_000, 20)])
def test_too_small_pictures_are_refused(width: int, height: int) -> None:
    assert refusal(encode(picture(width, height))).what == "picture too small"


def test_a_senseless_limit_is_the_callers_fault() -> None:
    with pytest.raises(ValueError, match="max_side_px"):
        normalise(encode(picture()), max_side_px=MIN_SIDE_PX - 1)


# Colour


def test_cmyk_jpeg_becomes_rgb() -> None:
    result = normalise(encode(picture().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels(result).astype(int) - np.asarray(picture())).mean() < 12
    assert result.notes == ("CMYK without a colour profile converted to RGB",)


def test_sixteen_bit_grey_keeps_the_high_byte() -> None:
    ramp = np.linspace(0, 65_535, 32 * 32).astype(np.uint16).reshape(32, 32)
    for data in (encode(Image.fromarray(ramp), "PNG"), encode(Image.fromarray(ramp), "TIFF"), big_endian_tiff(ramp)):
        result = normalise(data)
        assert np.array_equal(pixels(result), np.repeat((ramp >> 8)[..., None], 3, axis=-1))
        assert result.notes == ("16 bits a channel reduced to 8",)


def test_sixteen_bit_rgb_keeps_the_high_byte() -> None:
    deep = np.asarray(picture()).astype(np.uint16) * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 48, 32, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows))
    for data in (png + png_chunk(b"IEND", b""), big_endian_tiff(deep)):
        result = normalise(data)
        assert np.array_equal(pixels(result), np.asarray(picture()))
        assert result.notes == ("16 bits a channel reduced to 8",)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours_become_rgb_without_a_note(mode: str) -> None:
    source = picture().convert(mode)
    result = normalise(encode(source))
    assert np.array_equal(pixels(result), np.asarray(source.convert("RGB")))
    assert result.notes == ()


# Orientation and metadata


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "taken at home"
    return exif


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    upright = np.asarray(picture())
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(kind, {})
    result = normalise(encode(stored, kind, exif=_exif(orientation), **options))
    assert (result.width_px, result.height_px) == (48, 32)
    assert np.abs(pixels(result).astype(int) - upright).max() <= (12 if kind == "JPEG" else 0)
    assert bool(result.notes) == (orientation != 1)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_senseless_orientations_are_ignored(orientation: int) -> None:
    assert normalise(encode(picture(), exif=_exif(orientation))).notes == ()


def test_damaged_exif_costs_only_the_orientation() -> None:
    for body in (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0garbage here"):
        data = encode(picture(), "JPEG")
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        assert normalise(data[:2] + segment + data[2:]).width_px == 48


def test_metadata_does_not_survive() -> None:
    info = PngInfo()
    info.add_text("place", "my home address")
    result = normalise(encode(picture(), pnginfo=info, exif=_exif(1), dpi=(300, 300)))
    pixels(result)  # asserts that pixels are all the PNG holds
    assert result.image_id == normalise(encode(picture())).image_id


# Several frames


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [patch(colour) for colour in ("red", "green", "blue")]
    result = normalise(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(pixels(result)[:16].astype(int) - (255, 0, 0)).max() <= 12
    several = "animation or several pictures in one file: the first one taken"
    assert result.notes == ("page 1 of 3 taken" if kind == "TIFF" else several,)


def test_of_a_multi_picture_jpeg_the_first_is_taken() -> None:
    frames = [patch(colour) for colour in ("red", "blue")]
    result = normalise(encode(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert pixels(result)[8, 8, 0] > 240 and len(result.notes) == 1


def test_a_damaged_second_frame_does_not_matter() -> None:
    frames = [Image.effect_noise((64, 64), 90), Image.effect_noise((64, 64), 90)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first = encode(frames[0], "GIF")
    assert normalise(data[: len(first) + 200]).image_id == normalise(data).image_id


def test_frames_in_a_circle_do_not_hang() -> None:
    data = bytearray(encode(picture(), "TIFF"))
    at = struct.unpack("<I", data[4:8])[0]
    entries = struct.unpack("<H", data[at : at + 2])[0]
    data[at + 2 + 12 * entries : at + 6 + 12 * entries] = struct.pack("<I", at)  # the next directory is this one
    assert normalise(bytes(data)).width_px == 48
