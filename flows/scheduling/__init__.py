"""Which item is next, and where: the board of a run, this machine's slots, and the work pool."""
