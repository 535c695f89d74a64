"""Benchmarks: hvtui's budgets, each measured side by side with what it is compared to, in one run.

`python -m bench` (make bench) writes docs/benchmarks.md. They are no tests: a slow machine fails nobody's change.
"""
