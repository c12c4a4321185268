"""Texts of all scripts on sheets of pictures: written in a font of this machine that has their letters.

The font that Pillow carries has Latin letters alone. For others fontconfig is asked (`fc-list`); without it, files of
wide fonts are looked for in the usual folders. What no font has is spelled in Latin letters, and a symbol by its name:
a box in the place of a letter tells nothing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import ImageDraw, ImageFont
from text_unidecode import unidecode

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/System/Library/Fonts",
           "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts")  # fmt: skip
"""Where fonts lie on Linux, macOS and Windows."""

WIDE = ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "segoeui.ttf",
        "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "YuGothM.ttc", "msgothic.ttc", "msyh.ttc", "malgun.ttf",
        "DroidSansFallbackFull.ttf", "wqy-zenhei.ttc", "ipag.ttf", "FreeSans.ttf", "unifont.otf", "unifont.ttf",
        "seguisym.ttf", "Apple Symbols.ttf", "NotoSansSymbols2-Regular.ttf")  # fmt: skip
"""Files of fonts with letters of many scripts, or of those that others lack; the first that has a letter is taken."""

_MISSING = "\uffff"  # no letter: every font draws what it draws for letters that it lacks
_SPECIAL_STYLES = ("bold", "italic", "oblique", "mono", "condensed", "black", "light", "thin", "serif", "math")
_FONTCONFIG_SECONDS = 10

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FontFile = tuple[str, int]
"""A file, and which of the fonts in it."""


def write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size_px: int, fill: tuple[int, int, int] | int
) -> None:
    """Write one line.

    Args:
        draw: what to write on.
        at: its upper left corner.
        text: the line; letters that no font has are spelled.
        size_px: of the letters.
        fill: their colour.
    """
    left, top = at
    for some, font in _runs(text, size_px):
        draw.text((left, top), some, fill=fill, font=font)
        left += font.getlength(some)


def width(text: str, size_px: int) -> float:
    """How wide a line is, in pixels."""
    return sum(font.getlength(some) for some, font in _runs(text, size_px))


def shortened(text: str, most_px: float, size_px: int) -> str:
    """A line that is at most so wide, with an ellipsis where it was cut."""
    if width(text, size_px) <= most_px:
        return text
    return text[: _fitting(text, most_px - width("…", size_px), size_px)].rstrip() + "…"


def wrapped(text: str, most_px: float, most_lines: int, size_px: int) -> list[str]:
    """A text in lines that are at most so wide; what is left after so many is an ellipsis."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if width(longer, size_px) <= most_px:
            line = longer
            continue
        if line:
            lines.append(line)
        while width(word, size_px) > most_px and len(lines) <= most_lines:  # scripts without spaces, too
            fitting = max(1, _fitting(word, most_px, size_px))
            lines.append(word[:fitting])
            word = word[fitting:]
        line = word
        if len(lines) > most_lines:
            break
    lines.append(line)
    return lines if len(lines) <= most_lines else [*lines[: most_lines - 1], "…"]


def _fitting(text: str, most_px: float, size_px: int) -> int:
    """How many of a text's first characters fit."""
    count = 0
    while count < len(text) and width(text[: count + 1], size_px) <= most_px:
        count += 1
    return count


def _runs(text: str, size_px: int) -> list[tuple[str, Font]]:
    """Pieces of a line with the font of each: one for the whole line where there is such a font."""
    own = _own(size_px)
    if _has_all(own, text):
        return [(text, own)]
    if whole := _font_for("".join(sorted(set(text))), size_px):
        return [(text, whole)]
    pieces: list[tuple[str, Font]] = []
    fonts = [own if _has_all(own, letter) else _font_for(letter, size_px) for letter in text]
    for font, some in itertools.groupby(zip(fonts, text, strict=True), key=lambda pair: pair[0]):
        piece = "".join(letter for _, letter in some)
        pieces.append((piece, font) if font else (_spelled(piece), own))
    return pieces


def _spelled(text: str) -> str:
    """A text without the letters that no font has: in Latin ones, symbols by their names."""
    spelled = []
    for letter in text:
        known = unidecode(letter).replace("[?] ", "")  # what it says of letters that it does not know
        if not known and unicodedata.category(letter) not in ("Mn", "Mc", "Me", "Cf", "Cc"):
            known = f"({unicodedata.name(letter, 'unknown sign').lower()})"
        spelled.append(known)
    return "".join(spelled).rstrip()


@lru_cache(maxsize=16)
def _own(size_px: int) -> Font:
    """The font that Pillow carries."""
    return ImageFont.load_default(size=size_px)


def _has_all(font: Font, text: str) -> bool:
    return all(_has(font, letter) for letter in set(text))


@lru_cache(maxsize=4096)
def _has(font: Font, letter: str) -> bool:
    """Whether a font has a letter: what it draws is not what it draws for those that it lacks."""
    if letter.isspace() or (letter.isascii() and letter.isprintable()):
        return True
    drawn, missing = font.getmask(letter), font.getmask(_MISSING)
    return drawn.size != (0, 0) and (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


@lru_cache(maxsize=1024)
def _font_for(letters: str, size_px: int) -> Font | None:
    """A font of this machine that has all of some letters; None where there is none."""
    for path, index in _files_for(letters):
        font = _opened(path, index, size_px)
        if font is not None and _has_all(font, letters):
            return font
    return None


@lru_cache(maxsize=64)
def _opened(path: str, index: int, size_px: int) -> Font | None:
    """A font; None where FreeType does not read it, or its letters have a fixed size, as those of emoji."""
    try:
        return ImageFont.truetype(path, size_px, index=index)
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _files_for(letters: str) -> tuple[FontFile, ...]:
    """Files of fonts that may have all of some letters, the plainest first."""
    program = shutil.which("fc-list")
    if program is None:
        return tuple((path, 0) for path in _wide_files())
    wanted = " ".join(f"{ord(letter):x}" for letter in letters if not letter.isspace())
    command = [program, "--format", "%{file}\t%{index}\t%{style}\n", f":charset={wanted}"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_FONTCONFIG_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return tuple((path, 0) for path in _wide_files())
    found = [line.split("\t") for line in told.splitlines() if line.count("\t") == 2]
    found.sort(key=lambda one: (_special(f"{Path(one[0]).stem} {one[2]}"), one))
    return tuple((path, int(index) & 0xFFFF) for path, index, _ in found)  # above that: instances of a variable font


def _special(name: str) -> int:
    """How far the name of a font is from a plain one's."""
    return sum(style in name.lower().replace("sansserif", "") for style in _SPECIAL_STYLES)


@lru_cache(maxsize=1)
def _wide_files() -> tuple[str, ...]:
    """Those of `WIDE` that are in the usual folders, in that order."""
    there = {
        name: os.path.join(where, name)
        for folder in FOLDERS
        for where, _, names in os.walk(os.path.expanduser(folder))
        for name in names
    }
    return tuple(there[name] for name in WIDE if name in there)
