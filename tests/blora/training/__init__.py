"""Tests of blora.training."""
