"""Tests of blora.checks."""
