"""Tests of `manifests/loading/`."""
