"""Tests of blora.benchmark."""
