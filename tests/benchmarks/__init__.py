"""What packing, batching and the flow gain or cost, as ratios within one run: ``python -m tests.benchmarks.<name>``."""
