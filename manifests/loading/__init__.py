"""From a manifest's address to its good rows and every fault: read, assembled, expanded, pictures looked at."""
