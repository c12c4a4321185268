"""A run as the store has it: what was planned, what is there of it, and how it stands."""
