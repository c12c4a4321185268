"""Tests of `tasks/dispatch/`."""
