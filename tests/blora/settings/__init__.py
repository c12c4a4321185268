"""Tests of blora.settings."""
