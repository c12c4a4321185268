"""Tests of `tasks/closing/`."""
