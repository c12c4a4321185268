"""Tests of `tasks/figures/`."""
