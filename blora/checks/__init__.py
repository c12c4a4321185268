"""Whether an adapter or a picture is broken: defects, the limits from which they are one, and their calibration."""
