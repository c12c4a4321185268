"""A slot's child that takes every request and never answers; it ends when its parent does."""

import sys

for _ in sys.stdin.buffer:
    pass
