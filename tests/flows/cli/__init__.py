"""Tests of `flows/cli/`."""
