"""Names of all scripts on sheets: in a font that has them, spelled where there is none, and never as boxes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tasks.figures import lettering
from tasks.figures.grid import Grid

CYRILLIC, ARABIC = "сова", "القط"


def drawn(text: str) -> np.ndarray:
    image = Image.new("L", (200, 30), 255)
    lettering.write(ImageDraw.Draw(image), (2, 2), text, 12, 0)
    return np.asarray(image)


def forget() -> None:
    for cached in (lettering._font_for, lettering._files_for, lettering._wide_files):
        cached.cache_clear()


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without fontconfig, whose folder of fonts is empty."""
    forget()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(lettering, "FOLDERS", (str(tmp_path),))
    yield tmp_path
    forget()


@pytest.fixture(scope="session")
def wide_font() -> str:
    """The file of a font of this machine with Cyrillic and Arabic letters."""
    forget()
    found = lettering._font_for("".join(sorted(set(CYRILLIC + ARABIC))), 12)
    if found is None:
        pytest.skip("this machine has no font with Cyrillic and Arabic letters")
    return str(found.path)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("りんご", "ringo"),
        ("сова", "sova"),
        ("夜の絵", "Ye noHui"),
        ("Wave 🎨", "Wave (artist palette)"),
        ("가을", "gaeul"),
        ("\ue000", "(unknown sign)"),
        ("Café", "Café"),
    ],
)
def test_what_no_font_has_is_spelled(no_fonts: Path, name: str, spelled: str) -> None:
    assert np.array_equal(drawn(name), drawn(spelled)) and drawn(name).min() == 0


@pytest.mark.parametrize("name", [CYRILLIC, ARABIC, "Ελλάδα", f"{ARABIC} {CYRILLIC}"])
def test_letters_are_drawn_in_a_font_that_has_them(wide_font: str, name: str) -> None:
    runs = lettering._runs(name, 12)
    assert [text for text, _ in runs] == [name], "one font for the whole line, so that its letters are joined"
    assert all(lettering._has_all(font, text) for text, font in runs)
    boxes = np.asarray(lettering._own(12).getmask(name))
    assert boxes.size and not np.array_equal(drawn(name), drawn(lettering._spelled(name)))


def test_without_fontconfig_wide_fonts_are_found_in_the_usual_folders(wide_font: str, no_fonts: Path) -> None:
    (no_fonts / "truetype").mkdir()
    shutil.copy(wide_font, no_fonts / "truetype" / "DejaVuSans.ttf")
    (no_fonts / "NotoSans-Regular.ttf").write_bytes(b"no font")
    forget()
    ((text, font),) = lettering._runs(CYRILLIC, 12)
    assert text == CYRILLIC and Path(str(font.path)).parent.name == "truetype"


@pytest.mark.parametrize("name", ["W" * 60, "i" * 200, "りんご" * 30, "сова " * 30, "🎨" * 9])
def test_a_label_ends_where_its_cell_does(name: str) -> None:
    grid = Grid(2, 1)
    grid.write_under(0, 0, name)
    (left, top), (right, _) = grid.corner(0, 0), grid.corner(1, 0)
    label = np.asarray(grid.image.convert("L"))[top + 160 :]
    assert label[:, left:right].min() < 100 and (label[:, right:] == 255).all()


@pytest.mark.parametrize("text", ["words that are many " * 9, "漢字" * 300, "Слово " * 3, "x" * 5000, "a b"])
def test_a_text_in_a_cell_stays_in_it(text: str) -> None:
    lines = lettering.wrapped(text, 144, 8, 12)
    assert 0 < len(lines) <= 8 and all(lettering.width(line, 12) <= 144 for line in lines)
    assert "".join(lines).replace("…", "").replace(" ", "") in text.replace(" ", "")
    assert (lines[-1] == "…") == (len(text) > 100)
