"""Tests of `manifests/tables/`."""
