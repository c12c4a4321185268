"""Objects under keys, in a local folder or an S3 bucket, and leases on them: one contract for both."""
