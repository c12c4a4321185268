"""Tests of `tasks/measuring/`."""
