"""Tests of `tasks/report/`."""
