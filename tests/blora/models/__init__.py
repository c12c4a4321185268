"""Tests of blora.models."""
