"""Tests of `manifests/store/`."""
