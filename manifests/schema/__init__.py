"""What a manifest may say: fields and their bounds, rows, addresses, and the checked manifest itself."""
