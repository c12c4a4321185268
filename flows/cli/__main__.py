"""`python -m flows.cli` is the `blora` command, where that is not installed."""

from flows.cli.main import main

main()
