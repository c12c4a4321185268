"""Tests of `manifests/schema/`."""
