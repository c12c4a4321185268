"""Tests of `flows/scheduling/`."""
