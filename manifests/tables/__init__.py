"""The tables on disk: versioned Parquet schemas, and the one way in and out."""
