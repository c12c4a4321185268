"""Tests of `manifests/images/`."""
