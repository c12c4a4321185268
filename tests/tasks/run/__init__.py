"""Tests of `tasks/run/`."""
