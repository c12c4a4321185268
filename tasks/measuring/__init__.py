"""What is measured beside a run: which block of a base answers to what, and B-LoRA against other methods.

block_probe.py         a block probe in the store            probe_report.py      in words and bars
benchmark.py           the paired benchmark in a folder      benchmark_report.py  its page and picture sheet
compared_methods.py    names of other methods' pictures
methods_comparison.py  their scores, seconds and bytes       methods_report.py    the same for people, with a sheet
"""
