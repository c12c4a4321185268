"""Transparency is laid on white, whatever form it has; what then shows nothing is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from manifests.images.normalise import normalise
from tests.manifests.images.made import encode, picture, pixels, refusal


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(kind: str) -> None:
    source = picture().convert("RGBA")
    source.putalpha(Image.fromarray(np.repeat([[0, 128, 255]], 32, axis=0).repeat(16, axis=1).astype(np.uint8)))
    result = normalise(encode(source, kind, **({"lossless": True} if kind == "WEBP" else {})))
    array, original = pixels(result).astype(int), np.asarray(picture()).astype(int)
    assert (array[:, :16] == 255).all()
    assert np.abs(array[:, 16:32] - (original[:, 16:32] * 128 + 255 * 127) / 255).max() <= 2
    assert np.array_equal(array[:, 32:], original[:, 32:])
    assert result.notes == ("transparency laid on white",)


def test_hidden_colours_do_not_bleed_when_reduced() -> None:
    source = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    source.paste((255, 0, 0, 255), (0, 0, 200, 400))
    array = pixels(normalise(encode(source), max_side_px=50))
    assert array[:, :, 0].min() == 255, "black from behind full transparency shows"


@pytest.mark.parametrize("mode", ["LA", "P", "L", "RGB"])
def test_every_form_of_transparency_is_laid_on_white(mode: str) -> None:
    clear = Image.new("L", (32, 32), 0)
    clear.paste(255, (0, 0, 16, 32))
    if mode == "LA":
        data = encode(Image.merge("LA", [Image.new("L", (32, 32), 0), clear]))
    else:
        key: object = (9, 9, 9) if mode == "RGB" else 9
        drawn = Image.new(mode, (32, 32), key)
        drawn.paste((0, 0, 0) if mode == "RGB" else 0, (0, 0, 16, 32))
        if mode == "P":
            drawn.putpalette([0] * 30)
        data = encode(drawn, transparency=key)
    result = normalise(data)
    assert (pixels(result)[:, 16:] == 255).all() and (pixels(result)[:, :16] < 10).all()
    assert result.notes == ("transparency laid on white",)


def test_a_transparent_gif_is_laid_on_white() -> None:
    source = Image.new("P", (32, 32), 0)
    source.putpalette([10, 20, 30, 200, 100, 50])
    source.paste(1, (0, 0, 16, 32))
    array = pixels(normalise(encode(source, "GIF", transparency=0)))
    assert (array[:, 16:] == 255).all() and (array[:, :16] == (200, 100, 50)).all()


def test_opaque_alpha_is_not_worth_a_note() -> None:
    result = normalise(encode(picture().convert("RGBA")))
    assert np.array_equal(pixels(result), np.asarray(picture())) and result.notes == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_picture_of_one_colour_is_refused(kind: str) -> None:
    error = refusal(encode(Image.new("RGB", (40, 30), (250, 250, 250)), kind))
    assert error.what == "picture of one colour" and "40 x 30 px, all #fafafa" in error.received
    faint = Image.new("RGB", (40, 30), (250, 250, 250))
    faint.paste((246, 250, 250), (0, 0, 20, 30))
    assert normalise(encode(faint)).width_px == 40


@pytest.mark.parametrize("drawn", ["RGBA", "LA", "P"])
def test_a_white_drawing_on_transparency_is_refused_with_what_to_do(drawn: str) -> None:
    line = Image.new("L", (64, 64), 0)
    line.paste(255, (20, 10, 30, 60))
    white = Image.merge("LA", [Image.new("L", (64, 64), 255), line])
    data = encode(line.convert("P"), transparency=0) if drawn == "P" else encode(white.convert(drawn))
    error = refusal(data)
    assert "all #ffffff once it is laid on white" in error.received and "ground of another colour" in error.hint
