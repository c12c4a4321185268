"""Tests of `tasks/operations/`."""
