"""Tell what kind of file some bytes are, from how they begin: used to explain a refusal, never to decide one."""

from __future__ import annotations

import re
from typing import Final

from manifests.images.tiff_pages import is_camera_raw

_HEAD_BYTES = 512

CAMERA_RAW: Final = "camera raw"
"""How the kinds of what cameras write before any program has made a picture of it begin."""

_EXPORT = "open it in a program that knows it and export it as PNG or JPEG"
_DEVELOP = "develop it: export it from your raw converter as JPEG, or as TIFF of 8 or 16 bits"
_FRAMES = "write its frames as pictures into a folder (ffmpeg -i FILE frames/%04d.png) and name that as frames:"
_RENDER = "it has no pixels of its own: export it as PNG, 1024 px a side or more"
_FETCH = "it stands for a picture that is not on this machine: run git lfs pull (git annex get) in its folder"
_PAGE = "save the picture itself: this is a page around it, or the answer that it is not there"
_UNPACK = "unpack it and name the picture inside"
_WRONG = "check that this is the file you mean"

# What may stand before the first element: a byte order mark, <?xml ...?>, comments, the type of an SVG document.
_PROLOGUE = rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*|<!(?i:doctype svg)[^>]*>\s*)*"

_KINDS: tuple[tuple[str, re.Pattern[bytes], str], ...] = tuple(
    (kind, re.compile(pattern, re.DOTALL), hint)
    for kind, pattern, hint in (
        ("PNG", rb"\x89PNG", ""),
        ("JPEG", rb"\xff\xd8", ""),
        ("WebP", rb"RIFF....WEBP", ""),
        (f"{CAMERA_RAW} (CR2)", rb"II\*\x00....CR", _DEVELOP),
        ("TIFF", rb"II[*+]\x00|MM\x00[*+]", ""),
        ("BMP", rb"BM.{12}[\x0c-\x7c]\x00\x00\x00", ""),
        ("GIF", rb"GIF8", ""),
        (f"{CAMERA_RAW} (CR3)", rb"....ftypcrx", _DEVELOP),
        (f"{CAMERA_RAW} (RAF)", rb"FUJIFILMCCD-RAW", _DEVELOP),
        (f"{CAMERA_RAW} (ORF)", rb"IIR[OS]|MMOR", _DEVELOP),
        (f"{CAMERA_RAW} (RW2)", rb"IIU\x00", _DEVELOP),
        (f"{CAMERA_RAW} (CRW)", rb"II.{4}HEAPCCDR", _DEVELOP),
        (f"{CAMERA_RAW} (X3F)", rb"FOVb", _DEVELOP),
        (f"{CAMERA_RAW} (MRW)", rb"\x00MRM", _DEVELOP),
        ("JPEG XL", rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", _EXPORT),
        ("JPEG 2000", rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _EXPORT),
        ("AVIF", rb"....ftypavi", _EXPORT),
        ("HEIC", rb"....ftyp(?:hei|hev|mif1|msf1)", _EXPORT),
        ("video", rb"....ftyp|\x00...(?:moov|mdat|wide|free|skip)", _FRAMES),
        (
            "video",
            rb"\x1a\x45\xdf\xa3|RIFF....AVI |FLV\x01|OggS|\x30\x26\xb2\x75\x8e\x66\xcf|\x00\x00\x01[\xb3\xba]",
            _FRAMES,
        ),
        ("Photoshop", rb"8BPS", _EXPORT),
        ("GIMP", rb"gimp xcf", _EXPORT),
        ("OpenEXR", rb"\x76\x2f\x31\x01", _EXPORT),
        ("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)", _EXPORT),
        ("DDS", rb"DDS \x7c\x00\x00\x00", _EXPORT),
        ("icon", rb"\x00\x00[\x01\x02]\x00[\x01-\xff]\x00", _EXPORT),
        ("QOI", rb"qoif", _EXPORT),
        ("portable anymap", rb"P[1-7]\s+(?:#|\d)", _EXPORT),
        ("PDF", rb"%PDF", _EXPORT),
        ("PostScript", rb"%!PS|\xc5\xd0\xd3\xc6", _EXPORT),
        ("Parquet", rb"PAR1", _WRONG),
        ("gzip", rb"\x1f\x8b", _UNPACK),
        ("Krita or OpenRaster", rb"PK\x03\x04.{26}mimetype(?:application/x-krita|image/openraster)", _EXPORT),
        ("Excel or ZIP", rb"PK\x03\x04", _UNPACK),
        ("old Excel", rb"\xd0\xcf\x11\xe0", _WRONG),
        ("Git LFS pointer", rb"version https://git-lfs", _FETCH),
        ("git-annex pointer", rb"(?:\.\./)*/?(?:\.git/)?annex/objects/", _FETCH),
        ("HTML", _PROLOGUE + rb"<(?i:!doctype html|html|head|body)", _PAGE),
        ("SVG", _PROLOGUE + rb"<(?i:svg)", _RENDER),
        ("XML", _PROLOGUE + rb"<[?!]", _PAGE),
    )
)


def kind_of(data: bytes) -> str:
    """Return the kind of file that `data` seems to be, such as "PNG"; empty where no known kind begins so."""
    return _found(data)[0]


def advice_for(data: bytes) -> str:
    """Return what to do with a file of that kind to have a picture; empty for pictures and unknown kinds."""
    return _found(data)[1]


def _found(data: bytes) -> tuple[str, str]:
    head = data[:_HEAD_BYTES]
    kind, hint = next(((kind, hint) for kind, pattern, hint in _KINDS if pattern.match(head)), ("", ""))
    return (f"{CAMERA_RAW} (DNG, NEF, ARW, ...)", _DEVELOP) if kind == "TIFF" and is_camera_raw(data) else (kind, hint)
