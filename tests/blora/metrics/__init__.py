"""Tests of blora.metrics."""
