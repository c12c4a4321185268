"""Tests of blora.adapters."""
