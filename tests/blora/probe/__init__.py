"""Tests of blora.probe."""
