"""Tests of `tasks/planning/`."""
