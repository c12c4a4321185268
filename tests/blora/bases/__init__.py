"""Tests of blora.bases."""
