"""Untrusted files: bombs, other kinds of files and any damage end in one `ImageError`."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from manifests.errors import ImageError
from manifests.images.decode import MAX_JPEG_SCANS
from manifests.images.file_kind import kind_of
from manifests.images.normalise import MAX_SIDE_PX, normalise
from tests.manifests.images.made import (
    FORMATS,
    encode,
    picture,
    pixels,
    png_claiming,
    refusal,
)

# Beyond the limits


def test_twenty_thousand_square_is_refused_before_decoding() -> None:
    assert "400,000,000 pixels" in refusal(png_claiming(20_000, 20_000)).received


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_193, 9_500, 13_000])
def test_sizes_on_all_sides_of_pillows_own_limits_are_refused(side: int) -> None:
    error = refusal(png_claiming(side, side))
    assert error.what == "picture too large" and "px" in error.received + error.accepted


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_also_where_warnings_are_errors() -> None:
    assert refusal(png_claiming(12_000, 12_000)).what == "picture too large"


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "TIFF"])
def test_a_real_decompression_bomb_is_refused(kind: str) -> None:
    options = {"TIFF": {"compression": "tiff_lzw"}, "WEBP": {"lossless": True, "method": 0}}.get(kind, {})
    bomb = encode(Image.new("RGB" if kind == "WEBP" else "L", (9_000, 9_000)), kind, **options)
    assert len(bomb) < 600_000
    assert "9,000 x 9,000" in refusal(bomb).received


def test_more_bytes_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(picture())
    monkeypatch.setattr("manifests.images.decode.MAX_FILE_BYTES", len(data) - 1)
    assert refusal(data).what == "picture file too large"
    monkeypatch.setattr("manifests.images.decode.MAX_FILE_BYTES", len(data))
    assert normalise(data).width_px == 48


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encode(picture(), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    bomb = data[:start] + data[start:-2] * (MAX_JPEG_SCANS + 1) + data[-2:]
    assert refusal(bomb).what == "JPEG with too many scans"
    assert normalise(data).notes == ()


def test_text_chunk_bombs_are_refused() -> None:
    info = PngInfo()
    info.add_text("bomb", "x" * 50_000_000, zip=True)
    data = encode(picture(), pnginfo=info)
    assert len(data) < 100_000
    refusal(data)


def test_floating_point_and_32_bit_pixels_are_refused() -> None:
    for mode in ("F", "I"):
        assert refusal(encode(Image.new(mode, (32, 32)), "TIFF")).what == "unsupported kind of pixels"


# Files that are no pictures


def test_zero_bytes_are_refused() -> None:
    assert refusal(b"").received == "0 bytes"


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_refused_and_named(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encode(noise, kind)
    for share in (0.1, 0.5, 0.9):
        error = refusal(data[: int(len(data) * share)])
        assert error.received.upper().startswith(f"A CUT-OFF OR DAMAGED {kind}"), error
    assert " object at 0x" not in refusal(data[:16]).received


@pytest.mark.parametrize(
    ("data", "named", "advice"),
    [
        (b"<!DOCTYPE html><html>404</html>", "HTML", "save the picture itself"),
        (b"\xef\xbb\xbf\n<!-- saved from -->\n<HTML lang=en>", "HTML", "save the picture itself"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "XML", "save the picture itself"),
        (b"<?xml version='1.0'?><!-- drawn --><svg/>", "SVG", "export it as PNG"),
        (b"<!DOCTYPE svg PUBLIC 'x'><svg width='3'/>", "SVG", "export it as PNG"),
        (b"%PDF-1.7", "PDF", "export it as PNG"),
        (b"8BPS\0\1", "Photoshop", "export it as PNG"),
        (b"gimp xcf v011", "GIMP", "export it as PNG"),
        (b"PK\3\4" + bytes(26) + b"mimetypeapplication/x-krita", "Krita", "export it as PNG"),
        (b"PK\3\4", "ZIP", "unpack it"),
        (b"\0\0\0\x18ftypheic\0\0", "HEIC", "export it as PNG or JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0", "HEIC", "export it as PNG or JPEG"),
        (b"\0\0\0\x18ftypavif\0\0", "AVIF", "export it as PNG or JPEG"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL", "export it as PNG or JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "export it as PNG or JPEG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "export it as PNG or JPEG"),
        (b"\xff\x4f\xff\x51\0", "JPEG 2000", "export it as PNG or JPEG"),
        (b"\x76\x2f\x31\x01", "OpenEXR", "export it as PNG or JPEG"),
        (b"P6\n# made\n3 3", "portable anymap", "export it as PNG or JPEG"),
        (b"\0\0\0\x18ftypisom\0\0", "video", "ffmpeg"),
        (b"\0\0\0\x14ftypqt  ", "video", "ffmpeg"),
        (b"\x1a\x45\xdf\xa3", "video", "ffmpeg"),
        (b"RIFF\0\0\0\0AVI LIST", "video", "ffmpeg"),
        (b"\0\0\0\x18ftypcrx \0\0", "camera raw (CR3)", "develop it"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw (RAF)", "develop it"),
        (b"IIRO\x08\0\0\0", "camera raw (ORF)", "develop it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer", "git lfs pull"),
        (b"../../.git/annex/objects/Xx/9q/SHA256E-s1.png", "git-annex pointer", "git annex get"),
        (b"just some text", "no picture", "check that this is the file"),
        (b"The free bird, in a wide sky", "no picture", "check that this is the file"),
        (b"\0" * 100, "no picture", "check that this is the file"),
    ],
)
def test_other_files_are_refused_named_and_answered(data: bytes, named: str, advice: str) -> None:
    error = refusal(data)
    assert named in error.received and advice in error.hint


def test_kinds_are_told_at_once_whatever_the_bytes() -> None:
    began = time.process_time()
    for data in (b"<!---->" * 80, b"<!doctype svg" * 80, b" " * 600, b"<?xml" * 200):
        kind_of(data)
    assert time.process_time() - began < 1


def test_formats_outside_the_list_stay_shut() -> None:
    for kind in ("ICO", "PPM", "TGA", "PCX", "JPEG2000", "AVIF"):
        refusal(encode(picture(), kind))


_SEEDS = {kind: encode(picture(), kind) for kind in FORMATS}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=12),
    cut=st.one_of(st.none(), st.integers(0, 2**16)),
)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_ends_in_a_picture_or_an_image_error(
    kind: str, edits: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(_SEEDS[kind])
    for at, value in edits:
        data[at % len(data)] = value
    try:
        result = normalise(bytes(data if cut is None else data[: cut % len(data)]))
    except ImageError as error:
        assert " object at 0x" not in str(error)
        return
    assert max(result.width_px, result.height_px) <= MAX_SIDE_PX
    pixels(result)
