"""Untrusted pictures made safe: told by their bytes, decoded within limits, turned into upright 8-bit RGB."""
