"""The `blora` command: what a person types, and what the terminal shows of it.

begin.py     init, presets, settings       main.py     validate, plan, run, rerun
operate.py   doctor, status, nightly, deploy, gc       review.py   report, review, serve, export, compare
measure.py   scores, rescore, compare-methods, probe, bench
adapters.py  adapter export
console.py   options, exit codes, how errors and tables are shown    bars.py  progress
overrides.py settings on the command line
"""
