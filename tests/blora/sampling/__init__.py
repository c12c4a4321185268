"""Tests of blora.sampling."""
