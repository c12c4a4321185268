"""Tests of the contracts: ids, layout, tables, store and leases on a local disk and a real S3 server."""
