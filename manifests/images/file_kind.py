"""Tell what kind of file some bytes are, from how they begin: used to explain a refusal, never to decide one."""

from __future__ import annotations

import re

_HEAD_BYTES = 512

_KINDS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for kind, pattern in (
        ("PNG", rb"\x89PNG"),
        ("JPEG", rb"\xff\xd8"),
        ("WebP", rb"RIFF....WEBP"),
        ("TIFF", rb"II\*\x00|MM\x00\*"),
        ("BMP", rb"BM.{12}[\x0c-\x7c]\x00\x00\x00"),
        ("GIF", rb"GIF8"),
        ("HEIC", rb"....ftyp(?:hei|hev|mif1|msf1)"),
        ("AVIF", rb"....ftypavi"),
        ("Photoshop", rb"8BPS"),
        ("PDF", rb"%PDF"),
        ("Parquet", rb"PAR1"),
        ("gzip", rb"\x1f\x8b"),
        ("Excel or ZIP", rb"PK\x03\x04"),
        ("old Excel", rb"\xd0\xcf\x11\xe0"),
        ("Git LFS pointer", rb"version https://git-lfs"),
        ("HTML", rb"\s*<(?:!doctype html|html)"),
        ("SVG or other XML", rb"\s*<(?:\?xml|svg)"),
    )
)


def kind_of(data: bytes) -> str:
    """Return the kind of file that `data` seems to be, such as "PNG"; empty where no known kind begins so."""
    head = data[:_HEAD_BYTES]
    return next((kind for kind, pattern in _KINDS if pattern.match(head)), "")
