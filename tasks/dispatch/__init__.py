"""Work handed over, to the slots of this machine and to Prefect, and what came of it."""
