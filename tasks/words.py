"""Amounts as a person says them, and what is said where there is none."""

from __future__ import annotations

import math

NOT_JUDGED = "not judged for quality"
"""What is said where nothing could be: there are no limits for the base, or no check was asked for."""

_LONGEST_IN_HOURS = 48


def size_in_words(count: float) -> str:
    """Return bytes as a person says them, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def seconds_in_words(seconds: float) -> str:
    """Return a duration as a person says it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < _LONGEST_IN_HOURS * 60:
        return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes / 1440:.1f} days"


def roughly(seconds: float) -> str:
    """Return a duration that is only reckoned as a person says it: "5 s", "4 min", "2 h 10 min", "15 days"."""
    if seconds < 90:
        return f"{max(5, 5 * math.ceil(seconds / 5))} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < _LONGEST_IN_HOURS * 60:
        return f"{minutes // 60} h {minutes % 60 // 10 * 10:02d} min"
    return f"{math.ceil(minutes / 1440)} days"
