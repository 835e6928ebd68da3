"""Measured figures. Each module answers one question and prints a table; `python -m benchmarks` runs all
of them and writes ``benchmarks/RESULTS.md``."""
