"""The `blora` command: what a person types, and what the terminal shows of it.

begin.py     init
main.py      validate, plan, run, rerun    operate.py  status, nightly, deploy, gc
measure.py   scores, rescore, compare-methods, probe, bench    review.py  report, review, export, compare
adapters.py  adapter export
console.py   options, exit codes, how errors and tables are shown    bars.py  progress
overrides.py settings on the command line
"""
