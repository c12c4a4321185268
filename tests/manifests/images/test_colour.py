"""Colours by what files say of them, on the profiles of real cameras and programs, and on made ones."""

from __future__ import annotations

import io
import struct
from importlib import resources

import numpy as np
import pytest
from PIL import Image, ImageCms

from manifests.images.normalise import normalise
from tests.manifests.images.made import encode, picture, pixels, png_chunk, png_chunk_offsets

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def real(name: str) -> tuple[bytes, bytes]:
    """A picture of scikit-image, and the profile in it."""
    data = (resources.files("skimage.data") / name).read_bytes()
    return data, Image.open(io.BytesIO(data)).info["icc_profile"]


def cmyk_profile(ink: float) -> bytes:
    """An ICC profile of a press: each ink takes so much of the light, all alike (two levels an ink, no more)."""
    corners = [100 * np.prod([1 - ink * on for on in (c, m, y, k)]) for c in (0, 1) for m in (0, 1) for y in (0, 1)
               for k in (0, 1)]  # fmt: skip
    table = bytes(value for light in corners for value in (round(light * 2.55), 128, 128))
    ramp = bytes(range(256))
    lut = b"mft1" + struct.pack(">IBBBx", 0, 4, 3, 2) + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut += ramp * 4 + table + ramp * 3
    white = b"XYZ " + struct.pack(">I3i", 0, 63190, 65536, 54061)
    places = b"A2B0" + struct.pack(">II", 156, len(lut)) + b"wtpt" + struct.pack(">II", 156 + len(lut), 20)
    size = 156 + len(lut) + len(white)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp") + b"\0" * 28
    return head + struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48 + struct.pack(">I", 2) + places + lut + white


def with_chunks(*chunks: bytes) -> bytes:
    """A PNG of `picture` with further chunks behind its header."""
    data = encode(picture())
    end = png_chunk_offsets(data)[1]
    return data[:end] + b"".join(chunks) + data[end:]


@pytest.mark.parametrize("profile", [SRGB, real("astronaut.png")[1]], ids=["lcms", "HP"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_profiles_that_mean_srgb_change_no_pixel(kind: str, profile: bytes) -> None:
    result = normalise(encode(picture(), kind, icc_profile=profile))
    assert (result.notes, result.image_id) == ((), normalise(encode(picture(), kind)).image_id)


def test_what_a_profile_calls_itself_proves_nothing() -> None:
    """Those of Apple's screens and of linear light have "sRGB" in their names or texts."""
    adobe = real("rocket.jpg")[1].replace(b"Adobe RGB (1998)", b"sRGB IEC61966   ")
    result = normalise(encode(picture(), icc_profile=adobe))
    assert result.notes == ("colour profile 'sRGB IEC61966' converted to sRGB",)
    assert np.abs(pixels(result).astype(int) - np.asarray(picture())).max() > 20


@pytest.mark.parametrize("name", ["rocket.jpg", "color.png", "page.png"])
def test_other_profiles_are_converted_as_colour_science_has_it(name: str) -> None:
    data, profile = real(name)
    opened = Image.open(io.BytesIO(data))
    wanted = ImageCms.profileToProfile(
        opened, io.BytesIO(profile), ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )  # fmt: skip
    result = normalise(data)
    assert np.array_equal(pixels(result), np.asarray(wanted))
    assert np.abs(pixels(result).astype(int) - np.asarray(opened.convert("RGB"))).max() > 10
    (note,) = result.notes
    assert note.startswith("colour profile '") and note.endswith("' converted to sRGB")
    assert normalise(result.png).notes == ()


def test_grey_pixels_may_have_a_profile_of_colours_or_of_grey() -> None:
    grey = picture().convert("L")
    assert normalise(encode(grey, icc_profile=SRGB)).image_id == normalise(encode(grey)).image_id
    clear = Image.merge("LA", [grey, Image.new("L", grey.size, 255)])
    clear.putpixel((0, 0), (0, 0))
    dotted = real("page.png")[1]
    one, other = (
        pixels(normalise(encode(grey, icc_profile=dotted))),
        pixels(normalise(encode(clear, icc_profile=dotted))),
    )
    assert np.array_equal(one.reshape(-1, 3)[1:], other.reshape(-1, 3)[1:]) and (other[0, 0] == 255).all()
    assert (one[..., 0] == one[..., 2]).all() and np.abs(one[..., 0].astype(int) - np.asarray(grey)).max() > 10


def test_transparency_stays_while_colours_are_converted() -> None:
    clear = picture().convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 24, 32))
    result = normalise(encode(clear, icc_profile=real("rocket.jpg")[1]))
    assert (pixels(result)[:, :24] == 255).all() and len(result.notes) == 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile(kind: str) -> None:
    inks = picture().convert("CMYK")
    light, dark = (pixels(normalise(encode(inks, kind, icc_profile=cmyk_profile(ink)))) for ink in (0.3, 0.9))
    assert light.mean() > dark.mean() + 40
    assert np.ptp(light.astype(int), axis=-1).max() <= 6, "its inks are grey"
    (note,) = normalise(encode(inks, kind, icc_profile=cmyk_profile(0.5))).notes
    assert note.startswith("colour profile") and "converted to sRGB" in note


def test_cielab_is_converted() -> None:
    from skimage.color import lab2rgb

    lab = Image.new("LAB", (32, 32), (150, 128 + 40, 128 - 30))
    lab.paste((90, 120, 160), (0, 0, 16, 32))
    result = normalise(encode(lab, "TIFF"))
    wanted = 255 * lab2rgb(np.array([[[90 / 2.55, 120 - 128, 160 - 128], [150 / 2.55, 40, -30]]]))[0]
    assert np.abs(pixels(result)[5, [5, 25]] - wanted).max() < 6  # they adapt to another white, and in another way
    assert result.notes == ("CIELAB converted to sRGB",)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (b"no profile at all", "damaged"),
        (SRGB[:200], "damaged"),
        (SRGB[:128] + b"\xff" * 400, "damaged"),
        (LAB, "is for Lab"),
        (cmyk_profile(0.5), "is for CMYK"),
        (real("page.png")[1], "is for GRAY"),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_profiles_of_no_use_are_told_and_change_no_pixel(kind: str, profile: bytes, words: str) -> None:
    result = normalise(encode(picture(), kind, icc_profile=profile))
    (note,) = result.notes
    assert words in note and "ignored" in note
    assert result.image_id == normalise(encode(picture(), kind)).image_id


def test_a_profile_that_does_not_unpack_is_told() -> None:
    result = normalise(with_chunks(png_chunk(b"iCCP", b"name\0\0not deflated")))
    assert (
        "cannot be read and was ignored" in result.notes[0] and result.image_id == normalise(encode(picture())).image_id
    )


def gama(value: int) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", value))


def chrm(*corners: float) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * corner) for corner in corners)))


SRGB_CORNERS = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
P3_CORNERS = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(45455)],
        [gama(45455), chrm(*SRGB_CORNERS)],
        [gama(100_000), png_chunk(b"sRGB", b"\0")],
    ],
)
def test_the_usual_gamma_of_a_png_changes_nothing(chunks: list[bytes]) -> None:
    result = normalise(with_chunks(*chunks))
    assert (result.notes, result.image_id) == ((), normalise(encode(picture())).image_id)


def test_linear_light_in_a_png_becomes_srgb() -> None:
    result = normalise(with_chunks(gama(100_000)))
    light = np.asarray(picture()) / 255
    wanted = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(pixels(result) - wanted).max() <= 1
    assert result.notes == ("gamma of 1/1 that the PNG tells of converted to sRGB",)


def test_primaries_of_a_png_count() -> None:
    wide = Image.new("RGB", (32, 32), (200, 60, 60))
    wide.paste((60, 60, 60), (0, 0, 16, 32))
    data = encode(wide)
    end = png_chunk_offsets(data)[1]
    result = normalise(data[:end] + gama(45455) + chrm(*P3_CORNERS) + data[end:])
    red, grey = pixels(result)[5, 25].astype(int), pixels(result)[5, 5].astype(int)
    assert red[0] > 210 and red[1] < 55 and np.ptp(grey) <= 1 and "primaries" in result.notes[0]


@pytest.mark.parametrize("chunks", [[gama(1)], [gama(45455), chrm(*[0.0] * 8)], [gama(45455), chrm(*[0.3] * 8)]])
def test_senseless_gamma_and_primaries_are_told(chunks: list[bytes]) -> None:
    result = normalise(with_chunks(*chunks))
    assert "make no sense" in result.notes[0] and result.image_id == normalise(encode(picture())).image_id


def test_adobe_rgb_of_cameras_which_embed_no_profile() -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    data = encode(picture(), "JPEG", quality=98, exif=exif)
    result, plain = normalise(data), normalise(encode(picture(), "JPEG", quality=98))
    assert result.notes == ("Adobe RGB of its EXIF converted to sRGB",)
    by_profile = normalise(encode(picture(), "JPEG", quality=98, icc_profile=real("rocket.jpg")[1]))
    assert np.abs(pixels(result).astype(int) - pixels(by_profile)).max() <= 2
    assert np.abs(pixels(result).astype(int) - pixels(plain)).max() > 20
    exif[0x8769] = {0xA001: 1, 0xA005: {1: "R98"}}
    assert normalise(encode(picture(), "JPEG", quality=98, exif=exif)).image_id == plain.image_id
