"""Faults on purpose: ``python -m tests.chaos --seed 7 --kills 200``. See README.md beside this file."""
