"""Tests of `manifests/parsing/`."""
