"""Tests of `tasks/review/`."""
